//! Text and hybrid queries over Qdrant: what hidden chunks may not do, what is refused, and that the order is that of the
//! embedded engine.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use qdrant_client::qdrant::points_client::PointsClient;
use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::points_update_operation::{DeletePayload, Operation, SetPayload};
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::{
    ListValue, PointId, PointStruct, PointsIdsList, PointsSelector, PointsUpdateOperation, Struct, UpdateBatchPoints,
    Value as Payload,
};
use ragward::analysis::Language;
use ragward::chunk::{Candidate, Document, Metadata};
use ragward::ingest::Source;
use ragward::language::Object;
use ragward::vector_store::exact::ExactStore;
use ragward::vector_store::qdrant::{
    Attach, GuardTemplate, PayloadConfig, QdrantConfig, QdrantStore, ReadConsistency, WrittenBy, point_id,
};
use ragward::vector_store::{
    CollectionLanguages, DocumentStore, Narrowing, Query, Search, SearchSpace, Searched, VectorModel, VectorStore,
    VectorStoreError,
};

use crate::support::dice::Dice;
use crate::support::qdrant_server::QdrantServer;
use crate::support::qdrant_server::node::Node;
use crate::support::qdrant_servers::{AnyQdrant, servers};
use crate::support::questions::QUERIES;
use crate::support::shared_data::shared;
use crate::support::vector_store_suite::document;

const COLLECTION: &str = "texts";
/// More than there are chunks in any of these tests, so that no tie is cut off.
const LIMIT: usize = 5_000;
/// The words of the random texts. The first ones are the most frequent.
const WORDS: [&str; 12] = [
    "leave",
    "holiday",
    "tern",
    "gateway",
    "pay",
    "review",
    "budget",
    "rota",
    "release",
    "checklist",
    "parental",
    "board",
];

/// Returns a search among the chunks of these guards.
async fn search(store: &dyn VectorStore, guards: &[&str], query: Query) -> Search {
    let table = store.guards(COLLECTION).await.expect("a collection").expect("a list");
    let is_meant = |(_, guard): &(u32, &Object)| guards.contains(&guard.as_str());
    let positions = (0..).zip(table.guards.iter()).filter(is_meant).map(|(position, _)| position).collect();
    Search {
        collection: COLLECTION.to_owned(),
        query,
        filter: None,
        space: SearchSpace::Guards { table, positions },
        narrowing: None,
        min_score: None,
        per_document_max: None,
        limit: LIMIT,
        enough: LIMIT,
    }
}

fn text(words: &str) -> Query {
    Query::Text(words.to_owned())
}

async fn found(store: &dyn VectorStore, guards: &[&str], query: Query) -> Result<Searched, VectorStoreError> {
    store.search(&search(store, guards, query).await).await
}

fn bytes(candidates: &[Candidate]) -> Vec<(&str, u32)> {
    candidates.iter().map(|candidate| (candidate.chunk_id.as_str(), candidate.score.to_bits())).collect()
}

/// Changes points as another program would.
async fn change(url: &str, operation: Operation) {
    let request = UpdateBatchPoints {
        collection_name: COLLECTION.to_owned(),
        wait: Some(true),
        operations: vec![PointsUpdateOperation { operation: Some(operation) }],
        ..UpdateBatchPoints::default()
    };
    let mut points = PointsClient::connect(url.to_owned()).await.expect("a server");
    points.update_batch(request).await.expect("a change");
}

fn random_text(dice: &mut Dice) -> String {
    let length = 1 + dice.below(30);
    let words: Vec<&str> = (0..length).map(|_| WORDS[dice.below(WORDS.len()).min(dice.below(WORDS.len()))]).collect();
    words.join(" ")
}

/// Returns whether a server takes text queries. A real one may be too old; then it is refused by name.
async fn takes_texts(server: &AnyQdrant, store: &QdrantStore, guards: &[&str]) -> bool {
    match found(store, guards, text("leave")).await {
        Ok(_) => true,
        Err(VectorStoreError::Unsupported(why)) => {
            assert!(server.small.is_none() && why.contains("text queries need Qdrant 1.19"), "{}: {why}", server.name);
            false
        }
        Err(error) => panic!("{}: {error}", server.name),
    }
}

/// Two worlds differ by hidden documents, which are full of the words of the query. No answer differs by a bit.
#[tokio::test]
async fn hidden_texts_move_no_score() {
    for server in servers().await {
        let store = QdrantStore::new(&QdrantConfig::new(&server.url)).expect("a store");
        let visible = [
            document("a", &[("document:a", "The rota of the tern gateway", &[1.0, 0.0])]),
            document("b", &[("document:b", "A release checklist for the gateway", &[0.8, 0.1])]),
            document("c", &[("document:b", "Budget", &[0.0, 1.0])]),
        ];
        store.upsert(COLLECTION, visible.to_vec()).await.expect("taken in");
        let hybrid = Query::Hybrid { text: "tern rota".to_owned(), vector: vec![1.0, 0.2] };
        let queries = [text("gateway"), text("tern gateway rota"), text("checklist budget"), hybrid];
        let guards = ["document:a", "document:b"];
        if !takes_texts(&server, &store, &guards).await {
            continue;
        }
        let mut before = Vec::new();
        for query in &queries {
            before.push(found(&store, &guards, query.clone()).await.expect("a search"));
        }
        for (number, words) in ["gateway ".repeat(50), "tern rota checklist budget".to_owned()].iter().enumerate() {
            let hidden = (0..30).map(|chunk| {
                let guard = format!("secret:{number}-{chunk}");
                document(&guard, &[(guard.as_str(), words.as_str(), &[1.0, 0.2])])
            });
            store.upsert(COLLECTION, hidden.collect()).await.expect("taken in");
            for (query, before) in queries.iter().zip(&before) {
                let after = found(&store, &guards, query.clone()).await.expect("a search");
                let row = format!("{}: {words:.20}, {query:?}", server.name);
                assert_eq!(bytes(&after.candidates), bytes(&before.candidates), "{row}");
                assert_eq!((after.exact, after.rest), (before.exact, before.rest), "{row}");
            }
        }
    }
}

/// A list of guards is no guard, so its point is nobody's. It moves no score, even if the user may see one of these guards.
#[tokio::test]
async fn a_point_with_a_list_of_guards_moves_no_score() {
    for server in servers().await {
        let store = QdrantStore::new(&QdrantConfig::new(&server.url)).expect("a store");
        let documents = [
            document("a", &[("document:a", "The tern gateway", &[1.0])]),
            document("l", &[("secret:l", "gateway", &[1.0])]),
        ];
        store.upsert(COLLECTION, documents.to_vec()).await.expect("taken in");
        let guards = ["document:a"];
        if !takes_texts(&server, &store, &guards).await {
            continue;
        }
        let before = found(&store, &guards, text("gateway")).await.expect("a search");
        let list = ListValue { values: vec![Payload::from("document:a"), Payload::from("secret:l")] };
        let payload = HashMap::from([("guard".to_owned(), Payload { kind: Some(Kind::ListValue(list)) })]);
        let ids = PointsIdsList { ids: vec![PointId::from(point_id("l#0"))] };
        let points_selector = Some(PointsSelector { points_selector_one_of: Some(PointsSelectorOneOf::Points(ids)) });
        let set = SetPayload { payload, points_selector, ..SetPayload::default() };
        change(&server.url, Operation::SetPayload(set)).await;
        let after = found(&store, &guards, text("gateway")).await.expect("a search");
        assert_eq!(bytes(&after.candidates), bytes(&before.candidates), "{}", server.name);
    }
}

/// An older server counts hidden texts without a word, so it is not asked.
#[tokio::test]
async fn a_server_that_would_leak_or_miss_is_refused_by_name() {
    let server = QdrantServer::start().await;
    let store = QdrantStore::new(&QdrantConfig::new(&server.address)).expect("a store");
    let documents =
        [document("a", &[("document:a", "leave", &[1.0])]), document("b", &[("document:b", "leave", &[1.0])])];
    store.upsert(COLLECTION, documents.to_vec()).await.expect("taken in");
    let node = Node::default;
    let rows = [
        ("a new version", node(), None),
        (
            "an old version",
            Node { version: "1.18.4", ..node() },
            Some("text queries need Qdrant 1.19, and this is 1.18"),
        ),
        ("no version", Node { version: "", ..node() }, Some("an unknown version")),
        ("a new version again", Node { version: "1.19.0", ..node() }, None),
    ];
    for (row, node, refusal) in rows {
        server.pass_for(node);
        server.take_queries();
        for query in [text("leave"), Query::Hybrid { text: "leave".to_owned(), vector: vec![1.0] }] {
            let answer = found(&store, &["document:a"], query).await;
            match (answer, refusal) {
                (Ok(found), None) => assert_eq!(found.candidates.len(), 1, "{row}"),
                (Err(VectorStoreError::Unsupported(why)), Some(refusal)) => {
                    assert!(why.contains(refusal), "{row}: {why}");
                    assert!(server.take_queries().is_empty(), "{row}: nothing was asked");
                }
                (answer, _) => panic!("{row}: {answer:?}"),
            }
        }
        let vectors = found(&store, &["document:a"], Query::Vector(vec![1.0])).await.expect("a search");
        assert_eq!(vectors.candidates.len(), 1, "{row}: vector queries go on");
    }
}

/// A connection is made again without a word. The answer of an older node that came up meanwhile would count hidden texts, as this
/// shows. The node refuses the query, because it has a condition that such a node cannot read.
#[tokio::test]
async fn an_older_node_that_takes_over_is_noticed() {
    let server = QdrantServer::start().await;
    let store = QdrantStore::new(&QdrantConfig::new(&server.address)).expect("a store");
    let (open, secret) =
        (document("a", &[("document:a", "leave", &[1.0])]), document("b", &[("secret:b", "leave", &[1.0])]));
    store.upsert(COLLECTION, vec![open, secret]).await.expect("taken in");
    let asked = search(&store, &["document:a"], text("leave")).await;
    server.pass_for(Node { next_version: Some("1.18.4"), ..Node::default() });
    match store.search(&asked).await {
        Err(VectorStoreError::Unsupported(why)) => assert!(why.contains("this is 1.18"), "{why}"),
        answer => panic!("{answer:?}"),
    }
    // What the older node would answer: a score that tells of the hidden text.
    let mut request = server.take_queries().pop().expect("a query");
    let mut points = PointsClient::connect(server.address.clone()).await.expect("a server");
    assert!(points.query(request.clone()).await.is_err(), "the older node refuses the query");
    request.filter.as_mut().expect("a filter").must_not.clear();
    let mut score_now = async || {
        let answer = points.query(request.clone()).await.expect("an answer").into_inner().result;
        answer.first().expect("a point").score
    };
    let leaking = score_now().await;
    server.pass_for(Node::default());
    assert!((leaking - score_now().await).abs() > 0.01, "{leaking}");
    assert_eq!(store.search(&asked).await.expect("a search").candidates.len(), 1, "a new node");
}

/// The node that is asked for its version need not be the one that searches. That one may stand behind a load balancer, or another
/// node may hand the search on to it.
#[tokio::test]
async fn an_older_node_that_only_searches_refuses_by_itself() {
    let server = QdrantServer::start().await;
    let store = QdrantStore::new(&QdrantConfig::new(&server.address)).expect("a store");
    let (open, secret) =
        (document("a", &[("document:a", "leave", &[1.0])]), document("b", &[("secret:b", "leave", &[1.0])]));
    store.upsert(COLLECTION, vec![open, secret]).await.expect("taken in");
    let hybrid = Query::Hybrid { text: "leave".to_owned(), vector: vec![1.0] };
    for (row, query) in [("by text", text("leave")), ("by both", hybrid)] {
        let asked = search(&store, &["document:a"], query).await;
        let found = store.search(&asked).await.expect("a search").candidates;
        assert_eq!(found.len(), 1, "{row}: a new node");
        server.pass_for(Node { searched_by: Some("1.18.4"), ..Node::default() });
        let answer = store.search(&asked).await;
        assert!(matches!(answer, Err(VectorStoreError::Refused(_))), "{row}: {answer:?}");
        // A point that is read by its text is searched for again. In a hybrid query its vector finds it.
        let read = store.read(COLLECTION, Some(&asked), &found).await.map(|chunks| chunks.len());
        match asked.query {
            Query::Text(_) => assert!(matches!(read, Err(VectorStoreError::Refused(_))), "{row}: {read:?}"),
            Query::Vector(_) | Query::Hybrid { .. } => assert!(matches!(read, Ok(1)), "{row}: {read:?}"),
        }
        server.pass_for(Node::default());
        assert_eq!(store.search(&asked).await.expect("a search").candidates.len(), 1, "{row}: a new node again");
    }
}

/// Where the shards are is asked for with the overview, so each row has a store of its own.
#[tokio::test]
async fn shards_make_an_answer_approximate_or_refused() {
    let server = QdrantServer::start().await;
    let new = || QdrantStore::new(&QdrantConfig::new(&server.address)).expect("a store");
    new().upsert(COLLECTION, vec![document("a", &[("document:a", "leave", &[1.0])])]).await.expect("taken in");
    let rows = [
        ("one shard", 1, 0, Ok(true)),
        ("three shards", 3, 0, Ok(false)),
        ("a shard on another node", 1, 1, Err("other_nodes")),
        ("no shard here", 0, 1, Err("other_nodes")),
    ];
    for (row, local_shards, remote_shards, expected) in rows {
        server.pass_for(Node { local_shards, remote_shards, ..Node::default() });
        match (found(&new(), &["document:a"], text("leave")).await, expected) {
            (Ok(found), Ok(exact)) => assert_eq!((found.candidates.len(), found.exact), (1, exact), "{row}"),
            (Err(VectorStoreError::Unsupported(why)), Err(refusal)) => assert!(why.contains(refusal), "{row}: {why}"),
            (answer, _) => panic!("{row}: {answer:?}"),
        }
    }
}

/// Every node that has a shard is asked for its version.
#[tokio::test]
async fn each_node_of_a_cluster_must_be_new_enough() {
    let (server, other) = (QdrantServer::start().await, QdrantServer::start().await);
    let clustered = QdrantConfig { other_nodes: vec![other.address.clone()], ..QdrantConfig::new(&server.address) };
    for address in [&server.address, &other.address] {
        let store = QdrantStore::new(&QdrantConfig::new(address)).expect("a store");
        store.upsert(COLLECTION, vec![document("a", &[("document:a", "leave", &[1.0])])]).await.expect("taken in");
    }
    server.pass_for(Node { local_shards: 1, remote_shards: 1, ..Node::default() });
    let second = || Node { peer_id: 2, ..Node::default() };
    let rows = [
        ("a new node", second(), None),
        ("an old node", Node { version: "1.18.4", ..second() }, Some("this is 1.18")),
        ("a node of another cluster", Node { peer_id: 3, ..second() }, Some("other_nodes")),
    ];
    let agreeing = QdrantConfig { read_consistency: ReadConsistency::Majority, ..clustered.clone() };
    let rows = rows.map(|(row, node, refusal)| (row, &clustered, node, refusal));
    let must_agree = ("replicas that must agree", &agreeing, second(), Some("read_consistency"));
    for (row, config, node, refusal) in rows.into_iter().chain([must_agree]) {
        other.pass_for(node);
        let store = QdrantStore::new(config).expect("a store");
        match (found(&store, &["document:a"], text("leave")).await, refusal) {
            (Ok(found), None) => assert_eq!((found.candidates.len(), found.exact), (1, false), "{row}"),
            (Err(VectorStoreError::Unsupported(why)), Some(refusal)) => assert!(why.contains(refusal), "{row}: {why}"),
            (answer, _) => panic!("{row}: {answer:?}"),
        }
    }
}

#[derive(Debug)]
struct Half;

impl Narrowing for Half {
    fn admits(&self, _guard: &Object, _metadata: &Metadata) -> bool {
        true
    }
}

/// A visible set that is not known, or that is not one list, is never searched by text.
#[tokio::test]
async fn a_visible_set_that_is_not_one_list_is_refused() {
    let server = QdrantServer::start().await;
    let config = QdrantConfig { guards_per_filter_max: 2, ..QdrantConfig::new(&server.address) };
    let store = QdrantStore::new(&config).expect("a store");
    let guards = ["document:a", "document:b", "document:c"];
    let documents = guards.map(|guard| document(guard, &[(guard, "leave", &[1.0])]));
    store.upsert(COLLECTION, documents.to_vec()).await.expect("taken in");
    let two = search(&store, &guards[..2], text("leave")).await;
    let rows = [
        ("two guards", two.clone(), Ok(2)),
        ("nobody's guards", search(&store, &[], text("leave")).await, Ok(0)),
        ("no words", Search { query: text("?!"), ..two.clone() }, Ok(0)),
        (
            "all guards, which are too many",
            search(&store, &guards, text("leave")).await,
            Err("more guards than one filter"),
        ),
        (
            "everything",
            Search { space: SearchSpace::Everything, ..two.clone() },
            Err("not known what the user may see"),
        ),
        (
            "the details of a token",
            Search { narrowing: Some(Arc::new(Half)), ..two.clone() },
            Err("the details of a token"),
        ),
    ];
    for (row, search, expected) in rows {
        server.take_queries();
        match (store.search(&search).await, expected) {
            (Ok(found), Ok(count)) => assert_eq!(found.candidates.len(), count, "{row}"),
            (Err(VectorStoreError::Unsupported(why)), Err(refusal)) => assert!(why.contains(refusal), "{row}: {why}"),
            (answer, _) => panic!("{row}: {answer:?}"),
        }
        // The corpus is what is searched. It names the visible guards one by one, and a point of it has one guard and the mark.
        for query in server.take_queries() {
            let corpus = query.params.and_then(|params| params.idf).and_then(|idf| idf.corpus).expect("a corpus");
            assert!(
                corpus.must_not.is_empty() && corpus.should.is_empty() && corpus.must.len() == 3,
                "{row}: {corpus:?}"
            );
        }
    }
}

/// A chunk that another analysis wrote would be missing, so nobody who may see it is answered until it is written again. The
/// others are answered as if there were no such chunk.
#[tokio::test]
async fn a_collection_with_chunks_of_another_analysis_is_refused() {
    let server = QdrantServer::start().await;
    let config = QdrantConfig::new(&server.address);
    let new = QdrantStore::new(&config).expect("a store");
    let old = QdrantStore::new(&QdrantConfig { text_average_length: 100, ..config }).expect("a store");
    let documents = |ids: &[&str]| ids.iter().map(|id| document(id, &[("document:a", "leave", &[])])).collect();
    let refused = |answer: Result<Searched, VectorStoreError>| match answer {
        Err(VectorStoreError::Unsupported(why)) => assert!(why.contains("ingest them again"), "{why}"),
        answer => panic!("{answer:?}"),
    };
    old.upsert(COLLECTION, documents(&["a", "b"])).await.expect("taken in");
    assert_eq!(found(&old, &["document:a"], text("leave")).await.expect("a search").candidates.len(), 2);
    refused(found(&new, &["document:a"], text("leave")).await);
    new.upsert(COLLECTION, documents(&["a"])).await.expect("taken in");
    refused(found(&new, &["document:a"], text("leave")).await);
    new.upsert(COLLECTION, documents(&["b"])).await.expect("taken in");
    let before = found(&new, &["document:a"], text("leave")).await.expect("a search");
    assert_eq!(before.candidates.len(), 2);
    let hidden = document("h", &[("secret:h", "leave", &[])]);
    old.upsert(COLLECTION, vec![hidden]).await.expect("taken in");
    let fresh = QdrantStore::new(&QdrantConfig::new(&server.address)).expect("a store");
    let after = found(&fresh, &["document:a"], text("leave")).await.expect("a search");
    assert_eq!(bytes(&after.candidates), bytes(&before.candidates));
    assert_eq!((after.exact, after.rest), (before.exact, before.rest));
    refused(found(&fresh, &["document:a", "secret:h"], text("leave")).await);
}

/// A collection of an older version gets its vector for texts with the next documents.
#[tokio::test]
async fn a_collection_of_vectors_alone_takes_texts_once_all_is_written_again() {
    let servers = servers().await;
    let (server, small) =
        servers.iter().find_map(|server| Some((server, server.small.as_ref()?))).expect("a small one");
    let store = QdrantStore::new(&QdrantConfig::new(&server.url)).expect("a store");
    // An older server gives the collection no vector for texts, and everything else works.
    small.pass_for(Node { version: "1.17.0", ..Node::default() });
    server.make(COLLECTION, 1).await;
    let documents = || vec![document("a", &[("document:a", "leave", &[1.0])])];
    store.upsert(COLLECTION, documents()).await.expect("taken in");
    assert!(!store.collection(COLLECTION).await.expect("a collection").text_queries);
    let error = store.upsert(COLLECTION, vec![document("b", &[("document:a", "leave", &[])])]).await;
    assert!(matches!(error, Err(VectorStoreError::Invalid(_))), "{error:?}");
    small.pass_for(Node::default());
    store.upsert(COLLECTION, documents()).await.expect("taken in");
    assert!(store.collection(COLLECTION).await.expect("a collection").text_queries);
    assert_eq!(found(&store, &["document:a"], text("leave")).await.expect("a search").candidates.len(), 1);
}

/// A collection for texts alone never takes vectors. That is told before a text is sent to a model for them.
#[tokio::test]
async fn a_collection_for_texts_alone_takes_no_model() {
    let server = QdrantServer::start().await;
    let store = QdrantStore::new(&QdrantConfig::new(&server.address)).expect("a store");
    let without_vector = || vec![document("a", &[("document:a", "leave", &[])])];
    let with_vector = || vec![document("b", &[("document:a", "leave", &[1.0, 0.0])])];
    let model = || Some(VectorModel { name: "small", dimension: 2 });
    store.upsert(COLLECTION, without_vector()).await.expect("taken in");
    let rows = [
        ("its origin", store.vector_origin(COLLECTION).await.map(drop)),
        ("a note", store.note_model(COLLECTION, model()).await),
        ("a vector", store.upsert(COLLECTION, with_vector()).await),
    ];
    for (row, answer) in rows {
        match answer {
            Err(VectorStoreError::Unsupported(why)) => assert!(why.contains("no vector"), "{row}: {why}"),
            answer => panic!("{row}: {answer:?}"),
        }
    }
    // A note makes the collection for the vectors of its model, whatever comes first.
    store.note_model("meant", model()).await.expect("noted");
    store.upsert("meant", without_vector()).await.expect("taken in");
    store.upsert("meant", with_vector()).await.expect("taken in");
    assert_eq!(store.collection("meant").await.expect("a collection").dimension, Some(2));
}

/// A vector without its mark may be that of another text: a run of `attach` may have ended before it read the text again. So nobody
/// finds the point by it, even as long as the overview does not know yet that a mark is missing.
#[tokio::test]
async fn a_vector_without_its_mark_is_not_searched() {
    for server in servers().await {
        let config = QdrantConfig { overview_age_max: Duration::from_hours(1), ..QdrantConfig::new(&server.url) };
        let store = QdrantStore::new(&config).expect("a store");
        let documents = [
            document("a", &[("document:a", "The tern gateway", &[1.0])]),
            document("b", &[("document:b", "gateway", &[1.0])]),
        ];
        store.upsert(COLLECTION, documents.to_vec()).await.expect("taken in");
        let (one, both) = (["document:a"], ["document:a", "document:b"]);
        if !takes_texts(&server, &store, &both).await {
            continue;
        }
        let found_by_both = found(&store, &both, text("gateway")).await.expect("a search");
        assert_eq!(found_by_both.candidates.len(), 2, "{}", server.name);
        let alone = found(&store, &one, text("gateway")).await.expect("a search");
        let ids = PointsIdsList { ids: vec![PointId::from(point_id("b#0"))] };
        let points_selector = Some(PointsSelector { points_selector_one_of: Some(PointsSelectorOneOf::Points(ids)) });
        let keys = vec!["_text_analysis".to_owned()];
        let removed = DeletePayload { keys, points_selector, ..DeletePayload::default() };
        change(&server.url, Operation::DeletePayload(removed)).await;
        let without = found(&store, &both, text("gateway")).await.expect("a search");
        assert_eq!(bytes(&without.candidates), bytes(&alone.candidates), "{}", server.name);
    }
}

/// Returns a point as `LangChain` writes it.
fn of_langchain(id: u64, source: &str, words: &str) -> PointStruct {
    let metadata = Struct { fields: HashMap::from([("source".to_owned(), Payload::from(source))]) };
    let payload = HashMap::from([
        ("page_content".to_owned(), Payload::from(words)),
        ("metadata".to_owned(), Payload { kind: Some(Kind::StructValue(metadata)) }),
    ]);
    PointStruct::new(id, vec![1.0, 0.0], payload)
}

/// The collection of another program is searched by text once all of its points were attached with their texts.
#[tokio::test]
async fn an_attached_collection_takes_texts() {
    for server in servers().await {
        let layout = PayloadConfig::of(WrittenBy::Langchain);
        let config =
            QdrantConfig { collections: [(COLLECTION.to_owned(), layout)].into(), ..QdrantConfig::new(&server.url) };
        let store = QdrantStore::new(&config).expect("a store");
        server.make(COLLECTION, 2).await;
        let points = vec![
            of_langchain(1, "a", "The rota of the gateway"),
            of_langchain(2, "b", "Pay bands"),
            of_langchain(3, "secret", "rota rota rota"),
            of_langchain(4, "a", "?!"),
        ];
        server.put(COLLECTION, points).await;
        let template = Some(GuardTemplate::parse("document:{metadata.source}").expect("a template"));
        let attach = Attach { template, texts: true, ..Attach::default() };
        let attached = |attach: Attach| {
            let store = &store;
            async move { store.attach(COLLECTION, &attach, |_, _| {}).await.expect("attached") }
        };
        let dry = attached(Attach { dry_run: true, ..attach.clone() }).await;
        assert_eq!(dry.texts, 4, "{}", server.name);
        assert!(!store.collection(COLLECTION).await.expect("a collection").text_queries, "{}: a dry run", server.name);
        assert_eq!(attached(attach.clone()).await.texts, 4, "{}", server.name);
        assert_eq!(attached(attach.clone()).await.texts, 0, "{}: again", server.name);
        let guards = ["document:a", "document:b"];
        if !takes_texts(&server, &store, &guards).await {
            continue;
        }
        let rota = || found(&store, &guards, text("rota"));
        let first = rota().await.expect("a search").candidates;
        assert_eq!(first.iter().map(|found| found.chunk_id.as_str()).collect::<Vec<_>>(), ["1"], "{}", server.name);
        let read = store.read(COLLECTION, Some(&search(&store, &guards, text("rota")).await), &first).await;
        assert_eq!(read.expect("read")[0].text, "The rota of the gateway", "{}", server.name);

        // A point that came later has no guard, so nobody sees it. With a guard alone, it would be missing.
        server.put(COLLECTION, vec![of_langchain(5, "secret", "rota")]).await;
        let fresh = || QdrantStore::new(&config).expect("a store");
        let unattached = found(&fresh(), &guards, text("rota")).await.expect("a search").candidates;
        assert_eq!(bytes(&unattached), bytes(&first), "{}: a point of nobody", server.name);
        attached(Attach { texts: false, ..attach.clone() }).await;
        let refused = found(&fresh(), &["document:a", "document:secret"], text("rota")).await;
        assert!(matches!(refused, Err(VectorStoreError::Unsupported(_))), "{}: {refused:?}", server.name);
        let others = found(&fresh(), &guards, text("rota")).await.expect("a search").candidates;
        assert_eq!(bytes(&others), bytes(&first), "{}: a hidden point refuses nothing", server.name);
        assert_eq!(attached(attach).await.texts, 1, "{}", server.name);
        let after = rota().await.expect("a search").candidates;
        assert_eq!(bytes(&after), bytes(&first), "{}: a hidden point moves no score", server.name);
    }
}

/// Growing from the embedded engine to Qdrant loses no query, and changes no order, if the constant is the average length.
#[tokio::test]
async fn the_order_is_that_of_the_embedded_engine() {
    let mut dice = Dice::new(7);
    let texts: Vec<String> = (0..120).map(|_| random_text(&mut dice)).collect();
    let documents: Vec<Document> = (0_u16..)
        .zip(&texts)
        .map(|(number, text)| {
            let vector = [f32::from(number % 11) + 1.0, f32::from(number % 7)];
            let guard = format!("document:{}", number % 5);
            document(&format!("d{number:03}"), &[(guard.as_str(), text.as_str(), &vector)])
        })
        .collect();
    let queries: Vec<String> = (0..40)
        .map(|number| {
            let words: BTreeSet<&str> = (0..=number % 3).map(|_| WORDS[dice.below(WORDS.len())]).collect();
            words.into_iter().collect::<Vec<_>>().join(" ")
        })
        .collect();
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    compare_with_embedded(documents, &queries).await;
}

/// The same over texts that people wrote, without their marks.
#[tokio::test]
async fn the_order_on_the_design_documents_is_that_of_the_embedded_engine() {
    const DOCUMENTS: usize = 40;
    let Some(keps) = shared("corpora/keps") else { return };
    let source = Source::Catalog { path: keps.join("catalog.jsonl"), root: keps.clone() };
    let mut documents = Vec::new();
    for entry in source.documents().expect("the documents").take(DOCUMENTS) {
        let Some(mut document) = entry.expect("a document").document else { continue };
        for (number, chunk) in document.chunks.iter_mut().enumerate() {
            let is_plain =
                |word: &&str| (3..20).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase());
            chunk.text = chunk.text.split_whitespace().filter(is_plain).collect::<Vec<_>>().join(" ");
            chunk.guard = Object::parse(&format!("document:{}", number % 5)).expect("an object");
            chunk.vector = vec![1.0, 0.0];
        }
        documents.push(document);
    }
    compare_with_embedded(documents, &QUERIES).await;
}

/// The number of chunks that are added so that the average length is a whole number.
const FILLERS: usize = 20;

/// Compares the answers of both stores. The texts are words of lower-case letters.
async fn compare_with_embedded(mut documents: Vec<Document>, queries: &[&str]) {
    let lengths =
        documents.iter().flat_map(|document| &document.chunks).map(|chunk| chunk.text.split_whitespace().count());
    let lengths: Vec<usize> = lengths.filter(|length| *length > 0).collect();
    let words: usize = lengths.iter().sum();
    let average = words / lengths.len() + 1;
    let missing = average * (lengths.len() + FILLERS) - words;
    let fillers: Vec<String> = (0..FILLERS)
        .map(|number| {
            let count = missing / FILLERS + usize::from(number < missing % FILLERS);
            vec!["zebra"; count].join(" ")
        })
        .collect();
    let chunks: Vec<(&str, &str, &[f32])> =
        fillers.iter().map(|text| ("document:0", text.as_str(), [1.0, 0.0].as_slice())).collect();
    documents.push(document("filler", &chunks));
    let guards: Vec<String> = (0..5).map(|number| format!("document:{number}")).collect();
    let guards: Vec<&str> = guards.iter().map(String::as_str).collect();
    // Titles and headings are indexed, too, and would change the lengths.
    for document in &mut documents {
        document.title.clear();
        document.chunks.iter_mut().for_each(|chunk| chunk.heading_path.clear());
    }
    // A word has one stem here, so that each stem weighs as much as its word.
    let languages = CollectionLanguages([(COLLECTION.to_owned(), vec![Language::English])].into());
    let directory = tempfile::tempdir().expect("a directory");
    let embedded = ExactStore::open_configured(directory.path(), languages.clone()).expect("a store");
    embedded.upsert(COLLECTION, documents.clone()).await.expect("taken in");
    for server in servers().await {
        let text_average_length = u32::try_from(average).expect("few words");
        let config = QdrantConfig { text_average_length, exact: true, ..QdrantConfig::new(&server.url) };
        let store = QdrantStore::new(&config).expect("a store").with_languages(languages.clone());
        store.upsert(COLLECTION, documents.clone()).await.expect("taken in");
        if !takes_texts(&server, &store, &guards).await {
            continue;
        }
        for words in queries {
            let row = format!("{}: {words}", server.name);
            let expected = found(&embedded, &guards, text(words)).await.expect("a search");
            let searched = found(&store, &guards, text(words)).await.expect("a search");
            assert_same_order(&row, &searched.candidates, &expected.candidates);
            assert!(searched.exact, "{row}");
            let hybrid = Query::Hybrid { text: (*words).to_owned(), vector: vec![1.0, 0.5] };
            let expected = found(&embedded, &guards, hybrid.clone()).await.expect("a search");
            let merged = found(&store, &guards, hybrid).await.expect("a search");
            assert_eq!((merged.candidates.len(), merged.rest), (expected.candidates.len(), expected.rest), "{row}");
        }
    }
}

/// The most by which two scores may differ that were added up in different orders and rounded, as a part of the score.
const TIE: f32 = 1e-3;

/// Asserts that both rankings have the same chunks in the same order. Chunks whose scores are equal up to rounding may be in
/// any order among themselves.
#[track_caller]
fn assert_same_order(row: &str, found: &[Candidate], expected: &[Candidate]) {
    assert_eq!(found.len(), expected.len(), "{row}");
    let scores: HashMap<&str, f32> =
        expected.iter().map(|candidate| (candidate.chunk_id.as_str(), candidate.score)).collect();
    for (found, expected) in found.iter().zip(expected) {
        let of_chunk = scores.get(found.chunk_id.as_str()).unwrap_or_else(|| panic!("{row}: {found:?}"));
        let differs = |score: f32| (found.score - score).abs() > TIE * score.max(1.0);
        assert!(!differs(*of_chunk) && !differs(expected.score), "{row}: {found:?}, {expected:?}");
    }
}
