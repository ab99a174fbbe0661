//! The inverted index: for each term the chunks that hold it.

use std::collections::HashMap;
use std::sync::Arc;

use super::index::ChunkNumber;

/// A term's position in the collection's dictionary, which only grows.
pub(super) type TermId = u32;

/// One chunk that holds a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Posting {
    pub(super) chunk: ChunkNumber,
    /// How often it holds it.
    pub(super) count: u32,
}

/// The dictionary and the lists.
///
/// INVARIANT (sorted postings): every list ascends by chunk number, for numbers are given in ascending order.
#[derive(Default)]
pub(super) struct Postings {
    terms: HashMap<Arc<str>, TermId>,
    lists: Vec<Vec<Posting>>,
}

impl Postings {
    pub(super) fn term_id(&self, term: &str) -> Option<TermId> {
        self.terms.get(term).copied()
    }

    pub(super) fn terms_len(&self) -> TermId {
        TermId::try_from(self.lists.len()).unwrap_or(TermId::MAX)
    }

    /// Appends a term to the dictionary.
    pub(super) fn add_term(&mut self, term: Arc<str>) {
        self.terms.insert(term, self.terms_len());
        self.lists.push(Vec::new());
    }

    pub(super) fn add(&mut self, term: TermId, posting: Posting) {
        if let Some(list) = self.lists.get_mut(term as usize) {
            list.push(posting);
        }
    }

    /// The list of a term, deleted chunks included.
    pub(super) fn list(&self, term: &str) -> &[Posting] {
        let list = self.term_id(term).and_then(|id| self.lists.get(id as usize));
        list.map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn renumber(&mut self, new_number: impl Fn(ChunkNumber) -> Option<ChunkNumber>) {
        for list in &mut self.lists {
            list.retain_mut(|posting| match new_number(posting.chunk) {
                Some(number) => {
                    posting.chunk = number;
                    true
                }
                None => false,
            });
        }
    }
}
