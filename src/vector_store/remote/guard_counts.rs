//! The guards of a collection, and the number of chunks of each.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::language::Object;
use crate::vector_store::GuardTable;

/// A new table begins once half of the guards of a table are more than the guards with chunks plus this number. The number lets
/// a small collection keep its table although most of its guards are unused.
const UNUSED_GUARDS_MAX: usize = 1_000;

/// A table of guards with the number of chunks of each.
#[derive(Clone, Debug)]
pub(crate) struct GuardCounts {
    table: GuardTable,
    /// The number of chunks of each guard, by position in the table.
    chunks: Vec<u64>,
}

impl GuardCounts {
    /// Returns the table of the guards in `counted`, as the successor of the table `before`.
    ///
    /// Guards that were in `before` keep their positions, and new ones are appended. A guard whose chunks are gone
    /// stays in the table. Once such guards are a clear majority (see `UNUSED_GUARDS_MAX`), a new table begins.
    pub(crate) fn following(before: Option<&Self>, mut counted: HashMap<Object, u64>) -> Self {
        counted.retain(|_, chunks| *chunks > 0);
        let is_worth_keeping =
            |table: &&GuardTable| table.guards.len() / 2 <= counted.len().saturating_add(UNUSED_GUARDS_MAX);
        let before = before.map(|before| &before.table);
        let mut guards = before.filter(is_worth_keeping).map(|table| Arc::clone(&table.guards)).unwrap_or_default();
        let mut chunks: Vec<u64> = guards.iter().map(|guard| counted.remove(guard).unwrap_or_default()).collect();
        let mut new: Vec<(Object, u64)> = counted.into_iter().collect();
        if !new.is_empty() {
            new.sort_unstable();
            let (new_guards, new_chunks): (Vec<Object>, Vec<u64>) = new.into_iter().unzip();
            // This is a new allocation, because callers recognize a table by its address and must not mistake this one
            // for the old one.
            guards = Arc::new(guards.iter().cloned().chain(new_guards).collect());
            chunks.extend(new_chunks);
        }
        let used = (0..).zip(&chunks).filter(|(_, chunks)| **chunks > 0);
        let in_use: RoaringBitmap = used.map(|(position, _)| position).collect();
        let in_use = match before {
            Some(before) if Arc::ptr_eq(&before.guards, &guards) && *before.in_use == in_use => {
                Arc::clone(&before.in_use)
            }
            Some(_) | None => Arc::new(in_use),
        };
        Self { table: GuardTable { guards, in_use }, chunks }
    }

    pub(crate) fn table(&self) -> &GuardTable {
        &self.table
    }

    /// Adds up the chunks of the guards at `positions`; `None` when these refer to another table than this one.
    pub(crate) fn chunks_under(&self, table: &GuardTable, positions: &RoaringBitmap) -> Option<u64> {
        let chunks_at = |position: u32| {
            let index = usize::try_from(position).unwrap_or(usize::MAX);
            self.chunks.get(index).copied().unwrap_or_default()
        };
        Arc::ptr_eq(&self.table.guards, &table.guards).then(|| positions.iter().map(chunks_at).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(before: Option<&GuardCounts>, guards: impl IntoIterator<Item = (usize, u64)>) -> GuardCounts {
        let guard = |number: usize| Object::parse(&format!("document:{number:05}")).expect("an object");
        GuardCounts::following(before, guards.into_iter().map(|(number, chunks)| (guard(number), chunks)).collect())
    }

    fn names(counts: &GuardCounts) -> Vec<&str> {
        counts.table.guards.iter().map(Object::id).collect()
    }

    #[test]
    fn positions_are_stable_and_new_guards_are_appended() {
        let first = counts(None, [(2, 5), (1, 7)]);
        assert_eq!((names(&first), &first.chunks), (vec!["00001", "00002"], &vec![7, 5]));
        let same = counts(Some(&first), [(1, 1), (2, 1)]);
        assert!(Arc::ptr_eq(&same.table.guards, &first.table.guards));
        assert!(Arc::ptr_eq(&same.table.in_use, &first.table.in_use));
        let grown = counts(Some(&first), [(0, 1), (2, 9), (7, 0)]);
        assert_eq!((names(&grown), &grown.chunks), (vec!["00001", "00002", "00000"], &vec![0, 9, 1]));
        assert_eq!(grown.table.in_use.iter().collect::<Vec<u32>>(), [1, 2]);
        assert_eq!(names(&first), ["00001", "00002"]);
    }

    #[test]
    fn a_table_of_guards_that_are_gone_ends() {
        let many = 3 * UNUSED_GUARDS_MAX;
        let full = counts(None, (0..many).map(|number| (number, 1)));
        let kept = counts(Some(&full), (0..UNUSED_GUARDS_MAX).map(|number| (number, 1)));
        assert!(Arc::ptr_eq(&kept.table.guards, &full.table.guards));
        let new = counts(Some(&kept), [(many, 1)]);
        assert_eq!(names(&new), [format!("{many:05}")]);
    }

    #[test]
    fn chunks_are_counted_in_their_own_table_only() {
        let own = counts(None, [(0, 10), (1, 20), (2, 40)]);
        assert_eq!(own.chunks_under(&own.table, &RoaringBitmap::from([0, 2, 9])), Some(50));
        let other = counts(None, [(0, 10), (1, 20), (2, 40)]);
        assert_eq!(own.chunks_under(&other.table, &RoaringBitmap::from([0])), None);
    }
}
