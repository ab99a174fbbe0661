//! One store: its models, its tuples, and the state of both that questions are asked of.

use std::sync::Arc;

use redb::{ReadableDatabase, ReadableTable, WriteTransaction};

use super::apply::{Changed, Keys, SortedKeys};
use super::changelog::{Change, ChangeFilter};
use super::ids::{ModelId, StoreId};
use super::models::StoredModel;
use super::tuples::{StoredTuple, TupleFilter};
use super::{Shared, changelog, models, tables, tuples};
use crate::engine::snapshot::Snapshot;
use crate::language::program::MisfitTuple;
use crate::language::tuple::RelationshipTuple;
use crate::language::validate::ValidModel;
use crate::storage::StorageError;

pub use crate::language::limits::TUPLES_PER_WRITE_MAX;

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

/// One store. A clone is the same store.
#[derive(Clone, Debug)]
pub struct RelationshipStore {
    pub(super) shared: Arc<Shared>,
    pub(super) id: StoreId,
}

impl RelationshipStore {
    pub(super) fn new(shared: Arc<Shared>, id: StoreId) -> Self {
        Self { shared, id }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// The state as it is now, under the latest model; `None` while there is no model.
    ///
    /// # Errors
    /// When the state is not in memory and cannot be read.
    pub fn snapshot(&self) -> Result<Option<Arc<Snapshot>>, StorageError> {
        match self.latest_model_id()? {
            Some(model) => self.snapshot_under(model),
            None => Ok(None),
        }
    }

    /// The state under a version of the model; `None` when there is no such version.
    ///
    /// # Errors
    /// When the state is not in memory and cannot be read.
    pub fn snapshot_under(&self, model: ModelId) -> Result<Option<Arc<Snapshot>>, StorageError> {
        if let Some(snapshot) = self.shared.loaded.get(self.id, model) {
            return Ok(Some(snapshot));
        }
        let _writing = self.shared.lock()?;
        self.load(model)
    }

    /// The state under a version of the model, or the latest, if that takes no reading: for callers that must not block.
    #[must_use]
    pub fn snapshot_in_memory(&self, model: Option<ModelId>) -> Option<(ModelId, Arc<Snapshot>)> {
        let loaded = &self.shared.loaded;
        let model = model.or_else(|| loaded.latest(self.id))?;
        Some((model, loaded.get(self.id, model)?))
    }

    /// The id of the latest version of the model.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn latest_model_id(&self) -> Result<Option<ModelId>, StorageError> {
        if let Some(known) = self.shared.loaded.latest(self.id) {
            return Ok(Some(known));
        }
        let latest = models::latest(&self.shared.path, &*self.shared.database()?, self.id)?;
        if let Some(latest) = latest {
            self.shared.loaded.set_latest(self.id, latest);
        }
        Ok(latest)
    }

    /// A version of the model.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn model(&self, id: ModelId) -> Result<Option<StoredModel>, StorageError> {
        models::find(&self.shared.path, &*self.shared.database()?, self.id, id)
    }

    /// The versions of the model from one on (the latest when `None`), newest first, at most `limit`.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn models(&self, from: Option<ModelId>, limit: usize) -> Result<Vec<StoredModel>, StorageError> {
        models::list(&self.shared.path, &*self.shared.database()?, self.id, from, limit)
    }

    /// Stores a new version of the model and uses it from now on: its id. Tuples that do not fit it stay stored, and
    /// count again under a model that they fit.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn write_model(&self, model: ValidModel) -> Result<ModelId, StorageError> {
        self.write_model_of_client(model, &[])
    }

    /// As [`Self::write_model`], and keeps what the client sent, to give it back as it was.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn write_model_of_client(&self, model: ValidModel, original: &[u8]) -> Result<ModelId, StorageError> {
        let shared = &self.shared;
        let _writing = shared.lock()?;
        let transaction = self.begin()?;
        let id = models::write(&shared.path, &transaction, self.id, model.source(), original)?;
        let snapshot = self.build_within(&transaction, id, model)?;
        self.finish(transaction)?;
        shared.loaded.put(self.id, id, snapshot);
        shared.loaded.set_latest(self.id, id);
        Ok(id)
    }

    /// Stores a new version of the model and its tuples in one transaction, and uses it from now on: a model without some of
    /// its tuples could grant what it is meant to deny. Tuples that are there already are left.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing was changed.
    pub fn write_model_with_tuples(
        &self,
        model: ValidModel,
        tuples: Vec<RelationshipTuple>,
    ) -> Result<(ModelId, Written), StoreError> {
        let request = TupleWrite { writes: tuples, on_duplicate: OnConflict::Ignore, ..TupleWrite::default() };
        let shared = &self.shared;
        let _writing = shared.lock()?;
        let keys = Keys::of(&request);
        let sorted = keys.sorted();
        check_request(&request, &sorted, &model)?;
        let transaction = self.begin()?;
        let id = models::write(&shared.path, &transaction, self.id, model.source(), &[])?;
        let changed = self.change(&transaction, &request, (&keys, &sorted))?;
        let snapshot = if changed.is_all {
            let mut snapshot = Snapshot::new(&id.to_string(), Arc::new(model));
            snapshot.load(changed.added.iter().copied());
            Arc::new(snapshot)
        } else {
            self.build_within(&transaction, id, model)?
        };
        self.finish(transaction)?;
        let written = self.publish(&changed);
        shared.loaded.put(self.id, id, snapshot);
        shared.loaded.set_latest(self.id, id);
        Ok((id, written))
    }

    /// Makes the changes of one request, which must fit the latest model.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing was changed.
    pub fn write(&self, request: &TupleWrite) -> Result<Written, StoreError> {
        self.write_under(None, request)
    }

    /// As [`Self::write`], under a version of the model (the latest when `None`).
    ///
    /// # Errors
    /// See [`StoreError`]; nothing was changed.
    pub fn write_under(&self, model: Option<ModelId>, request: &TupleWrite) -> Result<Written, StoreError> {
        match request.writes.len() + request.deletes.len() {
            0 => Err(StoreError::Empty),
            count if count > TUPLES_PER_WRITE_MAX => Err(StoreError::TooMany(count)),
            _ => self.apply(request, model),
        }
    }

    /// Puts in any number of tuples, all or none.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing was changed.
    pub fn write_all(&self, writes: Vec<RelationshipTuple>, on_duplicate: OnConflict) -> Result<Written, StoreError> {
        self.apply(&TupleWrite { writes, on_duplicate, ..TupleWrite::default() }, None)
    }

    /// The tuples of a filter after a place in the order of writing (0: from the beginning), at most `limit`.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn tuples(&self, filter: &TupleFilter, after: u64, limit: usize) -> Result<Vec<StoredTuple>, StorageError> {
        tuples::read(&self.shared.path, &*self.shared.database()?, self.id, filter, after, limit)
    }

    /// Shows all stored tuples, also those that do not fit the model, in the order of their keys.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn each_tuple(&self, mut show: impl FnMut(RelationshipTuple)) -> Result<(), StorageError> {
        let failed = |e: redb::Error| StorageError::redb(&self.shared.path, e);
        let transaction = self.shared.database()?.begin_read().map_err(|e| failed(e.into()))?;
        let table = transaction.open_table(tables::TUPLES).map_err(|e| failed(e.into()))?;
        let mut ended = Ok(());
        tuples::for_all(&self.shared.path, &table, self.id, |stored| {
            for tuple in stored {
                match tuple {
                    Ok(tuple) => show(tuple),
                    Err(error) => {
                        ended = Err(error);
                        break;
                    }
                }
            }
        })?;
        ended
    }

    /// The changes of a filter, oldest first, at most `limit`.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn changes(&self, filter: &ChangeFilter, limit: usize) -> Result<Vec<Change>, StorageError> {
        changelog::read(&self.shared.path, &*self.shared.database()?, self.id, filter, limit)
    }

    /// How many tuples are stored, also those that do not fit the model.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn tuple_count(&self) -> Result<u64, StorageError> {
        tuples::count(&self.shared.path, &*self.shared.database()?, self.id)
    }

    /// Keeps a client's assertions about a version of the model, in place of earlier ones.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn write_assertions(&self, model: ModelId, assertions: &[u8]) -> Result<(), StorageError> {
        let _writing = self.shared.lock()?;
        models::write_assertions(&self.shared.path, &*self.shared.database()?, self.id, model, assertions)
    }

    /// A client's assertions about a version of the model; empty when there are none.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn assertions(&self, model: ModelId) -> Result<Vec<u8>, StorageError> {
        models::assertions(&self.shared.path, &*self.shared.database()?, self.id, model)
    }

    fn apply(&self, request: &TupleWrite, model: Option<ModelId>) -> Result<Written, StoreError> {
        let _writing = self.shared.lock()?;
        let Some(model) = model.map_or_else(|| self.latest_model_id(), |id| Ok(Some(id)))? else {
            return Err(StoreError::NoModel);
        };
        let current = self.load(model)?.ok_or(StoreError::NoModel)?;
        let keys = Keys::of(request);
        let sorted = keys.sorted();
        check_request(request, &sorted, current.model())?;
        let transaction = self.begin()?;
        let changed = self.change(&transaction, request, (&keys, &sorted))?;
        self.finish(transaction)?;
        Ok(self.publish(&changed))
    }

    pub(super) fn begin(&self) -> Result<WriteTransaction, StorageError> {
        self.shared.database()?.begin_write().map_err(|e| StorageError::redb(&self.shared.path, e))
    }

    /// Makes what the transaction did durable.
    pub(super) fn finish(&self, transaction: WriteTransaction) -> Result<(), StorageError> {
        transaction.commit().map_err(|e| StorageError::redb(&self.shared.path, e))
    }

    /// Shows durable changes in the states in memory.
    pub(super) fn publish(&self, Changed { added, removed, .. }: &Changed<'_>) -> Written {
        for (model, current) in self.shared.loaded.of_store(self.id) {
            let mut next = Snapshot::clone(&current);
            next.change(removed, added);
            next.compact();
            self.shared.loaded.put(self.id, model, Arc::new(next));
        }
        Written { added: count(added.len()), removed: count(removed.len()) }
    }

    /// The state under a version of the model, by whoever holds the lock for writing.
    fn load(&self, model: ModelId) -> Result<Option<Arc<Snapshot>>, StorageError> {
        if let Some(snapshot) = self.shared.loaded.get(self.id, model) {
            return Ok(Some(snapshot));
        }
        let Some(stored) = self.model(model)? else { return Ok(None) };
        let compiled = models::compile(&self.shared.path, stored)?;
        let failed = |e: redb::Error| StorageError::redb(&self.shared.path, e);
        let transaction = self.shared.database()?.begin_read().map_err(|e| failed(e.into()))?;
        let tuples = transaction.open_table(tables::TUPLES).map_err(|e| failed(e.into()))?;
        let snapshot = self.build(&tuples, model, compiled)?;
        self.shared.loaded.put(self.id, model, Arc::clone(&snapshot));
        Ok(Some(snapshot))
    }

    /// The state that a transaction will make, under a model.
    fn build_within(
        &self,
        transaction: &WriteTransaction,
        id: ModelId,
        model: ValidModel,
    ) -> Result<Arc<Snapshot>, StorageError> {
        let tuples = transaction.open_table(tables::TUPLES);
        let tuples = tuples.map_err(|e| StorageError::redb(&self.shared.path, e))?;
        self.build(&tuples, id, model)
    }

    /// Reads all stored tuples under a model into memory.
    fn build(
        &self,
        tuples: &impl ReadableTable<(u128, &'static str), (u64, tables::ConditionColumns<'static>)>,
        id: ModelId,
        model: ValidModel,
    ) -> Result<Arc<Snapshot>, StorageError> {
        let mut snapshot = Snapshot::new(&id.to_string(), Arc::new(model));
        let mut damage = None;
        tuples::for_all(&self.shared.path, tuples, self.id, |tuples| {
            let sound = tuples.map_while(|tuple| tuple.map_err(|e| damage = Some(e)).ok());
            snapshot.load(sound);
        })?;
        match damage {
            Some(damage) => Err(damage),
            None => Ok(Arc::new(snapshot)),
        }
    }
}

/// What can be refused without looking at the stored tuples.
fn check_request(request: &TupleWrite, sorted: &SortedKeys<'_>, model: &ValidModel) -> Result<(), StoreError> {
    match sorted.first_repeated(request) {
        Some(repeated) => Err(StoreError::Repeated(repeated.clone())),
        None => Ok(model.stores_all(&request.writes)?),
    }
}

fn count(changes: usize) -> u64 {
    u64::try_from(changes).unwrap_or(u64::MAX)
}
