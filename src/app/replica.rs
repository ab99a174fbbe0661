//! Builds the settings and the verifier of the replica of an `OpenFGA` server.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::authz::replica::UnixClock;
use crate::authz::verification::VerificationConfig;
use crate::config::ReplicaConfig;

/// The clock of the wall. A time before 1970 counts as 1970.
pub(super) fn unix_clock() -> UnixClock {
    Arc::new(|| {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i128::try_from(since_1970.as_nanos()).unwrap_or(i128::MAX)
    })
}

/// How much is verified.
pub(super) fn verification_config(replica: &ReplicaConfig) -> VerificationConfig {
    if replica.verified_share <= 0.0 || replica.verified_checks_per_second_max == 0 {
        tracing::warn!("what the replica decides is verified by nobody (`authorizer.replica.verified_share`)");
    }
    VerificationConfig { share: replica.verified_share, checks_per_second_max: replica.verified_checks_per_second_max }
}
