//! What both kinds of search share: the visible chunks of a scope, and the caller's filter.

use super::guards::{ScopedGuards, Statistics};
use super::index::{ChunkNumber, Index};
use crate::vector_store::{Filter, Scope};

/// The living chunks of a scope.
pub(super) struct VisibleSet<'a> {
    index: &'a Index,
    guards: ScopedGuards<'a>,
}

impl<'a> VisibleSet<'a> {
    pub(super) fn new(index: &'a Index, scope: &'a Scope) -> Self {
        Self { index, guards: index.guards.within(scope) }
    }

    pub(super) fn statistics(&self) -> Statistics {
        self.guards.members().map(|members| members.statistics).sum()
    }

    /// How many chunks there are at most; deleted ones may be counted.
    pub(super) fn chunks_max(&self) -> usize {
        self.guards.members().map(|members| members.chunks.len()).sum()
    }

    /// In no particular order.
    pub(super) fn chunks(&self) -> Vec<ChunkNumber> {
        let is_living = |chunk: &ChunkNumber| self.index.columns.is_living(*chunk);
        if self.guards.is_everything() {
            // In the order of the columns, which a scan runs through fastest.
            return (0..self.index.columns.next_number()).filter(is_living).collect();
        }
        self.guards.members().flat_map(|members| members.chunks.iter().copied()).filter(is_living).collect()
    }

    /// A test for single chunks; making it costs one step per guard of the collection.
    pub(super) fn test(&self) -> impl Fn(ChunkNumber) -> bool {
        let flags = self.guards.flags();
        move |chunk| flags.get(self.index.columns.guard(chunk) as usize).copied().unwrap_or(false)
    }
}

/// Applies a filter, once for each distinct metadata: the chunks of a document mostly share theirs.
pub(super) struct FilterTest<'a> {
    index: &'a Index,
    filter: Option<&'a Filter>,
    verdicts: Vec<Option<bool>>,
}

impl<'a> FilterTest<'a> {
    pub(super) fn new(index: &'a Index, filter: Option<&'a Filter>) -> Self {
        let verdicts = filter.map(|_| vec![None; index.columns.metadata_values.len()]).unwrap_or_default();
        Self { index, filter, verdicts }
    }

    pub(super) fn passes(&mut self, chunk: ChunkNumber) -> bool {
        let Some(filter) = self.filter else { return true };
        let place = self.index.columns.metadata_place(chunk);
        let (Some(verdict), Some(metadata)) =
            (self.verdicts.get_mut(place), self.index.columns.metadata_values.get(place))
        else {
            return false;
        };
        *verdict.get_or_insert_with(|| filter.matches(metadata))
    }
}
