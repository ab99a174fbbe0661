//! Tests fetches over the embedded store.

use std::collections::BTreeSet;

use tempfile::TempDir;

use super::*;
use crate::chunk::Document;
use crate::identity::details::OneOf;
use crate::retrieval::{FetchParts, FetchRequest, Fetched};
use crate::vector_store::DocumentStore;
use crate::vector_store::exact::ExactStore;

const COLLECTION: &str = "handbook";
/// The most chunks of an answer in these tests.
const CHUNKS_MAX: u32 = 10;

/// Allows the same guards as [`OpenOnly`], and notes the objects that it is asked about.
#[derive(Default)]
struct Noting {
    asked: Mutex<Vec<Object>>,
}

#[async_trait]
impl Authorizer for Noting {
    async fn check(&self, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
        self.asked.lock().unwrap().extend(batch.checks.iter().map(|check| check.object.clone()));
        OpenOnly { local: true, hint: None }.check(batch).await
    }

    async fn visible_set(&self, _query: &VisibleSetQuery) -> Result<Option<VisiblePositions>, AuthzError> {
        Ok(None)
    }

    async fn readiness(&self) -> Result<Arc<str>, AuthzError> {
        Ok("model".into())
    }
}

struct World {
    store: Arc<ExactStore>,
    authorizer: Arc<Noting>,
    retriever: Retriever,
    _directory: TempDir,
}

async fn world(documents: Vec<Document>) -> World {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(ExactStore::open(directory.path()).unwrap());
    store.upsert(COLLECTION, documents).await.unwrap();
    let authorizer = Arc::new(Noting::default());
    let config = RetrievalConfig { top_k_max: CHUNKS_MAX, ..configured() };
    let retriever = Retriever::new(Arc::clone(&authorizer) as _, Arc::clone(&store) as _, config, pages());
    World { store, authorizer, retriever, _directory: directory }
}

/// Returns a document with a chunk for each guard. The ids of the chunks are in another order than the chunks.
fn document(id: &str, guards: &[&str]) -> Document {
    let chunk = |(number, name): (usize, &&str)| Chunk {
        id: format!("{id}#{}", 99_999 - number),
        document_id: id.to_owned(),
        guard: guard(name),
        title: String::new(),
        heading_path: Vec::new(),
        text: format!("text {number}"),
        metadata: Metadata::new(),
        vector: Vec::new(),
    };
    Document { id: id.to_owned(), title: String::new(), chunks: guards.iter().enumerate().map(chunk).collect() }
}

/// Returns the id of the chunk at a position of a document.
fn at(document: &str, number: usize) -> String {
    format!("{document}#{}", 99_999 - number)
}

fn all_at(document: &str, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| at(document, number)).collect()
}

fn fetch_parts(chunk_ids: Vec<String>, document_ids: &[&str]) -> FetchParts {
    FetchParts {
        principal: NamedPrincipal::stated("user:anne"),
        collection: COLLECTION.to_owned(),
        chunk_ids,
        document_ids: strings(document_ids),
        consistency: Consistency::default(),
    }
}

impl World {
    async fn fetch(&self, parts: FetchParts) -> Fetched {
        let request = FetchRequest::new(parts).unwrap();
        self.retriever.fetch(&request, Instant::now() + Duration::from_secs(10)).await.unwrap()
    }

    /// Returns the number of distinct objects that were asked about since the last call.
    fn checks(&self) -> usize {
        self.authorizer.asked.lock().unwrap().drain(..).collect::<BTreeSet<Object>>().len()
    }
}

fn fetched_ids(fetched: &Fetched) -> Vec<String> {
    fetched.chunks.iter().map(|chunk| chunk.item().id.clone()).collect()
}

#[tokio::test]
async fn a_store_that_finds_more_chunks_than_a_document_may_have_is_not_believed() {
    for (fault, is_refused) in [(Fault::None, false), (Fault::OneTooMany, true)] {
        let authorizer = Arc::new(OpenOnly { local: true, hint: None });
        let retriever = Retriever::new(authorizer, shelf(&["open1"], fault), configured(), pages());
        let request = FetchRequest::new(fetch_parts(Vec::new(), &["a"])).unwrap();
        let error = retriever.fetch(&request, Instant::now() + Duration::from_secs(10)).await.err();
        let refused = matches!(error, Some(RetrievalError::VectorStore(VectorStoreError::BadAnswer(_))));
        assert_eq!(refused, is_refused, "{fault:?}: {error:?}");
    }
}

/// The name of the row, the chunks and documents that are asked for, the chunks of the answer, and its end.
type Row<'a> = (&'a str, Vec<String>, &'a [&'a str], Vec<String>, Completion);

#[tokio::test]
async fn permitted_chunks_come_in_the_order_of_the_request() {
    let world = world(vec![
        document("open", &["open"; 3]),
        document("shut", &["shut"; 3]),
        document("mixed", &["shut", "open1", "shut", "open2", "open1"]),
        document("full", &["open"; 10]),
        document("long", &["open"; 11]),
    ])
    .await;
    let (exhausted, limited) = (Completion::Exhausted, Completion::Limited);
    let open = || all_at("open", 0..3);
    let rows: [Row; 12] = [
        ("nothing", vec![], &[], vec![], exhausted),
        ("chunks", all_at("open", [2, 0]), &[], all_at("open", [2, 0]), exhausted),
        ("a chunk twice", all_at("open", [1, 1, 0]), &[], all_at("open", [1, 0]), exhausted),
        (
            "a hidden and an absent chunk",
            vec![at("shut", 0), at("none", 0), at("open", 1)],
            &[],
            vec![at("open", 1)],
            exhausted,
        ),
        ("a document", vec![], &["open"], open(), exhausted),
        ("a hidden document", vec![], &["shut"], vec![], exhausted),
        ("an absent document", vec![], &["none"], vec![], exhausted),
        ("a document of which parts are hidden", vec![], &["mixed"], all_at("mixed", [1, 3, 4]), exhausted),
        (
            "documents in their order",
            vec![],
            &["mixed", "shut", "open", "mixed"],
            [all_at("mixed", [1, 3, 4]), open()].concat(),
            exhausted,
        ),
        ("a chunk and its document", vec![at("open", 1)], &["none", "open"], all_at("open", [1, 0, 2]), exhausted),
        ("as many as an answer has", vec![], &["shut", "full", "shut"], all_at("full", 0..10), exhausted),
        ("more than an answer has", vec![], &["long", "open"], all_at("long", 0..10), limited),
    ];
    for (row, chunk_ids, document_ids, expected, completion) in rows {
        let fetched = world.fetch(fetch_parts(chunk_ids, document_ids)).await;
        assert_eq!((fetched_ids(&fetched), fetched.completion), (expected, completion), "{row}");
        let has_text = fetched.chunks.iter().all(|chunk| chunk.item().text.starts_with("text "));
        assert!(has_text, "{row}: {:?}", fetched.chunks);
    }
}

/// Chunks and documents that are asked for.
type Asked<'a> = (Vec<String>, &'a [&'a str]);

/// INVARIANT (hidden as absent): what is hidden costs as many checks as what is absent, and gets the same answer.
#[tokio::test]
async fn what_is_hidden_costs_what_is_absent_costs() {
    let many: Vec<String> = (0..8).map(|number| format!("shut{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let world =
        world(vec![document("shut", &["shut"; 20]), document("many", &many), document("open", &["open"; 2])]).await;
    let nine: [&str; 9] = ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"];
    // The name of the row, hidden chunks and documents, absent ones, and the number of checks.
    let rows: [(&str, Asked, Asked, usize); 6] = [
        ("a chunk", (all_at("shut", [0]), &[]), (all_at("none", [0]), &[]), 1),
        ("chunks of one guard", (all_at("shut", 0..20), &[]), (all_at("none", 0..20), &[]), 20),
        ("a document of one guard", (vec![], &["shut"]), (vec![], &["none"]), 8),
        ("a document of many guards", (vec![], &["many"]), (vec![], &["none"]), 8),
        ("more documents than are looked up together", (vec![], &nine), (vec![], &nine), 72),
        ("beside an open one", (all_at("shut", [0]), &["shut", "open"]), (all_at("none", [0]), &["none", "open"]), 17),
    ];
    for (row, hidden, absent, checks) in rows {
        let mut answers = Vec::new();
        for (chunk_ids, document_ids) in [hidden, absent] {
            let fetched = world.fetch(fetch_parts(chunk_ids, document_ids)).await;
            assert_eq!(world.checks(), checks, "{row}: {document_ids:?}");
            answers.push((fetched_ids(&fetched), fetched.completion));
        }
        assert_eq!(answers[0], answers[1], "{row}");
    }
}

/// INVARIANT (limits count permitted chunks only).
#[tokio::test]
async fn a_hundred_thousand_hidden_chunks_are_not_there() {
    let world = world(vec![document("open", &["open"; 10])]).await;
    let hidden: Vec<String> = (0..10).map(|number| format!("hidden{number}")).collect();
    for id in &hidden {
        world.store.upsert(COLLECTION, vec![document(id, &["shut"; 10_000])]).await.unwrap();
    }
    let absent: Vec<String> = (0..10).map(|number| format!("absent{number}")).collect();
    let mut answers = Vec::new();
    for ids in [&hidden, &absent] {
        let document_ids: Vec<&str> = ids.iter().map(String::as_str).chain(["open"]).collect();
        let fetched = world.fetch(fetch_parts(all_at(&ids[0], 0..900), &document_ids)).await;
        answers.push((fetched_ids(&fetched), fetched.completion, world.checks()));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!((answers[0].0.len(), answers[0].1), (10, Completion::Exhausted));
}

/// INVARIANT (no text before the details): a chunk that the details of a token do not permit is not there.
#[tokio::test]
async fn details_narrow_a_fetch() {
    let mut narrowed = document("open", &["open"; 4]);
    for (number, chunk) in narrowed.chunks.iter_mut().enumerate() {
        let area = if number % 2 == 0 { "public" } else { "secret" };
        chunk.metadata.insert("area".to_owned(), Value::Text(area.to_owned()));
    }
    let world = world(vec![narrowed]).await;
    let public = OneOf { key: "area".to_owned(), values: ["public".to_owned()].into() };
    let rows: [Row; 2] = [
        ("by chunk", all_at("open", 0..4), &[], all_at("open", [0, 2]), Completion::Exhausted),
        ("by document", vec![], &["open"], all_at("open", [0, 2]), Completion::Exhausted),
    ];
    for (row, chunk_ids, document_ids, expected, completion) in rows {
        let principal = NamedPrincipal::stated("user:anne").on_condition(&public);
        let fetched = world.fetch(FetchParts { principal, ..fetch_parts(chunk_ids, document_ids) }).await;
        assert_eq!((fetched_ids(&fetched), fetched.completion), (expected, completion), "{row}");
    }
}

#[test]
fn wrong_fields_of_a_fetch_are_named() {
    let ids = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<String>>();
    let parts =
        |chunk_ids: Vec<String>, document_ids: Vec<String>| FetchParts { document_ids, ..fetch_parts(chunk_ids, &[]) };
    let rows: [(&str, FetchParts, &[&str]); 8] = [
        ("as many ids as are allowed", parts(ids(500), ids(500)), &[]),
        ("too many chunks", parts(ids(1_001), ids(0)), &["chunk_ids"]),
        ("too many documents", parts(ids(0), ids(1_001)), &["document_ids"]),
        ("too many together", parts(ids(501), ids(500)), &["document_ids"]),
        ("an empty id", parts(strings(&["a", ""]), ids(1)), &["chunk_ids[1]"]),
        ("a long id of a document", parts(ids(1), vec!["x".repeat(513)]), &["document_ids[0]"]),
        ("no user", FetchParts { principal: NamedPrincipal::stated(""), ..parts(ids(1), ids(1)) }, &["user"]),
        ("no collection", FetchParts { collection: String::new(), ..parts(ids(1), ids(1)) }, &["collection"]),
    ];
    for (row, parts, expected) in rows {
        let violations = FetchRequest::new(parts).err().unwrap_or_default();
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, expected, "{row}: {violations:?}");
    }
}

#[tokio::test]
async fn a_collection_that_is_not_there_is_told_alike_for_chunks_and_documents() {
    let world = world(vec![document("open", &["open"])]).await;
    for (row, chunk_ids, document_ids) in
        [("chunks", all_at("open", [0]), vec![]), ("documents", vec![], vec!["open"]), ("nothing", vec![], vec![])]
    {
        let parts = FetchParts { collection: "none".to_owned(), ..fetch_parts(chunk_ids, &document_ids) };
        let request = FetchRequest::new(parts).unwrap();
        let fetched = world.retriever.fetch(&request, Instant::now() + Duration::from_secs(10)).await;
        let is_unknown = matches!(fetched, Err(RetrievalError::VectorStore(VectorStoreError::UnknownCollection(_))));
        assert!(is_unknown, "{row}: {fetched:?}");
    }
}
