//! Looks up where a guard stands in the table of its collection, so that a candidate can be compared with a visible set.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use roaring::RoaringBitmap;
use tokio::sync::OnceCell;

use crate::language::Object;
use crate::vector_store::GuardTable;

/// The most collections whose guards are indexed at a time. When one more comes, all indexes are thrown away. An index
/// takes about fifty bytes for each guard, beside the names, which the table holds anyway.
const COLLECTIONS_MAX: usize = 100;

type Positions = HashMap<Object, u32>;

/// Keeps the latest index of each collection.
#[derive(Debug, Default)]
pub(super) struct GuardIndexes {
    by_collection: Mutex<HashMap<String, Arc<GuardIndex>>>,
}

#[derive(Debug)]
struct GuardIndex {
    /// The table that is indexed. An index is current if its table has the same address as the collection's. While the
    /// index holds its table, no other table can get that address.
    guards: Arc<Vec<Object>>,
    positions: OnceCell<Arc<Positions>>,
}

/// The guards of a collection that a known visible set hides.
#[derive(Debug)]
pub(super) struct HiddenGuards {
    positions: Arc<Positions>,
    hidden: RoaringBitmap,
}

impl GuardIndexes {
    /// Finds the guards of a collection that a visible set hides. Returns `None` if the index could not be made: then nothing
    /// counts as hidden, and every candidate is checked.
    pub(super) async fn hidden(
        &self,
        collection: &str,
        table: &GuardTable,
        visible: &RoaringBitmap,
    ) -> Option<HiddenGuards> {
        let positions = self.positions(collection, &table.guards).await?;
        Some(HiddenGuards { positions, hidden: &*table.in_use - visible })
    }

    async fn positions(&self, collection: &str, guards: &Arc<Vec<Object>>) -> Option<Arc<Positions>> {
        let index = self.index(collection, guards);
        let indexing = || async {
            let guards = Arc::clone(guards);
            // Indexing a million names takes a fifth of a second, so another thread does it. If the request ends first,
            // the index is thrown away.
            let indexed = tokio::task::spawn_blocking(move || Arc::new(indexed(&guards))).await;
            indexed.inspect_err(|error| tracing::error!(%error, "the guards of a collection could not be indexed"))
        };
        index.positions.get_or_try_init(indexing).await.ok().map(Arc::clone)
    }

    fn index(&self, collection: &str, guards: &Arc<Vec<Object>>) -> Arc<GuardIndex> {
        let mut indexes = self.by_collection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = indexes.get(collection)
            && Arc::ptr_eq(&index.guards, guards)
        {
            return Arc::clone(index);
        }
        if indexes.len() >= COLLECTIONS_MAX && !indexes.contains_key(collection) {
            indexes.clear();
        }
        let index = Arc::new(GuardIndex { guards: Arc::clone(guards), positions: OnceCell::new() });
        indexes.insert(collection.to_owned(), Arc::clone(&index));
        index
    }
}

fn indexed(guards: &[Object]) -> Positions {
    guards.iter().cloned().zip(0..).collect()
}

impl HiddenGuards {
    /// Returns whether the guard is in the table that the visible set was made for, and not in the set. A guard that is
    /// newer than the table is not hidden.
    pub(super) fn contains(&self, guard: &Object) -> bool {
        self.positions.get(guard).is_some_and(|position| self.hidden.contains(*position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(id: &str) -> Object {
        Object::parse(&format!("document:{id}")).expect("an object")
    }

    #[tokio::test]
    async fn only_guards_that_the_set_was_made_for_are_hidden() {
        let indexes = GuardIndexes::default();
        let mut table = GuardTable::new(["shut", "open", "unused"].map(guard).to_vec());
        table.in_use = Arc::new(RoaringBitmap::from([0, 1]));
        let hidden = indexes.hidden("handbook", &table, &RoaringBitmap::from([1])).await.expect("an index");
        let rows = [("shut", true), ("open", false), ("unused", false), ("newer", false)];
        for (id, is_hidden) in rows {
            assert_eq!(hidden.contains(&guard(id)), is_hidden, "{id}");
        }
        // Another table of the same collection has positions of its own.
        let other = GuardTable::new(["newer", "shut"].map(guard).to_vec());
        let hidden = indexes.hidden("handbook", &other, &RoaringBitmap::from([1])).await.expect("an index");
        assert!(hidden.contains(&guard("newer")) && !hidden.contains(&guard("shut")));
    }

    #[tokio::test]
    async fn indexes_are_shared_and_bounded() {
        let indexes = GuardIndexes::default();
        let table = GuardTable::new(vec![guard("a")]);
        let one = indexes.positions("handbook", &table.guards).await.expect("an index");
        let two = indexes.positions("handbook", &table.guards).await.expect("an index");
        assert!(Arc::ptr_eq(&one, &two));
        for number in 0..3 * COLLECTIONS_MAX {
            indexes.positions(&number.to_string(), &table.guards).await.expect("an index");
        }
        assert!(indexes.by_collection.lock().expect("a lock").len() <= COLLECTIONS_MAX);
    }
}
