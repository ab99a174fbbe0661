//! A document's new text is never released by a right that was taken away before it was written. Two processes run over
//! one Qdrant and one real `OpenFGA`, whose log comes late.
//!
//! In each round a reader may read a document. The tuple is deleted at the server, one process writes the document anew
//! under the same guard, and the reader asks both processes, during the write and afterwards. Copies and remembered
//! decisions do not know of the deletion for up to 1.9 s, and release old texts meanwhile; they must not release the
//! new one. A second reader, who keeps the right, must get the new text at once.
//!
//! A run has some 300 rounds; `RAGWARD_ROUNDS=10000` sets another number.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use ragward::authz::openfga::OpenFgaStore;
use ragward::authz::replica::ReplicaMode;
use ragward::config::{AuthorizerKind, VectorStoreKind};
use ragward::language::{RelationshipTuple, dsl, json};
use ragward::proto::ingest::{Chunk, Document, UpsertDocumentsRequest};
use ragward::proto::metadata::{Value, value};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{Filter, OneOf, RetrieveRequest, Vector, filter};
use tokio::time::Instant;

use crate::support::dice::Dice;
use crate::support::late_log::LateLog;
use crate::support::openfga::{OpenFga, variable};
use crate::support::qdrant_servers::{AnyQdrant, servers};
use crate::support::running::config;
use crate::support::served::Served;

/// The time for which the end of the log is held back. A reader that began just before a deletion learns of it with the
/// next reading, so copies are up to twice as late. `staleness_max` is 2 s; after that, copies are not used.
const HELD_FOR: Duration = Duration::from_millis(900);
/// The number of readings after which the copy decides about a text, whoever wrote it: the copy is then 2 s newer than
/// the text's date.
const LOOKS_UNTIL_OLD: u64 = 5;
/// The approximate number of readings in a round. The documents do not all begin at the same reading.
const LOOKS_OF_ROUND: usize = 7;
/// The number of further readings within which a right must show its text.
const LOOKS_MAX: usize = 30;
/// The number of documents that go through rounds at the same time, for each row.
const LANES: usize = 32;
/// The number of rounds of all rows together, unless `RAGWARD_ROUNDS` sets another.
const ROUNDS: u64 = 300;
/// The time after which a row ends even if it has shown too little.
const PATIENCE: Duration = Duration::from_mins(1);
/// The bound on the number of further questions before a deletion. The number varies, so that a deletion comes at any
/// time of a reading.
const QUESTIONS_MORE_MAX: usize = 8;
const SEED: u64 = 17;
const MODEL: &str = "model
  schema 1.1
type user
type team
  relations
    define member: [user]
type document
  relations
    define can_read: [user, user:*, team#member]
";

/// A way of deciding.
struct Row {
    name: &'static str,
    mode: ReplicaMode,
    /// Whether the server has a cache of its own, which does not learn of deletions for 10 s.
    server_remembers: bool,
}

const ROWS: [Row; 6] = [
    Row { name: "decide", mode: ReplicaMode::Decide, server_remembers: false },
    Row { name: "plan", mode: ReplicaMode::Plan, server_remembers: false },
    Row { name: "off", mode: ReplicaMode::Off, server_remembers: false },
    Row { name: "decide-remembers", mode: ReplicaMode::Decide, server_remembers: true },
    Row { name: "plan-remembers", mode: ReplicaMode::Plan, server_remembers: true },
    Row { name: "off-remembers", mode: ReplicaMode::Off, server_remembers: true },
];

/// A `ragward serve` with a late log.
struct Process {
    served: Served,
    collection: String,
    log: LateLog,
    tally: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    answers: AtomicU64,
    /// The number of answers that a copy took part in.
    with_copy: AtomicU64,
    /// The number of answers with the old text, by a right that was taken away.
    old: AtomicU64,
}

/// The two processes of a row. The first one writes the documents.
struct Pair {
    /// The name of the row and of its Qdrant.
    name: String,
    store: OpenFgaStore,
    processes: [Process; 2],
    begun: AtomicU64,
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn tuple(user: &str, relation: &str, object: &str) -> RelationshipTuple {
    RelationshipTuple::parse(user, relation, object).expect("a tuple")
}

fn guard(lane: usize) -> String {
    format!("document:{lane}")
}

fn value(lane: usize) -> Value {
    Value { kind: Some(value::Kind::IntValue(i64::try_from(lane).expect("few"))) }
}

fn keeper(lane: usize) -> String {
    format!("user:keeper-{lane}")
}

impl Process {
    /// Starts one process of a row. The store and the collection have the same name.
    async fn start(row: &Row, directory: &Path, openfga: &str, name: &str, qdrant: &AnyQdrant) -> Self {
        let log = LateLog::in_front_of(openfga, HELD_FOR).await;
        let mut config = config(directory);
        config.authorizer.kind = AuthorizerKind::Openfga;
        config.authorizer.openfga.address.clone_from(&log.address);
        config.authorizer.openfga.store_name = name.to_owned();
        config.authorizer.replica.mode = row.mode;
        if !row.server_remembers {
            config.authorizer.openfga.cache_age_max = Duration::ZERO;
        }
        // A list of visible objects is a decision of the server, so it would leave nothing to remembered decisions.
        // Everybody sees one object, so this cuts all lists.
        config.authorizer.openfga.list_results_max = 1;
        config.vector_store.kind = VectorStoreKind::Qdrant;
        config.vector_store.qdrant.url.clone_from(&qdrant.url);
        config.vector_store.qdrant.exact = true;
        std::fs::create_dir_all(directory).expect("a directory");
        let file = directory.join("ragward.toml");
        std::fs::write(&file, toml::to_string(&config).expect("TOML")).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--insecure-identity", "--config"]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let served = tokio::task::spawn_blocking(move || Served::start(command)).await.expect("started");
        Self { served, collection: name.to_owned(), log, tally: Tally::default() }
    }

    /// Returns the text of a lane's document that a user gets.
    async fn text(&self, user: &str, lane: usize) -> Option<String> {
        let of_lane = OneOf { key: "lane".to_owned(), values: vec![value(lane)] };
        let request = RetrieveRequest {
            user: user.to_owned(),
            collection: self.collection.clone(),
            query: Some(Query::Vector(Vector { values: vec![1.0, 0.0] })),
            top_k: 10,
            filter: Some(Filter { kind: Some(filter::Kind::OneOf(of_lane)) }),
            ..RetrieveRequest::default()
        };
        let answer = self.served.client.retrieval().retrieve(request).await.expect("an answer").into_inner();
        self.tally.answers.fetch_add(1, Ordering::Relaxed);
        self.tally.with_copy.fetch_add(u64::from(answer.replica_lag_milliseconds.is_some()), Ordering::Relaxed);
        let mut texts: Vec<String> = answer.chunks.into_iter().map(|chunk| chunk.text).collect();
        assert!(texts.len() <= 1, "{}, lane {lane}: {user} is given {texts:?}", self.collection);
        texts.pop()
    }

    async fn write(&self, documents: impl IntoIterator<Item = (usize, &str)>) {
        let message = |(lane, text): (usize, &str)| {
            let chunk = Chunk {
                id: format!("{lane}#0"),
                guard: guard(lane),
                heading_path: Vec::new(),
                text: text.to_owned(),
                vector: vec![1.0, 0.0],
                metadata: BTreeMap::from([("lane".to_owned(), value(lane))]),
            };
            let document = Document { id: lane.to_string(), chunks: vec![chunk], ..Document::default() };
            UpsertDocumentsRequest { collection: self.collection.clone(), document: Some(document) }
        };
        let messages: Vec<UpsertDocumentsRequest> = documents.into_iter().map(message).collect();
        self.served.client.ingest().upsert_documents(tokio_stream::iter(messages)).await.expect("taken in");
    }

    /// Returns whether the run could have shown a fault: old texts came in at least a tenth of the rounds.
    fn shows_enough(&self, rounds: u64) -> bool {
        count(&self.tally.old) * 10 >= rounds
    }
}

impl Pair {
    async fn start(row: &Row, directory: &Path, openfga: &OpenFga, qdrant: &AnyQdrant) -> Self {
        let name = format!("{}-{}", row.name, qdrant.name);
        let directory = directory.join(&name);
        let reached = openfga.config(&name);
        let store = OpenFgaStore::open(&reached).await.expect("a store");
        let model = json::print(&dsl::parse(MODEL).expect("a model").model).expect("JSON");
        store.write_model(serde_json::from_str(&model).expect("JSON")).await.expect("a model");
        let kept = (0..LANES).flat_map(|lane| {
            let team = format!("team:{lane}#member");
            [tuple(&keeper(lane), "can_read", &guard(lane)), tuple(&team, "can_read", &guard(lane))]
        });
        let everybodys = tuple("user:*", "can_read", "document:public");
        store.write_tuples(&kept.chain([everybodys]).collect::<Vec<_>>()).await.expect("written");
        let writer = Process::start(row, &directory.join("writer"), &reached.address, &name, qdrant).await;
        let texts: Vec<String> = (0..LANES).map(at_first).collect();
        writer.write(texts.iter().map(String::as_str).enumerate()).await;
        let reader = Process::start(row, &directory.join("reader"), &reached.address, &name, qdrant).await;
        Self { name, store, processes: [writer, reader], begun: AtomicU64::new(0) }
    }

    /// Returns a user who has no right yet, and a right for that user: on the document itself, or as a member of its
    /// team.
    fn right(lane: usize, round: u64) -> (String, RelationshipTuple) {
        let user = format!("user:{round}");
        let right = if round.is_multiple_of(2) {
            tuple(&user, "can_read", &guard(lane))
        } else {
            tuple(&user, "member", &format!("team:{lane}"))
        };
        (user, right)
    }

    /// Runs one round. The document of the lane has the text `old` and is written anew. Returns its new text.
    async fn round(&self, lane: usize, round: u64, old: String, dice: &mut Dice) -> String {
        let place = format!("{}, lane {lane}, round {round}", self.name);
        let (user, right) = Self::right(lane, round);
        let right = std::slice::from_ref(&right);
        self.store.write_tuples(right).await.expect("granted");
        let more = dice.below(QUESTIONS_MORE_MAX);
        join_all(self.processes.iter().map(|process| async {
            process.log.wait_for_looks(LOOKS_UNTIL_OLD).await;
            let mut tries = 0;
            while process.text(&user, lane).await.as_ref() != Some(&old) {
                tries += 1;
                assert!(tries < LOOKS_MAX, "{place}: a right does not count");
                process.log.wait_for_looks(1).await;
            }
            for _ in 0..more {
                assert_eq!(process.text(&user, lane).await.as_ref(), Some(&old), "{place}");
            }
        }))
        .await;

        self.store.delete_tuples(right).await.expect("revoked");
        // For a while, the old right may show the old text.
        let may_be_old = |process: &Process, text: Option<String>, when: &str| {
            process.tally.old.fetch_add(u64::from(text.is_some()), Ordering::Relaxed);
            assert!(text.is_none() || text.as_ref() == Some(&old), "{place}: {text:?} {when}");
        };
        for process in &self.processes {
            may_be_old(process, process.text(&user, lane).await, "before there is another text");
        }
        let new = format!("written in round {round} of lane {lane}");
        let [writer, reader] = &self.processes;
        let ((), by_writer, by_reader) =
            tokio::join!(writer.write([(lane, new.as_str())]), writer.text(&user, lane), reader.text(&user, lane));
        may_be_old(writer, by_writer, "by the writer, while it is written");
        may_be_old(reader, by_reader, "by the reader, while it is written");
        let keeper = keeper(lane);
        let asked = [(writer, &user), (reader, &user), (writer, &keeper), (reader, &keeper)];
        let texts = join_all(asked.map(|(process, user)| process.text(user, lane))).await;
        let expected = [None, None, Some(new.clone()), Some(new.clone())];
        assert_eq!(texts, expected, "{place}: the writer and the reader to who lost the right, and to who keeps it");
        new
    }

    /// Runs rounds one after the other, until there were enough.
    async fn lane(&self, lane: usize, rounds: u64, started: Instant) {
        let mut dice = Dice::new(SEED + u64::try_from(lane).expect("few"));
        let mut text = at_first(lane);
        let [writer, _] = &self.processes;
        writer.log.wait_for_looks(u64::try_from(lane % LOOKS_OF_ROUND).expect("few")).await;
        loop {
            let round = self.begun.fetch_add(1, Ordering::Relaxed);
            let shows_enough = self.processes.iter().all(|process| process.shows_enough(rounds));
            if round >= rounds && (shows_enough || started.elapsed() > PATIENCE) {
                return;
            }
            text = self.round(lane, round, text, &mut dice).await;
        }
    }

    async fn run(&self, rounds: u64) {
        let started = Instant::now();
        join_all((0..LANES).map(|lane| self.lane(lane, rounds, started))).await;
        for (process, role) in self.processes.iter().zip(["writer", "reader"]) {
            println!("{}, {role}, {rounds} rounds: {:?}", self.name, process.tally);
            assert!(process.shows_enough(rounds), "{}, {role}: {:?}", self.name, process.tally);
        }
    }
}

fn at_first(lane: usize) -> String {
    format!("the first text of lane {lane}")
}

#[tokio::test(flavor = "multi_thread")]
async fn new_text_never_comes_by_an_old_right() {
    let Some(plain) = OpenFga::start().await else { return };
    let remembering = ["--check-query-cache-enabled=true", "--check-query-cache-ttl=10s"];
    let Some(remembering) = OpenFga::start_with(&remembering).await else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let rounds = variable("RAGWARD_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let qdrants = servers().await;
    let each = rounds.div_ceil(u64::try_from(ROWS.len() * qdrants.len()).expect("few"));
    // The rows mostly wait for the log, so half of them run at the same time.
    for qdrant in &qdrants {
        for (remembers, openfga) in [(false, &plain), (true, &remembering)] {
            let rows = ROWS.iter().filter(|row| row.server_remembers == remembers);
            let pairs = join_all(rows.map(|row| Pair::start(row, directory.path(), openfga, qdrant))).await;
            join_all(pairs.iter().map(|pair| pair.run(each))).await;
            for pair in pairs {
                for Process { served, .. } in pair.processes {
                    let log = served.stop().await;
                    // The copy was late and never wrong, so it decided to the end.
                    assert!(!log.contains("what the server denies"), "{}: {log}", pair.name);
                }
            }
        }
    }
}
