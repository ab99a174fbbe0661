//! The login that a token must be backed by to read a collection, or chunks of a classification (RFC 9470).
//!
//! INVARIANT (per request): the decision depends on the request, the token and the configuration, never on what a
//! search finds. So a challenge does not tell what is there.

use std::collections::BTreeMap;

use super::details::{Classification, OneOf};
use super::token::VerifiedToken;

/// The requirements on a login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepUp {
    /// The authentication classes that will do. If there are none, any class will do.
    pub acr_values: Vec<String>,
    /// The age that the login may have, in seconds.
    pub max_age: Option<u64>,
}

/// The requirements on logins, by what they read.
#[derive(Clone, Debug, Default)]
pub struct StepUpRules {
    /// The requirements for reading a collection at all.
    pub collections: BTreeMap<String, StepUp>,
    /// The requirements for reading chunks of this classification or a higher one.
    pub classifications: BTreeMap<String, StepUp>,
    /// The order of classifications.
    pub classification: Option<Classification>,
    /// The difference between clocks that is tolerated, in seconds.
    pub leeway_seconds: u64,
}

/// The reason why a login does not serve for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginError<'r> {
    /// The login does not meet these requirements.
    StepUp(&'r StepUp),
    /// The request names an unknown classification.
    UnknownClassification,
}

impl VerifiedToken {
    /// Returns whether the login behind the token meets a requirement. `now` is in seconds since 1970, and clocks may
    /// differ by `leeway` seconds. A login that lies further in the future does not count.
    #[must_use]
    pub fn satisfies(&self, required: &StepUp, now: u64, leeway: u64) -> bool {
        let class = self.authentication_class.as_ref();
        let class_fits =
            required.acr_values.is_empty() || class.is_some_and(|class| required.acr_values.contains(class));
        let recent = |max_age: u64| {
            let fits = |at: u64| at <= now.saturating_add(leeway) && now <= at.saturating_add(max_age);
            self.authenticated_at.is_some_and(fits)
        };
        class_fits && required.max_age.is_none_or(recent)
    }
}

impl StepUpRules {
    /// Returns the condition on chunks that follows from the login behind a token and from the request's own
    /// `classification_max`. Returns `None` if every chunk is permitted. A request that names no maximum gets what the
    /// login is good enough for; a request that names a higher maximum is told what is missing. A chunk without
    /// classification is above every maximum.
    ///
    /// # Errors
    /// If the login does not serve for the collection or for the maximum that is asked for.
    pub fn condition(
        &self,
        token: &VerifiedToken,
        collection: &str,
        classification_max: Option<&str>,
        now: u64,
    ) -> Result<Option<OneOf>, LoginError<'_>> {
        let unmet = |required: &&StepUp| !token.satisfies(required, now, self.leeway_seconds);
        if let Some(required) = self.collections.get(collection).filter(unmet) {
            return Err(LoginError::StepUp(required));
        }
        let Some(Classification { metadata_key, order }) = &self.classification else {
            return classification_max.map_or(Ok(None), |_unknown| Err(LoginError::UnknownClassification));
        };
        // This is the first classification that the login is not good enough for. All higher ones require at least as
        // much.
        let missing = order.iter().zip(0..).find_map(|(name, place)| {
            let required = self.classifications.get(name).filter(unmet)?;
            Some((place, required))
        });
        let wanted = match classification_max {
            Some(name) => order.iter().position(|known| known == name).ok_or(LoginError::UnknownClassification)? + 1,
            None => match missing {
                Some((readable, _)) => readable,
                None => return Ok(None),
            },
        };
        match missing {
            Some((readable, required)) if wanted > readable => Err(LoginError::StepUp(required)),
            Some(_) | None => {
                let values = order.iter().take(wanted).cloned().collect();
                Ok(Some(OneOf { key: metadata_key.clone(), values }))
            }
        }
    }
}
