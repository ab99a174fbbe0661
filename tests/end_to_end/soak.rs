//! A revoked chunk is not released. If the deletion of a tuple was acknowledged before a request was sent, the answer
//! holds no chunk that depends on the tuple. This is tested for requests for higher consistency, and for requests with
//! a token from after the revocation.
//!
//! `ragward serve` runs in front of a real `OpenFGA`, with many callers, and with writers that grant and revoke at
//! random. A run takes some seconds; `SOAK_SECONDS=300` sets another length.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ragward::authz::openfga::OpenFgaStore;
use ragward::authz::replica::ReplicaMode;
use ragward::client::Client;
use ragward::config::{AuthorizerKind, Config};
use ragward::language::{RelationshipTuple, dsl, json};
use ragward::proto::ingest::{Document, UpsertDocumentsRequest};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{Consistency, RecheckRequest, RetrieveRequest};
use tokio::time::{Instant, interval};
use tonic::metadata::MetadataMap;

use crate::end_to_end::process::Served;
use crate::support::dice::Dice;
use crate::support::documents::document;
use crate::support::openfga::{OpenFga, variable};
use crate::support::running::config;

const USERS: usize = 6;
const GROUPS: usize = 4;
const DOCUMENTS: usize = 30;
const CALLERS: usize = 8;
const WRITERS: usize = 2;
/// The time between two changes of one writer.
const PACE: Duration = Duration::from_millis(4);
/// The length for each mode of the replica, unless `SOAK_SECONDS` sets that of the whole run.
const SHORT: Duration = Duration::from_secs(2);
/// The time after which a run ends even if it has shown too little. If a copy decides, a request with a
/// consistency token waits for the next reading of the changelog, so there are few answers a second.
const PATIENCE: Duration = Duration::from_mins(1);
const SEED: u64 = 11;
const TOKEN: &str = "ragward-consistency-token";
const MODEL: &str = "model
  schema 1.1
type user
type group
  relations
    define member: [user]
type document
  relations
    define reader: [user, group#member]
    define can_read: reader
";

/// The state of a tuple, as far as a client can know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    present: bool,
    /// Whether a change of it is under way.
    changing: bool,
    /// The number of its changes.
    changes: u64,
}

/// Everything that may be granted, and what is known of it.
struct World {
    tuples: Vec<RelationshipTuple>,
    known: Mutex<Vec<Known>>,
}

#[derive(Debug, Default)]
struct Tally {
    answers: AtomicU64,
    chunks: AtomicU64,
    revocations: AtomicU64,
    /// The number of documents that a user saw before and certainly may not see any more, summed over all answers.
    withheld: AtomicU64,
    leaks: AtomicU64,
    gaps: AtomicU64,
}

impl Tally {
    /// Returns whether the run would have shown a leak or a gap.
    fn shows_enough(&self) -> bool {
        let more_than = |counter: &AtomicU64, least: u64| counter.load(Ordering::Relaxed) > least;
        more_than(&self.revocations, 20) && more_than(&self.chunks, 100) && more_than(&self.withheld, 10)
    }
}

impl World {
    fn new() -> Self {
        let user = |n: usize| format!("user:{n}");
        let mut names = Vec::new();
        for document in (0..DOCUMENTS).map(|n| format!("document:{n}")) {
            names.extend((0..USERS).map(|n| (user(n), "reader", document.clone())));
            names.extend((0..GROUPS).map(|n| (format!("group:{n}#member"), "reader", document.clone())));
        }
        for group in (0..GROUPS).map(|n| format!("group:{n}")) {
            names.extend((0..USERS).map(|n| (user(n), "member", group.clone())));
        }
        let parse = |(user, relation, object): &(String, &str, String)| {
            RelationshipTuple::parse(user, relation, object).expect("a tuple")
        };
        let tuples: Vec<RelationshipTuple> = names.iter().map(parse).collect();
        let known = Mutex::new(vec![Known::default(); tuples.len()]);
        Self { tuples, known }
    }

    fn known(&self) -> Vec<Known> {
        self.known.lock().expect("not poisoned").clone()
    }

    /// Grants or revokes one of a writer's tuples.
    async fn change(&self, store: &OpenFgaStore, tuple: usize, tally: &Tally) {
        let grants = {
            let known = &mut self.known.lock().expect("not poisoned")[tuple];
            (known.changing, known.changes) = (true, known.changes + 1);
            !known.present
        };
        let changed = std::slice::from_ref(&self.tuples[tuple]);
        let done = if grants { store.write_tuples(changed).await } else { store.delete_tuples(changed).await };
        done.expect("the server takes it");
        tally.revocations.fetch_add(u64::from(!grants), Ordering::Relaxed);
        let known = &mut self.known.lock().expect("not poisoned")[tuple];
        (known.present, known.changing) = (grants, false);
    }

    /// Returns the documents of a user for which every tuple on the path from the user satisfies `holds`.
    fn readable(&self, user: usize, holds: impl Fn(usize) -> bool) -> BTreeSet<String> {
        let user = format!("user:{user}");
        let held: Vec<&RelationshipTuple> =
            self.tuples.iter().enumerate().filter(|(number, _)| holds(*number)).map(|(_, tuple)| tuple).collect();
        let groups = held.iter().filter(|t| t.relation.as_str() == "member" && t.user.to_string() == user);
        let mut users: BTreeSet<String> = groups.map(|tuple| format!("{}#member", tuple.object)).collect();
        users.insert(user);
        let documents = held.iter().filter(|t| t.relation.as_str() == "reader" && users.contains(&t.user.to_string()));
        documents.map(|tuple| tuple.object.to_string()).collect()
    }
}

/// Asks as one user, again and again, and counts the leaks and the gaps in the answers.
struct Caller {
    world: Arc<World>,
    tally: Arc<Tally>,
    client: Client,
    user: usize,
    dice: Dice,
    token: String,
    released: BTreeSet<String>,
}

impl Caller {
    async fn ask(&mut self) {
        let before = self.world.known();
        let with_token = self.dice.below(2) == 0;
        if with_token {
            // Any answer brings a token; this one is fetched after the state was read.
            let nothing =
                RecheckRequest { chunk_ids: vec!["none".to_owned()], ..self.recheck(Consistency::Unspecified) };
            let answer = self.client.retrieval().recheck(nothing).await.expect("an answer");
            self.token = token(answer.metadata());
        }
        let consistency = if with_token { Consistency::AtLeastAsFresh } else { Consistency::HigherConsistency };
        let released: Vec<String> = if self.dice.below(2) == 0 {
            let answer = self.client.retrieval().recheck(self.recheck(consistency)).await.expect("an answer");
            answer.into_inner().chunk_ids
        } else {
            let request = RetrieveRequest {
                user: format!("user:{}", self.user),
                collection: "soak".to_owned(),
                query: Some(Query::Text("leave".to_owned())),
                top_k: 100,
                consistency: consistency.into(),
                consistency_token: if with_token { self.token.clone() } else { String::new() },
                ..RetrieveRequest::default()
            };
            let answer = self.client.retrieval().retrieve(request).await.expect("an answer").into_inner();
            answer.chunks.into_iter().map(|chunk| chunk.id).collect()
        };
        self.account(&released, &before, &self.world.known());
    }

    fn recheck(&self, consistency: Consistency) -> RecheckRequest {
        let consistency_token = match consistency {
            Consistency::AtLeastAsFresh => self.token.clone(),
            Consistency::Unspecified | Consistency::MinimizeLatency | Consistency::HigherConsistency => String::new(),
        };
        RecheckRequest {
            user: format!("user:{}", self.user),
            collection: "soak".to_owned(),
            chunk_ids: (0..DOCUMENTS).map(|n| format!("document:{n}#0")).collect(),
            consistency: consistency.into(),
            consistency_token,
            ..RecheckRequest::default()
        }
    }

    /// Counts an answer. The state of a tuple is certain from `before` the request until `after` the answer if it is
    /// the same at both times and nobody was changing it.
    fn account(&mut self, released: &[String], before: &[Known], after: &[Known]) {
        let is_certain = |tuple: usize| before[tuple] == after[tuple] && !before[tuple].changing;
        let must = self.world.readable(self.user, |tuple| is_certain(tuple) && before[tuple].present);
        let may = self.world.readable(self.user, |tuple| !is_certain(tuple) || before[tuple].present);
        let documents: BTreeSet<String> =
            released.iter().map(|id| id.split('#').next().expect("a document").to_owned()).collect();
        let count =
            |counter: &AtomicU64, of: usize| counter.fetch_add(u64::try_from(of).expect("few"), Ordering::Relaxed);
        count(&self.tally.answers, 1);
        count(&self.tally.chunks, released.len());
        count(&self.tally.withheld, self.released.difference(&may).count());
        count(&self.tally.leaks, documents.difference(&may).count());
        count(&self.tally.gaps, must.difference(&documents).count());
        self.released = documents;
    }
}

fn token(metadata: &MetadataMap) -> String {
    metadata.get(TOKEN).expect("a token").to_str().expect("text").to_owned()
}

async fn soak(authority: &OpenFga, directory: &Path, mode: ReplicaMode, duration: Duration) {
    let name = format!("soak-{mode:?}");
    let openfga = authority.config(&name);
    let store = Arc::new(OpenFgaStore::open(&openfga).await.expect("a store"));
    let model = json::print(&dsl::parse(MODEL).expect("a model").model).expect("JSON");
    store.write_model(serde_json::from_str(&model).expect("JSON")).await.expect("a model");
    let served = Served::start_configured(directory, &configured(directory, &openfga.address, &name, mode));
    let client = served.client.clone();
    let pages: Vec<Document> =
        (0..DOCUMENTS).map(|n| document(&format!("document:{n}"), &["how to ask for leave"])).collect();
    let upsert = |document| UpsertDocumentsRequest { collection: "soak".to_owned(), document: Some(document) };
    let messages: Vec<UpsertDocumentsRequest> = pages.into_iter().map(upsert).collect();
    client.ingest().upsert_documents(tokio_stream::iter(messages)).await.expect("taken in");

    let (world, tally, started) = (Arc::new(World::new()), Arc::new(Tally::default()), Instant::now());
    let goes_on = move |tally: &Tally| {
        let elapsed = started.elapsed();
        elapsed < duration || (!tally.shows_enough() && elapsed < PATIENCE)
    };
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (world, store, tally) = (Arc::clone(&world), Arc::clone(&store), Arc::clone(&tally));
        tasks.spawn(async move {
            let (mut dice, mut pace) = (Dice::new(SEED + 100 + u64::try_from(writer).expect("few")), interval(PACE));
            while goes_on(&tally) {
                // Each writer has tuples of its own, so it knows what it changed.
                let tuple = dice.below(world.tuples.len() / WRITERS) * WRITERS + writer;
                world.change(&store, tuple, &tally).await;
                pace.tick().await;
            }
        });
    }
    for number in 0..CALLERS {
        let mut caller = Caller {
            world: Arc::clone(&world),
            tally: Arc::clone(&tally),
            client: client.clone(),
            user: number % USERS,
            dice: Dice::new(SEED + u64::try_from(number).expect("few")),
            token: String::new(),
            released: BTreeSet::new(),
        };
        tasks.spawn(async move {
            while goes_on(&caller.tally) {
                caller.ask().await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no task fails");
    }
    println!("{mode:?}, seed {SEED}, {duration:?}: {tally:?}");
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((count(&tally.leaks), count(&tally.gaps)), (0, 0), "{mode:?}, seed {SEED}: {tally:?}");
    assert!(tally.shows_enough(), "{mode:?}, seed {SEED}: {tally:?}");
}

/// Writes a configuration file for this mode.
fn configured(directory: &Path, address: &str, store_name: &str, mode: ReplicaMode) -> std::path::PathBuf {
    let mut config: Config = config(directory);
    config.authorizer.kind = AuthorizerKind::Openfga;
    config.authorizer.openfga.address = address.to_owned();
    config.authorizer.openfga.store_name = store_name.to_owned();
    config.authorizer.replica.mode = mode;
    let file = directory.join("ragward.toml");
    std::fs::write(&file, toml::to_string(&config).expect("TOML")).expect("written");
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_revoked_is_released() {
    let Some(authority) = OpenFga::start().await else { return };
    let modes = [ReplicaMode::Off, ReplicaMode::Plan, ReplicaMode::Decide];
    let seconds = variable("SOAK_SECONDS").map(|seconds| seconds.parse().expect("a number of seconds"));
    let each = seconds.map_or(SHORT, |seconds| Duration::from_secs(seconds) / 3);
    for mode in modes {
        let directory = tempfile::tempdir().expect("a directory");
        soak(&authority, directory.path(), mode, each).await;
    }
}
