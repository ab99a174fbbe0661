//! Keeps models and tuples on disk, and the state that answers questions in memory.
//!
//! One redb file holds every store: its tuples, all versions of its model, and the log of its changes. Questions are
//! answered from snapshots in memory, never from the file. This module builds a snapshot from the file, and updates it
//! after each commit.
//!
//! As in `OpenFGA`, only the directory of stores says which stores exist. A store that is not in the directory is
//! empty; asking it is not an error.
//!
//! Every call that reads or writes the file blocks, so call it from a thread that may block.

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
mod write;

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
pub use single::RelationshipStore;
pub use tuples::{StoredTuple, TupleFilter};
pub use write::{OnConflict, StoreError, TUPLES_PER_WRITE_MAX, TupleWrite, Written};

/// The name of the file inside the data directory.
pub const FILE_NAME: &str = "relationships.redb";
/// The name of the store that Ragward's own questions are about. If several stores have the name, the oldest one
/// counts, as it does when Ragward looks for its store on an `OpenFGA` server.
pub const DEFAULT_STORE_NAME: &str = "ragward";

/// How many bytes of the file's pages stay in memory. Questions are asked of snapshots, so this cache only serves
/// writes and pages of `Read`; more would be of no use.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// All stores of one data directory. Clones share them.
#[derive(Clone, Debug)]
pub struct RelationshipStores {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    file: StoredFile,
    /// Held for the whole of a write. Writes take turns, so snapshots are published in the order of the commits.
    writing: Mutex<()>,
    loaded: Loaded,
    /// The oldest store that is named [`DEFAULT_STORE_NAME`].
    default: RwLock<Option<StoreId>>,
}

impl RelationshipStores {
    /// Opens the stores of a data directory, and makes the file if there is none. The default store's snapshot is built
    /// at once, so that the first question need not wait for it.
    ///
    /// # Errors
    /// When the file cannot be opened or read; see [`StorageError`].
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

    /// Creates a store. Several stores may have the same name.
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

    /// Looks a store up in the directory.
    ///
    /// # Errors
    /// When the data directory fails.
    pub fn find(&self, id: StoreId) -> Result<Option<StoreRecord>, StorageError> {
        directory::find(&self.shared.path, &*self.shared.database()?, id)
    }

    /// Lists at most `limit` stores whose id is greater than `after`, oldest first. With a `name`, only stores of that
    /// name are listed.
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

    /// Deletes a store and everything in it; does nothing if it does not exist. `OpenFGA` keeps the tuples of a deleted
    /// store. Here they are deleted, so that nothing in them can grant anything later.
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

    /// Returns the store with this id. It need not exist: then it is empty.
    #[must_use]
    pub fn store(&self, id: StoreId) -> RelationshipStore {
        RelationshipStore::new(Arc::clone(&self.shared), id)
    }

    /// Returns the store that Ragward's own questions are about, if it exists.
    #[must_use]
    pub fn default_store(&self) -> Option<RelationshipStore> {
        let default = *self.shared.default.read().unwrap_or_else(PoisonError::into_inner);
        default.map(|id| self.store(id))
    }

    /// Returns the store that Ragward's own questions are about, and creates it if it does not exist.
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
    /// Waits for the right to write, and opens the file again if the disk had failed.
    fn lock(&self) -> Result<MutexGuard<'_, ()>, StorageError> {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.mend(&writing)?;
        Ok(writing)
    }

    /// Returns the open file. If the disk had failed, opens the file again, unless a write is going on.
    fn database(&self) -> Result<Arc<Database>, StorageError> {
        if self.file.has_failed()
            && let Ok(writing) = self.writing.try_lock()
        {
            self.mend(&writing)?;
        }
        self.file.database()
    }

    /// Opens the file again after the disk failed. Nobody knows whether the last write reached the file, so everything
    /// in memory is forgotten and read again.
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
