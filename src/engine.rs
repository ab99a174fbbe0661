//! Answers questions about an authorization model and its tuples, as `OpenFGA` would: checks, lists of objects, lists
//! of users, and explanations. The engine does no I/O and reads no clock.
//!
//! [`snapshot::Snapshot`] is where to start: it holds a model with its tuples, and every question is a method of it.

mod contextual;
pub mod evaluator;
pub mod explain;
mod index;
pub mod snapshot;
pub mod visible_set;

pub use contextual::Contextual;
