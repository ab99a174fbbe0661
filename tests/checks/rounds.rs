//! Counts how often a retrieval asks the authorizer, and how many checks it asks for. A round of checks is one batch,
//! however many calls carry it. The tests vary the share of visible documents, the number of chunks asked for, and the
//! number of chunks to a guard. `--nocapture` shows the tables.
#![expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "counts of a small test")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ragward::authz::{Authorizer, AuthzError, CheckBatch, Decisions, VisiblePositions, VisibleSetQuery};
use ragward::chunk::{Candidate, Chunk, ChunkMetadata, Document, FoundChunk, Metadata};
use ragward::language::{Object, Relation};
use ragward::retrieval::{Completion, Pages, Plan, RetrievalConfig, RetrievalParts, RetrievalRequest, Retriever};
use ragward::vector_store::exact::ExactStore;
use ragward::vector_store::{
    CollectionInfo, DocumentStore, GuardTable, Query, Search, SearchCosts, Searched, VectorStore, VectorStoreError,
};
use roaring::RoaringBitmap;
use tokio::time::Instant;

use crate::support::dice::Dice;

const COLLECTION: &str = "handbook";
const CHUNKS: usize = 10_000;
const DIMENSION: usize = 16;
const CENTRES: u64 = 100;
const SHARES: [f64; 7] = [0.0001, 0.001, 0.01, 0.1, 0.4, 0.9, 0.99];
const USERS: usize = 2;
const QUERIES: usize = 40;
/// The number of text queries. The text is always the same: the first query stands for all of them, and the second
/// shows what a planner learns from the first.
const QUERIES_OF_TEXT: usize = 2;
const QUERIES_OF_ROW: usize = 12;

impl Dice {
    /// Returns a number from 0 to 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn vector(&mut self) -> Vec<f32> {
        (0..DIMENSION).map(|_| self.fraction() as f32 - 0.5).collect()
    }
}

/// Returns a vector near one of a hundred centres.
fn vector(seed: u64) -> Vec<f32> {
    let mut dice = Dice::new(seed);
    let centre = Dice::new(1_000_000 + dice.next() % CENTRES).vector();
    centre.iter().zip(dice.vector()).map(|(x, noise)| x + 0.3 * noise).collect()
}

/// Says whether an authorizer knows the visible sets of users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VisibleSets {
    Known,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueryKind {
    Text,
    Vector,
}

impl QueryKind {
    /// Returns the number of queries that each user asks.
    fn count(self) -> usize {
        match self {
            Self::Text => QUERIES_OF_TEXT,
            Self::Vector => QUERIES,
        }
    }

    fn query(self, number: usize) -> Query {
        match self {
            Self::Text => Query::Text("words".to_owned()),
            Self::Vector => Query::Vector(vector(9_000_000 + number as u64)),
        }
    }
}

/// An authorizer that lets each user see a share of the documents, picked without a pattern, and counts its batches.
struct Counting {
    share: f64,
    visible_sets: VisibleSets,
    /// The share of a visible set that was revoked since the set was computed.
    revoked: f64,
    sets: Mutex<HashMap<Object, Arc<RoaringBitmap>>>,
    batches: AtomicUsize,
    /// The number of checks in each batch and of denials among them, since the list was last taken.
    asked: Mutex<Vec<[usize; 2]>>,
}

impl Counting {
    fn new(share: f64, visible_sets: VisibleSets) -> Self {
        Self {
            share,
            visible_sets,
            revoked: 0.0,
            sets: Mutex::default(),
            batches: AtomicUsize::new(0),
            asked: Mutex::default(),
        }
    }

    fn fraction(purpose: &str, user: &Object, document: &Object) -> f64 {
        let seed = [purpose, user.as_str(), document.as_str()].concat();
        let seed = seed.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
        Dice::new(seed).fraction()
    }

    /// Returns whether the document is in the user's visible set.
    fn sees(&self, user: &Object, document: &Object) -> bool {
        Self::fraction("", user, document) < self.share
    }

    fn decides(&self, user: &Object, document: &Object) -> bool {
        self.sees(user, document) && Self::fraction("revoked", user, document) >= self.revoked
    }
}

#[async_trait]
impl Authorizer for Counting {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        self.batches.fetch_add(1, Ordering::Relaxed);
        let allowed: Vec<bool> = batch.checks.iter().map(|check| self.decides(&check.user, &check.object)).collect();
        let denied = allowed.iter().filter(|allowed| !**allowed).count();
        self.asked.lock().unwrap().push([allowed.len(), denied]);
        Ok(Decisions::now(allowed))
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        if self.visible_sets == VisibleSets::Unknown {
            return Ok(None);
        }
        let sees = |at: &u32| self.sees(&query.user, &query.guards[*at as usize]);
        let find = || Arc::new(query.positions.iter().filter(sees).collect());
        let visible = Arc::clone(self.sets.lock().unwrap().entry(query.user.clone()).or_insert_with(find));
        Ok(Some(VisiblePositions::now(visible)))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("model".into())
    }
}

async fn filled(store: &ExactStore, chunks_per_guard: usize) {
    let chunk = |document: usize, place: usize| Chunk {
        id: format!("{document}#{place}"),
        document_id: format!("document:{document}"),
        guard: Object::parse(&format!("document:{document}")).unwrap(),
        title: String::new(),
        heading_path: Vec::new(),
        text: "words".to_owned(),
        metadata: Metadata::new(),
        vector: vector((document * chunks_per_guard + place) as u64),
    };
    let document = |document: usize| Document {
        id: format!("document:{document}"),
        title: String::new(),
        chunks: (0..chunks_per_guard).map(|place| chunk(document, place)).collect(),
    };
    store.upsert(COLLECTION, (0..CHUNKS / chunks_per_guard).map(document).collect()).await.unwrap();
}

fn config() -> RetrievalConfig {
    RetrievalConfig {
        relation: Relation::parse("can_read").unwrap(),
        top_k_max: 100,
        candidates_max: 10_000,
        guards_checked_max: 200_000,
        explain_plan: false,
        ..RetrievalConfig::default()
    }
}

fn request(user: usize, query: Query, top_k: u32, per_document_max: u32) -> RetrievalRequest {
    let parts = RetrievalParts::new(&format!("user:{user}"), COLLECTION, query);
    let parts = RetrievalParts { top_k, per_document_max, ..parts };
    RetrievalRequest::new(parts, 100).unwrap()
}

/// Returns the number of batches that each retrieval took.
async fn batches(store: &ExactStore, share: f64, top_k: u32, visible_sets: VisibleSets, kind: QueryKind) -> Vec<usize> {
    let authorizer = Arc::new(Counting::new(share, visible_sets));
    let retriever = Retriever::new(
        Arc::clone(&authorizer) as _,
        Arc::new(store.clone()),
        config(),
        Pages::new(Duration::from_mins(1)).unwrap(),
    );
    let mut counted = Vec::new();
    for user in 0..USERS {
        for number in 0..kind.count() {
            let request = request(user, kind.query(number), top_k, 0);
            let before = authorizer.batches.load(Ordering::Relaxed);
            let retrieval = retriever.retrieve(&request, Instant::now() + Duration::from_mins(1)).await.unwrap();
            let row = format!("{share}, {top_k}, {visible_sets:?}, {kind:?} {number}, user {user}");
            assert_ne!(retrieval.completion, Completion::Limited, "{row}");
            counted.push(authorizer.batches.load(Ordering::Relaxed) - before);
        }
    }
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retrieval_asks_the_authorizer_once_or_twice() {
    let (mut all, mut within_two) = (0, 0);
    for chunks_per_guard in [1, 10] {
        let directory = tempfile::tempdir().unwrap();
        let store = ExactStore::open(directory.path()).unwrap();
        filled(&store, chunks_per_guard).await;
        println!(
            "\n{CHUNKS} chunks, {chunks_per_guard} to a guard; batches for each retrieval, {USERS} users x {QUERIES} queries"
        );
        println!("{:>10}{:>5}{:>14}{:>26}", "visible", "k", "set known", "not known: most, <= 2");
        for share in SHARES {
            for top_k in [1, 10, 100] {
                for kind in [QueryKind::Vector, QueryKind::Text] {
                    let known = batches(&store, share, top_k, VisibleSets::Known, kind).await;
                    // If nothing is visible, there are no batches at all.
                    assert!(known.iter().all(|count| *count <= 1), "{share}, {top_k}, {kind:?}: {known:?}");
                }
                let unknown = batches(&store, share, top_k, VisibleSets::Unknown, QueryKind::Vector).await;
                let (most, few) = (unknown.iter().max().unwrap(), unknown.iter().filter(|count| **count <= 2).count());
                let percent = 100.0 * few as f64 / unknown.len() as f64;
                println!("{:>8} %{top_k:>5}{:>14}{most:>17}{percent:>7.1} %", share * 100.0, "<= 1");
                all += unknown.len();
                within_two += few;
            }
        }
    }
    println!(
        "not known, all together: {:.1} % in at most 2",
        100.0 * f64::from(within_two as u32) / f64::from(all as u32)
    );
    assert!(within_two * 100 >= all * 95, "{within_two} of {all} in at most two");
}

/// The embedded engine in the role of a server with an index. On such a server a search space is a filter, whose cost
/// grows with the number of its guards.
struct Remote(ExactStore);

#[async_trait]
impl VectorStore for Remote {
    async fn collection(&self, name: &str) -> Result<CollectionInfo, VectorStoreError> {
        let info = self.0.collection(name).await?;
        Ok(CollectionInfo { search_costs: SearchCosts { per_guard: 1.0 / 16.0, per_chunk: 1.0 / 32.0 }, ..info })
    }

    async fn guards(&self, collection: &str) -> Result<Option<GuardTable>, VectorStoreError> {
        self.0.guards(collection).await
    }

    fn chunks_under(&self, _collection: &str, table: &GuardTable, positions: &RoaringBitmap) -> Option<u64> {
        Some(positions.len() * CHUNKS as u64 / table.in_use.len())
    }

    async fn search(&self, search: &Search) -> Result<Searched, VectorStoreError> {
        self.0.search(search).await
    }

    async fn find(&self, collection: &str, ids: &[String]) -> Result<Vec<FoundChunk>, VectorStoreError> {
        self.0.find(collection, ids).await
    }

    async fn read_metadata(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<ChunkMetadata>, VectorStoreError> {
        self.0.read_metadata(collection, search, found).await
    }

    async fn read(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<Chunk>, VectorStoreError> {
        self.0.read(collection, search, found).await
    }
}

/// The checks, batches and plans of the retrievals of one row.
struct Asked {
    checks: Vec<usize>,
    batches: Vec<usize>,
    plans: Vec<Plan>,
}

impl Asked {
    async fn of(store: &Arc<Remote>, authorizer: Counting, top_k: u32, per_document_max: u32) -> Self {
        let authorizer = Arc::new(authorizer);
        let row = format!("{} visible, {} revoked, k = {top_k}", authorizer.share, authorizer.revoked);
        let retriever = Retriever::new(
            Arc::clone(&authorizer) as _,
            Arc::clone(store) as _,
            config(),
            Pages::new(Duration::from_mins(1)).unwrap(),
        );
        let mut asked = Self { checks: Vec::new(), batches: Vec::new(), plans: Vec::new() };
        for user in 0..USERS {
            for query in 0..QUERIES_OF_ROW {
                let query = Query::Vector(vector(9_000_000 + query as u64));
                let request = request(user, query, top_k, per_document_max);
                let retrieval = retriever.retrieve(&request, Instant::now() + Duration::from_mins(1)).await.unwrap();
                assert_eq!(retrieval.completion, Completion::Complete, "{row}");
                let batches = std::mem::take(&mut *authorizer.asked.lock().unwrap());
                let [checks, denied] = [0, 1].map(|of| batches.iter().map(|batch| batch[of]).sum::<usize>());
                if authorizer.visible_sets == VisibleSets::Known {
                    // Before the first denial, there are no more checks than the answer can need. After that, each
                    // denial adds one check, or as many checks as the denials so far make likely to be needed.
                    let first = batches.first().map_or(0, |batch| batch[0]);
                    assert!(first <= top_k as usize, "{row}: {batches:?}");
                    assert!(checks <= top_k as usize + 2 * denied, "{row}: {batches:?}");
                }
                asked.checks.push(checks);
                asked.batches.push(batches.len());
                asked.plans.extend(retrieval.plan.rounds.last().map(|round| round.plan));
            }
        }
        asked
    }

    fn mean(counts: &[usize]) -> f64 {
        counts.iter().sum::<usize>() as f64 / counts.len() as f64
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_visible_set_is_known_no_more_is_asked_than_is_released() {
    for chunks_per_guard in [1, 10] {
        let directory = tempfile::tempdir().unwrap();
        let store = ExactStore::open(directory.path()).unwrap();
        filled(&store, chunks_per_guard).await;
        let store = Arc::new(Remote(store));
        println!(
            "\n{CHUNKS} chunks, {chunks_per_guard} to a guard, k = 10, a store with an index; checks for each retrieval"
        );
        println!("{:>10}{:>10}{:>10}{:>10}{:>22}", "visible", "revoked", "checks", "batches", "of everything");
        for share in [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0] {
            for revoked in [0.0, 0.1, 0.5] {
                let authorizer = Counting { revoked, ..Counting::new(share, VisibleSets::Known) };
                let asked = Asked::of(&store, authorizer, 10, 0).await;
                let (checks, batches) = (Asked::mean(&asked.checks), Asked::mean(&asked.batches));
                let everything = asked.plans.iter().filter(|plan| **plan == Plan::SearchThenCheck).count();
                let (all, share) = (asked.plans.len(), share * 100.0);
                assert!(batches <= if revoked < 0.5 { 2.5 } else { 5.5 }, "{share} %, {revoked}: {:?}", asked.batches);
                println!("{share:>8} %{:>8} %{checks:>10.1}{batches:>10.2}{everything:>16} of {all}", revoked * 100.0);
                if revoked == 0.0 {
                    assert!(
                        asked.batches.iter().all(|batches| *batches == 1),
                        "{share} %, {chunks_per_guard} to a guard: {:?}",
                        asked.batches
                    );
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_asks_for_what_the_answer_can_need() {
    let directory = tempfile::tempdir().unwrap();
    let store = ExactStore::open(directory.path()).unwrap();
    filled(&store, 10).await;
    let store = Arc::new(Remote(store));
    // The visible set is not known, so there are as many checks as it takes to find k chunks at this share, and few
    // more.
    for (share, top_k, checks_max) in [(0.9, 10, 13.0), (0.5, 10, 25.0), (0.2, 10, 65.0), (0.5, 1, 4.0)] {
        let asked = Asked::of(&store, Counting::new(share, VisibleSets::Unknown), top_k, 0).await;
        let (checks, batches) = (Asked::mean(&asked.checks), Asked::mean(&asked.batches));
        println!("{} % visible, not known, k = {top_k}: {checks:.1} checks in {batches:.2} batches", share * 100.0);
        assert!(checks <= checks_max, "{share}, {top_k}: {checks}");
        assert!(batches <= 3.0, "{share}, {top_k}: {batches}");
    }
    // A document counts once: its guard is checked once, however many chunks it has.
    let asked = Asked::of(&store, Counting::new(0.5, VisibleSets::Known), 10, 1).await;
    assert!(Asked::mean(&asked.checks) <= 12.0, "{:?}", asked.checks);
}
