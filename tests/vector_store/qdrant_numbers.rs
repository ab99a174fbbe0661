//! Numbers in Qdrant, which keeps payloads as JSON and reads some numbers back with a small error.

use ragward::chunk::{Document, Value};
use ragward::vector_store::qdrant::{QdrantConfig, QdrantStore};
use ragward::vector_store::{DocumentStore, Filter, Query, Search, SearchSpace, VectorStore};

use crate::support::dice::Dice;
use crate::support::qdrant_servers::servers;
use crate::support::vector_store_suite::document;

const COLLECTION: &str = "docs";
const NUMBERS: usize = 400;

#[tokio::test]
async fn a_number_is_found_by_itself_however_many_digits_it_has() {
    let mut dice = Dice::new(7);
    let mut random = || {
        let [a, b] = [0; 2].map(|_: i32| u32::try_from(dice.below(1 << 30)).expect("small"));
        let ratio = f64::from(a) / f64::from(b.max(1));
        if a.is_multiple_of(2) { ratio * 1e-30 } else { ratio }
    };
    let mut numbers: Vec<f64> = (0..NUMBERS).map(|_| random()).collect();
    numbers.extend([0.1, 0.1 + 0.2, -1.0 / 3.0, 1e23, f64::MAX, 2.0]);
    let of_number = |(place, number): (usize, &f64)| -> Document {
        let mut document = document(&format!("d{place:04}"), &[("doc:a", "words", &[1.0, 0.0])]);
        document.chunks[0].metadata = [("number".to_owned(), Value::Float(*number))].into();
        document
    };
    for server in servers().await {
        let store = QdrantStore::new(&QdrantConfig::new(&server.url)).expect("a store");
        store.upsert(COLLECTION, numbers.iter().enumerate().map(of_number).collect()).await.expect("taken in");
        for (place, number) in numbers.iter().enumerate() {
            let key = || "number".to_owned();
            let filters = [
                ("one of", Filter::OneOf { key: key(), values: vec![Value::Float(*number)] }),
                ("between", Filter::Between { key: key(), low: *number, high: *number }),
            ];
            for (condition, filter) in filters {
                let search = Search {
                    collection: COLLECTION.to_owned(),
                    query: Query::Vector(vec![1.0, 0.0]),
                    filter: Some(filter),
                    space: SearchSpace::Everything,
                    narrowing: None,
                    min_score: None,
                    per_document_max: None,
                    limit: 10,
                    enough: usize::MAX,
                };
                let found = store.search(&search).await.expect("a search").candidates;
                let ids: Vec<&str> = found.iter().map(|candidate| candidate.chunk_id.as_str()).collect();
                assert_eq!(ids, [format!("d{place:04}#0")], "{}: {condition} {number:e}", server.name);
            }
        }
    }
}
