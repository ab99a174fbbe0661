//! What the login behind a token must be like to read a collection, or chunks of a classification (RFC 9470).
//!
//! INVARIANT (per request): the decision looks at the request, the token and the configuration, never at what is found. So a
//! challenge tells nothing of what is there.

use std::collections::BTreeMap;

use super::VerifiedToken;
use super::details::{Classification, OneOf};

/// What is asked of a login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepUp {
    /// One of these authentication classes; any, when there are none.
    pub acr_values: Vec<String>,
    /// The login is at most this old, in seconds.
    pub max_age: Option<u64>,
}

/// What is asked of logins, by what they read.
#[derive(Clone, Debug, Default)]
pub struct StepUpRules {
    /// To read a collection at all.
    pub collections: BTreeMap<String, StepUp>,
    /// To read chunks of this classification or a higher one.
    pub classifications: BTreeMap<String, StepUp>,
    /// The order of classifications.
    pub classification: Option<Classification>,
    /// How far apart clocks may be, in seconds.
    pub leeway_seconds: u64,
}

/// Why a login does not serve for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginError<'r> {
    /// It would have to be like this.
    StepUp(&'r StepUp),
    /// The request names a classification that is none.
    UnknownClassification,
}

impl StepUpRules {
    /// The condition on chunks that the login behind a token, and the request itself (`classification_max`), leave; `None`
    /// when they leave every chunk. A request that names no ceiling gets what the login is good enough for; one that names
    /// a higher one is told what is missing. A chunk without classification is above every ceiling.
    ///
    /// # Errors
    /// When the login does not serve for the collection or for the ceiling.
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
        // The first classification that the login is not good enough for; what is above it is no easier.
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
