//! A client of an authorization server. It proves who it is, asks for a token, and reads the answer.
//!
//! INVARIANT (bounded work): an answer is read up to [`BYTES_MAX`], and no redirect is followed, since it would take a secret along.
//!
//! INVARIANT (nothing leaks): a fault repeats nothing that was sent or answered but a status, and nothing shows a secret.

mod assertion;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::HeaderValue;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Map, Value};
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use self::assertion::{AssertionError, Claims, SigningKey};
use crate::client_tls::{BodyError, TrustedAuthorities, bounded_body, keeps_secrets};
use crate::settings::{LiveSecret, OAuthClientConfig, Secret, SecretPlace};
use crate::strict_json;

/// The time that one answer of a token endpoint may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest lifetime that is believed. A token that is withdrawn before its end is asked for anew at the first refusal.
pub(crate) const LIFETIME_MAX: Duration = Duration::from_hours(24);
/// The lifetime of a token if the authorization server does not state it. RFC 6749 leaves it to the server's documentation.
const LIFETIME_DEFAULT: Duration = Duration::from_mins(1);
/// The largest answer in bytes. Tokens have a few kilobytes.
const BYTES_MAX: usize = 64 * 1_024;
/// The longest token in bytes; servers refuse longer headers.
const TOKEN_BYTES_MAX: usize = 16 * 1_024;
/// The deepest nesting of an answer.
const DEPTH_MAX: usize = 8;

/// A token endpoint, and the client that asks there.
#[derive(Debug)]
pub(crate) struct TokenEndpoint {
    url: Url,
    client: OAuthClient,
    http: Client,
}

/// The settings of a token endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenEndpointSettings<'s> {
    /// The table that they stand in, for errors.
    pub(crate) table: &'s str,
    pub(crate) token_url: &'s str,
    pub(crate) client: &'s OAuthClientConfig,
    pub(crate) ca_file: Option<&'s Path>,
}

/// A client of an authorization server.
#[derive(Debug)]
pub(crate) struct OAuthClient {
    id: String,
    proof: ClientProof,
}

/// The way in which a client proves who it is.
#[derive(Debug)]
enum ClientProof {
    Secret { file: LiveSecret, place: SecretPlace },
    Key { file: LiveSecret, id: Option<String> },
}

/// The fields of a request.
#[derive(Clone, Default)]
pub(crate) struct Form(String);

/// A token that an authorization server gave.
#[derive(Debug)]
pub(crate) struct GrantedToken {
    pub(crate) token: Secret,
    pub(crate) lifetime: Duration,
    /// The type that the server says the token has, if it says one (RFC 8693).
    pub(crate) issued_type: Option<Value>,
}

/// The reason why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenFault {
    #[error("the authorization server did not answer: {0}")]
    Http(#[from] reqwest::Error),
    #[error("the authorization server answered with status {0}")]
    Status(StatusCode),
    #[error("the answer of the authorization server is larger than {BYTES_MAX} bytes")]
    TooLarge,
    #[error("the answer of the authorization server is no token: {0}")]
    Answer(&'static str),
    #[error("the client's private key cannot be used: {0}")]
    Assertion(#[from] AssertionError),
}

impl TokenEndpoint {
    /// Prepares the requests. None is sent yet.
    ///
    /// # Errors
    /// When a setting cannot be used. The text names it.
    pub(crate) fn new(settings: TokenEndpointSettings<'_>) -> Result<Self, String> {
        let TokenEndpointSettings { table, token_url, client, ca_file } = settings;
        let client = OAuthClient::new(table, client)?;
        let wrong = |key: &str, error: &dyn fmt::Display| format!("`{table}.{key}`: {error}");
        let url = endpoint(token_url).ok_or_else(|| {
            let rule = "it must be an `https` URL without user and fragment; `http` is for loopback alone";
            wrong("token_url", &rule)
        })?;
        let authorities = TrustedAuthorities::read(ca_file).map_err(|e| wrong("ca_file", &e))?;
        let http = authorities.http_client(TIMEOUT).map_err(|e| wrong("token_url", &e))?;
        Ok(Self { url, client, http })
    }

    /// Asks for a token.
    pub(crate) async fn ask(&self, form: Form) -> Result<GrantedToken, TokenFault> {
        let answered = self.client.post(&self.http, &self.url, form).await?;
        if answered.status() != StatusCode::OK {
            return Err(TokenFault::Status(answered.status()));
        }
        GrantedToken::of(&members(&body(answered).await?)?)
    }
}

impl OAuthClient {
    /// Reads the credential of a client. `table` is the table of its settings, for errors.
    ///
    /// # Errors
    /// When a setting cannot be used. The text names it.
    pub(crate) fn new(table: &str, settings: &OAuthClientConfig) -> Result<Self, String> {
        settings.check(table)?;
        let wrong = |key: &str, error: &dyn fmt::Display| format!("`{table}.{key}`: {error}");
        let proof = match (&settings.client_secret_file, &settings.private_key_file) {
            (Some(file), _) => {
                let file = LiveSecret::read(file, |_text| Ok(())).map_err(|e| wrong("client_secret_file", &e))?;
                ClientProof::Secret { file, place: settings.secret_in }
            }
            (None, Some(file)) => {
                let file = LiveSecret::read(file, signs).map_err(|e| wrong("private_key_file", &e))?;
                ClientProof::Key { file, id: settings.key_id.clone() }
            }
            (None, None) => return Err(wrong("client_secret_file", &"it is not set")),
        };
        Ok(Self { id: settings.client_id.clone(), proof })
    }

    /// Returns the name of the client at the authorization server.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Posts a form, with the credential that the client's file holds at this moment.
    pub(crate) async fn post(&self, http: &Client, url: &Url, form: Form) -> Result<Response, TokenFault> {
        Ok(self.request(http, url, form)?.send().await?)
    }

    /// Prepares a request, with the credential of this moment.
    fn request(&self, http: &Client, url: &Url, form: Form) -> Result<RequestBuilder, TokenFault> {
        let request = http.post(url.clone()).header("accept", "application/json");
        let (request, form) = match &self.proof {
            ClientProof::Secret { file, place } => {
                let secret = file.latest();
                match place {
                    SecretPlace::Body => {
                        (request, form.with("client_id", self.id.as_str()).with("client_secret", secret.expose()))
                    }
                    // RFC 6749, section 2.3.1. This marks the header as one that nothing shows.
                    SecretPlace::Header => {
                        (request.basic_auth(encoded(&self.id), Some(encoded(secret.expose()))), form)
                    }
                }
            }
            ClientProof::Key { file, id } => {
                let claims = Claims {
                    client_id: &self.id,
                    audience: url.as_str(),
                    now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
                };
                let assertion = SigningKey::of_pem(file.latest().expose())?.assertion(claims, id.as_deref())?;
                let form = form
                    .with("client_id", self.id.as_str())
                    .with("client_assertion_type", assertion::TYPE)
                    .with("client_assertion", assertion.as_str());
                (request, form)
            }
        };
        Ok(request.header("content-type", "application/x-www-form-urlencoded").body(form.0))
    }
}

impl Form {
    /// Adds a field, if it has a value.
    pub(crate) fn with<'v>(self, name: &'static str, value: impl Into<Option<&'v str>>) -> Self {
        let value: Option<&str> = value.into();
        match value {
            Some(value) => Self(Serializer::new(self.0).append_pair(name, value).finish()),
            None => self,
        }
    }
}

impl GrantedToken {
    /// Reads the token of an answer. A refresh token beside it is not looked at.
    pub(crate) fn of(members: &Map<String, Value>) -> Result<Self, TokenFault> {
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        if !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
            return Err(TokenFault::Answer("its `token_type` is not `Bearer`"));
        }
        let token = text("access_token").ok_or(TokenFault::Answer("it has no `access_token`"))?;
        if !is_visible(token) || token.len() > TOKEN_BYTES_MAX {
            let rule = "its `access_token` is not a text of visible ASCII characters, or too long";
            return Err(TokenFault::Answer(rule));
        }
        let seconds = match members.get("expires_in") {
            None | Some(Value::Null) => Some(LIFETIME_DEFAULT.as_secs()),
            // Some authorization servers write the number as a text.
            Some(Value::String(text)) => text.parse().ok(),
            Some(other) => other.as_u64(),
        };
        let seconds = seconds.ok_or(TokenFault::Answer("its `expires_in` is no number"))?;
        let lifetime = Duration::from_secs(seconds).min(LIFETIME_MAX);
        Ok(Self { token: Secret::new(token), lifetime, issued_type: members.get("issued_token_type").cloned() })
    }

    /// Returns the value of `authorization` for a call with the token.
    pub(crate) fn authorization(&self) -> Result<HeaderValue, TokenFault> {
        let value = HeaderValue::from_str(&format!("Bearer {}", self.token.expose()));
        let mut value = value.map_err(|_unfit| TokenFault::Answer("it fits no header"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Reads the body of an answer, unless it is too large.
pub(crate) async fn body(answered: Response) -> Result<Vec<u8>, TokenFault> {
    bounded_body(answered, BYTES_MAX).await.map_err(|error| match error {
        BodyError::Lost(error) => TokenFault::Http(error),
        BodyError::TooLarge => TokenFault::TooLarge,
    })
}

/// Reads the members of an answer.
pub(crate) fn members(bytes: &[u8]) -> Result<Map<String, Value>, TokenFault> {
    strict_json::object(bytes, DEPTH_MAX).map_err(|_malformed| TokenFault::Answer("it is not JSON"))
}

/// Returns whether a text can stand in a header: it is not empty, and all of its characters are visible and in ASCII.
pub(crate) fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Parses the address of a token endpoint. A query may belong to it (RFC 6749, section 3.2).
fn endpoint(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (is_bare && keeps_secrets(&url)).then_some(url)
}

/// Says whether a text is a key that signs, or what is wrong with it.
fn signs(text: &str) -> Result<(), String> {
    SigningKey::of_pem(text).map(drop).map_err(|error| error.to_string())
}

/// Encodes a client, or its secret, as a form does.
fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}
