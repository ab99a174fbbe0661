//! The head names the last entry that was certainly written. Without it, nobody could notice that the last entries were
//! cut off.
//!
//! It is one block, written in place, after the entries that it covers. So it is never ahead of them, and a process
//! that is killed leaves either the old head or the new one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::AuditError;
use super::key::AuditKey;
use super::mac::Mac;
use super::segment::HEAD;

/// The size of the file in bytes: one sector, which a disk writes whole or not at all.
const HEAD_BYTES: usize = 512;

/// The last entry that was certainly written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    /// The segment of the entry.
    pub(super) segment: u64,
    /// The number of the entry.
    pub(super) seq: u64,
    /// The MAC of the entry.
    pub(super) mac: Mac,
}

/// The state of the head's file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadState {
    /// There is no file.
    Missing,
    /// The bytes are not those of a head.
    Damaged,
    /// The file holds a head.
    Head(Head),
}

/// The head's file. The first write opens it.
#[derive(Debug)]
pub(super) struct HeadFile {
    path: PathBuf,
    file: Option<File>,
}

impl Head {
    /// Returns the bytes of the file: the head, its MAC, and spaces up to the length.
    fn encode(&self, key: &AuditKey) -> Option<Vec<u8>> {
        let head = serde_json::to_string(self).ok()?;
        let line = format!("{{\"mac\":\"{}\",\"head\":{head}}}", key.head(head.as_bytes()));
        let fits = line.len() < HEAD_BYTES;
        fits.then(|| format!("{line:width$}\n", width = HEAD_BYTES - 1).into_bytes())
    }

    fn decode(bytes: &[u8], key: &AuditKey) -> Option<Self> {
        #[derive(Deserialize)]
        struct SignedHead {
            head: Head,
        }
        let signed: SignedHead = serde_json::from_slice(bytes).ok()?;
        // Each head has one spelling, so any other bytes are not ours.
        (signed.head.encode(key)? == bytes).then_some(signed.head)
    }

    /// Reads the head of a log.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn read(directory: &Path, key: &AuditKey) -> Result<HeadState, AuditError> {
        let path = directory.join(HEAD);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Self::decode(&bytes, key).map_or(HeadState::Damaged, HeadState::Head)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(HeadState::Missing),
            Err(e) => Err(AuditError::io(&path, &e)),
        }
    }
}

impl HeadFile {
    pub(super) fn new(directory: &Path) -> Self {
        Self { path: directory.join(HEAD), file: None }
    }

    pub(super) fn write(&mut self, head: &Head, key: &AuditKey) -> Result<(), AuditError> {
        let bytes = head.encode(key).ok_or_else(|| std::io::Error::other("the head does not fit"));
        let written = bytes.and_then(|bytes| {
            if let Some(file) = &self.file {
                return file.write_all_at(&bytes, 0);
            }
            self.file = Some(self.replace(&bytes)?);
            Ok(())
        });
        written.map_err(|e| AuditError::io(&self.path, &e))
    }

    /// Replaces the old file with a new one in one step, so that a crash leaves one of the two.
    fn replace(&self, bytes: &[u8]) -> std::io::Result<File> {
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_other_byte_is_damage() {
        let key = AuditKey::from_bytes(&[7; 32]);
        let mac = key.chain(b"an entry");
        let head = Head { segment: 3, seq: 1_234, mac };
        let bytes = head.encode(&key).unwrap();
        assert_eq!(bytes.len(), HEAD_BYTES);
        assert_eq!(Head::decode(&bytes, &key), Some(head));
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[position] ^= 1 << bit;
                assert_eq!(Head::decode(&changed, &key), None, "byte {position}, bit {bit}");
            }
        }
        assert_eq!(Head::decode(&bytes, &AuditKey::from_bytes(&[8; 32])), None);
        let last = Head { segment: u64::MAX, seq: u64::MAX, mac };
        assert_eq!(last.encode(&key).map(|bytes| bytes.len()), Some(HEAD_BYTES));
    }
}
