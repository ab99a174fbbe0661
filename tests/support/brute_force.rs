//! A slow, obvious vector store: it keeps documents in a map and looks at every chunk for every question. Nobody optimises
//! it; the engine is compared with it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use ragward::chunk::{Candidate, Chunk, Document};
use ragward::vector_store::{Filter, Query};

/// Cosines are compared within this.
const TOLERANCE: f64 = 1e-6;

/// What is stored.
#[derive(Default)]
pub(crate) struct World {
    documents: BTreeMap<String, Document>,
}

impl World {
    pub(crate) fn upsert(&mut self, documents: &[Document]) {
        self.documents.extend(documents.iter().map(|document| {
            let mut document = document.clone();
            document.chunks.sort_by(|a, b| a.id.cmp(&b.id));
            (document.id.clone(), document)
        }));
    }

    pub(crate) fn delete(&mut self, ids: &BTreeSet<String>) -> u64 {
        ids.iter().filter(|id| self.documents.remove(*id).is_some()).count() as u64
    }

    /// Documents and chunks.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.documents.len() as u64, self.documents.values().map(|document| document.chunks.len() as u64).sum())
    }

    /// Every chunk.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.documents.values().flat_map(|document| &document.chunks)
    }

    /// Whether an answer is right. `guards`: the scope, if there is one.
    #[track_caller]
    pub(crate) fn check(
        &self,
        query: &Query,
        filter: Option<&Filter>,
        guards: Option<&BTreeSet<&str>>,
        limit: usize,
        answer: &[Candidate],
    ) {
        let is_visible = |chunk: &&Chunk| guards.is_none_or(|guards| guards.contains(chunk.guard.as_str()));
        let visible: Vec<&Chunk> = self.chunks().filter(is_visible).collect();
        let mut expected = match query {
            Query::Text(text) => bm25(text, &visible),
            Query::Vector(vector) => cosines(vector, &visible),
        };
        expected.retain(|(chunk, _)| filter.is_none_or(|filter| filter.matches(&chunk.metadata)));
        expected.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.id.cmp(&b.id)));
        assert_eq!(answer.len(), limit.min(expected.len()), "{query:?}");
        let is_ordered = |pair: &[Candidate]| {
            let by_score = pair[1].score.total_cmp(&pair[0].score);
            by_score.then_with(|| pair[0].chunk_id.cmp(&pair[1].chunk_id)) == Ordering::Less
        };
        assert!(answer.windows(2).all(is_ordered), "{answer:?}");
        let scores: HashMap<&str, f64> = expected.iter().map(|(chunk, score)| (chunk.id.as_str(), *score)).collect();
        for (found, (chunk, score)) in answer.iter().zip(&expected) {
            match query {
                // The formula and the order of its sums are fixed, so every bit is.
                Query::Text(_) => {
                    let found_score = f64::from(found.score);
                    assert_eq!((found_score.to_bits(), &found.chunk_id), (score.to_bits(), &chunk.id), "{query:?}");
                }
                Query::Vector(_) => {
                    let own = scores.get(found.chunk_id.as_str()).expect("a chunk that matches");
                    let found_score = f64::from(found.score);
                    assert!((found_score - own).abs() < TOLERANCE, "{query:?}: {found:?}, expected {own}");
                    assert!((found_score - score).abs() < TOLERANCE, "{query:?}: {found:?} in the place of {score}");
                }
            }
        }
    }
}

fn cosines<'a>(query: &[f32], chunks: &[&'a Chunk]) -> Vec<(&'a Chunk, f64)> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let cosine = |vector: &[f32]| dot(query, vector) / (dot(query, query) * dot(vector, vector)).sqrt();
    chunks.iter().filter(|chunk| !chunk.vector.is_empty()).map(|chunk| (*chunk, cosine(&chunk.vector))).collect()
}

/// Words are those between spaces: the texts of these tests hold only lower-case words that are their own stems.
fn bm25<'a>(query: &str, chunks: &[&'a Chunk]) -> Vec<(&'a Chunk, f64)> {
    let words = |text: &str| -> Vec<String> {
        text.split(' ').filter(|word| word.chars().any(char::is_alphanumeric)).map(str::to_owned).collect()
    };
    let texts: Vec<(&Chunk, Vec<String>)> =
        chunks.iter().map(|chunk| (*chunk, words(&chunk.text))).filter(|(_, words)| !words.is_empty()).collect();
    let total = float(texts.len());
    let average = float(texts.iter().map(|(_, words)| words.len()).sum()) / total;
    let count = |words: &[String], word: &String| words.iter().filter(|other| *other == word).count();
    let query = words(query);
    let mut distinct: Vec<&String> = Vec::new();
    for word in &query {
        if !distinct.contains(&word) {
            distinct.push(word);
        }
    }
    let mut scores = Vec::new();
    for (chunk, words) in &texts {
        let mut score = 0.0;
        for word in &distinct {
            let frequency = float(count(words, word));
            let containing = float(texts.iter().filter(|(_, words)| words.contains(word)).count());
            if frequency > 0.0 {
                let idf = (1.0 + (total - containing + 0.5) / (containing + 0.5)).ln();
                let norm = 1.2 * (1.0 - 0.75 + 0.75 * float(words.len()) / average);
                score += float(count(&query, word)) * idf * (frequency / (frequency + norm));
            }
        }
        if distinct.iter().any(|word| words.contains(word)) {
            // Scores that round to one f32 are a tie.
            #[expect(clippy::cast_possible_truncation, reason = "scores are f32")]
            scores.push((*chunk, f64::from(score as f32)));
        }
    }
    scores
}

#[expect(clippy::cast_precision_loss, reason = "counts of a small test")]
fn float(count: usize) -> f64 {
    count as f64
}
