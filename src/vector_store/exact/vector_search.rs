//! Vector queries: a full scan of the eligible chunks by cosine similarity.
//!
//! INVARIANT (same bits): the score of a chunk is computed from the two vectors alone, always by the same function. So it does
//! not depend on the search space, on the other chunks, or on how the scan is divided among threads.

use super::chunk_number::ChunkNumber;
use super::search::Eligible;
use super::top_k::{Bar, Hit, Selection, TopK};
use super::vectors::Probe;
use crate::vector_store::direction::normalized;

/// How many vectors are fetched from memory together: enough to keep the memory busy, and few enough for the first cache.
const FETCHED: usize = 32;

/// Finds the selected chunks that have a vector, best first. The query has the dimension of the collection.
pub(super) fn search(eligible: &Eligible<'_>, query: &[f32], selection: Selection) -> Vec<Hit> {
    let query = normalized(query);
    let columns = &eligible.index.columns;
    let probe = Probe::new(&columns.vectors, &query);
    let bar = Bar::new(selection);
    let scan = |best: &mut TopK<'_>, chunks: &[ChunkNumber]| {
        let with_vector = |chunk: &ChunkNumber| Some((*chunk, columns.vector_slot(*chunk)?));
        let (chunks, slots): (Vec<ChunkNumber>, Vec<usize>) = chunks.iter().filter_map(with_vector).unzip();
        let mut bounds = Vec::with_capacity(FETCHED);
        for (chunks, slots) in chunks.chunks(FETCHED).zip(slots.chunks(FETCHED)) {
            probe.bound(slots, &mut bounds);
            for ((chunk, slot), bound) in chunks.iter().zip(slots).zip(&bounds) {
                // INVARIANT (skipped only what is worse): a bound is never below its score, so a chunk whose bound is
                // below the bar also scores below the bar.
                let is_worse = *bound < f64::from(bar.score());
                let score = if is_worse { None } else { probe.score(*slot) };
                if let Some(score) = score {
                    best.push(Hit { score, chunk: *chunk });
                }
            }
        }
    };
    eligible.collect(|| TopK::new(selection, columns, &bar), scan, TopK::merge).into_hits()
}
