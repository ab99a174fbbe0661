//! Pages over gRPC: together they are the whole answer, and a token is of use only for its own search, and for a
//! limited time.

use ragward::settings::SecretFile;
use std::path::Path;

use crate::support::documents::document;
use crate::support::running::{Running, config};
use ragward::config::Config;
use ragward::language::{RelationshipTuple, dsl};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{
    Completion, Filter, FilterList, Hybrid, RetrieveRequest, RetrieveResponse, Vector, filter,
};
use tonic::{Code, Status};

const MODEL: &str = "
model
  schema 1.1
type user
type document
  relations
    define can_read: [user, user:*]
";
const COLLECTION: &str = "handbook";
/// The number of chunks that the user may see.
const SEEN: usize = 7;

/// Starts a server with documents that everybody may read, as many that only bob may read, and a secret for page
/// tokens.
async fn started(data: &Path, change: impl FnOnce(&mut Config)) -> Running {
    let key_file = data.join("page-token-key");
    std::fs::write(&key_file, "a secret of no less than thirty-two bytes").unwrap();
    let mut config = config(data);
    config.retrieval.page_token_key_file = Some(SecretFile::new(key_file));
    change(&mut config);
    let running = Running::start(&config).await;
    let tuple = |user: &str, id: &str| RelationshipTuple::parse(user, "can_read", id).unwrap();
    let numbered = |kind: &'static str| (0..SEEN).map(move |number| format!("document:{kind}{number}"));
    let tuples =
        numbered("open").map(|id| tuple("user:*", &id)).chain(numbered("bobs").map(|id| tuple("user:bob", &id)));
    running.load(dsl::load(MODEL).unwrap(), tuples.collect());
    let documents = numbered("open").chain(numbered("bobs")).enumerate().map(|(place, id)| {
        let mut document = document(&id, &[&"leave ".repeat(1 + place % 3)]);
        document.chunks[0].vector = vec![1.0, (place % 4) as f32];
        document
    });
    running.upsert(COLLECTION, documents.collect()).await.unwrap();
    running
}

fn text() -> Query {
    Query::Text("leave".to_owned())
}

fn vector() -> Query {
    Query::Vector(Vector { values: vec![1.0, 0.25] })
}

fn hybrid() -> Query {
    Query::Hybrid(Hybrid { text: "leave".to_owned(), vector: Some(Vector { values: vec![1.0, 0.25] }) })
}

fn page_of(query: Query, token: &str) -> RetrieveRequest {
    RetrieveRequest {
        user: "user:anne".to_owned(),
        collection: COLLECTION.to_owned(),
        query: Some(query),
        top_k: 3,
        page_token: Some(token.to_owned()),
        ..RetrieveRequest::default()
    }
}

async fn ask(running: &Running, request: RetrieveRequest) -> Result<RetrieveResponse, Status> {
    running.client.retrieval().retrieve(request).await.map(tonic::Response::into_inner)
}

fn ids(response: &RetrieveResponse) -> Vec<String> {
    response.chunks.iter().map(|chunk| chunk.id.clone()).collect()
}

#[tokio::test]
async fn pages_together_are_one_answer() {
    let data = tempfile::tempdir().unwrap();
    let running = started(data.path(), |_| {}).await;
    for query in [text(), vector(), hybrid()] {
        let whole = RetrieveRequest { top_k: 100, page_token: None, ..page_of(query.clone(), "") };
        let whole = ask(&running, whole).await.unwrap();
        assert_eq!((whole.chunks.len(), whole.next_page_token.as_str()), (SEEN, ""), "{query:?}");
        let (mut all, mut token) = (Vec::new(), String::new());
        for (page, (chunks, completion)) in
            [(3, Completion::Complete), (3, Completion::Complete), (1, Completion::Exhausted)].into_iter().enumerate()
        {
            let answer = ask(&running, page_of(query.clone(), &token)).await.unwrap();
            assert_eq!((answer.chunks.len(), answer.completion()), (chunks, completion), "page {page} of {query:?}");
            all.extend(answer.chunks);
            token = answer.next_page_token;
        }
        assert_eq!((all, token.as_str()), (whole.chunks, ""), "{query:?}");
    }
}

/// Returns everything that a refusal tells a caller, to the last byte.
fn shown(answer: Result<RetrieveResponse, Status>) -> (Code, String, Vec<u8>) {
    let status = answer.expect_err("a refusal");
    (status.code(), status.message().to_owned(), status.details().to_vec())
}

#[tokio::test]
async fn a_token_that_does_not_fit_is_refused_in_one_way() {
    let data = tempfile::tempdir().unwrap();
    let running = started(data.path(), |_| {}).await;
    for query in [text(), vector(), hybrid()] {
        let first = ask(&running, page_of(query.clone(), "")).await.unwrap();
        let token = first.next_page_token.as_str();
        assert_eq!(ask(&running, page_of(query.clone(), token)).await.unwrap().chunks.len(), 3, "{query:?}");
        let refusal = shown(ask(&running, page_of(query.clone(), "00")).await);
        assert_eq!(refusal.0, Code::InvalidArgument, "{query:?}");
        assert!(refusal.1.contains("ask for the first page again"), "{query:?}: {refusal:?}");

        let fits = || page_of(query.clone(), token);
        let everything = Filter { kind: Some(filter::Kind::AllOf(FilterList::default())) };
        let other = if query == vector() { text() } else { vector() };
        let flipped = |at: usize| {
            let mut tampered = token.as_bytes().to_vec();
            tampered[at] ^= 1;
            page_of(query.clone(), &String::from_utf8(tampered).unwrap())
        };
        let rows = [
            ("foreign", RetrieveRequest { user: "user:bob".to_owned(), ..fits() }),
            ("of another query", page_of(other, token)),
            ("of other words", page_of(Query::Text("leave leave".to_owned()), token)),
            ("of another number", RetrieveRequest { top_k: 4, ..fits() }),
            ("of another filter", RetrieveRequest { filter: Some(everything), ..fits() }),
            ("of another threshold", RetrieveRequest { min_score: Some(-1.0), ..fits() }),
            ("of another consistency", RetrieveRequest { consistency: 2, ..fits() }),
            ("tampered with at the start", flipped(0)),
            ("tampered with in the middle", flipped(token.len() / 2)),
            ("tampered with at the end", flipped(token.len() - 1)),
            ("cut", page_of(query.clone(), token.split_at(token.len() - 2).0)),
            ("longer", page_of(query.clone(), &format!("{token}00"))),
            ("in capitals", page_of(query.clone(), &token.to_uppercase())),
            ("no token", page_of(query.clone(), "\u{0}\u{fffd} not a token")),
            ("huge", page_of(query.clone(), &"0".repeat(100_000))),
        ];
        for (what, request) in rows {
            assert_eq!(shown(ask(&running, request).await), refusal, "{what}: {query:?}");
        }
    }
    // The new model has the same tuples, so the answer is the same but is decided anew.
    let token = ask(&running, page_of(vector(), "")).await.unwrap().next_page_token;
    let refusal = shown(ask(&running, page_of(vector(), "00")).await);
    running.load(dsl::load(MODEL).unwrap(), Vec::new());
    assert_eq!(shown(ask(&running, page_of(vector(), &token)).await), refusal, "of another model");
}

#[tokio::test]
async fn a_token_lives_as_long_as_it_is_set_to_and_is_good_at_every_replica() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let running =
        started(one.path(), |config| config.retrieval.page_token_lifetime = std::time::Duration::from_millis(1)).await;
    let refusal = shown(ask(&running, page_of(text(), "00")).await);
    let token = ask(&running, page_of(text(), "")).await.unwrap().next_page_token;
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    assert_eq!(shown(ask(&running, page_of(text(), &token)).await), refusal, "expired");

    // After a restart with the same secret a token is still good; without the secret it is not.
    running.stop().await.unwrap();
    let with_key = |config: &mut Config| {
        config.retrieval.page_token_key_file = Some(SecretFile::new(one.path().join("page-token-key")));
    };
    let reopened = |change: fn(&mut Config)| {
        let mut config = config(one.path());
        with_key(&mut config);
        change(&mut config);
        config
    };
    let running = Running::start(&reopened(|_| {})).await;
    let first = ask(&running, page_of(text(), "")).await.unwrap();
    running.stop().await.unwrap();
    let running = Running::start(&reopened(|_| {})).await;
    let second = ask(&running, page_of(text(), &first.next_page_token)).await.unwrap();
    assert_eq!(second.chunks.len(), 3);
    running.stop().await.unwrap();
    let running = Running::start(&reopened(|config| config.retrieval.page_token_key_file = None)).await;
    assert_eq!(shown(ask(&running, page_of(text(), &first.next_page_token)).await), refusal, "of another secret");

    // The same corpus elsewhere has another model, so the search begins anew there.
    let elsewhere = started(other.path(), |_| {}).await;
    assert_eq!(shown(ask(&elsewhere, page_of(text(), &first.next_page_token)).await), refusal, "of another store");
}

#[tokio::test]
async fn pages_over_a_corpus_that_changes_repeat_and_miss_nothing() {
    let data = tempfile::tempdir().unwrap();
    let running = started(data.path(), |_| {}).await;
    let seen = |id: &str| document(id, &["leave leave leave leave"]);
    let refusal = shown(ask(&running, page_of(text(), "00")).await);
    for query in [text(), hybrid(), vector()] {
        let first = ask(&running, page_of(query.clone(), "")).await.unwrap();
        // A document that the user may not see changes nothing.
        let mut hidden = document("document:bobs0", &["leave leave leave leave leave"]);
        hidden.chunks[0].vector = vec![1.0, 0.25];
        running.upsert(COLLECTION, vec![hidden]).await.unwrap();
        let second = ask(&running, page_of(query.clone(), &first.next_page_token)).await.unwrap();
        assert_eq!(second.chunks.len(), 3, "{query:?}");
        assert!(ids(&second).iter().all(|id| !ids(&first).contains(id)), "{query:?}");

        // A new visible document changes the scores of a text query; it has no vector, so it changes no cosine.
        let id = "document:open6";
        running.upsert(COLLECTION, vec![seen(id)]).await.unwrap();
        let second = ask(&running, page_of(query.clone(), &first.next_page_token)).await;
        if query == vector() {
            assert_eq!(second.unwrap().chunks.len(), 3, "{query:?}");
        } else {
            assert_eq!(shown(second), refusal, "{query:?}");
        }
        let mut as_before = document(id, &["leave"]);
        as_before.chunks[0].vector = vec![1.0, 2.0];
        running.upsert(COLLECTION, vec![as_before]).await.unwrap();
    }
}
