//! Entries and lines. Pure: no I/O, no clock.
//!
//! A line is `{"mac":"…","entry":…}`. The MAC is of the entry's bytes as they stand there; nothing is parsed before it is
//! known to be ours, and there is one way only to write a line, so any changed byte is seen.

use std::fmt;

use ring::hmac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::key::AuditKey;
use super::record::Record;
use super::verification::Verification;

/// Bytes of a MAC.
const MAC_BYTES: usize = 32;
const BEFORE_MAC: &[u8] = b"{\"mac\":\"";
const BEFORE_ENTRY: &[u8] = b"\",\"entry\":";
const AFTER_ENTRY: &[u8] = b"}";

/// HMAC-SHA256.
#[derive(Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct Mac(#[schemars(with = "String")] [u8; MAC_BYTES]);

/// One line's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Counts the entries of the log from 1, without gaps.
    pub seq: u64,
    /// The MAC of the entry before; zeros for the first.
    pub prev: Mac,
    /// When it was written (RFC 3339, UTC).
    pub time: String,
    /// What happened.
    pub event: Event,
}

/// What an entry tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The first entry of each segment. Its `prev` is the seal of the segment before.
    Begin {
        /// The id of the log, the same in all of its segments.
        log: String,
        /// The segment's number; they count from 1.
        segment: u64,
    },
    /// A call was answered or refused.
    Record(Box<Record>),
    /// A decision of the replica was asked of the server as well.
    Verification(Box<Verification>),
    /// The process before did not end cleanly, and this one goes on from its last whole entry.
    Resume {
        /// Bytes of an incomplete line that were removed. Nobody was given an answer for it.
        incomplete_bytes: u64,
    },
    /// The oldest segments are removed, as `audit.segments_max` asks.
    Drop {
        /// The oldest segment that stays.
        oldest_segment: u64,
    },
    /// The last entry of a segment.
    Seal {
        /// Entries of the segment, without this one.
        entries: u64,
    },
}

/// Where an entry is: what it has beside its event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) seq: u64,
    pub(super) prev: Mac,
    /// Of digits, letters and signs that JSON has no other way to write.
    pub(super) time: &'a str,
}

/// A line, taken apart.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// The MAC that it states.
    pub(super) mac: Mac,
    /// The MAC that its entry has.
    pub(super) computed: Mac,
    entry: &'a [u8],
}

/// Why bytes are not a line of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineError {
    /// Its frame is not one.
    #[error("it does not have the form of a line")]
    Form,
    /// The MAC does not fit.
    #[error("its bytes do not fit its MAC")]
    Mac,
    /// The MAC fits, but this version cannot read the entry.
    #[error("it was written by a newer ragward")]
    Content,
}

impl Mac {
    /// What the first entry names as the one before it.
    pub const NONE: Self = Self([0; MAC_BYTES]);

    pub(super) fn of(tag: &hmac::Tag) -> Self {
        let mut bytes = [0; MAC_BYTES];
        // A tag of HMAC-SHA256 has as many bytes.
        bytes.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    /// Reads what `Display` writes.
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
    /// The bytes that stand in an entry. They do not depend on the entry's place, so they can be made before it is known.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which no event made of these types does.
    pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

impl Place<'_> {
    /// Appends the line of an event in this place, with its end, to `lines`, and gives the entry's MAC. What stands there is
    /// an [`Entry`] as serde writes it.
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
    /// Takes a line, without its end, apart.
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

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
    let mut digits = String::with_capacity(bytes.len() * 2);
    digits.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]));
    digits
}

/// The bytes of exactly as many lower-case hexadecimal digits; one text for each value, so that no digit can change unseen.
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
