//! Whether it pays to ask a server for the list of what a user may see, ahead of a search. Pure: it is told how long lists and
//! checks took, and reads no clock.
//!
//! A list saves the checks of what is hidden. What it costs depends on the server, the model and the user: on one server a list
//! costs as much as one check, on another as much as a thousand, and a list that is cut short saves nothing. So both are
//! measured, for each collection (whose guards are of the same types) and consistency.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::generations::Generations;
use crate::language::Object;

/// Kinds of lists that are known at a time; past it all are learned anew.
const KINDS_MAX: usize = 1_000;
/// Users of one generation whose last list is remembered.
const USERS_MAX: usize = 10_000;
/// Where lists do not pay, one of so many requests asks for one all the same: what they cost may have changed. A list that
/// costs much more than it saves is tried as much more seldom.
const REQUESTS_PER_TRY: u32 = 64;
const REQUESTS_PER_TRY_MAX: u32 = 4_096;
/// Requests that try a list at a time while nothing is known of its cost.
const TRIES_AT_ONCE_MAX: u32 = 2;
/// The newest of so many counts as much as all before it.
const MEMORY: f64 = 8.0;

/// Learns what lists and checks cost, and tells each request whether a list pays.
#[derive(Debug, Default)]
pub(super) struct ListCosts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kinds: HashMap<Kind, Costs>,
    told: Generations<(Kind, Object), Told>,
}

/// Lists that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) collection: String,
    /// Whether the server passes by its caches.
    pub(super) is_fresh: bool,
}

#[derive(Debug, Default)]
struct Costs {
    /// Of a list, in seconds.
    list: Average,
    /// Of a check, in seconds.
    check: Average,
    /// The share of lists that were whole.
    whole: Average,
    /// The share of chunks that users see.
    share: Average,
    /// Requests since a list was asked for.
    since_list: u32,
    /// Requests that are asking for one.
    asking: u32,
}

/// A list that is being asked for, until dropped.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    costs: &'a ListCosts,
    key: (Kind, Object),
}

/// A user's last list.
#[derive(Clone, Copy, Debug)]
struct Told {
    was_whole: bool,
    /// Requests of this user since.
    since: u32,
}

/// What a request knows when it has to choose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    /// Chunks that are wanted.
    pub(super) top_k: usize,
    /// Distinct guards of the collection.
    pub(super) guards: usize,
    /// The share of candidates that this user was permitted lately.
    pub(super) share: Option<f64>,
}

/// A list that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    pub(super) took: Duration,
    /// The share of guards that it shows; `None` where it may have been cut short, or did not come.
    pub(super) share: Option<f64>,
}

impl ListCosts {
    /// Whether to ask for a list; if so, a handle to note what becomes of it.
    pub(super) fn ask(&self, kind: &Kind, user: &Object, choice: Choice) -> Option<Asking<'_>> {
        let mut state = self.lock();
        let key = (kind.clone(), user.clone());
        let told = state.told.get_mut(&key).map(|told| {
            told.since = told.since.saturating_add(1);
            *told
        });
        if state.kinds.len() >= KINDS_MAX && !state.kinds.contains_key(kind) {
            state.kinds.clear();
        }
        let costs = state.kinds.entry(kind.clone()).or_default();
        costs.since_list = costs.since_list.saturating_add(1);
        if !costs.pays(told, choice) {
            return None;
        }
        costs.since_list = 0;
        costs.asking = costs.asking.saturating_add(1);
        Some(Asking { costs: self, key })
    }

    /// Notes how long the checks of one request took together.
    pub(super) fn note_checks(&self, kind: &Kind, checks: usize, took: Duration) {
        if let Some(costs) = self.lock().kinds.get_mut(kind)
            && checks > 0
        {
            costs.check.note(took.as_secs_f64() / count(checks));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking<'_> {
    /// Notes what came of it.
    pub(super) fn note(&self, Listed { took, share }: Listed) {
        let mut state = self.costs.lock();
        let Some(costs) = state.kinds.get_mut(&self.key.0) else { return };
        costs.list.note(took.as_secs_f64());
        costs.whole.note(if share.is_some() { 1.0 } else { 0.0 });
        if let Some(share) = share {
            costs.share.note(share);
        }
        state.told.insert(self.key.clone(), Told { was_whole: share.is_some(), since: 0 }, USERS_MAX);
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
    fn pays(&self, told: Option<Told>, choice: Choice) -> bool {
        let Some(list) = self.list.value else { return self.asking < TRIES_AT_ONCE_MAX };
        // Of a user whose last list was cut short the next one will be, too.
        let whole = match told {
            Some(told) if told.was_whole => 1.0,
            Some(_) => 0.0,
            None => self.whole.value.unwrap_or(1.0),
        };
        let saves = whole * self.checks_saved(choice) * self.check.value.unwrap_or_default();
        if list < saves {
            return true;
        }
        let waited = told.map_or(self.since_list, |told| told.since);
        let too_dear = (list / saves.max(f64::MIN_POSITIVE)).min(f64::from(REQUESTS_PER_TRY_MAX / REQUESTS_PER_TRY));
        f64::from(waited) >= f64::from(REQUESTS_PER_TRY) * too_dear && self.asking < TRIES_AT_ONCE_MAX
    }

    /// How many checks a whole list saves: those of what the search finds and the user may not see.
    fn checks_saved(&self, Choice { top_k, guards, share }: Choice) -> f64 {
        let share = share.or(self.share.value).unwrap_or(0.5).clamp(f64::EPSILON, 1.0);
        let without = (count(top_k) / share).min(count(guards));
        let with = count(top_k).min(share * count(guards));
        (without - with).max(0.0)
    }
}

/// A moving average.
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

    /// A server as it is, and a user of it.
    struct Row {
        name: &'static str,
        list_ms: u32,
        check_ms: u32,
        share: f64,
        is_whole: bool,
        /// How many of 1,000 requests may ask for a list.
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
                    asking.note(Listed { took: list_ms * MS, share: is_whole.then_some(share) });
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
                    asking.note(Listed { took: list_ms * MS, share: Some(0.5) });
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
    fn few_try_at_once_and_who_ends_early_lets_others_try() {
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
    fn what_is_remembered_is_bounded() {
        let costs = ListCosts::default();
        let choice = Choice { top_k: 10, guards: 617, share: None };
        for number in 0..3 * USERS_MAX {
            let (kind, user) = (kind(&number.to_string()), user(number));
            costs.ask(&kind, &user, choice).expect("nothing is known").note(Listed { took: MS, share: None });
        }
        let state = costs.lock();
        assert!(state.kinds.len() <= KINDS_MAX);
        assert!(state.told.len() <= 2 * USERS_MAX);
    }

    fn kind(collection: &str) -> Kind {
        Kind { collection: collection.to_owned(), is_fresh: false }
    }

    fn user(number: usize) -> Object {
        Object::parse(&format!("user:{number}")).expect("a user")
    }
}
