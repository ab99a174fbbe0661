//! The section `[authorizer]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checks_config::{ChecksConfig, PRINCIPAL_SHARE};
use super::openfga_config::{CHECKS_PER_CALL_DEFAULT, OpenFgaConfig};
use super::replica_config::ReplicaConfig;

/// The authorizer, which decides what a user may see.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthorizerConfig {
    /// The embedded evaluator, or an `OpenFGA` server.
    pub kind: AuthorizerKind,
    /// The `OpenFGA` server, when `kind` is `openfga`.
    pub openfga: OpenFgaConfig,
    /// How checks are batched, shared and remembered, when `kind` is `openfga`.
    pub checks: ChecksConfig,
    /// The copy of the server's relationships, when `kind` is `openfga`.
    pub replica: ReplicaConfig,
}

/// The authorizers to choose from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthorizerKind {
    /// Ragward's own evaluator over the tuples in the data directory.
    #[default]
    Embedded,
    /// An `OpenFGA` server over gRPC.
    Openfga,
}

impl AuthorizerConfig {
    /// Checks the settings that depend on one another.
    ///
    /// # Errors
    /// When two settings contradict each other. The sentence names both.
    pub fn check(&self) -> Result<(), String> {
        let Self { checks, openfga, replica, .. } = self;
        let has_replica = replica.mode.used_for().is_some();
        let rules = [
            (
                checks.remembers() && checks.cache_size_max.as_u64() == 0,
                "`authorizer.checks.cache_size_max` must be at least 1 unless `authorizer.checks.cache_ttl` is `0s`",
            ),
            (
                checks.follows_changelog() && checks.changelog_age_max <= checks.changelog_poll,
                "`authorizer.checks.changelog_age_max` must be more than `authorizer.checks.changelog_poll`: otherwise no \
                 remembered decision is ever used",
            ),
            (
                checks.follows_changelog() && checks.cache_ttl < checks.changelog_poll,
                "`authorizer.checks.cache_ttl` must be at least `authorizer.checks.changelog_poll`: otherwise decisions are \
                 forgotten before the changelog is read",
            ),
            (
                checks.follows_changelog() && has_replica && checks.changelog_age_max <= replica.poll_interval,
                "`authorizer.checks.changelog_age_max` must be more than `authorizer.replica.poll_interval`, the interval at \
                 which the changelog is read: otherwise no remembered decision is ever used",
            ),
            (
                has_replica && replica.staleness_max <= replica.poll_interval,
                "`authorizer.replica.staleness_max` must be more than `authorizer.replica.poll_interval`: otherwise the \
                 replica is never fresh",
            ),
            (
                openfga.api_token_file.is_some() && openfga.client_credentials.is_some(),
                "`authorizer.openfga.api_token_file` and `authorizer.openfga.client_credentials` are both set: the server \
                 takes one of them",
            ),
            (
                // A request enters the queue in portions of `CHECKS_PER_CALL_DEFAULT` checks, and one user's share must
                // hold a portion and a call.
                checks.checks_waiting_max / PRINCIPAL_SHARE < openfga.checks_per_call.max(CHECKS_PER_CALL_DEFAULT),
                "`authorizer.checks.checks_waiting_max` must be at least 200 and at least four times \
                 `authorizer.openfga.checks_per_call`: one user gets a quarter of it",
            ),
        ];
        match rules.iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Err((*rule).to_owned()),
            None => match &openfga.client_credentials {
                Some(credentials) => credentials.client.check("authorizer.openfga.client_credentials"),
                None => Ok(()),
            },
        }
    }
}
