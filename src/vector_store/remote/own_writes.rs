//! Versions of documents. A version tells which write put a chunk in, and when.
//!
//! A version names the process that wrote and a moment of that process's monotonic clock. So a process knows exactly
//! when its own writes were, without a table of documents. For a write of another process it has only the date that the
//! other process noted beside the version.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use ulid::Ulid;

use crate::chunk::{Candidate, Version, Written};

/// How many ends of writes are remembered. At one write a millisecond, an end is remembered for longer than any
/// decision is used.
const RECENT_MAX: usize = 20_000;

/// The writes of this process to one server.
#[derive(Debug)]
pub(crate) struct OwnWrites {
    /// A random number that no other process has.
    process: u64,
    started: Instant,
    recent: Mutex<Recent>,
}

/// The last writes. All times are nanoseconds since `started`.
#[derive(Debug, Default)]
struct Recent {
    /// When the last write began.
    last: u64,
    is_under_way: bool,
    /// Writes that have ended, in their order.
    ended: VecDeque<EndedWrite>,
}

#[derive(Clone, Copy, Debug)]
struct EndedWrite {
    began: u64,
    ended: u64,
}

/// The note that a write leaves beside each chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) version: Version,
    /// The date, in milliseconds since 1970.
    pub(crate) written_at: i64,
}

impl Default for OwnWrites {
    fn default() -> Self {
        let random = Ulid::new().random() & u128::from(u64::MAX);
        Self { process: u64::try_from(random).unwrap_or_default(), started: Instant::now(), recent: Mutex::default() }
    }
}

impl OwnWrites {
    /// Begins a write, after all others have ended. No other write has its version.
    pub(crate) fn begin(&self) -> Stamp {
        // If the write before was given up, it ends here at the latest.
        self.end();
        let moment = {
            let mut recent = self.recent();
            recent.last = self.now().max(recent.last.saturating_add(1));
            recent.is_under_way = true;
            recent.last
        };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Stamp {
            version: Version(u128::from(self.process) << u64::BITS | u128::from(moment)),
            written_at: i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Ends the write that is under way, if there is one. What it wrote may be found from now on.
    pub(crate) fn end(&self) {
        let now = self.now();
        let mut recent = self.recent();
        if std::mem::take(&mut recent.is_under_way) {
            let ended = EndedWrite { began: recent.last, ended: now };
            recent.ended.push_back(ended);
            if recent.ended.len() > RECENT_MAX {
                recent.ended.pop_front();
            }
        }
    }

    /// Notes in a candidate when its document was written, if this process wrote it.
    pub(crate) fn dated(&self, candidate: Candidate) -> Candidate {
        let written = candidate.version.and_then(|version| self.moment(version)).map(Written::By);
        Candidate { written: written.unwrap_or(candidate.written), ..candidate }
    }

    /// Returns when a write of this process ended. A write that is under way counts as ending now. A write whose end is
    /// no longer remembered counts as having ended when it began.
    fn moment(&self, Version(version): Version) -> Option<Instant> {
        if version >> u64::BITS != u128::from(self.process) {
            return None;
        }
        let began = u64::try_from(version & u128::from(u64::MAX)).ok()?;
        let nanoseconds = {
            let recent = self.recent();
            if recent.is_under_way && recent.last == began {
                self.now()
            } else {
                let index = recent.ended.binary_search_by_key(&began, |write| write.began).ok();
                index.and_then(|index| recent.ended.get(index)).map_or(began, |write| write.ended)
            }
        };
        self.started.checked_add(Duration::from_nanos(nanoseconds))
    }

    /// Nanoseconds since the start. The number has room for 580 years.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Object;

    /// Returns a candidate as a search finds it after this write.
    fn candidate(stamp: Stamp) -> Candidate {
        let milliseconds = u64::try_from(stamp.written_at).expect("a date");
        Candidate {
            chunk_id: "a".to_owned(),
            guard: Object::parse("document:a").expect("an object"),
            score: 0.0,
            version: Some(stamp.version),
            written: Written::AtWallTime(Duration::from_millis(milliseconds)),
        }
    }

    #[test]
    fn a_process_knows_the_moments_of_its_own_writes() {
        let (own, other) = (OwnWrites::default(), OwnWrites::default());
        let before = Instant::now();
        let stamps: Vec<Stamp> = (0..1_000).map(|_| own.begin()).collect();
        own.end();
        let after = Instant::now();
        assert!(stamps.is_sorted_by(|a, b| a.version.0 < b.version.0));
        for stamp in [stamps[0], stamps[999]] {
            let Written::By(moment) = own.dated(candidate(stamp)).written else { panic!("{stamp:?}") };
            assert!((before..=after).contains(&moment));
            let milliseconds = u64::try_from(stamp.written_at).expect("a date");
            let dated = Written::AtWallTime(Duration::from_millis(milliseconds));
            assert_eq!(other.dated(candidate(stamp)).written, dated);
        }
    }

    /// A chunk that is found while its write is under way counts as written just now. Later it counts as written when
    /// the write ended.
    #[test]
    fn a_write_counts_from_its_end() {
        let writes = OwnWrites::default();
        let stamp = writes.begin();
        let written = || match writes.dated(candidate(stamp)).written {
            Written::By(moment) => moment,
            Written::AtWallTime(_) | Written::Unknown => panic!("not a write of this process"),
        };
        let under_way = Instant::now();
        assert!(written() >= under_way);
        let before_end = Instant::now();
        writes.end();
        let after_end = Instant::now();
        assert!((before_end..=after_end).contains(&written()));
        let later: Vec<Stamp> = (0..RECENT_MAX + 2).map(|_| writes.begin()).collect();
        assert!(written() <= before_end, "forgotten: when it began");
        assert!(later.is_sorted_by(|a, b| a.version.0 < b.version.0));
    }
}
