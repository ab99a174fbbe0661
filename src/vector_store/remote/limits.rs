//! The limits of a server for one call.

/// The limits that the server of a collection sets for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallLimits {
    /// The largest number of points or values in one answer.
    pub(crate) answer_max: usize,
    /// The largest number of values in one condition of a filter.
    pub(crate) values_max: usize,
    /// Whether the server may scan all vectors for a search and count exactly.
    pub(crate) allows_scans: bool,
}

impl CallLimits {
    /// The limits of a server that sets none.
    pub(crate) const NONE: Self = Self { answer_max: usize::MAX, values_max: usize::MAX, allows_scans: true };
}
