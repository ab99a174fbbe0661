//! The tables of the file and the form of their keys.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use crate::relationship::tuple::RelationshipTuple;
use crate::storage::StorageError;

/// Versions of the model as JSON, by ULID: the last is the latest.
pub(super) const MODELS: TableDefinition<'_, &str, &str> = TableDefinition::new("authorization_models");
/// Tuples by [`key_of`]; the value is the sequence number of the change that wrote it.
pub(super) const TUPLES: TableDefinition<'_, &str, u64> = TableDefinition::new("tuples");
/// Changes by sequence number, from 1: operation, milliseconds since 1970, tuple by [`key_of`].
pub(super) const CHANGES: TableDefinition<'_, u64, (u8, u64, &str)> = TableDefinition::new("changes");

/// Makes the tables, so that reading need not ask whether they are there.
pub(super) fn create(path: &Path, database: &Database) -> Result<(), StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_write().map_err(|e| failed(e.into()))?;
    transaction.open_table(MODELS).map_err(|e| failed(e.into()))?;
    transaction.open_table(TUPLES).map_err(|e| failed(e.into()))?;
    transaction.open_table(CHANGES).map_err(|e| failed(e.into()))?;
    transaction.commit().map_err(|e| failed(e.into()))
}

/// `object#relation@user`, which is unique: an object has no `#`, a relation neither `#` nor `@`.
pub(super) fn key_of(tuple: &RelationshipTuple) -> String {
    format!("{}#{}@{}", tuple.object, tuple.relation, tuple.user)
}

pub(super) fn tuple_of(path: &Path, key: &str) -> Result<RelationshipTuple, StorageError> {
    let parts = key.split_once('#').and_then(|(object, rest)| Some((object, rest.split_once('@')?)));
    let Some((object, (relation, user))) = parts else {
        return Err(StorageError::damaged(path, format!("`{}` is not a tuple", key.escape_debug())));
    };
    RelationshipTuple::parse(user, relation, object)
        .map_err(|e| StorageError::damaged(path, format!("a stored tuple is malformed: {e}")))
}

pub(super) fn tuple_count(path: &Path, database: &Database) -> Result<u64, StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let tuples = transaction.open_table(TUPLES).map_err(|e| failed(e.into()))?;
    tuples.len().map_err(|e| failed(e.into()))
}

/// Hands over all stored tuples, one at a time.
pub(super) fn for_all_tuples(
    path: &Path,
    database: &Database,
    take: impl FnOnce(&mut dyn Iterator<Item = Result<RelationshipTuple, StorageError>>),
) -> Result<(), StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let tuples = transaction.open_table(TUPLES).map_err(|e| failed(e.into()))?;
    let mut parsed = tuples.iter().map_err(|e| failed(e.into()))?.map(|entry| {
        let (key, _) = entry.map_err(|e| failed(e.into()))?;
        tuple_of(path, key.value())
    });
    take(&mut parsed);
    Ok(())
}
