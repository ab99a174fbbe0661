//! How a request was answered: for the record, never for the caller.

use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry;

/// What is known once a request has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The authorization model that decided, if that is known without asking.
    pub model_id: Option<String>,
    /// The most that the relationships may have been behind their authority; `None` when that is not known.
    pub staleness: Option<Duration>,
    /// How it was searched.
    pub plan: Option<&'static str>,
    /// Searches that were made.
    pub rounds: u32,
    /// Chunks that were found and withheld.
    pub withheld: usize,
    /// Time of decisions.
    pub authorize: Duration,
    /// Time of searches.
    pub search: Duration,
    /// Time of reading what is permitted.
    pub hydrate: Duration,
}

/// A step that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Plan,
    Search,
    Enforce,
    Hydrate,
}

impl Account {
    /// Runs a step in its span and adds its time.
    pub(super) async fn stage<T>(&mut self, stage: Stage, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let (name, total) = match stage {
            Stage::Plan => ("plan", None),
            Stage::Search => ("search", Some(&mut self.search)),
            Stage::Enforce => ("enforce", Some(&mut self.authorize)),
            Stage::Hydrate => ("hydrate", Some(&mut self.hydrate)),
        };
        let done = telemetry::stage(name, work).await;
        if let Some(total) = total {
            *total += started.elapsed();
        }
        done
    }
}
