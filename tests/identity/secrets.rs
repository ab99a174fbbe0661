//! Secrets leave no trace: tokens, queries and the texts of chunks appear neither in logs, metrics and traces nor in
//! refusals and records. Above the level debug, no user and no object appears either.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use ragward::proto::ingest::UpsertDocumentsRequest;
use ragward::proto::retrieval::RetrieveRequest;
use ragward::proto::retrieval::retrieve_request::Query;
use serde_json::json;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::http;
use tonic::service::Routes;

use crate::identity::sources::{ANNES_TOKEN, CLIENT_SECRET, Wiki};
use crate::identity::world::{RETRIEVE, about_leave, identity, start, with_token};
use crate::support::documents::document;
use crate::support::held_port::HeldPort;
use crate::support::issuer::{SigningKey, TestIssuer};
use crate::support::running::config;
use crate::support::served::Served;

const CANARY_QUERY: &str = "kanarienvogel";
const CANARY_TEXT: &str = "zebrafink";
const CANARY_TOKEN_ID: &str = "wellensittich";
const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

/// Variables that the library for spans reads by itself. Ragward's own settings alone count.
const FOREIGN_VARIABLES: [(&str, &str); 9] = [
    ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20stieglitz,x-stieglitz=1"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-stieglitz-of-traces=1"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
    ("OTEL_RESOURCE_ATTRIBUTES", "stieglitz=1"),
    ("OTEL_SERVICE_NAME", "stieglitz"),
    ("OTEL_TRACES_SAMPLER", "always_off"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "1"),
];

/// Starts a collector of spans that keeps every byte it receives, with the headers.
pub(crate) async fn collector() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeping = Arc::clone(&kept);
    let take = move |headers: http::HeaderMap, body: axum::body::Bytes| {
        let mut kept = keeping.lock().unwrap();
        for (name, value) in &headers {
            kept.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        }
        kept.extend_from_slice(&body);
        drop(kept);
        // The answer is an empty message, with the status ahead of it.
        let answer = http::Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
        std::future::ready(answer.body(axum::body::Body::from(vec![0u8; 5])).unwrap())
    };
    let routes = Routes::from(axum::Router::new().fallback(take));
    let serving = tonic::transport::Server::builder().add_routes(routes);
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, kept)
}

pub(crate) fn http_get(address: SocketAddr, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Returns the bytes of the audit log and its head.
pub(crate) fn audit_log(data: &Path) -> String {
    let files = std::fs::read_dir(data.join("audit")).unwrap();
    files.map(|file| String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap()).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_secret_is_nowhere() {
    for level in ["info", "debug"] {
        check(level).await;
    }
}

async fn check(level: &str) {
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let (collector, spans) = collector().await;
    // The exporter does not take port 0, which means any free port.
    let metrics_port = HeldPort::new();

    let prepared = start(&data, identity(&issuer)).await;
    let texts = [format!("about leave and {CANARY_TEXT}")];
    let canary = document("document:welcome", &texts.each_ref().map(String::as_str));
    let message = UpsertDocumentsRequest { collection: "handbook".to_owned(), document: Some(canary) };
    prepared.app.in_process().unwrap().client().ingest().upsert_documents(tokio_stream::iter([message])).await.unwrap();
    prepared.stop().await.unwrap();

    let mut settings = config(&data);
    settings.server.insecure_identity = false;
    settings.identity = identity(&issuer);
    let wiki = Wiki::start().await;
    settings.sources = wiki.settings(directory.path());
    settings.telemetry.metrics_listen = Some(metrics_port.address);
    settings.telemetry.otlp_endpoint = Some(format!("http://{collector}"));
    let file = directory.path().join("ragward.toml");
    std::fs::write(&file, toml::to_string(&settings).unwrap()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    command.args(["--config", file.to_str().unwrap(), "serve", "--listen", "127.0.0.1:0"]).env("RUST_LOG", level);
    command.envs(FOREIGN_VARIABLES);
    command.stdin(Stdio::null());
    let served = Served::start(command);

    let mut claims = issuer.claims("anne", RETRIEVE);
    claims["jti"] = json!(CANARY_TOKEN_ID);
    let token = key.sign(&claims);
    let foreign = SigningKey::es256("key").sign(&claims);
    let (text, hidden) = (Query::Text(format!("leave {CANARY_QUERY}")), Query::Text(CANARY_QUERY.repeat(1_000)));
    let asked = RetrieveRequest { query: Some(text), ..about_leave("") };
    let mut client = served.client.retrieval();
    let mut request = with_token(asked.clone(), &token);
    request.metadata_mut().insert("traceparent", format!("00-{TRACE:032x}-00f067aa0ba902b7-01").parse().unwrap());
    let answer = client.retrieve(request).await.unwrap().into_inner();
    assert!(answer.chunks.iter().any(|chunk| chunk.text.contains(CANARY_TEXT)));
    let mut refusals = Vec::new();
    let refused = [
        with_token(RetrieveRequest { collection: "gone".to_owned(), ..asked.clone() }, &token),
        with_token(RetrieveRequest { top_k: 0, ..asked.clone() }, &token),
        with_token(RetrieveRequest { user: "user:bob".to_owned(), ..asked.clone() }, &token),
        with_token(RetrieveRequest { query: Some(hidden), ..asked.clone() }, &token),
        with_token(asked, &foreign),
    ];
    for request in refused {
        refusals.push(client.retrieve(request).await.unwrap_err());
    }
    let said = format!("{refusals:?}");
    let metrics = http_get(metrics_port.address, "/metrics");
    let log = served.stop().await;
    let written = audit_log(&data);
    let spans = spans.lock().unwrap().clone();

    // These must appear, so that an absence means something.
    let asked = wiki.asked();
    assert!(asked.iter().any(|head| head.contains(ANNES_TOKEN)), "{asked:?}");
    assert!(!asked.iter().any(|head| head.contains(token.as_str())), "a source gets no token of a call");
    let retrieve = "ragward.retrieval.v1.RetrievalService/Retrieve";
    for measure in [
        &format!("ragward_requests_total{{rpc=\"{retrieve}\",code=\"OK\",door=\"grpc\"}} 1"),
        "ragward_tokens_refused_total{check=\"signature\"} 1",
        "ragward_stage_duration_seconds_count{stage=\"hydrate\"} 1",
        "ragward_checks_total{outcome=\"allowed\"}",
        "ragward_source_questions_total{source=\"wiki\",outcome=\"released\"}",
        "ragward_source_duration_seconds_count{source=\"wiki\"}",
        "ragward_token_exchanges_total{source=\"wiki\",outcome=\"exchanged\"}",
    ] {
        assert!(metrics.contains(measure), "{measure}: {metrics}");
    }
    assert!(spans.windows(16).any(|bytes| bytes == TRACE.to_be_bytes()), "the caller's trace is taken up");
    let spans = String::from_utf8_lossy(&spans).into_owned();
    for part in ["call", "stage", "hydrate", "authorize", "audit", retrieve] {
        assert!(spans.contains(part), "{part}: {spans:?}");
    }
    assert!(spans.contains("user-agent: ") && spans.contains("ragward"), "{spans:?}");
    assert!(!spans.contains("stieglitz"), "the environment adds nothing: {spans:?}");
    assert!(written.contains("user:anne") && written.contains(&format!("{TRACE:032x}")), "{written}");
    assert_eq!(log.contains("stage ended"), level == "debug", "{log}");

    let parts: Vec<&str> = token.split('.').chain(foreign.split('.')).filter(|part| part.len() > 60).collect();
    let secrets = [CANARY_QUERY, CANARY_TEXT, CANARY_TOKEN_ID, ANNES_TOKEN, CLIENT_SECRET];
    let secrets = secrets.into_iter().chain(parts);
    for secret in secrets {
        for (place, text) in
            [("error", &said), ("metric", &metrics), ("log", &log), ("audit log", &written), ("span", &spans)]
        {
            assert!(!text.to_lowercase().contains(&secret.to_lowercase()), "`{secret}` in {place} at {level}: {text}");
        }
    }
    let told = [("metric", &metrics), ("span", &spans)].into_iter().chain((level == "info").then_some(("log", &log)));
    for (place, text) in told {
        assert!(!text.contains("anne") && !text.contains("document:"), "an id in {place}: {text}");
    }
}
