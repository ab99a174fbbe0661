//! An `OpenFGA` server gets as many checks for the absent chunks of a re-check, and for the absent chunks and documents of
//! a fetch, as for the hidden ones.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openfga_client::client::BatchCheckRequest;
use ragward::app::{App, InProcessServer};
use ragward::audit::ObservedDetail;
use ragward::authz::replica::ReplicaMode;
use ragward::config::{AuthorizerKind, Config, Overrides};
use ragward::proto::ingest::{Chunk, Document, UpsertDocumentsRequest};
use ragward::proto::retrieval::{FetchRequest, Purpose, RecheckRequest};
use tonic::Status;

use crate::support::batch_check_reply::{Decision, Entry, Reply};
use crate::support::faulty_server::{FaultyServer, Methods};
use crate::support::running::Running;

const COLLECTION: &str = "handbook";
const CHUNKS: usize = 100;

/// The questions to the server, as user and object.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// Starts a server that allows objects whose names say that they are open, and notes its questions.
async fn serve() -> (FaultyServer, Asked) {
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    let batch_check = move |request: BatchCheckRequest| {
        let mut results = Vec::new();
        for check in request.checks {
            let key = check.tuple_key.expect("a question");
            let allowed = key.object.starts_with("document:open");
            noted.lock().expect("a lock").push((key.user, key.object));
            results.push(Entry { id: check.correlation_id, result: Some(Decision::of(allowed)) });
        }
        async move { Ok::<Reply, Status>(Reply { results }) }
    };
    (Methods::default().on("/openfga.v1.OpenFGAService/BatchCheck", batch_check).start().await, asked)
}

/// Returns a document with many chunks, one for each guard.
fn document(guards: &[String]) -> Document {
    let id = guards[0].clone();
    let chunk = |(number, guard): (usize, &String)| Chunk {
        id: format!("{id}#{number}"),
        guard: guard.clone(),
        text: "leave".to_owned(),
        ..Chunk::default()
    };
    let chunks = guards.iter().enumerate().map(chunk).collect();
    Document { id, chunks, ..Document::default() }
}

/// Returns a configuration in which the server decides, without a copy of its relationships.
fn configuration(server: &FaultyServer, cache_ttl: Duration, data: &Path) -> Config {
    let overrides = Overrides { data: Some(data.to_owned()), insecure_identity: true, ..Overrides::default() };
    let mut config = Config::load(None, &overrides).expect("a configuration");
    config.authorizer.kind = AuthorizerKind::Openfga;
    config.authorizer.replica.mode = ReplicaMode::Off;
    config.authorizer.openfga.address = server.address.clone();
    config.authorizer.openfga.store_id = Some("01JZZZZZZZZZZZZZZZZZZZZZZZ".to_owned());
    config.authorizer.openfga.authorization_model_id = Some("01JZZZZZZZZZZZZZZZZZZZZZZY".to_owned());
    config.authorizer.checks.cache_ttl = cache_ttl;
    config.authorizer.checks.changelog_poll = Duration::ZERO;
    config
}

/// Returns an open document, a hidden one, and a hidden one with a guard for each chunk.
fn documents() -> [Document; 3] {
    let of_one_guard = |guard: &str| document(&vec![guard.to_owned(); CHUNKS]);
    let of_many_guards =
        |name: &str| document(&(0..CHUNKS).map(|number| format!("document:{name}{number}")).collect::<Vec<_>>());
    [of_one_guard("document:open"), of_one_guard("document:shut"), of_many_guards("shut-each")]
}

async fn start(server: &FaultyServer, cache_ttl: Duration) -> (InProcessServer, App, tempfile::TempDir) {
    let data = tempfile::tempdir().expect("a directory");
    let app = App::open(&configuration(server, cache_ttl, data.path())).await.expect("an app");
    let services = app.in_process().expect("services");
    let messages = documents()
        .map(|document| UpsertDocumentsRequest { collection: COLLECTION.to_owned(), document: Some(document) });
    services.client().ingest().upsert_documents(tokio_stream::iter(messages)).await.expect("documents");
    (services, app, data)
}

fn ids(document: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("document:{document}#{number}")).collect()
}

/// A row: its name, hidden ids, absent ids, the number of checks that each costs, and the number of chunks that each
/// releases.
type Row = (&'static str, Vec<String>, Vec<String>, usize, usize);

/// Each question comes from a user of its own, so that no decision is remembered from another question.
#[tokio::test(flavor = "multi_thread")]
async fn absent_ids_cost_as_many_checks_as_hidden_ones() {
    let rows: [Row; 7] = [
        ("one", ids("shut", 1), ids("absent", 1), 1, 0),
        ("as many as one call takes", ids("shut-each0", 50), ids("absent", 50), 50, 0),
        ("a document of one guard", ids("shut", CHUNKS), ids("absent", CHUNKS), CHUNKS, 0),
        ("a document of many guards", ids("shut-each0", CHUNKS), ids("absent", CHUNKS), CHUNKS, 0),
        ("more than it has", ids("shut", CHUNKS + 1), ids("absent", CHUNKS + 1), CHUNKS + 1, 0),
        (
            "beside what is open",
            [ids("open", 3), ids("shut", 3)].concat(),
            [ids("open", 3), ids("absent", 3)].concat(),
            6,
            3,
        ),
        ("one twice", [ids("shut", 1), ids("shut", 1)].concat(), [ids("absent", 1), ids("absent", 1)].concat(), 1, 0),
    ];
    let (server, asked) = serve().await;
    for cache_ttl in [Duration::ZERO, Duration::from_mins(1)] {
        let (services, _app, _data) = start(&server, cache_ttl).await;
        for (number, (row, hidden, absent, checks, released)) in rows.iter().enumerate() {
            let mut costs = Vec::new();
            for (kind, chunk_ids) in [("hidden", hidden), ("absent", absent)] {
                let user = format!("user:{kind}{number}");
                let request = RecheckRequest {
                    user: user.clone(),
                    collection: COLLECTION.to_owned(),
                    chunk_ids: chunk_ids.clone(),
                    ..RecheckRequest::default()
                };
                let cost = async || {
                    let answer =
                        services.client().retrieval().recheck(request.clone()).await.expect("an answer").into_inner();
                    assert_eq!(answer.chunk_ids, ids("open", *released), "{row}, {kind}, remembered for {cache_ttl:?}");
                    let mut asked = asked.lock().expect("a lock");
                    assert!(asked.iter().all(|(of, _)| *of == user), "{row}, {kind}, remembered for {cache_ttl:?}");
                    let objects: BTreeSet<String> = asked.drain(..).map(|(_, object)| object).collect();
                    let is_decoy = |object: &&String| object.starts_with("document:ragward-decoy-");
                    (objects.len(), objects.iter().filter(is_decoy).count())
                };
                // A second question is answered from memory or asked again, in the same way for both kinds.
                costs.push((kind, [cost().await, cost().await]));
            }
            let again = if cache_ttl.is_zero() { *checks } else { 0 };
            for (kind, [first, second]) in &costs {
                assert_eq!((first.0, second.0), (*checks, again), "{row}, {kind}, remembered for {cache_ttl:?}");
            }
            let (_, [absent, _]) = costs[1];
            assert!(absent.1 >= checks - released.min(&1), "{row}, remembered for {cache_ttl:?}: {absent:?}");
        }
    }
}

/// A row of fetches: its name, hidden chunks and documents, absent ones, the number of checks that each costs, and the
/// number of chunks that each releases.
type FetchRow = (&'static str, Named, Named, usize, usize);

/// Chunks and documents that a fetch names.
#[derive(Clone, Debug)]
struct Named {
    chunk_ids: Vec<String>,
    document_ids: Vec<String>,
}

fn named(chunk_ids: Vec<String>, documents: &[&str]) -> Named {
    Named { chunk_ids, document_ids: documents.iter().map(|name| format!("document:{name}")).collect() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_of_absent_ids_costs_as_many_checks_as_one_of_hidden_ones() {
    // A document costs eight checks, unless it has more guards.
    let rows: [FetchRow; 6] = [
        ("a chunk", named(ids("shut", 1), &[]), named(ids("absent", 1), &[]), 1, 0),
        ("chunks of one guard", named(ids("shut", CHUNKS), &[]), named(ids("absent", CHUNKS), &[]), CHUNKS, 0),
        ("a document", named(vec![], &["shut"]), named(vec![], &["absent"]), 8, 0),
        ("a document and its chunks", named(ids("shut", 2), &["shut"]), named(ids("absent", 2), &["absent"]), 10, 0),
        ("beside an open document", named(vec![], &["shut", "open"]), named(vec![], &["absent", "open"]), 16, CHUNKS),
        (
            "after as many chunks as an answer has",
            named(vec![], &["open", "open", "shut"]),
            named(vec![], &["open", "open", "absent"]),
            16,
            CHUNKS,
        ),
    ];
    let (server, asked) = serve().await;
    for cache_ttl in [Duration::ZERO, Duration::from_mins(1)] {
        let (services, _app, _data) = start(&server, cache_ttl).await;
        for (number, (row, hidden, absent, checks, released)) in rows.iter().enumerate() {
            let again = if cache_ttl.is_zero() { *checks } else { 0 };
            for (kind, Named { chunk_ids, document_ids }) in [("hidden", hidden), ("absent", absent)] {
                let request = FetchRequest {
                    user: format!("user:{kind}{number}"),
                    collection: COLLECTION.to_owned(),
                    chunk_ids: chunk_ids.clone(),
                    document_ids: document_ids.clone(),
                    ..FetchRequest::default()
                };
                for (time, expected) in [("first", *checks), ("again", again)] {
                    let row = format!("{row}, {kind}, {time}, remembered for {cache_ttl:?}");
                    let answer =
                        services.client().retrieval().fetch(request.clone()).await.expect("an answer").into_inner();
                    assert_eq!(answer.chunks.len(), *released, "{row}");
                    let is_open = |chunk: &str| chunk.starts_with("document:open");
                    assert!(answer.chunks.iter().all(|chunk| is_open(&chunk.guard)), "{row}: {answer:?}");
                    let objects: BTreeSet<String> =
                        asked.lock().expect("a lock").drain(..).map(|(_, object)| object).collect();
                    assert_eq!(objects.len(), expected, "{row}: {objects:?}");
                }
            }
        }
    }
}

/// INVARIANT (one answer for every purpose): a caller that observes costs the same checks as any other, whether it asks about
/// hidden chunks or about absent ones.
#[tokio::test(flavor = "multi_thread")]
async fn an_observer_costs_as_many_checks_as_any_other_caller() {
    let (server, asked) = serve().await;
    let data = tempfile::tempdir().expect("a directory");
    let mut config = configuration(&server, Duration::ZERO, data.path());
    config.audit.observed = ObservedDetail::Ids;
    let running = Running::start(&config).await;
    running.upsert(COLLECTION, documents().to_vec()).await.expect("documents");
    let rows = [
        ("hidden", ids("shut", 3), 3),
        ("absent", ids("absent", 3), 3),
        ("open", ids("open", 3), 3),
        ("of each kind", [ids("shut", 2), ids("absent", 2), ids("open", 2)].concat(), 6),
        ("of many guards", ids("shut-each0", CHUNKS), CHUNKS),
        ("some twice", [ids("shut", 2), ids("absent", 1), ids("shut", 2), ids("absent", 1)].concat(), 3),
    ];
    for (row, chunk_ids, checks) in rows {
        let mut costs = Vec::new();
        for purpose in [Purpose::Answer, Purpose::Observe] {
            let request = RecheckRequest {
                user: "user:anne".to_owned(),
                collection: COLLECTION.to_owned(),
                chunk_ids: chunk_ids.clone(),
                purpose: purpose.into(),
                ..RecheckRequest::default()
            };
            let answer = running.client.retrieval().recheck(request).await.expect("an answer").into_inner();
            let mut objects: Vec<String> = asked.lock().expect("a lock").drain(..).map(|(_, object)| object).collect();
            objects.sort();
            costs.push((answer.chunk_ids, objects));
        }
        assert_eq!(costs[0], costs[1], "{row}");
        // Ragward asks about a released chunk once more. The object is the same, so each object is counted once.
        let distinct: BTreeSet<&String> = costs[1].1.iter().collect();
        assert_eq!(distinct.len(), checks, "{row}");
    }
    running.stop().await.expect("stopped");
}
