//! Lets equal questions that are asked at the same time share one answer.
//!
//! A *flight* is one call of the inner decider. It needs no task of its own, because it is a future that several
//! callers share: everybody who waits for it drives it, and it ends when the last of them is gone. If a flight fails,
//! everybody who waits gets the error. There is one exception. If a flight ran out of time, a caller who had joined it
//! and has time left asks once more, because the caller who began the flight was less patient.
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
pub struct CoalescedDecider {
    inner: Arc<dyn Decider>,
    /// The least time that a flight is given, even if the caller who began it has less: others may have joined.
    patience: Duration,
    flights: Arc<Mutex<Flights>>,
}

type FlightResult = Result<Arc<[Outcome]>, AuthzError>;
type Flight = Shared<BoxFuture<'static, FlightResult>>;

#[derive(Default)]
struct Flights {
    begun: u64,
    seats: HashMap<DecisionKey, Seat>,
}

/// The place in a flight where the answer to one question will be.
struct Seat {
    flight: WeakShared<BoxFuture<'static, FlightResult>>,
    number: u64,
    place: usize,
}

/// Removes the seats of a flight when it ends, however it ends.
struct Landing {
    flights: Arc<Mutex<Flights>>,
    number: u64,
    keys: Vec<DecisionKey>,
}

/// The outcome of one question, and how it came.
struct Landed {
    outcome: Outcome,
    /// Whether somebody else began the flight.
    is_joined: bool,
}

/// The flight, and the place in it, from which one question gets its answer.
struct Ticket {
    flight: Flight,
    place: usize,
    /// Whether somebody else began the flight.
    is_joined: bool,
}

impl CoalescedDecider {
    /// Puts flights before `inner`. A flight ends after `patience`, or at the deadline of the caller who began it,
    /// whichever is later.
    #[must_use]
    pub fn new(inner: Arc<dyn Decider>, patience: Duration) -> Self {
        Self { inner, patience, flights: Arc::default() }
    }

    /// Returns a ticket for every question, in their order. All questions that nobody has asked yet go into one new
    /// flight.
    fn board(&self, questions: &Questions) -> Vec<Ticket> {
        let keys = DecisionKey::of(questions);
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let mut joined: Vec<Option<Ticket>> = Vec::with_capacity(keys.len());
        let mut own: Vec<usize> = Vec::new();
        let mut own_places: HashMap<&DecisionKey, usize> = HashMap::new();
        for (position, key) in keys.iter().enumerate() {
            let seat = flights.seats.get(key);
            let ticket = seat
                .and_then(|seat| Some(Ticket { flight: seat.flight.upgrade()?, place: seat.place, is_joined: true }));
            if ticket.is_none() && !own_places.contains_key(key) {
                own_places.insert(key, own.len());
                own.push(position);
            }
            joined.push(ticket);
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
            for (place, key) in own_keys.into_iter().enumerate() {
                flights.seats.insert(key, Seat { flight: weak.clone(), number, place });
            }
        }
        let ticket = |(key, joined): (&DecisionKey, Option<Ticket>)| {
            joined.or_else(|| Some(Ticket { flight: flight.clone(), place: *own_places.get(key)?, is_joined: false }))
        };
        keys.iter().zip(joined).filter_map(ticket).collect()
    }

    /// Returns the outcome of every question, in their order.
    async fn fly(&self, questions: &Questions) -> Result<Vec<Landed>, AuthzError> {
        let tickets = self.board(questions);
        let seats: Vec<(usize, bool)> = tickets.iter().map(|ticket| (ticket.place, ticket.is_joined)).collect();
        let landed = join_all(tickets.into_iter().map(|ticket| ticket.flight));
        let Ok(landed) = timeout_at(questions.deadline, landed).await else {
            return Err(AuthzError::DeadlineExceeded);
        };
        let mut outcomes = Vec::with_capacity(seats.len());
        for (answer, (place, is_joined)) in landed.into_iter().zip(seats) {
            let outcome = match answer {
                Ok(outcomes) => outcomes.get(place).cloned(),
                Err(error) => Some(Outcome::Failed(error)),
            };
            outcomes.extend(outcome.map(|outcome| Landed { outcome, is_joined }));
        }
        if outcomes.len() < questions.list.len() {
            return Err(AuthzError::BadAnswer("a check was left unanswered".to_owned()));
        }
        Ok(outcomes)
    }

    fn begin(&self, number: u64, questions: Questions, keys: Vec<DecisionKey>) -> Flight {
        let inner = Arc::clone(&self.inner);
        let landing = Landing { flights: Arc::clone(&self.flights), number, keys };
        // The queue turns away a call that cannot be answered by its deadline, so this deadline is never before the
        // request's own.
        let deadline = questions.deadline.max(Instant::now() + self.patience);
        let questions = Questions { deadline, ..questions };
        let flight = async move {
            let _landing = landing;
            let answers = inner.decide(&questions).await?;
            accounted(questions.list.len(), answers).map(Arc::from)
        };
        flight.boxed().shared()
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            // If nobody waited for this flight any more, another flight may have taken over its seats.
            if flights.seats.get(key).is_some_and(|seat| seat.number == self.number) {
                flights.seats.remove(key);
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
        for (position, Landed { outcome, is_joined }) in self.fly(questions).await?.into_iter().enumerate() {
            if is_joined && ran_out_of_time(&outcome) {
                again.push(position);
            } else {
                answers.push(NumberedOutcome { position, outcome });
            }
        }
        if again.is_empty() {
            return Ok(answers);
        }
        let landed = self.fly(&questions.at(&again)).await?;
        let landed = again.into_iter().zip(landed);
        answers.extend(landed.map(|(position, Landed { outcome, .. })| NumberedOutcome { position, outcome }));
        Ok(answers)
    }
}

fn ran_out_of_time(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(AuthzError::DeadlineExceeded | AuthzError::Overloaded { .. }))
}

#[cfg(test)]
mod tests;
