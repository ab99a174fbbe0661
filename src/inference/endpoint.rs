//! Calls the endpoint of a model over HTTPS, or over HTTP on this machine.
//!
//! INVARIANT (nothing leaks): of what an endpoint answers, only the status is told. No redirect is followed, because the texts
//! would go along.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Client, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use url::Url;

use super::{InferenceSetupError, ModelFault};
use crate::backend::Reach;
use crate::client_tls::{TrustedAuthorities, is_loopback};
use crate::settings::{LiveSecret, Secret, SecretFile};
use crate::telemetry;

/// How many times a request is sent again that the endpoint did not take.
const RETRIES_MAX: u32 = 2;
/// The first wait before a request is sent again. The next one is twice as long.
const RETRY_WAIT: Duration = Duration::from_millis(250);
/// The longest wait that an endpoint may ask for (`retry-after`). After a longer one, nobody would wait for the answer any more.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// The settings of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndpointSettings<'s> {
    /// The table that they stand in, for errors.
    pub(super) table: &'static str,
    pub(super) url: &'s str,
    /// The last segment of the path.
    pub(super) path: &'static str,
    pub(super) api_key_file: Option<&'s SecretFile>,
    pub(super) ca_file: Option<&'s Path>,
    pub(super) timeout: Duration,
    pub(super) concurrency: u32,
}

/// The endpoint of one model.
pub(super) struct ModelEndpoint {
    /// The section of its settings, which names it in metrics.
    section: &'static str,
    url: Url,
    http: Client,
    key: Option<LiveSecret>,
    slots: Semaphore,
    reach: Reach,
}

/// An attempt that failed.
struct FailedAttempt {
    fault: ModelFault,
    retry: Retry,
}

/// Says whether a request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// It was taken, or it would be refused again.
    Never,
    /// It was not taken. The endpoint may say when it takes more.
    After(Option<Duration>),
}

impl ModelEndpoint {
    /// Prepares the calls. None is made yet.
    ///
    /// # Errors
    /// When a setting cannot be used. The text names it.
    pub(super) fn new(settings: EndpointSettings<'_>) -> Result<Self, InferenceSetupError> {
        let EndpointSettings { table, url, path, api_key_file, ca_file, timeout, concurrency } = settings;
        let wrong = |key: &str, error: &dyn fmt::Display| InferenceSetupError(format!("`{table}.{key}`: {error}"));
        let url = address(url, path).ok_or_else(|| {
            let rule = "it must be an `https` URL without user, query and fragment; `http` is for loopback alone";
            wrong("url", &rule)
        })?;
        let authorities = TrustedAuthorities::read(ca_file).map_err(|e| wrong("ca_file", &e))?;
        let http = authorities.http_client(timeout).map_err(|e| wrong("url", &e))?;
        let read = |file: &SecretFile| LiveSecret::read(file, fits_header);
        let key = api_key_file.map(read).transpose().map_err(|e| wrong("api_key_file", &e))?;
        let slots = Semaphore::new(usize::try_from(concurrency).unwrap_or(Semaphore::MAX_PERMITS));
        Ok(Self { section: table, url, http, key, slots, reach: Reach::new("model") })
    }

    /// Returns the host and port of the endpoint.
    pub(super) fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Posts a request and reads its answer, which has at most this many bytes.
    pub(super) async fn post<A: DeserializeOwned>(
        &self,
        request: &impl Serialize,
        answer_bytes_max: usize,
    ) -> Result<A, ModelFault> {
        // Nobody closes the semaphore. Requests that wait for it hold no copy of their texts.
        let _slot = self.slots.acquire().await.map_err(|_closed| ModelFault::Unreachable)?;
        let body = serde_json::to_vec(request).map_err(|_unserializable| ModelFault::Form)?;
        let asked_at = Instant::now();
        let answered = self.attempts(&body, answer_bytes_max).await;
        let outcome = if answered.is_ok() { "answered" } else { "failed" };
        telemetry::model_asked(self.section, outcome, asked_at.elapsed());
        match answered {
            Ok(bytes) => {
                self.reach.answered();
                serde_json::from_slice(&bytes).map_err(|_malformed| ModelFault::Form)
            }
            Err(fault) => {
                self.reach.failed(&fault);
                Err(fault)
            }
        }
    }

    /// Sends a request until the endpoint takes it, or to the last attempt.
    async fn attempts(&self, body: &[u8], answer_bytes_max: usize) -> Result<Vec<u8>, ModelFault> {
        let mut waited = RETRY_WAIT;
        for _ in 0..RETRIES_MAX {
            let FailedAttempt { fault, retry } = match self.attempt(body, answer_bytes_max).await {
                Ok(bytes) => return Ok(bytes),
                Err(failed) => failed,
            };
            match retry {
                Retry::Never => return Err(fault),
                Retry::After(asked) if asked.is_some_and(|asked| asked > RETRY_WAIT_MAX) => return Err(fault),
                Retry::After(asked) => sleep(asked.unwrap_or(waited)).await,
            }
            waited *= 2;
        }
        self.attempt(body, answer_bytes_max).await.map_err(|failed| failed.fault)
    }

    async fn attempt(&self, body: &[u8], answer_bytes_max: usize) -> Result<Vec<u8>, FailedAttempt> {
        let never = |fault| FailedAttempt { fault, retry: Retry::Never };
        let request = self.http.post(self.url.clone()).header("content-type", "application/json");
        let request = match &self.key {
            Some(key) => {
                let value = authorization(&key.current()).ok_or_else(|| never(ModelFault::Key))?;
                request.header("authorization", value)
            }
            None => request,
        };
        let request = request.header("accept", "application/json").body(body.to_vec());
        let answered = request.send().await.map_err(|lost| FailedAttempt {
            fault: ModelFault::Unreachable,
            // A connection that was never made has carried nothing.
            retry: if lost.is_connect() { Retry::After(None) } else { Retry::Never },
        })?;
        let status = answered.status();
        let fault = ModelFault::Status(status.as_u16());
        match status {
            StatusCode::OK => bytes(answered, answer_bytes_max).await.map_err(never),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Err(FailedAttempt { fault, retry: Retry::After(asked_wait(&answered)) })
            }
            StatusCode::UNAUTHORIZED => {
                // The key may have changed.
                if let Some(key) = &self.key {
                    key.refused();
                }
                Err(never(fault))
            }
            _ => Err(never(fault)),
        }
    }
}

/// Returns the wait that an endpoint asks for, if it tells it in seconds.
fn asked_wait(answered: &Response) -> Option<Duration> {
    let value = answered.headers().get("retry-after")?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Reads an answer, unless it is too large.
async fn bytes(mut answered: Response, bytes_max: usize) -> Result<Vec<u8>, ModelFault> {
    let mut bytes = Vec::new();
    while let Some(piece) = answered.chunk().await.map_err(|_lost| ModelFault::Unreachable)? {
        if bytes.len() + piece.len() > bytes_max {
            return Err(ModelFault::TooLarge);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Parses the address of an endpoint: the URL of the settings, and one more segment.
fn address(text: &str, path: &str) -> Option<Url> {
    let mut url = Url::parse(text).ok()?;
    let is_bare =
        url.username().is_empty() && url.password().is_none() && url.fragment().is_none() && url.query().is_none();
    let is_kept = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
    if !is_bare || !is_kept {
        return None;
    }
    url.path_segments_mut().ok()?.pop_if_empty().push(path);
    Some(url)
}

fn authorization(key: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn fits_header(text: &str) -> Result<(), String> {
    match HeaderValue::from_str(text) {
        Ok(_value) => Ok(()),
        Err(_unfit) => Err("it holds characters that a header cannot carry".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_texts_from_being_read_on_the_way() {
        let rows = [
            ("a URL", "https://models.example/v1", Some("https://models.example/v1/rerank")),
            ("a slash at the end", "https://models.example/v1/", Some("https://models.example/v1/rerank")),
            ("no path", "https://models.example", Some("https://models.example/rerank")),
            ("a port", "https://models.example:8443/v1", Some("https://models.example:8443/v1/rerank")),
            ("loopback", "http://127.0.0.1:8080", Some("http://127.0.0.1:8080/rerank")),
            ("loopback by name", "http://localhost:8080", Some("http://localhost:8080/rerank")),
            ("no TLS", "http://models.example/v1", None),
            ("a name that begins like localhost", "http://localhost.example/v1", None),
            ("a user", "https://user@models.example/v1", None),
            ("a password", "https://:secret@models.example/v1", None),
            ("a query", "https://models.example/v1?key=1", None),
            ("a fragment", "https://models.example/v1#a", None),
            ("another scheme", "file:///v1", None),
            ("no URL", "models.example", None),
            ("nothing", "", None),
        ];
        for (row, text, expected) in rows {
            assert_eq!(address(text, "rerank").as_ref().map(Url::as_str), expected, "{row}");
        }
    }
}
