//! Gathers the waiting checks of all requests into full calls.
//!
//! No check waits for others to join it: there is no time window in which checks are gathered. A call leaves as soon as
//! a slot is free, with all checks that wait by then. So a lone check leaves at once, and calls are full when there is
//! much to ask. The number of slots follows the latency (`limit`). Callers take turns to get their checks into the next
//! call (`queue`). Turns are counted by caller, so a caller gains nothing by asking for fresher answers, which share no
//! call with the rest.
//!
//! A caller is refused at once if its checks cannot be answered before its deadline. It is never refused because of its
//! own checks: while nobody else waits, its checks are taken, however long the estimate says they will take. Only
//! answers correct an estimate, so an estimate that refused everybody would never be corrected. A caller that has
//! filled its share of the queue waits outside until there is room.
//!
//! A call that the server refuses as a whole is asked once more in parts. If it held too many checks, the parts are
//! smaller. If it held the checks of several principals, each gets a part. So a fault in one question fails only the
//! principal that asked it.
//!
//! A call also has a bound in bytes, because every check carries what its request adds. A message that is too large is
//! no sign of trouble, so it opens no breaker. It is not repeated as it is, but halved until the server takes it. A
//! call that took longer than a call may take is halved as well, for the requests that still wait: half of the checks
//! need about half of the time.

mod limit;
mod queue;
mod shed;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::limit::{ConcurrencyLimit, LimitUse};
use self::queue::{CallBounds, FairQueue};
use self::shed::{ShedLog, ShedReason};
use super::checks_config::PRINCIPAL_SHARE;
use super::decider::{
    Basis, CONTEXTUAL_BYTES_PER_CALL, Decider, NumberedOutcome, Outcome, Question, Questions, accounted,
};
use super::{AuthzError, ChecksConfig, OpenFgaConfig};
use crate::engine::Contextual;
use crate::language::Object;

/// The number of calls that may be in flight before anything is known about the server.
const CALLS_AT_FIRST: u32 = 8;
/// The shortest wait that a refused caller is told. Any sooner, the queue would hardly have moved.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(100);
/// The longest wait that a refused caller is told. A longer estimate is too uncertain to be of use.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// Puts the questions of all callers into full calls of the decider behind it.
pub(super) struct BatchedDecider {
    shared: Arc<Shared>,
    /// The running workers. They end when this is dropped.
    workers: Mutex<JoinSet<()>>,
}

struct Shared {
    inner: Arc<dyn Decider>,
    checks_waiting_max: usize,
    /// The longest that a call may take.
    call_timeout: Duration,
    state: Mutex<QueueState>,
}

struct QueueState {
    queue: FairQueue<QueuedCheck>,
    limit: ConcurrencyLimit,
    calls_in_flight: u64,
    /// The most checks of one call. It falls when the server says that it takes fewer.
    checks_per_call: usize,
    /// The moving average of the latency of the latest calls.
    latency: Duration,
    /// The callers that have filled their share of the queue and wait for room in it.
    outside: HashMap<Object, Outside>,
    shed_log: ShedLog,
}

/// The requests of one principal that wait for room in the queue. Their number needs no bound here: each request is in memory
/// anyway, and leaves at its deadline.
#[derive(Debug, Default)]
struct Outside {
    requests: usize,
    room: Arc<Notify>,
}

/// Whether questions were put into the queue.
enum Admission {
    Admitted,
    /// The principal has filled its share of the queue. This notifies when there is room.
    NoRoom(Arc<Notify>),
}

/// Counts one request as waiting outside the queue until it is dropped.
struct WaitsOutside<'a> {
    shared: &'a Shared,
    principal: &'a Object,
}

/// A question that waits for its answer. Answering consumes it, so there is at most one answer.
#[derive(Debug)]
struct QueuedCheck {
    question: Question,
    /// The bytes that the request adds to the question on the wire.
    contextual_bytes: usize,
    principal: Object,
    position: usize,
    deadline: Instant,
    reply: mpsc::UnboundedSender<NumberedOutcome>,
}

/// A slot among the calls in flight. Dropping it frees the slot, however its worker ended.
struct Slot(Arc<Shared>);

struct Call {
    basis: Arc<Basis>,
    checks: Vec<QueuedCheck>,
}

impl BatchedDecider {
    /// Gathers questions into calls to `inner`, of the size that `openfga` allows and under the bounds of `checks`.
    #[must_use]
    pub(super) fn new(inner: Arc<dyn Decider>, openfga: &OpenFgaConfig, checks: &ChecksConfig) -> Self {
        let state = QueueState {
            queue: FairQueue::default(),
            limit: ConcurrencyLimit::new(CALLS_AT_FIRST, checks.calls_in_flight_max),
            calls_in_flight: 0,
            checks_per_call: openfga.checks_per_call.max(1),
            latency: Duration::ZERO,
            outside: HashMap::new(),
            shed_log: ShedLog::default(),
        };
        let shared = Shared {
            inner,
            checks_waiting_max: checks.checks_waiting_max,
            call_timeout: openfga.timeout,
            state: Mutex::new(state),
        };
        Self { shared: Arc::new(shared), workers: Mutex::default() }
    }

    /// Starts a worker for every free slot that has something to ask.
    fn dispatch(&self) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        while workers.try_join_next().is_some() {}
        while let Some((slot, call)) = Shared::next_call(&self.shared) {
            workers.spawn(work(slot, call));
        }
    }
}

#[async_trait]
impl Decider for BatchedDecider {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        let (reply, mut replies) = mpsc::unbounded_channel();
        let answering = async {
            self.shared.enter(questions, reply).await?;
            self.dispatch();
            let mut answers = Vec::with_capacity(questions.list.len());
            // Each question holds a sender of the channel, so this ends when every question is answered or given up.
            while let Some(answered) = replies.recv().await {
                answers.push(answered);
            }
            Ok(answers)
        };
        match timeout_at(questions.deadline, answering).await {
            Ok(answers) => answers,
            Err(_elapsed) => Err(AuthzError::DeadlineExceeded),
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the questions into the queue, and waits for room if there is none.
    async fn enter(
        &self,
        questions: &Questions,
        reply: mpsc::UnboundedSender<NumberedOutcome>,
    ) -> Result<(), AuthzError> {
        let mut outside = None;
        loop {
            match self.admit(questions, &reply, &mut outside)? {
                Admission::Admitted => return Ok(()),
                Admission::NoRoom(room) => room.notified().await,
            }
        }
    }

    /// Puts all questions into the queue, or none. If none, the request counts as one that waits `outside`.
    fn admit<'s>(
        &'s self,
        questions: &'s Questions,
        reply: &mpsc::UnboundedSender<NumberedOutcome>,
        outside: &mut Option<WaitsOutside<'s>>,
    ) -> Result<Admission, AuthzError> {
        let contextual_bytes = contextual_bytes(&questions.list);
        let mut guard = self.lock();
        let state = &mut *guard;
        let principal = &questions.principal;
        let (waiting, own) = (state.queue.len(), state.queue.len_of(principal));
        let (count, waiting_max) = (questions.list.len(), self.checks_waiting_max);
        let is_alone = waiting == own;
        let wait = state.expected_wait(principal, count);
        let is_late = Instant::now() + wait > questions.deadline;
        let is_full = waiting + count > waiting_max;
        let reason = match (is_alone, is_late, is_full) {
            (false, true, _) => Some(ShedReason::CannotBeInTime),
            // Others have filled the queue. A caller that has checks in it is not refused, but waits until those are
            // taken.
            (false, _, true) if own == 0 => Some(ShedReason::QueueIsFull),
            _ => None,
        };
        if let Some(reason) = reason {
            let shed = shed::Shed { reason, checks: count, waiting, own, wait, deadline: questions.deadline };
            state.shed_log.note(&shed, state.limit.calls(), state.latency);
            return Err(AuthzError::Overloaded { retry_after: wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX) });
        }
        if own > 0 && (is_full || own + count > waiting_max / PRINCIPAL_SHARE) {
            let of_principal = state.outside.entry(principal.clone()).or_default();
            if outside.is_none() {
                of_principal.requests += 1;
                *outside = Some(WaitsOutside { shared: self, principal });
            }
            return Ok(Admission::NoRoom(Arc::clone(&of_principal.room)));
        }
        for ((position, question), contextual_bytes) in questions.list.iter().enumerate().zip(contextual_bytes) {
            let check = QueuedCheck {
                question: question.clone(),
                contextual_bytes,
                principal: principal.clone(),
                position,
                deadline: questions.deadline,
                reply: reply.clone(),
            };
            state.queue.push(&questions.basis, principal, check);
        }
        Ok(Admission::Admitted)
    }

    fn next_call(shared: &Arc<Self>) -> Option<(Slot, Call)> {
        let mut state = shared.lock();
        if state.calls_in_flight >= state.limit.calls() {
            return None;
        }
        let bounds = CallBounds { checks_max: state.checks_per_call, bytes_max: CONTEXTUAL_BYTES_PER_CALL };
        let now = Instant::now();
        let taken = state.queue.take(bounds, |check| check.contextual_bytes, |check| check.is_wanted(now));
        state.tell_of_room(shared.checks_waiting_max / PRINCIPAL_SHARE);
        let (basis, checks) = taken?;
        state.calls_in_flight += 1;
        Some((Slot(Arc::clone(shared)), Call { basis, checks }))
    }

    /// Asks one call, and answers everybody who waits for it.
    async fn run(&self, call: Call) {
        let asked = Instant::now();
        let checks = call.checks.len();
        let answered = self.ask(&call).await;
        self.observe(checks, asked.elapsed(), answered.as_ref().err());
        let parts = match answered {
            Ok(outcomes) => return call.answer(outcomes),
            Err(AuthzError::TooManyChecks { checks_max }) => {
                let checks_max = self.learn(checks, checks_max);
                call.split(|before: &[QueuedCheck], _| before.len() >= checks_max)
            }
            Err(AuthzError::Refused(_) | AuthzError::MessageTooLarge(_)) if call.is_mixed() => {
                call.split(|before, next| before.iter().any(|check| check.principal != next.principal))
            }
            Err(error) if call.halves_may_be_answered_after(&error) => call.halved(),
            Err(error) => return call.fail(&error),
        };
        for part in parts {
            self.run_part(part).await;
        }
    }

    /// Asks a part of a refused call. Halving ends with single checks, so there are at most twice as many calls as checks.
    async fn run_part(&self, part: Call) {
        let mut parts = vec![part];
        while let Some(part) = parts.pop() {
            match self.ask(&part).await {
                Ok(outcomes) => part.answer(outcomes),
                Err(error) if part.halves_may_be_answered_after(&error) => parts.extend(part.halved()),
                Err(error) => part.fail(&error),
            }
        }
    }

    /// Asks one call, and gives it up when nobody waits for it any more.
    async fn ask(&self, call: &Call) -> Result<Vec<Outcome>, AuthzError> {
        let Some(first) = call.checks.first() else { return Ok(Vec::new()) };
        let now = Instant::now();
        let last = call.checks.iter().map(|check| check.deadline).max().unwrap_or(now);
        let questions = Questions {
            basis: Arc::clone(&call.basis),
            list: call.checks.iter().map(|check| check.question.clone()).collect(),
            principal: first.principal.clone(),
            deadline: last.min(now + self.call_timeout),
        };
        let asking = timeout_at(questions.deadline, self.inner.decide(&questions));
        let abandoned = join_all(call.checks.iter().map(|check| check.reply.closed()));
        tokio::select! {
            biased;
            answers = asking => match answers {
                Ok(answers) => accounted(questions.list.len(), answers?),
                Err(_elapsed) => Err(AuthzError::DeadlineExceeded),
            },
            _ = abandoned => Err(AuthzError::DeadlineExceeded),
        }
    }

    fn observe(&self, checks: usize, latency: Duration, error: Option<&AuthzError>) {
        let mut state = self.lock();
        match error {
            None => {
                let is_full = state.calls_in_flight >= state.limit.calls();
                let use_of_limit = if is_full { LimitUse::Full } else { LimitUse::Partial };
                state.limit.answered(checks, latency, use_of_limit);
                let before = if state.latency.is_zero() { latency } else { state.latency };
                state.latency = (before * 7 + latency) / 8;
            }
            // The callers gave the call up, which says nothing about the server.
            Some(AuthzError::DeadlineExceeded) if latency < self.call_timeout => {}
            Some(AuthzError::Unavailable(_) | AuthzError::DeadlineExceeded) => state.limit.failed(),
            Some(
                AuthzError::NoModel
                | AuthzError::NoStore(_)
                | AuthzError::Refused(_)
                | AuthzError::BadAnswer(_)
                | AuthzError::Stored(_)
                | AuthzError::Overloaded { .. }
                | AuthzError::MessageTooLarge(_)
                | AuthzError::TooManyChecks { .. },
            ) => {}
        }
        tracing::debug!(checks, latency_ms = latency.as_millis(), calls_max = state.limit.calls(), "a call of checks");
    }

    /// Returns how many checks to try after the server refused `asked` in one call. A smaller maximum that the server names
    /// holds for all later calls. Otherwise half is tried, this once: a server that contradicts itself must not make all
    /// later calls small.
    fn learn(&self, asked: usize, said: Option<usize>) -> usize {
        let Some(checks_max) = said.filter(|said| (1..asked).contains(said)) else { return (asked / 2).max(1) };
        let mut state = self.lock();
        state.checks_per_call = state.checks_per_call.min(checks_max);
        tracing::warn!(asked, checks_max, "the authorizer takes fewer checks in one call than configured");
        checks_max
    }
}

impl QueueState {
    /// Estimates from the latest calls how long the last of `more` checks of a principal will wait. Principals take
    /// turns, so until then no other gets more checks into calls than this one.
    fn expected_wait(&self, principal: &Object, more: usize) -> Duration {
        let own = self.queue.len_of(principal).saturating_add(more);
        let all = self.queue.len().saturating_add(more);
        let ahead = all.min(own.saturating_mul(self.queue.principals_with(principal)));
        let calls = u64::try_from(ahead / self.checks_per_call).unwrap_or(u64::MAX);
        let rounds = calls / self.limit.calls().max(1);
        self.latency.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    /// Wakes as many waiting requests of each principal as its share has room for, if each request has one check.
    fn tell_of_room(&self, share: usize) {
        for (principal, outside) in &self.outside {
            let room = share.saturating_sub(self.queue.len_of(principal));
            for _ in 0..room.min(outside.requests) {
                outside.room.notify_one();
            }
        }
    }
}

impl Drop for WaitsOutside<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let Some(outside) = state.outside.get_mut(self.principal) else { return };
        outside.requests = outside.requests.saturating_sub(1);
        if outside.requests == 0 {
            state.outside.remove(self.principal);
        }
    }
}

impl QueuedCheck {
    /// Returns whether anybody still waits for the answer.
    fn is_wanted(&self, now: Instant) -> bool {
        !self.reply.is_closed() && now < self.deadline
    }

    fn answer(self, outcome: Outcome) {
        if self.reply.send(NumberedOutcome { position: self.position, outcome }).is_err() {
            // The caller may have gone; then nobody reads this answer.
        }
    }
}

impl Call {
    fn answer(self, outcomes: Vec<Outcome>) {
        for (check, outcome) in self.checks.into_iter().zip(outcomes) {
            check.answer(outcome);
        }
    }

    fn fail(self, error: &AuthzError) {
        for check in self.checks {
            check.answer(Outcome::Failed(error.clone()));
        }
    }

    fn is_mixed(&self) -> bool {
        let mut principals = self.checks.iter().map(|check| &check.principal);
        let first = principals.next();
        principals.any(|principal| Some(principal) != first)
    }

    /// Returns whether halves of this call may succeed after it failed: it was too large, or it took too long and some
    /// of its requests still wait.
    fn halves_may_be_answered_after(&self, error: &AuthzError) -> bool {
        let now = Instant::now();
        let wanted = || self.checks.iter().filter(|check| check.is_wanted(now)).count();
        match error {
            AuthzError::MessageTooLarge(_) => self.checks.len() > 1,
            AuthzError::DeadlineExceeded => self.checks.len() > 1 && wanted() > 0,
            AuthzError::NoModel
            | AuthzError::NoStore(_)
            | AuthzError::Refused(_)
            | AuthzError::BadAnswer(_)
            | AuthzError::Stored(_)
            | AuthzError::Overloaded { .. }
            | AuthzError::Unavailable(_)
            | AuthzError::TooManyChecks { .. } => false,
        }
    }

    /// Splits the call into two parts and leaves out the questions whose requests have ended.
    fn halved(mut self) -> Vec<Call> {
        let now = Instant::now();
        self.checks.retain(|check| check.is_wanted(now));
        let half = self.checks.len().div_ceil(2);
        self.split(|before, _| before.len() >= half)
    }

    /// Splits the call into parts. `ends` decides, from a part and the question after it, whether the part ends there.
    fn split(self, ends: impl Fn(&[QueuedCheck], &QueuedCheck) -> bool) -> Vec<Call> {
        let mut parts: Vec<Call> = Vec::new();
        for check in self.checks {
            match parts.last_mut() {
                Some(part) if !ends(&part.checks, &check) => part.checks.push(check),
                Some(_) | None => parts.push(Call { basis: Arc::clone(&self.basis), checks: vec![check] }),
            }
        }
        parts
    }
}

/// Returns for each question how many bytes its request adds. All questions of one request share them, so they are
/// measured once.
fn contextual_bytes(questions: &[Question]) -> Vec<usize> {
    let mut known: Option<(&Arc<Contextual>, usize)> = None;
    let mut sizes = Vec::with_capacity(questions.len());
    for Question { contextual, .. } in questions {
        let bytes = match known {
            Some((same, bytes)) if Arc::ptr_eq(same, contextual) => bytes,
            Some(_) | None => contextual.wire_bytes(),
        };
        known = Some((contextual, bytes));
        sizes.push(bytes);
    }
    sizes
}

/// Runs one call after another, as long as there is something to ask and the limit has room for the slot.
async fn work(slot: Slot, call: Call) {
    let (mut slot, mut call) = (slot, call);
    loop {
        slot.0.run(call).await;
        let shared = Arc::clone(&slot.0);
        drop(slot);
        let Some(next) = Shared::next_call(&shared) else { return };
        (slot, call) = next;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.calls_in_flight = state.calls_in_flight.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests;
