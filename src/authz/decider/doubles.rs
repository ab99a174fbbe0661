//! A decider that follows a script, and questions to ask it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::language::Relation;

/// One step of a scripted decider.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// Answers as [`is_allowed`] says.
    Answer,
    /// Fails as a whole.
    Fail(AuthzError),
    /// Never ends.
    Hang,
    /// Waits until it is notified, then answers.
    Hold(Arc<tokio::sync::Notify>),
}

/// Follows a script, one step a call. After the script it answers as [`is_allowed`] says.
pub(crate) struct Scripted {
    script: Mutex<VecDeque<Script>>,
    otherwise: Script,
    calls: Mutex<Vec<Questions>>,
}

impl Scripted {
    pub(crate) fn new(script: Vec<Script>) -> Self {
        Self { script: Mutex::new(script.into()), otherwise: Script::Answer, calls: Mutex::default() }
    }

    pub(crate) fn failing(error: AuthzError) -> Self {
        Self { otherwise: Script::Fail(error), ..Self::new(Vec::new()) }
    }

    pub(crate) fn calls(&self) -> usize {
        self.asked().len()
    }

    /// Returns the questions of every call so far.
    pub(crate) fn asked(&self) -> Vec<Questions> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Decider for Scripted {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        let as_of = Instant::now();
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(questions.clone());
        let next = self.script.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        match next.unwrap_or_else(|| self.otherwise.clone()) {
            Script::Answer => {}
            Script::Fail(error) => {
                tokio::task::yield_now().await;
                return Err(error);
            }
            Script::Hang => std::future::pending().await,
            Script::Hold(gate) => gate.notified().await,
        }
        let answer = |(position, question): (usize, &Question)| {
            let outcome = Outcome::Decided { allowed: is_allowed(&question.check), as_of, source: Source::Authority };
            NumberedOutcome { position, outcome }
        };
        Ok(questions.list.iter().enumerate().map(answer).collect())
    }
}

/// Allows every user every object whose id is an even number.
pub(crate) fn is_allowed(check: &Check) -> bool {
    check.object.id().parse::<u64>().expect("a number") % 2 == 0
}

/// Returns the decisions, in the order of the questions.
pub(crate) fn decided(asked: usize, answers: Vec<NumberedOutcome>) -> Vec<bool> {
    let allowed = |outcome| match outcome {
        Outcome::Decided { allowed, .. } => allowed,
        Outcome::Undecidable | Outcome::Failed(_) => panic!("{outcome:?}"),
    };
    accounted(asked, answers).expect("one answer each").into_iter().map(allowed).collect()
}

pub(crate) fn question(user: &str, object: u64) -> Question {
    let check = Check {
        user: Object::parse(user).expect("a user"),
        relation: Relation::parse("can_read").expect("a relation"),
        object: Object::parse(&format!("document:{object}")).expect("an object"),
    };
    Question { check, contextual: Arc::default() }
}

pub(crate) fn basis() -> Basis {
    Basis {
        store_id: "store".to_owned(),
        model_id: "model".to_owned(),
        consistency: Consistency::MinimizeLatency,
        generation: 0,
        recall: Recall::Generation,
        source: Source::Authority,
    }
}

/// Makes questions of one user about documents with these numbers.
pub(crate) fn of(user: &str, objects: impl IntoIterator<Item = u64>) -> Questions {
    Questions {
        basis: Arc::new(basis()),
        list: objects.into_iter().map(|object| question(user, object)).collect(),
        principal: Object::parse(user).expect("a user"),
        deadline: Instant::now() + std::time::Duration::from_secs(10),
    }
}

/// Makes Anne's questions about the first `count` documents.
pub(crate) fn questions(count: u64) -> Questions {
    of("user:anne", 0..count)
}
