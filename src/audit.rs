//! The audit log: one record for every answer and every refusal, so that it can be said afterwards who was given what,
//! through whom and why.
//!
//! INVARIANT (no text): a record holds names, counts and digests; never a text, a query or a token.
//!
//! INVARIANT (record first): an answer leaves only after its record was kept as `audit.fsync` asks.
//!
//! The log is made of segments, files of JSON lines. Each line carries a MAC of itself, and inside of it the MAC of the
//! line before, so whoever can write the files but has not the key can neither change, drop, add nor move a line unseen.
//! `schema/audit.md` is the contract of the files.

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

/// Whether a record was kept: when this is `Ok`, the answer may leave; otherwise the record is not, or not certainly, kept.
pub type Kept = BoxFuture<'static, Result<(), AuditError>>;

/// Keeps records.
pub trait AuditSink: Send + Sync {
    /// Takes a record in before it returns. From then on the record is kept whether or not anybody waits for the outcome, so
    /// a caller that goes away takes none along.
    #[must_use = "the answer may leave only after the record was kept"]
    fn record(&self, record: Record) -> Kept;

    /// Takes in the record of a verification. No answer waits for it.
    #[must_use = "what is not kept is to be told"]
    fn verified(&self, verification: Verification) -> Kept;

    /// A digest of what must not be kept itself. Keyed, so that guesses cannot be tried without the key; with the same
    /// key, the same bytes for the same purpose have the same digest.
    fn digest(&self, purpose: DigestPurpose, bytes: &[u8]) -> String;

    /// Whether a record could be kept now. It may block for as long as a small write to the disk takes.
    ///
    /// # Errors
    /// Why it could not.
    fn check_writable(&self) -> Result<(), AuditError> {
        Ok(())
    }
}

/// What a digest stands for. One value has different digests for different purposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestPurpose {
    /// A query.
    Query,
    /// The `jti` of a token.
    TokenId,
    /// User, relation and object.
    Question,
}

/// Why a record is not kept, or the log cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// Another process writes it.
    #[error("the audit log in `{0}` is in use by another process; stop that process, or set `audit.directory`")]
    InUse(PathBuf),
    /// The log is not as it was left.
    #[error(
        "the audit log in `{path}` is not as it was left ({detail}); run `ragward audit verify`, and move the directory away to begin a new log"
    )]
    Tampered {
        /// Its directory.
        path: PathBuf,
        /// What was seen.
        detail: String,
    },
    /// The key cannot be used.
    #[error("the audit key `{path}` cannot be used: {detail}")]
    Key {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Reading or writing failed: no space, no permission, gone.
    #[error("cannot use `{path}`: {detail}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// The disk does not keep up.
    #[error("more audit records wait to be written than there is room for")]
    Full,
    /// An earlier failure left it unknown what is kept.
    #[error("the audit log stopped after a failure ({0}); start again once the cause is gone")]
    Stopped(String),
}

impl AuditError {
    /// What the caller can do.
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
