//! Approvals, proofs and sources leave no trace of what they need. The tokens that an issuer gives Ragward, the token of a notification,
//! the id of a question, sealed approvals, proofs of possession and exchanged tokens appear in no log, metric, span, record,
//! answer or refusal. Neither do the words of an issuer.

use std::process::{Command, Stdio};

use ragward::config::Config;
use ragward::identity::config::{BackchannelConfig, Delivery, IdentityConfig, ProofNonces};
use ragward::proto::retrieval::request_approval_request::Request as Approved;
use ragward::proto::retrieval::{RequestApprovalRequest, RequestApprovalResponse, RetrieveRequest};
use serde_json::json;
use tempfile::TempDir;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use crate::identity::approver::{ASK, PUBLIC_URL, SECRET, Settings, TOKEN, reason, refused, secret, settings, with};
use crate::identity::possession::{hash, signed, thumbprint};
use crate::identity::secrets::{audit_log, collector, http_get};
use crate::identity::sources::{ANNES_TOKEN, CLIENT_SECRET, Wiki};
use crate::identity::world::{ANNES, RETRIEVE, about_leave, identity, start, with_token};
use crate::support::held_port::HeldPort;
use crate::support::http::Call;
use crate::support::issuer::{HttpAnswer, SigningKey, TestIssuer, now};
use crate::support::running::config;
use crate::support::served::Served;

/// The id of each question (`auth_req_id`).
const QUESTION: &str = "kakadu-of-the-issuer";
/// The id of the tokens that the issuer gives Ragward.
const TOKEN_ID: &str = "gimpel-of-the-issuer";
/// Words of the issuer in its refusals.
const WORDS: &str = "nymphensittich";
/// A token that Ragward does not ask for, and that an issuer may give all the same.
const REFRESH_TOKEN: &str = "wendehals-to-refresh";
/// The folder of the server's data.
const DATA: &str = "data";
const RETRIEVE_RPC: &str = "/ragward.retrieval.v1.RetrievalService/Retrieve";
/// Tokens and proofs have shorter parts, which say nothing, such as the header of a token.
const PART_BYTES_MIN: usize = 60;

/// Returns a proof of possession of the key for one call of `Retrieve`.
fn proof(key: &SigningKey, token: &str, id: &str) -> String {
    let url = format!("{PUBLIC_URL}{RETRIEVE_RPC}");
    signed(key, &json!({ "jti": id, "htm": "POST", "htu": url, "ath": hash(token), "iat": now() }))
}

fn with_proof(message: RetrieveRequest, token: &str, proof: &str) -> Request<RetrieveRequest> {
    let mut request = Request::new(message);
    for (name, value) in [("authorization", format!("DPoP {token}")), ("dpop", proof.to_owned())] {
        request.metadata_mut().insert(name, MetadataValue::try_from(value).unwrap());
    }
    request
}

fn question(top_k: u32) -> RequestApprovalRequest {
    let request = Some(Approved::Retrieve(RetrieveRequest { top_k, ..secret() }));
    RequestApprovalRequest { request, purpose: "answer a question".to_owned() }
}

fn answered_by(approval: &RequestApprovalResponse, top_k: u32) -> RetrieveRequest {
    RetrieveRequest { top_k, ..with(approval) }
}

/// Lets the issuer give a token of this person with the details that it was asked for, and returns the token.
pub(crate) fn give(key: &SigningKey, issuer: &TestIssuer, subject: &str) -> String {
    let asked = issuer.forms(ASK).pop().unwrap();
    let mut claims = issuer.claims(subject, RETRIEVE);
    claims["jti"] = json!(TOKEN_ID);
    claims["authorization_details"] = serde_json::from_str(&asked["authorization_details"]).unwrap();
    let token = key.sign(&claims);
    let answer = json!({ "access_token": token, "token_type": "Bearer", "refresh_token": REFRESH_TOKEN });
    issuer.set(TOKEN, HttpAnswer::Json(answer));
    token
}

/// Starts a server that asks for approvals and logs at this level, over the data in the directory.
fn serve(level: &str, directory: &TempDir, issuer: &TestIssuer, change: impl FnOnce(&mut Config)) -> Served {
    let by_ping = |approval: &mut BackchannelConfig, _: &mut IdentityConfig| approval.delivery = Delivery::Ping;
    let Settings { identity, approval, mcp: _ } = settings(directory, issuer, by_ping);
    let mut configured = config(&directory.path().join(DATA));
    configured.server.insecure_identity = false;
    configured.server.public_url = Some(PUBLIC_URL.to_owned());
    configured.identity = identity;
    configured.identity.dpop.nonces = ProofNonces::Unused;
    configured.approval = Some(approval);
    change(&mut configured);
    let file = directory.path().join("ragward.toml");
    std::fs::write(&file, toml::to_string(&configured).unwrap()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    command.args(["--config", file.to_str().unwrap(), "serve", "--listen", "127.0.0.1:0"]).env("RUST_LOG", level);
    command.stdin(Stdio::null());
    Served::start(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_approvals_and_proofs_need_is_nowhere() {
    for level in ["info,ragward=trace", "debug"] {
        check(level).await;
    }
}

async fn check(level: &str) {
    let (key, client_key) = (SigningKey::es256("key"), SigningKey::es256("mine"));
    let issuer = TestIssuer::start(&[&key]).await;
    issuer.serve_backchannel(ASK, TOKEN);
    issuer.set(ASK, HttpAnswer::Json(json!({ "auth_req_id": QUESTION, "expires_in": 120, "interval": 1 })));
    issuer.set(TOKEN, refused("authorization_pending"));
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join(DATA);
    let (collector, spans) = collector().await;
    // The exporter does not take port 0, which means any free port.
    let metrics_port = HeldPort::new();
    start(&data, identity(&issuer)).await.stop().await.unwrap();
    let wiki = Wiki::start().await;
    let served = serve(level, &directory, &issuer, |configured| {
        configured.sources = wiki.settings(directory.path());
        configured.telemetry.metrics_listen = Some(metrics_port.address);
        configured.telemetry.otlp_endpoint = Some(format!("http://{collector}"));
    });
    let mut client = served.client.retrieval();
    let (mut answers, mut refusals) = (Vec::<String>::new(), Vec::<Status>::new());

    // A token that is bound to a key, with its proof, with a used one, and without any.
    let bound = {
        let mut claims = issuer.claims("anne", RETRIEVE);
        claims["cnf"] = json!({ "jkt": thumbprint(&client_key) });
        key.sign(&claims)
    };
    let first_proof = proof(&client_key, &bound, "first");
    let foreign_proof = proof(&SigningKey::es256("mine"), &bound, "foreign");
    let answer = client.retrieve(with_proof(about_leave(""), &bound, &first_proof)).await.unwrap().into_inner();
    assert!(!answer.chunks.is_empty());
    answers.push(format!("{answer:?}"));
    for proof in [&first_proof, &foreign_proof] {
        refusals.push(client.retrieve(with_proof(about_leave(""), &bound, proof)).await.unwrap_err());
    }
    refusals.push(client.retrieve(with_token(about_leave(""), &bound)).await.unwrap_err());

    // A question that is answered after a notification, and used twice.
    let (anne, bob) = (key.sign(&issuer.claims("anne", RETRIEVE)), key.sign(&issuer.claims("bob", RETRIEVE)));
    let asked = client.request_approval(with_token(question(10), &anne)).await.unwrap().into_inner();
    let notification_token = issuer.forms(ASK).pop().unwrap()["client_notification_token"].clone();
    refusals.push(client.retrieve(with_token(answered_by(&asked, 10), &anne)).await.unwrap_err());
    let notification = Call::json("/ciba/notify", &json!({ "auth_req_id": QUESTION }));
    for (bearer, status) in [(notification_token.clone(), 204), (format!("{notification_token}0"), 401)] {
        let reply = notification.clone().bearer(&bearer).send(&served.address).await;
        assert_eq!(reply.status, status);
        answers.push(format!("{:?} {}", reply.headers, reply.text()));
    }
    let given = give(&key, &issuer, "anne");
    let answer = client.retrieve(with_token(answered_by(&asked, 10), &anne)).await.unwrap().into_inner();
    assert_eq!(answer.chunks.len(), ANNES.len());
    answers.push(format!("{answer:?}"));
    for token in [&anne, &bob] {
        refusals.push(client.retrieve(with_token(answered_by(&asked, 10), token)).await.unwrap_err());
    }

    // Questions whose answers prove nothing.
    let unproved = client.request_approval(with_token(question(9), &anne)).await.unwrap().into_inner();
    let of_bob = give(&key, &issuer, "bob");
    refusals.push(client.retrieve(with_token(answered_by(&unproved, 9), &anne)).await.unwrap_err());
    assert_eq!(refusals.last().map(reason).as_deref(), Some("APPROVAL_UNPROVED"));
    let refusal = HttpAnswer::Refusal(400, json!({ "error": WORDS, "error_description": WORDS }));
    let unknown = client.request_approval(with_token(question(8), &anne)).await.unwrap().into_inner();
    issuer.set(TOKEN, refusal.clone());
    refusals.push(client.retrieve(with_token(answered_by(&unknown, 8), &anne)).await.unwrap_err());
    issuer.set(ASK, refusal);
    refusals.push(client.request_approval(with_token(question(7), &anne)).await.unwrap_err());

    let (answers, said) = (answers.concat(), format!("{refusals:?}"));
    let metrics = http_get(metrics_port.address, "/metrics");
    let log = served.stop().await;
    let written = audit_log(&data);
    let spans = String::from_utf8_lossy(&spans.lock().unwrap()).into_owned();

    // These must appear, so that an absence means something.
    for outcome in ["approved", "unproved"] {
        assert!(
            metrics.contains(&format!("ragward_approvals_total{{outcome=\"{outcome}\"}} 1")),
            "{outcome}: {metrics}"
        );
    }
    assert!(metrics.contains("ragward_token_exchanges_total{source=\"wiki\",outcome=\"exchanged\"}"), "{metrics}");
    assert!(wiki.asked().iter().any(|head| head.contains(ANNES_TOKEN)), "the source is asked with a token of its own");
    assert!(log.contains("does not prove an approval"), "{log}");
    assert!(written.contains("user:anne") && written.contains("request_sha256"), "{written}");
    assert!(spans.contains("RetrievalService/Retrieve"), "{spans:?}");

    let jwts = [&bound, &first_proof, &foreign_proof, &anne, &bob, &given, &of_bob];
    let parts = jwts.into_iter().flat_map(|jwt| jwt.split('.')).filter(|part| part.len() > PART_BYTES_MIN);
    let sealed = [&asked, &unproved, &unknown].map(|asked| asked.approval.as_str());
    let words = [QUESTION, TOKEN_ID, WORDS, REFRESH_TOKEN, SECRET, ANNES_TOKEN, CLIENT_SECRET, &notification_token];
    let places = [
        ("an answer", answers),
        ("a refusal", said),
        ("a metric", metrics),
        ("the log", log),
        ("the audit log", written),
        ("a span", spans),
    ];
    for secret in words.into_iter().chain(sealed).chain(parts) {
        for (place, text) in &places {
            assert!(!text.to_lowercase().contains(&secret.to_lowercase()), "`{secret}` in {place} at {level}: {text}");
        }
    }
}
