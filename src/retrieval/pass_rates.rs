//! Learns which share of candidates is permitted, for each subject, relation and collection. The share is an estimate
//! for the next plan.
//!
//! It is learned only where the visible set is not known. A known set gives a better share: a query about a remote
//! topic finds a share that says little about the next query.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::generations::Generations;
use super::plan::Tally;
use crate::language::{Object, Relation};

/// The most rates of one generation. Together with the generation before, twice as many are remembered, which takes
/// some megabytes.
const RATES_MAX: usize = 10_000;
/// Earlier rounds together weigh at most as much as this many candidates, so that a change shows within a few requests.
const MEMORY: f64 = 200.0;

/// Remembers which share of candidates was permitted lately.
#[derive(Debug, Default)]
pub(super) struct PassRates {
    rates: Mutex<Generations<PassRateKey, Rate>>,
}

/// Identifies the searches that share one rate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PassRateKey {
    pub(super) subject: Object,
    pub(super) relation: Relation,
    pub(super) collection: String,
    /// Whether the request has a filter. The chunks that a filter selects may be permitted more or less often than
    /// others.
    pub(super) is_filtered: bool,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    candidates: f64,
    permitted: f64,
}

impl PassRates {
    /// Returns the share of candidates that was permitted, above 0; `None` where nothing is known.
    pub(super) fn get(&self, key: &PassRateKey) -> Option<f64> {
        let rates = self.lock();
        let rate = rates.get(key)?;
        // One is added to both counts. With a rate of 0, ever wider searches would be planned, and a grant would never
        // be learned of.
        Some((rate.permitted + 1.0) / (rate.candidates + 1.0))
    }

    /// Notes what a search of everything found.
    pub(super) fn note(&self, key: &PassRateKey, Tally { candidates, permitted }: Tally) {
        let count = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        if candidates == 0 {
            return;
        }
        let mut rates = self.lock();
        let before = rates.get(key).copied();
        let before = before.unwrap_or(Rate { candidates: 0.0, permitted: 0.0 });
        let weight = if before.candidates > MEMORY { MEMORY / before.candidates } else { 1.0 };
        let rate = Rate {
            candidates: before.candidates * weight + count(candidates),
            permitted: before.permitted * weight + count(permitted),
        };
        rates.insert(key.clone(), rate, RATES_MAX);
    }

    fn lock(&self) -> MutexGuard<'_, Generations<PassRateKey, Rate>> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> PassRateKey {
        PassRateKey {
            subject: Object::parse(&format!("user:{number}")).expect("a user"),
            relation: Relation::parse("can_read").expect("a name"),
            collection: "handbook".to_owned(),
            is_filtered: false,
        }
    }

    fn tally(candidates: usize, permitted: usize) -> Tally {
        Tally { candidates, permitted }
    }

    #[test]
    fn a_rate_follows_what_was_found() {
        let rates = PassRates::default();
        let near = |expected: f64| {
            let rate = rates.get(&key(1)).expect("a rate");
            assert!((rate - expected).abs() < 0.05, "{rate} is not about {expected}");
        };
        assert_eq!(rates.get(&key(1)), None);
        rates.note(&key(1), tally(0, 0));
        assert_eq!(rates.get(&key(1)), None);
        rates.note(&key(1), tally(100, 10));
        near(0.1);
        assert_eq!(rates.get(&key(2)), None);
        // A grant shows within a few requests, and so does a revocation.
        for _ in 0..10 {
            rates.note(&key(1), tally(200, 200));
        }
        near(1.0);
        for _ in 0..10 {
            rates.note(&key(1), tally(200, 0));
        }
        near(0.0);
        assert!(rates.get(&key(1)).is_some_and(|rate| rate > 0.0));
    }

    #[test]
    fn rates_are_bounded_in_number() {
        let rates = PassRates::default();
        for number in 0..3 * RATES_MAX {
            rates.note(&key(number), tally(10, 5));
        }
        let known = rates.lock();
        assert!(known.len() <= 2 * RATES_MAX);
        assert!(known.get(&key(3 * RATES_MAX - 1)).is_some());
    }
}
