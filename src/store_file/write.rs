//! Writes store files that [`read`](super::read) and `OpenFGA`'s tools read back with the same content.
//!
//! Tuples are written one by one, so the memory that a store takes here does not grow with its size.
//!
//! A text with a character that cannot be seen, or that YAML does not take as it is, is written in quotes with escapes.
//! So the file can be looked at in a terminal, whoever wrote the names in it.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::{Map, Value};

use super::{CheckTest, ListObjectsTest, ListUsersTest, StoreTest};
use crate::language::dsl;
use crate::language::json::{self, JsonError};
use crate::language::model::AuthorizationModel;
use crate::language::tuple::RelationshipTuple;

/// The words that YAML, in one of its versions, takes for something else than a text.
const WORDS_OF_YAML: [&str; 8] = ["true", "false", "null", "yes", "no", "on", "off", "nan"];

/// A model in a form that a store file can refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelForm {
    /// The model's text, which stands in the store file itself.
    Text(String),
    /// `OpenFGA`'s JSON, which needs a file of its own. A model has this form if a text would lose a part of it: the
    /// modules that it was joined from, or a definition that the language cannot express.
    Json(String),
}

impl ModelForm {
    /// Chooses the form of a model that loses nothing.
    ///
    /// # Errors
    /// Never for a model that was read; see [`json::print`].
    pub fn of(model: &AuthorizationModel) -> Result<Self, JsonError> {
        match dsl::text(model) {
            Ok(text) if !has_modules(model) => Ok(Self::Text(text)),
            Ok(_) | Err(_) => Ok(Self::Json(json::print(model)?)),
        }
    }
}

fn has_modules(model: &AuthorizationModel) -> bool {
    let of_types = model.types.iter().any(|definition| {
        definition.source.is_some() || definition.relations.iter().any(|relation| relation.source.is_some())
    });
    of_types || model.conditions.values().any(|condition| condition.source.is_some())
}

/// The place of the model of a store file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelPlace<'a> {
    /// The model's text stands in the store file.
    Inline(&'a str),
    /// The model is in the file with this name, in the store file's folder or below.
    File(&'a str),
}

/// Writes one store file: first the model, then the tuples, then the tests.
#[derive(Debug)]
pub struct StoreFileWriter<W> {
    sink: W,
    tuples: u64,
}

impl<W: Write> StoreFileWriter<W> {
    /// Writes the name of the store and its model.
    ///
    /// # Errors
    /// When `sink` takes no more.
    pub fn begin(mut sink: W, name: &str, model: ModelPlace<'_>) -> io::Result<Self> {
        writeln!(sink, "name: {}", scalar(name))?;
        match model {
            ModelPlace::Inline(text) if is_block(text) => {
                writeln!(sink, "model: |")?;
                for line in text.lines() {
                    let indent = if line.is_empty() { "" } else { "  " };
                    writeln!(sink, "{indent}{line}")?;
                }
            }
            ModelPlace::Inline(text) => writeln!(sink, "model: {}", quoted(text))?,
            ModelPlace::File(file) => writeln!(sink, "model_file: {}", scalar(file))?,
        }
        Ok(Self { sink, tuples: 0 })
    }

    /// Writes one tuple. A store file must not name a tuple twice.
    ///
    /// # Errors
    /// When the sink takes no more.
    pub fn tuple(&mut self, tuple: &RelationshipTuple) -> io::Result<()> {
        if self.tuples == 0 {
            writeln!(self.sink, "tuples:")?;
        }
        self.tuples += 1;
        write_tuple(&mut self.sink, "  ", tuple)
    }

    /// Returns the number of tuples that were written.
    #[must_use]
    pub fn tuples(&self) -> u64 {
        self.tuples
    }

    /// Writes the tests, and returns the sink.
    ///
    /// # Errors
    /// When the sink takes no more.
    pub fn finish(self, tests: &[StoreTest]) -> io::Result<W> {
        let mut sink = self.sink;
        if !tests.is_empty() {
            writeln!(sink, "tests:")?;
        }
        for test in tests {
            write_test(&mut sink, test)?;
        }
        sink.flush()?;
        Ok(sink)
    }
}

fn write_tuple(sink: &mut impl Write, indent: &str, tuple: &RelationshipTuple) -> io::Result<()> {
    writeln!(sink, "{indent}- user: {}", scalar(&tuple.user.to_string()))?;
    writeln!(sink, "{indent}  relation: {}", scalar(tuple.relation.as_str()))?;
    writeln!(sink, "{indent}  object: {}", scalar(tuple.object.as_str()))?;
    let Some(condition) = &tuple.condition else { return Ok(()) };
    writeln!(sink, "{indent}  condition:")?;
    writeln!(sink, "{indent}    name: {}", scalar(condition.name()))?;
    write_context(sink, &format!("{indent}    "), condition.context())
}

fn write_context(sink: &mut impl Write, indent: &str, context: Map<String, Value>) -> io::Result<()> {
    if context.is_empty() {
        return Ok(());
    }
    writeln!(sink, "{indent}context: {}", flow(&Value::Object(context)))
}

fn write_test(sink: &mut impl Write, test: &StoreTest) -> io::Result<()> {
    // A search needs documents, which a store does not hold.
    let StoreTest { name, tuples, checks, list_objects, list_users, retrieval: _ } = test;
    writeln!(sink, "  - name: {}", scalar(name))?;
    if !tuples.is_empty() {
        writeln!(sink, "    tuples:")?;
    }
    for tuple in tuples {
        write_tuple(sink, "      ", tuple)?;
    }
    if !checks.is_empty() {
        writeln!(sink, "    check:")?;
    }
    for check in checks {
        write_check(sink, check)?;
    }
    if !list_objects.is_empty() {
        writeln!(sink, "    list_objects:")?;
    }
    for list in list_objects {
        write_list_objects(sink, list)?;
    }
    if !list_users.is_empty() {
        writeln!(sink, "    list_users:")?;
    }
    for list in list_users {
        write_list_users(sink, list)?;
    }
    Ok(())
}

/// The indentation of a field of an assertion.
const FIELD: &str = "        ";

fn write_check(sink: &mut impl Write, check: &CheckTest) -> io::Result<()> {
    let CheckTest { users, objects, context, assertions } = check;
    writeln!(sink, "      - {}", one_or_many("user", users))?;
    writeln!(sink, "{FIELD}{}", one_or_many("object", objects))?;
    write_context(sink, FIELD, context.clone())?;
    let held = assertions.iter().map(|(relation, held)| (relation.as_str(), held.to_string()));
    write_assertions(sink, held.collect())
}

fn write_list_objects(sink: &mut impl Write, list: &ListObjectsTest) -> io::Result<()> {
    let ListObjectsTest { user, type_name, context, assertions } = list;
    writeln!(sink, "      - user: {}", scalar(&user.to_string()))?;
    writeln!(sink, "{FIELD}type: {}", scalar(type_name.as_str()))?;
    write_context(sink, FIELD, context.clone())?;
    let listed = assertions.iter().map(|(relation, objects)| (relation.as_str(), names(objects)));
    write_assertions(sink, listed.collect())
}

fn write_list_users(sink: &mut impl Write, list: &ListUsersTest) -> io::Result<()> {
    let ListUsersTest { object, filter, context, assertions } = list;
    writeln!(sink, "      - object: {}", scalar(object.as_str()))?;
    writeln!(sink, "{FIELD}user_filter:")?;
    writeln!(sink, "{FIELD}  - type: {}", scalar(filter.type_name.as_str()))?;
    if let Some(relation) = &filter.relation {
        writeln!(sink, "{FIELD}    relation: {}", scalar(relation.as_str()))?;
    }
    write_context(sink, FIELD, context.clone())?;
    let listed = assertions.iter().map(|(relation, users)| (relation.as_str(), format!("{{users: {}}}", names(users))));
    write_assertions(sink, listed.collect())
}

/// Writes the expected outcome for each relation.
fn write_assertions(sink: &mut impl Write, expected: Vec<(&str, String)>) -> io::Result<()> {
    if expected.is_empty() {
        return writeln!(sink, "{FIELD}assertions: {{}}");
    }
    writeln!(sink, "{FIELD}assertions:")?;
    for (relation, outcome) in expected {
        writeln!(sink, "{FIELD}  {}: {outcome}", scalar(relation))?;
    }
    Ok(())
}

/// Returns the field for one value, or the field for several.
fn one_or_many(field: &str, values: &[impl ToString]) -> String {
    match values {
        [one] => format!("{field}: {}", scalar(&one.to_string())),
        [..] => format!("{field}s: {}", names(values)),
    }
}

fn names(names: &[impl ToString]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| quoted(&name.to_string())).collect();
    format!("[{}]", quoted.join(", "))
}

/// Returns whether a text can stand as a block after `|`. There it cannot have escapes, and its first line says how far
/// it is indented.
fn is_block(text: &str) -> bool {
    !text.starts_with([' ', '\t', '\n']) && text.chars().all(|c| matches!(c, '\n' | '\t') || is_plainly_shown(c))
}

/// Writes a text without quotes if every version of YAML reads that as the same text.
fn scalar(text: &str) -> String {
    let is_harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '#' | '@' | '*');
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphabetic());
    // A text of one letter may be `y` or `n`.
    let is_word = text.len() == 1 || WORDS_OF_YAML.iter().any(|word| word.eq_ignore_ascii_case(text));
    if begins_well && !is_word && !text.ends_with(':') && text.chars().all(is_harmless) {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// Writes a text in quotes. JSON's form of it is YAML's form, too.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        let code = u32::from(c);
        if is_plainly_shown(c) {
            shown.push(c);
        } else if code <= 0xffff {
            // Writing to a string never fails.
            write!(shown, "\\u{code:04x}").unwrap_or_default();
        } else {
            write!(shown, "\\U{code:08x}").unwrap_or_default();
        }
    }
    shown
}

/// Returns whether a character has a picture of its own. The standard library knows which ones have none: controls,
/// formats, separators and unassigned characters.
fn is_plainly_shown(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // A combining mark is escaped at the beginning of a text only, so the character is tried after a letter.
    let behind_a_letter = ['a', c].iter().collect::<String>().escape_debug().nth(1);
    behind_a_letter == Some(c)
}

/// Writes a value on one line. The recursion is bounded because JSON's nesting is.
fn flow(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{}: {}", quoted(name), flow(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

#[cfg(test)]
mod tests;
