//! The stages that checks pass on their way to an `OpenFGA` server, and their order.
//!
//! Each stage is a [`Decider`] around another one, in a file of its own. A test can put the same stages, or some of them,
//! before a server of its own that fails as the test wants.

use std::sync::Arc;

use super::batched::BatchedDecider;
use super::breaker::BreakerDecider;
use super::cached::CachedDecider;
use super::coalesced::CoalescedDecider;
use super::decider::Decider;
use super::retried::RetriedDecider;
use super::{ChecksConfig, OpenFgaConfig};

/// A stage between the checks of requests and a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStage {
    /// Gives callers an error at once while the server keeps failing.
    Breaker,
    /// Repeats calls that did not get through.
    Retries,
    /// Gathers the waiting checks of all requests into full calls.
    Batches,
    /// Lets equal questions that are asked at the same time share one answer.
    Sharing,
    /// Remembers decisions, if the configuration lets any be remembered.
    Cache,
}

impl CheckStage {
    /// All stages, from the one next to the server up to the one where requests enter.
    pub const ALL: [Self; 5] = [
        // The breaker counts every attempt, so it is below the retries.
        Self::Breaker,
        // A whole call is repeated, so the retries are below the stage that makes calls of checks.
        Self::Retries,
        Self::Batches,
        // Only questions that nobody else is asking take a place in a call.
        Self::Sharing,
        // A remembered decision costs nothing of all this.
        Self::Cache,
    ];

    fn before(self, inner: Arc<dyn Decider>, openfga: &OpenFgaConfig, checks: &ChecksConfig) -> Arc<dyn Decider> {
        match self {
            Self::Breaker => Arc::new(BreakerDecider::new(inner, openfga.timeout)),
            Self::Retries => Arc::new(RetriedDecider::new(inner)),
            Self::Batches => Arc::new(BatchedDecider::new(inner, openfga, checks)),
            Self::Sharing => Arc::new(CoalescedDecider::new(inner, openfga.timeout)),
            Self::Cache if checks.remembers() => {
                Arc::new(CachedDecider::new(inner, checks.cache_ttl, checks.cache_size_max.as_u64()))
            }
            Self::Cache => inner,
        }
    }
}

/// Puts `stages` before a server, the first one next to it. Questions enter at the last one. Call this inside tokio.
#[must_use]
pub fn check_stack(
    server: Arc<dyn Decider>,
    stages: &[CheckStage],
    openfga: &OpenFgaConfig,
    checks: &ChecksConfig,
) -> Arc<dyn Decider> {
    stages.iter().fold(server, |inner, stage| stage.before(inner, openfga, checks))
}
