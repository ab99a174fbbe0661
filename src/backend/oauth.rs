//! Access tokens of Ragward's own, for a server that it calls (OAuth 2.0 client credentials, RFC 6749, section 4.4).
//!
//! INVARIANT (fail closed): a call without a good token does not leave. It fails like a call to a server that is out of reach.
//!
//! INVARIANT (bounded work): at most one request for a token runs at a time, however many calls wait for it. After one that failed,
//! the next begins after [`PAUSE`] at the soonest.
//!
//! INVARIANT (nothing leaks): nothing that the token endpoint answers is logged but its status, and nothing shows a secret.

mod assertion;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Map, Value};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::codegen::http::HeaderValue;
use url::{Url, form_urlencoded};

use self::assertion::{AssertionError, SigningKey};
use super::{BackendError, Reach};
use crate::client_tls::{TrustedAuthorities, is_loopback};
use crate::settings::{ClientCredentials, LiveSecret, Secret, SecretPlace};
use crate::strict_json;

/// The time that one answer may take. A call waits no longer for a token than this.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The time between a request for a token that failed and the next one.
const PAUSE: Duration = Duration::from_secs(1);
/// The largest answer in bytes. Tokens have a few kilobytes.
const BYTES_MAX: usize = 64 * 1_024;
/// The longest token in bytes; servers refuse longer headers.
const TOKEN_BYTES_MAX: usize = 16 * 1_024;
/// The deepest nesting of an answer.
const DEPTH_MAX: usize = 8;
/// The lifetime of a token whose authorization server does not tell it. RFC 6749 leaves it to the documentation.
const LIFETIME_DEFAULT: Duration = Duration::from_mins(1);
/// The shortest lifetime. Tokens that live shorter would have to be asked for more often than once in [`PAUSE`].
const LIFETIME_MIN: Duration = Duration::from_secs(2);
/// The longest lifetime that is believed. A token that is withdrawn before its end is asked for anew at the first refusal.
const LIFETIME_MAX: Duration = Duration::from_hours(24);
/// How long before its end a token is asked for anew at the soonest.
const REFRESH_BEFORE_MAX: Duration = Duration::from_mins(1);
/// How long before its end a token is not used any more at the soonest: it has to be good when it arrives.
const UNUSED_BEFORE_MAX: Duration = Duration::from_secs(5);

/// Gets tokens and keeps the last one in memory. Clones share it.
#[derive(Clone)]
pub(crate) struct TokenSource(Arc<Shared>);

struct Shared {
    endpoint: Url,
    client_id: String,
    proof: ClientProof,
    /// The fields of each request that are always the same.
    fields: Vec<Field>,
    http: Client,
    reach: Reach,
    state: Mutex<State>,
    /// The lock that the running request holds.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

/// A field of a form.
#[derive(Clone)]
struct Field {
    name: &'static str,
    value: String,
}

/// The way in which the client proves who it is.
enum ClientProof {
    Secret { file: LiveSecret, place: SecretPlace },
    Key { file: LiveSecret, id: Option<String> },
}

/// The result of the requests so far.
#[derive(Default)]
struct State {
    token: Option<Held>,
    /// The time at which the last request failed; `None` if it succeeded.
    failed_at: Option<Instant>,
    /// The number of requests that have ended.
    ended: u64,
}

/// A token, as it stands in a header.
#[derive(Clone)]
struct Held {
    value: HeaderValue,
    got_at: Instant,
    refresh_at: Instant,
    unused_at: Instant,
}

/// A token that an authorization server gave.
struct Granted {
    value: HeaderValue,
    lifetime: Duration,
}

/// The error of a call for which there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no access token for the server; the log says why")]
pub(super) struct NoToken;

/// The reason why there is no token. It never repeats what was sent or answered.
#[derive(Debug, thiserror::Error)]
enum TokenFault {
    #[error("the token endpoint did not answer: {0}")]
    Http(#[from] reqwest::Error),
    #[error("the token endpoint answered with status {0}")]
    Status(StatusCode),
    #[error("the answer of the token endpoint is larger than {BYTES_MAX} bytes")]
    TooLarge,
    #[error("the answer of the token endpoint is no token: {0}")]
    Answer(&'static str),
    #[error("the client's private key cannot be used: {0}")]
    Assertion(#[from] AssertionError),
}

impl TokenSource {
    /// Prepares the requests for tokens. None is sent yet. `setting` is the table of these settings, for errors.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub(crate) fn new(setting: &'static str, settings: &ClientCredentials) -> Result<Self, BackendError> {
        settings.check().map_err(|rule| BackendError::Setting(format!("`{setting}.{rule}")))?;
        let wrong = |key: &str, text: &dyn fmt::Display| BackendError::Setting(format!("`{setting}.{key}`: {text}"));
        let endpoint = endpoint(&settings.token_url).ok_or_else(|| {
            let text = "it must be an `https` URL without user and fragment; `http` is for loopback alone";
            wrong("token_url", &text)
        })?;
        let proof = match (&settings.client_secret_file, &settings.private_key_file) {
            (Some(file), _) => {
                let file = LiveSecret::read(file, |_text| Ok(())).map_err(|e| wrong("client_secret_file", &e))?;
                ClientProof::Secret { file, place: settings.secret_in }
            }
            (None, Some(file)) => {
                let fits = |text: &str| SigningKey::of_pem(text).map(drop).map_err(|error| error.to_string());
                let file = LiveSecret::read(file, fits).map_err(|e| wrong("private_key_file", &e))?;
                ClientProof::Key { file, id: settings.key_id.clone() }
            }
            (None, None) => return Err(wrong("client_secret_file", &"it is not set")),
        };
        let mut fields = vec![Field { name: "grant_type", value: "client_credentials".to_owned() }];
        fields.extend(settings.audience.clone().map(|value| Field { name: "audience", value }));
        if !settings.scopes.is_empty() {
            fields.push(Field { name: "scope", value: settings.scopes.join(" ") });
        }
        let authorities = TrustedAuthorities::read(settings.ca_file.as_deref())?;
        let http = authorities.http_client(TIMEOUT).map_err(|e| wrong("token_url", &e))?;
        Ok(Self(Arc::new(Shared {
            endpoint,
            client_id: settings.client_id.clone(),
            proof,
            fields,
            http,
            reach: Reach::new("token endpoint"),
            state: Mutex::default(),
            fetching: Arc::default(),
        })))
    }

    /// Returns the value of `authorization` for a call, and asks for a new token if need be.
    pub(super) async fn authorization(&self) -> Result<HeaderValue, NoToken> {
        if let Some(held) = self.usable() {
            if held.refresh_at <= Instant::now()
                && !self.pauses()
                && let Ok(alone) = Arc::clone(&self.0.fetching).try_lock_owned()
            {
                // Nobody waits for this request.
                self.begin_fetch(alone);
            }
            return Ok(held.value);
        }
        let ended = self.ended();
        let alone = Arc::clone(&self.0.fetching).lock_owned().await;
        // A request that ended in the meantime has got everything that could be got.
        if self.ended() == ended
            && !self.pauses()
            && let Err(error) = self.begin_fetch(alone).await
        {
            tracing::error!(%error, "a request for an access token was lost");
        }
        self.usable().map(|held| held.value).ok_or(NoToken)
    }

    /// Forgets a token that the server has refused, unless it is so new that another one would be refused as well.
    pub(super) fn refused(&self, value: &HeaderValue) {
        let mut state = self.state();
        if state.token.as_ref().is_some_and(|held| held.value == *value && held.got_at.elapsed() >= PAUSE) {
            state.token = None;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> u64 {
        self.state().ended
    }

    fn usable(&self) -> Option<Held> {
        self.state().token.clone().filter(|held| Instant::now() < held.unused_at)
    }

    /// Returns whether the last request failed a moment ago.
    fn pauses(&self) -> bool {
        self.state().failed_at.is_some_and(|failed_at| failed_at.elapsed() < PAUSE)
    }

    /// Asks for a token in a task of its own, which ends at the latest when the request times out. If a call ran the request
    /// itself and were given up, the request would be lost, and with it the token for all others.
    fn begin_fetch(&self, alone: OwnedMutexGuard<()>) -> JoinHandle<()> {
        let source = self.clone();
        tokio::spawn(async move {
            source.fetch().await;
            drop(alone);
        })
    }

    async fn fetch(&self) {
        let began = Instant::now();
        let granted = self.0.ask().await;
        let mut state = self.state();
        state.ended += 1;
        match granted {
            Ok(Granted { value, lifetime }) => {
                self.0.reach.answered();
                let early = lifetime / 4;
                state.token = Some(Held {
                    value,
                    got_at: Instant::now(),
                    // The time of the request counts from its beginning, so that a slow answer makes no token look younger.
                    refresh_at: began + lifetime.saturating_sub(early.min(REFRESH_BEFORE_MAX)),
                    unused_at: began + lifetime.saturating_sub(early.min(UNUSED_BEFORE_MAX)),
                });
                state.failed_at = None;
            }
            Err(error) => {
                self.0.reach.failed(&error);
                state.failed_at = Some(Instant::now());
            }
        }
    }
}

impl Shared {
    /// Asks for a token.
    async fn ask(&self) -> Result<Granted, TokenFault> {
        let mut response = self.request()?.send().await?;
        if response.status() != StatusCode::OK {
            return Err(TokenFault::Status(response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await? {
            if bytes.len() + piece.len() > BYTES_MAX {
                return Err(TokenFault::TooLarge);
            }
            bytes.extend_from_slice(&piece);
        }
        let members = strict_json::object(&bytes, DEPTH_MAX);
        let members = members.map_err(|_malformed| TokenFault::Answer("it is not JSON"))?;
        granted(&members).map_err(TokenFault::Answer)
    }

    /// Makes a request for a token, with the credential of this moment.
    fn request(&self) -> Result<RequestBuilder, TokenFault> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        for Field { name, value } in &self.fields {
            form.append_pair(name, value);
        }
        let request = self.http.post(self.endpoint.clone()).header("accept", "application/json");
        let request = match &self.proof {
            ClientProof::Secret { file, place: SecretPlace::Body } => {
                form.append_pair("client_id", &self.client_id).append_pair("client_secret", file.latest().expose());
                request
            }
            ClientProof::Secret { file, place: SecretPlace::Header } => {
                request.header("authorization", basic(&self.client_id, &file.latest()))
            }
            ClientProof::Key { file, id } => {
                let key = SigningKey::of_pem(file.latest().expose())?;
                let claims = assertion::Claims {
                    client_id: &self.client_id,
                    audience: self.endpoint.as_str(),
                    now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
                };
                form.append_pair("client_id", &self.client_id)
                    .append_pair("client_assertion_type", assertion::TYPE)
                    .append_pair("client_assertion", &key.assertion(claims, id.as_deref())?);
                request
            }
        };
        Ok(request.header("content-type", "application/x-www-form-urlencoded").body(form.finish()))
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource").field("endpoint", &self.0.endpoint.as_str()).finish_non_exhaustive()
    }
}

/// Parses the address of a token endpoint. A query may belong to it (RFC 6749, section 3.2).
fn endpoint(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let is_kept = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
    (is_bare && is_kept).then_some(url)
}

/// Returns the client and its secret as RFC 6749, section 2.3.1, encodes them.
fn basic(client_id: &str, secret: &Secret) -> String {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encoded(client_id), encoded(secret.expose()))))
}

/// Reads the token of an answer. The fault never repeats a value.
fn granted(members: &Map<String, Value>) -> Result<Granted, &'static str> {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err("its `token_type` is not `Bearer`");
    }
    let token = text("access_token").ok_or("it has no `access_token`")?;
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its `access_token` is not a text of visible ASCII characters, or too long");
    }
    let lifetime = match members.get("expires_in") {
        None | Some(Value::Null) => LIFETIME_DEFAULT,
        // Some authorization servers write the number as a text.
        Some(Value::String(text)) => seconds(text.parse().ok())?,
        Some(other) => seconds(other.as_u64())?,
    };
    if lifetime < LIFETIME_MIN {
        return Err("its `expires_in` is less than two seconds");
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_unfit| "it fits no header")?;
    value.set_sensitive(true);
    Ok(Granted { value, lifetime })
}

fn seconds(number: Option<u64>) -> Result<Duration, &'static str> {
    let seconds = number.ok_or("its `expires_in` is no number")?;
    Ok(Duration::from_secs(seconds).min(LIFETIME_MAX))
}

#[cfg(test)]
mod tests;
