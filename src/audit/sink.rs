//! The port that keeps records.

use futures::future::BoxFuture;

use super::error::AuditError;
use super::key::DigestPurpose;
use super::record::Record;
use super::verification::Verification;

/// Resolves to `Ok` once the record is kept and its answer may leave. After an error, the record may or may not be
/// there.
pub type Kept = BoxFuture<'static, Result<(), AuditError>>;

/// Keeps the records of calls and of verifications.
pub trait AuditSink: Send + Sync {
    /// Takes a record in before this returns. The record is then kept whether or not anybody waits for the outcome, so
    /// a caller that goes away loses none.
    #[must_use = "the answer may leave only after the record was kept"]
    fn record(&self, record: Record) -> Kept;

    /// Takes in the record of a verification. No answer waits for it.
    #[must_use = "the caller must report a verification that was not kept"]
    fn verified(&self, verification: Verification) -> Kept;

    /// Returns a digest of something that must not be kept itself. The digest is keyed, so that nobody can try guesses
    /// without the key. With one key, equal bytes have equal digests for the same purpose.
    fn digest(&self, purpose: DigestPurpose, bytes: &[u8]) -> String;

    /// Checks whether a record could be kept now. This may block for as long as a small write to the disk takes.
    ///
    /// # Errors
    /// If a record could not be kept.
    fn check_writable(&self) -> Result<(), AuditError> {
        Ok(())
    }

    /// Returns whether the latest record could not be kept. This waits for nothing.
    #[must_use]
    fn is_failing(&self) -> bool {
        false
    }
}
