//! The query of a request, as its caller states it.

use super::FieldViolation;
use crate::vector_store::Query;
use crate::vector_store::validation::{QUERY_BYTES_MAX, VECTOR_DIMENSION_MAX};

/// The query of a request, as its caller states it.
#[derive(Clone, Debug, PartialEq)]
pub enum StatedQuery {
    /// A store can search for it as it is.
    Searchable(Query),
    /// Ranks chunks by how close their meaning is to that of this text. The collection's model makes the vector.
    Semantic(String),
    /// Ranks chunks by the words of this text and by its meaning, and merges both rankings as [`Query::Hybrid`] does. The
    /// collection's model makes the vector.
    Hybrid(String),
}

impl From<Query> for StatedQuery {
    fn from(query: Query) -> Self {
        Self::Searchable(query)
    }
}

impl StatedQuery {
    /// Returns the words of the query, if it has any.
    #[must_use]
    pub fn words(&self) -> Option<&str> {
        match self {
            Self::Searchable(Query::Text(text) | Query::Hybrid { text, .. })
            | Self::Semantic(text)
            | Self::Hybrid(text) => Some(text),
            Self::Searchable(Query::Vector(_)) => None,
        }
    }

    /// Returns whether chunks are ranked by their words, alone or together with a vector.
    pub(in crate::retrieval) fn is_by_words(&self) -> bool {
        match self {
            Self::Searchable(Query::Text(_) | Query::Hybrid { .. }) | Self::Hybrid(_) => true,
            Self::Searchable(Query::Vector(_)) | Self::Semantic(_) => false,
        }
    }

    /// Adds the wrong fields to `violations`.
    pub(super) fn check(&self, violations: &mut Vec<FieldViolation>) {
        match self {
            Self::Searchable(Query::Text(text)) => check_text("text", text, violations),
            Self::Searchable(Query::Vector(vector)) => check_vector("vector.values", vector, violations),
            Self::Searchable(Query::Hybrid { text, vector }) => {
                check_text("hybrid.text", text, violations);
                check_vector("hybrid.vector.values", vector, violations);
            }
            Self::Semantic(text) => check_text("semantic.text", text, violations),
            Self::Hybrid(text) => check_text("hybrid.text", text, violations),
        }
    }
}

fn check_text(field: &str, text: &str, violations: &mut Vec<FieldViolation>) {
    if text.trim().is_empty() {
        violations.push(FieldViolation::new(field, "is empty; ask for something"));
    } else if text.len() > QUERY_BYTES_MAX {
        let description = format!("has {} bytes, at most {QUERY_BYTES_MAX} are allowed", text.len());
        violations.push(FieldViolation::new(field, description));
    }
}

fn check_vector(field: &str, vector: &[f32], violations: &mut Vec<FieldViolation>) {
    let description = if vector.is_empty() || vector.len() > VECTOR_DIMENSION_MAX {
        format!("has {} values, must have 1 to {VECTOR_DIMENSION_MAX}", vector.len())
    } else if let Some(position) = vector.iter().position(|v| !v.is_finite()) {
        format!("value {position} is not a finite number")
    } else if vector.iter().all(|v| *v == 0.0) {
        "is all zeros, which has no direction".to_owned()
    } else {
        return;
    };
    violations.push(FieldViolation::new(field, description));
}
