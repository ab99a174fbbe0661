//! The guards of a collection: their positions, and per guard the chunks and the sums that BM25 needs, so that the
//! statistics of a visible set cost what is visible.

use std::collections::HashMap;
use std::iter::Sum;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use roaring::RoaringBitmap;

use super::index::{ChunkNumber, NONE};
use crate::relationship::Object;
use crate::vector_store::{GuardTable, Scope};

/// Guards whose flags one thread sets: those of one container of a bitmap.
const FLAGS_PART: usize = 1 << 16;

/// Sums over the living chunks that have text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Statistics {
    /// How many.
    pub(super) chunks: u64,
    /// How many words together.
    pub(super) words: u64,
}

impl Sum for Statistics {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self { chunks: a.chunks + b.chunks, words: a.words + b.words })
    }
}

/// What one guard stands before.
#[derive(Default)]
pub(super) struct Members {
    /// Deleted ones stay until the next compaction.
    pub(super) chunks: ChunkNumbers,
    living: u64,
    pub(super) statistics: Statistics,
}

/// Numbers of chunks, ascending. Those of one document follow each other, and most guards have one document, so the first
/// that do so are kept as a range: then a search need not follow a pointer for each guard.
#[derive(Default)]
pub(super) struct ChunkNumbers {
    first: Range<ChunkNumber>,
    others: Vec<ChunkNumber>,
}

impl ChunkNumbers {
    pub(super) fn len(&self) -> usize {
        self.first.len() + self.others.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ChunkNumber> {
        self.first.clone().chain(self.others.iter().copied())
    }

    fn push(&mut self, chunk: ChunkNumber) {
        if self.first.is_empty() {
            self.first = chunk..chunk + 1;
        } else if self.others.is_empty() && self.first.end == chunk {
            self.first.end += 1;
        } else {
            self.others.push(chunk);
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

/// Every guard that the collection has had since the store was opened.
///
/// INVARIANT (stable positions): a guard keeps its position for as long as the process runs; new ones are appended.
#[derive(Default)]
pub(super) struct Guards {
    table: Arc<Vec<Object>>,
    positions: HashMap<Object, u32>,
    members: Vec<Members>,
    /// The positions of the guards that have living chunks.
    in_use: Arc<RoaringBitmap>,
}

impl Guards {
    pub(super) fn table(&self) -> GuardTable {
        GuardTable { guards: Arc::clone(&self.table), in_use: Arc::clone(&self.in_use) }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn get(&self, position: u32) -> Option<&Object> {
        self.table.get(position as usize)
    }

    /// The position of a guard; appended when it is new.
    pub(super) fn position(&mut self, guard: &Object) -> u32 {
        if let Some(position) = self.positions.get(guard) {
            return *position;
        }
        // There are never more guards than chunk numbers, and those fit.
        let position = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        Arc::make_mut(&mut self.table).push(guard.clone());
        self.positions.insert(guard.clone(), position);
        self.members.push(Members::default());
        position
    }

    pub(super) fn add(&mut self, position: u32, chunk: ChunkNumber, words: u32) {
        if let Some(members) = self.members.get_mut(position as usize) {
            members.chunks.push(chunk);
            members.living += 1;
            if members.living == 1 {
                Arc::make_mut(&mut self.in_use).insert(position);
            }
            if words > 0 {
                members.statistics.chunks += 1;
                members.statistics.words += u64::from(words);
            }
        }
    }

    /// Takes a chunk out of the sums; its number stays in the list until [`Guards::renumber`].
    pub(super) fn remove(&mut self, position: u32, words: u32) {
        if let Some(members) = self.members.get_mut(position as usize) {
            members.living -= 1;
            if members.living == 0 {
                Arc::make_mut(&mut self.in_use).remove(position);
            }
            if words > 0 {
                members.statistics.chunks -= 1;
                members.statistics.words -= u64::from(words);
            }
        }
    }

    pub(super) fn renumber(&mut self, new_number: impl Fn(ChunkNumber) -> Option<ChunkNumber>) {
        for members in &mut self.members {
            members.chunks = members.chunks.iter().filter_map(&new_number).collect();
        }
    }

    /// The guards of a scope. Positions that do not exist stand for no guard.
    pub(super) fn within<'a>(&'a self, scope: &'a Scope) -> ScopedGuards<'a> {
        match scope {
            Scope::Everything => ScopedGuards { guards: self, positions: None },
            Scope::Guards { table, positions } => {
                debug_assert!(
                    self.table.starts_with(&table.guards) || table.guards.starts_with(&self.table),
                    "the scope's table is of another collection or process"
                );
                ScopedGuards { guards: self, positions: Some(positions) }
            }
        }
    }
}

/// The guards of one scope.
pub(super) struct ScopedGuards<'a> {
    guards: &'a Guards,
    /// `None`: all of them.
    positions: Option<&'a RoaringBitmap>,
}

impl<'a> ScopedGuards<'a> {
    pub(super) fn is_everything(&self) -> bool {
        self.positions.is_none()
    }

    /// How many guards there are; some may have no chunks.
    pub(super) fn len(&self) -> usize {
        let listed = self.positions.map(|positions| usize::try_from(positions.len()).unwrap_or(usize::MAX));
        listed.unwrap_or_else(|| self.guards.len())
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &'a Members> + use<'a> {
        let all = self.guards.members.as_slice();
        let everything = if self.is_everything() { all } else { &[] };
        let listed = self.positions.into_iter().flatten();
        everything.iter().chain(listed.filter_map(|position| all.get(position as usize)))
    }

    /// A test for chunks; `guard_positions` are their guards', by number, and `left` are the flags of those that a narrowing
    /// leaves, if there is one.
    pub(super) fn visibility<'g>(&self, guard_positions: &'g [u32], left: Option<&'g [bool]>) -> Visibility<'g> {
        let flags = self.positions.map(|positions| flags(self.guards.len(), positions));
        Visibility { guard_positions, flags, left }
    }
}

/// Which of so many guards are at the positions. The fewer of those that are and those that are not are gone through.
fn flags(guards: usize, positions: &RoaringBitmap) -> Vec<bool> {
    let are_most = usize::try_from(positions.len()).unwrap_or(usize::MAX) > guards / 2;
    let mut inverse = RoaringBitmap::new();
    if are_most {
        inverse.insert_range(0..u32::try_from(guards).unwrap_or(u32::MAX));
        inverse -= positions;
    }
    let exceptions = if are_most { &inverse } else { positions };
    let mut flags = vec![are_most; guards];
    // In parts, each by its thread: a million guards take longer than what is made of them.
    flags.par_chunks_mut(FLAGS_PART).enumerate().for_each(|(part, flags)| {
        let first = u32::try_from(part * FLAGS_PART).unwrap_or(u32::MAX);
        let end = first.saturating_add(u32::try_from(flags.len()).unwrap_or(u32::MAX));
        for position in exceptions.range(first..end) {
            if let Some(flag) = flags.get_mut((position - first) as usize) {
                *flag = !are_most;
            }
        }
    });
    flags
}

/// Whether chunks are living and visible.
pub(super) struct Visibility<'a> {
    guard_positions: &'a [u32],
    /// By guard; `None`: all are visible.
    flags: Option<Vec<bool>>,
    /// By chunk; `None`: all are left.
    left: Option<&'a [bool]>,
}

impl Visibility<'_> {
    pub(super) fn is_visible(&self, chunk: ChunkNumber) -> bool {
        // A deleted chunk has a guard that does not exist.
        let guard = self.guard_positions.get(chunk as usize).copied().unwrap_or(NONE);
        let by_guard = match &self.flags {
            None => guard != NONE,
            Some(flags) => flags.get(guard as usize).copied().unwrap_or(false),
        };
        by_guard && self.left.is_none_or(|left| left.get(chunk as usize).copied().unwrap_or(false))
    }
}
