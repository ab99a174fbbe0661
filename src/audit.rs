//! The audit log: one record for every answer and every refusal, which says afterwards who was given what, through whom
//! and why.
//!
//! INVARIANT (no text): a record holds names, counts and digests, but never a text, a query or a token.
//!
//! INVARIANT (record first): an answer leaves only after its record was kept as `audit.fsync` asks.
//!
//! The log consists of segments, which are files of JSON lines. Each line carries a MAC of itself, which covers the MAC
//! of the line before. So somebody who can write the files but lacks the key cannot change, drop, add or move a line
//! unseen. `schema/audit.md` is the contract of the files.

mod chain;
mod file_sink;
mod head;
mod key;
mod record;
mod recovery;
mod segment;
mod verification;
mod verify;
mod writer;

pub use chain::{Entry, Event, Mac};
pub use file_sink::{AuditConfig, Clock, FileAuditSink, FsyncPolicy};
pub use key::AuditKey;
pub use record::{AuditedPrincipal, AuditedRequest, Decision, Latencies, Record, Released};
pub use verification::{Verification, VerifiedKind};
pub use verify::{FINDINGS_MAX, Finding, Problem, Report, Verified, read_log};

use std::path::{Path, PathBuf};

use futures::future::BoxFuture;

use crate::error_code::ErrorCode;

/// Resolves to `Ok` once the record is kept and its answer may leave. After an error, the record may or may not be
/// there.
pub type Kept = BoxFuture<'static, Result<(), AuditError>>;

/// Keeps records.
pub trait AuditSink: Send + Sync {
    /// Takes a record in before this returns. The record is then kept whether or not anybody waits for the outcome, so
    /// a caller that goes away loses none.
    #[must_use = "the answer may leave only after the record was kept"]
    fn record(&self, record: Record) -> Kept;

    /// Takes in the record of a verification. No answer waits for it.
    #[must_use = "what is not kept is to be told"]
    fn verified(&self, verification: Verification) -> Kept;

    /// Returns a digest of something that must not be kept itself. It is keyed, so that guesses cannot be tried without
    /// the key. With one key, equal bytes have equal digests for the same purpose.
    fn digest(&self, purpose: DigestPurpose, bytes: &[u8]) -> String;

    /// Checks whether a record could be kept now. This may block for as long as a small write to the disk takes.
    ///
    /// # Errors
    /// If a record could not be kept.
    fn check_writable(&self) -> Result<(), AuditError> {
        Ok(())
    }
}

/// The kind of value that a digest stands for. One value has different digests for different purposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestPurpose {
    /// The digest of a query.
    Query,
    /// The digest of a token's `jti`.
    TokenId,
    /// The digest of a user, a relation and an object.
    Question,
}

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

    fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), detail: error.to_string() }
    }

    fn tampered(path: &Path, detail: impl Into<String>) -> Self {
        Self::Tampered { path: path.to_owned(), detail: detail.into() }
    }
}

#[cfg(test)]
mod sample;
