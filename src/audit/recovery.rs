//! The start of a writer: it locks the log, reads its end, and removes an incomplete last line.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::error::AuditError;
use super::head::{Head, HeadState};
use super::key::AuditKey;
use super::segment::{HEAD, LOCK, Segment};
use super::verify::{Verified, read_last};

/// The state that a writer continues from.
#[derive(Debug)]
pub(super) struct Recovered {
    /// The lock, held for as long as the writer lives.
    pub(super) lock: File,
    pub(super) key: AuditKey,
    /// The last entry, or `None` in a new log.
    pub(super) last: Option<Verified>,
    /// The length in bytes of the incomplete line that was removed.
    pub(super) incomplete_bytes: u64,
    /// The segments that exist.
    pub(super) segments: Vec<Segment>,
}

/// Opens a log, or begins one. It reads the last segment only; `ragward audit verify` reads the older ones.
pub(super) fn recover(directory: &Path, key_file: &Path) -> Result<Recovered, AuditError> {
    let lock = lock(directory)?;
    let mut segments = Segment::list(directory)?;
    let key = open_key(directory, key_file, &segments)?;
    remove_unbegun(directory, &key, &mut segments)?;
    let Some(newest) = segments.last() else {
        return match Head::read(directory, &key)? {
            HeadState::Missing if !key.has_begun() => {
                Ok(Recovered { lock, key, last: None, incomplete_bytes: 0, segments })
            }
            HeadState::Missing => {
                let text = "it has begun, and its segments and its head are gone; a new log needs a new key";
                Err(AuditError::tampered(directory, text))
            }
            HeadState::Damaged | HeadState::Head(_) => Err(AuditError::tampered(directory, "its segments are gone")),
        };
    };
    let report = read_last(directory, &key, newest)?;
    if let Some(finding) = report.findings.first() {
        return Err(AuditError::tampered(directory, finding.to_string()));
    }
    let Some(last) = report.last else {
        return Err(AuditError::tampered(directory, "its last segment is empty"));
    };
    let incomplete_bytes = report.incomplete_bytes.unwrap_or_default();
    if incomplete_bytes > 0 {
        let cut = || {
            let file = OpenOptions::new().write(true).open(&newest.path)?;
            file.set_len(last.segment_bytes)?;
            file.sync_all()
        };
        cut().map_err(|e| AuditError::io(&newest.path, &e))?;
        tracing::warn!(incomplete_bytes, "the audit log ended in the middle of a line; no answer had left for it");
    }
    Ok(Recovered { lock, key, last: Some(last), incomplete_bytes, segments })
}

/// Locks the log, so that only one process writes it.
fn lock(directory: &Path) -> Result<File, AuditError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|e| AuditError::io(directory, &e))?;
    let path = directory.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|e| AuditError::io(&path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AuditError::InUse(directory.to_owned())),
        Err(TryLockError::Error(e)) => Err(AuditError::io(&path, &e)),
    }
}

/// Opens the key, or creates it for a log that has not begun. Without its key, a log can be neither verified nor
/// continued.
fn open_key(directory: &Path, key_file: &Path, segments: &[Segment]) -> Result<AuditKey, AuditError> {
    let begun = !segments.is_empty() || directory.join(HEAD).exists();
    if begun || key_file.exists() { AuditKey::read(key_file) } else { AuditKey::create(key_file) }
}

/// Removes the last segment if it has no whole line: a process that is killed while it begins a segment leaves such a
/// file. The segment stays if the head shows that something in it was certainly written.
fn remove_unbegun(directory: &Path, key: &AuditKey, segments: &mut Vec<Segment>) -> Result<(), AuditError> {
    let Some(newest) = segments.last() else { return Ok(()) };
    let failed = |e: std::io::Error| AuditError::io(&newest.path, &e);
    let begun = fs::read(&newest.path).map_err(failed)?.contains(&b'\n');
    let written = match Head::read(directory, key)? {
        HeadState::Missing => newest.number > 1,
        HeadState::Damaged => true,
        HeadState::Head(head) => head.segment >= newest.number,
    };
    if !begun && !written {
        fs::remove_file(&newest.path).map_err(failed)?;
        segments.pop();
    }
    Ok(())
}
