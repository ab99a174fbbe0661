//! A document's new text is never released by a decision from before it was written.
//!
//! Again and again a tuple is deleted, the document is written anew under the same guard, and its old reader asks.
//! Unless a question names a moment, the copy or cache here answers it from an old value. Such a decision counts for
//! the old text only.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use ragward::authz::{
    Authorizer, AuthzError, CheckBatch, Consistency, Decision, Decisions, Reached, Source, VisiblePositions,
    VisibleSetQuery,
};
use ragward::chunk::{Candidate, Chunk, ChunkMetadata, Document, FoundChunk, Metadata, Written};
use ragward::language::{Object, Relation};
use ragward::retrieval::{Pages, RetrievalConfig, RetrievalParts, RetrievalRequest, Retriever};
use ragward::vector_store::exact::ExactStore;
use ragward::vector_store::{
    CollectionInfo, DocumentStore, GuardTable, Query, Search, Searched, VectorStore, VectorStoreError,
};
use tokio::time::Instant;

const COLLECTION: &str = "docs";
/// The number of rounds for each row. A round writes a document twice, durably, so many rounds take long.
const ROUNDS: usize = 50;

/// An authorizer for a single right, which one user has on one document. It also knows the value that the right had a
/// while ago.
struct Late {
    holds: AtomicBool,
    /// The value when it was last read, and the time of that reading.
    known: Mutex<(bool, Instant)>,
    source: Source,
    tells_visible_sets: bool,
    asked_again: AtomicUsize,
}

impl Late {
    fn look(&self) {
        *self.known.lock().unwrap() = (self.holds.load(Ordering::SeqCst), Instant::now());
    }

    /// Decides from the old value if that is fresh enough, otherwise from the current one.
    fn decide(&self, consistency: Consistency) -> (bool, Instant, Source) {
        let (allowed, as_of) = *self.known.lock().unwrap();
        let is_new_enough = match consistency {
            Consistency::MinimizeLatency => true,
            Consistency::AtLeastAsFresh(moment) => as_of >= moment,
            Consistency::HigherConsistency => false,
        };
        if is_new_enough {
            return (allowed, as_of, self.source);
        }
        self.asked_again.fetch_add(1, Ordering::SeqCst);
        let now = Instant::now();
        (self.holds.load(Ordering::SeqCst), now, Source::Authority)
    }
}

#[async_trait]
impl Authorizer for Late {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        let (allowed, as_of, source) = self.decide(batch.consistency);
        let decision = |position| Decision { position, allowed, as_of: Some(as_of), reached: Reached::Now };
        Ok(Decisions::new((0..batch.checks.len()).map(decision).collect(), source, Arc::default()))
    }

    async fn visible_set(&self, query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        let (allowed, ..) = self.decide(query.consistency);
        let shown = if allowed { Arc::clone(&query.positions) } else { Arc::default() };
        Ok(self.tells_visible_sets.then(|| VisiblePositions::now(shown)))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("model".into())
    }
}

/// A store whose documents were written by another process, so that only their dates are known.
struct OfAnother {
    store: ExactStore,
    started: (Instant, Duration),
}

impl OfAnother {
    fn dated(&self, candidate: Candidate) -> Candidate {
        let written = match candidate.written {
            Written::By(moment) => {
                let (instant, since_1970) = self.started;
                Written::AtWallTime(since_1970 + moment.saturating_duration_since(instant))
            }
            other @ (Written::AtWallTime(_) | Written::Unknown) => other,
        };
        Candidate { written, ..candidate }
    }
}

#[async_trait]
impl VectorStore for OfAnother {
    async fn collection(&self, name: &str) -> Result<CollectionInfo, VectorStoreError> {
        self.store.collection(name).await
    }

    async fn guards(&self, collection: &str) -> Result<Option<GuardTable>, VectorStoreError> {
        self.store.guards(collection).await
    }

    async fn search(&self, search: &Search) -> Result<Searched, VectorStoreError> {
        let searched = self.store.search(search).await?;
        let candidates = searched.candidates.into_iter().map(|candidate| self.dated(candidate)).collect();
        Ok(Searched { candidates, ..searched })
    }

    async fn find(&self, collection: &str, chunk_ids: &[String]) -> Result<Vec<FoundChunk>, VectorStoreError> {
        let found = self.store.find(collection, chunk_ids).await?;
        Ok(found.into_iter().map(|found| FoundChunk { candidate: self.dated(found.candidate), ..found }).collect())
    }

    async fn read_metadata(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<ChunkMetadata>, VectorStoreError> {
        self.store.read_metadata(collection, search, found).await
    }

    async fn read(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<Chunk>, VectorStoreError> {
        self.store.read(collection, search, found).await
    }
}

fn document(text: &str) -> Document {
    let chunk = Chunk {
        id: "1#0".to_owned(),
        document_id: "1".to_owned(),
        guard: Object::parse("document:1").unwrap(),
        title: String::new(),
        heading_path: Vec::new(),
        text: text.to_owned(),
        metadata: Metadata::new(),
        vector: vec![1.0, 0.0],
    };
    Document { id: "1".to_owned(), title: String::new(), chunks: vec![chunk] }
}

async fn texts(retriever: &Retriever, consistency: Consistency) -> Vec<String> {
    let query = Query::Vector(vec![1.0, 0.0]);
    let parts = RetrievalParts { consistency, ..RetrievalParts::new("user:anne", COLLECTION, query) };
    let request = RetrievalRequest::new(parts, 100).unwrap();
    let retrieval = retriever.retrieve(&request, Instant::now() + Duration::from_mins(1)).await.unwrap();
    retrieval.chunks.into_iter().map(|retrieved| retrieved.chunk.into_item().text).collect()
}

fn retriever(authorizer: &Arc<Late>, store: Arc<dyn VectorStore>) -> Retriever {
    let config = RetrievalConfig {
        relation: Relation::parse("can_read").unwrap(),
        top_k_max: 100,
        candidates_max: 10_000,
        guards_checked_max: 200_000,
        explain_plan: false,
        ..RetrievalConfig::default()
    };
    Retriever::new(Arc::clone(authorizer) as _, store, config, Pages::new(Duration::from_mins(1)).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn new_text_is_not_released_by_an_old_right() {
    let (copy, server) = (Source::Copy(1), Source::Authority);
    // The authorizers that answer from an old value, and whether each knows visible sets.
    let modes = [("decide", copy, true), ("plan", server, true), ("off", server, false)];
    for (mode, source, tells_visible_sets) in modes {
        for other_process in [false, true] {
            let row = format!("{mode}, written by {}", if other_process { "another process" } else { "this process" });
            let directory = tempfile::tempdir().unwrap();
            let store = ExactStore::open(directory.path()).unwrap();
            let authorizer = Arc::new(Late {
                holds: AtomicBool::new(true),
                known: Mutex::new((true, Instant::now())),
                source,
                tells_visible_sets,
                asked_again: AtomicUsize::new(0),
            });
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let of_another = OfAnother { store: store.clone(), started: (Instant::now(), since_1970) };
            let searched: Arc<dyn VectorStore> =
                if other_process { Arc::new(of_another) } else { Arc::new(store.clone()) };
            let retriever = retriever(&authorizer, searched);
            for round in 0..ROUNDS {
                let (shown, hidden) = (format!("shown {round}"), format!("hidden {round}"));
                authorizer.holds.store(true, Ordering::SeqCst);
                store.upsert(COLLECTION, vec![document(&shown)]).await.unwrap();
                authorizer.look();
                assert_eq!(texts(&retriever, Consistency::MinimizeLatency).await, [shown], "{row}, {round}");
                authorizer.holds.store(false, Ordering::SeqCst);
                store.upsert(COLLECTION, vec![document(&hidden)]).await.unwrap();
                assert_eq!(texts(&retriever, Consistency::MinimizeLatency).await, [] as [String; 0], "{row}, {round}");
            }
            let asked_again = authorizer.asked_again.load(Ordering::SeqCst);
            assert!(asked_again >= ROUNDS, "{row}: {asked_again} decisions were made anew");
        }
    }
}

/// A right that is older than the text still releases it, and the server is asked only when it must be.
#[tokio::test(flavor = "multi_thread")]
async fn old_text_is_released_without_asking_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = ExactStore::open(directory.path()).unwrap();
    store.upsert(COLLECTION, vec![document("text")]).await.unwrap();
    let authorizer = Arc::new(Late {
        holds: AtomicBool::new(true),
        known: Mutex::new((true, Instant::now())),
        source: Source::Copy(1),
        tells_visible_sets: true,
        asked_again: AtomicUsize::new(0),
    });
    let retriever = retriever(&authorizer, Arc::new(store));
    for question in 0..100 {
        assert_eq!(texts(&retriever, Consistency::MinimizeLatency).await, ["text"], "question {question}");
    }
    assert_eq!(authorizer.asked_again.load(Ordering::SeqCst), 0);
}
