//! This bench measures how much the time of an answer tells a caller about documents that the caller may not see.
//!
//! One user asks a server in this process, over gRPC but without a network. The questions alternate between something
//! that is hidden and something that does not exist. Each row is the area under the curve (AUC): if one answer of each
//! kind is picked, this is the chance that the slower one is about what is hidden. 0.5 tells nothing; with 1, a single
//! answer tells it. The baseline asks about two things that do not exist, and its distance from 0.5 is the noise of the
//! method. The order changes from turn to turn, so that drift affects both alike.
//!
//! The network is left out because its noise would cover the difference, and a patient attacker can average that noise
//! away.
//!
//! Three authorizers decide: the embedded evaluator, as a replica of an `OpenFGA` server does in its default mode; one
//! that takes as long as a call to a server, 1 ms and 76 µs for a check (measured by `checks`); and a real server
//! (`OPENFGA_BIN`) without a replica and without the cache.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints, fails by panicking, and counts what is far below 2^52"
)]

mod support {
    #[expect(dead_code, reason = "nothing is shuffled here")]
    pub(crate) mod dice;
    pub(crate) mod held_port;
    pub(crate) mod openfga;
}

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ragward::app::stack_checks;
use ragward::authz::ChecksConfig;
use ragward::authz::consistency_token::ConsistencyTokens;
use ragward::authz::embedded::EmbeddedAuthorizer;
use ragward::authz::openfga::OpenFgaStore;
use ragward::authz::{Authorizer, AuthzError, CheckBatch, Decisions};
use ragward::chunk::{Chunk, Document, Metadata};
use ragward::client::Client;
use ragward::config::{Config, Overrides};
use ragward::language::{Object, Relation, RelationshipTuple, dsl, json};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{RecheckRequest, RetrieveRequest, Vector};
use ragward::retrieval::{Pages, RetrievalConfig, Retriever};
use ragward::server::{Arrived, Authentication, Services, serve};
use ragward::tuple_store::{OnConflict, RelationshipStores};
use ragward::vector_store::DocumentStore;
use ragward::vector_store::exact::ExactStore;
use tokio::io::DuplexStream;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use self::support::dice::Dice;
use self::support::openfga::OpenFga;

const COLLECTION: &str = "c";
/// The number of documents that have one chunk each. Every other one is hidden.
const DOCUMENTS: usize = 4_000;
/// A hidden document with many chunks of one guard.
const LONG_DOCUMENT: &str = "document:long";
const LONG_CHUNKS: usize = 100;
/// The number of hidden documents with the rare word.
const RARE: usize = 10;
/// The number of hidden documents near one vector.
const NEAR: usize = 100;
const DIMENSION: usize = 64;
/// The number of questions of each kind that come first and are not counted.
const WARM_UP: usize = 100;

/// The visible documents are in one folder, the hidden ones in another.
const MODEL: &str = "
model
  schema 1.1
type user
type folder
  relations
    define viewer: [user]
type document
  relations
    define folder: [folder]
    define can_read: [user] or viewer from folder
";

/// The time that the double waits in each call, and the additional time for each check in it.
const CALL: Duration = Duration::from_millis(1);
const CHECK: Duration = Duration::from_micros(76);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let data = tempfile::tempdir().unwrap();
        let store = Arc::new(ExactStore::open(data.path()).unwrap());
        let mut dice = Dice::new(1);
        store.upsert(COLLECTION, documents(&mut dice)).await.unwrap();
        let relationships = RelationshipStores::open(data.path()).unwrap();
        let own = relationships.default_store_or_new().unwrap();
        own.write_model(dsl::load(MODEL).unwrap()).unwrap();
        own.write_all(tuples(), OnConflict::Refuse).unwrap();

        println!("| decided by | asked in turn, about what is hidden and what is not there | AUC | p50, hidden | p50, absent | ratio | samples |");
        println!("|---|---|---|---|---|---|---|");
        let client = client(&store, Arc::new(EmbeddedAuthorizer::new(relationships)));
        measure(&client, "embedded", 2_000, &[texts(), vectors(), rechecks()].concat()).await;
        // Without a visible set, a text query checks every guard ahead, whatever its words.
        let client = self::client(&store, Arc::new(Slow));
        measure(&client, "as slow as a server", 200, &[vectors(), rechecks()].concat()).await;
        if let Some(server) = OpenFga::start().await {
            let client = self::client(&store, remote(&server).await);
            measure(&client, "OpenFGA", 200, &rechecks()).await;
        }
    });
}

fn is_visible(number: usize) -> bool {
    number.is_multiple_of(2)
}

fn tuples() -> Vec<RelationshipTuple> {
    let tuple = |user: &str, relation, object: &str| RelationshipTuple::parse(user, relation, object).unwrap();
    let folder = |number| if is_visible(number) { "folder:open" } else { "folder:shut" };
    let in_folder = (0..DOCUMENTS).map(|number| tuple(folder(number), "folder", &format!("document:{number}")));
    let others = [
        tuple("folder:shut", "folder", LONG_DOCUMENT),
        tuple("user:anne", "viewer", "folder:open"),
        tuple("user:bob", "viewer", "folder:shut"),
    ];
    in_folder.chain(others).collect()
}

/// An axis of the vectors. The visible vectors are distributed evenly around the last three axes; some hidden ones are
/// near the first of these.
#[derive(Clone, Copy)]
enum Axis {
    NearHidden,
    Far,
    OtherFar,
}

impl Axis {
    fn place(self) -> usize {
        DIMENSION - 3 + self as usize
    }

    fn query(self) -> Asked {
        let mut values = vec![0.0; DIMENSION];
        if let Some(value) = values.get_mut(self.place()) {
            *value = 1.0;
        }
        Asked::Search(Query::Vector(Vector { values }))
    }
}

fn documents(dice: &mut Dice) -> Vec<Document> {
    let mut number = || dice.below(2_000) as f32 / 1_000.0 - 1.0;
    let mut visible = Vec::new();
    let mut documents = Vec::new();
    for document in 0..DOCUMENTS {
        let (words, vector) = if is_visible(document) {
            // Three visible documents in a row share one vector. Its last three coordinates rotate by one place from
            // each document to the next.
            let turn = document / 2 % 3;
            if turn == 0 {
                visible = (0..DIMENSION).map(|_| number()).collect();
            }
            let mut vector = visible.clone();
            if let Some(last) = vector.get_mut(DIMENSION - 3..) {
                last.rotate_left(turn);
            }
            ("public", vector)
        } else {
            let mut vector: Vec<f32> = (0..DIMENSION - 3).map(|_| number() / 20.0).collect();
            vector.resize(DIMENSION, 0.0);
            if let Some(value) = vector.get_mut(Axis::NearHidden.place()).filter(|_| document < 2 * NEAR) {
                *value = 1.0;
            }
            (if document < 2 * RARE { "zephyrine saffron" } else { "saffron" }, vector)
        };
        documents.push(self::document(&format!("document:{document}"), 1, words, &vector));
    }
    documents.push(document(LONG_DOCUMENT, LONG_CHUNKS, "saffron", &[]));
    documents
}

fn document(id: &str, chunks: usize, words: &str, vector: &[f32]) -> Document {
    let chunk = |number| Chunk {
        id: format!("{id}#{number}"),
        document_id: id.to_owned(),
        guard: Object::parse(id).unwrap(),
        title: String::new(),
        heading_path: Vec::new(),
        text: format!("how to ask for leave {words} page {number}"),
        metadata: Metadata::new(),
        vector: vector.to_vec(),
    };
    Document { id: id.to_owned(), title: String::new(), chunks: (0..chunks).map(chunk).collect() }
}

/// Decides as the tuples say, and takes as long as a server.
struct Slow;

#[async_trait]
impl Authorizer for Slow {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        let (started, checks) = (Instant::now(), u32::try_from(batch.checks.len()).unwrap());
        // A timer of the runtime is too coarse: its unit is as long as a whole call. So this yields in a loop.
        while started.elapsed() < CALL + CHECK * checks {
            tokio::task::yield_now().await;
        }
        let is_allowed = |object: &Object| object.id().parse().is_ok_and(is_visible);
        Ok(Decisions::now(batch.checks.iter().map(|check| is_allowed(&check.object))))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok(Arc::default())
    }
}

async fn remote(server: &OpenFga) -> Arc<dyn Authorizer> {
    let config = server.config("timing");
    let store = OpenFgaStore::open(&config).await.unwrap();
    let model = json::print(dsl::load(MODEL).unwrap().source()).unwrap();
    store.write_model(serde_json::from_str(&model).unwrap()).await.unwrap();
    store.write_tuples(&tuples()).await.unwrap();
    let checks = ChecksConfig { cache_ttl: Duration::ZERO, ..ChecksConfig::default() };
    Arc::new(stack_checks(&config, &checks).unwrap())
}

/// Returns a client of a server over these backends, without a network.
fn client(store: &Arc<ExactStore>, authorizer: Arc<dyn Authorizer>) -> Client {
    let config = Config::load(None, &Overrides::default()).unwrap();
    let retrieval = RetrievalConfig {
        relation: Relation::parse("can_read").unwrap(),
        top_k_max: config.retrieval.top_k_max,
        candidates_max: config.retrieval.candidates_max,
        guards_checked_max: config.retrieval.guards_checked_max,
        explain_plan: false,
        ..RetrievalConfig::default()
    };
    let services = Services {
        retriever: Retriever::new(
            Arc::clone(&authorizer),
            Arc::clone(store) as _,
            retrieval,
            Pages::new(Duration::from_mins(10)).unwrap(),
        ),
        vector_store: Arc::clone(store) as _,
        documents: Arc::clone(store) as _,
        relationships: None,
        explain: false,
        authorizer,
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
    let (connections, incoming) = tokio::sync::mpsc::channel(1);
    let arrived = |pipe: io::Result<DuplexStream>| pipe.map(|io| Arrived { io, peer: None });
    tokio::spawn(serve(services, ReceiverStream::new(incoming).map(arrived), std::future::pending()));
    Client::in_process(connections)
}

#[derive(Clone)]
enum Asked {
    Search(Query),
    Recheck(Vec<String>),
}

/// Two questions that alternate. In a baseline, the first one is about something that does not exist, too.
#[derive(Clone)]
struct Row {
    name: String,
    hidden: Asked,
    absent: Asked,
}

fn row(name: impl Into<String>, [hidden, absent]: [Asked; 2]) -> Row {
    Row { name: name.into(), hidden, absent }
}

fn texts() -> Vec<Row> {
    let text = |text: &str| Asked::Search(Query::Text(text.to_owned()));
    let of_hidden = DOCUMENTS / 2;
    vec![
        row("baseline: a word of none, and another one", ["quixotry", "quagmire"].map(text)),
        row(format!("a word of {RARE} hidden documents"), ["zephyrine", "quixotry"].map(text)),
        row(format!("a word of {of_hidden} hidden documents"), ["saffron", "quixotry"].map(text)),
        row(
            format!("a word of {RARE} hidden documents beside one of all"),
            ["leave zephyrine", "leave quixotry"].map(text),
        ),
    ]
}

fn vectors() -> Vec<Row> {
    vec![
        row("baseline: a vector far from everything, and another one", [Axis::OtherFar, Axis::Far].map(Axis::query)),
        row(format!("a vector near {NEAR} hidden chunks"), [Axis::NearHidden, Axis::Far].map(Axis::query)),
    ]
}

fn rechecks() -> Vec<Row> {
    let hidden =
        |count: usize| Asked::Recheck((0..count).map(|place| format!("document:{}#0", 2 * place + 1)).collect());
    let absent = |count: usize, first: usize| {
        Asked::Recheck((first..first + count).map(|place| format!("document:{}#0", DOCUMENTS + place)).collect())
    };
    let long = Asked::Recheck((0..LONG_CHUNKS).map(|chunk| format!("{LONG_DOCUMENT}#{chunk}")).collect());
    vec![
        row("baseline: `Recheck` of an absent chunk, and of another one", [absent(1, LONG_CHUNKS), absent(1, 0)]),
        row("`Recheck` of a hidden chunk", [hidden(1), absent(1, 0)]),
        row(format!("`Recheck` of {LONG_CHUNKS} hidden chunks"), [hidden(LONG_CHUNKS), absent(LONG_CHUNKS, 0)]),
        row(format!("`Recheck` of {LONG_CHUNKS} hidden chunks of one guard"), [long, absent(LONG_CHUNKS, 0)]),
    ]
}

async fn measure(client: &Client, decided_by: &str, samples: usize, rows: &[Row]) {
    for Row { name, hidden, absent } in rows {
        let (mut of_hidden, mut of_absent) = (Vec::new(), Vec::new());
        for turn in 0..WARM_UP + samples {
            let (hidden, absent) = if turn.is_multiple_of(2) {
                let hidden = once(client, hidden).await;
                (hidden, once(client, absent).await)
            } else {
                let absent = once(client, absent).await;
                (once(client, hidden).await, absent)
            };
            if turn >= WARM_UP {
                of_hidden.push(hidden);
                of_absent.push(absent);
            }
        }
        of_hidden.sort_unstable();
        of_absent.sort_unstable();
        let auc = slower_share(&of_hidden, &of_absent);
        let [hidden, absent] = [&of_hidden, &of_absent].map(|times| times.get(samples / 2).copied().unwrap());
        let ratio = hidden.as_secs_f64() / absent.as_secs_f64();
        println!("| {decided_by} | {name} | {auc:.2} | {hidden:.2?} | {absent:.2?} | {ratio:.2} | 2 × {samples} |");
    }
}

async fn once(client: &Client, asked: &Asked) -> Duration {
    let (user, collection, asked) = ("user:anne".to_owned(), COLLECTION.to_owned(), asked.clone());
    let mut retrieval = client.retrieval();
    let started = Instant::now();
    match asked {
        Asked::Search(query) => {
            let request =
                RetrieveRequest { user, collection, query: Some(query), top_k: 10, ..RetrieveRequest::default() };
            retrieval.retrieve(request).await.unwrap();
        }
        Asked::Recheck(chunk_ids) => {
            let request = RecheckRequest { user, collection, chunk_ids, ..RecheckRequest::default() };
            let answer = retrieval.recheck(request).await.unwrap();
            assert!(answer.into_inner().chunk_ids.is_empty());
        }
    }
    started.elapsed()
}

/// Returns the share of all pairs in which the first is slower; a tie counts for half. Both slices must ascend.
fn slower_share(of_hidden: &[Duration], of_absent: &[Duration]) -> f64 {
    let below = |time: &Duration| of_absent.partition_point(|absent| absent < time);
    let up_to = |time: &Duration| of_absent.partition_point(|absent| absent <= time);
    let halves: usize = of_hidden.iter().map(|time| below(time) + up_to(time)).sum();
    halves as f64 / (2.0 * of_hidden.len() as f64 * of_absent.len() as f64)
}
