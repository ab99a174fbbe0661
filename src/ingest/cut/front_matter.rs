//! Reads the front matter of a Markdown text: lines of YAML between `---`, or of TOML between `+++`.
//!
//! Scalars and lists of scalars become metadata, and `title` the title. Other values are left out, because metadata has no place
//! for them. Lines that are not what they seem to be stay in the text.

use serde_json::Value as Json;

use super::super::lines::metadata_value;
use crate::chunk::{Metadata, SOURCE_KEY, Value};
use crate::vector_store::validation::{METADATA_KEYS_MAX, TITLE_BYTES_MAX};

/// The longest front matter, in bytes. Its values are in the metadata of every chunk, which has at most twice as many.
const BYTES_MAX: usize = 8_192;
/// How many values of a front matter are taken. The catalog of a folder, and the name of the source, need keys, too.
const KEYS_MAX: usize = METADATA_KEYS_MAX / 2;
/// The key of the title, which is no metadata.
const TITLE_KEY: &str = "title";

/// The title and the metadata that a front matter states.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FrontMatter {
    pub(super) title: Option<String>,
    pub(super) metadata: Metadata,
}

/// Separates the front matter from the text after it.
pub(super) fn split(text: &str) -> (FrontMatter, &str) {
    let yaml = || between(text, "---", &["---", "..."]).and_then(|(inner, rest)| Some((read_yaml(inner)?, rest)));
    let toml = || between(text, "+++", &["+++"]).and_then(|(inner, rest)| Some((read_toml(inner)?, rest)));
    match yaml().or_else(toml) {
        Some((values, rest)) => (of_values(values), rest),
        None => (FrontMatter::default(), text),
    }
}

/// Returns the lines between a first line and the next line that ends the front matter, and what stands after that.
fn between<'t>(text: &'t str, first: &str, last: &[&str]) -> Option<(&'t str, &'t str)> {
    let (first_line, after) = text.split_once('\n')?;
    if first_line.trim_end() != first {
        return None;
    }
    let mut at = 0;
    for line in after.split_inclusive('\n') {
        if last.contains(&line.trim_end()) {
            return Some((after.get(..at)?, after.get(at + line.len()..)?));
        }
        at += line.len();
        if at > BYTES_MAX {
            return None;
        }
    }
    None
}

type Values = serde_json::Map<String, Json>;

/// Reads a mapping. Anchors are limited by the parser's budget.
fn read_yaml(inner: &str) -> Option<Values> {
    if inner.trim().is_empty() {
        return Some(Values::new());
    }
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(inner, options).ok()
}

fn read_toml(inner: &str) -> Option<Values> {
    let table: toml::Table = inner.parse().ok()?;
    Some(table.into_iter().filter_map(|(key, value)| Some((key, json(value)?))).collect())
}

/// Returns a value of TOML as JSON. Dates become texts.
fn json(value: toml::Value) -> Option<Json> {
    match value {
        toml::Value::String(text) => Some(Json::String(text)),
        toml::Value::Integer(number) => Some(number.into()),
        toml::Value::Float(number) => Some(number.into()),
        toml::Value::Boolean(truth) => Some(truth.into()),
        toml::Value::Datetime(moment) => Some(Json::String(moment.to_string())),
        toml::Value::Array(values) => values.into_iter().map(json).collect::<Option<Vec<Json>>>().map(Json::Array),
        toml::Value::Table(_) => None,
    }
}

/// A front matter does not say which source a text came from, because a source's documents are removed with it.
fn of_values(values: Values) -> FrontMatter {
    let mut front = FrontMatter::default();
    // References make long values of short lines, and each chunk gets a copy.
    let mut bytes = 0;
    for (key, value) in values {
        if key == TITLE_KEY {
            let title =
                value.as_str().map(str::trim).filter(|title| !title.is_empty() && title.len() <= TITLE_BYTES_MAX);
            front.title = title.map(str::to_owned);
        } else if key != SOURCE_KEY
            && !key.is_empty()
            && !key.contains(char::is_control)
            && front.metadata.len() < KEYS_MAX
            && let Ok(Some(value)) = metadata_value(&key, value)
        {
            bytes += key.len() + size(&value);
            if bytes > BYTES_MAX {
                break;
            }
            front.metadata.insert(key, value);
        }
    }
    front
}

/// Returns about how many bytes a value takes. Recursion is bounded: no list is in a list.
fn size(value: &Value) -> usize {
    match value {
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => size_of::<f64>(),
        Value::Text(text) => text.len(),
        Value::List(values) => values.iter().map(|value| 1 + size(value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_becomes_metadata() {
        let text = |text: &str| Value::Text(text.to_owned());
        let rows: [(&str, &str, Option<&str>, Metadata, &str); 10] = [
            ("none", "# A\n", None, Metadata::new(), "# A\n"),
            (
                "YAML",
                "---\ntitle: Leave\nyear: 2026\nopen: true\n---\ntext",
                Some("Leave"),
                [("year".to_owned(), Value::Int(2026)), ("open".to_owned(), Value::Bool(true))].into(),
                "text",
            ),
            (
                "a date",
                "---\nsince: 2026-11-30\n---\ntext",
                None,
                [("since".to_owned(), text("2026-11-30"))].into(),
                "text",
            ),
            (
                "a list",
                "---\ntags: [a, b]\n---\ntext",
                None,
                [("tags".to_owned(), Value::List(vec![text("a"), text("b")]))].into(),
                "text",
            ),
            ("a mapping is left out", "---\na: {b: 1}\nc: d\n---\n", None, [("c".to_owned(), text("d"))].into(), ""),
            (
                "TOML",
                "+++\ntitle = 'T'\nday = 2026-11-30\nn = [1, 2]\n+++\nx",
                Some("T"),
                [
                    ("day".to_owned(), text("2026-11-30")),
                    ("n".to_owned(), Value::List(vec![Value::Int(1), Value::Int(2)])),
                ]
                .into(),
                "x",
            ),
            ("carriage returns", "---\r\na: b\r\n---\r\nx", None, [("a".to_owned(), text("b"))].into(), "x"),
            ("a source is not said", "---\ningest_source: wiki\n---\nx", None, Metadata::new(), "x"),
            (
                "a line is no front matter",
                "---\n\ntext\n\n---\n\nmore",
                None,
                Metadata::new(),
                "---\n\ntext\n\n---\n\nmore",
            ),
            ("no end", "---\na: b\n", None, Metadata::new(), "---\na: b\n"),
        ];
        for (row, given, title, metadata, rest) in rows {
            let (front, body) = split(given);
            assert_eq!((front.title.as_deref(), front.metadata, body), (title, metadata, rest), "{row}");
        }
        let long = format!("---\na: {}\n---\nx", "b".repeat(BYTES_MAX));
        assert_eq!(split(&long), (FrontMatter::default(), long.as_str()), "too long");
        let references =
            |count: usize| format!("---\na: &a {}\nb: [{}]\n---\nx", "c".repeat(1_000), "*a, ".repeat(count));
        let some = references(20);
        let (front, body) = split(&some);
        let bytes: usize = front.metadata.values().map(size).sum();
        assert!(bytes > 0 && bytes <= BYTES_MAX && body == "x", "references: {bytes} bytes");
        let many = references(1_000);
        assert_eq!(split(&many), (FrontMatter::default(), many.as_str()), "more references than the parser follows");
    }
}
