//! Logins at servers and issuers of the tests, which answer as they please.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

const NOW: u64 = 1_000_000;

/// An answer of a peer.
struct Answer {
    status: u16,
    /// A header line with its line end, or nothing.
    header: String,
    json: Value,
}

impl Answer {
    fn new(status: u16, json: Value) -> Self {
        Self { status, header: String::new(), json }
    }
}

/// A request to a peer.
struct Asked<'a> {
    /// The address of the peer itself.
    url: &'a str,
    path: &'a str,
    body: &'a str,
}

/// A server or an issuer on this machine. It ends with the value.
struct Peer {
    url: String,
    /// The path and the body of each request.
    requests: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl Peer {
    async fn start(answer: impl Fn(Asked<'_>) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (own_url, seen) = (url.clone(), Arc::clone(&requests));
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let mut connection = BufReader::new(connection);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && connection.read_line(&mut head).await.unwrap() > 0 {}
                let small = head.to_ascii_lowercase();
                let length = small.lines().find_map(|line| line.strip_prefix("content-length: "));
                let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
                connection.read_exact(&mut body).await.unwrap();
                let body = String::from_utf8(body).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default();
                seen.lock().unwrap().push(format!("{path} {body}"));
                let Answer { status, header, json } = answer(Asked { url: &own_url, path, body: &body });
                let json = json.to_string();
                let length = json.len();
                let text = format!(
                    "HTTP/1.1 {status} -\r\n{header}content-length: {length}\r\nconnection: close\r\n\r\n{json}"
                );
                connection.write_all(text.as_bytes()).await.unwrap();
            }
        });
        Self { url, requests, _task: task }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn stored(issuer: &str, seconds_left: i64) -> StoredLogin {
    StoredLogin {
        origin: "https://rag.example".to_owned(),
        issuer: issuer.to_owned(),
        resource: "https://rag.example".to_owned(),
        client_id: "cli".to_owned(),
        scope: "ragward:retrieve".to_owned(),
        token_endpoint: format!("{issuer}/token"),
        revocation_endpoint: Some(format!("{issuer}/revoke")),
        expires_at: Some(NOW.saturating_add_signed(seconds_left)),
        access_token: Secret::new("access1"),
        refresh_token: Some(Secret::new("refresh1")),
    }
}

async fn store_with(parent: &Path, login: &StoredLogin) -> LoginStore {
    let store = LoginStore::new(parent.join("logins"));
    store.lock(&login.origin).await.unwrap().write(login).unwrap();
    store
}

/// Returns an access token for the servers that `audience` names.
fn for_audience(audience: &str) -> String {
    format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(json!({ "aud": audience }).to_string()))
}

struct RenewalRow {
    name: &'static str,
    seconds_left: i64,
    status: u16,
    answer: Value,
    /// The token that the command uses, or a part of the error.
    token: Result<&'static str, &'static str>,
    /// The refresh token that is kept.
    kept: Option<&'static str>,
    requests: usize,
}

#[tokio::test]
async fn a_token_that_ends_is_renewed_with_the_newest_refresh_token() {
    let new = |refresh: Option<&str>| json!({"access_token": "access2", "token_type": "Bearer", "expires_in": 300, "refresh_token": refresh});
    let lost = json!({"error": "invalid_grant"});
    let of_another = for_audience("https://other.example");
    let elsewhere =
        json!({"access_token": of_another, "token_type": "Bearer", "expires_in": 300, "refresh_token": "refresh2"});
    let row = |name, seconds_left, status, answer, token, kept, requests| RenewalRow {
        name,
        seconds_left,
        status,
        answer,
        token,
        kept,
        requests,
    };
    let rows = [
        row("it lasts", 31, 500, json!({}), Ok("access1"), Some("refresh1"), 0),
        row("it ends soon", 30, 200, new(Some("refresh2")), Ok("access2"), Some("refresh2"), 1),
        row("it has ended", -1, 200, new(Some("refresh2")), Ok("access2"), Some("refresh2"), 1),
        row("the issuer does not rotate", -1, 200, new(None), Ok("access2"), Some("refresh1"), 1),
        row("the issuer lost the token", -1, 400, lost.clone(), Err("has ended; log in again"), None, 1),
        row("the issuer lost it early", 10, 400, lost, Ok("access1"), None, 1),
        row("the issuer is broken", -1, 500, json!({}), Err("answered with status 500"), Some("refresh1"), 1),
        row("the issuer is broken early", 10, 503, json!({}), Ok("access1"), Some("refresh1"), 1),
        row("the answer is no token yet", 10, 200, json!({}), Ok("access1"), Some("refresh1"), 1),
        row("the new token is for another server", -1, 200, elsewhere.clone(), Err("`aud`"), Some("refresh2"), 1),
        row("it is for another server early", 10, 200, elsewhere, Ok("access1"), Some("refresh2"), 1),
        row(
            "the issuer refuses the client",
            -1,
            401,
            json!({"error": "invalid_client"}),
            Err("`invalid_client`; `--client-id` or"),
            Some("refresh1"),
            1,
        ),
        row(
            "the answer is no token",
            -1,
            200,
            json!({"access_token": "access2"}),
            Err("`token_type`"),
            Some("refresh1"),
            1,
        ),
    ];
    for row in rows {
        let RenewalRow { name, seconds_left, status, answer, token, kept, requests } = row;
        let issuer = Peer::start(move |_asked| Answer::new(status, answer.clone())).await;
        let parent = tempfile::tempdir().unwrap();
        let login = stored(&issuer.url, seconds_left);
        let store = store_with(parent.path(), &login).await;
        match (stored_token(&store, &login.origin, NOW).await, token) {
            (Ok(Some(used)), Ok(expected)) => assert_eq!(used.expose(), expected, "{name}"),
            (Err(error), Err(part)) => {
                let text = error.to_string();
                assert!(text.contains(part) && !text.contains("refresh1"), "{name}: {text}");
            }
            (used, expected) => panic!("{name}: {used:?}, not {expected:?}"),
        }
        let after = store.read(&login.origin).unwrap().unwrap();
        assert_eq!(after.refresh_token.as_ref().map(Secret::expose), kept, "{name}");
        let asked = issuer.requests();
        assert_eq!(asked.len(), requests, "{name}: {asked:?}");
        for request in asked {
            let expected = "/token grant_type=refresh_token&refresh_token=refresh1&client_id=cli&resource=https%3A%2F%2Frag.example";
            assert_eq!(request, expected, "{name}");
        }
    }
}

#[tokio::test]
async fn no_token_follows_a_redirect() {
    let elsewhere = Peer::start(|_asked| {
        Answer::new(200, json!({"access_token": "access2", "token_type": "Bearer", "expires_in": 300}))
    })
    .await;
    for status in [301, 302, 303, 307, 308] {
        let header = format!("location: {}/token\r\n", elsewhere.url);
        let issuer = Peer::start(move |_asked| Answer { status, header: header.clone(), json: json!({}) }).await;
        let parent = tempfile::tempdir().unwrap();
        let login = stored(&issuer.url, -1);
        let store = store_with(parent.path(), &login).await;
        let refused = stored_token(&store, &login.origin, NOW).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("status {status}")), "{status}: {refused}");
        assert_eq!(log_out(&store, &login.origin).await.unwrap(), Logout::DeletedHere, "{status}");
        let asked: Vec<String> =
            issuer.requests().iter().map(|text| text.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(asked, ["/token", "/revoke"], "{status}");
    }
    assert!(elsewhere.requests().is_empty(), "{:?}", elsewhere.requests());
}

#[tokio::test]
async fn metadata_is_found_where_an_issuer_has_it() {
    let document = |url: &str| json!({"issuer": url, "token_endpoint": format!("{url}/token")});
    let rows: [(&str, u16, Value, bool); 4] = [
        ("none of OAuth", 404, json!({}), true),
        ("a page instead", 200, json!("a page"), true),
        ("another issuer by OAuth", 200, json!({"issuer": "https://evil.example"}), false),
        ("a fault", 500, json!({}), true),
    ];
    for (name, status, first, expected) in rows {
        let issuer = Peer::start(move |asked| match asked.path {
            "/.well-known/oauth-authorization-server" => Answer::new(status, first.clone()),
            "/.well-known/openid-configuration" => Answer::new(200, document(asked.url)),
            _ => Answer::new(404, json!({})),
        })
        .await;
        let read = Issuer::read(&HttpClient::new(None).unwrap(), &issuer.url, PlainHttp::OnLoopback).await;
        assert_eq!(read.is_ok(), expected, "{name}: {read:?}");
    }
}

#[tokio::test]
async fn two_commands_at_once_use_one_refresh_token_once() {
    let issuer = Peer::start(|asked| {
        if asked.body.contains("refresh_token=refresh1&") {
            let new = json!({"access_token": "access2", "token_type": "Bearer", "expires_in": 300, "refresh_token": "refresh2"});
            return Answer::new(200, new);
        }
        Answer::new(400, json!({"error": "invalid_grant"}))
    })
    .await;
    let parent = tempfile::tempdir().unwrap();
    let login = stored(&issuer.url, -1);
    let store = store_with(parent.path(), &login).await;
    let (one, other) = tokio::join!(stored_token(&store, &login.origin, NOW), stored_token(&store, &login.origin, NOW));
    for (name, token) in [("one", one), ("the other", other)] {
        assert_eq!(token.unwrap().as_ref().map(Secret::expose), Some("access2"), "{name}");
    }
    assert_eq!(issuer.requests().len(), 1, "{:?}", issuer.requests());
    let after = store.read(&login.origin).unwrap().unwrap();
    assert_eq!(after.refresh_token.as_ref().map(Secret::expose), Some("refresh2"));
}

#[tokio::test]
async fn a_token_is_found_by_the_origin_of_its_server_alone() {
    let parent = tempfile::tempdir().unwrap();
    let login = stored("https://login.example", 300);
    let store = store_with(parent.path(), &login).await;
    let rows = [
        ("the server", "https://rag.example", true),
        ("its port in words", "https://rag.example:443", true),
        ("capitals and a path", "HTTPS://RAG.example/a", true),
        ("another port", "https://rag.example:8980", false),
        ("a subdomain", "https://a.rag.example", false),
        ("a name that begins like it", "https://rag.example.evil.example", false),
    ];
    for (name, address, expected) in rows {
        let token = stored_token(&store, &origin(address).unwrap(), NOW).await.unwrap();
        assert_eq!(token.is_some(), expected, "{name}");
    }
    assert_eq!(origin("http://rag.example"), None, "no TLS");
}

#[tokio::test]
async fn a_logout_deletes_the_tokens_whatever_the_issuer_says() {
    for (name, status, expected) in [("it agrees", 200, Logout::Revoked), ("it fails", 503, Logout::DeletedHere)] {
        let issuer = Peer::start(move |_asked| Answer::new(status, json!({}))).await;
        let parent = tempfile::tempdir().unwrap();
        let login = stored(&issuer.url, 300);
        let store = store_with(parent.path(), &login).await;
        assert_eq!(log_out(&store, &login.origin).await.unwrap(), expected, "{name}");
        assert_eq!(store.read(&login.origin).unwrap(), None, "{name}");
        assert_eq!(issuer.requests(), ["/revoke token=refresh1&token_type_hint=refresh_token&client_id=cli"], "{name}");
        assert_eq!(log_out(&store, &login.origin).await.unwrap(), Logout::NoLogin, "{name}, again");
    }
}

#[tokio::test]
async fn a_logout_deletes_what_cannot_be_used() {
    let parent = tempfile::tempdir().unwrap();
    let login = stored("https://login.example", 300);
    let store = store_with(parent.path(), &login).await;
    let path = only_file(parent.path());
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(store.read(&login.origin).is_err(), "others can read it");
    assert_eq!(log_out(&store, &login.origin).await.unwrap(), Logout::DeletedHere);
    assert!(!path.exists());
}

/// Returns the path of the only login.
fn only_file(parent: &Path) -> PathBuf {
    let entries = fs::read_dir(parent.join("logins")).unwrap().map(|entry| entry.unwrap().path());
    let mut logins = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let first = logins.next().unwrap();
    assert_eq!(logins.next(), None);
    first
}

#[tokio::test]
async fn the_folder_is_written_before_a_refresh_token_is_used_up() {
    let parent = tempfile::tempdir().unwrap();
    let unused = stored("https://login.example", 300);
    let store = store_with(parent.path(), &unused).await;
    let path = only_file(parent.path());
    let before = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&before);
    let watched = path.clone();
    let issuer = Peer::start(move |_asked| {
        let is_new = fs::metadata(&watched).unwrap().ino() != *seen.lock().unwrap();
        let new = json!({"access_token": "access2", "token_type": "Bearer", "expires_in": 300});
        if is_new { Answer::new(200, new) } else { Answer::new(500, json!({})) }
    })
    .await;
    let login = stored(&issuer.url, -1);
    store.lock(&login.origin).await.unwrap().write(&login).unwrap();
    *before.lock().unwrap() = fs::metadata(&path).unwrap().ino();
    let token = stored_token(&store, &login.origin, NOW).await.unwrap();
    assert_eq!(token.as_ref().map(Secret::expose), Some("access2"));
}

fn request<'a>(address: &'a str, scopes: &'a [String]) -> LoginRequest<'a> {
    LoginRequest { address, ca_file: None, resource: None, issuer: None, client_id: Some("cli"), scopes }
}

/// Answers as an issuer that offers everything. A code for a device is refused by `slow_down` at most once.
fn issuer_answer(asked: &Asked<'_>) -> Answer {
    let url = asked.url;
    match asked.path {
        "/.well-known/oauth-authorization-server" => Answer::new(
            200,
            json!({
                "issuer": url,
                "authorization_endpoint": format!("{url}/auth"),
                "token_endpoint": format!("{url}/token"),
                "device_authorization_endpoint": format!("{url}/device"),
                "code_challenge_methods_supported": ["S256"],
            }),
        ),
        "/token" => Answer::new(200, json!({"access_token": "access1", "token_type": "Bearer", "expires_in": 300})),
        _ => Answer::new(404, json!({})),
    }
}

/// Makes the document of a server whose address is given.
type Document = Box<dyn Fn(&str) -> Answer + Send>;

#[tokio::test]
async fn a_server_that_is_not_what_it_says_gets_nobody_logged_in() {
    let issuer = Peer::start(|asked| issuer_answer(&asked)).await;
    let elsewhere = Peer::start(|asked| {
        let document = json!({"resource": asked.url, "authorization_servers": ["https://evil.example"]});
        Answer::new(200, document)
    })
    .await;
    let (good, redirect) = (issuer.url.clone(), format!("location: {}/\r\n", elsewhere.url));
    let document = |issuer: String| -> Document {
        Box::new(move |url| Answer::new(200, json!({"resource": url, "authorization_servers": [issuer]})))
    };
    let rows: [(&str, Document, Result<(), &str>); 6] = [
        ("all is well", document(good.clone()), Ok(())),
        (
            "it says that it is another",
            Box::new(move |_url| {
                Answer::new(200, json!({"resource": "https://bank.example", "authorization_servers": [good]}))
            }),
            Err("says that it is `https://bank.example`"),
        ),
        (
            "it sends elsewhere",
            Box::new(move |_url| Answer { status: 302, header: redirect.clone(), json: json!({}) }),
            Err("answered with status 302"),
        ),
        ("an issuer without TLS", document("http://login.example".to_owned()), Err("must be an `https` URL")),
        ("an issuer with a user", document("https://a@login.example".to_owned()), Err("must be an `https` URL")),
        ("no document", Box::new(|_url| Answer::new(404, json!({}))), Err("answered with status 404")),
    ];
    let scopes = ["ragward:retrieve".to_owned()];
    for (name, document, expected) in rows {
        let server = Peer::start(move |asked| document(asked.url)).await;
        match (PreparedLogin::new(&request(&server.url, &scopes), None).await, expected) {
            (Ok(prepared), Ok(())) => assert_eq!(prepared.issuer(), issuer.url, "{name}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{name}: {error}"),
            (prepared, _) => panic!("{name}: {prepared:?}"),
        }
    }
    assert!(elsewhere.requests().is_empty(), "{:?}", elsewhere.requests());
}

/// Starts a server whose metadata names this issuer.
async fn server_of(issuer: &Peer) -> Peer {
    let url = issuer.url.clone();
    Peer::start(move |asked| Answer::new(200, json!({"resource": asked.url, "authorization_servers": [url]}))).await
}

#[tokio::test]
async fn a_stored_client_is_that_of_its_issuer_alone() {
    let issuer = Peer::start(|asked| issuer_answer(&asked)).await;
    let server = server_of(&issuer).await;
    let scopes = ["ragward:retrieve".to_owned()];
    let rows = [
        ("nobody was logged in", None, None),
        ("the same issuer", Some(stored(&issuer.url, 300)), Some("cli")),
        ("the server has another issuer now", Some(stored("https://login.example", 300)), None),
    ];
    for (name, known, expected) in rows {
        let request = LoginRequest { client_id: None, ..request(&server.url, &scopes) };
        let prepared = PreparedLogin::new(&request, known.as_ref()).await.unwrap();
        assert_eq!(prepared.client_id.as_deref(), expected, "{name}");
    }
}

#[tokio::test]
async fn an_issuer_is_confirmed_until_it_is_known_with_its_own_pages() {
    let other = "https://other.example/auth";
    let rows = [
        ("nobody was logged in", None, None, true),
        ("the same issuer", None, Some("itself"), false),
        ("another issuer before", None, Some("https://login.example"), true),
        ("the same issuer with the pages of another", Some(other), Some("itself"), true),
    ];
    for (name, pages, before, expected) in rows {
        let issuer = Peer::start(move |asked| {
            let Answer { status, header, mut json } = issuer_answer(&asked);
            if let Some(pages) = pages {
                json["authorization_endpoint"] = pages.into();
            }
            Answer { status, header, json }
        })
        .await;
        let server = server_of(&issuer).await;
        let known = before.map(|before| if before == "itself" { issuer.url.as_str() } else { before });
        let known = known.map(|known| stored(known, 300));
        let scopes = ["ragward:retrieve".to_owned()];
        let prepared = PreparedLogin::new(&request(&server.url, &scopes), known.as_ref()).await.unwrap();
        assert_eq!(prepared.needs_confirmation(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_code_for_the_page_of_another_issuer_is_told_from_others() {
    let rows = [
        ("the issuer's own page", None, None),
        ("the page of another", Some("https://other.example/device"), Some("https://other.example")),
    ];
    for (name, page, expected) in rows {
        let issuer = Peer::start(move |asked| match asked.path {
            "/device" => {
                let page = page.map_or_else(|| format!("{}/page", asked.url), str::to_owned);
                let code =
                    json!({"device_code": "hush", "user_code": "ABCD", "verification_uri": page, "expires_in": 600});
                Answer::new(200, code)
            }
            _ => issuer_answer(&asked),
        })
        .await;
        let server = server_of(&issuer).await;
        let (known, scopes) = (stored(&issuer.url, 300), ["ragward:retrieve".to_owned()]);
        let prepared = PreparedLogin::new(&request(&server.url, &scopes), Some(&known)).await.unwrap();
        assert!(!prepared.needs_confirmation(), "{name}: the metadata names the issuer alone");
        let begun = prepared.by_device().await.unwrap();
        assert_eq!(begun.page_elsewhere().as_deref(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_token_for_another_server_logs_nobody_in() {
    let issuer = Peer::start(|asked| issuer_answer(&asked)).await;
    let server = server_of(&issuer).await;
    let scopes = ["ragward:retrieve".to_owned()];
    let rows = [
        ("for this server", for_audience(&server.url), Ok(())),
        (
            "for another server of the issuer",
            for_audience("https://rag.example"),
            Err("gave a token whose `aud` is not"),
        ),
        ("an opaque token", "opaque".to_owned(), Ok(())),
    ];
    for (row, token, expected) in rows {
        let prepared = PreparedLogin::new(&request(&server.url, &scopes), None).await.unwrap();
        let tokens = Tokens {
            access_token: Secret::new(token.as_str()),
            refresh_token: None,
            lifetime_seconds: Some(300),
            scope: None,
        };
        match (prepared.finished("cli".to_owned(), tokens).map(drop), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => {
                let text = error.to_string();
                assert!(text.contains(part) && !text.contains(&token), "{row}: {text}");
            }
            (finished, _) => panic!("{row}: {finished:?}"),
        }
    }
}

#[tokio::test]
async fn a_browser_comes_back_with_a_code_that_only_this_program_can_use() {
    let issuer = Peer::start(|asked| issuer_answer(&asked)).await;
    let server = server_of(&issuer).await;
    let scopes = ["ragward:retrieve".to_owned()];
    let prepared = PreparedLogin::new(&request(&server.url, &scopes), None).await.unwrap();
    let begun = prepared.by_browser().await.unwrap();
    let url = Url::parse(begun.url()).unwrap();
    let parameter = |name: &str| url.query_pairs().find(|(known, _)| known == name).unwrap().1.into_owned();
    let mut back = Url::parse(&parameter("redirect_uri")).unwrap();
    back.query_pairs_mut().append_pair("code", "the code").append_pair("state", &parameter("state"));
    let browser = HttpClient::new(None).unwrap();
    // The page is a text, so the client of the tests finds no JSON in it.
    let (finished, _page) = tokio::join!(begun.finish(), browser.get(&back));
    let finished = finished.unwrap();

    let requests = issuer.requests();
    let asked = requests.last().unwrap().strip_prefix("/token ").unwrap();
    let form: Vec<(String, String)> = url::form_urlencoded::parse(asked.as_bytes()).into_owned().collect();
    let field = |name: &str| form.iter().find(|(known, _)| known == name).unwrap().1.as_str();
    assert_eq!(field("code"), "the code");
    assert_eq!(field("redirect_uri"), parameter("redirect_uri"));
    assert_eq!(field("resource"), server.url);
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, field("code_verifier").as_bytes()));
    assert_eq!((challenge, "S256".to_owned()), (parameter("code_challenge"), parameter("code_challenge_method")));

    let parent = tempfile::tempdir().unwrap();
    let store = LoginStore::new(parent.path().join("logins"));
    let stored = finished.store(&store, NOW).await.unwrap();
    assert_eq!(stored.expires_at, Some(NOW + 300));
    assert_eq!(store.read(&server.url).unwrap(), Some(stored));
}
