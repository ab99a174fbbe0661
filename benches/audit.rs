//! This bench measures what a record costs.
//!
//! It sends the same requests with the audit log off, and with it on under each `audit.fsync`, at a steady 1,000
//! requests a second: each request is sent at its own time, whether or not the ones before it were answered. The modes
//! take turns of a quarter of a second. Each turn is compared with the turn without a log next to it, so that other
//! work of the machine affects both. The bench prints the median of these ratios, with its quartiles. It also measures
//! one `fdatasync` in the folder of the log, because an answer waits for one under `each_batch`.

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
use ragward::audit::FsyncPolicy;
use ragward::client::Client;
use ragward::config::{Config, Overrides};
use ragward::language::RelationshipTuple;
use ragward::proto::ingest::{Chunk, Document, UpsertDocumentsRequest};
use ragward::proto::retrieval::RetrieveRequest;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::store_file;
use ragward::tuple_store::OnConflict;
use tokio::net::TcpListener;
use tokio::time::Instant;

const PER_SECOND: u32 = 1_000;
/// The number of requests in one turn.
const TURN: u32 = 250;
const ROUNDS: usize = 48;
/// The first rounds warm up, and are not counted.
const WARM_UP: usize = 8;
const DOCUMENTS: usize = 2_000;
const MODEL: &str =
    "model: |\n  model\n    schema 1.1\n  type user\n  type note\n    relations\n      define can_read: [user]\n";

/// The allocator of the server itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A mode with its server, the latencies that were measured in it, and the median of each of its turns.
struct Mode {
    name: &'static str,
    client: Client,
    latencies: Vec<Duration>,
    turns: Vec<Duration>,
}

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    fdatasync(directory.path());
    let kinds = [
        ("off", false, FsyncPolicy::EachBatch),
        ("each_batch", true, FsyncPolicy::EachBatch),
        ("interval", true, FsyncPolicy::Interval),
        ("never", true, FsyncPolicy::Never),
    ];
    let mut modes = Vec::new();
    for (name, enabled, fsync) in kinds {
        let data = Some(directory.path().join(name));
        let overrides = Overrides { data, insecure_identity: true, ..Overrides::default() };
        let mut config = Config::load(None, &overrides).unwrap();
        (config.audit.enabled, config.audit.fsync) = (enabled, fsync);
        // The thread has a runtime of its own, which ends and releases the data.
        std::thread::spawn({
            let config = config.clone();
            move || tokio::runtime::Runtime::new().unwrap().block_on(load(&config))
        })
        .join()
        .unwrap();
        modes.push(Mode { name, client: serve(&config).await, latencies: Vec::new(), turns: Vec::new() });
    }
    for round in 0..WARM_UP + ROUNDS {
        // Each mode comes first in some rounds, so that none always follows the same one.
        modes.rotate_left(1);
        for mode in &mut modes {
            let latencies = sorted(turn(&mode.client).await);
            if round >= WARM_UP {
                mode.turns.push(latencies[latencies.len() / 2]);
                mode.latencies.extend(latencies);
            }
        }
    }
    let off = modes.iter().find(|mode| mode.name == "off").unwrap().turns.clone();
    println!("\n{:<24}{:>10}{:>10}{:>12}{:>18}", "retrieve, k = 10, text", "p50", "p99", "p50 / off", "quartiles");
    for (name, ..) in kinds {
        let mode = modes.iter().find(|mode| mode.name == name).unwrap();
        let latencies = sorted(mode.latencies.clone());
        let (p50, p99) = (latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100]);
        let mut ratios: Vec<f64> =
            mode.turns.iter().zip(&off).map(|(with, without)| with.as_secs_f64() / without.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        let [low, middle, high] = [1, 2, 3].map(|quarter| ratios[ratios.len() * quarter / 4]);
        println!("{name:<24}{p50:>10.1?}{p99:>10.1?}{middle:>12.3}{:>18}", format!("{low:.2}-{high:.2}"));
    }
    println!(
        "{PER_SECOND} requests/s, {ROUNDS} turns of {TURN} requests in each mode, {DOCUMENTS} documents, loopback"
    );
}

fn sorted(mut latencies: Vec<Duration>) -> Vec<Duration> {
    latencies.sort_unstable();
    latencies
}

/// Appends as many bytes as a record has, again and again, and makes each append durable.
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
    app.in_process().unwrap().client().ingest().upsert_documents(tokio_stream::iter(messages)).await.unwrap();
}

async fn serve(config: &Config) -> Client {
    let app = App::open(config).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { app.serve(listener, std::future::pending()).await });
    Client::at(&format!("http://{address}")).unwrap()
}

async fn turn(client: &Client) -> Vec<Duration> {
    let mut every = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    let mut calls = Vec::new();
    for number in 0..TURN {
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
