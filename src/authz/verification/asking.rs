//! Asks the server on behalf of verification. The calls pass by all caches, share nothing with requests, and have a
//! size that the server accepts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Shared;
use crate::authz::copy::ModelVersion;
use crate::authz::decider::{Basis, CONTEXTUAL_BYTES_PER_CALL, Outcome, Question, Questions, Recall, accounted};
use crate::authz::openfga_config::CHECKS_PER_CALL_DEFAULT;
use crate::authz::{AuthzError, Consistency, Source};

/// The longest wait for an answer. No request waits for a verification, but the next round of questions does.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// The server's answer to one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerAnswer {
    Decided {
        allowed: bool,
    },
    /// The server can never decide the question.
    Undecidable,
    /// The server refuses the question, or its answer cannot be used.
    NotDecided,
    /// The server does not answer at all.
    OutOfReach,
}

impl Shared {
    /// Asks the server about these questions, in as many calls as it takes.
    pub(super) async fn ask(&self, questions: &[Question], version: &ModelVersion) -> Vec<ServerAnswer> {
        let mut said = Vec::with_capacity(questions.len());
        let mut rest = questions;
        while !rest.is_empty() {
            let mut bytes = 0_usize;
            let fits = |question: &&Question| {
                bytes = bytes.saturating_add(question.contextual.wire_bytes());
                bytes <= CONTEXTUAL_BYTES_PER_CALL
            };
            let count = rest.iter().take(CHECKS_PER_CALL_DEFAULT).take_while(fits).count().max(1);
            let (call, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            said.extend(self.ask_together(call, version).await);
            rest = later;
        }
        said
    }

    /// Makes one call. If the server refuses it, each question is asked by itself, so that a fault in one does not keep the
    /// others from being verified.
    async fn ask_together(&self, questions: &[Question], version: &ModelVersion) -> Vec<ServerAnswer> {
        match self.call(questions, version).await {
            Ok(said) => said,
            Err(error) if is_out_of_reach(&error) => vec![ServerAnswer::OutOfReach; questions.len()],
            Err(_) if questions.len() <= 1 => vec![ServerAnswer::NotDecided; questions.len()],
            Err(_) => {
                let mut said = Vec::with_capacity(questions.len());
                for question in questions {
                    let alone = self.call(std::slice::from_ref(question), version).await;
                    said.push(alone.ok().and_then(|said| said.first().copied()).unwrap_or(ServerAnswer::NotDecided));
                }
                said
            }
        }
    }

    async fn call(&self, questions: &[Question], version: &ModelVersion) -> Result<Vec<ServerAnswer>, AuthzError> {
        let basis = Basis {
            store_id: version.store_id.clone(),
            model_id: version.model_id.clone(),
            consistency: Consistency::HigherConsistency,
            generation: 0,
            recall: Recall::Nothing,
            source: Source::Authority,
        };
        let Some(first) = questions.first() else { return Ok(Vec::new()) };
        let deadline = Instant::now() + CALL_TIMEOUT;
        let principal = first.check.user.clone();
        let asked = Questions { basis: Arc::new(basis), list: questions.to_vec(), principal, deadline };
        let answers = timeout_at(deadline, self.server.decide(&asked)).await;
        let answers = answers.map_err(|_elapsed| AuthzError::DeadlineExceeded)??;
        Ok(accounted(questions.len(), answers)?.iter().map(ServerAnswer::of).collect())
    }
}

impl ServerAnswer {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Decided { allowed, .. } => Self::Decided { allowed: *allowed },
            Outcome::Failed(error) if is_out_of_reach(error) => Self::OutOfReach,
            Outcome::Undecidable => Self::Undecidable,
            Outcome::Failed(_) => Self::NotDecided,
        }
    }
}

fn is_out_of_reach(error: &AuthzError) -> bool {
    match error {
        AuthzError::Unavailable(_)
        | AuthzError::DeadlineExceeded
        | AuthzError::Overloaded { .. }
        | AuthzError::NoModel
        | AuthzError::NoStore(_) => true,
        AuthzError::Refused(_)
        | AuthzError::BadAnswer(_)
        | AuthzError::Stored(_)
        | AuthzError::MessageTooLarge(_)
        | AuthzError::TooManyChecks { .. } => false,
    }
}
