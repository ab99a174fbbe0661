//! The inverted index: the chunks that have each term.

use std::collections::HashMap;
use std::sync::Arc;

use super::chunk_number::ChunkNumber;

/// The id of a term: its position in the dictionary of the collection.
///
/// The records of stored documents hold ids, so the ids in use are never renumbered. Once no chunk has a term, its id
/// is free. New terms get the lowest free ids first, and the row of the id in the file is overwritten then.
pub(super) type TermId = u32;

/// A chunk that has a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Posting {
    pub(super) chunk: ChunkNumber,
    /// How often the chunk has the term.
    pub(super) count: u32,
}

/// The dictionary, and the list of postings of each term.
///
/// INVARIANT (sorted postings): every list ascends by chunk number, because numbers are given in ascending order.
///
/// INVARIANT (no dead terms): an id either belongs to one term or is free, and a free id has an empty list.
#[derive(Default)]
pub(super) struct Postings {
    terms: HashMap<Arc<str>, TermId>,
    lists: Vec<Vec<Posting>>,
    /// The free ids, descending, so that the lowest is given first.
    free: Vec<TermId>,
}

impl Postings {
    pub(super) fn term_id(&self, term: &str) -> Option<TermId> {
        self.terms.get(term).copied()
    }

    pub(super) fn terms_len(&self) -> TermId {
        TermId::try_from(self.lists.len()).unwrap_or(TermId::MAX)
    }

    /// Returns the ids that new terms get, in their order.
    pub(super) fn next_ids(&self) -> impl Iterator<Item = TermId> + use<> {
        let free: Vec<TermId> = self.free.iter().rev().copied().collect();
        free.into_iter().chain(self.terms_len()..)
    }

    /// Gives a new term the first of [`Postings::next_ids`].
    pub(super) fn add_term(&mut self, term: Arc<str>) {
        let id = self.free.pop().unwrap_or_else(|| {
            self.lists.push(Vec::new());
            self.terms_len() - 1
        });
        self.terms.insert(term, id);
    }

    /// Makes room for a dictionary with this many ids. They get their terms by [`Postings::name`].
    pub(super) fn reserve(&mut self, terms_len: usize) {
        self.lists.resize_with(terms_len, Vec::new);
    }

    /// Gives each id its term, from id 0 on, after all postings were added. The file still has the last term of a free
    /// id, and by now that term may have another id. So an id without postings stays free.
    pub(super) fn name(&mut self, terms: Vec<Arc<str>>) {
        for (id, term) in (0..).zip(terms) {
            if self.lists.get(id as usize).is_some_and(|list| !list.is_empty()) {
                self.terms.insert(term, id);
            } else {
                self.free.push(id);
            }
        }
        self.free.reverse();
    }

    pub(super) fn add(&mut self, term: TermId, posting: Posting) {
        if let Some(list) = self.lists.get_mut(term as usize) {
            list.push(posting);
        }
    }

    /// Returns the postings of a term, with those of deleted chunks.
    pub(super) fn list(&self, term: &str) -> &[Posting] {
        let list = self.term_id(term).and_then(|id| self.lists.get(id as usize));
        list.map(Vec::as_slice).unwrap_or_default()
    }

    /// Numbers chunks anew. Chunks that get no number leave the lists, and terms that no chunk has leave the dictionary.
    pub(super) fn renumber(&mut self, new_number: impl Fn(ChunkNumber) -> Option<ChunkNumber>) {
        for list in &mut self.lists {
            list.retain_mut(|posting| match new_number(posting.chunk) {
                Some(number) => {
                    posting.chunk = number;
                    true
                }
                None => false,
            });
            if list.is_empty() {
                *list = Vec::new();
            }
        }
        let (lists, free) = (&self.lists, &mut self.free);
        self.terms.retain(|_, id| {
            let is_held = lists.get(*id as usize).is_some_and(|list| !list.is_empty());
            if !is_held {
                free.push(*id);
            }
            is_held
        });
        free.sort_unstable_by(|a, b| b.cmp(a));
    }
}
