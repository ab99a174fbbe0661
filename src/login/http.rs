//! Asks servers and issuers over HTTPS, or over HTTP on this machine. It follows no redirects, uses no proxy, and limits
//! time and bytes.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use super::error::LoginError;
use crate::client_tls::{BodyError, TrustedAuthorities, bounded_body, is_loopback};
use crate::strict_json;
use crate::visible::visible_line;

/// The time that one answer may take. A person waits meanwhile.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer, in bytes. Metadata and tokens have a few kilobytes.
const BYTES_MAX: usize = 256 * 1024;
/// The deepest nesting of an answer. Metadata and answers about tokens have two or three levels.
const DEPTH_MAX: usize = 8;
/// The longest address, in bytes. It is shown to a person, who has to be able to read it.
const URL_BYTES_MAX: usize = 2048;
/// The shortest secret that is looked for in an issuer's words, in bytes. A shorter one could be a word.
const SECRET_BYTES_MIN: usize = 8;

/// Says where an address may have no TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlainHttp {
    OnLoopback,
    Never,
}

/// Parses an address that secrets may be sent to.
///
/// # Errors
/// When it has no TLS and may not be without, holds a user or a fragment, or is no address. When it could look like another
/// one: a parser drops line ends and reads a backslash as a slash, and letters of other scripts look like those of Latin.
pub(super) fn checked_url(text: &str, plain: PlainHttp) -> Result<Url, LoginError> {
    let refused = || {
        let rule = match plain {
            PlainHttp::OnLoopback => "; `http` is for this machine alone",
            PlainHttp::Never => "",
        };
        let shown = visible_line(&text.chars().take(URL_BYTES_MAX).collect::<String>());
        LoginError::Setup(format!(
            "`{shown}` must be an `https` URL in plain ASCII (`xn--` for other letters), without user and fragment{rule}"
        ))
    };
    let is_readable = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if !is_readable || text.len() > URL_BYTES_MAX {
        return Err(refused());
    }
    let Ok(url) = Url::parse(text) else { return Err(refused()) };
    let is_bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    match url.scheme() {
        "https" if is_bare => Ok(url),
        "http" if is_bare && is_loopback(&url) && plain == PlainHttp::OnLoopback => Ok(url),
        _ => Err(refused()),
    }
}

/// The fields of a form, encoded. They may be secrets, so nothing shows them.
#[derive(Default)]
pub(super) struct Form {
    encoded: String,
    secrets: Vec<String>,
}

impl Form {
    /// Adds a field that anybody may see.
    #[must_use]
    pub(super) fn with(self, name: &str, value: &str) -> Self {
        let mut serializer = form_urlencoded::Serializer::new(self.encoded);
        serializer.append_pair(name, value);
        Self { encoded: serializer.finish(), secrets: self.secrets }
    }

    /// Adds a field that nobody may see.
    #[must_use]
    pub(super) fn with_secret(self, name: &str, secret: &str) -> Self {
        let mut form = self.with(name, secret);
        form.secrets.push(secret.to_owned());
        form
    }

    /// Returns whether a text holds the beginning of a secret of the form. The beginning is enough, since the text may have been
    /// cut off.
    pub(super) fn has_secret_in(&self, text: &str) -> bool {
        let mut beginnings = self.secrets.iter().filter_map(|secret| secret.get(..SECRET_BYTES_MIN));
        beginnings.any(|beginning| text.contains(beginning))
    }
}

/// An answer in JSON. It may hold tokens, so nothing shows it.
pub(super) struct JsonAnswer {
    pub(super) status: StatusCode,
    /// The members of the object; none if the answer is an error without JSON.
    pub(super) members: Map<String, Value>,
}

impl JsonAnswer {
    /// Returns the members of an answer that is a success.
    ///
    /// # Errors
    /// When the status says that it is none.
    pub(super) fn of_success(self, url: &Url) -> Result<Map<String, Value>, LoginError> {
        if self.status.is_success() {
            return Ok(self.members);
        }
        let status = self.status.as_u16();
        let is_for_now = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&self.status);
        if is_for_now || self.status.is_server_error() {
            return Err(LoginError::Unreachable(format!("`{url}` answered with status {status}")));
        }
        Err(LoginError::Setup(format!("`{url}` answered with status {status}")))
    }
}

/// Returns a member that is a text.
pub(super) fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    members.get(name).and_then(Value::as_str)
}

/// Returns the texts of a member that is a list; none if it is not.
pub(super) fn texts(members: &Map<String, Value>, name: &str) -> Vec<String> {
    let list = members.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// An HTTP client for one login.
#[derive(Clone, Debug)]
pub(super) struct HttpClient {
    client: Client,
}

struct RawAnswer {
    status: StatusCode,
    bytes: Vec<u8>,
}

impl HttpClient {
    /// Creates a client that trusts the authorities of a file, or those of the system if there is none.
    ///
    /// # Errors
    /// When the file cannot be used, or TLS cannot be set up.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, LoginError> {
        let authorities = TrustedAuthorities::read(ca_file).map_err(|e| LoginError::Setup(e.to_string()))?;
        let client = authorities.http_client(TIMEOUT);
        Ok(Self { client: client.map_err(|e| LoginError::Setup(format!("cannot prepare TLS: {e}")))? })
    }

    pub(super) async fn get(&self, url: &Url) -> Result<JsonAnswer, LoginError> {
        json(url, self.client.get(url.clone())).await
    }

    pub(super) async fn post_form(&self, url: &Url, form: &Form) -> Result<JsonAnswer, LoginError> {
        json(url, self.form_request(url, form)).await
    }

    /// Posts a form whose answer has no body that counts.
    pub(super) async fn post_form_for_status(&self, url: &Url, form: &Form) -> Result<u16, LoginError> {
        let answer = answer(url, self.form_request(url, form)).await?;
        Ok(answer.status.as_u16())
    }

    pub(super) async fn post_json(&self, url: &Url, body: &Value) -> Result<JsonAnswer, LoginError> {
        let request = self.client.post(url.clone()).header("content-type", "application/json");
        json(url, request.body(body.to_string())).await
    }

    fn form_request(&self, url: &Url, form: &Form) -> RequestBuilder {
        let request = self.client.post(url.clone()).header("content-type", "application/x-www-form-urlencoded");
        request.body(form.encoded.clone())
    }
}

async fn json(url: &Url, request: RequestBuilder) -> Result<JsonAnswer, LoginError> {
    let RawAnswer { status, bytes } = answer(url, request.header("accept", "application/json")).await?;
    match strict_json::object(&bytes, DEPTH_MAX) {
        Ok(members) => Ok(JsonAnswer { status, members }),
        // A proxy may have answered with a page. The status says what happened.
        Err(_not_json) if !status.is_success() => Ok(JsonAnswer { status, members: Map::new() }),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            let place = format!("line {line}, column {column}");
            Err(LoginError::Setup(format!("the answer of `{url}` is not an object in plain JSON ({place})")))
        }
    }
}

async fn answer(url: &Url, request: RequestBuilder) -> Result<RawAnswer, LoginError> {
    let lost = |error: reqwest::Error| LoginError::Unreachable(format!("`{url}` did not answer: {}", cause(&error)));
    let response = request.send().await.map_err(lost)?;
    let status = response.status();
    let bytes = bounded_body(response, BYTES_MAX).await.map_err(|error| match error {
        BodyError::Lost(error) => lost(error),
        BodyError::TooLarge => LoginError::Setup(format!("the answer of `{url}` is larger than {BYTES_MAX} bytes")),
    })?;
    Ok(RawAnswer { status, bytes })
}

/// Returns the first cause of an error, which says more than the error of the library.
fn cause(error: &reqwest::Error) -> String {
    let mut first: &dyn Error = error;
    while let Some(source) = first.source() {
        first = source;
    }
    first.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_only_where_nobody_reads_them_on_the_way() {
        let rows = [
            ("TLS", "https://login.example/a?b=c", true, true),
            ("this machine", "http://127.0.0.1:1", true, false),
            ("this machine, IPv6", "http://[::1]:1", true, false),
            ("this machine by name", "http://localhost/", true, false),
            ("another machine", "http://login.example", false, false),
            ("a name that begins like this machine", "http://127.0.0.1.example", false, false),
            ("all addresses", "http://0.0.0.0:1", false, false),
            ("a user", "https://anne@login.example", false, false),
            ("a password", "https://:secret@login.example", false, false),
            ("a fragment", "https://login.example/#a", false, false),
            ("another scheme", "ftp://login.example", false, false),
            ("a script", "javascript:alert(1)", false, false),
            ("no address", "login.example", false, false),
            ("a line end that a parser drops", "https://login\n.example", false, false),
            ("a tab that a parser drops", "https://login\t.example", false, false),
            ("a space at the end", "https://login.example ", false, false),
            ("a backslash that ends the host", "https://evil.example\\.login.example", false, false),
            ("a letter that looks like another", "https://l\u{43e}gin.example", false, false),
            ("the same letter as others write it", "https://xn--lgin-55d.example", true, true),
            ("a cursor", "https://login.example/\u{1b}[2A", false, false),
        ];
        for (row, text, on_loopback, never) in rows {
            assert_eq!(checked_url(text, PlainHttp::OnLoopback).is_ok(), on_loopback, "{row}");
            assert_eq!(checked_url(text, PlainHttp::Never).is_ok(), never, "{row}");
        }
    }

    #[test]
    fn a_status_says_whether_to_ask_again() {
        let url = Url::parse("https://login.example/token").unwrap();
        let rows = [
            (StatusCode::OK, "a success"),
            (StatusCode::BAD_REQUEST, "a fault of the setup"),
            (StatusCode::NOT_FOUND, "a fault of the setup"),
            (StatusCode::FOUND, "a fault of the setup"),
            (StatusCode::REQUEST_TIMEOUT, "ask again"),
            (StatusCode::TOO_MANY_REQUESTS, "ask again"),
            (StatusCode::SERVICE_UNAVAILABLE, "ask again"),
        ];
        for (status, expected) in rows {
            let read = match (JsonAnswer { status, members: Map::new() }).of_success(&url) {
                Ok(_members) => "a success",
                Err(LoginError::Unreachable(_)) => "ask again",
                Err(LoginError::Setup(_) | LoginError::Refused(_) | LoginError::File(_)) => "a fault of the setup",
            };
            assert_eq!(read, expected, "{status}");
        }
    }

    #[test]
    fn an_address_that_is_too_long_to_read_is_refused() {
        let of_length = |length: usize| format!("https://login.example/{}", "a".repeat(length - 22));
        assert!(checked_url(&of_length(URL_BYTES_MAX), PlainHttp::Never).is_ok());
        assert!(checked_url(&of_length(URL_BYTES_MAX + 1), PlainHttp::Never).is_err());
    }

    #[test]
    fn forms_are_encoded() {
        let form = Form::default().with("scope", "a b").with("resource", "https://rag.example/?a=b&c");
        assert_eq!(form.encoded, "scope=a+b&resource=https%3A%2F%2Frag.example%2F%3Fa%3Db%26c");
    }
}
