//! From the text of a bearer token to what is believed of its bearer.

use std::sync::Arc;

use super::claims::{self, Rules};
use super::issuer::{Issuer, NoKey};
use super::jws::{Jws, TOKEN_BYTES_MAX};
use super::remembered::{RememberedTokens, UsedTokens};
use super::{Refusal, VerifiedToken};

/// Verifies the tokens of the configured issuers.
#[derive(Debug)]
pub struct TokenVerifier {
    rules: Rules,
    issuers: Vec<Arc<Issuer>>,
    remembered: RememberedTokens,
    used: UsedTokens,
}

/// Why a bearer is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// The token is not valid here.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The issuer's keys cannot be had, so nothing can be said of the token.
    #[error("the issuer's keys cannot be read")]
    Unavailable,
}

impl TokenVerifier {
    /// A verifier that knows no token yet.
    #[must_use]
    pub fn new(rules: Rules, issuers: Vec<Issuer>) -> Self {
        let issuers = issuers.into_iter().map(Arc::new).collect();
        Self { rules, issuers, remembered: RememberedTokens::default(), used: UsedTokens::default() }
    }

    /// What a token must be meant for: the name of this server.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.rules.audience
    }

    /// Whose tokens are taken.
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        self.issuers.iter().map(|issuer| &*issuer.rules.issuer)
    }

    /// Verifies a token at the time `now`, in seconds since 1970. A token for one request is used up by it.
    ///
    /// # Errors
    /// When it is refused, or when nothing can be said of it.
    pub async fn verify(&self, token: &str, now: u64) -> Result<Arc<VerifiedToken>, AuthenticationError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Size.into());
        }
        let digest = RememberedTokens::digest(token);
        let verified = if let Some(verified) = self.remembered.get(&digest, now) {
            verified
        } else {
            let verified = Arc::new(self.verify_new(token, now).await?);
            self.remembered.insert(digest, &verified, now);
            verified
        };
        if verified.is_single_use() {
            self.used.claim(&verified, self.rules.leeway_seconds, now)?;
        }
        Ok(verified)
    }

    /// Whether a token that was verified has ended since: for calls that go on for long.
    #[must_use]
    pub fn has_ended(&self, token: &VerifiedToken, now: u64) -> bool {
        claims::has_ended(token.facts.expires_at, self.rules.leeway_seconds, now)
    }

    async fn verify_new(&self, token: &str, now: u64) -> Result<VerifiedToken, AuthenticationError> {
        let jws = Jws::parse(token)?;
        let claimed = jws.claimed_issuer().ok_or(Refusal::Issuer)?;
        let issuer = self.issuers.iter().find(|issuer| *issuer.rules.issuer == *claimed).ok_or(Refusal::Issuer)?;
        if !issuer.rules.algorithms.contains(&jws.algorithm) {
            return Err(Refusal::Algorithm.into());
        }
        let key = issuer.key(&jws.key_id, jws.algorithm).await.map_err(|no_key| match no_key {
            NoKey::Unknown => AuthenticationError::Refused(Refusal::Key),
            NoKey::Unavailable => AuthenticationError::Unavailable,
        })?;
        let claims = jws.verify(&key)?;
        Ok(claims::check(&claims, &issuer.rules, &self.rules, now)?)
    }
}
