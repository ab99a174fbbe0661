//! What an evaluator over a copy of somebody else's relationships offers beside the port.

use super::Authorizer;
use crate::language::Object;

/// An evaluator over a copy.
pub trait EvaluatedCopy: Authorizer {
    /// Returns the names of the conditions on tuples that name the object, as far as they are known without waiting.
    fn conditions_on(&self, object: &Object) -> Vec<String>;
}
