//! Answers questions about an authorization model and its tuples, as `OpenFGA` would: checks, lists of objects, lists
//! of users, and explanations. The engine does no I/O and reads no clock.
//!
//! [`snapshot::Snapshot`] is where to start: it holds a model with its tuples, and every question is a method of it.
//!
//! # Differences from `OpenFGA` 1.22.1
//!
//! Random comparison and reading found these. In each of them the engine grants less, or gives an answer that `OpenFGA`
//! gives as well now and then. `tests/data/situations.yaml` has a row for each, with the reason.
//!
//! - A failed condition that was passed over becomes an error under `but not`. `OpenFGA` allows somebody there whom the
//!   condition may exclude (see [`evaluator`]).
//! - A list of users has nobody whom a check denies. `OpenFGA`'s list may, where a cycle through several relations is
//!   subtracted, or where a wildcard meets usersets of its type below `and`.
//! - A list of users has everybody whom a check allows, unless a `but not` leads into a loop. If several paths lead to
//!   a user, `OpenFGA`'s list goes by the one whose result comes last.
//! - Where a `but not` stands within a `but not`, `OpenFGA` may name users beside a wildcard that stands for them.
//! - A group may have a tuple with `user:*`, and a tuple that names the user and whose condition is not met. Both count
//!   here. `OpenFGA` mostly looks at one of the two.

mod contextual;
pub mod evaluator;
pub mod explain;
mod index;
pub mod snapshot;
pub mod visible_set;

pub use contextual::Contextual;
