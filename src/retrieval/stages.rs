//! Measures how long the stages of a request take. The times go into the audit record and the metrics, never to the caller.

use std::time::Duration;

use crate::telemetry;

/// How long each stage of a request took, summed over its rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// The time that decisions took.
    pub authorize: Duration,
    /// The time that searches took.
    pub search: Duration,
    /// The time that reading permitted chunks took.
    pub hydrate: Duration,
}

/// A part of the work for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Authorize,
    Search,
    Hydrate,
}

impl StageTimes {
    /// Does work within the span of its stage and adds the time it took.
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
