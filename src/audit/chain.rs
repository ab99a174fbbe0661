//! The entries of a log, and the lines that hold them. This code does no I/O and reads no clock.
//!
//! A line is `{"mac":"…","entry":…}`. The MAC covers the entry's bytes as they stand there. Nothing is parsed before
//! its MAC was verified, and each line has exactly one spelling, so any changed byte is found.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::key::AuditKey;
use super::mac::{MAC_BYTES, Mac};
use super::record::Record;
use super::verification::Verification;

const BEFORE_MAC: &[u8] = b"{\"mac\":\"";
const BEFORE_ENTRY: &[u8] = b"\",\"entry\":";
const AFTER_ENTRY: &[u8] = b"}";

/// The content of one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// The entry's number. The entries of a log are counted from 1, without gaps.
    pub seq: u64,
    /// The MAC of the entry before; zeros for the first.
    pub prev: Mac,
    /// The time at which the entry was written (RFC 3339, UTC).
    pub time: String,
    /// The event that the entry records.
    pub event: Event,
}

/// The kinds of events that an entry records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A segment begins. This is the first entry of each segment, and its `prev` is the seal of the segment before.
    Begin {
        /// The id of the log, the same in all of its segments.
        log: String,
        /// The segment's number, counted from 1.
        segment: u64,
    },
    /// A call was answered or refused.
    Record(Box<Record>),
    /// A decision of the replica was checked with the server.
    Verification(Box<Verification>),
    /// The process before did not end cleanly, and this one continues from its last whole entry.
    Resume {
        /// The length in bytes of an incomplete line that was removed. Nobody was given an answer for it.
        incomplete_bytes: u64,
    },
    /// The oldest segments are removed, as `audit.segments_max` asks.
    Drop {
        /// The oldest segment that stays.
        oldest_segment: u64,
    },
    /// A segment ends. This is its last entry.
    Seal {
        /// The number of entries in the segment, without this one.
        entries: u64,
    },
}

/// The position of an entry: its fields beside the event.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryPosition<'a> {
    pub(super) seq: u64,
    pub(super) prev: Mac,
    /// The time. It consists of digits, letters and signs that JSON writes in one way only.
    pub(super) time: &'a str,
}

/// The parts of a line.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// The MAC that the line states.
    pub(super) mac: Mac,
    /// The MAC that was computed from its entry.
    pub(super) computed: Mac,
    entry: &'a [u8],
}

/// The reason why bytes are not a line of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineError {
    /// The bytes do not have the form of a line.
    #[error("it does not have the form of a line")]
    Form,
    /// The stated MAC is not that of the entry.
    #[error("its bytes do not fit its MAC")]
    Mac,
    /// The MAC is right, but this version cannot read the entry.
    #[error("it was written by a newer ragward")]
    Content,
}

impl Event {
    /// Returns the bytes of the event within an entry. They do not depend on the entry's position, so they can be made
    /// before it is known.
    ///
    /// # Errors
    /// If the event cannot be written as JSON, which never happens with these types.
    pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

impl EntryPosition<'_> {
    /// Appends the line of an event at this position to `lines`, including the line's end, and returns the entry's MAC.
    /// The line holds an [`AuditEntry`] as serde writes it.
    pub(super) fn append_line(self, event: &[u8], key: &AuditKey, lines: &mut Vec<u8>) -> Mac {
        let Self { seq, prev, time } = self;
        let before_event = format!("{{\"seq\":{seq},\"prev\":\"{prev}\",\"time\":\"{time}\",\"event\":");
        let entry = [before_event.as_bytes(), event, b"}"].concat();
        let mac = key.chain(&entry);
        for part in [BEFORE_MAC, mac.to_string().as_bytes(), BEFORE_ENTRY, &entry, AFTER_ENTRY, b"\n"] {
            lines.extend_from_slice(part);
        }
        mac
    }
}

impl<'a> Line<'a> {
    /// Splits a line into its parts. The line is given without its line end.
    pub(super) fn split(line: &'a [u8], key: &AuditKey) -> Result<Self, LineError> {
        let rest = line.strip_prefix(BEFORE_MAC).ok_or(LineError::Form)?;
        let (mac, rest) = rest.split_at_checked(MAC_BYTES * 2).ok_or(LineError::Form)?;
        let entry = rest.strip_prefix(BEFORE_ENTRY).and_then(|rest| rest.strip_suffix(AFTER_ENTRY));
        let entry = entry.ok_or(LineError::Form)?;
        let mac = std::str::from_utf8(mac).ok().and_then(Mac::parse).ok_or(LineError::Form)?;
        Ok(Self { mac, computed: key.chain(entry), entry })
    }

    /// Returns the entry, if the MAC fits.
    pub(super) fn entry(&self) -> Result<AuditEntry, LineError> {
        if self.mac != self.computed {
            return Err(LineError::Mac);
        }
        serde_json::from_slice(self.entry).map_err(|_newer| LineError::Content)
    }
}
