//! What all kinds of search share: the chunks that a search may find.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};

use rayon::prelude::*;

use super::caller::Caller;
use super::guards::ScopedGuards;
pub(super) use super::guards::{Statistics, Visibility};
use super::index::{ChunkNumber, Index};
use crate::vector_store::{Filter, Narrowing, Search};

/// What one thread looks at in a stretch; less than this is not worth a second thread.
pub(super) const BLOCK_CHUNKS: u32 = 4_096;
/// A scope with more than one guard or chunk in so many is found by going through all chunks, in the order of memory.
const SPARSE_FACTOR: usize = 8;

/// The living chunks of the scope that pass the caller's filter.
pub(super) struct Eligible<'a> {
    pub(super) index: &'a Index,
    guards: ScopedGuards<'a>,
    /// By chunk: whether the narrowing leaves it; `None`: there is no narrowing.
    left: Option<Vec<bool>>,
    filter: FilterTest<'a>,
    caller: &'a Caller,
}

impl<'a> Eligible<'a> {
    pub(super) fn new(index: &'a Index, search: &'a Search, caller: &'a Caller) -> Self {
        let filter = FilterTest::new(index, search.filter.as_ref());
        let mut eligible = Self { index, guards: index.guards.within(&search.scope), left: None, filter, caller };
        eligible.left = search.narrowing.as_deref().map(|narrowing| eligible.narrowed(narrowing));
        eligible
    }

    /// The flags of the visible chunks that are left.
    fn narrowed(&self, narrowing: &dyn Narrowing) -> Vec<bool> {
        let mut left = vec![false; self.index.columns.ids.len()];
        for chunk in self.listed() {
            let guard = self.index.guards.get(self.index.columns.guard(chunk));
            let metadata = self.index.columns.metadata(chunk);
            let admitted = guard.zip(metadata).is_some_and(|(guard, metadata)| narrowing.admits(guard, metadata));
            if let Some(flag) = left.get_mut(chunk as usize) {
                *flag = admitted;
            }
        }
        left
    }

    /// Of the visible chunks, whatever the filter.
    pub(super) fn statistics(&self) -> Statistics {
        if self.left.is_none() {
            return self.guards.members().map(|members| members.statistics).sum();
        }
        let words = |chunk| u64::from(self.index.columns.length(chunk));
        let with_text = self.listed().into_iter().map(words).filter(|words| *words > 0);
        with_text.map(|words| Statistics { chunks: 1, words }).sum()
    }

    /// How many chunks are visible at most; deleted ones may be counted.
    pub(super) fn chunks_max(&self) -> usize {
        self.guards.members().map(|members| members.chunks.len()).sum()
    }

    /// Whether a search of many chunks should go on.
    pub(super) fn is_wanted(&self) -> bool {
        !self.caller.is_gone()
    }

    /// Whether a visible chunk passes the filter.
    pub(super) fn passes(&self, chunk: ChunkNumber) -> bool {
        self.filter.passes(chunk)
    }

    /// The visible chunks, ascending.
    pub(super) fn visible(&self) -> Vec<ChunkNumber> {
        let mut chunks = self.listed();
        chunks.sort_unstable();
        chunks
    }

    /// A test for single chunks; making it costs a step for each visible guard.
    pub(super) fn visibility(&self) -> Visibility<'_> {
        self.guards.visibility(&self.index.columns.guards, self.left.as_deref())
    }

    /// Whether it is cheaper to look at every chunk than to list the visible ones.
    pub(super) fn is_dense(&self) -> bool {
        // So many guards are not gone through only to count their chunks.
        self.guards.len() > self.index.guards.len() / SPARSE_FACTOR
            || self.chunks_max() > self.index.columns.ids.len() / SPARSE_FACTOR
    }

    /// Visits every eligible chunk once, some thousands at a time, on all cores; each thread collects into its own `T`.
    pub(super) fn collect<T: Send>(
        &self,
        new: impl Fn() -> T + Sync + Send,
        visit: impl Fn(&mut T, &[ChunkNumber]) + Sync + Send,
        merge: impl Fn(T, T) -> T + Sync + Send,
    ) -> T {
        let visit = |mut collected: T, mut chunks: Vec<ChunkNumber>| {
            if self.filter.is_there() {
                chunks.retain(|chunk| self.passes(*chunk));
            }
            visit(&mut collected, &chunks);
            collected
        };
        if !self.is_dense() {
            let chunks = self.listed();
            let blocks = chunks.par_chunks(BLOCK_CHUNKS as usize).filter(|_| self.is_wanted());
            return blocks.fold(&new, |all, block| visit(all, block.to_vec())).reduce(&new, merge);
        }
        let end = self.index.columns.next_number();
        let blocks = (0..end.div_ceil(BLOCK_CHUNKS)).into_par_iter().filter(|_| self.is_wanted());
        let blocks = blocks.map(|block| block * BLOCK_CHUNKS..end.min((block + 1) * BLOCK_CHUNKS));
        let visibility = self.visibility();
        blocks.fold(&new, |all, block| visit(all, visible_of(block, &visibility))).reduce(&new, merge)
    }

    /// The visible chunks in no particular order.
    fn listed(&self) -> Vec<ChunkNumber> {
        let is_visible = |chunk: &ChunkNumber| {
            let is_left = |left: &Vec<bool>| left.get(*chunk as usize).copied().unwrap_or(false);
            self.index.columns.is_living(*chunk) && self.left.as_ref().is_none_or(is_left)
        };
        self.guards.members().flat_map(|members| members.chunks.iter()).filter(is_visible).collect()
    }
}

/// The visible ones of a block. There is no branch that depends on a chunk: which ones are visible has no pattern, and a
/// branch that is guessed wrongly every other time costs more than the rest.
fn visible_of(block: Range<ChunkNumber>, visibility: &Visibility<'_>) -> Vec<ChunkNumber> {
    let mut visible = vec![0; block.len()];
    let mut count = 0;
    for chunk in block {
        if let Some(place) = visible.get_mut(count) {
            *place = chunk;
        }
        count += usize::from(visibility.is_visible(chunk));
    }
    visible.truncate(count);
    visible
}

/// Applies a filter, once for each distinct metadata: the chunks of a document mostly share theirs.
struct FilterTest<'a> {
    index: &'a Index,
    filter: Option<&'a Filter>,
    verdicts: Vec<AtomicU8>,
}

/// The states of a verdict.
const UNKNOWN: u8 = 0;
const PASSES: u8 = 1;
const FAILS: u8 = 2;

impl<'a> FilterTest<'a> {
    fn new(index: &'a Index, filter: Option<&'a Filter>) -> Self {
        let values = if filter.is_some() { index.columns.metadata_values.len() } else { 0 };
        Self { index, filter, verdicts: (0..values).map(|_| AtomicU8::new(UNKNOWN)).collect() }
    }

    fn is_there(&self) -> bool {
        self.filter.is_some()
    }

    fn passes(&self, chunk: ChunkNumber) -> bool {
        let Some(filter) = self.filter else { return true };
        let place = self.index.columns.metadata_place(chunk);
        let (Some(verdict), Some(metadata)) = (self.verdicts.get(place), self.index.columns.metadata_values.get(place))
        else {
            return false;
        };
        match verdict.load(Ordering::Relaxed) {
            UNKNOWN => {
                let passes = filter.matches(metadata);
                verdict.store(if passes { PASSES } else { FAILS }, Ordering::Relaxed);
                passes
            }
            known => known == PASSES,
        }
    }
}
