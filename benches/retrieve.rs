//! This bench measures what it costs to check every chunk.
//!
//! A real corpus (617 design documents, 725 people) is loaded and asked over gRPC on loopback, client and server in
//! this process. The baseline is the same server, the same engine and the same questions with an authorizer that allows
//! everything without looking. The difference is the price of authorization.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench prints, and fails by panicking"
)]

mod support {
    pub(crate) mod questions;
}

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ragward::app::App;
use ragward::authz::consistency_token::ConsistencyTokens;
use ragward::authz::{Abilities, Authorizer, AuthzError, CheckBatch, Consistency, Decisions};
use ragward::client::{Client, document_message};
use ragward::config::{Config, Overrides};
use ragward::ingest::Source;
use ragward::proto::ingest::UpsertDocumentsRequest;
use ragward::proto::retrieval::RetrieveRequest;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::retrieval::{Pages, RetrievalConfig, Retriever};
use ragward::server::{Arrived, Authentication, Services, serve};
use ragward::store_file;
use ragward::tuple_store::OnConflict;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;

use self::support::questions::QUERIES;

const PEOPLE: usize = 40;
/// The number of requests one after another.
const SEQUENTIAL: usize = 2_000;
const CONCURRENCY: usize = 16;
/// The number of requests of each concurrent caller.
const EACH: usize = 1_000;

/// The baseline: no authorization at all.
struct AllowEverything;

#[async_trait]
impl Authorizer for AllowEverything {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        Ok(Decisions::now(batch.checks.iter().map(|_| true)))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok(Arc::default())
    }

    fn abilities(&self, _consistency: Consistency) -> Abilities {
        Abilities { checks_are_local: true, ..Abilities::default() }
    }
}

#[derive(Debug)]
struct Figures {
    p50: Duration,
    p99: Duration,
    per_second: f64,
}

fn main() {
    let keps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/keps");
    if !keps.is_dir() {
        println!("skipped: there is no corpus at {}", keps.display());
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let overrides = Overrides { data: Some(data.path().to_owned()), insecure_identity: true, ..Overrides::default() };
    let mut config = Config::load(None, &overrides).unwrap();
    // The baseline keeps no records either.
    config.audit.enabled = false;
    // The runtime that loads the data ends here, with everything that it left running. So the data directory is free
    // again.
    let people = runtime().block_on(load(&config, &keps));
    runtime().block_on(compare(&config, data.path(), &people));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

async fn compare(config: &Config, data: &Path, people: &[String]) {
    let started = Instant::now();
    let app = App::open(config).await.unwrap();
    println!("data directory opened                        {:>9.1?}", started.elapsed());

    let client = serve_app(app).await;
    let ours = measure(&client, people).await;
    let client = serve_without_authorization(config, data).await;
    let baseline = measure(&client, people).await;
    println!("\n{:<28}{:>12}{:>12}{:>14}", "retrieve, k = 10, text", "p50", "p99", "requests/s");
    for (name, figures) in [("checked", &ours), ("no authorization", &baseline)] {
        println!("{name:<28}{:>12.1?}{:>12.1?}{:>14.0}", figures.p50, figures.p99, figures.per_second);
    }
    println!(
        "{:<28}{:>11.2}x{:>11.2}x{:>13.2}x",
        "checked / no authorization",
        ours.p50.as_secs_f64() / baseline.p50.as_secs_f64(),
        ours.p99.as_secs_f64() / baseline.p99.as_secs_f64(),
        ours.per_second / baseline.per_second
    );
    println!("p50 and p99 at concurrency 1 ({SEQUENTIAL} requests); requests/s at concurrency {CONCURRENCY}");
}

/// Loads the model, tuples and documents. Returns some of the people, evenly picked.
async fn load(config: &Config, keps: &Path) -> Vec<String> {
    let app = App::open(config).await.unwrap();
    let relationships = app.relationships().unwrap().default_store_or_new().unwrap();
    let started = Instant::now();
    let store = store_file::read(&keps.join("store.fga.yaml")).unwrap();
    let tuples = store.tuples.clone();
    relationships.write_model(store.model).unwrap();
    relationships.write_all(store.tuples, OnConflict::Refuse).unwrap();
    println!("model and {} tuples loaded and durable     {:>9.1?}", tuples.len(), started.elapsed());

    let started = Instant::now();
    let source = Source::Catalog { path: keps.join("catalog.jsonl"), root: keps.to_owned() };
    let (send, messages) = tokio::sync::mpsc::channel(64);
    tokio::task::spawn_blocking(move || {
        for entry in source.documents().unwrap() {
            let document = entry.unwrap().document.map(document_message);
            send.blocking_send(UpsertDocumentsRequest { collection: "keps".to_owned(), document }).unwrap();
        }
    });
    let services = app.in_process().unwrap();
    let written = services
        .client()
        .ingest()
        .upsert_documents(tokio_stream::wrappers::ReceiverStream::new(messages))
        .await
        .unwrap();
    let written = written.into_inner();
    println!(
        "{} documents ({} chunks) read and durable {:>9.1?}",
        written.documents,
        written.chunks,
        started.elapsed()
    );

    let mut people: Vec<String> = tuples.iter().map(|tuple| tuple.user.to_string()).collect();
    people.retain(|user| user.starts_with("user:") && user != "user:*");
    people.sort();
    people.dedup();
    let step = people.len() / PEOPLE;
    people.into_iter().step_by(step).take(PEOPLE).collect()
}

async fn serve_app(app: App) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { app.serve(listener, std::future::pending()).await });
    Client::at(&format!("http://{address}")).unwrap()
}

/// Serves a copy of the data without authorization. It is a copy, because only one process at a time can have a data
/// directory.
async fn serve_without_authorization(config: &Config, data: &Path) -> Client {
    let copy: PathBuf = data.join("copy");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(data.join("chunks.redb"), copy.join("chunks.redb")).unwrap();
    let store = Arc::new(ragward::vector_store::exact::ExactStore::open(&copy).unwrap());
    let retrieval = RetrievalConfig {
        relation: config.retrieval.relation.clone(),
        top_k_max: config.retrieval.top_k_max,
        candidates_max: config.retrieval.candidates_max,
        guards_checked_max: config.retrieval.guards_checked_max,
        explain_plan: false,
        ..RetrievalConfig::default()
    };
    let services = Services {
        retriever: Retriever::new(
            Arc::new(AllowEverything),
            Arc::clone(&store) as _,
            retrieval,
            Pages::new(Duration::from_mins(10)).unwrap(),
        ),
        vector_store: Arc::clone(&store) as _,
        documents: store,
        relationships: None,
        explain: false,
        authorizer: Arc::new(AllowEverything),
        authentication: Authentication::Believed,
        audit: None,
        consistency_tokens: Arc::new(ConsistencyTokens::new().unwrap()),
        request_timeout: Duration::from_secs(10),
        connections_max: config.server.connections_max,
        tls: None,
        guards: ragward::server::Guards::default(),
        request_context: ragward::identity::RequestContextRules::default(),
        login_client_id: None,
        ingest: ragward::ingest::IngestConfig::default(),
        mcp: None,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = TcpListenerStream::new(listener).map(|connection| {
        let io = connection?;
        io.set_nodelay(true)?;
        std::io::Result::Ok(Arrived { io, peer: None })
    });
    tokio::spawn(serve(services, connections, std::future::pending()));
    Client::at(&format!("http://{address}")).unwrap()
}

fn request(people: &[String], number: usize) -> RetrieveRequest {
    RetrieveRequest {
        user: people[number % people.len()].clone(),
        collection: "keps".to_owned(),
        query: Some(Query::Text(QUERIES[(number / people.len()) % QUERIES.len()].to_owned())),
        top_k: 10,
        ..RetrieveRequest::default()
    }
}

async fn measure(client: &Client, people: &[String]) -> Figures {
    let mut retrieval = client.retrieval();
    let mut latencies: Vec<Duration> = Vec::with_capacity(SEQUENTIAL);
    for number in 0..SEQUENTIAL {
        let started = Instant::now();
        retrieval.retrieve(request(people, number)).await.unwrap();
        latencies.push(started.elapsed());
    }
    latencies.sort_unstable();

    let started = Instant::now();
    let callers = (0..CONCURRENCY).map(|caller| {
        let mut retrieval = client.retrieval();
        let people = people.to_vec();
        tokio::spawn(async move {
            for number in 0..EACH {
                retrieval.retrieve(request(&people, caller * 7 + number)).await.unwrap();
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let per_second = (CONCURRENCY * EACH) as f64 / started.elapsed().as_secs_f64();
    Figures { p50: latencies[SEQUENTIAL / 2], p99: latencies[SEQUENTIAL * 99 / 100], per_second }
}
