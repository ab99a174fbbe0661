//! Turns the claims of a token, whose signature was verified, into what Ragward believes of its bearer (RFC 9068,
//! section 4). This code is pure: its callers hand in the time.
//!
//! INVARIANT (claims grant nothing by surprise): a claim that this module does not name changes nothing. A malformed
//! claim that it names refuses the token.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::config::{CheckedConfig, IdentityConfig, IssuerConfig};
use super::confirmation::Confirmation;
use super::details::AuthorizationDetails;
use super::people::acts_for_itself;
use super::profile::{Rounding, Subject, TokenProfile, name};
use super::scope::Scopes;
use super::token::{Actor, Delegation, TokenFacts, VerifiedToken};
use super::{Refusal, mapping};
use crate::language::TypeName;

/// The number of audiences that a token may have.
const AUDIENCES_MAX: usize = 64;

/// Like [`check_by`], with the profile of the issuer's settings.
#[cfg(test)]
pub(super) fn check(
    claims: &Map<String, Value>,
    issuer: &IssuerConfig,
    config: &CheckedConfig,
    now: u64,
) -> Result<VerifiedToken, Refusal> {
    check_by(&issuer.token_profile(), claims, issuer, config, now)
}

/// Checks the claims of a token and returns what Ragward believes of its bearer. `profile` is that of the issuer.
pub(super) fn check_by(
    profile: &TokenProfile,
    claims: &Map<String, Value>,
    issuer: &IssuerConfig,
    config: &CheckedConfig,
    now: u64,
) -> Result<VerifiedToken, Refusal> {
    let CheckedConfig { audience, settings, .. } = config;
    if claims.get("iss").and_then(Value::as_str) != Some(issuer.issuer.as_str()) || !profile.has_tenant(claims) {
        return Err(Refusal::Issuer);
    }
    if !profile.is_access_token(claims) {
        return Err(Refusal::Type);
    }
    let scopes = profile.scopes(claims, audience)?;
    check_audience(claims, profile, issuer, config, scopes)?;
    let TokenTimes { issued_at, expires_at } = check_times(claims, profile, config.leeway_seconds(), now)?;
    // Such a token is bound to a key (RFC 7800). The gate still has to check that its bearer has the key.
    let confirmation = claims.get("cnf").map(Confirmation::of_claim).transpose()?;
    if TokenProfile::says_bound(claims) && confirmation.is_none() {
        return Err(Refusal::Confirmation);
    }
    let client_id = profile.client(claims)?;
    if !issuer.clients.is_empty() && !issuer.clients.iter().any(|listed| listed == client_id) {
        return Err(Refusal::Client);
    }
    let Subject { name: subject, is_client } = profile.subject(claims, client_id)?;
    let token_id = profile.token_id(claims)?;
    // A malformed name refuses the token, even if its bearer is not a user.
    let names = issuer.names();
    let user_of = |type_name: &TypeName| names.user(type_name, subject).map_err(|_unfit| Refusal::Subject);
    let is_person = !is_client && !profile.is_machine(claims) && profile.people.is_person(claims, subject, client_id);
    let user = match (is_person, &settings.machine_type) {
        (true, _) => Some(user_of(&settings.user_type)?),
        (false, Some(machine_type)) => Some(user_of(machine_type)?),
        (false, None) => user_of(&settings.user_type).map(|_nobody| None)?,
    };

    let mut actors = actors(claims.get("act"), issuer, settings)?;
    let is_itself = is_client || acts_for_itself(claims, subject, client_id);
    if actors.is_empty() && !is_itself && !issuer.is_direct(client_id) {
        // The provider may have exchanged the token without naming an actor. So its client is the actor.
        let object = names.user(&settings.actor_type, client_id).map_err(|_unfit| Refusal::Actor)?;
        actors.push(Actor { object });
    }
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
    let facts = TokenFacts {
        issuer: issuer.issuer.as_str().into(),
        subject: subject.to_owned(),
        standard_subject: claims.get("sub").and_then(Value::as_str).unwrap_or(subject).to_owned(),
        client_id: client_id.to_owned(),
        token_id,
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
        confirmation,
        authenticated_at: login_time(claims, profile)?,
        issued_at,
        authentication_class: login_class(claims, profile)?.map(str::to_owned),
        login_hint: profile.login_hint(claims, &issuer.issuer, subject)?,
    })
}

/// Refuses a token that is not meant for the audience of this verifier, or that is meant for the barred one as well.
fn check_audience(
    claims: &Map<String, Value>,
    profile: &TokenProfile,
    issuer: &IssuerConfig,
    config: &CheckedConfig,
    scopes: Scopes,
) -> Result<(), Refusal> {
    let (claim, barred) = (claims.get("aud"), config.barred_audience.as_deref());
    if profile.takes_no_audience(claim) {
        return check_without_audience(claims, profile, issuer, config, scopes);
    }
    // `tokens.audience` replaces `identity.audience`, not the audience of another door.
    let configured = config.audience.as_str();
    let audience = if config.is_of_settings() { profile.audience(configured) } else { configured };
    let meant = match claim {
        Some(Value::String(text)) => text == audience && barred != Some(text.as_str()),
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

/// Refuses a token without audience, unless its client is listed, it has a scope of Ragward, and it opens this door. Without
/// an audience, nothing else shows that it is meant for this server.
fn check_without_audience(
    claims: &Map<String, Value>,
    profile: &TokenProfile,
    issuer: &IssuerConfig,
    config: &CheckedConfig,
    scopes: Scopes,
) -> Result<(), Refusal> {
    let is_of_this_door = if profile.has_audience_in_scopes() {
        // Such a token is meant for each server that its scopes name.
        match &config.barred_audience {
            Some(barred) => profile.scopes(claims, barred)?.is_empty(),
            None => true,
        }
    } else {
        config.is_of_settings()
    };
    let is_bounded = !issuer.clients.is_empty() && !scopes.is_empty();
    if is_of_this_door && is_bounded { Ok(()) } else { Err(Refusal::Audience) }
}

/// Checks the token's times.
fn check_times(
    claims: &Map<String, Value>,
    profile: &TokenProfile,
    leeway: u64,
    now: u64,
) -> Result<TokenTimes, Refusal> {
    let time = |value: &Value, rounding: Rounding| profile.seconds(value, rounding).ok_or(Refusal::Time);
    let expires_at = time(claims.get("exp").ok_or(Refusal::Time)?, Rounding::Down)?;
    let issued_at = time(claims.get("iat").ok_or(Refusal::Time)?, Rounding::Up)?;
    let not_before = profile.optional(claims, "nbf").map(|value| time(value, Rounding::Up)).transpose()?;
    let latest_start = now.saturating_add(leeway);
    let begun = issued_at <= latest_start && not_before.is_none_or(|not_before| not_before <= latest_start);
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

/// Reads the time of the login. An older login is the weaker one, so a fraction is left out.
fn login_time(claims: &Map<String, Value>, profile: &TokenProfile) -> Result<Option<u64>, Refusal> {
    let time = |value: &Value| profile.seconds(value, Rounding::Down).ok_or(Refusal::Claim);
    profile.optional(claims, "auth_time").map(time).transpose()
}

/// Reads the way in which the user logged in.
fn login_class<'c>(claims: &'c Map<String, Value>, profile: &TokenProfile) -> Result<Option<&'c str>, Refusal> {
    profile.optional(claims, "acr").map(|value| value.as_str().ok_or(Refusal::Claim)).transpose()
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
