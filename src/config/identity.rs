//! The section `[identity]`: whose tokens are taken, and what is read from them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may call. Without issuers the server starts only with `--insecure-identity`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// What a token must be meant for (`aud`): the name of this server, best its `https` URL.
    pub audience: String,
    /// How far apart the clocks of issuers and this server may be, in seconds.
    pub leeway_seconds: u64,
    /// The `OpenFGA` type of people.
    pub user_type: String,
    /// The type of clients that ask for themselves (`sub` is `client_id`); when empty they are nobody.
    pub machine_type: String,
    /// The type of those who act for others (`act`).
    pub actor_type: String,
    /// Most actors of one token.
    pub actors_max: usize,
    /// The relation on a guard that the bearer of a token must hold to write under it.
    pub write_relation: String,
    /// Whose tokens are taken.
    pub issuers: Vec<IssuerConfig>,
    /// What somebody who acts for another must hold.
    pub delegation: DelegationConfig,
    /// Claims that become relationships of the subject, for one request.
    pub claim_tuples: Vec<ClaimTupleConfig>,
    /// Claims that become values for conditions.
    pub claim_context: Vec<ClaimContextConfig>,
    /// How `authorization_details` are read.
    pub details: DetailsConfig,
    /// Collections and classifications that ask for a stronger or fresher login (RFC 9470).
    pub step_up: Vec<StepUpConfig>,
}

/// An issuer of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// Exactly as in its tokens (`iss`).
    pub issuer: String,
    /// A short name that keeps its users apart from those of other issuers; needed when there are several. Changing it
    /// changes every user.
    #[serde(default)]
    pub name: String,
    /// Whether its users' names (`sub`) may hold `*`, `#`, `:` or white space, as those of some providers do; such names are
    /// encoded. Otherwise a token with one is refused.
    #[serde(default)]
    pub encode_subjects: bool,
    /// How its tokens may be signed: `RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA`.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<String>,
    /// Where its key set is; found by discovery when empty.
    #[serde(default)]
    pub jwks_url: String,
}

/// What somebody who acts for another must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DelegationConfig {
    /// The relation; when empty, tokens with an actor are refused.
    pub relation: String,
    /// On what.
    pub on: DelegationObject,
}

/// What an actor must hold its relation on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DelegationObject {
    /// The user that it acts for.
    #[default]
    User,
    /// The guard of each chunk.
    Guard,
}

/// Each text of a claim makes the subject hold a relation on the object of that name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimTupleConfig {
    /// The claim: a text or a list of texts.
    pub claim: String,
    /// The relation.
    pub relation: String,
    /// The type of the object.
    pub object_type: String,
}

/// The value of a claim is the value of a condition's parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimContextConfig {
    /// The claim.
    pub claim: String,
    /// The parameter.
    pub parameter: String,
}

/// How `authorization_details` (RFC 9396) are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetailsConfig {
    /// The type of the objects that speak to this server.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The metadata key that `datatypes` are compared with; when empty, the type of the guard.
    pub datatype_key: String,
    /// The metadata key that holds a chunk's classification.
    pub classification_key: String,
    /// The classifications from the lowest to the highest; without them a token that names a ceiling is refused.
    pub classifications: Vec<String>,
}

/// A collection, or a classification and those above it, that asks for a stronger or fresher login.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepUpConfig {
    /// The collection; empty where a classification is named.
    #[serde(default)]
    pub collection: String,
    /// The classification, one of `identity.details.classifications`; empty where a collection is named.
    #[serde(default)]
    pub classification: String,
    /// The token's `acr` must be one of these; any when empty.
    #[serde(default)]
    pub acr_values: Vec<String>,
    /// The login (`auth_time`) may be this old, in seconds; of any age when 0.
    #[serde(default)]
    pub max_age_seconds: u64,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            audience: String::new(),
            leeway_seconds: 30,
            user_type: "user".to_owned(),
            machine_type: String::new(),
            actor_type: "agent".to_owned(),
            actors_max: 4,
            write_relation: "can_edit".to_owned(),
            issuers: Vec::new(),
            delegation: DelegationConfig::default(),
            claim_tuples: Vec::new(),
            claim_context: Vec::new(),
            details: DetailsConfig::default(),
            step_up: Vec::new(),
        }
    }
}

impl Default for DetailsConfig {
    fn default() -> Self {
        Self {
            type_name: "ragward_retrieval".to_owned(),
            datatype_key: String::new(),
            classification_key: String::new(),
            classifications: Vec::new(),
        }
    }
}

fn default_algorithms() -> Vec<String> {
    ["RS256", "PS256", "ES256", "EdDSA"].map(str::to_owned).to_vec()
}
