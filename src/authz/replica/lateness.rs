//! Works out how late the server's log reports changes. This is pure.
//!
//! The server may read its log from a secondary database that lags behind the deciding one, and its answers do not say
//! so. But changes have dates. If a reading finds a change for the first time, although its date is before the previous
//! reading, the change came late.
//!
//! This is the one place where the server's clock is compared with ours, because nothing else reveals such a lag. The
//! two must agree within [`CLOCK_TOLERANCE`]. If our clock is ahead, the copy counts as older than it is. If the
//! server's clock is ahead, a lag up to that difference goes unnoticed.

use std::time::Duration;

use tokio::time::Instant;

use crate::authz::copy::CLOCK_TOLERANCE;

/// The time for which a log counts as late after its last late change. While nothing changes, nothing shows that the
/// log caught up.
const REMEMBERED: Duration = Duration::from_mins(10);

/// One reading of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The moment at which the reading began.
    pub(super) started: Instant,
    /// The wall clock at that moment, in nanoseconds since 1970.
    pub(super) unix_ns: i128,
}

/// The lag of the log: how much older it is than the moment at which it is read.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    lag: Duration,
    /// The moment of the reading that found the latest late change.
    late: Option<Instant>,
    before: Option<Reading>,
}

impl Lateness {
    /// Returns the lag that the latest news showed.
    pub(super) fn lag(&self) -> Duration {
        self.lag
    }

    /// Takes in a reading, with the date of the newest change that was news in it. One punctual change ends the lag,
    /// because a single late change may come from a long transaction.
    pub(super) fn read(&mut self, reading: Reading, newest_unix_ns: Option<i128>) {
        if let (Some(before), Some(newest)) = (self.before, newest_unix_ns) {
            let late = u64::try_from(before.unix_ns.saturating_sub(newest)).unwrap_or_default();
            let late = Duration::from_nanos(late);
            // The change may have been missing until just before the reading that found it.
            let until_told = reading.started.saturating_duration_since(before.started);
            if late > CLOCK_TOLERANCE {
                (self.lag, self.late) = (late + until_told, Some(reading.started));
            } else {
                self.lag = Duration::ZERO;
            }
        }
        self.before = Some(reading);
    }

    /// Notes that the log is read from another position from now on. Old changes will be news again, so their dates say
    /// nothing. The known lag stays.
    pub(super) fn begin_again(&mut self) {
        self.before = None;
    }

    /// Notes that a comparison of all tuples, which does not use the log, found nothing missing. That proves nothing
    /// while changes come late, so the comparison counts only if no change came late for a while.
    pub(super) fn nothing_missing(&mut self, now: Instant) {
        if self.late.is_none_or(|late| now.saturating_duration_since(late) >= REMEMBERED) {
            self.lag = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The row's name, and its readings: the second of each, the second of its newest change, and the lag after it.
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
            // A server's clock that is ahead hides a lag of the same length.
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
