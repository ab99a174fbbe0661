//! The contract of the two ports of a vector store, asserted with data, for every adapter.
//!
//! `run` takes a store and goes through all cases, each in a collection of its own. It reads the store's abilities from
//! its [`CollectionInfo`]. If the store has no text queries, texts are only read back. If a search was not exact, any
//! of several chunks with equal scores may be cut off at the limit.

use std::collections::{BTreeSet, HashSet};

use ragward::chunk::{
    Candidate, Chunk, ChunkMetadata, Document, HEADING_BYTES_MAX, HEADINGS_MAX, ID_BYTES_MAX, Metadata, SOURCE_KEY,
    Value, Written,
};
use ragward::language::Object;
use ragward::vector_store::validation::{
    CHUNK_TEXT_BYTES_MAX, CHUNKS_PER_DOCUMENT_MAX, METADATA_BYTES_MAX, METADATA_KEYS_MAX, QUERY_BYTES_MAX,
    QUERY_TERMS_MAX, TITLE_BYTES_MAX, VECTOR_DIMENSION_MAX,
};
use ragward::vector_store::{
    CollectionInfo, DocumentStore, Filter, GuardTable, Moment, Query, Rest, Search, SearchSpace, Searched, VectorModel,
    VectorOrigin, VectorStore, VectorStoreError,
};
use roaring::RoaringBitmap;

/// The difference that cosines of two engines may have.
const TOLERANCE: f32 = 1e-5;

/// Texts that are parts of each other, with white space of every kind.
pub(crate) const TEXTS: [&str; 18] = [
    "team a",
    "team a b",
    "team",
    "a",
    "a b",
    " team a",
    "team a ",
    "team  a",
    "team\ta",
    "team\na",
    "team\r\na",
    "team\u{a0}a",
    "team\u{85}a",
    "team\u{2003}a",
    "team\u{3000}a",
    "\u{2028}",
    " ",
    "",
];

/// A store under test.
#[derive(Clone, Copy)]
pub(crate) struct Store<'a> {
    /// The port that finds and reads chunks.
    pub(crate) chunks: &'a dyn VectorStore,
    /// The port that takes documents in.
    pub(crate) documents: &'a dyn DocumentStore,
    /// The beginning of each collection's name, so that runs against one server do not meet.
    pub(crate) prefix: &'a str,
}

/// Runs all cases.
pub(crate) async fn run(store: Store<'_>) {
    unknown_collections_are_refused(store).await;
    what_goes_in_is_there(store).await;
    vectors_have_one_origin(store).await;
    a_document_is_replaced_whole(store).await;
    a_writer_of_some_guards_changes_nothing_else(store).await;
    documents_are_listed_once_each(store).await;
    documents_are_looked_up_by_guard(store).await;
    nearest_vectors_come_first(store).await;
    a_scope_bounds_a_search(store).await;
    filters_select(store).await;
    texts_are_matched_whole(store).await;
    ids_are_compared_byte_by_byte(store).await;
    bad_documents_change_nothing(store).await;
    bad_queries_are_refused(store).await;
    texts_are_ranked_by_what_is_visible(store).await;
    hidden_documents_change_nothing(store).await;
    what_is_read_is_what_was_found(store).await;
}

/// Returns a document with a chunk `<document id>#<place>` for each (guard, text, vector).
pub(crate) fn document(id: &str, chunks: &[(&str, &str, &[f32])]) -> Document {
    // No query of these tests has a word of a title, and all titles are equally long: two words, the id written backwards.
    let title = format!("Titled {}", id.chars().rev().filter(|c| c.is_alphanumeric()).collect::<String>());
    let chunk = |(place, (guard, text, vector)): (usize, &(&str, &str, &[f32]))| Chunk {
        id: format!("{id}#{place}"),
        document_id: id.to_owned(),
        guard: object(guard),
        title: title.clone(),
        heading_path: Vec::new(),
        text: (*text).to_owned(),
        metadata: Metadata::new(),
        vector: vector.to_vec(),
    };
    Document { id: id.to_owned(), chunks: chunks.iter().enumerate().map(chunk).collect(), title: title.clone() }
}

/// Looks up chunks by id, as a search would find them.
async fn looked_up(
    store: &dyn VectorStore,
    collection: &str,
    chunk_ids: &[String],
) -> Result<Vec<Candidate>, VectorStoreError> {
    let found = store.find(collection, chunk_ids).await?;
    Ok(found.into_iter().map(|found| found.candidate).collect())
}

/// Reads the current versions of these chunks, in the order of the ids.
pub(crate) async fn read_now(
    store: &dyn VectorStore,
    collection: &str,
    chunk_ids: &[String],
) -> Result<Vec<Chunk>, VectorStoreError> {
    let found = looked_up(store, collection, chunk_ids).await?;
    store.read(collection, None, &found).await
}

fn metadata_of(chunk: &Chunk) -> ChunkMetadata {
    ChunkMetadata {
        chunk_id: chunk.id.clone(),
        document_id: chunk.document_id.clone(),
        guard: chunk.guard.clone(),
        metadata: chunk.metadata.clone(),
    }
}

/// Returns a candidate with an id and a guard, and nothing else.
pub(crate) fn candidate(chunk_id: &str, guard: &str) -> Candidate {
    let (chunk_id, guard) = (chunk_id.to_owned(), object(guard));
    Candidate { chunk_id, guard, score: 0.0, version: None, written: Written::Unknown }
}

/// Parses a well-formed object.
pub(crate) fn object(name: &str) -> Object {
    Object::parse(name).expect("an object")
}

impl Store<'_> {
    fn name(&self, case: &str) -> String {
        format!("{}{case}", self.prefix)
    }

    /// Makes a new collection and fills it.
    async fn filled(&self, case: &str, documents: Vec<Document>) -> String {
        let collection = self.name(case);
        self.documents.upsert(&collection, documents).await.expect("taken in");
        collection
    }

    async fn info(&self, collection: &str) -> CollectionInfo {
        self.chunks.collection(collection).await.expect("a collection")
    }

    async fn found(&self, search: Search) -> Vec<Candidate> {
        self.chunks.search(&search).await.expect("a search").candidates
    }

    async fn found_ids(&self, search: Search) -> Vec<String> {
        self.found(search).await.into_iter().map(|candidate| candidate.chunk_id).collect()
    }

    /// Returns a text query among the chunks of these guards; `None` if the store takes none there. A server may be unable to
    /// count statistics over so many guards.
    async fn text_query(&self, collection: &str, guards: &[&str], text: &str) -> Option<Search> {
        if !self.info(collection).await.text_queries {
            return None;
        }
        let search = Search { space: self.space(collection, guards).await, ..about(collection, text) };
        match self.chunks.search(&search).await {
            Ok(_) => Some(search),
            Err(VectorStoreError::Unsupported(_)) => None,
            Err(error) => panic!("{collection}: {error}"),
        }
    }

    async fn read(&self, collection: &str, chunk_ids: &[&str]) -> Vec<Chunk> {
        read_now(self.chunks, collection, &strings(chunk_ids)).await.expect("read")
    }

    async fn space(&self, collection: &str, guards: &[&str]) -> SearchSpace {
        let listed = self.chunks.guards(collection).await.expect("a collection");
        let own = || GuardTable::new(guards.iter().map(|guard| object(guard)).collect());
        let table = listed.unwrap_or_else(own);
        let is_meant = |(_, guard): &(u32, &Object)| guards.contains(&guard.as_str());
        let positions = (0..).zip(table.guards.iter()).filter(is_meant).map(|(position, _)| position).collect();
        SearchSpace::Guards { table, positions }
    }
}

fn search(collection: &str, query: Query) -> Search {
    Search {
        collection: collection.to_owned(),
        query,
        filter: None,
        space: SearchSpace::Everything,
        narrowing: None,
        min_score: None,
        per_document_max: None,
        limit: 100,
        enough: usize::MAX,
    }
}

fn near(collection: &str, vector: &[f32]) -> Search {
    search(collection, Query::Vector(vector.to_vec()))
}

fn about(collection: &str, text: &str) -> Search {
    search(collection, Query::Text(text.to_owned()))
}

fn strings(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

async fn unknown_collections_are_refused(store: Store<'_>) {
    let name = store.name("unknown");
    let errors = [
        ("collection", store.chunks.collection(&name).await.err()),
        ("guards", store.chunks.guards(&name).await.err()),
        ("search", store.chunks.search(&near(&name, &[1.0])).await.err()),
        ("find", store.chunks.find(&name, &strings(&["a"])).await.err()),
        ("read", store.chunks.read(&name, None, &[candidate("a", "doc:a")]).await.err()),
        ("read_metadata", store.chunks.read_metadata(&name, None, &[candidate("a", "doc:a")]).await.err()),
        ("document_guards", store.chunks.document_guards(&name, &strings(&["a"])).await.err()),
        ("find_in_document", store.chunks.find_in_document(&name, "a", &HashSet::from([object("doc:a")])).await.err()),
        ("delete", store.documents.delete(&name, &BTreeSet::from(["a".to_owned()])).await.err()),
        ("documents", store.documents.documents(&name, &strings(&["a"])).await.err()),
        ("list", store.documents.list(&name, None, 10).await.err()),
    ];
    for (method, error) in errors {
        let is_unknown = matches!(&error, Some(VectorStoreError::UnknownCollection(unknown)) if *unknown == name);
        assert!(is_unknown, "{name}: {method}: {error:?}");
    }
    // An empty write makes no collection.
    store.documents.upsert(&name, Vec::new()).await.expect("nothing to do");
    assert!(store.chunks.collection(&name).await.is_err(), "{name}");
}

async fn what_goes_in_is_there(store: Store<'_>) {
    let metadata: Metadata = [
        ("text".to_owned(), Value::Text("caf\u{e9}".to_owned())),
        ("int".to_owned(), Value::Int(i64::MIN)),
        ("float".to_owned(), Value::Float(-0.5)),
        ("whole".to_owned(), Value::Float(2.0)),
        ("bool".to_owned(), Value::Bool(false)),
    ]
    .into();
    let mut plan =
        document("plan", &[("doc:plan", "the plan", &[3.0, 4.0]), ("folder:all", "its appendix", &[1.0, 0.0])]);
    plan.chunks[1].metadata = metadata.clone();
    let notes = document("notes", &[("doc:notes", "", &[0.0, 1.0])]);
    let collection = store.filled("contents", vec![plan.clone(), notes]).await;

    let info = store.info(&collection).await;
    assert_eq!((info.documents, info.chunks, info.dimension), (2, 3, Some(2)), "{collection}");
    if let Some(table) = store.chunks.guards(&collection).await.expect("a collection") {
        let guards: BTreeSet<&str> = table.guards.iter().map(Object::as_str).collect();
        assert_eq!(guards, BTreeSet::from(["doc:notes", "doc:plan", "folder:all"]), "{collection}");
    }
    let asked = strings(&["plan#1", "absent", "notes#0", "plan#0", "plan#1"]);
    let by_id = store.chunks.find(&collection, &asked).await.expect("found");
    let documents: Vec<Option<&str>> = by_id.iter().map(|found| found.document_id.as_deref()).collect();
    assert_eq!(documents, [Some("plan"), Some("notes"), Some("plan"), Some("plan")], "{collection}");
    let found: Vec<Candidate> = by_id.into_iter().map(|found| found.candidate).collect();
    let expected =
        [("plan#1", "folder:all"), ("notes#0", "doc:notes"), ("plan#0", "doc:plan"), ("plan#1", "folder:all")];
    let shown: Vec<(&str, &str, f32)> =
        found.iter().map(|found| (found.chunk_id.as_str(), found.guard.as_str(), found.score)).collect();
    assert_eq!(shown, expected.map(|(id, guard)| (id, guard, 0.0)), "{collection}");
    let read = store.chunks.read(&collection, None, &found).await.expect("read");
    let ids: Vec<&str> = read.iter().map(|chunk| chunk.id.as_str()).collect();
    assert_eq!(ids, expected.map(|(id, _)| id), "{collection}");
    assert_eq!(read[0], Chunk { vector: Vec::new(), ..plan.chunks[1].clone() }, "{collection}");
    assert_eq!((read[1].text.as_str(), &read[1].metadata), ("", &Metadata::new()), "{collection}");
    let without_text = store.chunks.read_metadata(&collection, None, &found).await.expect("read");
    assert_eq!(without_text, read.iter().map(metadata_of).collect::<Vec<_>>(), "{collection}");
    let asked = strings(&["notes", "absent", "plan"]);
    let documents = store.documents.documents(&collection, &asked).await.expect("documents");
    assert_eq!(documents, [("notes".to_owned(), 1), ("plan".to_owned(), 2)], "{collection}");
}

async fn vectors_have_one_origin(store: Store<'_>) {
    let collection = format!("{}origin", store.prefix);
    let model = |name| Some(VectorModel { name, dimension: 2 });
    store.documents.note_model(&collection, None).await.expect("nothing is there");
    let absent = store.chunks.vector_origin(&collection).await;
    assert!(matches!(absent, Err(VectorStoreError::UnknownCollection(_))), "{collection}: {absent:?}");
    store.documents.note_model(&collection, model("small")).await.expect("noted");
    let kept = document("kept", &[("doc:kept", "kept", &[1.0, 0.0])]);
    store.documents.upsert(&collection, vec![kept]).await.expect("taken in");
    let origin = store.chunks.vector_origin(&collection).await.expect("an origin");
    assert_eq!(origin, VectorOrigin::Model("small".to_owned()), "{collection}");
    let rows =
        [("the same model", model("small"), true), ("another one", model("large"), false), ("writers", None, false)];
    for (row, noted, expected) in rows {
        match store.documents.note_model(&collection, noted).await {
            Ok(()) => assert!(expected, "{collection}: {row}"),
            Err(VectorStoreError::OtherModel { .. }) => assert!(!expected, "{collection}: {row}"),
            Err(error) => panic!("{collection}: {row}: {error:?}"),
        }
    }
}

async fn a_document_is_replaced_whole(store: Store<'_>) {
    let first =
        document("a", &[("doc:a", "one", &[1.0, 0.0]), ("doc:a", "two", &[1.0, 0.1]), ("doc:a", "three", &[1.0, 0.2])]);
    let other = document("b", &[("doc:b", "other", &[0.9, 0.5])]);
    let collection = store.filled("replacement", vec![first, other]).await;

    // The new version is shorter, has another guard, and reuses a chunk id.
    let second = document("a", &[("doc:b", "new", &[0.0, 1.0])]);
    store.documents.upsert(&collection, vec![second]).await.expect("replaced");
    assert_eq!(store.found_ids(near(&collection, &[1.0, 0.0])).await, ["b#0", "a#0"], "{collection}");
    let info = store.info(&collection).await;
    assert_eq!((info.documents, info.chunks), (2, 2), "{collection}");
    let read = store.read(&collection, &["a#0", "a#1", "a#2"]).await;
    assert_eq!(
        read.iter().map(|chunk| (chunk.text.as_str(), chunk.guard.as_str())).collect::<Vec<_>>(),
        [("new", "doc:b")],
        "{collection}"
    );
    let space = store.space(&collection, &["doc:a"]).await;
    assert!(store.found(Search { space, ..near(&collection, &[1.0, 0.0]) }).await.is_empty(), "{collection}");

    // Of two documents with one id, the last counts.
    let versions = ["third", "fourth"].map(|text| document("a", &[("doc:a", text, &[0.0, 1.0])]));
    store.documents.upsert(&collection, versions.to_vec()).await.expect("replaced");
    assert_eq!(store.read(&collection, &["a#0"]).await[0].text, "fourth", "{collection}");

    let ids = ["a", "absent"].map(str::to_owned).into();
    assert_eq!(store.documents.delete(&collection, &ids).await.expect("deleted"), 1, "{collection}");
    assert_eq!(store.documents.delete(&collection, &ids).await.expect("nothing to do"), 0, "{collection}");
    assert!(store.chunks.find(&collection, &strings(&["a#0"])).await.expect("found").is_empty(), "{collection}");
    assert_eq!(store.found_ids(near(&collection, &[1.0, 0.0])).await, ["b#0"], "{collection}");
    // The id of a deleted chunk is free, and an empty collection still exists.
    store.documents.delete(&collection, &["b".to_owned()].into()).await.expect("deleted");
    let info = store.info(&collection).await;
    assert_eq!((info.documents, info.chunks), (0, 0), "{collection}");
    assert!(store.found(near(&collection, &[1.0, 0.0])).await.is_empty(), "{collection}");
}

async fn a_writer_of_some_guards_changes_nothing_else(store: Store<'_>) {
    let new = |id: &str| document(id, &[("doc:own", "new", &[0.0, 1.0])]);
    let stored = || {
        let mixed = document("mixed", &[("doc:own", "old", &[1.0, 0.0]), ("doc:other", "old", &[1.0, 0.1])]);
        let other = document("other", &[("doc:other", "old", &[1.0, 0.0])]);
        vec![document("own", &[("doc:own", "old", &[1.0, 0.0])]), mixed, other]
    };
    let guards: BTreeSet<Object> = [object("doc:own"), object("doc:unused")].into();
    let nowhere = store.name("writersfirst");
    store.documents.upsert_under(&nowhere, vec![new("a")], &guards).await.expect("a new collection");
    // Each row: the documents to replace, and whether that may be.
    let rows: [(&str, &[&str], bool); 6] = [
        ("one's own", &["own"], true),
        ("a new one", &["new"], true),
        ("one's own and a new one", &["own", "new"], true),
        ("another's", &["other"], false),
        ("one that is half another's", &["mixed"], false),
        ("one's own and another's", &["own", "other"], false),
    ];
    for (number, (row, ids, expected)) in rows.into_iter().enumerate() {
        let collection = store.filled(&format!("writers{number}"), stored()).await;
        let replaced = store.documents.upsert_under(&collection, ids.iter().map(|id| new(id)).collect(), &guards).await;
        match replaced {
            Ok(()) => assert!(expected, "{collection}: {row}"),
            Err(VectorStoreError::OtherGuard) => assert!(!expected, "{collection}: {row}"),
            Err(error) => panic!("{collection}: {row}: {error}"),
        }
        let read = store.read(&collection, &["own#0", "mixed#0", "mixed#1", "other#0"]).await;
        let is_old = |chunk: &Chunk| chunk.text == "old";
        let kept = if expected && ids.contains(&"own") { 3 } else { 4 };
        assert_eq!(read.iter().filter(|chunk| is_old(chunk)).count(), kept, "{collection}: {row}");
    }
    let collection = store.filled("writers", stored()).await;
    let ids: BTreeSet<String> = ["own", "mixed", "other", "absent"].map(str::to_owned).into();
    assert_eq!(store.documents.delete_under(&collection, &ids, &guards).await.expect("deleted"), 1, "{collection}");
    assert_eq!(store.documents.delete_under(&collection, &ids, &guards).await.expect("none left"), 0, "{collection}");
    let ids: Vec<String> = ids.into_iter().collect();
    let left = store.documents.documents(&collection, &ids).await.expect("looked up");
    assert_eq!(left.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ["mixed", "other"], "{collection}");
}

async fn documents_are_listed_once_each(store: Store<'_>) {
    let two_guards = document("b", &[("doc:b", "one", &[1.0, 0.0]), ("folder:f", "two", &[0.0, 1.0])]);
    let mut from_wiki = document("c", &[("doc:c", "three", &[1.0, 0.0]), ("doc:c", "four", &[1.0, 0.1])]);
    for chunk in &mut from_wiki.chunks {
        chunk.metadata.insert(SOURCE_KEY.to_owned(), Value::Text("wiki".to_owned()));
    }
    let mut documents = vec![two_guards, from_wiki];
    documents.extend((0..7).map(|number| document(&format!("d{number}"), &[("doc:d", "more", &[0.5, 0.5])])));
    let collection = store.filled("list", documents).await;
    let names = store.documents.collection_names().await.expect("names");
    assert!(names.contains(&collection) && names.is_sorted(), "{collection}: {names:?}");

    let whole = store.documents.list(&collection, None, 100).await.expect("a list");
    assert_eq!((whole.documents.len(), &whole.next), (9, &None), "{collection}");
    let of = |id: &str| {
        let found = whole.documents.iter().find(|document| document.id == id).expect("listed");
        let guards: Vec<&str> = found.guards.iter().flatten().map(Object::as_str).collect();
        (found.title.as_str(), found.chunks, found.source.as_deref(), guards)
    };
    let rows = [
        ("b", ("Titled b", 2, None, vec!["doc:b", "folder:f"])),
        ("c", ("Titled c", 2, Some("wiki"), vec!["doc:c"])),
        ("d0", ("Titled 0d", 1, None, vec!["doc:d"])),
    ];
    for (id, expected) in rows {
        assert_eq!(of(id), expected, "{collection}: {id}");
    }
    // However short the parts are, they make the whole list, in the same order.
    for limit in [1, 2, 4, 8, 9] {
        let (mut parts, mut from) = (Vec::new(), None);
        for _ in 0..20 {
            let part = store.documents.list(&collection, from.as_deref(), limit).await.expect("a part");
            assert!(part.documents.len() <= limit, "{collection}: limit {limit}");
            parts.extend(part.documents);
            from = part.next;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(parts, whole.documents, "{collection}: limit {limit}");
    }
    // A document's place stays a place when the document is gone.
    let [first, second, ..] = whole.documents.as_slice() else { panic!("{collection}: {whole:?}") };
    store.documents.delete(&collection, &[first.id.clone()].into()).await.expect("deleted");
    let rest = store.documents.list(&collection, Some(&first.place), 1).await.expect("the rest");
    assert_eq!(rest.documents, std::slice::from_ref(second), "{collection}");
}

async fn documents_are_looked_up_by_guard(store: Store<'_>) {
    let chunk = |guard| (guard, "text", [1.0_f32, 0.0]);
    let parts = ["doc:a", "doc:b", "doc:a", "doc:c", "doc:b"].map(chunk);
    let parts: Vec<(&str, &str, &[f32])> =
        parts.iter().map(|(guard, text, vector)| (*guard, *text, &vector[..])).collect();
    let (mixed, other) = (document("mixed", &parts), document("other", &[("doc:a", "other", &[0.0, 1.0])]));
    // The ids of the chunks are in another order than the chunks.
    let reversed = document("reversed", &parts);
    let named = |(number, chunk): (usize, Chunk)| Chunk { id: format!("r{}", 9 - number), ..chunk };
    let reversed = Document { chunks: reversed.chunks.into_iter().enumerate().map(named).collect(), ..reversed };
    let collection = store.filled("documents", vec![mixed, other, reversed]).await;

    let asked = strings(&["other", "absent", "mixed"]);
    let guards = store.chunks.document_guards(&collection, &asked).await.expect("guards");
    let guards: Vec<BTreeSet<String>> =
        guards.iter().map(|guards| guards.iter().map(ToString::to_string).collect()).collect();
    let expected: [BTreeSet<String>; 3] =
        [["doc:a"].map(str::to_owned).into(), BTreeSet::new(), ["doc:a", "doc:b", "doc:c"].map(str::to_owned).into()];
    assert_eq!(guards, expected, "{collection}");

    let rows: [(&str, &[&str], &[&str]); 7] = [
        ("mixed", &["doc:a"], &["mixed#0", "mixed#2"]),
        ("mixed", &["doc:b", "doc:c"], &["mixed#1", "mixed#3", "mixed#4"]),
        ("mixed", &["doc:absent"], &[]),
        ("mixed", &[], &[]),
        ("other", &["doc:a", "doc:b"], &["other#0"]),
        ("reversed", &["doc:a", "doc:c"], &["r9", "r7", "r6"]),
        ("absent", &["doc:a"], &[]),
    ];
    for (document_id, guards, expected) in rows {
        let guards: HashSet<Object> = guards.iter().map(|guard| object(guard)).collect();
        let found = store.chunks.find_in_document(&collection, document_id, &guards).await.expect("candidates");
        assert_eq!(ids(&found), expected, "{collection}: {document_id} under {guards:?}");
        let read = store.chunks.read(&collection, None, &found).await.expect("read");
        assert!(read.iter().all(|chunk| chunk.document_id == document_id), "{collection}: {read:?}");
        assert_eq!(read.len(), found.len(), "{collection}: {document_id}");
    }

    // A document that was replaced has the guards of its new chunks alone.
    let replaced = document("mixed", &[("doc:c", "text", &[1.0, 0.0]), ("doc:d", "text", &[1.0, 0.0])]);
    store.documents.upsert(&collection, vec![replaced]).await.expect("replaced");
    let guards = store.chunks.document_guards(&collection, &strings(&["mixed"])).await.expect("guards");
    let guards: BTreeSet<&Object> = guards.iter().flatten().collect();
    assert_eq!(guards, BTreeSet::from([&object("doc:c"), &object("doc:d")]), "{collection}");
}

async fn nearest_vectors_come_first(store: Store<'_>) {
    // Only the direction matters, not the length: `same` and `long` are as near as can be. `none` has no vector.
    let mut documents = vec![
        document("same", &[("doc:x", "text", &[1.0, 0.0, 0.0])]),
        document("long", &[("doc:x", "text", &[1e10, 0.0, 0.0])]),
        document("slanted", &[("doc:x", "text", &[1.0, 1.0, 0.0])]),
        document("across", &[("doc:x", "text", &[0.0, 0.0, -2.0])]),
        document("opposite", &[("doc:x", "text", &[-1e-10, 0.0, 0.0])]),
    ];
    let collection = store.filled("nearest", documents.clone()).await;
    let info = store.info(&collection).await;
    if info.text_queries {
        documents = vec![document("none", &[("doc:x", "text", &[])])];
        store.documents.upsert(&collection, documents).await.expect("taken in");
    }
    let expected =
        [("long#0", 1.0), ("same#0", 1.0), ("slanted#0", 0.5_f32.sqrt()), ("across#0", 0.0), ("opposite#0", -1.0)];
    for limit in [0, 1, 2, 3, 5, 100] {
        let search = Search { limit, ..near(&collection, &[7.0, 0.0, 0.0]) };
        let Searched { candidates: found, exact: _, rest } = store.chunks.search(&search).await.expect("a search");
        let expected_rest = if limit > expected.len() { Rest::Nothing } else { Rest::Further };
        assert_eq!((found.len(), rest), (limit.min(expected.len()), expected_rest), "{collection}: limit {limit}");
        for (candidate, (id, score)) in found.iter().zip(expected) {
            assert!((candidate.score - score).abs() < TOLERANCE, "{collection}: limit {limit}: {candidate:?}");
            assert_eq!(candidate.chunk_id, id, "{collection}: limit {limit}: {candidate:?}");
            assert_eq!(candidate.guard.as_str(), "doc:x", "{collection}: limit {limit}: {candidate:?}");
        }
    }
}

async fn a_scope_bounds_a_search(store: Store<'_>) {
    let guards = ["doc:a", "doc:b", "doc:c"];
    let documents =
        guards.map(|guard| document(guard, &[(guard, "words", &[1.0, 0.0]), ("folder:f", "words", &[0.0, 1.0])]));
    let collection = store.filled("space", documents.to_vec()).await;
    let rows: [(&[&str], &[&str]); 6] = [
        (&[], &[]),
        (&["doc:a"], &["doc:a#0"]),
        (&["doc:c", "doc:a"], &["doc:a#0", "doc:c#0"]),
        (&["folder:f"], &["doc:a#1", "doc:b#1", "doc:c#1"]),
        (&["doc:b", "folder:f"], &["doc:b#0", "doc:a#1", "doc:b#1", "doc:c#1"]),
        (&["doc:absent"], &[]),
    ];
    for (guards, expected) in rows {
        let space = store.space(&collection, guards).await;
        assert_eq!(
            store.found_ids(Search { space, ..near(&collection, &[1.0, 0.0]) }).await,
            expected,
            "{collection}: {guards:?}"
        );
    }
    // A position that the table does not have stands for no guard.
    if let Some(table) = store.chunks.guards(&collection).await.expect("a collection") {
        let space = SearchSpace::Guards { table, positions: RoaringBitmap::from([1_000, u32::MAX]) };
        assert!(store.found(Search { space, ..near(&collection, &[1.0, 0.0]) }).await.is_empty(), "{collection}");
    }
}

async fn filters_select(store: Store<'_>) {
    let text = |s: &str| Value::Text(s.to_owned());
    let tags = |tags: &[&str]| Value::List(tags.iter().map(|tag| text(tag)).collect());
    let metadata: [Metadata; 4] = [
        [
            ("kind".to_owned(), text("plan")),
            ("year".to_owned(), Value::Int(2020)),
            ("tags".to_owned(), tags(&["a b", "c"])),
            ("day".to_owned(), text("2026-11-30")),
        ]
        .into(),
        [
            ("kind".to_owned(), text("note")),
            ("year".to_owned(), Value::Float(2021.5)),
            ("tags".to_owned(), tags(&["c"])),
            ("day".to_owned(), text("2026-12-01T12:00:00+02:00")),
        ]
        .into(),
        [("kind".to_owned(), text("plan")), ("open".to_owned(), Value::Bool(true))].into(),
        Metadata::new(),
    ];
    let documents = metadata.iter().enumerate().map(|(number, metadata)| {
        let mut document = document(&format!("d{number}"), &[("doc:x", "words", &[1.0, 0.0])]);
        document.chunks[0].metadata = metadata.clone();
        document
    });
    let collection = store.filled("filters", documents.collect()).await;
    let one_of = |key: &str, values: &[Value]| Filter::OneOf { key: key.to_owned(), values: values.to_vec() };
    let between = |low: f64, high: f64| Filter::Between { key: "year".to_owned(), low, high };
    let during = |from: &str, until: &str| {
        let [from, until] = [from, until].map(Moment::parse);
        Filter::During { key: "day".to_owned(), from, until }
    };
    let rows: [(Filter, &[usize]); 22] = [
        (one_of("kind", &[text("plan")]), &[0, 2]),
        (one_of("kind", &[text("plan"), text("note")]), &[0, 1, 2]),
        (one_of("kind", &[]), &[]),
        (one_of("open", &[Value::Bool(true)]), &[2]),
        (one_of("year", &[Value::Int(2020)]), &[0]),
        (one_of("year", &[Value::Float(2020.0), Value::Float(2021.5)]), &[0, 1]),
        (one_of("absent", &[Value::Int(1)]), &[]),
        (Filter::Not(Box::new(one_of("absent", &[Value::Int(1)]))), &[0, 1, 2, 3]),
        (Filter::Not(Box::new(one_of("kind", &[text("plan")]))), &[1, 3]),
        (between(2020.0, 2021.5), &[0, 1]),
        (between(2020.5, 2030.0), &[1]),
        (one_of("tags", &[text("a b")]), &[0]),
        (one_of("tags", &[text("c")]), &[0, 1]),
        (one_of("tags", &[text("a")]), &[]),
        (Filter::Not(Box::new(one_of("tags", &[text("c")]))), &[2, 3]),
        (during("2026-11-30", "2026-12-01T09:59:59Z"), &[0]),
        (during("2026-11-30T00:00:00.000001Z", "2026-12-01T10:00:00Z"), &[1]),
        (during("", ""), &[0, 1]),
        (Filter::All(vec![]), &[0, 1, 2, 3]),
        (Filter::Any(vec![]), &[]),
        (Filter::All(vec![one_of("kind", &[text("plan")]), between(0.0, 3000.0)]), &[0]),
        (Filter::Any(vec![one_of("kind", &[text("note")]), one_of("open", &[Value::Bool(true)])]), &[1, 2]),
    ];
    for (filter, expected) in rows {
        let expected: Vec<String> = expected.iter().map(|number| format!("d{number}#0")).collect();
        let search = Search { filter: Some(filter.clone()), ..near(&collection, &[1.0, 0.0]) };
        assert_eq!(store.found_ids(search).await, expected, "{collection}: {filter:?}");
    }
}

/// INVARIANT (a value is matched whole): a filter never matches a part of a value, whatever white space it holds.
async fn texts_are_matched_whole(store: Store<'_>) {
    let texts = TEXTS;
    let documents = texts.iter().enumerate().map(|(number, text)| {
        let mut document = document(&format!("d{number:02}"), &[("doc:x", "words", &[1.0, 0.0])]);
        document.chunks[0].metadata = [("area".to_owned(), Value::Text((*text).to_owned()))].into();
        document
    });
    let collection = store.filled("whole", documents.collect()).await;
    let with = |wanted: &[&str]| Filter::OneOf {
        key: "area".to_owned(),
        values: wanted.iter().map(|text| Value::Text((*text).to_owned())).collect(),
    };
    let ids = |is_expected: &dyn Fn(&str) -> bool| -> Vec<String> {
        let expected = texts.iter().enumerate().filter(|(_, text)| is_expected(text));
        expected.map(|(number, _)| format!("d{number:02}#0")).collect()
    };
    let near = || near(&collection, &[1.0, 0.0]);
    for text in texts {
        let only = Search { filter: Some(with(&[text])), ..near() };
        assert_eq!(store.found_ids(only).await, ids(&|other| other == text), "{collection}: one of {text:?}");
        let but = Search { filter: Some(Filter::Not(Box::new(with(&[text])))), ..near() };
        assert_eq!(store.found_ids(but).await, ids(&|other| other != text), "{collection}: not {text:?}");
        let two = Search { filter: Some(with(&[text, "team a"])), ..near() };
        let expected = ids(&|other| other == text || other == "team a");
        assert_eq!(store.found_ids(two).await, expected, "{collection}: one of {text:?} and another");
        let both = Filter::All(vec![with(&[text]), Filter::Any(vec![with(&["team a"]), with(&[text])])]);
        let nested = Search { filter: Some(both), ..near() };
        assert_eq!(store.found_ids(nested).await, ids(&|other| other == text), "{collection}: within others {text:?}");
    }
}

async fn ids_are_compared_byte_by_byte(store: Store<'_>) {
    let ids = ["Doc:A", "doc:a", "doc:\u{e9}", "doc:e\u{301}"];
    let documents = ids.map(|id| document(id, &[(id, "words", &[1.0, 0.0])])).into_iter();
    let spaced = document("doc:a ", &[("doc:spaced", "words", &[1.0, 0.0])]);
    let collection = store.filled("bytes", documents.chain([spaced]).collect()).await;
    assert_eq!(store.info(&collection).await.documents, 5, "{collection}");
    // One document is replaced and one deleted. A document whose id contains theirs stays.
    let parts = ["s 85", "s 851", "a s 85", "s 85\u{a0}1", "s"];
    let named =
        parts.map(|id| document(id, &[("doc:parts", "words", &[1.0, 0.0]), ("doc:parts", "more", &[1.0, 0.0])]));
    let parts = store.filled("parts", named.to_vec()).await;
    store.documents.upsert(&parts, vec![document("s 85", &[("doc:new", "new", &[1.0, 0.0])])]).await.expect("replaced");
    assert_eq!(store.info(&parts).await.chunks, 9, "{collection}");
    let asked = strings(&["s 85", "s 851", "s"]);
    let counted = store.documents.documents(&parts, &asked).await.expect("documents");
    assert_eq!(counted, [("s 85".to_owned(), 1), ("s 851".to_owned(), 2), ("s".to_owned(), 2)], "{collection}");
    let guards = store.documents.guards_of(&parts, &strings(&["s 85"])).await.expect("guards");
    assert_eq!(guards, Some(BTreeSet::from([object("doc:new")])), "{collection}");
    let deleted = store.documents.delete(&parts, &["s 85".to_owned()].into()).await.expect("deleted");
    assert_eq!((deleted, store.info(&parts).await.chunks), (1, 8), "{collection}");
    for id in ids {
        let space = store.space(&collection, &[id]).await;
        let found = store.found_ids(Search { space, ..near(&collection, &[1.0, 0.0]) }).await;
        assert_eq!(found, [format!("{id}#0")], "{collection}: {id}");
    }
    let deleted = store.documents.delete(&collection, &["doc:a ".to_owned()].into()).await.expect("deleted");
    assert_eq!((deleted, store.info(&collection).await.documents), (1, 4), "{collection}");
}

/// The kind of refusal that is expected.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Refusal {
    Invalid,
    Dimension,
    Duplicate,
}

fn refusal(error: &VectorStoreError) -> Option<Refusal> {
    match error {
        VectorStoreError::Invalid(_) => Some(Refusal::Invalid),
        VectorStoreError::Dimension { .. } => Some(Refusal::Dimension),
        VectorStoreError::DuplicateChunk { .. } => Some(Refusal::Duplicate),
        VectorStoreError::UnknownCollection(_)
        | VectorStoreError::Unsupported(_)
        | VectorStoreError::Refused(_)
        | VectorStoreError::Unavailable(_)
        | VectorStoreError::BadAnswer(_)
        | VectorStoreError::OtherGuard
        | VectorStoreError::OtherModel { .. }
        | VectorStoreError::Storage(_) => None,
    }
}

async fn bad_documents_change_nothing(store: Store<'_>) {
    let kept = document("kept", &[("doc:kept", "kept", &[1.0, 0.0])]);
    let collection = store.filled("refused", vec![kept]).await;
    let good = || document("bad", &[("doc:bad", "one", &[1.0, 0.0]), ("doc:bad", "two", &[0.0, 1.0])]);
    let changed = |change: &dyn Fn(&mut Document)| {
        let mut document = good();
        change(&mut document);
        document
    };
    let renamed = |id: &str| document(id, &[("doc:bad", "one", &[1.0, 0.0])]);
    let vector = |vector: &[f32]| changed(&|d| d.chunks[1].vector = vector.to_vec());
    let value = |value: Value| changed(&|d| drop(d.chunks[1].metadata.insert("key".to_owned(), value.clone())));
    let keys = |number: usize, length: usize| {
        let pair = |n| (format!("{n:0length$}"), Value::Bool(true));
        changed(&|d| d.chunks[1].metadata = (0..number).map(pair).collect())
    };
    let rows = [
        ("id empty", renamed(""), Refusal::Invalid),
        ("id too long", renamed(&"i".repeat(ID_BYTES_MAX + 1)), Refusal::Invalid),
        ("control character in id", renamed("a\u{7}"), Refusal::Invalid),
        ("chunk id empty", changed(&|d| d.chunks[1].id.clear()), Refusal::Invalid),
        ("chunk id with control character", changed(&|d| d.chunks[1].id.push('\n')), Refusal::Invalid),
        ("title too long", changed(&|d| d.title = "t".repeat(TITLE_BYTES_MAX + 1)), Refusal::Invalid),
        ("no chunks", changed(&|d| d.chunks.clear()), Refusal::Invalid),
        (
            "too many chunks",
            changed(&|d| d.chunks = vec![d.chunks[0].clone(); CHUNKS_PER_DOCUMENT_MAX + 1]),
            Refusal::Invalid,
        ),
        ("chunk of another document", changed(&|d| d.chunks[1].document_id = "kept".to_owned()), Refusal::Invalid),
        (
            "neither text nor vector",
            changed(&|d| (d.chunks[1].text, d.chunks[1].vector) = (String::new(), vec![])),
            Refusal::Invalid,
        ),
        ("text too long", changed(&|d| d.chunks[1].text = "t".repeat(CHUNK_TEXT_BYTES_MAX + 1)), Refusal::Invalid),
        ("zero vector", vector(&[0.0, -0.0]), Refusal::Invalid),
        ("NaN", vector(&[1.0, f32::NAN]), Refusal::Invalid),
        ("infinity", vector(&[f32::NEG_INFINITY, 1.0]), Refusal::Invalid),
        ("vector too long", vector(&vec![1.0; VECTOR_DIMENSION_MAX + 1]), Refusal::Invalid),
        ("vector of another dimension", vector(&[1.0, 0.0, 0.0]), Refusal::Dimension),
        ("number not finite", value(Value::Float(f64::NAN)), Refusal::Invalid),
        ("list in a list", value(Value::List(vec![Value::List(vec![])])), Refusal::Invalid),
        ("list of a number that is not finite", value(Value::List(vec![Value::Float(f64::NAN)])), Refusal::Invalid),
        (
            "list of too many empty texts",
            value(Value::List(vec![Value::Text(String::new()); METADATA_BYTES_MAX])),
            Refusal::Invalid,
        ),
        (
            "too many headings",
            changed(&|d| d.chunks[1].heading_path = vec![String::new(); HEADINGS_MAX + 1]),
            Refusal::Invalid,
        ),
        (
            "heading too long",
            changed(&|d| d.chunks[1].heading_path = vec!["h".repeat(HEADING_BYTES_MAX + 1)]),
            Refusal::Invalid,
        ),
        ("metadata too large", value(Value::Text("v".repeat(METADATA_BYTES_MAX))), Refusal::Invalid),
        ("too many metadata keys", keys(METADATA_KEYS_MAX + 1, 1), Refusal::Invalid),
        ("one chunk id twice", changed(&|d| d.chunks[1].id = d.chunks[0].id.clone()), Refusal::Duplicate),
        ("chunk id of another document", changed(&|d| d.chunks[1].id = "kept#0".to_owned()), Refusal::Duplicate),
        ("chunk id of another in the call", changed(&|d| d.chunks[1].id = "before#0".to_owned()), Refusal::Duplicate),
    ];
    for (what, bad, expected) in rows {
        let before = document("before", &[("doc:before", "before", &[0.5, 0.5])]);
        let kept = document("kept", &[("doc:kept", "changed", &[0.0, 1.0])]);
        let kept_too = (expected != Refusal::Duplicate).then_some(kept);
        let call = [before].into_iter().chain(kept_too).chain([bad]).collect();
        let error = store.documents.upsert(&collection, call).await.expect_err(what);
        assert_eq!(refusal(&error), Some(expected), "{collection}: {what}: {error:?}");
        let info = store.info(&collection).await;
        assert_eq!((info.documents, info.chunks, info.dimension), (1, 1, Some(2)), "{collection}: {what}");
        let read = store.read(&collection, &["kept#0", "before#0", "bad#0"]).await;
        assert_eq!(read.iter().map(|chunk| chunk.text.as_str()).collect::<Vec<_>>(), ["kept"], "{collection}: {what}");
    }
    for name in ["", "a\u{0}b", &"c".repeat(256)] {
        let error = store.documents.upsert(name, vec![good()]).await.expect_err("a bad name");
        assert_eq!(refusal(&error), Some(Refusal::Invalid), "{collection}: {name:?}: {error:?}");
    }
}

async fn bad_queries_are_refused(store: Store<'_>) {
    let collection = store.filled("queries", vec![document("a", &[("doc:a", "words", &[1.0, 0.0])])]).await;
    let mut rows = vec![
        (Query::Vector(vec![1.0]), Refusal::Dimension),
        (Query::Vector(vec![1.0, 0.0, 0.0]), Refusal::Dimension),
        (Query::Vector(vec![]), Refusal::Invalid),
        (Query::Vector(vec![0.0, 0.0]), Refusal::Invalid),
        (Query::Vector(vec![f32::NAN, 1.0]), Refusal::Invalid),
        (Query::Vector(vec![f32::INFINITY, 1.0]), Refusal::Invalid),
        (Query::Text("w".repeat(QUERY_BYTES_MAX + 1)), Refusal::Invalid),
    ];
    if store.info(&collection).await.text_queries {
        let words: Vec<String> = (0..=QUERY_TERMS_MAX).map(|number| format!("w{number}")).collect();
        rows.push((Query::Text(words.join(" ")), Refusal::Invalid));
    }
    for (query, expected) in rows {
        let error = store.chunks.search(&search(&collection, query.clone())).await.expect_err("refused");
        assert_eq!(refusal(&error), Some(expected), "{collection}: {query:?}: {error:?}");
    }
}

async fn texts_are_ranked_by_what_is_visible(store: Store<'_>) {
    let collection = store
        .filled(
            "texts",
            vec![
                document("apples", &[("doc:a", "Apples, apples and pears.", &[1.0])]),
                document("pears", &[("doc:a", "A pear tree.", &[1.0])]),
                document("pears-again", &[("doc:b", "a PEAR tree", &[1.0])]),
                document("plums", &[("doc:b", "Plums keep in a cool and dry place for about one week", &[1.0])]),
            ],
        )
        .await;
    let Some(of_all) = store.text_query(&collection, &["doc:a", "doc:b"], "pears").await else {
        let error = store.chunks.search(&about(&collection, "pears")).await.expect_err("refused");
        assert!(matches!(error, VectorStoreError::Unsupported(_)), "{collection}: {error:?}");
        return;
    };
    let about = |text: &str| Search { query: Query::Text(text.to_owned()), ..of_all.clone() };
    let rows: [(&str, &[&str]); 7] = [
        ("apple", &["apples#0"]),
        // The shorter text comes first, equal ones are in the order of their ids.
        ("pears", &["pears#0", "pears-again#0", "apples#0"]),
        ("pear apple", &["apples#0", "pears#0", "pears-again#0"]),
        ("quince", &[]),
        ("quince plum", &["plums#0"]),
        ("", &[]),
        ("?!", &[]),
    ];
    for (query, expected) in rows {
        let found = store.found(about(query)).await;
        assert!(found.iter().all(|candidate| candidate.score > 0.0), "{collection}: {query}: {found:?}");
        // Each smaller limit returns the beginning of the same list.
        for limit in 0..=expected.len() {
            let found = store.found_ids(Search { limit, ..about(query) }).await;
            assert_eq!(found, expected[..limit], "{collection}: {query}, limit {limit}");
        }
        assert_eq!(found.len(), expected.len(), "{collection}: {query}");
    }
    // A word that every visible chunk has weighs less than a rare one, so words weigh differently for a user who sees
    // fewer chunks.
    let space = store.space(&collection, &["doc:b"]).await;
    let all = store.found(about("pear")).await;
    let few = store.found(Search { space, ..about("pear") }).await;
    assert_eq!(few.len(), 1, "{collection}");
    assert_ne!(few[0].score.to_bits(), all[1].score.to_bits(), "{collection}");
}

/// Returns the bytes of an answer.
fn bytes(candidates: &[Candidate]) -> Vec<(&str, u32)> {
    candidates.iter().map(|candidate| (candidate.chunk_id.as_str(), candidate.score.to_bits())).collect()
}

async fn hidden_documents_change_nothing(store: Store<'_>) {
    let texts = ["red fox", "red red hen", "brown hen and fox", "fox"];
    let visible = (0..).zip(texts).map(|(number, text): (u8, &str)| {
        document(&format!("v{number}"), &[("doc:visible", text, &[f32::from(number), 1.0])])
    });
    let collection = store.filled("twins", visible.collect()).await;
    let mut queries = vec![Query::Vector(vec![1.0, 0.5])];
    if store.text_query(&collection, &["doc:visible"], "fox").await.is_some() {
        queries.extend(["red fox", "hen hen fox"].map(|text| Query::Text(text.to_owned())));
        queries.push(Query::Hybrid { text: "red fox".to_owned(), vector: vec![1.0, 0.5] });
    }
    let mut before = Vec::new();
    for query in &queries {
        let space = store.space(&collection, &["doc:visible"]).await;
        before.push(store.found(Search { space, ..search(&collection, query.clone()) }).await);
    }
    let hidden = |number: u8, text: &str| {
        document(&format!("h{number}"), &[("doc:hidden", text, &[1.0, f32::from(number) / 10.0])])
    };
    let hiding = |text: &str| (0..20).map(|number| hidden(number, text)).collect::<Vec<_>>();
    for hidden_text in ["red red fox", "fox and a great many other words that make texts longer"] {
        store.documents.upsert(&collection, hiding(hidden_text)).await.expect("taken in");
        for (query, before) in queries.iter().zip(&before) {
            let space = store.space(&collection, &["doc:visible"]).await;
            let after = store.found(Search { space, ..search(&collection, query.clone()) }).await;
            assert_eq!(bytes(&after), bytes(before), "{collection}: {hidden_text}, {query:?}");
        }
    }
}

/// INVARIANT (one version): a chunk that was replaced since it was found is not read, whatever it was replaced with.
async fn what_is_read_is_what_was_found(store: Store<'_>) {
    let version = |guard: &str, text: &str, vector: &[f32], area: &str| {
        let mut document = document("a", &[(guard, text, vector)]);
        document.chunks[0].metadata = [("area".to_owned(), Value::Text(area.to_owned()))].into();
        document
    };
    let first = || version("doc:a", "first", &[1.0, 0.0], "public");
    let rows = [
        ("another text", version("doc:a", "second", &[1.0, 0.0], "public")),
        ("another guard", version("doc:b", "first", &[1.0, 0.0], "public")),
        ("another vector", version("doc:a", "first", &[0.0, 1.0], "public")),
        ("another vector and a filter that fails", version("doc:a", "second", &[0.0, 1.0], "secret")),
        ("a filter that fails", version("doc:a", "first", &[1.0, 0.0], "secret")),
        ("the same once more", first()),
    ];
    let beside = || document("b", &[("doc:b", "beside", &[1.0, 1.0])]);
    let collection = store.filled("versions", vec![first(), beside()]).await;
    let area = Filter::OneOf { key: "area".to_owned(), values: vec![Value::Text("public".to_owned())] };
    let mut searches = vec![
        ("a vector", near(&collection, &[1.0, 0.0])),
        ("a vector and a filter", Search { filter: Some(area), ..near(&collection, &[1.0, 0.0]) }),
    ];
    let text = store.text_query(&collection, &["doc:a", "doc:b"], "first beside").await;
    searches.extend(text.map(|text| ("a text", text)));
    for (what, second) in rows {
        for (query, search) in &searches {
            let row = format!("{collection}: {what}, {query}");
            store.documents.upsert(&collection, vec![first()]).await.expect("taken in");
            let found = store.found(search.clone()).await;
            let listed = looked_up(store.chunks, &collection, &strings(&["a#0"])).await.expect("found");
            for candidate in &found {
                assert_ne!(candidate.written, Written::Unknown, "{row}: {candidate:?}");
            }
            let read = store.chunks.read(&collection, Some(search), &found).await.expect("read");
            assert_eq!(read.len(), found.len(), "{row}, before");
            assert_eq!(read.iter().map(|chunk| &chunk.id).collect::<Vec<_>>(), ids(&found), "{row}, before");
            let metadata = store.chunks.read_metadata(&collection, Some(search), &found).await.expect("read");
            assert_eq!(metadata, read.iter().map(metadata_of).collect::<Vec<_>>(), "{row}, before");

            store.documents.upsert(&collection, vec![second.clone()]).await.expect("taken in");
            let read = store.chunks.read(&collection, Some(search), &found).await.expect("read");
            assert!(read.iter().all(|chunk| chunk.id == "b#0"), "{row}: {read:?}");
            assert_eq!(read.len(), found.len() - 1, "{row}");
            assert!(store.chunks.read(&collection, None, &listed).await.expect("read").is_empty(), "{row}");
            let metadata = store.chunks.read_metadata(&collection, Some(search), &found).await.expect("read");
            assert_eq!(metadata, read.iter().map(metadata_of).collect::<Vec<_>>(), "{row}");
            let listed_again = store.chunks.read_metadata(&collection, None, &listed).await.expect("read");
            assert!(listed_again.is_empty(), "{row}");
            store.documents.delete(&collection, &["a".to_owned()].into()).await.expect("deleted");
            let read = store.chunks.read(&collection, Some(search), &found).await.expect("read");
            assert_eq!(read.len(), found.len() - 1, "{row}, deleted");
        }
    }
}

fn ids(candidates: &[Candidate]) -> Vec<&String> {
    candidates.iter().map(|candidate| &candidate.chunk_id).collect()
}
