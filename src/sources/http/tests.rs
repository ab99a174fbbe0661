//! Sources and authorization servers of the tests' own, which answer well or badly, on ports of loopback.

mod exchanges;

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::form_urlencoded;

use super::*;
use crate::identity::BearerToken;
use crate::identity::sample::{self, NOW};
use crate::sources::{Recall, check};

const SECRET: &str = "canary-93-secret";
const SOURCE_AUDIENCE: &str = "https://wiki.example";

/// A request as it arrived.
#[derive(Clone, Debug)]
struct Asked {
    verb: String,
    path: String,
    /// The head in small letters.
    head: String,
    authorization: String,
    body: String,
}

/// The answer of a server.
#[derive(Clone, Debug)]
enum Answer {
    Status(u16),
    Body(u16, String),
    Redirect(String),
    Hang,
    Close,
}

type Answering = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// A server that answers each request by a function. Its tasks end with the test's runtime.
#[derive(Clone)]
struct TestServer {
    address: String,
    answering: Arc<Mutex<Answering>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl TestServer {
    async fn start(answering: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let answering: Answering = Arc::new(answering);
        let server = Self { address, answering: Arc::new(Mutex::new(answering)), asked: Arc::default() };
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(connection));
            }
        });
        server
    }

    fn set(&self, answering: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        *self.answering.lock().unwrap() = Arc::new(answering);
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    async fn serve(self, mut connection: TcpStream) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        let header = |name: &str| {
            let of_name = |line: &&str| line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name));
            head.lines().find(of_name).and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned())
        };
        let length = header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await.ok()?;
        let mut first = head.split(' ');
        let asked = Asked {
            verb: first.next()?.to_owned(),
            path: first.next()?.to_owned(),
            authorization: header("authorization").unwrap_or_default(),
            head: head.to_lowercase(),
            body: String::from_utf8(body).ok()?,
        };
        self.asked.lock().unwrap().push(asked.clone());
        let answering = Arc::clone(&self.answering.lock().unwrap());
        let (status, body, more) = match answering(&asked) {
            Answer::Status(status) => (status, String::new(), String::new()),
            Answer::Body(status, body) => (status, body, String::new()),
            Answer::Redirect(to) => (302, String::new(), format!("location: {to}\r\n")),
            Answer::Hang => pending().await,
            Answer::Close => return None,
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n");
        connection.write_all(head.as_bytes()).await.ok()?;
        if asked.verb != "HEAD" {
            connection.write_all(body.as_bytes()).await.ok()?;
        }
        connection.shutdown().await.ok()
    }
}

/// Returns the claims of a token that [`jwt`] made.
fn claims_of(token: &str) -> Option<Value> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

fn subject_of(token: &str) -> Option<String> {
    claims_of(token)?["sub"].as_str().map(str::to_owned)
}

fn jwt(claims: &Value) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// Answers an exchange with a token for the subject of the token that was sent. Each token has another number.
fn exchanging(asked: &Asked, number: usize) -> Answer {
    let field = |name: &str| {
        let mut fields = form_urlencoded::parse(asked.body.as_bytes());
        fields.find(|(found, _)| found == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let Some(inbound) = claims_of(&field("subject_token")) else { return Answer::Status(400) };
    let token = jwt(&json!({
        "sub": inbound["sub"], "of": inbound["number"], "aud": SOURCE_AUDIENCE, "number": number,
        "canary": "canary-93-exchanged",
    }));
    let answer = json!({
        "access_token": token, "token_type": "Bearer", "expires_in": 300,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "refresh_token": "canary-93-refresh",
    });
    Answer::Body(200, answer.to_string())
}

/// A source, an authorization server, and what asks them.
struct World {
    source: TestServer,
    issuer: TestServer,
    sources: HttpSources,
    directory: TempDir,
}

impl World {
    /// Starts a source that answers so, and an authorization server that exchanges every token. `change` edits the settings.
    async fn start(
        answering: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let source = TestServer::start(answering).await;
        let number = Mutex::new(0);
        let issuer = TestServer::start(move |asked| {
            let mut number = number.lock().unwrap();
            *number += 1;
            exchanging(asked, *number)
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, format!("{SECRET}\n")).unwrap();
        let mut settings = json!({
            "name": "wiki", "guard_type": "document", "url": format!("{}/pages/{{id}}", source.address),
            "timeout": "5s", "remember": "0s",
            "exchange": {
                "token_url": format!("{}/token", issuer.address), "client_id": "ragward", "client_secret_file": file,
                "audience": SOURCE_AUDIENCE,
            },
        });
        change(&mut settings);
        let settings: Vec<SourceConfig> = vec![serde_json::from_value(settings).unwrap()];
        check(&settings).unwrap();
        Self { sources: HttpSources::new(&settings, None).unwrap(), source, issuer, directory }
    }

    async fn ask(&self, document: &str, bearer: &BearerToken) -> Result<SourceReply, SourceError> {
        self.ask_with(document, bearer, Recall::All).await
    }

    async fn ask_with(&self, document: &str, bearer: &BearerToken, recall: Recall) -> Result<SourceReply, SourceError> {
        let guard = Object::parse(&format!("document:{document}")).unwrap();
        let document = self.sources.locate(&guard, None).expect("a document");
        let question =
            SourceQuestion { document: &document, version: None, bearer, recall, since_1970: Duration::from_secs(NOW) };
        self.sources.ask(&question).await
    }

    async fn fault(&self, document: &str, bearer: &BearerToken) -> Option<SourceFault> {
        match self.ask(document, bearer).await {
            Ok(_reply) => None,
            Err(SourceError::Unavailable { fault, .. }) => Some(fault),
            Err(SourceError::NoToken) => panic!("there is a token"),
        }
    }
}

/// Returns the token of a call, whose number no other one has.
fn bearer(subject: &str, number: usize) -> BearerToken {
    let text = jwt(&json!({"sub": subject, "number": number, "canary": "canary-93-inbound"}));
    BearerToken::new(&text, sample::token(subject, "ragward:retrieve", NOW + 600).facts())
}

fn released(reply: &Result<SourceReply, SourceError>) -> Option<bool> {
    match reply {
        Ok(SourceReply::Released(_)) => Some(true),
        Ok(SourceReply::Withheld) => Some(false),
        Err(_) => None,
    }
}

#[tokio::test]
async fn each_status_has_its_meaning() {
    let rows = [
        (200, Some(true)),
        (201, None),
        (202, None),
        (204, Some(true)),
        (206, None),
        (301, None),
        (302, None),
        (304, None),
        (307, None),
        (400, None),
        (401, None),
        (402, None),
        (403, Some(false)),
        (404, Some(false)),
        (405, None),
        (409, None),
        (410, Some(false)),
        (418, None),
        (429, None),
        (451, None),
        (500, None),
        (502, None),
        (503, None),
        (504, None),
    ];
    let world = World::start(|_asked| Answer::Status(500), |_settings| {}).await;
    for (status, expected) in rows {
        world.source.set(move |_asked| Answer::Status(status));
        let reply = world.ask("1", &bearer("anne", 1)).await;
        assert_eq!(released(&reply), expected, "{status}");
        if expected.is_none() {
            let fault = SourceFault::Status(status);
            assert_eq!(reply, Err(SourceError::Unavailable { source_name: "wiki".to_owned(), fault }), "{status}");
        }
    }
}

#[tokio::test]
async fn a_source_is_asked_as_the_user_with_a_token_of_its_own() {
    let in_header = |settings: &mut Value| settings["exchange"]["secret_in"] = json!("header");
    let world = World::start(|_asked| Answer::Status(200), in_header).await;
    assert_eq!(released(&world.ask("roadmap", &bearer("anne", 1)).await), Some(true));
    let (asked, exchanged) = (world.source.asked(), world.issuer.asked());
    let [asked] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((asked.verb.as_str(), asked.path.as_str()), ("HEAD", "/pages/roadmap"));
    let token = asked.authorization.strip_prefix("Bearer ").expect("a bearer token");
    assert_eq!(subject_of(token).as_deref(), Some("anne"));
    assert!(!format!("{asked:?}").contains(bearer("anne", 1).expose()), "the token of the call stays away");
    assert!(!asked.head.contains("cookie") && !asked.head.contains("referer"), "{}", asked.head);

    let [exchanged] = exchanged.as_slice() else { panic!("{exchanged:?}") };
    let form: HashMap<String, String> = form_urlencoded::parse(exchanged.body.as_bytes()).into_owned().collect();
    let expected = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", bearer("anne", 1).expose()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("audience", SOURCE_AUDIENCE),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(form, HashMap::from(expected));
    assert!(exchanged.authorization.starts_with("Basic "), "{}", exchanged.authorization);
}

#[tokio::test]
async fn an_answer_must_be_about_the_document() {
    let page = |body: &str| Answer::Body(200, body.to_owned());
    let large = format!(r#"{{"id":"7","body":"{}"}}"#, "x".repeat(TEXT_BYTES_MAX + 1));
    let larger = format!(r#"{{"id":"7","body":"{}"}}"#, "x".repeat(ANSWER_BYTES_MAX));
    let rows = [
        ("the document", page(r#"{"id":"7","body":"text","title":"T"}"#), None),
        ("its id as a number", page(r#"{"id":7,"body":"text"}"#), None),
        ("another document", page(r#"{"id":"8","body":"text"}"#), Some(SourceFault::OtherDocument)),
        ("a number that is written otherwise", page(r#"{"id":7.0,"body":"t"}"#), Some(SourceFault::OtherDocument)),
        ("no id", page(r#"{"body":"text"}"#), Some(SourceFault::OtherDocument)),
        ("an id twice", page(r#"{"id":"8","id":"7","body":"text"}"#), Some(SourceFault::OtherDocument)),
        ("an id that is a list", page(r#"{"id":["7"],"body":"text"}"#), Some(SourceFault::OtherDocument)),
        ("a login page", page("<html>Log in</html>"), Some(SourceFault::OtherDocument)),
        ("a list", page(r#"[{"id":"7"}]"#), Some(SourceFault::OtherDocument)),
        ("nothing", Answer::Status(204), Some(SourceFault::OtherDocument)),
        ("no text", page(r#"{"id":"7"}"#), Some(SourceFault::NoText)),
        ("a text that is none", page(r#"{"id":"7","body":{}}"#), Some(SourceFault::NoText)),
        ("a text larger than a chunk", page(&large), Some(SourceFault::TooLarge)),
        ("an answer that is too large", page(&larger), Some(SourceFault::TooLarge)),
    ];
    let world = World::start(
        |_asked| Answer::Status(500),
        |settings| {
            let settings = settings.as_object_mut().unwrap();
            for (key, value) in
                [("method", "GET"), ("expect", "/id"), ("text", "source"), ("text_at", "/body"), ("title_at", "/title")]
            {
                settings.insert(key.to_owned(), json!(value));
            }
        },
    )
    .await;
    for (row, answer, expected) in rows {
        world.source.set(move |_asked| answer.clone());
        assert_eq!(world.fault("7", &bearer("anne", 1)).await, expected, "{row}");
    }
    world.source.set(|_asked| Answer::Body(200, r#"{"id":"7","body":"text","title":"T"}"#.to_owned()));
    let text = SourceText { text: "text".to_owned(), title: "T".to_owned() };
    assert_eq!(world.ask("7", &bearer("anne", 1)).await, Ok(SourceReply::Released(Some(text))));
    assert_eq!(world.source.asked()[0].verb, "GET");
}

#[tokio::test]
async fn a_source_that_fails_releases_nothing() {
    let other = TestServer::start(|_asked| Answer::Status(200)).await;
    let rows = [
        ("it redirects", Answer::Redirect(format!("{}/pages/1", other.address)), SourceFault::Status(302)),
        ("it hangs", Answer::Hang, SourceFault::Unreachable),
        ("it breaks off", Answer::Close, SourceFault::Unreachable),
    ];
    let world = World::start(|_asked| Answer::Hang, |settings| settings["timeout"] = json!("200ms")).await;
    for (row, answer, expected) in rows {
        world.source.set(move |_asked| answer.clone());
        assert_eq!(world.fault("1", &bearer("anne", 1)).await, Some(expected), "{row}");
    }
    assert_eq!(other.asked().len(), 0, "no redirect is followed");
}

#[tokio::test]
async fn answers_are_remembered_as_the_settings_say() {
    let world = World::start(|_asked| Answer::Status(200), |settings| settings["remember"] = json!("30s")).await;
    let (anne, bob) = (bearer("anne", 1), bearer("bob", 1));
    let before = Instant::now();
    let rows = [
        ("first", "1", &anne, Recall::All, 1),
        ("again", "1", &anne, Recall::All, 1),
        ("as fresh as an earlier moment", "1", &anne, Recall::Since(before), 1),
        ("another document", "2", &anne, Recall::All, 2),
        ("another user", "1", &bob, Recall::All, 3),
        ("the highest consistency", "1", &anne, Recall::None, 4),
    ];
    for (row, document, bearer, recall, expected) in rows {
        assert_eq!(released(&world.ask_with(document, bearer, recall).await), Some(true), "{row}");
        assert_eq!(world.source.asked().len(), expected, "{row}");
    }
    world.source.set(|_asked| Answer::Status(403));
    assert_eq!(released(&world.ask_with("1", &anne, Recall::None).await), Some(false));
    assert_eq!(released(&world.ask("1", &anne).await), Some(false), "the last answer counts");
}

/// The source releases to each token the documents of that token alone, and knows the token by the exchanged one. Two of the tokens
/// are one user's.
#[tokio::test(flavor = "multi_thread")]
async fn two_users_never_share_a_token() {
    const INTERLEAVINGS: usize = 1_000;
    let world = World::start(
        |asked| {
            let claims = asked.authorization.strip_prefix("Bearer ").and_then(claims_of).unwrap_or_default();
            let own = format!("/pages/{}-{}-", claims["sub"].as_str().unwrap_or_default(), claims["of"]);
            Answer::Status(if asked.path.starts_with(&own) { 200 } else { 403 })
        },
        |settings| {
            settings["remember"] = json!("30s");
            settings["concurrency"] = json!(64);
        },
    )
    .await;
    let bearers = [bearer("anne", 1), bearer("bob", 1), bearer("anne", 2)];
    let own = ["anne-1-", "bob-1-", "anne-2-"];
    let calls: Vec<(usize, String)> = (0..INTERLEAVINGS)
        .map(|number| (number % bearers.len(), format!("{}{}", own[number / bearers.len() % own.len()], number % 7)))
        .collect();
    let replies = join_all(calls.iter().map(|(at, document)| world.ask(document, &bearers[*at]))).await;
    for ((at, document), reply) in calls.iter().zip(&replies) {
        assert_eq!(
            released(reply),
            Some(document.starts_with(own[*at])),
            "{} asked for {document}: {reply:?}",
            own[*at]
        );
    }
    assert_eq!(world.issuer.asked().len(), bearers.len(), "one exchange for each token");
    let tokens: BTreeSet<String> = world.source.asked().into_iter().map(|asked| asked.authorization).collect();
    assert_eq!(tokens.len(), bearers.len());
}

#[tokio::test]
async fn no_token_and_no_secret_is_shown() {
    let world = World::start(|_asked| Answer::Body(500, "canary-93-answer".to_owned()), |_settings| {}).await;
    let anne = bearer("anne", 1);
    let error = world.ask("1", &anne).await.expect_err("a failure");
    let token = world.sources.sources[0].exchange.token(&anne, Duration::from_secs(NOW)).await.unwrap();
    let shown = format!("{error} {error:?} {anne:?} {token:?}");
    assert!(!shown.contains("canary-93") && !shown.contains("e30."), "{shown}");
}

#[test]
fn a_source_that_cannot_be_asked_is_refused_at_the_start() {
    type Change = fn(&mut Value);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, SECRET).unwrap();
    let settings = |change: &dyn Fn(&mut Value)| {
        let mut settings = json!({
            "name": "wiki", "guard_type": "document", "url": "https://wiki.example/pages/{id}",
            "exchange": {
                "token_url": "https://login.example/token", "client_id": "ragward", "client_secret_file": file,
                "audience": SOURCE_AUDIENCE,
            },
        });
        change(&mut settings);
        vec![serde_json::from_value::<SourceConfig>(settings).unwrap()]
    };
    let rows: [(&str, Change, Option<&str>); 8] = [
        ("as it should be", |_| {}, None),
        ("two fields", |s| s["url"] = json!("https://wiki.example/{id}/{id}"), Some("one field")),
        ("no TLS", |s| s["url"] = json!("http://wiki.example/{id}"), Some("`https`")),
        ("a private address", |s| s["url"] = json!("https://10.0.0.1/{id}"), Some("`private_addresses`")),
        ("no network", |s| s["private_addresses"] = json!(["10.0.0.0/99"]), Some("no network")),
        ("an exchange without TLS", |s| s["exchange"]["token_url"] = json!("http://a.example/t"), Some("token_url")),
        ("no secret", |s| s["exchange"]["client_secret_file"] = json!("/no/such/file"), Some("/no/such/file")),
        ("no authorities", |s| s["ca_file"] = json!("/no/such/file"), Some("/no/such/file")),
    ];
    for (row, change, expected) in rows {
        let refused = HttpSources::new(&settings(&change), None).err().map(|error| error.to_string());
        assert_eq!(refused.is_some(), expected.is_some(), "{row}: {refused:?}");
        let refused = refused.unwrap_or_default();
        assert!(refused.contains(expected.unwrap_or_default()) && !refused.contains(SECRET), "{row}: {refused}");
    }
}
