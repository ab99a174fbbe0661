//! The port inside the stack of checks in front of an `OpenFGA` server.
//!
//! A question here is complete: it carries the store, the model and everything else that its answer depends on, so that
//! a decorator can share or remember an answer without knowing where the question came from. Questions of different
//! requests meet in one call, so each has its own outcome: what is wrong with one request's question fails that request
//! alone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{AuthzError, Check, Consistency, Decision, Reached, Source};
use crate::engine::Contextual;
use crate::language::Object;

/// What all questions of one call have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The store.
    pub store_id: String,
    /// The authorization model.
    pub model_id: String,
    /// How fresh the relationships must be.
    pub consistency: Consistency,
    /// The generation of the store's relationships that was current when the request came.
    pub generation: u64,
    /// Which answers of this generation that were given earlier will do.
    pub recall: Recall,
    /// Who is asked. An answer of another source is not recalled.
    pub source: Source,
}

/// Which earlier answers will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Recall {
    /// None.
    #[default]
    Nothing,
    /// All of the generation.
    Generation,
    /// Those of the generation that were asked past the server's own caches at this moment or later.
    Since(Instant),
}

impl Scope {
    /// Whether questions of both may be asked in one call.
    #[must_use]
    pub fn shares_calls_with(&self, other: &Self) -> bool {
        self.store_id == other.store_id
            && self.model_id == other.model_id
            && self.consistency == other.consistency
            && self.source == other.source
    }
}

/// One question.
#[derive(Clone, Debug)]
pub struct Question {
    /// The check.
    pub check: Check,
    /// What its request adds to the stored relationships.
    pub contextual: Arc<Contextual>,
}

/// Questions that are asked together.
#[derive(Clone, Debug)]
pub struct Questions {
    /// What they have in common.
    pub scope: Arc<Scope>,
    /// The questions. An answer names each by its position here.
    pub list: Vec<Question>,
    /// On whose behalf: the one that the work is counted against.
    pub principal: Object,
    /// When the answers are of no use any more.
    pub deadline: Instant,
}

impl Questions {
    /// Those at some positions, in that order.
    #[must_use]
    pub fn at(&self, positions: &[usize]) -> Self {
        let list = positions.iter().filter_map(|position| self.list.get(*position).cloned()).collect();
        Self { scope: Arc::clone(&self.scope), list, principal: self.principal.clone(), deadline: self.deadline }
    }
}

/// What became of one question.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A final decision.
    Decided {
        /// Whether the user holds the relation.
        allowed: bool,
        /// When the question was asked. The relationships that decided were at least as new as this moment, unless the
        /// server may have used caches of its own.
        as_of: Instant,
        /// Who decided.
        source: Source,
    },
    /// The server can never decide this: denied, and not to be remembered as a decision.
    Undecidable,
    /// There is no decision.
    Failed(AuthzError),
}

/// The outcome of one question.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The position of the question in [`Questions::list`].
    pub position: usize,
    /// What became of it.
    pub outcome: Outcome,
}

/// What turns outcomes into decisions at the port of the requests.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The moment before the first of them was asked.
    pub at: Instant,
    /// Who was asked.
    pub source: Source,
    /// How much older than its question the relationships may be that decided.
    pub behind_max: Duration,
}

impl Answered {
    /// Returns the decision for the port of the requests. One failure fails the whole batch there, because a part of the
    /// decisions is no decision.
    ///
    /// # Errors
    /// When there is no decision, or when somebody decided who was not asked.
    pub fn into_decision(self, asked: &Asked) -> Result<Decision, AuthzError> {
        let Self { position, outcome } = self;
        match outcome {
            Outcome::Decided { source, .. } if source != asked.source => {
                Err(AuthzError::BadAnswer("a check was decided by somebody who was not asked".to_owned()))
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

/// Answers complete questions.
#[async_trait]
pub trait Decider: Send + Sync {
    /// Answers every question exactly once, in any order.
    ///
    /// # Errors
    /// When none of them was answered.
    async fn decide(&self, questions: &Questions) -> Result<Vec<Answered>, AuthzError>;
}

/// The outcomes in the order of the questions.
///
/// INVARIANT (one answer each): every position is answered exactly once, or there is no answer at all.
///
/// # Errors
/// When a question was answered twice or not at all, or an answer is to none of them.
pub fn accounted(asked: usize, answers: Vec<Answered>) -> Result<Vec<Outcome>, AuthzError> {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; asked];
    for Answered { position, outcome } in answers {
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
        let answered = |position| Answered { position, outcome: Outcome::Undecidable };
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
