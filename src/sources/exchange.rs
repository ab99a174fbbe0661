//! Exchanges the token of a call for a token of one source (RFC 8693), or for one from Auth0's vault.
//!
//! INVARIANT (one user, one token): a token is kept under the digest of the token that it was exchanged for, so nobody else gets
//! it. It is kept no longer than either of the two is good.
//!
//! INVARIANT (bounded work): one exchange at a time for one token, and [`EXCHANGES_MAX`] for all of them. Those who wait for one that
//! fails fail with it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::HeaderValue;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::SourceFault;
use super::config::{ExchangeConfig, ExchangeGrant};
use super::setup::SourceSetupError;
use crate::identity::BearerToken;
use crate::strict_json;
use crate::telemetry;
use crate::token_endpoint::{Form, LIFETIME_MAX, TokenEndpoint, TokenEndpointSettings, TokenFault};

/// The deepest nesting of the claims of a token.
const DEPTH_MAX: usize = 8;
/// The longest time before the end of a kept token at which nobody uses it any more: it has to be good when it arrives.
const UNUSED_BEFORE_MAX: Duration = Duration::from_secs(30);
/// The most exchanges that run at a time for one source. An authorization server takes tens of milliseconds for one, so it can give
/// some hundred tokens a second.
const EXCHANGES_MAX: usize = 16;
/// The most tokens of one source that are kept. When there are more, all that nobody uses at that moment are forgotten.
const KEPT_MAX: usize = 8_192;
/// The shortest time between two searches for tokens that have ended.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

const RFC8693: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const AUTH0: &str = "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const AUTH0_TOKEN: &str = "http://auth0.com/oauth/token-type/federated-connection-access-token";

/// Exchanges tokens at one authorization server, for one source.
pub(super) struct TokenExchange {
    /// The name of the source.
    source: String,
    endpoint: TokenEndpoint,
    /// The issuers whose tokens are exchanged; those of the only one if there are none.
    issuers: Vec<String>,
    /// The fields of each request that are always the same.
    form: Form,
    /// The types that an exchanged token may have, if the answer names one.
    issued_types: &'static [&'static str],
    /// The audience that an exchanged JWT must name.
    audience: Option<String>,
    /// The audiences that an exchanged JWT must not name.
    barred: Vec<String>,
    /// The exchanges that may run at a time.
    running: Semaphore,
    kept: Mutex<Kept>,
}

/// The tokens that are kept, by the digest of the token of the call.
struct Kept {
    slots: HashMap<[u8; 32], Arc<Slot>>,
    sweep_at: Instant,
}

/// The place of one exchanged token.
#[derive(Default)]
struct Slot {
    /// The number of exchanges that have ended.
    ended: AtomicU64,
    token: tokio::sync::Mutex<Option<ExchangedToken>>,
}

/// A token of a source, as it stands in a header.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ExchangedToken {
    value: HeaderValue,
    unused_at: Instant,
}

impl TokenExchange {
    /// Prepares the exchange. Nothing is sent yet.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub(super) fn new(source: &str, settings: &ExchangeConfig) -> Result<Self, SourceSetupError> {
        let ExchangeConfig { token_url, client, audience, resource, connection, ca_file, .. } = settings;
        let endpoint = TokenEndpointSettings { table: "exchange", token_url, client, ca_file: ca_file.as_deref() };
        let (grant, asked_type, issued_types): (&str, &str, &'static [&'static str]) = match settings.grant {
            ExchangeGrant::TokenExchange => (RFC8693, ACCESS_TOKEN, &[ACCESS_TOKEN, JWT]),
            ExchangeGrant::Auth0FederatedConnection => (AUTH0, AUTH0_TOKEN, &[AUTH0_TOKEN, ACCESS_TOKEN]),
        };
        let form = Form::default()
            .with("grant_type", grant)
            .with("subject_token_type", ACCESS_TOKEN)
            .with("requested_token_type", asked_type)
            .with("audience", audience.as_deref())
            .with("resource", resource.as_deref())
            .with("scope", (!settings.scopes.is_empty()).then_some(settings.scopes.join(" ").as_str()))
            .with("connection", connection.as_deref());
        Ok(Self {
            source: source.to_owned(),
            endpoint: TokenEndpoint::new(endpoint).map_err(SourceSetupError::Setting)?,
            issuers: settings.issuers.clone(),
            form,
            issued_types,
            audience: audience.clone().or_else(|| resource.clone()),
            barred: Vec::new(),
            running: Semaphore::new(EXCHANGES_MAX),
            kept: Mutex::new(Kept { slots: HashMap::new(), sweep_at: Instant::now() + SWEEP_INTERVAL }),
        })
    }

    /// Takes no exchanged token that names one of these audiences, too.
    #[must_use]
    pub(super) fn barring(self, audiences: &[String]) -> Self {
        Self { barred: audiences.to_vec(), ..self }
    }

    /// Returns whether the token of a call may go to the authorization server.
    pub(super) fn takes(&self, bearer: &BearerToken) -> bool {
        self.issuers.is_empty() || self.issuers.iter().any(|issuer| issuer == bearer.issuer())
    }

    /// Returns a token of the source for the bearer of a token, kept or new.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn token(
        &self,
        bearer: &BearerToken,
        since_1970: Duration,
    ) -> Result<ExchangedToken, SourceFault> {
        let slot = self.slot(bearer.digest());
        let ended = slot.ended.load(Ordering::Acquire);
        let mut token = slot.token.lock().await;
        if let Some(kept) = token.as_ref().filter(|kept| Instant::now() < kept.unused_at) {
            return Ok(kept.clone());
        }
        if slot.ended.load(Ordering::Acquire) != ended {
            return Err(SourceFault::ExchangeFailed);
        }
        // A caller who goes away drops the lock, and the next one asks.
        let exchanged = self.exchange(bearer, since_1970).await;
        telemetry::token_exchanged(&self.source, if exchanged.is_ok() { "exchanged" } else { "failed" });
        *token = exchanged.as_ref().ok().cloned();
        slot.ended.fetch_add(1, Ordering::Release);
        exchanged
    }

    /// Returns a new token in place of one that the source has refused, unless somebody else has got a new one already.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn token_after(
        &self,
        refused: &ExchangedToken,
        bearer: &BearerToken,
        since_1970: Duration,
    ) -> Result<ExchangedToken, SourceFault> {
        let slot = self.slot(bearer.digest());
        let mut token = slot.token.lock().await;
        if token.as_ref() == Some(refused) {
            *token = None;
        }
        drop(token);
        self.token(bearer, since_1970).await
    }

    /// Returns the place of the token that is exchanged for the token with this digest.
    fn slot(&self, digest: [u8; 32]) -> Arc<Slot> {
        let mut kept = self.kept();
        let now = Instant::now();
        if kept.sweep_at <= now {
            kept.sweep_at = now + SWEEP_INTERVAL;
            let is_good = |slot: &Arc<Slot>| match slot.token.try_lock() {
                Ok(token) => token.as_ref().is_some_and(|token| now < token.unused_at),
                Err(_locked) => true,
            };
            kept.slots.retain(|_, slot| is_in_use(slot) || is_good(slot));
        }
        if kept.slots.len() >= KEPT_MAX && !kept.slots.contains_key(&digest) {
            kept.slots.retain(|_, slot| is_in_use(slot));
        }
        Arc::clone(kept.slots.entry(digest).or_default())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn exchange(&self, bearer: &BearerToken, since_1970: Duration) -> Result<ExchangedToken, SourceFault> {
        let left = Duration::from_secs(bearer.expires_at()).saturating_sub(since_1970);
        if left.is_zero() {
            return Err(SourceFault::Ended);
        }
        // The lifetime counts from here, so that neither a wait nor a slow answer makes a token look younger.
        let began = Instant::now();
        // Nobody closes the semaphore.
        let _turn = self.running.acquire().await.map_err(|_closed| SourceFault::ExchangeUnreachable)?;
        let granted = self.endpoint.ask(self.form.clone().with("subject_token", bearer.expose())).await?;
        if !is_of_type(granted.issued_type.as_ref(), self.issued_types) {
            return Err(SourceFault::ExchangedToken);
        }
        // The answer is the token of the call itself. With it, the source could call Ragward as the user.
        if granted.token.expose() == bearer.expose() {
            return Err(SourceFault::ExchangedToken);
        }
        let of_jwt = self.check_claims(granted.token.expose(), bearer.subject(), since_1970)?;
        let lifetime = granted.lifetime.min(left).min(of_jwt);
        if lifetime.is_zero() {
            return Err(SourceFault::ExchangedToken);
        }
        let early = (lifetime / 4).min(UNUSED_BEFORE_MAX);
        Ok(ExchangedToken { value: granted.authorization()?, unused_at: began + lifetime.saturating_sub(early) })
    }

    /// Compares the claims of a token with what was asked for, and returns how long it is good. A token that is no JWT tells
    /// nothing. The signature is for the source to check.
    fn check_claims(&self, token: &str, subject: &str, since_1970: Duration) -> Result<Duration, SourceFault> {
        let Some(claims) = claims(token)? else { return Ok(LIFETIME_MAX) };
        if claims.get("sub").and_then(Value::as_str) != Some(subject) {
            return Err(SourceFault::ExchangedToken);
        }
        let names = |audience: &String| match claims.get("aud") {
            Some(Value::String(named)) => named == audience,
            Some(Value::Array(named)) => named.iter().any(|named| named.as_str() == Some(audience.as_str())),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => false,
        };
        // A token that is good here, too, would let the source call this server as the user.
        if !self.audience.as_ref().is_none_or(names) || self.barred.iter().any(names) {
            return Err(SourceFault::ExchangedToken);
        }
        match claims.get("exp") {
            None => Ok(LIFETIME_MAX),
            Some(end) => {
                let end = end.as_f64().and_then(|end| Duration::try_from_secs_f64(end).ok());
                Ok(end.ok_or(SourceFault::ExchangedToken)?.saturating_sub(since_1970))
            }
        }
    }
}

impl ExchangedToken {
    /// Returns the value of `authorization` for the source.
    pub(super) fn authorization(&self) -> HeaderValue {
        self.value.clone()
    }
}

impl fmt::Debug for ExchangedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExchangedToken(hidden)")
    }
}

/// Returns whether somebody is about to take the token of this place, or to exchange one for it.
fn is_in_use(slot: &Arc<Slot>) -> bool {
    Arc::strong_count(slot) > 1
}

/// Returns whether an answer names one of these types for its token, or none.
fn is_of_type(named: Option<&Value>, types: &[&str]) -> bool {
    named.is_none_or(|named| named.as_str().is_some_and(|named| types.contains(&named)))
}

impl From<TokenFault> for SourceFault {
    fn from(fault: TokenFault) -> Self {
        match fault {
            TokenFault::Http(_) => Self::ExchangeUnreachable,
            TokenFault::Status(status) => Self::ExchangeStatus(status.as_u16()),
            TokenFault::TooLarge | TokenFault::Answer(_) => Self::ExchangedToken,
            TokenFault::Assertion(_) => Self::ClientKey,
        }
    }
}

/// Returns the claims of a token that is a signed JWT; `None` for every other token.
///
/// # Errors
/// When two readers of the token could find different claims in it.
fn claims(token: &str) -> Result<Option<Map<String, Value>>, SourceFault> {
    let parts: Vec<&str> = token.split('.').collect();
    let [_header, claims, _signature] = parts.as_slice() else { return Ok(None) };
    let Ok(claims) = URL_SAFE_NO_PAD.decode(claims) else { return Ok(None) };
    if serde_json::from_slice::<Value>(&claims).is_err() {
        return Ok(None);
    }
    strict_json::object(&claims, DEPTH_MAX).map(Some).map_err(|_malformed| SourceFault::ExchangedToken)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::sample;
    use crate::token_endpoint::sample::{Answer, Endpoint, SampleKey};

    const NOW: Duration = Duration::from_secs(sample::NOW);

    fn exchange(token_url: &str, proof: &Value) -> TokenExchange {
        let mut settings = json!({"token_url": token_url, "client_id": "ragward", "audience": "wiki"});
        settings.as_object_mut().unwrap().extend(proof.as_object().unwrap().clone());
        let exchange = TokenExchange::new("wiki", &serde_json::from_value(settings).unwrap()).unwrap();
        exchange.barring(&["rag".to_owned()])
    }

    fn jwt(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn only_a_token_of_the_right_type_is_taken() {
        let rows = [
            ("as in the RFC", Some(json!(ACCESS_TOKEN)), true),
            ("no type", None, true),
            ("a refresh token", Some(json!("urn:ietf:params:oauth:token-type:refresh_token")), false),
            ("an ID token", Some(json!("urn:ietf:params:oauth:token-type:id_token")), false),
            ("a type that is none", Some(Value::Null), false),
            ("a list of types", Some(json!([ACCESS_TOKEN])), false),
        ];
        for (row, named, expected) in rows {
            assert_eq!(is_of_type(named.as_ref(), &[ACCESS_TOKEN]), expected, "{row}");
        }
    }

    #[test]
    fn a_token_of_another_subject_or_audience_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, "s").unwrap();
        let exchange = exchange("http://127.0.0.1:1/token", &json!({"client_secret_file": file}));
        let good = json!({"sub": "anne", "aud": "wiki", "exp": NOW.as_secs() + 60});
        let rows = [
            ("as asked for", json!({}), Some(60)),
            ("one of several audiences", json!({"aud": ["other", "wiki"]}), Some(60)),
            ("a fraction in its end", json!({"exp": 1_800_000_030.5}), Some(30)),
            ("it has ended", json!({"exp": 1}), Some(0)),
            ("another subject", json!({"sub": "bob"}), None),
            ("another spelling", json!({"sub": "Anne"}), None),
            ("no subject", json!({"sub": null}), None),
            ("another audience", json!({"aud": "drive"}), None),
            ("that of this server, too", json!({"aud": ["wiki", "rag"]}), None),
            ("one that begins like that of this server", json!({"aud": ["wiki", "rag/mcp"]}), Some(60)),
            ("other audiences", json!({"aud": ["drive", "wikis"]}), None),
            ("no audience", json!({"aud": null}), None),
            ("an audience that is a table", json!({"aud": {"wiki": true}}), None),
            ("an end that is a text", json!({"exp": "soon"}), None),
        ];
        for (row, change, expected) in rows {
            let mut claims = good.as_object().unwrap().clone();
            claims.extend(change.as_object().unwrap().clone());
            let checked = exchange.check_claims(&jwt(&Value::Object(claims)), "anne", NOW);
            assert_eq!(checked.ok().map(|lifetime| lifetime.as_secs()), expected, "{row}");
        }
        let twice = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"sub":"bob","sub":"anne","aud":"wiki"}"#));
        assert!(exchange.check_claims(&twice, "anne", NOW).is_err(), "a subject twice");
        for opaque in ["abc", "a.b", "e30.bm8.c2ln", "a.b.c.d.e"] {
            assert_eq!(exchange.check_claims(opaque, "anne", NOW), Ok(LIFETIME_MAX), "{opaque}");
        }
    }

    #[tokio::test]
    async fn the_client_proves_who_it_is_at_each_exchange() {
        let endpoint = Endpoint::start(Answer::Token(300)).await;
        let directory = tempfile::tempdir().unwrap();
        let (secret, key) = (directory.path().join("secret"), directory.path().join("key.pem"));
        let write = |text: &str, of_client: &SampleKey| {
            std::fs::write(&secret, text).unwrap();
            std::fs::write(&key, &of_client.pem).unwrap();
        };
        let rows =
            [("at first", "one", SampleKey::p256()), ("after the files have changed", "two", SampleKey::ed25519())];
        write(rows[0].1, &rows[0].2);
        let by_secret = exchange(&endpoint.url, &json!({"client_secret_file": secret}));
        let by_key = exchange(&endpoint.url, &json!({"private_key_file": key}));
        for (row, text, of_client) in rows {
            write(text, &of_client);
            let verified = sample::token("anne", "ragward:retrieve", sample::NOW + 600);
            let bearer = BearerToken::new(row, verified.facts());
            by_secret.token(&bearer, NOW).await.unwrap();
            let form = endpoint.asked().pop().unwrap().form;
            assert_eq!((form["subject_token"].as_str(), form["client_secret"].as_str()), (row, text), "{row}");

            by_key.token(&bearer, NOW).await.unwrap();
            let form = endpoint.asked().pop().unwrap().form;
            assert!(form["subject_token"] == row && !form.contains_key("client_secret"), "{row}");
            let assertion = of_client.verified(&form["client_assertion"]).expect(row);
            assert_eq!(assertion.claims["aud"], json!(endpoint.url), "{row}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let value = HeaderValue::from_static("Bearer canary-93");
        let token = ExchangedToken { value, unused_at: Instant::now() };
        assert!(!format!("{token:?}").contains("canary-93"));
    }
}
