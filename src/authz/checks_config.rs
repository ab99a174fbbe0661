//! The section `[authorizer.checks]`: the stages between a request's checks and an `OpenFGA` server.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{ByteSize, HumanDuration, at_least_one};

/// One principal may fill a quarter of the queue of waiting checks, so that it takes four greedy ones to shut the others out.
pub(super) const PRINCIPAL_SHARE: usize = 4;

/// How checks are batched, shared and remembered in front of an `OpenFGA` server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChecksConfig {
    /// How long a decision is remembered; `0s` remembers none. A revocation that the changelog does not report in time
    /// takes effect after this time. A request for higher consistency sees every revocation at once.
    #[serde(with = "HumanDuration")]
    pub cache_ttl: Duration,
    /// The most memory for remembered decisions.
    pub cache_size_max: ByteSize,
    /// How often the server's changelog is read; any change makes Ragward forget all decisions. With `0s` the changelog
    /// is not read, and only `cache_ttl` bounds how late a revocation takes effect. A replica reads the changelog for
    /// both, every `authorizer.replica.poll_interval`.
    #[serde(with = "HumanDuration")]
    pub changelog_poll: Duration,
    /// When the changelog could not be read for this long, no remembered decision is used until it can be read again.
    #[serde(with = "HumanDuration")]
    pub changelog_age_max: Duration,
    /// The most concurrent calls to the server. The actual number follows its latency.
    #[serde(deserialize_with = "at_least_one")]
    pub calls_in_flight_max: u32,
    /// The most checks, of all requests together, that wait in memory for a call to the server. One user's checks fill
    /// at most a quarter of the queue, and the user's further requests wait for room. While the queue is full, a
    /// request of a user who has no checks in it is refused (`RESOURCE_EXHAUSTED`). Raise this if requests are refused
    /// in short bursts. If they are refused all the time, the server is too slow, and a longer queue only makes them
    /// wait longer.
    pub checks_waiting_max: usize,
}

impl ChecksConfig {
    /// Returns whether decisions are remembered.
    #[must_use]
    pub fn remembers(&self) -> bool {
        !self.cache_ttl.is_zero()
    }

    /// Returns whether the changelog is read, so that changes end what is remembered.
    #[must_use]
    pub fn follows_changelog(&self) -> bool {
        self.remembers() && !self.changelog_poll.is_zero()
    }
}

impl Default for ChecksConfig {
    fn default() -> Self {
        Self {
            cache_ttl: Duration::from_secs(10),
            cache_size_max: ByteSize::mib(64),
            changelog_poll: Duration::from_millis(500),
            changelog_age_max: Duration::from_secs(2),
            calls_in_flight_max: 32,
            checks_waiting_max: 20_000,
        }
    }
}
