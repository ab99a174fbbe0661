//! What no door knows gets a refusal, so that no client can believe that its call was done.

use std::collections::BTreeMap;

use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;

use crate::identity::rpcs::records;
use crate::identity::world::{RETRIEVE, identity, start};
use crate::support::issuer::{SigningKey, TestIssuer};

const RPC: &str = "/openfga.v1.OpenFGAService/Write";
const GRPC: &str = "application/grpc";

/// The answer as an HTTP client sees it.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Asked<'a> {
    verb: &'a str,
    path: &'a str,
    content_type: Option<&'a str>,
    token: Option<&'a str>,
}

async fn over_http1(address: &str, asked: Asked<'_>) -> Answer {
    let mut head = format!("{} {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n", asked.verb, asked.path);
    for (name, value) in
        [("content-type", asked.content_type.map(str::to_owned)), ("authorization", asked.token.map(bearer))]
    {
        head.extend(value.map(|value| format!("{name}: {value}\r\n")));
    }
    head += "content-length: 2\r\n\r\n{}";
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    Answer { status, headers: lines.filter_map(header).collect(), body: answer[end + 4..].to_vec() }
}

async fn over_http2(channel: &Channel, asked: Asked<'_>) -> Answer {
    let mut request = http::Request::builder().method(asked.verb).uri(format!("http://localhost{}", asked.path));
    if let Some(content_type) = asked.content_type {
        request = request.header("content-type", content_type);
    }
    if let Some(token) = asked.token {
        request = request.header("authorization", bearer(token));
    }
    let request = request.body(Body::new(Full::new(vec![0u8; 5].into()))).unwrap();
    let response = channel.clone().oneshot(request).await.unwrap();
    let header =
        |(name, value): (&http::HeaderName, &http::HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
    let (status, headers) = (response.status().as_u16(), response.headers().iter().map(header).collect());
    Answer { status, headers, body: response.into_body().collect().await.unwrap().to_bytes().to_vec() }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn nothing_that_no_door_knows_looks_done() {
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path(), identity(&issuer)).await;
    let address = running.address.to_string();
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let administrator = key.sign(&issuer.claims("anne", "ragward:administer"));
    let reader = key.sign(&issuer.claims("anne", RETRIEVE));
    let wrong = "nonsense".to_owned();

    let paths = [
        "/",
        "/v1/retrieve",
        "/v1/collections/handbook/retrieve/",
        "/collections/handbook/points/query",
        "/an.unknown.Service/Call",
        RPC,
        "/ragward.retrieval.v1.RetrievalService/Retrieve",
        "/grpc.health.v1.Health/Check",
    ];
    let verbs = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let content_types =
        [None, Some("application/json"), Some("text/plain"), Some("application/grpc-web+proto"), Some(GRPC)];
    let tokens = [("none", None), ("wrong", Some(&wrong)), ("reader", Some(&reader)), ("admin", Some(&administrator))];
    let mut expected_records: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for path in paths {
        let is_rpc = path.ends_with("Write") || path.ends_with("Retrieve") || path.ends_with("Check");
        for verb in verbs {
            for content_type in content_types {
                for (who, token) in tokens {
                    let asked = Asked { verb, path, content_type, token: token.map(String::as_str) };
                    for http2 in [false, true] {
                        let what = format!("{verb} {path} as {content_type:?} by {who}, HTTP/2 {http2}");
                        let over_grpc = http2 && content_type == Some(GRPC);
                        let is_connect = is_rpc && content_type == Some("application/json");
                        if verb == "POST" && (over_grpc || is_connect) {
                            continue;
                        }
                        let answer =
                            if http2 { over_http2(&channel, asked).await } else { over_http1(&address, asked).await };
                        let (status, code) = match (token.is_none() || who == "wrong", is_rpc, verb) {
                            (true, _, _) => (401, "UNAUTHENTICATED"),
                            (false, false, _) => (404, "NOT_FOUND"),
                            (false, true, "POST") => (415, "INVALID_ARGUMENT"),
                            (false, true, _) => (405, "UNIMPLEMENTED"),
                        };
                        assert_eq!(answer.status, status, "{what}: {answer:?}");
                        assert_eq!(answer.headers["content-type"], "application/json", "{what}");
                        assert_eq!(answer.headers["cache-control"], "no-store", "{what}");
                        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401, "{what}");
                        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{what}");
                        assert!(!answer.headers.contains_key("grpc-status"), "{what}");
                        if verb != "HEAD" {
                            let body: Value = serde_json::from_slice(&answer.body).unwrap();
                            assert_eq!(body["code"], code.to_ascii_lowercase(), "{what}");
                            assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "{what}");
                        }
                        let call = if is_rpc { path.trim_start_matches('/') } else { "unknown" };
                        *expected_records.entry((call.to_owned(), code)).or_default() += 1;
                    }
                }
            }
        }
    }

    // gRPC itself stays as it is.
    for path in ["/an.unknown.Service/Call", "/.well-known/oauth-protected-resource/api", "/"] {
        let asked = Asked { verb: "POST", path, content_type: Some(GRPC), token: Some(&administrator) };
        let answer = over_http2(&channel, asked).await;
        assert_eq!((answer.status, answer.headers["grpc-status"].as_str()), (200, "12"), "{path}: {answer:?}");
        *expected_records.entry(("unknown".to_owned(), "UNIMPLEMENTED")).or_default() += 1;
    }
    // A public document needs no token, and leaves no record.
    for (verb, path, status) in [
        ("GET", "/.well-known/oauth-protected-resource/api", 200),
        ("HEAD", "/.well-known/oauth-protected-resource/api", 200),
        ("POST", "/.well-known/oauth-protected-resource/api", 405),
        ("GET", "/.well-known/openid-configuration", 404),
    ] {
        let asked = Asked { verb, path, content_type: None, token: None };
        let answers = [("HTTP/1.1", over_http1(&address, asked).await), ("HTTP/2", over_http2(&channel, asked).await)];
        for (protocol, answer) in answers {
            assert_eq!(answer.status, status, "{verb} {path} over {protocol}: {answer:?}");
            assert_eq!(answer.headers["content-type"], "application/json", "{verb} {path} over {protocol}");
        }
    }

    running.stop().await.unwrap();
    let mut recorded: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let records = records(data.path());
    for record in &records {
        *recorded.entry((record.call.clone(), record.code.as_str())).or_default() += 1;
    }
    assert_eq!(recorded, expected_records);
}
