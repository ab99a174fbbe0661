//! The corpora to search: vectors around centres, and texts.

use std::path::Path;

use ragward::chunk::{Chunk, Document, Metadata};
use ragward::ingest::Source;
use ragward::language::Object;
use rayon::prelude::*;

use crate::support::dice::Dice;

pub(crate) const COLLECTION: &str = "bench";
pub(crate) const DIMENSION: usize = 384;
const CENTRES: usize = 1_000;
/// Each number of a vector lies in a range of this width around the number of its centre. The numbers of the centres
/// are below 0.5.
const SPREAD: f32 = 0.3;

/// The vectors, end to end, and their centres.
pub(crate) struct Corpus {
    centres: Vec<f32>,
    vectors: Vec<f32>,
}

pub(crate) fn chunk_id(number: usize) -> String {
    format!("c{number}")
}

impl Corpus {
    pub(crate) fn new(chunks: usize) -> Self {
        let mut dice = Dice::new(1);
        let centres: Vec<f32> = (0..CENTRES * DIMENSION).map(|_| dice.number()).collect();
        let mut vectors = vec![0.0; chunks * DIMENSION];
        vectors
            .par_chunks_mut(DIMENSION)
            .enumerate()
            .for_each(|(number, vector)| around(&centres, number as u64, vector));
        Self { centres, vectors }
    }

    /// Returns a document with its own guard.
    pub(crate) fn document(&self, number: usize, chunks: usize) -> Document {
        let chunk = |place: usize| {
            let number = number * chunks + place;
            (number, String::new(), self.vectors[number * DIMENSION..(number + 1) * DIMENSION].to_vec())
        };
        document(number, (0..chunks).map(chunk))
    }

    /// Returns a query near a centre, made like the vectors.
    pub(crate) fn query(&self, number: usize) -> Vec<f32> {
        let mut vector = vec![0.0; DIMENSION];
        around(&self.centres, u64::MAX - number as u64, &mut vector);
        vector
    }

    /// Returns the best chunks for a query among the chunks of these documents.
    pub(crate) fn nearest(&self, query: usize, documents: &[usize], per_document: usize, limit: usize) -> Vec<usize> {
        naive(&self.vectors, &self.query(query), documents, per_document, limit)
    }
}

/// Finds the best of the visible chunks by a plain loop.
fn naive(vectors: &[f32], query: &[f32], documents: &[usize], per_document: usize, limit: usize) -> Vec<usize> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let score = |chunk: usize| {
        let vector = &vectors[chunk * DIMENSION..(chunk + 1) * DIMENSION];
        dot(vector, query) / dot(vector, vector).sqrt()
    };
    let chunks = documents
        .par_iter()
        .flat_map_iter(|document| (0..per_document).map(move |place| *document * per_document + place));
    let mut scores: Vec<(f32, usize)> = chunks.map(|chunk| (score(chunk), chunk)).collect();
    scores.par_sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    scores.into_iter().take(limit).map(|(_, chunk)| chunk).collect()
}

fn around(centres: &[f32], seed: u64, vector: &mut [f32]) {
    let mut dice = Dice::new(seed.wrapping_mul(0xd129_0d3b_3b2f_9d31));
    let centre = dice.below(CENTRES);
    for (x, centre) in vector.iter_mut().zip(&centres[centre * DIMENSION..]) {
        *x = centre + SPREAD * dice.number();
    }
}

/// Returns texts of words that are rarer the higher their number, ten texts to a document.
pub(crate) fn made_up_texts(chunks: usize) -> Vec<Document> {
    let mut dice = Dice::new(2);
    let mut text = |number| {
        let words: Vec<String> =
            (0..120).map(|_| format!("word{}", dice.below(40_000) / (1 + dice.below(200)))).collect();
        (number, words.join(" "), Vec::new())
    };
    (0..chunks / 10).map(|number| document(number, (0..10).map(|place| text(number * 10 + place)))).collect()
}

/// Returns the 617 design documents, if they are there.
pub(crate) fn keps() -> Option<Vec<Document>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/keps");
    let source = root.exists().then(|| Source::Catalog { path: root.join("catalog.jsonl"), root })?;
    Some(source.documents().unwrap().filter_map(|entry| entry.unwrap().document).collect())
}

fn document(number: usize, chunks: impl Iterator<Item = (usize, String, Vec<f32>)>) -> Document {
    let id = format!("document:{number}");
    let guard = Object::parse(&id).unwrap();
    let chunk = |(number, text, vector)| Chunk {
        id: chunk_id(number),
        document_id: id.clone(),
        guard: guard.clone(),
        title: String::new(),
        heading_path: Vec::new(),
        text,
        metadata: Metadata::new(),
        vector,
    };
    Document { chunks: chunks.map(chunk).collect(), id: id.clone(), title: String::new() }
}

impl Dice {
    /// Returns a number from 0 to 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        f64::from(self.next() as u32) / f64::from(u32::MAX)
    }

    /// Returns a number from -0.5 to 0.5.
    fn number(&mut self) -> f32 {
        f32::from(self.next() as u16) / f32::from(u16::MAX) - 0.5
    }
}
