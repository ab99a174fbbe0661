//! Sets of chunks, with one bit for each chunk number. They are small enough that every search can make one, and they
//! are read a word at a time.

use std::ops::Range;

use super::chunk_number::ChunkNumber;

/// The number of chunks in one word.
pub(super) const WORD: u32 = u64::BITS;

/// A set of chunks. A number past the end is in no set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ChunkSet {
    words: Vec<u64>,
}

impl ChunkSet {
    /// Returns the empty set, with room for the numbers below `chunks`.
    pub(super) fn none_of(chunks: u32) -> Self {
        Self { words: vec![0; chunks.div_ceil(WORD) as usize] }
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    pub(super) fn contains(&self, chunk: ChunkNumber) -> bool {
        self.words.get((chunk / WORD) as usize).is_some_and(|word| word >> (chunk % WORD) & 1 == 1)
    }

    /// Adds a chunk that follows all others, and makes room for it.
    pub(super) fn push(&mut self, chunk: ChunkNumber) {
        if self.words.len() <= (chunk / WORD) as usize {
            self.words.push(0);
        }
        self.insert(chunk..chunk + 1);
    }

    pub(super) fn insert(&mut self, chunks: Range<ChunkNumber>) {
        self.for_each_word(chunks, |word, mask| *word |= mask);
    }

    pub(super) fn remove(&mut self, chunks: Range<ChunkNumber>) {
        self.for_each_word(chunks, |word, mask| *word &= !mask);
    }

    /// Removes the chunks that are not in `other`.
    pub(super) fn intersect(&mut self, other: &Self) {
        for (place, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(place).copied().unwrap_or(0);
        }
    }

    /// Calls `change` with each word of a range and the mask of its bits in the range.
    fn for_each_word(&mut self, chunks: Range<ChunkNumber>, change: impl Fn(&mut u64, u64)) {
        let mut start = chunks.start;
        while start < chunks.end {
            let end = chunks.end.min((start / WORD + 1) * WORD);
            let mask = (u64::MAX >> (WORD - (end - start))) << (start % WORD);
            if let Some(word) = self.words.get_mut((start / WORD) as usize) {
                change(word, mask);
            }
            start = end;
        }
    }
}

/// Returns the chunks in some words of a set, ascending. `first` is the number of the first bit.
pub(super) fn chunks_of(words: &[u64], first: ChunkNumber) -> Vec<ChunkNumber> {
    let count: u32 = words.iter().map(|word| word.count_ones()).sum();
    let mut chunks = Vec::with_capacity(count as usize);
    for (start, word) in (first..).step_by(WORD as usize).zip(words) {
        if *word == u64::MAX {
            chunks.extend(start..start + WORD);
            continue;
        }
        let mut left = *word;
        while left != 0 {
            chunks.push(start + left.trailing_zeros());
            left &= left - 1;
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_set_of_its_chunks(
            changes in prop::collection::vec((any::<bool>(), 0_u32..300, 0_u32..150), 0..12),
            other in prop::collection::vec(0_u32..300, 0..12),
        ) {
            let (mut set, mut expected) = (ChunkSet::none_of(300), BTreeSet::new());
            for (is_insert, start, length) in changes {
                let range = start..(start + length).min(300);
                if is_insert {
                    set.insert(range.clone());
                    expected.extend(range);
                } else {
                    set.remove(range.clone());
                    expected.retain(|chunk| !range.contains(chunk));
                }
            }
            let listed = |set: &ChunkSet| chunks_of(set.words(), 0);
            prop_assert_eq!(listed(&set), expected.iter().copied().collect::<Vec<_>>());
            prop_assert!((0..400).all(|chunk| set.contains(chunk) == expected.contains(&chunk)));
            let (mut others, mut pushed) = (ChunkSet::none_of(200), ChunkSet::default());
            other.iter().filter(|chunk| **chunk < 200).for_each(|chunk| others.insert(*chunk..*chunk + 1));
            (0..200).for_each(|chunk| pushed.push(chunk));
            prop_assert_eq!(listed(&pushed), (0..200).collect::<Vec<_>>());
            set.intersect(&others);
            expected.retain(|chunk| *chunk < 200 && other.contains(chunk));
            prop_assert_eq!(listed(&set), expected.into_iter().collect::<Vec<_>>());
        }
    }
}
