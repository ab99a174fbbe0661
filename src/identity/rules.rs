//! The operator's rules: which tokens count, and what their claims mean.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::details::DetailsRules;
use super::key_set::Algorithm;
use super::names::NameRules;
use super::people::PeopleRule;
use crate::language::{Relation, TypeName};

/// The operator's rules for the tokens of all issuers.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The audience that a token must name (`aud`).
    pub audience: String,
    /// The difference between clocks that is tolerated, in seconds.
    pub leeway_seconds: u64,
    /// The `OpenFGA` type of people.
    pub user_type: TypeName,
    /// The `OpenFGA` type of machines: clients that act for themselves. Without it, a machine is not a user.
    pub machine_type: Option<TypeName>,
    /// The `OpenFGA` type of those who act for others.
    pub actor_type: TypeName,
    /// The relation that an actor must hold. Without it, a token with an actor is refused.
    pub delegation: Option<DelegationRule>,
    /// The number of actors that a token may have, including the outermost.
    pub actors_max: usize,
    /// The claims that become contextual tuples.
    pub claim_tuples: Vec<ClaimTuple>,
    /// The claims that become values for conditions.
    pub claim_context: Vec<ClaimContext>,
    /// The rules by which `authorization_details` are read.
    pub details: DetailsRules,
}

/// The relation that an actor must hold to act for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegationRule {
    /// The name of the relation.
    pub relation: Relation,
    /// The object that the actor must hold it on.
    pub on: DelegationOn,
}

/// The object that an actor must hold its relation on.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DelegationOn {
    /// The user whom it acts for.
    #[default]
    User,
    /// The guard of each chunk.
    Guard,
}

/// The operator's rules for the tokens of one issuer.
#[derive(Clone, Debug)]
pub struct IssuerRules {
    /// The issuer (`iss`), which is compared byte by byte.
    pub issuer: Arc<str>,
    /// The rules by which the issuer's names become objects.
    pub names: NameRules,
    /// The rule that tells people's tokens from machines'.
    pub people: PeopleRule,
    /// The algorithms that the issuer signs with.
    pub algorithms: Vec<Algorithm>,
}

/// A mapping: the subject holds `relation` on an object for each text under `claim`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimTuple {
    /// The name of the claim, which holds a text or a list of texts.
    pub claim: String,
    /// The relation that the subject holds.
    #[schemars(with = "String")]
    pub relation: Relation,
    /// The type of the objects.
    #[schemars(with = "String")]
    pub object_type: TypeName,
    /// The meaning of a token without the claim. When unset, the model decides: `refuse` if it takes people out (`but
    /// not`) by this relation, `none` if not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<Absent>,
}

/// A mapping: the value of a claim becomes the value of a condition's parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimContext {
    /// The name of the claim.
    pub claim: String,
    /// The name of the parameter.
    pub parameter: String,
    /// The meaning of a token without the claim. When unset, the model decides: `refuse` if it takes people out (`but
    /// not`) by a condition with this parameter, `none` if not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<Absent>,
}

/// The meaning of a token without a mapped claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Absent {
    /// The subject may hold anything, so the token is refused.
    Refuse,
    /// The subject holds nothing.
    None,
}
