//! The directory of the stores that exist.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable};

use super::changelog;
use super::ids::StoreId;
use super::tables::{ASSERTIONS, CHANGES, MARKERS, MODELS, STORES, TUPLES, by_id, by_key, by_sequence};
use crate::storage::StorageError;

/// A store's entry in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRecord {
    /// The store's id, which is unique.
    pub id: StoreId,
    /// The store's name. Several stores may have the same one.
    pub name: String,
    /// The time when the store was created, in milliseconds since 1970.
    pub created_unix_ms: u64,
}

pub(super) fn create(path: &Path, database: &Database, name: &str) -> Result<StoreRecord, StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let created_unix_ms = changelog::unix_ms_now();
    let transaction = database.begin_write().map_err(|e| failed(e.into()))?;
    let id = {
        let mut stores = transaction.open_table(STORES).map_err(|e| failed(e.into()))?;
        let latest = stores.last().map_err(|e| failed(e.into()))?.map(|(key, _)| StoreId::from_key(key.value()));
        let id = StoreId::after(latest);
        stores.insert(id.key(), (name, created_unix_ms)).map_err(|e| failed(e.into()))?;
        id
    };
    transaction.commit().map_err(|e| failed(e.into()))?;
    Ok(StoreRecord { id, name: name.to_owned(), created_unix_ms })
}

pub(super) fn find(path: &Path, database: &Database, id: StoreId) -> Result<Option<StoreRecord>, StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let stores = transaction.open_table(STORES).map_err(|e| failed(e.into()))?;
    let found = stores.get(id.key()).map_err(|e| failed(e.into()))?;
    Ok(found.map(|entry| {
        let (name, created_unix_ms) = entry.value();
        StoreRecord { id, name: name.to_owned(), created_unix_ms }
    }))
}

/// Lists at most `limit` stores whose id is greater than `after`, oldest first; with a `name`, only stores of that
/// name.
pub(super) fn list(
    path: &Path,
    database: &Database,
    name: Option<&str>,
    after: Option<StoreId>,
    limit: usize,
) -> Result<Vec<StoreRecord>, StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let stores = transaction.open_table(STORES).map_err(|e| failed(e.into()))?;
    let first = after.map_or(0, |after| after.key().saturating_add(1));
    let mut found = Vec::new();
    for entry in stores.range(first..).map_err(|e| failed(e.into()))? {
        if found.len() == limit {
            break;
        }
        let (key, value) = entry.map_err(|e| failed(e.into()))?;
        let (store_name, created_unix_ms) = value.value();
        if name.is_none_or(|name| name == store_name) {
            let id = StoreId::from_key(key.value());
            found.push(StoreRecord { id, name: store_name.to_owned(), created_unix_ms });
        }
    }
    Ok(found)
}

/// Deletes a store with everything in it, so that nothing in it can grant anything later.
pub(super) fn delete(path: &Path, database: &Database, id: StoreId) -> Result<(), StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_write().map_err(|e| failed(e.into()))?;
    {
        let mut stores = transaction.open_table(STORES).map_err(|e| failed(e.into()))?;
        stores.remove(id.key()).map_err(|e| failed(e.into()))?;
        let mut markers = transaction.open_table(MARKERS).map_err(|e| failed(e.into()))?;
        markers.remove(id.key()).map_err(|e| failed(e.into()))?;
        let mut models = transaction.open_table(MODELS).map_err(|e| failed(e.into()))?;
        models.retain_in(by_id(id), |_, _| false).map_err(|e| failed(e.into()))?;
        let mut assertions = transaction.open_table(ASSERTIONS).map_err(|e| failed(e.into()))?;
        assertions.retain_in(by_id(id), |_, _| false).map_err(|e| failed(e.into()))?;
        let mut tuples = transaction.open_table(TUPLES).map_err(|e| failed(e.into()))?;
        tuples.retain_in(by_key(id, ""), |_, _| false).map_err(|e| failed(e.into()))?;
        let mut log = transaction.open_table(CHANGES).map_err(|e| failed(e.into()))?;
        log.retain_in(by_sequence(id), |_, _| false).map_err(|e| failed(e.into()))?;
    }
    transaction.commit().map_err(|e| failed(e.into()))
}
