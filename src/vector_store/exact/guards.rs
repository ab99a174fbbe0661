//! The guards of a collection. Each guard has its chunks and the sums that BM25 needs. So the statistics of a visible
//! set take time in proportion to that set, not to the collection.

use std::collections::HashMap;
use std::iter::Sum;
use std::ops::Range;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::chunk_number::ChunkNumber;
use super::chunk_set::ChunkSet;
use crate::language::Object;
use crate::vector_store::{GuardTable, SearchSpace};

/// Sums over living chunks that have text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Statistics {
    /// The number of chunks.
    pub(super) chunks: u64,
    /// The number of words of all of them.
    pub(super) words: u64,
}

impl Sum for Statistics {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self { chunks: a.chunks + b.chunks, words: a.words + b.words })
    }
}

/// The counts of one guard.
#[derive(Default)]
struct Counts {
    living: u64,
    statistics: Statistics,
}

/// The numbers of a guard's chunks, ascending.
///
/// The chunks of one document have consecutive numbers, and most guards have one document. So the first consecutive
/// numbers are kept as a range, and the others in a list of their own. A search goes through the guards and reads
/// nothing else of them.
#[derive(Default)]
pub(super) struct ChunkNumbers {
    first: Range<ChunkNumber>,
    others: Option<Box<Others>>,
}

#[derive(Default)]
struct Others(Vec<ChunkNumber>);

impl ChunkNumbers {
    pub(super) fn len(&self) -> usize {
        self.first.len() + self.others().len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ChunkNumber> {
        self.first.clone().chain(self.others().iter().copied())
    }

    fn others(&self) -> &[ChunkNumber] {
        self.others.as_ref().map_or(&[], |others| &others.0)
    }

    fn push(&mut self, chunk: ChunkNumber) {
        if self.first.is_empty() {
            self.first = chunk..chunk + 1;
        } else if self.others.is_none() && self.first.end == chunk {
            self.first.end += 1;
        } else {
            self.others.get_or_insert_default().0.push(chunk);
        }
    }
}

impl FromIterator<ChunkNumber> for ChunkNumbers {
    fn from_iter<I: IntoIterator<Item = ChunkNumber>>(numbers: I) -> Self {
        let mut collected = Self::default();
        for number in numbers {
            collected.push(number);
        }
        collected
    }
}

/// All guards that the collection has had since the store was opened.
///
/// INVARIANT (stable positions): a guard keeps its position for as long as the process runs; new ones are appended.
#[derive(Default)]
pub(super) struct Guards {
    table: Arc<Vec<Object>>,
    positions: HashMap<Object, u32>,
    /// The chunks of each guard. Deleted ones stay until the next compaction.
    chunks: Vec<ChunkNumbers>,
    counts: Vec<Counts>,
    /// The positions of the guards that have living chunks.
    in_use: Arc<RoaringBitmap>,
}

impl Guards {
    pub(super) fn table(&self) -> GuardTable {
        GuardTable { guards: Arc::clone(&self.table), in_use: Arc::clone(&self.in_use) }
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn get(&self, position: u32) -> Option<&Object> {
        self.table.get(position as usize)
    }

    /// Returns the position of a guard. A new guard is appended.
    pub(super) fn position(&mut self, guard: &Object) -> u32 {
        if let Some(position) = self.positions.get(guard) {
            return *position;
        }
        // There are never more guards than chunks, and the number of a chunk fits.
        let position = u32::try_from(self.chunks.len()).unwrap_or(u32::MAX);
        Arc::make_mut(&mut self.table).push(guard.clone());
        self.positions.insert(guard.clone(), position);
        self.chunks.push(ChunkNumbers::default());
        self.counts.push(Counts::default());
        position
    }

    pub(super) fn add(&mut self, position: u32, chunk: ChunkNumber, words: u32) {
        let place = position as usize;
        if let (Some(chunks), Some(counts)) = (self.chunks.get_mut(place), self.counts.get_mut(place)) {
            chunks.push(chunk);
            counts.living += 1;
            if counts.living == 1 {
                Arc::make_mut(&mut self.in_use).insert(position);
            }
            if words > 0 {
                counts.statistics.chunks += 1;
                counts.statistics.words += u64::from(words);
            }
        }
    }

    /// Subtracts a chunk from the sums. Its number stays in the list until [`Guards::renumber`].
    pub(super) fn remove(&mut self, position: u32, words: u32) {
        if let Some(counts) = self.counts.get_mut(position as usize) {
            counts.living -= 1;
            if counts.living == 0 {
                Arc::make_mut(&mut self.in_use).remove(position);
            }
            if words > 0 {
                counts.statistics.chunks -= 1;
                counts.statistics.words -= u64::from(words);
            }
        }
    }

    pub(super) fn renumber(&mut self, new_number: impl Fn(ChunkNumber) -> Option<ChunkNumber>) {
        for chunks in &mut self.chunks {
            *chunks = chunks.iter().filter_map(&new_number).collect();
        }
    }

    /// Returns the guards of a search space. Positions that do not exist stand for no guard.
    pub(super) fn within<'a>(&'a self, space: &'a SearchSpace) -> SpaceGuards<'a> {
        match space {
            SearchSpace::Everything => SpaceGuards { guards: self, positions: None },
            SearchSpace::Guards { table, positions } => {
                debug_assert!(
                    self.table.starts_with(&table.guards) || table.guards.starts_with(&self.table),
                    "the table of the search space is of another collection or process"
                );
                SpaceGuards { guards: self, positions: Some(positions) }
            }
        }
    }
}

/// The guards of one search space.
pub(super) struct SpaceGuards<'a> {
    guards: &'a Guards,
    /// The positions of the guards; `None` for all guards of the collection.
    positions: Option<&'a RoaringBitmap>,
}

impl<'a> SpaceGuards<'a> {
    pub(super) fn is_everything(&self) -> bool {
        self.positions.is_none()
    }

    /// Returns the number of guards. Some may have no chunks.
    pub(super) fn len(&self) -> usize {
        let listed = self.positions.map(|positions| usize::try_from(positions.len()).unwrap_or(usize::MAX));
        listed.unwrap_or_else(|| self.guards.len())
    }

    /// Returns the chunks of each guard. Deleted ones may be among them.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &'a ChunkNumbers> + use<'a> {
        self.of_each(&self.guards.chunks)
    }

    pub(super) fn statistics(&self) -> impl Iterator<Item = Statistics> + use<'a> {
        self.of_each(&self.guards.counts).map(|counts| counts.statistics)
    }

    fn of_each<T>(&self, all: &'a [T]) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let everything = if self.positions.is_none() { all } else { &[] };
        let listed = self.positions.into_iter().flatten();
        everything.iter().chain(listed.filter_map(|position| all.get(position as usize)))
    }

    /// Returns the living chunks of these guards. The set is made either from the guards in the search space or by
    /// taking out all others, whichever are fewer.
    pub(super) fn visible_of(&self, living: &ChunkSet, chunks: u32) -> ChunkSet {
        let Some(positions) = self.positions else { return living.clone() };
        if self.len() <= self.guards.len() / 2 {
            let mut visible = ChunkSet::none_of(chunks);
            change_each(&self.guards.chunks, positions, |range| visible.insert(range));
            visible.intersect(living);
            return visible;
        }
        let mut hidden = RoaringBitmap::new();
        hidden.insert_range(0..u32::try_from(self.guards.len()).unwrap_or(u32::MAX));
        hidden -= positions;
        let mut visible = living.clone();
        change_each(&self.guards.chunks, &hidden, |range| visible.remove(range));
        visible
    }
}

/// Calls `change` with the chunks of some guards, in ranges.
fn change_each(chunks: &[ChunkNumbers], positions: &RoaringBitmap, mut change: impl FnMut(Range<ChunkNumber>)) {
    for chunks in positions.iter().filter_map(|position| chunks.get(position as usize)) {
        change(chunks.first.clone());
        for other in chunks.others() {
            change(*other..other + 1);
        }
    }
}
