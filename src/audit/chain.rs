//! Entries and lines. This code does no I/O and reads no clock.
//!
//! A line is `{"mac":"…","entry":…}`. The MAC covers the entry's bytes as they stand there. Nothing is parsed before
//! its MAC was verified, and each line has exactly one spelling, so any changed byte is found.

use std::fmt;

use ring::hmac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::key::AuditKey;
use super::record::Record;
use super::verification::Verification;

/// The length of a MAC, in bytes.
const MAC_BYTES: usize = 32;
const BEFORE_MAC: &[u8] = b"{\"mac\":\"";
const BEFORE_ENTRY: &[u8] = b"\",\"entry\":";
const AFTER_ENTRY: &[u8] = b"}";

/// A MAC, made with HMAC-SHA256.
#[derive(Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct Mac(#[schemars(with = "String")] [u8; MAC_BYTES]);

/// The content of one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
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
pub(super) struct Place<'a> {
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

impl Mac {
    /// The `prev` of a log's first entry.
    pub const NONE: Self = Self([0; MAC_BYTES]);

    pub(super) fn of(tag: &hmac::Tag) -> Self {
        let mut bytes = [0; MAC_BYTES];
        // A tag of HMAC-SHA256 has exactly this many bytes.
        bytes.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    /// Parses the text that `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not 64 hexadecimal digits in lower case"))
    }
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

impl Place<'_> {
    /// Appends the line of an event at this position to `lines`, including the line's end, and returns the entry's MAC.
    /// The line holds an [`Entry`] as serde writes it.
    pub(super) fn append_line(self, event: &[u8], key: &AuditKey, lines: &mut Vec<u8>) -> Mac {
        let Self { seq, prev, time } = self;
        let before_event = format!("{{\"seq\":{seq},\"prev\":\"{prev}\",\"time\":\"{time}\",\"event\":");
        let entry = [before_event.as_bytes(), event, b"}"].concat();
        let mac = key.chain(&entry);
        for part in [BEFORE_MAC, hex(&mac.0).as_bytes(), BEFORE_ENTRY, &entry, AFTER_ENTRY, b"\n"] {
            lines.extend_from_slice(part);
        }
        mac
    }
}

impl<'a> Line<'a> {
    /// Splits a line, given without its end, into its parts.
    pub(super) fn split(line: &'a [u8], key: &AuditKey) -> Result<Self, LineError> {
        let rest = line.strip_prefix(BEFORE_MAC).ok_or(LineError::Form)?;
        let (mac, rest) = rest.split_at_checked(MAC_BYTES * 2).ok_or(LineError::Form)?;
        let entry = rest.strip_prefix(BEFORE_ENTRY).and_then(|rest| rest.strip_suffix(AFTER_ENTRY));
        let entry = entry.ok_or(LineError::Form)?;
        let mac = std::str::from_utf8(mac).ok().and_then(Mac::parse).ok_or(LineError::Form)?;
        Ok(Self { mac, computed: key.chain(entry), entry })
    }

    /// The entry, if the MAC fits.
    pub(super) fn entry(&self) -> Result<Entry, LineError> {
        if self.mac != self.computed {
            return Err(LineError::Mac);
        }
        serde_json::from_slice(self.entry).map_err(|_newer| LineError::Content)
    }
}

/// Writes bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
    let mut digits = String::with_capacity(bytes.len() * 2);
    digits.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]));
    digits
}

/// Reads bytes from exactly twice as many lower-case hexadecimal digits. Each value has one spelling, so no digit can
/// change unseen.
pub(super) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if text.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(bytes)
}
