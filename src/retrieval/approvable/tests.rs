//! Varies each field of a request alone. An approval of one request must not be good for any other one.

use serde_json::json;

use super::*;
use crate::authz::Consistency;
use crate::identity::sample;
use crate::retrieval::request::{FetchParts, NamedPrincipal, RetrievalParts, StatedQuery};
use crate::vector_store::{Filter, Query};

fn parts() -> RetrievalParts {
    RetrievalParts::new("user:anne", "handbook", Query::Text("leave".to_owned()))
}

fn request(parts: RetrievalParts) -> RetrievalRequest {
    RetrievalRequest::new(parts, 100).unwrap()
}

fn encoded(parts: RetrievalParts, ceiling: &str) -> Vec<u8> {
    request(parts).approvable(ceiling, 100).encoded
}

fn fetch(chunk_ids: &[&str], document_ids: &[&str]) -> FetchRequest {
    let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    let principal = NamedPrincipal::stated("user:anne");
    let (chunk_ids, document_ids) = (owned(chunk_ids), owned(document_ids));
    let consistency = Consistency::default();
    FetchRequest::new(FetchParts { principal, collection: "handbook".to_owned(), chunk_ids, document_ids, consistency })
        .unwrap()
}

#[test]
fn requests_that_differ_are_approved_apart() {
    let asked = |query: Query| RetrievalParts { query: Some(query.into()), ..parts() };
    let stated = |query: StatedQuery| RetrievalParts { query: Some(query), ..parts() };
    let hybrid = |text: &str, vector: Vec<f32>| Query::Hybrid { text: text.to_owned(), vector };
    let in_context = |value: &str| {
        let principal = Principal::stated("user:anne").unwrap();
        let principal = NamedPrincipal::Known(sample::in_context(principal, &json!({ "purpose": value })));
        RetrievalParts { principal, ..parts() }
    };
    let recheck = |ids: &[&str]| {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let principal = NamedPrincipal::stated("user:anne");
        let request = RecheckRequest::new(principal, "handbook".to_owned(), ids, Consistency::default()).unwrap();
        request.approvable().encoded
    };
    let of_fetch =
        |chunk_ids: &[&str], document_ids: &[&str]| fetch(chunk_ids, document_ids).approvable("", 100).encoded;
    let rows = [
        ("a text", encoded(parts(), "")),
        ("a ceiling", encoded(parts(), "secret")),
        ("another ceiling", encoded(parts(), "sealed")),
        ("another text", encoded(asked(Query::Text("leaves".to_owned())), "")),
        ("a vector", encoded(asked(Query::Vector(vec![1.0, 0.5])), "")),
        ("another vector", encoded(asked(Query::Vector(vec![1.0, -0.5])), "")),
        ("both", encoded(asked(hybrid("leave", vec![1.0, 0.5])), "")),
        ("both, another vector", encoded(asked(hybrid("leave", vec![0.5, 1.0])), "")),
        ("the meaning", encoded(stated(StatedQuery::Semantic("leave".to_owned())), "")),
        ("another meaning", encoded(stated(StatedQuery::Semantic("leaves".to_owned())), "")),
        ("words and meaning", encoded(stated(StatedQuery::Hybrid("leave".to_owned())), "")),
        ("other words and their meaning", encoded(stated(StatedQuery::Hybrid("leaves".to_owned())), "")),
        ("another collection", encoded(RetrievalParts { collection: "hr".to_owned(), ..parts() }, "")),
        ("more chunks", encoded(RetrievalParts { top_k: 11, ..parts() }, "")),
        ("a filter", encoded(RetrievalParts { filter: Some(Filter::All(Vec::new())), ..parts() }, "")),
        ("a lowest score", encoded(RetrievalParts { min_score: Some(0.0), ..parts() }, "")),
        ("one of a document", encoded(RetrievalParts { per_document_max: 1, ..parts() }, "")),
        ("a context", encoded(in_context("audit"), "")),
        ("another context", encoded(in_context("care"), "")),
        ("a fetch of a chunk", of_fetch(&["a"], &[])),
        ("a fetch of a document", of_fetch(&[], &["a"])),
        ("a fetch of another chunk", of_fetch(&["b"], &[])),
        ("a fetch of two", of_fetch(&["a", "b"], &[])),
        ("a fetch of one with a longer name", of_fetch(&["ab"], &[])),
        ("a fetch under a ceiling", fetch(&["a"], &[]).approvable("secret", 100).encoded),
        ("a re-check", recheck(&["a"])),
        ("a re-check of two", recheck(&["a", "b"])),
    ];
    for (place, (row, one)) in rows.iter().enumerate() {
        for (other_place, (other_row, other)) in rows.iter().enumerate() {
            assert_eq!(one == other, place == other_place, "{row} and {other_row}");
        }
    }
}

/// The person reads the words of whatever has words.
#[test]
fn the_words_of_a_request_are_shown() {
    let leave = || "leave".to_owned();
    let rows = [
        ("a text", Query::Text(leave()).into(), Some("leave")),
        ("a vector", Query::Vector(vec![1.0]).into(), None),
        ("both", Query::Hybrid { text: leave(), vector: vec![1.0] }.into(), Some("leave")),
        ("the meaning", StatedQuery::Semantic(leave()), Some("leave")),
        ("words and meaning", StatedQuery::Hybrid(leave()), Some("leave")),
    ];
    for (row, query, expected) in rows {
        let request = request(RetrievalParts { query: Some(query), ..parts() });
        assert_eq!(request.approvable("", 100).words.as_deref(), expected, "{row}");
    }
}

#[test]
fn the_pages_of_one_search_are_one_request() {
    let page = |token: &str| RetrievalParts { page_token: Some(token.to_owned()), ..parts() };
    let (first, next) = (request(page("")).approvable("", 100), request(page("7f")).approvable("", 100));
    assert_eq!((&first.encoded, first.chunks_max), (&next.encoded, next.chunks_max));
    assert_eq!((first.page_token, next.page_token.as_deref()), (None, Some("7f")));
    assert_eq!(first.chunks_max, 100, "all pages together");
    assert_eq!(request(parts()).approvable("", 100).chunks_max, 10, "the one answer");
    assert_eq!(fetch(&["a", "b"], &[]).approvable("", 100).chunks_max, 2);
    assert_eq!(fetch(&[], &["a"]).approvable("", 100).chunks_max, 100);
}
