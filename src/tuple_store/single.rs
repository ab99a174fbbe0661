//! One store: its models, its tuples, and the snapshots that answer questions about them.

use std::sync::Arc;

use redb::{ReadableDatabase, ReadableTable, WriteTransaction};

use super::apply::{self, Changed, Keys};
use super::changelog::{Change, ChangeFilter};
use super::ids::{ModelId, StoreId};
use super::models::StoredModel;
use super::tuples::{StoredTuple, TupleFilter};
use super::write::{OnConflict, StoreError, TUPLES_PER_WRITE_MAX, TupleWrite, Written};
use super::{Shared, changelog, models, tables, tuples};
use crate::engine::snapshot::Snapshot;
use crate::language::tuple::RelationshipTuple;
use crate::language::validate::ValidModel;
use crate::storage::StorageError;

/// A handle on one store. Clones refer to the same store.
#[derive(Clone, Debug)]
pub struct RelationshipStore {
    pub(super) shared: Arc<Shared>,
    pub(super) id: StoreId,
}

impl RelationshipStore {
    pub(super) fn new(shared: Arc<Shared>, id: StoreId) -> Self {
        Self { shared, id }
    }

    /// Returns the id of this store.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// Returns the current state under the latest model, or `None` if the store has no model.
    ///
    /// # Errors
    /// When the state is not in memory and cannot be read.
    pub fn snapshot(&self) -> Result<Option<Arc<Snapshot>>, StorageError> {
        match self.latest_model_id()? {
            Some(model) => self.snapshot_under(model),
            None => Ok(None),
        }
    }

    /// Returns the current state under one version of the model, or `None` if there is no such version.
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

    /// Like [`Self::snapshot_under`] (the latest model when `None`), but only returns a state that is in memory
    /// already. Callers that must not block use it.
    #[must_use]
    pub fn snapshot_in_memory(&self, model: Option<ModelId>) -> Option<(ModelId, Arc<Snapshot>)> {
        let loaded = &self.shared.loaded;
        let model = model.or_else(|| loaded.latest(self.id))?;
        Some((model, loaded.get(self.id, model)?))
    }

    /// Returns the id of the latest version of the model.
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

    /// Returns one version of the model.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn model(&self, id: ModelId) -> Result<Option<StoredModel>, StorageError> {
        models::find(&self.shared.path, &*self.shared.database()?, self.id, id)
    }

    /// Lists at most `limit` versions of the model up to and including `from` (the latest when `None`), newest first.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn models(&self, from: Option<ModelId>, limit: usize) -> Result<Vec<StoredModel>, StorageError> {
        models::list(&self.shared.path, &*self.shared.database()?, self.id, from, limit)
    }

    /// Stores a new version of the model, makes it the latest, and returns its id. Tuples that do not fit it stay in
    /// the store, and count again once a later model admits them.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn write_model(&self, model: ValidModel) -> Result<ModelId, StorageError> {
        self.write_model_of_client(model, &[])
    }

    /// Like [`Self::write_model`], and also keeps the bytes that the client sent, so that it gets them back unchanged.
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

    /// Stores a new version of the model together with tuples, in one transaction, and makes it the latest. A model
    /// without some of its tuples could grant what it is meant to deny, so nobody sees the model before the tuples.
    /// Tuples that exist already stay as they are.
    ///
    /// # Errors
    /// See [`StoreError`]; a write that fails changes nothing.
    pub fn write_model_with_tuples(
        &self,
        model: ValidModel,
        tuples: Vec<RelationshipTuple>,
    ) -> Result<(ModelId, Written), StoreError> {
        let request = TupleWrite { writes: tuples, on_duplicate: OnConflict::Ignore, ..TupleWrite::default() };
        let shared = &self.shared;
        let _writing = shared.lock()?;
        let keys = Keys::of(&request);
        check_request(&request, &keys, &model)?;
        let transaction = self.begin()?;
        let id = models::write(&shared.path, &transaction, self.id, model.source(), &[])?;
        let changed = apply::change(&shared.path, self.id, &transaction, &request, &keys)?;
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

    /// Applies a request, whose writes must fit the latest model.
    ///
    /// # Errors
    /// See [`StoreError`]; a write that fails changes nothing.
    pub fn write(&self, request: &TupleWrite) -> Result<Written, StoreError> {
        self.write_under(None, request)
    }

    /// Like [`Self::write`], under one version of the model (the latest when `None`).
    ///
    /// # Errors
    /// See [`StoreError`]; a write that fails changes nothing.
    pub fn write_under(&self, model: Option<ModelId>, request: &TupleWrite) -> Result<Written, StoreError> {
        match request.writes.len() + request.deletes.len() {
            0 => Err(StoreError::Empty),
            count if count > TUPLES_PER_WRITE_MAX => Err(StoreError::TooMany(count)),
            _ => self.apply(request, model),
        }
    }

    /// Inserts any number of tuples, all of them or none.
    ///
    /// # Errors
    /// See [`StoreError`]; a write that fails changes nothing.
    pub fn write_all(&self, writes: Vec<RelationshipTuple>, on_duplicate: OnConflict) -> Result<Written, StoreError> {
        self.apply(&TupleWrite { writes, on_duplicate, ..TupleWrite::default() }, None)
    }

    /// Returns at most `limit` tuples that match the filter, in the order of writing, after the sequence number `after`
    /// (0 for the beginning).
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn tuples(&self, filter: &TupleFilter, after: u64, limit: usize) -> Result<Vec<StoredTuple>, StorageError> {
        tuples::read(&self.shared.path, &*self.shared.database()?, self.id, filter, after, limit)
    }

    /// Calls `show` with every stored tuple in ascending order of keys, including tuples that do not fit the model.
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

    /// Returns at most `limit` changes that match the filter, oldest first.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn changes(&self, filter: &ChangeFilter, limit: usize) -> Result<Vec<Change>, StorageError> {
        changelog::read(&self.shared.path, &*self.shared.database()?, self.id, filter, limit)
    }

    /// Counts the stored tuples, including those that do not fit the model.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn tuple_count(&self) -> Result<u64, StorageError> {
        tuples::count(&self.shared.path, &*self.shared.database()?, self.id)
    }

    /// Stores a client's assertions about one version of the model, and replaces earlier ones.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn write_assertions(&self, model: ModelId, assertions: &[u8]) -> Result<(), StorageError> {
        let _writing = self.shared.lock()?;
        models::write_assertions(&self.shared.path, &*self.shared.database()?, self.id, model, assertions)
    }

    /// Returns a client's assertions about one version of the model; empty if it wrote none.
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
        check_request(request, &keys, current.model())?;
        let transaction = self.begin()?;
        let changed = apply::change(&self.shared.path, self.id, &transaction, request, &keys)?;
        self.finish(transaction)?;
        Ok(self.publish(&changed))
    }

    pub(super) fn begin(&self) -> Result<WriteTransaction, StorageError> {
        self.shared.database()?.begin_write().map_err(|e| StorageError::redb(&self.shared.path, e))
    }

    /// Commits the transaction. From here on its changes are durable.
    pub(super) fn finish(&self, transaction: WriteTransaction) -> Result<(), StorageError> {
        transaction.commit().map_err(|e| StorageError::redb(&self.shared.path, e))
    }

    /// Applies changes that are durable to the store's snapshots in memory.
    pub(super) fn publish(&self, Changed { added, removed, .. }: &Changed<'_>) -> Written {
        for (model, current) in self.shared.loaded.of_store(self.id) {
            let mut next = Snapshot::clone(&current);
            next.change(removed, added);
            next.compact();
            self.shared.loaded.put(self.id, model, Arc::new(next));
        }
        Written { added: count(added.len()), removed: count(removed.len()) }
    }

    /// Like [`Self::snapshot_under`], for a caller that holds the lock for writing.
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

    /// Builds the state that a transaction will leave behind, before it is committed. If this fails, the transaction is
    /// dropped, so memory and file never disagree.
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

    /// Reads all stored tuples into a new snapshot under a model.
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

/// Refuses a request that names a tuple twice or does not fit the model. This needs no stored tuples.
fn check_request(request: &TupleWrite, keys: &Keys, model: &ValidModel) -> Result<(), StoreError> {
    match keys.first_repeated(request) {
        Some(repeated) => Err(StoreError::Repeated(repeated.clone())),
        None => Ok(model.stores_all(&request.writes)?),
    }
}

fn count(changes: usize) -> u64 {
    u64::try_from(changes).unwrap_or(u64::MAX)
}
