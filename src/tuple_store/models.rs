//! The versions of a store's model, with the assertions that belong to each. A stored version never changes.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use super::ids::{ModelId, StoreId};
use super::tables::{ASSERTIONS, MODELS, by_id};
use crate::language::json;
use crate::language::model::AuthorizationModel;
use crate::language::validate::ValidModel;
use crate::storage::StorageError;

/// One stored version of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredModel {
    /// The id of this version.
    pub id: ModelId,
    /// The model as it was parsed from the file.
    pub model: AuthorizationModel,
    /// The bytes that a client sent, unchanged; empty if the model did not come from a client.
    pub original: Vec<u8>,
}

/// Inserts a version and returns its id, which sorts after the ids of all earlier ones. The caller commits.
pub(super) fn write(
    path: &Path,
    transaction: &WriteTransaction,
    store: StoreId,
    model: &AuthorizationModel,
    original: &[u8],
) -> Result<ModelId, StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let text = json::print(model).map_err(|e| StorageError::damaged(path, e.to_string()))?;
    let mut models = transaction.open_table(MODELS).map_err(|e| failed(e.into()))?;
    let latest = {
        let mut versions = models.range(by_id(store)).map_err(|e| failed(e.into()))?;
        versions.next_back().transpose().map_err(|e| failed(e.into()))?.map(|(key, _)| key.value().1)
    };
    let id = ModelId::after(latest.map(ModelId::from_key));
    models.insert((store.key(), id.key()), (text.as_str(), original)).map_err(|e| failed(e.into()))?;
    Ok(id)
}

/// Lists at most `limit` versions up to and including `from` (the latest when `None`), newest first.
pub(super) fn list(
    path: &Path,
    database: &Database,
    store: StoreId,
    from: Option<ModelId>,
    limit: usize,
) -> Result<Vec<StoredModel>, StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let models = transaction.open_table(MODELS).map_err(|e| failed(e.into()))?;
    let last = (store.key(), from.map_or(u128::MAX, ModelId::key));
    let mut found = Vec::new();
    for entry in models.range((store.key(), 0)..=last).map_err(|e| failed(e.into()))?.rev().take(limit) {
        let (key, value) = entry.map_err(|e| failed(e.into()))?;
        let id = ModelId::from_key(key.value().1);
        let (text, original) = value.value();
        let model = json::read(text).map_err(|e| StorageError::damaged(path, format!("model `{id}`: {e}")))?;
        found.push(StoredModel { id, model, original: original.to_owned() });
    }
    Ok(found)
}

pub(super) fn find(
    path: &Path,
    database: &Database,
    store: StoreId,
    id: ModelId,
) -> Result<Option<StoredModel>, StorageError> {
    let at_or_before = list(path, database, store, Some(id), 1)?;
    Ok(at_or_before.into_iter().next().filter(|found| found.id == id))
}

/// Returns the id of the latest version.
pub(super) fn latest(path: &Path, database: &Database, store: StoreId) -> Result<Option<ModelId>, StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let models = transaction.open_table(MODELS).map_err(|e| failed(e.into()))?;
    let mut versions = models.range(by_id(store)).map_err(|e| failed(e.into()))?;
    let last = versions.next_back().transpose().map_err(|e| failed(e.into()))?;
    Ok(last.map(|(key, _)| ModelId::from_key(key.value().1)))
}

/// Compiles a stored version, so that the evaluator can run it.
pub(super) fn compile(path: &Path, stored: StoredModel) -> Result<ValidModel, StorageError> {
    let id = stored.id;
    ValidModel::stored(stored.model).map_err(|errors| {
        let first = errors.first().map(ToString::to_string).unwrap_or_default();
        StorageError::damaged(path, format!("model `{id}`: {first}"))
    })
}

pub(super) fn write_assertions(
    path: &Path,
    database: &Database,
    store: StoreId,
    model: ModelId,
    assertions: &[u8],
) -> Result<(), StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_write().map_err(|e| failed(e.into()))?;
    {
        let mut table = transaction.open_table(ASSERTIONS).map_err(|e| failed(e.into()))?;
        table.insert((store.key(), model.key()), assertions).map_err(|e| failed(e.into()))?;
    }
    transaction.commit().map_err(|e| failed(e.into()))
}

pub(super) fn assertions(
    path: &Path,
    database: &Database,
    store: StoreId,
    model: ModelId,
) -> Result<Vec<u8>, StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let table = transaction.open_table(ASSERTIONS).map_err(|e| failed(e.into()))?;
    let found = table.get((store.key(), model.key())).map_err(|e| failed(e.into()))?;
    Ok(found.map(|assertions| assertions.value().to_owned()).unwrap_or_default())
}
