//! The reasons why the audit log fails.

use std::path::{Path, PathBuf};

use crate::error_code::ErrorCode;

/// The reason why a record is not kept, or why the log cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// Another process writes the log.
    #[error("the audit log in `{0}` is in use by another process; stop that process, or set `audit.directory`")]
    InUse(PathBuf),
    /// The log was changed since it was last written.
    #[error(
        "the audit log in `{path}` is not as it was left ({detail}); run `ragward audit verify`, and move the directory away to begin a new log"
    )]
    Tampered {
        /// The directory of the log.
        path: PathBuf,
        /// The difference that was found.
        detail: String,
    },
    /// The key cannot be used.
    #[error("the audit key `{path}` cannot be used: {detail}")]
    Key {
        /// The file of the key.
        path: PathBuf,
        /// The problem with the key.
        detail: String,
    },
    /// Reading or writing failed: no space, no permission, or the file is gone.
    #[error("cannot use `{path}`: {detail}")]
    Io {
        /// The file that was read or written.
        path: PathBuf,
        /// The message of the operating system.
        detail: String,
    },
    /// The disk does not keep up with the records.
    #[error("more audit records wait to be written than there is room for")]
    Full,
    /// After an earlier failure, it is unknown which records are kept.
    #[error("the audit log stopped after a failure ({0}); start again once the cause is gone")]
    Stopped(String),
}

impl AuditError {
    /// Returns the code that tells a caller what to do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::InUse(_) => ErrorCode::FailedPrecondition,
            Self::Tampered { .. } => ErrorCode::DataLoss,
            Self::Key { .. } => ErrorCode::InvalidArgument,
            Self::Io { .. } | Self::Full | Self::Stopped(_) => ErrorCode::Unavailable,
        }
    }

    pub(super) fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), detail: error.to_string() }
    }

    pub(super) fn tampered(path: &Path, detail: impl Into<String>) -> Self {
        Self::Tampered { path: path.to_owned(), detail: detail.into() }
    }
}
