//! The address on this machine to which an issuer sends the browser back with a code (RFC 8252, section 7.3).
//!
//! Every program of this machine can call that address. Only a caller who knows the `state` of this login can end the wait;
//! any other caller gets an error page, and the wait goes on. Nobody can bring the code of another login either: the issuer
//! takes a code only from the program that asked for it (PKCE, RFC 7636).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::RawQuery;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use futures::FutureExt;
use ring::digest::{SHA256, digest};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;
use url::form_urlencoded;

use super::error::LoginError;
use super::token_endpoint::OAuthError;
use crate::settings::Secret;

const PATH: &str = "/callback";
/// The address that a registration names if no browser comes back. Issuers allow each port of it.
pub(super) const REDIRECT_WITHOUT_PORT: &str = "http://127.0.0.1/callback";
/// The time that a person has to log in. It is enough to find a password and a second factor, and a port is not open for ever.
const WAIT_MAX: Duration = Duration::from_mins(5);
/// The time that the last page may take. The login is decided by then.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// The parameters that a redirect must have to belong to a login.
#[derive(Clone, Debug)]
pub(super) struct ExpectedRedirect {
    pub(super) state: String,
    pub(super) issuer: String,
    /// Whether the issuer always says who it is (RFC 9207).
    pub(super) issuer_names_itself: bool,
}

/// The meaning of a call of the address.
#[derive(Debug)]
enum Redirect {
    /// The issuer gives a code.
    Code(Secret),
    /// The issuer or the person refuses.
    Denied(OAuthError),
    /// Another issuer than the one that was asked sent the browser here.
    MixedUp,
    /// The call belongs to no login of this program.
    Foreign,
}

/// A listener for one redirect.
#[derive(Debug)]
pub(super) struct Loopback {
    listener: TcpListener,
    redirect_uri: String,
}

impl Loopback {
    /// Listens on a free port.
    pub(super) async fn open() -> Result<Self, LoginError> {
        let failed = |e: std::io::Error| LoginError::Setup(format!("cannot listen on this machine: {e}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, redirect_uri: format!("http://{address}{PATH}") })
    }

    pub(super) fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// Waits until the issuer sends the browser back, and returns the code.
    pub(super) async fn code(self, expected: ExpectedRedirect) -> Result<Secret, LoginError> {
        // One outcome is enough; the pages after it are still answered.
        let (sender, mut outcomes) = mpsc::channel(1);
        let expected = Arc::new(expected);
        let issuer = expected.issuer.clone();
        let page = get(move |RawQuery(query): RawQuery| {
            std::future::ready(page_after(read(query.as_deref().unwrap_or_default(), &expected), &sender))
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Server::builder()
            .accept_http1(true)
            .add_routes(Routes::from(Router::new().route(PATH, page)))
            .serve_with_incoming_shutdown(TcpListenerStream::new(self.listener), stopped.map(|_told| ()));
        // The future of a server is large, and each future that awaits this one would hold it.
        let mut serving = Box::pin(serving);
        let closed = || LoginError::Setup("the address for the browser was closed".to_owned());
        let waited = tokio::select! {
            _ended = &mut serving => return Err(closed()),
            waited = timeout(WAIT_MAX, outcomes.recv()) => waited,
        };
        let outcome = match waited {
            Ok(Some(redirect)) => of_redirect(redirect, &issuer),
            Ok(None) => Err(closed()),
            Err(_elapsed) => {
                let minutes = WAIT_MAX.as_secs() / 60;
                Err(LoginError::Unreachable(format!("nobody logged in at `{issuer}` within {minutes} minutes")))
            }
        };
        if stop.send(()).is_ok() {
            // A browser that does not read its page cannot hold the login up.
            drop(timeout(GOODBYE_MAX, serving).await);
        }
        outcome
    }
}

fn of_redirect(redirect: Redirect, issuer: &str) -> Result<Secret, LoginError> {
    match redirect {
        Redirect::Code(code) => Ok(code),
        Redirect::Denied(error) => Err(LoginError::Refused(format!("`{issuer}` refused: {error}{}", error.advice()))),
        Redirect::MixedUp => Err(LoginError::Refused(format!(
            "the browser came back from another issuer than `{issuer}`; its code was sent nowhere"
        ))),
        Redirect::Foreign => Err(LoginError::Refused("the browser came back from another login".to_owned())),
    }
}

/// The page that the browser shows.
type Page = (StatusCode, [(HeaderName, &'static str); 4], &'static str);

/// Hands a redirect on, and returns the page that the browser shows.
fn page_after(redirect: Redirect, sender: &mpsc::Sender<Redirect>) -> Page {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if matches!(redirect, Redirect::Foreign) {
        return (StatusCode::BAD_REQUEST, headers, "This is no answer to the login that waits here.\n");
    }
    match sender.try_send(redirect) {
        Ok(()) => (StatusCode::OK, headers, "Ragward has the answer. Close this page and go back to the terminal.\n"),
        // The channel is full or closed: the login has its answer.
        Err(_full_or_closed) => (StatusCode::BAD_REQUEST, headers, "This login has its answer already.\n"),
    }
}

/// Reads the query of a redirect.
fn read(query: &str, expected: &ExpectedRedirect) -> Redirect {
    let mut parameters = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if parameters.insert(name.into_owned(), value.into_owned()).is_some() {
            // RFC 6749, section 3.1: no parameter occurs twice.
            return Redirect::Foreign;
        }
    }
    let parameter = |name: &str| parameters.get(name).map(String::as_str);
    let is_ours = parameter("state").is_some_and(|state| are_equal(state, &expected.state));
    if !is_ours {
        return Redirect::Foreign;
    }
    match parameter("iss") {
        Some(issuer) if issuer == expected.issuer => {}
        None if !expected.issuer_names_itself => {}
        Some(_) | None => return Redirect::MixedUp,
    }
    match (parameter("error"), parameter("code")) {
        (Some(error), _) => Redirect::Denied(OAuthError::new(error, parameter("error_description"))),
        (None, Some(code)) if !code.is_empty() => Redirect::Code(Secret::new(code)),
        (None, Some(_) | None) => Redirect::Foreign,
    }
}

/// Compares digests, so that the time of a comparison says nothing of how much of the text was right.
fn are_equal(one: &str, other: &str) -> bool {
    digest(&SHA256, one.as_bytes()).as_ref() == digest(&SHA256, other.as_bytes()).as_ref()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    fn expected() -> ExpectedRedirect {
        ExpectedRedirect {
            state: "ours".to_owned(),
            issuer: "https://login.example".to_owned(),
            issuer_names_itself: false,
        }
    }

    fn shown(redirect: &Redirect) -> String {
        match redirect {
            Redirect::Code(code) => format!("code {}", code.expose()),
            Redirect::Denied(error) => format!("denied {error}"),
            Redirect::MixedUp => "mixed up".to_owned(),
            Redirect::Foreign => "foreign".to_owned(),
        }
    }

    #[test]
    fn only_an_answer_to_this_login_counts() {
        let ours = "iss=https%3A%2F%2Flogin.example";
        let rows = [
            ("a code", "code=c&state=ours".to_owned(), "code c", "mixed up"),
            ("a code of the issuer", format!("code=c&state=ours&{ours}"), "code c", "code c"),
            ("another issuer", "code=c&state=ours&iss=https%3A%2F%2Fevil.example".to_owned(), "mixed up", "mixed up"),
            ("an empty issuer", "code=c&state=ours&iss=".to_owned(), "mixed up", "mixed up"),
            (
                "a refusal",
                format!("error=access_denied&state=ours&{ours}"),
                "denied `access_denied`",
                "denied `access_denied`",
            ),
            ("a refusal of another", "error=access_denied&state=theirs".to_owned(), "foreign", "foreign"),
            ("a wrong state", format!("code=c&state=theirs&{ours}"), "foreign", "foreign"),
            ("a state that begins like it", format!("code=c&state=our&{ours}"), "foreign", "foreign"),
            ("no state", format!("code=c&{ours}"), "foreign", "foreign"),
            ("two states", format!("code=c&state=theirs&state=ours&{ours}"), "foreign", "foreign"),
            ("two codes", format!("code=c&code=d&state=ours&{ours}"), "foreign", "foreign"),
            ("no code", format!("state=ours&{ours}"), "foreign", "foreign"),
            ("an empty code", format!("code=&state=ours&{ours}"), "foreign", "foreign"),
            ("nothing", String::new(), "foreign", "foreign"),
        ];
        for (row, query, may_be_unnamed, must_be_named) in rows {
            assert_eq!(shown(&read(&query, &expected())), may_be_unnamed, "{row}");
            let strict = ExpectedRedirect { issuer_names_itself: true, ..expected() };
            assert_eq!(shown(&read(&query, &strict)), must_be_named, "{row}, with an issuer that names itself");
        }
    }

    async fn call(redirect_uri: &str, query: &str) -> String {
        let authority = redirect_uri.strip_prefix("http://").unwrap().strip_suffix(PATH).unwrap();
        let mut connection = TcpStream::connect(authority).await.unwrap();
        let head = format!("GET {PATH}?{query} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_for_ever() {
        let waited = Loopback::open().await.unwrap().code(expected()).await;
        let text = waited.unwrap_err().to_string();
        assert_eq!(text, "nobody logged in at `https://login.example` within 5 minutes");
    }

    #[tokio::test]
    async fn a_caller_from_elsewhere_neither_ends_nor_enters_a_login() {
        let loopback = Loopback::open().await.unwrap();
        let redirect_uri = loopback.redirect_uri().to_owned();
        let calls = async {
            let first = call(&redirect_uri, "code=theirs&state=guess").await;
            let denied = call(&redirect_uri, "error=access_denied&state=guess").await;
            [first, denied, call(&redirect_uri, "code=right&state=ours").await]
        };
        let (code, statuses) = tokio::join!(loopback.code(expected()), calls);
        assert_eq!(code.unwrap().expose(), "right");
        assert_eq!(statuses, ["400", "400", "200"]);
    }
}
