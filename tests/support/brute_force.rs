//! A slow, obvious vector store: it keeps documents in a map and examines every chunk for every question. It stays
//! unoptimised, and the engine is compared with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ragward::chunk::{Candidate, Chunk, Document};
use ragward::vector_store::{Filter, HYBRID_DEPTH, Query, Search};

/// The error that a cosine in f32 may have.
const TOLERANCE: f64 = 1e-6;

/// A vector store that compares a query with every chunk.
#[derive(Default)]
pub(crate) struct BruteForce {
    documents: BTreeMap<String, Document>,
}

impl BruteForce {
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

    /// Returns the number of documents and of chunks.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.documents.len() as u64, self.documents.values().map(|document| document.chunks.len() as u64).sum())
    }

    /// Iterates over all chunks.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.documents.values().flat_map(|document| &document.chunks)
    }

    /// Checks that an answer is right. `guards` is the search space; `None` stands for everything. The space in
    /// `search` is ignored. A failure names `row`.
    #[track_caller]
    pub(crate) fn check(&self, row: &str, search: &Search, guards: Option<&BTreeSet<&str>>, answer: &[Candidate]) {
        let expected = self.expected(search, guards);
        // The formulas and the order of their sums are fixed, so scores are equal to the last bit.
        let expected: Vec<(&str, &str, u32)> = expected
            .iter()
            .take(search.limit)
            .map(|(chunk, score)| (chunk.id.as_str(), chunk.guard.as_str(), score.to_bits()))
            .collect();
        let found: Vec<(&str, &str, u32)> =
            answer.iter().map(|c| (c.chunk_id.as_str(), c.guard.as_str(), c.score.to_bits())).collect();
        assert_eq!(found, expected, "{row}: {search:?}");
    }

    /// Like `check`, for an engine that sums in an order of its own. Scores within the tolerance count as equal, so
    /// their chunks may come in any order, and any of them may be cut off.
    #[track_caller]
    pub(crate) fn check_about(
        &self,
        row: &str,
        search: &Search,
        guards: Option<&BTreeSet<&str>>,
        answer: &[Candidate],
    ) {
        let tolerance = 1e-5;
        let lower = Search { min_score: search.min_score.map(|min| min - tolerance), ..search.clone() };
        let expected = self.expected(&lower, guards);
        let certain =
            |(_, score): &&(&Chunk, f32)| search.min_score.is_none_or(|min| f64::from(*score) >= min + tolerance);
        let least = expected.iter().take(search.limit).filter(certain).count();
        let most = expected.len().min(search.limit);
        assert!((least..=most).contains(&answer.len()), "{row}: {} of {least} to {most}: {search:?}", answer.len());
        for (found, (_, score)) in answer.iter().zip(&expected) {
            assert!(
                f64::from((found.score - score).abs()) < tolerance,
                "{row}: {found:?}, {score} expected: {search:?}"
            );
        }
        let mut of_document: HashMap<&str, usize> = HashMap::new();
        let unlimited = Search { per_document_max: None, ..lower };
        let all = self.expected(&unlimited, guards);
        let visible: HashMap<&str, &(&Chunk, f32)> = all.iter().map(|item| (item.0.id.as_str(), item)).collect();
        for found in answer {
            let (chunk, score) = visible[found.chunk_id.as_str()];
            assert_eq!(found.guard, chunk.guard, "{row}: {found:?}: {search:?}");
            assert!(f64::from((found.score - score).abs()) < tolerance, "{row}: {found:?}: {search:?}");
            let chunks = of_document.entry(&chunk.document_id).or_default();
            *chunks += 1;
            assert!(search.per_document_max.is_none_or(|max| *chunks <= max.get()), "{row}: {found:?}: {search:?}");
        }
    }

    /// Returns all chunks that should be found, without a limit.
    fn expected(&self, search: &Search, guards: Option<&BTreeSet<&str>>) -> Vec<(&Chunk, f32)> {
        let is_visible = |chunk: &&Chunk| guards.is_none_or(|guards| guards.contains(chunk.guard.as_str()));
        let visible: Vec<&Chunk> = self.chunks().filter(is_visible).collect();
        let filter = search.filter.as_ref();
        let by_text = |text: &str| ranked(filter, bm25(text, &visible));
        let by_vector = |vector: &[f32]| ranked(filter, cosines(vector, &visible));
        let mut expected = match &search.query {
            Query::Text(text) => by_text(text),
            Query::Vector(vector) => by_vector(vector),
            Query::Hybrid { text, vector } => ranked(None, fused(&[by_text(text), by_vector(vector)])),
        };
        expected.retain(|(_, score)| search.min_score.is_none_or(|min| f64::from(*score) >= min));
        if let Some(max) = search.per_document_max {
            let mut of_document: HashMap<&str, usize> = HashMap::new();
            expected.retain(|(chunk, _)| {
                let chunks = of_document.entry(&chunk.document_id).or_default();
                *chunks += 1;
                *chunks <= max.get()
            });
        }
        expected
    }
}

/// Returns the chunks that pass the filter, best first.
fn ranked<'a>(filter: Option<&Filter>, mut scores: Vec<(&'a Chunk, f32)>) -> Vec<(&'a Chunk, f32)> {
    scores.retain(|(chunk, _)| filter.is_none_or(|filter| filter.matches(&chunk.metadata)));
    scores.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.id.cmp(&b.id)));
    scores
}

/// Returns the cosine of the query and each chunk: the product of their directions, rounded to f32 and summed in order.
fn cosines<'a>(query: &[f32], chunks: &[&'a Chunk]) -> Vec<(&'a Chunk, f32)> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let length = |vector: &[f32]| dot(vector, vector).sqrt();
    #[expect(clippy::cast_possible_truncation, reason = "scores are f32")]
    let direction = |vector: &[f32]| -> Vec<f32> {
        let length = length(vector);
        vector.iter().map(|x| (f64::from(*x) / length) as f32).collect()
    };
    let cosine = |chunk: &Chunk| {
        let product: f32 = direction(query).iter().zip(direction(&chunk.vector)).map(|(x, y)| x * y).sum();
        let exact = dot(query, &chunk.vector) / (length(query) * length(&chunk.vector));
        assert!((f64::from(product) - exact).abs() < TOLERANCE, "{query:?} and {:?}", chunk.vector);
        // Adding 0.0 makes both zeros the same.
        product + 0.0
    };
    chunks.iter().filter(|chunk| !chunk.vector.is_empty()).map(|chunk| (*chunk, cosine(chunk))).collect()
}

/// Fuses two rankings by their reciprocal ranks. Each ranking is cut at the length that the engine considers.
fn fused<'a>(rankings: &[Vec<(&'a Chunk, f32)>; 2]) -> Vec<(&'a Chunk, f32)> {
    let mut scores: BTreeMap<&str, (&Chunk, f64)> = BTreeMap::new();
    for ranking in rankings {
        assert!(ranking.len() <= HYBRID_DEPTH, "{} chunks in a ranking", ranking.len());
        for (place, (chunk, _)) in ranking.iter().enumerate() {
            scores.entry(chunk.id.as_str()).or_insert((chunk, 0.0)).1 += 1.0 / (60.0 + float(place + 1));
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "scores are f32")]
    scores.into_values().map(|(chunk, score)| (chunk, score as f32)).collect()
}

/// Returns BM25 scores. Words are separated by spaces, because the texts of these tests have only lower-case words that
/// are their own stems.
fn bm25<'a>(query: &str, chunks: &[&'a Chunk]) -> Vec<(&'a Chunk, f32)> {
    let words = |text: &str| -> Vec<String> {
        text.split(' ').filter(|word| word.chars().any(char::is_alphanumeric)).map(str::to_owned).collect()
    };
    // A word of the title or of a heading counts twice. A title that is the first heading counts once.
    let fields = |chunk: &Chunk| -> Vec<String> {
        let mut all = words(&chunk.text);
        if !chunk.text.is_empty() {
            let is_told = chunk.heading_path.first() == Some(&chunk.title);
            let headings = chunk.heading_path.iter().skip(usize::from(is_told));
            for field in headings.chain([&chunk.title]) {
                all.extend(words(field));
                all.extend(words(field));
            }
        }
        all
    };
    let texts: Vec<(&Chunk, Vec<String>)> =
        chunks.iter().map(|chunk| (*chunk, fields(chunk))).filter(|(_, words)| !words.is_empty()).collect();
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
            // Scores that round to the same f32 are a tie.
            #[expect(clippy::cast_possible_truncation, reason = "scores are f32")]
            scores.push((*chunk, score as f32));
        }
    }
    scores
}

#[expect(clippy::cast_precision_loss, reason = "counts of a small test")]
fn float(count: usize) -> f64 {
    count as f64
}
