//! Requests that a person has to approve, with a token that the agent's own program asks the issuer for.

use std::path::Path;

use ragward::audit::{AuditedApproval, Record};
use ragward::identity::DelegationOn;
use ragward::identity::config::{ApprovalConfig, DetailsConfig, IdentityConfig};
use ragward::language::RelationshipTuple;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{FetchRequest, Hybrid, RecheckRequest, RetrieveRequest, RetrieveResponse, Semantic};
use ragward::server_config::{McpConfig, McpSearchBy};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::identity::delegation::{acted, delegated};
use crate::identity::rpcs::records;
use crate::identity::world::{ANNES, RETRIEVE, about_leave, identity, start, start_with, with_token};
use crate::support::http::Call;
use crate::support::issuer::{SigningKey, TestIssuer};
use crate::support::running::Running;

/// The chunks that Anne may see and that need no approval.
const INTERNAL: [&str; 3] = ["document:roadmap#0", "document:welcome#0", "page:draft#0"];
const MCP_URL: &str = "https://ragward.example/mcp";

/// A server that asks for approvals, on a data directory that outlives it.
struct World {
    running: Running,
    key: SigningKey,
    issuer: TestIssuer,
    data: tempfile::TempDir,
}

/// Asks for approvals of secret chunks, and of all chunks of another collection.
fn with_approvals(identity: &mut IdentityConfig) {
    identity.details = DetailsConfig {
        classification_key: Some("classification".to_owned()),
        classifications: ["public", "internal", "secret", "sealed"].map(str::to_owned).to_vec(),
        ..DetailsConfig::default()
    };
    let of_class = ApprovalConfig { classification: Some("secret".to_owned()), ..ApprovalConfig::default() };
    let of_collection = ApprovalConfig { collection: Some("hr".to_owned()), ..ApprovalConfig::default() };
    identity.approval = vec![of_class, of_collection];
}

impl World {
    async fn start(change: impl FnOnce(&mut IdentityConfig)) -> Self {
        let key = SigningKey::es256("key");
        let issuer = TestIssuer::start(&[&key]).await;
        let data = tempfile::tempdir().unwrap();
        let mut identity = identity(&issuer);
        with_approvals(&mut identity);
        change(&mut identity);
        let running = start(data.path(), identity).await;
        Self { running, key, issuer, data }
    }

    fn token(&self, subject: &str, more: &[(&str, Value)]) -> String {
        let mut claims = self.issuer.claims(subject, RETRIEVE);
        for (name, value) in more {
            claims[*name] = value.clone();
        }
        self.key.sign(&claims)
    }

    /// Returns the token that the issuer gives once the person has approved these details.
    fn approved(&self, subject: &str, details: &Value, id: &str) -> String {
        self.token(subject, &[("authorization_details", details.clone()), ("jti", json!(id))])
    }

    async fn ask(&self, request: RetrieveRequest, token: &str) -> Result<RetrieveResponse, Status> {
        Ok(self.running.client.retrieval().retrieve(with_token(request, token)).await?.into_inner())
    }

    async fn fetch(&self, request: FetchRequest, token: &str) -> Result<Vec<String>, Status> {
        let answer = self.running.client.retrieval().fetch(with_token(request, token)).await?.into_inner();
        Ok(answer.chunks.into_iter().map(|chunk| chunk.id).collect())
    }
}

fn secret() -> RetrieveRequest {
    RetrieveRequest { classification_max: "secret".to_owned(), ..about_leave("") }
}

fn ids(answer: &RetrieveResponse) -> Vec<&str> {
    let mut ids: Vec<&str> = answer.chunks.iter().map(|chunk| chunk.id.as_str()).collect();
    ids.sort_unstable();
    ids
}

/// Returns the details that a refusal asks for.
fn details(status: &Status) -> Value {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!((status.code(), info.reason.as_str()), (Code::PermissionDenied, "APPROVAL_REQUIRED"), "{status:?}");
    serde_json::from_str(&info.metadata["authorization_details"]).unwrap()
}

fn approvals(data: &Path) -> Vec<AuditedApproval> {
    records(data).into_iter().filter_map(|record: Record| record.approval).collect()
}

#[tokio::test]
async fn an_approved_request_is_answered_once() {
    let world = World::start(|_| {}).await;
    let plain = world.token("anne", &[]);
    let answer = world.ask(about_leave(""), &plain).await.unwrap();
    assert_eq!(ids(&answer), INTERNAL, "a request without a ceiling gets what needs no approval");

    let asked = details(&world.ask(secret(), &plain).await.unwrap_err());
    assert_eq!((&asked[0]["chunks_max"], &asked[0]["classification_max"]), (&json!(10), &json!("secret")));
    let token = world.approved("anne", &asked, "approved");
    let meant = || Semantic { text: "leave".to_owned() };
    let both = || Hybrid { text: "leave".to_owned(), vector: None };
    let others = [
        ("another text", RetrieveRequest { query: Some(Query::Text("leaves".to_owned())), ..secret() }),
        ("its meaning", RetrieveRequest { query: Some(Query::Semantic(meant())), ..secret() }),
        ("its words and their meaning", RetrieveRequest { query: Some(Query::Hybrid(both())), ..secret() }),
        ("more chunks", RetrieveRequest { top_k: 11, ..secret() }),
        ("a higher ceiling", RetrieveRequest { classification_max: "sealed".to_owned(), ..secret() }),
        ("another collection", RetrieveRequest { collection: "hr".to_owned(), ..secret() }),
        ("a lowest score", RetrieveRequest { min_score: Some(0.0), ..secret() }),
        ("one of a document", RetrieveRequest { per_document_max: 1, ..secret() }),
    ];
    for (row, request) in others {
        let refused = world.ask(request, &token).await.unwrap_err();
        assert_ne!(details(&refused), asked, "{row}: it is told what to ask for");
    }
    let not_secret = world.ask(about_leave(""), &token).await.unwrap_err();
    assert_eq!(not_secret.code(), Code::PermissionDenied, "{not_secret:?}");
    // None of them used the approval up.
    assert_eq!(ids(&world.ask(secret(), &token).await.unwrap()), ANNES);
    for (row, again) in [("the same token", token), ("another token", world.approved("anne", &asked, "refreshed"))] {
        let refused = world.ask(secret(), &again).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{row}: {refused:?}");
    }
    // Somebody who may see nothing of it gets the same refusal, and nothing by an approval.
    let nobodys = details(&world.ask(secret(), &world.token("nobody", &[])).await.unwrap_err());
    assert_eq!(nobodys[0].as_object().unwrap().keys().len(), asked[0].as_object().unwrap().keys().len());
    let of_nobody = world.approved("nobody", &nobodys, "nobody");
    assert_eq!(ids(&world.ask(secret(), &of_nobody).await.unwrap()), ["document:welcome#0", "document:welcome#1"]);

    let kept = approvals(world.data.path());
    let given: Vec<&AuditedApproval> = kept.iter().filter(|kept| kept.state == AuditedApproval::GIVEN).collect();
    let first = given.first().unwrap();
    assert_eq!(first.approved_by.as_deref(), Some("anne"));
    assert_eq!(first.request_sha256.as_deref(), asked[0]["request_sha256"].as_str());
    assert_eq!((first.classification_max.as_deref(), first.chunks_max), (Some("secret"), Some(10)));
    assert!(first.approved_at.is_some() && first.issuer.as_deref() == Some(world.issuer.url.as_str()));
    assert_eq!(kept.iter().filter(|kept| kept.state == AuditedApproval::REQUIRED).count(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_requests_at_once_one_is_answered() {
    let world = World::start(|_| {}).await;
    let asked = details(&world.ask(secret(), &world.token("anne", &[])).await.unwrap_err());
    let token = world.approved("anne", &asked, "shared");
    let answers = futures::future::join_all((0..1_000).map(|_| world.ask(secret(), &token))).await;
    let (answered, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((answered.len(), refused.len()), (1, 999));
}

#[tokio::test]
async fn fetches_vectors_and_rechecks_can_be_approved() {
    let world = World::start(|_| {}).await;
    let plain = world.token("anne", &[]);
    let fetch = |chunk_ids: &[&str], document_ids: &[&str]| FetchRequest {
        collection: "handbook".to_owned(),
        chunk_ids: chunk_ids.iter().map(|id| (*id).to_owned()).collect(),
        document_ids: document_ids.iter().map(|id| (*id).to_owned()).collect(),
        classification_max: "secret".to_owned(),
        ..FetchRequest::default()
    };
    let one = fetch(&["document:roadmap#1"], &[]);
    let asked = details(&world.fetch(one.clone(), &plain).await.unwrap_err());
    assert_eq!((&asked[0]["actions"], &asked[0]["chunks_max"]), (&json!(["fetch"]), &json!(1)));
    let token = world.approved("anne", &asked, "fetch");
    details(&world.fetch(fetch(&["document:welcome#1"], &[]), &token).await.unwrap_err());
    details(&world.fetch(fetch(&[], &["document:roadmap"]), &token).await.unwrap_err());
    details(&world.ask(secret(), &token).await.unwrap_err());
    assert_eq!(world.fetch(one.clone(), &token).await.unwrap(), ["document:roadmap#1"]);
    assert_eq!(world.fetch(one, &token).await.unwrap_err().code(), Code::Unauthenticated);
    let without = FetchRequest { classification_max: String::new(), ..fetch(&ANNES, &[]) };
    assert_eq!(world.fetch(without, &plain).await.unwrap(), INTERNAL);

    let recheck = async |token: &str| {
        let (collection, chunk_ids) = ("hr".to_owned(), vec!["a".to_owned()]);
        let request = RecheckRequest { collection, chunk_ids, ..RecheckRequest::default() };
        world.running.client.retrieval().recheck(with_token(request, token)).await
    };
    let asked = details(&recheck(&plain).await.unwrap_err());
    assert_eq!(asked[0]["actions"], json!(["recheck"]));
    let refused = recheck(&world.approved("anne", &asked, "recheck")).await.map(drop).err().map(|status| status.code());
    assert_ne!(refused, Some(Code::PermissionDenied));
}

#[tokio::test]
async fn an_approval_covers_all_pages_and_no_more_chunks() {
    let world = World::start(|identity| identity.approval[0].chunks_max = Some(5)).await;
    let page = |token: String| RetrieveRequest { top_k: 2, page_token: Some(token), ..secret() };
    let asked = details(&world.ask(page(String::new()), &world.token("anne", &[])).await.unwrap_err());
    assert_eq!(asked[0]["chunks_max"], 5);
    let token = world.approved("anne", &asked, "pages");
    let first = world.ask(page(String::new()), &token).await.unwrap();
    let next = first.next_page_token.clone();
    assert!(!next.is_empty(), "{first:?}");
    let second = world.ask(page(next.clone()), &token).await.unwrap();
    let again = world.ask(page(next), &token).await.unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated, "a page is given once: {again:?}");
    let third = world.ask(page(second.next_page_token.clone()), &token).await.unwrap();
    assert_eq!((first.chunks.len(), second.chunks.len(), third.chunks.len()), (2, 2, 1));
    assert_eq!(third.next_page_token, "", "five chunks were approved");
    let mut seen: Vec<&str> = [&first, &second, &third].into_iter().flat_map(ids).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 5);
    // The first page is given once, too, and another approval does not go on with these pages.
    assert_eq!(world.ask(page(String::new()), &token).await.unwrap_err().code(), Code::Unauthenticated);
    let other = details(&world.ask(page(String::new()), &world.token("anne", &[])).await.unwrap_err());
    let other = world.approved("anne", &other, "other");
    let foreign = world.ask(page(first.next_page_token), &other).await.unwrap_err();
    assert_eq!(foreign.code(), Code::InvalidArgument, "{foreign:?}");
}

#[tokio::test]
async fn a_request_that_needs_no_approval_has_pages() {
    let world = World::start(|_| {}).await;
    let anne = world.token("anne", &[]);
    let page = |token: String| RetrieveRequest { top_k: 2, page_token: Some(token), ..about_leave("") };
    let first = world.ask(page(String::new()), &anne).await.unwrap();
    let second = world.ask(page(first.next_page_token.clone()), &anne).await.unwrap();
    let mut seen = [ids(&first), ids(&second)].concat();
    seen.sort_unstable();
    assert_eq!(seen, INTERNAL);
}

#[tokio::test]
async fn an_approval_widens_nothing() {
    let world = World::start(delegated(DelegationOn::Guard, "agent_reader")).await;
    let asked = details(&world.ask(secret(), &world.token("anne", &[acted("helper")])).await.unwrap_err());
    let approval = ("authorization_details", asked.clone());
    let of_agent = world.token("anne", &[acted("helper"), approval, ("jti", json!("agent"))]);
    // A right that is taken away between approval and release counts.
    let tuple = RelationshipTuple::parse("agent:helper", "agent_reader", "page:draft").unwrap();
    world.running.delete(tuple);
    let answer = world.ask(secret(), &of_agent).await.unwrap();
    assert_eq!(ids(&answer), ["document:welcome#0", "document:welcome#1"]);
    // The yes of one person is not that of another.
    let asked = details(&world.ask(secret(), &world.token("anne", &[])).await.unwrap_err());
    let of_bob = world.approved("bob", &asked, "bob");
    details(&world.ask(secret(), &of_bob).await.unwrap_err());
    // Nobody approves for somebody whom a pipeline names.
    let pipeline = world.token("anne", &[("scope", json!("ragward:retrieve ragward:assert_user"))]);
    let named = RetrieveRequest { user: "user:bob".to_owned(), ..secret() };
    let refused = world.ask(named, &pipeline).await.unwrap_err();
    assert!(refused.code() == Code::PermissionDenied && refused.message().contains("only people"), "{refused:?}");
}

#[tokio::test]
async fn doors_over_http_say_what_to_ask_for() {
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let data = tempfile::tempdir().unwrap();
    let mut identity = identity(&issuer);
    with_approvals(&mut identity);
    let mcp = McpConfig {
        url: MCP_URL.to_owned(),
        collection: Some("handbook".to_owned()),
        url_key: None,
        url_hosts: Vec::new(),
        search_by: McpSearchBy::Words,
        explain: false,
    };
    let running = start_with(data.path(), identity, |config| config.server.mcp = Some(mcp)).await;
    let address = running.address.to_string();
    let body = json!({ "text": "leave", "topK": 10, "classificationMax": "secret" });
    let call = Call::json("/v1/collections/handbook/retrieve", &body);
    let token = key.sign(&issuer.claims("anne", RETRIEVE));
    let reply = call.bearer(&token).send(&address).await;
    assert_eq!(reply.status, 403, "{}", reply.text());
    let asked = reply.json()["details"][0]["debug"]["metadata"]["authorization_details"].clone();
    let asked: Value = serde_json::from_str(asked.as_str().unwrap()).unwrap();
    let challenge = reply.headers.iter().find(|(name, _)| name == "www-authenticate").unwrap().1.clone();
    assert!(challenge.starts_with("Bearer error=\"insufficient_authorization\""), "{challenge}");
    let remediation = challenge.split("authorization_remediation=\"").nth(1).unwrap().split('"').next().unwrap();
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let remediation = base64::Engine::decode(&engine, remediation).unwrap();
    let remediation: Value = serde_json::from_slice(&remediation).unwrap();
    assert_eq!(remediation, json!({ "authorization_details": asked }));

    let mut claims = issuer.claims("anne", RETRIEVE);
    claims["aud"] = json!(MCP_URL);
    let arguments = json!({ "query": "leave", "classification_max": "secret" });
    let params = json!({ "name": "search", "arguments": arguments });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let reply = Call::json("/mcp", &message).bearer(&key.sign(&claims)).send(&address).await;
    let answer = reply.json();
    assert_eq!((reply.status, &answer["result"]["isError"]), (200, &json!(true)), "{answer}");
    let shown: Value = serde_json::from_str(answer["result"]["content"][1]["text"].as_str().unwrap()).unwrap();
    assert_eq!(shown["error"], "APPROVAL_REQUIRED");
    claims["authorization_details"] = shown["authorization_details"].clone();
    claims["jti"] = json!("approved");
    let reply = Call::json("/mcp", &message).bearer(&key.sign(&claims)).send(&address).await;
    let found = reply.json()["result"]["structuredContent"]["results"].as_array().map(Vec::len);
    assert_eq!(found, Some(ANNES.len()), "{}", reply.text());
}
