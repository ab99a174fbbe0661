//! How late the log tells what happened. Pure.
//!
//! A log that is read from a secondary database lags behind the one that decides, and says nothing of it. But its changes
//! are dated: one that is news now, and is dated before the reading that should have told it, came late. The dates are those
//! of the server's clock and the readings those of ours, so both must agree within [`CLOCK_TOLERANCE`]: a server's clock that is
//! behind makes the log look late, and one that is ahead hides as much of a lag.

use std::time::Duration;

use tokio::time::Instant;

/// How far the server's clock may be off without being taken for a late log: what time synchronization keeps easily.
pub(crate) const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// For how long a log is known to be late that tells nothing new.
const REMEMBERED: Duration = Duration::from_mins(10);

/// One reading of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// When it began.
    pub(super) started: Instant,
    /// The same by the clock of the wall, in nanoseconds since 1970.
    pub(super) unix_ns: i128,
}

/// How much older than its reading the log is.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    lag: Duration,
    /// When the latest news came that was late.
    late: Option<Instant>,
    before: Option<Reading>,
}

impl Lateness {
    /// What the latest news showed.
    pub(super) fn lag(&self) -> Duration {
        self.lag
    }

    /// Takes in a reading, with the date of the newest change that was news in it. One change in time shows that the log is in
    /// time: a transaction that took long makes a single change late.
    pub(super) fn read(&mut self, reading: Reading, newest_unix_ns: Option<i128>) {
        if let (Some(before), Some(newest)) = (self.before, newest_unix_ns) {
            let late = u64::try_from(before.unix_ns.saturating_sub(newest)).unwrap_or_default();
            let late = Duration::from_nanos(late);
            // It may have been missed at any time up to the reading that told it.
            let until_told = reading.started.saturating_duration_since(before.started);
            if late > CLOCK_TOLERANCE {
                (self.lag, self.late) = (late + until_told, Some(reading.started));
            } else {
                self.lag = Duration::ZERO;
            }
        }
        self.before = Some(reading);
    }

    /// The log is read from another place on: what was told before is told again, and its dates say nothing. How late the log is
    /// known to be stays known.
    pub(super) fn begin_again(&mut self) {
        self.before = None;
    }

    /// All tuples were compared, past the log, and nothing was missing. That is no proof while changes come, so it counts once
    /// none came late for a while.
    pub(super) fn nothing_missing(&mut self, now: Instant) {
        if self.late.is_none_or(|late| now.saturating_duration_since(late) >= REMEMBERED) {
            self.lag = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its name, and readings: their second, the second of the newest change in each, the lag after it.
    type Row = (&'static str, Vec<(u64, Option<i64>, u64)>);

    #[tokio::test]
    async fn a_log_that_is_read_from_another_place_on_is_as_late_as_before() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let reading = |at: u32| Reading { started: start + second * at, unix_ns: i128::from(at) * 1_000_000_000 };
        let mut lateness = Lateness::default();
        lateness.read(reading(100), None);
        lateness.read(reading(101), Some(95_000_000_000));
        assert_eq!(lateness.lag(), second * 6);
        lateness.begin_again();
        lateness.read(reading(103), Some(10_000_000_000));
        assert_eq!(lateness.lag(), second * 6, "what is told again is not late");
        lateness.read(reading(104), Some(103_500_000_000));
        assert_eq!(lateness.lag(), Duration::ZERO, "in time");
    }

    #[tokio::test]
    async fn the_lag_is_that_of_the_newest_news() {
        let start = Instant::now();
        let rows: [Row; 7] = [
            ("nothing read before", vec![(100, Some(1), 0)]),
            ("in time", vec![(100, None, 0), (101, Some(100), 0)]),
            ("within the tolerance", vec![(100, None, 0), (101, Some(99), 0)]),
            ("a log that lags", vec![(100, None, 0), (101, Some(95), 6), (102, None, 6), (103, Some(97), 6)]),
            ("late once", vec![(100, None, 0), (101, Some(80), 21), (102, Some(101), 0)]),
            // What the clocks differ by hides as much of a lag, and nothing tells: see the module.
            ("a server's clock that is ahead", vec![(100, None, 0), (101, Some(900), 0)]),
            ("a server's clock that is behind", vec![(100, None, 0), (101, Some(90), 11)]),
        ];
        for (name, readings) in rows {
            let mut lateness = Lateness::default();
            for (second, newest, lag) in readings {
                let unix_ns = i128::from(second) * 1_000_000_000;
                let reading = Reading { started: start + Duration::from_secs(second), unix_ns };
                lateness.read(reading, newest.map(|second| i128::from(second) * 1_000_000_000));
                assert_eq!(lateness.lag(), Duration::from_secs(lag), "{name}, second {second}");
            }
            let lag = lateness.lag();
            lateness.nothing_missing(start + Duration::from_secs(200));
            assert_eq!(lateness.lag(), lag, "{name}");
            lateness.nothing_missing(start + Duration::from_secs(200) + REMEMBERED);
            assert_eq!(lateness.lag(), Duration::ZERO, "{name}");
        }
    }
}
