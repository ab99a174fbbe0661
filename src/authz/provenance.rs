//! Where a decision came from, so that nobody uses it for more than it is good for.

use std::sync::Arc;

use tokio::time::Instant;

/// Who came to a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Source {
    /// The authority itself: an `OpenFGA` server, or the embedded evaluator over its own store.
    #[default]
    Authority,
    /// A copy of the authority's relationships. Each copy that was made anew has a number of its own.
    Copy(u64),
}

/// What stands behind one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Who decided.
    pub source: Source,
    /// The authorization model that it was decided under.
    pub model_id: Arc<str>,
    /// The relationships that decided were at least as new as this moment; `None` when that is not known.
    pub as_of: Option<Instant>,
    /// Whether this is a decision. A question that can never be decided is denied without one.
    pub decided: bool,
    /// Whether it was decided for an earlier question: what it took to come by it says nothing of the authority's speed.
    pub remembered: bool,
}

impl Provenance {
    /// A decision of the authority.
    #[must_use]
    pub fn authority(model_id: &Arc<str>, as_of: Instant) -> Self {
        Self {
            source: Source::Authority,
            model_id: Arc::clone(model_id),
            as_of: Some(as_of),
            decided: true,
            remembered: false,
        }
    }

    /// Whether the decision rests on relationships that are at least as new as `moment`.
    #[must_use]
    pub fn is_since(&self, moment: Instant) -> bool {
        self.as_of.is_some_and(|as_of| as_of >= moment)
    }
}
