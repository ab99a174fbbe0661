//! The origin of an answer. Each answer carries it, so that nobody uses the answer for more than it is good for.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// The party that made a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Source {
    /// The authority itself: an `OpenFGA` server, or the embedded evaluator over its own store.
    #[default]
    Authority,
    /// A copy of the authority's relationships. Each copy that was built anew has a number of its own, because a decision
    /// of one copy says nothing about the next.
    Copy(u64),
}

/// The origin of an answer: its model, its age and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The id of the authorization model that decided; empty where the authorizer has no models.
    pub model_id: Arc<str>,
    /// The relationships behind the answer were at least as new as this moment; `None` when that is not known.
    pub as_of: Option<Instant>,
    /// The party that made the decisions.
    pub source: Source,
}

/// The basis of the answer to one request, for its audit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedBy {
    /// The id of the authorization model that decided last; empty where the authorizer has no models.
    pub model_id: Arc<str>,
    /// The longest time by which the relationships were behind their authority; `None` when that is not known.
    pub staleness: Option<Duration>,
}

/// The models behind the answers to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelsUsed {
    /// The id of the model that gave the first answer; empty where the authorizer has no models. An id belongs to one
    /// version of one store's model, so it names the store as well.
    pub(crate) first: Arc<str>,
    /// Whether another model gave a later answer.
    pub(crate) has_changed: bool,
}

impl Provenance {
    /// Describes an answer of the authority itself.
    #[must_use]
    pub fn authority(model_id: Arc<str>, as_of: Instant) -> Self {
        Self { model_id, as_of: Some(as_of), source: Source::Authority }
    }

    /// Returns how far the relationships were behind their authority when the question was `asked`.
    ///
    /// A copy knows that. An authority is its own measure, so its relationships are not behind at all if they were read
    /// after the question came. If they were read before, a cache answered, and nobody knows what has changed since.
    #[must_use]
    pub fn staleness(&self, asked: Instant) -> Option<Duration> {
        let as_of = self.as_of?;
        match self.source {
            Source::Copy(_) => Some(asked.saturating_duration_since(as_of)),
            Source::Authority => (as_of >= asked).then_some(Duration::ZERO),
        }
    }
}

impl DecidedBy {
    /// Joins the basis of an earlier answer to the same request (`self`) with that of a later one.
    #[must_use]
    pub fn and_then(self, later: Self) -> Self {
        let staleness = self.staleness.zip(later.staleness).map(|(one, other)| one.max(other));
        Self { model_id: later.model_id, staleness }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn staleness_is_known_of_a_copy_and_of_an_authority_that_was_asked() {
        tokio::time::advance(Duration::from_secs(100)).await;
        let asked = Instant::now();
        let second = Duration::from_secs(1);
        let rows = [
            ("the authority, asked after", Source::Authority, Some(asked + second), Some(Duration::ZERO)),
            ("the authority, from a cache", Source::Authority, Some(asked - second), None),
            ("the authority, of unknown age", Source::Authority, None, None),
            ("a copy that is behind", Source::Copy(1), Some(asked - second), Some(second)),
            ("a copy that caught up meanwhile", Source::Copy(1), Some(asked + second), Some(Duration::ZERO)),
            ("a copy of unknown age", Source::Copy(1), None, None),
        ];
        for (name, source, as_of, expected) in rows {
            let provenance = Provenance { model_id: "m1".into(), as_of, source };
            assert_eq!(provenance.staleness(asked), expected, "{name}");
        }
    }
}
