//! Watches a connection, and says when it has to end because it does nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a connection may take to make its first request.
const GREETING_MAX: Duration = Duration::from_secs(20);
/// How long a connection may be without a request after its first. Its client connects again when it has one.
const IDLE_MAX: Duration = Duration::from_mins(5);
/// How long an answer may wait to be read. The largest has 16 MiB, which even a slow line carries in a minute.
const ANSWER_UNREAD_MAX: Duration = Duration::from_mins(1);
/// How long a connection that takes no more requests may take to end. Then it is cut, with whatever runs on it.
const DRAIN_MAX: Duration = Duration::from_mins(1);
/// The time between two looks at a connection on which requests run.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Like [`DRAIN_MAX`], for a connection on which nothing runs.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

/// The action that a connection needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    GoOn,
    /// It takes no more requests, and those that run may end. The text says why.
    Drain(&'static str),
    /// It is cut. The text says why.
    End(&'static str),
}

/// The state of a connection, which its requests share.
#[derive(Debug)]
pub(super) struct Activity(Mutex<ConnectionState>);

#[derive(Debug)]
struct ConnectionState {
    /// The moment when the connection began or a request last ended.
    last: Instant,
    has_greeted: bool,
    running: usize,
    /// When each unread answer was given, by the number of its request. The numbers rise, so the first entry is the
    /// oldest.
    unread: BTreeMap<u64, Instant>,
    next_number: u64,
    draining_since: Option<Instant>,
}

/// A request from its arrival until its answer is read or given up.
#[derive(Debug)]
pub(super) struct OpenRequest {
    activity: Arc<Activity>,
    number: u64,
    answer_end: AnswerEnd,
}

/// Says whether an answer is sure to end. If it is, the client has to read it in good time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerEnd {
    Sure,
    /// A stream that tells of changes may go on for as long as its client likes.
    Open,
}

impl AnswerEnd {
    /// Only an answer with a bound on its size is sure to end.
    pub(super) fn of(answer_bytes_max: Option<usize>) -> Self {
        if answer_bytes_max.is_some() { Self::Sure } else { Self::Open }
    }
}

impl Activity {
    pub(super) fn new() -> Self {
        Self(Mutex::new(ConnectionState {
            last: Instant::now(),
            has_greeted: false,
            running: 0,
            unread: BTreeMap::new(),
            next_number: 0,
            draining_since: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(self: &Arc<Self>, answer_end: AnswerEnd) -> OpenRequest {
        let mut state = self.lock();
        state.has_greeted = true;
        state.running += 1;
        state.next_number += 1;
        OpenRequest { activity: Arc::clone(self), number: state.next_number, answer_end }
    }

    /// Returns the moment at which to look at the connection again.
    pub(super) fn due(&self) -> Instant {
        self.lock().due().0
    }

    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        let mut state = self.lock();
        let (due, why) = state.due();
        match (now < due, state.draining_since) {
            (true, _) => Verdict::GoOn,
            (false, Some(_)) => Verdict::End(why),
            (false, None) => {
                state.draining_since = Some(now);
                Verdict::Drain(why)
            }
        }
    }
}

impl ConnectionState {
    /// Returns the earliest moment at which something is overdue, and what that is.
    fn due(&self) -> (Instant, &'static str) {
        let oldest = self.unread.first_key_value().map(|(_, since)| *since);
        if let Some(since) = self.draining_since {
            let is_empty = self.running == 0;
            return (since + if is_empty { FAREWELL_MAX } else { DRAIN_MAX }, "it did not end in time");
        }
        match (oldest, self.running, self.has_greeted) {
            (Some(since), _, _) => (since + ANSWER_UNREAD_MAX, "an answer was not read in time"),
            // Each request has bounds of its own. The next look sees what became of it.
            (None, 1.., _) => (Instant::now() + LOOK_INTERVAL, "a request runs"),
            (None, 0, true) => (self.last + IDLE_MAX, "it had no request for a long time"),
            (None, 0, false) => (self.last + GREETING_MAX, "it made no request"),
        }
    }
}

impl OpenRequest {
    /// Notes that the answer is given and waits to be read.
    pub(super) fn answered(&self) {
        if self.answer_end == AnswerEnd::Sure {
            self.activity.lock().unread.insert(self.number, Instant::now());
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        state.running -= 1;
        state.unread.remove(&self.number);
        state.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn verdict(activity: &Activity) -> Verdict {
        activity.verdict(Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_and_work_does_not() {
        let activity = Arc::new(Activity::new());
        advance(GREETING_MAX).await;
        assert_eq!(verdict(&activity), Verdict::Drain("it made no request"));
        assert_eq!(verdict(&activity), Verdict::GoOn);
        advance(FAREWELL_MAX).await;
        assert_eq!(verdict(&activity), Verdict::End("it did not end in time"));

        let activity = Arc::new(Activity::new());
        let running = activity.begin(AnswerEnd::Sure);
        advance(10 * IDLE_MAX).await;
        assert_eq!(verdict(&activity), Verdict::GoOn, "a request under way has bounds of its own");
        drop(running);
        advance(IDLE_MAX / 2).await;
        assert_eq!(verdict(&activity), Verdict::GoOn);
        drop(activity.begin(AnswerEnd::Sure));
        advance(IDLE_MAX / 2).await;
        assert_eq!(verdict(&activity), Verdict::GoOn);
        advance(IDLE_MAX / 2).await;
        assert_eq!(verdict(&activity), Verdict::Drain("it had no request for a long time"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_ends_its_connection() {
        let activity = Arc::new(Activity::new());
        let (read, unread, watching) =
            (activity.begin(AnswerEnd::Sure), activity.begin(AnswerEnd::Sure), activity.begin(AnswerEnd::Open));
        [&read, &unread, &watching].into_iter().for_each(OpenRequest::answered);
        advance(ANSWER_UNREAD_MAX / 2).await;
        drop(read);
        assert_eq!(verdict(&activity), Verdict::GoOn);
        // It does not help that the client reads other answers.
        let later = activity.begin(AnswerEnd::Sure);
        later.answered();
        drop(later);
        advance(ANSWER_UNREAD_MAX / 2).await;
        assert_eq!(verdict(&activity), Verdict::Drain("an answer was not read in time"));
        advance(FAREWELL_MAX).await;
        assert_eq!(verdict(&activity), Verdict::GoOn, "the others on it have their time");
        advance(DRAIN_MAX).await;
        assert_eq!(verdict(&activity), Verdict::End("it did not end in time"));
        drop(unread);

        let activity = Arc::new(Activity::new());
        let watching = activity.begin(AnswerEnd::Open);
        watching.answered();
        advance(10 * IDLE_MAX).await;
        assert_eq!(verdict(&activity), Verdict::GoOn, "a stream of changes may stay unread");
    }
}
