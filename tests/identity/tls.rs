//! TLS on the port: gRPC and HTTP over it, a certificate that changes, and tokens that are bound to a client's certificate.

use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http_body_util::{BodyExt, Full};
use ragward::proto::retrieval::retrieval_service_client::RetrievalServiceClient;
use ragward::server_config::{TlsConfig, TlsFiles};
use ragward::settings::SecretFile;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::{Bytes, http};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tower::ServiceExt;

use crate::identity::world::{ANNES, RETRIEVE, about_leave, identity, seen, start_with, with_token};
use crate::support::certificates::{Authority, NAME, Pair};
use crate::support::issuer::{SigningKey, TestIssuer};
use crate::support::running::Running;
use crate::support::served::Served;

const RPC: &str = "/ragward.retrieval.v1.RetrievalService/Retrieve";
const QUESTION: &str = r#"{"collection": "handbook", "text": "leave", "topK": 10}"#;
/// The number of connections after which a change of the certificate must have been seen. The server looks within
/// milliseconds, and a connection takes about one.
const CONNECTIONS_MAX: usize = 20_000;

/// A server with TLS that asks clients for certificates.
struct World {
    key: SigningKey,
    issuer: TestIssuer,
    running: Running,
    authority: Authority,
    clients: Authority,
    _data: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let key = SigningKey::es256("key");
        let issuer = TestIssuer::start(&[&key]).await;
        let data = tempfile::tempdir().unwrap();
        let (authority, clients) = (Authority::new(), Authority::new());
        let files = authority.issue().write(data.path());
        let client_ca_file = data.path().join("ca.crt");
        std::fs::write(&client_ca_file, clients.pem()).unwrap();
        let tls = TlsFiles {
            cert_file: files.certificate,
            key_file: SecretFile::new(files.key),
            client_ca_file: Some(client_ca_file),
        };
        let running = start_with(data.path(), identity(&issuer), |config| {
            config.server.tls = Some(TlsConfig::Files(tls));
            config.server.hosts = vec![NAME.to_owned()];
        });
        Self { running: running.await, key, issuer, authority, clients, _data: data }
    }

    fn token(&self, confirmation: Option<Value>) -> String {
        let mut claims = self.issuer.claims("anne", RETRIEVE);
        if let Some(confirmation) = confirmation {
            claims["cnf"] = confirmation;
        }
        self.key.sign(&claims)
    }

    async fn channel(&self, shown: Option<&Pair>) -> Channel {
        self.authority.channel(self.running.address, shown).await.unwrap()
    }

    /// Asks by gRPC, with more headers. Returns the ids of the chunks, or the code of the refusal.
    async fn seen(
        &self,
        channel: &Channel,
        token: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Vec<String>, Code> {
        let mut request = with_token(about_leave(""), token);
        for (name, value) in headers {
            request.metadata_mut().insert(*name, MetadataValue::try_from(value.as_str()).unwrap());
        }
        let answer =
            RetrievalServiceClient::new(channel.clone()).retrieve(request).await.map_err(|status| status.code())?;
        let mut ids: Vec<String> = answer.into_inner().chunks.into_iter().map(|chunk| chunk.id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Returns a client of HTTP/1.1.
    fn http1(&self, shown: Option<&Pair>) -> reqwest::Client {
        let client = reqwest::Client::builder().tls_backend_preconfigured(self.authority.client(shown)).no_proxy();
        client.resolve(NAME, self.running.address).build().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("https://{NAME}:{}{path}", self.running.address.port())
    }

    /// Asks by JSON over HTTP/1.1. Returns the status, and whether there is a challenge.
    async fn status_over_http1(&self, shown: Option<&Pair>, token: &str) -> (u16, bool) {
        let client = self.http1(shown);
        let request = client
            .post(self.url(RPC))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {token}"))
            .body(QUESTION);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.version(), reqwest::Version::HTTP_11);
        (answer.status().as_u16(), answer.headers().contains_key("www-authenticate"))
    }
}

fn thumbprint(pair: &Pair) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, &pair.certificate))
}

#[tokio::test]
async fn every_protocol_is_spoken_over_tls() {
    let world = World::start().await;
    let token = world.token(None);
    let channel = world.channel(None).await;
    assert_eq!(world.seen(&channel, &token, &[]).await.unwrap(), ANNES, "gRPC");
    assert_eq!(world.status_over_http1(None, &token).await, (200, false), "JSON over HTTP/1.1");

    let request = http::Request::post(format!("https://any{RPC}"))
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {token}"))
        .body(Body::new(Full::new(Bytes::from_static(QUESTION.as_bytes()))));
    let answer = channel.oneshot(request.unwrap()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2), "JSON over HTTP/2");
    let answer: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(answer["chunks"].as_array().unwrap().len(), ANNES.len());

    // Clients learn that they may bind their tokens.
    let document = world.http1(None).get(world.url("/.well-known/oauth-protected-resource/api")).send().await.unwrap();
    let document: Value = serde_json::from_slice(&document.bytes().await.unwrap()).unwrap();
    assert_eq!(document["tls_client_certificate_bound_access_tokens"], true);

    // Nothing is answered without TLS, and nothing to a client that trusts somebody else.
    assert!(seen(&world.running, "", &token).await.is_err());
    assert!(Authority::new().channel(world.running.address, None).await.is_err());
}

type BoundTokenRow<'a> = (&'a str, &'a Channel, &'a str, &'a [(&'static str, String)], bool);

#[tokio::test]
async fn a_bound_token_needs_its_certificate_at_each_call() {
    let world = World::start().await;
    let (own, other) = (world.clients.issue(), world.clients.issue());
    let (with_own, with_other, with_none) =
        (world.channel(Some(&own)).await, world.channel(Some(&other)).await, world.channel(None).await);
    let another_with_own = world.channel(Some(&own)).await;
    let own_only = json!({"x5t#S256": thumbprint(&own)});
    let bound = world.token(Some(own_only.clone()));
    let key = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    let by_key = world.token(Some(json!({"jkt": key})));
    let by_both = world.token(Some(json!({"jkt": key, "x5t#S256": thumbprint(&own)})));
    let bearer = world.token(None);
    let der = STANDARD.encode(&own.certificate);
    let forwarded: Vec<(&'static str, String)> = vec![
        ("x-forwarded-client-cert", format!("Hash={};Cert=\"{der}\"", thumbprint(&own))),
        ("x-client-cert", der.clone()),
        ("x-ssl-client-cert", der.clone()),
        ("ssl-client-cert", der.clone()),
        ("client-cert", format!(":{der}:")),
        ("x-amzn-mtls-clientcert-leaf", der),
        ("x5t", thumbprint(&own)),
    ];
    // The rows run in order: the token is remembered after the first one.
    let rows: [BoundTokenRow<'_>; 12] = [
        ("a bound token with its certificate", &with_own, &bound, &[], true),
        ("as a plain bearer, on another connection", &with_none, &bound, &[], false),
        ("with another certificate", &with_other, &bound, &[], false),
        ("with its certificate in headers", &with_none, &bound, &forwarded, false),
        ("with another certificate and its own in headers", &with_other, &bound, &forwarded, false),
        ("with its certificate again", &with_own, &bound, &[], true),
        ("with its certificate on another connection", &another_with_own, &bound, &[], true),
        ("a token for a key", &with_own, &by_key, &[], false),
        ("a token for a key and a certificate", &with_own, &by_both, &[], false),
        ("a token for no certificate, with one", &with_own, &bearer, &[], true),
        ("a token for no certificate, with another", &with_other, &bearer, &[], true),
        ("a token for no certificate, without", &with_none, &bearer, &[], true),
    ];
    for (row, channel, token, headers, is_taken) in rows {
        let expected = if is_taken { Ok(ANNES.map(str::to_owned).to_vec()) } else { Err(Code::Unauthenticated) };
        assert_eq!(world.seen(channel, token, headers).await, expected, "{row}");
    }
    // The other door asks the same gate.
    let rows = [
        ("with its certificate", Some(&own), (200, false)),
        ("with another", Some(&other), (401, true)),
        ("without", None, (401, true)),
    ];
    for (row, shown, expected) in rows {
        assert_eq!(world.status_over_http1(shown, &bound).await, expected, "JSON {row}");
    }
    // A bound token that was never seen with its certificate is refused as well.
    let mut claims = world.issuer.claims("anne", RETRIEVE);
    (claims["jti"], claims["cnf"]) = (json!("new"), own_only);
    let new = world.key.sign(&claims);
    assert_eq!(world.seen(&with_none, &new, &[]).await, Err(Code::Unauthenticated));
    assert!(world.seen(&with_own, &new, &[]).await.is_ok());

    let stranger = Authority::new().issue();
    let refused = world.authority.channel(world.running.address, Some(&stranger)).await;
    // The server refuses a certificate after the client has done its part, so the first call may be the one that fails.
    if let Ok(channel) = refused {
        assert!(world.seen(&channel, &bearer, &[]).await.is_err(), "a certificate of a stranger");
    }
}

/// `ragward` with the TLS of these files, or of this word.
fn ragward(arguments: &[&str], tls: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    command.args(arguments).stdin(Stdio::null()).env_remove("RAGWARD_CONFIG");
    command.envs(tls.iter().map(|(name, value)| (format!("RAGWARD__SERVER__{name}"), *value)));
    command
}

/// Asks for the health of a server over a connection that was made before.
async fn health(client: &mut h2::client::SendRequest<Bytes>) -> u16 {
    let request = http::Request::post(format!("https://{NAME}/grpc.health.v1.Health/Check"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    answer.await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_signal_brings_the_new_certificate_and_ends_no_connection() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let first = authority.issue();
    let files = first.write(directory.path());
    let data = directory.path().join("data");
    let arguments = ["serve", "--insecure-identity", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let tls = [("TLS__CERT_FILE", files.certificate.to_str().unwrap()), ("TLS__KEY_FILE", files.key.to_str().unwrap())];
    let served = Served::start(ragward(&arguments, &tls));
    let address = served.address.parse().unwrap();

    let stream = authority.connect(address).await.unwrap();
    let shown = |stream: &tokio_rustls::client::TlsStream<tokio::net::TcpStream>| {
        let (_, session) = stream.get_ref();
        session.peer_certificates().unwrap()[0].clone()
    };
    assert_eq!(shown(&stream), first.certificate);
    let (old, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut old = old.ready().await.unwrap();
    assert_eq!(health(&mut old).await, 200);

    let second = authority.issue();
    second.write(directory.path());
    let hangup = Command::new("kill").args(["-HUP", &served.process.id().to_string()]).status().unwrap();
    assert!(hangup.success());
    let mut is_new = false;
    for _ in 0..CONNECTIONS_MAX {
        is_new = shown(&authority.connect(address).await.unwrap()) == second.certificate;
        if is_new {
            break;
        }
    }
    assert!(is_new, "the new certificate was not taken");
    let mut old = old.ready().await.unwrap();
    assert_eq!(health(&mut old).await, 200, "the old connection goes on");

    drop(old);
    drop(connection.await);
    let log = served.stop().await;
    assert_eq!(log.matches("the files of `server.tls` have changed").count(), 1, "{log}");
}

type RefusalRow<'a> = (&'a str, Vec<&'a str>, &'a [(&'a str, &'a str)], Option<&'a str>);

#[test]
fn an_address_that_others_reach_needs_tls() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let files = authority.issue().write(directory.path());
    let data = directory.path().join("data");
    let at = |command: &'static [&'static str], listen: &'static str| {
        [command, &["--insecure-identity", "--listen", listen, "--data", data.to_str().unwrap()]].concat()
    };
    let (validate, serve): (&[&str], &[&str]) = (&["config", "validate"], &["serve"]);
    let pair =
        [("TLS__CERT_FILE", files.certificate.to_str().unwrap()), ("TLS__KEY_FILE", files.key.to_str().unwrap())];
    let nowhere = [("TLS__CERT_FILE", "/nowhere/tls.crt"), ("TLS__KEY_FILE", "/nowhere/tls.key")];
    let rows: [RefusalRow<'_>; 7] = [
        ("loopback", at(validate, "127.0.0.1:0"), &[], None),
        (
            "every address",
            at(validate, "0.0.0.0:0"),
            &[],
            Some("in `[server.tls]`, or set `server.tls = \"elsewhere\"`"),
        ),
        ("every address, served", at(serve, "0.0.0.0:0"), &[], Some("`server.listen` is `0.0.0.0:0`")),
        ("every address of IPv6, served", at(serve, "[::]:0"), &[], Some("`server.listen` is `[::]:0`")),
        ("behind a proxy", at(validate, "0.0.0.0:0"), &[("TLS", "elsewhere")], None),
        ("with a certificate", at(validate, "0.0.0.0:0"), &pair, None),
        ("with files that are not there", at(validate, "127.0.0.1:0"), &nowhere, Some("/nowhere/tls.crt")),
    ];
    for (row, arguments, tls, refusal) in rows {
        let output = ragward(&arguments, tls).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(if refusal.is_some() { 2 } else { 0 }), "{row}: {text}");
        assert!(refusal.is_none_or(|refusal| text.contains(refusal)), "{row}: {text}");
    }
}
