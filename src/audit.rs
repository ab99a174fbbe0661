//! The audit log. It keeps one record for every answer and every refusal, so that an operator can find out later who
//! was given what, through whom and why.
//!
//! INVARIANT (no text): a record holds names, counts and digests, but never a text, a query or a token.
//!
//! INVARIANT (record first): an answer leaves only after its record was kept as `audit.fsync` asks. If `audit.required`
//! is off, an answer whose record cannot be kept leaves without one.
//!
//! The log consists of segments, which are files of JSON lines. Each line carries a MAC that covers the line and the
//! MAC of the line before. So somebody who can write the files but lacks the key cannot change, drop, add or move a
//! line without being noticed. `schema/audit.md` is the contract of the files.

mod chain;
mod config;
mod error;
mod file_sink;
mod head;
mod key;
mod mac;
mod record;
mod recovery;
#[cfg(test)]
mod sample;
mod segment;
mod sink;
mod verification;
mod verify;
mod writer;

pub use chain::{AuditEntry, Event};
pub use config::{AuditConfig, AuditLogConfig, Clock, FsyncPolicy, ObservedDetail};
pub use error::AuditError;
pub use file_sink::FileAuditSink;
pub use key::{AuditKey, DigestPurpose};
pub use mac::Mac;
pub use record::{
    AuditedApproval, AuditedDecision, AuditedModel, AuditedPrincipal, AuditedRequest, AuditedSource, Door, Latencies,
    Observed, ObservedChunk, Record, Released,
};
pub use sink::{AuditSink, Kept};
pub use verification::{Verification, VerifiedKind};
pub use verify::{FINDINGS_MAX, Finding, Problem, Report, Verified, read_log};
