//! What does a replica of a real OpenFGA save, and how soon does it see a revocation?
//!
//! A real corpus (617 design documents, 725 people) is asked by text, k = 10, by 16 callers over gRPC on loopback; OpenFGA
//! (memory datastore) runs beside it. The baseline without us is a client that searches everything and then checks what
//! it found, 50 documents a call, one call after another. Needs `openfga` on the PATH or its path in `OPENFGA_BIN`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a bench prints, and fails by panicking"
)]

#[path = "../tests/support/openfga.rs"]
mod openfga;
#[path = "../tests/support/questions.rs"]
mod questions;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openfga::OpenFga;
use questions::QUERIES;
use ragward::app::App;
use ragward::authz::openfga::{OpenFgaAuthorizer, OpenFgaConfig, OpenFgaStore, StoreSelector};
use ragward::authz::{Authorizer, Check, CheckBatch, Consistency};
use ragward::client::{Client, document_message};
use ragward::config::{AuthorizerKind, Config, Overrides, ReplicaMode};
use ragward::ingest::Source;
use ragward::proto::ingest::UpsertDocumentsRequest;
use ragward::proto::retrieval::RetrieveRequest;
use ragward::proto::retrieval::retrieve_request::Query as QueryMessage;
use ragward::relationship::{Object, Relation, RelationshipTuple, json, store_file};
use ragward::vector_store::exact::ExactStore;
use ragward::vector_store::{Query, Scope, Search, VectorStore};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

const PEOPLE: usize = 40;
const CONCURRENCY: usize = 16;
/// Each measurement ends after this time.
const DURATION: Duration = Duration::from_secs(8);
const REVOCATIONS: usize = 100;
const COLLECTION: &str = "keps";
/// What the client of the baseline searches, in the hope that ten of it may be seen.
const CLIENT_CANDIDATES: usize = 100;
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let keps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/keps");
    if !keps.is_dir() {
        println!("skipped: there is no corpus at {}", keps.display());
        return;
    }
    let server_runtime = runtime();
    let Some(server) = server_runtime.block_on(OpenFga::start()) else { return };
    let openfga = server.config("keps");
    let data = tempfile::tempdir().unwrap();
    let people = runtime().block_on(load(data.path(), &keps, &openfga));

    println!("{:<44}{:>14}{:>10}", "k = 10, text, 16 callers", "retrievals/s", "ratio");
    let client = runtime().block_on(search_then_check(data.path(), &openfga, &people));
    println!("{:<44}{client:>14.1}{:>10.1}", "a client: search, then BatchChecks of 50", 1.0);
    for (mode, name) in [
        (ReplicaMode::Off, "OpenFGA decides, no replica"),
        (ReplicaMode::Plan, "replica plans, OpenFGA decides"),
        (ReplicaMode::Decide, "replica decides"),
    ] {
        let runtime = runtime();
        let per_second = runtime.block_on(async {
            let client = serve(data.path(), &openfga, mode).await;
            retrievals_per_second(&client, &people).await
        });
        println!("{name:<44}{per_second:>14.1}{:>10.1}", per_second / client);
    }
    let (p50, p99) = runtime().block_on(revocations(data.path(), &openfga, &people[0]));
    println!(
        "\nrevocation acknowledged by OpenFGA until the replica denies ({REVOCATIONS}, default poll): p50 {p50:.0?}, p99 {p99:.0?}"
    );
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

fn config(data: &Path, openfga: &OpenFgaConfig, mode: ReplicaMode) -> Config {
    let mut config = Config::load(None, &Overrides { data: Some(data.to_owned()), ..Overrides::default() }).unwrap();
    config.authorizer.kind = AuthorizerKind::Openfga;
    config.authorizer.openfga.address.clone_from(&openfga.address);
    let StoreSelector::Name(name) = &openfga.store else { panic!("a name") };
    config.authorizer.openfga.store_name.clone_from(name);
    config.authorizer.replica.mode = mode;
    config
}

/// Loads documents into the engine, model and tuples into the server; gives some of the people, evenly picked.
async fn load(data: &Path, keps: &Path, openfga: &OpenFgaConfig) -> Vec<String> {
    let store = store_file::read(&keps.join("store.fga.yaml")).unwrap();
    let server = OpenFgaStore::open(openfga).await.unwrap();
    let model = serde_json::from_str(&json::print(store.model.source()).unwrap()).unwrap();
    server.write_model(model).await.unwrap();
    server.write_tuples(&store.tuples).await.unwrap();

    let app = App::open(&config(data, openfga, ReplicaMode::Off)).await.unwrap();
    let source = Source::Catalog { path: keps.join("catalog.jsonl"), root: keps.to_owned() };
    let (send, messages) = tokio::sync::mpsc::channel(64);
    tokio::task::spawn_blocking(move || {
        for entry in source.documents().unwrap() {
            let document = entry.unwrap().document.map(document_message);
            send.blocking_send(UpsertDocumentsRequest { collection: COLLECTION.to_owned(), document }).unwrap();
        }
    });
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    app.in_process().ingest().upsert_documents(messages).await.unwrap();

    let mut people: Vec<String> = store.tuples.iter().map(|tuple| tuple.user.to_string()).collect();
    people.retain(|user| user.starts_with("user:") && user != "user:*");
    people.sort();
    people.dedup();
    let step = people.len() / PEOPLE;
    people.into_iter().step_by(step).take(PEOPLE).collect()
}

async fn serve(data: &Path, openfga: &OpenFgaConfig, mode: ReplicaMode) -> Client {
    let app = App::open(&config(data, openfga, mode)).await.unwrap();
    let caught_up = async {
        while mode != ReplicaMode::Off && app.authorizer().lag().is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, caught_up).await.expect("a replica that catches up");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { app.serve(listener, std::future::pending()).await });
    Client::at(&format!("http://{address}")).unwrap()
}

fn request(people: &[String], number: usize) -> RetrieveRequest {
    RetrieveRequest {
        user: people[number % people.len()].clone(),
        collection: COLLECTION.to_owned(),
        query: Some(QueryMessage::Text(QUERIES[(number / people.len()) % QUERIES.len()].to_owned())),
        top_k: 10,
        ..RetrieveRequest::default()
    }
}

async fn retrievals_per_second(client: &Client, people: &[String]) -> f64 {
    let started = Instant::now();
    let callers = (0..CONCURRENCY).map(|caller| {
        let mut retrieval = client.retrieval();
        let people = people.to_vec();
        tokio::spawn(async move {
            let mut done = 0_usize;
            while started.elapsed() < DURATION {
                retrieval.retrieve(request(&people, caller * 7 + done)).await.unwrap();
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

/// The baseline: everything is searched, and what was found is checked until ten chunks may be seen.
async fn search_then_check(data: &Path, openfga: &OpenFgaConfig, people: &[String]) -> f64 {
    let store = Arc::new(ExactStore::open(data).unwrap());
    let authorizer = Arc::new(OpenFgaAuthorizer::new(openfga).unwrap());
    let relation = Relation::parse(&Config::default().retrieval.relation).unwrap();
    let started = Instant::now();
    let callers = (0..CONCURRENCY).map(|caller| {
        let (store, authorizer, relation) = (Arc::clone(&store), Arc::clone(&authorizer), relation.clone());
        let people = people.to_vec();
        tokio::spawn(async move {
            let mut done = 0_usize;
            while started.elapsed() < DURATION {
                client_retrieval(store.as_ref(), authorizer.as_ref(), &relation, &people, caller * 7 + done).await;
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

async fn client_retrieval(
    store: &ExactStore,
    authorizer: &OpenFgaAuthorizer,
    relation: &Relation,
    people: &[String],
    number: usize,
) -> usize {
    let user = Object::parse(&people[number % people.len()]).unwrap();
    let guards = store.guards(COLLECTION).await.unwrap().unwrap();
    let search = Search {
        collection: COLLECTION.to_owned(),
        query: Query::Text(QUERIES[(number / people.len()) % QUERIES.len()].to_owned()),
        filter: None,
        narrowing: None,
        min_score: None,
        per_document_max: None,
        scope: Scope::Guards { positions: (*guards.in_use).clone(), table: guards },
        limit: CLIENT_CANDIDATES,
    };
    let candidates = store.search(&search).await.unwrap();
    let guards: BTreeSet<Object> = candidates.iter().map(|candidate| candidate.guard.clone()).collect();
    let guards: Vec<Object> = guards.into_iter().collect();
    let mut allowed: BTreeSet<Object> = BTreeSet::new();
    for call in guards.chunks(50) {
        let checks =
            call.iter().map(|object| Check { user: user.clone(), relation: relation.clone(), object: object.clone() });
        let batch = CheckBatch {
            checks: checks.collect(),
            contextual: Arc::default(),
            consistency: Consistency::MinimizeLatency,
            deadline: Instant::now() + PATIENCE,
        };
        let answers = authorizer.check(&batch).await.unwrap();
        allowed.extend(answers.into_iter().filter(|a| a.allowed).map(|a| call[a.position].clone()));
        let seen = candidates.iter().filter(|candidate| allowed.contains(&candidate.guard)).count();
        if seen >= 10 {
            return seen;
        }
    }
    allowed.len()
}

/// Grants, waits until it is seen, revokes, and times until it is denied.
async fn revocations(data: &Path, openfga: &OpenFgaConfig, user: &str) -> (Duration, Duration) {
    let app = App::open(&config(data, openfga, ReplicaMode::Decide)).await.unwrap();
    let server = OpenFgaStore::open(openfga).await.unwrap();
    let batch = |object: &Object| CheckBatch {
        checks: vec![Check {
            user: Object::parse(user).unwrap(),
            relation: Relation::parse("author").unwrap(),
            object: object.clone(),
        }],
        contextual: Arc::default(),
        consistency: Consistency::MinimizeLatency,
        deadline: Instant::now() + PATIENCE,
    };
    let mut times = Vec::with_capacity(REVOCATIONS);
    for number in 0..REVOCATIONS {
        let object = Object::parse(&format!("document:revocation-{number}")).unwrap();
        let tuple = RelationshipTuple::parse(user, "author", &object.to_string()).unwrap();
        let decided = |expected: bool| {
            let (app, object) = (&app, &object);
            async move {
                while app.authorizer().check(&batch(object)).await.unwrap()[0].allowed != expected {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        };
        server.write_tuples(std::slice::from_ref(&tuple)).await.unwrap();
        timeout(PATIENCE, decided(true)).await.expect("a grant that is seen");
        server.delete_tuples(std::slice::from_ref(&tuple)).await.unwrap();
        let revoked = Instant::now();
        timeout(PATIENCE, decided(false)).await.expect("a revocation that is seen");
        times.push(revoked.elapsed());
    }
    times.sort_unstable();
    (times[REVOCATIONS / 2], times[REVOCATIONS * 99 / 100])
}
