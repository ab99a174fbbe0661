//! The terms of texts, for stores whose servers keep them. Other stores come to the analysis here alone, so a text has the
//! same terms in every store.
//!
//! Such a server weighs each term alone, and not each word with all of its terms. So the terms lose the marks of their
//! languages: otherwise a common word would weigh much in the few chunks that were taken for another language.

use std::collections::BTreeMap;
use std::sync::Arc;

pub(in crate::vector_store) use super::fields::{Fields, INDEX_VERSION};
use super::query_words;
use super::stated_language::stated_language;
use super::text_search::{B, K1};
use crate::analysis::{Analyzer, Languages, QueryWord, TermCount, unmarked};
use crate::chunk::Metadata;
use crate::vector_store::VectorStoreError;

/// A term and how often it occurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vector_store) struct CountedTerm {
    pub(in crate::vector_store) term: Arc<str>,
    pub(in crate::vector_store) count: u32,
}

/// Finds the terms of chunks. It remembers stems, so one is kept for a batch.
pub(in crate::vector_store) struct ChunkTerms(Analyzer);

impl ChunkTerms {
    pub(in crate::vector_store) fn new() -> Self {
        Self(Analyzer::new())
    }

    /// Finds the distinct terms of a chunk. Its metadata may state its language.
    pub(in crate::vector_store) fn of(
        &mut self,
        fields: Fields<'_>,
        metadata: &Metadata,
        languages: &Languages,
    ) -> Vec<CountedTerm> {
        let own = stated_language(metadata).map(|language| languages.of_text_in(language));
        let languages = own.as_ref().unwrap_or(languages);
        let terms = fields.terms(|text| self.0.terms(text, languages));
        counted(terms.iter().map(|TermCount { term, count }| (&**term, *count)))
    }
}

/// Finds the distinct terms of a query. Each of them is one of those that a word stands for.
///
/// # Errors
/// [`VectorStoreError::Invalid`] when there are too many words.
pub(in crate::vector_store) fn of_query(
    text: &str,
    languages: &Languages,
) -> Result<Vec<CountedTerm>, VectorStoreError> {
    let words = query_words::of(text, languages)?;
    // A word counts once for a term, in however many languages this is its stem.
    let terms = words.iter().flat_map(|QueryWord { terms, count }| {
        let distinct: BTreeMap<&str, u32> = terms.iter().map(|term| (unmarked(term), *count)).collect();
        distinct
    });
    Ok(counted(terms))
}

/// Adds up the counts of terms that differ in nothing but the language.
fn counted<'t>(terms: impl Iterator<Item = (&'t str, u32)>) -> Vec<CountedTerm> {
    let mut sums: BTreeMap<&str, u32> = BTreeMap::new();
    for (term, count) in terms {
        let sum = sums.entry(unmarked(term)).or_default();
        *sum = sum.saturating_add(count);
    }
    sums.into_iter().map(|(term, count)| CountedTerm { term: term.into(), count }).collect()
}

/// Returns the part of a term's weight that a chunk gets in BM25, if texts have this average length.
pub(in crate::vector_store) fn share(count: u32, length: u64, average_length: u32) -> f64 {
    let length = f64::from(u32::try_from(length).unwrap_or(u32::MAX));
    let norm = K1 * (1.0 - B + B * length / f64::from(average_length));
    f64::from(count) / (f64::from(count) + norm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Language;
    use crate::chunk::{LANGUAGE_KEY, Value};

    #[test]
    fn a_stem_is_one_term_in_every_language() {
        let languages = Languages::default();
        let found = of_query("pods", &languages).expect("one word");
        let pods: Vec<u32> = found.iter().filter(|found| &*found.term == "pod").map(|found| found.count).collect();
        assert_eq!(pods, [1], "{found:?}");
        let german = Metadata::from([(LANGUAGE_KEY.to_owned(), Value::Text(Language::German.code().to_owned()))]);
        let fields = Fields { title: "", heading_path: &[], text: "pod" };
        let mut terms = ChunkTerms::new();
        let expected = vec![CountedTerm { term: "pod".into(), count: 1 }];
        for (row, metadata) in [("no language", Metadata::new()), ("German", german)] {
            assert_eq!(terms.of(fields, &metadata, &languages), expected, "{row}");
        }
    }
}
