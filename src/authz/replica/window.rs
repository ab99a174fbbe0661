//! Works out what recent changes say about tuples. This is pure.
//!
//! The log of changes is not in the order of the commits, and may report a change twice. So its last part, the window,
//! is read again each time. A change is news if it appears in the window more often than at the last reading. Counting
//! is needed because a log with dates in seconds (`MySQL`) has equal entries for a tuple that comes and goes within a
//! second. If the window holds opposite changes of one tuple, it does not show which came last, so the server is asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::source::SourceChange;
use crate::language::RelationshipTuple;
use crate::tuple_store::Operation;

/// The changes in the last part of the log, and the position where that part begins.
#[derive(Debug)]
pub(super) struct Window {
    /// The longest time that a change may take from getting its position in the log to its commit.
    overlap: Duration,
    /// The ends of the log at earlier readings, oldest first. The next reading begins at the first of them.
    ends: VecDeque<(Instant, String)>,
    /// The number of times that the last reading found each change.
    known: HashMap<SourceChange, usize>,
}

/// The conclusions of a reading about the tuples that changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Tuples that are in the store now.
    pub(super) present: Vec<RelationshipTuple>,
    /// Tuples that are not in the store any more.
    pub(super) absent: Vec<RelationshipTuple>,
    /// Tuples about which only the server knows.
    pub(super) unsettled: Vec<RelationshipTuple>,
    /// The dates of the changes that are news; `None` if none is.
    pub(super) dates: Option<Dates>,
}

/// The oldest and the newest date of some changes, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dates {
    pub(super) oldest: i128,
    pub(super) newest: i128,
}

impl Window {
    /// Makes a window that begins at a position in the log.
    pub(super) fn new(overlap: Duration, token: String, now: Instant) -> Self {
        Self { overlap, ends: VecDeque::from([(now, token)]), known: HashMap::new() }
    }

    /// Returns the token at which the next reading begins.
    pub(super) fn token(&self) -> &str {
        self.ends.front().map_or("", |(_, token)| token)
    }

    /// Takes in all changes from [`Window::token`] to the end of the log, in a reading that began at `started`. Returns
    /// what they mean, and the next window. The caller uses that window only once it has stored what the changes mean.
    pub(super) fn taking_in(&self, changes: &[SourceChange], end: String, started: Instant) -> (Settled, Self) {
        let mut by_tuple: BTreeMap<_, Vec<&SourceChange>> = BTreeMap::new();
        let mut told: HashMap<&SourceChange, usize> = HashMap::with_capacity(changes.len());
        for change in changes {
            let (object, relation, user) = change.tuple.key();
            by_tuple.entry((object.clone(), relation.clone(), user.clone())).or_default().push(change);
            *told.entry(change).or_default() += 1;
        }
        let is_news = |change: &SourceChange| told.get(change) > self.known.get(change);
        let mut settled =
            Settled { dates: dates(changes.iter().filter(|change| is_news(change))), ..Settled::default() };
        for changes in by_tuple.into_values() {
            let Some(first) = changes.first() else { continue };
            if !changes.iter().any(|change| is_news(change)) {
                continue;
            }
            let agree = changes.iter().all(|c| c.operation == first.operation && c.tuple == first.tuple);
            let settled = match (agree, first.operation) {
                (true, Operation::Write) => &mut settled.present,
                (true, Operation::Delete) => &mut settled.absent,
                (false, _) => &mut settled.unsettled,
            };
            settled.push(first.tuple.clone());
        }
        let known = told.into_iter().map(|(change, times)| (change.clone(), times)).collect();
        let mut ends = self.ends.clone();
        if ends.back().is_none_or(|(_, known)| *known != end) {
            ends.push_back((started, end));
        }
        // The next reading begins at the last end that was seen at least an overlap ago.
        while ends.get(1).is_some_and(|(seen, _)| *seen + self.overlap <= started) {
            ends.pop_front();
        }
        (settled, Self { overlap: self.overlap, ends, known })
    }
}

fn dates<'c>(changes: impl Iterator<Item = &'c SourceChange>) -> Option<Dates> {
    changes.map(|change| change.unix_ns).fold(None, |dates: Option<Dates>, date| {
        let Dates { oldest, newest } = dates.unwrap_or(Dates { oldest: date, newest: date });
        Some(Dates { oldest: oldest.min(date), newest: newest.max(date) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(id: &str) -> RelationshipTuple {
        RelationshipTuple::parse("user:anne", "viewer", &format!("doc:{id}")).expect("a tuple")
    }

    /// Reads a change: `+1@5` means that doc:1 was written at 5.
    fn changes(text: &str) -> Vec<SourceChange> {
        let one = |text: &str| {
            let (sign, rest) = text.split_at(1);
            let (id, time) = rest.split_once('@').expect("a time");
            let operation = if sign == "+" { Operation::Write } else { Operation::Delete };
            SourceChange { tuple: tuple(id), operation, unix_ns: time.parse().expect("a number") }
        };
        text.split_whitespace().map(one).collect()
    }

    #[track_caller]
    fn check(readings: &[(&str, [&str; 3])]) {
        let now = Instant::now();
        let mut window = Window::new(Duration::from_secs(5), String::new(), now);
        for (reading, expected) in readings {
            let (settled, next) = window.taking_in(&changes(reading), "end".to_owned(), now);
            let Settled { present, absent, unsettled, .. } = settled;
            window = next;
            let [expected_present, expected_absent, expected_unsettled] =
                expected.map(|ids| ids.split_whitespace().map(tuple).collect::<Vec<_>>());
            assert_eq!(present, expected_present, "present after `{reading}`");
            assert_eq!(absent, expected_absent, "absent after `{reading}`");
            assert_eq!(unsettled, expected_unsettled, "unsettled after `{reading}`");
        }
    }

    #[test]
    fn a_change_counts_once() {
        check(&[("+1@1 -2@2", ["1", "2", ""]), ("+1@1 -2@2 +3@3", ["3", "", ""]), ("+3@3", ["", "", ""])]);
        // The log reports this change twice each time.
        check(&[("+1@1 +1@1", ["1", "", ""]), ("+1@1 +1@1", ["", "", ""]), ("+1@1", ["", "", ""])]);
    }

    #[test]
    fn opposite_changes_are_settled_by_the_server() {
        check(&[("+1@1 -1@2", ["", "", "1"])]);
        // The grant was read first. The revocation that preceded it appears in the log later.
        check(&[("+1@3", ["1", "", ""]), ("-1@2 +1@3", ["", "", "1"])]);
        check(&[("-1@3", ["", "1", ""]), ("+1@2 -1@3", ["", "", "1"]), ("+1@2 -1@3", ["", "", ""])]);
    }

    /// A log with dates in seconds has equal entries.
    #[test]
    fn an_equal_change_that_comes_later_counts_as_well() {
        check(&[
            ("-1@5 +1@5", ["", "", "1"]),
            ("-1@5 +1@5 -1@5", ["", "", "1"]),
            ("-1@5 +1@5 -1@5", ["", "", ""]),
            ("-1@5 +1@5 -1@5 +1@5", ["", "", "1"]),
        ]);
    }

    #[test]
    fn another_condition_is_settled_by_the_server() {
        let now = Instant::now();
        let window = Window::new(Duration::from_secs(5), String::new(), now);
        let condition = crate::language::TupleCondition::parse("c", "{}").expect("a condition");
        let mut both = changes("+1@1 +1@2");
        both[1].tuple = tuple("1").with_condition(condition);
        assert_eq!(window.taking_in(&both, String::new(), now).0.unsettled, [tuple("1")]);
    }

    #[test]
    fn reading_begins_an_overlap_before_the_end() {
        let start = Instant::now();
        let mut window = Window::new(Duration::from_secs(5), "0".to_owned(), start);
        let mut begins = Vec::new();
        for second in 1..=8 {
            begins.push(window.token().to_owned());
            window = window.taking_in(&[], second.to_string(), start + Duration::from_secs(second)).1;
        }
        assert_eq!(begins, ["0", "0", "0", "0", "0", "0", "1", "2"]);
    }
}
