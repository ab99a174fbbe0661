//! Tests tokens whose details speak of metadata.

use std::collections::BTreeSet;

use super::*;
use crate::identity::details::OneOf;
#[cfg(feature = "server")]
use crate::identity::{
    approval::ApprovalRules,
    config::{ApprovalConfig, DetailsConfig, IdentityConfig},
};

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

/// Returns settings by which secret chunks need an approval.
#[cfg(feature = "server")]
fn with_approvals() -> IdentityConfig {
    IdentityConfig {
        audience: Some("ragward".to_owned()),
        details: DetailsConfig {
            classification_key: Some("class".to_owned()),
            classifications: ["open", "secret"].map(str::to_owned).to_vec(),
            ..DetailsConfig::default()
        },
        approval: vec![ApprovalConfig { classification: Some("secret".to_owned()), ..ApprovalConfig::default() }],
        ..IdentityConfig::default()
    }
}

/// INVARIANT (no text before the approval): the text of a chunk that needs an approval is not read before there is one.
#[cfg(feature = "server")]
#[tokio::test]
async fn text_that_needs_an_approval_is_read_after_it() {
    use serde_json::json;

    use crate::identity::approval::{ApprovalError, Judged};
    use crate::identity::{Caller, sample};

    let settings = with_approvals();
    let rules = ApprovalRules::new(&settings).unwrap();
    for (local, query) in plans() {
        let row = format!("{query:?}, local: {local}");
        let shelf = shelf(&["open1", "shut", "open2"], Fault::None);
        for (chunk, class) in shelf.chunks.lock().unwrap().iter_mut().zip(["open", "open", "secret"]) {
            chunk.metadata.insert("class".to_owned(), Value::Text(class.to_owned()));
        }
        let authorizer = Arc::new(OpenOnly { local, hint: None });
        let retriever = Retriever::new(authorizer, Arc::clone(&shelf) as Arc<dyn VectorStore>, configured(), pages());
        let judge = |claims: &serde_json::Value, ceiling: &str| {
            let token = sample::token_with(&settings, claims);
            let caller = Caller::Verified { other_users: token.other_users(), token: Arc::clone(&token) };
            let principal = NamedPrincipal::Known(caller.principal("").unwrap());
            let request = RetrievalParts { principal, ..parts(query.clone(), 10) };
            let request = RetrievalRequest::new(request, 10).unwrap();
            let judged = rules.judge(&token, request.principal(), &request.approvable(ceiling, 10), sample::NOW);
            judged.map(|Judged { principal, .. }| request.approved_for(principal))
        };
        let deadline = || Instant::now() + Duration::from_secs(1);
        let plain = judge(&json!({}), "").unwrap();
        assert_eq!(ids(&retriever.retrieve(&plain, deadline()).await.unwrap()), ["0000"], "{row}");
        let ApprovalError::Required(required) = judge(&json!({}), "secret").unwrap_err() else { panic!("{row}") };
        let read = |shelf: &Shelf| shelf.reads.lock().unwrap().iter().filter(|id| *id == "0002").count();
        assert_eq!(read(&shelf), 0, "{row}: before the approval");
        let claims = json!({ "authorization_details": required.authorization_details });
        let approved = judge(&claims, "secret").unwrap();
        assert_eq!(ids(&retriever.retrieve(&approved, deadline()).await.unwrap()), ["0000", "0002"], "{row}");
        assert!(read(&shelf) > 0, "{row}: after it");
    }
}

/// Like the test before, for chunks that are fetched by their ids, and for the pages of a search.
#[cfg(feature = "server")]
#[tokio::test]
async fn fetches_and_pages_read_text_after_the_approval() {
    use serde_json::json;

    use crate::identity::approval::{ApprovalError, Judged};
    use crate::identity::{Caller, sample};
    use crate::retrieval::FetchParts;

    let settings = with_approvals();
    let rules = ApprovalRules::new(&settings).unwrap();
    let shelf = shelf(&["open1", "shut", "open2", "open3"], Fault::None);
    for (chunk, class) in shelf.chunks.lock().unwrap().iter_mut().zip(["open", "open", "secret", "secret"]) {
        chunk.metadata.insert("class".to_owned(), Value::Text(class.to_owned()));
    }
    let authorizer = Arc::new(OpenOnly { local: true, hint: None });
    let retriever = Retriever::new(authorizer, Arc::clone(&shelf) as Arc<dyn VectorStore>, configured(), pages());
    let bearer = |claims: &serde_json::Value| {
        let token = sample::token_with(&settings, claims);
        let caller = Caller::Verified { other_users: token.other_users(), token: Arc::clone(&token) };
        (token, NamedPrincipal::Known(caller.principal("").unwrap()))
    };
    let read = || shelf.reads.lock().unwrap().iter().filter(|id| ["0002", "0003"].contains(&id.as_str())).count();
    let deadline = || Instant::now() + PATIENCE;

    let fetch = |claims: &serde_json::Value, ceiling: &str| {
        let (token, principal) = bearer(claims);
        let (collection, chunk_ids) = ("handbook".to_owned(), strings(&["0000", "0001", "0002"]));
        let (document_ids, consistency) = (Vec::new(), Consistency::default());
        let request = FetchParts { principal, collection, chunk_ids, document_ids, consistency };
        let request = FetchRequest::new(request).unwrap();
        let judged = rules.judge(&token, request.principal(), &request.approvable(ceiling, 100), sample::NOW);
        judged.map(|Judged { principal, .. }| request.approved_for(principal))
    };
    let fetched = retriever.fetch(&fetch(&json!({}), "").unwrap(), deadline()).await.unwrap();
    assert_eq!(fetched.chunks.len(), 1, "a fetch without a ceiling gets what needs no approval");
    let ApprovalError::Required(required) = fetch(&json!({}), "secret").unwrap_err() else { panic!("a fetch") };
    assert_eq!(read(), 0, "before the fetch was approved");
    let claims = json!({ "authorization_details": required.authorization_details });
    let fetched = retriever.fetch(&fetch(&claims, "secret").unwrap(), deadline()).await.unwrap();
    assert_eq!(fetched.chunks.len(), 2, "after it");
    assert!(read() > 0, "after it");

    let page = |claims: &serde_json::Value, ceiling: &str, page_token: &str| {
        let (token, principal) = bearer(claims);
        let page_token = Some(page_token.to_owned());
        let query = Query::Vector(vec![1.0, 0.0]);
        let request = RetrievalRequest::new(RetrievalParts { principal, page_token, ..parts(query, 1) }, 100).unwrap();
        let judged = rules.judge(&token, request.principal(), &request.approvable(ceiling, 100), sample::NOW);
        judged.map(|Judged { principal, .. }| request.approved_for(principal))
    };
    let all_pages = async |claims: &serde_json::Value, ceiling: &str| {
        let (mut next, mut found) = (Some(String::new()), Vec::new());
        for _page in 0..4 {
            let Some(page_token) = next.take() else { break };
            let retrieval = retriever.retrieve(&page(claims, ceiling, &page_token).unwrap(), deadline()).await.unwrap();
            found.extend(ids(&retrieval));
            next = retrieval.next_page_token;
        }
        found
    };
    shelf.reads.lock().unwrap().clear();
    assert_eq!(all_pages(&json!({}), "").await, ["0000"], "pages without a ceiling");
    let ApprovalError::Required(required) = page(&json!({}), "secret", "").unwrap_err() else { panic!("a page") };
    assert_eq!(read(), 0, "before the pages were approved");
    let claims = json!({ "authorization_details": required.authorization_details });
    assert_eq!(all_pages(&claims, "secret").await, ["0000", "0002", "0003"]);
    assert!(read() > 0, "after it");
}
