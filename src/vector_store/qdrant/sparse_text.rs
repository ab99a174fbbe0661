//! Texts as sparse vectors, so that Qdrant ranks them by BM25.
//!
//! Each term has an index. The value of a chunk's term is the part of the term's weight that the chunk gets; it rests on
//! the chunk alone. The value of a query's term is the number of its occurrences. When Qdrant searches, it multiplies each
//! value of the query by the inverse document frequency, with the formula of the embedded engine. It counts the frequency
//! over the corpus that the search names, which is the visible set.
//!
//! INVARIANT (visible set alone): the average length of texts is a setting and is never counted. Otherwise the values of
//! visible chunks would tell of hidden ones.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};

use crate::analysis::Languages;
use crate::chunk::Metadata;
use crate::vector_store::VectorStoreError;
use crate::vector_store::exact::served_terms::{self, ChunkTerms, CountedTerm, Fields, INDEX_VERSION};
pub(super) use crate::vector_store::qdrant_config::TEXT_VECTOR;

/// The number of binary digits of a score that are dropped, of 24. Twelve are left, which tell scores apart that differ by a
/// twentieth of a per cent.
const DIGITS_DROPPED: u32 = 12;

/// The most by which two scores of one text may differ after [`rounded`], as a part of the score.
pub(super) const SCORE_STEP: f32 = 1.0 / 2048.0;

/// A text as a sparse vector, with at least one index.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SparseText {
    /// Distinct, and ascending.
    pub(super) indices: Vec<u32>,
    pub(super) values: Vec<f32>,
}

impl SparseText {
    /// Returns the vector of a text without terms, for a point that must have one. No query has its index.
    pub(super) fn without_terms() -> Self {
        Self { indices: vec![index_of("")], values: vec![1.0] }
    }

    /// Adds up values of one index. Two terms have one index by chance, in about one of four thousand million pairs.
    fn of(terms: &[CountedTerm], value: impl Fn(u32) -> f64) -> Option<Self> {
        let mut sums: BTreeMap<u32, f64> = BTreeMap::new();
        for CountedTerm { term, count } in terms {
            *sums.entry(index_of(term)).or_default() += value(*count);
        }
        #[expect(clippy::cast_possible_truncation, reason = "the type of Qdrant's values is f32; rounded here, once")]
        let values = sums.values().map(|value| *value as f32).collect();
        (!sums.is_empty()).then(|| Self { indices: sums.into_keys().collect(), values })
    }
}

/// Turns the texts of chunks into vectors.
pub(super) struct ChunkVectors {
    terms: ChunkTerms,
    form: TextForm,
}

/// What decides, besides a chunk itself, which vector it gets.
#[derive(Clone, Debug)]
pub(super) struct TextForm {
    /// The length of a usual text, in words.
    pub(super) average_length: u32,
    /// The languages of the collection.
    pub(super) languages: Languages,
}

impl TextForm {
    /// Returns the name of everything that makes the vectors of chunks. Vectors that were made otherwise cannot be compared.
    pub(super) fn name(&self) -> String {
        let Self { average_length, languages } = self;
        format!("{INDEX_VERSION}/{average_length}/{languages}")
    }
}

impl ChunkVectors {
    pub(super) fn new(form: TextForm) -> Self {
        Self { terms: ChunkTerms::new(), form }
    }

    /// Returns the vector of a chunk; `None` if its text has no terms.
    pub(super) fn of(&mut self, fields: Fields<'_>, metadata: &Metadata) -> Option<SparseText> {
        let terms = self.terms.of(fields, metadata, &self.form.languages);
        let length: u64 = terms.iter().map(|term| u64::from(term.count)).sum();
        SparseText::of(&terms, |count| served_terms::share(count, length, self.form.average_length))
    }
}

/// Returns the vector of a query; `None` if its text has no terms.
///
/// # Errors
/// [`VectorStoreError::Invalid`] when it has too many terms.
pub(super) fn of_query(text: &str, languages: &Languages) -> Result<Option<SparseText>, VectorStoreError> {
    Ok(SparseText::of(&served_terms::of_query(text, languages)?, f64::from))
}

/// Rounds the score of a text.
///
/// Qdrant adds up the terms of a query in an order that depends on all chunks: which of them had a term first, and how
/// many have it. Different orders round differently, so hidden chunks would show in the last digits of a score.
pub(super) fn rounded(score: f32) -> f32 {
    if !score.is_finite() {
        return score;
    }
    let half = 1 << (DIGITS_DROPPED - 1);
    let all = 1 << DIGITS_DROPPED;
    // The magnitude of a finite number is below that of all NaNs, so there is no overflow.
    f32::from_bits((score.to_bits() + half) & !(all - 1))
}

fn index_of(term: &str) -> u32 {
    let hash = digest(&SHA256, term.as_bytes());
    u32::from_be_bytes(hash.as_ref().first_chunk().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Language;

    fn vectors(average_length: u32) -> ChunkVectors {
        ChunkVectors::new(TextForm { average_length, languages: english() })
    }

    fn english() -> Languages {
        Languages::new(vec![Language::English])
    }

    fn vector(vectors: &mut ChunkVectors, text: &str) -> Option<SparseText> {
        vectors.of(Fields { title: "", heading_path: &[], text }, &Metadata::new())
    }

    #[test]
    fn a_text_is_the_sum_of_its_terms() {
        // Stored collections depend on it.
        assert_eq!(index_of("abc"), 0xba78_16bf);
        let mut vectors = vectors(4);
        assert_eq!(vector(&mut vectors, "?!"), None);
        let one = vector(&mut vectors, "pear").expect("a vector");
        // 1 / (1 + 1.2 · (0.25 + 0.75 · 1 / 4))
        assert_eq!(one.indices, [index_of("pear")]);
        assert!((one.values[0] - 1.0 / 1.525).abs() < 1e-6, "{one:?}");
        let two = vector(&mut vectors, "Pears, pears, and apples").expect("a vector");
        assert_eq!(two.indices.len(), 3);
        assert!(two.indices.is_sorted(), "{two:?}");
        let pears = two.indices.iter().position(|index| *index == index_of("pear")).expect("a pear");
        // 2 / (2 + 1.2 · (0.25 + 0.75 · 4 / 4))
        assert!((two.values[pears] - 2.0 / 3.2).abs() < 1e-6, "{two:?}");
        let query = of_query("pear pears plum", &english()).expect("few terms").expect("a vector");
        let pears = query.indices.iter().position(|index| *index == index_of("pear")).expect("a pear");
        assert!((query.values[pears] - 2.0).abs() < f32::EPSILON && query.values.len() == 2, "{query:?}");
        assert_eq!(of_query(" ", &english()).expect("no terms"), None);
    }

    #[test]
    fn a_score_does_not_tell_in_which_order_it_was_added_up() {
        let mut differing = 0;
        for number in 1_u8..=100 {
            let [a, b, c] = [0.1, 0.7, 2.3].map(|part: f32| part * f32::from(number) / 7.0);
            let orders = [(a + b) + c, (b + c) + a, (a + c) + b];
            differing += usize::from(orders.iter().any(|score| score.to_bits() != orders[0].to_bits()));
            for score in orders {
                assert_eq!(rounded(score).to_bits(), rounded(orders[0]).to_bits(), "{number}");
                assert!((rounded(score) - score).abs() <= score * SCORE_STEP / 2.0, "{number}");
            }
        }
        assert!(differing > 0, "Some orders do not give the same sum.");
        let rows = [
            ("zero", 0.0, 0.0),
            ("one", 1.0, 1.0),
            ("few digits", 2.5, 2.5),
            ("infinite", f32::INFINITY, f32::INFINITY),
            ("the largest", f32::MAX, f32::INFINITY),
        ];
        for (row, score, expected) in rows {
            assert_eq!(rounded(score).to_bits(), f32::to_bits(expected), "{row}");
        }
        assert!(rounded(f32::NAN).is_nan());
        assert!(rounded(1.0) < rounded(1.001) && rounded(1.001) < rounded(1.002), "Scores keep their order.");
    }

    /// A chunk's vector is the same, whatever else was turned into vectors before.
    #[test]
    fn a_vector_rests_on_its_text_alone() {
        let mut vectors = vectors(100);
        let alone = vector(&mut vectors, "a quiet tern");
        for number in 0..50 {
            vector(&mut vectors, &format!("tern {number} {}", "tern ".repeat(number)));
        }
        assert_eq!(vector(&mut vectors, "a quiet tern"), alone);
    }
}
