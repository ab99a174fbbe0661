//! Tuples and values that hold for one request.

use serde_json::{Map, Value};

use crate::language::tuple::{RelationshipTuple, delimited, fields_wire_bytes};

/// `OpenFGA`'s contextual tuples and context: what one request adds to the stored relationships. No other request sees
/// it. A request may add at most [`super::snapshot::CONTEXTUAL_TUPLES_MAX`] tuples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contextual {
    /// The contextual tuples. One that has the names of a stored tuple stands beside it, and both count. As in
    /// `OpenFGA`, there is one exception: if such tuples name the very object that asks, a check takes only the
    /// request's tuple, or the first of several.
    pub tuples: Vec<RelationshipTuple>,
    /// Values for the parameters of conditions.
    pub context: Map<String, Value>,
}

impl Contextual {
    /// Returns whether the request adds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tuples.is_empty() && self.context.is_empty()
    }

    /// Returns how many bytes this adds to a check in the encoding of `OpenFGA`'s API.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        let tuples: usize = self.tuples.iter().map(|tuple| delimited(tuple.wire_bytes())).sum();
        let parts = [tuples, fields_wire_bytes(&self.context)];
        parts.into_iter().filter(|bytes| *bytes > 0).map(delimited).sum()
    }
}
