//! The tables of the file and the form of their keys. The key of every table starts with a store's id, so one store is
//! one range of each table.

use std::ops::{Bound, RangeInclusive};
use std::path::Path;

use redb::{Database, Table, TableDefinition};

use super::ids::StoreId;
use crate::language::tuple::{ParseError, RelationshipTuple, TupleCondition, User};
use crate::storage::StorageError;

/// Stores by id. The value is the store's name and the time of its creation in milliseconds since 1970.
pub(super) const STORES: TableDefinition<'_, u128, (&str, u64)> = TableDefinition::new("stores");
/// Models by store and model id; the greatest id is the latest version. The value is the model as JSON, and the bytes
/// that a client sent.
pub(super) const MODELS: TableDefinition<'_, (u128, u128), (&str, &[u8])> =
    TableDefinition::new("authorization_models");
/// Tuples by store and [`key_of`]. The value is the sequence number of the change that wrote the tuple, and its
/// condition.
pub(super) const TUPLES: TableDefinition<'_, (u128, &str), (u64, ConditionColumns<'_>)> =
    TableDefinition::new("tuples");
/// Changes by store and sequence number, from 1. The value is the operation, the time in milliseconds since 1970, the
/// tuple's [`key_of`] and its condition.
pub(super) const CHANGES: TableDefinition<'_, (u128, u64), ChangeColumns<'_>> = TableDefinition::new("changes");
/// Assertions by store and model id, as the client sent them.
pub(super) const ASSERTIONS: TableDefinition<'_, (u128, u128), &[u8]> = TableDefinition::new("assertions");
/// Markers by store. A store that copies another one has a marker that says how far the copy has come.
pub(super) const MARKERS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("markers");

/// The name of a tuple's condition, and its context as JSON. Both are empty for a tuple without a condition.
pub(super) type ConditionColumns<'a> = (&'a str, &'a str);
pub(super) type ChangeColumns<'a> = (u8, u64, &'a str, ConditionColumns<'a>);

/// Creates all tables, so that readers need not ask whether a table exists.
pub(super) fn create(path: &Path, database: &Database) -> Result<(), StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_write().map_err(|e| failed(e.into()))?;
    transaction.open_table(STORES).map_err(|e| failed(e.into()))?;
    transaction.open_table(MODELS).map_err(|e| failed(e.into()))?;
    transaction.open_table(TUPLES).map_err(|e| failed(e.into()))?;
    transaction.open_table(CHANGES).map_err(|e| failed(e.into()))?;
    transaction.open_table(ASSERTIONS).map_err(|e| failed(e.into()))?;
    transaction.open_table(MARKERS).map_err(|e| failed(e.into()))?;
    transaction.commit().map_err(|e| failed(e.into()))
}

/// Returns the range of a store in a table whose second key is an id.
pub(super) fn by_id(store: StoreId) -> RangeInclusive<(u128, u128)> {
    (store.key(), 0)..=(store.key(), u128::MAX)
}

/// Returns the range of a store's changes.
pub(super) fn by_sequence(store: StoreId) -> RangeInclusive<(u128, u64)> {
    (store.key(), 0)..=(store.key(), u64::MAX)
}

type TupleKey<'a> = (u128, &'a str);

/// Returns the range of a store's tuples, from the key `first` on.
pub(super) fn by_key(store: StoreId, first: &str) -> (Bound<TupleKey<'_>>, Bound<TupleKey<'_>>) {
    let end = store.key().checked_add(1).map_or(Bound::Unbounded, |next| Bound::Excluded((next, "")));
    (Bound::Included((store.key(), first)), end)
}

/// Formats a tuple as `object#relation@user`. The key is unique, because an object has no `#` and a relation has
/// neither `#` nor `@`.
pub(super) fn key_of(tuple: &RelationshipTuple) -> String {
    let (object, relation) = (tuple.object.as_str(), tuple.relation.as_str());
    match &tuple.user {
        User::Object(user) => [object, "#", relation, "@", user.as_str()].concat(),
        User::Wildcard(of) => [object, "#", relation, "@", of.as_str(), ":*"].concat(),
        User::Userset(user, of) => [object, "#", relation, "@", user.as_str(), "#", of.as_str()].concat(),
    }
}

/// Splits a key into object, relation and user.
pub(super) fn parts_of(key: &str) -> Option<(&str, &str, &str)> {
    let (object, rest) = key.split_once('#')?;
    let (relation, user) = rest.split_once('@')?;
    Some((object, relation, user))
}

pub(super) fn columns_of(condition: Option<&TupleCondition>) -> ConditionColumns<'_> {
    condition.map_or(("", ""), |condition| (condition.name(), condition.context_json()))
}

pub(super) fn tuple_of(
    path: &Path,
    key: &str,
    condition: ConditionColumns<'_>,
) -> Result<RelationshipTuple, StorageError> {
    let Some((object, relation, user)) = parts_of(key) else {
        return Err(StorageError::damaged(path, format!("`{}` is not a tuple", key.escape_debug())));
    };
    let malformed = |e: ParseError| StorageError::damaged(path, format!("a stored tuple is malformed: {e}"));
    let tuple = RelationshipTuple::parse(user, relation, object).map_err(malformed)?;
    Ok(RelationshipTuple { condition: condition_of(path, condition)?, ..tuple })
}

pub(super) fn condition_of(
    path: &Path,
    (name, context): ConditionColumns<'_>,
) -> Result<Option<TupleCondition>, StorageError> {
    if name.is_empty() {
        return Ok(None);
    }
    let condition = TupleCondition::parse(name, context);
    condition.map(Some).map_err(|e| StorageError::damaged(path, format!("a stored condition is malformed: {e}")))
}

/// Inserts rows that are in ascending order and lie between two existing neighbours. The cursor fills a page in one go,
/// not row by row.
pub(super) fn append<'r, K: redb::Key, V: redb::Value>(
    table: &mut Table<'_, K, V>,
    rows: impl Iterator<Item = (K::SelfType<'r>, V::SelfType<'r>)>,
) -> Result<(), redb::Error> {
    let mut rows = rows.peekable();
    let Some((first, _)) = rows.peek() else { return Ok(()) };
    let mut cursor = table.lower_bound_mut(Bound::Included(first))?;
    for (key, value) in rows {
        cursor.insert_before(key, value)?;
    }
    Ok(cursor.close()?)
}
