//! The log of all changes: what `ReadChanges` answers from, and what caches and replicas follow.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{Database, ReadableDatabase, ReadableTable, Table, WriteTransaction};

use super::tables::{CHANGES, ConditionColumns, columns_of, tuple_of};
use crate::relationship::tuple::RelationshipTuple;
use crate::storage::StorageError;

/// What happened to a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It was put in.
    Write,
    /// It was taken out.
    Delete,
}

const WRITE: u8 = 0;
const DELETE: u8 = 1;

/// One change of one tuple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its position in the log, from 1, without gaps.
    pub sequence: u64,
    /// What happened.
    pub operation: Operation,
    /// To which tuple; one that was taken out has no condition here.
    pub tuple: RelationshipTuple,
    /// When, in milliseconds since 1970 by the clock of this machine.
    pub unix_ms: u64,
}

/// Appends to the log within a transaction.
pub(super) struct Writer<'a> {
    path: PathBuf,
    table: Table<'a, u64, (u8, u64, &'static str, ConditionColumns<'static>)>,
    next: u64,
    unix_ms: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn new(path: &Path, transaction: &'a WriteTransaction) -> Result<Self, StorageError> {
        let failed = |e: redb::Error| StorageError::redb(path, e);
        let table = transaction.open_table(CHANGES).map_err(|e| failed(e.into()))?;
        let last = table.last().map_err(|e| failed(e.into()))?.map_or(0, |(sequence, _)| sequence.value());
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        Ok(Self { path: path.to_owned(), table, next: last + 1, unix_ms })
    }

    pub(super) fn append(
        &mut self,
        operation: Operation,
        tuple: &RelationshipTuple,
        key: &str,
    ) -> Result<Change, StorageError> {
        let (code, condition) = match operation {
            Operation::Write => (WRITE, tuple.condition.clone()),
            Operation::Delete => (DELETE, None),
        };
        let tuple = RelationshipTuple { condition, ..tuple.clone() };
        let change = Change { sequence: self.next, operation, tuple, unix_ms: self.unix_ms };
        self.table
            .insert(change.sequence, (code, change.unix_ms, key, columns_of(change.tuple.condition.as_ref())))
            .map_err(|e| StorageError::redb(&self.path, e))?;
        self.next += 1;
        Ok(change)
    }
}

pub(super) fn read(path: &Path, database: &Database, after: u64, limit: usize) -> Result<Vec<Change>, StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let table = transaction.open_table(CHANGES).map_err(|e| failed(e.into()))?;
    let mut changes = Vec::new();
    for entry in table.range(after.saturating_add(1)..).map_err(|e| failed(e.into()))?.take(limit) {
        let (sequence, value) = entry.map_err(|e| failed(e.into()))?;
        let (code, unix_ms, key, condition) = value.value();
        let operation = match code {
            WRITE => Operation::Write,
            DELETE => Operation::Delete,
            other => return Err(StorageError::damaged(path, format!("a change has operation {other}"))),
        };
        let tuple = tuple_of(path, key, condition)?;
        changes.push(Change { sequence: sequence.value(), operation, tuple, unix_ms });
    }
    Ok(changes)
}
