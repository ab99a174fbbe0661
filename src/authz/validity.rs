//! Until when a remembered decision counts.
//!
//! All decisions of a store belong to a generation. Whoever learns of a change begins a new one, and nothing of an
//! earlier generation is found any more: the generation is part of every key, so an answer that was asked for before the
//! change and arrives after it lands where nobody looks. A generation counts only while the changelog is known to hold
//! nothing newer: when it cannot be read for a while, nothing is recalled.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The generation of one store's relationships. Clones of an `Arc` of it are the handles that invalidate.
#[derive(Debug)]
pub struct Validity {
    /// For how long a confirmation counts; for ever when nobody reads the changelog.
    confirmed_for: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    generation: u64,
    confirmed: Option<Instant>,
}

/// What holds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// The generation.
    pub generation: u64,
    /// Whether decisions of this generation may be recalled.
    pub recall: bool,
}

impl Validity {
    /// Decisions count while the changelog was read within this time; without a time, nobody reads it, and only their own
    /// age ends them.
    #[must_use]
    pub fn new(confirmed_for: Option<Duration>) -> Self {
        Self { confirmed_for, state: Mutex::new(State { generation: 0, confirmed: None }) }
    }

    /// Forgets every decision.
    pub fn invalidate(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.generation = state.generation.saturating_add(1);
    }

    /// Tells that at `as_of` there were no changes that [`Validity::invalidate`] was not called for. A confirmation that
    /// comes late does not take back a newer one.
    pub fn confirm(&self, as_of: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.confirmed = state.confirmed.max(Some(as_of));
    }

    /// The generation, and whether it counts, as of one moment: read together, so that a confirmation of the next
    /// generation cannot be taken for one of this.
    #[must_use]
    pub fn current(&self) -> Current {
        let state = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let recall = match (self.confirmed_for, state.confirmed) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(confirmed_for), Some(confirmed)) => confirmed.elapsed() < confirmed_for,
        };
        Current { generation: state.generation, recall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_generation_counts_while_it_is_confirmed() {
        let validity = Validity::new(Some(Duration::from_secs(2)));
        let current = |generation, recall| Current { generation, recall };
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
        assert_eq!(validity.current(), Current { generation: 0, recall: true });
    }
}
