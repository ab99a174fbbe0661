//! A circuit breaker: while a server keeps failing, callers get an error at once, and the server gets time to recover.
//!
//! After `FAILURES_MAX` failures in a row the breaker opens and lets nothing through for `PAUSE`. Then it lets one call
//! try. If that succeeds, the breaker closes; if it fails, the breaker stays open for another pause.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::AuthzError;
use super::decider::{Decider, NumberedOutcome, Questions};

/// The number of failures in a row that opens the breaker: more than an accident explains.
const FAILURES_MAX: u32 = 5;
/// The time for which an open breaker lets nothing through.
const PAUSE: Duration = Duration::from_secs(1);

/// Asks the decider behind it, unless that decider keeps failing.
pub(super) struct BreakerDecider {
    inner: Arc<dyn Decider>,
    /// The longest that any call takes. A deadline that passes sooner says more about the caller than about the server.
    call_timeout: Duration,
    circuit: Mutex<Circuit>,
}

#[derive(Clone, Copy, Debug)]
enum Circuit {
    Closed { failures: u32 },
    Open { until: Instant },
    Trying,
}

/// A call that the breaker let through. If it is dropped without a result, it was cancelled. That says nothing about
/// the server, so the next call may try.
struct CallPermit<'a> {
    breaker: &'a BreakerDecider,
    trying: bool,
}

impl BreakerDecider {
    /// Puts a closed breaker before `inner`. `call_timeout` is the longest that any call takes.
    #[must_use]
    pub(super) fn new(inner: Arc<dyn Decider>, call_timeout: Duration) -> Self {
        Self { inner, call_timeout, circuit: Mutex::new(Circuit::Closed { failures: 0 }) }
    }

    fn admit(&self) -> Result<CallPermit<'_>, AuthzError> {
        let mut circuit = self.circuit.lock().unwrap_or_else(PoisonError::into_inner);
        let trying = match *circuit {
            Circuit::Closed { .. } => false,
            Circuit::Open { until } if until <= Instant::now() => true,
            Circuit::Open { .. } | Circuit::Trying => {
                return Err(AuthzError::Unavailable(format!("not asked: its last {FAILURES_MAX} calls failed")));
            }
        };
        if trying {
            *circuit = Circuit::Trying;
        }
        Ok(CallPermit { breaker: self, trying })
    }

    fn is_failure(&self, error: &AuthzError, took: Duration) -> bool {
        match error {
            AuthzError::Unavailable(_) | AuthzError::BadAnswer(_) => true,
            AuthzError::DeadlineExceeded => took >= self.call_timeout,
            AuthzError::NoModel
            | AuthzError::NoStore(_)
            | AuthzError::Refused(_)
            | AuthzError::Stored(_)
            | AuthzError::Overloaded { .. }
            | AuthzError::MessageTooLarge(_)
            | AuthzError::TooManyChecks { .. } => false,
        }
    }
}

impl CallPermit<'_> {
    fn ended(mut self, failed: bool) {
        let trying = std::mem::replace(&mut self.trying, false);
        let mut circuit = self.breaker.circuit.lock().unwrap_or_else(PoisonError::into_inner);
        *circuit = match *circuit {
            Circuit::Closed { .. } | Circuit::Trying if !failed => Circuit::Closed { failures: 0 },
            Circuit::Closed { failures } if failures + 1 < FAILURES_MAX => Circuit::Closed { failures: failures + 1 },
            Circuit::Closed { .. } => Circuit::Open { until: Instant::now() + PAUSE },
            Circuit::Trying if trying => Circuit::Open { until: Instant::now() + PAUSE },
            // A call from before the breaker opened tells nothing new.
            unchanged @ (Circuit::Trying | Circuit::Open { .. }) => unchanged,
        };
        if let Circuit::Open { .. } = *circuit {
            tracing::warn!(
                pause_ms = PAUSE.as_millis(),
                "the authorizer keeps failing, so nothing is asked for a while"
            );
        }
    }
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        if self.trying {
            let mut circuit = self.breaker.circuit.lock().unwrap_or_else(PoisonError::into_inner);
            *circuit = Circuit::Open { until: Instant::now() };
        }
    }
}

#[async_trait]
impl Decider for BreakerDecider {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        let permit = self.admit()?;
        let asked = Instant::now();
        let answers = self.inner.decide(questions).await;
        let failed = answers.as_ref().is_err_and(|error| self.is_failure(error, asked.elapsed()));
        permit.ended(failed);
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::decider::doubles::{Script, Scripted, questions};

    const CALL_TIMEOUT: Duration = Duration::from_secs(3);

    fn down() -> Script {
        Script::Fail(AuthzError::Unavailable("down".to_owned()))
    }

    async fn fails(breaker: &BreakerDecider) -> bool {
        breaker.decide(&questions(1)).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_tries_and_closes() {
        let mut script: Vec<Script> = (0..FAILURES_MAX).map(|_| down()).collect();
        script.extend([down(), Script::Hang, Script::Answer, Script::Answer]);
        let server = Arc::new(Scripted::new(script));
        let breaker = BreakerDecider::new(Arc::clone(&server) as _, CALL_TIMEOUT);
        for _ in 0..FAILURES_MAX {
            assert!(fails(&breaker).await);
        }
        assert!(fails(&breaker).await);
        assert_eq!(server.calls(), 5, "open: nothing is asked");
        tokio::time::advance(PAUSE).await;
        assert!(fails(&breaker).await);
        assert_eq!(server.calls(), 6, "one tries, and fails");
        assert!(fails(&breaker).await);
        assert_eq!(server.calls(), 6, "open again");

        tokio::time::advance(PAUSE).await;
        {
            let ask = questions(1);
            let hanging = breaker.decide(&ask);
            tokio::pin!(hanging);
            assert!(futures::poll!(&mut hanging).is_pending());
            assert!(fails(&breaker).await, "one tries at a time");
            assert_eq!(server.calls(), 7);
        }
        assert!(!fails(&breaker).await, "the one that tried was cancelled");
        assert!(!fails(&breaker).await, "closed");
    }

    #[tokio::test(start_paused = true)]
    async fn only_failures_in_a_row_open_it() {
        let refused = || Script::Fail(AuthzError::Refused("no".to_owned()));
        let late = || Script::Fail(AuthzError::DeadlineExceeded);
        let four = || (1..FAILURES_MAX).map(|_| down());
        let too_large = || Script::Fail(AuthzError::MessageTooLarge("2 vs. 1".to_owned()));
        let rows: [(&str, Vec<Script>); 4] = [
            ("interrupted by a success", four().chain([Script::Answer]).chain(four()).collect()),
            ("refusals", (0..20).map(|_| refused()).collect()),
            ("messages that are too large", (0..20).map(|_| too_large()).collect()),
            ("short deadlines of the callers", (0..20).map(|_| late()).collect()),
        ];
        for (name, mut script) in rows {
            let calls = script.len();
            script.push(Script::Answer);
            let server = Arc::new(Scripted::new(script));
            let breaker = BreakerDecider::new(Arc::clone(&server) as _, CALL_TIMEOUT);
            for _ in 0..calls {
                fails(&breaker).await;
            }
            assert!(!fails(&breaker).await, "{name}");
        }
    }
}
