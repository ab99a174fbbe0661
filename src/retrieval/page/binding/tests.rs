//! Reads the bytes of a binding back. Bytes that can be read back belong to one search only.

use std::num::NonZeroUsize;

use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::authz::decision_key::decode::Reader;
use crate::identity::details::{Action, RequestFacts};
use crate::identity::{Scopes, sample};
use crate::language::{RelationshipTuple, User};
use crate::vector_store::Moment;

/// A principal as it was read back.
#[derive(Debug, PartialEq)]
struct Read {
    subject: String,
    contextual: Contextual,
    token: Option<TokenFacts>,
    is_asserted: bool,
    delegation: Option<Delegation>,
}

/// The name of the row and the parts of a principal.
type Row<'r> = (&'static str, &'r Contextual, Option<&'r TokenFacts>, bool, Option<&'r Delegation>);

fn object(text: &str) -> Object {
    Object::parse(text).unwrap()
}

fn read_option<T>(reader: &mut Reader<'_>, read: impl FnOnce(&mut Reader<'_>) -> T) -> Option<T> {
    match reader.byte() {
        NONE => None,
        SOME => Some(read(reader)),
        other => panic!("no option begins with {other}"),
    }
}

fn read_principal(bytes: &[u8]) -> Read {
    let mut reader = Reader(bytes);
    let subject = reader.text();
    let contextual = reader.contextual();
    let token = read_option(&mut reader, read_token);
    let is_asserted = reader.byte() == 1;
    let delegation = read_option(&mut reader, |reader| Delegation {
        actor: object(&reader.text()),
        relation: Relation::parse(&reader.text()).unwrap(),
        on: match reader.byte() {
            ON_USER => DelegationOn::User,
            ON_GUARD => DelegationOn::Guard,
            other => panic!("nothing is {other}"),
        },
    });
    assert!(reader.0.is_empty(), "{} bytes are left over", reader.0.len());
    Read { subject, contextual, token, is_asserted, delegation }
}

fn read_token(reader: &mut Reader<'_>) -> TokenFacts {
    let [issuer, subject, client_id] = [(); 3].map(|()| reader.text());
    let held = Scope::ALL.map(|scope| if reader.byte() == 1 { scope.as_str() } else { "" });
    let scopes = Scopes::parse(&held.join(" "));
    let actors = (0..reader.count()).map(|_| Actor { object: object(&reader.text()) }).collect();
    TokenFacts { scopes, actors, ..any_of(TokenFacts { issuer: issuer.into(), subject, client_id, ..facts("") }) }
}

fn facts(scope: &str) -> TokenFacts {
    sample::token("anne", scope, sample::NOW + 60).facts().clone()
}

/// Returns the facts of a token without those that the next token of the same bearer changes.
fn any_of(facts: TokenFacts) -> TokenFacts {
    TokenFacts { standard_subject: String::new(), token_id: String::new(), expires_at: 0, ..facts }
}

fn read_query(reader: &mut Reader<'_>) -> StatedQuery {
    let vector =
        |reader: &mut Reader<'_>| (0..reader.count()).map(|_| f32::from_bits(reader.u32())).collect::<Vec<f32>>();
    match reader.byte() {
        QUERY_TEXT => Query::Text(reader.text()).into(),
        QUERY_VECTOR => Query::Vector(vector(reader)).into(),
        QUERY_HYBRID => Query::Hybrid { text: reader.text(), vector: vector(reader) }.into(),
        QUERY_SEMANTIC => StatedQuery::Semantic(reader.text()),
        QUERY_HYBRID_TEXT => StatedQuery::Hybrid(reader.text()),
        other => panic!("no query begins with {other}"),
    }
}

fn read_filter(reader: &mut Reader<'_>) -> Filter {
    let filters = |reader: &mut Reader<'_>| (0..reader.count()).map(|_| read_filter(reader)).collect();
    match reader.byte() {
        FILTER_ALL => Filter::All(filters(reader)),
        FILTER_ANY => Filter::Any(filters(reader)),
        FILTER_NOT => Filter::Not(Box::new(read_filter(reader))),
        FILTER_ONE_OF => {
            let key = reader.text();
            Filter::OneOf { key, values: (0..reader.count()).map(|_| read_value(reader)).collect() }
        }
        FILTER_BETWEEN => {
            let key = reader.text();
            Filter::Between { key, low: f64::from_bits(reader.u64()), high: f64::from_bits(reader.u64()) }
        }
        FILTER_DURING => {
            let key = reader.text();
            let mut bound = || {
                read_option(reader, |reader| Moment::of_microseconds(i64::from_le_bytes(reader.u64().to_le_bytes())))
            };
            Filter::During { key, from: bound(), until: bound() }
        }
        other => panic!("no filter begins with {other}"),
    }
}

fn read_value(reader: &mut Reader<'_>) -> Value {
    match reader.byte() {
        VALUE_BOOL => Value::Bool(reader.byte() == 1),
        VALUE_INT => Value::Int(i64::from_le_bytes(reader.u64().to_le_bytes())),
        VALUE_FLOAT => Value::Float(f64::from_bits(reader.u64())),
        VALUE_TEXT => Value::Text(reader.text()),
        VALUE_LIST => Value::List((0..reader.count()).map(|_| read_value(reader)).collect()),
        other => panic!("no value begins with {other}"),
    }
}

fn request(principal: Principal) -> RetrievalRequest {
    RetrievalRequest {
        principal,
        collection: "handbook".to_owned(),
        query: Query::Text("leave".to_owned()).into(),
        top_k: 10,
        filter: None,
        min_score: None,
        per_document_max: None,
        consistency: Consistency::MinimizeLatency,
        page: None,
    }
}

/// Returns a principal whose chunks must all meet one condition.
fn conditioned(key: &str, values: &[&str]) -> Principal {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Principal::stated("user:anne").unwrap().on_condition(&OneOf { key: key.to_owned(), values })
}

/// Applies the details of a request's principal to the request.
fn applied(request: RetrievalRequest) -> RetrievalRequest {
    let relation = Relation::parse("can_read").unwrap();
    let facts =
        RequestFacts { action: Action::Retrieve, collection: "handbook", relation: &relation, query_text: None };
    let principal = request.principal.for_request(&facts).unwrap();
    RetrievalRequest { principal, ..request }
}

/// Requests with the names of their rows. Each two of them differ in at least one part.
fn requests() -> Vec<(&'static str, RetrievalRequest)> {
    let plain = || request(Principal::stated("user:anne").unwrap());
    let filtered = |filter: Filter| RetrievalRequest { filter: Some(filter), ..plain() };
    let one_of = |key: &str, values: Vec<Value>| Filter::OneOf { key: key.to_owned(), values };
    let text = |text: &str| Value::Text(text.to_owned());
    let between = |low: f64, high: f64| Filter::Between { key: "n".to_owned(), low, high };
    let during = |from: &str, until: &str| {
        let [from, until] = [from, until].map(Moment::parse);
        Filter::During { key: "n".to_owned(), from, until }
    };
    let stated = |query: StatedQuery| RetrievalRequest { query, ..plain() };
    let asked = |query: Query| stated(query.into());
    let hybrid = |text: &str, vector: Vec<f32>| Query::Hybrid { text: text.to_owned(), vector };
    vec![
        ("plain", plain()),
        ("another collection", RetrievalRequest { collection: "handbook2".to_owned(), ..plain() }),
        ("another text", asked(Query::Text("leave ".to_owned()))),
        ("a vector", asked(Query::Vector(vec![1.0, 0.0]))),
        ("a vector with -0", asked(Query::Vector(vec![1.0, -0.0]))),
        ("a longer vector", asked(Query::Vector(vec![1.0, 0.0, 0.0]))),
        ("both", asked(hybrid("leave", vec![1.0]))),
        ("both, no text", asked(hybrid("", vec![1.0]))),
        ("the meaning", stated(StatedQuery::Semantic("leave".to_owned()))),
        ("another meaning", stated(StatedQuery::Semantic("leave ".to_owned()))),
        ("words and meaning", stated(StatedQuery::Hybrid("leave".to_owned()))),
        ("more chunks", RetrievalRequest { top_k: 11, ..plain() }),
        ("a lowest score", RetrievalRequest { min_score: Some(0.0), ..plain() }),
        ("a lowest score of 1", RetrievalRequest { min_score: Some(1.0), ..plain() }),
        ("one of each document", RetrievalRequest { per_document_max: NonZeroUsize::new(1), ..plain() }),
        ("fresh", RetrievalRequest { consistency: Consistency::AtLeastAsFresh(Instant::now()), ..plain() }),
        ("as fresh as can be", RetrievalRequest { consistency: Consistency::HigherConsistency, ..plain() }),
        ("all of nothing", filtered(Filter::All(Vec::new()))),
        ("any of nothing", filtered(Filter::Any(Vec::new()))),
        ("a text", filtered(one_of("a", vec![text("1")]))),
        ("two texts", filtered(one_of("a", vec![text("1"), text("2")]))),
        ("one text of both", filtered(one_of("a", vec![text("12")]))),
        ("a moved delimiter", filtered(one_of("a1", vec![text("")]))),
        ("a number", filtered(one_of("a", vec![Value::Int(1)]))),
        ("a float", filtered(one_of("a", vec![Value::Float(1.0)]))),
        ("a bool", filtered(one_of("a", vec![Value::Bool(true)]))),
        ("not a text", filtered(Filter::Not(Box::new(one_of("a", vec![text("1")]))))),
        ("all of one", filtered(Filter::All(vec![one_of("a", vec![text("1")])]))),
        ("all of all", filtered(Filter::All(vec![Filter::All(Vec::new()), Filter::Any(Vec::new())]))),
        ("between", filtered(between(0.0, 1.0))),
        ("between others", filtered(between(1.0, 0.0))),
        ("a list", filtered(one_of("a", vec![Value::List(vec![text("1")])]))),
        ("during", filtered(during("2026-01-01", "2026-12-31"))),
        ("during others", filtered(during("2026-12-31", "2026-01-01"))),
        ("from", filtered(during("2026-01-01", ""))),
        ("until", filtered(during("", "2026-01-01"))),
    ]
}

#[test]
fn a_search_is_read_back() {
    for (row, request) in requests() {
        let mut bytes = Vec::new();
        write_search(&mut bytes, &request);
        let mut reader = Reader(&bytes);
        assert_eq!(reader.text(), request.collection, "{row}");
        assert_eq!(read_query(&mut reader), request.query, "{row}");
        assert_eq!(reader.count(), request.top_k, "{row}");
        assert_eq!(read_option(&mut reader, read_filter), request.filter, "{row}");
        assert_eq!(read_option(&mut reader, |reader| f64::from_bits(reader.u64())), request.min_score, "{row}");
        let per_document_max = read_option(&mut reader, |reader| NonZeroUsize::new(reader.count()).unwrap());
        assert_eq!(per_document_max, request.per_document_max, "{row}");
        assert!(reader.byte() <= HIGHER_CONSISTENCY && reader.0.is_empty(), "{row}");
    }
}

#[test]
fn searches_that_differ_are_bound_apart() {
    let relation = Relation::parse("can_read").unwrap();
    let mut bound: Vec<(&str, [u8; 32])> = Vec::new();
    let mut bind = |row, request: &RetrievalRequest, relation: &Relation| {
        bound.push((row, Binding::new(request, &request.principal, relation).unwrap().0));
    };
    for (row, request) in requests() {
        bind(row, &request, &relation);
    }
    let plain = request(Principal::stated("user:anne").unwrap());
    bind("another relation", &plain, &Relation::parse("can_edit").unwrap());
    bind("another user", &request(Principal::stated("user:bob").unwrap()), &relation);
    for (row, context) in [
        ("a context", json!({"purpose": "audit"})),
        ("another value", json!({"purpose": "care"})),
        ("a value of another type", json!({"purpose": ["audit"]})),
        ("another parameter", json!({"reason": "audit"})),
        ("two parameters", json!({"purpose": "audit", "reason": "audit"})),
    ] {
        bind(row, &request(sample::in_context(Principal::stated("user:anne").unwrap(), &context)), &relation);
    }
    for (row, key, values) in [
        ("a condition", "class", vec!["open"]),
        ("a condition on another key", "area", vec!["open"]),
        ("a condition of two values", "class", vec!["open", "inner"]),
        ("a condition that nothing meets", "class", vec![]),
    ] {
        bind(row, &applied(request(conditioned(key, &values))), &relation);
    }
    for (place, (row, one)) in bound.iter().enumerate() {
        for (other_place, (other_row, other)) in bound.iter().enumerate() {
            assert_eq!(one == other, place == other_place, "{row} and {other_row}");
        }
    }
    let narrowed = request(conditioned("class", &["open"]));
    let unapplied = Binding::new(&narrowed, &narrowed.principal, &relation);
    assert!(unapplied.is_none(), "details that were not compared with the request");
}

#[test]
fn a_principal_is_read_back() {
    let subject = object("user:anne");
    let anne = User::Object(subject.clone());
    let tuple = |relation: &str, object: &str| RelationshipTuple {
        user: anne.clone(),
        relation: Relation::parse(relation).unwrap(),
        object: Object::parse(object).unwrap(),
        condition: None,
    };
    let context = json!({"tenant": "acme", "list": [1, 2.5, null, {"a": "b"}]}).as_object().unwrap().clone();
    let nothing = Contextual::default();
    let something = Contextual { tuples: vec![tuple("member", "group:a"), tuple("member", "group:b")], context };
    let facts = facts("ragward:retrieve ragward:explain");
    let acted = TokenFacts {
        actors: vec![Actor { object: object("agent:a") }, Actor { object: object("agent:b") }],
        ..facts.clone()
    };
    let shifted = TokenFacts { issuer: "issuera".into(), subject: "nne".to_owned(), ..facts.clone() };
    let delegation =
        |on| Delegation { actor: object("agent:a"), relation: Relation::parse("can_act_for").unwrap(), on };
    let (on_user, on_guard) = (delegation(DelegationOn::User), delegation(DelegationOn::Guard));
    let rows: [Row<'_>; 8] = [
        ("a name", &nothing, None, false, None),
        ("with tuples and context", &something, None, false, None),
        ("with a token", &nothing, Some(&facts), false, None),
        ("with a token of a shifted delimiter", &nothing, Some(&shifted), false, None),
        ("asserted", &nothing, Some(&facts), true, None),
        ("acted for", &nothing, Some(&acted), false, Some(&on_user)),
        ("acted for on guards", &nothing, Some(&acted), false, Some(&on_guard)),
        ("everything", &something, Some(&acted), true, Some(&on_guard)),
    ];
    let mut written: Vec<Vec<u8>> = Vec::new();
    for (row, contextual, token, is_asserted, delegation) in rows {
        let mut bytes = Vec::new();
        write_principal(&mut bytes, &BoundPrincipal { subject: &subject, contextual, token, is_asserted, delegation });
        let expected = Read {
            subject: "user:anne".to_owned(),
            contextual: contextual.clone(),
            token: token.cloned().map(any_of),
            is_asserted,
            delegation: delegation.cloned(),
        };
        assert_eq!(read_principal(&bytes), expected, "{row}");
        assert!(!written.contains(&bytes), "{row}");
        written.push(bytes);
    }
}

#[test]
fn the_next_token_of_the_same_bearer_goes_on_with_the_pages() {
    let held = facts("ragward:retrieve");
    let rows = [
        ("the same token", held.clone(), true),
        ("another id, a later end", TokenFacts { token_id: "next".to_owned(), expires_at: 9, ..held.clone() }, true),
        ("another client", TokenFacts { client_id: "other".to_owned(), ..held.clone() }, false),
        ("another issuer", TokenFacts { issuer: "https://other".into(), ..held.clone() }, false),
        ("another subject", TokenFacts { subject: "bob".to_owned(), ..held.clone() }, false),
        ("fewer scopes", facts(""), false),
        ("more scopes", facts("ragward:retrieve ragward:explain"), false),
        ("an actor", TokenFacts { actors: vec![Actor { object: object("agent:a") }], ..held.clone() }, false),
    ];
    let bytes = |token: &TokenFacts| {
        let mut bytes = Vec::new();
        write_token(&mut bytes, token);
        bytes
    };
    for (row, next, goes_on) in rows {
        assert_eq!(bytes(&next) == bytes(&held), goes_on, "{row}");
    }
}
