//! A redb file that is opened again after the disk failed.
//!
//! After the first failed access redb refuses everything, even reads, until the file is closed and opened: it cannot
//! know how much of the last write arrived. Without this module a full disk would make a server useless until its
//! restart, however soon there is room again.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{BackendError, Database, StorageBackend};
use tokio::time::Instant;

use super::{StorageError, open_database, open_existing};

/// The shortest time between two attempts to open the file again. Each attempt reads the whole file.
const TRY_INTERVAL: Duration = Duration::from_secs(1);

/// A redb file that can be opened again while others hold on to this value.
#[derive(Debug)]
pub struct StoredFile {
    path: PathBuf,
    cache_bytes: usize,
    disk: Arc<Disk>,
    opened: RwLock<Opened>,
}

#[derive(Debug)]
struct Opened {
    /// `None` after an attempt to open the file again has failed.
    database: Option<Arc<Database>>,
    tried: Option<Instant>,
}

impl StoredFile {
    /// Opens a file or creates it, and checks the version of its layout and the checksum of every page. Up to
    /// `cache_bytes` of its pages stay in memory.
    ///
    /// # Errors
    /// When the file is in use, damaged or too new, or the disk fails.
    pub fn open(path: &Path, cache_bytes: usize) -> Result<Self, StorageError> {
        let disk = Arc::new(Disk::default());
        let database = open_database(path, cache_bytes, &disk)?;
        let opened = RwLock::new(Opened { database: Some(Arc::new(database)), tried: None });
        Ok(Self { path: path.to_owned(), cache_bytes, disk, opened })
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether an access has failed since the file was opened.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.disk.has_failed.load(Ordering::Relaxed)
    }

    /// Returns the database. Hold it for one transaction only: [`Self::reopen`] has to wait until nobody holds it.
    ///
    /// # Errors
    /// When the last attempt to open the file again failed.
    pub fn database(&self) -> Result<Arc<Database>, StorageError> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        opened.database.clone().ok_or_else(|| self.waits_for_the_disk())
    }

    /// Closes the file and opens it again, at most once a second.
    ///
    /// # Errors
    /// When somebody still holds the database, when the last attempt is less than a second ago, or when the file cannot
    /// be opened. The next call tries again.
    pub fn reopen(&self) -> Result<(), StorageError> {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if opened.tried.is_some_and(|tried| tried.elapsed() < TRY_INTERVAL) {
            return Err(self.waits_for_the_disk());
        }
        opened.tried = Some(Instant::now());
        if let Some(database) = opened.database.take() {
            match Arc::try_unwrap(database) {
                // The file has failed already, so an error from closing it tells nothing new.
                Ok(database) => drop(database.close()),
                // Somebody is in the middle of a transaction. It will fail soon.
                Err(in_use) => {
                    opened.database = Some(in_use);
                    return Err(self.waits_for_the_disk());
                }
            }
        }
        self.disk.has_failed.store(false, Ordering::Relaxed);
        match open_existing(&self.path, self.cache_bytes, &self.disk) {
            Ok(database) => {
                opened.database = Some(Arc::new(database));
                tracing::info!(path = %self.path.display(), "the file is open again after the disk had failed");
                Ok(())
            }
            Err(error) => {
                self.disk.has_failed.store(true, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Treats the file as failed from now on. A caller calls this when the content of the file is not what the caller
    /// left.
    pub fn distrust(&self) {
        self.disk.has_failed.store(true, Ordering::Relaxed);
    }

    fn waits_for_the_disk(&self) -> StorageError {
        let detail = "the disk failed, and the file is not open again yet".to_owned();
        StorageError::Io { path: self.path.clone(), detail }
    }

    /// Makes the disk full for a test.
    #[cfg(test)]
    pub(crate) fn fill_disk(&self) {
        self.disk.is_full.store(true, Ordering::Relaxed);
    }

    /// Gives a disk room again that a test has made full.
    #[cfg(test)]
    pub(crate) fn free_disk(&self) {
        self.disk.is_full.store(false, Ordering::Relaxed);
    }
}

/// The state of the disk, judged by the accesses so far.
#[derive(Debug, Default)]
pub(super) struct Disk {
    has_failed: AtomicBool,
    #[cfg(test)]
    is_full: AtomicBool,
}

/// Passes every access on to the file, and notes when one fails.
#[derive(Debug)]
pub(super) struct WatchedBackend {
    file: FileBackend,
    disk: Arc<Disk>,
}

impl WatchedBackend {
    pub(super) fn open(path: &Path, disk: &Arc<Disk>) -> Result<Self, redb::DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file: FileBackend::new(file)?, disk: Arc::clone(disk) })
    }

    fn noting<T>(&self, done: io::Result<T>) -> io::Result<T> {
        if done.is_err() {
            self.disk.has_failed.store(true, Ordering::Relaxed);
        }
        done
    }

    #[cfg(test)]
    fn room(&self) -> io::Result<()> {
        if self.disk.is_full.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "only a test has a disk that it can fill")]
    const fn room(&self) -> io::Result<()> {
        Ok(())
    }
}

impl StorageBackend for WatchedBackend {
    fn len(&self) -> io::Result<u64> {
        self.noting(self.file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.noting(self.file.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.noting(self.room().and_then(|()| self.file.set_len(len)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.noting(self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.noting(self.room().and_then(|()| self.file.write(offset, data)))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
