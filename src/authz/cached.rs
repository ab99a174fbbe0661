//! Remembers decisions.
//!
//! INVARIANT (final only): an entry is a decision of the server, never an error, and never one that the server could not
//! come to. It is recalled while its generation counts (see [`super::validity`]) and it is younger than the time to live,
//! counted from before the server was asked. So a revocation is seen after the shorter of the two bounds, and at once by
//! whoever asks for higher consistency: that passes by the cache, and what it learns replaces what was remembered. Who asks
//! for answers since a moment recalls only such as passed by then: an older one, or one that the server may have taken
//! from a cache of its own, does not count.
//!
//! INVARIANT (own source): an entry is recalled only for a question to the source that decided it. What a copy decided is
//! not remembered for a server, and what one copy decided is not recalled for the copy that replaced it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;
use tokio::time::Instant;

use super::decider::{Answered, Decider, Outcome, Questions, Recall, Scope, accounted};
use super::decision_key::DecisionKey;
use super::{AuthzError, Consistency, Source};

/// What an entry takes beside its key, in bytes: the entry itself and the map around it, rounded up.
const ENTRY_BYTES: usize = 160;

/// See the module.
pub struct CachedDecider {
    inner: Arc<dyn Decider>,
    entries: Cache<DecisionKey, Entry>,
    time_to_live: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    allowed: bool,
    as_of: Instant,
    source: Source,
    /// Whether the server was told to pass by its own caches, so that `as_of` holds whatever these are.
    past_caches: bool,
}

impl CachedDecider {
    /// A cache of at most so many bytes in front of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Decider>, time_to_live: Duration, bytes_max: u64) -> Self {
        let entries = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|key: &DecisionKey, _| u32::try_from(key.bytes() + ENTRY_BYTES).unwrap_or(u32::MAX))
            // For memory only: whether an entry still counts is told from its `as_of`, by the clock that tests can pause.
            .time_to_live(time_to_live)
            .build();
        Self { inner, entries, time_to_live }
    }

    fn recall(&self, key: &DecisionKey, scope: &Scope) -> Option<Entry> {
        let will_do = |entry: &Entry| match scope.recall {
            Recall::Nothing => false,
            Recall::Generation => true,
            Recall::Since(moment) => entry.past_caches && entry.as_of >= moment,
        };
        let is_young = |entry: &Entry| entry.as_of.elapsed() < self.time_to_live;
        self.entries.get(key).filter(|entry| entry.source == scope.source && is_young(entry) && will_do(entry))
    }

    /// A slow answer must not replace a newer one, and of two as old as each other the denial counts.
    fn remember(&self, key: DecisionKey, learned: Entry) {
        self.entries.entry(key).and_upsert_with(|known| match known.map(moka::Entry::into_value) {
            Some(known) if known.as_of > learned.as_of => known,
            Some(known) if known.as_of == learned.as_of => {
                let past_caches = known.past_caches && learned.past_caches;
                Entry { allowed: known.allowed && learned.allowed, past_caches, ..learned }
            }
            Some(_) | None => learned,
        });
    }
}

#[async_trait]
impl Decider for CachedDecider {
    async fn decide(&self, questions: &Questions) -> Result<Vec<Answered>, AuthzError> {
        let keys = DecisionKey::of(questions);
        let mut answers = Vec::with_capacity(keys.len());
        let mut unknown = Vec::new();
        for (position, key) in keys.iter().enumerate() {
            match self.recall(key, &questions.scope) {
                Some(Entry { allowed, as_of, source, .. }) => {
                    answers.push(Answered { position, outcome: Outcome::Decided { allowed, as_of, source } });
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
        let past_caches = match questions.scope.consistency {
            Consistency::MinimizeLatency => false,
            Consistency::AtLeastAsFresh(_) | Consistency::HigherConsistency => true,
        };
        for (position, outcome) in unknown.into_iter().zip(outcomes) {
            if let (&Outcome::Decided { allowed, as_of, source }, Some(key)) = (&outcome, keys.get(position))
                && source == questions.scope.source
            {
                self.remember(key.clone(), Entry { allowed, as_of, source, past_caches });
            }
            answers.push(Answered { position, outcome });
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests;
