//! Applies the changes of one request inside a transaction.

use std::ops::Bound;

use redb::{ReadableTable, Table, WriteTransaction};

use super::changelog;
use super::single::{OnConflict, RelationshipStore, StoreError, TupleWrite};
use super::tables::{self, ConditionColumns};
use crate::language::tuple::RelationshipTuple;
use crate::storage::StorageError;

/// The keys of a request's tuples: first those of `writes`, then those of `deletes`.
pub(super) struct Keys(Vec<String>);

/// The keys in ascending order, each with its position in the request. Neighbours in this order share a page of the
/// file, and a tuple that is named twice is its own neighbour.
pub(super) struct SortedKeys<'k>(Vec<(&'k str, usize)>);

/// The tuples that a request changed.
#[derive(Default)]
pub(super) struct Changed<'a> {
    /// In ascending order of their keys.
    pub(super) added: Vec<&'a RelationshipTuple>,
    /// With the conditions that they had in the store.
    pub(super) removed: Vec<RelationshipTuple>,
    /// Whether the store was empty, so that it now holds exactly `added`.
    pub(super) is_all: bool,
}

/// What the store holds under the key of a tuple that is to be written.
#[derive(Clone, Copy)]
enum Found {
    Nothing,
    Same,
    OtherCondition,
}

type TupleTable<'t> = Table<'t, (u128, &'static str), (u64, ConditionColumns<'static>)>;

impl Keys {
    pub(super) fn of(request: &TupleWrite) -> Self {
        Self(request.writes.iter().chain(&request.deletes).map(tables::key_of).collect())
    }

    pub(super) fn sorted(&self) -> SortedKeys<'_> {
        let mut sorted: Vec<(&str, usize)> = self.0.iter().map(String::as_str).zip(0..).collect();
        sorted.sort_unstable();
        SortedKeys(sorted)
    }
}

impl SortedKeys<'_> {
    /// Returns the first tuple of the request that the request names a second time.
    pub(super) fn first_repeated<'a>(&self, request: &'a TupleWrite) -> Option<&'a RelationshipTuple> {
        let again = self.0.windows(2).filter_map(|pair| match pair {
            [(key, _), (again, place)] if key == again => Some(*place),
            _ => None,
        });
        request.writes.iter().chain(&request.deletes).nth(again.min()?)
    }
}

impl RelationshipStore {
    /// Applies the request inside a transaction, and returns what changed. Dropping the transaction undoes it.
    pub(super) fn change<'a>(
        &self,
        transaction: &WriteTransaction,
        request: &'a TupleWrite,
        (keys, sorted): (&Keys, &SortedKeys<'_>),
    ) -> Result<Changed<'a>, StoreError> {
        let path = self.shared.path.as_path();
        let failed = |e: redb::Error| StorageError::redb(path, e);
        let mut tuples = transaction.open_table(tables::TUPLES).map_err(|e| failed(e.into()))?;
        let mut log = changelog::Writer::new(path, self.id, transaction)?;
        let mut removed = Vec::new();
        for (tuple, key) in request.deletes.iter().zip(keys.0.iter().skip(request.writes.len())) {
            let there = tuples.remove((self.id.key(), key.as_str())).map_err(|e| failed(e.into()))?;
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
        let is_empty = tuples.range(tables::by_key(self.id, "")).map_err(|e| failed(e.into()))?.next().is_none();
        let is_new = if is_empty { vec![true; request.writes.len()] } else { self.are_new(&tuples, request, sorted)? };
        // The log keeps the order of the request, although the table is filled in the order of keys.
        let in_order = request.writes.iter().zip(&keys.0).zip(&is_new).filter(|(_, is_new)| **is_new);
        let first = log.append_writes(in_order.map(|(write, _)| write))?;
        let mut sequences = first..;
        let sequences: Vec<Option<u64>> =
            is_new.iter().map(|is_new| if *is_new { sequences.next() } else { None }).collect();
        let mut added = Vec::with_capacity(request.writes.len());
        let rows = sorted.0.iter().filter_map(|(key, place)| {
            let tuple = request.writes.get(*place)?;
            let sequence = sequences.get(*place).copied()??;
            added.push(tuple);
            Some(((self.id.key(), *key), (sequence, tables::columns_of(tuple.condition.as_ref()))))
        });
        if is_empty {
            append(&mut tuples, rows).map_err(failed)?;
        } else {
            for (key, columns) in rows {
                tuples.insert(key, columns).map_err(|e| failed(e.into()))?;
            }
        }
        Ok(Changed { added, removed, is_all: is_empty })
    }

    /// For each tuple of `writes`: whether the store does not hold it yet.
    fn are_new(
        &self,
        tuples: &TupleTable<'_>,
        request: &TupleWrite,
        sorted: &SortedKeys<'_>,
    ) -> Result<Vec<bool>, StoreError> {
        let mut found = vec![Found::Nothing; request.writes.len()];
        for (key, place) in &sorted.0 {
            let (Some(tuple), Some(found)) = (request.writes.get(*place), found.get_mut(*place)) else { continue };
            let there = tuples.get((self.id.key(), *key)).map_err(|e| StorageError::redb(&self.shared.path, e))?;
            if let Some(there) = there {
                let same = there.value().1 == tables::columns_of(tuple.condition.as_ref());
                *found = if same { Found::Same } else { Found::OtherCondition };
            }
        }
        let is_new = |(tuple, found): (&RelationshipTuple, Found)| match (found, request.on_duplicate) {
            (Found::Nothing, _) => Ok(true),
            (Found::Same, OnConflict::Ignore) => Ok(false),
            (Found::OtherCondition, OnConflict::Ignore) => Err(StoreError::OtherCondition(tuple.clone())),
            (Found::Same | Found::OtherCondition, OnConflict::Refuse) => Err(StoreError::AlreadyThere(tuple.clone())),
        };
        request.writes.iter().zip(found).map(is_new).collect()
    }
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
