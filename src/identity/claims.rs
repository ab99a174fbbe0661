//! Turns the claims of a token, whose signature was verified, into what Ragward believes of its bearer (RFC 9068,
//! section 4). This code is pure: its callers hand in the time.
//!
//! INVARIANT (claims grant nothing by surprise): a claim that this module does not name changes nothing. A malformed
//! claim that it names refuses the token.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::config::{CheckedConfig, IdentityConfig, IssuerConfig};
use super::confirmation::CertificateThumbprint;
use super::details::AuthorizationDetails;
use super::scope::Scopes;
use super::token::{Actor, Delegation, TokenFacts, VerifiedToken};
use super::{Refusal, mapping};
use crate::language::TypeName;

/// The longest name in a claim (a client, a token's id, an actor), in bytes.
const NAME_BYTES_MAX: usize = 1_024;
/// The number of audiences that a token may have.
const AUDIENCES_MAX: usize = 64;

/// Checks the claims of a token and returns what Ragward believes of its bearer.
pub(super) fn check(
    claims: &Map<String, Value>,
    issuer: &IssuerConfig,
    config: &CheckedConfig,
    now: u64,
) -> Result<VerifiedToken, Refusal> {
    let CheckedConfig { audience, barred_audience, settings } = config;
    if claims.get("iss").and_then(Value::as_str) != Some(issuer.issuer.as_str()) {
        return Err(Refusal::Issuer);
    }
    check_audience(claims.get("aud"), audience, barred_audience.as_deref())?;
    let TokenTimes { issued_at, expires_at } = check_times(claims, config.leeway_seconds(), now)?;
    // Such a token is bound to a key, and its bearer has not proved that it has that key (RFC 7800).
    let certificate = claims.get("cnf").map(CertificateThumbprint::of_claim).transpose()?;
    let (subject, client_id, token_id) = (name(claims, "sub")?, name(claims, "client_id")?, name(claims, "jti")?);
    // A malformed name refuses the token, even if its bearer is not a user.
    let names = issuer.names();
    let user_of = |type_name: &TypeName| names.user(type_name, subject).map_err(|_unfit| Refusal::Subject);
    let user = match (issuer.people.is_person(claims, subject, client_id), &settings.machine_type) {
        (true, _) => Some(user_of(&settings.user_type)?),
        (false, Some(machine_type)) => Some(user_of(machine_type)?),
        (false, None) => user_of(&settings.user_type).map(|_nobody| None)?,
    };

    let actors = actors(claims.get("act"), issuer, settings)?;
    let delegation = match (actors.first(), &settings.delegation.relation) {
        (None, _) => None,
        (Some(_), None) => return Err(Refusal::Actor),
        (Some(Actor { object }), Some(relation)) => {
            Some(Delegation { actor: object.clone(), relation: relation.clone(), on: settings.delegation.on })
        }
    };
    let details = match claims.get("authorization_details") {
        None => None,
        Some(claim) => AuthorizationDetails::parse(claim, &settings.details, audience)?,
    };
    let (contextual, untold) = mapping::read(claims, user.as_ref(), &names, settings)?;
    let scopes = optional_text(claims, "scope")?.map(Scopes::parse).unwrap_or_default();
    let facts = TokenFacts {
        issuer: issuer.issuer.as_str().into(),
        subject: subject.to_owned(),
        client_id: client_id.to_owned(),
        token_id: token_id.to_owned(),
        scopes,
        actors,
        expires_at,
    };
    Ok(VerifiedToken {
        facts: Arc::new(facts),
        audience: audience.as_str().into(),
        user,
        user_type: settings.user_type.clone(),
        names,
        contextual: Arc::new(contextual),
        untold,
        untold_of_others: mapping::untold_of_others(settings),
        delegation: delegation.map(Arc::new),
        details: details.map(Arc::new),
        certificate,
        authenticated_at: optional_time(claims, "auth_time")?,
        issued_at,
        authentication_class: optional_text(claims, "acr")?.map(str::to_owned),
    })
}

/// Refuses a token that is not meant for `audience`, or that is meant for `barred` as well.
fn check_audience(claim: Option<&Value>, audience: &str, barred: Option<&str>) -> Result<(), Refusal> {
    let meant = match claim {
        Some(Value::String(text)) => text == audience,
        Some(Value::Array(list)) if list.len() <= AUDIENCES_MAX && list.iter().all(Value::is_string) => {
            let names = |audience: &str| list.iter().any(|item| item == audience);
            names(audience) && !barred.is_some_and(names)
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) | None => false,
    };
    if meant { Ok(()) } else { Err(Refusal::Audience) }
}

/// The times of a token, in seconds since 1970.
struct TokenTimes {
    issued_at: u64,
    expires_at: u64,
}

/// Checks the token's times.
fn check_times(claims: &Map<String, Value>, leeway: u64, now: u64) -> Result<TokenTimes, Refusal> {
    let time = |name: &str| claims.get(name).map(|value| value.as_u64().ok_or(Refusal::Time)).transpose();
    let (Some(expires_at), Some(issued_at)) = (time("exp")?, time("iat")?) else { return Err(Refusal::Time) };
    let latest_start = now.saturating_add(leeway);
    let begun = issued_at <= latest_start && time("nbf")?.is_none_or(|not_before| not_before <= latest_start);
    if !begun || has_ended(expires_at, leeway, now) || issued_at > expires_at {
        Err(Refusal::Time)
    } else {
        Ok(TokenTimes { issued_at, expires_at })
    }
}

/// Returns whether a token that ends at `expires_at` has expired.
pub(super) fn has_ended(expires_at: u64, leeway: u64, now: u64) -> bool {
    now >= expires_at.saturating_add(leeway)
}

fn name<'c>(claims: &'c Map<String, Value>, claim: &str) -> Result<&'c str, Refusal> {
    let text = claims.get(claim).and_then(Value::as_str);
    text.filter(|text| !text.is_empty() && text.len() <= NAME_BYTES_MAX).ok_or(Refusal::Claim)
}

fn optional_text<'c>(claims: &'c Map<String, Value>, claim: &str) -> Result<Option<&'c str>, Refusal> {
    claims.get(claim).map(|value| value.as_str().ok_or(Refusal::Claim)).transpose()
}

fn optional_time(claims: &Map<String, Value>, claim: &str) -> Result<Option<u64>, Refusal> {
    claims.get(claim).map(|value| value.as_u64().ok_or(Refusal::Claim)).transpose()
}

/// Reads the chain of actors, outermost first (RFC 8693, section 4.1).
fn actors(claim: Option<&Value>, issuer: &IssuerConfig, settings: &IdentityConfig) -> Result<Vec<Actor>, Refusal> {
    let (names, mut actors) = (issuer.names(), Vec::new());
    let mut next = claim;
    while let Some(claim) = next {
        let act = claim.as_object().ok_or(Refusal::Actor)?;
        if actors.len() >= settings.actors_max {
            return Err(Refusal::Actor);
        }
        // A name is only meaningful together with its issuer, and this issuer vouches for its own names alone.
        if act.get("iss").is_some_and(|named| named.as_str() != Some(issuer.issuer.as_str())) {
            return Err(Refusal::Actor);
        }
        let subject = name(act, "sub").map_err(|_missing| Refusal::Actor)?;
        let object = names.user(&settings.actor_type, subject).map_err(|_unfit| Refusal::Actor)?;
        actors.push(Actor { object });
        next = act.get("act");
    }
    Ok(actors)
}
