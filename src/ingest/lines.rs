//! Reads a JSON Lines file line by line. Each line has a bounded length and knows its number.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::IngestError;
use crate::chunk::{Metadata, Value};

/// The longest line, in bytes. A chunk with the largest text fits, even if every byte of it is escaped. So does the
/// longest vector.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Text files may have this mark before the first line.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The lines of a file, without those that hold only white space.
pub(super) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    number: u64,
    has_ended: bool,
}

/// One line of a file.
pub(super) struct Line {
    /// The number of the line, counted from 1.
    pub(super) number: u64,
    /// The length of the line with its line feed.
    pub(super) bytes: u64,
    text: String,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, IngestError> {
        let file = File::open(path).map_err(|e| IngestError::unreadable(path, &e))?;
        Ok(Self { path: path.to_owned(), reader: BufReader::new(file), number: 0, has_ended: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn read(&mut self) -> Result<Option<Line>, IngestError> {
        let mut line = Vec::new();
        let mut bounded = self.reader.by_ref().take(LINE_BYTES_MAX + 1);
        let bytes = bounded.read_until(b'\n', &mut line).map_err(|e| IngestError::unreadable(&self.path, &e))? as u64;
        if bytes == 0 {
            return Ok(None);
        }
        self.number += 1;
        if bytes > LINE_BYTES_MAX {
            if line.last() != Some(&b'\n') {
                // The rest of a line that is too long is not a line of its own.
                self.reader.skip_until(b'\n').map_err(|e| IngestError::unreadable(&self.path, &e))?;
            }
            let detail = format!("has more than {LINE_BYTES_MAX} bytes");
            return Err(IngestError::line(&self.path, self.number, detail));
        }
        let text = String::from_utf8(line).map_err(|e| {
            let byte = e.utf8_error().valid_up_to() + 1;
            IngestError::line(&self.path, self.number, format!("is not valid UTF-8 at byte {byte}"))
        })?;
        // Some editors put a byte order mark before the first line. It is no part of the JSON.
        let has_mark = self.number == 1 && text.starts_with(BYTE_ORDER_MARK);
        let text = if has_mark { text.replacen(BYTE_ORDER_MARK, "", 1) } else { text };
        Ok(Some(Line { number: self.number, bytes, text }))
    }
}

impl Iterator for Lines {
    type Item = Result<Line, IngestError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.has_ended {
            match self.read() {
                Ok(Some(line)) if line.text.trim().is_empty() => {}
                other => {
                    // If the file could not be read, the next try would fail, too.
                    self.has_ended = matches!(other, Ok(None) | Err(IngestError::Unreadable { .. }));
                    return other.transpose();
                }
            }
        }
        None
    }
}

impl Line {
    /// Parses the line as JSON. An error says what was expected, and at which column.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_str(self.text.trim_end()).map_err(|e| {
            let text = e.to_string();
            // `serde_json` counts lines within this line. The caller names the line of the file.
            let what = text.split(" at line ").next().unwrap_or_default();
            if e.is_eof() {
                return format!("is cut off: {what}");
            }
            format!("{what} at column {}", e.column())
        })
    }
}

/// Turns JSON values into metadata. A `null` counts as a missing value.
pub(super) fn metadata(values: impl IntoIterator<Item = (String, serde_json::Value)>) -> Result<Metadata, String> {
    let mut metadata = Metadata::new();
    for (key, value) in values {
        if let Some(value) = metadata_value(&key, value)? {
            metadata.insert(key, value);
        }
    }
    Ok(metadata)
}

/// Turns a JSON value into one of metadata; `None` for `null`.
pub(super) fn metadata_value(key: &str, value: serde_json::Value) -> Result<Option<Value>, String> {
    let serde_json::Value::Array(items) = value else { return scalar(key, value) };
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        let value = scalar(key, item)?.ok_or_else(|| format!("`{key}` is a list with null"))?;
        values.push(value);
    }
    Ok(Some(Value::List(values)))
}

fn scalar(key: &str, value: serde_json::Value) -> Result<Option<Value>, String> {
    match value {
        serde_json::Value::Null => Ok(None),
        serde_json::Value::Bool(truth) => Ok(Some(Value::Bool(truth))),
        serde_json::Value::String(text) => Ok(Some(Value::Text(text))),
        serde_json::Value::Number(number) => number_value(key, &number).map(Some),
        serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            Err(format!("`{key}` must be a text, a number, true, false, or a list of these"))
        }
    }
}

fn number_value(key: &str, number: &serde_json::Number) -> Result<Value, String> {
    if let Some(int) = number.as_i64() {
        return Ok(Value::Int(int));
    }
    let float = number.as_f64().filter(|_| number.is_f64());
    float.map(Value::Float).ok_or_else(|| format!("`{key}` is a whole number that does not fit into 64 bits"))
}
