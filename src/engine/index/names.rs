//! Maps objects' names to numbers and back, without an allocation for each name.
//!
//! Names lie one after another in pages. A hash table holds only numbers, and compares with the names in the pages. A
//! name takes its text, four bytes for its end, and 6 to 11 bytes in the table. States share the full pages that they
//! have in common.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashTable;

use super::{ObjectId, at};

/// The number of names in a page. The longest name has 512 bytes, so the end of a page always fits 32 bits.
const PAGE: u32 = 4096;

/// Names with consecutive numbers.
#[derive(Clone, Debug)]
pub(super) struct Names {
    first: u32,
    count: u32,
    pages: Vec<Arc<Page>>,
    numbers: HashTable<u32>,
}

#[derive(Clone, Debug, Default)]
struct Page {
    text: String,
    /// The end of each name in the text.
    ends: Vec<u32>,
}

impl Page {
    fn name(&self, slot: usize) -> Option<&str> {
        self.text.get(self.range(slot)?)
    }

    /// Returns where a name is in the text.
    fn range(&self, slot: usize) -> Option<Range<usize>> {
        let start = slot.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        let end = self.ends.get(slot)?;
        Some(at(start)..at(*end))
    }
}

impl Names {
    /// Makes an empty table, whose first name will get this number.
    pub(super) fn from(first: ObjectId) -> Self {
        Self { first: first.0, count: 0, pages: Vec::new(), numbers: HashTable::new() }
    }

    pub(super) fn len(&self) -> usize {
        at(self.count)
    }

    /// Returns the number that the next new name will get.
    pub(super) fn next(&self) -> ObjectId {
        ObjectId(self.first.saturating_add(self.count))
    }

    pub(super) fn name(&self, number: ObjectId) -> Option<&str> {
        name_of(&self.pages, number.0.checked_sub(self.first)?)
    }

    /// Returns the number of a name, given the name's hash.
    pub(super) fn find(&self, hash: u64, name: &str) -> Option<ObjectId> {
        self.numbers.find(hash, |number| self.name(ObjectId(*number)) == Some(name)).copied().map(ObjectId)
    }

    /// Like [`Self::find`], for many names and their hashes. A look-up waits for memory in three places, one after
    /// another. Here all look-ups wait together in each place.
    pub(super) fn find_all(&self, wanted: &[(u64, &str)]) -> Vec<Option<ObjectId>> {
        // The first number with a fitting hash is nearly always the right one.
        let likely = wanted.iter().map(|(hash, _)| self.numbers.find(*hash, |_| true).copied());
        let likely: Vec<Option<u32>> = likely.collect();
        let place = |number: &Option<u32>| {
            let (page, slot) = page_of(&self.pages, number.as_ref()?.checked_sub(self.first)?)?;
            Some((&page.text, page.range(slot)?))
        };
        let places: Vec<Option<(&String, Range<usize>)>> = likely.iter().map(place).collect();
        let found = wanted.iter().zip(likely).zip(places).map(|(((hash, name), number), place)| {
            let is_it = place.is_some_and(|(text, range)| text.get(range) == Some(*name));
            if is_it { number.map(ObjectId) } else { self.find(*hash, name) }
        });
        found.collect()
    }

    /// Appends a name that is not in the table yet.
    pub(super) fn push(&mut self, hasher: &RandomState, hash: u64, name: &str) -> ObjectId {
        let number = self.next();
        debug_assert!(number.0 < ObjectId::UNKNOWN.0, "four billion names do not fit into memory");
        if self.count.is_multiple_of(PAGE) {
            self.close_page();
            self.pages.push(Arc::default());
        }
        if let Some(page) = self.pages.last_mut() {
            let page = Arc::make_mut(page);
            page.text.push_str(name);
            page.ends.push(u32::try_from(page.text.len()).unwrap_or(u32::MAX));
        }
        self.count += 1;
        let Self { first, pages, numbers, .. } = self;
        let hash_of = |number: &u32| hasher.hash_one(name_of(pages, *number - *first).unwrap_or_default());
        numbers.insert_unique(hash, number.0, hash_of);
        number
    }

    /// Appends names whose numbers continue those of this table.
    pub(super) fn append(&mut self, hasher: &RandomState, later: &Self) {
        debug_assert_eq!(self.next().0, later.first, "numbers are given one after another");
        for name in later.iter() {
            self.push(hasher, hasher.hash_one(name), name);
        }
    }

    /// Returns the names in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.pages.iter().flat_map(|page| (0..page.ends.len()).filter_map(|slot| page.name(slot)))
    }

    /// Frees the spare room of the last page.
    pub(super) fn close_page(&mut self) {
        if let Some(page) = self.pages.last_mut().and_then(Arc::get_mut) {
            page.text.shrink_to_fit();
            page.ends.shrink_to_fit();
        }
    }
}

fn name_of(pages: &[Arc<Page>], position: u32) -> Option<&str> {
    let (page, slot) = page_of(pages, position)?;
    page.name(slot)
}

fn page_of(pages: &[Arc<Page>], position: u32) -> Option<(&Page, usize)> {
    Some((pages.get(at(position / PAGE))?, at(position % PAGE)))
}
