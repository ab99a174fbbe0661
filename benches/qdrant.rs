//! This bench measures what authorization costs in front of Qdrant, in time and in recall.
//!
//! It searches the same collection with the same questions in turn: by the adapter without any authorization (the
//! baseline), and by retrievals whose visible set is known, at several shares of visible chunks. Recall is against a
//! scan of the visible chunks. The corpus has 100,000 × 384 vectors around 1,000 centres, ten chunks to a guard.
//!
//! It needs a real server: `QDRANT_URL` names a running one, `QDRANT_BIN` (or the PATH) one to start. Without one, a
//! small server in this process stands in, with a small corpus, so that the bench itself runs. Then its figures mean
//! nothing.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a bench prints, fails by panicking, and counts what is far below 2^24"
)]

mod support {
    #[expect(dead_code, reason = "nothing is shuffled here")]
    pub(crate) mod dice;
    pub(crate) mod held_port;
    pub(crate) mod qdrant_process;
    #[expect(dead_code, reason = "what was asked is not looked at here")]
    pub(crate) mod qdrant_server;
}

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::{CollectionStatus, GetCollectionInfoRequest};
use ragward::authz::{
    Abilities, Authorizer, AuthzError, CheckBatch, Consistency, Decisions, VisiblePositions, VisibleSetQuery,
};
use ragward::chunk::{Chunk, Document, Metadata};
use ragward::language::{Object, Relation};
use ragward::retrieval::{NamedPrincipal, Pages, RetrievalConfig, RetrievalParts, RetrievalRequest, Retriever};
use ragward::vector_store::qdrant::{QdrantConfig, QdrantStore};
use ragward::vector_store::{DocumentStore, Query, Search, SearchSpace, VectorStore};
use roaring::RoaringBitmap;
use tokio::time::Instant;

use self::support::dice::Dice;
use self::support::qdrant_process::Qdrant;
use self::support::qdrant_server::QdrantServer;

const TOP_K: usize = 10;
const CHUNKS_PER_GUARD: usize = 10;
const CALLERS: usize = 16;
/// The shares of visible guards, in ten-thousandths.
const SHARES: [usize; 7] = [1, 10, 100, 1_000, 4_000, 9_000, 9_900];
/// The number of documents in one call.
const BATCH: usize = 500;
const INDEX_TIMEOUT: Duration = Duration::from_mins(10);

/// The size of a measurement.
struct Size {
    chunks: usize,
    dimension: usize,
    centres: usize,
    queries: usize,
    /// The number of requests of each concurrent caller.
    each: usize,
}

/// Allows the guards with these numbers, and knows them all at once, as an authorizer that keeps visible sets does.
struct Known {
    open: HashSet<Object>,
    /// The last table that was asked about, and its visible positions.
    told: Mutex<Option<Told>>,
}

type Told = (Arc<Vec<Object>>, Arc<RoaringBitmap>);

#[async_trait]
impl Authorizer for Known {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        Ok(Decisions::now(batch.checks.iter().map(|c| self.open.contains(&c.object))))
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        let mut told = self.told.lock().unwrap();
        if let Some((guards, visible)) = told.as_ref()
            && Arc::ptr_eq(guards, &query.guards)
        {
            return Ok(Some(VisiblePositions::now(Arc::clone(visible))));
        }
        let shown = (0..).zip(query.guards.iter()).filter(|(_, guard)| self.open.contains(*guard));
        let visible = Arc::new(shown.map(|(position, _)| position).collect());
        *told = Some((Arc::clone(&query.guards), Arc::clone(&visible)));
        Ok(Some(VisiblePositions::now(visible)))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok(Arc::default())
    }

    fn abilities(&self, _consistency: Consistency) -> Abilities {
        Abilities { checks_are_local: true, ..Abilities::default() }
    }
}

/// A way of answering, which returns the ids of chunks.
#[derive(Clone)]
enum Way {
    Unfiltered(Arc<QdrantStore>),
    Authorized(Arc<Retriever>),
}

#[derive(Clone, Copy)]
struct Figures {
    p50: Duration,
    per_second: f64,
    recall: f64,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let real = Size { chunks: 100_000, dimension: 384, centres: 1_000, queries: 100, each: 50 };
    let small = Size { chunks: 2_000, dimension: 16, centres: 50, queries: 10, each: 2 };
    if let Some(server) = Qdrant::find().await {
        measure(&server.url, &real).await;
    } else {
        println!("no Qdrant: the mechanics only, over a small server in this process; the figures say nothing\n");
        let server = QdrantServer::start().await;
        measure(&server.address, &small).await;
    }
}

async fn measure(url: &str, size: &Size) {
    let collection = format!("ragward-bench-{}", ulid::Ulid::new());
    let store = Arc::new(QdrantStore::new(&QdrantConfig::new(url)).unwrap());
    let exact = Arc::new(QdrantStore::new(&QdrantConfig { exact: true, ..QdrantConfig::new(url) }).unwrap());
    let mut dice = Dice::new(1);
    let centres: Vec<Vec<f32>> = (0..size.centres).map(|_| vector(&mut dice, size.dimension)).collect();
    let started = Instant::now();
    fill(&store, &collection, size, &centres, &mut dice).await;
    println!("{} chunks put in and durable in {:.1?}", size.chunks, started.elapsed());
    let started = Instant::now();
    await_index(url, &collection).await;
    println!("indexed {:.1?} later", started.elapsed());
    let queries: Vec<Vec<f32>> = (0..size.queries).map(|_| near(&mut dice, &centres)).collect();

    println!(
        "{:>8} {:>10} {:>10} {:>7} {:>10} {:>10} {:>7} {:>8} {:>8}",
        "visible", "p50 all", "p50 ours", "ratio", "all/s", "ours/s", "ratio", "r. all", "r. ours"
    );
    for share in SHARES {
        let open: HashSet<Object> = (0..size.chunks / CHUNKS_PER_GUARD)
            .filter(|number| number % 10_000 * 7_919 % 10_000 < share)
            .map(guard)
            .collect();
        if open.is_empty() {
            continue;
        }
        let table = exact.guards(&collection).await.unwrap().unwrap();
        let positions = (0..).zip(table.guards.iter()).filter(|(_, guard)| open.contains(*guard)).map(|(at, _)| at);
        let space = SearchSpace::Guards { positions: positions.collect(), table };
        let authorized = Way::Authorized(Arc::new(retriever(&store, Known { open, told: Mutex::default() })));
        let unfiltered = Way::Unfiltered(Arc::clone(&store));
        let all = figures(&unfiltered, &exact, &collection, &SearchSpace::Everything, &queries, size).await;
        let ours = figures(&authorized, &exact, &collection, &space, &queries, size).await;
        println!(
            "{:>7}% {:>10.2?} {:>10.2?} {:>7.2} {:>10.0} {:>10.0} {:>7.2} {:>8.3} {:>8.3}",
            share as f64 / 100.0,
            all.p50,
            ours.p50,
            ours.p50.as_secs_f64() / all.p50.as_secs_f64(),
            all.per_second,
            ours.per_second,
            ours.per_second / all.per_second,
            all.recall,
            ours.recall,
        );
    }
    println!("\np50: one caller; per second: {CALLERS} callers. Goals: p50 ratio <= 1.5, throughput ratio >= 0.7,");
    println!("recall of ours >= that of all. The unfiltered search does not read the chunks' texts; ours does.");
    println!("The collection {collection} is left in the server.");
}

/// Waits until the server has finished with the collection. While it builds an index, part of a search runs without
/// one.
async fn await_index(url: &str, collection: &str) {
    let mut collections = CollectionsClient::connect(url.to_owned()).await.unwrap();
    let deadline = Instant::now() + INDEX_TIMEOUT;
    while Instant::now() < deadline {
        let request = GetCollectionInfoRequest { collection_name: collection.to_owned() };
        let info = collections.get(request).await.unwrap().into_inner().result.unwrap();
        let (points, indexed) = (info.points_count(), info.indexed_vectors_count.unwrap_or(info.points_count()));
        let is_busy = matches!(info.status(), CollectionStatus::Yellow | CollectionStatus::Grey);
        if !is_busy && indexed >= points / 10 * 9 {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("the index was not ready within {INDEX_TIMEOUT:?}");
}

async fn figures(
    way: &Way,
    exact: &QdrantStore,
    collection: &str,
    space: &SearchSpace,
    queries: &[Vec<f32>],
    size: &Size,
) -> Figures {
    let (mut found, mut wanted) = (0, 0);
    let mut times = Vec::new();
    for query in queries {
        let best = exact.search(&search(collection, query, space.clone())).await.unwrap().candidates;
        let started = Instant::now();
        let ids = way.ask(collection, query).await;
        times.push(started.elapsed());
        wanted += best.len();
        found += best.iter().filter(|candidate| ids.contains(&candidate.chunk_id)).count();
    }
    times.sort_unstable();
    let started = Instant::now();
    let callers = (0..CALLERS).map(|caller| {
        let (way, collection, queries) = (way.clone(), collection.to_owned(), queries.to_vec());
        let each = size.each;
        tokio::spawn(async move {
            for number in 0..each {
                way.ask(&collection, &queries[(caller * each + number) % queries.len()]).await;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let per_second = (CALLERS * size.each) as f64 / started.elapsed().as_secs_f64();
    Figures { p50: times[times.len() / 2], per_second, recall: f64::from(found as u32) / wanted as f64 }
}

impl Way {
    async fn ask(&self, collection: &str, query: &[f32]) -> HashSet<String> {
        match self {
            Self::Unfiltered(store) => {
                let found = store.search(&search(collection, query, SearchSpace::Everything)).await.unwrap().candidates;
                found.into_iter().map(|candidate| candidate.chunk_id).collect()
            }
            Self::Authorized(retriever) => {
                let parts = RetrievalParts {
                    principal: NamedPrincipal::stated("user:anne"),
                    collection: collection.to_owned(),
                    query: Some(Query::Vector(query.to_vec()).into()),
                    top_k: TOP_K as u32,
                    filter: None,
                    min_score: None,
                    per_document_max: 0,
                    consistency: Consistency::MinimizeLatency,
                    page_token: None,
                };
                let request = RetrievalRequest::new(parts, 100).unwrap();
                let deadline = Instant::now() + Duration::from_mins(1);
                let retrieval = retriever.retrieve(&request, deadline).await.unwrap();
                retrieval.chunks.iter().map(|retrieved| retrieved.chunk.item().id.clone()).collect()
            }
        }
    }
}

fn search(collection: &str, query: &[f32], space: SearchSpace) -> Search {
    Search {
        collection: collection.to_owned(),
        query: Query::Vector(query.to_vec()),
        filter: None,
        space,
        narrowing: None,
        min_score: None,
        per_document_max: None,
        limit: TOP_K,
        enough: usize::MAX,
    }
}

fn retriever(store: &Arc<QdrantStore>, authorizer: Known) -> Retriever {
    let config = RetrievalConfig {
        relation: Relation::parse("can_read").unwrap(),
        top_k_max: 100,
        candidates_max: 10_000,
        guards_checked_max: 200_000,
        explain_plan: false,
        ..RetrievalConfig::default()
    };
    let store = Arc::clone(store);
    Retriever::new(Arc::new(authorizer), store, config, Pages::new(Duration::from_mins(1)).unwrap())
}

fn guard(number: usize) -> Object {
    Object::parse(&format!("document:{number}")).unwrap()
}

async fn fill(store: &QdrantStore, collection: &str, size: &Size, centres: &[Vec<f32>], dice: &mut Dice) {
    let documents: Vec<usize> = (0..size.chunks / CHUNKS_PER_GUARD).collect();
    for batch in documents.chunks(BATCH) {
        let document = |number: &usize| {
            let id = format!("d{number}");
            let chunks = (0..CHUNKS_PER_GUARD).map(|place| Chunk {
                id: format!("{id}#{place}"),
                document_id: id.clone(),
                guard: guard(*number),
                title: String::new(),
                heading_path: Vec::new(),
                text: "words of a chunk".to_owned(),
                metadata: Metadata::new(),
                vector: near(dice, centres),
            });
            Document { id: id.clone(), title: String::new(), chunks: chunks.collect() }
        };
        store.upsert(collection, batch.iter().map(document).collect()).await.unwrap();
    }
}

/// Returns numbers around 0.
fn vector(dice: &mut Dice, dimension: usize) -> Vec<f32> {
    (0..dimension).map(|_| dice.below(2_001) as f32 / 1_000.0 - 1.0).collect()
}

/// Returns a vector near one of the centres.
fn near(dice: &mut Dice, centres: &[Vec<f32>]) -> Vec<f32> {
    let centre = &centres[dice.below(centres.len())];
    centre.iter().map(|x| x + (dice.below(2_001) as f32 / 1_000.0 - 1.0) * 0.6).collect()
}
