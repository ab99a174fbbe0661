//! Which share of candidates was permitted lately, by who asked for what: an estimate for the next plan.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::generations::Generations;
use crate::language::{Object, Relation};

/// Rates of one generation. With the generation before it, twice as many are remembered, some megabytes.
const RATES_MAX: usize = 10_000;
/// Earlier rounds weigh together as much as so many candidates, so that a change shows within a few requests.
const MEMORY: f64 = 200.0;

/// See the module. What is asked again is remembered; what is not asked for a generation is forgotten.
#[derive(Debug, Default)]
pub(super) struct PassRates {
    rates: Mutex<Generations<Key, Rate>>,
}

/// Whose rate it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) subject: Object,
    pub(super) relation: Relation,
    pub(super) collection: String,
    /// A filter may select what the subject sees more or less of.
    pub(super) is_filtered: bool,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    candidates: f64,
    permitted: f64,
}

impl PassRates {
    /// The share that was permitted, above 0; `None` where nothing is known.
    pub(super) fn get(&self, key: &Key) -> Option<f64> {
        let rates = self.lock();
        let rate = rates.get(key)?;
        // One more of each: a rate of nothing would plan for ever wider searches, and never learn of a grant.
        Some((rate.permitted + 1.0) / (rate.candidates + 1.0))
    }

    /// Notes what a round of unfiltered search found.
    pub(super) fn note(&self, key: Key, candidates: usize, permitted: usize) {
        let count = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        if candidates == 0 {
            return;
        }
        let mut rates = self.lock();
        let before = rates.get(&key).copied();
        let before = before.unwrap_or(Rate { candidates: 0.0, permitted: 0.0 });
        let weight = if before.candidates > MEMORY { MEMORY / before.candidates } else { 1.0 };
        let rate = Rate {
            candidates: before.candidates * weight + count(candidates),
            permitted: before.permitted * weight + count(permitted),
        };
        rates.insert(key, rate, RATES_MAX);
    }

    fn lock(&self) -> MutexGuard<'_, Generations<Key, Rate>> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key {
            subject: Object::parse(&format!("user:{number}")).expect("a user"),
            relation: Relation::parse("can_read").expect("a name"),
            collection: "handbook".to_owned(),
            is_filtered: false,
        }
    }

    #[test]
    fn a_rate_follows_what_was_found() {
        let rates = PassRates::default();
        let near = |expected: f64| {
            let rate = rates.get(&key(1)).expect("a rate");
            assert!((rate - expected).abs() < 0.05, "{rate} is not about {expected}");
        };
        assert_eq!(rates.get(&key(1)), None);
        rates.note(key(1), 0, 0);
        assert_eq!(rates.get(&key(1)), None);
        rates.note(key(1), 100, 10);
        near(0.1);
        assert_eq!(rates.get(&key(2)), None);
        // A grant shows within a few requests, and so does a revocation.
        for _ in 0..10 {
            rates.note(key(1), 200, 200);
        }
        near(1.0);
        for _ in 0..10 {
            rates.note(key(1), 200, 0);
        }
        near(0.0);
        assert!(rates.get(&key(1)).is_some_and(|rate| rate > 0.0));
    }

    #[test]
    fn they_are_bounded_in_number() {
        let rates = PassRates::default();
        for number in 0..3 * RATES_MAX {
            rates.note(key(number), 10, 5);
        }
        let known = rates.lock();
        assert!(known.len() <= 2 * RATES_MAX);
        assert!(known.get(&key(3 * RATES_MAX - 1)).is_some());
    }
}
