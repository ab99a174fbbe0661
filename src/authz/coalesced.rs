//! Lets equal questions that are asked at the same time share one answer.
//!
//! A *flight* is one call of the inner decider. It needs no task of its own, because it is a future that several
//! callers share: everybody who waits for it drives it, and it ends when the last of them is gone. If a flight fails,
//! everybody who waits gets the error. There is one exception. If a flight ran out of time, a caller who had joined it
//! and has time left asks once more, because the caller who began the flight had an earlier deadline.
//!
//! A question that must see a write (one for higher consistency, or for answers since a moment) never joins a flight,
//! because the flight may have left before that write.
//!
//! `tests/checks/interleavings.rs` runs this module in chosen orders: it switches tasks wherever they await, and treats
//! the insides of `moka` and [`Shared`] as atomic.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt, Shared, WeakShared, join_all};
use tokio::time::{Instant, timeout_at};

use super::decider::{Decider, NumberedOutcome, Outcome, Questions, accounted};
use super::decision_key::DecisionKey;
use super::{AuthzError, Consistency};

/// Asks the decider behind it once for all equal questions that wait at the same time.
pub(super) struct CoalescedDecider {
    inner: Arc<dyn Decider>,
    /// The least time that a flight is given, even if the caller who began it has less: others may have joined.
    call_timeout: Duration,
    flights: Arc<Mutex<Flights>>,
}

type FlightResult = Result<Arc<[Outcome]>, AuthzError>;
type Flight = Shared<BoxFuture<'static, FlightResult>>;

#[derive(Default)]
struct Flights {
    begun: u64,
    /// The questions that are being asked.
    in_flight: HashMap<DecisionKey, InFlight>,
}

/// A question that is being asked.
struct InFlight {
    flight: WeakShared<BoxFuture<'static, FlightResult>>,
    number: u64,
    /// The position of the question in its flight.
    position: usize,
}

/// Removes the questions of a flight from those in flight when the flight ends, however it ends.
struct RemoveOnDrop {
    flights: Arc<Mutex<Flights>>,
    number: u64,
    keys: Vec<DecisionKey>,
}

/// The outcome of one question, and how it came.
struct SharedOutcome {
    outcome: Outcome,
    /// Whether somebody else began the flight.
    is_joined: bool,
}

/// A question of a caller, whose answer comes from a flight.
struct Awaited {
    flight: Flight,
    place: AnswerPlace,
}

/// The place of one answer among those of a flight.
struct AnswerPlace {
    position: usize,
    /// Whether somebody else began the flight.
    is_joined: bool,
}

impl CoalescedDecider {
    /// Puts flights before `inner`. A flight ends after `call_timeout`, or at the deadline of the caller who began it,
    /// whichever is later.
    #[must_use]
    pub(super) fn new(inner: Arc<dyn Decider>, call_timeout: Duration) -> Self {
        Self { inner, call_timeout, flights: Arc::default() }
    }

    /// Returns the source of the answer to each question, in the order of the questions. All questions that nobody is
    /// asking yet go into one new flight.
    fn join_or_begin(&self, questions: &Questions) -> Vec<Awaited> {
        let keys = DecisionKey::of(questions);
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let mut joined: Vec<Option<Awaited>> = Vec::with_capacity(keys.len());
        let mut own: Vec<usize> = Vec::new();
        let mut own_positions: HashMap<&DecisionKey, usize> = HashMap::new();
        for (position, key) in keys.iter().enumerate() {
            let awaited = flights.in_flight.get(key).and_then(|known| {
                let place = AnswerPlace { position: known.position, is_joined: true };
                Some(Awaited { flight: known.flight.upgrade()?, place })
            });
            if awaited.is_none() && !own_positions.contains_key(key) {
                own_positions.insert(key, own.len());
                own.push(position);
            }
            joined.push(awaited);
        }
        tracing::debug!(joined = joined.iter().flatten().count(), asked = own.len(), "checks coalesced");
        if own.is_empty() {
            return joined.into_iter().flatten().collect();
        }
        let number = flights.begun;
        flights.begun += 1;
        let own_keys: Vec<DecisionKey> = own.iter().filter_map(|position| keys.get(*position).cloned()).collect();
        let flight = self.begin(number, questions.at(&own), own_keys.clone());
        if let Some(weak) = flight.downgrade() {
            for (position, key) in own_keys.into_iter().enumerate() {
                flights.in_flight.insert(key, InFlight { flight: weak.clone(), number, position });
            }
        }
        let awaited = |(key, joined): (&DecisionKey, Option<Awaited>)| {
            joined.or_else(|| {
                let place = AnswerPlace { position: *own_positions.get(key)?, is_joined: false };
                Some(Awaited { flight: flight.clone(), place })
            })
        };
        keys.iter().zip(joined).filter_map(awaited).collect()
    }

    /// Returns the outcome of every question, in their order.
    async fn ask_shared(&self, questions: &Questions) -> Result<Vec<SharedOutcome>, AuthzError> {
        let awaited = self.join_or_begin(questions).into_iter().map(|awaited| (awaited.flight, awaited.place));
        let (flights, places): (Vec<Flight>, Vec<AnswerPlace>) = awaited.unzip();
        let Ok(results) = timeout_at(questions.deadline, join_all(flights)).await else {
            return Err(AuthzError::DeadlineExceeded);
        };
        let mut outcomes = Vec::with_capacity(places.len());
        for (result, AnswerPlace { position, is_joined }) in results.into_iter().zip(places) {
            let outcome = match result {
                Ok(outcomes) => outcomes.get(position).cloned(),
                Err(error) => Some(Outcome::Failed(error)),
            };
            outcomes.extend(outcome.map(|outcome| SharedOutcome { outcome, is_joined }));
        }
        if outcomes.len() < questions.list.len() {
            return Err(AuthzError::BadAnswer("a check was left unanswered".to_owned()));
        }
        Ok(outcomes)
    }

    fn begin(&self, number: u64, questions: Questions, keys: Vec<DecisionKey>) -> Flight {
        let inner = Arc::clone(&self.inner);
        let remove_on_drop = RemoveOnDrop { flights: Arc::clone(&self.flights), number, keys };
        // The queue turns away a call that cannot be answered by its deadline, so this deadline is never before the
        // request's own.
        let deadline = questions.deadline.max(Instant::now() + self.call_timeout);
        let questions = Questions { deadline, ..questions };
        let flight = async move {
            let _held = remove_on_drop;
            let answers = inner.decide(&questions).await?;
            accounted(questions.list.len(), answers).map(Arc::from)
        };
        flight.boxed().shared()
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            // If nobody waited for this flight any more, another flight may have taken over its questions.
            if flights.in_flight.get(key).is_some_and(|known| known.number == self.number) {
                flights.in_flight.remove(key);
            }
        }
    }
}

#[async_trait]
impl Decider for CoalescedDecider {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        match questions.basis.consistency {
            Consistency::MinimizeLatency => {}
            Consistency::AtLeastAsFresh(_) | Consistency::HigherConsistency => {
                return self.inner.decide(questions).await;
            }
        }
        let mut answers = Vec::with_capacity(questions.list.len());
        let mut again = Vec::new();
        for (position, shared) in self.ask_shared(questions).await?.into_iter().enumerate() {
            let SharedOutcome { outcome, is_joined } = shared;
            if is_joined && ran_out_of_time(&outcome) {
                again.push(position);
            } else {
                answers.push(NumberedOutcome { position, outcome });
            }
        }
        if again.is_empty() {
            return Ok(answers);
        }
        let second = again.iter().copied().zip(self.ask_shared(&questions.at(&again)).await?);
        answers.extend(second.map(|(position, shared)| NumberedOutcome { position, outcome: shared.outcome }));
        Ok(answers)
    }
}

fn ran_out_of_time(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(AuthzError::DeadlineExceeded | AuthzError::Overloaded { .. }))
}

#[cfg(test)]
mod tests;
