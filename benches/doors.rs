//! This bench measures what a door costs: the same retrievals over gRPC and as JSON over HTTP.
//!
//! A real corpus (617 design documents, 725 people) is loaded and asked on loopback, clients and server in this process.
//! The baseline is gRPC, in the same run. JSON is asked over HTTP/1.1 on kept connections, as most SDKs ask. Its answers
//! are read to the end and parsed, as gRPC's client does.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench prints, and fails by panicking"
)]

mod support {
    pub(crate) mod questions;
}

use std::path::Path;
use std::time::Duration;

use ragward::app::App;
use ragward::client::{Client, document_message};
use ragward::config::{Config, Overrides};
use ragward::ingest::Source;
use ragward::proto::ingest::UpsertDocumentsRequest;
use ragward::proto::retrieval::RetrieveRequest;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::store_file;
use ragward::tuple_store::OnConflict;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use self::support::questions::QUERIES;

const PEOPLE: usize = 40;
/// The number of requests one after another, of each way.
const SEQUENTIAL: usize = 2_000;
const CONCURRENCY: usize = 16;
/// The number of requests of each concurrent caller.
const EACH: usize = 500;
/// The ways take turns this often, so that a change of the machine's speed meets both.
const TURNS: usize = 5;
const COLLECTION: &str = "keps";

/// One way to ask.
#[derive(Clone)]
enum Way {
    Grpc(Client),
    Json { client: reqwest::Client, url: String },
}

#[derive(Debug, Default)]
struct Figures {
    alone: Vec<Duration>,
    among_others: Vec<Duration>,
    /// How long the callers beside each other took.
    took: Duration,
}

fn main() {
    let keps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/keps");
    if !keps.is_dir() {
        println!("skipped: there is no corpus at {}", keps.display());
        return;
    }
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let data = tempfile::tempdir().unwrap();
    let overrides = Overrides { data: Some(data.path().to_owned()), insecure_identity: true, ..Overrides::default() };
    let mut config = Config::load(None, &overrides).unwrap();
    config.audit.enabled = false;
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let app = App::open(&config).await.unwrap();
        let people = load(&app, &keps).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { app.serve(listener, std::future::pending()).await });
        let grpc = Way::Grpc(Client::at(&format!("http://{address}")).unwrap());
        let url = format!("http://{address}/v1/collections/{COLLECTION}/retrieve");
        let json = Way::Json { client: reqwest::Client::builder().no_proxy().build().unwrap(), url };
        let ways = [("gRPC", grpc), ("JSON", json)];
        let mut figures = [Figures::default(), Figures::default()];
        for turn in 0..TURNS {
            for place in 0..ways.len() {
                let which = (place + turn) % ways.len();
                measure(&ways[which].1, &people, &mut figures[which]).await;
            }
        }
        report(&ways.map(|(name, _)| name), figures);
    });
}

fn report(names: &[&str; 2], mut figures: [Figures; 2]) {
    println!("\n{:<28}{:>12}{:>12}{:>14}", "retrieve, k = 10, text", "p50", "p50 of 16", "requests/s");
    let mut rows = Vec::new();
    for (name, figures) in names.iter().zip(&mut figures) {
        figures.alone.sort_unstable();
        figures.among_others.sort_unstable();
        let alone = figures.alone[figures.alone.len() / 2];
        let among_others = figures.among_others[figures.among_others.len() / 2];
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let per_second = figures.among_others.len() as f64 / figures.took.as_secs_f64();
        println!("{name:<28}{alone:>12.1?}{among_others:>12.1?}{per_second:>14.0}");
        rows.push((alone.as_secs_f64(), among_others.as_secs_f64(), per_second));
    }
    let (grpc, json) = (rows[0], rows[1]);
    println!("{:<28}{:>11.2}x{:>11.2}x{:>13.2}x", "JSON / gRPC", json.0 / grpc.0, json.1 / grpc.1, json.2 / grpc.2);
    println!("p50 of one caller ({SEQUENTIAL} requests), and of {CONCURRENCY} beside each other");
}

/// Loads the model, tuples and documents. Returns some of the people, evenly picked.
async fn load(app: &App, keps: &Path) -> Vec<String> {
    let relationships = app.relationships().unwrap().default_store_or_new().unwrap();
    let store = store_file::read(&keps.join("store.fga.yaml")).unwrap();
    let mut people: Vec<String> = store.tuples.iter().map(|tuple| tuple.user.to_string()).collect();
    relationships.write_model(store.model).unwrap();
    relationships.write_all(store.tuples, OnConflict::Refuse).unwrap();
    let source = Source::Catalog { path: keps.join("catalog.jsonl"), root: keps.to_owned() };
    let (send, messages) = tokio::sync::mpsc::channel(64);
    tokio::task::spawn_blocking(move || {
        for entry in source.documents().unwrap() {
            let document = entry.unwrap().document.map(document_message);
            send.blocking_send(UpsertDocumentsRequest { collection: COLLECTION.to_owned(), document }).unwrap();
        }
    });
    let services = app.in_process().unwrap();
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    services.client().ingest().upsert_documents(messages).await.unwrap();
    services.close().await;
    people.retain(|user| user.starts_with("user:") && user != "user:*");
    people.sort();
    people.dedup();
    let step = people.len() / PEOPLE;
    people.into_iter().step_by(step).take(PEOPLE).collect()
}

impl Way {
    /// Asks once. Returns how many chunks came.
    async fn ask(&self, people: &[String], number: usize) -> usize {
        let user = &people[number % people.len()];
        let text = QUERIES[(number / people.len()) % QUERIES.len()];
        match self {
            Self::Grpc(client) => {
                let request = RetrieveRequest {
                    user: user.clone(),
                    collection: COLLECTION.to_owned(),
                    query: Some(Query::Text(text.to_owned())),
                    top_k: 10,
                    ..RetrieveRequest::default()
                };
                client.retrieval().retrieve(request).await.unwrap().into_inner().chunks.len()
            }
            Self::Json { client, url } => {
                let body = json!({ "user": user, "text": text, "topK": 10 }).to_string();
                let request = client.post(url).header("content-type", "application/json").body(body);
                let answer = request.send().await.unwrap().error_for_status().unwrap().bytes().await.unwrap();
                let answer: Value = serde_json::from_slice(&answer).unwrap();
                answer["chunks"].as_array().unwrap().len()
            }
        }
    }
}

async fn measure(way: &Way, people: &[String], figures: &mut Figures) {
    let mut chunks = 0;
    for number in 0..SEQUENTIAL / TURNS {
        let started = Instant::now();
        chunks += way.ask(people, number).await;
        figures.alone.push(started.elapsed());
    }
    assert!(chunks > 0, "the people may see something");
    let started = Instant::now();
    let callers = (0..CONCURRENCY).map(|caller| {
        let (way, people) = (way.clone(), people.to_vec());
        tokio::spawn(async move {
            let mut took = Vec::with_capacity(EACH / TURNS);
            for number in 0..EACH / TURNS {
                let started = Instant::now();
                way.ask(&people, caller * 7 + number).await;
                took.push(started.elapsed());
            }
            took
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        figures.among_others.extend(caller.await.unwrap());
    }
    figures.took += started.elapsed();
}
