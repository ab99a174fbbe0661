//! From the claims of a token whose signature holds to what Ragward believes of its bearer (RFC 9068, section 4). Pure: the
//! time is handed in.
//!
//! INVARIANT (claims grant nothing by surprise): a claim that is not named here changes nothing; one that is named and
//! malformed refuses the token.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::details::{AuthorizationDetails, DetailsRules};
use super::key_set::Algorithm;
use super::principal::{Delegation, DelegationOn};
use super::subject::{encode, is_special};
use super::{Actor, Refusal, Scopes, TokenFacts, VerifiedToken};
use crate::relationship::snapshot::CONTEXTUAL_TUPLES_MAX;
use crate::relationship::{Contextual, Object, Relation, RelationshipTuple, TypeName, User};

/// Longest name in a claim (a client, a token's id, an actor), in bytes.
const NAME_BYTES_MAX: usize = 1_024;
/// Most audiences of one token.
const AUDIENCES_MAX: usize = 64;

/// What an operator decides about the tokens of all issuers.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What a token must be meant for (`aud`).
    pub audience: String,
    /// How far apart clocks may be, in seconds.
    pub leeway_seconds: u64,
    /// The type of people.
    pub user_type: TypeName,
    /// The type of clients that ask for themselves; without it they are nobody.
    pub machine_type: Option<TypeName>,
    /// The type of those who act for others.
    pub actor_type: TypeName,
    /// What an actor must hold; without it tokens with an actor are refused.
    pub delegation: Option<DelegationRule>,
    /// Most actors of one token, the outermost included.
    pub actors_max: usize,
    /// Claims that become contextual tuples.
    pub claim_tuples: Vec<ClaimTuple>,
    /// Claims that become values for conditions.
    pub claim_context: Vec<ClaimContext>,
    /// How `authorization_details` are read.
    pub details: DetailsRules,
}

/// What somebody who acts for another must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegationRule {
    /// The relation.
    pub relation: Relation,
    /// On what.
    pub on: DelegationOn,
}

/// A text, or each text of a list, under `claim` makes the subject hold `relation` on the object of that name.
#[derive(Clone, Debug)]
pub struct ClaimTuple {
    /// The claim.
    pub claim: String,
    /// The relation that the subject holds.
    pub relation: Relation,
    /// The type of the object.
    pub object_type: TypeName,
}

/// The value of a claim is the value of a condition's parameter.
#[derive(Clone, Debug)]
pub struct ClaimContext {
    /// The claim.
    pub claim: String,
    /// The parameter.
    pub parameter: String,
}

/// What an operator decides about the tokens of one issuer.
#[derive(Clone, Debug)]
pub struct IssuerRules {
    /// The issuer, compared byte by byte (`iss`).
    pub issuer: Arc<str>,
    /// Its short name, if it has one: it keeps the users of several issuers apart.
    pub namespace: Option<String>,
    /// Whether names that hold what is special in `OpenFGA` are taken, encoded.
    pub encode_subjects: bool,
    /// How its tokens may be signed.
    pub algorithms: Vec<Algorithm>,
}

impl IssuerRules {
    /// Whether a name may be one of its users.
    fn takes(&self, name: &str) -> bool {
        self.encode_subjects || !name.contains(is_special)
    }
}

/// Decides what is believed.
pub(super) fn check(
    claims: &Map<String, Value>,
    issuer: &IssuerRules,
    rules: &Rules,
    now: u64,
) -> Result<VerifiedToken, Refusal> {
    if claims.get("iss").and_then(Value::as_str) != Some(&*issuer.issuer) {
        return Err(Refusal::Issuer);
    }
    check_audience(claims.get("aud"), &rules.audience)?;
    let expires_at = check_times(claims, rules.leeway_seconds, now)?;
    // The key that such a token is bound to was not shown with it (RFC 7800).
    if claims.contains_key("cnf") {
        return Err(Refusal::Confirmation);
    }
    let (subject, client_id, token_id) = (name(claims, "sub")?, name(claims, "client_id")?, name(claims, "jti")?);
    if !issuer.takes(subject) {
        return Err(Refusal::Subject);
    }
    let namespace = issuer.namespace.as_deref();
    let is_machine = subject == client_id;
    let type_name = if is_machine { rules.machine_type.as_ref() } else { Some(&rules.user_type) };
    let encoded = |type_name: &TypeName| encode(type_name, namespace, subject).map_err(|_unfit| Refusal::Subject);
    let user = type_name.map(encoded).transpose()?;

    let actors = actors(claims.get("act"), issuer, rules)?;
    let delegation = match (actors.first(), &rules.delegation) {
        (None, _) => None,
        (Some(_), None) => return Err(Refusal::Actor),
        (Some(Actor { object, .. }), Some(DelegationRule { relation, on })) => {
            Some(Delegation { actor: object.clone(), relation: relation.clone(), on: *on })
        }
    };
    let details = match claims.get("authorization_details") {
        None => None,
        Some(claim) => AuthorizationDetails::parse(claim, &rules.details, &rules.audience)?,
    };
    let contextual = Contextual {
        tuples: user.as_ref().map(|user| tuples(claims, user, namespace, rules)).transpose()?.unwrap_or_default(),
        context: context(claims, rules),
    };
    let scopes = optional_text(claims, "scope")?.map(Scopes::parse).unwrap_or_default();
    let facts = TokenFacts {
        issuer: Arc::clone(&issuer.issuer),
        subject: subject.to_owned(),
        client_id: client_id.to_owned(),
        token_id: token_id.to_owned(),
        scopes,
        actors,
        expires_at,
    };
    Ok(VerifiedToken {
        facts: Arc::new(facts),
        user,
        user_type: rules.user_type.clone(),
        namespace: namespace.map(Arc::from),
        contextual: Arc::new(contextual),
        delegation: delegation.map(Arc::new),
        details: details.map(Arc::new),
        authenticated_at: optional_time(claims, "auth_time")?,
        authentication_class: optional_text(claims, "acr")?.map(str::to_owned),
    })
}

fn check_audience(claim: Option<&Value>, audience: &str) -> Result<(), Refusal> {
    let meant = match claim {
        Some(Value::String(text)) => text == audience,
        Some(Value::Array(list)) if list.len() <= AUDIENCES_MAX && list.iter().all(Value::is_string) => {
            list.iter().any(|item| item == audience)
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) | None => false,
    };
    if meant { Ok(()) } else { Err(Refusal::Audience) }
}

/// The time at which the token ends.
fn check_times(claims: &Map<String, Value>, leeway: u64, now: u64) -> Result<u64, Refusal> {
    let time = |name: &str| claims.get(name).map(|value| value.as_u64().ok_or(Refusal::Time)).transpose();
    let (Some(expires_at), Some(issued_at)) = (time("exp")?, time("iat")?) else { return Err(Refusal::Time) };
    let latest_start = now.saturating_add(leeway);
    let begun = issued_at <= latest_start && time("nbf")?.is_none_or(|not_before| not_before <= latest_start);
    if !begun || has_ended(expires_at, leeway, now) || issued_at > expires_at {
        Err(Refusal::Time)
    } else {
        Ok(expires_at)
    }
}

/// Whether a token that ends at `expires_at` is void.
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

/// The chain of actors, outermost first (RFC 8693, section 4.1).
fn actors(claim: Option<&Value>, issuer: &IssuerRules, rules: &Rules) -> Result<Vec<Actor>, Refusal> {
    let mut actors = Vec::new();
    let mut next = claim;
    while let Some(claim) = next {
        let act = claim.as_object().ok_or(Refusal::Actor)?;
        if actors.len() >= rules.actors_max {
            return Err(Refusal::Actor);
        }
        // A name means nothing without the issuer who gave it, and only this issuer vouches here.
        if act.get("iss").is_some_and(|named| named.as_str() != Some(&*issuer.issuer)) {
            return Err(Refusal::Actor);
        }
        let subject = name(act, "sub").map_err(|_missing| Refusal::Actor)?;
        if !issuer.takes(subject) {
            return Err(Refusal::Actor);
        }
        let object =
            encode(&rules.actor_type, issuer.namespace.as_deref(), subject).map_err(|_unfit| Refusal::Actor)?;
        actors.push(Actor { object });
        next = act.get("act");
    }
    Ok(actors)
}

/// The tuples that the configured claims make. One that is left out could be one that forbids, so nothing is left out.
fn tuples(
    claims: &Map<String, Value>,
    user: &Object,
    namespace: Option<&str>,
    rules: &Rules,
) -> Result<Vec<RelationshipTuple>, Refusal> {
    let mut tuples = Vec::new();
    for ClaimTuple { claim, relation, object_type } in &rules.claim_tuples {
        let mut seen = BTreeSet::new();
        for name in named(claims.get(claim))? {
            let object = encode(object_type, namespace, name).map_err(|_unfit| Refusal::Mapping)?;
            if seen.insert(object.clone()) {
                let (user, relation) = (User::Object(user.clone()), relation.clone());
                tuples.push(RelationshipTuple { user, relation, object, condition: None });
            }
        }
    }
    if tuples.len() > CONTEXTUAL_TUPLES_MAX { Err(Refusal::Mapping) } else { Ok(tuples) }
}

/// A text or a list of texts.
fn named(claim: Option<&Value>) -> Result<Vec<&str>, Refusal> {
    match claim {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(list)) => list.iter().map(|item| item.as_str().ok_or(Refusal::Mapping)).collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => Err(Refusal::Mapping),
    }
}

fn context(claims: &Map<String, Value>, rules: &Rules) -> Map<String, Value> {
    let value = |mapping: &ClaimContext| Some((mapping.parameter.clone(), claims.get(&mapping.claim)?.clone()));
    rules.claim_context.iter().filter_map(value).collect()
}
