//! Relationships as `OpenFGA` has them: users, relations, objects, tuples, authorization models, and the evaluator that
//! decides from them. Deciding code does no I/O and reads no clock.

pub mod model;
pub mod tuple;

pub use tuple::{Object, ParseError, Relation, RelationshipTuple, TypeName, User};
