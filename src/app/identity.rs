//! From the section `[identity]` to who is let in.

use std::collections::HashSet;
use std::sync::Arc;

use super::AppError;
use crate::config::{AbsentClaim, Config, DelegationObject, IdentityConfig, IssuerConfig};
use crate::identity::details::{Classification, DetailsRules};
use crate::identity::issuer::{HttpClient, Issuer};
use crate::identity::names::{NameRules, ShortName};
use crate::identity::old_names::OldNames;
use crate::identity::people::PeopleRule;
use crate::identity::rules::{Absent, ClaimContext, ClaimTuple};
use crate::identity::rules::{DelegationRule, IssuerRules, Rules};
use crate::identity::{Algorithm, DelegationOn, StepUp, StepUpRules, TokenVerifier};
use crate::language::{ParseError, Relation, TypeName};
use crate::server::{Authentication, TokenAuthentication};

/// Longest allowance for clocks that differ, in seconds.
const LEEWAY_SECONDS_MAX: u64 = 300;

/// Who is let in over the network.
///
/// # Errors
/// When nobody says who is (no issuer and no `insecure_identity`), or when both do.
pub(super) fn authentication(config: &Config) -> Result<Authentication, AppError> {
    let identity = &config.identity;
    match (identity.issuers.is_empty(), config.server.insecure_identity) {
        (true, true) => Ok(Authentication::Believed),
        (true, false) => Err(wrong(
            "nobody says who is asking: name an issuer of tokens under `[[identity.issuers]]` and `identity.audience`, or \
             start with `--insecure-identity` to believe the user that each request names, and let only trusted callers \
             reach the address",
        )),
        (false, true) => Err(wrong(
            "`--insecure-identity` believes everybody, and `identity.issuers` asks for tokens: choose one of them",
        )),
        (false, false) => Ok(Authentication::Tokens(Arc::new(tokens(identity)?))),
    }
}

fn tokens(identity: &IdentityConfig) -> Result<TokenAuthentication, AppError> {
    let http = HttpClient::new().map_err(|e| wrong(e.to_string()))?;
    let issuers = issuer_rules(&identity.issuers)?;
    let mut opened = Vec::new();
    for (rules, config) in issuers.into_iter().zip(&identity.issuers) {
        let issuer = Issuer::new(rules, unless_empty(&config.jwks_url), http.clone());
        opened.push(issuer.map_err(|e| wrong(format!("`identity.issuers`: {e}")))?);
    }
    let write_relation = Relation::parse(&identity.write_relation).map_err(of("identity.write_relation"))?;
    let rules = rules(identity)?;
    let step_up = step_up_rules(identity, rules.details.classification.clone())?;
    let verifier = TokenVerifier::new(rules, opened);
    TokenAuthentication::new(verifier, write_relation, step_up).map_err(wrong)
}

/// Builds the rule that tells names of older versions from those of today.
pub(super) fn old_names(config: &Config) -> Result<OldNames, AppError> {
    let identity = &config.identity;
    Ok(OldNames::new(&rules(identity)?, &issuer_rules(&identity.issuers)?))
}

fn step_up_rules(identity: &IdentityConfig, order: Option<Classification>) -> Result<StepUpRules, AppError> {
    let leeway_seconds = identity.leeway_seconds;
    let mut rules = StepUpRules { classification: order, leeway_seconds, ..StepUpRules::default() };
    for required in &identity.step_up {
        let max_age = Some(required.max_age_seconds).filter(|seconds| *seconds > 0);
        let asked = StepUp { acr_values: required.acr_values.clone(), max_age };
        if asked == StepUp::default() || asked.acr_values.iter().any(|value| !is_quotable(value)) {
            return Err(wrong(
                "each of `identity.step_up` needs `acr_values` of plain characters or `max_age_seconds`",
            ));
        }
        let (named, by_name) = match (required.collection.as_str(), required.classification.as_str()) {
            (collection, "") if !collection.is_empty() => (collection, &mut rules.collections),
            ("", classification) if !classification.is_empty() => (classification, &mut rules.classifications),
            (_, _) => {
                return Err(wrong("each of `identity.step_up` names either a `collection` or a `classification`"));
            }
        };
        if by_name.insert(named.to_owned(), asked).is_some() {
            return Err(wrong(format!("`identity.step_up` names `{named}` twice")));
        }
    }
    let known = rules.classification.as_ref().map(|classification| classification.order.as_slice()).unwrap_or_default();
    match rules.classifications.keys().find(|name| !known.contains(name)) {
        None => Ok(rules),
        Some(unknown) => Err(wrong(format!(
            "`identity.step_up` names classification `{unknown}`, which is not among `identity.details.classifications`"
        ))),
    }
}

fn rules(identity: &IdentityConfig) -> Result<Rules, AppError> {
    if identity.audience.is_empty() || !is_quotable(&identity.audience) {
        return Err(wrong(
            "`identity.audience` must be set, in the file that `--config` names: a token for somebody else must not work here",
        ));
    }
    if identity.leeway_seconds > LEEWAY_SECONDS_MAX {
        return Err(wrong(format!("`identity.leeway_seconds` must be at most {LEEWAY_SECONDS_MAX}")));
    }
    let type_name = |key: &'static str, name: &str| TypeName::parse(name).map_err(of(key));
    let user_type = type_name("identity.user_type", &identity.user_type)?;
    let machine_type = unless_empty(&identity.machine_type);
    let machine_type = machine_type.map(|name| type_name("identity.machine_type", &name)).transpose()?;
    if machine_type.as_ref() == Some(&user_type) {
        return Err(wrong("`identity.machine_type` must differ from `identity.user_type`: a client is no person"));
    }
    let actor_type = type_name("identity.actor_type", &identity.actor_type)?;
    if actor_type == user_type {
        return Err(wrong("`identity.actor_type` must differ from `identity.user_type`: an agent is no person"));
    }
    let delegation = match unless_empty(&identity.delegation.relation) {
        None => None,
        Some(relation) => Some(DelegationRule {
            relation: Relation::parse(&relation).map_err(of("identity.delegation.relation"))?,
            on: match identity.delegation.on {
                DelegationObject::User => DelegationOn::User,
                DelegationObject::Guard => DelegationOn::Guard,
            },
        }),
    };
    let mut claim_tuples = Vec::new();
    for mapping in &identity.claim_tuples {
        claim_tuples.push(ClaimTuple {
            claim: mapping.claim.clone(),
            relation: Relation::parse(&mapping.relation).map_err(of("identity.claim_tuples.relation"))?,
            object_type: type_name("identity.claim_tuples.object_type", &mapping.object_type)?,
            absent: mapping.absent.map(absent),
        });
    }
    let context = identity.claim_context.iter();
    Ok(Rules {
        audience: identity.audience.clone(),
        leeway_seconds: identity.leeway_seconds,
        user_type,
        machine_type,
        actor_type,
        delegation,
        actors_max: identity.actors_max,
        claim_tuples,
        claim_context: context
            .map(|m| ClaimContext {
                claim: m.claim.clone(),
                parameter: m.parameter.clone(),
                absent: m.absent.map(absent),
            })
            .collect(),
        details: details_rules(identity)?,
    })
}

fn details_rules(identity: &IdentityConfig) -> Result<DetailsRules, AppError> {
    let details = &identity.details;
    let classification = match (unless_empty(&details.classification_key), details.classifications.as_slice()) {
        (None, []) => None,
        (Some(metadata_key), order @ [_, ..]) => Some(Classification { metadata_key, order: order.to_vec() }),
        (_, _) => {
            return Err(wrong("`identity.details` needs both `classification_key` and `classifications`, or neither"));
        }
    };
    let datatype_key = unless_empty(&details.datatype_key);
    Ok(DetailsRules { type_name: details.type_name.clone(), datatype_key, classification })
}

fn issuer_rules(issuers: &[IssuerConfig]) -> Result<Vec<IssuerRules>, AppError> {
    let (mut names, mut urls) = (HashSet::new(), HashSet::new());
    let mut rules = Vec::new();
    for IssuerConfig { issuer, name, encode_subjects, people, algorithms, .. } in issuers {
        if !urls.insert(issuer) {
            return Err(wrong(format!("`identity.issuers` names `{issuer}` twice")));
        }
        let short_name = ShortName::parse(name);
        let needs_one = issuers.len() > 1 || !name.is_empty();
        if needs_one && (short_name.is_none() || !names.insert(name)) {
            return Err(wrong(format!(
                "issuer `{issuer}` needs a `name` of its own, of at most 64 letters, digits and `-_.`: it keeps the users of \
                 several issuers apart"
            )));
        }
        let mut allowed = Vec::new();
        for name in algorithms {
            let unknown =
                || format!("issuer `{issuer}`: `{name}` is not an algorithm with a public key that is known here");
            allowed.push(Algorithm::parse(name).ok_or_else(|| wrong(unknown()))?);
        }
        if allowed.is_empty() {
            return Err(wrong(format!("issuer `{issuer}` has no `algorithms`")));
        }
        let people = PeopleRule::new(&people.claim, &people.values, &people.clients, &people.machines);
        rules.push(IssuerRules {
            issuer: issuer.as_str().into(),
            people: people.map_err(|e| wrong(format!("issuer `{issuer}`: `people` {e}")))?,
            names: NameRules { short_name, encode: *encode_subjects },
            algorithms: allowed,
        });
    }
    Ok(rules)
}

fn absent(absent: AbsentClaim) -> Absent {
    match absent {
        AbsentClaim::Refuse => Absent::Refuse,
        AbsentClaim::None => Absent::None,
    }
}

fn unless_empty(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// Whether it can stand between quotes in a challenge.
fn is_quotable(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'))
}

fn of(key: &'static str) -> impl Fn(ParseError) -> AppError {
    move |error| wrong(format!("`{key}`: {error}"))
}

fn wrong(text: impl Into<String>) -> AppError {
    AppError::Identity(text.into())
}
