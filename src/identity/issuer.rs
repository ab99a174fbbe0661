//! An issuer's keys, fetched when they are needed and kept while they are fresh enough.
//!
//! INVARIANT (bounded trust): keys are used for [`STALE_MAX`] after they were read, and not longer; then nobody is let in.
//! INVARIANT (bounded work): one fetch is under way at a time, and one is begun every [`FETCH_INTERVAL_MIN`] at most, however
//! many tokens name keys that nobody has.

mod fetch;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::claims::IssuerRules;
use super::key_set::{Algorithm, KeySet, PublicKey};
pub use fetch::{HttpClient, IssuerConfigError};

/// The least time between the beginnings of two fetches.
pub const FETCH_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// Keys of this age are read again, while they go on being used.
pub const REFRESH_AFTER: Duration = Duration::from_mins(5);
/// Keys of this age are not used any more.
pub const STALE_MAX: Duration = Duration::from_hours(1);

/// One issuer: what its tokens must be like, and where its keys are.
#[derive(Debug)]
pub struct Issuer {
    pub(super) rules: IssuerRules,
    /// Where the key set is; found by discovery when it is not given.
    key_set_url: Option<String>,
    http: HttpClient,
    state: RwLock<State>,
    fetching: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    keys: Option<(Arc<KeySet>, Instant)>,
    /// When the last fetch was begun.
    attempted: Option<Instant>,
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The issuer has none of this name for this algorithm.
    Unknown,
    /// The issuer's keys cannot be had, or are too old.
    Unavailable,
}

impl Issuer {
    /// An issuer whose keys are not known yet.
    ///
    /// # Errors
    /// When one of the addresses is none that keys may be read from.
    pub fn new(rules: IssuerRules, key_set_url: Option<String>, http: HttpClient) -> Result<Self, IssuerConfigError> {
        fetch::check_url(&rules.issuer)?;
        if let Some(url) = &key_set_url {
            fetch::check_url(url)?;
        }
        Ok(Self { rules, key_set_url, http, state: RwLock::default(), fetching: Mutex::default() })
    }

    /// The key of an id, for an algorithm.
    pub(super) async fn key(self: &Arc<Self>, id: &str, algorithm: Algorithm) -> Result<Arc<PublicKey>, NoKey> {
        if let Some((keys, read_at)) = self.usable_keys() {
            if read_at.elapsed() >= REFRESH_AFTER {
                let issuer = Arc::clone(self);
                // It ends with the fetch's own timeout, and nobody waits for it.
                tokio::spawn(async move { issuer.fetch().await });
            }
            if let Some(key) = keys.key(id, algorithm) {
                return Ok(key);
            }
        }
        self.fetch().await;
        let (keys, _) = self.usable_keys().ok_or(NoKey::Unavailable)?;
        keys.key(id, algorithm).ok_or(NoKey::Unknown)
    }

    fn usable_keys(&self) -> Option<(Arc<KeySet>, Instant)> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.keys.clone().filter(|(_, read_at)| read_at.elapsed() < STALE_MAX)
    }

    /// Reads the keys, unless it is too early to.
    async fn fetch(&self) {
        let _one_at_a_time = self.fetching.lock().await;
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if state.attempted.is_some_and(|attempted| attempted.elapsed() < FETCH_INTERVAL_MIN) {
                return;
            }
            state.attempted = Some(Instant::now());
        }
        match self.http.key_set(&self.rules.issuer, self.key_set_url.as_deref()).await {
            Ok(keys) => {
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                state.keys = Some((Arc::new(keys), Instant::now()));
            }
            Err(error) => tracing::warn!(issuer = %self.rules.issuer, %error, "the issuer's keys were not read"),
        }
    }
}
