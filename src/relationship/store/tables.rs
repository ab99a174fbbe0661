//! The tables of the file and the form of their keys.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use crate::relationship::tuple::{ParseError, RelationshipTuple, TupleCondition};
use crate::storage::StorageError;

/// Versions of the model as JSON, by ULID: the last is the latest.
pub(super) const MODELS: TableDefinition<'_, &str, &str> = TableDefinition::new("authorization_models");
/// Tuples by [`key_of`]: the sequence number of the change that wrote it, and its condition.
pub(super) const TUPLES: TableDefinition<'_, &str, (u64, ConditionColumns<'_>)> = TableDefinition::new("tuples");
/// Changes by sequence number, from 1: operation, milliseconds since 1970, tuple by [`key_of`], and its condition.
pub(super) const CHANGES: TableDefinition<'_, u64, (u8, u64, &str, ConditionColumns<'_>)> =
    TableDefinition::new("changes");

/// The name of a tuple's condition and its context as JSON; both empty where there is none.
pub(super) type ConditionColumns<'a> = (&'a str, &'a str);

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

pub(super) fn columns_of(condition: Option<&TupleCondition>) -> ConditionColumns<'_> {
    condition.map_or(("", ""), |condition| (condition.name(), condition.context_json()))
}

pub(super) fn tuple_of(
    path: &Path,
    key: &str,
    (condition_name, context): ConditionColumns<'_>,
) -> Result<RelationshipTuple, StorageError> {
    let parts = key.split_once('#').and_then(|(object, rest)| Some((object, rest.split_once('@')?)));
    let Some((object, (relation, user))) = parts else {
        return Err(StorageError::damaged(path, format!("`{}` is not a tuple", key.escape_debug())));
    };
    let malformed = |e: ParseError| StorageError::damaged(path, format!("a stored tuple is malformed: {e}"));
    let tuple = RelationshipTuple::parse(user, relation, object).map_err(malformed)?;
    if condition_name.is_empty() {
        return Ok(tuple);
    }
    Ok(tuple.with_condition(TupleCondition::parse(condition_name, context).map_err(malformed)?))
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
        let (key, value) = entry.map_err(|e| failed(e.into()))?;
        let (_, condition) = value.value();
        tuple_of(path, key.value(), condition)
    });
    take(&mut parsed);
    Ok(())
}
