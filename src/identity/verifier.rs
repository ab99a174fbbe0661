//! Verifies the text of a bearer token and returns what Ragward believes of its bearer.

use std::sync::Arc;

use super::approvable::Approval;
use super::claims;
use super::config::{CheckedConfig, IdentityConfig, IdentityConfigError};
use super::issuer::backchannel::Backchannel;
use super::issuer::{Issuer, KeyName, NoKey};
use super::jws::{Jws, TOKEN_BYTES_MAX};
use super::remembered::{RememberedTokens, Use, UsedTokens};
use super::{Refusal, VerifiedToken};
use crate::token_endpoint::OAuthClient;

/// Verifies the tokens of the configured issuers.
#[derive(Debug)]
pub struct TokenVerifier {
    config: CheckedConfig,
    issuers: Vec<Arc<Issuer>>,
    remembered: RememberedTokens,
    used: Arc<UsedTokens>,
}

/// The reason why a bearer is not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// The token is not valid here.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The issuer's keys cannot be read, so the token can neither be accepted nor refused.
    #[error("the issuer's keys cannot be read")]
    Unavailable,
}

impl TokenVerifier {
    /// Creates a verifier for the configured issuers. It contacts none of them yet.
    ///
    /// # Errors
    /// If settings cannot be used.
    pub fn new(config: &IdentityConfig) -> Result<Self, IdentityConfigError> {
        let config = CheckedConfig::new(config)?;
        let mut issuers = Vec::new();
        for settings in &config.settings.issuers {
            let issuer = Issuer::new(settings.clone())
                .map_err(|e| IdentityConfigError::new(format!("`identity.issuers`: {e}")))?;
            issuers.push(Arc::new(issuer));
        }
        Ok(Self { config, issuers, remembered: RememberedTokens::default(), used: Arc::default() })
    }

    /// Returns a verifier of the same issuers' tokens for another audience. Both read the issuers' keys together, and a token
    /// that is good for one request is used up for both.
    #[must_use]
    pub fn for_audience(&self, audience: &str) -> Self {
        let config = CheckedConfig { audience: audience.to_owned(), barred_audience: None, ..self.config.clone() };
        // Each verifier remembers tokens that it verified for its own audience, so each has its own list.
        let remembered = RememberedTokens::default();
        Self { config, issuers: self.issuers.clone(), remembered, used: Arc::clone(&self.used) }
    }

    /// Refuses tokens that name `audience` as well, from now on.
    #[must_use]
    pub fn barring(self, audience: &str) -> Self {
        let config = CheckedConfig { barred_audience: Some(audience.to_owned()), ..self.config };
        // The tokens that were remembered so far were verified without the bar.
        Self { config, remembered: RememberedTokens::default(), ..self }
    }

    /// Returns the audience that a token must name: the name of this server.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.config.audience
    }

    /// Returns the issuers whose tokens are accepted.
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        self.issuers.iter().map(|issuer| issuer.config.issuer.as_str())
    }

    /// Returns a client of one of the issuers that asks people there; `None` if no issuer has this name.
    pub(crate) fn backchannel(&self, issuer: &str, client: OAuthClient) -> Option<Backchannel> {
        let issuer = self.issuers.iter().find(|known| known.config.issuer == issuer)?;
        Some(Backchannel::new(Arc::clone(issuer), client))
    }

    /// Verifies a token at the time `now`, in seconds since 1970.
    ///
    /// # Errors
    /// If the token is refused, or its issuer's keys cannot be read.
    pub async fn verify(&self, token: &str, now: u64) -> Result<Arc<VerifiedToken>, AuthenticationError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Size.into());
        }
        let digest = RememberedTokens::digest(token);
        if let Some(verified) = self.remembered.get(&digest, now) {
            return Ok(verified);
        }
        let verified = Arc::new(self.verify_new(token, now).await?);
        self.remembered.insert(digest, &verified, now);
        Ok(verified)
    }

    /// Begins the one use of a token that is good for one request only. Returns `None` for any other token, and for one that
    /// holds an approval: its use begins when its request is known ([`TokenVerifier::begin_approval`]).
    ///
    /// # Errors
    /// If the token is in use or was used.
    pub fn begin_use(&self, token: &VerifiedToken, now: u64) -> Result<Option<Use>, Refusal> {
        let begin = || self.used.begin(token, self.config.leeway_seconds(), now);
        (token.is_single_use() && !token.holds_approval()).then(begin).transpose()
    }

    /// Begins the one use of an approval, or that of one further page of the approved search.
    ///
    /// # Errors
    /// If it is in use or was used.
    pub fn begin_approval(
        &self,
        token: &VerifiedToken,
        approval: &Approval,
        page_token: Option<&str>,
        now: u64,
    ) -> Result<Use, Refusal> {
        self.used.begin_approval(token, approval, page_token, now)
    }

    /// Returns whether a verified token has expired in the meantime. Calls that last long ask this.
    #[must_use]
    pub fn has_ended(&self, token: &VerifiedToken, now: u64) -> bool {
        claims::has_ended(token.facts.expires_at, self.config.leeway_seconds(), now)
    }

    async fn verify_new(&self, token: &str, now: u64) -> Result<VerifiedToken, AuthenticationError> {
        let jws = Jws::parse(token)?;
        let claimed = jws.claimed_issuer().ok_or(Refusal::Issuer)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.config.issuer == claimed).ok_or(Refusal::Issuer)?;
        if !issuer.profile.has_type(jws.media_type.as_deref()) {
            return Err(Refusal::Type.into());
        }
        if !issuer.config.algorithms.contains(&jws.algorithm) {
            return Err(Refusal::Algorithm.into());
        }
        let key_name = match &jws.key_id {
            Some(id) => KeyName::Id(id),
            None if issuer.profile.takes_no_key_id() => KeyName::OnlyKey,
            None => return Err(Refusal::Key.into()),
        };
        let key = issuer.key(key_name, jws.algorithm).await.map_err(|no_key| match no_key {
            NoKey::Unknown => AuthenticationError::Refused(Refusal::Key),
            NoKey::Unavailable => AuthenticationError::Unavailable,
        })?;
        let claims = jws.verify(&key)?;
        Ok(claims::check_by(&issuer.profile, &claims, &issuer.config, &self.config, now)?)
    }
}
