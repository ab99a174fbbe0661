//! What does a record cost?
//!
//! The same requests with the audit log off and on under each `audit.fsync`, at a steady 1,000 requests a second: each
//! request is sent at its own time, whether or not the ones before were answered. The modes take turns, so that what else
//! the machine does falls on all of them. Also: what one `fdatasync` costs where the log is, which is what an answer waits
//! for under `each_batch`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench prints, and fails by panicking"
)]

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use ragward::app::App;
use ragward::client::Client;
use ragward::config::{AuditFsync, Config, Overrides};
use ragward::proto::ingest::{Chunk, Document, UpsertDocumentsRequest};
use ragward::proto::retrieval::RetrieveRequest;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::relationship::store::OnConflict;
use ragward::relationship::{RelationshipTuple, store_file};
use tokio::net::TcpListener;
use tokio::time::Instant;

const PER_SECOND: u64 = 1_000;
const SECONDS: u64 = 3;
const ROUNDS: usize = 4;
const DOCUMENTS: usize = 2_000;
const MODEL: &str =
    "model: |\n  model\n    schema 1.1\n  type user\n  type note\n    relations\n      define can_read: [user]\n";

/// A mode, and the latencies that were measured in it.
struct Mode {
    name: &'static str,
    config: Config,
    latencies: Vec<Duration>,
}

fn main() {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    fdatasync(directory.path());
    let mut modes: Vec<Mode> = [
        ("off", false, AuditFsync::EachBatch),
        ("each_batch", true, AuditFsync::EachBatch),
        ("interval", true, AuditFsync::Interval),
        ("never", true, AuditFsync::Never),
    ]
    .into_iter()
    .map(|(name, enabled, fsync)| {
        let data = Some(directory.path().join(name));
        let overrides = Overrides { data, insecure_identity: true, ..Overrides::default() };
        let mut config = Config::load(None, &overrides).unwrap();
        (config.audit.enabled, config.audit.fsync) = (enabled, fsync);
        runtime().block_on(load(&config));
        Mode { name, config, latencies: Vec::new() }
    })
    .collect();
    for round in 0..=ROUNDS {
        for mode in &mut modes {
            let latencies = runtime().block_on(measure(&mode.config));
            // The first round warms up.
            if round > 0 {
                mode.latencies.extend(latencies);
            }
        }
    }
    println!("\n{:<28}{:>12}{:>12}{:>12}", "retrieve, k = 10, text", "p50", "p99", "p50 / off");
    let mut off = Duration::ZERO;
    for mode in &mut modes {
        mode.latencies.sort_unstable();
        let count = mode.latencies.len();
        let (p50, p99) = (mode.latencies[count / 2], mode.latencies[count * 99 / 100]);
        if mode.name == "off" {
            off = p50;
        }
        println!("{:<28}{p50:>12.1?}{p99:>12.1?}{:>11.2}x", mode.name, p50.as_secs_f64() / off.as_secs_f64());
    }
    println!("{PER_SECOND} requests/s for {SECONDS} s in each of {ROUNDS} rounds, {DOCUMENTS} documents, loopback");
}

/// Appends of a record's size, each made durable.
fn fdatasync(directory: &Path) {
    let mut file = std::fs::File::create(directory.join("probe")).unwrap();
    let mut latencies: Vec<Duration> = Vec::new();
    for _ in 0..500 {
        file.write_all(&[b'x'; 900]).unwrap();
        let started = Instant::now();
        file.sync_data().unwrap();
        latencies.push(started.elapsed());
    }
    latencies.sort_unstable();
    println!("append of 900 bytes and fdatasync: p50 {:.1?}, p99 {:.1?}", latencies[250], latencies[495]);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

async fn load(config: &Config) {
    let app = App::open(config).await.unwrap();
    let file = config.data.directory.join("store.fga.yaml");
    std::fs::write(&file, MODEL).unwrap();
    let relationships = app.relationships().unwrap().default_store_or_new().unwrap();
    relationships.write_model(store_file::read(&file).unwrap().model).unwrap();
    let tuples = (0..DOCUMENTS)
        .step_by(2)
        .map(|number| RelationshipTuple::parse("user:anne", "can_read", &format!("note:{number}")).unwrap());
    relationships.write_all(tuples.collect(), OnConflict::Refuse).unwrap();
    let messages = (0..DOCUMENTS).map(|number| {
        let text = format!("a note on leave and on topic {} of {}", number % 50, number % 7);
        let chunk = Chunk { id: format!("{number}"), guard: format!("note:{number}"), text, ..Chunk::default() };
        let document = Document { id: format!("note:{number}"), title: String::new(), chunks: vec![chunk] };
        UpsertDocumentsRequest { collection: "notes".to_owned(), document: Some(document) }
    });
    let messages: Vec<UpsertDocumentsRequest> = messages.collect();
    app.in_process().ingest().upsert_documents(tokio_stream::iter(messages)).await.unwrap();
}

async fn measure(config: &Config) -> Vec<Duration> {
    let app = App::open(config).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { app.serve(listener, std::future::pending()).await });
    let client = Client::at(&format!("http://{address}")).unwrap();
    let mut every = tokio::time::interval(Duration::from_micros(1_000_000 / PER_SECOND));
    let mut calls = Vec::new();
    for number in 0..PER_SECOND * SECONDS {
        every.tick().await;
        let mut retrieval = client.retrieval();
        calls.push(tokio::spawn(async move {
            let request = RetrieveRequest {
                user: "user:anne".to_owned(),
                collection: "notes".to_owned(),
                query: Some(Query::Text(format!("leave topic {}", number % 50))),
                top_k: 10,
                ..RetrieveRequest::default()
            };
            let started = Instant::now();
            retrieval.retrieve(request).await.unwrap();
            started.elapsed()
        }));
    }
    let mut latencies = Vec::new();
    for call in calls {
        latencies.push(call.await.unwrap());
    }
    latencies
}
