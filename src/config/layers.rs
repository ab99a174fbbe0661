//! The layers that a configuration is read from, and how an environment variable becomes a setting.
//!
//! The schema alone decides the type of a variable's value. The look of the text does not matter: a store that is
//! called `007` is not store 7.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Schema;
use toml::{Table, Value};

use super::{Config, ConfigError, called_server, token};
use crate::settings::{BYTE_SIZE_DEFINITION, DURATION_DEFINITION};

/// The beginning of a variable that is a setting. `__` stands for the dots of its key.
const PREFIX: &str = "RAGWARD__";
const SEPARATOR: &str = "__";
/// The beginning of every variable that belongs to Ragward. Platforms also make variables with this beginning:
/// Kubernetes sets `RAGWARD_SERVICE_HOST` for a service that is called `ragward`.
const OURS: &str = "RAGWARD";
/// The variable from which `cli` takes the path of the configuration file.
const FILE_VARIABLE: &str = "RAGWARD_CONFIG";
/// The sections with a `kind`. Each entry has the section, the value of `kind` that chooses a server, and the tables
/// that only this kind uses.
const SERVERS: [(&str, &str, &[&str]); 2] =
    [("authorizer", "openfga", &["openfga", "checks", "replica"]), ("vector_store", "qdrant", &["qdrant"])];
/// The likeness that two keys must have before one is suggested in place of the other.
const LIKENESS_MIN: f64 = 0.75;
/// Like [`LIKENESS_MIN`], for whole variables. It is higher because most letters of a variable are those of its section,
/// and because platforms set variables of their own, such as `RAGWARD_SERVICE_HOST`.
const VARIABLE_LIKENESS_MIN: f64 = 0.95;

/// Reads the file and the environment. A setting that is in neither has its default.
pub(super) fn read(
    file: Option<&Path>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Config, ConfigError> {
    let schema = Config::schema();
    let schema = SchemaAt { node: &schema, root: &schema };
    let mut settings = file.map(read_file).transpose()?.unwrap_or_default();
    check_table(&settings, schema, "")?;
    let variables = Variables::of(schema);
    let mut seen = BTreeMap::new();
    let mut shut_out = None;
    for (name, text) in environment {
        let Some(name) = name.to_str().map(str::to_owned) else { continue };
        variables.refuse(&name)?;
        let Some(key) = key_of(&name) else { continue };
        if let Some(other) = seen.insert(key.clone(), name.clone()) {
            return Err(ConfigError::Invalid(format!("`{name}` and `{other}` set the same key")));
        }
        let text = text.into_string().map_err(|_raw| ConfigError::Invalid(format!("`{name}` is not UTF-8")))?;
        let value = value_of(&name, &key, &text, schema)?;
        let Some((last, sections)) = key.split_last() else { continue };
        // A table that may be unset stays unset when a part of it is.
        let stays_unset = value.is_none() && schema.at(sections).is_some_and(SchemaAt::is_optional);
        let section =
            if stays_unset { existing_section(&mut settings, sections) } else { section(&mut settings, sections) };
        match (section, value) {
            (Some(section), Some(value)) => drop(section.insert(last.clone(), value)),
            (Some(section), None) => drop(section.remove(last)),
            (None, Some(_)) => shut_out = shut_out.or(Some((name, sections.join(".")))),
            (None, None) => {}
        }
    }
    refuse_overlaps(&seen)?;
    refuse_unchosen(&settings)?;
    let config = Config::deserialize(settings).map_err(|e| ConfigError::Invalid(key_first(&e.to_string())))?;
    match shut_out {
        None => Ok(config),
        Some((name, section)) => Err(ConfigError::Invalid(format!(
            "`{name}` sets a part of `{section}`, which the file sets to a text; remove one of the two"
        ))),
    }
}

/// Refuses two variables of which one sets a key and the other a part of the same key: which one counted would depend on the
/// order of the environment.
fn refuse_overlaps(seen: &BTreeMap<Vec<String>, String>) -> Result<(), ConfigError> {
    // A key stands right before its parts.
    for ((key, name), (next, other)) in seen.iter().zip(seen.iter().skip(1)) {
        if next.starts_with(key) {
            return Err(ConfigError::Invalid(format!("`{name}` and `{other}` set the same key")));
        }
    }
    Ok(())
}

/// Puts the key of a wrong value before the message. The TOML library names the key after the message.
fn key_first(error: &str) -> String {
    match error.trim_end().rsplit_once("\nin ") {
        Some((message, key)) => format!("{key}: {}", message.replace('\n', " ")),
        None => error.trim_end().replace('\n', " "),
    }
}

/// Refuses the settings of a server if no `kind` chooses that server. Whoever writes such settings means to use the
/// server. If they were ignored, the embedded engine would take its place, and another store would decide what may be
/// seen.
fn refuse_unchosen(settings: &Table) -> Result<(), ConfigError> {
    for (section, kind, tables) in SERVERS {
        let Some(Value::Table(given)) = settings.get(section) else { continue };
        let Some(table) = tables.iter().find(|table| given.contains_key(**table)) else { continue };
        if !given.contains_key("kind") {
            return Err(ConfigError::Invalid(format!(
                "`{section}.{table}` is set, but `{section}.kind` is not: add `kind = \"{kind}\"` to `[{section}]`, or \
                 `kind = \"embedded\"` if these settings are not to be used"
            )));
        }
    }
    Ok(())
}

/// Finds the variables whose names begin like Ragward's but that set nothing, and pairs each with the variable that was
/// probably meant. Variables that [`read`] refuses are left out. The others deserve only a warning, because platforms,
/// tests and wrappers set variables of their own with this beginning.
pub(super) fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<(String, Option<String>)> {
    let schema = Config::schema();
    let variables = Variables::of(SchemaAt { node: &schema, root: &schema });
    let is_unknown = |name: &String| {
        let upper = name.to_ascii_uppercase();
        upper.starts_with("RAGWARD_")
            && !upper.starts_with(PREFIX)
            && name != FILE_VARIABLE
            && name != token::VARIABLE
            && name != called_server::ADDRESS_VARIABLE
            && name != called_server::CA_FILE_VARIABLE
            && variables.refuse(name).is_ok()
    };
    let mut unknown: Vec<String> = names.filter(is_unknown).collect();
    unknown.sort_unstable();
    let with_nearest = |name: String| {
        let nearest = variables.nearest(&name).map(str::to_owned);
        (name, nearest)
    };
    unknown.into_iter().map(with_nearest).collect()
}

/// The variables that Ragward reads, indexed by the letters and digits of their names.
struct Variables {
    /// The right name of each variable.
    known: BTreeMap<String, String>,
    /// The former names of settings, each with the setting's name today and the form of its value.
    former: BTreeMap<String, (String, Form)>,
}

impl Variables {
    fn of(schema: SchemaAt<'_>) -> Self {
        let (mut known, mut former) = (BTreeMap::new(), BTreeMap::new());
        let mut add = |name: &str| {
            if let Some(letters) = letters(name) {
                known.insert(letters, name.to_owned());
            }
        };
        add(FILE_VARIABLE);
        add(token::VARIABLE);
        // `RAGWARD_SERVER` is left out, because `RAGWARD__SERVER` is a section with the same letters.
        add(called_server::CA_FILE_VARIABLE);
        for (key, form) in schema.settings("") {
            let name = variable_of(&key);
            add(&name);
            let Some(form) = form else { continue };
            for former_name in form.former_keys(&key).iter().map(|key| variable_of(key)) {
                if let Some(letters) = letters(&former_name) {
                    former.insert(letters, (name.clone(), form));
                }
            }
        }
        Self { known, former }
    }

    /// Refuses a variable that would set nothing, if the mistake is known: its name has the letters of a setting but
    /// other separators, or it is the former name of a setting.
    fn refuse(&self, name: &str) -> Result<(), ConfigError> {
        let Some(letters) = letters(name) else { return Ok(()) };
        if let Some((new, form)) = self.former.get(&letters) {
            return Err(ConfigError::Renamed { old: name.to_owned(), new: new.clone(), form: form.described() });
        }
        match self.known.get(&letters) {
            Some(right) if !right.eq_ignore_ascii_case(name) => Err(ConfigError::Invalid(format!(
                "the environment variable `{name}` sets nothing; its name must be `{right}`"
            ))),
            Some(_) | None => Ok(()),
        }
    }

    fn nearest(&self, name: &str) -> Option<&str> {
        let name = letters(name)?;
        let likely = self.known.iter().map(|(letters, right)| (strsim::jaro_winkler(letters, &name), right));
        let nearest = likely.max_by(|a, b| a.0.total_cmp(&b.0));
        nearest.filter(|(likeness, _)| *likeness > VARIABLE_LIKENESS_MIN).map(|(_, right)| right.as_str())
    }
}

/// Returns the variable that sets a key.
fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', SEPARATOR))
}

/// Returns the letters and digits after `RAGWARD`, or `None` if the variable is not Ragward's.
fn letters(name: &str) -> Option<String> {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    name.to_ascii_uppercase().strip_prefix(OURS).map(str::to_owned)
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|e| ConfigError::Invalid(format!("cannot read the configuration file `{shown}`: {e}")))?;
    text.parse().map_err(|e: toml::de::Error| ConfigError::Invalid(format!("`{shown}` is not TOML: {e}")))
}

/// Returns the parts of the key that a variable sets, or `None` if the variable is not a setting.
fn key_of(name: &str) -> Option<Vec<String>> {
    let name = name.to_ascii_uppercase();
    let key = name.strip_prefix(PREFIX)?;
    Some(key.split(SEPARATOR).map(str::to_lowercase).collect())
}

/// Reads the value of a variable as the type of its key. Texts, numbers and truth values are written plainly; lists and
/// tables are written as in the file (`['a', 'b']`, `{ a = 1 }`). Returns `None` for an empty text that unsets an
/// optional setting.
fn value_of(name: &str, key: &[String], text: &str, schema: SchemaAt<'_>) -> Result<Option<Value>, ConfigError> {
    let mut at = schema;
    let mut path = String::new();
    for part in key {
        at = at.property(part, &path)?;
        path = joined(&path, part);
    }
    if text.is_empty() && at.is_optional() {
        return Ok(None);
    }
    let wrong = |expected: &str| ConfigError::Invalid(format!("`{name}` must be {expected}"));
    let value = match at.type_name() {
        "integer" => {
            let digits = text.parse::<i64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
            digits.map(Value::Integer).ok_or_else(|| wrong("a whole number"))?
        }
        "number" => {
            let number = text.parse().ok().filter(|number: &f64| number.is_finite());
            number.map(Value::Float).ok_or_else(|| wrong("a number"))?
        }
        "boolean" => match text {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            _ => return Err(wrong("`true` or `false`")),
        },
        "array" => {
            let list = written_value(text).filter(Value::is_array);
            list.ok_or_else(|| wrong("a list as in the file, `['a', 'b']`"))?
        }
        "object" => {
            let table = written_value(text).filter(Value::is_table);
            table.ok_or_else(|| wrong("a table as in the file, `{ a = 1 }`"))?
        }
        _ => Value::String(text.to_owned()),
    };
    check_value(&value, at, &path)?;
    Ok(Some(value))
}

/// Parses a value that is written as in the file. Returns `None` if the text is not exactly one value.
fn written_value(text: &str) -> Option<Value> {
    let mut written = format!("v = {text}").parse::<Table>().ok().filter(|table| table.len() == 1)?;
    written.remove("v")
}

/// Returns the table that holds the last part of a key, if there is one already.
fn existing_section<'t>(settings: &'t mut Table, sections: &[String]) -> Option<&'t mut Table> {
    sections.iter().try_fold(settings, |table, section| table.get_mut(section)?.as_table_mut())
}

/// Returns the table that holds the last part of a key. Returns `None` if the file gives a section another type; that
/// mistake is reported, with its key, after all variables were read.
fn section<'t>(settings: &'t mut Table, sections: &[String]) -> Option<&'t mut Table> {
    let mut table = settings;
    for section in sections {
        table = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new())).as_table_mut()?;
    }
    Some(table)
}

/// Checks that every key of a table is a property of the schema, and everything below it.
fn check_table(settings: &Table, schema: SchemaAt<'_>, path: &str) -> Result<(), ConfigError> {
    for (key, value) in settings {
        check_value(value, schema.property(key, path)?, &joined(path, key))?;
    }
    Ok(())
}

fn check_value(value: &Value, schema: SchemaAt<'_>, path: &str) -> Result<(), ConfigError> {
    match value {
        Value::Table(_) if schema.items().is_some_and(SchemaAt::is_table) => {
            Err(ConfigError::Invalid(format!("`{path}` is a list of tables; write each one under `[[{path}]]`")))
        }
        Value::Table(table) => check_table(table, schema, path),
        Value::Array(_) if schema.is_table() => {
            Err(ConfigError::Invalid(format!("`{path}` is one table; write it under `[{path}]`")))
        }
        Value::Array(items) => {
            let Some(schema) = schema.items() else { return Ok(()) };
            items.iter().try_for_each(|item| check_value(item, schema, path))
        }
        Value::String(text) if text.is_empty() && schema.is_optional() => {
            Err(ConfigError::Invalid(format!("`{path}` is empty; leave the key out if it is to be unset")))
        }
        // Other values are checked by their types.
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => Ok(()),
    }
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A form of values that include their unit.
#[derive(Clone, Copy)]
enum Form {
    Duration,
    ByteSize,
}

impl Form {
    fn described(self) -> &'static str {
        match self {
            Self::Duration => "a duration such as \"500ms\"",
            Self::ByteSize => "a size such as \"64MiB\"",
        }
    }

    /// Returns the keys that a setting had, or might have had, when the unit was part of the key.
    fn former_keys(self, key: &str) -> Vec<String> {
        match self {
            Self::Duration => vec![format!("{key}_ms"), format!("{key}_seconds")],
            Self::ByteSize => vec![key.replace("_size", "_bytes")],
        }
    }
}

/// A place in the schema.
#[derive(Clone, Copy)]
struct SchemaAt<'s> {
    node: &'s Schema,
    root: &'s Schema,
}

impl<'s> SchemaAt<'s> {
    /// Returns the schema of the value. The schema of an optional setting has the form *X or null*; this returns *X*.
    fn value(self) -> &'s Schema {
        let alternatives = self.node.get("anyOf").and_then(Schema::as_array);
        let value = alternatives.and_then(|either| either.iter().find(|schema| !is_null(schema)));
        value.unwrap_or(self.node)
    }

    fn reference(self) -> Option<&'s str> {
        self.value().get("$ref").and_then(Schema::as_str)
    }

    /// Follows a `$ref` into `$defs`.
    fn resolved(self) -> &'s Schema {
        let pointer = self.reference().and_then(|reference| reference.strip_prefix('#'));
        pointer.and_then(|pointer| self.root.pointer(pointer)).unwrap_or_else(|| self.value())
    }

    /// Returns whether the value may be unset.
    fn is_optional(self) -> bool {
        let alternatives = self.node.get("anyOf").and_then(Schema::as_array);
        let types = self.node.get("type").and_then(Schema::as_array);
        alternatives.is_some_and(|either| either.iter().any(is_null))
            || types.is_some_and(|types| types.iter().any(|name| name == "null"))
    }

    /// Returns the name of the value's only type. For a choice of texts it is `string`, and also for sizes, which may
    /// be written as texts.
    fn type_name(self) -> &'s str {
        let schema = self.resolved().get("type");
        let types = schema.and_then(Schema::as_array).map(Vec::as_slice).unwrap_or_default();
        let types: Vec<&str> = types.iter().filter_map(Schema::as_str).filter(|name| *name != "null").collect();
        match types.as_slice() {
            [only] => only,
            [_, ..] => "string",
            [] => schema.and_then(Schema::as_str).unwrap_or("string"),
        }
    }

    fn form(self) -> Option<Form> {
        match self.reference()?.rsplit('/').next()? {
            DURATION_DEFINITION => Some(Form::Duration),
            BYTE_SIZE_DEFINITION => Some(Form::ByteSize),
            _ => None,
        }
    }

    /// Returns the paths of all settings that are not tables of other settings.
    fn settings(self, path: &str) -> Vec<(String, Option<Form>)> {
        let Some(known) = self.resolved().get("properties").and_then(Schema::as_object) else {
            return vec![(path.to_owned(), self.form())];
        };
        // A table that may also be a text is a setting itself.
        let itself = (self.type_name() == "string").then(|| (path.to_owned(), None));
        let below = known.iter().map(|(key, node)| SchemaAt { node, root: self.root }.settings(&joined(path, key)));
        itself.into_iter().chain(below.flatten()).collect()
    }

    /// Returns the schema of a key; `None` for a key that does not exist.
    fn at(self, key: &[String]) -> Option<Self> {
        key.iter().try_fold(self, |at, part| at.property(part, "").ok())
    }

    /// Returns whether the value is a table of settings.
    fn is_table(self) -> bool {
        self.resolved().get("properties").is_some()
    }

    /// Returns the schema of a list's items.
    fn items(self) -> Option<Self> {
        self.resolved().get("items").map(|node| SchemaAt { node, root: self.root })
    }

    fn property(self, key: &str, path: &str) -> Result<Self, ConfigError> {
        let node = self.resolved();
        let known = node.get("properties").and_then(Schema::as_object);
        if let Some(property) = known.and_then(|known| known.get(key)) {
            return Ok(SchemaAt { node: property, root: self.root });
        }
        if let Some(any) = node.get("additionalProperties").filter(|any| any.is_object()) {
            return Ok(SchemaAt { node: any, root: self.root });
        }
        for (name, node) in known.into_iter().flatten() {
            let form = SchemaAt { node, root: self.root }.form();
            if let Some(form) = form.filter(|form| form.former_keys(name).iter().any(|former| former == key)) {
                let (old, new) = (joined(path, key), joined(path, name));
                return Err(ConfigError::Renamed { old, new, form: form.described() });
            }
        }
        let names = known.into_iter().flat_map(serde_json::Map::keys);
        let nearest = names.map(|name| (strsim::jaro_winkler(name, key), name)).max_by(|a, b| a.0.total_cmp(&b.0));
        let suggestion = nearest.filter(|(likeness, _)| *likeness > LIKENESS_MIN).map(|(_, name)| joined(path, name));
        let suggestion = suggestion.or_else(|| self.one_deeper(key, path));
        Err(ConfigError::UnknownKey { key: joined(path, key), suggestion })
    }

    /// Returns the path of a key in one of the tables here, or in a list of tables. It is `None` if none or several have the key.
    fn one_deeper(self, key: &str, path: &str) -> Option<String> {
        let known = self.resolved().get("properties").and_then(Schema::as_object)?;
        let mut tables = known.iter().filter_map(|(table, node)| {
            let below = SchemaAt { node, root: self.root };
            below.items().unwrap_or(below).resolved().get("properties")?.get(key).map(|_key| table)
        });
        match (tables.next(), tables.next()) {
            (Some(table), None) => Some(joined(&joined(path, table), key)),
            _ => None,
        }
    }
}

fn is_null(schema: &Schema) -> bool {
    schema.get("type").is_some_and(|name| name == "null")
}
