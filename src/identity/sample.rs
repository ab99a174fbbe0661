//! Tokens that count as verified, for the tests of other modules.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

#[cfg(feature = "server")]
use super::TokenVerifier;
use super::claims;
use super::config::{CheckedConfig, IdentityConfig, IssuerConfig, RequestContextKey, SettableBy};
use super::{Principal, RequestContextRules, VerifiedToken};

/// The time at which the tokens are issued, in seconds since 1970.
pub(crate) const NOW: u64 = 1_800_000_000;
/// The difference between clocks that is tolerated, in seconds.
pub(crate) const LEEWAY_SECONDS: u64 = 30;

fn config() -> IdentityConfig {
    let leeway = Duration::from_secs(LEEWAY_SECONDS);
    IdentityConfig { audience: Some("ragward".to_owned()), leeway, ..IdentityConfig::default() }
}

/// Returns a verifier that tolerates the same difference between clocks and has no issuer.
#[cfg(feature = "server")]
pub(crate) fn verifier() -> TokenVerifier {
    TokenVerifier::new(&config()).unwrap()
}

/// Returns a token with this subject.
pub(crate) fn token(subject: &str, scope: &str, expires_at: u64) -> Arc<VerifiedToken> {
    let config = CheckedConfig::new(&config()).unwrap();
    let claims = json!({
        "iss": "issuer", "aud": "ragward", "sub": subject, "client_id": "app", "jti": "1",
        "iat": NOW, "exp": expires_at, "auth_time": NOW, "scope": scope,
    });
    Arc::new(claims::check(claims.as_object().unwrap(), &IssuerConfig::new("issuer"), &config, NOW).unwrap())
}

/// Returns a token of Anne that is read by the settings of a test. `more` holds claims that it has besides.
#[cfg(feature = "server")]
pub(crate) fn token_with(settings: &IdentityConfig, more: &Value) -> Arc<VerifiedToken> {
    let audience = Some("ragward".to_owned());
    let config = CheckedConfig::new(&IdentityConfig { audience, ..settings.clone() }).unwrap();
    let mut claims = json!({
        "iss": "issuer", "aud": "ragward", "sub": "anne", "client_id": "app", "jti": "1", "iat": NOW, "exp": NOW + 600,
        "auth_time": NOW, "scope": "ragward:retrieve ragward:assert_user",
    });
    for (name, value) in more.as_object().unwrap() {
        claims[name.as_str()] = value.clone();
    }
    Arc::new(claims::check(claims.as_object().unwrap(), &IssuerConfig::new("issuer"), &config, NOW).unwrap())
}

/// Returns the principal with the values that its request states, all of which it may state.
pub(crate) fn in_context(principal: Principal, stated: &Value) -> Principal {
    let stated = stated.as_object().unwrap();
    let key = |name: &String| RequestContextKey { parameter: name.clone(), settable_by: SettableBy::Everyone };
    let config = IdentityConfig { request_context: stated.keys().map(key).collect(), ..IdentityConfig::default() };
    let rules = RequestContextRules::new(&config).unwrap();
    principal.in_context(rules.admit(stated.clone(), None).unwrap())
}
