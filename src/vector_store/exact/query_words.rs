//! The words of a text query.

use crate::analysis::{Analyzer, Languages, QueryWord};
use crate::vector_store::VectorStoreError;
use crate::vector_store::validation::QUERY_TERMS_MAX;

/// Returns the words of a text query, in the order of the query. Nothing but the query and the settings decides in which
/// languages its words are looked for.
pub(super) fn of(text: &str, languages: &Languages) -> Result<Vec<QueryWord>, VectorStoreError> {
    let words = Analyzer::new().query(text, languages);
    if words.len() > QUERY_TERMS_MAX {
        let found = words.len();
        let text = format!("the query has {found} different words, at most {QUERY_TERMS_MAX} are allowed");
        return Err(VectorStoreError::Invalid(text));
    }
    Ok(words)
}
