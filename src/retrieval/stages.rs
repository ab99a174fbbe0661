//! How long the stages of a request took: for the record and for measures, never for the caller.

use std::time::Duration;

use crate::telemetry;

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
    /// Runs a step in its span and adds its time.
    pub(super) async fn measure<T>(&mut self, stage: Stage, work: impl Future<Output = T>) -> T {
        let (name, total) = match stage {
            Stage::Authorize => ("authorize", &mut self.authorize),
            Stage::Search => ("search", &mut self.search),
            Stage::Hydrate => ("hydrate", &mut self.hydrate),
        };
        let (done, took) = telemetry::stage(name, work).await;
        *total += took;
        done
    }
}
