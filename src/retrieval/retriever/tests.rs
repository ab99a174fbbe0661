//! Tests retrieval over backends that fail in every way, and over a corpus that changes while a request runs. The
//! doubles here make faults. The tests in `tests/` cover the good case with the embedded engines.
#![expect(clippy::wildcard_enum_match_arm, reason = "a fault concerns one call, and the others ignore it")]

mod fetch;
mod hints;
mod meant;
mod narrowed;
mod pages;
mod reranked;
mod sourced;

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use roaring::RoaringBitmap;

use super::*;
use crate::authz::{Abilities, AuthzError, CheckBatch, Consistency, Decisions, VisiblePositions, VisibleSetQuery};
use crate::chunk::{Chunk, ChunkMetadata, Metadata, Value, Written};
use crate::language::{Object, Relation};
use crate::retrieval::request::{NamedPrincipal, RetrievalParts};
use crate::retrieval::{Completion, Pages};
use crate::vector_store::validation::CHUNKS_PER_DOCUMENT_MAX;
use crate::vector_store::{
    CollectionInfo, GuardTable, Query, Rest, Search, SearchCosts, SearchSpace, Searched, VectorStoreError,
};

/// Longer than any request here takes on a busy machine. Backends that hang are waited for with a paused clock.
const PATIENCE: Duration = Duration::from_mins(1);

/// Allows the guards whose id begins with `open`, and tells a visible set that may be wrong.
struct OpenOnly {
    local: bool,
    hint: Option<Lie>,
}

/// The visible set that an authorizer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    Truth,
    Everything,
    Nothing,
    Inverted,
    EveryOther,
    /// Only positions that no guard has.
    Elsewhere,
}

impl Lie {
    const ALL: [Self; 6] =
        [Self::Truth, Self::Everything, Self::Nothing, Self::Inverted, Self::EveryOther, Self::Elsewhere];

    fn shows(self, position: u32, guard: &Object) -> bool {
        let open = guard.id().starts_with("open");
        match self {
            Self::Truth => open,
            Self::Everything => true,
            Self::Nothing | Self::Elsewhere => false,
            Self::Inverted => !open,
            Self::EveryOther => position.is_multiple_of(2),
        }
    }
}

#[async_trait]
impl Authorizer for OpenOnly {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        Ok(Decisions::now(batch.checks.iter().map(|c| c.object.id().starts_with("open"))))
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        let Some(lie) = self.hint else { return Ok(None) };
        let mut shown: RoaringBitmap =
            (0..).zip(query.guards.iter()).filter(|(at, guard)| lie.shows(*at, guard)).map(|(at, _)| at).collect();
        if lie == Lie::Elsewhere {
            shown.insert_range(1_000..2_000);
        }
        Ok(Some(VisiblePositions::now(Arc::new(shown))))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("model".into())
    }

    fn abilities(&self, _consistency: Consistency) -> Abilities {
        Abilities { checks_are_local: self.local, ..Abilities::default() }
    }
}

/// The fault of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    SearchHangs,
    ReadHangs,
    SearchFails,
    ReadFails,
    OneTooMany,
    OneTwice,
    NoNumber,
    /// A search within some guards looks at everything.
    ScopeIgnored,
    /// The best chunk gets a shut guard after a search has found it.
    GuardChanges,
    /// A search tells a shut guard for each open chunk, and an open guard for each shut one.
    GuardsSwapped,
    /// Like [`Fault::GuardsSwapped`], in the first search only.
    GuardsSwappedOnce,
    /// The best chunk is gone after a search has found it.
    ChunkGoes,
    /// Reading returns chunks that were not asked for.
    ReadForeign,
    /// The store cannot list its guards.
    NoTable,
    /// All chunks have one score.
    OneScore,
    /// The store cannot tell whether it found everything that matches.
    MayBeMore,
    /// The store returns no more candidates than are enough.
    NoMoreThanEnough,
}

/// A store of chunks in the order of their score.
struct Shelf {
    chunks: Mutex<Vec<Chunk>>,
    fault: Fault,
    searches: AtomicUsize,
    reads: Mutex<Vec<String>>,
}

impl Shelf {
    /// Returns whether this search tells swapped guards.
    fn swaps(&self) -> bool {
        self.searches.fetch_add(1, Ordering::Relaxed) == 0 || self.fault == Fault::GuardsSwapped
    }
}

fn guard(id: &str) -> Object {
    Object::parse(&format!("document:{id}")).unwrap()
}

fn shelf(guards: &[&str], fault: Fault) -> Arc<Shelf> {
    let chunk = |(position, id): (usize, &&str)| Chunk {
        id: format!("{position:04}"),
        document_id: (*id).to_owned(),
        guard: guard(id),
        title: String::new(),
        heading_path: Vec::new(),
        text: format!("text of {id}"),
        metadata: Metadata::new(),
        vector: Vec::new(),
    };
    let chunks = guards.iter().enumerate().map(chunk).collect();
    Arc::new(Shelf { chunks: Mutex::new(chunks), fault, searches: AtomicUsize::new(0), reads: Mutex::default() })
}

fn candidate(chunk: &Chunk, score: f32) -> Candidate {
    let (chunk_id, guard) = (chunk.id.clone(), chunk.guard.clone());
    Candidate { chunk_id, guard, score, version: None, written: Written::Unknown }
}

#[async_trait]
impl VectorStore for Shelf {
    async fn collection(&self, _name: &str) -> Result<CollectionInfo, VectorStoreError> {
        Ok(CollectionInfo {
            dimension: Some(2),
            text_queries: true,
            search_costs: SearchCosts::FREE,
            candidates_max: None,
            chunks: 0,
            documents: 0,
        })
    }

    async fn guards(&self, _collection: &str) -> Result<Option<GuardTable>, VectorStoreError> {
        let mut guards: Vec<Object> = self.chunks.lock().unwrap().iter().map(|chunk| chunk.guard.clone()).collect();
        guards.sort();
        guards.dedup();
        Ok(Some(GuardTable::new(guards)).filter(|_| self.fault != Fault::NoTable))
    }

    async fn search(&self, search: &Search) -> Result<Searched, VectorStoreError> {
        match self.fault {
            Fault::SearchHangs => std::future::pending().await,
            Fault::SearchFails => return Err(VectorStoreError::Unavailable("refused".to_owned())),
            _ => {}
        }
        let in_scope = |chunk: &&Chunk| match &search.space {
            SearchSpace::Everything => true,
            SearchSpace::Guards { .. } if self.fault == Fault::ScopeIgnored => true,
            SearchSpace::Guards { table, positions } => {
                (0..).zip(table.guards.iter()).any(|(at, guard)| *guard == chunk.guard && positions.contains(at))
            }
        };
        let mut chunks = self.chunks.lock().unwrap();
        // A score is the chunk's own, whatever the space.
        let ranked = chunks.iter().zip((0..100u8).rev()).filter(|(chunk, _)| in_scope(chunk));
        let mut found: Vec<Candidate> =
            ranked.map(|(chunk, score)| candidate(chunk, f32::from(score))).take(search.limit).collect();
        let all = found.len();
        if self.fault == Fault::NoMoreThanEnough {
            found.truncate(search.enough);
        }
        if self.fault == Fault::OneScore {
            for candidate in &mut found {
                candidate.score = 1.0;
            }
        }
        match (self.fault, found.first().cloned()) {
            (Fault::OneTooMany, Some(first)) => found.resize(search.limit + 1, first),
            (Fault::OneTwice, Some(first)) => *found.last_mut().unwrap() = first,
            (Fault::NoNumber, Some(_)) => found[0].score = f32::NAN,
            (Fault::GuardChanges, Some(_)) => chunks[0].guard = guard("shut"),
            (Fault::GuardsSwapped | Fault::GuardsSwappedOnce, Some(_)) if self.swaps() => {
                for candidate in &mut found {
                    candidate.guard = guard(if candidate.guard.id() == "shut" { "open1" } else { "shut" });
                }
            }
            (Fault::ChunkGoes, Some(_)) => chunks.retain(|chunk| chunk.id != "0000"),
            _ => {}
        }
        let rest = match self.fault {
            _ if found.len() >= search.limit || found.len() < all => Rest::Further,
            Fault::MayBeMore => Rest::Unknown,
            _ => Rest::Nothing,
        };
        Ok(Searched { candidates: found, exact: true, rest })
    }

    async fn find(&self, _collection: &str, ids: &[String]) -> Result<Vec<FoundChunk>, VectorStoreError> {
        let chunks = self.chunks.lock().unwrap();
        let found = ids.iter().filter_map(|id| chunks.iter().find(|chunk| chunk.id == *id));
        let found = found.map(|chunk| {
            let document_id = Some(chunk.document_id.clone());
            FoundChunk { candidate: candidate(chunk, 0.0), document_id }
        });
        Ok(found.collect())
    }

    async fn document_guards(&self, _collection: &str, ids: &[String]) -> Result<Vec<Vec<Object>>, VectorStoreError> {
        Ok(vec![vec![guard("open1")]; ids.len()])
    }

    /// Every document has as many chunks as a document may have.
    async fn find_in_document(
        &self,
        _collection: &str,
        _document_id: &str,
        _guards: &HashSet<Object>,
    ) -> Result<Vec<Candidate>, VectorStoreError> {
        let chunks = self.chunks.lock().unwrap();
        let count = CHUNKS_PER_DOCUMENT_MAX + usize::from(self.fault == Fault::OneTooMany);
        let found = (0..count).map(|number| Candidate { chunk_id: number.to_string(), ..candidate(&chunks[0], 0.0) });
        Ok(found.collect())
    }

    async fn read_metadata(
        &self,
        _collection: &str,
        _search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<ChunkMetadata>, VectorStoreError> {
        let chunks = self.chunks.lock().unwrap();
        let asked = |chunk: &&Chunk| found.iter().any(|candidate| candidate.chunk_id == chunk.id);
        let metadata = |chunk: &Chunk| ChunkMetadata {
            chunk_id: chunk.id.clone(),
            document_id: chunk.document_id.clone(),
            guard: chunk.guard.clone(),
            metadata: chunk.metadata.clone(),
        };
        Ok(chunks.iter().filter(asked).map(metadata).collect())
    }

    async fn read(
        &self,
        _collection: &str,
        _search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<Chunk>, VectorStoreError> {
        match self.fault {
            Fault::ReadHangs => std::future::pending().await,
            Fault::ReadFails => return Err(VectorStoreError::Unavailable("refused".to_owned())),
            _ => {}
        }
        let ids: Vec<String> = found.iter().map(|candidate| candidate.chunk_id.clone()).collect();
        self.reads.lock().unwrap().extend_from_slice(&ids);
        let chunks = self.chunks.lock().unwrap();
        let asked = |chunk: &&Chunk| self.fault == Fault::ReadForeign || ids.contains(&chunk.id);
        Ok(chunks.iter().filter(asked).cloned().collect())
    }
}

struct Outcome {
    guards: Vec<String>,
    completion: Completion,
}

fn assert_no_shut_text_was_read(shelf: &Shelf) {
    let (read, chunks) = (shelf.reads.lock().unwrap(), shelf.chunks.lock().unwrap());
    let shut = chunks.iter().filter(|chunk| chunk.guard.id() == "shut");
    // If the guard of a chunk changes after the search, the chunk is read by its id and dropped when it comes.
    let changes = [Fault::GuardChanges, Fault::GuardsSwapped, Fault::GuardsSwappedOnce].contains(&shelf.fault);
    let shut = shut.filter(|_| !changes);
    let shut: Vec<&str> = shut.map(|chunk| chunk.id.as_str()).collect();
    assert!(read.iter().all(|id| !shut.contains(&id.as_str())), "read {read:?}, shut {shut:?}");
}

async fn retrieve(shelf: &Arc<Shelf>, local: bool, query: Query, top_k: u32) -> Result<Outcome, RetrievalError> {
    retrieve_grouped(shelf, local, query, top_k, 0).await
}

async fn retrieve_grouped(
    shelf: &Arc<Shelf>,
    local: bool,
    query: Query,
    top_k: u32,
    per_document_max: u32,
) -> Result<Outcome, RetrievalError> {
    let config = RetrievalConfig { top_k_max: 10, candidates_max: 40, ..configured() };
    let parts = RetrievalParts { per_document_max, ..parts(query, top_k) };
    let request = RetrievalRequest::new(parts, config.top_k_max).unwrap();
    let retriever = Retriever::new(
        Arc::new(OpenOnly { local, hint: None }),
        Arc::clone(shelf) as Arc<dyn VectorStore>,
        config,
        pages(),
    );
    let outcome = retriever.retrieve(&request, Instant::now() + PATIENCE).await;
    assert_no_shut_text_was_read(shelf);
    let retrieval = outcome?;
    let guards = retrieval.chunks.iter().map(|retrieved| retrieved.chunk.item().guard.id().to_owned()).collect();
    Ok(Outcome { guards, completion: retrieval.completion })
}

fn strings(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// Returns a vector query with local checks, one with remote checks, and a text query.
fn plans() -> [(bool, Query); 3] {
    let vector = || Query::Vector(vec![1.0, 0.0]);
    [(true, vector()), (false, vector()), (false, Query::Text("leave".to_owned()))]
}

#[tokio::test]
async fn the_answer_is_filled_past_what_is_shut() {
    let few: Vec<&str> = ["shut"; 14].into_iter().chain(["open1", "open2", "open3"]).collect();
    let hidden: Vec<&str> = ["shut"; 50].into_iter().chain(["open1"]).collect();
    for (local, query) in plans() {
        let all_of = |guards: &[&str]| shelf(guards, Fault::None);
        let filled = retrieve(&all_of(&few), local, query.clone(), 2).await.unwrap();
        assert_eq!(
            (filled.guards.as_slice(), filled.completion),
            (["open1", "open2"].map(String::from).as_slice(), Completion::Complete)
        );
        let short = retrieve(&all_of(&few), local, query.clone(), 5).await.unwrap();
        assert_eq!((short.guards.len(), short.completion), (3, Completion::Exhausted));
        let none = retrieve(&all_of(&["shut", "shut"]), local, query.clone(), 5).await.unwrap();
        assert_eq!((none.guards.len(), none.completion), (0, Completion::Exhausted));
        // One visible chunk ranks behind more hidden ones than a search may return. Then all guards are checked first.
        let deep = retrieve(&all_of(&hidden), local, query.clone(), 1).await.unwrap();
        assert_eq!((deep.guards.len(), deep.completion), (1, Completion::Complete));
    }
    // Where guards cannot be listed, the answer says that there may be more.
    let (local, query) = (false, Query::Vector(vec![1.0, 0.0]));
    let deep = retrieve(&shelf(&hidden, Fault::NoTable), local, query, 1).await.unwrap();
    assert_eq!((deep.guards.len(), deep.completion), (0, Completion::Limited));
}

fn pages() -> Pages {
    Pages::new(Duration::from_hours(1)).unwrap()
}

fn configured() -> RetrievalConfig {
    RetrievalConfig {
        relation: Relation::parse("can_read").unwrap(),
        top_k_max: 100,
        candidates_max: 400,
        guards_checked_max: 100,
        explain_plan: true,
        ..RetrievalConfig::default()
    }
}

fn parts(query: Query, top_k: u32) -> RetrievalParts {
    RetrievalParts {
        principal: NamedPrincipal::stated("user:anne"),
        collection: "handbook".to_owned(),
        query: Some(query.into()),
        top_k,
        filter: None,
        min_score: None,
        per_document_max: 0,
        consistency: Consistency::default(),
        page_token: None,
    }
}

async fn ask(retriever: &Retriever, parts: RetrievalParts) -> Result<Retrieval, RetrievalError> {
    let request = RetrievalRequest::new(parts, 100).unwrap();
    retriever.retrieve(&request, Instant::now() + PATIENCE).await
}

fn ids(retrieval: &Retrieval) -> Vec<String> {
    retrieval.chunks.iter().map(|retrieved| retrieved.chunk.item().id.clone()).collect()
}

/// Shut and open guards, twenty and forty of them.
fn mixed() -> Vec<String> {
    (0..60).map(|number| if number % 3 == 0 { "shut".to_owned() } else { format!("open{number}") }).collect()
}

#[tokio::test]
async fn a_plan_changes_when_the_first_round_finds_little() {
    // Nothing was learned, so little is searched first; then few of many guards turn out to be open.
    let names: Vec<String> =
        (0..80).map(|number| if number < 70 { format!("shut{number}") } else { format!("open{number}") }).collect();
    let guards: Vec<&str> = names.iter().map(String::as_str).collect();
    let retriever = Retriever::new(
        Arc::new(OpenOnly { local: false, hint: None }),
        shelf(&guards, Fault::None),
        configured(),
        pages(),
    );
    let retrieval = ask(&retriever, parts(Query::Vector(vec![1.0, 0.0]), 10)).await.unwrap();
    assert_eq!((retrieval.chunks.len(), retrieval.completion), (10, Completion::Complete));
    let plans: Vec<(&str, usize, usize)> =
        retrieval.plan.rounds.iter().map(|round| (round.plan.name(), round.candidates, round.permitted)).collect();
    assert_eq!(plans, [("search_then_check", 16, 0), ("list_then_search", 10, 10)]);
    assert_eq!(retrieval.plan.estimate, None);
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_gives_an_error() {
    let faults = [
        Fault::SearchHangs,
        Fault::ReadHangs,
        Fault::SearchFails,
        Fault::ReadFails,
        Fault::OneTooMany,
        Fault::OneTwice,
        Fault::NoNumber,
    ];
    for fault in faults {
        for (local, query) in plans() {
            let outcome = retrieve(&shelf(&["open1", "open2", "open3"], fault), local, query, 2).await;
            assert!(outcome.is_err(), "{fault:?}: {:?}", outcome.map(|outcome| outcome.guards));
        }
    }
}

#[tokio::test]
async fn a_wrong_hint_or_a_change_in_between_leaks_nothing() {
    for fault in [Fault::ScopeIgnored, Fault::GuardChanges, Fault::ChunkGoes, Fault::ReadForeign] {
        for (local, query) in plans() {
            let outcome = retrieve(&shelf(&["open1", "open2", "shut", "open3"], fault), local, query, 2).await.unwrap();
            let expected = match fault {
                Fault::GuardChanges | Fault::ChunkGoes => ["open2", "open3"],
                _ => ["open1", "open2"],
            };
            assert_eq!(outcome.guards, expected, "{fault:?}");
            assert_eq!(outcome.completion, Completion::Complete, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_short_answer_is_all_only_where_the_store_knows() {
    let guards = ["open1", "open2", "shut", "open3"];
    for (fault, short) in [(Fault::None, Completion::Exhausted), (Fault::MayBeMore, Completion::Limited)] {
        for (local, query) in plans() {
            for (top_k, completion) in [(3, Completion::Complete), (4, short)] {
                let outcome = retrieve(&shelf(&guards, fault), local, query.clone(), top_k).await.unwrap();
                assert_eq!(outcome.guards, ["open1", "open2", "open3"], "{fault:?}");
                assert_eq!(outcome.completion, completion, "{fault:?}, {top_k}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_store_left_for_a_wider_search_is_found() {
    let guards = ["open1", "shut", "shut", "open2", "shut", "shut", "shut", "open3", "shut", "open4"];
    let rows =
        [(1, Completion::Complete), (3, Completion::Complete), (4, Completion::Complete), (5, Completion::Exhausted)];
    for fault in [Fault::None, Fault::NoMoreThanEnough] {
        for (local, query) in plans() {
            for (top_k, completion) in rows {
                let outcome = retrieve(&shelf(&guards, fault), local, query.clone(), top_k).await.unwrap();
                let wanted = usize::try_from(top_k).unwrap().min(4);
                assert_eq!(outcome.guards, ["open1", "open2", "open3", "open4"][..wanted], "{fault:?}, {top_k}");
                assert_eq!(outcome.completion, completion, "{fault:?}, {top_k}");
            }
        }
    }
}

#[tokio::test]
async fn a_document_gives_no_more_chunks_than_wanted() {
    let guards = ["open1", "shut", "open1", "open1", "open2", "shut", "open2", "open3", "open3"];
    let rows: [(u32, u32, &[&str], Completion); 4] = [
        (1, 3, &["open1", "open2", "open3"], Completion::Complete),
        (1, 4, &["open1", "open2", "open3"], Completion::Exhausted),
        (2, 4, &["open1", "open1", "open2", "open2"], Completion::Complete),
        (9, 7, &["open1", "open1", "open1", "open2", "open2", "open3", "open3"], Completion::Complete),
    ];
    for (per_document_max, top_k, expected, completion) in rows {
        for (local, query) in plans() {
            let shelf = shelf(&guards, Fault::None);
            let outcome = retrieve_grouped(&shelf, local, query, top_k, per_document_max).await.unwrap();
            let found = (outcome.guards, outcome.completion);
            assert_eq!(found, (strings(expected), completion), "{per_document_max} of a document, {top_k} in all");
        }
    }
}

#[tokio::test]
async fn a_recheck_gives_what_is_still_there_and_open() {
    let shelf = shelf(&["open1", "shut", "open2"], Fault::None);
    let retriever = Retriever::new(Arc::new(OpenOnly { local: true, hint: None }), shelf, configured(), pages());
    let ids = ["0002", "0001", "gone", "0000", "0002", "0001"].map(String::from).to_vec();
    let anne = NamedPrincipal::stated("user:anne");
    let request = RecheckRequest::new(anne, "handbook".to_owned(), ids, Consistency::default()).unwrap();
    let rechecked = retriever.recheck(&request, Instant::now() + PATIENCE).await.unwrap();
    let ids: Vec<String> = rechecked.candidates.into_iter().map(|candidate| candidate.into_item().chunk_id).collect();
    assert_eq!(ids, ["0002", "0000", "0002"]);
    // A chunk that is gone does not count as withheld.
    let shut = WithheldChunk { chunk_id: "0001".to_owned(), document_id: Some("shut".to_owned()) };
    assert_eq!(rechecked.withheld, [shut]);
}
