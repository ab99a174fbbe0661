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
    subject: String,
    expires_at: u64,
}

impl BearerToken {
    /// Keeps a token that was verified, and that states these facts.
    #[must_use]
    pub fn new(text: &str, facts: &TokenFacts) -> Self {
        Self(Arc::new(Parts {
            text: Secret::new(text),
            digest: RememberedTokens::digest(text),
            subject: facts.subject.clone(),
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

    /// Returns the subject as the issuer spells it (`sub`).
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
    use super::*;
    use crate::identity::sample::{self, NOW};

    #[test]
    fn a_token_is_not_shown() {
        let verified = sample::token("anne", "ragward:retrieve", NOW + 60);
        let token = BearerToken::new("canary-93", verified.facts());
        assert!(!format!("{token:?}").contains("canary-93"));
        assert_eq!((token.expose(), token.subject(), token.expires_at()), ("canary-93", "anne", NOW + 60));
        assert_ne!(token, BearerToken::new("canary-94", verified.facts()));
    }
}
