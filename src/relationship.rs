//! Relationships as `OpenFGA` has them: users, relations, objects, tuples, authorization models, and the evaluator that
//! decides from them. Deciding code does no I/O and reads no clock.

mod condition;
mod contextual;
pub mod dsl;
pub mod evaluator;
pub mod explain;
mod index;
pub mod json;
mod lack;
pub mod limits;
pub mod model;
mod program;
pub mod snapshot;
pub mod store;
pub mod store_file;
pub mod subtracted;
pub mod tuple;
pub mod validate;
pub mod visible_set;

pub use condition::{
    COST_MAX, CompileError, ConditionError, ConditionInput, EXPRESSION_BYTES_MAX, InputSource, NESTING_MAX,
};
pub use contextual::Contextual;
pub use program::{MisfitTuple, TupleMisfit};
pub use tuple::{Object, ParseError, Relation, RelationshipTuple, TupleCondition, TypeName, User};
