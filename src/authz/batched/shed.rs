//! Logs which checks were turned away, and why. The first one is logged at once, later ones as a sum.

use std::time::Duration;

use tokio::time::Instant;

/// The time between two lines of the log. Under overload, thousands of requests a second may be turned away for one reason.
const INTERVAL: Duration = Duration::from_secs(10);

/// The reason why a request's checks were turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShedReason {
    /// The checks before them take longer than the request can wait.
    CannotBeInTime,
    /// The checks of other callers fill the queue.
    QueueIsFull,
}

/// The checks of one request that were turned away, and why.
#[derive(Debug)]
pub(super) struct Shed {
    pub(super) reason: ShedReason,
    pub(super) checks: usize,
    /// The number of checks in the queue.
    pub(super) waiting: usize,
    /// The number of checks in the queue that are this caller's.
    pub(super) own: usize,
    /// The estimate of how long these checks would have waited.
    pub(super) wait: Duration,
    /// The moment until which their request waits.
    pub(super) deadline: Instant,
}

/// Counts the requests that were turned away and writes a line about them to the log from time to time.
#[derive(Debug, Default)]
pub(super) struct ShedLog {
    told: Option<Instant>,
    /// The number of requests that were turned away since the last line.
    untold: u64,
}

impl ShedLog {
    /// Notes a request that was turned away while the server took `calls_max` calls at a time, each in `latency`.
    pub(super) fn note(&mut self, shed: &Shed, calls_max: u64, latency: Duration) {
        self.untold = self.untold.saturating_add(1);
        if !self.is_due() {
            return;
        }
        let reason = match shed.reason {
            ShedReason::CannotBeInTime => "its checks cannot be answered before its deadline",
            ShedReason::QueueIsFull => "the checks of other callers fill the queue",
        };
        tracing::warn!(
            requests = self.untold,
            reason,
            checks = shed.checks,
            waiting = shed.waiting,
            waiting_of_caller = shed.own,
            expected_wait_ms = shed.wait.as_millis(),
            time_left_ms = shed.deadline.saturating_duration_since(Instant::now()).as_millis(),
            calls_max,
            latency_ms = latency.as_millis(),
            "requests were turned away: the authorizer answers too slowly for all of them",
        );
        (self.told, self.untold) = (Some(Instant::now()), 0);
    }

    fn is_due(&self) -> bool {
        self.told.is_none_or(|told| told.elapsed() >= INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_one_line_and_then_a_sum() {
        let mut log = ShedLog::default();
        let note = |log: &mut ShedLog| {
            let shed = Shed {
                reason: ShedReason::CannotBeInTime,
                checks: 1,
                waiting: 9,
                own: 0,
                wait: Duration::from_secs(4),
                deadline: Instant::now(),
            };
            log.note(&shed, 8, Duration::from_secs(1));
            log.untold
        };
        assert_eq!(note(&mut log), 0, "the first is told at once");
        for untold in 1..=1_000 {
            assert_eq!(note(&mut log), untold, "then none for a while");
        }
        tokio::time::advance(INTERVAL).await;
        assert_eq!(note(&mut log), 0, "then all of them in one");
    }
}
