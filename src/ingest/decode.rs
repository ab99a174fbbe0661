//! Finds the encoding of a file, and decodes it.
//!
//! A byte order mark decides. Without one, a text is UTF-8 if it can be. A text with zeros at every other place is UTF-16, and any
//! other text is in an older encoding, which its letters tell. A text that is UTF-8 up to some byte is a damaged one, and refused:
//! in another encoding, all of its other letters would be wrong.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// How many bytes at the beginning of a file tell whether it is UTF-16.
const SAMPLE_BYTES: usize = 4_096;

/// The text of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) text: String,
    /// The name of the encoding, if it is not UTF-8.
    pub(super) encoding: Option<&'static str>,
}

/// The reason why a file has no text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotText {
    /// It is UTF-8 with letters beyond ASCII, and stops to be so.
    DamagedUtf8 {
        /// The line of the first wrong byte, counted from 1.
        line: u64,
    },
    /// It is no text in any encoding that is known.
    Binary,
}

/// Decodes the content of a file.
pub(super) fn decode(bytes: Vec<u8>) -> Result<Decoded, NotText> {
    if let Some((encoding, mark_bytes)) = Encoding::for_bom(&bytes) {
        let after_mark = bytes.get(mark_bytes..).unwrap_or_default();
        if encoding != UTF_8 {
            return decode_as(encoding, after_mark);
        }
    }
    let (error, bytes) = match String::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => (None, text.into_bytes()),
        Ok(text) => return Ok(Decoded { text, encoding: None }),
        Err(error) => (Some(error.utf8_error().valid_up_to()), error.into_bytes()),
    };
    if let Some(encoding) = utf_16(&bytes) {
        return decode_as(encoding, &bytes);
    }
    if bytes.contains(&0) {
        return Err(NotText::Binary);
    }
    let valid_up_to = error.unwrap_or(bytes.len());
    let valid = bytes.get(..valid_up_to).unwrap_or_default();
    if !valid.is_ascii() {
        let line = valid.split(|byte| *byte == b'\n').count() as u64;
        return Err(NotText::DamagedUtf8 { line });
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    let is_last = true;
    detector.feed(&bytes, is_last);
    let decoded = decode_as(detector.guess(None, Utf8Detection::Deny), &bytes)?;
    // Some encoding has a letter for every byte, so a packed file or a picture could be decoded, too. Only texts do without control
    // characters.
    if decoded.text.contains(is_of_data) { Err(NotText::Binary) } else { Ok(decoded) }
}

/// Returns whether a character is a control character that no text file has. Beside the ends of lines and pages, old texts end with
/// U+001A, and those of terminals have colors (U+001B).
fn is_of_data(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | '\u{1a}' | '\u{1b}' | '\u{85}')
}

fn decode_as(encoding: &'static Encoding, bytes: &[u8]) -> Result<Decoded, NotText> {
    match encoding.decode_without_bom_handling_and_without_replacement(bytes) {
        Some(text) if !text.contains('\0') => Ok(Decoded { text: text.into_owned(), encoding: Some(encoding.name()) }),
        Some(_) | None => Err(NotText::Binary),
    }
}

/// Returns the byte order of a text of two bytes for each letter, if nearly each second byte is zero.
fn utf_16(bytes: &[u8]) -> Option<&'static Encoding> {
    let sample = bytes.get(..bytes.len().min(SAMPLE_BYTES)).unwrap_or_default();
    let pairs = sample.len() / 2;
    let zeros = |place: usize| sample.iter().skip(place).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    let is_most = |count: usize| pairs > 0 && count * 10 >= pairs * 7;
    match (is_most(even), is_most(odd)) {
        (false, true) if even == 0 => Some(UTF_16LE),
        (true, false) if odd == 0 => Some(UTF_16BE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_decoded() {
        type Row<'a> = (&'a str, Vec<u8>, Result<(&'a str, Option<&'a str>), NotText>);
        let utf_16 = |text: &str, order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
        let marked = |mark: &[u8], bytes: Vec<u8>| [mark, &bytes].concat();
        let rows: [Row<'_>; 19] = [
            ("nothing", vec![], Ok(("", None))),
            ("ASCII", b"leave".to_vec(), Ok(("leave", None))),
            ("UTF-8", "caf\u{e9}".into(), Ok(("caf\u{e9}", None))),
            ("a mark before UTF-8 stays", "\u{feff}a".into(), Ok(("\u{feff}a", None))),
            (
                "Latin 1",
                b"un caf\xe9 noir, d\xe9j\xe0".to_vec(),
                Ok(("un caf\u{e9} noir, d\u{e9}j\u{e0}", Some("windows-1252"))),
            ),
            ("little end", utf_16("leave early", u16::to_le_bytes), Ok(("leave early", Some("UTF-16LE")))),
            ("big end", utf_16("leave early", u16::to_be_bytes), Ok(("leave early", Some("UTF-16BE")))),
            (
                "little end with a mark",
                marked(b"\xff\xfe", utf_16("\u{65e5}\u{672c}", u16::to_le_bytes)),
                Ok(("\u{65e5}\u{672c}", Some("UTF-16LE"))),
            ),
            (
                "big end with a mark",
                marked(b"\xfe\xff", utf_16("\u{65e5}", u16::to_be_bytes)),
                Ok(("\u{65e5}", Some("UTF-16BE"))),
            ),
            ("half a letter", marked(b"\xff\xfe", vec![b'a', 0, b'b']), Err(NotText::Binary)),
            (
                "damaged UTF-8",
                "caf\u{e9}\n\u{fffd}".bytes().chain([0xff]).collect(),
                Err(NotText::DamagedUtf8 { line: 2 }),
            ),
            ("zeros", b"PK\x03\x04\0\0\0\xff\xfe".to_vec(), Err(NotText::Binary)),
            ("zeros in ASCII", b"a\0b c d e f".to_vec(), Err(NotText::Binary)),
            ("a packed file without zeros", b"\x1f\x8b\x08\x01\x9c\xe7\x02\xff\x03".to_vec(), Err(NotText::Binary)),
            (
                "Latin 1 with colors and an old end",
                b"\x1b[1mun caf\xe9 noir, d\xe9j\xe0 \x1b[0m\r\n\x1a".to_vec(),
                Ok(("\u{1b}[1mun caf\u{e9} noir, d\u{e9}j\u{e0} \u{1b}[0m\r\n\u{1a}", Some("windows-1252"))),
            ),
            (
                "UTF-8 with a lone surrogate",
                b"caf\xc3\xa9 \xed\xa0\x80".to_vec(),
                Err(NotText::DamagedUtf8 { line: 1 }),
            ),
            ("UTF-16 with a lone surrogate", marked(b"\xff\xfe", vec![b'a', 0, 0, 0xd8]), Err(NotText::Binary)),
            ("UTF-32 with a mark", b"\xff\xfe\0\0a\0\0\0".to_vec(), Err(NotText::Binary)),
            ("a picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), Err(NotText::Binary)),
        ];
        for (row, bytes, expected) in rows {
            let found = decode(bytes);
            let found = found.as_ref().map(|found| (found.text.as_str(), found.encoding));
            assert_eq!(found, expected.as_ref().copied(), "{row}");
        }
    }
}
