//! The version of a document as text in a payload.

use std::time::Duration;

use super::fields::{Fields, VERSION, WRITTEN_AT, integer, string};
use crate::chunk::{Version, Written};

/// How many digits a version has in a payload.
const DIGITS: usize = 32;

pub(super) fn to_text(Version(version): Version) -> String {
    format!("{version:0DIGITS$x}")
}

/// Returns the version in a payload; `None` if the payload has none, or one in another form than that of [`to_text`].
pub(super) fn of(payload: &Fields) -> Option<Version> {
    let text = string(payload, VERSION)?;
    let is_version = text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(text, 16).ok().filter(|_| is_version).map(Version)
}

/// Reads when the payload was written, as far as it tells.
pub(super) fn written_of(payload: &Fields) -> Written {
    match integer(payload, WRITTEN_AT).and_then(|milliseconds| u64::try_from(milliseconds).ok()) {
        Some(milliseconds) => Written::AtWallTime(Duration::from_millis(milliseconds)),
        None => Written::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use qdrant_client::qdrant::Value as Payload;

    use super::*;

    #[test]
    fn a_version_has_one_form() {
        let rows: [(&str, Option<u128>); 7] = [
            ("0000000000000000000000000000002a", Some(42)),
            ("ffffffffffffffffffffffffffffffff", Some(u128::MAX)),
            ("0000000000000000000000000000002A", None),
            ("+000000000000000000000000000002a", None),
            ("2a", None),
            ("", None),
            ("00000000000000000000000000000000000000000000002a", None),
        ];
        for (text, expected) in rows {
            let payload = Fields::from([(VERSION.to_owned(), Payload::from(text))]);
            assert_eq!(of(&payload), expected.map(Version), "{text}");
            assert_eq!(written_of(&payload), Written::Unknown, "{text}");
        }
        assert_eq!(to_text(Version(42)), "0000000000000000000000000000002a");
    }
}
