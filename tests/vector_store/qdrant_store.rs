//! Tests of the Qdrant adapter. They run the port's suite over a small Qdrant in memory, and over a real one if
//! `QDRANT_URL` names it or its program is in `QDRANT_BIN` or on the PATH. Then they test what the port leaves to the
//! adapter: how scopes become filters, what requests share, and points that are not chunks.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::time::Duration;

use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::{
    Condition, CreateCollectionBuilder, Distance, PointStruct, StrictModeConfig, Value as Payload, VectorParamsBuilder,
};
use ragward::chunk::{Candidate, Document, Value};
use ragward::language::Object;
use ragward::vector_store::qdrant::{QdrantConfig, QdrantStore, ReadConsistency, point_id};
use ragward::vector_store::{
    DocumentStore, Filter, GuardTable, Query, Search, SearchSpace, VectorStore, VectorStoreError,
};
use roaring::RoaringBitmap;

use crate::support::brute_force::BruteForce;
use crate::support::dice::Dice;
use crate::support::qdrant_process::Qdrant;
use crate::support::qdrant_server::QdrantServer;
use crate::support::qdrant_servers::servers;
use crate::support::vector_store_suite::{Store, candidate, document, object};

async fn run(config: &QdrantConfig, prefix: &str) {
    let store = QdrantStore::new(config).expect("a store");
    crate::support::vector_store_suite::run(Store { chunks: &store, documents: &store, prefix }).await;
}

#[tokio::test]
async fn the_port_suite_holds_over_a_small_server() {
    let server = QdrantServer::start().await;
    let config = QdrantConfig::new(&server.address);
    run(&QdrantConfig { exact: true, ..config.clone() }, "exact-").await;
    run(&config, "approximate-").await;
    run(&QdrantConfig { vector_name: Some("text".to_owned()), ..config.clone() }, "named-").await;
    // In the first run every longer list is replaced by that of the other guards, or sent in parts. In the second there
    // is no list at all.
    run(&QdrantConfig { guards_per_filter_max: 1, ..config.clone() }, "parts-").await;
    run(&QdrantConfig { guards_max: 1, ..config.clone() }, "unlisted-").await;
    run(&QdrantConfig { read_consistency: ReadConsistency::Majority, ..config }, "majority-").await;
}

#[tokio::test]
async fn the_port_suite_holds_over_a_real_qdrant() {
    let Some(server) = Qdrant::find().await else { return };
    let run_id = ulid::Ulid::new();
    let config = QdrantConfig::new(&server.url);
    run(&QdrantConfig { exact: true, ..config.clone() }, &format!("ragward-test-{run_id}-exact-")).await;
    run(&QdrantConfig { guards_per_filter_max: 1, ..config }, &format!("ragward-test-{run_id}-parts-")).await;
}

fn store(url: &str, change: impl FnOnce(&mut QdrantConfig)) -> QdrantStore {
    let mut config = QdrantConfig::new(url);
    change(&mut config);
    QdrantStore::new(&config).expect("a store")
}

/// Returns documents with one chunk each, the nearest to `[1, 0]` first.
fn documents(guards: &[&str]) -> Vec<Document> {
    let one =
        |(place, guard): (u8, &&str)| document(&format!("d{place:03}"), &[(guard, "words", &[10.0, f32::from(place)])]);
    (0..).zip(guards).map(one).collect()
}

fn nearest(space: SearchSpace, limit: usize) -> Search {
    let query = Query::Vector(vec![1.0, 0.0]);
    Search {
        collection: "docs".to_owned(),
        query,
        filter: None,
        space,
        narrowing: None,
        min_score: None,
        per_document_max: None,
        limit,
        enough: usize::MAX,
    }
}

async fn table(store: &QdrantStore) -> GuardTable {
    store.guards("docs").await.expect("a collection").expect("a table")
}

fn space(table: &GuardTable, guards: &[&str]) -> SearchSpace {
    let named = (0..).zip(table.guards.iter()).filter(|(_, guard)| guards.contains(&guard.as_str()));
    SearchSpace::Guards { table: table.clone(), positions: named.map(|(position, _)| position).collect() }
}

/// Returns, for each search since the last call, whether it was to be a scan.
fn scans(server: &QdrantServer) -> Vec<bool> {
    server.take_queries().into_iter().map(|query| query.params.expect("parameters").exact()).collect()
}

async fn ids(store: &QdrantStore, search: &Search) -> Vec<String> {
    store.search(search).await.expect("a search").candidates.into_iter().map(|candidate| candidate.chunk_id).collect()
}

#[tokio::test]
async fn one_list_of_guards_serves_many_requests() {
    let server = QdrantServer::start().await;
    let store = store(&server.address, |config| config.overview_age_max = Duration::from_hours(1));
    store.upsert("docs", documents(&["doc:a", "doc:b"])).await.expect("taken in");
    let tables = futures::future::join_all((0..16).map(|_| table(&store))).await;
    assert_eq!(server.facets("guard"), 1);
    assert!(tables.iter().all(|other| std::sync::Arc::ptr_eq(&other.guards, &tables[0].guards)));

    // Documents that this process writes are seen at once, at the end of the table.
    store.upsert("docs", documents(&["doc:a", "doc:b", "doc:0"])).await.expect("taken in");
    let grown = table(&store).await;
    assert_eq!(grown.guards.iter().map(Object::as_str).collect::<Vec<_>>(), ["doc:a", "doc:b", "doc:0"]);
    assert_eq!(store.collection("docs").await.expect("a collection").documents, 3);
    store.delete("docs", &["d000".to_owned()].into()).await.expect("deleted");
    let shrunk = table(&store).await;
    assert!(std::sync::Arc::ptr_eq(&shrunk.guards, &grown.guards));
    assert_eq!(shrunk.in_use.iter().collect::<Vec<u32>>(), [1, 2]);
    assert_eq!(server.facets("guard"), 3);
}

#[tokio::test]
async fn what_others_write_is_seen_after_the_interval() {
    let server = QdrantServer::start().await;
    let patient = store(&server.address, |config| config.overview_age_max = Duration::from_hours(1));
    let eager = store(&server.address, |config| config.overview_age_max = Duration::ZERO);
    patient.upsert("docs", documents(&["doc:a"])).await.expect("taken in");
    assert_eq!(table(&patient).await.guards.len(), 1);
    eager.upsert("docs", documents(&["doc:a", "doc:b"])).await.expect("taken in");
    assert_eq!(table(&eager).await.guards.len(), 2);
    assert_eq!(table(&patient).await.guards.len(), 1);
}

/// INVARIANT (no text): Qdrant does not send the text of a chunk whose metadata alone is read.
#[tokio::test]
async fn metadata_is_read_without_the_text() {
    let server = QdrantServer::start().await;
    let store = store(&server.address, |_| {});
    store.upsert("docs", documents(&["doc:a"])).await.expect("taken in");
    let search = nearest(SearchSpace::Everything, 10);
    let found = store.search(&search).await.expect("a search").candidates;
    for (name, search) in [("by id", None), ("after a search", Some(&search))] {
        server.take_sent_fields();
        let metadata = store.read_metadata("docs", search, &found).await.expect("read");
        assert_eq!(metadata.len(), 1, "{name}");
        let sent = server.take_sent_fields();
        assert!(sent.contains("metadata") && !sent.contains("text"), "{name}: {sent:?}");
        store.read("docs", search, &found).await.expect("read");
        assert!(server.take_sent_fields().contains("text"), "{name}");
    }
}

/// INVARIANT (no alias): rules are written for a collection's own name, so every call refuses another name of it.
#[tokio::test]
async fn an_alias_is_refused_by_every_call() {
    for server in servers().await {
        let server_name = server.name;
        let store = store(&server.url, |config| config.overview_age_max = Duration::ZERO);
        store.upsert("docs", documents(&["doc:a"])).await.expect("taken in");
        server.make_alias("alias", "docs").await;
        assert_eq!(refusals(&store, "alias").await, ["docs"; 8], "{server_name}");
        assert_eq!(ids(&store, &nearest(SearchSpace::Everything, 1)).await, ["d000#0"], "{server_name}");
        // A collection is deleted, and its name becomes an alias while it is in use.
        store.upsert("moved", documents(&["doc:a"])).await.expect("taken in");
        server.delete("docs").await;
        server.make_alias("docs", "moved").await;
        assert_eq!(refusals(&store, "docs").await, ["moved"; 8], "{server_name}");
        assert_eq!(store.collection("moved").await.expect("a collection").chunks, 1, "{server_name}");
    }
}

/// Returns, for each call, the collection that its refusal tells the caller to name in place of an alias.
async fn refusals(store: &QdrantStore, alias: &str) -> Vec<String> {
    let id = || vec!["d000".to_owned()];
    let search = Search { collection: alias.to_owned(), ..nearest(SearchSpace::Everything, 1) };
    let errors = [
        store.collection(alias).await.err(),
        store.guards(alias).await.err(),
        store.search(&search).await.err(),
        store.find(alias, &id()).await.err(),
        store.read(alias, None, &[candidate("d000", "doc:a")]).await.err(),
        store.upsert(alias, documents(&["doc:b"])).await.err(),
        store.delete(alias, &id().into_iter().collect()).await.err(),
        store.documents(alias, &id()).await.err(),
    ];
    let named = |error: Option<VectorStoreError>| match error {
        Some(VectorStoreError::Unsupported(text)) => text.rsplit('`').nth(1).expect("a name").to_owned(),
        other => panic!("{other:?}"),
    };
    errors.into_iter().map(named).collect()
}

/// INVARIANT (cut is not known): a list that may lack guards is no list.
#[tokio::test]
async fn guards_that_are_too_many_or_have_no_index_are_not_known() {
    let server = QdrantServer::start().await;
    let full = store(&server.address, |_| {});
    full.upsert("docs", documents(&["doc:a", "doc:b", "doc:c"])).await.expect("taken in");
    for (guards_max, known) in [(1, false), (2, false), (3, true), (4, true)] {
        let store = store(&server.address, |config| config.guards_max = guards_max);
        assert_eq!(store.guards("docs").await.expect("a collection").is_some(), known, "{guards_max}");
        // Guards that cannot be listed are not asked for again and again.
        let before = server.facets("guard");
        store.upsert("docs", documents(&["doc:a", "doc:b", "doc:c"])).await.expect("taken in");
        store.guards("docs").await.expect("a collection");
        assert_eq!(server.facets("guard") - before, usize::from(known), "{guards_max}");
    }
    let bare = CreateCollectionBuilder::new("bare").vectors_config(VectorParamsBuilder::new(2, Distance::Cosine));
    let mut collections = CollectionsClient::connect(server.address.clone()).await.expect("a server");
    collections.create(bare.build()).await.expect("a collection");
    assert!(full.guards("bare").await.expect("a collection").is_none());
}

/// Returns what the filters of the searches say about guards: `+` for a list of the guards in scope, `-` for a list of
/// the guards outside it.
fn guard_filters(server: &QdrantServer) -> Vec<String> {
    let list = |condition: &Condition| match &condition.condition_one_of {
        Some(ConditionOneOf::Field(field)) if field.key == "guard" => {
            format!("{:?}", field.r#match).matches("doc:").count()
        }
        _ => panic!("{condition:?}"),
    };
    let shown = |condition: &Condition| match &condition.condition_one_of {
        Some(ConditionOneOf::Filter(filter)) => format!("-{}", list(&filter.must_not[0])),
        _ => format!("+{}", list(condition)),
    };
    let queries = server.take_queries();
    queries.iter().map(|query| query.filter.as_ref().map_or("all".to_owned(), |f| shown(&f.must[0]))).collect()
}

#[tokio::test]
async fn a_scope_is_one_filter_if_it_can_be() {
    let server = QdrantServer::start().await;
    let store = store(&server.address, |config| config.guards_per_filter_max = 3);
    let guards: Vec<String> = (0..10).map(|number| format!("doc:{number}")).collect();
    let guards: Vec<&str> = guards.iter().map(String::as_str).collect();
    store.upsert("docs", documents(&guards)).await.expect("taken in");
    let table = table(&store).await;
    let rows: [(usize, &[&str]); 7] = [
        (0, &[]),
        (1, &["+1"]),
        (3, &["+3"]),
        // Both parts have fewer chunks than are wanted. The store asks again for each part, because it does not know
        // how many chunks a part has.
        (6, &["+3", "+3", "+3", "+3"]),
        (7, &["-3"]),
        (9, &["-1"]),
        // Every known guard is visible, and there is at least one.
        (10, &["all"]),
    ];
    for (visible, expected) in rows {
        let search = nearest(space(&table, &guards[..visible]), 100);
        let found = ids(&store, &search).await;
        assert_eq!(found, (0..visible).map(|place| format!("d{place:03}#0")).collect::<Vec<_>>(), "{visible}");
        assert_eq!(guard_filters(&server), expected, "{visible}");
    }
}

#[tokio::test]
async fn a_small_scope_is_scanned() {
    let server = QdrantServer::start().await;
    let store = store(&server.address, |config| config.scanned_chunks_max = 2);
    store.upsert("docs", documents(&["doc:a", "doc:b", "doc:b", "doc:c"])).await.expect("taken in");
    let table = table(&store).await;
    for (guards, scanned) in [(&["doc:a"][..], true), (&["doc:b"], true), (&["doc:a", "doc:b"], false)] {
        let found = store.search(&nearest(space(&table, guards), 1)).await.expect("a search");
        assert_eq!((scans(&server), found.exact), (vec![scanned], scanned), "{guards:?}");
    }
    // A table that is not the store's own does not say how many chunks its guards have.
    let other = GuardTable::new(vec![Object::parse("doc:a").expect("an object")]);
    let found = store.search(&nearest(space(&other, &["doc:a"]), 1)).await.expect("a search");
    assert_eq!((scans(&server), found.exact), (vec![false, true], true));
}

#[tokio::test]
async fn a_short_answer_of_the_index_is_confirmed_by_a_scan() {
    let server = QdrantServer::start().await;
    let store = store(&server.address, |_| {});
    store.upsert("docs", documents(&["doc:a", "doc:b"])).await.expect("taken in");
    let search = |min_score, limit| Search { min_score, ..nearest(SearchSpace::Everything, limit) };
    let rows: [(_, _, &[bool], bool); 6] = [
        (None, 3, &[false, true], true),
        // The search asks for one more than is wanted.
        (None, 2, &[false, true], true),
        (None, 1, &[false], false),
        // A threshold does not explain why a score above it is missing.
        (Some(0.5), 3, &[false, true], true),
        (Some(0.999), 1, &[false], false),
        (Some(1.1), 3, &[false], false),
    ];
    for (min_score, limit, scanned, exact) in rows {
        let found = store.search(&search(min_score, limit)).await.expect("a search");
        assert_eq!((scans(&server), found.exact), (scanned.to_vec(), exact), "{min_score:?} {limit}");
    }
}

/// The adapter does not send what a server would refuse: a search stays within the limits of the collection's strict
/// mode.
#[tokio::test]
async fn a_strict_mode_is_kept_to() {
    let strict = || StrictModeConfig { enabled: Some(true), ..StrictModeConfig::default() };
    let indexed = || StrictModeConfig { unindexed_filtering_retrieve: Some(false), ..strict() };
    let rows = [
        strict(),
        indexed(),
        StrictModeConfig { max_query_limit: Some(12), ..indexed() },
        StrictModeConfig { max_query_limit: Some(5), ..indexed() },
        StrictModeConfig { condition_max_size: Some(1), ..indexed() },
        StrictModeConfig { condition_max_size: Some(3), max_query_limit: Some(12), ..indexed() },
        StrictModeConfig { search_allow_exact: Some(false), ..indexed() },
        StrictModeConfig { enabled: Some(false), max_query_limit: Some(1), ..strict() },
    ];
    let guards: Vec<String> = (0..10).map(|number| format!("doc:{number}")).collect();
    let guards: Vec<&str> = guards.iter().map(String::as_str).collect();
    for server in servers().await {
        let server_name = server.name;
        for (number, strict) in rows.iter().enumerate() {
            let collection = format!("docs{number}");
            let store = store(&server.url, |_| {});
            store.upsert(&collection, documents(&guards)).await.expect("taken in");
            server.restrict(&collection, strict.clone()).await;
            store.upsert(&collection, documents(&guards)).await.expect("taken in again");
            let max = strict.enabled().then_some(strict.max_query_limit).flatten().map(|max| max as usize);
            let info = store.collection(&collection).await.expect("a collection");
            assert_eq!((info.candidates_max, info.documents), (max, 10), "{server_name}: {strict:?}");
            let listed = store.guards(&collection).await.expect("a collection");
            // If a list is as long as one answer may be, it could have been cut short.
            assert_eq!(listed.is_some(), max.is_none_or(|max| max > guards.len()), "{server_name}: {strict:?}");
            let table = listed.unwrap_or_else(|| GuardTable::new(guards.iter().map(|guard| object(guard)).collect()));
            for (visible, limit) in [(1, 1), (4, 2), (4, 5), (9, 5), (10, 5)] {
                let found = ids(
                    &store,
                    &Search { collection: collection.clone(), ..nearest(space(&table, &guards[..visible]), limit) },
                )
                .await;
                let expected: Vec<String> = (0..visible.min(limit)).map(|place| format!("d{place:03}#0")).collect();
                assert_eq!(found, expected, "{server_name}: {strict:?}, {limit} of {visible}");
            }
            let all: Vec<String> = (0..10).map(|place| format!("d{place:03}")).collect();
            assert_eq!(
                store.documents(&collection, &all).await.expect("documents").len(),
                10,
                "{server_name}: {strict:?}"
            );
            if strict.search_allow_exact != Some(false) {
                let guarded = store.guards_of(&collection, &all[..2]).await.expect("guards");
                assert_eq!(guarded.map(|guards| guards.len()), Some(2), "{server_name}: {strict:?}");
            }
            assert_eq!(
                store.delete(&collection, &all.into_iter().collect()).await.expect("deleted"),
                10,
                "{server_name}: {strict:?}"
            );
        }
    }
}

/// The second half of a replacement would be refused, and old chunks would stay for good, so nothing is written at all.
#[tokio::test]
async fn a_document_that_cannot_be_replaced_whole_is_not_touched() {
    for server in servers().await {
        let server_name = server.name;
        let store = store(&server.url, |_| {});
        let one = |id: &str, chunks: usize, guard: &'static str| {
            document(id, &vec![(guard, "words", &[1.0, 0.5][..]); chunks])
        };
        store.upsert("docs", vec![one("a", 2, "doc:open")]).await.expect("taken in");
        let strict =
            StrictModeConfig { enabled: Some(true), condition_max_size: Some(2), ..StrictModeConfig::default() };
        server.restrict("docs", strict).await;
        let refused = store.upsert("docs", vec![one("b", 1, "doc:open"), one("a", 3, "doc:secret")]).await;
        assert!(
            matches!(&refused, Err(VectorStoreError::Unsupported(text)) if text.contains("3 chunks")),
            "{server_name}: {refused:?}"
        );
        assert_eq!(ids(&store, &nearest(SearchSpace::Everything, 10)).await, ["a#0", "a#1"], "{server_name}");
        store.upsert("docs", vec![one("a", 1, "doc:secret")]).await.expect("replaced");
        assert_eq!(table(&store).await.in_use.len(), 1, "{server_name}");
        assert_eq!(ids(&store, &nearest(SearchSpace::Everything, 10)).await, ["a#0"], "{server_name}");
    }
}

/// Returns a point as anybody might write it.
fn point(chunk_id: &str, guard: Option<Payload>, vector: [f32; 2]) -> PointStruct {
    let mut payload: HashMap<String, Payload> = [("chunk_id", chunk_id), ("document_id", "d"), ("text", "words")]
        .map(|(field, text)| (field.to_owned(), Payload::from(text)))
        .into();
    payload.extend(guard.map(|guard| ("guard".to_owned(), guard)));
    PointStruct::new(point_id(chunk_id), vector.to_vec(), payload)
}

#[tokio::test]
async fn points_without_a_guard_are_in_no_answer_and_in_no_list() {
    for server in servers().await {
        let server_name = server.name;
        let store = store(&server.url, |config| config.exact = true);
        store.upsert("docs", documents(&["doc:a", "doc:b"])).await.expect("taken in");
        let text = |text: &str| Some(Payload::from(text));
        let hostile = [
            None,
            text(""),
            text("doc"),
            text("doc:"),
            text("doc:*"),
            text("doc:a#can_read"),
            text("doc:a b"),
            Some(Payload::from(7_i64)),
            Some(Payload { kind: None }),
            // Qdrant matches a list if one of its values matches.
            Some(Payload::from(vec![Payload::from("doc:a"), Payload::from("doc:b")])),
        ];
        let hostile = hostile.into_iter().enumerate();
        server
            .put("docs", hostile.map(|(number, guard)| point(&format!("x{number}"), guard, [1.0, 0.0])).collect())
            .await;
        server
            .put("docs", vec![PointStruct::new(9_u64, vec![1.0, 0.0], point("x9", text("doc:a"), [1.0, 0.0]).payload)])
            .await;
        let table = table(&store).await;
        assert_eq!(table.guards.iter().map(Object::as_str).collect::<Vec<_>>(), ["doc:a", "doc:b"], "{server_name}");
        let scopes = [("everything", SearchSpace::Everything), ("both guards", space(&table, &["doc:a", "doc:b"]))];
        for (scope, space) in scopes {
            assert_eq!(ids(&store, &nearest(space.clone(), 1)).await, ["d000#0"], "{server_name}: {scope}");
            assert_eq!(ids(&store, &nearest(space, 10)).await, ["d000#0", "d001#0"], "{server_name}: {scope}");
        }
        let asked: Vec<String> = (0..10).map(|number| format!("x{number}")).collect();
        assert!(store.find("docs", &asked).await.expect("found").is_empty(), "{server_name}");
        let asked: Vec<Candidate> = asked.iter().map(|id| candidate(id, "doc:a")).collect();
        assert!(store.read("docs", None, &asked).await.expect("read").is_empty(), "{server_name}");
        assert!(
            store.read("docs", Some(&nearest(SearchSpace::Everything, 10)), &asked).await.expect("read").is_empty(),
            "{server_name}"
        );
    }
}

/// There are more points without a guard than a search is ever widened to.
#[tokio::test]
async fn points_without_a_guard_take_nobodys_place() {
    for server in servers().await {
        let server_name = server.name;
        let store = store(&server.url, |config| config.exact = true);
        store.upsert("docs", documents(&["doc:a", "doc:b"])).await.expect("taken in");
        let without = |number: usize| point(&format!("x{number}"), None, [1.0, 0.0]);
        server.put("docs", (0..300).map(without).collect()).await;
        let mut search = nearest(SearchSpace::Everything, 2);
        assert_eq!(ids(&store, &search).await, ["d000#0", "d001#0"], "{server_name}");
        search.per_document_max = NonZeroUsize::new(1);
        assert_eq!(ids(&store, &search).await, ["d000#0", "d001#0"], "{server_name}");
    }
}

/// If the values of a list were counted one by one, they would hide that another point has no guard.
#[tokio::test]
async fn a_list_of_guards_stands_for_no_other_point() {
    for server in servers().await {
        let server_name = server.name;
        let store = store(&server.url, |_| {});
        store.upsert("docs", documents(&["doc:a", "doc:b"])).await.expect("taken in");
        let both = Payload::from(vec![Payload::from("doc:a"), Payload::from("doc:b")]);
        server.put("docs", vec![point("x0", Some(both), [1.0, 0.0]), point("x1", None, [1.0, 0.0])]).await;
        let guards = store.guards_of("docs", &["d".to_owned()]).await.expect("an answer");
        assert_eq!(guards, None, "{server_name}");
    }
}

#[tokio::test]
async fn equal_scores_are_in_order_of_their_ids() {
    for server in servers().await {
        let server_name = server.name;
        let store = store(&server.url, |config| config.exact = true);
        let same = |number: usize| document(&format!("d{number:03}"), &[("doc:a", "words", &[1.0, 0.0])]);
        // A search for one chunk is widened to 64 points, and there are as many.
        store.upsert("docs", (0..64).map(same).collect()).await.expect("taken in");
        for limit in [1, 10, 60] {
            let found = ids(&store, &nearest(SearchSpace::Everything, limit)).await;
            assert_eq!(
                found,
                (0..limit).map(|number| format!("d{number:03}#0")).collect::<Vec<_>>(),
                "{server_name}: {limit}"
            );
        }
    }
}

/// Compares random searches with brute force. They combine scopes of every size, filters, thresholds, limits for each
/// document, and ties. The lists of guards fit into one filter, are replaced by those of the other guards, or are sent
/// in parts.
#[tokio::test]
async fn searches_equal_brute_force() {
    for server in servers().await {
        let server_name = server.name;
        for seed in 0..12 {
            let mut dice = Dice::new(seed);
            let collection = format!("docs{seed}");
            let per_filter = [1, 3, 1_000][dice.below(3)];
            let store = store(&server.url, |config| {
                (config.exact, config.guards_per_filter_max) = (true, per_filter);
            });
            let guards: Vec<String> = (0..12).map(|number| format!("doc:{number}")).collect();
            let mut brute_force = BruteForce::default();
            let mut documents: Vec<Document> = (0..25)
                .map(|number| {
                    let chunks: Vec<(String, [f32; 2])> = (0..=dice.below(8))
                        // There are few directions, so that scores are often equal.
                        .map(|_| {
                            (guards[dice.below(12)].clone(), [1.0, f32::from(u8::try_from(dice.below(9)).unwrap())])
                        })
                        .collect();
                    let rows: Vec<(&str, &str, &[f32])> =
                        chunks.iter().map(|(guard, vector)| (guard.as_str(), "words", vector.as_slice())).collect();
                    let mut document = document(&format!("d{number:02}"), &rows);
                    for chunk in &mut document.chunks {
                        chunk.metadata.insert("part".to_owned(), Value::Int(i64::try_from(dice.below(3)).unwrap()));
                    }
                    document
                })
                .collect();
            dice.shuffle(&mut documents);
            brute_force.upsert(&documents);
            store.upsert(&collection, documents).await.expect("taken in");
            let table = store.guards(&collection).await.expect("a collection").expect("a table");
            for case in 0..40 {
                let visible: BTreeSet<&str> =
                    guards.iter().map(String::as_str).filter(|_| dice.below(10) < 1 + case % 10).collect();
                let names: Vec<&str> = visible.iter().copied().collect();
                let part = Filter::OneOf { key: "part".to_owned(), values: vec![Value::Int(1)] };
                let filter = [None, Some(part.clone()), Some(Filter::Not(Box::new(part)))][dice.below(3)].clone();
                let search = Search {
                    collection: collection.clone(),
                    query: Query::Vector(vec![1.0, f32::from(u8::try_from(dice.below(9)).unwrap())]),
                    filter,
                    space: space(&table, &names),
                    narrowing: None,
                    min_score: [None, Some(0.9), Some(1.0)][dice.below(3)],
                    per_document_max: NonZeroUsize::new(dice.below(4)),
                    limit: 1 + dice.below(30),
                    enough: usize::MAX,
                };
                let answer = store.search(&search).await.expect("a search").candidates;
                let row = format!("{server_name}, seed {seed}, case {case}, {per_filter} guards in a filter");
                if server.small.is_some() {
                    brute_force.check(&row, &search, Some(&visible), &answer);
                } else {
                    brute_force.check_about(&row, &search, Some(&visible), &answer);
                }
            }
        }
    }
}

/// A caller's filter can only shrink what is found, whatever it says about our own fields.
#[tokio::test]
async fn a_callers_filter_only_shrinks() {
    for server in servers().await {
        let server_name = server.name;
        let store = store(&server.url, |config| config.exact = true);
        store.upsert("docs", documents(&["doc:a", "doc:b"])).await.expect("taken in");
        let table = table(&store).await;
        let one_of =
            |key: &str, value: &str| Filter::OneOf { key: key.to_owned(), values: vec![Value::Text(value.to_owned())] };
        let not = |filter: Filter| Filter::Not(Box::new(filter));
        for key in ["guard", "\".guard", "guard\"", "document_id", "metadata", "\\", ""] {
            let filters = [
                one_of(key, "doc:b"),
                not(one_of(key, "doc:b")),
                Filter::Any(vec![one_of(key, "doc:b"), not(one_of(key, "doc:a")), Filter::All(vec![])]),
                Filter::Any(vec![]),
            ];
            for filter in filters {
                for (scope, positions) in [("no guard", RoaringBitmap::new()), ("one guard", RoaringBitmap::from([0]))]
                {
                    let all = Search {
                        space: SearchSpace::Guards { table: table.clone(), positions },
                        ..nearest(SearchSpace::Everything, 10)
                    };
                    let without = ids(&store, &all).await;
                    let found = ids(&store, &Search { filter: Some(filter.clone()), ..all }).await;
                    assert!(
                        found.iter().all(|id| without.contains(id)),
                        "{server_name}, `{key}`, {scope}: {filter:?}: {found:?}"
                    );
                }
            }
        }
    }
}
