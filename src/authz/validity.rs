//! Decides how long a remembered decision counts.
//!
//! All decisions of a store belong to a generation, and one counter holds the current one. Code that learns of a change
//! begins the next generation. The generation is part of every cache key, so older decisions are not found any more.
//! This leaves no race: an answer that was asked for before the change and arrives after it is stored under a key that
//! nobody looks up.
//!
//! A generation counts only while the changelog is known to hold nothing newer. If the changelog cannot be read for a while,
//! nothing is recalled. The time to live of a decision (`cache_ttl`) is a second bound, because `OpenFGA`'s log is not
//! strictly in the order of its commits: a late change may appear in a part of the log that was already read.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The generation of one store's relationships. All code that learns of changes shares it in an `Arc`.
#[derive(Debug)]
pub struct Validity {
    /// The time for which a confirmation is valid. `None` if the changelog is not read: then no confirmation is needed.
    confirmed_for: Option<Duration>,
    state: Mutex<GenerationState>,
}

#[derive(Clone, Copy, Debug)]
struct GenerationState {
    generation: u64,
    confirmed: Option<Instant>,
}

/// The state of a [`Validity`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentGeneration {
    /// The number of the current generation. It only grows.
    pub generation: u64,
    /// Whether decisions of this generation may be recalled now.
    pub recall: bool,
}

impl Validity {
    /// Lets decisions count while the last reading of the changelog is less than `confirmed_for` ago. `None` means that
    /// nobody reads the changelog; then only the age of a decision ends it.
    #[must_use]
    pub fn new(confirmed_for: Option<Duration>) -> Self {
        Self { confirmed_for, state: Mutex::new(GenerationState { generation: 0, confirmed: None }) }
    }

    /// Begins the next generation, so that every decision so far is forgotten.
    pub fn invalidate(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.generation = state.generation.saturating_add(1);
    }

    /// Confirms that [`Validity::invalidate`] was called for every change up to `as_of`. A confirmation that comes late does
    /// not take back a newer one.
    pub fn confirm(&self, as_of: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.confirmed = state.confirmed.max(Some(as_of));
    }

    /// Returns the generation and whether it counts. Both are read under one lock, so that a confirmation of the next
    /// generation is never taken for one of this generation.
    #[must_use]
    pub fn current(&self) -> CurrentGeneration {
        let state = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let recall = match (self.confirmed_for, state.confirmed) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(confirmed_for), Some(confirmed)) => confirmed.elapsed() < confirmed_for,
        };
        CurrentGeneration { generation: state.generation, recall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_generation_counts_while_it_is_confirmed() {
        let validity = Validity::new(Some(Duration::from_secs(2)));
        let current = |generation, recall| CurrentGeneration { generation, recall };
        assert_eq!(validity.current(), current(0, false), "nothing was read yet");
        let read = Instant::now();
        tokio::time::advance(Duration::from_millis(1_500)).await;
        validity.confirm(read);
        assert_eq!(validity.current(), current(0, true));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(validity.current(), current(0, false), "counted from when the changelog was asked");
        validity.confirm(Instant::now());
        validity.confirm(read);
        assert_eq!(validity.current(), current(0, true), "a late confirmation takes nothing back");
        validity.invalidate();
        assert_eq!(validity.current(), current(1, true));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_changelog_it_always_counts() {
        let validity = Validity::new(None);
        tokio::time::advance(Duration::from_hours(1_000)).await;
        assert_eq!(validity.current(), CurrentGeneration { generation: 0, recall: true });
    }
}
