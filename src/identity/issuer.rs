//! An issuer's keys: fetched when they are needed, and kept while they are fresh enough.
//!
//! INVARIANT (bounded trust): keys are used for at most [`STALE_MAX`] after they were read. After that, no token of the
//! issuer is accepted.
//!
//! INVARIANT (bounded work): at most one fetch runs at a time, and at most one begins in every [`FETCH_INTERVAL_MIN`],
//! however many tokens name unknown keys. A caller waits for one fetch at most, even if the issuer does not answer.

pub(super) mod backchannel;
mod fetch;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::config::IssuerConfig;
use super::key_set::{Algorithm, KeySet, PublicKey};
use super::profile::TokenProfile;
use fetch::{FetchSetupError, HttpClient};

/// The least time between the beginnings of two fetches.
const FETCH_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// The age at which keys are read again. They stay in use meanwhile.
const REFRESH_AFTER: Duration = Duration::from_mins(5);
/// The age from which keys are not used any more.
const STALE_MAX: Duration = Duration::from_hours(1);

/// An issuer: its settings and its keys.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) config: IssuerConfig,
    /// The form of its tokens.
    pub(super) profile: TokenProfile,
    http: HttpClient,
    fetched: RwLock<Fetched>,
    /// The lock that the running fetch holds.
    fetching: Arc<Mutex<()>>,
}

/// The result of the fetches so far.
#[derive(Debug, Default)]
struct Fetched {
    keys: Option<DatedKeys>,
    /// The time at which the last fetch began.
    attempted: Option<Instant>,
    /// The number of fetches that have ended.
    ended: u64,
}

/// A key set, and the time at which it was read.
#[derive(Clone, Debug)]
struct DatedKeys {
    set: Arc<KeySet>,
    read_at: Instant,
}

/// The reason why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The issuer has no key with this id for this algorithm.
    Unknown,
    /// The issuer's keys cannot be read, or are too old.
    Unavailable,
}

/// The way in which a token names the key that signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyName<'t> {
    /// The token names its key by this id.
    Id(&'t str),
    /// The token names no key. It is accepted only if the issuer has a single one.
    OnlyKey,
}

impl KeyName<'_> {
    fn of(self, keys: &KeySet, algorithm: Algorithm) -> Option<Arc<PublicKey>> {
        match self {
            Self::Id(id) => keys.key(id, algorithm),
            Self::OnlyKey => keys.only_key(algorithm),
        }
    }
}

impl Issuer {
    /// Creates an issuer whose keys are not known yet.
    ///
    /// # Errors
    /// If keys may not be read from one of its addresses, or the file of authorities to trust there cannot be used or is of no
    /// use.
    pub(super) fn new(config: IssuerConfig) -> Result<Self, FetchSetupError> {
        fetch::check_url(&config.issuer)?;
        if let Some(url) = &config.jwks_url {
            fetch::check_url(url)?;
        }
        let read_first = config.jwks_url.as_ref().unwrap_or(&config.issuer);
        let has_tls = fetch::check_url(read_first)?.scheme() == "https";
        if config.ca_file.is_some() && !has_tls {
            return Err(FetchSetupError::Plain(read_first.clone()));
        }
        if config.proxy_url.is_some() && !has_tls {
            return Err(FetchSetupError::PlainBehindProxy(read_first.clone()));
        }
        let http = HttpClient::new(config.ca_file.as_deref(), config.proxy_url.as_deref())?;
        let profile = config.token_profile();
        Ok(Self { config, profile, http, fetched: RwLock::default(), fetching: Arc::default() })
    }

    /// Returns the key that a token names, for an algorithm, and fetches the issuer's keys if need be.
    pub(super) async fn key(
        self: &Arc<Self>,
        name: KeyName<'_>,
        algorithm: Algorithm,
    ) -> Result<Arc<PublicKey>, NoKey> {
        if let Some(keys) = self.usable_keys() {
            if keys.read_at.elapsed() >= REFRESH_AFTER
                && let Ok(alone) = Arc::clone(&self.fetching).try_lock_owned()
            {
                // Nobody waits for this fetch.
                self.begin_fetch(alone);
            }
            if let Some(key) = name.of(&keys.set, algorithm) {
                return Ok(key);
            }
        }
        let ended = self.ended();
        let alone = Arc::clone(&self.fetching).lock_owned().await;
        // A fetch that ended in the meantime has found everything that could be found.
        if self.ended() == ended
            && let Err(error) = self.begin_fetch(alone).await
        {
            tracing::error!(%error, "a fetch of the issuer's keys was lost");
        }
        let keys = self.usable_keys().ok_or(NoKey::Unavailable)?;
        name.of(&keys.set, algorithm).ok_or(NoKey::Unknown)
    }

    fn usable_keys(&self) -> Option<DatedKeys> {
        let fetched = self.fetched.read().unwrap_or_else(PoisonError::into_inner);
        fetched.keys.clone().filter(|keys| keys.read_at.elapsed() < STALE_MAX)
    }

    fn ended(&self) -> u64 {
        self.fetched.read().unwrap_or_else(PoisonError::into_inner).ended
    }

    /// Fetches the keys in a task of its own, which ends at the latest when the fetch times out. If a caller ran the
    /// fetch itself and went away, the fetch would be lost, and no other could begin for [`FETCH_INTERVAL_MIN`].
    fn begin_fetch(self: &Arc<Self>, alone: OwnedMutexGuard<()>) -> JoinHandle<()> {
        let issuer = Arc::clone(self);
        tokio::spawn(async move {
            issuer.fetch().await;
            drop(alone);
        })
    }

    /// Fetches the keys, unless the last fetch began too recently.
    async fn fetch(&self) {
        {
            let mut fetched = self.fetched.write().unwrap_or_else(PoisonError::into_inner);
            if fetched.attempted.is_some_and(|attempted| attempted.elapsed() < FETCH_INTERVAL_MIN) {
                return;
            }
            fetched.attempted = Some(Instant::now());
        }
        let IssuerConfig { issuer, jwks_url, .. } = &self.config;
        let found = self.http.key_set(issuer, jwks_url.as_deref()).await;
        let mut fetched = self.fetched.write().unwrap_or_else(PoisonError::into_inner);
        fetched.ended += 1;
        match found {
            Ok(keys) => fetched.keys = Some(DatedKeys { set: Arc::new(keys), read_at: Instant::now() }),
            Err(error) => tracing::warn!(issuer, %error, "the issuer's keys were not read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use tokio::net::TcpListener;

    use super::*;
    use crate::client_tls::sample::Authority;

    /// Returns an issuer that accepts connections and never answers.
    async fn silent() -> (Arc<Issuer>, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = IssuerConfig::new(format!("http://{}", listener.local_addr().unwrap()));
        (Arc::new(Issuer::new(config).unwrap()), listener)
    }

    fn attempts(listener: &TcpListener) -> usize {
        use futures::FutureExt;
        std::iter::from_fn(|| listener.accept().now_or_never()).count()
    }

    #[test]
    fn certificates_need_an_address_with_tls() {
        let (plain, over_tls) = ("http://localhost:1", "https://issuer.example");
        let authority = Authority::new("ours");
        let rows = [
            ("without TLS", plain, None, true),
            ("keys without TLS", over_tls, Some(plain), true),
            ("TLS", over_tls, None, false),
            ("keys over TLS", plain, Some("https://issuer.example/keys"), false),
        ];
        for (name, issuer, jwks_url, is_refused) in rows {
            let (ca_file, jwks_url) = (Some(authority.file()), jwks_url.map(str::to_owned));
            let made = Issuer::new(IssuerConfig { jwks_url, ca_file, ..IssuerConfig::new(issuer) });
            assert_eq!(matches!(made, Err(FetchSetupError::Plain(_))), is_refused, "{name}: {made:?}");
            assert_eq!(made.is_err(), is_refused, "{name}: {made:?}");
        }
    }

    #[test]
    fn a_proxy_needs_addresses_with_tls() {
        let (plain, over_tls) = ("http://localhost:1", "https://issuer.example");
        let rows = [
            ("without TLS", plain, None, true),
            ("keys without TLS", over_tls, Some(plain), true),
            ("TLS", over_tls, None, false),
        ];
        for (name, issuer, jwks_url, is_refused) in rows {
            let (proxy_url, jwks_url) = (Some("http://egress.example:8080".to_owned()), jwks_url.map(str::to_owned));
            let made = Issuer::new(IssuerConfig { jwks_url, proxy_url, ..IssuerConfig::new(issuer) });
            assert_eq!(matches!(made, Err(FetchSetupError::PlainBehindProxy(_))), is_refused, "{name}: {made:?}");
            assert_eq!(made.is_err(), is_refused, "{name}: {made:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_wait_for_one_fetch_of_an_issuer_that_does_not_answer() {
        let (issuer, _listener) = silent().await;
        let began = Instant::now();
        let found = join_all((0..100).map(|_| issuer.key(KeyName::Id("k"), Algorithm::Es256))).await;
        assert!(found.iter().all(|found| matches!(found, Err(NoKey::Unavailable))));
        // The fetch asks for two documents, five seconds each.
        assert!(began.elapsed() <= Duration::from_secs(11), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_goes_away_takes_no_fetch_along() {
        use futures::FutureExt;
        let (issuer, _listener) = silent().await;
        for round in 0..3 {
            assert!(issuer.key(KeyName::Id("k"), Algorithm::Es256).now_or_never().is_none(), "it asks and goes away");
            // The fetch goes on without its caller, and ends by itself.
            let began = Instant::now();
            while issuer.ended() <= round {
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert!(began.elapsed() <= 2 * FETCH_INTERVAL_MIN, "round {round}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn old_keys_are_used_while_one_fetch_tries_for_new_ones() {
        let (issuer, listener) = silent().await;
        let jwk = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let set = Arc::new(KeySet::parse(jwk.as_bytes()).unwrap());
        issuer.fetched.write().unwrap().keys = Some(DatedKeys { set, read_at: Instant::now() });
        tokio::time::advance(REFRESH_AFTER).await;
        let tasks = tokio::runtime::Handle::current().metrics();
        for _ in 0..1_000 {
            assert!(issuer.key(KeyName::Id("k"), Algorithm::EdDsa).await.is_ok());
        }
        // The fetch may be alive, with the tasks of its HTTP client.
        assert!(tasks.num_alive_tasks() < 10, "{}", tasks.num_alive_tasks());
        assert!(attempts(&listener) <= 2);
    }
}
