//! Builds, from the section `[authorizer]`, the stack of checks for an `OpenFGA` server, and the server's replica.

use std::path::PathBuf;
use std::sync::Arc;

use super::AppError;
use crate::authz::openfga::{self, OpenFgaAuthorizer, OpenFgaConfig, OpenFgaSource};
use crate::authz::replica::{ReplicaAuthorizer, ReplicaParts, ReplicaUse};
use crate::authz::stacked::StackedAuthorizer;
use crate::authz::validity::Validity;
use crate::authz::{CheckStage, ChecksConfig, check_stack};
use crate::backend::{BackendError, Credential};
use crate::config::{AuthorizerConfig, AuthorizerKind, Config};

/// The replica's directory inside the data directory.
const REPLICA_DIRECTORY: &str = "replica";

/// Opens the replica that the configuration asks for, if it asks for one.
pub(super) async fn open_configured_replica(config: &Config) -> Result<Option<Arc<ReplicaAuthorizer>>, AppError> {
    match (config.authorizer.kind, config.authorizer.replica.mode.used_for()) {
        (AuthorizerKind::Embedded, _) | (AuthorizerKind::Openfga, None) => Ok(None),
        (AuthorizerKind::Openfga, Some(used_for)) => open_replica(config, used_for).await.map(Some),
    }
}

/// Opens the replica of an `OpenFGA` server in the data directory. The replica also reads the server's changelog on
/// behalf of the cache of checks.
///
/// # Errors
/// Returns the errors of [`super::App::open`].
pub async fn open_replica(config: &Config, used_for: ReplicaUse) -> Result<Arc<ReplicaAuthorizer>, AppError> {
    let AuthorizerConfig { openfga, checks, replica, .. } = &config.authorizer;
    // All of them call the same server as the same client, so they need one access token.
    let credential = openfga::credential(openfga)?;
    let source = OpenFgaSource::with_credential(openfga, credential.clone())?.with_types_max(replica.types_max);
    let source = Arc::new(source);
    let directory = replica_directory(config);
    let authority = stack(openfga, credential.clone(), checks, ChangesFrom::Replica)?;
    let validity = Arc::clone(authority.validity());
    let clock = super::replica::unix_clock();
    // Verification calls the server through a client of its own. It shares no call, queue or breaker with requests.
    let server = Arc::new(OpenFgaAuthorizer::with_credential(openfga, credential)?);
    if !replica.is_verified() {
        tracing::warn!("the replica's decisions are not verified (`authorizer.replica.verified_share`)");
    }
    let parts = ReplicaParts { source, authority: Arc::new(authority), validity, clock, server };
    Ok(Arc::new(ReplicaAuthorizer::open(&directory, parts, used_for, *replica).await?))
}

/// Returns the directory of the replica.
#[must_use]
pub fn replica_directory(config: &Config) -> PathBuf {
    config.data.directory.join(REPLICA_DIRECTORY)
}

/// Builds the stack of checks in front of an `OpenFGA` server, in the order of [`CheckStage::ALL`]. Each guard of a request
/// comes once, because `authz::enforce` sends it once. Call this function inside tokio.
///
/// # Errors
/// When the configuration cannot be used.
pub fn stack_checks(openfga_config: &OpenFgaConfig, checks: &ChecksConfig) -> Result<StackedAuthorizer, BackendError> {
    stack(openfga_config, openfga::credential(openfga_config)?, checks, ChangesFrom::Changelog)
}

/// Says who tells the cache of checks that relationships changed.
#[derive(Clone, Copy)]
enum ChangesFrom {
    /// A reader of the server's changelog, which the stack starts.
    Changelog,
    /// The replica in front of the stack.
    Replica,
}

fn stack(
    openfga_config: &OpenFgaConfig,
    credential: Credential,
    checks: &ChecksConfig,
    changes_from: ChangesFrom,
) -> Result<StackedAuthorizer, BackendError> {
    let follows = checks.follows_changelog();
    let validity = Arc::new(Validity::new(follows.then_some(checks.changelog_age_max)));

    let openfga = Arc::new(OpenFgaAuthorizer::with_credential(openfga_config, credential)?);
    let decider = check_stack(Arc::clone(&openfga) as _, &CheckStage::ALL, openfga_config, checks);

    let changelog = match changes_from {
        ChangesFrom::Changelog if follows => {
            Some(openfga::watch(Arc::clone(&openfga), Arc::clone(&validity), checks.changelog_poll))
        }
        ChangesFrom::Changelog | ChangesFrom::Replica => None,
    };
    Ok(StackedAuthorizer::new(openfga, decider, validity, changelog))
}
