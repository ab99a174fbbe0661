//! The terms of texts, for stores whose servers keep them. Other stores come to the analysis here alone, so a text has the
//! same terms in every store.

use std::sync::Arc;

use super::terms::{self, Analyzer, TermCount};
use super::text_search::{B, K1};
use crate::vector_store::VectorStoreError;

/// The version of the analysis. Texts that were analyzed by another one do not match the terms of a query.
pub(in crate::vector_store) const ANALYSIS_VERSION: u32 = terms::ANALYSIS_VERSION;

/// A term and how often it occurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vector_store) struct CountedTerm {
    pub(in crate::vector_store) term: Arc<str>,
    pub(in crate::vector_store) count: u32,
}

impl From<TermCount> for CountedTerm {
    fn from(TermCount { term, count }: TermCount) -> Self {
        Self { term, count }
    }
}

/// Finds the terms of chunks. It remembers stems, so one is kept for a batch.
pub(in crate::vector_store) struct ChunkTerms(Analyzer);

impl ChunkTerms {
    pub(in crate::vector_store) fn new() -> Self {
        Self(Analyzer::new())
    }

    /// Finds the distinct terms of a chunk's text.
    pub(in crate::vector_store) fn of(&mut self, text: &str) -> Vec<CountedTerm> {
        self.0.terms(text).into_iter().map(CountedTerm::from).collect()
    }
}

/// Finds the distinct terms of a query.
///
/// # Errors
/// [`VectorStoreError::Invalid`] when there are too many.
pub(in crate::vector_store) fn of_query(text: &str) -> Result<Vec<CountedTerm>, VectorStoreError> {
    Ok(super::query_terms(text)?.into_iter().map(CountedTerm::from).collect())
}

/// Returns the part of a term's weight that a chunk gets in BM25, if texts have this average length.
pub(in crate::vector_store) fn share(count: u32, length: u64, average_length: u32) -> f64 {
    let length = f64::from(u32::try_from(length).unwrap_or(u32::MAX));
    let norm = K1 * (1.0 - B + B * length / f64::from(average_length));
    f64::from(count) / (f64::from(count) + norm)
}
