//! Checks that the settings of `[identity]` fit together. A single value is checked where it is read.

use std::collections::HashSet;

use super::{IdentityConfig, IdentityConfigError};

/// The longest allowance for clocks that differ, in seconds.
const LEEWAY_SECONDS_MAX: u64 = 300;

/// A section `[identity]` whose settings fit together and name an audience. All code that decides about tokens is made
/// from one of these.
#[derive(Clone, Debug)]
pub(in crate::identity) struct CheckedConfig {
    /// The audience that a token must name (`aud`).
    pub(in crate::identity) audience: String,
    /// An audience that a token must not name.
    pub(in crate::identity) barred_audience: Option<String>,
    pub(in crate::identity) settings: IdentityConfig,
}

impl CheckedConfig {
    /// Checks the settings.
    pub(in crate::identity) fn new(settings: &IdentityConfig) -> Result<Self, IdentityConfigError> {
        let audience = settings.audience.clone().filter(|audience| !audience.is_empty() && is_quotable(audience));
        let audience = audience.ok_or_else(|| {
            IdentityConfigError::new(
                "`identity.audience` must be set, in the file that `--config` names: a token for somebody else must not \
                 work here",
            )
        })?;
        let details = &settings.details;
        let rules = [
            (
                settings.leeway.as_secs() > LEEWAY_SECONDS_MAX,
                format!("`identity.leeway` must be at most {LEEWAY_SECONDS_MAX}s"),
            ),
            (
                settings.machine_type.as_ref() == Some(&settings.user_type),
                "`identity.machine_type` must differ from `identity.user_type`: a client is no person".to_owned(),
            ),
            (
                settings.actor_type == settings.user_type,
                "`identity.actor_type` must differ from `identity.user_type`: an agent is no person".to_owned(),
            ),
            (
                details.classification_key.is_none() != details.classifications.is_empty(),
                "`identity.details` needs both `classification_key` and `classifications`, or neither".to_owned(),
            ),
        ];
        if let Some((_, rule)) = rules.into_iter().find(|(is_broken, _)| *is_broken) {
            return Err(IdentityConfigError(rule));
        }
        check_issuers(settings)?;
        Ok(Self { audience, barred_audience: None, settings: settings.clone() })
    }

    /// Returns the difference between clocks that is tolerated, in seconds.
    pub(in crate::identity) fn leeway_seconds(&self) -> u64 {
        self.settings.leeway.as_secs()
    }
}

fn check_issuers(settings: &IdentityConfig) -> Result<(), IdentityConfigError> {
    let (mut names, mut urls) = (HashSet::new(), HashSet::new());
    for issuer in &settings.issuers {
        let url = &issuer.issuer;
        if !urls.insert(url) {
            return Err(IdentityConfigError(format!("`identity.issuers` names `{url}` twice")));
        }
        // A single issuer needs no name.
        if settings.issuers.len() > 1 && issuer.name.as_ref().is_none_or(|name| !names.insert(name)) {
            return Err(IdentityConfigError(format!(
                "issuer `{url}` needs a `name` of its own, of at most 64 letters, digits and `-_.`: it keeps the users \
                 of several issuers apart"
            )));
        }
        if issuer.algorithms.is_empty() {
            return Err(IdentityConfigError(format!("issuer `{url}` has no `algorithms`")));
        }
        issuer.people.check().map_err(|e| IdentityConfigError(format!("issuer `{url}`: `people` {e}")))?;
    }
    Ok(())
}

/// Returns whether a text can stand between quotes in a challenge.
pub(in crate::identity) fn is_quotable(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'))
}
