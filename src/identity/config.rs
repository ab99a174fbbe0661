//! The section `[identity]`: whose tokens are accepted, and what is read from them.

mod backchannel;
mod checked;

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::backchannel::{BackchannelConfig, BindingMessage, Delivery, IssuerDetails};
pub(super) use self::checked::{CheckedConfig, is_quotable};
pub use super::details::DetailsConfig;
use super::key_set::Algorithm;
pub use super::names::ShortName;
use super::names::{NameRules, SpecialNames};
pub use super::people::{PeopleConfig, TextPattern};
pub use super::profile::{
    ClaimMark, Lenience, LoginHintForm, MachineSubject, ProviderProfile, SubjectClaim, TokensConfig,
};
use super::profile::{ProfileSettings, TokenProfile, tenant_of};
use crate::language::{Relation, TypeName};
use crate::settings::{HumanDuration, OptionalDuration, SecretFile};

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
    /// The `OpenFGA` type of machines. A token is a machine's unless it is a person's (`identity.issuers.people`). When
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
    /// The treatment of stored names in the percent-encoding of an older version, which no token gives any more. A
    /// server looks for them when it starts.
    pub old_names: OldNamesPolicy,
    /// The proofs that come with tokens which are bound to a key (DPoP, RFC 9449). Such tokens are taken where the URL of a request
    /// is known: with `server.public_url`, and at the door for MCP.
    pub dpop: DpopConfig,
    /// The rule for actors, who act for a user.
    pub delegation: DelegationConfig,
    /// Claims that become relationships of the subject, for one request.
    pub claim_tuples: Vec<ClaimTuple>,
    /// Claims that become values for conditions.
    pub claim_context: Vec<ClaimContext>,
    /// Parameters of conditions that a request may set itself.
    pub request_context: Vec<RequestContextKey>,
    /// How `authorization_details` are read.
    pub details: DetailsConfig,
    /// Collections and classifications that need a stronger or fresher login (RFC 9470).
    pub step_up: Vec<StepUpConfig>,
    /// Collections and classifications that a person has to approve, request by request.
    pub approval: Vec<ApprovalConfig>,
}

/// An issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The issuer, exactly as in its tokens (`iss`).
    pub issuer: String,
    /// The form of its tokens: that of a provider, or of RFC 9068.
    #[serde(default)]
    pub profile: ProviderProfile,
    /// The rows of the profile that this issuer replaces.
    #[serde(default)]
    pub tokens: TokensConfig,
    /// The clients whose tokens are accepted, exactly as the tokens name them. When there are none, those of every client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<String>,
    /// The front ends that people use themselves. In a token of every other client, the client is the actor, unless the token
    /// names one or the client acts for itself. When unset, only `act` names an actor. Keycloak, Entra and Okta need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_clients: Option<Vec<String>>,
    /// A short name that keeps this issuer's names apart from those of other issuers. It is needed when there are several.
    /// The short name stands before each name (`user:corp/anne`), so changing it changes every user. Issuers of one tenant of
    /// Entra bear the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub name: Option<ShortName>,
    /// Percent-encode `*`, `:`, `#`, `%`, white space and control characters in names (subjects, actors, clients, mapped
    /// claims). Otherwise a token with such a name is refused; only `%` is allowed, and stays as it is.
    #[serde(default)]
    pub encode_subjects: bool,
    /// The rule that tells people's tokens from machines'. `user:*` includes no machine.
    #[serde(default)]
    pub people: PeopleConfig,
    /// How its tokens may be signed: `RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA`.
    #[serde(default = "default_algorithms")]
    #[schemars(with = "Vec<String>")]
    pub algorithms: Vec<Algorithm>,
    /// The URL of its key set. When unset, discovery finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// A PEM file with the only authorities whose certificates are accepted where its key set and metadata are read. When
    /// unset, those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The proxy through which its key set and metadata are read, and approvals asked for, such as
    /// `http://egress.example:8080`. When unset, that of the variable `HTTPS_PROXY`, unless `NO_PROXY` has the host of the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<String>,
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
    /// The treatment of a token that lacks the claim, or whose claim is an empty list. When unset, the authorization model
    /// decides: the token is refused if the model excludes users by this relation (`but not`), and accepted otherwise. Set
    /// `none` if your provider leaves the claim out for users who have nothing to list.
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
    /// The treatment of a token that lacks the claim. When unset, the authorization model decides: the token is refused if the
    /// model excludes users (`but not`) by a condition with this parameter, and accepted otherwise. Set `none` if your provider
    /// leaves the claim out for users who have no such value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<Absent>,
}

/// The treatment of a token without a mapped claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Absent {
    /// Refuse the token: the missing claim might exclude its user from something.
    Refuse,
    /// Accept the token: its user has nothing that the claim would state.
    None,
}

/// A parameter of conditions that a request may set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestContextKey {
    /// The name of the parameter. No claim may set it (`identity.claim_context`), and `now` and `client_ip` are the
    /// server's own.
    pub parameter: String,
    /// The callers that may set it.
    #[serde(default)]
    pub settable_by: SettableBy,
}

/// The callers that may set a parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettableBy {
    /// Callers whose token is neither delegated nor narrowed, and callers that are believed.
    #[default]
    Unbounded,
    /// Every caller, also with a delegated or narrowed token.
    Everyone,
}

/// The proofs that come with tokens which are bound to a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DpopConfig {
    /// Whether proofs have to repeat a nonce of the server.
    pub nonces: ProofNonces,
    /// A file with the secret of nonces, at least 32 bytes, that all replicas share. It is read again when it changes. When unset,
    /// each start makes a random one, and replicas refuse each other's nonces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce_key_file: Option<SecretFile>,
}

/// Whether proofs have to repeat a nonce of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProofNonces {
    /// Each proof repeats a nonce, which a client gets with its first refusal and renews every few minutes. So no proof can be
    /// made long before it is used.
    #[default]
    Required,
    /// Nobody looks at nonces: the time in a proof alone bounds its use.
    Unused,
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

/// A collection, or a classification and those above it, that a person has to approve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApprovalConfig {
    /// The collection, unless a classification is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// The classification, one of `identity.details.classifications`, unless a collection is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    /// The most chunks that one approval is asked for, over all pages. When unset, as many as the request asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks_max: Option<u64>,
}

/// An error: settings of `[identity]` cannot be used. The text names them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IdentityConfigError(String);

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
            dpop: DpopConfig::default(),
            delegation: DelegationConfig::default(),
            claim_tuples: Vec::new(),
            claim_context: Vec::new(),
            request_context: Vec::new(),
            details: DetailsConfig::default(),
            step_up: Vec::new(),
            approval: Vec::new(),
        }
    }
}

impl IssuerConfig {
    /// Returns the settings of an issuer of which only the URL is configured.
    #[must_use]
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            profile: ProviderProfile::default(),
            tokens: TokensConfig::default(),
            clients: Vec::new(),
            direct_clients: None,
            name: None,
            encode_subjects: false,
            people: PeopleConfig::default(),
            algorithms: default_algorithms(),
            jwks_url: None,
            ca_file: None,
            proxy_url: None,
        }
    }

    /// Returns the settings that say what its tokens look like.
    fn profile_settings<'s>(&'s self, audience: &'s str) -> ProfileSettings<'s> {
        ProfileSettings {
            profile: self.profile,
            tokens: &self.tokens,
            people: &self.people,
            issuer: &self.issuer,
            clients: &self.clients,
            direct_clients: self.direct_clients.as_deref(),
            audience,
        }
    }

    /// Returns the form of the issuer's tokens.
    pub(super) fn token_profile(&self) -> TokenProfile {
        TokenProfile::new(self.profile, &self.tokens, &self.people, &self.issuer)
    }

    /// Returns whether people use a client themselves, so that it is nobody's actor.
    pub(super) fn is_direct(&self, client: &str) -> bool {
        self.direct_clients.as_ref().is_none_or(|direct| direct.iter().any(|listed| listed == client))
    }

    /// Returns what its names are unique in: the tenant, since Entra has two issuers for each, or else the issuer.
    fn namespace(&self) -> &str {
        match self.profile {
            ProviderProfile::Entra => tenant_of(&self.issuer).unwrap_or(&self.issuer),
            ProviderProfile::Auth0
            | ProviderProfile::Keycloak
            | ProviderProfile::Okta
            | ProviderProfile::Cognito
            | ProviderProfile::Duende
            | ProviderProfile::Rfc9068 => &self.issuer,
        }
    }

    /// Returns the rules by which the issuer's names become objects.
    pub(super) fn names(&self) -> NameRules {
        let special = if self.encode_subjects { SpecialNames::Encoded } else { SpecialNames::Refused };
        NameRules { short_name: self.name.clone(), special }
    }
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256, Algorithm::EdDsa]
}

impl IdentityConfigError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}
