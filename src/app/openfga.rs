//! Builds the checks of an `OpenFGA` server, and the replica of it, from the section `[authorizer]`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{AppError, replica};
use crate::authz::batched::{BatchedConfig, BatchedDecider};
use crate::authz::breaker::BreakerDecider;
use crate::authz::cached::CachedDecider;
use crate::authz::coalesced::CoalescedDecider;
use crate::authz::decider::Decider;
use crate::authz::openfga::{self, OpenFgaAuthorizer, OpenFgaConfig, OpenFgaSource, StoreSelector};
use crate::authz::replica::{ReplicaAuthorizer, ReplicaConfig, ReplicaParts, ReplicaUse};
use crate::authz::retried::RetriedDecider;
use crate::authz::stacked::StackedAuthorizer;
use crate::authz::validity::Validity;
use crate::backend::{BackendError, Secret};
use crate::config::{self, AuthorizerKind, Config, ConfigError, ReplicaMode};

/// The replica's directory inside the data directory.
const REPLICA_DIRECTORY: &str = "replica";

/// Opens the replica that the configuration asks for, if it asks for one.
pub(super) async fn open_configured_replica(config: &Config) -> Result<Option<Arc<ReplicaAuthorizer>>, AppError> {
    let used_for = match (config.authorizer.kind, config.authorizer.replica.mode) {
        (AuthorizerKind::Embedded, _) | (AuthorizerKind::Openfga, ReplicaMode::Off) => return Ok(None),
        (AuthorizerKind::Openfga, ReplicaMode::Plan) => ReplicaUse::Plan,
        (AuthorizerKind::Openfga, ReplicaMode::Decide) => ReplicaUse::Decide,
    };
    open_replica(config, used_for).await.map(Some)
}

/// Opens the replica of an `OpenFGA` server in the data directory. The replica also reads the server's changelog for
/// the cache of checks.
///
/// # Errors
/// Those of [`super::App::open`].
pub async fn open_replica(config: &Config, used_for: ReplicaUse) -> Result<Arc<ReplicaAuthorizer>, AppError> {
    let replica = replica_config(&config.authorizer.replica, used_for);
    let openfga = openfga_config(config)?;
    let source = Arc::new(OpenFgaSource::new(&openfga)?.with_types_max(config.authorizer.replica.types_max));
    let directory = replica_directory(config);
    let authority = stack(&openfga, &config.authorizer.checks, ChangesFrom::Replica)?;
    let validity = Arc::clone(authority.validity());
    let clock = replica::unix_clock();
    // Verification has its own way to the server. It shares no call, queue or breaker with requests.
    let server = Arc::new(OpenFgaAuthorizer::new(&openfga)?) as Arc<dyn Decider>;
    let verification = replica::verification_config(&config.authorizer.replica);
    let parts = ReplicaParts { source, authority: Arc::new(authority), validity, clock, verification, server };
    Ok(Arc::new(ReplicaAuthorizer::open(&directory, parts, replica).await?))
}

/// Returns the directory of the replica.
#[must_use]
pub fn replica_directory(config: &Config) -> PathBuf {
    config.data.directory.join(REPLICA_DIRECTORY)
}

fn replica_config(replica: &config::ReplicaConfig, used_for: ReplicaUse) -> ReplicaConfig {
    ReplicaConfig {
        used_for,
        poll_interval: Duration::from_millis(replica.poll_interval_ms),
        staleness_max: Duration::from_millis(replica.staleness_max_ms),
        overlap: Duration::from_millis(replica.overlap_ms),
        sweep_interval: Duration::from_millis(replica.sweep_interval_ms),
    }
}

/// Builds the stack of checks in front of an `OpenFGA` server. A request's checks enter it at its last line, each guard
/// once (`authz::enforce`), and leave it at the first. Call it inside tokio.
///
/// # Errors
/// When the configuration cannot be used.
pub fn stack_checks(
    openfga_config: &OpenFgaConfig,
    checks: &config::ChecksConfig,
) -> Result<StackedAuthorizer, BackendError> {
    stack(openfga_config, checks, ChangesFrom::Changelog)
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
    checks: &config::ChecksConfig,
    changes_from: ChangesFrom,
) -> Result<StackedAuthorizer, BackendError> {
    let milliseconds = Duration::from_millis;
    let timeout = openfga_config.timeout;
    let batched = BatchedConfig {
        checks_per_call: openfga_config.checks_per_call,
        calls_in_flight_max: checks.calls_in_flight_max,
        checks_waiting_max: checks.checks_waiting_max,
        timeout,
    };
    let time_to_live = milliseconds(checks.cache_ttl_ms);
    let polls = !time_to_live.is_zero() && checks.changelog_poll_ms > 0;
    let validity = Arc::new(Validity::new(polls.then(|| milliseconds(checks.changelog_age_max_ms))));

    let openfga = Arc::new(OpenFgaAuthorizer::new(openfga_config)?);
    let decider: Arc<dyn Decider> = Arc::clone(&openfga) as _;
    let decider: Arc<dyn Decider> = Arc::new(BreakerDecider::new(decider, timeout));
    let decider: Arc<dyn Decider> = Arc::new(RetriedDecider::new(decider));
    let decider: Arc<dyn Decider> = Arc::new(BatchedDecider::new(decider, batched));
    let decider: Arc<dyn Decider> = Arc::new(CoalescedDecider::new(decider, timeout));
    let decider: Arc<dyn Decider> = if time_to_live.is_zero() {
        decider
    } else {
        Arc::new(CachedDecider::new(decider, time_to_live, checks.cache_bytes_max))
    };

    let poll = milliseconds(checks.changelog_poll_ms);
    let changelog = match changes_from {
        ChangesFrom::Changelog if polls => Some(openfga::watch(Arc::clone(&openfga), Arc::clone(&validity), poll)),
        ChangesFrom::Changelog | ChangesFrom::Replica => None,
    };
    Ok(StackedAuthorizer::new(openfga, decider, validity, changelog))
}

/// Builds the settings of the `OpenFGA` adapter.
///
/// # Errors
/// When the file with the API token cannot be read.
pub fn openfga_config(config: &Config) -> Result<OpenFgaConfig, ConfigError> {
    let openfga = &config.authorizer.openfga;
    let unless_empty = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let by_name = || StoreSelector::Name(openfga.store_name.clone());
    Ok(OpenFgaConfig {
        address: openfga.address.clone(),
        store: unless_empty(&openfga.store_id).map_or_else(by_name, StoreSelector::Id),
        authorization_model_id: unless_empty(&openfga.authorization_model_id),
        api_token: config::read_secret(&openfga.api_token_file)?.map(Secret::new),
        checks_per_call: openfga.checks_per_call,
        timeout: Duration::from_millis(openfga.timeout_ms),
        list_results_max: openfga.list_results_max,
        list_deadline: Duration::from_millis(openfga.list_deadline_ms),
        cache_age_max: Duration::from_millis(openfga.cache_age_max_ms),
    })
}
