//! Hybrid queries: reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009) of the first [`HYBRID_DEPTH`]
//! chunks of both exact rankings. A chunk that is in neither of these does not match.

use std::collections::HashMap;

use super::chunk_number::ChunkNumber;
use super::search::Eligible;
use super::top_k::{Bar, Hit, Selection, TopK};
use crate::vector_store::{HYBRID_DEPTH, rank_share};

/// Selects the part of each ranking that is merged. It does not depend on the limit, so asking for more chunks never changes the
/// order of the first.
pub(super) fn depth() -> Selection {
    Selection::best(HYBRID_DEPTH)
}

/// Merges two rankings, each best first.
pub(super) fn fuse(eligible: &Eligible<'_>, rankings: [Vec<Hit>; 2], selection: Selection) -> Vec<Hit> {
    let mut scores: HashMap<ChunkNumber, f64> = HashMap::new();
    for ranking in rankings {
        for (rank, hit) in (1_u32..).zip(ranking) {
            *scores.entry(hit.chunk).or_default() += rank_share(rank);
        }
    }
    let bar = Bar::new(selection);
    let mut best = TopK::new(selection, &eligible.index.columns, &bar);
    for (chunk, score) in scores {
        #[expect(clippy::cast_possible_truncation, reason = "the score's type is f32; rounded here, once")]
        best.push(Hit { score: score as f32, chunk });
    }
    best.into_hits()
}
