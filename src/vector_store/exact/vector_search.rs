//! Cosine similarity by a full scan: stored vectors have length 1, so it is the dot product with the query's direction.
//!
//! INVARIANT (same bits): the score of a chunk is computed from the two vectors alone, always by the same function, so it
//! does not depend on the scope, on the other chunks, or on how the scan is divided among threads.

use super::search::Eligible;
use super::top_k::{Bar, Hit, Selection, TopK};

/// Sums that are kept side by side. The order of additions is fixed, so the bits are the same on every machine, and still
/// the compiler can use vector instructions. Measured as fast as hand-written ones: a scan waits for memory.
const LANES: usize = 16;

/// The selected chunks that have a vector, best first. The query has the dimension of the collection.
pub(super) fn search(eligible: &Eligible<'_>, query: &[f32], selection: Selection) -> Vec<Hit> {
    let query = normalized(query);
    let columns = &eligible.index.columns;
    let bar = Bar::new(selection);
    let best = eligible.collect(
        || TopK::new(selection, columns, &bar),
        |best, chunk| {
            if let Some(vector) = columns.vector(chunk, query.len()) {
                best.push(Hit { score: similarity(&query, vector), chunk });
            }
        },
        TopK::merge,
    );
    best.into_hits()
}

/// The vector's direction: the same vector with length 1.
#[expect(clippy::cast_possible_truncation, reason = "vectors are stored as f32")]
pub(super) fn normalized(vector: &[f32]) -> Vec<f32> {
    // In f64 the squares of the largest and of the smallest f32 are still finite and not zero.
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    vector.iter().map(|x| (f64::from(*x) / length) as f32).collect()
}

fn similarity(query: &[f32], vector: &[f32]) -> f32 {
    let (query, query_rest) = query.as_chunks::<LANES>();
    let (vector, vector_rest) = vector.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (query, vector) in query.iter().zip(vector) {
        for ((sum, x), y) in sums.iter_mut().zip(query).zip(vector) {
            *sum += x * y;
        }
    }
    let rest: f32 = query_rest.iter().zip(vector_rest).map(|(x, y)| x * y).sum();
    // Adding zero turns -0.0 into 0.0: equal scores must be equal bytes, or they would not tie.
    sums.iter().sum::<f32>() + rest + 0.0
}
