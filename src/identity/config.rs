//! The section `[identity]`: whose tokens are accepted, and what is read from them.

mod compile;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::compile::IdentityConfigError;
use super::rules::{ClaimContext, ClaimTuple, DelegationOn};
use crate::language::{Relation, TypeName};
use crate::settings::{HumanDuration, OptionalDuration};

/// The callers that are accepted. Without issuers, a server starts only with `--insecure-identity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// The audience that a token must name (`aud`): the name of this server, preferably its `https` URL.
    pub audience: Option<String>,
    /// How far apart the clocks of issuers and this server may be, at most `5m`. Whole seconds count.
    #[serde(with = "HumanDuration")]
    pub leeway: Duration,
    /// The `OpenFGA` type of people.
    #[schemars(with = "String")]
    pub user_type: TypeName,
    /// The `OpenFGA` type of machines: of the bearers of all tokens that are not a person's (`identity.issuers.people`). When
    /// unset, a machine holds no relation at all.
    #[schemars(with = "Option<String>")]
    pub machine_type: Option<TypeName>,
    /// The `OpenFGA` type of actors, which act for others (`act`).
    #[schemars(with = "String")]
    pub actor_type: TypeName,
    /// The most actors of one token.
    pub actors_max: usize,
    /// The relation on a guard that the bearer of a token must hold to write documents under that guard.
    #[schemars(with = "String")]
    pub write_relation: Relation,
    /// The issuers whose tokens are accepted.
    pub issuers: Vec<IssuerConfig>,
    /// The treatment, at the start, of stored names in the percent-encoding of an older version. No token gives such a
    /// name any more.
    pub old_names: OldNamesPolicy,
    /// The rule for actors, who act for a user.
    pub delegation: DelegationConfig,
    /// Claims that become relationships of the subject, for one request.
    pub claim_tuples: Vec<ClaimTuple>,
    /// Claims that become values for conditions.
    pub claim_context: Vec<ClaimContext>,
    /// How `authorization_details` are read.
    pub details: DetailsConfig,
    /// Collections and classifications that need a stronger or fresher login (RFC 9470).
    pub step_up: Vec<StepUpConfig>,
}

/// An issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The issuer, exactly as in its tokens (`iss`).
    pub issuer: String,
    /// A short name that keeps this issuer's names apart from those of other issuers. It is needed when there are several.
    /// The short name stands before each name (`user:corp/anne`), so changing it changes every user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Percent-encode `*`, `:`, `#`, `%`, white space and control characters in names (subjects, actors, clients, mapped
    /// claims). Otherwise a token with such a name is refused; only `%` is allowed, and stays as it is.
    #[serde(default)]
    pub encode_subjects: bool,
    /// The rule that tells people's tokens from machines'. `user:*` includes no machine.
    #[serde(default)]
    pub people: PeopleConfig,
    /// How its tokens may be signed: `RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA`.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<String>,
    /// The URL of its key set. When unset, discovery finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
}

/// The treatment of stored names in the percent-encoding of an older version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OldNamesPolicy {
    /// Look for them, and accept no token while there are any: a ban under such a name bans nobody.
    #[default]
    Refuse,
    /// Do not look: the names are meant as they are.
    Accept,
}

/// The marks of a person's token. The token needs every mark that is set here. If a token says that a client asks for
/// itself, it is a machine's even with all marks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PeopleConfig {
    /// A claim that only people's tokens have. An empty text asks for no claim; then `clients` alone tells.
    pub claim: String,
    /// The claim is one of these texts, or a list with one of them. When there are none, it is anything but null, false, 0 and
    /// an empty value.
    pub values: Vec<String>,
    /// Clients that only people use: the token's `client_id` is one of them. When there are none, any client will do.
    pub clients: Vec<String>,
    /// Subjects that are machines whatever else is in their tokens. `*` at the beginning or the end stands for anything.
    pub machines: Vec<String>,
}

/// The rule for actors, who act for a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DelegationConfig {
    /// The relation that the actor must hold. When unset, tokens with an actor are refused.
    #[schemars(with = "Option<String>")]
    pub relation: Option<Relation>,
    /// The object that the actor must hold it on.
    pub on: DelegationOn,
}

/// How `authorization_details` (RFC 9396) are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetailsConfig {
    /// The type of the objects that are meant for this server.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The metadata key that `datatypes` are compared with. When unset, they are compared with the type of the guard.
    pub datatype_key: Option<String>,
    /// The metadata key that holds a chunk's classification.
    pub classification_key: Option<String>,
    /// The classifications from the lowest to the highest. Without them, a token that names a ceiling is refused.
    pub classifications: Vec<String>,
}

/// A collection, or a classification and those above it, that needs a stronger or fresher login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StepUpConfig {
    /// The collection, unless a classification is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// The classification, one of `identity.details.classifications`, unless a collection is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    /// The token's `acr` must be one of these. When there are none, any will do.
    pub acr_values: Vec<String>,
    /// How old the login (`auth_time`) may be, at least `1s`. When unset, its age does not matter. Whole seconds count.
    #[serde(with = "OptionalDuration", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<OptionalDuration>")]
    pub max_age: Option<Duration>,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            audience: None,
            leeway: Duration::from_secs(30),
            user_type: TypeName::from_static("user"),
            machine_type: None,
            actor_type: TypeName::from_static("agent"),
            actors_max: 4,
            write_relation: Relation::from_static("can_edit"),
            issuers: Vec::new(),
            old_names: OldNamesPolicy::default(),
            delegation: DelegationConfig::default(),
            claim_tuples: Vec::new(),
            claim_context: Vec::new(),
            details: DetailsConfig::default(),
            step_up: Vec::new(),
        }
    }
}

impl Default for PeopleConfig {
    fn default() -> Self {
        Self { claim: "auth_time".to_owned(), values: Vec::new(), clients: Vec::new(), machines: Vec::new() }
    }
}

impl Default for DetailsConfig {
    fn default() -> Self {
        Self {
            type_name: "ragward_retrieval".to_owned(),
            datatype_key: None,
            classification_key: None,
            classifications: Vec::new(),
        }
    }
}

fn default_algorithms() -> Vec<String> {
    ["RS256", "PS256", "ES256", "EdDSA"].map(str::to_owned).to_vec()
}
