//! A copy of a server's relationships in this process: its answers, its progress, and the wishes of those who use it.
//!
//! [`super::replica`] keeps the copy and decides from it; [`super::verification`] compares it with the server. Both see
//! the copy through this module, so neither depends on the other.

mod news;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use self::news::{ChangesSince, News};
use super::decider::Question;
use super::{Authorizer, CheckBatch, Consistency, Decision, Provenance, Reached, Source};
use crate::language::Object;

/// The longest that one evaluation for a verification may take.
const EVALUATION_MAX: Duration = Duration::from_secs(3);
/// The most by which the server's clock may differ from ours before its log counts as late. Time synchronization easily
/// keeps clocks within this.
pub(super) const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);
/// The time within which the log reports a change after a comparison of all tuples has found it.
pub(super) const UNTOLD_AFTER: Duration = Duration::from_secs(2);

/// Reads the wall clock: nanoseconds since 1970, to compare with the dates in a server's log.
pub type UnixClock = Arc<dyn Fn() -> i128 + Send + Sync>;

/// An evaluator over a copy.
pub(crate) trait EvaluatedCopy: Authorizer {
    /// Returns the names of the conditions on tuples that name the object, as far as they are known without waiting.
    fn conditions_on(&self, object: &Object) -> Vec<String>;
}

/// Names the model that decides, and the store that it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelVersion {
    /// The id of the store.
    pub store_id: String,
    /// The id of the model in that store.
    pub model_id: String,
}

/// The progress of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The copy holds everything that was committed before this moment. `None` until the copy is complete for the first
    /// time, and while the copy is withheld.
    pub fresh_as_of: Option<Instant>,
    /// The server's store and model at that moment.
    pub version: ModelVersion,
    /// Counts how often the copy was built anew, because a decision of one copy says nothing about the next.
    pub copy: u64,
}

/// A copy and its progress, for those who use it and those who verify it.
pub struct CopyView {
    pub(super) copy: Arc<dyn EvaluatedCopy>,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) news: Arc<News>,
    pub(super) wishes: Arc<Wishes>,
    pub(super) clock: UnixClock,
    pub(super) staleness_max: Duration,
}

/// The wishes of those who use a copy. The follower carries them out at its next look at the server.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// Throw the copy away and build another one.
    new_copy: AtomicBool,
    /// Compare all tuples now.
    sweep: AtomicBool,
}

/// The result of an evaluation of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evaluated {
    /// The copy decides, and allows or denies.
    Decided { allowed: bool },
    /// The copy can never decide this, and so denies.
    Undecidable,
}

impl Wishes {
    pub(super) fn wish_new_copy(&self) {
        self.new_copy.store(true, Ordering::Relaxed);
    }

    pub(super) fn wish_sweep(&self) {
        self.sweep.store(true, Ordering::Relaxed);
    }

    /// Returns whether somebody wishes for a new copy, and forgets the wish.
    pub(super) fn take_new_copy(&self) -> bool {
        self.new_copy.swap(false, Ordering::Relaxed)
    }

    /// Returns whether somebody wishes for a sweep, and forgets the wish.
    pub(super) fn take_sweep(&self) -> bool {
        self.sweep.swap(false, Ordering::Relaxed)
    }
}

impl Progress {
    /// Returns the progress of the same copy while it is withheld.
    pub(super) fn withheld(&self) -> Self {
        Self { fresh_as_of: None, ..self.clone() }
    }

    /// Returns the provenance of the copy's answers; `None` while the copy is not complete.
    pub(super) fn provenance(&self) -> Option<Provenance> {
        Some(Provenance {
            model_id: self.version.model_id.as_str().into(),
            as_of: Some(self.fresh_as_of?),
            source: Source::Copy(self.copy),
        })
    }

    /// Returns whether both are about the same copy and model. If so, an evaluation between the two looks used one
    /// model and one copy throughout.
    pub(super) fn is_same_copy(&self, other: &Self) -> bool {
        self.version == other.version && self.copy == other.copy
    }
}

impl CopyView {
    pub(super) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    pub(super) fn news(&self) -> &News {
        &self.news
    }

    pub(super) fn unix_ns(&self) -> i128 {
        (self.clock)()
    }

    pub(super) fn staleness_max(&self) -> Duration {
        self.staleness_max
    }

    pub(super) fn conditions_on(&self, object: &Object) -> Vec<String> {
        self.copy.conditions_on(object)
    }

    pub(super) fn wish_new_copy(&self) {
        self.wishes.wish_new_copy();
    }

    pub(super) fn wish_comparison(&self) {
        self.wishes.wish_sweep();
    }

    /// Asks the copy now, whether or not it is trusted. Returns `None` when it does not answer, or when the model or the copy
    /// changed meanwhile.
    pub(super) async fn answer(&self, question: &Question) -> Option<Evaluated> {
        let before = self.progress();
        before.fresh_as_of?;
        let batch = CheckBatch {
            checks: vec![question.check.clone()],
            contextual: Arc::clone(&question.contextual),
            consistency: Consistency::MinimizeLatency,
            deadline: Instant::now() + EVALUATION_MAX,
        };
        let decisions = self.copy.check(&batch).await.ok()?;
        let [Decision { position: 0, allowed, reached, .. }] = *decisions.list else { return None };
        let after = self.progress();
        let evaluated = match reached {
            Reached::Now | Reached::Earlier => Evaluated::Decided { allowed },
            Reached::Never => Evaluated::Undecidable,
        };
        (before.is_same_copy(&after) && after.fresh_as_of.is_some()).then_some(evaluated)
    }
}
