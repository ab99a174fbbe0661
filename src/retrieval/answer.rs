//! The answers to a retrieval, to a re-check and to a fetch.

use std::time::Duration;

use super::plan::{Completion, Plan, PlannedSearch, Tally};
use super::stages::StageTimes;
use crate::authz::DecidedBy;
use crate::authz::enforce::Permitted;
use crate::chunk::{Candidate, Chunk};

/// The answer to a retrieval. It holds nothing that was not permitted.
#[derive(Debug)]
pub struct Retrieval {
    /// The chunks by descending score, unless a model has ordered them. Chunks of equal score are in the order of their ids.
    pub chunks: Vec<Retrieved>,
    /// The reason why the answer has no more chunks.
    pub completion: Completion,
    /// Whether these are certainly the best chunks that the principal may see. If not, the store searched
    /// approximately.
    pub exact: bool,
    /// The token of the next page, if the caller asked for pages and there may be one.
    pub next_page_token: Option<String>,
    /// The model and the relationships that the decisions rest on; `None` if nothing was decided.
    pub decided_by: Option<DecidedBy>,
    /// How the retrieval was searched. It counts what was withheld, so show it only to those who may know.
    pub plan: PlanReport,
    /// The sources that were asked. They count what was withheld, so show them only to those who may know.
    pub sources: Vec<SourceReport>,
    /// How far the local copy of the relationships was behind their authority, if a copy was used.
    pub replica_lag: Option<Duration>,
    /// How long the stages took.
    pub stages: StageTimes,
}

/// The answer to a re-check.
#[derive(Debug)]
pub struct Rechecked {
    /// The chunks that exist and that the principal may still see, in the order of the request.
    pub candidates: Vec<Permitted<Candidate>>,
    /// The chunks that exist and that the principal may not see, each one once, in the order of the request. Show them only
    /// to those who may know.
    pub withheld: Vec<WithheldChunk>,
    /// The sources that were asked. They count what was withheld, so show them only to those who may know.
    pub sources: Vec<SourceReport>,
    /// The model and the relationships that the decisions rest on; `None` if nothing was decided.
    pub decided_by: Option<DecidedBy>,
    /// How long the stages took.
    pub stages: StageTimes,
}

/// A chunk that exists and that the principal may not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithheldChunk {
    /// The id of the chunk, unique in its collection.
    pub chunk_id: String,
    /// The id of its document; `None` if the store did not tell it.
    pub document_id: Option<String>,
}

/// The answer to a fetch. It holds nothing that was not permitted.
#[derive(Debug)]
pub struct Fetched {
    /// The chunks in the order of the request: those of named chunks, then those of named documents.
    pub chunks: Vec<Permitted<Chunk>>,
    /// Whether these are all chunks that the request names and the principal may see: [`Completion::Exhausted`] or
    /// [`Completion::Limited`].
    pub completion: Completion,
    /// A lower bound on the number of chunks that exist and that the principal may not see. Show it only to those who
    /// may know.
    pub withheld: usize,
    /// The sources that were asked. They count what was withheld, so show them only to those who may know.
    pub sources: Vec<SourceReport>,
    /// The model and the relationships that the decisions rest on; `None` if nothing was decided.
    pub decided_by: Option<DecidedBy>,
    /// How long the stages took.
    pub stages: StageTimes,
}

/// The documents that one source was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceReport {
    /// The name of the source.
    pub source: String,
    /// The number of questions about a document. A question that a remembered answer decided counts, too.
    pub asked: usize,
    /// The number of documents that it withheld.
    pub withheld: usize,
}

/// How a retrieval was searched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanReport {
    /// The share of candidates that was expected to be permitted, before the first round.
    pub estimate: Option<f64>,
    /// The rounds in their order.
    pub rounds: Vec<RoundReport>,
}

/// One round of search and enforcement. Each round finds again what the rounds before it found.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundReport {
    /// The plan of this round. It may change from round to round.
    pub plan: Plan,
    /// How many candidates the search could return at most.
    pub limit: usize,
    /// How many candidates the search found.
    pub candidates: usize,
    /// How many of the candidates that were looked at are permitted.
    pub permitted: usize,
    /// How many of the candidates that were looked at are not permitted. Once the answer is full, the remaining
    /// candidates are neither looked at nor counted.
    pub withheld: usize,
    /// How long the round took.
    pub took: Duration,
}

/// One chunk of an answer.
#[derive(Debug)]
pub struct Retrieved {
    /// The chunk with its text.
    pub chunk: Permitted<Chunk>,
    /// The score that the search gave it.
    pub score: f32,
    /// The score that the model gave it by which the answer is ordered; `None` if no model has looked at it.
    pub rerank_score: Option<f64>,
}

impl Retrieval {
    /// Returns an answer that has nothing in it yet.
    pub(super) fn begun(estimate: Option<f64>, stages: StageTimes, replica_lag: Option<Duration>) -> Self {
        Self {
            chunks: Vec::new(),
            completion: Completion::Limited,
            exact: true,
            next_page_token: None,
            decided_by: None,
            plan: PlanReport { estimate, rounds: Vec::new() },
            sources: Vec::new(),
            replica_lag,
            stages,
        }
    }
}

impl RoundReport {
    /// Returns a report of a search that found this many candidates. None of them was looked at yet.
    pub(super) fn begun(search: PlannedSearch, candidates: usize) -> Self {
        let PlannedSearch { plan, limit, .. } = search;
        Self { plan, limit, candidates, permitted: 0, withheld: 0, took: Duration::ZERO }
    }

    /// Notes how far the round has come.
    pub(super) fn note(&mut self, tally: Tally, took: Duration) {
        self.permitted = tally.permitted;
        self.withheld = tally.candidates.saturating_sub(tally.permitted);
        self.took = took;
    }
}
