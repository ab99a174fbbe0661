//! The start of a writer: takes the log for itself, looks at its end, and removes an incomplete last line.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::AuditError;
use super::head::{Found, Head};
use super::key::AuditKey;
use super::segment::{HEAD, LOCK, Segment};
use super::verify::{Verified, read_last};

/// What a writer goes on from.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Held for as long as the writer lives.
    pub(super) lock: File,
    pub(super) key: AuditKey,
    /// The last entry; none in a new log.
    pub(super) last: Option<Verified>,
    /// Bytes of the incomplete line that was removed.
    pub(super) incomplete_bytes: u64,
    /// Segments that are there.
    pub(super) segments: Vec<Segment>,
}

/// Opens or begins a log. Only the last segment is read; the older ones are `ragward audit verify`'s.
pub(super) fn recover(directory: &Path, key_file: &Path) -> Result<Recovered, AuditError> {
    let lock = lock(directory)?;
    let mut segments = Segment::list(directory)?;
    let key = open_key(directory, key_file, &segments)?;
    remove_unbegun(directory, &key, &mut segments)?;
    let Some(newest) = segments.last() else {
        return match Head::read(directory, &key)? {
            Found::Missing if !key.has_begun() => {
                Ok(Recovered { lock, key, last: None, incomplete_bytes: 0, segments })
            }
            Found::Missing => {
                let text = "it has begun, and its segments and its head are gone; a new log needs a new key";
                Err(AuditError::tampered(directory, text))
            }
            Found::Damaged | Found::Head(_) => Err(AuditError::tampered(directory, "its segments are gone")),
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
        tracing::warn!(incomplete_bytes, "the audit log ended in the middle of a line, which nobody was answered for");
    }
    Ok(Recovered { lock, key, last: Some(last), incomplete_bytes, segments })
}

/// One process at a time.
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

/// A key is made for a log that has not begun. A log without its key can be neither checked nor continued.
fn open_key(directory: &Path, key_file: &Path, segments: &[Segment]) -> Result<AuditKey, AuditError> {
    let begun = !segments.is_empty() || directory.join(HEAD).exists();
    if begun || key_file.exists() { AuditKey::read(key_file) } else { AuditKey::create(key_file) }
}

/// A process that was killed while it began a segment leaves one without a whole line. If it was the last and nothing was
/// certainly written to it, it goes.
fn remove_unbegun(directory: &Path, key: &AuditKey, segments: &mut Vec<Segment>) -> Result<(), AuditError> {
    let Some(newest) = segments.last() else { return Ok(()) };
    let failed = |e: std::io::Error| AuditError::io(&newest.path, &e);
    let begun = fs::read(&newest.path).map_err(failed)?.contains(&b'\n');
    let written = match Head::read(directory, key)? {
        Found::Missing => newest.number > 1,
        Found::Damaged => true,
        Found::Head(head) => head.segment >= newest.number,
    };
    if !begun && !written {
        fs::remove_file(&newest.path).map_err(failed)?;
        segments.pop();
    }
    Ok(())
}
