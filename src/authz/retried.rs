//! Repeats a call that did not get through. A check changes nothing, so repeating it cannot change the answer. A budget keeps
//! the repetitions from making things worse for a server in trouble.
//!
//! There is no hedging (a second call while the first one is slow): it would cost a busy server exactly what it lacks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::AuthzError;
use super::decider::{Decider, NumberedOutcome, Questions};

/// The most attempts: the first one and two repetitions.
const ATTEMPTS_MAX: u32 = 3;
/// The pause before the second attempt; it is twice as long before the third.
const PAUSE: Duration = Duration::from_millis(20);
/// The cost of a repetition. Ten calls save as much, so that at most a tenth of all calls are repetitions.
const REPETITION_COST: u32 = 10;
/// The most that can be saved, and the savings at the start. So the first calls may be repeated too, and a burst of
/// failures causes no more than ten repetitions.
const SAVINGS_MAX: u32 = 10 * REPETITION_COST;

/// Asks the decider behind it, up to `ATTEMPTS_MAX` times.
pub(super) struct RetriedDecider {
    inner: Arc<dyn Decider>,
    savings: Mutex<u32>,
}

impl RetriedDecider {
    /// Repeats calls to `inner` that ended as unavailable, while the budget and the deadline allow.
    #[must_use]
    pub(super) fn new(inner: Arc<dyn Decider>) -> Self {
        Self { inner, savings: Mutex::new(SAVINGS_MAX) }
    }

    fn save(&self) {
        let mut savings = self.savings.lock().unwrap_or_else(PoisonError::into_inner);
        *savings = (*savings + 1).min(SAVINGS_MAX);
    }

    fn spend(&self) -> bool {
        let mut savings = self.savings.lock().unwrap_or_else(PoisonError::into_inner);
        let left = savings.checked_sub(REPETITION_COST);
        *savings = left.unwrap_or(*savings);
        left.is_some()
    }
}

#[async_trait]
impl Decider for RetriedDecider {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        self.save();
        let mut attempt = 1;
        let mut pause = PAUSE;
        loop {
            let answers = self.inner.decide(questions).await;
            let Err(AuthzError::Unavailable(reason)) = &answers else { return answers };
            let in_time = Instant::now() + pause < questions.deadline;
            if attempt >= ATTEMPTS_MAX || !in_time || !self.spend() {
                return answers;
            }
            tracing::debug!(attempt, reason, "asking the authorizer again");
            sleep(pause).await;
            attempt += 1;
            pause *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::decider::doubles::{Script, Scripted, questions};

    #[tokio::test(start_paused = true)]
    async fn only_what_did_not_get_through_is_asked_again() {
        let unavailable = || Script::Fail(AuthzError::Unavailable("down".to_owned()));
        let too_large = || Script::Fail(AuthzError::MessageTooLarge("2 vs. 1".to_owned()));
        let rows: [(&str, Vec<Script>, usize, bool); 6] = [
            ("at once", vec![Script::Answer], 1, true),
            ("the second time", vec![unavailable(), Script::Answer], 2, true),
            ("never", vec![unavailable(), unavailable(), unavailable(), Script::Answer], 3, false),
            ("refused", vec![Script::Fail(AuthzError::Refused("no".to_owned())), Script::Answer], 1, false),
            ("too large", vec![too_large(), Script::Answer], 1, false),
            ("late", vec![Script::Fail(AuthzError::DeadlineExceeded), Script::Answer], 1, false),
        ];
        for (name, script, calls, answered) in rows {
            let server = Arc::new(Scripted::new(script));
            let retried = RetriedDecider::new(Arc::clone(&server) as _);
            let answers = retried.decide(&questions(3)).await;
            assert_eq!((server.calls(), answers.is_ok()), (calls, answered), "{name}: {answers:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn repetitions_end_with_the_budget_and_the_deadline() {
        let server = Arc::new(Scripted::failing(AuthzError::Unavailable("down".to_owned())));
        let retried = RetriedDecider::new(Arc::clone(&server) as _);
        for _ in 0..1_000 {
            assert!(retried.decide(&questions(1)).await.is_err());
        }
        assert!((1_000..=1_110).contains(&server.calls()), "{} calls", server.calls());

        let server = Arc::new(Scripted::failing(AuthzError::Unavailable("down".to_owned())));
        let retried = RetriedDecider::new(Arc::clone(&server) as _);
        let late = Questions { deadline: Instant::now() + PAUSE, ..questions(1) };
        assert!(retried.decide(&late).await.is_err());
        assert_eq!(server.calls(), 1);
    }
}
