//! One write to a store: what it asks for, what it changed, and why it was refused.

use crate::language::program::MisfitTuple;
use crate::language::tuple::RelationshipTuple;
use crate::storage::StorageError;

pub use crate::language::limits::TUPLES_PER_WRITE_MAX;

/// Says what a write does with a tuple that already exists, or with one that it cannot delete because it does not
/// exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Refuse the whole write.
    #[default]
    Refuse,
    /// Leave this tuple as it is, and go on.
    Ignore,
}

/// The changes of one write. All of them are made, or none.
#[derive(Clone, Debug, Default)]
pub struct TupleWrite {
    /// The tuples to insert. Each must fit the model.
    pub writes: Vec<RelationshipTuple>,
    /// The tuples to delete. They need not fit the model, so that tuples of an older model can be deleted.
    pub deletes: Vec<RelationshipTuple>,
    /// The treatment of a tuple in `writes` that exists.
    pub on_duplicate: OnConflict,
    /// The treatment of a tuple in `deletes` that does not exist.
    pub on_missing: OnConflict,
}

/// Counts the changes that a write made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The number of tuples that were inserted.
    pub added: u64,
    /// The number of tuples that were deleted.
    pub removed: u64,
}

/// Says why a write was refused. A refused write changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store has no model that the tuples could be checked against.
    #[error("no authorization model is loaded; load one with `ragward model load`")]
    NoModel,
    /// A tuple does not fit the model.
    #[error(transparent)]
    Misfit(#[from] Box<MisfitTuple>),
    /// The request names a tuple twice.
    #[error("tuple `{0}` occurs more than once in the request")]
    Repeated(RelationshipTuple),
    /// The tuple already exists.
    #[error("tuple `{0}` is already there")]
    AlreadyThere(RelationshipTuple),
    /// The tuple already exists with another condition, so [`OnConflict::Ignore`] cannot leave it as it is.
    #[error("tuple `{0}` is already there with another condition; delete it first")]
    OtherCondition(RelationshipTuple),
    /// The tuple to delete does not exist.
    #[error("tuple `{0}` is not there, so it cannot be deleted")]
    NotThere(RelationshipTuple),
    /// The request names no tuple at all.
    #[error("the write has no tuples")]
    Empty,
    /// The request names more than [`TUPLES_PER_WRITE_MAX`] tuples.
    #[error("the write has {0} tuples, at most {TUPLES_PER_WRITE_MAX} are allowed")]
    TooMany(usize),
    /// The data directory failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
