//! The MAC of an entry or of the head, and its one spelling.

use std::fmt;

use ring::hmac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The length of a MAC, in bytes.
pub(super) const MAC_BYTES: usize = 32;

/// A MAC, made with HMAC-SHA256.
#[derive(Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct Mac(#[schemars(with = "String")] [u8; MAC_BYTES]);

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
        let mut bytes = [0; MAC_BYTES];
        // Upper-case digits are refused. Otherwise a change from `a` to `A` would go unnoticed.
        let decoded = base16ct::lower::decode(text, &mut bytes).ok()?;
        (decoded.len() == MAC_BYTES).then_some(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; MAC_BYTES * 2];
        f.write_str(base16ct::lower::encode_str(&self.0, &mut digits).map_err(|_too_short| fmt::Error)?)
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not 64 hexadecimal digits in lower case"))
    }
}
