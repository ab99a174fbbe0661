//! The section `[authorizer.replica]`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{HumanDuration, PositiveDuration, at_least_one, share};

/// The default of `staleness_max`.
pub(super) const STALENESS_MAX_DEFAULT: Duration = Duration::from_secs(2);

/// A copy of an `OpenFGA` server's relationships, which `ragward serve` keeps in `replica` of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReplicaConfig {
    /// The role of the copy: none, planning searches, or deciding.
    pub mode: ReplicaMode,
    /// How often the server's changelog is read.
    #[serde(with = "PositiveDuration")]
    pub poll_interval: Duration,
    /// A copy that is further behind than this is not used. In mode `decide`, a revoked permission may still count for
    /// this long.
    #[serde(with = "HumanDuration")]
    pub staleness_max: Duration,
    /// How long a write to the server may take from its place in the changelog to its commit. The last part of the
    /// changelog, of this length, is read again each time.
    #[serde(with = "HumanDuration")]
    pub overlap: Duration,
    /// How often all tuples are compared. A change that the changelog never reports, or reports after `overlap`, takes
    /// effect after this time and the time that one comparison takes.
    #[serde(with = "PositiveDuration")]
    pub sweep_interval: Duration,
    /// The most types of a model that the copy is evaluated under. Under a model with more types, the server decides
    /// everything.
    #[serde(deserialize_with = "at_least_one")]
    pub types_max: usize,
    /// The share of the copy's decisions that Ragward verifies by asking the server the same question after the answer has
    /// left: `0.01` is one in a hundred, `1` is all, `0` is none. The share is ten times as large in the first minute after a
    /// new model and while the copy is not trusted. Decisions beyond `verified_checks_per_second_max` are not verified. Raise
    /// the share to find a wrong copy sooner. Each verified decision costs the server one check.
    #[serde(deserialize_with = "share")]
    pub verified_share: f64,
    /// The most checks a second that verify the copy; `0` verifies nothing.
    pub verified_checks_per_second_max: u32,
}

/// The role of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaMode {
    /// There is no replica.
    Off,
    /// The replica finds what a user may see, for planning a search. The server decides about every chunk that is
    /// released.
    Plan,
    /// The replica decides within its bound of staleness. The server verifies a share of its decisions.
    #[default]
    Decide,
}

/// The use of a replica, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaUse {
    /// The replica finds visible sets, and the server decides.
    Plan,
    /// The replica decides as well.
    Decide,
}

impl ReplicaMode {
    /// Returns the use of the replica, or `None` if there is no replica.
    #[must_use]
    pub fn used_for(self) -> Option<ReplicaUse> {
        match self {
            Self::Off => None,
            Self::Plan => Some(ReplicaUse::Plan),
            Self::Decide => Some(ReplicaUse::Decide),
        }
    }
}

impl ReplicaConfig {
    /// Returns whether the server verifies any of the copy's decisions.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.verified_share > 0.0 && self.verified_checks_per_second_max > 0
    }
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self {
            mode: ReplicaMode::default(),
            poll_interval: Duration::from_millis(500),
            staleness_max: STALENESS_MAX_DEFAULT,
            overlap: Duration::from_secs(5),
            sweep_interval: Duration::from_mins(1),
            types_max: 1_000,
            verified_share: 0.01,
            verified_checks_per_second_max: 20,
        }
    }
}
