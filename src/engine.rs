//! The engine decides from an authorization model and its tuples, as `OpenFGA` does: checks, lists of objects and of users,
//! and explanations. It does no I/O and reads no clock.

mod contextual;
pub mod evaluator;
pub mod explain;
mod index;
pub mod snapshot;
pub mod visible_set;

pub use contextual::Contextual;
