//! `ragward attach` over Qdrant's wire: collections of other programs, their layouts, and what is written to them.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use qdrant_client::qdrant::{
    CollectionConfig, CollectionDescription, CollectionInfo, CollectionParams, CountPoints, CountResponse, CountResult,
    Distance, GetCollectionInfoRequest, GetCollectionInfoResponse, GetPoints, GetResponse, ListCollectionsRequest,
    ListCollectionsResponse, PayloadSchemaInfo, PayloadSchemaType, PointId, PointStruct, RetrievedPoint, ScrollPoints,
    ScrollResponse, Struct, Value as Payload, VectorParams, value::Kind, vectors_config,
};
use ragward::chunk::Value;
use ragward::language::Object;
use ragward::vector_store::qdrant::{
    Attach, AttachError, Attached, GuardTemplate, PayloadConfig, QdrantConfig, QdrantStore, WrittenBy,
};
use ragward::vector_store::{DocumentStore, Filter, Query, Search, SearchSpace, VectorStore, VectorStoreError};

use crate::support::faulty_server::Methods;
use crate::support::qdrant_servers::servers;
use crate::support::vector_store_suite::{TEXTS, read_now};

const COLLECTION: &str = "docs";

fn langchain() -> PayloadConfig {
    PayloadConfig::of(WrittenBy::Langchain)
}

fn store(address: &str, layout: PayloadConfig) -> QdrantStore {
    let config = QdrantConfig { collections: [(COLLECTION.to_owned(), layout)].into(), ..QdrantConfig::new(address) };
    QdrantStore::new(&config).expect("a store")
}

fn attach(template: &str) -> Attach {
    Attach { template: Some(GuardTemplate::parse(template).expect("a template")), ..Attach::default() }
}

async fn attached(store: &QdrantStore, attach: &Attach) -> Attached {
    store.attach(COLLECTION, attach, |_, _| {}).await.expect("attached")
}

/// Returns the counts of points, guarded, written, kept, unguarded.
fn counts(attached: &Attached) -> [u64; 5] {
    [attached.points, attached.guarded, attached.written, attached.kept, attached.unguarded]
}

/// Returns a point as `LangChain` writes it.
fn of_langchain(id: impl Into<PointId>, source: Option<&str>, text: &str, vector: [f32; 2]) -> PointStruct {
    let source = source.map(|source| ("source".to_owned(), Payload::from(source)));
    let metadata = Struct { fields: source.into_iter().chain([("page".to_owned(), Payload::from(1_i64))]).collect() };
    let payload = HashMap::from([
        ("page_content".to_owned(), Payload::from(text)),
        ("metadata".to_owned(), Payload { kind: Some(Kind::StructValue(metadata)) }),
    ]);
    PointStruct::new(id, vector.to_vec(), payload)
}

fn uuid(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn nearest(filter: Option<Filter>) -> Search {
    Search {
        collection: COLLECTION.to_owned(),
        query: Query::Vector(vec![1.0, 0.0]),
        filter,
        space: SearchSpace::Everything,
        narrowing: None,
        min_score: None,
        per_document_max: None,
        limit: 10,
        enough: usize::MAX,
    }
}

async fn ids(store: &QdrantStore, search: &Search) -> Vec<String> {
    store.search(search).await.expect("a search").candidates.into_iter().map(|candidate| candidate.chunk_id).collect()
}

/// Ids of documents may be whole numbers, which a condition on texts does not match.
#[tokio::test]
async fn documents_with_numbers_are_counted_as_others_are() {
    let layout = PayloadConfig::of(WrittenBy::Other);
    for server in servers().await {
        let server_name = server.name;
        server.make(COLLECTION, 2).await;
        let point = |place: u16, document: i64| {
            let payload = HashMap::from([
                ("document_id".to_owned(), Payload::from(document)),
                ("guard".to_owned(), Payload::from("document:open")),
                ("text".to_owned(), Payload::from("words")),
            ]);
            PointStruct::new(u64::from(place), vec![1.0, f32::from(place) / 100.0], payload)
        };
        // Each document has four points, and the points of the first document are the nearest.
        server.put(COLLECTION, (0..24).map(|place| point(place, i64::from(place) / 4 - 1)).collect()).await;
        let store = store(&server.url, layout.clone());
        for per_document_max in 1..=3 {
            for limit in [1, 3, 5] {
                let search = Search { per_document_max: NonZeroUsize::new(per_document_max), limit, ..nearest(None) };
                let expected = (0..24_usize).filter(|place| place % 4 < per_document_max).take(limit);
                let expected: Vec<String> = expected.map(|place| place.to_string()).collect();
                assert_eq!(ids(&store, &search).await, expected, "{server_name}, {per_document_max}, {limit}");
            }
        }
    }
}

#[tokio::test]
async fn a_collection_of_langchain_is_attached_and_searched() {
    for server in servers().await {
        let server_name = server.name;
        server.make(COLLECTION, 2).await;
        server
            .put(
                COLLECTION,
                vec![
                    of_langchain(uuid(1), Some("docs/a.md"), "first", [1.0, 0.0]),
                    of_langchain(7_u64, Some("docs/b.md"), "second", [1.0, 0.5]),
                    of_langchain(uuid(2), None, "of nobody", [1.0, 0.1]),
                ],
            )
            .await;
        let store = store(&server.url, langchain());
        assert!(ids(&store, &nearest(None)).await.is_empty(), "{server_name}");
        assert!(store.guards(COLLECTION).await.expect("a collection").is_none(), "{server_name}");

        let template = attach("document:{metadata.source}");
        let before = server.payloads(COLLECTION).await;
        let dry = attached(&store, &Attach { dry_run: true, ..template.clone() }).await;
        assert_eq!(counts(&dry), [3, 0, 2, 0, 1], "{server_name}");
        assert_eq!(server.payloads(COLLECTION).await, before, "{server_name}");
        assert!(server.indexes(COLLECTION).await.is_empty(), "{server_name}");

        let first = attached(&store, &template).await;
        assert_eq!(Attached { indexes: dry.indexes.clone(), ..first.clone() }, dry, "{server_name}");
        assert_eq!(first.indexes, ["guard", "metadata.source"], "{server_name}");
        assert_eq!(server.indexes(COLLECTION).await, ["guard", "metadata.source"], "{server_name}");
        assert_eq!(first.unguarded_examples, [uuid(2)], "{server_name}");
        assert_eq!(first.examples[&uuid(1)], "document:docs/a.md", "{server_name}");
        // A second run finds nothing to do, and what the other program wrote is unchanged.
        let again = attached(&store, &template).await;
        assert_eq!((counts(&again), again.indexes.len()), ([3, 2, 0, 0, 1], 0), "{server_name}");
        for (id, payload) in server.payloads(COLLECTION).await {
            let without: HashMap<String, Payload> = payload.into_iter().filter(|(key, _)| key != "guard").collect();
            assert_eq!(without, before[&id], "{server_name}: {id}");
        }

        assert_eq!(ids(&store, &nearest(None)).await, [uuid(1), "7".to_owned()], "{server_name}");
        let page = |page: i64| Some(Filter::OneOf { key: "page".to_owned(), values: vec![Value::Int(page)] });
        assert_eq!(ids(&store, &nearest(page(1))).await.len(), 2, "{server_name}");
        assert!(ids(&store, &nearest(page(2))).await.is_empty(), "{server_name}");
        let table = store.guards(COLLECTION).await.expect("a collection").expect("a table");
        let guards: Vec<&str> = table.guards.iter().map(ragward::language::Object::as_str).collect();
        assert_eq!(guards, ["document:docs/a.md", "document:docs/b.md"], "{server_name}");
        let read = read_now(&store, COLLECTION, &["7".to_owned(), uuid(2), "07".to_owned(), "x".to_owned()])
            .await
            .expect("read");
        let read: Vec<(&str, &str)> = read.iter().map(|c| (c.document_id.as_str(), c.text.as_str())).collect();
        assert_eq!(read, [("docs/b.md", "second")], "{server_name}");
        let counted = store.documents(COLLECTION, &["docs/a.md".to_owned()]).await.expect("documents");
        assert_eq!(counted, [("docs/a.md".to_owned(), 1)], "{server_name}");
    }
}

#[tokio::test]
async fn a_collection_of_llama_index_is_attached_and_read() {
    for server in servers().await {
        let server_name = server.name;
        server.make(COLLECTION, 2).await;
        let payload = HashMap::from([
            ("_node_content".to_owned(), Payload::from(r#"{"text": "Welcome.", "id_": "n"}"#)),
            ("ref_doc_id".to_owned(), Payload::from("handbook")),
            ("year".to_owned(), Payload::from(2026_i64)),
        ]);
        server.put(COLLECTION, vec![PointStruct::new(uuid(1), vec![1.0, 0.0], payload)]).await;
        let store = store(&server.url, PayloadConfig::of(WrittenBy::LlamaIndex));
        assert_eq!(counts(&attached(&store, &attach("document:{ref_doc_id}")).await), [1, 0, 1, 0, 0], "{server_name}");
        let year = Filter::Between { key: "year".to_owned(), low: 2026.0, high: 2026.0 };
        assert_eq!(ids(&store, &nearest(Some(year))).await, [uuid(1)], "{server_name}");
        let read = read_now(&store, COLLECTION, &[uuid(1)]).await.expect("read").remove(0);
        assert_eq!((read.text.as_str(), read.document_id.as_str()), ("Welcome.", "handbook"), "{server_name}");
        assert_eq!(read.metadata.keys().collect::<Vec<_>>(), ["ref_doc_id", "year"], "{server_name}");
    }
}

#[tokio::test]
async fn a_guard_that_is_there_is_kept_unless_told_otherwise() {
    for server in servers().await {
        let server_name = server.name;
        server.make(COLLECTION, 2).await;
        let guarded = |number: usize, source: Option<&str>, guard: Payload| {
            let mut point = of_langchain(uuid(number), source, "words", [1.0, 0.0]);
            point.payload.insert("guard".to_owned(), guard);
            point
        };
        server
            .put(
                COLLECTION,
                vec![
                    guarded(1, Some("a"), Payload::from("document:secret")),
                    guarded(2, Some("b"), Payload::from("document:*")),
                    guarded(3, Some("c"), Payload::from(vec![Payload::from("document:c")])),
                    guarded(4, None, Payload::from("document:d")),
                ],
            )
            .await;
        let store = store(&server.url, langchain());
        // Without a template, points are counted and nothing is written.
        assert_eq!(counts(&attached(&store, &Attach::default()).await), [4, 2, 0, 0, 2], "{server_name}");
        let template = attach("document:{metadata.source}");
        let kept = attached(&store, &template).await;
        assert_eq!((counts(&kept), kept.cleared), ([4, 0, 2, 2, 0], 0), "{server_name}");
        // A point with another guard is named, together with that guard.
        let named = [(uuid(1), "document:secret".to_owned()), (uuid(4), "document:d".to_owned())];
        assert_eq!(kept.kept_examples, named.into(), "{server_name}");
        let replaced = attached(&store, &Attach { replace: true, ..template }).await;
        assert_eq!((counts(&replaced), replaced.cleared), ([4, 2, 1, 0, 0], 1), "{server_name}");
        let payloads = server.payloads(COLLECTION).await;
        let guards: Vec<Option<&Payload>> = payloads.values().map(|payload| payload.get("guard")).collect();
        let expected = ["document:a", "document:b", "document:c"].map(Payload::from);
        assert_eq!(guards, expected.iter().map(Some).chain([None]).collect::<Vec<_>>(), "{server_name}");
    }
}

/// When guards are replaced, a point for which the template makes no guard becomes invisible to everybody: whoever
/// writes the points may have chosen the guard that is there.
#[tokio::test]
async fn a_guard_that_the_template_does_not_make_is_taken_away() {
    let text = |length: usize| Payload::from("x".repeat(length));
    let rows: [(&str, Option<Payload>); 9] = [
        ("no field", None),
        ("null", Some(Payload { kind: None })),
        ("a list", Some(Payload::from(vec![Payload::from("a")]))),
        ("an object", Some(Payload { kind: Some(Kind::StructValue(Struct::default())) })),
        ("a number with a fraction", Some(Payload::from(1.5))),
        ("a truth value", Some(Payload::from(true))),
        ("an empty text", Some(text(0))),
        ("400 bytes", Some(text(400))),
        ("a text", Some(text(3))),
    ];
    for server in servers().await {
        let server_name = server.name;
        server.make(COLLECTION, 2).await;
        let point = |(number, (_, source)): (usize, &(&str, Option<Payload>))| {
            let mut point = of_langchain(uuid(number), None, "words", [1.0, 0.0]);
            let source = source.iter().map(|source| ("source".to_owned(), source.clone()));
            let metadata = Kind::StructValue(Struct { fields: source.collect() });
            point.payload.insert("metadata".to_owned(), Payload { kind: Some(metadata) });
            point.payload.insert("guard".to_owned(), Payload::from("document:public"));
            point
        };
        server.put(COLLECTION, rows.iter().enumerate().map(point).collect()).await;
        let store = store(&server.url, langchain());
        let template = attach("document:{metadata.source}");
        let kept = attached(&store, &template).await;
        assert_eq!((counts(&kept), kept.kept_examples.len()), ([9, 0, 0, 9, 0], 5), "{server_name}");
        let replace = Attach { replace: true, ..template };
        let before = server.payloads(COLLECTION).await;
        let dry = attached(&store, &Attach { dry_run: true, ..replace.clone() }).await;
        assert_eq!(server.payloads(COLLECTION).await, before, "{server_name}");
        let done = attached(&store, &replace).await;
        assert_eq!(done, dry, "{server_name}");
        assert_eq!((counts(&done), done.cleared), ([9, 0, 1, 0, 0], 8), "{server_name}");
        assert_eq!(done.cleared_examples.get(&uuid(0)).map(String::as_str), Some("document:public"), "{server_name}");
        for (number, (what, _)) in rows.iter().enumerate() {
            let payload = &server.payloads(COLLECTION).await[&uuid(number)];
            let expected = (*what == "a text").then(|| Payload::from("document:xxx"));
            assert_eq!(payload.get("guard"), expected.as_ref(), "{server_name}: {what}");
            // Nothing else is changed.
            let without = |payload: &HashMap<String, Payload>| {
                let mut payload = payload.clone();
                payload.remove("guard");
                payload
            };
            assert_eq!(without(payload), without(&before[&uuid(number)]), "{server_name}: {what}");
        }
        assert_eq!(ids(&store, &nearest(None)).await, [uuid(8)], "{server_name}");
        assert_eq!(counts(&attached(&store, &replace).await), [9, 1, 0, 0, 8], "{server_name}");
    }
}

/// INVARIANT (the guard of what is there): however a client replaces points meanwhile, a guard always belongs to the
/// text beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_point_that_changes_meanwhile_gets_no_guard_of_what_it_was() {
    const POINTS: u64 = 300;
    const ROUNDS: usize = 12;
    for server in servers().await {
        let server_name = server.name;
        server.make(COLLECTION, 2).await;
        let of_round = |round: usize| -> Vec<PointStruct> {
            let source = |number: u64| TEXTS[(usize::try_from(number).expect("small") + round) % TEXTS.len()];
            (0..POINTS).map(|number| of_langchain(number, Some(source(number)), source(number), [1.0, 0.0])).collect()
        };
        server.put(COLLECTION, of_round(0)).await;
        let store = store(&server.url, langchain());
        let template = attach("document:{metadata.source}");
        let writing = async {
            for round in 1..ROUNDS {
                for points in of_round(round).chunks(20) {
                    server.put(COLLECTION, points.to_vec()).await;
                }
            }
        };
        let is_over = AtomicBool::new(false);
        let attaching = async {
            while !is_over.load(Ordering::SeqCst) {
                attached(&store, &template).await;
            }
        };
        tokio::join!(
            async {
                writing.await;
                is_over.store(true, Ordering::SeqCst);
            },
            attaching
        );
        for run in ["while the client wrote", "after it"] {
            for (id, payload) in server.payloads(COLLECTION).await {
                let text = match &payload["page_content"].kind {
                    Some(Kind::StringValue(text)) => text.clone(),
                    other => panic!("{server_name}, {run}: {id}: {other:?}"),
                };
                let expected = Object::parse(&format!("document:{}", encoded(&text))).ok();
                let expected = expected.map(|guard| Payload::from(guard.to_string()));
                let is_left = run == "while the client wrote" && !payload.contains_key("guard");
                assert!(
                    payload.get("guard") == expected.as_ref() || is_left,
                    "{server_name}: {run}: {id}, {text:?}, {payload:?}"
                );
            }
            let last = attached(&store, &template).await;
            assert_eq!((last.points, last.kept, last.unsettled, last.later), (POINTS, 0, 0, 0), "{server_name}: {run}");
        }
    }
}

/// Encodes a guard's id: characters that it cannot hold become hexadecimal digits.
fn encoded(text: &str) -> String {
    let is_kept = |c: char| !c.is_whitespace() && !c.is_control();
    let escaped = |c: char| c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<String>>().concat();
    text.chars().map(|c| if is_kept(c) { c.to_string() } else { escaped(c) }).collect()
}

/// A guard that is left from an earlier version of a point is found, named, and mended when guards are replaced.
#[tokio::test]
async fn what_an_earlier_run_left_wrong_is_found_and_mended() {
    for server in servers().await {
        let server_name = server.name;
        server.make(COLLECTION, 2).await;
        let wrong = |number: usize, source: &str, guard: &str| {
            let mut point = of_langchain(uuid(number), Some(source), "words", [1.0, 0.0]);
            point.payload.insert("guard".to_owned(), Payload::from(guard));
            point
        };
        let points = vec![
            wrong(1, "s 851", "document:s%2085"),
            wrong(2, "s 85", "document:s%2085"),
            wrong(3, "a s 85", "document:s%2085"),
        ];
        server.put(COLLECTION, points).await;
        let store = store(&server.url, langchain());
        let template = attach("document:{metadata.source}");
        let found = attached(&store, &template).await;
        assert_eq!(counts(&found), [3, 1, 0, 2, 0], "{server_name}");
        let left = "document:s%2085".to_owned();
        assert_eq!(found.kept_examples, [(uuid(1), left.clone()), (uuid(3), left)].into(), "{server_name}");
        let mended = attached(&store, &Attach { replace: true, ..template }).await;
        assert_eq!(counts(&mended), [3, 1, 2, 0, 0], "{server_name}");
        let payloads = server.payloads(COLLECTION).await;
        for (number, guard) in [(1, "document:s%20851"), (2, "document:s%2085"), (3, "document:a%20s%2085")] {
            assert_eq!(payloads[&uuid(number)]["guard"], Payload::from(guard), "{server_name}: {guard}");
        }
    }
}

/// A run goes through the points that are there at its start. Points that are written meanwhile, between the others and
/// after them, are counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_through_what_there_was_at_its_start() {
    const POINTS: usize = 2_500;
    const ADDED: usize = 400;
    for server in servers().await {
        let server_name = server.name;
        let server = Arc::new(server);
        server.make(COLLECTION, 2).await;
        let point = |id: usize| of_langchain(u64::try_from(id).expect("small"), Some("a"), "words", [1.0, 0.0]);
        server.put(COLLECTION, (0..POINTS).map(|number| point(2 * number)).collect()).await;
        let store = store(&server.url, langchain());
        let (begun, begins) = mpsc::channel();
        let (added, is_added) = mpsc::channel();
        let adding = tokio::spawn({
            let server = Arc::clone(&server);
            async move {
                tokio::task::block_in_place(|| begins.recv()).expect("the first page");
                let between = (POINTS - ADDED..POINTS).map(|number| point(2 * number + 1));
                let behind = (0..ADDED).map(|number| point(1_000_000 + number));
                server.put(COLLECTION, between.chain(behind).collect()).await;
                added.send(()).expect("a run that waits");
            }
        });
        let progress = |attached: &Attached, _: u64| {
            if attached.points == 1_000 {
                begun.send(()).expect("somebody who adds");
                tokio::task::block_in_place(|| is_added.recv()).expect("added");
            }
        };
        let done = store.attach(COLLECTION, &attach("document:{metadata.source}"), progress).await.expect("attached");
        adding.await.expect("added");
        assert_eq!((counts(&done), done.later), ([2_500, 0, 2_500, 0, 0], 800), "{server_name}");
        let again = attached(&store, &attach("document:{metadata.source}")).await;
        assert_eq!((counts(&again), again.later), ([3_300, 2_500, 800, 0, 0], 0), "{server_name}");
    }
}

#[tokio::test]
async fn many_pages_are_gone_through_once() {
    for server in servers().await {
        let server_name = server.name;
        server.make(COLLECTION, 2).await;
        let one = |number: u64| of_langchain(number, Some(&format!("s{}", number % 700)), "words", [1.0, 0.0]);
        server.put(COLLECTION, (0..2_500).map(one).collect()).await;
        let store = store(&server.url, langchain());
        let told = Mutex::new(Vec::new());
        let progress = |attached: &Attached, points: u64| told.lock().unwrap().push((attached.points, points));
        let done = store.attach(COLLECTION, &attach("document:{metadata.source}"), progress).await.expect("attached");
        assert_eq!(counts(&done), [2_500, 0, 2_500, 0, 0], "{server_name}");
        assert_eq!(told.into_inner().unwrap(), [(1_000, 2_500), (2_000, 2_500), (2_500, 2_500)], "{server_name}");
        assert_eq!(
            store.guards(COLLECTION).await.expect("a collection").expect("a table").guards.len(),
            700,
            "{server_name}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_attached_is_refused_before_anything_is_written() {
    for server in servers().await {
        let server_name = server.name;
        server.make(COLLECTION, 2).await;
        server.put(COLLECTION, vec![of_langchain(1_u64, Some("a"), "words", [1.0, 0.0])]).await;
        let template = attach("document:{metadata.source}");
        let own = QdrantStore::new(&QdrantConfig::new(&server.url)).expect("a store");
        let unnamed = own.attach(COLLECTION, &template, |_, _| {}).await;
        assert!(
            matches!(&unnamed, Err(error @ AttachError::NoLayout(_)) if error.to_string().contains("written_by")),
            "{server_name}: {unnamed:?}"
        );
        let names =
            PayloadConfig { guard: Some("metadata.guard".to_owned()), title: Some("title".to_owned()), ..langchain() };
        let nested = store(&server.url, names);
        let refused = nested.attach(COLLECTION, &template, |_, _| {}).await;
        assert!(matches!(refused, Err(AttachError::NestedGuard)), "{server_name}: {refused:?}");
        let store = store(&server.url, langchain());
        let config =
            QdrantConfig { collections: [("absent".to_owned(), langchain())].into(), ..QdrantConfig::new(&server.url) };
        let absent = QdrantStore::new(&config).expect("a store").attach("absent", &template, |_, _| {}).await;
        assert!(
            matches!(absent, Err(AttachError::Store(VectorStoreError::UnknownCollection(_)))),
            "{server_name}: {absent:?}"
        );
        assert!(server.indexes(COLLECTION).await.is_empty(), "{server_name}");
        assert!(!server.payloads(COLLECTION).await["1"].contains_key("guard"), "{server_name}");
        // Ragward does not write documents that another program keeps.
        let deleted = store.delete(COLLECTION, &["a".to_owned()].into()).await;
        assert!(matches!(deleted, Err(VectorStoreError::Unsupported(_))), "{server_name}: {deleted:?}");
        let put = store.upsert(COLLECTION, Vec::new()).await;
        assert!(matches!(put, Err(VectorStoreError::Unsupported(_))), "{server_name}: {put:?}");
    }
}

/// Runs the command with a configuration, and returns its exit code and its output.
fn ragward(config: &str, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("ragward.toml");
    std::fs::write(&file, config).expect("written");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ragward"));
    let output = command.args(["--output", "json", "--config"]).arg(&file).args(arguments).output().expect("an end");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_attaches_what_the_configuration_names() {
    for server in servers().await {
        let server_name = server.name;
        server.make(COLLECTION, 2).await;
        server.put(COLLECTION, vec![of_langchain(1_u64, Some("a"), "words", [1.0, 0.0])]).await;
        let config = format!(
            "[vector_store]\nkind = 'qdrant'\n[vector_store.qdrant]\nurl = '{}'\n\
         [vector_store.qdrant.collections.docs]\nwritten_by = 'langchain'\n",
            server.url
        );
        let attach = ["attach", COLLECTION, "--guard", "document:{metadata.source}"];
        let run = |config: &str, more: &[&str]| {
            let arguments = [&attach[..], more].concat();
            tokio::task::block_in_place(|| ragward(config, &arguments))
        };
        let (code, dry) = run(&config, &["--dry-run"]);
        assert_eq!(
            (code, &dry["written"], &dry["dry_run"]),
            (Some(0), &1.into(), &true.into()),
            "{server_name}: {dry}"
        );
        assert!(!server.payloads(COLLECTION).await["1"].contains_key("guard"), "{server_name}");
        let (code, done) = run(&config, &[]);
        assert_eq!((code, &done["examples"]["1"]), (Some(0), &"document:a".into()), "{server_name}: {done}");
        assert_eq!(server.payloads(COLLECTION).await["1"]["guard"], Payload::from("document:a"), "{server_name}");
        // The command refuses to run without a Qdrant, with a malformed path, and with a malformed template.
        assert_eq!(run("", &[]).0, Some(2), "{server_name}: no Qdrant");
        assert_eq!(run(&format!("{config}text = 'a[0]'\n"), &[]).0, Some(2), "{server_name}: a malformed path");
        assert_eq!(run(&format!("{config}texts = 'a'\n"), &[]).0, Some(2), "{server_name}: an unknown setting");
        let bad = ["attach", COLLECTION, "--guard", "{metadata.type}:{metadata.source}"];
        assert_eq!(
            tokio::task::block_in_place(|| ragward(&config, &bad)).0,
            Some(2),
            "{server_name}: a malformed template"
        );
    }
}

fn describe(_: GetCollectionInfoRequest) -> impl Future<Output = Result<GetCollectionInfoResponse, tonic::Status>> {
    let vector = VectorParams { size: 2, distance: Distance::Cosine.into(), ..VectorParams::default() };
    let params = CollectionParams {
        vectors_config: Some(vectors_config::Config::Params(vector).into()),
        ..CollectionParams::default()
    };
    let index = PayloadSchemaInfo { data_type: PayloadSchemaType::Keyword.into(), ..PayloadSchemaInfo::default() };
    let info = CollectionInfo {
        config: Some(CollectionConfig { params: Some(params), ..CollectionConfig::default() }),
        payload_schema: ["guard", "metadata.source"].map(|field| (field.to_owned(), index.clone())).into(),
        ..CollectionInfo::default()
    };
    std::future::ready(Ok(GetCollectionInfoResponse { result: Some(info), time: 0.0 }))
}

fn list(_: ListCollectionsRequest) -> impl Future<Output = Result<ListCollectionsResponse, tonic::Status>> {
    let collections = vec![CollectionDescription { name: COLLECTION.to_owned() }];
    std::future::ready(Ok(ListCollectionsResponse { collections, time: 0.0 }))
}

/// Pages that make no sense are an error. Otherwise the run would never end.
#[tokio::test]
async fn pages_that_do_not_go_on_are_an_error() {
    type Page = fn(Option<PointId>) -> (Vec<u64>, Option<u64>);
    let cases: [(&str, Page, bool); 7] = [
        ("right", |offset| if offset.is_none() { (vec![1, 2], Some(3)) } else { (vec![3], None) }, true),
        ("the same page again", |_| (vec![1, 2], Some(3)), false),
        ("a point twice", |_| (vec![1, 1], None), false),
        ("out of order", |_| (vec![2, 1], None), false),
        ("empty and not the last", |_| (vec![], Some(1)), false),
        ("too many", |_| ((0..1_001).collect(), None), false),
        ("nothing", |_| (vec![], None), true),
    ];
    for (name, page, is_right) in cases {
        let scroll = move |request: ScrollPoints| {
            let (ids, next) = page(request.offset);
            let point = |id: u64| RetrievedPoint { id: Some(PointId::from(id)), ..RetrievedPoint::default() };
            let result = ids.into_iter().map(point).collect();
            let next_page_offset = next.map(PointId::from);
            std::future::ready(Ok(ScrollResponse { result, next_page_offset, ..ScrollResponse::default() }))
        };
        let methods = Methods::default().on("/qdrant.Collections/List", list).on("/qdrant.Collections/Get", describe);
        let get = |request: GetPoints| {
            let point = |id: PointId| RetrievedPoint { id: Some(id), ..RetrievedPoint::default() };
            let result = request.ids.into_iter().map(point).collect();
            std::future::ready(Ok(GetResponse { result, ..GetResponse::default() }))
        };
        let count = |_: CountPoints| {
            let result = Some(CountResult { count: 3 });
            std::future::ready(Ok(CountResponse { result, ..CountResponse::default() }))
        };
        let methods = methods.on("/qdrant.Points/Scroll", scroll).on("/qdrant.Points/Get", get);
        let methods = methods.on("/qdrant.Points/Count", count);
        let server = methods.start().await;
        let done = store(&server.address, langchain()).attach(COLLECTION, &Attach::default(), |_, _| {}).await;
        assert_eq!(done.is_ok(), is_right, "{name}: {done:?}");
    }
}
