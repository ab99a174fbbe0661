//! How long the stages of a request took: for the record and for measures, never for the caller.

use std::time::Duration;

use tokio::time::Instant;

/// The time of each stage, summed over the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Decisions.
    pub authorize: Duration,
    /// Searches.
    pub search: Duration,
    /// Reading what is permitted.
    pub hydrate: Duration,
}

/// A step that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Authorize,
    Search,
    Hydrate,
}

impl StageTimes {
    /// Runs a step and adds its time.
    pub(super) async fn measure<T>(&mut self, stage: Stage, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let done = work.await;
        let total = match stage {
            Stage::Authorize => &mut self.authorize,
            Stage::Search => &mut self.search,
            Stage::Hydrate => &mut self.hydrate,
        };
        *total += started.elapsed();
        done
    }
}
