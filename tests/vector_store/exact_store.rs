//! The embedded engine: the contract of the port, brute force as an oracle, twin worlds, crashes and restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use ragward::chunk::{Candidate, Chunk, Document, Value};
use ragward::language::Object;
use ragward::storage::StorageError;
use ragward::vector_store::exact::{ExactStore, FILE_NAME};
use ragward::vector_store::{DocumentStore, Filter, Query, Search, SearchSpace, VectorStore, VectorStoreError};
use roaring::RoaringBitmap;
use tokio::runtime::{Builder, Runtime};

use crate::support::brute_force::BruteForce;
use crate::support::dice::Dice;
use crate::support::vector_store_suite::{Store, document, read_now};

const COLLECTION: &str = "chunks";
const GUARDS: [&str; 4] = ["doc:a", "doc:b", "doc:c", "doc:d"];
const WORDS: [&str; 8] = ["red", "fox", "hen", "barn", "the", "moon", "salt", "oak"];
const DIMENSION: usize = 3;

#[tokio::test]
async fn the_port_suite() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = opened(directory.path());
    crate::support::vector_store_suite::run(Store { chunks: &store, documents: &store, prefix: "" }).await;
}

/// A change to a store.
#[derive(Clone, Debug)]
enum Change {
    Upsert(Vec<Document>),
    Delete(BTreeSet<String>),
    Reopen,
}

/// A search whose scope is given as guards, because the position of a guard differs between stores.
#[derive(Clone, Debug)]
struct Question {
    query: Query,
    filter: Option<Filter>,
    space: Option<BTreeSet<usize>>,
    min_score: Option<f64>,
    per_document_max: Option<NonZeroUsize>,
    limit: usize,
}

impl Question {
    fn new(query: Query) -> Self {
        Self { query, filter: None, space: None, min_score: None, per_document_max: None, limit: 9 }
    }

    fn search(&self, space: SearchSpace) -> Search {
        let Self { query, filter, min_score, per_document_max, limit, .. } = self.clone();
        Search {
            collection: COLLECTION.to_owned(),
            query,
            filter,
            space,
            narrowing: None,
            min_score,
            per_document_max,
            limit,
            enough: usize::MAX,
        }
    }
}

fn texts() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(WORDS.as_slice()), 0..12).prop_map(|words| words.join(" "))
}

fn vectors() -> impl Strategy<Value = Vec<f32>> {
    // There are few directions, so that scores tie.
    let number = prop::sample::select([-2.0_f32, -1.0, 0.0, 1.0, 2.0].as_slice());
    prop::collection::vec(number, DIMENSION).prop_filter("a direction", |vector| vector.iter().any(|x| *x != 0.0))
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![(0..4_i64).prop_map(Value::Int), Just(Value::Float(2.0)), Just(Value::Text("x".to_owned()))]
}

/// Documents with few ids, so that many are replaced.
fn documents(ids: &'static [&'static str], guards: &'static [&'static str]) -> impl Strategy<Value = Document> {
    let list = prop::collection::vec(values(), 0..3).prop_map(Value::List);
    let value = prop_oneof![values(), list];
    let headings = prop::collection::vec(texts(), 0..3);
    let chunk = (prop::sample::select(guards), texts(), headings, prop::option::of(vectors()), prop::option::of(value));
    (prop::sample::select(ids), prop::collection::vec(chunk, 1..5)).prop_map(|(id, chunks)| {
        let mut made = document(id, &[]);
        for (place, (guard, text, heading_path, vector, value)) in chunks.into_iter().enumerate() {
            let text = if text.is_empty() && vector.is_none() { "?" } else { text.as_str() };
            let mut chunk = document(id, &[(guard, text, &vector.unwrap_or_default())]).chunks.remove(0);
            chunk.id = format!("{id}#{place}");
            chunk.heading_path = heading_path;
            chunk.metadata.extend(value.map(|value| ("n".to_owned(), value)));
            made.chunks.push(chunk);
        }
        made
    })
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    const IDS: [&str; 6] = ["p", "q", "r", "s", "t", "u"];
    let ids = prop::collection::btree_set(prop::sample::select(IDS.as_slice()).prop_map(str::to_owned), 1..3);
    let change = prop_oneof![
        6 => prop::collection::vec(documents(&IDS, &GUARDS), 1..4).prop_map(Change::Upsert),
        2 => ids.prop_map(Change::Delete),
        1 => Just(Change::Reopen),
    ];
    prop::collection::vec(change, 1..16)
}

fn filters() -> impl Strategy<Value = Filter> {
    let leaf = prop_oneof![
        prop::collection::vec(values(), 0..3).prop_map(|values| Filter::OneOf { key: "n".to_owned(), values }),
        (0..3_i32).prop_map(|low| Filter::Between { key: "n".to_owned(), low: f64::from(low), high: 2.5 }),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|filter| Filter::Not(Box::new(filter))),
            prop::collection::vec(inner.clone(), 0..3).prop_map(Filter::All),
            prop::collection::vec(inner, 0..3).prop_map(Filter::Any),
        ]
    })
}

fn questions() -> impl Strategy<Value = Question> {
    let query = prop_oneof![
        texts().prop_map(Query::Text),
        vectors().prop_map(Query::Vector),
        (texts(), vectors()).prop_map(|(text, vector)| Query::Hybrid { text, vector }),
    ];
    // Some of these thresholds are scores that occur.
    let lowest = prop::sample::select(vec![-1.0, 0.0, 0.03, 0.5, f64::from(0.5_f32.sqrt()), 1.0, 1.5]);
    let of_document = (0..4_usize).prop_map(NonZeroUsize::new);
    let space = prop::option::of(prop::collection::btree_set(0..GUARDS.len(), 0..GUARDS.len()));
    (query, prop::option::of(filters()), space, prop::option::of(lowest), of_document, 0..20_usize).prop_map(
        |(query, filter, space, min_score, per_document_max, limit)| Question {
            query,
            filter,
            space,
            min_score,
            per_document_max,
            limit,
        },
    )
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime")
}

fn opened(directory: &Path) -> ExactStore {
    ExactStore::open(directory).expect("opened")
}

async fn ask(store: &ExactStore, question: &Question) -> Vec<Candidate> {
    let table = store.guards(COLLECTION).await.expect("a collection").expect("guards");
    let space = question.space.as_ref().map_or(SearchSpace::Everything, |guards| {
        let is_meant = |guard: &str| guards.iter().any(|place| GUARDS[*place] == guard);
        let positions = (0..).zip(table.guards.iter()).filter(|(_, guard)| is_meant(guard.as_str()));
        SearchSpace::Guards { positions: positions.map(|(position, _)| position).collect(), table: table.clone() }
    });
    store.search(&question.search(space)).await.expect("a search").candidates
}

/// Returns the bytes of an answer. Two answers are equal only if every byte is.
fn bytes(candidates: &[Candidate]) -> Vec<(String, String, u32)> {
    let bytes = |c: &Candidate| (c.chunk_id.clone(), c.guard.as_str().to_owned(), c.score.to_bits());
    candidates.iter().map(bytes).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn answers_are_those_of_brute_force(changes in changes(), questions in prop::collection::vec(questions(), 1..12)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let runtime = runtime();
        let mut store = opened(directory.path());
        let mut brute_force = BruteForce::default();
        let first = document("first", &[(GUARDS[0], "red fox", &[1.0, 0.0, 0.0])]);
        for change in [Change::Upsert(vec![first])].into_iter().chain(changes) {
            match change {
                Change::Upsert(documents) => {
                    brute_force.upsert(&documents);
                    runtime.block_on(store.upsert(COLLECTION, documents)).expect("taken in");
                }
                Change::Delete(ids) => {
                    let deleted = runtime.block_on(store.delete(COLLECTION, &ids)).expect("deleted");
                    prop_assert_eq!(deleted, brute_force.delete(&ids), "{:?}", ids);
                }
                Change::Reopen => {
                    drop(store);
                    store = opened(directory.path());
                }
            }
        }
        let info = runtime.block_on(store.collection(COLLECTION)).expect("a collection");
        prop_assert_eq!((info.documents, info.chunks), brute_force.counts());
        let answers: Vec<Vec<Candidate>> = questions.iter().map(|q| runtime.block_on(ask(&store, q))).collect();
        for (question, answer) in questions.iter().zip(&answers) {
            let guards = question.space.as_ref().map(|space| space.iter().map(|place| GUARDS[*place]).collect());
            let row = format!("scope {:?}", question.space);
            brute_force.check(&row, &question.search(SearchSpace::Everything), guards.as_ref(), answer);
        }
        let ids: Vec<String> = brute_force.chunks().map(|chunk| chunk.id.clone()).collect();
        let read = runtime.block_on(read_now(&store, COLLECTION, &ids)).expect("read");
        let expected: Vec<Chunk> = brute_force.chunks().map(|chunk| Chunk { vector: Vec::new(), ..chunk.clone() }).collect();
        prop_assert_eq!(read, expected);

        drop(store);
        let store = opened(directory.path());
        for (question, answer) in questions.iter().zip(&answers) {
            prop_assert_eq!(bytes(&runtime.block_on(ask(&store, question))), bytes(answer), "{:?}", question);
        }
    }

    #[test]
    fn what_is_hidden_changes_no_byte(
        visible in prop::collection::vec(documents(&["p", "q", "r", "s", "t", "u"], &["doc:a", "doc:b"]), 1..12),
        hidden in prop::collection::vec(documents(&["A", "b", "q2", "z"], &["doc:c", "doc:d"]), 1..24),
        order in any::<prop::sample::Index>(),
        questions in prop::collection::vec(questions(), 1..12),
    ) {
        let runtime = runtime();
        let worlds = [tempfile::tempdir(), tempfile::tempdir()].map(|made| made.expect("a temporary directory"));
        let [small, large] = worlds.each_ref().map(|directory| opened(directory.path()));
        let first = document("first", &[(GUARDS[0], "red fox", &[1.0, 0.0, 0.0])]);
        let upsert = |store: &ExactStore, documents: Vec<Document>| {
            runtime.block_on(store.upsert(COLLECTION, documents)).expect("taken in");
        };
        upsert(&small, [first.clone()].into_iter().chain(visible.clone()).collect());
        // The large store takes the hidden documents in before, between and after the others. It also changes some of
        // them and deletes some.
        upsert(&large, hidden.clone());
        upsert(&large, vec![first]);
        let cut = order.index(visible.len());
        upsert(&large, visible[..cut].to_vec());
        upsert(&large, hidden.iter().rev().cloned().collect());
        upsert(&large, visible[cut..].to_vec());
        let ids = hidden.iter().take(order.index(hidden.len())).map(|document| document.id.clone()).collect();
        runtime.block_on(large.delete(COLLECTION, &ids)).expect("deleted");
        for mut question in questions {
            let space = question.space.unwrap_or_else(|| BTreeSet::from([0, 1]));
            question.space = Some(space.into_iter().filter(|place| *place < 2).collect());
            let [in_small, in_large] = [&small, &large].map(|store| runtime.block_on(ask(store, &question)));
            prop_assert_eq!(bytes(&in_small), bytes(&in_large), "{:?}", question);
        }
    }
}

/// The engine searches a scope as a list, as the set of guards in it, or as the set of guards outside it. Its share of
/// the guards decides which.
#[tokio::test]
async fn a_scope_of_any_size_is_searched_as_by_brute_force() {
    const MANY: usize = 320;
    let mut dice = Dice::new(3);
    let mut guards: Vec<String> = (0..MANY).map(|number| format!("doc:{number}")).collect();
    // Some guards have several documents, which do not follow each other, and some lose theirs.
    let documents: Vec<Document> = (0..MANY + 100)
        .map(|number| {
            let guard = &guards[if number < MANY { number } else { dice.below(MANY) }];
            let vectors: Vec<[f32; 2]> = (0..=dice.below(3)).map(|_| [1.0, number_of(dice.below(50))]).collect();
            let chunks: Vec<(&str, &str, &[f32])> = vectors
                .iter()
                .map(|vector| (guard.as_str(), WORDS[dice.below(WORDS.len())], vector.as_slice()))
                .collect();
            document(&format!("d{number}"), &chunks)
        })
        .collect();
    let gone: BTreeSet<String> = (0..MANY).step_by(7).map(|number| format!("d{number}")).collect();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (store, mut brute_force) = (opened(directory.path()), BruteForce::default());
    brute_force.upsert(&documents);
    brute_force.delete(&gone);
    store.upsert(COLLECTION, documents).await.expect("taken in");
    store.delete(COLLECTION, &gone).await.expect("deleted");
    let table = store.guards(COLLECTION).await.expect("a collection").expect("guards");
    for size in [0, 1, 5, 6, 40, 160, 161, 319, 320] {
        dice.shuffle(&mut guards);
        let space: BTreeSet<&str> = guards.iter().take(size).map(String::as_str).collect();
        let is_meant = |(position, guard): (u32, &Object)| space.contains(guard.as_str()).then_some(position);
        let positions: RoaringBitmap = (0..).zip(table.guards.iter()).filter_map(is_meant).collect();
        let (text, vector) = ("red hen moon".to_owned(), vec![0.3, 1.0]);
        for query in [Query::Vector(vector.clone()), Query::Text(text.clone()), Query::Hybrid { text, vector }] {
            let question = Question { limit: 25, ..Question::new(query) };
            let scoped = SearchSpace::Guards { positions: positions.clone(), table: table.clone() };
            let answer = store.search(&question.search(scoped)).await.expect("a search").candidates;
            let row = format!("{size} guards in the scope");
            brute_force.check(&row, &question.search(SearchSpace::Everything), Some(&space), &answer);
        }
    }
}

#[tokio::test]
async fn a_scan_divided_among_threads_gives_the_same_bytes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = opened(directory.path());
    let chunk = |place: u16| {
        let vector = [f32::from(place % 97) - 48.0, f32::from(place % 89) + 0.5, f32::from(place % 7)];
        document(&format!("d{place}"), &[(GUARDS[usize::from(place % 4)], "", &vector)])
    };
    store.upsert(COLLECTION, (0..20_000).map(chunk).collect()).await.expect("taken in");
    let query = Query::Vector(vec![0.3, 0.2, 0.1]);
    let question = |space| Question { space, limit: 500, ..Question::new(query.clone()) };
    let whole = bytes(&ask(&store, &question(None)).await);
    assert_eq!(bytes(&ask(&store, &question(Some((0..4).collect()))).await), whole);
    let mut parts = BTreeMap::new();
    for guard in 0..4 {
        for candidate in bytes(&ask(&store, &question(Some([guard].into()))).await) {
            parts.insert(candidate.0.clone(), candidate);
        }
    }
    for candidate in whole {
        assert_eq!(parts.get(&candidate.0), Some(&candidate), "chunk {}", candidate.0);
    }
}

fn number_of(count: usize) -> f32 {
    f32::from(u16::try_from(count).expect("small"))
}

/// Returns a number evenly distributed from -1 to 1.
fn number(dice: &mut Dice) -> f32 {
    number_of(dice.below(20_001)) / 10_000.0 - 1.0
}

#[tokio::test]
async fn a_search_for_the_best_skips_none_of_them() {
    const DIMENSION: usize = 40;
    const CHUNKS: usize = 6_000;
    const SEED: u64 = 7;
    println!("seed {SEED}");
    let mut dice = Dice::new(SEED);
    let mut vector = || -> Vec<f32> { (0..DIMENSION).map(|_| number(&mut dice)).collect() };
    let centres: Vec<Vec<f32>> = (0..8).map(|_| vector()).collect();
    let query = vector();
    let mut noise = Dice::new(SEED);
    let mut around =
        |centre: &[f32], size: f32| centre.iter().map(|x| x + size * number(&mut noise)).collect::<Vec<f32>>();
    let rows: [(&str, Vec<Vec<f32>>); 5] = [
        ("random", (0..CHUNKS).map(|_| vector()).collect()),
        ("clustered", (0..CHUNKS).map(|n| around(&centres[n % 8], 0.05)).collect()),
        ("near ties", (0..CHUNKS).map(|_| around(&query, 1e-6)).collect()),
        ("ties", (0..CHUNKS).map(|n| centres[n % 8].clone()).collect()),
        ("all equal", vec![query.clone(); CHUNKS]),
    ];
    for (name, vectors) in rows {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = opened(directory.path());
        let documents = vectors.chunks(100).enumerate().map(|(n, vectors)| {
            // Later documents have smaller ids, so that the chunks that arrive last decide a tie at the end of the
            // answer.
            let chunks: Vec<(&str, &str, &[f32])> = vectors.iter().map(|v| (GUARDS[n % 4], "", v.as_slice())).collect();
            document(&format!("d{:03}", 999 - n), &chunks)
        });
        store.upsert(COLLECTION, documents.collect()).await.expect("taken in");
        for space in [None, Some(BTreeSet::from([1, 3]))] {
            for per_document_max in [None, NonZeroUsize::new(2)] {
                let question =
                    Question { space: space.clone(), per_document_max, ..Question::new(Query::Vector(query.clone())) };
                // Without a limit, every score is computed.
                let whole = bytes(&ask(&store, &Question { limit: usize::MAX, ..question.clone() }).await);
                for limit in [1, 10, 100, 1_000] {
                    let found = bytes(&ask(&store, &Question { limit, ..question.clone() }).await);
                    assert!(
                        found.iter().eq(whole.iter().take(limit)),
                        "{name}, {limit}, {space:?}, {per_document_max:?}"
                    );
                }
                let lowest = f64::from(f32::from_bits(whole[whole.len() / 2].2));
                let above = ask(&store, &Question { limit: 10_000, min_score: Some(lowest), ..question.clone() }).await;
                let expected = whole.iter().filter(|(_, _, bits)| f64::from(f32::from_bits(*bits)) >= lowest);
                assert!(
                    bytes(&above).iter().eq(expected),
                    "{name}, at least {lowest}, {space:?}, {per_document_max:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_million_guards_and_a_single_chunk() {
    const DOCUMENTS: usize = 100;
    const CHUNKS: usize = 10_000;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = opened(directory.path());
    for number in 0..DOCUMENTS {
        let guards: Vec<String> = (0..CHUNKS).map(|chunk| format!("doc:{number}-{chunk}")).collect();
        let vector = [1.0, f32::from(u8::try_from(number).expect("below 256"))];
        let chunks: Vec<(&str, &str, &[f32])> = guards.iter().map(|guard| (guard.as_str(), "", &vector[..])).collect();
        store.upsert(COLLECTION, vec![document(&format!("d{number:02}"), &chunks)]).await.expect("taken in");
    }
    let table = store.guards(COLLECTION).await.expect("a collection").expect("guards");
    let guards = u32::try_from(table.guards.len()).expect("a number");
    assert_eq!(guards, 1_000_000);
    let question = Question { limit: 3, ..Question::new(Query::Vector(vec![1.0, 0.0])) };
    let found = async |positions: RoaringBitmap| {
        let search = question.search(SearchSpace::Guards { table: table.clone(), positions });
        let found = store.search(&search).await.expect("a search").candidates;
        found.into_iter().map(|candidate| candidate.chunk_id).collect::<Vec<String>>()
    };
    // Equal scores are in the order of the ids, as text.
    assert_eq!(found((0..guards).collect()).await, ["d00#0", "d00#1", "d00#10"]);
    assert_eq!(found((0..guards).skip(1).collect()).await, ["d00#1", "d00#10", "d00#100"]);
    assert_eq!(found([guards - 1, 500_000, 499_999].into()).await, ["d49#9999", "d50#0", "d99#9999"]);
    assert!(found(RoaringBitmap::new()).await.is_empty());

    let single = "single";
    store.upsert(single, vec![document("one", &[("doc:one", "words", &[1.0])])]).await.expect("taken in");
    for (name, query) in [("a vector", Query::Vector(vec![-2.0])), ("a text", Query::Text("words".to_owned()))] {
        let search = Search { collection: single.to_owned(), ..Question::new(query).search(SearchSpace::Everything) };
        assert_eq!(store.search(&search).await.expect("a search").candidates.len(), 1, "{name}");
    }
}

#[tokio::test]
async fn the_longest_and_shortest_vectors_have_a_direction() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = opened(directory.path());
    let vectors = [[f32::MAX, f32::MAX], [f32::MIN_POSITIVE, f32::MIN_POSITIVE], [1e-45, 1e-45], [1.0, 1.0]];
    let documents = vectors.iter().enumerate().map(|(n, vector)| document(&format!("d{n}"), &[("doc:a", "", vector)]));
    store.upsert(COLLECTION, documents.collect()).await.expect("taken in");
    let question = Question::new(Query::Vector(vec![1e-40, 1e-40]));
    let found = ask(&store, &question).await;
    assert_eq!(found.len(), vectors.len());
    assert!(found.iter().all(|candidate| (candidate.score - 1.0).abs() < 1e-6), "{found:?}");
}

/// Returns two documents that must always be of one version.
fn pair(version: u32) -> Vec<Document> {
    let text = format!("version{version}");
    let guard = GUARDS[version as usize % GUARDS.len()];
    let vector: &[f32] = &[1.0, 0.0, 0.0];
    ["left", "right"].map(|id| document(id, &[(guard, &text, vector), (guard, &text, vector)])).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_a_write_wholly_or_not_at_all() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = opened(directory.path());
    store.upsert(COLLECTION, pair(0)).await.expect("taken in");
    let writer = store.clone();
    let writing = tokio::spawn(async move {
        for version in 1..60 {
            writer.upsert(COLLECTION, pair(version)).await.expect("taken in");
        }
    });
    let ids = ["left#0", "left#1", "right#0", "right#1"].map(str::to_owned);
    let question = Question::new(Query::Vector(vec![1.0, 0.0, 0.0]));
    while !writing.is_finished() {
        let guards: BTreeSet<String> = ask(&store, &question).await.iter().map(|c| c.guard.to_string()).collect();
        assert_eq!(guards.len(), 1, "{guards:?}");
        // A chunk that is replaced between the two steps of the reading is left out.
        let read = read_now(&store, COLLECTION, &ids).await.expect("read");
        let texts: BTreeSet<(&str, &str)> =
            read.iter().map(|chunk| (chunk.text.as_str(), chunk.guard.as_str())).collect();
        assert!(matches!((read.len(), texts.len()), (4, 1) | (0, 0)), "{texts:?}");
    }
    writing.await.expect("written");
}

const WRITER_DIRECTORY: &str = "RAGWARD_TEST_WRITER_DIRECTORY";

/// The process that `what_was_acknowledged_survives_a_kill` starts and kills. It is not a test by itself.
#[tokio::test]
async fn writer_to_be_killed() {
    #[expect(clippy::disallowed_methods, reason = "how the parent test tells this process apart from a test run")]
    let Ok(directory) = std::env::var(WRITER_DIRECTORY) else { return };
    let store = opened(Path::new(&directory));
    for version in 0.. {
        store.upsert(COLLECTION, pair(version)).await.expect("taken in");
        println!("\nacknowledged {version}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for kill_after in [1, 7, 30] {
        let mut writer = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "vector_store::exact_store::writer_to_be_killed", "--nocapture"])
            .env(WRITER_DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let lines = BufReader::new(writer.stdout.take().expect("its output")).lines();
        let acknowledged = lines.filter_map(|line| line.ok()?.strip_prefix("acknowledged ")?.parse::<u32>().ok());
        let last = acknowledged.take(kill_after).last().expect("an acknowledgement");
        writer.kill().expect("killed");
        writer.wait().expect("ended");

        let store = opened(directory.path());
        let ids = ["left#0", "left#1", "right#0", "right#1"].map(str::to_owned);
        let read = read_now(&store, COLLECTION, &ids).await.expect("read");
        let texts: BTreeSet<&str> = read.iter().map(|chunk| chunk.text.as_str()).collect();
        assert_eq!((read.len(), texts.len()), (4, 1), "killed after {kill_after}: {texts:?}");
        let version: u32 = read[0].text.trim_start_matches("version").parse().expect("a version");
        assert!(version >= last, "killed after {kill_after}: {version} is there, {last} was acknowledged");
        let question = Question::new(Query::Text(read[0].text.clone()));
        assert_eq!(ask(&store, &question).await.len(), 4, "killed after {kill_after}");
    }
}

#[test]
fn a_directory_in_use_and_a_damaged_file_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = opened(directory.path());
    let error = ExactStore::open(directory.path()).err();
    assert!(matches!(error, Some(VectorStoreError::Storage(StorageError::InUse(_)))), "{error:?}");
    runtime().block_on(store.upsert(COLLECTION, pair(1))).expect("taken in");
    drop(store);
    let path = directory.path().join(FILE_NAME);
    let mut bytes = std::fs::read(&path).expect("read");
    // The first data page follows the header's page.
    bytes.iter_mut().skip(4_096).for_each(|byte| *byte ^= 0x55);
    std::fs::write(&path, bytes).expect("written");
    assert!(ExactStore::open(directory.path()).is_err());
}
