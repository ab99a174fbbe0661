//! What one request adds to the stored relationships.

use serde_json::{Map, Value};

use crate::language::tuple::{RelationshipTuple, delimited, fields_wire_bytes};

/// Tuples and values that hold for one request only (`OpenFGA`'s contextual tuples and context). No other request sees
/// them. At most [`super::snapshot::CONTEXTUAL_TUPLES_MAX`] tuples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contextual {
    /// The tuples.
    pub tuples: Vec<RelationshipTuple>,
    /// Values for the parameters of conditions.
    pub context: Map<String, Value>,
}

impl Contextual {
    /// Whether the request adds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tuples.is_empty() && self.context.is_empty()
    }

    /// How many bytes it adds to a check, as `OpenFGA`'s API sends it.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        let tuples: usize = self.tuples.iter().map(|tuple| delimited(tuple.wire_bytes())).sum();
        let parts = [tuples, fields_wire_bytes(&self.context)];
        parts.into_iter().filter(|bytes| *bytes > 0).map(delimited).sum()
    }
}
