//! The files of a log: their names, and how they are found.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::AuditError;

/// The lock of the one process that writes.
pub(super) const LOCK: &str = "lock";
/// Up to where the log was certainly written.
pub(super) const HEAD: &str = "head";
const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";
/// Digits of the number in a name, so that names sort as their numbers do.
const DIGITS: usize = 8;

/// One file of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    /// As in its name.
    pub(super) number: u64,
    /// Its file.
    pub(super) path: PathBuf,
}

impl Segment {
    /// The segment of a number.
    pub(super) fn new(directory: &Path, number: u64) -> Self {
        Self { number, path: directory.join(format!("{PREFIX}{number:0DIGITS$}{SUFFIX}")) }
    }

    /// Those of a directory, the oldest first; none when there is no directory.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(super) fn list(directory: &Path) -> Result<Vec<Self>, AuditError> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(AuditError::io(directory, &e)),
        };
        let mut segments = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| AuditError::io(directory, &e))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
            // The one name of its number: `audit-1.jsonl` is none of ours.
            segments.extend(
                number
                    .map(|number| Self::new(directory, number))
                    .filter(|segment| segment.number > 0 && segment.path.file_name() == Some(&name)),
            );
        }
        segments.sort();
        Ok(segments)
    }
}
