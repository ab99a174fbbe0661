//! Lets equal questions that are asked at the same time share one answer.
//!
//! A *flight* is one call of the inner decider. Whoever waits for a flight drives it: it belongs to nobody, goes on while
//! anybody waits, and ends when the last one is gone. An error is nobody's decision: all who wait get it as an error. Only
//! where a flight ran out of time, whoever had joined it and has time left asks once more: it was begun by somebody less
//! patient.
//!
//! A question that must see a write never joins a flight, which may have left before it: neither one for higher consistency
//! nor one for answers since a moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt, Shared, WeakShared, join_all};
use tokio::time::{Instant, timeout_at};

use super::decider::{Answered, Decider, Outcome, Questions, accounted};
use super::decision_key::DecisionKey;
use super::{AuthzError, Consistency};

/// See the module.
pub struct CoalescedDecider {
    inner: Arc<dyn Decider>,
    /// How long a flight may take at least, whatever the patience of the one who began it: others may have joined.
    patience: Duration,
    flights: Arc<Mutex<Flights>>,
}

type Answer = Result<Arc<[Outcome]>, AuthzError>;
type Flight = Shared<BoxFuture<'static, Answer>>;

#[derive(Default)]
struct Flights {
    begun: u64,
    seats: HashMap<DecisionKey, Seat>,
}

/// Where the answer to one question will be.
struct Seat {
    flight: WeakShared<BoxFuture<'static, Answer>>,
    number: u64,
    place: usize,
}

/// Takes the seats of a flight away when it ends, one way or another.
struct Landing {
    flights: Arc<Mutex<Flights>>,
    number: u64,
    keys: Vec<DecisionKey>,
}

/// One question's way to its answer.
struct Ticket {
    flight: Flight,
    place: usize,
    /// Whether somebody else began the flight.
    is_joined: bool,
}

impl CoalescedDecider {
    /// Flights over `inner`, which end after `patience` or at the deadline of the one who began it, whichever is later.
    #[must_use]
    pub fn new(inner: Arc<dyn Decider>, patience: Duration) -> Self {
        Self { inner, patience, flights: Arc::default() }
    }

    /// A ticket for every question, in their order: for a flight that is under way, or for one that takes all the others.
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

    /// The outcome of every question in their order, and whether it is that of a flight which somebody else began.
    async fn fly(&self, questions: &Questions) -> Result<Vec<(Outcome, bool)>, AuthzError> {
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
            outcomes.extend(outcome.map(|outcome| (outcome, is_joined)));
        }
        if outcomes.len() < questions.list.len() {
            return Err(AuthzError::BadAnswer("a check was left unanswered".to_owned()));
        }
        Ok(outcomes)
    }

    fn begin(&self, number: u64, questions: Questions, keys: Vec<DecisionKey>) -> Flight {
        let inner = Arc::clone(&self.inner);
        let landing = Landing { flights: Arc::clone(&self.flights), number, keys };
        // The queue turns a call away if it cannot be answered by this deadline, so this is never before the request's own.
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
            // Another flight may have taken the place of one that nobody waited for any more.
            if flights.seats.get(key).is_some_and(|seat| seat.number == self.number) {
                flights.seats.remove(key);
            }
        }
    }
}

#[async_trait]
impl Decider for CoalescedDecider {
    async fn decide(&self, questions: &Questions) -> Result<Vec<Answered>, AuthzError> {
        match questions.scope.consistency {
            Consistency::MinimizeLatency => {}
            Consistency::AtLeastAsFresh(_) | Consistency::HigherConsistency => {
                return self.inner.decide(questions).await;
            }
        }
        let mut answers = Vec::with_capacity(questions.list.len());
        let mut again = Vec::new();
        for (position, (outcome, is_joined)) in self.fly(questions).await?.into_iter().enumerate() {
            if is_joined && ran_out_of_time(&outcome) {
                again.push(position);
            } else {
                answers.push(Answered { position, outcome });
            }
        }
        if again.is_empty() {
            return Ok(answers);
        }
        let outcomes = self.fly(&questions.at(&again)).await?;
        let outcomes = again.into_iter().zip(outcomes);
        answers.extend(outcomes.map(|(position, (outcome, _))| Answered { position, outcome }));
        Ok(answers)
    }
}

fn ran_out_of_time(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(AuthzError::DeadlineExceeded | AuthzError::Overloaded { .. }))
}

#[cfg(test)]
mod tests;
