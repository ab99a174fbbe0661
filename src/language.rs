//! `OpenFGA`'s language: tuples with their users, relations and objects; authorization models as text and as JSON; the
//! conditions in models; the rules of a valid model; and the program that a valid model compiles to. Nothing here reads
//! a tuple store.

pub(crate) mod condition;
pub mod dsl;
pub mod json;
mod lack;
pub mod limits;
pub mod model;
pub(crate) mod program;
pub mod subtracted;
mod text_form;
pub mod tuple;
pub mod validate;

pub use condition::{
    COST_MAX, CompileError, ConditionError, ConditionInput, EXPRESSION_BYTES_MAX, InputSource, NESTING_MAX,
};
pub use program::{MisfitTuple, TupleMisfit};
pub use tuple::{Object, ParseError, Relation, RelationshipTuple, TupleCondition, TypeName, User};
