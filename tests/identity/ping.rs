//! Notifications of an issuer that a person has answered (CIBA ping): the issuer's own end a wait, and no other one does anything.

use ragward::identity::config::{BackchannelConfig, Delivery, IdentityConfig};
use ragward::proto::retrieval::request_approval_request::Request as Approved;
use ragward::proto::retrieval::{RequestApprovalResponse, RetrieveRequest};
use serde_json::{Value, json};
use tonic::Code;

use crate::identity::approver::{ASK, TOKEN, World, ids, reason, refused, secret, serve, with};
use crate::identity::rpcs::records;
use crate::identity::world::{ANNES, with_token};
use crate::support::http::{Call, Reply};

const PATH: &str = "/ciba/notify";
const QUESTION: &str = "question";

/// A row's name; the notification, made of the token of its question and of that of another question; how often it comes; the
/// status of its answer; how many polls it allows.
type Row = (&'static str, fn(&str, &str) -> Call, usize, u16, usize);

fn by_ping(approval: &mut BackchannelConfig, _: &mut IdentityConfig) {
    approval.delivery = Delivery::Ping;
}

/// Lets a server have a key of its own for approvals, so that no replica can use them.
fn alone(approval: &mut BackchannelConfig, identity: &mut IdentityConfig) {
    by_ping(approval, identity);
    approval.key_file = None;
}

fn about(body: &Value) -> Call {
    Call::json(PATH, body)
}

fn of_question() -> Call {
    about(&json!({ "auth_req_id": QUESTION }))
}

/// A server that is notified, and a question that its person has not answered, of which the issuer was just asked.
struct Asked {
    world: World,
    anne: String,
    approval: RequestApprovalResponse,
    /// The token of the question's notification.
    token: String,
}

impl Asked {
    async fn start(change: impl FnOnce(&mut BackchannelConfig, &mut IdentityConfig)) -> Self {
        let world = World::start(change).await;
        let anne = world.token("anne", &[]);
        world.asks_as(QUESTION);
        let approval = world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
        let token = notification_token(&world);
        let asked = Self { world, anne, approval, token };
        assert_eq!(asked.polls_after_a_try().await, 1, "the first poll waits for nothing");
        assert_eq!(asked.polls_after_a_try().await, 1, "the next one waits a minute");
        asked
    }

    async fn notify(&self, call: &Call) -> Reply {
        call.send(&self.world.running.address.to_string()).await
    }

    /// Tries to use the approval, and returns how often the issuer was asked about it by then.
    async fn polls_after_a_try(&self) -> usize {
        let pending = self.world.ask(with(&self.approval), &self.anne).await.unwrap_err();
        assert_eq!(reason(&pending), "APPROVAL_PENDING", "{pending:?}");
        self.world.issuer.forms(TOKEN).len()
    }
}

fn notification_token(world: &World) -> String {
    world.issuer.forms(ASK).pop().unwrap()["client_notification_token"].clone()
}

#[tokio::test]
async fn only_the_own_notification_of_a_question_ends_its_wait() {
    let rows: [Row; 26] = [
        ("its own", |own, _| of_question().bearer(own), 1, 204, 1),
        ("its own, ten times", |own, _| of_question().bearer(own), 10, 204, 1),
        (
            "with more members",
            |own, _| about(&json!({"auth_req_id": QUESTION, "more": {"a": [1]}})).bearer(own),
            1,
            204,
            1,
        ),
        (
            "the scheme in small letters",
            |own, _| of_question().with("authorization", format!("bearer {own}")),
            1,
            204,
            1,
        ),
        ("of another content type", |own, _| of_question().without("content-type").bearer(own), 1, 204, 1),
        ("no token", |_, _| of_question(), 1, 401, 0),
        ("an empty token", |_, _| of_question().bearer(""), 1, 401, 0),
        ("a wrong token", |own, _| of_question().bearer(&other_end(own)), 1, 401, 0),
        ("a token in capitals", |own, _| of_question().bearer(&own.to_uppercase()), 1, 401, 0),
        ("a long token", |own, _| of_question().bearer(&own.repeat(100)), 1, 401, 0),
        ("another scheme", |own, _| of_question().with("authorization", format!("Basic {own}")), 1, 401, 0),
        ("the token twice", |own, _| of_question().bearer(own).bearer(own), 1, 401, 0),
        ("a long token beside the token", |own, _| of_question().bearer(own).bearer(&own.repeat(3)), 1, 401, 0),
        ("a long token in front of the token", |own, _| of_question().bearer(&own.repeat(3)).bearer(own), 1, 401, 0),
        ("the token of another question", |_, other| of_question().bearer(other), 1, 401, 0),
        ("the id of another question", |own, _| about(&json!({"auth_req_id": "other"})).bearer(own), 1, 401, 0),
        ("an unknown id", |own, _| about(&json!({"auth_req_id": "unknown"})).bearer(own), 1, 401, 0),
        (
            "a wrong token and a large body",
            |own, _| Call::new("POST", PATH).bearer(&other_end(own)).body(large()),
            1,
            401,
            0,
        ),
        ("a large body", |own, _| Call::new("POST", PATH).bearer(own).body(large()), 1, 413, 0),
        ("no body", |own, _| Call::new("POST", PATH).bearer(own), 1, 400, 0),
        ("no JSON", |own, _| Call::new("POST", PATH).bearer(own).body("auth_req_id=question"), 1, 400, 0),
        ("a list", |own, _| about(&json!([{"auth_req_id": QUESTION}])).bearer(own), 1, 400, 0),
        ("no id", |own, _| about(&json!({})).bearer(own), 1, 400, 0),
        ("an id that is no text", |own, _| about(&json!({"auth_req_id": [QUESTION]})).bearer(own), 1, 400, 0),
        (
            "the id twice",
            |own, _| {
                let body = r#"{"auth_req_id": "question", "auth_req_id": "question"}"#;
                Call::new("POST", PATH).bearer(own).body(body)
            },
            1,
            400,
            0,
        ),
        ("under another host", |own, _| of_question().bearer(own).with("host", "attacker.example"), 1, 403, 0),
    ];
    let mut unauthenticated = Vec::new();
    for (row, notification, times, status, polls) in rows {
        let asked = Asked::start(by_ping).await;
        asked.world.asks_as("other");
        let other = Approved::Retrieve(RetrieveRequest { top_k: 9, ..secret() });
        asked.world.request(other, &asked.anne).await.unwrap();
        let call = notification(&asked.token, &notification_token(&asked.world));
        for _ in 0..times {
            let reply = asked.notify(&call).await;
            assert_eq!(reply.status, status, "{row}: {}", reply.text());
            assert_eq!(
                (reply.header("cache-control"), reply.body.is_empty()),
                (Some("no-store"), status == 204),
                "{row}"
            );
            if status == 401 {
                unauthenticated.push((row, reply.header("www-authenticate").map(str::to_owned), reply.text()));
            }
        }
        assert_eq!(asked.world.issuer.forms(TOKEN).len(), 1, "{row}: it asks the issuer nothing itself");
        for _ in 0..3 {
            assert_eq!(asked.polls_after_a_try().await, 1 + polls, "{row}");
        }
    }
    let (_, challenge, text) = unauthenticated[0].clone();
    assert_eq!(challenge.as_deref(), Some("Bearer"));
    for (row, other_challenge, other_text) in unauthenticated {
        assert_eq!((&other_challenge, &other_text), (&challenge, &text), "{row}: all wrong ones are refused alike");
    }
}

/// Returns a token with another last digit.
fn other_end(token: &str) -> String {
    let (start, end) = token.split_at(token.len() - 1);
    format!("{start}{}", if end == "0" { "1" } else { "0" })
}

/// Returns a notification that is too large.
fn large() -> String {
    json!({ "auth_req_id": QUESTION, "more": "x".repeat(8 * 1_024) }).to_string()
}

#[tokio::test]
async fn a_notification_brings_the_answer_at_once() {
    let asked = Asked::start(by_ping).await;
    let Asked { world, anne, approval, token } = &asked;
    world.approve("anne", &[]);
    assert_eq!(asked.polls_after_a_try().await, 1, "nobody knows yet");
    let call = of_question().bearer(token);
    assert_eq!(asked.notify(&call).await.status, 204);
    assert_eq!(ids(&world.ask(with(approval), anne).await.unwrap()), ANNES);
    // An issuer may send it again.
    assert_eq!(asked.notify(&call).await.status, 204);
    let used = world.ask(with(approval), anne).await.unwrap_err();
    assert_eq!((reason(&used).as_str(), world.issuer.forms(TOKEN).len()), ("APPROVAL_EXPIRED", 2), "{used:?}");
}

#[tokio::test]
async fn a_notification_tells_of_a_no_and_leaves_no_record() {
    let asked = Asked::start(by_ping).await;
    asked.world.issuer.set(TOKEN, refused("access_denied"));
    let before = records(asked.world.data.path()).len();
    assert_eq!(asked.notify(&of_question().bearer(&asked.token)).await.status, 204);
    assert_eq!(asked.notify(&of_question()).await.status, 401);
    assert_eq!(records(asked.world.data.path()).len(), before);
    let denied = asked.world.ask(with(&asked.approval), &asked.anne).await.unwrap_err();
    assert_eq!(reason(&denied), "APPROVAL_DENIED");
}

/// The issuer was just asked, so only its notification lets the answer be heard before an agent asks for something else.
#[tokio::test]
async fn a_no_that_is_notified_is_heard_before_the_next_question() {
    // A row's name; the token of the notification, made of the question's; what becomes of the next question; the numbers of rings
    // and of polls.
    type NextRow = (&'static str, fn(&str) -> String, Code, usize, usize);
    let rows: [NextRow; 2] =
        [("its own token", str::to_owned, Code::ResourceExhausted, 1, 2), ("a wrong token", other_end, Code::Ok, 2, 1)];
    for (row, token, expected, rings, polls) in rows {
        let asked = Asked::start(alone).await;
        asked.world.issuer.set(TOKEN, refused("access_denied"));
        asked.notify(&of_question().bearer(&token(&asked.token))).await;
        let next = Approved::Retrieve(RetrieveRequest { top_k: 9, ..secret() });
        let next = asked.world.request(next, &asked.anne).await;
        assert_eq!(next.err().map_or(Code::Ok, |status| status.code()), expected, "{row}");
        let counts = [ASK, TOKEN].map(|path| asked.world.issuer.forms(path).len());
        assert_eq!(counts, [rings, polls], "{row}");
    }
}

#[tokio::test]
async fn a_replica_knows_the_tokens_of_all_and_heeds_what_it_polls() {
    let asked = Asked::start(by_ping).await;
    let (same, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let replica = serve(&same, &asked.world.issuer, by_ping).await;
    let stranger = serve(&other, &asked.world.issuer, alone).await;
    let call = of_question().bearer(&asked.token);
    let notify = async |address: std::net::SocketAddr| call.send(&address.to_string()).await.status;
    assert_eq!((notify(replica.address).await, notify(stranger.address).await), (204, 401));
    assert_eq!(asked.polls_after_a_try().await, 1, "the notification of a replica is lost to the others");

    let try_there = async || {
        let request = with_token(with(&asked.approval), &asked.anne);
        reason(&replica.client.retrieval().retrieve(request).await.unwrap_err())
    };
    assert_eq!(try_there().await, "APPROVAL_PENDING");
    assert_eq!(try_there().await, "APPROVAL_PENDING");
    assert_eq!(asked.world.issuer.forms(TOKEN).len(), 2, "the replica has asked once");
    assert_eq!(notify(replica.address).await, 204);
    assert_eq!(try_there().await, "APPROVAL_PENDING");
    assert_eq!(asked.world.issuer.forms(TOKEN).len(), 3, "and once more, at once");
}

#[tokio::test]
async fn the_path_is_there_only_where_issuers_notify() {
    for (row, is_notified, expected) in [("by ping", true, 400), ("by polls alone", false, 401)] {
        let change = |approval: &mut BackchannelConfig, identity: &mut IdentityConfig| {
            if is_notified {
                by_ping(approval, identity);
            }
        };
        let world = World::start(change).await;
        let anne = world.token("anne", &[]);
        world.request(Approved::Retrieve(secret()), &anne).await.unwrap();
        let token = world.issuer.forms(ASK).pop().unwrap().get("client_notification_token").cloned();
        assert_eq!(token.is_some(), is_notified, "{row}");
        let address = world.running.address.to_string();
        let call = about(&json!({})).bearer(&token.unwrap_or_default());
        assert_eq!(call.send(&address).await.status, expected, "{row}");
        // For the bearer of an access token, it is a path without anything, or one that needs another token.
        let by_anne = about(&json!({})).bearer(&anne).send(&address).await.status;
        assert_eq!(by_anne, if is_notified { 401 } else { 404 }, "{row}");
        let read = Call::new("GET", PATH).bearer(&anne).send(&address).await;
        assert_eq!(
            (read.status, read.header("allow")),
            if is_notified { (405, Some("POST")) } else { (404, None) },
            "{row}"
        );
    }
}
