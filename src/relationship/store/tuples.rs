//! Reading of stored tuples: all of them, to build the index, and page by page in the order of writing.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable};

use super::ids::StoreId;
use super::tables::{CHANGES, ConditionColumns, TUPLES, by_key, by_sequence, parts_of, tuple_of};
use crate::relationship::tuple::RelationshipTuple;
use crate::storage::StorageError;

/// A tuple as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTuple {
    /// The tuple.
    pub tuple: RelationshipTuple,
    /// When it was written, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The sequence number of the change that wrote it: its place in the order of writing.
    pub sequence: u64,
}

/// Which tuples to read; a part that is empty matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TupleFilter {
    /// `type:id`, or `type:` for all objects of a type.
    pub object: String,
    /// The relation.
    pub relation: String,
    /// A user in full, or `type:` for all users of a type.
    pub user: String,
}

impl TupleFilter {
    fn matches(&self, key: &str) -> bool {
        let Some((object, relation, user)) = parts_of(key) else { return false };
        matches_name(&self.object, object)
            && (self.relation.is_empty() || self.relation == relation)
            && matches_name(&self.user, user)
    }

    /// The one object that is asked about, if it is one.
    fn one_object(&self) -> Option<&str> {
        let is_one = !self.object.is_empty() && !self.object.ends_with(':');
        is_one.then_some(self.object.as_str())
    }
}

fn matches_name(wanted: &str, name: &str) -> bool {
    wanted.is_empty() || wanted == name || (wanted.ends_with(':') && name.starts_with(wanted))
}

/// The tuples of the filter after a place in the order of writing, at most `limit`. The tuples of one object are found by
/// their key; for other filters the log is walked.
pub(super) fn read(
    path: &Path,
    database: &Database,
    store: StoreId,
    filter: &TupleFilter,
    after: u64,
    limit: usize,
) -> Result<Vec<StoredTuple>, StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let tuples = transaction.open_table(TUPLES).map_err(|e| failed(e.into()))?;
    let log = transaction.open_table(CHANGES).map_err(|e| failed(e.into()))?;
    let mut found = Vec::new();
    if let Some(object) = filter.one_object() {
        let prefix = format!("{object}#");
        let mut keys = Vec::new();
        for entry in tuples.range(by_key(store, &prefix)).map_err(|e| failed(e.into()))? {
            let (key, sequence) = entry.map_err(|e| failed(e.into()))?;
            let (key, (sequence, _)) = (key.value().1, sequence.value());
            if !key.starts_with(&prefix) {
                break;
            }
            if sequence > after && filter.matches(key) {
                keys.push((sequence, key.to_owned()));
            }
        }
        keys.sort_unstable();
        for (sequence, key) in keys.into_iter().take(limit) {
            let written = log.get((store.key(), sequence)).map_err(|e| failed(e.into()))?;
            let Some(written) = written else {
                return Err(StorageError::damaged(path, format!("change {sequence} is missing")));
            };
            let (_, unix_ms, _, condition) = written.value();
            found.push(StoredTuple { tuple: tuple_of(path, &key, condition)?, unix_ms, sequence });
        }
        return Ok(found);
    }
    let first = (store.key(), after.saturating_add(1));
    for entry in log.range(first..=*by_sequence(store).end()).map_err(|e| failed(e.into()))? {
        if found.len() == limit {
            break;
        }
        let (key, change) = entry.map_err(|e| failed(e.into()))?;
        let sequence = key.value().1;
        let (_, unix_ms, key, condition) = change.value();
        if !filter.matches(key) {
            continue;
        }
        // A change that was undone, or done again later, is not the one that the tuple names.
        let current = tuples.get((store.key(), key)).map_err(|e| failed(e.into()))?.map(|current| current.value().0);
        if current == Some(sequence) {
            found.push(StoredTuple { tuple: tuple_of(path, key, condition)?, unix_ms, sequence });
        }
    }
    Ok(found)
}

pub(super) fn count(path: &Path, database: &Database, store: StoreId) -> Result<u64, StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let tuples = transaction.open_table(TUPLES).map_err(|e| failed(e.into()))?;
    let count = tuples.range(by_key(store, "")).map_err(|e| failed(e.into()))?.count();
    Ok(u64::try_from(count).unwrap_or(u64::MAX))
}

/// Hands over all tuples of a store that a transaction sees, one at a time.
pub(super) fn for_all(
    path: &Path,
    tuples: &impl ReadableTable<(u128, &'static str), (u64, ConditionColumns<'static>)>,
    store: StoreId,
    take: impl FnOnce(&mut dyn Iterator<Item = Result<RelationshipTuple, StorageError>>),
) -> Result<(), StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let mut parsed = tuples.range(by_key(store, "")).map_err(|e| failed(e.into()))?.map(|entry| {
        let (key, value) = entry.map_err(|e| failed(e.into()))?;
        let (_, condition) = value.value();
        tuple_of(path, key.value().1, condition)
    });
    take(&mut parsed);
    Ok(())
}
