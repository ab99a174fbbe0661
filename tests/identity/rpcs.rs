//! Every RPC in the descriptors asks for a token and for its scope, so that none can be forgotten.

use openfga_client::client::FILE_DESCRIPTOR_SET as OPENFGA;
use openfga_client::prost_types::FileDescriptorSet;
use prost::Message;
use ragward::audit::{AuditKey, Event, Record, read_log};
use ragward::proto::DESCRIPTORS;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;

use std::collections::BTreeMap;
use std::path::Path;

use crate::identity::world::{identity, start};
use crate::support::issuer::{SigningKey, TestIssuer};

/// Returns the paths of all RPCs, with the scope that each needs.
fn rpcs() -> Vec<(String, &'static str)> {
    let sets = [
        DESCRIPTORS,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        OPENFGA,
    ];
    let mut rpcs = Vec::new();
    for set in sets {
        for file in FileDescriptorSet::decode(set).unwrap().file {
            for service in &file.service {
                for method in &service.method {
                    let service = format!("{}.{}", file.package(), service.name());
                    let scope = match (service.as_str(), method.name()) {
                        ("ragward.retrieval.v1.RetrievalService", "Explain") => "ragward:explain",
                        ("ragward.retrieval.v1.RetrievalService", _) => "ragward:retrieve",
                        ("ragward.ingest.v1.IngestService", _) => "ragward:ingest",
                        _ => "ragward:administer",
                    };
                    rpcs.push((format!("/{service}/{}", method.name()), scope));
                }
            }
        }
    }
    rpcs
}

/// Sends an empty message and returns its gRPC status. Returns `None` if the call is let through to its stream.
async fn status(channel: &Channel, path: &str, authorization: Option<&str>) -> Option<String> {
    let mut request = http::Request::post(format!("http://any{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let request = request.body(Body::new(http_body_util::Full::new(vec![0u8; 5].into()))).unwrap();
    let response = channel.clone().oneshot(request).await.unwrap();
    response.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn every_rpc_asks_for_its_scope() {
    const UNAUTHENTICATED: &str = "16";
    const PERMISSION_DENIED: &str = "7";
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path(), identity(&issuer)).await;
    let channel = Endpoint::from_shared(format!("http://{}", running.address)).unwrap().connect().await.unwrap();
    let bearer = |scope: &str| format!("Bearer {}", key.sign(&issuer.claims("anne", scope)));
    let foreign = format!("Bearer {}", SigningKey::es256("key").sign(&issuer.claims("anne", "ragward:administer")));
    let scopes = ["ragward:retrieve", "ragward:ingest", "ragward:administer", "ragward:explain", "ragward:assert_user"];

    let rpcs = rpcs();
    assert!(rpcs.len() >= 22, "{rpcs:?}");
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for (path, needed) in rpcs.iter().cloned().chain([("/unknown.v1.Service/Call".to_owned(), "ragward:administer")]) {
        for (what, authorization) in
            [("no token", None), ("another's token", Some(foreign.as_str())), ("a password", Some("Basic YTpi"))]
        {
            assert_eq!(
                status(&channel, &path, authorization).await.as_deref(),
                Some(UNAUTHENTICATED),
                "{path}: {what}"
            );
        }
        assert_eq!(
            status(&channel, &path, Some(&bearer("openid"))).await.as_deref(),
            Some(PERMISSION_DENIED),
            "{path}"
        );
        let any_scope = path.starts_with("/grpc.reflection.");
        let name = if path.starts_with("/unknown") { "unknown" } else { path.trim_start_matches('/') };
        calls.insert(name.to_owned(), if any_scope { 5 } else { 9 });
        for scope in scopes.into_iter().filter(|scope| *scope != needed && !any_scope) {
            let found = status(&channel, &path, Some(&bearer(scope))).await;
            assert_eq!(found.as_deref(), Some(PERMISSION_DENIED), "{path}: {scope}");
        }
        let found = status(&channel, &path, Some(&bearer(needed))).await;
        assert!(!matches!(found.as_deref(), Some(UNAUTHENTICATED)), "{path}: {found:?}");
    }
    // Health is open: it tells nothing, and its callers have no tokens. Its RPCs are listed too, so that a new one is
    // noticed here.
    let health = FileDescriptorSet::decode(tonic_health::pb::FILE_DESCRIPTOR_SET).unwrap();
    let methods = health.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
    let methods: Vec<String> = methods.map(|method| method.name().to_owned()).collect();
    assert_eq!(methods, ["Check", "Watch"]);
    for method in methods {
        for (token, authorization) in [("no token", None), ("a foreign token", Some(foreign.as_str()))] {
            let found = status(&channel, &format!("/grpc.health.v1.Health/{method}"), authorization).await;
            assert!(
                found.as_deref().is_none_or(|status| status == "0"),
                "health is open: {method} with {token}: {found:?}"
            );
        }
    }

    running.stop().await.unwrap();
    let records = records(data.path());
    let mut recorded: BTreeMap<String, usize> = BTreeMap::new();
    for record in &records {
        *recorded.entry(record.call.clone()).or_default() += 1;
        let refused = ["UNAUTHENTICATED", "PERMISSION_DENIED"].contains(&record.code.as_str());
        assert!(record.refusal.is_some() || !refused, "{record:?}");
        assert_eq!(record.principal.is_some(), record.code != "UNAUTHENTICATED", "{record:?}");
    }
    assert_eq!(recorded, calls, "one record for every answer and every refusal, and none for health");
    let texts = format!("{records:?}");
    assert!(!texts.contains(bearer("openid").rsplit('.').nth(1).unwrap()), "no token");
}

pub(crate) fn records(data: &Path) -> Vec<Record> {
    let key = AuditKey::read(&data.join("audit.key")).unwrap();
    let mut records = Vec::new();
    let report = read_log(&data.join("audit"), &key, |_, _, entry| {
        if let Event::Record(record) = &entry.event {
            records.push((**record).clone());
        }
    });
    assert!(report.unwrap().is_intact());
    records
}

#[tokio::test]
async fn the_resource_tells_whose_tokens_it_takes() {
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path(), identity(&issuer)).await;
    let url = format!("http://{}/.well-known/oauth-protected-resource/api", running.address);
    // This asks over HTTP/1.1, as a browser or curl would.
    let (status, body) = get(&running.address.to_string(), &url).await;
    assert_eq!(status, "200", "{body}");
    let document: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(document["resource"], crate::support::issuer::AUDIENCE);
    assert_eq!(document["authorization_servers"], serde_json::json!([issuer.url]));
    assert_eq!(document["bearer_methods_supported"], serde_json::json!(["header"]));
    assert_eq!(document["tls_client_certificate_bound_access_tokens"], false);
    // A refusal names the document's address (RFC 9728, section 5.1), under the audience's own name.
    let refusal = crate::identity::world::retrieve(&running, "", "nonsense").await.unwrap_err();
    let challenge = refusal.metadata().get("www-authenticate").unwrap().to_str().unwrap();
    let (_, told) = challenge.split_once("resource_metadata=\"").unwrap();
    let told = told.trim_end_matches('"').replace("https://ragward.example", &format!("http://{}", running.address));
    assert_eq!(told, url);
    // Nothing else is there, with or without a token, and nothing else is open.
    for path in
        ["/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/api/x", "/.well-known/"]
    {
        let (status, body) = get(&running.address.to_string(), path).await;
        assert_eq!((status.as_str(), body.contains("ragward")), ("404", false), "{path}");
    }
    let (status, _) = get(&running.address.to_string(), "/").await;
    assert_eq!(status, "401");
}

async fn get(address: &str, url: &str) -> (String, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {url} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
}
