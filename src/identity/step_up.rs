//! Step-up authentication (RFC 9470): says how strong and how recent the login behind a token must be to read a
//! collection, or chunks of a classification.
//!
//! INVARIANT (per request): the decision depends on the request, the token and the configuration, never on what a
//! search finds. So a challenge does not tell what is there.

use std::collections::BTreeMap;

use super::config::{CheckedConfig, IdentityConfig, IdentityConfigError, StepUpConfig, is_quotable};
use super::details::{DetailsConfig, OneOf};
use super::token::VerifiedToken;

/// The requirements on a login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepUp {
    /// The authentication classes that will do. If there are none, any class will do.
    pub acr_values: Vec<String>,
    /// The greatest age that the login may have, in seconds; `None` if any age will do.
    pub max_age: Option<u64>,
}

/// The requirements on logins, for each collection and each classification.
#[derive(Clone, Debug, Default)]
pub struct StepUpRules {
    /// The requirements for reading a collection at all.
    pub(super) collections: BTreeMap<String, StepUp>,
    /// The requirements for reading chunks of this classification or a higher one.
    pub(super) classifications: BTreeMap<String, StepUp>,
    /// The classifications, from the lowest to the highest, and the metadata key that holds them.
    pub(super) details: DetailsConfig,
    /// The difference between clocks that is tolerated, in seconds.
    pub(super) leeway_seconds: u64,
}

/// The reason why a login is not good enough for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginError<'r> {
    /// The login does not meet these requirements.
    StepUp(&'r StepUp),
    /// The request names an unknown classification.
    UnknownClassification,
}

impl StepUp {
    /// Returns the requirements that an operator asks for.
    fn of(required: &StepUpConfig) -> Result<Self, IdentityConfigError> {
        // The challenge names `acr_values` and `max_age`, which is in whole seconds.
        let max_age = required.max_age.map(|age| age.as_secs());
        if max_age == Some(0) {
            return Err(IdentityConfigError::new(
                "`max_age` of `identity.step_up` must be at least `1s`; leave it out for a login of any age",
            ));
        }
        let asked = Self { acr_values: required.acr_values.clone(), max_age };
        if asked == Self::default() || asked.acr_values.iter().any(|value| !is_quotable(value)) {
            return Err(IdentityConfigError::new(
                "each of `identity.step_up` needs `acr_values` of plain characters or `max_age`",
            ));
        }
        Ok(asked)
    }
}

impl VerifiedToken {
    /// Returns whether the login behind the token meets a requirement. `now` is in seconds since 1970, and clocks may
    /// differ by `leeway` seconds. A login that lies further in the future does not count.
    pub(super) fn satisfies(&self, required: &StepUp, now: u64, leeway: u64) -> bool {
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
    /// Makes the rules of a section `[identity]`.
    ///
    /// # Errors
    /// If the section's settings cannot be used together.
    pub fn new(config: &IdentityConfig) -> Result<Self, IdentityConfigError> {
        let config = CheckedConfig::new(config)?;
        let mut rules = Self { leeway_seconds: config.leeway_seconds(), ..Self::default() };
        let IdentityConfig { details, step_up, .. } = config.settings;
        for required in &step_up {
            let asked = StepUp::of(required)?;
            let (named, by_name) = match (&required.collection, &required.classification) {
                (Some(collection), None) => (collection, &mut rules.collections),
                (None, Some(classification)) => (classification, &mut rules.classifications),
                (None, None) | (Some(_), Some(_)) => {
                    return Err(IdentityConfigError::new(
                        "each of `identity.step_up` names either a `collection` or a `classification`",
                    ));
                }
            };
            if by_name.insert(named.clone(), asked).is_some() {
                return Err(IdentityConfigError::new(format!("`identity.step_up` names `{named}` twice")));
            }
        }
        if let Some(unknown) = rules.classifications.keys().find(|name| details.rank(name).is_none()) {
            return Err(IdentityConfigError::new(format!(
                "`identity.step_up` names classification `{unknown}`, which is not among \
                 `identity.details.classifications`"
            )));
        }
        Ok(Self { details, ..rules })
    }

    /// Returns the condition on chunks that follows from the login behind a token and from the request's own
    /// `classification_max`. Returns `None` if every chunk is permitted. A request that names no maximum gets what the
    /// login is good enough for; a request that names a higher maximum is told what is missing. A chunk without
    /// classification is above every maximum.
    ///
    /// # Errors
    /// If the login is not good enough for the collection or for the maximum that is asked for.
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
        let details = &self.details;
        let Some(metadata_key) = &details.classification_key else {
            return classification_max.map_or(Ok(None), |_unknown| Err(LoginError::UnknownClassification));
        };
        // This is the first classification that the login is not good enough for. All higher ones require at least as
        // much.
        let missing = details.classifications.iter().zip(0..).find_map(|(name, rank)| {
            let required = self.classifications.get(name).filter(unmet)?;
            Some((rank, required))
        });
        let wanted = match classification_max {
            Some(name) => details.rank(name).ok_or(LoginError::UnknownClassification)? + 1,
            None => match missing {
                Some((readable, _)) => readable,
                None => return Ok(None),
            },
        };
        match missing {
            Some((readable, required)) if wanted > readable => Err(LoginError::StepUp(required)),
            Some(_) | None => Ok(Some(OneOf { key: metadata_key.clone(), values: details.lowest(wanted) })),
        }
    }
}
