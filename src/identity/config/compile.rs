//! Checks the section `[identity]` and makes the rules of it that decide about tokens.

use std::collections::HashSet;

use super::{DetailsConfig, IdentityConfig, IssuerConfig, StepUpConfig};
use crate::identity::details::{Classification, DetailsRules};
#[cfg(feature = "server")]
use crate::identity::issuer::{HttpClient, Issuer};
use crate::identity::names::{NameRules, ShortName};
use crate::identity::old_names::OldNames;
use crate::identity::people::PeopleRule;
use crate::identity::rules::{DelegationRule, IssuerRules, Rules};
#[cfg(feature = "server")]
use crate::identity::verifier::TokenVerifier;
use crate::identity::{Algorithm, StepUp, StepUpRules};

/// The longest allowance for clocks that differ, in seconds.
const LEEWAY_SECONDS_MAX: u64 = 300;

/// Settings of `[identity]` that cannot be used. The text names them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IdentityConfigError(String);

impl IdentityConfig {
    /// Makes a verifier of the configured issuers' tokens. No issuer is contacted yet.
    ///
    /// # Errors
    /// When settings cannot be used.
    #[cfg(feature = "server")]
    pub fn verifier(&self) -> Result<TokenVerifier, IdentityConfigError> {
        let http = HttpClient::new().map_err(|e| wrong(e.to_string()))?;
        let mut issuers = Vec::new();
        for (rules, config) in self.issuer_rules()?.into_iter().zip(&self.issuers) {
            let issuer = Issuer::new(rules, config.jwks_url.clone(), http.clone());
            issuers.push(issuer.map_err(|e| wrong(format!("`identity.issuers`: {e}")))?);
        }
        Ok(TokenVerifier::new(self.rules()?, issuers))
    }

    /// Makes the rule that tells names of older versions from names of today.
    ///
    /// # Errors
    /// When settings cannot be used.
    pub fn old_names(&self) -> Result<OldNames, IdentityConfigError> {
        Ok(OldNames::new(&self.rules()?, &self.issuer_rules()?))
    }

    /// Makes the rules about stronger and fresher logins.
    ///
    /// # Errors
    /// When settings cannot be used.
    pub fn step_up_rules(&self) -> Result<StepUpRules, IdentityConfigError> {
        let classification = self.details.rules()?.classification;
        let leeway_seconds = self.leeway.as_secs();
        let mut rules = StepUpRules { classification, leeway_seconds, ..StepUpRules::default() };
        for required in &self.step_up {
            let asked = required.asked()?;
            let (named, by_name) = match (&required.collection, &required.classification) {
                (Some(collection), None) => (collection, &mut rules.collections),
                (None, Some(classification)) => (classification, &mut rules.classifications),
                (None, None) | (Some(_), Some(_)) => {
                    return Err(wrong("each of `identity.step_up` names either a `collection` or a `classification`"));
                }
            };
            if by_name.insert(named.clone(), asked).is_some() {
                return Err(wrong(format!("`identity.step_up` names `{named}` twice")));
            }
        }
        let known = rules.classification.as_ref().map(|known| known.order.as_slice()).unwrap_or_default();
        match rules.classifications.keys().find(|name| !known.contains(name)) {
            None => Ok(rules),
            Some(unknown) => Err(wrong(format!(
                "`identity.step_up` names classification `{unknown}`, which is not among \
                 `identity.details.classifications`"
            ))),
        }
    }

    fn rules(&self) -> Result<Rules, IdentityConfigError> {
        let audience = self.audience.clone().filter(|audience| !audience.is_empty() && is_quotable(audience));
        let audience = audience.ok_or_else(|| {
            wrong(
                "`identity.audience` must be set, in the file that `--config` names: a token for somebody else must not \
                 work here",
            )
        })?;
        let leeway_seconds = self.leeway.as_secs();
        if leeway_seconds > LEEWAY_SECONDS_MAX {
            return Err(wrong(format!("`identity.leeway` must be at most {LEEWAY_SECONDS_MAX}s")));
        }
        if self.machine_type.as_ref() == Some(&self.user_type) {
            return Err(wrong("`identity.machine_type` must differ from `identity.user_type`: a client is no person"));
        }
        if self.actor_type == self.user_type {
            return Err(wrong("`identity.actor_type` must differ from `identity.user_type`: an agent is no person"));
        }
        let on = self.delegation.on;
        Ok(Rules {
            audience,
            leeway_seconds,
            user_type: self.user_type.clone(),
            machine_type: self.machine_type.clone(),
            actor_type: self.actor_type.clone(),
            delegation: self.delegation.relation.clone().map(|relation| DelegationRule { relation, on }),
            actors_max: self.actors_max,
            claim_tuples: self.claim_tuples.clone(),
            claim_context: self.claim_context.clone(),
            details: self.details.rules()?,
        })
    }

    fn issuer_rules(&self) -> Result<Vec<IssuerRules>, IdentityConfigError> {
        let (mut names, mut urls) = (HashSet::new(), HashSet::new());
        let mut rules = Vec::new();
        for issuer in &self.issuers {
            let url = &issuer.issuer;
            if !urls.insert(url) {
                return Err(wrong(format!("`identity.issuers` names `{url}` twice")));
            }
            let short_name = issuer.name.as_deref().and_then(ShortName::parse);
            let needs_one = self.issuers.len() > 1 || issuer.name.is_some();
            if needs_one && (short_name.is_none() || !names.insert(&issuer.name)) {
                return Err(wrong(format!(
                    "issuer `{url}` needs a `name` of its own, of at most 64 letters, digits and `-_.`: it keeps the users \
                     of several issuers apart"
                )));
            }
            rules.push(issuer.rules(short_name)?);
        }
        Ok(rules)
    }
}

impl IssuerConfig {
    fn rules(&self, short_name: Option<ShortName>) -> Result<IssuerRules, IdentityConfigError> {
        let issuer = &self.issuer;
        let mut algorithms = Vec::new();
        for name in &self.algorithms {
            algorithms.push(Algorithm::parse(name).ok_or_else(|| {
                wrong(format!("issuer `{issuer}`: `{name}` is not an algorithm with a public key that is known here"))
            })?);
        }
        if algorithms.is_empty() {
            return Err(wrong(format!("issuer `{issuer}` has no `algorithms`")));
        }
        let people = &self.people;
        let people = PeopleRule::new(&people.claim, &people.values, &people.clients, &people.machines);
        Ok(IssuerRules {
            issuer: issuer.as_str().into(),
            people: people.map_err(|e| wrong(format!("issuer `{issuer}`: `people` {e}")))?,
            names: NameRules { short_name, encode: self.encode_subjects },
            algorithms,
        })
    }
}

impl DetailsConfig {
    fn rules(&self) -> Result<DetailsRules, IdentityConfigError> {
        let classification = match (self.classification_key.clone(), self.classifications.as_slice()) {
            (None, []) => None,
            (Some(metadata_key), order @ [_, ..]) => Some(Classification { metadata_key, order: order.to_vec() }),
            (_, _) => {
                return Err(wrong(
                    "`identity.details` needs both `classification_key` and `classifications`, or neither",
                ));
            }
        };
        let (type_name, datatype_key) = (self.type_name.clone(), self.datatype_key.clone());
        Ok(DetailsRules { type_name, datatype_key, classification })
    }
}

impl StepUpConfig {
    fn asked(&self) -> Result<StepUp, IdentityConfigError> {
        // The challenge names both, `max_age` in whole seconds.
        let max_age = self.max_age.map(|age| age.as_secs());
        if max_age == Some(0) {
            return Err(wrong(
                "`max_age` of `identity.step_up` must be at least `1s`; leave it out for a login of any age",
            ));
        }
        let asked = StepUp { acr_values: self.acr_values.clone(), max_age };
        if asked == StepUp::default() || asked.acr_values.iter().any(|value| !is_quotable(value)) {
            return Err(wrong("each of `identity.step_up` needs `acr_values` of plain characters or `max_age`"));
        }
        Ok(asked)
    }
}

/// Returns whether a text can stand between quotes in a challenge.
fn is_quotable(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'))
}

fn wrong(text: impl Into<String>) -> IdentityConfigError {
    IdentityConfigError(text.into())
}
