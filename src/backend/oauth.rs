//! Access tokens of Ragward's own, for a server that it calls (OAuth 2.0 client credentials, RFC 6749, section 4.4).
//!
//! INVARIANT (fail closed): a call without a good token does not leave. It fails like a call to a server that is out of reach.
//!
//! INVARIANT (bounded work): at most one request for a token runs at a time, however many calls wait for it. After a failed
//! request, the next one begins after [`PAUSE`] at the soonest.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::codegen::http::HeaderValue;

use super::{BackendError, Reach};
use crate::settings::ClientCredentials;
use crate::token_endpoint::{Form, TokenEndpoint, TokenEndpointSettings, TokenFault};

/// The time between a request for a token that failed and the next one.
const PAUSE: Duration = Duration::from_secs(1);
/// The shortest lifetime. Tokens that live shorter would have to be asked for more often than once in [`PAUSE`].
const LIFETIME_MIN: Duration = Duration::from_secs(2);
/// The longest time before the end of a token at which Ragward asks for the next one.
const REFRESH_BEFORE_MAX: Duration = Duration::from_mins(1);
/// The longest time before the end of a token at which no call takes it any more: it has to be good when it arrives.
const UNUSED_BEFORE_MAX: Duration = Duration::from_secs(5);

/// Gets tokens and keeps the last one in memory. Clones share it.
#[derive(Clone)]
pub(crate) struct TokenSource(Arc<Shared>);

struct Shared {
    endpoint: TokenEndpoint,
    /// The fields of each request that are always the same.
    form: Form,
    reach: Reach,
    state: Mutex<State>,
    /// The lock that the running request holds.
    fetching: Arc<tokio::sync::Mutex<()>>,
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

/// The error of a call for which there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no access token for the server; the log says why")]
pub(super) struct NoToken;

impl TokenSource {
    /// Prepares the requests for tokens. None is sent yet. `setting` is the table of these settings, for errors.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub(crate) fn new(setting: &'static str, settings: &ClientCredentials) -> Result<Self, BackendError> {
        let ClientCredentials { token_url, client, audience, scopes, ca_file } = settings;
        let endpoint = TokenEndpointSettings { table: setting, token_url, client, ca_file: ca_file.as_deref() };
        let form = Form::default()
            .with("grant_type", "client_credentials")
            .with("audience", audience.as_deref())
            .with("scope", (!scopes.is_empty()).then_some(scopes.join(" ").as_str()));
        Ok(Self(Arc::new(Shared {
            endpoint: TokenEndpoint::new(endpoint).map_err(BackendError::Setting)?,
            form,
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
        // A request ended in the meantime. Another one would get nothing else.
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
    /// itself and its caller went away, the request would be lost, and with it the token for all other calls.
    fn begin_fetch(&self, alone: OwnedMutexGuard<()>) -> JoinHandle<()> {
        let source = self.clone();
        tokio::spawn(async move {
            source.fetch().await;
            drop(alone);
        })
    }

    async fn fetch(&self) {
        let asked = self.0.ask().await;
        let mut state = self.state();
        state.ended += 1;
        match asked {
            Ok(held) => {
                self.0.reach.answered();
                state.token = Some(held);
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
    async fn ask(&self) -> Result<Held, TokenFault> {
        // The time of the request counts from its beginning, so that a slow answer makes no token look younger.
        let began = Instant::now();
        let granted = self.endpoint.ask(self.form.clone()).await?;
        let lifetime = granted.lifetime;
        if lifetime < LIFETIME_MIN {
            return Err(TokenFault::Answer("its `expires_in` is less than two seconds"));
        }
        let early = lifetime / 4;
        Ok(Held {
            value: granted.authorization()?,
            got_at: Instant::now(),
            refresh_at: began + lifetime.saturating_sub(early.min(REFRESH_BEFORE_MAX)),
            unused_at: began + lifetime.saturating_sub(early.min(UNUSED_BEFORE_MAX)),
        })
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource").field("endpoint", &self.0.endpoint).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
