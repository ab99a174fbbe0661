//! A decider that follows a script, and questions to ask it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::language::Relation;

/// What one call does.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// Answers rightly: see [`is_allowed`].
    Answer,
    /// Fails as a whole.
    Fail(AuthzError),
    /// Never ends.
    Hang,
    /// Waits to be let go on, then answers.
    Hold(Arc<tokio::sync::Notify>),
}

/// Follows a script; answers rightly once it is over.
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

    /// The questions of every call.
    pub(crate) fn asked(&self) -> Vec<Questions> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Decider for Scripted {
    async fn decide(&self, questions: &Questions) -> Result<Vec<Answered>, AuthzError> {
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
            Answered { position, outcome }
        };
        Ok(questions.list.iter().enumerate().map(answer).collect())
    }
}

/// Every object with an even number is everybody's.
pub(crate) fn is_allowed(check: &Check) -> bool {
    check.object.id().parse::<u64>().expect("a number") % 2 == 0
}

/// What was decided, by position.
pub(crate) fn decided(asked: usize, answers: Vec<Answered>) -> Vec<bool> {
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

pub(crate) fn scope() -> Scope {
    Scope {
        store_id: "store".to_owned(),
        model_id: "model".to_owned(),
        consistency: Consistency::MinimizeLatency,
        generation: 0,
        recall: Recall::Generation,
        source: Source::Authority,
    }
}

/// Questions of a user about some objects.
pub(crate) fn of(user: &str, objects: impl IntoIterator<Item = u64>) -> Questions {
    Questions {
        scope: Arc::new(scope()),
        list: objects.into_iter().map(|object| question(user, object)).collect(),
        principal: Object::parse(user).expect("a user"),
        deadline: Instant::now() + std::time::Duration::from_secs(10),
    }
}

/// Anne's questions about the first objects.
pub(crate) fn questions(count: u64) -> Questions {
    of("user:anne", 0..count)
}
