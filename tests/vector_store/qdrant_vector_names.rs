//! Names of vectors, which may differ from collection to collection of one Qdrant.

use std::collections::{BTreeMap, HashMap};

use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::vectors::VectorsOptions;
use qdrant_client::qdrant::{
    CreateCollectionBuilder, Distance, GetCollectionInfoRequest, NamedVectors, PointId, PointStruct, Value as Payload,
    Vector, VectorParamsBuilder, VectorParamsMap, Vectors, VectorsConfig, vectors_config,
};
use ragward::chunk::Document;
use ragward::vector_store::qdrant::{PayloadConfig, QdrantConfig, QdrantStore, WrittenBy};
use ragward::vector_store::{DocumentStore, Query, Search, SearchSpace, VectorStore, VectorStoreError};

use crate::support::qdrant_servers::servers;
use crate::support::vector_store_suite::document;

fn names(names: &[(&str, &str)]) -> BTreeMap<String, String> {
    names.iter().map(|(collection, name)| ((*collection).to_owned(), (*name).to_owned())).collect()
}

fn documents() -> Vec<Document> {
    vec![
        document("a", &[("document:a", "leave", &[1.0, 0.0])]),
        document("b", &[("document:b", "holiday", &[0.0, 1.0])]),
    ]
}

fn nearest(collection: &str) -> Search {
    Search {
        collection: collection.to_owned(),
        query: Query::Vector(vec![1.0, 0.1]),
        filter: None,
        space: SearchSpace::Everything,
        narrowing: None,
        min_score: None,
        per_document_max: None,
        limit: 10,
        enough: 10,
    }
}

/// Returns the names of the vectors of a collection's points. The unnamed one has the empty name.
async fn vectors_of(url: &str, collection: &str) -> Vec<String> {
    let request = GetCollectionInfoRequest { collection_name: collection.to_owned() };
    let mut collections = CollectionsClient::connect(url.to_owned()).await.expect("a server");
    let info = collections.get(request).await.expect("an answer").into_inner().result.expect("a collection");
    let params = info.config.and_then(|config| config.params).expect("parameters");
    match params.vectors_config.and_then(|vectors| vectors.config) {
        None => Vec::new(),
        Some(vectors_config::Config::Params(_)) => vec![String::new()],
        Some(vectors_config::Config::ParamsMap(map)) => map.map.into_keys().collect(),
    }
}

#[tokio::test]
async fn each_collection_has_the_name_that_is_set_for_it() {
    for server in servers().await {
        let config = QdrantConfig {
            vector_name: Some("text".to_owned()),
            vector_names: names(&[("plain", ""), ("pages", "body")]),
            ..QdrantConfig::new(&server.url)
        };
        let store = QdrantStore::new(&config).expect("a store");
        for (collection, name) in [("docs", "text"), ("plain", ""), ("pages", "body")] {
            let row = format!("{}: {collection}", server.name);
            store.upsert(collection, documents()).await.expect(&row);
            assert_eq!(vectors_of(&server.url, collection).await, [name], "{row}");
            assert_eq!(store.collection(collection).await.expect(&row).dimension, Some(2), "{row}");
            let search = nearest(collection);
            let found = store.search(&search).await.expect(&row).candidates;
            let ids: Vec<&str> = found.iter().map(|found| found.chunk_id.as_str()).collect();
            assert_eq!(ids, ["a#0", "b#0"], "{row}");
            let read = store.read(collection, Some(&search), &found).await.expect(&row);
            assert_eq!(read.iter().map(|chunk| chunk.text.as_str()).collect::<Vec<_>>(), ["leave", "holiday"], "{row}");
        }
    }
}

/// A row: its name, the names of vectors by collection, and whether they are taken.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], bool);

#[tokio::test]
async fn the_collection_of_another_program_has_its_own_name() {
    for server in servers().await {
        let params = VectorParamsBuilder::new(2, Distance::Cosine).build();
        let map = VectorParamsMap { map: [("dense".to_owned(), params)].into() };
        let config = VectorsConfig { config: Some(vectors_config::Config::ParamsMap(map)) };
        let request = CreateCollectionBuilder::new("wiki").vectors_config(config).build();
        let mut collections = CollectionsClient::connect(server.url.clone()).await.expect("a server");
        collections.create(request).await.expect("a collection");
        let payload = [("guard", "document:a"), ("text", "leave")];
        let payload: HashMap<String, Payload> =
            payload.into_iter().map(|(key, value)| (key.to_owned(), Payload::from(value))).collect();
        let vectors = NamedVectors { vectors: [("dense".to_owned(), Vector::new_dense(vec![1.0, 0.0]))].into() };
        let vectors = Some(Vectors { vectors_options: Some(VectorsOptions::Vectors(vectors)) });
        let point = PointStruct { id: Some(PointId::from(1_u64)), payload, vectors };
        server.put("wiki", vec![point]).await;
        let rows: [Row<'_>; 4] = [
            ("its name", &[("wiki", "dense")], true),
            ("the unnamed vector", &[], false),
            ("another name", &[("wiki", "text")], false),
            ("the name of another collection", &[("docs", "dense")], false),
        ];
        for (row, wanted, is_found) in rows {
            let row = format!("{}: {row}", server.name);
            let config = QdrantConfig {
                vector_names: names(wanted),
                collections: [("wiki".to_owned(), PayloadConfig::of(WrittenBy::Other))].into(),
                ..QdrantConfig::new(&server.url)
            };
            let store = QdrantStore::new(&config).expect("a store");
            match store.search(&nearest("wiki")).await {
                Ok(found) => assert!(is_found && found.candidates.len() == 1, "{row}: {found:?}"),
                Err(error) => assert!(!is_found && matches!(error, VectorStoreError::Refused(_)), "{row}: {error}"),
            }
        }
    }
}

/// An empty answer would say that the user may see no more. So only a collection without any vectors gives one.
#[tokio::test]
async fn a_wrong_name_is_an_error_beside_texts_too() {
    for server in servers().await {
        let store = QdrantStore::new(&QdrantConfig::new(&server.url)).expect("a store");
        store.upsert("docs", documents()).await.expect("taken in");
        store.upsert("texts", vec![document("a", &[("document:a", "leave", &[])])]).await.expect("taken in");
        let config = QdrantConfig {
            vector_names: names(&[("docs", "body"), ("texts", "body")]),
            ..QdrantConfig::new(&server.url)
        };
        let misnamed = QdrantStore::new(&config).expect("a store");
        for (collection, has_vectors) in [("docs", true), ("texts", false)] {
            let row = format!("{}: {collection}", server.name);
            assert_eq!(misnamed.collection(collection).await.expect(&row).dimension, None, "{row}");
            match misnamed.search(&nearest(collection)).await {
                Ok(found) => assert!(!has_vectors && found.candidates.is_empty(), "{row}: {found:?}"),
                Err(error) => assert!(has_vectors && matches!(error, VectorStoreError::Refused(_)), "{row}: {error}"),
            }
        }
        match misnamed.upsert("docs", documents()).await {
            Err(VectorStoreError::Unsupported(why)) => assert!(why.contains("vector_names"), "{}: {why}", server.name),
            answer => panic!("{}: {answer:?}", server.name),
        }
    }
}
