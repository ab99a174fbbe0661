//! What recent changes say about tuples. Pure.
//!
//! A log of changes is not in the order of the commits, and may tell a change again. So the last part of it, the window, is
//! read again each time, and a change counts when the window did not hold it so many times before: a log that dates its
//! changes by the second (`MySQL`) has equal entries for a tuple that comes and goes within one. Where the window holds opposite
//! changes of one tuple, it does not say which was the last one: the server is asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::source::SourceChange;
use crate::language::RelationshipTuple;
use crate::tuple_store::Operation;

/// The changes of the last part of the log, and where it begins.
#[derive(Debug)]
pub(super) struct Window {
    /// How long a change may take from its place in the log to its commit.
    overlap: Duration,
    /// The ends of the log as they were seen, oldest first. The first is where the next reading begins.
    ends: VecDeque<(Instant, String)>,
    /// How often each of them was told.
    known: HashMap<SourceChange, usize>,
}

/// What new changes mean.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Tuples that are there.
    pub(super) present: Vec<RelationshipTuple>,
    /// Tuples that are not there.
    pub(super) absent: Vec<RelationshipTuple>,
    /// Tuples that only the server can tell about.
    pub(super) unsettled: Vec<RelationshipTuple>,
    /// When the changes happened that are news.
    pub(super) dates: Option<Dates>,
}

/// In nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dates {
    pub(super) oldest: i128,
    pub(super) newest: i128,
}

impl Window {
    /// A window from a place in the log on.
    pub(super) fn new(overlap: Duration, token: String, now: Instant) -> Self {
        Self { overlap, ends: VecDeque::from([(now, token)]), known: HashMap::new() }
    }

    /// Where reading begins.
    pub(super) fn token(&self) -> &str {
        self.ends.front().map_or("", |(_, token)| token)
    }

    /// What all changes from [`Window::token`] to the end of the log mean, which was read from `started` on; and the window
    /// after them, for when what they mean is kept.
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
        // The last end that is older than the overlap is where the next reading begins.
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

    /// `+1@5`: doc:1 was written at 5.
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
        // Told twice each time.
        check(&[("+1@1 +1@1", ["1", "", ""]), ("+1@1 +1@1", ["", "", ""]), ("+1@1", ["", "", ""])]);
    }

    #[test]
    fn opposite_changes_are_settled_by_the_server() {
        check(&[("+1@1 -1@2", ["", "", "1"])]);
        // The grant was read first; the revocation before it comes late into the log.
        check(&[("+1@3", ["1", "", ""]), ("-1@2 +1@3", ["", "", "1"])]);
        check(&[("-1@3", ["", "1", ""]), ("+1@2 -1@3", ["", "", "1"]), ("+1@2 -1@3", ["", "", ""])]);
    }

    /// A log that dates its changes by the second.
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
