//! The part of an adapter that every server of vectors needs, whatever protocol it speaks.
//!
//! [`overview`] remembers what a server holds. [`server_search`] covers a search space with calls for the nearest
//! points and merges their answers. [`own_writes`] knows when this process wrote a document.

pub(super) mod guard_counts;
mod hits;
pub(super) mod limits;
pub(super) mod overview;
pub(super) mod own_writes;
pub(super) mod server_search;
pub(super) mod space_parts;
pub(super) mod text_support;

pub(super) use hits::Hit;
