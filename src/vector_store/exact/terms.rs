//! Turns texts into terms: the words of a text (UAX #29), folded (NFKC, lower case) and stemmed (English). Queries and
//! chunks are treated alike, so a stem need not be linguistically right to match.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use frostem::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

/// The longest word that counts, in bytes. A longer one is data (a hash, base64), not language.
const WORD_BYTES_MAX: usize = 128;
/// How many stems are remembered before all are forgotten. Stemming is most of the cost of ingesting.
const STEMS_REMEMBERED_MAX: usize = 65_536;

/// The version of the analysis: the date of the stemmer's definitions, which is the minor version of `frostem`. A file
/// with the terms of another version is analyzed again when it is opened. So a change of this module that changes terms
/// must change this number, too.
pub(super) const ANALYSIS_VERSION: u32 = 20_261_016;

/// A term and how often it occurs in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TermCount {
    pub(super) term: Arc<str>,
    pub(super) count: u32,
}

/// Turns texts into terms. It remembers stems, so each thread makes one and keeps it for a batch.
pub(super) struct Analyzer {
    stemmer: Stemmer,
    stems: HashMap<String, Arc<str>>,
}

impl Analyzer {
    pub(super) fn new() -> Self {
        Self { stemmer: Stemmer::new(Algorithm::English), stems: HashMap::new() }
    }

    /// Finds the distinct terms of a text, in the order of their first occurrence.
    pub(super) fn terms(&mut self, text: &str) -> Vec<TermCount> {
        let folded = fold(text);
        let mut terms: Vec<TermCount> = Vec::new();
        let mut positions: HashMap<Arc<str>, usize> = HashMap::new();
        for word in folded.unicode_words().filter(|word| word.len() <= WORD_BYTES_MAX) {
            let term = self.stem(word);
            match positions.entry(term) {
                Entry::Occupied(position) => {
                    if let Some(known) = terms.get_mut(*position.get()) {
                        known.count += 1;
                    }
                }
                Entry::Vacant(position) => {
                    terms.push(TermCount { term: Arc::clone(position.key()), count: 1 });
                    position.insert(terms.len() - 1);
                }
            }
        }
        terms
    }

    fn stem(&mut self, word: &str) -> Arc<str> {
        if let Some(stem) = self.stems.get(word) {
            return Arc::clone(stem);
        }
        if self.stems.len() >= STEMS_REMEMBERED_MAX {
            self.stems.clear();
        }
        let stem: Arc<str> = self.stemmer.stem(word).into();
        self.stems.insert(word.to_owned(), Arc::clone(&stem));
        stem
    }
}

fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.nfkc().flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_folded_stemmed_and_counted() {
        let rows: [(&str, &[(&str, u32)]); 10] = [
            ("", &[]),
            ("?! -- \u{2026}", &[]),
            ("The pods' scheduling, scheduled PODS.", &[("the", 1), ("pod", 2), ("schedul", 2)]),
            ("zeta alpha zeta", &[("zeta", 2), ("alpha", 1)]),
            // One word, in full-width letters, as a ligature, and with a combining accent.
            ("\u{ff30}\u{ff2f}\u{ff24} pod", &[("pod", 2)]),
            ("\u{fb01}le file", &[("file", 2)]),
            ("caf\u{e9} CAFE\u{301}", &[("caf\u{e9}", 2)]),
            ("\u{6771}\u{4eac}", &[("\u{6771}", 1), ("\u{4eac}", 1)]),
            // Words whose stems differ between versions of the stemmer: a new one needs another `ANALYSIS_VERSION`.
            ("organic organization", &[("organic", 1), ("organiz", 1)]),
            ("added emergency vying", &[("add", 1), ("emergenc", 1), ("vie", 1)]),
        ];
        for (text, expected) in rows {
            let terms = Analyzer::new().terms(text);
            let found: Vec<(&str, u32)> = terms.iter().map(|found| (&*found.term, found.count)).collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn endless_words_are_passed_over() {
        let word = "a".repeat(WORD_BYTES_MAX + 1);
        assert!(Analyzer::new().terms(&word).is_empty());
    }
}
