//! Approvals that Ragward itself asks people for, at an issuer that answers well or badly.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ragward::audit::AuditedApproval;
use ragward::config::Config;
use ragward::identity::config::{
    ApprovalConfig, BackchannelConfig, BindingMessage, Delivery, DetailsConfig, IdentityConfig, IssuerDetails,
    StepUpConfig,
};
use ragward::language::RelationshipTuple;
use ragward::proto::retrieval::request_approval_request::Request as Approved;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{
    FetchRequest, RequestApprovalRequest, RequestApprovalResponse, RetrieveRequest, RetrieveResponse,
};
use ragward::server_config::{McpConfig, McpSearchBy};
use ragward::settings::{OAuthClientConfig, SecretFile};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::identity::delegation::acted;
use crate::identity::rpcs::records;
use crate::identity::secrets::http_get;
use crate::identity::world::{ANNES, RETRIEVE, about_leave, identity, start_with, with_token};
use crate::support::http::Call;
use crate::support::issuer::{HttpAnswer, SigningKey, TestIssuer};
use crate::support::running::{Running, config};
use crate::support::served::Served;

pub(crate) const ASK: &str = "/ask";
pub(crate) const TOKEN: &str = "/token";
pub(crate) const PUBLIC_URL: &str = "https://ragward.example";
const MCP_URL: &str = "https://ragward.example/mcp";
pub(crate) const SECRET: &str = "the secret of the client, which nobody else sees";

/// A change of the settings.
type Change = fn(&mut BackchannelConfig, &mut IdentityConfig);
/// A row's name; the settings; the issuer's answer, or more claims of the token that it gives, and the token's subject; the
/// reason of the refusal, empty for an answer.
type Row = (&'static str, Change, Option<HttpAnswer>, Vec<(&'static str, Value)>, &'static str, &'static str);

/// A server that asks people, and its issuer.
pub(crate) struct World {
    pub(crate) running: Running,
    key: SigningKey,
    pub(crate) issuer: TestIssuer,
    pub(crate) data: TempDir,
}

/// Lets secret chunks need approvals.
pub(crate) fn rules(identity: &mut IdentityConfig) {
    identity.details = DetailsConfig {
        classification_key: Some("classification".to_owned()),
        classifications: ["public", "internal", "secret"].map(str::to_owned).to_vec(),
        ..DetailsConfig::default()
    };
    identity.approval = vec![ApprovalConfig { classification: Some("secret".to_owned()), ..ApprovalConfig::default() }];
}

/// The settings of a server that asks for approvals.
pub(crate) struct Settings {
    pub(crate) identity: IdentityConfig,
    pub(crate) approval: BackchannelConfig,
    pub(crate) mcp: McpConfig,
}

/// Returns settings with a key for approvals that outlives the server.
pub(crate) fn settings(
    data: &TempDir,
    issuer: &TestIssuer,
    change: impl FnOnce(&mut BackchannelConfig, &mut IdentityConfig),
) -> Settings {
    let file = |name: &str, text: &str| {
        let path = data.path().join(name);
        std::fs::write(&path, text).unwrap();
        SecretFile::new(path)
    };
    let mut approval = BackchannelConfig {
        issuer: issuer.url.clone(),
        client: OAuthClientConfig::with_secret("ragward", file("client.secret", SECRET)),
        key_file: Some(file("approval.key", "a key of at least thirty-two bytes")),
        delivery: Delivery::Poll,
        scope: format!("openid {RETRIEVE}"),
        binding_message: BindingMessage::Code,
        show_query: false,
        expiry: Duration::from_mins(5),
        details: IssuerDetails::Required,
        page_url: None,
    };
    let mut identity = identity(issuer);
    // The token of this client proves an approval, so it counts as a person's own.
    identity.issuers[0].people.clients.push("ragward".to_owned());
    rules(&mut identity);
    change(&mut approval, &mut identity);
    let mcp = McpConfig {
        url: MCP_URL.to_owned(),
        collection: Some("handbook".to_owned()),
        url_key: None,
        url_hosts: Vec::new(),
        search_by: McpSearchBy::Words,
        explain: false,
    };
    Settings { identity, approval, mcp }
}

/// Starts a server with these settings.
pub(crate) async fn serve(
    data: &TempDir,
    issuer: &TestIssuer,
    change: impl FnOnce(&mut BackchannelConfig, &mut IdentityConfig),
) -> Running {
    let Settings { identity, approval, mcp } = settings(data, issuer, change);
    let change = |config: &mut Config| {
        config.approval = Some(approval);
        config.server.public_url = Some(PUBLIC_URL.to_owned());
        config.server.mcp = Some(mcp);
    };
    start_with(data.path(), identity, change).await
}

impl World {
    pub(crate) async fn start(change: impl FnOnce(&mut BackchannelConfig, &mut IdentityConfig)) -> Self {
        let key = SigningKey::es256("key");
        let issuer = TestIssuer::start(&[&key]).await;
        issuer.serve_backchannel(ASK, TOKEN);
        issuer.set(ASK, HttpAnswer::Json(json!({"auth_req_id": "question", "expires_in": 120, "interval": 1})));
        issuer.set(TOKEN, refused("authorization_pending"));
        let data = tempfile::tempdir().unwrap();
        let running = serve(&data, &issuer, change).await;
        Self { running, key, issuer, data }
    }

    pub(crate) fn token(&self, subject: &str, more: &[(&str, Value)]) -> String {
        let mut claims = self.issuer.claims(subject, RETRIEVE);
        for (name, value) in more {
            claims[*name] = value.clone();
        }
        self.key.sign(&claims)
    }

    pub(crate) async fn request(&self, request: Approved, token: &str) -> Result<RequestApprovalResponse, Status> {
        let request = RequestApprovalRequest { request: Some(request), purpose: "answer a question".to_owned() };
        Ok(self.running.client.retrieval().request_approval(with_token(request, token)).await?.into_inner())
    }

    pub(crate) async fn ask(&self, request: RetrieveRequest, token: &str) -> Result<RetrieveResponse, Status> {
        Ok(self.running.client.retrieval().retrieve(with_token(request, token)).await?.into_inner())
    }

    /// Lets the issuer put its questions under this id, and wait a minute between polls.
    pub(crate) fn asks_as(&self, id: &str) {
        let asked = json!({ "auth_req_id": id, "expires_in": 120, "interval": 60 });
        self.issuer.set(ASK, HttpAnswer::Json(asked));
    }

    /// Lets the issuer give a token with the details that Ragward asked for, and with other claims.
    pub(crate) fn approve(&self, subject: &str, more: &[(&str, Value)]) {
        let asked = self.issuer.forms(ASK).pop().unwrap();
        let details = asked.get("authorization_details").map(|text| serde_json::from_str::<Value>(text).unwrap());
        let mut claims = vec![("jti", json!("of the approval"))];
        claims.extend(details.map(|details| ("authorization_details", details)));
        let token = self.token(subject, &[claims, more.to_vec()].concat());
        self.issuer.set(TOKEN, HttpAnswer::Json(json!({"access_token": token, "token_type": "Bearer"})));
    }
}

/// A private key of Ragward's client.
struct ClientKey {
    pem: String,
    public: Vec<u8>,
}

impl ClientKey {
    fn new() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref(), &random).unwrap();
        let encoded = STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{encoded}\n-----END PRIVATE KEY-----\n");
        Self { pem, public: pair.public_key().as_ref().to_vec() }
    }

    /// Returns the claims of an assertion, whose signature must be of this key.
    fn verified(&self, assertion: &str) -> Value {
        let (signed, signature) = assertion.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.public);
        key.verify(signed.as_bytes(), &signature).unwrap();
        let (_header, claims) = signed.split_once('.').unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
    }
}

pub(crate) fn refused(code: &str) -> HttpAnswer {
    HttpAnswer::Refusal(400, json!({ "error": code }))
}

pub(crate) fn secret() -> RetrieveRequest {
    RetrieveRequest { classification_max: "secret".to_owned(), ..about_leave("") }
}

pub(crate) fn with(approval: &RequestApprovalResponse) -> RetrieveRequest {
    RetrieveRequest { approval: approval.approval.clone(), ..secret() }
}

pub(crate) fn ids(answer: &RetrieveResponse) -> Vec<&str> {
    let mut ids: Vec<&str> = answer.chunks.iter().map(|chunk| chunk.id.as_str()).collect();
    ids.sort_unstable();
    ids
}

pub(crate) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

#[tokio::test]
async fn a_person_says_yes_and_the_request_is_answered_once() {
    let world = World::start(|_, _| {}).await;
    let anne = world.token("anne", &[]);
    let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
    let asked = world.issuer.forms(ASK).pop().unwrap();
    let field = |name: &str| asked.get(name).map(String::as_str);
    assert_eq!((field("login_hint"), field("binding_message")), (Some("anne"), Some(approval.code.as_str())));
    assert_eq!((field("client_id"), field("client_secret")), (Some("ragward"), Some(SECRET)));
    let details: Value = serde_json::from_str(field("authorization_details").unwrap()).unwrap();
    assert_eq!((&details[0]["purpose"], &details[0]["chunks_max"]), (&json!("answer a question"), &json!(10)));
    assert_eq!(details[0]["requested_by"], json!(["assistant"]));
    assert!(!format!("{asked:?}").contains("leave"), "the query is not told");
    assert!(!asked.contains_key("client_notification_token"), "nobody is notified");

    let again = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
    assert_eq!((again.approval, world.issuer.forms(ASK).len()), (approval.approval.clone(), 1), "an equal one joins");
    world.approve("anne", &[]);
    // The right to a page is taken away meanwhile.
    world.running.delete(RelationshipTuple::parse("user:anne", "reader", "page:draft").unwrap());
    let mut left = ANNES.to_vec();
    left.retain(|id| !id.starts_with("page:draft"));
    let answer = world.ask(with(&approval), &anne).await.unwrap();
    assert_eq!(ids(&answer), left);
    let used = world.ask(with(&approval), &anne).await.unwrap_err();
    assert_eq!(reason(&used), "APPROVAL_EXPIRED", "{used:?}");

    let kept: Vec<AuditedApproval> =
        records(world.data.path()).into_iter().filter_map(|record| record.approval).collect();
    assert_eq!(kept[0].state, AuditedApproval::REQUESTED);
    assert_eq!(kept[1], kept[0], "who joins asks for the same");
    let given = kept.iter().find(|kept| kept.state == AuditedApproval::GIVEN).unwrap();
    assert_eq!((given.approved_by.as_deref(), given.evidence.as_deref()), (Some("anne"), Some("details")));
    assert_eq!(given.request_sha256.as_deref(), details[0]["request_sha256"].as_str());
}

#[tokio::test]
async fn the_secret_of_the_client_may_change_before_the_answer() {
    let world = World::start(|_, _| {}).await;
    let anne = world.token("anne", &[]);
    let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
    std::fs::write(world.data.path().join("client.secret"), "the next secret").unwrap();
    world.approve("anne", &[]);
    assert_eq!(ids(&world.ask(with(&approval), &anne).await.unwrap()), ANNES);
    let sent = [ASK, TOKEN].map(|path| world.issuer.forms(path).pop().unwrap()["client_secret"].clone());
    assert_eq!(sent, [SECRET, "the next secret"]);
}

#[tokio::test]
async fn a_client_with_a_key_signs_each_call_to_the_issuer() {
    let keys = [ClientKey::new(), ClientKey::new()];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("client.pem");
    std::fs::write(&path, &keys[0].pem).unwrap();
    let world = World::start(|approval, _| {
        approval.client.client_secret_file = None;
        approval.client.private_key_file = Some(SecretFile::new(&path));
    })
    .await;
    let anne = world.token("anne", &[]);
    let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
    // The key changes before the person has answered.
    std::fs::write(&path, &keys[1].pem).unwrap();
    world.approve("anne", &[]);
    assert_eq!(ids(&world.ask(with(&approval), &anne).await.unwrap()), ANNES);
    for (endpoint, key) in [ASK, TOKEN].into_iter().zip(&keys) {
        let form = world.issuer.forms(endpoint).pop().unwrap();
        assert!(form["client_id"] == "ragward" && !form.contains_key("client_secret"), "{endpoint}");
        let claims = key.verified(&form["client_assertion"]);
        let audience = json!(format!("{}{endpoint}", world.issuer.url));
        assert_eq!((&claims["sub"], &claims["aud"]), (&json!("ragward"), &audience), "{endpoint}");
    }
}

#[tokio::test]
async fn an_approval_is_of_use_to_its_caller_and_request_alone() {
    let world = World::start(|_, identity| {
        identity.delegation.relation = Some(ragward::language::Relation::parse("can_act_for").unwrap());
    })
    .await;
    let anne = world.token("anne", &[]);
    let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
    world.approve("anne", &[]);
    let changed = {
        let mut text = approval.approval.clone().into_bytes();
        text[20] = if text[20] == b'A' { b'B' } else { b'A' };
        RequestApprovalResponse { approval: String::from_utf8(text).unwrap(), ..approval.clone() }
    };
    let other_query = RetrieveRequest { query: Some(Query::Text("pay".to_owned())), ..with(&approval) };
    let rows = [
        ("another person", world.token("bob", &[]), with(&approval)),
        ("another client", world.token("anne", &[("client_id", json!("other"))]), with(&approval)),
        ("an agent", world.token("anne", &[acted("helper")]), with(&approval)),
        ("another query", anne.clone(), other_query),
        ("more chunks", anne.clone(), RetrieveRequest { top_k: 11, ..with(&approval) }),
        ("no ceiling", anne.clone(), RetrieveRequest { classification_max: String::new(), ..with(&approval) }),
        ("a changed approval", anne.clone(), with(&changed)),
        ("no approval", anne.clone(), RetrieveRequest { approval: "AAAA".to_owned(), ..secret() }),
    ];
    for (row, token, request) in rows {
        let refused = world.ask(request, &token).await.unwrap_err();
        let is_refused = [Code::InvalidArgument, Code::PermissionDenied].contains(&refused.code());
        assert!(is_refused && !reason(&refused).starts_with("APPROVAL_"), "{row}: {refused:?}");
    }
    assert!(world.issuer.forms(TOKEN).is_empty(), "the issuer was asked for none of them");
    assert_eq!(ids(&world.ask(with(&approval), &anne).await.unwrap()), ANNES);
}

#[tokio::test]
async fn what_the_issuer_answers_decides_or_fails() {
    let nothing: Change = |_, _| {};
    let with_login: Change = |_, identity| {
        identity.step_up = vec![StepUpConfig {
            classification: Some("secret".to_owned()),
            acr_values: vec!["mfa".to_owned()],
            ..StepUpConfig::default()
        }];
    };
    let strong = [("acr", json!("mfa"))];
    let rows: [Row; 14] = [
        ("a no", nothing, Some(refused("access_denied")), vec![], "anne", "APPROVAL_DENIED"),
        ("too late", nothing, Some(refused("expired_token")), vec![], "anne", "APPROVAL_EXPIRED"),
        ("given to another replica", nothing, Some(refused("invalid_grant")), vec![], "anne", "APPROVAL_EXPIRED"),
        ("no answer yet", nothing, Some(refused("authorization_pending")), vec![], "anne", "APPROVAL_PENDING"),
        ("slow down", nothing, Some(refused("slow_down")), vec![], "anne", "APPROVAL_PENDING"),
        ("a page", nothing, Some(HttpAnswer::Html), vec![], "anne", "APPROVAL_UNAVAILABLE"),
        ("an outage", nothing, Some(HttpAnswer::Status(500)), vec![], "anne", "APPROVAL_UNAVAILABLE"),
        ("a flood", nothing, Some(HttpAnswer::Bytes(10_000_000)), vec![], "anne", "APPROVAL_UNAVAILABLE"),
        ("another person", nothing, None, vec![], "bob", "APPROVAL_UNPROVED"),
        ("another audience", nothing, None, vec![("aud", json!("other"))], "anne", "APPROVAL_UNPROVED"),
        (
            "no details",
            nothing,
            None,
            vec![("authorization_details", json!([{"type": "other"}]))],
            "anne",
            "APPROVAL_UNPROVED",
        ),
        (
            "other details",
            nothing,
            None,
            vec![("authorization_details", json!([{"type": "ragward_retrieval", "chunks_max": 1_000}]))],
            "anne",
            "APPROVAL_UNPROVED",
        ),
        ("a weaker login", with_login, None, vec![("acr", json!("pwd"))], "anne", "APPROVAL_UNPROVED"),
        ("a login as strong", with_login, None, strong.to_vec(), "anne", ""),
    ];
    for (row, change, answer, claims, subject, expected) in rows {
        let world = World::start(change).await;
        let anne = world.token("anne", &strong);
        let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
        match answer {
            Some(answer) => world.issuer.set(TOKEN, answer),
            None => world.approve(subject, &claims),
        }
        let answered = world.ask(with(&approval), &anne).await;
        if expected == "APPROVAL_PENDING" {
            let status = answered.as_ref().unwrap_err();
            assert!(status.get_error_details().retry_info().is_some(), "{row}: it says when to ask again");
        }
        assert_eq!(answered.map_or_else(|status| reason(&status), |_| String::new()), expected, "{row}");
        if expected == "APPROVAL_DENIED" {
            let again = world.request(Approved::Retrieve(secret()), &anne).await.unwrap_err();
            assert_eq!(again.code(), Code::ResourceExhausted, "{row}: the person is left alone");
            let kept: Vec<AuditedApproval> =
                records(world.data.path()).into_iter().filter_map(|record| record.approval).collect();
            assert_eq!((kept[0].state.as_str(), kept[1].state.as_str()), ("requested", "denied"), "{row}");
            assert_eq!(kept[1].request_sha256, kept[0].request_sha256, "{row}: the record tells which one");
        }
    }
}

#[tokio::test]
async fn only_what_was_asked_for_or_fewer_chunks_proves_an_approval() {
    let unproved = || Err("APPROVAL_UNPROVED");
    let rows = [
        ("all of it", "purpose", json!("another purpose, which decides nothing"), Ok(ANNES.len())),
        ("as many chunks as were asked for", "chunks_max", json!(10), Ok(ANNES.len())),
        ("one chunk", "chunks_max", json!(1), Ok(1)),
        ("more chunks", "chunks_max", json!(11), unproved()),
        ("a lower ceiling", "classification_max", json!("internal"), unproved()),
        ("one document alone", "identifiers", json!(["document:roadmap"]), unproved()),
        ("some documents alone", "identifiers", json!(["document:welcome"]), unproved()),
        ("another collection", "collections", json!(["hr"]), unproved()),
        ("one more collection", "collections", json!(["handbook", "hr"]), unproved()),
        ("another action", "actions", json!(["fetch"]), unproved()),
        ("one more action", "actions", json!(["fetch", "retrieve"]), unproved()),
        ("another server", "locations", json!(["https://other.example"]), unproved()),
        ("another request", "request_sha256", json!("0".repeat(64)), unproved()),
        ("another nonce", "nonce", json!("0".repeat(32)), unproved()),
        ("several requests", "single_use", json!(false), unproved()),
        ("a member of somebody else", "all_chunks", json!(true), unproved()),
    ];
    for (row, member, value, expected) in rows {
        let world = World::start(|_, _| {}).await;
        let anne = world.token("anne", &[]);
        let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
        let asked = world.issuer.forms(ASK).pop().unwrap();
        let mut details: Value = serde_json::from_str(&asked["authorization_details"]).unwrap();
        details[0][member] = value;
        world.approve("anne", &[("authorization_details", details)]);
        let answered = world.ask(with(&approval), &anne).await;
        let answered = answered.map(|answer| answer.chunks.len()).map_err(|status| reason(&status));
        assert_eq!(answered, expected.map_err(str::to_owned), "{row}");
    }
}

#[tokio::test]
async fn a_no_that_nobody_comes_back_for_is_heard() {
    let alone: Change = |approval, _| approval.key_file = None;
    let replica: Change = |_, _| {};
    // The last two numbers are those of rings and of polls.
    let rows = [
        ("no answer yet", alone, refused("authorization_pending"), Code::Ok, 2, 1),
        ("a no", alone, refused("access_denied"), Code::ResourceExhausted, 1, 1),
        ("a no that another replica may be asked for", replica, refused("access_denied"), Code::Ok, 2, 0),
    ];
    for (row, change, answer, expected, rings, polls) in rows {
        let world = World::start(change).await;
        let anne = world.token("anne", &[]);
        world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
        world.issuer.set(TOKEN, answer);
        let other = RetrieveRequest { top_k: 9, ..secret() };
        let again = world.request(Approved::Retrieve(other), &anne).await;
        assert_eq!(again.err().map_or(Code::Ok, |status| status.code()), expected, "{row}");
        assert_eq!((world.issuer.forms(ASK).len(), world.issuer.forms(TOKEN).len()), (rings, polls), "{row}");
        let states: Vec<String> = records(world.data.path())
            .into_iter()
            .filter_map(|record| record.approval)
            .map(|kept| kept.state)
            .collect();
        let second = if rings == 2 { AuditedApproval::REQUESTED } else { AuditedApproval::REQUIRED };
        assert_eq!(states, [AuditedApproval::REQUESTED, second], "{row}");
    }
}

#[tokio::test]
async fn slow_down_without_end_is_heeded() {
    let world = World::start(|_, _| {}).await;
    world.asks_as("question");
    let anne = world.token("anne", &[]);
    let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
    world.issuer.set(TOKEN, refused("slow_down"));
    for _ in 0..20 {
        let pending = world.ask(with(&approval), &anne).await.unwrap_err();
        assert_eq!(reason(&pending), "APPROVAL_PENDING", "{pending:?}");
        assert!(pending.get_error_details().retry_info().is_some(), "{pending:?}");
    }
    assert_eq!(world.issuer.forms(TOKEN).len(), 1, "the issuer is left alone");
}

#[tokio::test]
async fn an_issuer_that_hangs_keeps_nobody_waiting() {
    let world = World::start(|_, _| {}).await;
    world.asks_as("question");
    let anne = world.token("anne", &[]);
    let address = world.running.address.to_string();
    let retrieve = json!({ "text": "leave", "topK": 10, "classificationMax": "secret" });
    let late = async |path: &str, body: &Value| {
        let call = Call::json(path, body).bearer(&anne).with("connect-timeout-ms", "1000");
        let reply = call.send(&address).await;
        assert_eq!((reply.status, &reply.json()["code"]), (504, &json!("deadline_exceeded")), "{}", reply.text());
    };
    let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
    world.issuer.set(TOKEN, HttpAnswer::Hang);
    let mut approved = retrieve.clone();
    approved["approval"] = json!(approval.approval);
    late("/v1/collections/handbook/retrieve", &approved).await;
    let pending = world.ask(with(&approval), &anne).await.unwrap_err();
    assert_eq!((reason(&pending).as_str(), world.issuer.forms(TOKEN).len()), ("APPROVAL_PENDING", 1), "one poll runs");

    world.issuer.set(ASK, HttpAnswer::Hang);
    let mut other = retrieve;
    other["collection"] = json!("handbook");
    other["topK"] = json!(9);
    late("/v1/approvals", &json!({ "retrieve": other, "purpose": "answer a question" })).await;
    let joined = world.request(Approved::Retrieve(RetrieveRequest { top_k: 9, ..secret() }), &anne).await.unwrap_err();
    assert_eq!((joined.code(), world.issuer.forms(ASK).len()), (Code::ResourceExhausted, 2), "it is being asked");
}

#[tokio::test]
async fn a_person_is_asked_by_the_name_that_the_issuer_knows() {
    let world = World::start(|_, identity| {
        identity.issuers[0].tokens.login_hint = Some("preferred_username".to_owned());
    })
    .await;
    let unnamed = world.request(Approved::Retrieve(secret()), &world.token("anne", &[])).await.unwrap_err();
    assert_eq!(unnamed.code(), Code::PermissionDenied, "{unnamed:?}");
    assert!(world.issuer.forms(ASK).is_empty(), "nobody was asked");
    let anne = world.token("anne", &[("preferred_username", json!("anne.berg"))]);
    let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
    assert_eq!(world.issuer.forms(ASK).pop().unwrap()["login_hint"], "anne.berg");
    // The name is somebody else's by now, who says yes.
    world.approve("bob", &[("preferred_username", json!("anne.berg"))]);
    let refused = world.ask(with(&approval), &anne).await.unwrap_err();
    assert_eq!(reason(&refused), "APPROVAL_UNPROVED", "{refused:?}");
}

#[tokio::test]
async fn an_issuer_that_does_not_ask_is_an_error() {
    let rows = [
        ("a page", HttpAnswer::Html),
        ("a flood", HttpAnswer::Bytes(10_000_000)),
        ("an outage", HttpAnswer::Status(503)),
        ("a redirect", HttpAnswer::Redirect("http://127.0.0.1:1/".to_owned())),
        ("an unknown person", refused("unknown_user_id")),
        ("another refusal", refused("invalid_request")),
        ("no id", HttpAnswer::Json(json!({"expires_in": 60}))),
    ];
    for (row, answer) in rows {
        let world = World::start(|_, _| {}).await;
        world.issuer.set(ASK, answer);
        let refused = world.request(Approved::Retrieve(secret()), &world.token("anne", &[])).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "APPROVAL_UNAVAILABLE".to_owned()), "{row}");
        assert!(!format!("{refused:?}").contains(SECRET), "{row}");
    }
}

#[tokio::test]
async fn a_restart_keeps_approvals_only_with_the_shared_key() {
    for (row, keeps_key, expected) in [("with the key", true, ""), ("without", false, "INVALID_ARGUMENT")] {
        let change = |approval: &mut BackchannelConfig, _: &mut IdentityConfig| {
            if !keeps_key {
                approval.key_file = None;
            }
        };
        let world = World::start(change).await;
        let anne = world.token("anne", &[]);
        let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
        world.approve("anne", &[]);
        // A second server stands for the same one after a restart, and for a replica.
        let other_data = tempfile::tempdir().unwrap();
        let running = serve(&other_data, &world.issuer, change).await;
        let answered = running.client.retrieval().retrieve(with_token(with(&approval), &anne)).await;
        let found = answered.map_or_else(|status| reason(&status), |_| String::new());
        assert_eq!(found, expected, "{row}");
    }
}

#[tokio::test]
async fn an_issuer_without_details_is_bound_by_its_question() {
    let world = World::start(|approval, _| {
        approval.details = IssuerDetails::Unsupported;
        approval.binding_message = BindingMessage::Request;
    })
    .await;
    let anne = world.token("anne", &[]);
    let fetch = FetchRequest {
        collection: "handbook".to_owned(),
        chunk_ids: vec!["document:roadmap#1".to_owned()],
        classification_max: "secret".to_owned(),
        ..FetchRequest::default()
    };
    let approval = world.request(Approved::Fetch(fetch.clone()), &anne).await.unwrap();
    let asked = world.issuer.forms(ASK).pop().unwrap();
    assert!(!asked.contains_key("authorization_details"));
    let expected =
        format!("{}: assistant asks for 1 chunks of handbook up to secret, to answer a question", approval.code);
    assert_eq!(asked["binding_message"], expected);
    world.approve("anne", &[]);
    let fetch = FetchRequest { approval: approval.approval, ..fetch };
    let fetched = world.running.client.retrieval().fetch(with_token(fetch, &anne)).await.unwrap().into_inner();
    assert_eq!(fetched.chunks.len(), 1);
    let given = records(world.data.path()).into_iter().filter_map(|record| record.approval).next_back().unwrap();
    assert_eq!(given.evidence.as_deref(), Some(AuditedApproval::CODE));
}

#[tokio::test]
async fn details_approve_only_where_the_issuer_has_them() {
    let rows =
        [("an issuer with details", IssuerDetails::Required, true), ("without", IssuerDetails::Unsupported, false)];
    for (row, of_issuer, is_answered) in rows {
        let world = World::start(|approval, _| approval.details = of_issuer).await;
        let required = world.ask(secret(), &world.token("anne", &[])).await.unwrap_err();
        let info = required.get_error_details().error_info().cloned().unwrap();
        let details: Value = serde_json::from_str(&info.metadata["authorization_details"]).unwrap();
        let token = world.token("anne", &[("authorization_details", details), ("jti", json!("approved"))]);
        let answered = world.ask(secret(), &token).await.map_err(|status| status.code());
        assert_eq!(answered.as_ref().err(), (!is_answered).then_some(&Code::PermissionDenied), "{row}");
    }
}

#[tokio::test]
async fn a_person_reads_who_asks_and_the_query_only_if_configured() {
    let text = |text: String| RetrieveRequest { query: Some(Query::Text(text)), ..secret() };
    let vector = Query::Vector(ragward::proto::retrieval::Vector { values: vec![1.0] });
    let fetch = FetchRequest {
        collection: "handbook".to_owned(),
        chunk_ids: vec!["document:roadmap#1".to_owned(), "page:draft#1".to_owned()],
        classification_max: "secret".to_owned(),
        ..FetchRequest::default()
    };
    let long = "leave ".repeat(100);
    let cut = long.chars().take(256).chain(['…']).collect();
    let rows = [
        ("a text", Approved::Retrieve(text("leave".to_owned())), Some("leave".to_owned())),
        ("lines and tabs", Approved::Retrieve(text("leave\n\tnow".to_owned())), Some("leave  now".to_owned())),
        (
            "what nobody sees",
            Approved::Retrieve(text("leave\u{202e}\u{7}\u{200b}".to_owned())),
            Some("leave\u{fffd}\u{fffd}\u{fffd}".to_owned()),
        ),
        ("a long text", Approved::Retrieve(text(long)), Some(cut)),
        ("a vector", Approved::Retrieve(RetrieveRequest { query: Some(vector), ..secret() }), None),
        ("ids", Approved::Fetch(fetch), Some("document:roadmap#1, page:draft#1".to_owned())),
    ];
    for shows in [true, false] {
        for (row, request, query) in &rows {
            let world = World::start(|approval, identity| {
                approval.binding_message = BindingMessage::Request;
                approval.show_query = shows;
                identity.delegation.relation = Some(ragward::language::Relation::parse("can_act_for").unwrap());
            })
            .await;
            let agent = world.token("anne", &[acted("helper")]);
            let approval = world.request(request.clone(), &agent).await.unwrap();
            let asked = world.issuer.forms(ASK).pop().unwrap();
            let details: Value = serde_json::from_str(&asked["authorization_details"]).unwrap();
            let shown = query.as_ref().filter(|_| shows);
            assert_eq!(details[0].get("query").and_then(Value::as_str), shown.map(String::as_str), "{row}, {shows}");
            assert_eq!(details[0]["requested_by"], json!(["agent:helper", "assistant"]), "{row}");
            let chunks_max = &details[0]["chunks_max"];
            let ending = shown.map(|query| format!(": {query}")).unwrap_or_default();
            let expected = format!(
                "{}: agent:helper through assistant asks for {chunks_max} chunks of handbook up to secret, to answer a \
                 question{ending}",
                approval.code
            );
            assert_eq!(asked["binding_message"], expected, "{row}, {shows}");
        }
    }
}

#[tokio::test]
async fn nobody_is_asked_in_vain() {
    let world = World::start(|_, _| {}).await;
    let pipeline = world.token("anne", &[("scope", json!("ragward:retrieve ragward:assert_user"))]);
    let for_bob = RetrieveRequest { user: "user:bob".to_owned(), ..secret() };
    let sealed = RetrieveRequest { approval: "AAAA".to_owned(), ..secret() };
    let anne = world.token("anne", &[]);
    let rows = [
        ("a request that needs no approval", &anne, about_leave(""), Code::InvalidArgument),
        ("a request with an approval", &anne, sealed, Code::InvalidArgument),
        ("a wrong request", &anne, RetrieveRequest { top_k: 0, ..secret() }, Code::InvalidArgument),
        ("somebody whom a pipeline names", &pipeline, for_bob, Code::PermissionDenied),
    ];
    for (row, token, request, expected) in rows {
        let refused = world.request(Approved::Retrieve(request), token).await.unwrap_err();
        assert_eq!(refused.code(), expected, "{row}: {refused:?}");
    }
    let rows = [
        ("a long purpose", "a".repeat(257)),
        ("a purpose of two lines", "answer\nfour".to_owned()),
        ("a purpose that goes from right to left", "answer \u{202e}four".to_owned()),
        ("a purpose with a line separator", "answer\u{2028}four".to_owned()),
    ];
    for (row, purpose) in rows {
        let request = RequestApprovalRequest { request: Some(Approved::Retrieve(secret())), purpose };
        let refused = world.running.client.retrieval().request_approval(with_token(request, &anne)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{row}: {refused:?}");
    }
    assert!(world.issuer.forms(ASK).is_empty());
}

#[tokio::test]
async fn an_agent_at_the_door_for_mcp_asks_by_its_call() {
    let world = World::start(|_, _| {}).await;
    let token = world.token("anne", &[("aud", json!(MCP_URL))]);
    let search = async |more: Value| {
        let mut arguments = json!({ "query": "leave", "classification_max": "secret" });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let params = json!({ "name": "search", "arguments": arguments });
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let reply = Call::json("/mcp", &message).bearer(&token).send(&world.running.address.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["result"].clone()
    };
    let told = search(json!({})).await;
    let shown: Value = serde_json::from_str(told["content"][1]["text"].as_str().unwrap_or_default()).unwrap();
    assert_eq!((&told["isError"], &shown["error"]), (&json!(true), &json!("APPROVAL_REQUIRED")), "{told}");
    let asked = world.issuer.forms(ASK);
    assert_eq!((asked.len(), Some(asked[0]["binding_message"].as_str())), (1, shown["code"].as_str()));
    let again = search(json!({})).await;
    assert_eq!((again, world.issuer.forms(ASK).len()), (told, 1), "an equal call joins");
    world.approve("anne", &[]);
    let found = search(json!({ "approval": shown["approval"] })).await;
    assert_eq!(found["structuredContent"]["results"].as_array().map(Vec::len), Some(ANNES.len()), "{found}");
}

const PAGE: &str = "https://login.example/requests";

/// Returns a search of an agent in the newest revision of MCP, whose client can do `can`. `more` are more parameters of the call.
fn newest_search(token: &str, can: &Value, query: &str, more: &Value) -> Call {
    let revision = "2026-07-28";
    let mut params = json!({
        "name": "search",
        "arguments": { "query": query, "classification_max": "secret" },
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": revision,
            "io.modelcontextprotocol/clientCapabilities": can,
        },
    });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let call = Call::json("/mcp", &message).bearer(token).with("mcp-protocol-version", revision);
    call.with("mcp-method", "tools/call").with("mcp-name", "search")
}

#[tokio::test]
async fn a_client_of_mcp_is_asked_in_a_form_that_it_can_show() {
    let form = || json!({ "elicitation": { "form": {} } });
    let page = || json!({ "elicitation": { "url": {} } });
    let both = || json!({ "elicitation": { "form": {}, "url": {} } });
    let rows = [
        ("a client that cannot ask", json!({}), Some(PAGE), None),
        ("one that can show a page, where there is none", page(), None, None),
        ("forms, by an empty capability", json!({ "elicitation": {} }), Some(PAGE), Some("form")),
        ("forms", form(), Some(PAGE), Some("form")),
        ("a page", page(), Some(PAGE), Some("url")),
        ("both, without a page", both(), None, Some("form")),
        ("both, and a page", both(), Some(PAGE), Some("url")),
    ];
    for (row, can, page, expected) in rows {
        let world = World::start(|approval, _| approval.page_url = page.map(str::to_owned)).await;
        let token = world.token("anne", &[("aud", json!(MCP_URL))]);
        let address = world.running.address.to_string();
        let told = newest_search(&token, &can, "leave", &json!({})).send(&address).await.json()["result"].clone();
        let code = world.issuer.forms(ASK).pop().unwrap()["binding_message"].clone();
        let Some(mode) = expected else {
            assert_eq!((&told["resultType"], &told["isError"]), (&json!("complete"), &json!(true)), "{row}: {told}");
            assert!(told["content"][1]["text"].as_str().unwrap().contains(&code), "{row}: {told}");
            continue;
        };
        assert_eq!(told["resultType"], "input_required", "{row}: {told}");
        let asked = &told["inputRequests"]["approval"];
        assert_eq!((&asked["method"], &asked["params"]["mode"]), (&json!("elicitation/create"), &json!(mode)), "{row}");
        assert!(asked["params"]["message"].as_str().unwrap().contains(&code), "{row}: {asked}");
        assert_eq!(asked["params"]["url"], if mode == "url" { json!(PAGE) } else { Value::Null }, "{row}");
        world.approve("anne", &[]);
        let answer = json!({
            "requestState": told["requestState"], "inputResponses": { "approval": { "action": "accept" } },
        });
        let found = newest_search(&token, &can, "leave", &answer).send(&address).await.json()["result"].clone();
        let results = found["structuredContent"]["results"].as_array().map(Vec::len);
        assert_eq!((results, &found["resultType"]), (Some(ANNES.len()), &json!("complete")), "{row}: {found}");
        let again = newest_search(&token, &can, "leave", &answer).send(&address).await.json()["result"].clone();
        assert_eq!(again["isError"], true, "{row}: the approval is used: {again}");
    }
}

#[tokio::test]
async fn what_a_client_of_mcp_brings_back_approves_nothing() {
    let world = World::start(|_, _| {}).await;
    let of_mcp = ("aud", json!(MCP_URL));
    let (anne, bob) =
        (world.token("anne", std::slice::from_ref(&of_mcp)), world.token("bob", std::slice::from_ref(&of_mcp)));
    let can = json!({ "elicitation": {} });
    let address = world.running.address.to_string();
    let told = newest_search(&anne, &can, "leave", &json!({})).send(&address).await.json()["result"].clone();
    let state = told["requestState"].as_str().unwrap();
    let changed = {
        let mut text = state.to_owned().into_bytes();
        text[20] = if text[20] == b'A' { b'B' } else { b'A' };
        String::from_utf8(text).unwrap()
    };
    let answer = |state: &str, action: &str| json!({ "requestState": state, "inputResponses": { "approval": { "action": action } } });
    let doubled = json!({
        "requestState": state, "arguments": { "query": "leave", "classification_max": "secret", "approval": state },
    });
    let rows = [
        ("a no to the client", &anne, "leave", answer(state, "decline")),
        ("a dialog that was closed", &anne, "leave", answer(state, "cancel")),
        ("an unknown word", &anne, "leave", answer(state, "approve")),
        ("a changed state", &anne, "leave", answer(&changed, "accept")),
        ("another person", &bob, "leave", answer(state, "accept")),
        ("another query", &anne, "pay", answer(state, "accept")),
        ("two approvals", &anne, "leave", doubled),
    ];
    for (row, token, query, more) in rows {
        let refused = newest_search(token, &can, query, &more).send(&address).await.json()["result"].clone();
        assert_eq!(
            (&refused["isError"], &refused["resultType"]),
            (&json!(true), &json!("complete")),
            "{row}: {refused}"
        );
    }
    assert!(world.issuer.forms(TOKEN).is_empty(), "the issuer was asked for none of them");
    let faults = [
        ("a state that is no text", json!({ "requestState": 1 })),
        ("responses in a list", json!({ "requestState": state, "inputResponses": [] })),
    ];
    for (row, more) in faults {
        let reply = newest_search(&anne, &can, "leave", &more).send(&address).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!(-32_602)), "{row}");
    }
    // The person has not answered the issuer, so the client asks again.
    let pending =
        newest_search(&anne, &can, "leave", &answer(state, "accept")).send(&address).await.json()["result"].clone();
    assert_eq!(
        (&pending["resultType"], &pending["requestState"]),
        (&json!("input_required"), &json!(state)),
        "{pending}"
    );
    assert_eq!(world.issuer.forms(TOKEN).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_and_their_ends_are_counted() {
    let World { running, key, issuer, data } = World::start(|_, _| {}).await;
    running.stop().await.unwrap();
    let token = key.sign(&issuer.claims("anne", RETRIEVE));
    // This finds a free port, since the exporter does not take port 0.
    let metrics_address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let Settings { identity, approval, mcp: _ } = settings(&data, &issuer, |_, _| {});
    let mut config = config(data.path());
    (config.server.insecure_identity, config.identity, config.approval) = (false, identity, Some(approval));
    config.telemetry.metrics_listen = Some(metrics_address);
    let file = data.path().join("ragward.toml");
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ragward"));
    command.args(["--config", file.to_str().unwrap(), "serve", "--listen", "127.0.0.1:0"]).stdin(Stdio::null());
    let served = Served::start(command);

    issuer.set(TOKEN, refused("access_denied"));
    let question = |query: &str| RequestApprovalRequest {
        request: Some(Approved::Retrieve(RetrieveRequest { query: Some(Query::Text(query.to_owned())), ..secret() })),
        purpose: String::new(),
    };
    let mut client = served.client.retrieval();
    let asked = client.request_approval(with_token(question("leave"), &token)).await.unwrap().into_inner();
    let denied = client.retrieve(with_token(with(&asked), &token)).await.unwrap_err();
    assert_eq!(reason(&denied), "APPROVAL_DENIED");
    client.request_approval(with_token(question("pay"), &token)).await.unwrap_err();
    let metrics = http_get(metrics_address, "/metrics");
    served.stop().await;
    let counted: Vec<&str> = metrics.lines().filter(|line| line.starts_with("ragward_approvals_total{")).collect();
    for outcome in ["asked", "denied", "throttled"] {
        assert!(
            counted.contains(&format!("ragward_approvals_total{{outcome=\"{outcome}\"}} 1").as_str()),
            "{outcome}: {counted:?}"
        );
    }
    assert_eq!(counted.len(), 3, "{counted:?}");
}
