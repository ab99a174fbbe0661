//! The log of a store's changes. `ReadChanges` reads it, and caches and replicas follow it.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{Database, ReadableDatabase, ReadableTable, Table, WriteTransaction};

use super::ids::StoreId;
use super::tables::{CHANGES, ChangeColumns, append, by_sequence, columns_of, tuple_of};
use crate::language::tuple::RelationshipTuple;
use crate::storage::StorageError;

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The tuple was written.
    Write,
    /// The tuple was deleted.
    Delete,
}

const WRITE: u8 = 0;
const DELETE: u8 = 1;

/// One change of one tuple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The change's position in the log of its store. Positions start at 1 and have no gaps.
    pub sequence: u64,
    /// Whether the tuple was written or deleted.
    pub operation: Operation,
    /// The tuple that changed. A deleted tuple has no condition here.
    pub tuple: RelationshipTuple,
    /// The time of the change in milliseconds since 1970, by this machine's clock. It never runs backwards within a
    /// log: a clock that was set back counts as standing still.
    pub unix_ms: u64,
}

/// Selects changes to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeFilter {
    /// Skip changes up to and including this sequence number.
    pub after: u64,
    /// Skip changes before this time, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Keep only changes of tuples whose object has this type.
    pub type_name: Option<String>,
}

/// Appends changes to the log inside a transaction.
pub(super) struct ChangelogWriter<'a> {
    path: PathBuf,
    store: StoreId,
    table: Table<'a, (u128, u64), ChangeColumns<'static>>,
    next: u64,
    unix_ms: u64,
}

impl<'a> ChangelogWriter<'a> {
    pub(super) fn new(path: &Path, store: StoreId, transaction: &'a WriteTransaction) -> Result<Self, StorageError> {
        let failed = |e: redb::Error| StorageError::redb(path, e);
        let table = transaction.open_table(CHANGES).map_err(|e| failed(e.into()))?;
        let (last, last_unix_ms) = {
            let mut log = table.range(by_sequence(store)).map_err(|e| failed(e.into()))?;
            match log.next_back() {
                Some(entry) => {
                    let (key, value) = entry.map_err(|e| failed(e.into()))?;
                    (key.value().1, value.value().1)
                }
                None => (0, 0),
            }
        };
        Ok(Self { path: path.to_owned(), store, table, next: last + 1, unix_ms: unix_ms_now().max(last_unix_ms) })
    }

    /// Records that the tuple with this key was deleted.
    pub(super) fn append_delete(&mut self, key: &str) -> Result<(), StorageError> {
        let columns = (DELETE, self.unix_ms, key, columns_of(None));
        self.table.insert((self.store.key(), self.next), columns).map_err(|e| StorageError::redb(&self.path, e))?;
        self.next += 1;
        Ok(())
    }

    /// Records that these tuples were written, and returns the sequence number of the first. The others follow without
    /// gaps.
    pub(super) fn append_writes<'t>(
        &mut self,
        tuples: impl Iterator<Item = (&'t RelationshipTuple, &'t String)>,
    ) -> Result<u64, StorageError> {
        let first = self.next;
        let rows = tuples.map(|(tuple, key)| {
            let sequence = self.next;
            self.next += 1;
            ((self.store.key(), sequence), (WRITE, self.unix_ms, key.as_str(), columns_of(tuple.condition.as_ref())))
        });
        append(&mut self.table, rows).map_err(|e| StorageError::redb(&self.path, e))?;
        Ok(first)
    }
}

pub(super) fn read(
    path: &Path,
    database: &Database,
    store: StoreId,
    filter: &ChangeFilter,
    limit: usize,
) -> Result<Vec<Change>, StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let table = transaction.open_table(CHANGES).map_err(|e| failed(e.into()))?;
    let prefix = filter.type_name.as_ref().map(|type_name| format!("{type_name}:"));
    let first = (store.key(), filter.after.saturating_add(1));
    let mut changes = Vec::new();
    for entry in table.range(first..=*by_sequence(store).end()).map_err(|e| failed(e.into()))? {
        if changes.len() == limit {
            break;
        }
        let (sequence, value) = entry.map_err(|e| failed(e.into()))?;
        let (code, unix_ms, key, condition) = value.value();
        let wanted = unix_ms >= filter.since_unix_ms && prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix));
        if wanted {
            let operation = operation_of(path, code)?;
            changes.push(Change {
                sequence: sequence.value().1,
                operation,
                tuple: tuple_of(path, key, condition)?,
                unix_ms,
            });
        }
    }
    Ok(changes)
}

pub(super) fn unix_ms_now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

fn operation_of(path: &Path, code: u8) -> Result<Operation, StorageError> {
    match code {
        WRITE => Ok(Operation::Write),
        DELETE => Ok(Operation::Delete),
        other => Err(StorageError::damaged(path, format!("a change has operation {other}"))),
    }
}
