//! Selects the chunks that a search may find. The selection is the same for all kinds of query.
//!
//! A small search space is listed guard by guard. A large one becomes a bit set, which is read one machine word at a
//! time. So no chunk is looked up by itself, and a search of nearly everything costs as much as a search of everything.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU8, Ordering};

use rayon::prelude::*;

use super::cancellation::CancelSignal;
use super::chunk_number::ChunkNumber;
use super::chunk_set::{ChunkSet, WORD, chunks_of};
pub(super) use super::guards::Statistics;
use super::guards::{ChunkNumbers, SpaceGuards};
use super::index::Index;
use crate::vector_store::{Filter, Narrowing, Search};

/// How many chunks one thread looks at in one go. Fewer than this are not worth a second thread.
pub(super) const BLOCK_CHUNKS: u32 = 4_096;
const BLOCK_WORDS: usize = (BLOCK_CHUNKS / WORD) as usize;
/// A search space is listed if it has at most one in this many of the collection's guards and of its chunks.
const LISTED_FACTOR: usize = 64;

/// The living chunks of the search space that pass the caller's filter.
pub(super) struct Eligible<'a> {
    pub(super) index: &'a Index,
    guards: SpaceGuards<'a>,
    /// The chunks that the narrowing leaves; `None` if there is no narrowing.
    left: Option<ChunkSet>,
    filter: FilterTest<'a>,
    cancel: &'a CancelSignal,
}

impl<'a> Eligible<'a> {
    pub(super) fn new(index: &'a Index, search: &'a Search, cancel: &'a CancelSignal) -> Self {
        let filter = FilterTest::new(index, search.filter.as_ref());
        let mut eligible = Self { index, guards: index.guards.within(&search.space), left: None, filter, cancel };
        eligible.left = search.narrowing.as_deref().map(|narrowing| eligible.narrowed(narrowing));
        eligible
    }

    /// Returns the visible chunks that the narrowing leaves.
    fn narrowed(&self, narrowing: &dyn Narrowing) -> ChunkSet {
        let mut left = ChunkSet::none_of(self.index.columns.next_number());
        for chunk in self.listed() {
            let guard = self.index.guards.get(self.index.columns.guard(chunk));
            let metadata = self.index.columns.metadata(chunk);
            if guard.zip(metadata).is_some_and(|(guard, metadata)| narrowing.admits(guard, metadata)) {
                left.insert(chunk..chunk + 1);
            }
        }
        left
    }

    /// Returns the statistics of the visible chunks. The filter has no part in them.
    pub(super) fn statistics(&self) -> Statistics {
        if self.left.is_none() {
            return self.guards.statistics().sum();
        }
        let words = |chunk| u64::from(self.index.columns.length(chunk));
        let with_text = self.listed().into_iter().map(words).filter(|words| *words > 0);
        with_text.map(|words| Statistics { chunks: 1, words }).sum()
    }

    /// Returns an upper bound on the number of visible chunks. Deleted ones may be counted.
    pub(super) fn chunks_max(&self) -> usize {
        self.guards.chunks().map(ChunkNumbers::len).sum()
    }

    /// Returns whether a search of many chunks should go on.
    pub(super) fn is_wanted(&self) -> bool {
        !self.cancel.is_cancelled()
    }

    /// Returns whether a visible chunk passes the filter.
    pub(super) fn passes(&self, chunk: ChunkNumber) -> bool {
        self.filter.passes(chunk)
    }

    /// Returns the visible chunks, ascending.
    pub(super) fn visible(&self) -> Vec<ChunkNumber> {
        let mut chunks = self.listed();
        chunks.sort_unstable();
        chunks
    }

    /// Returns the visible chunks as a set. Making it takes one step for each visible guard or for each hidden one,
    /// whichever are fewer.
    pub(super) fn visible_set(&self) -> Cow<'a, ChunkSet> {
        let columns = &self.index.columns;
        if self.guards.is_everything() && self.left.is_none() {
            return Cow::Borrowed(&columns.living);
        }
        let mut visible = self.guards.visible_of(&columns.living, columns.next_number());
        if let Some(left) = &self.left {
            visible.intersect(left);
        }
        Cow::Owned(visible)
    }

    /// Returns whether more than one in `factor` guards or chunks is visible.
    pub(super) fn is_dense(&self, factor: usize) -> bool {
        // The number of guards comes first, so that many guards are not gone through only to count their chunks.
        self.guards.len() > self.index.guards.len() / factor
            || self.chunks_max() > self.index.columns.ids.len() / factor
    }

    /// Visits every eligible chunk once, some thousands at a time, on all cores. Each thread collects into a `T` of its own.
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
        if !self.is_dense(LISTED_FACTOR) {
            let chunks = self.listed();
            let blocks = chunks.par_chunks(BLOCK_CHUNKS as usize).filter(|_| self.is_wanted());
            return blocks.fold(&new, |all, block| visit(all, block.to_vec())).reduce(&new, merge);
        }
        let visible = self.visible_set();
        let starts = (0..self.index.columns.next_number().div_ceil(BLOCK_CHUNKS)).into_par_iter();
        let blocks = starts.map(|block| block * BLOCK_CHUNKS).zip(visible.words().par_chunks(BLOCK_WORDS));
        let blocks = blocks.filter(|_| self.is_wanted());
        blocks.fold(&new, |all, (first, words)| visit(all, chunks_of(words, first))).reduce(&new, merge)
    }

    /// Returns the visible chunks in no particular order.
    fn listed(&self) -> Vec<ChunkNumber> {
        let is_visible = |chunk: &ChunkNumber| {
            self.index.columns.is_living(*chunk) && self.left.as_ref().is_none_or(|left| left.contains(*chunk))
        };
        self.guards.chunks().flat_map(ChunkNumbers::iter).filter(is_visible).collect()
    }
}

/// Applies a filter once to each distinct metadata, because the chunks of a document mostly share theirs.
struct FilterTest<'a> {
    index: &'a Index,
    filter: Option<&'a Filter>,
    verdicts: Vec<AtomicU8>,
}

/// The verdict before the filter was applied.
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
        let position = self.index.columns.metadata_position(chunk);
        let values = &self.index.columns.metadata_values;
        let (Some(verdict), Some(metadata)) = (self.verdicts.get(position), values.get(position)) else {
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
