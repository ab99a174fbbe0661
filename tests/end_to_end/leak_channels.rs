//! The channels by which a filter of retrievals can leak, each with the tests that keep it shut.
//!
//! | channel | rule | tests |
//! |---|---|---|
//! | counts, totals, a list that is short without a reason | counts are in no answer; every answer says why it ended | `twin_worlds.rs`; `end_to_end/server.rs` (completions); `the_plan_is_told_to_nobody_unless_it_is_allowed` below |
//! | scores from statistics of the corpus | statistics of the visible set alone | `twin_worlds.rs`; `vector_store/exact_store.rs`: `what_is_hidden_changes_no_byte`; `end_to_end/keps.rs` |
//! | the language that a text is read in | the chunk's own words, metadata and the settings decide, and a query is read in all languages | `vector_store/languages.rs` (hidden chunks in other languages; a hidden chunk of the same document) |
//! | time | measured (`cargo bench --bench timing`) and said in `SECURITY.md`; never claimed to be constant. A re-check costs one check for each id; words of hidden chunks alone are not scored | `openfga/decoys.rs`; `retrieval/decoys.rs`; `vector_store/exact/text_search.rs` |
//! | page tokens | authenticated, bound, one refusal | `end_to_end/pages.rs`; `retrieval/page.rs`; `retrieval/retriever/tests/pages.rs`; `twin_worlds.rs` (a page after a hidden change) |
//! | error texts; absent or forbidden | both give the same bytes | `twin_worlds.rs` (refusals are compared whole); `end_to_end/server.rs`: `forbidden_and_absent_look_the_same` |
//! | caches that users share | a key holds the whole question | `a_thousand_users_share_no_cached_answer` below; `authz/cached/tests.rs`, `authz/decision_key/tests.rs` |
//! | a decision on the wrong item | one answer for each question, or none | `authz/enforce/tests.rs`: `exactly_the_permitted_items_come_out`, `an_answer_that_does_not_match_the_questions_permits_nothing` |
//! | an empty visible set that becomes *no filter* | an empty answer in every plan | `retrieval/retriever/tests/hints.rs`: `an_empty_visible_set_is_an_empty_answer_in_every_plan`; `vector_store/exact_store.rs` and `vector_store_suite` (an empty scope) |
//! | a stale pre-filter | a wrong hint hides chunks and shows none | `retrieval/retriever/tests/hints.rs`: `a_stale_pre_filter_leaks_nothing_and_is_refilled` (visible sets), `a_wrong_pass_rate_costs_rounds_and_changes_no_answer`, `guards_that_all_changed_are_not_released_and_are_refilled` (payloads) |
//! | a chunk that claims another document | the writer holds the relation on the guard; a guard is an object | `identity/delegation.rs`: `a_writer_needs_the_relation_on_old_and_new_guards`; `end_to_end/server.rs`: `a_bad_document_changes_nothing`; `qdrant_faults` (payloads without a guard) |
//! | a caller's filter that widens | it only shrinks | `a_filter_only_shrinks_an_answer` below; `vector_store/exact_store.rs` |
//! | several tenants in one collection | the tenant is the verified token's | `identity/tenants.rs` |
//! | revocation during a request, and before the language model is called | what was revoked before its check is not released; a re-check tells of the rest | `retrieval/retriever/tests/hints.rs`: `a_revocation_between_any_two_steps_counts_from_the_next_check`; `end_to_end/server.rs`: `a_revoked_tuple_ends_the_sight_of_held_chunks` |
//! | vectors in answers | no answer has one | `no_answer_to_a_user_holds_a_vector` below |
//! | logs | no query and no text of a chunk | `end_to_end/quiet_log.rs` |
//! | a question that observes | the ordinary answer; what is withheld is in the record alone | `end_to_end/observing.rs`; `twin_worlds.rs`; `openfga/decoys.rs` |
//! | what a source withholds | no text, id or count of it leaves. It may count in the statistics of a text query, and sources are asked about it: `SECURITY.md` names both | `retrieval/retriever/tests/sourced.rs`; `identity/sources.rs`; `sources/http/tests.rs` |
//! | another door | the doors that take JSON say the same bytes as gRPC | `twin_worlds.rs`; the tests below ask at every door; `identity/tokens.rs` (tokens with one thing wrong); `identity/twins.rs` (the tools of MCP) |

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use openfga_client::prost_types::field_descriptor_proto::{Label, Type};
use openfga_client::prost_types::{DescriptorProto, FileDescriptorSet};
use prost::Message;
use ragward::config::{AuthorizerKind, Config};
use ragward::language::{RelationshipTuple, dsl};
use ragward::proto::DESCRIPTORS;
use ragward::proto::metadata::{Value, value};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{Filter, FilterList, OneOf, Range, RetrieveRequest, RetrieveResponse, Vector, filter};

use crate::support::dice::Dice;
use crate::support::documents::document;
use crate::support::json_door::{Door, JsonDoor};
use crate::support::running::{Running, config};
use crate::support::untimed::Untimed;

const MODEL: &str = "
model
  schema 1.1
type user
type document
  relations
    define can_read: [user]
";
const COLLECTION: &str = "handbook";

fn reads(user: &str, document: usize) -> RelationshipTuple {
    RelationshipTuple::parse(user, "can_read", &format!("document:{document}")).unwrap()
}

async fn ask(running: &Running, request: RetrieveRequest) -> RetrieveResponse {
    running.client.retrieval().retrieve(request).await.unwrap().into_inner()
}

/// Asks over gRPC and at each door that takes JSON. The answers are the same bytes, but for what differs with the moment.
async fn ask_everywhere(running: &Running, json: &JsonDoor, request: RetrieveRequest) -> RetrieveResponse {
    let timeless = |answer: RetrieveResponse| {
        let replica_lag_milliseconds = answer.replica_lag_milliseconds.map(|_lag| 0.0);
        RetrieveResponse { replica_lag_milliseconds, ..answer.untimed() }
    };
    let answer = timeless(ask(running, request.clone()).await);
    for door in [Door::Connect, Door::Rest] {
        let in_json = timeless(json.ask(door, "Retrieve", &request).await.unwrap());
        assert_eq!(in_json.encode_to_vec(), answer.encode_to_vec(), "{door:?}: {in_json:?}, over gRPC: {answer:?}");
    }
    answer
}

fn request(user: &str, query: Query) -> RetrieveRequest {
    RetrieveRequest {
        user: user.to_owned(),
        collection: COLLECTION.to_owned(),
        query: Some(query),
        top_k: 100,
        ..RetrieveRequest::default()
    }
}

fn text() -> Query {
    Query::Text("leave".to_owned())
}

const USERS: usize = 1_000;
const DOCUMENTS: usize = 12;

/// Returns the documents of a user: those whose bits are set in the user's number. So the users 2n and 2n + 1 differ in
/// one document.
fn documents_of(user: usize) -> Vec<usize> {
    (0..DOCUMENTS).filter(|document| user >> document & 1 == 1).collect()
}

async fn collection(data: &Path, change: impl FnOnce(&mut Config)) -> Running {
    let mut config = config(data);
    change(&mut config);
    let running = Running::start(&config).await;
    let documents = (0..DOCUMENTS).map(|number| document(&format!("document:{number}"), &["how to ask for leave"]));
    running.upsert(COLLECTION, documents.collect()).await.unwrap();
    running
}

/// Asks over the embedded engine, and over a server of `OpenFGA`'s API, with and without remembered decisions.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_users_share_no_cached_answer() {
    let [embedded, caching, plain] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let embedded = collection(embedded.path(), |_| {}).await;
    let tuples = (0..USERS)
        .flat_map(|user| documents_of(user).into_iter().map(move |document| reads(&format!("user:{user}"), document)));
    embedded.load(dsl::load(MODEL).unwrap(), tuples.collect());
    let remote = |cache_ttl: Duration| {
        let address = format!("http://{}", embedded.address);
        move |config: &mut Config| {
            config.authorizer.kind = AuthorizerKind::Openfga;
            config.authorizer.openfga.address = address;
            config.authorizer.checks.cache_ttl = cache_ttl;
        }
    };
    let caching = collection(caching.path(), remote(Duration::from_mins(1))).await;
    let plain = collection(plain.path(), remote(Duration::ZERO)).await;
    // The rows that ask again use the decisions that were remembered.
    let rows = [
        ("embedded", &embedded),
        ("embedded, again", &embedded),
        ("with a cache", &caching),
        ("with a cache, again", &caching),
        ("without a cache", &plain),
    ];
    for (name, running) in rows {
        let json = JsonDoor::at(&running.address.to_string());
        let answers = futures::stream::iter(0..USERS).map(async |user| {
            let asked = request(&format!("user:{user}"), text());
            let answer = if name.ends_with("again") {
                ask_everywhere(running, &json, asked).await
            } else {
                ask(running, asked).await
            };
            let seen: BTreeSet<String> = answer.chunks.into_iter().map(|chunk| chunk.document_id).collect();
            let expected = documents_of(user).into_iter().map(|document| format!("document:{document}")).collect();
            assert_eq!(seen, expected, "user {user}, {name}");
        });
        answers.buffer_unordered(16).collect::<Vec<()>>().await;
    }
}

impl Dice {
    fn filter(&mut self, depth: usize) -> Filter {
        let keys = ["year", "year", "kind", "absent"];
        let key = keys[self.below(4)].to_owned();
        let kind = match self.below(if depth < 4 { 5 } else { 2 }) {
            0 => {
                let values = (0..self.below(4)).map(|_| year(self.below(6))).collect();
                filter::Kind::OneOf(OneOf { key, values })
            }
            1 => {
                let bounds = [None, Some(-1e300), Some(1.0), Some(2.5), Some(1e300)];
                filter::Kind::Range(Range { key, low: bounds[self.below(5)], high: bounds[self.below(5)] })
            }
            2 => filter::Kind::Not(Box::new(self.filter(depth + 1))),
            kind => {
                let filters = (0..self.below(4)).map(|_| self.filter(depth + 1)).collect();
                let list = FilterList { filters };
                if kind == 3 { filter::Kind::AllOf(list) } else { filter::Kind::AnyOf(list) }
            }
        };
        Filter { kind: Some(kind) }
    }
}

fn year(number: usize) -> Value {
    Value { kind: Some(value::Kind::IntValue(i64::try_from(number).unwrap())) }
}

#[tokio::test]
async fn a_filter_only_shrinks_an_answer() {
    const SEED: u64 = 11;
    println!("seed {SEED}");
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(&config(data.path())).await;
    let mut dice = Dice::new(SEED);
    let documents = (0..40).map(|number| {
        let mut document = document(&format!("document:{number}"), &[&"leave ".repeat(1 + number % 5), "leave it"]);
        for chunk in &mut document.chunks {
            chunk.vector = vec![1.0, f32::from(u8::try_from(number % 7).unwrap())];
            chunk.metadata = BTreeMap::from([("year".to_owned(), year(dice.below(5)))]);
        }
        document
    });
    let documents = documents.collect();
    running.load(dsl::load(MODEL).unwrap(), (0..40).step_by(3).map(|number| reads("user:anne", number)).collect());
    running.upsert(COLLECTION, documents).await.unwrap();
    let json = JsonDoor::at(&running.address.to_string());
    let (mut kept, mut dropped) = (0, 0);
    for query in [text(), Query::Vector(Vector { values: vec![1.0, 2.0] })] {
        // Without a filter, the answer holds what the user may see. The test of the promise covers that.
        let whole = ask_everywhere(&running, &json, request("user:anne", query.clone())).await.chunks;
        assert_eq!(whole.len(), 28, "{query:?}");
        for _ in 0..400 {
            let filter = Some(dice.filter(0));
            let filtered = RetrieveRequest { filter: filter.clone(), ..request("user:anne", query.clone()) };
            let shrunk = ask_everywhere(&running, &json, filtered).await;
            // The chunks have the same order and the same scores, statistics included.
            let left = whole.iter().filter(|chunk| shrunk.chunks.contains(chunk));
            assert!(left.eq(&shrunk.chunks), "{query:?}, {filter:?}: {shrunk:?}");
            kept += shrunk.chunks.len();
            dropped += whole.len() - shrunk.chunks.len();
        }
    }
    assert!(kept > 1_000 && dropped > 1_000, "{kept} kept, {dropped} dropped");
}

#[tokio::test]
async fn the_plan_is_told_to_nobody_unless_it_is_allowed() {
    for allowed in [false, true] {
        let data = tempfile::tempdir().unwrap();
        let running = collection(data.path(), |config| config.retrieval.explain_plan = allowed).await;
        running.load(dsl::load(MODEL).unwrap(), vec![reads("user:anne", 1)]);
        let asked = RetrieveRequest { explain_plan: true, ..request("user:anne", text()) };
        let json = JsonDoor::at(&running.address.to_string());
        for door in [Door::Connect, Door::Rest] {
            let in_json: RetrieveResponse = json.ask(door, "Retrieve", &asked).await.unwrap();
            assert_eq!(in_json.plan.is_some(), allowed, "{door:?}, allowed: {allowed}");
        }
        assert_eq!(ask(&running, asked).await.plan.is_some(), allowed, "allowed: {allowed}");
        assert_eq!(ask(&running, request("user:anne", text())).await.plan, None, "allowed: {allowed}");
    }
}

/// A list of floats, or bytes, could be a vector.
#[test]
fn no_answer_to_a_user_holds_a_vector() {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut messages: BTreeMap<String, &DescriptorProto> = BTreeMap::new();
    for file in &set.file {
        let mut open: Vec<(String, &DescriptorProto)> =
            file.message_type.iter().map(|message| (format!(".{}", file.package()), message)).collect();
        while let Some((scope, message)) = open.pop() {
            let name = format!("{scope}.{}", message.name());
            open.extend(message.nested_type.iter().map(|nested| (name.clone(), nested)));
            messages.insert(name, message);
        }
    }
    // Returns the fields of a message, however deep, that could be a vector.
    let vectors_in = |root: &str| {
        let (mut open, mut seen, mut found) = (vec![root.to_owned()], BTreeSet::new(), Vec::new());
        while let Some(name) = open.pop() {
            let Some(message) = messages.get(&name).filter(|_| seen.insert(name.clone())) else { continue };
            for field in &message.field {
                let is_list = field.label() == Label::Repeated;
                let is_of = |types: &[Type]| types.contains(&field.r#type());
                if is_of(&[Type::Bytes]) || (is_list && is_of(&[Type::Float, Type::Double])) {
                    found.push(format!("{name}.{}", field.name()));
                } else if is_of(&[Type::Message]) {
                    open.push(field.type_name().to_owned());
                }
            }
        }
        found
    };
    let services = set.file.iter().flat_map(|file| file.service.iter().map(move |service| (file.package(), service)));
    let mut answers = 0;
    for (package, service) in services.filter(|(package, _)| package.starts_with("ragward.")) {
        for method in &service.method {
            let answer = method.output_type();
            assert!(messages.contains_key(answer), "{package}: {answer}");
            assert_eq!(vectors_in(answer), Vec::<String>::new(), "{}", method.name());
            answers += 1;
        }
    }
    assert!(answers >= 6, "{answers} answers");
    // The search that finds no vector above does find one where there is one.
    assert_eq!(
        vectors_in(".ragward.retrieval.v1.RetrieveRequest"),
        [".ragward.retrieval.v1.Vector.values"],
        "a query's own"
    );
}
