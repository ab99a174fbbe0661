//! Opens the redb files of the data directory, one for each embedded engine. Every engine opens its file here, so a
//! file that is locked, too new or damaged is never mistaken for an empty one.
//!
//! `OpenFGA`'s world (`language`, `engine`, `tuple_store`, `store_file`) rests on this module, and other programs can
//! embed it without the rest of the crate. So this module uses nothing of the crate.

mod stored_file;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Builder, Database, DatabaseError, ReadableDatabase, TableDefinition};

pub use self::stored_file::StoredFile;
use self::stored_file::{Disk, WatchedBackend};

/// The version of the files' layout. A file with a greater version was written by a newer Ragward, and is refused.
const FORMAT_VERSION: u64 = 1;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format_version";

/// Says why the data directory cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has the file open.
    #[error(
        "`{0}` is in use by another process; stop it, choose another directory, or use a command that asks a server (`--server`)"
    )]
    InUse(PathBuf),
    /// A newer Ragward wrote the file.
    #[error("`{path}` has format {found}, this version of ragward reads up to {FORMAT_VERSION}; use a newer ragward")]
    Newer {
        /// The path of the file.
        path: PathBuf,
        /// The version of its layout.
        found: u64,
    },
    /// The bytes in the file are not the ones that were written.
    #[error(
        "`{path}` is damaged ({detail}); restore it from a copy; if there is no copy, delete it and fill it again: for \
         `chunks.redb`, ingest the documents; for `relationships.redb`, load the model and write the tuples"
    )]
    Damaged {
        /// The path of the file.
        path: PathBuf,
        /// The damage that was found in the bytes.
        detail: String,
    },
    /// Reading or writing failed, for example because the disk is full or a permission is missing.
    #[error("cannot use `{path}`: {detail}")]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The system's own words.
        detail: String,
    },
}

impl StorageError {
    /// Turns an error of redb on an open file into one of these.
    #[expect(clippy::wildcard_enum_match_arm, reason = "redb's errors are non-exhaustive, and each is an error here")]
    pub fn redb(path: &Path, error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Corrupted(detail) => Self::Damaged { path: path.to_owned(), detail },
            redb::Error::DatabaseAlreadyOpen => Self::InUse(path.to_owned()),
            other => Self::Io { path: path.to_owned(), detail: other.to_string() },
        }
    }

    fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), detail: error.to_string() }
    }

    /// Makes an error about a record that does not have the form in which it was written.
    #[must_use]
    pub fn damaged(path: &Path, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), detail: detail.into() }
    }
}

/// Opens a redb file, or creates it, and checks the checksum of every page and the version of the layout. Up to
/// `cache_bytes` of its pages stay in memory.
///
/// # Errors
/// When the file is in use, damaged or too new, or the disk fails.
fn open_database(path: &Path, cache_bytes: usize, disk: &Arc<Disk>) -> Result<Database, StorageError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|e| StorageError::io(parent, &e))?;
    if !path.exists()
        && let Some(created) = create(path, parent, cache_bytes, disk)?
    {
        return Ok(created);
    }
    open_existing(path, cache_bytes, disk)
}

/// Like [`open_database`], for a file that must exist: an empty file never takes the place of one that is missing.
fn open_existing(path: &Path, cache_bytes: usize, disk: &Arc<Disk>) -> Result<Database, StorageError> {
    let length = std::fs::metadata(path).map_err(|e| StorageError::io(path, &e))?.len();
    // redb takes an empty file for a new database. Here it is a file that lost its content.
    if length == 0 {
        return Err(StorageError::damaged(path, "the file is empty"));
    }
    // While it opens a file, redb asserts facts about the file's structure. Such an assertion panics on damaged bytes.
    let opening = std::panic::AssertUnwindSafe(|| open_and_verify(path, cache_bytes, disk));
    let opened = std::panic::catch_unwind(opening);
    let database = opened.map_err(|panic| {
        let detail = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "unreadable structure".to_owned());
        StorageError::damaged(path, detail)
    })??;
    check_format(path, &database)?;
    Ok(database)
}

/// Creates a file under another name, and gives it its own name once it is complete. A process that is killed in
/// between leaves a `.new-*.redb`, which may be deleted, and nothing that looks like a damaged file. Returns `None` if
/// another process created the file first.
fn create(path: &Path, parent: &Path, cache_bytes: usize, disk: &Arc<Disk>) -> Result<Option<Database>, StorageError> {
    let unnamed = tempfile::Builder::new().prefix(".new-").suffix(".redb").tempfile_in(parent);
    let unnamed = unnamed.map_err(|e| StorageError::io(parent, &e))?;
    let database = open(unnamed.path(), cache_bytes, disk)?;
    check_format(path, &database)?;
    match unnamed.persist_noclobber(path) {
        Ok(_) => {}
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(None),
        Err(e) => return Err(StorageError::io(path, &e.error)),
    }
    // Otherwise a loss of power could undo the rename, and with it everything that was acknowledged.
    let named = std::fs::File::open(parent).and_then(|parent| parent.sync_all());
    named.map_err(|e| StorageError::io(parent, &e))?;
    Ok(Some(database))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "redb's errors are non-exhaustive, and each is an error here")]
fn open(path: &Path, cache_bytes: usize, disk: &Arc<Disk>) -> Result<Database, StorageError> {
    let backend = WatchedBackend::open(path, disk);
    let opened = backend.and_then(|backend| Builder::new().set_cache_size(cache_bytes).create_with_backend(backend));
    opened.map_err(|e| match e {
        DatabaseError::DatabaseAlreadyOpen => StorageError::InUse(path.to_owned()),
        DatabaseError::UpgradeRequired(version) => {
            StorageError::Newer { path: path.to_owned(), found: u64::from(version) }
        }
        DatabaseError::Storage(redb::StorageError::Io(e)) if e.kind() == std::io::ErrorKind::InvalidData => {
            StorageError::damaged(path, e.to_string())
        }
        other => StorageError::redb(path, other),
    })
}

fn open_and_verify(path: &Path, cache_bytes: usize, disk: &Arc<Disk>) -> Result<Database, StorageError> {
    let mut database = open(path, cache_bytes, disk)?;
    if !database.check_integrity().map_err(|e| StorageError::redb(path, e))? {
        tracing::warn!(path = %path.display(), "the last run did not end cleanly; the file was repaired");
    }
    Ok(database)
}

fn check_format(path: &Path, database: &Database) -> Result<(), StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let reading = database.begin_read().map_err(|e| failed(e.into()))?;
    let found = match reading.open_table(META) {
        Ok(meta) => meta.get(FORMAT_KEY).map_err(|e| failed(e.into()))?.map(|version| version.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(e) => return Err(failed(e.into())),
    };
    match found {
        Some(found) if found > FORMAT_VERSION => Err(StorageError::Newer { path: path.to_owned(), found }),
        Some(_) => Ok(()),
        None => {
            let writing = database.begin_write().map_err(|e| failed(e.into()))?;
            {
                let mut meta = writing.open_table(META).map_err(|e| failed(e.into()))?;
                meta.insert(FORMAT_KEY, FORMAT_VERSION).map_err(|e| failed(e.into()))?;
            }
            writing.commit().map_err(|e| failed(e.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE_BYTES: usize = 1024 * 1024;

    #[test]
    fn a_file_is_opened_again() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("data").join("chunks.redb");
        drop(open_database(&path, CACHE_BYTES, &Arc::default()).expect("created"));
        drop(open_database(&path, CACHE_BYTES, &Arc::default()).expect("opened again"));
    }

    #[test]
    fn a_second_opener_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("chunks.redb");
        let _first = open_database(&path, CACHE_BYTES, &Arc::default()).expect("created");
        assert!(matches!(open_database(&path, CACHE_BYTES, &Arc::default()), Err(StorageError::InUse(_))));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("chunks.redb");
        let database = open_database(&path, CACHE_BYTES, &Arc::default()).expect("created");
        let writing = database.begin_write().expect("a transaction");
        writing.open_table(META).expect("a table").insert(FORMAT_KEY, FORMAT_VERSION + 1).expect("written");
        writing.commit().expect("committed");
        drop(database);
        assert!(
            matches!(open_database(&path, CACHE_BYTES, &Arc::default()), Err(StorageError::Newer { found, .. }) if found == FORMAT_VERSION + 1)
        );
    }

    #[test]
    fn foreign_bytes_and_an_emptied_file_are_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("chunks.redb");
        std::fs::write(&path, b"this is not a database").expect("written");
        assert!(open_database(&path, CACHE_BYTES, &Arc::default()).is_err());
        std::fs::write(&path, b"").expect("emptied");
        assert!(matches!(open_database(&path, CACHE_BYTES, &Arc::default()), Err(StorageError::Damaged { .. })));
    }

    #[test]
    fn a_new_file_has_its_name_only_once_it_is_complete() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("chunks.redb");
        // A process that was killed while it created the file leaves this behind.
        std::fs::write(directory.path().join(".new-abc.redb"), b"half").expect("written");
        let first = open_database(&path, CACHE_BYTES, &Arc::default()).expect("created");
        let again = create(&path, directory.path(), CACHE_BYTES, &Arc::default()).expect("no error");
        assert!(again.is_none(), "a file that is there is never replaced");
        assert!(matches!(open_database(&path, CACHE_BYTES, &Arc::default()), Err(StorageError::InUse(_))));
        drop(first);
        open_database(&path, CACHE_BYTES, &Arc::default()).expect("opened again");
        let files = std::fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(files, 2, "the file and what was left before");
    }

    const NUMBERS: TableDefinition<u64, u64> = TableDefinition::new("numbers");

    fn put(file: &StoredFile, number: u64) -> Result<(), StorageError> {
        let failed = |e: redb::Error| StorageError::redb(file.path(), e);
        let writing = file.database()?.begin_write().map_err(|e| failed(e.into()))?;
        writing
            .open_table(NUMBERS)
            .map_err(|e| failed(e.into()))?
            .insert(number, number)
            .map_err(|e| failed(e.into()))?;
        writing.commit().map_err(|e| failed(e.into()))
    }

    fn count(file: &StoredFile) -> Result<u64, StorageError> {
        use redb::ReadableTableMetadata;
        let failed = |e: redb::Error| StorageError::redb(file.path(), e);
        let reading = file.database()?.begin_read().map_err(|e| failed(e.into()))?;
        reading.open_table(NUMBERS).map_err(|e| failed(e.into()))?.len().map_err(|e| failed(e.into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_opened_again_once_the_disk_has_room() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = StoredFile::open(&directory.path().join("chunks.redb"), CACHE_BYTES).expect("created");
        put(&file, 1).expect("written");
        for round in 2..5 {
            file.fill_disk();
            assert!(matches!(put(&file, round), Err(StorageError::Io { .. })), "{round}");
            assert!(file.has_failed(), "{round}");
            file.free_disk();
            assert!(put(&file, round).is_err(), "redb goes on refusing");
            tokio::time::advance(std::time::Duration::from_secs(2)).await;
            file.reopen().expect("opened again");
            assert!(!file.has_failed(), "{round}");
            assert_eq!(count(&file).expect("read"), round - 1, "what was not acknowledged is not there");
            put(&file, round).expect("written again");
        }
        // Asking again and again does not read the whole file each time.
        file.fill_disk();
        assert!(put(&file, 9).is_err());
        assert!(file.reopen().is_err(), "it was tried a moment ago");
        file.free_disk();
        // The file may be out of reach for a while, like a disk that is not mounted.
        let (path, elsewhere) = (file.path().to_owned(), directory.path().join("elsewhere"));
        std::fs::rename(&path, &elsewhere).expect("moved");
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        assert!(file.reopen().is_err() && !path.exists(), "no empty file takes its place");
        std::fs::rename(&elsewhere, &path).expect("moved back");
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        file.reopen().expect("opened again");
        assert_eq!(count(&file).expect("read"), 4);
    }
}
