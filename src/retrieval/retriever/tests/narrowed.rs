//! Tests tokens whose details speak of metadata.

use std::collections::BTreeSet;

use super::*;
use crate::identity::details::OneOf;

/// INVARIANT (no text before the details): the text of a chunk that the details of a token do not permit is not read. A
/// re-check reads none at all.
#[tokio::test]
async fn text_is_read_only_of_what_the_details_permit() {
    let guards = ["open1", "shut", "open2", "open3", "open1", "open4"];
    let public = OneOf { key: "area".to_owned(), values: ["public".to_owned()].into() };
    let secret = ["0002", "0004"];
    for (local, query) in plans() {
        for per_document_max in [0, 1] {
            let row = format!("{query:?}, local: {local}, per document: {per_document_max}");
            let shelf = shelf(&guards, Fault::None);
            for chunk in shelf.chunks.lock().unwrap().iter_mut() {
                let area = if secret.contains(&chunk.id.as_str()) { "secret" } else { "public" };
                chunk.metadata.insert("area".to_owned(), Value::Text(area.to_owned()));
            }
            let authorizer = Arc::new(OpenOnly { local, hint: None });
            let retriever =
                Retriever::new(authorizer, Arc::clone(&shelf) as Arc<dyn VectorStore>, configured(), pages());
            let principal = || NamedPrincipal::stated("user:anne").on_condition(&public);
            let parts = RetrievalParts { principal: principal(), per_document_max, ..parts(query.clone(), 10) };
            let retrieval = ask(&retriever, parts).await.unwrap();
            assert_eq!(ids(&retrieval), ["0000", "0003", "0005"], "{row}");
            // A second round may read them again.
            let read: BTreeSet<String> = std::mem::take(&mut *shelf.reads.lock().unwrap()).into_iter().collect();
            assert_eq!(read, ["0000", "0003", "0005"].map(str::to_owned).into(), "{row}");

            let asked = ["0004", "0003", "0001", "gone", "0000", "0003"].map(String::from).to_vec();
            let request =
                RecheckRequest::new(principal(), "handbook".to_owned(), asked, Consistency::default()).unwrap();
            let rechecked = retriever.recheck(&request, Instant::now() + PATIENCE).await.unwrap();
            let left: Vec<String> =
                rechecked.candidates.into_iter().map(|candidate| candidate.into_item().chunk_id).collect();
            let withheld: Vec<&str> = rechecked.withheld.iter().map(|chunk| chunk.chunk_id.as_str()).collect();
            assert_eq!(left, ["0003", "0000", "0003"], "{row}");
            assert_eq!(withheld, ["0004", "0001"], "{row}");
            assert!(shelf.reads.lock().unwrap().is_empty(), "{row}");
        }
    }
}
