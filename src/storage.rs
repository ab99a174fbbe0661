//! The data directory: one redb file per embedded engine, opened in one place so that a locked, newer or damaged file
//! is told apart from an empty one.

use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition};

use crate::error_code::ErrorCode;

/// The layout of the files. A file with a higher number was written by a newer Ragward and is refused.
pub const FORMAT_VERSION: u64 = 1;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format_version";

/// Why the data directory cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has it open.
    #[error(
        "`{0}` is in use by another process; name a running server with `--server`, stop that process, or choose another directory"
    )]
    InUse(PathBuf),
    /// A newer Ragward wrote it.
    #[error("`{path}` has format {found}, this version of ragward reads up to {FORMAT_VERSION}; use a newer ragward")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The bytes are not what was written.
    #[error(
        "`{path}` is damaged ({detail}); restore it from a copy; without one, delete it, then ingest the documents (`chunks.redb`) or load the model and write the tuples (`relationships.redb`) again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was seen.
        detail: String,
    },
    /// Reading or writing failed: no space, no permission.
    #[error("cannot use `{path}`: {detail}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
}

impl StorageError {
    /// What the caller can do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::InUse(_) | Self::Newer { .. } => ErrorCode::FailedPrecondition,
            Self::Damaged { .. } => ErrorCode::DataLoss,
            Self::Io { .. } => ErrorCode::Unavailable,
        }
    }

    /// An error of redb on an open file.
    #[expect(clippy::wildcard_enum_match_arm, reason = "redb's errors are non-exhaustive, and each is an error here")]
    pub fn redb(path: &Path, error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Corrupted(detail) => Self::Damaged { path: path.to_owned(), detail },
            redb::Error::DatabaseAlreadyOpen => Self::InUse(path.to_owned()),
            other => Self::Io { path: path.to_owned(), detail: other.to_string() },
        }
    }

    /// A record that does not have the form in which it was written.
    #[must_use]
    pub fn damaged(path: &Path, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), detail: detail.into() }
    }
}

/// Opens or creates a redb file, checks every page's checksum and the format version.
///
/// # Errors
/// See [`StorageError`].
pub fn open_database(path: &Path) -> Result<Database, StorageError> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|e| StorageError::Io { path: parent.to_owned(), detail: e.to_string() })?;
    }
    // An empty file would be taken for a new database; a file cut to nothing is damage.
    if std::fs::metadata(path).is_ok_and(|m| m.len() == 0) {
        return Err(StorageError::damaged(path, "the file is empty"));
    }
    // redb asserts some facts of the file's structure while opening it; on damaged bytes such an assertion panics.
    let opened = std::panic::catch_unwind(|| open_and_verify(path));
    let database = opened.map_err(|panic| {
        let detail = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "unreadable structure".to_owned());
        StorageError::damaged(path, detail)
    })??;
    check_format(path, &database)?;
    Ok(database)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "redb's errors are non-exhaustive, and each is an error here")]
fn open_and_verify(path: &Path) -> Result<Database, StorageError> {
    let existed = path.exists();
    let mut database = Database::create(path).map_err(|e| match e {
        DatabaseError::DatabaseAlreadyOpen => StorageError::InUse(path.to_owned()),
        DatabaseError::UpgradeRequired(version) => {
            StorageError::Newer { path: path.to_owned(), found: u64::from(version) }
        }
        DatabaseError::Storage(redb::StorageError::Io(e)) if e.kind() == std::io::ErrorKind::InvalidData => {
            StorageError::damaged(path, e.to_string())
        }
        other => StorageError::redb(path, other),
    })?;
    if existed && !database.check_integrity().map_err(|e| StorageError::redb(path, e))? {
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

    #[test]
    fn a_file_is_opened_again() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("data").join("chunks.redb");
        drop(open_database(&path).expect("created"));
        drop(open_database(&path).expect("opened again"));
    }

    #[test]
    fn a_second_opener_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("chunks.redb");
        let _first = open_database(&path).expect("created");
        assert!(matches!(open_database(&path), Err(StorageError::InUse(_))));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("chunks.redb");
        let database = open_database(&path).expect("created");
        let writing = database.begin_write().expect("a transaction");
        writing.open_table(META).expect("a table").insert(FORMAT_KEY, FORMAT_VERSION + 1).expect("written");
        writing.commit().expect("committed");
        drop(database);
        assert!(matches!(open_database(&path), Err(StorageError::Newer { found, .. }) if found == FORMAT_VERSION + 1));
    }

    #[test]
    fn foreign_bytes_and_an_emptied_file_are_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("chunks.redb");
        std::fs::write(&path, b"this is not a database").expect("written");
        assert!(open_database(&path).is_err());
        std::fs::write(&path, b"").expect("emptied");
        assert!(matches!(open_database(&path), Err(StorageError::Damaged { .. })));
    }
}
