//! Applies the changes of one request inside a transaction.

use std::path::Path;

use redb::{ReadableTable, Table, WriteTransaction};

use super::changelog;
use super::ids::StoreId;
use super::tables::{self, ConditionColumns};
use super::write::{OnConflict, StoreError, TupleWrite};
use crate::language::tuple::RelationshipTuple;
use crate::storage::StorageError;

/// The keys of a request's tuples, with their order.
pub(super) struct Keys {
    /// First the keys of `writes`, then those of `deletes`.
    in_request: Vec<String>,
    /// Positions in `in_request`, in ascending order of the keys there. Neighbours in this order share a page of the file,
    /// and a tuple that is named twice is its own neighbour.
    ascending: Vec<usize>,
}

/// The tuples that a request changed.
#[derive(Default)]
pub(super) struct Changed<'a> {
    /// The inserted tuples, in ascending order of their keys.
    pub(super) added: Vec<&'a RelationshipTuple>,
    /// The deleted tuples, with the conditions that they had.
    pub(super) removed: Vec<RelationshipTuple>,
    /// Whether the store was empty, so that it now holds exactly `added`.
    pub(super) is_all: bool,
}

/// The present content of the store under the key of a tuple that is to be written.
#[derive(Clone, Copy)]
enum StoredContent {
    Nothing,
    Same,
    OtherCondition,
}

type TupleTable<'t> = Table<'t, (u128, &'static str), (u64, ConditionColumns<'static>)>;

impl Keys {
    pub(super) fn of(request: &TupleWrite) -> Self {
        let in_request: Vec<String> = request.writes.iter().chain(&request.deletes).map(tables::key_of).collect();
        let mut sorted: Vec<(&str, usize)> = in_request.iter().map(String::as_str).zip(0..).collect();
        sorted.sort_unstable();
        let ascending = sorted.into_iter().map(|(_, position)| position).collect();
        Self { in_request, ascending }
    }

    /// Returns the first tuple of the request that the request names a second time.
    pub(super) fn first_repeated<'r>(&self, request: &'r TupleWrite) -> Option<&'r RelationshipTuple> {
        let neighbours = self.ascending().zip(self.ascending().skip(1));
        let again = neighbours.filter(|((key, _), (next, _))| key == next).map(|(_, (_, position))| position);
        request.writes.iter().chain(&request.deletes).nth(again.min()?)
    }

    /// Returns the keys in ascending order, each with its position in the request.
    fn ascending(&self) -> impl Iterator<Item = (&str, usize)> {
        self.ascending.iter().filter_map(|position| Some((self.in_request.get(*position)?.as_str(), *position)))
    }
}

/// Applies the request inside a transaction, and returns what changed. Dropping the transaction undoes it.
pub(super) fn change<'a>(
    path: &Path,
    store: StoreId,
    transaction: &WriteTransaction,
    request: &'a TupleWrite,
    keys: &Keys,
) -> Result<Changed<'a>, StoreError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let mut tuples = transaction.open_table(tables::TUPLES).map_err(|e| failed(e.into()))?;
    let mut log = changelog::ChangelogWriter::new(path, store, transaction)?;
    let mut removed = Vec::new();
    for (tuple, key) in request.deletes.iter().zip(keys.in_request.iter().skip(request.writes.len())) {
        let there = tuples.remove((store.key(), key.as_str())).map_err(|e| failed(e.into()))?;
        match (there, request.on_missing) {
            (Some(there), _) => {
                let condition = tables::condition_of(path, there.value().1)?;
                log.append_delete(key)?;
                removed.push(RelationshipTuple { condition, ..tuple.clone() });
            }
            (None, OnConflict::Ignore) => {}
            (None, OnConflict::Refuse) => return Err(StoreError::NotThere(tuple.clone())),
        }
    }
    let is_empty = tuples.range(tables::by_key(store, "")).map_err(|e| failed(e.into()))?.next().is_none();
    let is_new =
        if is_empty { vec![true; request.writes.len()] } else { are_new(path, store, &tuples, request, keys)? };
    // The log keeps the order of the request, although the table is filled in the order of keys.
    let in_order = request.writes.iter().zip(&keys.in_request).zip(&is_new).filter(|(_, is_new)| **is_new);
    let first = log.append_writes(in_order.map(|(write, _)| write))?;
    let mut sequences = first..;
    let sequences: Vec<Option<u64>> =
        is_new.iter().map(|is_new| if *is_new { sequences.next() } else { None }).collect();
    let mut added = Vec::with_capacity(request.writes.len());
    let rows = keys.ascending().filter_map(|(key, position)| {
        let tuple = request.writes.get(position)?;
        let sequence = sequences.get(position).copied()??;
        added.push(tuple);
        Some(((store.key(), key), (sequence, tables::columns_of(tuple.condition.as_ref()))))
    });
    if is_empty {
        tables::append(&mut tuples, rows).map_err(failed)?;
    } else {
        for (key, columns) in rows {
            tuples.insert(key, columns).map_err(|e| failed(e.into()))?;
        }
    }
    Ok(Changed { added, removed, is_all: is_empty })
}

/// Returns, for each tuple of `writes`, whether the store does not hold it yet.
fn are_new(
    path: &Path,
    store: StoreId,
    tuples: &TupleTable<'_>,
    request: &TupleWrite,
    keys: &Keys,
) -> Result<Vec<bool>, StoreError> {
    let mut found = vec![StoredContent::Nothing; request.writes.len()];
    for (key, position) in keys.ascending() {
        let (Some(tuple), Some(found)) = (request.writes.get(position), found.get_mut(position)) else { continue };
        let there = tuples.get((store.key(), key)).map_err(|e| StorageError::redb(path, e))?;
        if let Some(there) = there {
            let same = there.value().1 == tables::columns_of(tuple.condition.as_ref());
            *found = if same { StoredContent::Same } else { StoredContent::OtherCondition };
        }
    }
    let is_new = |(tuple, found): (&RelationshipTuple, StoredContent)| match (found, request.on_duplicate) {
        (StoredContent::Nothing, _) => Ok(true),
        (StoredContent::Same, OnConflict::Ignore) => Ok(false),
        (StoredContent::OtherCondition, OnConflict::Ignore) => Err(StoreError::OtherCondition(tuple.clone())),
        (StoredContent::Same | StoredContent::OtherCondition, OnConflict::Refuse) => {
            Err(StoreError::AlreadyThere(tuple.clone()))
        }
    };
    request.writes.iter().zip(found).map(is_new).collect()
}
