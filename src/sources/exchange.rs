//! Exchanges the token of a call for a token of one source (RFC 8693), or for one from Auth0's vault.
//!
//! INVARIANT (one user, one token): a token is kept under the digest of the token that it was exchanged for, so nobody else gets
//! it. It is kept no longer than either of the two is good.
//!
//! INVARIANT (bounded work): one exchange at a time for one token. Those who wait for one that fails fail with it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::header::HeaderValue;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Map, Value};
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use super::SourceFault;
use super::config::{ClientSecretIn, ExchangeConfig, ExchangeGrant};
use super::setup::SourceSetupError;
use crate::client_tls::{TrustedAuthorities, is_loopback};
use crate::identity::BearerToken;
use crate::settings::Secret;
use crate::strict_json;

/// The time that one exchange may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer in bytes. Tokens have a few kilobytes.
const BYTES_MAX: usize = 64 * 1_024;
/// The longest token in bytes; servers refuse longer headers.
const TOKEN_BYTES_MAX: usize = 16 * 1_024;
/// The deepest nesting of an answer, and of the claims of a token.
const DEPTH_MAX: usize = 8;
/// The lifetime of a token whose authorization server does not tell it.
const LIFETIME_DEFAULT: Duration = Duration::from_mins(1);
/// The longest lifetime that is believed.
const LIFETIME_MAX: Duration = Duration::from_hours(24);
/// How long before its end a kept token is not used any more at the soonest: it has to be good when it arrives.
const UNUSED_BEFORE_MAX: Duration = Duration::from_secs(30);
/// The most tokens of one source that are kept. When there are more, all that nobody uses at that moment are forgotten.
const KEPT_MAX: usize = 8_192;
/// How often tokens that have ended are forgotten, at the next exchange.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

const RFC8693: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const AUTH0: &str = "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const AUTH0_TOKEN: &str = "http://auth0.com/oauth/token-type/federated-connection-access-token";

/// Exchanges tokens at one authorization server, for one source.
pub(super) struct TokenExchange {
    endpoint: Url,
    client_id: String,
    client_secret: Secret,
    secret_in: ClientSecretIn,
    /// The fields of each request that are always the same.
    fields: Vec<Field>,
    /// The types that an exchanged token may have, if the answer names one.
    issued_types: &'static [&'static str],
    /// The audience that an exchanged JWT must name.
    audience: Option<String>,
    http: Client,
    kept: Mutex<Kept>,
}

/// A field of a form.
struct Field {
    name: &'static str,
    value: String,
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

/// A token as the answer of a token endpoint has it.
struct Granted {
    token: String,
    lifetime: Duration,
}

impl TokenExchange {
    /// Prepares the exchange. Nothing is sent yet.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub(super) fn new(settings: &ExchangeConfig) -> Result<Self, SourceSetupError> {
        let endpoint = endpoint(&settings.token_url).ok_or_else(|| {
            let rule = "must be an `https` URL without user and fragment; `http` is for loopback alone";
            SourceSetupError::Setting(format!("`exchange.token_url` {rule}"))
        })?;
        let client_secret = settings.client_secret_file.read()?;
        let (grant, asked_type, issued_types): (&str, &str, &'static [&'static str]) = match settings.grant {
            ExchangeGrant::TokenExchange => (RFC8693, ACCESS_TOKEN, &[ACCESS_TOKEN, JWT]),
            ExchangeGrant::Auth0FederatedConnection => (AUTH0, AUTH0_TOKEN, &[AUTH0_TOKEN, ACCESS_TOKEN]),
        };
        let fixed = [
            ("grant_type", Some(grant.to_owned())),
            ("subject_token_type", Some(ACCESS_TOKEN.to_owned())),
            ("requested_token_type", Some(asked_type.to_owned())),
            ("audience", settings.audience.clone()),
            ("resource", settings.resource.clone()),
            ("scope", Some(settings.scopes.join(" ")).filter(|scopes| !scopes.is_empty())),
            ("connection", settings.connection.clone()),
        ];
        let fields = fixed.into_iter().filter_map(|(name, value)| Some(Field { name, value: value? })).collect();
        let authorities = TrustedAuthorities::read(settings.ca_file.as_deref())?;
        let http = authorities.http_client(TIMEOUT).map_err(|e| SourceSetupError::Setting(e.to_string()))?;
        Ok(Self {
            endpoint,
            client_id: settings.client_id.clone(),
            client_secret,
            secret_in: settings.secret_in,
            fields,
            issued_types,
            audience: settings.audience.clone().or_else(|| settings.resource.clone()),
            http,
            kept: Mutex::new(Kept { slots: HashMap::new(), sweep_at: Instant::now() + SWEEP_INTERVAL }),
        })
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
        // The time of the request counts from its beginning, so that a slow answer makes no token look younger.
        let began = Instant::now();
        let answered = self.request(bearer).send().await.map_err(|_lost| SourceFault::ExchangeUnreachable)?;
        if answered.status() != StatusCode::OK {
            return Err(SourceFault::ExchangeStatus(answered.status().as_u16()));
        }
        let granted = self.read(answered).await?;
        let of_jwt = self.check_claims(&granted.token, bearer.subject(), since_1970)?;
        let lifetime = granted.lifetime.min(left).min(of_jwt);
        if lifetime.is_zero() {
            return Err(SourceFault::ExchangedToken);
        }
        let value = HeaderValue::from_str(&format!("Bearer {}", granted.token));
        let mut value = value.map_err(|_unfit| SourceFault::ExchangedToken)?;
        value.set_sensitive(true);
        let early = (lifetime / 4).min(UNUSED_BEFORE_MAX);
        Ok(ExchangedToken { value, unused_at: began + lifetime.saturating_sub(early) })
    }

    fn request(&self, bearer: &BearerToken) -> RequestBuilder {
        let mut form = form_urlencoded::Serializer::new(String::new());
        for Field { name, value } in &self.fields {
            form.append_pair(name, value);
        }
        form.append_pair("subject_token", bearer.expose());
        let request = self.http.post(self.endpoint.clone()).header("accept", "application/json");
        let request = match self.secret_in {
            ClientSecretIn::Header => {
                request.header("authorization", basic(&self.client_id, self.client_secret.expose()))
            }
            ClientSecretIn::Body => {
                form.append_pair("client_id", &self.client_id);
                form.append_pair("client_secret", self.client_secret.expose());
                request
            }
        };
        request.header("content-type", "application/x-www-form-urlencoded").body(form.finish())
    }

    async fn read(&self, mut answered: Response) -> Result<Granted, SourceFault> {
        let mut bytes = Vec::new();
        while let Some(piece) = answered.chunk().await.map_err(|_lost| SourceFault::ExchangeUnreachable)? {
            if bytes.len() + piece.len() > BYTES_MAX {
                return Err(SourceFault::ExchangedToken);
            }
            bytes.extend_from_slice(&piece);
        }
        let members = strict_json::object(&bytes, DEPTH_MAX).map_err(|_malformed| SourceFault::ExchangedToken)?;
        granted(&members, self.issued_types).ok_or(SourceFault::ExchangedToken)
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
        if !self.audience.as_ref().is_none_or(names) {
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

/// Parses the address of a token endpoint. A query may belong to it (RFC 6749, section 3.2).
fn endpoint(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let is_kept = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
    (is_bare && is_kept).then_some(url)
}

/// Returns the client and its secret as RFC 6749, section 2.3.1, encodes them.
fn basic(client_id: &str, secret: &str) -> String {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encoded(client_id), encoded(secret))))
}

/// Reads the token of an answer; `None` if the answer has none that can be sent as a bearer token. A refresh token beside it is
/// not looked at.
fn granted(members: &Map<String, Value>, issued_types: &[&str]) -> Option<Granted> {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if !text("token_type")?.eq_ignore_ascii_case("bearer") {
        return None;
    }
    if members
        .get("issued_token_type")
        .is_some_and(|kind| !kind.as_str().is_some_and(|kind| issued_types.contains(&kind)))
    {
        return None;
    }
    let token = text("access_token")?;
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let lifetime = match members.get("expires_in") {
        None | Some(Value::Null) => LIFETIME_DEFAULT,
        // Some authorization servers write the number as a text.
        Some(Value::String(text)) => Duration::from_secs(text.parse().ok()?),
        Some(number) => Duration::from_secs(number.as_u64()?),
    };
    Some(Granted { token: token.to_owned(), lifetime: lifetime.min(LIFETIME_MAX) })
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

    const NOW: Duration = Duration::from_hours(500_000);

    fn exchange() -> TokenExchange {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, "s").unwrap();
        let settings = json!({
            "token_url": "http://127.0.0.1:1/token", "client_id": "ragward", "client_secret_file": file,
            "audience": "wiki",
        });
        TokenExchange::new(&serde_json::from_value(settings).unwrap()).unwrap()
    }

    fn jwt(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn only_a_bearer_token_of_the_right_type_is_taken() {
        let good =
            json!({"access_token": "abc", "token_type": "Bearer", "issued_token_type": ACCESS_TOKEN, "expires_in": 60});
        let rows = [
            ("as in the RFC", json!({}), true),
            ("a type in small letters", json!({"token_type": "bearer"}), true),
            ("no lifetime", json!({"expires_in": null}), true),
            ("a lifetime as a text", json!({"expires_in": "60"}), true),
            ("a refresh token beside it", json!({"refresh_token": "r"}), true),
            ("a refresh token", json!({"issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}), false),
            ("an ID token", json!({"issued_token_type": "urn:ietf:params:oauth:token-type:id_token"}), false),
            ("a token of no use", json!({"token_type": "N_A"}), false),
            ("a token that is bound to a key", json!({"token_type": "DPoP"}), false),
            ("no type", json!({"token_type": null}), false),
            ("no token", json!({"access_token": null}), false),
            ("an empty token", json!({"access_token": ""}), false),
            ("a token of two lines", json!({"access_token": "a\nb"}), false),
            ("a token that no header holds", json!({"access_token": "x".repeat(TOKEN_BYTES_MAX + 1)}), false),
            ("a lifetime that is none", json!({"expires_in": -1}), false),
        ];
        for (row, change, expected) in rows {
            let mut answer = good.as_object().unwrap().clone();
            answer.extend(change.as_object().unwrap().clone());
            assert_eq!(granted(&answer, &[ACCESS_TOKEN]).is_some(), expected, "{row}");
        }
    }

    #[test]
    fn a_token_of_another_subject_or_audience_is_dropped() {
        let exchange = exchange();
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

    #[test]
    fn a_token_goes_only_where_nobody_reads_it_on_the_way() {
        let rows = [
            ("TLS", "https://login.example/token", true),
            ("TLS with a query", "https://login.example/token?tenant=1", true),
            ("this machine", "http://127.0.0.1:1/token", true),
            ("another machine", "http://login.example/token", false),
            ("a user", "https://anne@login.example/token", false),
            ("a fragment", "https://login.example/token#a", false),
            ("no address", "login.example", false),
        ];
        for (row, text, expected) in rows {
            assert_eq!(endpoint(text).is_some(), expected, "{row}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let value = HeaderValue::from_static("Bearer canary-93");
        let token = ExchangedToken { value, unused_at: Instant::now() };
        assert!(!format!("{token:?}").contains("canary-93"));
    }
}
