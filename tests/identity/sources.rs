//! Sources are asked as the user before a chunk leaves, through a whole server. The source and its authorization server are of
//! the test.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ragward::app;
use ragward::config::Config;
use ragward::proto::retrieval::{FetchRequest, RecheckRequest};
use ragward::sources::SourceConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::identity::approver::{ids, reason, rules, secret};
use crate::identity::rpcs::records;
use crate::identity::world::{ANNES, RETRIEVE, identity, seen, start_with, with_token};
use crate::support::issuer::{SigningKey, TestIssuer};
use crate::support::running::{Running, config};

/// The scopes of a pipeline that names its users.
const ASSERTING: &str = "ragward:retrieve ragward:assert_user";
/// The secret of Ragward at the authorization server.
pub(crate) const CLIENT_SECRET: &str = "canary-93-secret";
/// The token of the source that stands for Anne's.
pub(crate) const ANNES_TOKEN: &str = "for-anne";
const FROM_ROADMAP: [&str; 2] = ["document:roadmap#0", "document:roadmap#1"];

/// A source with its authorization server, on one port. It releases everything until it is told otherwise.
#[derive(Clone)]
pub(crate) struct Wiki {
    address: String,
    /// The statuses of documents, by the subject and the path.
    statuses: Arc<Mutex<HashMap<(String, String), u16>>>,
    /// The requests for documents: head and authorization.
    asked: Arc<Mutex<Vec<String>>>,
    /// The forms of exchanges.
    exchanged: Arc<Mutex<Vec<String>>>,
}

impl Wiki {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let wiki = Self { address, statuses: Arc::default(), asked: Arc::default(), exchanged: Arc::default() };
        let served = wiki.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(served.clone().serve(connection));
            }
        });
        wiki
    }

    /// Returns the heads of the requests for documents.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn says(&self, subject: &str, path: &str, status: u16) {
        self.statuses.lock().unwrap().insert((subject.to_owned(), path.to_owned()), status);
    }

    async fn serve(self, mut connection: TcpStream) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let length = header("content-length: ").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await.ok()?;
        let (status, body) = match header("authorization: Bearer for-") {
            Some(subject) => {
                self.asked.lock().unwrap().push(head.clone());
                let path = head.split(' ').nth(1)?.to_owned();
                let statuses = self.statuses.lock().unwrap();
                (statuses.get(&(subject, path)).copied().unwrap_or(200), String::new())
            }
            None => (200, self.exchange(String::from_utf8(body).ok()?)?),
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        connection.write_all(answer.as_bytes()).await.ok()?;
        connection.shutdown().await.ok()
    }

    fn exchange(&self, form: String) -> Option<String> {
        let token = form.split('&').find_map(|field| field.strip_prefix("subject_token="))?.to_owned();
        self.exchanged.lock().unwrap().push(form);
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        let token = format!("for-{}", claims["sub"].as_str()?);
        Some(json!({"access_token": token, "token_type": "Bearer", "expires_in": 60}).to_string())
    }

    /// Returns the settings of this source. Nothing is remembered, so that each change counts at once.
    pub(crate) fn settings(&self, folder: &Path) -> Vec<SourceConfig> {
        let file = folder.join("wiki-secret");
        std::fs::write(&file, format!("{CLIENT_SECRET}\n")).unwrap();
        let settings = json!([{
            "name": "wiki", "guard_type": "document", "url": format!("{}/documents/{{id}}", self.address), "remember": "0s",
            "exchange": {
                "token_url": format!("{}/token", self.address), "client_id": "ragward", "client_secret_file": file,
                "audience": "wiki",
            },
        }]);
        serde_json::from_value(settings).unwrap()
    }
}

/// Returns the code of a refusal, and checks that it tells nothing of the source.
fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    let status = answer.unwrap_err();
    let text = format!("{status:?}");
    assert!(!text.contains("wiki") && !text.contains("roadmap") && !text.contains("127.0.0.1"), "{text}");
    status.code()
}

async fn rechecked(running: &Running, token: &str) -> Result<Vec<String>, Status> {
    let chunk_ids = ANNES.map(str::to_owned).to_vec();
    let message = RecheckRequest { collection: "handbook".to_owned(), chunk_ids, ..RecheckRequest::default() };
    let answer = running.client.retrieval().recheck(with_token(message, token)).await;
    answer.map(|answer| answer.into_inner().chunk_ids)
}

async fn fetched(running: &Running, token: &str) -> Result<Vec<String>, Status> {
    let document_ids = ["document:welcome", "document:roadmap", "page:draft"].map(str::to_owned).to_vec();
    let message = FetchRequest { collection: "handbook".to_owned(), document_ids, ..FetchRequest::default() };
    let answer = running.client.retrieval().fetch(with_token(message, token)).await.map(Response::into_inner)?;
    let mut ids: Vec<String> = answer.chunks.into_iter().map(|chunk| chunk.id).collect();
    ids.sort_unstable();
    Ok(ids)
}

#[tokio::test]
async fn a_source_narrows_what_openfga_permits() {
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let data = tempfile::tempdir().unwrap();
    let wiki = Wiki::start().await;
    let sources = wiki.settings(data.path());
    let running = start_with(data.path(), identity(&issuer), |config| config.sources = sources).await;
    let token = |subject: &str, scope: &str| key.sign(&issuer.claims(subject, scope));
    let anne = token("anne", RETRIEVE);

    assert_eq!(seen(&running, "", &anne).await.unwrap(), ANNES);
    // A right that the source takes away, by each of its statuses. Another type of guard has no source.
    let without_roadmap: Vec<&str> = ANNES.into_iter().filter(|id| !FROM_ROADMAP.contains(id)).collect();
    for status in [403, 404, 410] {
        wiki.says("anne", "/documents/roadmap", status);
        assert_eq!(seen(&running, "", &anne).await.unwrap(), without_roadmap, "{status}");
        assert_eq!(rechecked(&running, &anne).await.unwrap(), without_roadmap, "{status}");
        assert_eq!(fetched(&running, &anne).await.unwrap(), without_roadmap, "{status}");
    }
    // The source gives nothing that the relationships do not: it is not even asked.
    assert!(!wiki.asked().iter().any(|head| head.contains("salaries")));

    for status in [302, 401, 429, 500] {
        wiki.says("anne", "/documents/roadmap", status);
        assert_eq!(refusal(seen(&running, "", &anne).await), Code::Unavailable, "{status}");
        assert_eq!(refusal(rechecked(&running, &anne).await), Code::Unavailable, "{status}");
        assert_eq!(refusal(fetched(&running, &anne).await), Code::Unavailable, "{status}");
    }
    wiki.says("anne", "/documents/roadmap", 204);
    assert_eq!(seen(&running, "", &anne).await.unwrap(), ANNES);

    // Each user is asked for with the own token, and a user whom another names has none.
    let bob = token("bob", RETRIEVE);
    wiki.says("bob", "/documents/salaries", 403);
    assert_eq!(seen(&running, "", &bob).await.unwrap(), ["document:welcome#0", "document:welcome#1"]);
    let pipeline = token("pipeline", ASSERTING);
    assert_eq!(refusal(seen(&running, "user:anne", &pipeline).await), Code::PermissionDenied);
    assert_eq!(seen(&running, "user:anne", &anne).await.unwrap(), ANNES, "the own name needs no other token");

    let asked = wiki.asked();
    for inbound in [&anne, &bob, &pipeline] {
        assert!(!asked.iter().any(|head| head.contains(inbound.as_str())), "the token of a call goes to nobody else");
    }
    assert!(!asked.iter().any(|head| head.contains("for-pipeline")));
    assert!(asked.iter().all(|head| head.starts_with("HEAD /documents/")), "{asked:?}");
    let exchanged = wiki.exchanged.lock().unwrap().clone();
    assert!(exchanged.iter().all(|form| form.contains("subject_token=") && form.contains("audience=wiki")));

    running.stop().await.unwrap();
    let records = records(data.path());
    let told = format!("{records:?}");
    assert!(!told.contains(ANNES_TOKEN) && !told.contains(anne.as_str()) && !told.contains(CLIENT_SECRET), "no token");
    let retrieves: Vec<_> = records.iter().filter(|record| record.call.ends_with("/Retrieve")).collect();
    let of_source = |at: usize| retrieves[at].decision.as_ref().unwrap().sources.clone();
    let counts = |at: usize| {
        let sources = of_source(at);
        let [source] = sources.as_slice() else { panic!("{sources:?}") };
        (source.name.clone(), source.asked, source.withheld)
    };
    assert_eq!(counts(0), ("wiki".to_owned(), 2, 0));
    assert_eq!(counts(1), ("wiki".to_owned(), 2, 1));
}

/// An approval bounds what leaves for a source, as it bounds the answer, and the source narrows what was approved.
#[tokio::test]
async fn no_source_is_asked_before_an_approval() {
    let key = SigningKey::es256("key");
    let issuer = TestIssuer::start(&[&key]).await;
    let data = tempfile::tempdir().unwrap();
    let wiki = Wiki::start().await;
    let sources = wiki.settings(data.path());
    let mut identity = identity(&issuer);
    rules(&mut identity);
    let running = start_with(data.path(), identity, |config| config.sources = sources).await;
    let mut claims = issuer.claims("anne", RETRIEVE);
    let retrieve = async |token: &str| {
        let answer = running.client.retrieval().retrieve(with_token(secret(), token)).await;
        answer.map(Response::into_inner)
    };

    let required = retrieve(&key.sign(&claims)).await.unwrap_err();
    assert_eq!(reason(&required), "APPROVAL_REQUIRED", "{required:?}");
    assert!(wiki.asked().is_empty() && wiki.exchanged.lock().unwrap().is_empty(), "nothing has left");
    let details = required.get_error_details().error_info().unwrap().metadata["authorization_details"].clone();
    claims["authorization_details"] = serde_json::from_str(&details).unwrap();
    claims["jti"] = json!("approved");
    let approved = key.sign(&claims);
    // A failure gives no answer, reads no text, and uses nothing up.
    wiki.says("anne", "/documents/roadmap", 500);
    assert_eq!(refusal(retrieve(&approved).await), Code::Unavailable);
    wiki.says("anne", "/documents/roadmap", 403);
    let answer = retrieve(&approved).await.unwrap();
    let without_roadmap: Vec<&str> = ANNES.into_iter().filter(|id| !FROM_ROADMAP.contains(id)).collect();
    assert_eq!(ids(&answer), without_roadmap);
    assert!(!wiki.asked().iter().any(|head| head.contains("salaries")), "an approval shows the source no more");
    let before = wiki.asked().len();
    assert_eq!(retrieve(&approved).await.unwrap_err().code(), Code::Unauthenticated, "once");
    assert_eq!(wiki.asked().len(), before, "and no source is asked for a used one");
}

#[tokio::test]
async fn sources_need_the_tokens_of_users() {
    let data = tempfile::tempdir().unwrap();
    let wiki = Wiki::start().await;
    let mut believing: Config = config(data.path());
    believing.sources = wiki.settings(data.path());
    let refused = app::check(&believing).expect_err("nobody has a token").to_string();
    assert!(refused.contains("`sources`") && refused.contains("--insecure-identity"), "{refused}");
}
