//! This bench measures what a replica of a real `OpenFGA` saves, and how soon it sees a revocation.
//!
//! 16 callers ask a real corpus (617 design documents, 725 people) by vector, k = 10. `OpenFGA` (memory datastore) runs
//! beside it on the same machine. The baseline without us is a client that searches the same store and then checks its
//! candidates: 50 documents a call, one call after another, and a wider search if too little is permitted. Ours is
//! asked over gRPC on loopback. It needs `openfga` on the PATH or its path in `OPENFGA_BIN`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a bench prints, and fails by panicking"
)]

mod support {
    pub(crate) mod held_port;
    pub(crate) mod openfga;
    pub(crate) mod questions;
}

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ragward::app::App;
use ragward::authz::openfga::{OpenFgaAuthorizer, OpenFgaConfig, OpenFgaStore};
use ragward::authz::replica::ReplicaMode;
use ragward::authz::{Authorizer, Check, CheckBatch, Consistency};
use ragward::chunk::Candidate;
use ragward::client::{Client, document_message};
use ragward::config::{AuthorizerKind, Config, Overrides};
use ragward::ingest::Source;
use ragward::language::{Object, Relation, RelationshipTuple, json};
use ragward::proto::ingest::UpsertDocumentsRequest;
use ragward::proto::retrieval::retrieve_request::Query as QueryMessage;
use ragward::proto::retrieval::{RetrieveRequest, Vector};
use ragward::store_file;
use ragward::vector_store::exact::ExactStore;
use ragward::vector_store::{Query, Search, SearchSpace, VectorStore};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

use self::support::openfga::OpenFga;
use self::support::questions::QUERIES;

const PEOPLE: usize = 40;
const CONCURRENCY: usize = 16;
const TOP_K: usize = 10;
const DIMENSION: usize = 256;
/// The time after which a measurement ends.
const DURATION: Duration = Duration::from_secs(8);
const REVOCATIONS: usize = 100;
const COLLECTION: &str = "keps";
/// The number of candidates in the client's first search: about 31 distinct documents of this corpus.
const CLIENT_CANDIDATES: usize = 50;
const PATIENCE: Duration = Duration::from_mins(1);

/// A row of the table.
struct Row {
    name: &'static str,
    mode: ReplicaMode,
    remembers: bool,
}

const ROWS: [Row; 4] = [
    Row { name: "OpenFGA decides, no replica, nothing remembered", mode: ReplicaMode::Off, remembers: false },
    Row { name: "replica plans, OpenFGA decides, nothing remembered", mode: ReplicaMode::Plan, remembers: false },
    Row { name: "replica plans, OpenFGA decides, warm", mode: ReplicaMode::Plan, remembers: true },
    Row { name: "replica decides, nothing remembered", mode: ReplicaMode::Decide, remembers: false },
];

fn main() {
    let keps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/keps");
    if !keps.is_dir() {
        println!("skipped: there is no corpus at {}", keps.display());
        return;
    }
    let server_runtime = runtime();
    let Some(server) = server_runtime.block_on(OpenFga::start()) else { return };
    let openfga = OpenFgaConfig { timeout: PATIENCE, ..server.config("keps") };
    let data = tempfile::tempdir().unwrap();
    let people = runtime().block_on(load(data.path(), &keps, &openfga));

    println!("k = {TOP_K} by vector, {CONCURRENCY} callers, {} people, {} queries", people.len(), QUERIES.len());
    println!("{:<54}{:>14}{:>10}", "", "retrievals/s", "/ client");
    let client = runtime().block_on(search_then_check(data.path(), &openfga, &people));
    println!("{:<54}{client:>14.1}{:>10.1}", "a client: search, then BatchChecks of 50", 1.0);
    let mut without_replica = None;
    for Row { name, mode, remembers } in ROWS {
        let per_second = runtime().block_on(async {
            let client = serve(&config(data.path(), &openfga, mode, remembers)).await;
            if remembers {
                // Every question is asked once before, since the bench measures remembering.
                let all = people.len() * QUERIES.len();
                ask(&client, &people, move |done| done * CONCURRENCY < all).await;
            }
            let started = Instant::now();
            let done = ask(&client, &people, move |_| started.elapsed() < DURATION).await;
            done as f64 / started.elapsed().as_secs_f64()
        });
        println!("{name:<54}{per_second:>14.1}{:>10.1}", per_second / client);
        let without = *without_replica.get_or_insert(per_second);
        if mode == ReplicaMode::Decide {
            println!("{:<54}{:>24.1}", "replica decides / OpenFGA decides", per_second / without);
        }
    }
    let (p50, p99) = runtime().block_on(revocations(data.path(), &openfga, &people[0]));
    println!(
        "\nrevocation acknowledged by OpenFGA until the replica denies ({REVOCATIONS}, default poll): p50 {p50:.0?}, p99 {p99:.0?}"
    );
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

fn config(data: &Path, openfga: &OpenFgaConfig, mode: ReplicaMode, remembers: bool) -> Config {
    let mut config = Config::load(None, &Overrides { data: Some(data.to_owned()), ..Overrides::default() }).unwrap();
    config.server.insecure_identity = true;
    // Timeouts never pass, since the bench measures how long a call takes.
    config.server.request_timeout = Duration::from_mins(1);
    config.authorizer.openfga.timeout = Duration::from_mins(1);
    config.authorizer.kind = AuthorizerKind::Openfga;
    config.authorizer.openfga.address.clone_from(&openfga.address);
    config.authorizer.openfga.store_name.clone_from(&openfga.store_name);
    config.authorizer.replica.mode = mode;
    config.authorizer.checks.cache_ttl = if remembers { Duration::from_mins(10) } else { Duration::ZERO };
    config
}

/// Loads documents into the engine, and model and tuples into the server. Returns some of the people, evenly picked.
async fn load(data: &Path, keps: &Path, openfga: &OpenFgaConfig) -> Vec<String> {
    let store = store_file::read(&keps.join("store.fga.yaml")).unwrap();
    let server = OpenFgaStore::open(openfga).await.unwrap();
    let model = serde_json::from_str(&json::print(store.model.source()).unwrap()).unwrap();
    server.write_model(model).await.unwrap();
    server.write_tuples(&store.tuples).await.unwrap();

    let app = App::open(&config(data, openfga, ReplicaMode::Off, false)).await.unwrap();
    let source = Source::Catalog { path: keps.join("catalog.jsonl"), root: keps.to_owned() };
    let (send, messages) = tokio::sync::mpsc::channel(64);
    tokio::task::spawn_blocking(move || {
        for entry in source.documents().unwrap() {
            let Some(mut document) = entry.unwrap().document else { continue };
            for chunk in &mut document.chunks {
                chunk.vector = embed(&chunk.text);
            }
            let document = Some(document_message(document));
            send.blocking_send(UpsertDocumentsRequest { collection: COLLECTION.to_owned(), document }).unwrap();
        }
    });
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    app.in_process().unwrap().client().ingest().upsert_documents(messages).await.unwrap();

    let mut people: Vec<String> = store.tuples.iter().map(|tuple| tuple.user.to_string()).collect();
    people.retain(|user| user.starts_with("user:") && user != "user:*");
    people.sort();
    people.dedup();
    let step = people.len() / PEOPLE;
    people.into_iter().step_by(step).take(PEOPLE).collect()
}

/// Turns a text into a vector: the hash of each word chooses a dimension. These vectors are like enough to embeddings
/// that a search finds something.
fn embed(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSION];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > 2) {
        let mut hasher = DefaultHasher::new();
        word.to_lowercase().hash(&mut hasher);
        vector[usize::try_from(hasher.finish() % 256).unwrap()] += 1.0;
    }
    // A vector of zeros would have no direction.
    vector[0] += 0.01;
    vector
}

async fn serve(config: &Config) -> Client {
    let app = open(config).await;
    let caught_up = async {
        while config.authorizer.replica.mode != ReplicaMode::Off
            && app.authorizer().abilities(Consistency::MinimizeLatency).lag.is_none()
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, caught_up).await.expect("a replica that catches up");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { app.serve(listener, std::future::pending()).await.unwrap() });
    Client::at(&format!("http://{address}")).unwrap()
}

/// Opens the app. The data directory is free once the measurement before has released it.
async fn open(config: &Config) -> App {
    for _ in 0..100 {
        match App::open(config).await {
            Ok(app) => return app,
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("the data directory stays in use");
}

/// Returns the user and the query of a caller's turn.
fn question(people: &[String], number: usize) -> (&str, &'static str) {
    (&people[number % people.len()], QUERIES[(number / people.len()) % QUERIES.len()])
}

/// Lets all callers ask, each for as long as `goes_on` accepts the number of its answers. Returns the number of
/// answers.
async fn ask(client: &Client, people: &[String], goes_on: impl Fn(usize) -> bool + Clone + Send + 'static) -> usize {
    let callers = (0..CONCURRENCY).map(|caller| {
        let (mut retrieval, people, goes_on) = (client.retrieval(), people.to_vec(), goes_on.clone());
        tokio::spawn(async move {
            let mut done = 0_usize;
            while goes_on(done) {
                let (user, query) = question(&people, caller + done * CONCURRENCY);
                let request = RetrieveRequest {
                    user: user.to_owned(),
                    collection: COLLECTION.to_owned(),
                    query: Some(QueryMessage::Vector(Vector { values: embed(query) })),
                    top_k: u32::try_from(TOP_K).unwrap(),
                    ..RetrieveRequest::default()
                };
                retrieval.retrieve(request).await.unwrap();
                done += 1;
            }
            done
        })
    });
    let mut done = 0;
    for caller in callers.collect::<Vec<_>>() {
        done += caller.await.unwrap();
    }
    done
}

/// Measures the baseline.
async fn search_then_check(data: &Path, openfga: &OpenFgaConfig, people: &[String]) -> f64 {
    let store = Arc::new(ExactStore::open(data).unwrap());
    let authorizer = Arc::new(OpenFgaAuthorizer::new(openfga).unwrap());
    let started = Instant::now();
    let callers = (0..CONCURRENCY).map(|caller| {
        let (store, authorizer, people) = (Arc::clone(&store), Arc::clone(&authorizer), people.to_vec());
        tokio::spawn(async move {
            let mut done = 0_usize;
            while started.elapsed() < DURATION {
                let (user, query) = question(&people, caller + done * CONCURRENCY);
                client_retrieval(&store, &authorizer, user, query).await;
                done += 1;
            }
            done
        })
    });
    let mut done = 0;
    for caller in callers.collect::<Vec<_>>() {
        done += caller.await.unwrap();
    }
    done as f64 / started.elapsed().as_secs_f64()
}

async fn client_retrieval(store: &ExactStore, openfga: &OpenFgaAuthorizer, user: &str, query: &str) -> usize {
    let mut limit = CLIENT_CANDIDATES;
    let mut decisions: HashMap<Object, bool> = HashMap::new();
    loop {
        let search = Search {
            collection: COLLECTION.to_owned(),
            query: Query::Vector(embed(query)),
            filter: None,
            narrowing: None,
            min_score: None,
            per_document_max: None,
            space: SearchSpace::Everything,
            limit,
            enough: usize::MAX,
        };
        let candidates = store.search(&search).await.unwrap().candidates;
        let new: BTreeSet<&Object> =
            candidates.iter().map(|c| &c.guard).filter(|guard| !decisions.contains_key(guard)).collect();
        let new: Vec<Check> = new.into_iter().map(|guard| check(user, "can_read", guard)).collect();
        for checks in new.chunks(50) {
            for answer in openfga.check(&batch(checks)).await.unwrap().list {
                decisions.insert(checks[answer.position].object.clone(), answer.allowed);
            }
        }
        let permitted: Vec<Candidate> =
            candidates.iter().filter(|c| decisions[&c.guard]).take(TOP_K).cloned().collect();
        if permitted.len() == TOP_K || candidates.len() < limit {
            return store.read(COLLECTION, Some(&search), &permitted).await.unwrap().len();
        }
        limit *= 4;
    }
}

fn check(user: &str, relation: &str, object: &Object) -> Check {
    Check { user: Object::parse(user).unwrap(), relation: Relation::parse(relation).unwrap(), object: object.clone() }
}

fn batch(checks: &[Check]) -> CheckBatch {
    let (contextual, deadline) = (Arc::default(), Instant::now() + PATIENCE);
    CheckBatch { checks: checks.to_vec(), contextual, consistency: Consistency::MinimizeLatency, deadline }
}

/// Grants a relation, waits until the grant is seen, revokes it at some point between two looks of the replica, and
/// times the denial.
async fn revocations(data: &Path, openfga: &OpenFgaConfig, user: &str) -> (Duration, Duration) {
    let config = config(data, openfga, ReplicaMode::Decide, false);
    let app = open(&config).await;
    let server = OpenFgaStore::open(openfga).await.unwrap();
    let mut times = Vec::with_capacity(REVOCATIONS);
    for number in 0..REVOCATIONS {
        let object = Object::parse(&format!("document:revocation-{number}")).unwrap();
        let tuple = RelationshipTuple::parse(user, "author", &object.to_string()).unwrap();
        let question = batch(&[check(user, "author", &object)]);
        let decided = |expected: bool| {
            let (app, question) = (&app, CheckBatch { deadline: Instant::now() + PATIENCE, ..question.clone() });
            async move {
                while app.authorizer().check(&question).await.unwrap().list[0].allowed != expected {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        };
        server.write_tuples(std::slice::from_ref(&tuple)).await.unwrap();
        timeout(PATIENCE, decided(true)).await.expect("a grant that is seen");
        // The grant was seen right after a look at the log. This spreads the revocations over the time until the next
        // look.
        let poll_ms = u64::try_from(config.authorizer.replica.poll_interval.as_millis()).unwrap();
        sleep(Duration::from_millis(u64::try_from(number).unwrap() * 37 % poll_ms)).await;
        server.delete_tuples(std::slice::from_ref(&tuple)).await.unwrap();
        let revoked = Instant::now();
        timeout(PATIENCE, decided(false)).await.expect("a revocation that is seen");
        times.push(revoked.elapsed());
    }
    times.sort_unstable();
    (times[REVOCATIONS / 2], times[REVOCATIONS * 99 / 100])
}
