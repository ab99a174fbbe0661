//! INVARIANT (one version): each chunk of an answer is of one version. Its score, its guard and the metadata that
//! passed the filter belong to its text, whenever the document was replaced.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ragward::authz::{Authorizer, AuthzError, CheckBatch, Consistency, Decisions};
use ragward::chunk::{Candidate, Chunk, ChunkMetadata, Document, FoundChunk, Value};
use ragward::language::Relation;
use ragward::retrieval::{
    Completion, NamedPrincipal, Pages, Retrieval, RetrievalConfig, RetrievalParts, RetrievalRequest, Retriever,
};
use ragward::vector_store::exact::ExactStore;
use ragward::vector_store::qdrant::{QdrantConfig, QdrantStore};
use ragward::vector_store::{
    CollectionInfo, DocumentStore, Filter, GuardTable, Query, Search, Searched, VectorStore, VectorStoreError,
};
use tokio::time::Instant;

use crate::support::qdrant_servers::{AnyQdrant, servers};
use crate::support::vector_store_suite::document;

const COLLECTION: &str = "docs";
const NEAR: [f32; 2] = [1.0, 0.0];
const FAR: [f32; 2] = [0.0, 1.0];

/// The versions that a document has, one after the other. `None` means that it is deleted.
type Versions = Vec<Option<Document>>;

/// The ports of a store that a test needs.
trait AnyStore: VectorStore + DocumentStore {}
impl<S: VectorStore + DocumentStore> AnyStore for S {}

/// A store in which other writers are at work between a search and the reading of what it found.
struct Busy {
    store: Arc<dyn AnyStore>,
    /// The versions that are still to be written, one after each search. `None` deletes the document.
    versions: Mutex<VecDeque<Option<Document>>>,
    searches: AtomicUsize,
}

#[async_trait]
impl VectorStore for Busy {
    async fn collection(&self, name: &str) -> Result<CollectionInfo, VectorStoreError> {
        self.store.collection(name).await
    }

    async fn guards(&self, collection: &str) -> Result<Option<GuardTable>, VectorStoreError> {
        self.store.guards(collection).await
    }

    async fn search(&self, search: &Search) -> Result<Searched, VectorStoreError> {
        self.searches.fetch_add(1, Ordering::SeqCst);
        let found = self.store.search(search).await?;
        let next = self.versions.lock().expect("a lock").pop_front();
        match next {
            Some(Some(version)) => self.store.upsert(COLLECTION, vec![version]).await?,
            Some(None) => {
                self.store.delete(COLLECTION, &["a".to_owned()].into()).await?;
            }
            None => {}
        }
        Ok(found)
    }

    async fn find(&self, collection: &str, ids: &[String]) -> Result<Vec<FoundChunk>, VectorStoreError> {
        self.store.find(collection, ids).await
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

/// Allows every guard but `doc:hidden`.
struct AllButHidden;

#[async_trait]
impl Authorizer for AllButHidden {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        Ok(Decisions::now(batch.checks.iter().map(|c| c.object.id() != "hidden")))
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("model".into())
    }
}

/// Returns a document of one chunk.
fn version(id: &str, guard: &str, area: &str, text: &str, vector: [f32; 2]) -> Document {
    let mut document = document(id, &[(guard, text, &vector)]);
    document.chunks[0].metadata = [("area".to_owned(), Value::Text(area.to_owned()))].into();
    document
}

fn a(area: &str, text: &str, vector: [f32; 2]) -> Document {
    version("a", "doc:a", area, text, vector)
}

fn retriever(store: Arc<dyn VectorStore>) -> Retriever {
    let config = RetrievalConfig {
        relation: Relation::parse("can_read").expect("a relation"),
        top_k_max: 100,
        candidates_max: 100,
        guards_checked_max: 100,
        explain_plan: true,
        ..RetrievalConfig::default()
    };
    Retriever::new(Arc::new(AllButHidden), store, config, Pages::new(Duration::from_mins(1)).expect("a key"))
}

/// Returns the nearest public chunks whose scores are high enough.
async fn ask(retriever: &Retriever, query: Query, top_k: u32, min_score: Option<f64>) -> Retrieval {
    let parts = RetrievalParts {
        principal: NamedPrincipal::stated("user:anne"),
        collection: COLLECTION.to_owned(),
        query: Some(query.into()),
        top_k,
        filter: Some(Filter::OneOf { key: "area".to_owned(), values: vec![Value::Text("public".to_owned())] }),
        min_score,
        per_document_max: 0,
        consistency: Consistency::MinimizeLatency,
        page_token: None,
    };
    let request = RetrievalRequest::new(parts, 100).expect("a request");
    retriever.retrieve(&request, Instant::now() + Duration::from_secs(30)).await.expect("an answer")
}

fn texts(answer: &Retrieval) -> Vec<&str> {
    answer.chunks.iter().map(|retrieved| retrieved.chunk.item().text.as_str()).collect()
}

/// The embedded engine, and Qdrant over each server. Their servers live as long as the stores.
struct Stores {
    named: Vec<(&'static str, Arc<dyn AnyStore>)>,
    _servers: Vec<AnyQdrant>,
    _directory: tempfile::TempDir,
}

async fn stores() -> Stores {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let exact = ExactStore::open(directory.path()).expect("a store");
    let mut named: Vec<(&'static str, Arc<dyn AnyStore>)> = vec![("exact", Arc::new(exact))];
    let servers = servers().await;
    for server in &servers {
        named.push((server.name, Arc::new(QdrantStore::new(&QdrantConfig::new(&server.url)).expect("a store"))));
    }
    Stores { named, _servers: servers, _directory: directory }
}

#[tokio::test]
async fn what_is_replaced_before_it_is_read_is_searched_for_again() {
    let near = || a("public", "near", NEAR);
    let rows: [(&str, Versions, &[&str]); 8] = [
        ("nothing changes", vec![], &["near", "beside"]),
        ("out of the filter and far", vec![Some(a("secret", "secret", FAR))], &["beside", "last"]),
        ("out of the filter", vec![Some(a("secret", "secret", NEAR))], &["beside", "last"]),
        ("below the lowest score", vec![Some(a("public", "far", FAR))], &["beside", "last"]),
        ("another text", vec![Some(a("public", "newer", NEAR))], &["newer", "beside"]),
        ("under a hidden guard", vec![Some(version("a", "doc:hidden", "public", "secret", NEAR))], &["beside", "last"]),
        ("deleted", vec![None], &["beside", "last"]),
        ("away and back", vec![Some(a("secret", "secret", FAR)), Some(near())], &["beside", "last"]),
    ];
    let stores = stores().await;
    for (name, store) in stores.named.clone() {
        for (what, versions, expected) in &rows {
            let others = [
                version("b", "doc:b", "public", "beside", [1.0, 0.1]),
                version("c", "doc:c", "public", "last", [1.0, 0.2]),
            ];
            let documents = [near()].into_iter().chain(others).collect();
            store.upsert(COLLECTION, documents).await.expect("taken in");
            let busy = Busy {
                store: Arc::clone(&store),
                versions: Mutex::new(versions.clone().into()),
                searches: AtomicUsize::new(0),
            };
            let answer = ask(&retriever(Arc::new(busy)), Query::Vector(NEAR.to_vec()), 2, Some(0.5)).await;
            assert_eq!(texts(&answer), *expected, "{name}: {what}");
            assert_eq!(answer.completion, Completion::Complete, "{name}: {what}");
            assert!(answer.chunks.iter().all(|retrieved| retrieved.score > 0.9), "{name}: {what}");
        }
    }
}

/// A document is replaced after every search. The request ends all the same, and the answer says that there may be
/// more.
#[tokio::test]
async fn what_is_replaced_all_the_time_is_left_out() {
    let stores = stores().await;
    for (name, store) in stores.named.clone() {
        for (others, top_k, expected, completion) in [
            (1, 1, vec!["beside"], Completion::Complete),
            (1, 2, vec!["beside"], Completion::Limited),
            (0, 1, vec![], Completion::Limited),
        ] {
            let first = a("public", "version", NEAR);
            let beside = version("b", "doc:b", "public", "beside", [1.0, 0.1]);
            store.upsert(COLLECTION, vec![first]).await.expect("taken in");
            store.delete(COLLECTION, &["b".to_owned()].into()).await.expect("deleted");
            store.upsert(COLLECTION, vec![beside; others]).await.expect("taken in");
            let versions = (0..100).map(|_| Some(a("public", "version", NEAR))).collect();
            let busy = Arc::new(Busy {
                store: Arc::clone(&store),
                versions: Mutex::new(versions),
                searches: AtomicUsize::new(0),
            });
            let asked = Arc::clone(&busy) as Arc<dyn VectorStore>;
            let answer = ask(&retriever(asked), Query::Vector(NEAR.to_vec()), top_k, None).await;
            assert_eq!((texts(&answer), answer.completion), (expected, completion), "{name}: {others}, {top_k}");
            assert!(!answer.exact, "{name}: {others}, {top_k}");
            assert!(busy.searches.load(Ordering::SeqCst) < 20, "{name}: {others}, {top_k}");
        }
    }
}

/// While documents move between {public, near} and {secret, far}, no answer holds a text that the filter leaves out,
/// nor the score of another version.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_answer_holds_two_versions_under_load() {
    const DOCUMENTS: usize = 8;
    const VERSIONS: usize = 120;
    const READERS: usize = 3;
    let stores = stores().await;
    for (name, store) in stores.named.clone() {
        let of_round = |round: usize| -> Vec<Document> {
            let one = |number: usize| {
                let (id, guard) = (format!("d{number}"), format!("doc:{number}"));
                if (round + number).is_multiple_of(2) {
                    version(&id, &guard, "public", "open", NEAR)
                } else {
                    version(&id, &guard, "secret", "secret", FAR)
                }
            };
            (0..DOCUMENTS).map(one).collect()
        };
        store.upsert(COLLECTION, of_round(0)).await.expect("taken in");
        let writing = tokio::spawn({
            let (store, rounds): (_, Vec<_>) = (Arc::clone(&store), (1..VERSIONS).map(of_round).collect());
            async move {
                for documents in rounds {
                    store.upsert(COLLECTION, documents).await.expect("taken in");
                }
            }
        });
        let writing = Arc::new(writing);
        let readers = (0..READERS).map(|_| {
            let (writing, retriever) = (Arc::clone(&writing), retriever(Arc::clone(&store) as Arc<dyn VectorStore>));
            tokio::spawn(async move {
                let (mut answers, mut chunks) = (0_usize, 0_usize);
                loop {
                    let is_last = writing.is_finished();
                    let answer = ask(&retriever, Query::Vector(NEAR.to_vec()), 5, None).await;
                    answers += 1;
                    chunks += answer.chunks.len();
                    let found: BTreeSet<(String, bool)> = answer
                        .chunks
                        .iter()
                        .map(|retrieved| (retrieved.chunk.item().text.clone(), retrieved.score > 0.9))
                        .collect();
                    assert!(found.iter().all(|found| *found == ("open".to_owned(), true)), "{name}: {found:?}");
                    if is_last {
                        break;
                    }
                }
                (answers, chunks)
            })
        });
        for (reader, outcome) in futures::future::join_all(readers).await.into_iter().enumerate() {
            let (answers, chunks) = outcome.unwrap_or_else(|e| panic!("{name}, reader {reader}: {e}"));
            assert!(answers > 0 && chunks > 0, "{name}, reader {reader}: {answers} answers, {chunks} chunks");
        }
        Arc::into_inner(writing).expect("no reader is left").await.expect("written");
    }
}
