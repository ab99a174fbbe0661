//! Remembers decisions.
//!
//! INVARIANT (final only): an entry is a decision of the server. Errors are not remembered, and neither are denials of
//! what the server can never decide.
//!
//! An entry is recalled while its generation counts (see [`super::validity`]) and while it is younger than the time to
//! live. Its age counts from a moment before the server was asked. So a revocation takes effect after the shorter of
//! these two bounds. It takes effect at once for a caller who asks for higher consistency: such a question passes by
//! the cache, and its answer replaces the entry. A caller who asks for answers since a moment gets only entries that
//! were asked for since then, past the server's own caches, which do not tell their age.
//!
//! INVARIANT (own source): an entry is recalled only for questions to the source that decided it. So a decision of a
//! copy is never recalled for the server, nor for the copy that replaced it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;
use tokio::time::Instant;

use super::decider::{Basis, Decider, NumberedOutcome, Outcome, Questions, Recall, accounted};
use super::decision_key::DecisionKey;
use super::{AuthzError, Consistency, Source};

/// The bytes that an entry takes beside its key: the entry and its share of the map, rounded up.
const ENTRY_BYTES: usize = 160;

/// Recalls decisions, and asks the decider behind it about everything else.
pub(super) struct CachedDecider {
    inner: Arc<dyn Decider>,
    entries: Cache<DecisionKey, CachedDecision>,
    time_to_live: Duration,
}

#[derive(Clone, Copy, Debug)]
struct CachedDecision {
    allowed: bool,
    as_of: Instant,
    source: Source,
    /// Whether the server was told to pass by its own caches, so that `as_of` holds whatever they contain.
    past_caches: bool,
}

impl CachedDecider {
    /// Puts a cache of at most `bytes_max` bytes before `inner`.
    #[must_use]
    pub(super) fn new(inner: Arc<dyn Decider>, time_to_live: Duration, bytes_max: u64) -> Self {
        let entries = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|key: &DecisionKey, _| u32::try_from(key.bytes() + ENTRY_BYTES).unwrap_or(u32::MAX))
            // This only frees memory. `recall` tells from `as_of` whether an entry still counts, by a clock that tests can
            // pause.
            .time_to_live(time_to_live)
            .build();
        Self { inner, entries, time_to_live }
    }

    fn recall(&self, key: &DecisionKey, basis: &Basis) -> Option<CachedDecision> {
        let will_do = |entry: &CachedDecision| match basis.recall {
            Recall::Nothing => false,
            Recall::Generation => true,
            Recall::Since(moment) => entry.past_caches && entry.as_of >= moment,
        };
        let is_young = |entry: &CachedDecision| entry.as_of.elapsed() < self.time_to_live;
        self.entries.get(key).filter(|entry| entry.source == basis.source && is_young(entry) && will_do(entry))
    }

    /// Stores what was learned, unless a newer answer is already there. If both are equally old, a denial wins.
    fn remember(&self, key: DecisionKey, learned: CachedDecision) {
        self.entries.entry(key).and_upsert_with(|known| match known.map(moka::Entry::into_value) {
            Some(known) if known.as_of > learned.as_of => known,
            Some(known) if known.as_of == learned.as_of => {
                let past_caches = known.past_caches && learned.past_caches;
                CachedDecision { allowed: known.allowed && learned.allowed, past_caches, ..learned }
            }
            Some(_) | None => learned,
        });
    }
}

#[async_trait]
impl Decider for CachedDecider {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        let keys = DecisionKey::of(questions);
        let mut answers = Vec::with_capacity(keys.len());
        let mut unknown = Vec::new();
        for (position, key) in keys.iter().enumerate() {
            match self.recall(key, &questions.basis) {
                Some(CachedDecision { allowed, as_of, source, .. }) => {
                    answers.push(NumberedOutcome { position, outcome: Outcome::Decided { allowed, as_of, source } });
                }
                None => unknown.push(position),
            }
        }
        tracing::debug!(recalled = answers.len(), asked = unknown.len(), "decisions recalled");
        if unknown.is_empty() {
            return Ok(answers);
        }
        let asked = questions.at(&unknown);
        let outcomes = accounted(asked.list.len(), self.inner.decide(&asked).await?)?;
        let past_caches = match questions.basis.consistency {
            Consistency::MinimizeLatency => false,
            Consistency::AtLeastAsFresh(_) | Consistency::HigherConsistency => true,
        };
        for (position, outcome) in unknown.into_iter().zip(outcomes) {
            if let (&Outcome::Decided { allowed, as_of, source }, Some(key)) = (&outcome, keys.get(position))
                && source == questions.basis.source
            {
                self.remember(key.clone(), CachedDecision { allowed, as_of, source, past_caches });
            }
            answers.push(NumberedOutcome { position, outcome });
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests;
