//! Versions of documents: which write put a chunk in, and when that was.
//!
//! A version names the process that wrote and the moment of its monotonic clock, so that this process knows of its own
//! writes exactly when they were. Of the writes of others it knows the date that they noted.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use ulid::Ulid;

use super::layout::Fields;
use super::payload::{VERSION, WRITTEN_AT, integer, string};
use crate::chunk::{Candidate, Version, Written};

/// Digits of a version in a payload.
const DIGITS: usize = 32;
/// Writes of which the end is remembered: at one a millisecond, longer than any decision is used.
const RECENT_MAX: usize = 20_000;

/// Gives out the versions of this process.
#[derive(Debug)]
pub(super) struct Writes {
    /// Random, so that no other process has it.
    process: u64,
    started: Instant,
    recent: Mutex<Recent>,
}

/// Nanoseconds since the start.
#[derive(Debug, Default)]
struct Recent {
    /// The version of the last write, and whether that is still under way.
    last: u64,
    is_under_way: bool,
    /// The versions of writes that have ended, ascending, each with the end.
    ended: VecDeque<(u64, u64)>,
}

/// What a write notes in the payload of each point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) version: Version,
    /// Milliseconds since 1970.
    pub(super) written_at: i64,
}

impl Default for Writes {
    fn default() -> Self {
        let random = Ulid::new().random() & u128::from(u64::MAX);
        Self { process: u64::try_from(random).unwrap_or_default(), started: Instant::now(), recent: Mutex::default() }
    }
}

impl Writes {
    /// The stamp of a write that begins now, after all others have ended. No other write has its version.
    pub(super) fn begin(&self) -> Stamp {
        // One that was given up ends here at the latest.
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

    /// Ends the write that is under way, if one is: what it wrote may be found from now on.
    pub(super) fn end(&self) {
        let now = self.now();
        let mut recent = self.recent();
        if std::mem::take(&mut recent.is_under_way) {
            let ended = (recent.last, now);
            recent.ended.push_back(ended);
            if recent.ended.len() > RECENT_MAX {
                recent.ended.pop_front();
            }
        }
    }

    /// The candidate with the moment of its document's write, if this process wrote it.
    pub(super) fn dated(&self, candidate: Candidate) -> Candidate {
        let written = candidate.version.and_then(|version| self.moment(version)).map(Written::By);
        Candidate { written: written.unwrap_or(candidate.written), ..candidate }
    }

    /// When a write of this process ended; of one that is under way, now, and of one long ago, when it began.
    fn moment(&self, Version(version): Version) -> Option<Instant> {
        if version >> u64::BITS != u128::from(self.process) {
            return None;
        }
        let begun = u64::try_from(version & u128::from(u64::MAX)).ok()?;
        let nanoseconds = {
            let recent = self.recent();
            if recent.is_under_way && recent.last == begun {
                self.now()
            } else {
                let place = recent.ended.binary_search_by_key(&begun, |(begun, _)| *begun).ok();
                place.and_then(|place| recent.ended.get(place)).map_or(begun, |(_, end)| *end)
            }
        };
        self.started.checked_add(Duration::from_nanos(nanoseconds))
    }

    /// 580 years fit.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A version as a payload has it.
pub(super) fn to_text(Version(version): Version) -> String {
    format!("{version:0DIGITS$x}")
}

/// The version in a payload; `None` where there is none of this form.
pub(super) fn of(payload: &Fields) -> Option<Version> {
    let text = string(payload, VERSION)?;
    let is_version = text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(text, 16).ok().filter(|_| is_version).map(Version)
}

/// When a payload says that it was written.
pub(super) fn written_of(payload: &Fields) -> Written {
    match integer(payload, WRITTEN_AT).and_then(|milliseconds| u64::try_from(milliseconds).ok()) {
        Some(milliseconds) => Written::AtWallTime(Duration::from_millis(milliseconds)),
        None => Written::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use qdrant_client::qdrant::Value as Payload;

    use super::*;
    use crate::language::Object;

    fn candidate(payload: &Fields) -> Candidate {
        Candidate {
            chunk_id: "a".to_owned(),
            guard: Object::parse("document:a").expect("an object"),
            score: 0.0,
            version: of(payload),
            written: written_of(payload),
        }
    }

    fn payload(stamp: Stamp) -> Fields {
        let fields = [
            (VERSION.to_owned(), Payload::from(to_text(stamp.version))),
            (WRITTEN_AT.to_owned(), Payload::from(stamp.written_at)),
        ];
        Fields::from(fields)
    }

    #[test]
    fn a_process_knows_the_moments_of_its_own_writes() {
        let (own, other) = (Writes::default(), Writes::default());
        let before = Instant::now();
        let stamps: Vec<Stamp> = (0..1_000).map(|_| own.begin()).collect();
        own.end();
        let after = Instant::now();
        assert!(stamps.is_sorted_by(|a, b| a.version.0 < b.version.0));
        for stamp in [stamps[0], stamps[999]] {
            let Written::By(moment) = own.dated(candidate(&payload(stamp))).written else { panic!("{stamp:?}") };
            assert!((before..=after).contains(&moment));
            let milliseconds = u64::try_from(stamp.written_at).expect("a date");
            let dated = Written::AtWallTime(Duration::from_millis(milliseconds));
            assert_eq!(other.dated(candidate(&payload(stamp))).written, dated);
        }
    }

    /// What is found of a write that has not ended was written just now, and later on when it ended.
    #[test]
    fn a_write_counts_from_its_end() {
        let writes = Writes::default();
        let stamp = writes.begin();
        let written = || match writes.dated(candidate(&payload(stamp))).written {
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

    #[test]
    fn a_version_has_one_form() {
        let rows: [(&str, Option<u128>); 7] = [
            ("0000000000000000000000000000002a", Some(42)),
            ("ffffffffffffffffffffffffffffffff", Some(u128::MAX)),
            ("0000000000000000000000000000002A", None),
            ("+000000000000000000000000000002a", None),
            ("2a", None),
            ("", None),
            ("00000000000000000000000000000000000000000000002a", None),
        ];
        for (text, expected) in rows {
            let payload = Fields::from([(VERSION.to_owned(), Payload::from(text))]);
            assert_eq!(of(&payload), expected.map(Version), "{text}");
            assert_eq!(candidate(&payload).written, Written::Unknown, "{text}");
        }
        assert_eq!(to_text(Version(42)), "0000000000000000000000000000002a");
    }
}
