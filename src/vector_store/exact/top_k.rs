//! The best k of many: best score first, ties by chunk id.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::index::ChunkNumber;

/// Room that is made ahead; a larger `limit` grows as it fills.
const CAPACITY_MAX: usize = 1_024;

/// A chunk and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Hit {
    pub(super) score: f32,
    pub(super) chunk: ChunkNumber,
}

/// Keeps the best `limit` hits of those pushed, whatever their order.
///
/// INVARIANT (visible set alone): the order of hits is by score and chunk id, never by chunk number, which depends on what
/// else was ingested and when.
pub(super) struct TopK<'a> {
    limit: usize,
    ids: &'a [Arc<str>],
    /// The worst on top.
    heap: BinaryHeap<Ranked<'a>>,
}

struct Ranked<'a> {
    hit: Hit,
    id: &'a str,
}

impl<'a> TopK<'a> {
    pub(super) fn new(limit: usize, ids: &'a [Arc<str>]) -> Self {
        Self { limit, ids, heap: BinaryHeap::with_capacity(limit.min(CAPACITY_MAX)) }
    }

    pub(super) fn push(&mut self, hit: Hit) {
        if self.heap.len() < self.limit {
            let id = self.id(hit.chunk);
            self.heap.push(Ranked { hit, id });
            return;
        }
        // Most hits end here, without a look at their ids.
        if self.heap.peek().is_none_or(|worst| hit.score < worst.hit.score) {
            return;
        }
        let id = self.id(hit.chunk);
        if let Some(mut worst) = self.heap.peek_mut() {
            let better = Ranked { hit, id };
            if better < *worst {
                *worst = better;
            }
        }
    }

    pub(super) fn merge(mut self, other: Self) -> Self {
        for ranked in other.heap {
            self.push(ranked.hit);
        }
        self
    }

    /// Best first.
    pub(super) fn into_hits(self) -> Vec<Hit> {
        self.heap.into_sorted_vec().into_iter().map(|ranked| ranked.hit).collect()
    }

    fn id(&self, chunk: ChunkNumber) -> &'a str {
        self.ids.get(chunk as usize).map(|id| &**id).unwrap_or_default()
    }
}

/// Greater is worse.
impl Ord for Ranked<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.hit.score.total_cmp(&self.hit.score).then_with(|| self.id.cmp(other.id))
    }
}

impl PartialOrd for Ranked<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked<'_> {}
