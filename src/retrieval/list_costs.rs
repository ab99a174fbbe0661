//! Decides whether it pays to ask a server for the list of what a user may see, ahead of a search. This module is pure:
//! callers tell it how long lists and checks took, and it reads no clock.
//!
//! A list saves the checks of what is hidden. Its cost depends on the server, the model and the user: on one server a
//! list costs as much as one check, on another as much as a thousand, and a list that is cut short saves nothing. So
//! the costs of lists and checks are measured, and so is how often a list is cut short. The lists of one collection
//! cost about the same, because its guards are of the same types. Only lists that must be fresh are measured apart.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::generations::Generations;
use crate::language::Object;

/// The most kinds of lists whose costs are known at a time. When one more comes, all costs are learned anew.
const KINDS_MAX: usize = 1_000;
/// The most users of one generation whose last list is remembered.
const USERS_MAX: usize = 10_000;
/// Where lists do not pay, one request in this many still asks for a list, because the costs may have changed. A list
/// that costs n times as much as it saves is tried n times more rarely.
const REQUESTS_PER_TRY: u32 = 64;
/// However much a list costs, at least one request in this many asks for one.
const REQUESTS_PER_TRY_MAX: u32 = 4_096;
/// The most requests that may try a list at a time while its cost is not known.
const TRIES_AT_ONCE_MAX: u32 = 2;
/// A new value moves an average by one part in this many of the difference.
const MEMORY: f64 = 8.0;

/// Learns what lists and checks cost, and tells each request whether to ask for a list.
#[derive(Debug, Default)]
pub(super) struct ListCosts {
    learned: Mutex<LearnedCosts>,
}

#[derive(Debug, Default)]
struct LearnedCosts {
    kinds: HashMap<ListKind, Costs>,
    last_lists: Generations<(ListKind, Object), LastList>,
}

/// Lists that cost about as much as each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ListKind {
    pub(super) collection: String,
    /// Whether the server must not answer from its caches.
    pub(super) is_fresh: bool,
}

#[derive(Debug, Default)]
struct Costs {
    /// How long a list takes, in seconds.
    list: Average,
    /// How long a check takes, in seconds.
    check: Average,
    /// The share of lists that were not cut short.
    whole: Average,
    /// The share of guards that users see.
    share: Average,
    /// Requests since the last one that asked for a list.
    since_list: u32,
    /// Requests that are asking for a list now.
    asking: u32,
}

/// Counts a request as one that asks for a list, until this is dropped.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    costs: &'a ListCosts,
    key: (ListKind, Object),
}

/// The last list of one user.
#[derive(Clone, Copy, Debug)]
struct LastList {
    was_whole: bool,
    /// Requests of this user since that list.
    since: u32,
}

/// The facts by which a request decides whether to ask for a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    /// How many chunks are wanted.
    pub(super) top_k: usize,
    /// How many distinct guards the collection has.
    pub(super) guards: usize,
    /// The share of candidates that this user was permitted lately, if any were found.
    pub(super) share: Option<f64>,
}

/// The outcome of asking for a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListOutcome {
    pub(super) took: Duration,
    /// The share of guards that the list shows; `None` where it may have been cut short, or did not come.
    pub(super) share: Option<f64>,
}

impl ListCosts {
    /// Decides whether this request asks for a list. If it does, the caller reports the outcome through the returned
    /// handle.
    pub(super) fn ask(&self, kind: &ListKind, user: &Object, choice: Choice) -> Option<Asking<'_>> {
        let mut learned = self.lock();
        let key = (kind.clone(), user.clone());
        let last_list = learned.last_lists.get_mut(&key).map(|previous| {
            previous.since = previous.since.saturating_add(1);
            *previous
        });
        if learned.kinds.len() >= KINDS_MAX && !learned.kinds.contains_key(kind) {
            learned.kinds.clear();
        }
        let costs = learned.kinds.entry(kind.clone()).or_default();
        costs.since_list = costs.since_list.saturating_add(1);
        if !costs.pays(last_list, choice) {
            return None;
        }
        costs.since_list = 0;
        costs.asking = costs.asking.saturating_add(1);
        Some(Asking { costs: self, key })
    }

    /// Notes how long the checks of one request took together.
    pub(super) fn note_checks(&self, kind: &ListKind, checks: usize, took: Duration) {
        if let Some(costs) = self.lock().kinds.get_mut(kind)
            && checks > 0
        {
            costs.check.note(took.as_secs_f64() / count(checks));
        }
    }

    fn lock(&self) -> MutexGuard<'_, LearnedCosts> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking<'_> {
    /// Notes what came of asking for the list.
    pub(super) fn note(&self, ListOutcome { took, share }: ListOutcome) {
        let mut learned = self.costs.lock();
        let Some(costs) = learned.kinds.get_mut(&self.key.0) else { return };
        costs.list.note(took.as_secs_f64());
        costs.whole.note(if share.is_some() { 1.0 } else { 0.0 });
        if let Some(share) = share {
            costs.share.note(share);
        }
        learned.last_lists.insert(self.key.clone(), LastList { was_whole: share.is_some(), since: 0 }, USERS_MAX);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(costs) = self.costs.lock().kinds.get_mut(&self.key.0) {
            costs.asking = costs.asking.saturating_sub(1);
        }
    }
}

impl Costs {
    fn pays(&self, last_list: Option<LastList>, choice: Choice) -> bool {
        let Some(list) = self.list.value else { return self.asking < TRIES_AT_ONCE_MAX };
        // If the last list of this user was cut short, the next one will be, too.
        let whole = match last_list {
            Some(previous) if previous.was_whole => 1.0,
            Some(_) => 0.0,
            None => self.whole.value.unwrap_or(1.0),
        };
        let saves = whole * self.checks_saved(choice) * self.check.value.unwrap_or_default();
        if list < saves {
            return true;
        }
        let waited = last_list.map_or(self.since_list, |previous| previous.since);
        let too_dear = (list / saves.max(f64::MIN_POSITIVE)).min(f64::from(REQUESTS_PER_TRY_MAX / REQUESTS_PER_TRY));
        f64::from(waited) >= f64::from(REQUESTS_PER_TRY) * too_dear && self.asking < TRIES_AT_ONCE_MAX
    }

    /// Estimates how many checks a whole list saves: those of candidates that the user may not see.
    fn checks_saved(&self, Choice { top_k, guards, share }: Choice) -> f64 {
        let share = share.or(self.share.value).unwrap_or(0.5).clamp(f64::EPSILON, 1.0);
        let without = (count(top_k) / share).min(count(guards));
        let with = count(top_k).min(share * count(guards));
        (without - with).max(0.0)
    }
}

/// A moving average of the values that were noted.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    value: Option<f64>,
}

impl Average {
    fn note(&mut self, value: f64) {
        self.value = Some(self.value.map_or(value, |before| before + (value - before) / MEMORY));
    }
}

fn count(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// One server and one of its users.
    struct Row {
        name: &'static str,
        list_ms: u32,
        check_ms: u32,
        share: f64,
        is_whole: bool,
        /// How many of 1,000 requests are expected to ask for a list.
        lists: std::ops::RangeInclusive<usize>,
    }

    #[test]
    fn a_list_is_asked_for_where_it_costs_less_than_it_saves() {
        let rows = [
            Row {
                name: "as dear as a check, half visible",
                list_ms: 4,
                check_ms: 4,
                share: 0.5,
                is_whole: true,
                lists: 1_000..=1_000,
            },
            Row {
                name: "as dear as a check, all visible",
                list_ms: 4,
                check_ms: 4,
                share: 1.0,
                is_whole: true,
                lists: 1..=16,
            },
            Row {
                name: "as dear as 20 checks, a third visible",
                list_ms: 80,
                check_ms: 4,
                share: 0.34,
                is_whole: true,
                lists: 1..=1_000 / 50,
            },
            Row {
                name: "as dear as 20 checks, a tenth visible",
                list_ms: 80,
                check_ms: 4,
                share: 0.1,
                is_whole: true,
                lists: 1_000..=1_000,
            },
            Row { name: "cut short", list_ms: 4, check_ms: 4, share: 0.1, is_whole: false, lists: 1..=16 },
            Row {
                name: "cut short after three seconds",
                list_ms: 3_000,
                check_ms: 4,
                share: 0.1,
                is_whole: false,
                lists: 1..=2,
            },
        ];
        for Row { name, list_ms, check_ms, share, is_whole, lists } in rows {
            let costs = ListCosts::default();
            let (kind, user) = (kind("handbook"), user(1));
            let mut asked = 0;
            for _ in 0..1_000 {
                let choice = Choice { top_k: 10, guards: 617, share: Some(share) };
                if let Some(asking) = costs.ask(&kind, &user, choice) {
                    asked += 1;
                    asking.note(ListOutcome { took: list_ms * MS, share: is_whole.then_some(share) });
                }
                costs.note_checks(&kind, 10, 10 * check_ms * MS);
            }
            assert!(lists.contains(&asked), "{name}: {asked} lists");
        }
    }

    #[test]
    fn a_server_that_changes_is_noticed() {
        let costs = ListCosts::default();
        let (kind, user) = (kind("handbook"), user(1));
        let choice = Choice { top_k: 10, guards: 617, share: Some(0.5) };
        let asks = |list_ms: u32, requests: usize| {
            let mut asked = 0;
            for _ in 0..requests {
                if let Some(asking) = costs.ask(&kind, &user, choice) {
                    asked += 1;
                    asking.note(ListOutcome { took: list_ms * MS, share: Some(0.5) });
                }
                costs.note_checks(&kind, 10, 40 * MS);
            }
            asked
        };
        assert_eq!(asks(4, 100), 100);
        assert!(asks(400, 1_000) < 100, "dear now");
        asks(4, 20_000);
        assert_eq!(asks(4, 100), 100, "cheap again");
    }

    #[test]
    fn few_requests_try_at_once_and_one_that_ends_lets_another_try() {
        let costs = ListCosts::default();
        let choice = Choice { top_k: 10, guards: 617, share: None };
        let kind = kind("handbook");
        let mut asking: Vec<Asking<'_>> =
            (0..16).filter_map(|number| costs.ask(&kind, &user(number), choice)).collect();
        assert_eq!(asking.len(), 2);
        asking.pop();
        assert!(costs.ask(&kind, &user(20), choice).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let costs = ListCosts::default();
        let choice = Choice { top_k: 10, guards: 617, share: None };
        for number in 0..3 * USERS_MAX {
            let (kind, user) = (kind(&number.to_string()), user(number));
            costs.ask(&kind, &user, choice).expect("nothing is known").note(ListOutcome { took: MS, share: None });
        }
        let learned = costs.lock();
        assert!(learned.kinds.len() <= KINDS_MAX);
        assert!(learned.last_lists.len() <= 2 * USERS_MAX);
    }

    fn kind(collection: &str) -> ListKind {
        ListKind { collection: collection.to_owned(), is_fresh: false }
    }

    fn user(number: usize) -> Object {
        Object::parse(&format!("user:{number}")).expect("a user")
    }
}
