//! How chunks are numbered within a collection.

/// The number of a chunk: its position in the columns of the index. Numbers are given in the order of arrival.
pub(super) type ChunkNumber = u32;

/// Marks an empty place in a column. If a chunk has this for its guard, it was deleted.
pub(super) const NONE: ChunkNumber = u32::MAX;
