//! Whether a collection of a server takes text queries.

/// Whether a collection takes text queries, and how well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TextSupport {
    /// Its points have no vectors of their texts.
    Absent,
    /// It takes them. Statistics are counted over the whole corpus.
    Whole,
    /// It takes them. Each part of the server counts its own statistics, so scores differ a little from part to part.
    InParts,
    /// It has vectors of texts, and a text query would leak or miss something. The sentence says why.
    Refused(String),
}
