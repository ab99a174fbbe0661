//! Tables as CSV, whose cells no reader takes for something else.

use std::io::{self, Write};

use crate::visible::visible;

/// Makes a writer of CSV as in RFC 4180, except that lines end with `\n`.
pub(super) fn csv_writer<W: Write>(target: W) -> csv::Writer<W> {
    // Some readers trim cells without quotes. The writer quotes every cell that contains its comment character. With a
    // space as that character, it quotes every cell that contains a space.
    csv::WriterBuilder::new().comment(Some(b' ')).from_writer(target)
}

/// Returns the I/O error of the target. Its kind tells whether the reader of the output has closed it.
pub(super) fn io_error(error: csv::Error) -> io::Error {
    if let csv::ErrorKind::Io(error) = error.into_kind() {
        error
    } else {
        io::Error::other("a row does not fit its header")
    }
}

/// Writes several names into one cell, as a JSON array, since a chunk's id may hold any separator. Without names, the
/// cell is empty.
pub(super) fn json_cell(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { serde_json::Value::from(names).to_string() }
}

/// Returns the text of a cell. If a spreadsheet would take the text for a formula, an apostrophe is put before it.
/// Invisible characters are escaped. An export as JSON Lines keeps the text as it is.
pub(super) fn csv_cell(text: &str) -> String {
    let text = visible(text);
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if is_formula { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_one_form_and_is_no_formula() {
        let rows = [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("a b", "\"a b\""),
            ("a\nb", "\"a\nb\""),
            ("a \"b\"", "\"a \"\"b\"\"\""),
            ("=1+1", "'=1+1"),
            ("", ""),
            ("a\u{202e}b", "a\\u{202e}b"),
        ];
        for (text, expected) in rows {
            // The writer puts quotes around an empty cell that is alone in its row, so each row has a second cell.
            let mut writer = csv_writer(Vec::new());
            writer.write_record([csv_cell(text), "end".to_owned()]).expect("written");
            let row = String::from_utf8(writer.into_inner().expect("flushed")).expect("text");
            assert_eq!(row, format!("{expected},end\n"), "{text}");
        }
    }
}
