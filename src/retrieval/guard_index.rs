//! Where each guard stands in the table of its collection, so that a candidate can be looked up in a visible set.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use roaring::RoaringBitmap;
use tokio::sync::OnceCell;

use crate::language::Object;
use crate::vector_store::GuardTable;

/// Collections whose guards are indexed at a time. An index takes some fifty bytes a guard beside the names, which the
/// table holds anyway.
const COLLECTIONS_MAX: usize = 100;

type Positions = HashMap<Object, u32>;

/// The latest index of each collection.
#[derive(Debug, Default)]
pub(super) struct GuardIndexes {
    by_collection: Mutex<HashMap<String, Arc<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    /// Held, so that no other table can have its address.
    guards: Arc<Vec<Object>>,
    positions: OnceCell<Arc<Positions>>,
}

/// The guards that a known visible set hides.
#[derive(Debug)]
pub(super) struct Hidden {
    positions: Arc<Positions>,
    hidden: RoaringBitmap,
}

impl GuardIndexes {
    /// What a visible set hides of a collection's guards. `None` if the index could not be made: then nothing is hidden, and
    /// every candidate is checked.
    pub(super) async fn hidden(&self, collection: &str, table: &GuardTable, visible: &RoaringBitmap) -> Option<Hidden> {
        let positions = self.positions(collection, &table.guards).await?;
        Some(Hidden { positions, hidden: &*table.in_use - visible })
    }

    async fn positions(&self, collection: &str, guards: &Arc<Vec<Object>>) -> Option<Arc<Positions>> {
        let entry = self.entry(collection, guards);
        let indexing = || async {
            let guards = Arc::clone(guards);
            // A million names take a fifth of a second.
            let indexed = tokio::task::spawn_blocking(move || Arc::new(indexed(&guards))).await;
            indexed.inspect_err(|error| tracing::error!(%error, "the guards were not indexed"))
        };
        entry.positions.get_or_try_init(indexing).await.ok().map(Arc::clone)
    }

    fn entry(&self, collection: &str, guards: &Arc<Vec<Object>>) -> Arc<Entry> {
        let mut entries = self.by_collection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(collection)
            && Arc::ptr_eq(&entry.guards, guards)
        {
            return Arc::clone(entry);
        }
        if entries.len() >= COLLECTIONS_MAX && !entries.contains_key(collection) {
            entries.clear();
        }
        let entry = Arc::new(Entry { guards: Arc::clone(guards), positions: OnceCell::new() });
        entries.insert(collection.to_owned(), Arc::clone(&entry));
        entry
    }
}

fn indexed(guards: &[Object]) -> Positions {
    guards.iter().cloned().zip(0..).collect()
}

impl Hidden {
    /// Whether the visible set was made for this guard and lacks it. A guard that is newer than the table is not hidden.
    pub(super) fn hides(&self, guard: &Object) -> bool {
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
    async fn only_what_the_set_was_made_for_is_hidden() {
        let indexes = GuardIndexes::default();
        let mut table = GuardTable::new(["shut", "open", "unused"].map(guard).to_vec());
        table.in_use = Arc::new(RoaringBitmap::from([0, 1]));
        let hidden = indexes.hidden("handbook", &table, &RoaringBitmap::from([1])).await.expect("an index");
        let rows = [("shut", true), ("open", false), ("unused", false), ("newer", false)];
        for (id, hides) in rows {
            assert_eq!(hidden.hides(&guard(id)), hides, "{id}");
        }
        // Another table of the same collection has its own positions.
        let other = GuardTable::new(["newer", "shut"].map(guard).to_vec());
        let hidden = indexes.hidden("handbook", &other, &RoaringBitmap::from([1])).await.expect("an index");
        assert!(hidden.hides(&guard("newer")) && !hidden.hides(&guard("shut")));
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
