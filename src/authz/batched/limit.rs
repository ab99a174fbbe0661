//! Limits how many calls run at the same time: additive increase and multiplicative decrease, led by latency.
//!
//! More concurrent calls help until the server is busy; from then on they only wait there. That shows in the latency.
//! So the moving average is compared with the best average so far for calls of about the same size. After every
//! [`PERIOD`] answers, the limit is lowered and the best is forgotten. Otherwise a server that became slower for good
//! would pass for a busy one, and a server that was always busy would never show what it can do.
//!
//! This is pure: the caller reports every call, and no clock is read.

use std::time::Duration;

/// One call, in the unit of the limit: the limit grows by fractions of a call.
const ONE: u64 = 1_000;
/// A latency of up to this many times the best is not yet a sign of waiting.
const TOLERANCE: u32 = 2;
/// Latencies below this vary for other reasons than the load.
const NOISE: Duration = Duration::from_millis(1);
/// The number of answers after which the best is measured anew.
const PERIOD: u32 = 1_000;
/// The limit is divided by this before the best is measured anew, so that nothing waits at the server then.
const STEP_DOWN: u64 = 4;
/// The number of size classes of calls: 1, 2–3, 4–7, … checks.
const CLASSES: usize = 16;

/// The limit, and the latencies that it follows.
#[derive(Clone, Debug)]
pub(super) struct ConcurrencyLimit {
    limit: u64,
    limit_max: u64,
    classes: [Option<Latency>; CLASSES],
    answers: u32,
}

/// How much of the limit the calls in flight used when one of them was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitUse {
    /// As many calls were in flight as the limit allows.
    Full,
    /// There was room for another call.
    Partial,
}

/// The latencies of the calls of one size class.
#[derive(Clone, Copy, Debug)]
struct Latency {
    average: Duration,
    best: Duration,
}

impl ConcurrencyLimit {
    /// Makes a limit that begins at `calls` and stays between one call and `calls_max`.
    pub(super) fn new(calls: u32, calls_max: u32) -> Self {
        let limit_max = u64::from(calls_max.max(1)) * ONE;
        Self { limit: (u64::from(calls) * ONE).clamp(ONE, limit_max), limit_max, classes: [None; CLASSES], answers: 0 }
    }

    /// Returns how many calls may run at the same time.
    pub(super) fn calls(&self) -> u64 {
        self.limit / ONE
    }

    /// Notes that a call of this many checks was answered. The limit grows only if it was fully used: otherwise nobody
    /// knows what a higher limit would do.
    pub(super) fn answered(&mut self, checks: usize, latency: Duration, use_of_limit: LimitUse) {
        let class = usize::try_from(checks.checked_ilog2().unwrap_or_default()).unwrap_or_default().min(CLASSES - 1);
        self.answers += 1;
        if self.answers >= PERIOD {
            (self.answers, self.classes) = (0, [None; CLASSES]);
            self.limit = (self.limit / STEP_DOWN).max(ONE);
            return;
        }
        let Some(known) = self.classes.get_mut(class) else { return };
        let Latency { average, best } = known.unwrap_or(Latency { average: latency, best: latency });
        let average = (average * 7 + latency) / 8;
        let best = average.min(best).max(NOISE);
        *known = Some(Latency { average, best });
        if latency.min(average) > best * TOLERANCE {
            self.failed();
        } else if use_of_limit == LimitUse::Full {
            // This adds one call for every round of calls.
            self.limit = (self.limit + ONE * ONE / self.limit).min(self.limit_max);
        }
    }

    /// Lowers the limit after a call that was late, that failed, or that took so long that it must have waited.
    pub(super) fn failed(&mut self) {
        self.limit = (self.limit - self.limit / 10).max(ONE);
    }
}

#[cfg(test)]
mod tests {
    use super::LimitUse::{Full, Partial};
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Plays a server that works on `cores` calls at a time, each for 10 ms, while the others wait. Returns the limit after it.
    fn settle(limit: &mut ConcurrencyLimit, cores: u32, rounds: usize) -> u64 {
        for _ in 0..rounds {
            let running = u32::try_from(limit.calls()).expect("few");
            for turn in 0..running {
                limit.answered(50, 10 * MS * (turn / cores + 1), Full);
            }
        }
        limit.calls()
    }

    #[test]
    fn it_finds_what_a_server_can_do() {
        for (cores, begin) in [(1, 8), (2, 8), (4, 1), (8, 1), (8, 32)] {
            let mut limit = ConcurrencyLimit::new(begin, 32);
            let settled = settle(&mut limit, cores, 500);
            let cores = u64::from(cores);
            assert!((cores..=4 * cores + 2).contains(&settled), "{cores} cores, begun with {begin}: {settled} calls");
        }
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut limit = ConcurrencyLimit::new(8, 32);
        for _ in 0..900 {
            limit.answered(50, MS, Full);
        }
        assert_eq!(limit.calls(), 32);
        for _ in 0..1_000 {
            limit.failed();
        }
        assert_eq!(limit.calls(), 1);
        for checks in [0, 1, usize::MAX] {
            limit.answered(checks, Duration::ZERO, Full);
        }
        assert_eq!(ConcurrencyLimit::new(0, 0).calls(), 1);
    }

    #[test]
    fn a_limit_that_is_not_used_does_not_grow() {
        let mut limit = ConcurrencyLimit::new(8, 32);
        for _ in 0..900 {
            limit.answered(50, MS, Partial);
        }
        assert_eq!(limit.calls(), 8);
    }

    #[test]
    fn what_was_best_is_measured_again() {
        let mut limit = ConcurrencyLimit::new(8, 32);
        limit.answered(50, MS, Full);
        for _ in 0..PERIOD {
            limit.answered(50, 10 * MS, Full);
        }
        for _ in 0..900 {
            limit.answered(50, 10 * MS, Full);
        }
        assert_eq!(limit.calls(), 32, "slower for good, but nothing waits");
    }

    #[test]
    fn calls_are_compared_with_their_like() {
        let mut limit = ConcurrencyLimit::new(8, 32);
        for _ in 0..100 {
            limit.answered(1, MS, Partial);
            limit.answered(50, 50 * MS, Partial);
        }
        assert_eq!(limit.calls(), 8);
        for _ in 0..2 {
            limit.answered(1, 50 * MS, Partial);
        }
        assert!(limit.calls() < 8);
    }
}
