//! Cosine similarity by a full scan of what is eligible.
//!
//! INVARIANT (same bits): the score of a chunk is computed from the two vectors alone, always by the same function, so it
//! does not depend on the scope, on the other chunks, or on how the scan is divided among threads.

use super::index::ChunkNumber;
use super::search::Eligible;
use super::top_k::{Bar, Hit, Selection, TopK};
use super::vectors::Probe;
pub(super) use crate::vector_store::direction::normalized;

/// Vectors whose memory is asked for together: enough to keep it busy, few enough to stay in the first cache.
const FETCHED: usize = 32;

/// The selected chunks that have a vector, best first. The query has the dimension of the collection.
pub(super) fn search(eligible: &Eligible<'_>, query: &[f32], selection: Selection) -> Vec<Hit> {
    let query = normalized(query);
    let columns = &eligible.index.columns;
    let probe = Probe::new(&columns.vectors, &query);
    let bar = Bar::new(selection);
    let visit = |best: &mut TopK<'_>, chunk: ChunkNumber| {
        let Some(slot) = columns.vector_slot(chunk) else { return };
        let score_min = bar.score();
        // INVARIANT (skipped only what is worse): a bound below the bar is a score below the bar.
        let is_worse = |bound: f64| bound < f64::from(score_min);
        if score_min > f32::NEG_INFINITY && probe.score_max(slot).is_some_and(is_worse) {
            return;
        }
        if let Some(score) = probe.score(slot) {
            best.push(Hit { score, chunk });
        }
    };
    let best = eligible.collect(
        || TopK::new(selection, columns, &bar),
        |best, chunks| {
            for together in chunks.chunks(FETCHED) {
                probe.fetch(together.iter().filter_map(|chunk| columns.vector_slot(*chunk)));
                for chunk in together {
                    visit(best, *chunk);
                }
            }
        },
        TopK::merge,
    );
    best.into_hits()
}
