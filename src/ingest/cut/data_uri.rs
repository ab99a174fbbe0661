//! Leaves out the contents of data URIs: pictures in the middle of a text, which nobody reads as letters.

use std::borrow::Cow;

/// A data URI has this mark between its type and its content.
const MARK: &str = ";base64,";
/// A data URI begins at most this many bytes before [`MARK`], because types are short.
const TYPE_BYTES_MAX: usize = 128;
/// A content that is no longer than this stays, in bytes.
const CONTENT_BYTES_MAX: usize = 64;

/// Returns the text with `…` in place of each long content of a data URI.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    let mut kept = String::new();
    let (mut copied_to, mut from) = (0, 0);
    while let Some(at) = text.get(from..).and_then(|rest| rest.find(MARK)) {
        let content_from = from + at + MARK.len();
        let content = text.get(content_from..).unwrap_or_default();
        let length = content.bytes().take_while(|byte| is_of_content(*byte)).count();
        from = content_from + length;
        if length > CONTENT_BYTES_MAX && is_data_uri(text, content_from - MARK.len()) {
            kept.push_str(text.get(copied_to..content_from).unwrap_or_default());
            kept.push('…');
            copied_to = from;
        }
    }
    if copied_to == 0 {
        return Cow::Borrowed(text);
    }
    kept.push_str(text.get(copied_to..).unwrap_or_default());
    Cow::Owned(kept)
}

fn is_of_content(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_' | b'%')
}

/// Returns whether `data:` stands before this place, with nothing but a type between.
fn is_data_uri(text: &str, mark_at: usize) -> bool {
    let before = text.as_bytes().get(mark_at.saturating_sub(TYPE_BYTES_MAX)..mark_at).unwrap_or_default();
    let type_length = before.iter().rev().take_while(|byte| byte.is_ascii_graphic() && **byte != b':').count();
    let scheme = before.get(..before.len() - type_length).unwrap_or_default();
    scheme.to_ascii_lowercase().ends_with(b"data:")
}
