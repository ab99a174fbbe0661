//! Decisions, and what they rest on.

use std::sync::Arc;

use roaring::RoaringBitmap;
use tokio::time::Instant;

use super::provenance::{Provenance, Source};
use crate::engine::snapshot::Snapshot;

/// The decisions about one batch of checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decisions {
    /// One decision for each check, in any order.
    pub list: Vec<Decision>,
    /// The basis of the whole list. A single decision may be newer than `by.as_of`, never older.
    pub by: Provenance,
}

/// The decision about one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The position of the check in [`super::CheckBatch::checks`].
    pub position: usize,
    /// Whether the user holds the relation.
    pub allowed: bool,
    /// The relationships that decided were at least as new as this moment; `None` when that is not known.
    pub as_of: Option<Instant>,
    /// Whether the decision was made for this check, or for an earlier one, or not at all.
    pub reached: Reached,
}

/// The way in which a decision came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It was made for this question.
    Now,
    /// It was made for an earlier question. How long it took says nothing about the authority's speed.
    Earlier,
    /// It can never be made, so the check is denied. This says nothing about the relationships.
    Never,
}

/// The guards that a user may see, out of those that a query asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisiblePositions {
    /// The positions of these guards in the query's table.
    pub positions: Arc<RoaringBitmap>,
    /// The model and the relationships behind the set.
    pub by: Provenance,
}

/// The relationships that an authorizer decides from, as far as they are in this process.
#[derive(Clone, Debug)]
pub enum KnownRelationships {
    /// One state of them.
    State {
        /// The model and the tuples.
        snapshot: Arc<Snapshot>,
        /// The model's id at the authority, and the moment up to which the state holds every change.
        by: Provenance,
    },
    /// A copy of them, which may not be used now. It is not complete, not fresh, or not trusted.
    Withheld,
    /// They are on a server alone.
    OnServer,
}

impl Decisions {
    /// Joins decisions that one source made under one model.
    #[must_use]
    pub fn new(list: Vec<Decision>, source: Source, model_id: Arc<str>) -> Self {
        // A check that can never be decided has no decision that could be old.
        let made = list.iter().filter(|decision| decision.reached != Reached::Never);
        // `None`, an unknown age, is less than every moment.
        let as_of = made.map(|decision| decision.as_of).min().flatten();
        Self { list, by: Provenance { model_id, as_of, source } }
    }

    /// Makes the decisions of an authority without models. They are in the order of the checks, and as new as this
    /// moment.
    #[must_use]
    pub fn now(allowed: impl IntoIterator<Item = bool>) -> Self {
        let as_of = Instant::now();
        let decision = |(position, allowed)| Decision { position, allowed, as_of: Some(as_of), reached: Reached::Now };
        let list = allowed.into_iter().enumerate().map(decision).collect();
        Self { list, by: Provenance::authority(Arc::default(), as_of) }
    }
}

impl VisiblePositions {
    /// Makes the visible set of an authority without models. The set is as new as this moment.
    #[must_use]
    pub fn now(positions: Arc<RoaringBitmap>) -> Self {
        Self { positions, by: Provenance::authority(Arc::default(), Instant::now()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_list_is_as_old_as_its_oldest_decision() {
        tokio::time::advance(Duration::from_secs(100)).await;
        let now = Instant::now();
        let ago = |seconds| Some(now - Duration::from_secs(seconds));
        let made = |as_of| Decision { position: 0, allowed: true, as_of, reached: Reached::Earlier };
        let never = Decision { position: 0, allowed: false, as_of: None, reached: Reached::Never };
        let rows = [
            ("nothing", vec![], None),
            ("one", vec![made(ago(3))], ago(3)),
            ("several", vec![made(ago(1)), made(ago(7)), made(ago(3))], ago(7)),
            ("one of unknown age", vec![made(ago(1)), made(None)], None),
            ("one that can never be made", vec![made(ago(1)), never], ago(1)),
        ];
        for (name, list, as_of) in rows {
            assert_eq!(Decisions::new(list, Source::Authority, "m1".into()).by.as_of, as_of, "{name}");
        }
    }
}
