//! The access token that a call came with, kept for the one place that may send it on: the authorization server that
//! exchanges it (RFC 8693) for a token of a source.

use std::fmt;
use std::sync::Arc;

use super::remembered::RememberedTokens;
use super::token::TokenFacts;
use crate::settings::Secret;

/// The access token of one call, as its caller sent it. It is in memory for as long as the call runs, and nothing shows it.
#[derive(Clone)]
pub struct BearerToken(Arc<Parts>);

struct Parts {
    text: Secret,
    digest: [u8; 32],
    issuer: Arc<str>,
    subject: String,
    expires_at: u64,
}

impl BearerToken {
    /// Keeps a verified token and its facts.
    #[must_use]
    pub fn new(text: &str, facts: &TokenFacts) -> Self {
        Self(Arc::new(Parts {
            text: Secret::new(text),
            digest: RememberedTokens::digest(text),
            issuer: Arc::clone(&facts.issuer),
            subject: facts.standard_subject.clone(),
            expires_at: facts.expires_at,
        }))
    }

    /// Returns the token itself. Only an authorization server may get it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.text.expose()
    }

    /// Returns the digest of the token (SHA-256). Two tokens never share one.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.0.digest
    }

    /// Returns the issuer, exactly as configured (`iss`).
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// Returns the subject as other tokens of its issuer name it (`sub`), whatever claim the profile reads.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// Returns the time at which the token expires (`exp`), in seconds since 1970.
    #[must_use]
    pub fn expires_at(&self) -> u64 {
        self.0.expires_at
    }
}

impl PartialEq for BearerToken {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::claims;
    use crate::identity::config::{CheckedConfig, IdentityConfig, IssuerConfig, ProviderProfile};
    use crate::identity::sample::{self, NOW};

    /// An exchanged token has the same `sub`. The claim that names the user here is the provider's own, and need not be in it.
    #[test]
    fn the_subject_is_that_of_the_standards() {
        let person = json!({"uid": "00u1", "sub": "anne@example.com", "cid": "desk", "jti": "AT.1", "scp": []});
        let machine = json!({"sub": "job", "cid": "job", "jti": "AT.2", "scp": []});
        let settings = IdentityConfig { audience: Some("ragward".to_owned()), ..IdentityConfig::default() };
        let config = CheckedConfig::new(&settings).unwrap();
        let okta = IssuerConfig { profile: ProviderProfile::Okta, ..IssuerConfig::new("issuer") };
        let rows = [("a person", person, "00u1", "anne@example.com"), ("a machine", machine, "job", "job")];
        for (row, mut claims, subject, expected) in rows {
            let all = claims.as_object_mut().unwrap();
            let times = json!({"iss": "issuer", "aud": "ragward", "iat": NOW, "exp": NOW + 60});
            all.extend(times.as_object().unwrap().clone());
            let verified = claims::check(all, &okta, &config, NOW).unwrap();
            let bearer = BearerToken::new("text", verified.facts());
            assert_eq!((verified.facts().subject.as_str(), bearer.subject()), (subject, expected), "{row}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let verified = sample::token("anne", "ragward:retrieve", NOW + 60);
        let token = BearerToken::new("canary-93", verified.facts());
        assert!(!format!("{token:?}").contains("canary-93"));
        assert_eq!((token.expose(), token.subject(), token.expires_at()), ("canary-93", "anne", NOW + 60));
        assert_ne!(token, BearerToken::new("canary-94", verified.facts()));
    }
}
