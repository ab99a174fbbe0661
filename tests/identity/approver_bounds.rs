//! Bounds of the approvals that Ragward asks persons for: one yes gives one answer, of this person and request, over all pages and
//! replicas, and a person is asked only so often.

use std::time::Duration;

use ragward::identity::config::{BackchannelConfig, IdentityConfig, IssuerConfig, ShortName};
use ragward::language::RelationshipTuple;
use ragward::proto::ingest::{Document, UpsertDocumentsRequest};
use ragward::proto::retrieval::request_approval_request::Request as Approved;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{
    FetchRequest, Filter, FilterList, Hybrid, RequestApprovalResponse, RetrieveRequest, Vector, filter,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_types::StatusExt;

use crate::identity::approver::{ASK, TOKEN, World, ids, reason, refused, secret, serve, with};
use crate::identity::delegation::acted;
use crate::identity::world::{ANNES, RETRIEVE, about_leave, seen, text_value, with_token};
use crate::support::documents::document;
use crate::support::http::Call;
use crate::support::issuer::{HttpAnswer, SigningKey, TestIssuer, now};

const MCP_URL: &str = "https://ragward.example/mcp";
/// The most requests until a second is over.
const ATTEMPTS_MAX: usize = 1_000_000;
/// The most questions of one agent to one person that are open at a time.
const OPEN_MAX: usize = 3;

fn unchanged(_: &mut BackchannelConfig, _: &mut IdentityConfig) {}

fn fetch_of(chunk_ids: &[&str]) -> FetchRequest {
    FetchRequest {
        collection: "handbook".to_owned(),
        chunk_ids: chunk_ids.iter().map(|id| (*id).to_owned()).collect(),
        classification_max: "secret".to_owned(),
        ..FetchRequest::default()
    }
}

/// Takes away Anne's right to a page.
fn revoke(world: &World) {
    world.running.delete(RelationshipTuple::parse("user:anne", "reader", "page:draft").unwrap());
}

/// Returns the chunks of Anne without those of the page.
fn without_draft() -> Vec<&'static str> {
    ANNES.into_iter().filter(|id| !id.starts_with("page:draft")).collect()
}

fn page_of(approval: &RequestApprovalResponse, page_token: &str) -> RetrieveRequest {
    RetrieveRequest { top_k: 2, page_token: Some(page_token.to_owned()), ..with(approval) }
}

fn first_page() -> RetrieveRequest {
    RetrieveRequest { top_k: 2, page_token: Some(String::new()), ..secret() }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_uses_at_once_one_is_answered() {
    let world = World::start(unchanged).await;
    let anne = world.token("anne", &[]);
    let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
    world.approve("anne", &[]);
    let answers = futures::future::join_all((0..1_000).map(|_| world.ask(with(&approval), &anne))).await;
    let (answered, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((answered.len(), refused.len()), (1, 999));
    assert_eq!(world.issuer.forms(TOKEN).len(), 1, "the issuer gives the token once, and is asked for it once");
}

#[tokio::test]
async fn an_answer_whose_client_goes_away_was_given() {
    let world = World::start(unchanged).await;
    let anne = world.token("anne", &[]);
    let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
    world.approve("anne", &[]);
    let body =
        json!({ "text": "leave", "topK": 10, "classificationMax": "secret", "approval": approval.approval.clone() });
    let address = world.running.address.to_string();
    let call = Call::json("/v1/collections/handbook/retrieve", &body).bearer(&anne);
    let mut connection = TcpStream::connect(&address).await.unwrap();
    connection.write_all(&call.bytes(&address)).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    // The client goes away after the headers.
    drop(connection);
    let again = world.ask(with(&approval), &anne).await.unwrap_err();
    assert_eq!(reason(&again), "APPROVAL_EXPIRED", "{again:?}");
}

/// The time is the shortest that can be set. The test asks until it is over, and the issuer is asked no more after that.
#[tokio::test]
async fn an_approval_ends_with_its_time() {
    let world = World::start(|approval, _| approval.expiry = Duration::from_secs(1)).await;
    let anne = world.token("anne", &[]);
    let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
    let mut last = String::new();
    for _attempt in 0..ATTEMPTS_MAX {
        last = reason(&world.ask(with(&approval), &anne).await.unwrap_err());
        if last != "APPROVAL_PENDING" {
            break;
        }
    }
    assert_eq!(last, "APPROVAL_EXPIRED");
    let polls = world.issuer.forms(TOKEN).len();
    world.approve("anne", &[]);
    let late = world.ask(with(&approval), &anne).await.unwrap_err();
    assert_eq!((reason(&late).as_str(), world.issuer.forms(TOKEN).len()), ("APPROVAL_EXPIRED", polls), "{late:?}");
}

#[tokio::test]
async fn a_replica_has_no_answer_after_another_one() {
    let world = World::start(unchanged).await;
    let anne = world.token("anne", &[]);
    let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
    world.approve("anne", &[]);
    assert_eq!(ids(&world.ask(with(&approval), &anne).await.unwrap()), ANNES);
    // An issuer does not know a question any more whose token it has given.
    world.issuer.set(TOKEN, refused("invalid_grant"));
    let data = tempfile::tempdir().unwrap();
    let replica = serve(&data, &world.issuer, unchanged).await;
    for attempt in ["the first", "the second"] {
        let request = with_token(with(&approval), &anne);
        let refused = replica.client.retrieval().retrieve(request).await.unwrap_err();
        assert_eq!(reason(&refused), "APPROVAL_EXPIRED", "{attempt}: {refused:?}");
    }
    assert_eq!(world.issuer.forms(TOKEN).len(), 2, "each server has asked once");
}

#[tokio::test]
async fn an_approval_covers_all_pages_and_no_more_chunks() {
    let world = World::start(|_, identity| identity.approval[0].chunks_max = Some(3)).await;
    let anne = world.token("anne", &[]);
    let approval = world.request(Approved::Retrieve(first_page()), &anne).await.unwrap();
    world.approve("anne", &[]);
    let first = world.ask(page_of(&approval, ""), &anne).await.unwrap();
    let second = world.ask(page_of(&approval, &first.next_page_token), &anne).await.unwrap();
    assert_eq!((first.chunks.len(), second.chunks.len()), (2, 1), "three chunks were approved");
    assert_eq!(second.next_page_token, "");
    let mut seen = [ids(&first), ids(&second)].concat();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 3, "each is another one");
    for (row, page_token) in [("the first page", ""), ("the second page", first.next_page_token.as_str())] {
        let again = world.ask(page_of(&approval, page_token), &anne).await.unwrap_err();
        assert_eq!(reason(&again), "APPROVAL_EXPIRED", "{row} is given once: {again:?}");
    }
    assert_eq!(world.issuer.forms(TOKEN).len(), 1, "the issuer is asked once");
}

#[tokio::test]
async fn a_right_that_goes_before_the_release_counts_in_every_form() {
    let world = World::start(unchanged).await;
    let anne = world.token("anne", &[]);
    let fetch = fetch_of(&ANNES);
    let approval = world.request(Approved::Fetch(fetch.clone()), &anne).await.unwrap();
    world.approve("anne", &[]);
    revoke(&world);
    let approved = FetchRequest { approval: approval.approval, ..fetch };
    let fetched = world.running.client.retrieval().fetch(with_token(approved, &anne)).await.unwrap().into_inner();
    let mut fetched: Vec<&str> = fetched.chunks.iter().map(|chunk| chunk.id.as_str()).collect();
    fetched.sort_unstable();
    assert_eq!(fetched, without_draft(), "a fetch");

    let world = World::start(unchanged).await;
    let anne = world.token("anne", &[]);
    let approval = world.request(Approved::Retrieve(first_page()), &anne).await.unwrap();
    world.approve("anne", &[]);
    let first = world.ask(page_of(&approval, ""), &anne).await.unwrap();
    revoke(&world);
    let mut next = first.next_page_token;
    // Each page has a chunk, so there are at most as many pages as chunks.
    for page in 0..ANNES.len() {
        if next.is_empty() {
            break;
        }
        match world.ask(page_of(&approval, &next), &anne).await {
            Ok(answer) => {
                let is_of_draft = ids(&answer).iter().any(|id| id.starts_with("page:draft"));
                assert!(!is_of_draft, "page {page} after the first: {answer:?}");
                next = answer.next_page_token;
            }
            // A search by words begins anew where the pages before would come out otherwise.
            Err(refused) => {
                assert_eq!(refused.code(), Code::InvalidArgument, "page {page} after the first: {refused:?}");
                next.clear();
            }
        }
    }
    assert_eq!(next, "");

    let world = World::start(unchanged).await;
    let token = world.token("anne", &[("aud", json!(MCP_URL))]);
    let search = async |more: Value| {
        let mut arguments = json!({ "query": "leave", "classification_max": "secret" });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let params = json!({ "name": "search", "arguments": arguments });
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let reply = Call::json("/mcp", &message).bearer(&token).send(&world.running.address.to_string()).await;
        reply.json()["result"].clone()
    };
    let told = search(json!({})).await;
    let shown: Value = serde_json::from_str(told["content"][1]["text"].as_str().unwrap_or_default()).unwrap();
    world.approve("anne", &[]);
    revoke(&world);
    let found = search(json!({ "approval": shown["approval"] })).await;
    let results = found["structuredContent"]["results"].as_array().map(Vec::len);
    assert_eq!(results, Some(without_draft().len()), "MCP: {found}");
    assert!(!found.to_string().contains("page:draft"), "MCP: {found}");
}

#[tokio::test]
async fn an_approval_of_one_form_is_none_of_another() {
    let world = World::start(unchanged).await;
    let anne = world.token("anne", &[]);
    let of_search = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
    let of_fetch = world.request(Approved::Fetch(fetch_of(&ANNES)), &anne).await.unwrap();
    let fetches = [
        ("the approval of a search", fetch_of(&ANNES), &of_search),
        ("one chunk less", fetch_of(&ANNES[1..]), &of_fetch),
        ("no ceiling", FetchRequest { classification_max: String::new(), ..fetch_of(&ANNES) }, &of_fetch),
    ];
    for (row, fetch, approval) in fetches {
        let fetch = FetchRequest { approval: approval.approval.clone(), ..fetch };
        let refused = world.running.client.retrieval().fetch(with_token(fetch, &anne)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{row}: {refused:?}");
    }
    let by_pages = world.ask(page_of(&of_search, ""), &anne).await.unwrap_err();
    assert_eq!(by_pages.code(), Code::InvalidArgument, "pages of fewer chunks each: {by_pages:?}");
    let of_other = world.ask(with(&of_fetch), &anne).await.unwrap_err();
    assert_eq!(of_other.code(), Code::InvalidArgument, "the approval of a fetch: {of_other:?}");
    assert!(world.issuer.forms(TOKEN).is_empty(), "the issuer was asked about none of them");
    world.approve("anne", &[]);
    let fetch = FetchRequest { approval: of_fetch.approval, ..fetch_of(&ANNES) };
    let answer = world.running.client.retrieval().fetch(with_token(fetch, &anne)).await.unwrap().into_inner();
    assert_eq!(answer.chunks.len(), ANNES.len(), "none of them used it up");
}

/// Returns a document of one secret chunk with a vector.
fn with_vector() -> Document {
    let mut document = document("document:roadmap", &["about leave"]);
    document.chunks[0].vector = vec![1.0, 0.5];
    document.chunks[0].metadata.insert("classification".to_owned(), text_value("secret"));
    document
}

#[tokio::test]
async fn searches_of_every_form_are_approved_with_all_their_fields() {
    let world = World::start(unchanged).await;
    let message = UpsertDocumentsRequest { collection: "vectors".to_owned(), document: Some(with_vector()) };
    let local = world.running.app.in_process().unwrap();
    local.client().ingest().upsert_documents(tokio_stream::iter([message])).await.unwrap();
    let anne = world.token("anne", &[]);
    let vector = |last: f32| Vector { values: vec![1.0, last] };
    let hybrid = |text: &str, last: f32| Query::Hybrid(Hybrid { text: text.to_owned(), vector: Some(vector(last)) });
    // The query as it is approved, and others that differ in one thing.
    let rows = [
        (
            "a text",
            Query::Text("leave".to_owned()),
            vec![Query::Text("leaves".to_owned()), Query::Vector(vector(0.5)), hybrid("leave", 0.5)],
        ),
        (
            "a vector",
            Query::Vector(vector(0.5)),
            vec![Query::Vector(vector(-0.5)), Query::Vector(vector(0.500_000_1)), hybrid("leave", 0.5)],
        ),
        (
            "both",
            hybrid("leave", 0.5),
            vec![hybrid("leaves", 0.5), hybrid("leave", -0.5), Query::Text("leave".to_owned())],
        ),
    ];
    for (row, query, others) in rows {
        let good = RetrieveRequest { collection: "vectors".to_owned(), query: Some(query), ..secret() };
        let asked = world.request(Approved::Retrieve(good.clone()), &anne).await.unwrap();
        world.approve("anne", &[]);
        let polls = world.issuer.forms(TOKEN).len();
        let good = RetrieveRequest { approval: asked.approval, ..good };
        let of_nothing = Filter { kind: Some(filter::Kind::AllOf(FilterList::default())) };
        let changed = [
            RetrieveRequest { filter: Some(of_nothing), ..good.clone() },
            RetrieveRequest { min_score: Some(0.0), ..good.clone() },
            RetrieveRequest { per_document_max: 1, ..good.clone() },
            RetrieveRequest { top_k: 9, ..good.clone() },
            RetrieveRequest { collection: "handbook".to_owned(), ..good.clone() },
            RetrieveRequest { classification_max: "internal".to_owned(), ..good.clone() },
        ];
        let of_others = others.into_iter().map(|query| RetrieveRequest { query: Some(query), ..good.clone() });
        for request in of_others.chain(changed) {
            let told = format!("{row}: {request:?}");
            let refused = world.ask(request, &anne).await.expect_err(&told);
            assert_eq!(refused.code(), Code::InvalidArgument, "{told}: {refused:?}");
        }
        assert_eq!(world.issuer.forms(TOKEN).len(), polls, "{row}: nothing is used up");
        let answer = world.ask(good, &anne).await.unwrap();
        assert_eq!(ids(&answer), ["document:roadmap#0"], "{row}");
    }
}

#[tokio::test]
async fn a_token_without_the_details_proves_nothing() {
    let details = |value: Value| vec![("authorization_details", value)];
    let past = vec![("exp", json!(now() - 60)), ("iat", json!(now() - 120))];
    let rows = [
        ("no details", "anne", vec![]),
        ("null", "anne", details(json!(null))),
        ("an empty list", "anne", details(json!([]))),
        ("a text", "anne", details(json!("[]"))),
        ("an object that allows all", "anne", details(json!([{ "type": "ragward_retrieval" }]))),
    ];
    for (row, subject, claims) in rows {
        let world = World::start(unchanged).await;
        let anne = world.token("anne", &[]);
        let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
        let token = world.token(subject, &claims);
        world.issuer.set(TOKEN, HttpAnswer::Json(json!({ "access_token": token, "token_type": "Bearer" })));
        let unproved = world.ask(with(&approval), &anne).await.unwrap_err();
        assert_eq!(reason(&unproved), "APPROVAL_UNPROVED", "{row}: {unproved:?}");
    }
    // With the details that were asked for, one other thing is wrong.
    let rows = [
        ("it has expired", "anne", past),
        ("an agent's", "anne", vec![acted("helper")]),
        ("a client's that is no person's", "anne", vec![("client_id", json!("crawler"))]),
        ("a name that begins alike", "anne2", vec![]),
        ("a name in capitals", "Anne", vec![]),
        ("several audiences without ours", "anne", vec![("aud", json!(["https://other.example", "ragward"]))]),
        ("an audience that begins alike", "anne", vec![("aud", json!("https://ragward.example/api/"))]),
    ];
    for (row, subject, claims) in rows {
        let world = World::start(unchanged).await;
        let anne = world.token("anne", &[]);
        let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
        world.approve(subject, &claims);
        let unproved = world.ask(with(&approval), &anne).await.unwrap_err();
        assert_eq!(reason(&unproved), "APPROVAL_UNPROVED", "{row}: {unproved:?}");
    }
}

#[tokio::test]
async fn one_name_at_two_issuers_is_two_persons() {
    let other_key = SigningKey::es256("key");
    let other = TestIssuer::start(&[&other_key]).await;
    let world = World::start(|_, identity| {
        identity.issuers[0].name = ShortName::parse("home");
        let people = identity.issuers[0].people.clone();
        let partner = IssuerConfig { name: ShortName::parse("partner"), people, ..IssuerConfig::new(&other.url) };
        identity.issuers.push(partner);
    })
    .await;
    let right = RelationshipTuple::parse("user:home/anne", "reader", "document:roadmap").unwrap();
    world.running.write(vec![right]);
    let (hers, theirs) = (world.token("anne", &[]), other_key.sign(&other.claims("anne", RETRIEVE)));
    let public = ["document:welcome#0"];
    assert_eq!(seen(&world.running, "", &hers).await.unwrap(), ["document:roadmap#0", "document:welcome#0"]);
    assert_eq!(seen(&world.running, "", &theirs).await.unwrap(), public);
    for (row, user, token) in [("hers", "user:partner/anne", &hers), ("theirs", "user:home/anne", &theirs)] {
        let refused = seen(&world.running, user, token).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{row}: {refused:?}");
    }

    // The details that her agent is told to ask her issuer for are of no use in a token of the other issuer.
    let required = world.ask(secret(), &hers).await.unwrap_err();
    let required = required.get_error_details().error_info().unwrap().metadata["authorization_details"].clone();
    let details: Value = serde_json::from_str(&required).unwrap();
    let mut claims = other.claims("anne", RETRIEVE);
    (claims["authorization_details"], claims["jti"]) = (details.clone(), json!("approved"));
    let refused = world.ask(secret(), &other_key.sign(&claims)).await.unwrap_err();
    assert_eq!(reason(&refused), "APPROVAL_REQUIRED", "{refused:?}");
    let own = world.token("anne", &[("authorization_details", details), ("jti", json!("approved"))]);
    let answer = world.ask(secret(), &own).await.unwrap();
    assert_eq!(answer.chunks.len(), 4, "in a token of her issuer it is");

    let unasked = world.request(Approved::Retrieve(secret()), &theirs).await.unwrap_err();
    assert_eq!(unasked.code(), Code::PermissionDenied, "their issuer is not asked: {unasked:?}");
    assert!(world.issuer.forms(ASK).is_empty());
    let approval = world.request(Approved::Retrieve(secret()), &hers).await.unwrap();
    let refused = world.ask(with(&approval), &theirs).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(world.issuer.forms(TOKEN).is_empty(), "nobody was asked for them");
    // The issuer gives the token of the other one, with the details that were asked for.
    let asked = world.issuer.forms(ASK).pop().unwrap();
    let mut claims = other.claims("anne", RETRIEVE);
    claims["authorization_details"] = serde_json::from_str(&asked["authorization_details"]).unwrap();
    let foreign = json!({ "access_token": other_key.sign(&claims), "token_type": "Bearer" });
    world.issuer.set(TOKEN, HttpAnswer::Json(foreign));
    let unproved = world.ask(with(&approval), &hers).await.unwrap_err();
    assert_eq!(reason(&unproved), "APPROVAL_UNPROVED", "{unproved:?}");
}

#[tokio::test]
async fn a_hundred_requests_ring_few_times_and_block_nobody_else() {
    let world = World::start(|_, identity| identity.issuers[0].people.clients.push("other".to_owned())).await;
    let (anne, bob) = (world.token("anne", &[]), world.token("bob", &[]));
    let through_other = world.token("anne", &[("client_id", json!("other"))]);
    let about = |top_k: u32| Approved::Retrieve(RetrieveRequest { top_k, ..secret() });
    let mut first = None;
    for top_k in 1..=100 {
        match world.request(about(top_k), &anne).await {
            Ok(approval) => first = first.or(Some(approval)),
            Err(refused) => assert_eq!(refused.code(), Code::ResourceExhausted, "{top_k}: {refused:?}"),
        }
    }
    assert_eq!(world.issuer.forms(ASK).len(), OPEN_MAX, "of a hundred");
    world.request(about(50), &through_other).await.expect("another client asks her");
    world.request(about(50), &bob).await.expect("the same client asks somebody else");
    assert_eq!(world.issuer.forms(ASK).len(), OPEN_MAX + 2);

    // After a no, the client that asked has to wait, and no other one.
    world.issuer.set(TOKEN, refused("access_denied"));
    let denied = RetrieveRequest { top_k: 1, ..with(&first.expect("the first one was asked")) };
    let denied = world.ask(denied, &anne).await.unwrap_err();
    assert_eq!(reason(&denied), "APPROVAL_DENIED", "{denied:?}");
    let paused = world.request(about(60), &anne).await.unwrap_err();
    assert_eq!(paused.code(), Code::ResourceExhausted, "{paused:?}");
    world.request(about(60), &through_other).await.expect("the no was not to this client");
    world.request(about(60), &bob).await.expect("the no was not his");
}

#[tokio::test]
async fn a_client_that_is_called_like_a_person_is_not_asked() {
    // Both may be used by people, so that the names alone decide.
    let clients = ["anne", "crawler"].map(str::to_owned);
    let world = World::start(|_, identity| identity.issuers[0].people.clients.extend(clients)).await;
    let rows = [
        ("a client with the name of a person", world.token("anne", &[("client_id", json!("anne"))])),
        ("a client that names itself", world.token("crawler", &[("client_id", json!("crawler"))])),
    ];
    for (row, token) in &rows {
        let refused = world.request(Approved::Retrieve(secret()), token).await.unwrap_err();
        let is_refused = [Code::PermissionDenied, Code::Unauthenticated].contains(&refused.code());
        assert!(is_refused, "{row}: {refused:?}");
        let refused = world.ask(about_leave("user:anne"), token).await.unwrap_err();
        let is_refused = [Code::PermissionDenied, Code::Unauthenticated].contains(&refused.code());
        assert!(is_refused, "{row}, as a person: {refused:?}");
    }
    assert!(world.issuer.forms(ASK).is_empty(), "nobody was asked");
}
