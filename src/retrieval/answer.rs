//! What a retrieval and a re-check answer with.

use std::sync::Arc;
use std::time::Duration;

use super::plan::{Found, Plan};
use super::stages::StageTimes;
use crate::authz::enforce::Permitted;
use crate::chunk::{Candidate, Chunk};

/// An answer: nothing that was not permitted is in it.
#[derive(Debug)]
pub struct Retrieval {
    /// Best first, ties by id.
    pub chunks: Vec<Retrieved>,
    /// Why there are not more.
    pub completion: Completion,
    /// Whether these are certainly the best.
    pub exact: bool,
    /// Where the next page begins, if pages were asked for and there may be one.
    pub next_page_token: Option<String>,
    /// The authorization model that was decided under, as far as it is known.
    pub model_id: Option<Arc<str>>,
    /// How it was searched. It counts what is withheld, so it is only for those who may know.
    pub plan: PlanReport,
    /// How far behind the authority the copy of its relationships was that was used, if one was.
    pub replica_lag: Option<Duration>,
    /// How long the stages took.
    pub stages: StageTimes,
}

/// The answer to a re-check.
#[derive(Debug)]
pub struct Rechecked {
    /// Those that exist and that the principal may still see, in the order asked.
    pub candidates: Vec<Permitted<Candidate>>,
    /// How many exist that it may not see. Only for those who may know.
    pub withheld: usize,
    /// The authorization model that was decided under, as far as it is known.
    pub model_id: Option<Arc<str>>,
    /// How long the stages took.
    pub stages: StageTimes,
}

/// How a retrieval was searched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanReport {
    /// The estimated share of candidates that are permitted, before the first round.
    pub estimate: Option<f64>,
    /// In their order.
    pub rounds: Vec<Round>,
}

/// One step of search and enforcement.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// The plan; it may change from round to round.
    pub plan: &'static str,
    /// How many candidates were asked for.
    pub limit: usize,
    /// How many were found.
    pub candidates: usize,
    /// How many of these are permitted, as far as the answer needed to know.
    pub permitted: usize,
    /// How many are not.
    pub withheld: usize,
    /// How long it took.
    pub took: Duration,
}

/// One chunk of an answer.
#[derive(Debug)]
pub struct Retrieved {
    /// The chunk.
    pub chunk: Permitted<Chunk>,
    /// Its score.
    pub score: f32,
}

/// How a retrieval ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// As many as were wanted.
    Complete,
    /// There are no more that the principal may see.
    Exhausted,
    /// A work limit was reached; there may be more.
    Limited,
}

impl Retrieval {
    /// An answer that has nothing in it yet.
    pub(super) fn begun(estimate: Option<f64>, stages: StageTimes, replica_lag: Option<Duration>) -> Self {
        Self {
            chunks: Vec::new(),
            completion: Completion::Limited,
            exact: true,
            next_page_token: None,
            model_id: None,
            plan: PlanReport { estimate, rounds: Vec::new() },
            replica_lag,
            stages,
        }
    }

    /// As it is, for this reason.
    pub(super) fn ended(self, completion: Completion) -> Self {
        Self { completion, ..self }
    }
}

impl Round {
    /// A round whose search found so many candidates.
    pub(super) fn new(plan: Plan, found: Found, candidates: usize, took: Duration) -> Self {
        let Found { limit, candidates: looked_at, permitted } = found;
        let withheld = looked_at.saturating_sub(permitted);
        Self { plan: plan.name(), limit, candidates, permitted, withheld, took }
    }
}
