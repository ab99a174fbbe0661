//! Keeps a copy of a store whose changes another server decides. Each batch of changes is applied as it is, in one
//! transaction with a marker that says how far the copy has come.

use std::collections::BTreeMap;

use redb::{ReadableDatabase, ReadableTable};

use super::apply::{self, Keys};
use super::single::RelationshipStore;
use super::tables;
use super::write::{OnConflict, StoreError, TupleWrite, Written};
use crate::language::tuple::RelationshipTuple;
use crate::storage::StorageError;

/// Changes that the other server has made.
#[derive(Clone, Debug, Default)]
pub struct MirroredChanges {
    /// Tuples that exist now. They replace tuples with the same user, relation and object. They need not fit the model:
    /// the other server may hold tuples that are older than its model.
    pub present: Vec<RelationshipTuple>,
    /// Tuples that do not exist any more.
    pub absent: Vec<RelationshipTuple>,
}

impl RelationshipStore {
    /// Applies the changes and replaces the marker.
    ///
    /// # Errors
    /// When the data directory fails; then nothing changed.
    pub fn mirror(&self, changes: MirroredChanges, marker: &[u8]) -> Result<Written, StoreError> {
        let MirroredChanges { present, absent } = changes;
        let _writing = self.shared.lock()?;
        let transaction = self.begin()?;
        let mut request = TupleWrite {
            writes: by_key(present).into_values().collect(),
            deletes: by_key(absent).into_values().collect(),
            on_duplicate: OnConflict::Ignore,
            on_missing: OnConflict::Ignore,
        };
        let failed = |e: redb::Error| StorageError::redb(&self.shared.path, e);
        {
            let tuples = transaction.open_table(tables::TUPLES).map_err(|e| failed(e.into()))?;
            for tuple in &request.writes {
                let key = tables::key_of(tuple);
                let there = tuples.get((self.id.key(), key.as_str())).map_err(|e| failed(e.into()))?;
                if there.is_some_and(|there| there.value().1 != tables::columns_of(tuple.condition.as_ref())) {
                    // The stored tuple has another condition, so it is deleted before it is written again.
                    request.deletes.push(tuple.clone());
                }
            }
            let mut markers = transaction.open_table(tables::MARKERS).map_err(|e| failed(e.into()))?;
            markers.insert(self.id.key(), marker).map_err(|e| failed(e.into()))?;
        }
        let keys = Keys::of(&request);
        let made = apply::change(&self.shared.path, self.id, &transaction, &request, &keys)?;
        self.finish(transaction)?;
        Ok(self.publish(&made))
    }

    /// Returns the marker that the last [`RelationshipStore::mirror`] wrote.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn marker(&self) -> Result<Option<Vec<u8>>, StorageError> {
        let failed = |e: redb::Error| StorageError::redb(&self.shared.path, e);
        let transaction = self.shared.database()?.begin_read().map_err(|e| failed(e.into()))?;
        let markers = transaction.open_table(tables::MARKERS).map_err(|e| failed(e.into()))?;
        let marker = markers.get(self.id.key()).map_err(|e| failed(e.into()))?;
        Ok(marker.map(|marker| marker.value().to_vec()))
    }
}

fn by_key(tuples: Vec<RelationshipTuple>) -> BTreeMap<String, RelationshipTuple> {
    tuples.into_iter().map(|tuple| (tables::key_of(&tuple), tuple)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuple_store::{RelationshipStores, TupleFilter};

    #[test]
    fn changes_and_marker_are_kept_together() {
        let directory = tempfile::tempdir().expect("a directory");
        let tuple = |id: &str| RelationshipTuple::parse("user:anne", "viewer", &format!("doc:{id}")).expect("a tuple");
        {
            let stores = RelationshipStores::open(directory.path()).expect("opened");
            let store = stores.default_store_or_new().expect("a store");
            assert_eq!(store.marker().expect("read"), None);
            // There is no model at all, and the tuples are kept nevertheless.
            let first = MirroredChanges { present: vec![tuple("1"), tuple("2"), tuple("1")], absent: vec![tuple("9")] };
            assert_eq!(store.mirror(first, b"one").expect("written"), Written { added: 2, removed: 0 });
            let again = MirroredChanges { present: vec![tuple("2")], absent: vec![tuple("1")] };
            assert_eq!(store.mirror(again, b"two").expect("written"), Written { added: 0, removed: 1 });
        }
        let stores = RelationshipStores::open(directory.path()).expect("opened again");
        let store = stores.default_store().expect("the store");
        assert_eq!(store.marker().expect("read"), Some(b"two".to_vec()));
        let kept = store.tuples(&TupleFilter::default(), 0, 10).expect("read");
        assert_eq!(kept.into_iter().map(|stored| stored.tuple).collect::<Vec<_>>(), [tuple("2")]);
    }
}
