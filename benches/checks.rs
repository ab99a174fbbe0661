//! What do the checks of a retrieval cost with an `OpenFGA` server, and how much of that does the stack save?
//!
//! A real server (`OPENFGA_BIN`, in memory, on loopback) is loaded with a flat model and with that of a real corpus. Each
//! question has a baseline without us in the same run. Caches are off where a figure says *cold*.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench prints, and fails by panicking"
)]

#[path = "../tests/support/openfga.rs"]
mod openfga;
#[path = "../tests/support/questions.rs"]
mod questions;

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use openfga::OpenFga;
use questions::QUERIES;
use ragward::app::{App, stack_checks};
use ragward::authz::openfga::{OpenFgaAuthorizer, OpenFgaConfig, OpenFgaStore, StoreSelector};
use ragward::authz::{Authorizer, Check, CheckBatch, Consistency};
use ragward::client::{Client, document_message};
use ragward::config::{AuthorizerKind, ChecksConfig, Config, Overrides};
use ragward::ingest::Source;
use ragward::proto::ingest::UpsertDocumentsRequest;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{RetrieveRequest, Vector};
use ragward::relationship::{Object, Relation, RelationshipTuple, json, store_file};
use ragward::vector_store::exact::ExactStore;
use ragward::vector_store::{self, Scope, Search, VectorStore};
use serde_json::json as value;
use tokio::time::Instant;

const CONCURRENCY: usize = 16;
const TOP_K: usize = 10;
/// Candidates of the client's first search: about 31 distinct documents of this corpus.
const CLIENT_CANDIDATES: usize = 50;
const PEOPLE: usize = 10;
const DIMENSION: usize = 256;
const PATIENCE: Duration = Duration::from_mins(1);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(server) = OpenFga::start().await else { return };
        flat(&server).await;
        let keps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/keps");
        if keps.is_dir() {
            corpus(&server, &keps).await;
        } else {
            println!("skipped: there is no corpus at {}", keps.display());
        }
    });
}

/// What is measured is how long it takes, not whether it is in time.
fn patient(config: OpenFgaConfig) -> OpenFgaConfig {
    OpenFgaConfig { timeout: PATIENCE, ..config }
}

fn cold() -> ChecksConfig {
    ChecksConfig { cache_ttl_ms: 0, ..ChecksConfig::default() }
}

/// Nothing changes and the run is short, so that what is measured is recalling, not forgetting.
fn warm() -> ChecksConfig {
    ChecksConfig { cache_ttl_ms: 600_000, ..ChecksConfig::default() }
}

/// One relation, held directly: the server does as little as it can for a check.
async fn flat(server: &OpenFga) {
    let config = patient(server.config("flat"));
    let store = OpenFgaStore::open(&config).await.unwrap();
    let direct = value!({ "relations": { "reader": { "directly_related_user_types": [{ "type": "user" }] } } });
    let document = value!({ "type": "document", "relations": { "reader": { "this": {} } }, "metadata": direct });
    let model = value!({ "schema_version": "1.1", "type_definitions": [{ "type": "user" }, document] });
    store.write_model(model).await.unwrap();
    let tuple = |n: usize| RelationshipTuple::parse(&user(n), "reader", &format!("document:{n}")).unwrap();
    let tuples: Vec<RelationshipTuple> = (0..10_000).step_by(2).map(tuple).collect();
    store.write_tuples(&tuples).await.unwrap();
    let checks: Vec<Check> = (0..10_000).map(|n| check(&user(n), "reader", &format!("document:{n}"))).collect();
    compare("flat model, 10,000 distinct checks", &config, &checks).await;
    hot(&config).await;
}

fn user(number: usize) -> String {
    format!("user:{}", number % 100)
}

fn check(user: &str, relation: &str, object: &str) -> Check {
    Check {
        user: Object::parse(user).unwrap(),
        relation: Relation::parse(relation).unwrap(),
        object: Object::parse(object).unwrap(),
    }
}

fn batch(checks: &[Check]) -> CheckBatch {
    let (contextual, deadline) = (Arc::default(), Instant::now() + PATIENCE);
    CheckBatch { checks: checks.to_vec(), contextual, consistency: Consistency::MinimizeLatency, deadline }
}

async fn decide(authorizer: &dyn Authorizer, checks: &[Check]) -> Vec<bool> {
    let mut answers = authorizer.check(&batch(checks)).await.unwrap();
    answers.sort_unstable_by_key(|answer| answer.position);
    assert_eq!(answers.len(), checks.len());
    answers.into_iter().map(|answer| answer.allowed).collect()
}

/// One by one, in sequential calls of 50, and ours; every way must decide the same.
async fn compare(name: &str, config: &OpenFgaConfig, checks: &[Check]) {
    let bare = OpenFgaAuthorizer::new(config).unwrap();
    let stack = stack_checks(config, &cold()).unwrap();
    let remembering = stack_checks(config, &warm()).unwrap();
    decide(&bare, &checks[..50]).await;
    decide(&stack, &checks[..1]).await;

    let started = Instant::now();
    let mut expected = Vec::with_capacity(checks.len());
    for check in checks {
        expected.extend(decide(&bare, std::slice::from_ref(check)).await);
    }
    let one_by_one = started.elapsed();
    let mut rows = vec![("one by one", one_by_one)];

    let started = Instant::now();
    let mut decided = Vec::with_capacity(checks.len());
    for checks in checks.chunks(50) {
        decided.extend(decide(&bare, checks).await);
    }
    assert!(decided == expected);
    rows.push(("sequential calls of 50", started.elapsed()));

    let started = Instant::now();
    assert!(decide(&stack, checks).await == expected);
    rows.push(("ours, cold", started.elapsed()));

    tokio::time::sleep(Duration::from_secs(1)).await;
    decide(&remembering, checks).await;
    let started = Instant::now();
    assert!(decide(&remembering, checks).await == expected);
    rows.push(("ours, warm", started.elapsed()));

    println!("\n{name:<44}{:>12}{:>14}{:>16}", "time", "checks/s", "one by one / it");
    for (name, took) in rows {
        let per_second = number(checks.len()) / took.as_secs_f64();
        let ratio = one_by_one.as_secs_f64() / took.as_secs_f64();
        println!("{name:<44}{took:>12.1?}{per_second:>14.0}{ratio:>15.1}x");
    }
}

/// Sixteen callers ask the same 31 checks at the same time, again and again.
async fn hot(config: &OpenFgaConfig) {
    const ROUNDS: usize = 100;
    let checks: Vec<Check> = (0..31).map(|n| check("user:0", "reader", &format!("document:{n}"))).collect();
    let bare: Arc<dyn Authorizer> = Arc::new(OpenFgaAuthorizer::new(config).unwrap());
    let stack: Arc<dyn Authorizer> = Arc::new(stack_checks(config, &cold()).unwrap());
    let mut took = Vec::new();
    for authorizer in [bare, stack] {
        decide(authorizer.as_ref(), &checks).await;
        let started = Instant::now();
        for _ in 0..ROUNDS {
            let asking = (0..CONCURRENCY).map(|_| {
                let (authorizer, checks) = (Arc::clone(&authorizer), checks.clone());
                tokio::spawn(async move { decide(authorizer.as_ref(), &checks).await })
            });
            for asked in asking.collect::<Vec<_>>() {
                asked.await.unwrap();
            }
        }
        took.push(started.elapsed());
    }
    println!("\nhot query, cold: {CONCURRENCY} callers ask the same 31 checks, {ROUNDS} times");
    println!("{:<44}{:>12.1?}", "each for itself", took[0]);
    println!("{:<44}{:>12.1?}{:>15.1}x", "coalesced", took[1], took[0].as_secs_f64() / took[1].as_secs_f64());
}

async fn corpus(server: &OpenFga, keps: &Path) {
    let config = patient(server.config("ragward"));
    let store = OpenFgaStore::open(&config).await.unwrap();
    let file = store_file::read(&keps.join("store.fga.yaml")).unwrap();
    let model = json::print(file.model.source()).unwrap();
    store.write_model(serde_json::from_str(&model).unwrap()).await.unwrap();
    store.write_tuples(&file.tuples).await.unwrap();
    let is_person = |user: &String| user.starts_with("user:") && user != "user:*";
    let mut people: Vec<String> = file.tuples.iter().map(|tuple| tuple.user.to_string()).filter(is_person).collect();
    people.sort();
    people.dedup();
    let step = people.len() / PEOPLE;
    let people: Vec<String> = people.into_iter().step_by(step).take(PEOPLE).collect();

    let data = tempfile::tempdir().unwrap();
    let guards = load(data.path(), keps).await;
    let checks: Vec<Check> = guards
        .iter()
        .take(100)
        .flat_map(|guard| people.iter().map(move |user| check(user, "can_read", guard.as_str())))
        .collect();
    compare("corpus model, 1,000 distinct checks", &config, &checks).await;
    overhead(&config, &guards, &people).await;
    retrievals(&config, data.path(), &people).await;
}

/// The same 31 checks of one caller, by the bare batch call and through the stack, in turns.
async fn overhead(config: &OpenFgaConfig, guards: &[Object], people: &[String]) {
    const ROUNDS: usize = 100;
    let bare = OpenFgaAuthorizer::new(config).unwrap();
    let stack = stack_checks(config, &cold()).unwrap();
    let (mut bare_took, mut stack_took) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let user = &people[round % people.len()];
        let checks: Vec<Check> =
            guards.iter().skip(round).take(31).map(|g| check(user, "can_read", g.as_str())).collect();
        for turn in 0..2 {
            let started = Instant::now();
            // Who is first in a round changes: the second finds the server's own caches warm.
            if (round + turn) % 2 == 0 {
                decide(&bare, &checks).await;
                bare_took.push(started.elapsed());
            } else {
                decide(&stack, &checks).await;
                stack_took.push(started.elapsed());
            }
        }
    }
    bare_took.sort_unstable();
    stack_took.sort_unstable();
    let (bare, stack) = (bare_took[ROUNDS / 2], stack_took[ROUNDS / 2]);
    println!(
        "\none batch of 31 checks, p50, one caller: bare call {bare:.2?}, through the stack {stack:.2?}, {:+.1} %",
        (stack.as_secs_f64() / bare.as_secs_f64() - 1.0) * 100.0
    );
}

/// Takes the corpus in, with vectors of hashed words; gives its guards.
async fn load(data: &Path, keps: &Path) -> Vec<Object> {
    let app = App::open(&embedded(data)).await.unwrap();
    let source = Source::Catalog { path: keps.join("catalog.jsonl"), root: keps.to_owned() };
    let (send, messages) = tokio::sync::mpsc::channel(64);
    let reading = tokio::task::spawn_blocking(move || {
        let mut guards: Vec<Object> = Vec::new();
        for entry in source.documents().unwrap() {
            let Some(mut document) = entry.unwrap().document else { continue };
            for chunk in &mut document.chunks {
                chunk.vector = embed(&chunk.text);
            }
            guards.extend(document.chunks.first().map(|chunk| chunk.guard.clone()));
            let document = Some(document_message(document));
            send.blocking_send(UpsertDocumentsRequest { collection: "keps".to_owned(), document }).unwrap();
        }
        guards
    });
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    app.in_process().ingest().upsert_documents(messages).await.unwrap();
    reading.await.unwrap()
}

/// A word is a dimension, by its hash: near enough to an embedding for a search to have something to find.
fn embed(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSION];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > 2) {
        let mut hasher = DefaultHasher::new();
        word.to_lowercase().hash(&mut hasher);
        vector[usize::try_from(hasher.finish() % 256).unwrap()] += 1.0;
    }
    // A vector of nothing but zeros has no direction.
    vector[0] += 0.01;
    vector
}

fn embedded(data: &Path) -> Config {
    Config::load(None, &Overrides { data: Some(data.to_owned()), ..Overrides::default() }).unwrap()
}

async fn retrievals(openfga: &OpenFgaConfig, data: &Path, people: &[String]) {
    let copy = data.join("client");
    std::fs::create_dir(&copy).unwrap();
    // The writer's process may still be letting go of the file.
    std::fs::copy(data.join("chunks.redb"), copy.join("chunks.redb")).unwrap();
    let requests: Vec<(String, Vec<f32>)> =
        people.iter().flat_map(|user| QUERIES.map(|query| (user.clone(), embed(query)))).collect();
    let requests = Arc::new(requests);

    let store = Arc::new(ExactStore::open(&copy).unwrap());
    let bare = Arc::new(OpenFgaAuthorizer::new(openfga).unwrap());
    let asking = Arc::clone(&requests);
    let baseline = at_once(requests.len(), move |number| {
        let (store, bare, requests) = (Arc::clone(&store), Arc::clone(&bare), Arc::clone(&asking));
        async move {
            let (user, query) = &requests[number];
            client_retrieves(&store, &bare, user, query).await
        }
    })
    .await;

    let mut rows = vec![("client: search, then calls of 50", baseline)];
    let cold_app = app(openfga, data, cold()).await;
    rows.push(("ours, cold", ours(&cold_app, &requests, 1).await));
    drop(cold_app);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let warm_app = app(openfga, data, warm()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    rows.push(("ours, the cache filling", ours(&warm_app, &requests, 1).await));
    rows.push(("ours, warm", ours(&warm_app, &requests, 10).await));

    println!(
        "\nretrievals of k = {TOP_K} by vector, {CONCURRENCY} callers, {} people × {} queries",
        people.len(),
        QUERIES.len()
    );
    for (name, per_second) in rows {
        println!("{name:<44}{per_second:>12.1}/s{:>13.1}x", per_second / baseline);
    }
}

async fn app(openfga: &OpenFgaConfig, data: &Path, checks: ChecksConfig) -> Client {
    let mut config = embedded(data);
    config.authorizer.kind = AuthorizerKind::Openfga;
    config.authorizer.openfga.address.clone_from(&openfga.address);
    if let StoreSelector::Name(name) = &openfga.store {
        config.authorizer.openfga.store_name.clone_from(name);
    }
    config.authorizer.openfga.timeout_ms = 60_000;
    config.server.request_timeout_ms = 60_000;
    config.authorizer.checks = checks;
    for _ in 0..100 {
        match App::open(&config).await {
            Ok(app) => return app.in_process(),
            // The data directory is free once the one before has ended.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("the data directory stays in use");
}

async fn ours(client: &Client, requests: &Arc<Vec<(String, Vec<f32>)>>, rounds: usize) -> f64 {
    let (client, asking) = (client.clone(), Arc::clone(requests));
    at_once(requests.len() * rounds, move |number| {
        let (mut retrieval, requests) = (client.retrieval(), Arc::clone(&asking));
        async move {
            let (user, query) = requests[number % requests.len()].clone();
            let request = RetrieveRequest {
                user,
                collection: "keps".to_owned(),
                query: Some(Query::Vector(Vector { values: query })),
                top_k: u32::try_from(TOP_K).unwrap(),
                ..RetrieveRequest::default()
            };
            retrieval.retrieve(request).await.unwrap().into_inner().chunks.len()
        }
    })
    .await
}

/// A client without us: it searches, checks the documents that it found in one call of 50 after another, and searches
/// for more while too little is permitted.
async fn client_retrieves(store: &ExactStore, openfga: &OpenFgaAuthorizer, user: &str, query: &[f32]) -> usize {
    let mut limit = CLIENT_CANDIDATES;
    let mut decisions: HashMap<Object, bool> = HashMap::new();
    loop {
        let (query, scope) = (vector_store::Query::Vector(query.to_vec()), Scope::Everything);
        let search = Search {
            collection: "keps".to_owned(),
            query,
            filter: None,
            narrowing: None,
            min_score: None,
            per_document_max: None,
            scope,
            limit,
        };
        let candidates = store.search(&search).await.unwrap();
        let new: HashSet<&Object> =
            candidates.iter().map(|c| &c.guard).filter(|g| !decisions.contains_key(g)).collect();
        let new: Vec<Check> = new.into_iter().map(|guard| check(user, "can_read", guard.as_str())).collect();
        for checks in new.chunks(50) {
            let allowed = decide(openfga, checks).await;
            decisions.extend(checks.iter().map(|check| check.object.clone()).zip(allowed));
        }
        let permitted: Vec<String> =
            candidates.iter().filter(|c| decisions[&c.guard]).take(TOP_K).map(|c| c.chunk_id.clone()).collect();
        if permitted.len() == TOP_K || candidates.len() < limit {
            return store.read("keps", &permitted).await.unwrap().len();
        }
        limit *= 4;
    }
}

/// Runs `count` retrievals, sixteen at a time; gives how many there were in a second.
async fn at_once<F>(count: usize, retrieve: impl Fn(usize) -> F + Clone + Send + Sync + 'static) -> f64
where
    F: Future<Output = usize> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let callers = (0..CONCURRENCY).map(|_| {
        let (next, retrieve) = (Arc::clone(&next), retrieve.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                assert!(retrieve(number).await <= TOP_K);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    number(count) / started.elapsed().as_secs_f64()
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}
