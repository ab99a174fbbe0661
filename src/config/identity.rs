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
    /// The type of machines: of all tokens that are not a person's (`identity.issuers.people`). When empty they are nobody.
    pub machine_type: String,
    /// The type of those who act for others (`act`).
    pub actor_type: String,
    /// Most actors of one token.
    pub actors_max: usize,
    /// The relation on a guard that the bearer of a token must hold to write under it.
    pub write_relation: String,
    /// Whose tokens are taken.
    pub issuers: Vec<IssuerConfig>,
    /// What to do at the start about stored names in the percent-encoding of an older version, which no token gives any more.
    pub old_names: OldNamesPolicy,
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
    /// A short name that keeps its names apart from those of other issuers; needed when there are several. It stands before
    /// each of them (`user:corp/anne`), so changing it changes every user.
    #[serde(default)]
    pub name: String,
    /// Percent-encode `*`, `:`, `#`, `%`, white space and control characters in names (subjects, actors, clients, mapped
    /// claims). Otherwise a token with such a name is refused, but for `%`, which then stays as it is.
    #[serde(default)]
    pub encode_subjects: bool,
    /// Which of its tokens are people's. All others are machines', and no machine is `user:*`.
    #[serde(default)]
    pub people: PeopleConfig,
    /// How its tokens may be signed: `RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA`.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<String>,
    /// Where its key set is; found by discovery when empty.
    #[serde(default)]
    pub jwks_url: String,
}

/// What to do about stored names in the percent-encoding of an older version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OldNamesPolicy {
    /// Look for them, and take no token while there are any: a ban under such a name bans nobody.
    #[default]
    Refuse,
    /// Do not look: the names are meant as they are.
    Accept,
}

/// What marks a person's token. It needs all that is set here; a token that says that a client asks for itself is a machine's
/// even so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PeopleConfig {
    /// A claim that people's tokens alone have. When empty, `clients` alone tells.
    pub claim: String,
    /// The claim is one of these texts, or a list with one of them; anything but null, false, 0 and nothing when there are none.
    pub values: Vec<String>,
    /// Clients that people alone use: the token's `client_id` is one of them. Any client when there are none.
    pub clients: Vec<String>,
    /// Subjects that are machines whatever else is in their tokens. `*` at the beginning or the end stands for anything.
    pub machines: Vec<String>,
}

/// What a token without a mapped claim means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AbsentClaim {
    /// What the subject holds is not known: the token is refused.
    Refuse,
    /// The subject holds nothing.
    None,
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
    /// What a token without the claim means. When unset: `refuse` where the model takes people out (`but not`) by this relation,
    /// `none` elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<AbsentClaim>,
}

/// The value of a claim is the value of a condition's parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimContextConfig {
    /// The claim.
    pub claim: String,
    /// The parameter.
    pub parameter: String,
    /// What a token without the claim means. When unset: `refuse` where the model takes people out (`but not`) by a condition with
    /// this parameter, `none` elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<AbsentClaim>,
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
            datatype_key: String::new(),
            classification_key: String::new(),
            classifications: Vec::new(),
        }
    }
}

fn default_algorithms() -> Vec<String> {
    ["RS256", "PS256", "ES256", "EdDSA"].map(str::to_owned).to_vec()
}
