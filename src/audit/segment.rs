//! The files of a log: their names, and how they are found.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::AuditError;

/// The lock file of the one process that writes.
pub(super) const LOCK: &str = "lock";
/// The file of the head.
pub(super) const HEAD: &str = "head";
const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";
/// The number of digits in a name. Names sort as their numbers do.
const DIGITS: usize = 8;

/// A segment, which is one file of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    /// The segment's number, which its name holds.
    pub(super) number: u64,
    /// The path of the file.
    pub(super) path: PathBuf,
}

impl Segment {
    /// Returns the segment with this number.
    pub(super) fn new(directory: &Path, number: u64) -> Self {
        Self { number, path: directory.join(format!("{PREFIX}{number:0DIGITS$}{SUFFIX}")) }
    }

    /// Returns the segments in a directory, the oldest first, or none if there is no directory.
    ///
    /// # Errors
    /// If the directory cannot be read.
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
            // A number has one name: `audit-1.jsonl` is not ours.
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
