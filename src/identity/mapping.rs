//! Maps claims to relationships of the subject (`claim_tuples`) or to values of conditions (`claim_context`), for one
//! request.
//!
//! INVARIANT (absent is not none): if the model takes people out by a relationship or a value, a token that lacks the
//! mapped claim does not mean that its subject *holds nothing*.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Refusal;
use super::config::{Absent, ClaimContext, ClaimTuple, IdentityConfig};
use super::names::NameRules;
use crate::engine::Contextual;
use crate::engine::snapshot::CONTEXTUAL_TUPLES_MAX;
use crate::language::subtracted::Subtracted;
use crate::language::{Object, Relation, RelationshipTuple, TypeName, User};

/// Claims that narrow what a bearer gets. A claim that stood elsewhere than in the token would narrow nothing.
const NARROWING: [&str; 9] =
    ["act", "cnf", "authorization_details", "scope", "acr", "auth_time", "sub", "client_id", "aud"];
/// The claim by which Entra says that a list of groups is too long for the token. It does not say where the list is.
const HAS_GROUPS: &str = "hasgroups";
/// The claim that [`HAS_GROUPS`] refers to.
const GROUPS: &str = "groups";

/// A fact that a token leaves out about its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untold {
    /// The claim that would state the fact.
    pub claim: String,
    writes: Writes,
    /// Whether the fact is needed under every model.
    always: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Writes {
    Relation { user_type: String, relation: Relation, object_type: TypeName },
    Parameter(String),
}

impl Untold {
    /// Returns whether a model might let somebody in only because this fact is missing.
    #[must_use]
    pub fn may_let_in(&self, subtracted: &Subtracted) -> bool {
        self.always
            || match &self.writes {
                Writes::Relation { user_type, relation, object_type } => {
                    subtracted.has_relation(user_type, relation.as_str(), object_type.as_str())
                }
                Writes::Parameter(parameter) => subtracted.has_parameter(parameter),
            }
    }
}

impl ClaimTuple {
    /// Returns the fact that a token without the claim leaves out about a user of this type. Returns `None` if the
    /// settings say that such a user holds nothing.
    fn untold(&self, user_type: &str) -> Option<Untold> {
        let (relation, object_type) = (self.relation.clone(), self.object_type.clone());
        let writes = Writes::Relation { user_type: user_type.to_owned(), relation, object_type };
        untold(&self.claim, writes, self.absent)
    }
}

impl ClaimContext {
    fn untold(&self) -> Option<Untold> {
        untold(&self.claim, Writes::Parameter(self.parameter.clone()), self.absent)
    }
}

fn untold(claim: &str, writes: Writes, absent: Option<Absent>) -> Option<Untold> {
    let always = match absent {
        Some(Absent::None) => return None,
        Some(Absent::Refuse) => true,
        None => false,
    };
    Some(Untold { claim: claim.to_owned(), writes, always })
}

/// Reads the facts that a token states about its subject, and lists those that it leaves out. A subject that is not a
/// user holds nothing.
pub(super) fn read(
    claims: &Map<String, Value>,
    user: Option<&Object>,
    names: &NameRules,
    config: &IdentityConfig,
) -> Result<(Contextual, Vec<Untold>), Refusal> {
    refuse_elsewhere(claims, config)?;
    let (mut contextual, mut untold) = (Contextual::default(), Vec::new());
    for mapping in &config.claim_tuples {
        let Some(user) = user else { break };
        let made = tuples(claims.get(&mapping.claim), user, names, mapping)?;
        if made.is_empty() {
            untold.extend(mapping.untold(user.type_name()));
        }
        contextual.tuples.extend(made);
    }
    if contextual.tuples.len() > CONTEXTUAL_TUPLES_MAX {
        return Err(Refusal::Mapping);
    }
    for mapping in &config.claim_context {
        match claims.get(&mapping.claim) {
            None => untold.extend(mapping.untold()),
            Some(Value::Null) => return Err(Refusal::Mapping),
            Some(value) => {
                contextual.context.insert(mapping.parameter.clone(), value.clone());
            }
        }
    }
    if untold.iter().any(|untold| untold.always) { Err(Refusal::Absent) } else { Ok((contextual, untold)) }
}

/// Returns the facts that no token states about a user whom its bearer names, since the claims are about the bearer.
pub(super) fn untold_of_others(config: &IdentityConfig) -> Vec<Untold> {
    config.claim_tuples.iter().filter_map(|mapping| mapping.untold(config.user_type.as_str())).collect()
}

/// Refuses a token that says that a mapped claim stands elsewhere: in distributed or aggregated claims (`OpenID`
/// Connect Core, section 5.6.2), or as Entra does for a user with too many groups.
fn refuse_elsewhere(claims: &Map<String, Value>, config: &IdentityConfig) -> Result<(), Refusal> {
    let tuples = config.claim_tuples.iter().map(|mapping| mapping.claim.as_str());
    let mapped: BTreeSet<&str> =
        tuples.chain(config.claim_context.iter().map(|mapping| mapping.claim.as_str())).collect();
    let counts = |claim: &str| mapped.contains(claim) || NARROWING.contains(&claim);
    let is_elsewhere = match (claims.get("_claim_names"), claims.contains_key("_claim_sources")) {
        (None, false) => false,
        (Some(Value::Object(names)), _) => names.keys().any(|claim| counts(claim)),
        // It is unclear which claims are meant.
        (None | Some(_), _) => true,
    };
    let has_groups = claims.get(HAS_GROUPS).is_some_and(|value| *value != Value::Bool(false));
    // In Entra's older form, `groups:src1` has the address of the list.
    let has_source = |claim: &&str| claims.keys().any(|name| name.strip_prefix(*claim).is_some_and(is_source));
    if is_elsewhere || (has_groups && mapped.contains(GROUPS)) || mapped.iter().any(has_source) {
        Err(Refusal::Elsewhere)
    } else {
        Ok(())
    }
}

fn is_source(rest: &str) -> bool {
    rest.starts_with(":src")
}

/// Makes the tuples of a claim. A tuple that was left out could be one that forbids, so a claim that cannot be mapped
/// whole refuses the token.
fn tuples(
    claim: Option<&Value>,
    user: &Object,
    names: &NameRules,
    mapping: &ClaimTuple,
) -> Result<Vec<RelationshipTuple>, Refusal> {
    let (mut tuples, mut seen) = (Vec::new(), BTreeSet::new());
    for name in listed(claim)? {
        let object = names.object(&mapping.object_type, name).map_err(|_unfit| Refusal::Mapping)?;
        if seen.insert(object.clone()) {
            let (user, relation) = (User::Object(user.clone()), mapping.relation.clone());
            tuples.push(RelationshipTuple { user, relation, object, condition: None });
        }
    }
    Ok(tuples)
}

/// Reads a text or a list of texts.
fn listed(claim: Option<&Value>) -> Result<Vec<&str>, Refusal> {
    match claim {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(list)) => list.iter().map(|item| item.as_str().ok_or(Refusal::Mapping)).collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => Err(Refusal::Mapping),
    }
}
