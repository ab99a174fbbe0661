//! The durable relationships of the embedded engine: tuples, every version of the model, and the log of all changes, in
//! one redb file, with the state that questions are asked of in memory beside it.
//!
//! One store per data directory for now. Reading and writing block: call from a blocking thread.

mod changelog;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::{Database, ReadableDatabase, ReadableTable};
use ulid::Ulid;

use super::json;
use super::program::MisfitTuple;
use super::snapshot::Snapshot;
use super::tuple::RelationshipTuple;
use super::validate::ValidModel;
use crate::error_code::ErrorCode;
use crate::storage::{StorageError, open_database};

pub use changelog::{Change, Operation};

/// The file in the data directory.
pub const FILE_NAME: &str = "relationships.redb";
/// Most tuples of one write (`OpenFGA`'s default limit).
pub const TUPLES_PER_WRITE_MAX: usize = 100;

/// What to do about a tuple that is already there, or is not there to delete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Refuse the whole write.
    #[default]
    Refuse,
    /// Leave that tuple as it is.
    Ignore,
}

/// Changes that are made together or not at all.
#[derive(Clone, Debug, Default)]
pub struct TupleWrite {
    /// Tuples to put in; each must fit the model.
    pub writes: Vec<RelationshipTuple>,
    /// Tuples to take out; they need not fit the model, so that old ones can be removed.
    pub deletes: Vec<RelationshipTuple>,
    /// For a tuple of `writes` that is there.
    pub on_duplicate: OnConflict,
    /// For a tuple of `deletes` that is not there.
    pub on_missing: OnConflict,
}

/// What a write changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Tuples put in.
    pub added: u64,
    /// Tuples taken out.
    pub removed: u64,
}

/// Why a write was refused. Nothing of it was applied.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no model to hold the tuples against.
    #[error("no authorization model is loaded; load one with `ragward model load`")]
    NoModel,
    /// A tuple does not fit the model.
    #[error(transparent)]
    Misfit(#[from] Box<MisfitTuple>),
    /// The request names a tuple twice.
    #[error("tuple `{0}` occurs more than once in the request")]
    Repeated(RelationshipTuple),
    /// The tuple is already there.
    #[error("tuple `{0}` is already there")]
    AlreadyThere(RelationshipTuple),
    /// The tuple is already there with another condition, so it cannot be left as it is.
    #[error("tuple `{0}` is already there with another condition; delete it first")]
    OtherCondition(RelationshipTuple),
    /// The tuple is not there.
    #[error("tuple `{0}` is not there, so it cannot be deleted")]
    NotThere(RelationshipTuple),
    /// Nothing to do.
    #[error("the write has no tuples")]
    Empty,
    /// Too much at once.
    #[error("the write has {0} tuples, at most {TUPLES_PER_WRITE_MAX} are allowed")]
    TooMany(usize),
    /// The data directory failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl StoreError {
    /// What the caller can do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoModel => ErrorCode::FailedPrecondition,
            Self::Misfit(_) | Self::Repeated(_) | Self::Empty | Self::TooMany(_) => ErrorCode::InvalidArgument,
            Self::AlreadyThere(_) | Self::OtherCondition(_) => ErrorCode::AlreadyExists,
            Self::NotThere(_) => ErrorCode::NotFound,
            Self::Storage(e) => e.code(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct RelationshipStore {
    path: PathBuf,
    database: Database,
    /// Held for the length of a write: one at a time, so that memory is published in the order of the file.
    writing: Mutex<()>,
    /// `None` until a model is written. INVARIANT (durable first): only replaced after the commit that it shows.
    visible: RwLock<Option<Arc<Snapshot>>>,
}

impl RelationshipStore {
    /// Opens the store of a data directory, or makes an empty one.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub fn open(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join(FILE_NAME);
        let database = open_database(&path)?;
        tables::create(&path, &database)?;
        let store = Self { path, database, writing: Mutex::new(()), visible: RwLock::new(None) };
        if let Some((model_id, model)) = store.latest_model()? {
            let snapshot = store.build(&model_id, Arc::new(model))?;
            store.publish(snapshot);
        }
        Ok(store)
    }

    /// The state as it is now; `None` while there is no model.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.visible.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stores a new version of the model and uses it from now on: its id. Tuples that do not fit it stay stored, and
    /// count again under a model that they fit.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn write_model(&self, model: ValidModel) -> Result<String, StorageError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |e: redb::Error| StorageError::redb(&self.path, e);
        let text = json::print(model.source()).map_err(|e| StorageError::damaged(&self.path, e.to_string()))?;
        let transaction = self.database.begin_write().map_err(|e| failed(e.into()))?;
        let id = {
            let mut models = transaction.open_table(tables::MODELS).map_err(|e| failed(e.into()))?;
            let latest = models.last().map_err(|e| failed(e.into()))?.map(|(id, _)| id.value().to_owned());
            let id = next_id(latest.as_deref());
            models.insert(id.as_str(), text.as_str()).map_err(|e| failed(e.into()))?;
            id
        };
        transaction.commit().map_err(|e| failed(e.into()))?;
        let snapshot = self.build(&id, Arc::new(model))?;
        self.publish(snapshot);
        Ok(id)
    }

    /// Makes the changes of one request.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing was changed.
    pub fn write(&self, request: &TupleWrite) -> Result<Written, StoreError> {
        match request.writes.len() + request.deletes.len() {
            0 => Err(StoreError::Empty),
            count if count > TUPLES_PER_WRITE_MAX => Err(StoreError::TooMany(count)),
            _ => self.apply(request),
        }
    }

    /// Puts in any number of tuples, all or none.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing was changed.
    pub fn write_all(&self, writes: Vec<RelationshipTuple>, on_duplicate: OnConflict) -> Result<Written, StoreError> {
        self.apply(&TupleWrite { writes, on_duplicate, ..TupleWrite::default() })
    }

    /// The changes after a sequence number (0: from the beginning), oldest first, at most `limit`.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, StorageError> {
        changelog::read(&self.path, &self.database, after, limit)
    }

    /// How many tuples are stored, also those that do not fit the model.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn tuple_count(&self) -> Result<u64, StorageError> {
        tables::tuple_count(&self.path, &self.database)
    }

    fn apply(&self, request: &TupleWrite) -> Result<Written, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.snapshot().ok_or(StoreError::NoModel)?;
        check_request(request, current.model())?;
        let changes = self.commit(request)?;
        let mut next = Snapshot::clone(&current);
        let (added, removed): (Vec<&Change>, Vec<&Change>) =
            changes.iter().partition(|change| change.operation == Operation::Write);
        for change in &removed {
            next.remove(&change.tuple);
        }
        next.insert_all(added.iter().map(|change| &change.tuple));
        self.publish(next);
        Ok(Written { added: count(&added), removed: count(&removed) })
    }

    /// Makes the changes durable; those that were made.
    fn commit(&self, request: &TupleWrite) -> Result<Vec<Change>, StoreError> {
        let failed = |e: redb::Error| StorageError::redb(&self.path, e);
        let transaction = self.database.begin_write().map_err(|e| failed(e.into()))?;
        let changes = {
            let mut tuples = transaction.open_table(tables::TUPLES).map_err(|e| failed(e.into()))?;
            let mut log = changelog::Writer::new(&self.path, &transaction)?;
            let mut changes = Vec::new();
            // A transaction that is dropped without a commit is undone.
            for tuple in &request.deletes {
                let key = tables::key_of(tuple);
                let was_there = tuples.remove(key.as_str()).map_err(|e| failed(e.into()))?.is_some();
                match (was_there, request.on_missing) {
                    (true, _) => changes.push(log.append(Operation::Delete, tuple, &key)?),
                    (false, OnConflict::Ignore) => {}
                    (false, OnConflict::Refuse) => return Err(StoreError::NotThere(tuple.clone())),
                }
            }
            for tuple in &request.writes {
                let key = tables::key_of(tuple);
                let condition = tables::columns_of(tuple.condition.as_ref());
                let same_condition =
                    tuples.get(key.as_str()).map_err(|e| failed(e.into()))?.map(|there| there.value().1 == condition);
                match (same_condition, request.on_duplicate) {
                    (Some(true), OnConflict::Ignore) => continue,
                    (Some(false), OnConflict::Ignore) => return Err(StoreError::OtherCondition(tuple.clone())),
                    (Some(_), OnConflict::Refuse) => return Err(StoreError::AlreadyThere(tuple.clone())),
                    (None, _) => {}
                }
                let change = log.append(Operation::Write, tuple, &key)?;
                tuples.insert(key.as_str(), (change.sequence, condition)).map_err(|e| failed(e.into()))?;
                changes.push(change);
            }
            changes
        };
        transaction.commit().map_err(|e| failed(e.into()))?;
        Ok(changes)
    }

    fn latest_model(&self) -> Result<Option<(String, ValidModel)>, StorageError> {
        let failed = |e: redb::Error| StorageError::redb(&self.path, e);
        let transaction = self.database.begin_read().map_err(|e| failed(e.into()))?;
        let models = transaction.open_table(tables::MODELS).map_err(|e| failed(e.into()))?;
        let Some((id, text)) = models.last().map_err(|e| failed(e.into()))? else {
            return Ok(None);
        };
        let id = id.value().to_owned();
        let damaged = |detail: String| StorageError::damaged(&self.path, format!("model `{id}`: {detail}"));
        let model = json::read(text.value()).map_err(|e| damaged(e.to_string()))?;
        let model = ValidModel::new(model)
            .map_err(|errors| damaged(errors.first().map(ToString::to_string).unwrap_or_default()))?;
        Ok(Some((id, model)))
    }

    /// The state of all stored tuples under a model.
    fn build(&self, model_id: &str, model: Arc<ValidModel>) -> Result<Snapshot, StorageError> {
        let mut snapshot = Snapshot::new(model_id, model);
        let mut damage = None;
        tables::for_all_tuples(&self.path, &self.database, |tuples| {
            let sound = tuples.map_while(|tuple| tuple.map_err(|e| damage = Some(e)).ok());
            snapshot.insert_all(sound);
        })?;
        damage.map_or(Ok(snapshot), Err)
    }

    fn publish(&self, snapshot: Snapshot) {
        let visible = Some(Arc::new(snapshot));
        let before = std::mem::replace(&mut *self.visible.write().unwrap_or_else(PoisonError::into_inner), visible);
        // What is no longer used is freed after the lock, not under it.
        drop(before);
    }
}

/// What can be refused without looking at the stored tuples.
fn check_request(request: &TupleWrite, model: &ValidModel) -> Result<(), StoreError> {
    let mut seen = HashSet::new();
    for tuple in request.writes.iter().chain(&request.deletes) {
        if !seen.insert(tuple.key()) {
            return Err(StoreError::Repeated(tuple.clone()));
        }
    }
    Ok(model.admits_all(&request.writes)?)
}

/// An id that sorts after the latest one, even if the clock was set back.
fn next_id(latest: Option<&str>) -> String {
    let id = Ulid::new();
    let after_latest = latest.and_then(|latest| Ulid::from_string(latest).ok()).and_then(|latest| latest.increment());
    after_latest.map_or(id, |after_latest| id.max(after_latest)).to_string()
}

fn count(changes: &[&Change]) -> u64 {
    u64::try_from(changes.len()).unwrap_or(u64::MAX)
}
