//! Reads stored tuples: all of them to build a snapshot, or page by page in the order of writing.

use std::collections::BinaryHeap;
use std::path::Path;

use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable};

use super::ids::StoreId;
use super::tables::{CHANGES, ChangeColumns, ConditionColumns, TUPLES, by_key, by_sequence, parts_of, tuple_of};
use crate::language::tuple::RelationshipTuple;
use crate::storage::StorageError;

type Tuples = ReadOnlyTable<(u128, &'static str), (u64, ConditionColumns<'static>)>;
type Changes = ReadOnlyTable<(u128, u64), ChangeColumns<'static>>;

/// A tuple with the facts of its writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTuple {
    /// The tuple itself, with its condition.
    pub tuple: RelationshipTuple,
    /// The time of the write, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The sequence number of the change that wrote the tuple. Pages are in this order.
    pub sequence: u64,
}

/// Selects tuples to read. An empty part matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TupleFilter {
    /// An object, or `type:` for all objects of a type.
    pub object: String,
    /// The name of a relation.
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

    /// Returns the object, if the filter names one object and not a whole type.
    fn one_object(&self) -> Option<&str> {
        let is_one = !self.object.is_empty() && !self.object.ends_with(':');
        is_one.then_some(self.object.as_str())
    }
}

fn matches_name(wanted: &str, name: &str) -> bool {
    wanted.is_empty() || wanted == name || (wanted.ends_with(':') && name.starts_with(wanted))
}

/// How many changes of the log a page may skip, so that the cost of a page is bounded. A page skips changes of tuples
/// that are gone or were written again, and changes that the filter does not match. A page that would skip more is read
/// by key, from the table of tuples.
const STRAY_CHANGES_MAX: usize = 10_000;

/// Returns at most `limit` tuples after a sequence number, in the order of writing. The log is in this order, so a page
/// is usually read along the log. If the filter names one object, or the page would skip too many changes, the tuples
/// are read by key and sorted.
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
    let page = PageBounds { path, store, after, limit };
    if let Some(object) = filter.one_object() {
        return among_keys(&page, &tuples, &log, &format!("{object}#"), filter);
    }
    match along_the_log(&page, &tuples, &log, filter)? {
        Some(found) => Ok(found),
        None => among_keys(&page, &tuples, &log, &filter.object, filter),
    }
}

/// The part of the order of writing that a page covers.
struct PageBounds<'a> {
    path: &'a Path,
    store: StoreId,
    after: u64,
    limit: usize,
}

/// Reads a page along the log. Returns `None` if there are more than [`STRAY_CHANGES_MAX`] changes to skip.
fn along_the_log(
    page: &PageBounds<'_>,
    tuples: &Tuples,
    log: &Changes,
    filter: &TupleFilter,
) -> Result<Option<Vec<StoredTuple>>, StorageError> {
    let failed = |e: redb::Error| StorageError::redb(page.path, e);
    let first = (page.store.key(), page.after.saturating_add(1));
    let (mut found, mut stray) = (Vec::new(), 0);
    for entry in log.range(first..=*by_sequence(page.store).end()).map_err(|e| failed(e.into()))? {
        if found.len() == page.limit {
            break;
        }
        let (key, change) = entry.map_err(|e| failed(e.into()))?;
        let sequence = key.value().1;
        let (_, unix_ms, key, condition) = change.value();
        let current = if filter.matches(key) {
            let current = tuples.get((page.store.key(), key)).map_err(|e| failed(e.into()))?;
            current.map(|current| current.value().0)
        } else {
            None
        };
        // The tuple was deleted, or written again later: this change is not the one that wrote what is stored.
        if current == Some(sequence) {
            found.push(StoredTuple { tuple: tuple_of(page.path, key, condition)?, unix_ms, sequence });
            continue;
        }
        stray += 1;
        if stray > STRAY_CHANGES_MAX {
            return Ok(None);
        }
    }
    Ok(Some(found))
}

/// Reads a page among all tuples whose key starts with `prefix`. At most `limit` of them are in memory at a time.
fn among_keys(
    page: &PageBounds<'_>,
    tuples: &Tuples,
    log: &Changes,
    prefix: &str,
    filter: &TupleFilter,
) -> Result<Vec<StoredTuple>, StorageError> {
    let failed = |e: redb::Error| StorageError::redb(page.path, e);
    let mut earliest: BinaryHeap<(u64, String)> = BinaryHeap::new();
    for entry in tuples.range(by_key(page.store, prefix)).map_err(|e| failed(e.into()))? {
        let (key, value) = entry.map_err(|e| failed(e.into()))?;
        let (key, (sequence, _)) = (key.value().1, value.value());
        if !key.starts_with(prefix) {
            break;
        }
        let full = earliest.len() >= page.limit;
        let too_late = full && earliest.peek().is_none_or(|(latest, _)| sequence > *latest);
        if sequence <= page.after || too_late || !filter.matches(key) {
            continue;
        }
        if full {
            earliest.pop();
        }
        earliest.push((sequence, key.to_owned()));
    }
    let mut found = Vec::with_capacity(earliest.len());
    for (sequence, key) in earliest.into_sorted_vec() {
        let written = log.get((page.store.key(), sequence)).map_err(|e| failed(e.into()))?;
        let Some(written) = written else {
            return Err(StorageError::damaged(page.path, format!("change {sequence} is missing")));
        };
        let (_, unix_ms, _, condition) = written.value();
        found.push(StoredTuple { tuple: tuple_of(page.path, &key, condition)?, unix_ms, sequence });
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

/// Hands all tuples of a store, as the given transaction sees them, to `take` as one iterator.
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
