//! The durable relationships of the embedded engine: stores with their tuples, every version of their models, and the
//! log of all changes, in one redb file, with the states that questions are asked of in memory beside it.
//!
//! Ragward itself asks one store, the oldest that is named `ragward`; the others are there for clients of `OpenFGA`'s
//! API. As with `OpenFGA`, only the directory of stores knows which stores there are: a store that is not in it is empty,
//! not an error.
//!
//! Reading and writing block: call from a blocking thread.

mod apply;
mod changelog;
mod directory;
mod ids;
mod loaded;
mod mirror;
mod models;
mod single;
mod tables;
#[cfg(test)]
mod tests;
mod tuples;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use redb::Database;

use self::loaded::Loaded;
use crate::storage::{StorageError, StoredFile};

pub use changelog::{Change, ChangeFilter, Operation};
pub use directory::StoreRecord;
pub use ids::{ModelId, StoreId};
pub use mirror::MirroredChanges;
pub use models::StoredModel;
pub use single::{OnConflict, RelationshipStore, StoreError, TUPLES_PER_WRITE_MAX, TupleWrite, Written};
pub use tuples::{StoredTuple, TupleFilter};

/// The file in the data directory.
pub const FILE_NAME: &str = "relationships.redb";
/// The name of the store that Ragward's own questions are about.
pub const DEFAULT_STORE_NAME: &str = "ragward";

/// Pages of the file in memory. Questions are not asked of the file, so this serves writes and pages of `Read` only.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The stores of a data directory. A clone shares them.
#[derive(Clone, Debug)]
pub struct RelationshipStores {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    file: StoredFile,
    /// Held for the length of a write: one at a time, so that memory is published in the order of the file.
    writing: Mutex<()>,
    loaded: Loaded,
    /// The oldest store with the default name.
    default: RwLock<Option<StoreId>>,
}

impl RelationshipStores {
    /// Opens the stores of a data directory; there is none in a new one. The default store is made ready for questions.
    ///
    /// # Errors
    /// See [`StorageError`].
    pub fn open(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join(FILE_NAME);
        let file = StoredFile::open(&path, CACHE_BYTES)?;
        let database = file.database()?;
        tables::create(&path, &database)?;
        let default = find_default(&path, &database)?;
        let (writing, loaded) = (Mutex::new(()), Loaded::default());
        let shared = Arc::new(Shared { path, file, writing, loaded, default: RwLock::new(default) });
        let stores = Self { shared };
        if let Some(store) = stores.default_store() {
            store.snapshot()?;
        }
        Ok(stores)
    }

    /// Makes a store. Names need not be unique.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn create(&self, name: &str) -> Result<StoreRecord, StorageError> {
        let _writing = self.shared.lock()?;
        let record = directory::create(&self.shared.path, &*self.shared.database()?, name)?;
        if name == DEFAULT_STORE_NAME {
            let mut default = self.shared.default.write().unwrap_or_else(PoisonError::into_inner);
            default.get_or_insert(record.id);
        }
        Ok(record)
    }

    /// The entry of a store.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn find(&self, id: StoreId) -> Result<Option<StoreRecord>, StorageError> {
        directory::find(&self.shared.path, &*self.shared.database()?, id)
    }

    /// The stores after an id, oldest first, at most `limit`; only those of a name when one is given.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn list(
        &self,
        name: Option<&str>,
        after: Option<StoreId>,
        limit: usize,
    ) -> Result<Vec<StoreRecord>, StorageError> {
        directory::list(&self.shared.path, &*self.shared.database()?, name, after, limit)
    }

    /// Removes a store with everything in it, if it is there.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn delete(&self, id: StoreId) -> Result<(), StorageError> {
        let shared = &self.shared;
        let _writing = shared.lock()?;
        directory::delete(&shared.path, &*shared.database()?, id)?;
        let next_default = find_default(&shared.path, &*shared.database()?)?;
        *shared.default.write().unwrap_or_else(PoisonError::into_inner) = next_default;
        shared.loaded.forget(id);
        Ok(())
    }

    /// The store of an id, which may be one that is not there: then it is empty.
    #[must_use]
    pub fn store(&self, id: StoreId) -> RelationshipStore {
        RelationshipStore::new(Arc::clone(&self.shared), id)
    }

    /// The store that Ragward's own questions are about, if there is one.
    #[must_use]
    pub fn default_store(&self) -> Option<RelationshipStore> {
        let default = *self.shared.default.read().unwrap_or_else(PoisonError::into_inner);
        default.map(|id| self.store(id))
    }

    /// The store that Ragward's own questions are about; it is made when there is none.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn default_store_or_new(&self) -> Result<RelationshipStore, StorageError> {
        match self.default_store() {
            Some(store) => Ok(store),
            None => Ok(self.store(self.create(DEFAULT_STORE_NAME)?.id)),
        }
    }
}

impl Shared {
    /// The right to write. The file is open, again if need be.
    fn lock(&self) -> Result<MutexGuard<'_, ()>, StorageError> {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.mend(&writing)?;
        Ok(writing)
    }

    /// The file, opened again if the disk failed, unless somebody is writing.
    fn database(&self) -> Result<Arc<Database>, StorageError> {
        if self.file.has_failed()
            && let Ok(writing) = self.writing.try_lock()
        {
            self.mend(&writing)?;
        }
        self.file.database()
    }

    /// Opens the file again after a failure. Whether the write that failed is in it is unknown, so what is in memory is read
    /// again.
    fn mend(&self, _writing: &MutexGuard<'_, ()>) -> Result<(), StorageError> {
        if !self.file.has_failed() {
            return Ok(());
        }
        self.file.reopen()?;
        self.loaded.forget_all();
        let default = find_default(&self.path, &*self.file.database()?)?;
        *self.default.write().unwrap_or_else(PoisonError::into_inner) = default;
        Ok(())
    }
}

fn find_default(path: &Path, database: &Database) -> Result<Option<StoreId>, StorageError> {
    let oldest = directory::list(path, database, Some(DEFAULT_STORE_NAME), None, 1)?;
    Ok(oldest.first().map(|record| record.id))
}
