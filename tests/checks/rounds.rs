//! How often a retrieval asks the authorizer: rounds of checks, which are one batch each however many calls carry it,
//! counted over a grid of shares visible, numbers of chunks and chunks to a guard. `--nocapture` shows the table.
#![expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "counts of a small test")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ragward::authz::{Answer, Authorizer, AuthzError, CheckBatch, Consistency, VisibleSetQuery};
use ragward::chunk::{Chunk, Document, Metadata};
use ragward::relationship::{Object, Relation};
use ragward::retrieval::request::{RetrievalParts, stated};
use ragward::retrieval::{Completion, Pages, RetrievalConfig, RetrievalRequest, Retriever};
use ragward::vector_store::exact::ExactStore;
use ragward::vector_store::{DocumentStore, Query};
use roaring::RoaringBitmap;
use tokio::time::Instant;

use crate::dice::Dice;

const COLLECTION: &str = "handbook";
const CHUNKS: usize = 10_000;
const DIMENSION: usize = 16;
const CENTRES: u64 = 100;
const SHARES: [f64; 7] = [0.0001, 0.001, 0.01, 0.1, 0.4, 0.9, 0.99];
const USERS: usize = 2;
const QUERIES: usize = 40;

impl Dice {
    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn vector(&mut self) -> Vec<f32> {
        (0..DIMENSION).map(|_| self.fraction() as f32 - 0.5).collect()
    }
}

/// Near one of a hundred centres.
fn vector(seed: u64) -> Vec<f32> {
    let mut dice = Dice::new(seed);
    let centre = Dice::new(1_000_000 + dice.next() % CENTRES).vector();
    centre.iter().zip(dice.vector()).map(|(x, noise)| x + 0.3 * noise).collect()
}

/// Shows each user a share of the documents, picked without a pattern, and counts its batches.
struct Counting {
    share: f64,
    /// Whether it tells a visible set.
    knows: bool,
    sets: Mutex<HashMap<Object, Arc<RoaringBitmap>>>,
    batches: AtomicUsize,
}

impl Counting {
    fn sees(&self, user: &Object, document: &Object) -> bool {
        let seed = [user.as_str(), document.as_str()].concat();
        let seed = seed.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
        Dice::new(seed).fraction() < self.share
    }
}

#[async_trait]
impl Authorizer for Counting {
    async fn check(&self, batch: &CheckBatch) -> Result<Vec<Answer>, AuthzError> {
        self.batches.fetch_add(1, Ordering::Relaxed);
        let answers = batch.checks.iter().map(|check| self.sees(&check.user, &check.object)).enumerate();
        Ok(answers.map(|(position, allowed)| Answer::now(position, allowed)).collect())
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<Arc<RoaringBitmap>>, AuthzError> {
        if !self.knows {
            return Ok(None);
        }
        let sees = |at: &u32| self.sees(&query.user, &query.guards[*at as usize]);
        let find = || Arc::new(query.positions.iter().filter(sees).collect());
        Ok(Some(Arc::clone(self.sets.lock().unwrap().entry(query.user.clone()).or_insert_with(find))))
    }

    async fn model_id(&self) -> Result<String, AuthzError> {
        Ok("model".to_owned())
    }
}

async fn filled(store: &ExactStore, chunks_per_guard: usize) {
    let chunk = |document: usize, place: usize| Chunk {
        id: format!("{document}#{place}"),
        document_id: format!("document:{document}"),
        guard: Object::parse(&format!("document:{document}")).unwrap(),
        title: String::new(),
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
        pages: Pages::new(Duration::from_mins(1)).unwrap(),
        explain_plan: false,
    }
}

/// How many batches each retrieval took.
async fn batches(store: &ExactStore, share: f64, top_k: u32, knows: bool, text: bool) -> Vec<usize> {
    let authorizer = Arc::new(Counting { share, knows, sets: Mutex::default(), batches: AtomicUsize::new(0) });
    let retriever = Retriever::new(Arc::clone(&authorizer) as _, Arc::new(store.clone()), config());
    let mut counted = Vec::new();
    for user in 0..USERS {
        for query in 0..QUERIES {
            let query =
                if text { Query::Text("words".to_owned()) } else { Query::Vector(vector(9_000_000 + query as u64)) };
            let parts = RetrievalParts {
                principal: stated(&format!("user:{user}")),
                collection: COLLECTION.to_owned(),
                query: Some(query),
                top_k,
                filter: None,
                min_score: None,
                per_document_max: 0,
                consistency: Consistency::default(),
                page_token: None,
            };
            let request = RetrievalRequest::new(parts, 100).unwrap();
            let before = authorizer.batches.load(Ordering::Relaxed);
            let retrieval = retriever.retrieve(&request, Instant::now() + Duration::from_mins(1)).await.unwrap();
            assert_ne!(retrieval.completion, Completion::Limited, "{share}, {top_k}");
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
                for text in [false, true] {
                    let known = batches(&store, share, top_k, true, text).await;
                    // None at all where nothing is visible.
                    assert!(known.iter().all(|count| *count <= 1), "{share}, {top_k}: {known:?}");
                }
                let unknown = batches(&store, share, top_k, false, false).await;
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
