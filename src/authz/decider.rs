//! The port inside the stack of checks before an `OpenFGA` server.
//!
//! The port of the requests, [`super::Authorizer`], takes the checks of one request. A question at this port is complete: it
//! carries the store, the model and everything else that its answer depends on. So a decorator can share or remember an
//! answer without knowing which request the question came from. Questions of different requests meet in one call, and each
//! has its own outcome. So a fault in one request's question fails that request alone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{AuthzError, Check, Consistency, Decision, Reached, Source};
use crate::engine::Contextual;
use crate::language::Object;

/// The most bytes that requests may add to the checks of one call. Every item of a call repeats what its request adds,
/// so without a bound one user with long claims would fill the calls that others share. Together with everything else
/// that 50 checks take, this bound is less than the 616,448 bytes that a server accepts in one message by default.
pub const CONTEXTUAL_BYTES_PER_CALL: usize = 512 << 10;

/// Everything that an answer depends on except the question itself, and how the question is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Basis {
    /// The id of the store.
    pub store_id: String,
    /// The id of the authorization model in that store.
    pub model_id: String,
    /// How fresh the relationships must be.
    pub consistency: Consistency,
    /// The generation of the store's relationships that was current when the request came.
    pub generation: u64,
    /// The earlier answers of this generation that may be used again.
    pub recall: Recall,
    /// The party that is asked. An answer of another source is not recalled.
    pub source: Source,
}

/// Selects the remembered answers that may be used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Recall {
    /// None: the server must be asked.
    #[default]
    Nothing,
    /// Every answer of the generation.
    Generation,
    /// The answers of the generation that were asked for at this moment or later, past the server's own caches.
    Since(Instant),
}

impl Basis {
    /// Returns whether questions with these two bases may be asked in one call.
    #[must_use]
    pub fn shares_calls_with(&self, other: &Self) -> bool {
        self.store_id == other.store_id
            && self.model_id == other.model_id
            && self.consistency == other.consistency
            && self.source == other.source
    }
}

/// One check, with everything that its request adds.
#[derive(Clone, Debug)]
pub struct Question {
    /// The user, the relation and the object that are asked about.
    pub check: Check,
    /// The tuples and the context that the request adds to the stored relationships.
    pub contextual: Arc<Contextual>,
}

/// Questions that are asked together.
#[derive(Clone, Debug)]
pub struct Questions {
    /// Everything that all of the answers depend on.
    pub basis: Arc<Basis>,
    /// The questions. An answer names its question by the position in this list.
    pub list: Vec<Question>,
    /// The user whom the work is counted against.
    pub principal: Object,
    /// The moment from which the answers are of no use.
    pub deadline: Instant,
}

impl Questions {
    /// Returns the questions at these positions, in that order.
    #[must_use]
    pub fn at(&self, positions: &[usize]) -> Self {
        let list = positions.iter().filter_map(|position| self.list.get(*position).cloned()).collect();
        Self { basis: Arc::clone(&self.basis), list, principal: self.principal.clone(), deadline: self.deadline }
    }
}

/// The answer to one question, or the reason why there is none.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The server made a final decision.
    Decided {
        /// Whether the user holds the relation.
        allowed: bool,
        /// The moment at which the question was asked. The relationships that decided were at least as new, unless the
        /// server used caches of its own.
        as_of: Instant,
        /// The party that made the decision.
        source: Source,
    },
    /// The server can never decide this. The check is denied, but the denial must not be remembered as a decision.
    Undecidable,
    /// There is no decision, for this reason.
    Failed(AuthzError),
}

/// The outcome of the question at one position.
#[derive(Clone, Debug)]
pub struct NumberedOutcome {
    /// The position of the question in [`Questions::list`].
    pub position: usize,
    /// The decision, or the reason why there is none.
    pub outcome: Outcome,
}

/// The facts about some questions that are needed to turn their outcomes into decisions.
#[derive(Clone, Copy, Debug)]
pub struct Inquiry {
    /// A moment before the first question was asked.
    pub at: Instant,
    /// The party that was asked.
    pub source: Source,
    /// The longest time by which the deciding relationships may be older than the question, because the server has caches of
    /// its own.
    pub behind_max: Duration,
}

impl NumberedOutcome {
    /// Returns the decision for the port of the requests. One failure fails the whole batch there, because a batch
    /// without all of its decisions has no answer.
    ///
    /// # Errors
    /// When there is no decision, or when another source decided than the one that was asked.
    pub fn into_decision(self, asked: &Inquiry) -> Result<Decision, AuthzError> {
        let Self { position, outcome } = self;
        match outcome {
            Outcome::Decided { source, .. } if source != asked.source => {
                Err(AuthzError::BadAnswer("a check was decided by a source that was not asked".to_owned()))
            }
            Outcome::Decided { allowed, as_of, .. } => {
                let reached = if as_of < asked.at { Reached::Earlier } else { Reached::Now };
                Ok(Decision { position, allowed, as_of: as_of.checked_sub(asked.behind_max), reached })
            }
            Outcome::Undecidable => Ok(Decision { position, allowed: false, as_of: None, reached: Reached::Never }),
            Outcome::Failed(error) => Err(error),
        }
    }
}

/// Answers complete questions: an `OpenFGA` server, or a decorator before one.
#[async_trait]
pub trait Decider: Send + Sync {
    /// Answers every question exactly once, in any order.
    ///
    /// # Errors
    /// When no question has an answer.
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError>;
}

/// Sorts answers to `asked` questions by position.
///
/// INVARIANT (one answer each): every position is answered exactly once, or there is no answer at all.
///
/// # Errors
/// When a question has two answers or none, or an answer belongs to no question.
pub fn accounted(asked: usize, answers: Vec<NumberedOutcome>) -> Result<Vec<Outcome>, AuthzError> {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; asked];
    for NumberedOutcome { position, outcome } in answers {
        match outcomes.get_mut(position) {
            Some(answered @ None) => *answered = Some(outcome),
            Some(Some(_)) => return Err(AuthzError::BadAnswer("one check was answered twice".to_owned())),
            None => return Err(AuthzError::BadAnswer("a check was answered that nobody asked".to_owned())),
        }
    }
    let all: Option<Vec<Outcome>> = outcomes.into_iter().collect();
    all.ok_or_else(|| AuthzError::BadAnswer("a check was left unanswered".to_owned()))
}

#[cfg(test)]
pub(crate) mod doubles;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_has_one_answer_or_there_is_none() {
        let answered = |position| NumberedOutcome { position, outcome: Outcome::Undecidable };
        let rows: [(usize, &[usize], bool); 8] = [
            (0, &[], true),
            (2, &[0, 1], true),
            (2, &[1, 0], true),
            (2, &[0], false),
            (2, &[0, 0], false),
            (2, &[0, 1, 1], false),
            (2, &[0, 1, 2], false),
            (0, &[0], false),
        ];
        for (asked, positions, right) in rows {
            let answers = accounted(asked, positions.iter().copied().map(answered).collect());
            assert_eq!(answers.is_ok(), right, "{asked}: {positions:?}");
        }
    }
}
