//! The layers that a configuration is read from, and how a variable of the environment becomes a setting.
//!
//! A variable has the type that the schema gives its key, never the one that its text looks like: a store that is called
//! `007` is not store 7.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Schema;
use toml::{Table, Value};

use super::{Config, ConfigError, token};

/// What a variable that is a setting begins with; `__` stands for the dots of its key.
const PREFIX: &str = "RAGWARD__";
const SEPARATOR: &str = "__";
/// What every variable of ours begins with. A platform makes such variables, too: Kubernetes makes `RAGWARD_SERVICE_HOST` for a
/// service that is called `ragward`.
const OURS: &str = "RAGWARD";
/// The variable that `cli` takes the path of the file from.
const FILE_VARIABLE: &str = "RAGWARD_CONFIG";
/// The sections with a `kind`, each with the kind that is a server, and the tables that only this kind uses.
const SERVERS: [(&str, &str, &[&str]); 2] =
    [("authorizer", "openfga", &["openfga", "checks", "replica"]), ("vector_store", "qdrant", &["qdrant"])];
/// How alike two keys must be for one to be suggested in place of the other.
const LIKENESS_MIN: f64 = 0.75;
/// The same for whole variables, most of whose letters are those of a section.
const VARIABLE_LIKENESS_MIN: f64 = 0.9;

/// Reads the file and the environment; what is in neither has its default.
pub(super) fn read(
    file: Option<&Path>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Config, ConfigError> {
    let schema = Config::schema();
    let schema = SchemaAt { node: &schema, root: &schema };
    let mut settings = file.map(read_file).transpose()?.unwrap_or_default();
    check_keys(&settings, schema, "")?;
    let variables = Variables::of(schema);
    let mut seen = BTreeMap::new();
    for (name, text) in environment {
        let Some(name) = name.to_str().map(str::to_owned) else { continue };
        if let Some(right) = variables.misspelt(&name) {
            let text = format!("the environment variable `{name}` sets nothing; its name must be `{right}`");
            return Err(ConfigError::Invalid(text));
        }
        let Some(key) = key_of(&name) else { continue };
        if let Some(other) = seen.insert(key.clone(), name.clone()) {
            return Err(ConfigError::Invalid(format!("`{name}` and `{other}` set the same key")));
        }
        let text = text.into_string().map_err(|_raw| ConfigError::Invalid(format!("`{name}` is not UTF-8")))?;
        let value = value_of(&name, &key, &text, schema)?;
        set(&mut settings, &key, value);
    }
    refuse_unchosen(&settings)?;
    Config::deserialize(settings).map_err(|e| ConfigError::Invalid(e.to_string().trim_end().replace('\n', " ")))
}

/// The settings of a server tell that it is meant to be used. Where no `kind` says so, the embedded engine would be used in its
/// place, and another store would decide what may be seen.
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

/// Variables that begin as ours do and mean nothing to us, each with the one that is most likely meant. Those that [`read`]
/// refuses are not among them.
pub(super) fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<(String, Option<String>)> {
    let schema = Config::schema();
    let variables = Variables::of(SchemaAt { node: &schema, root: &schema });
    let is_unknown = |name: &String| {
        let upper = name.to_ascii_uppercase();
        upper.starts_with("RAGWARD_")
            && !upper.starts_with(PREFIX)
            && name != FILE_VARIABLE
            && name != token::VARIABLE
            && variables.misspelt(name).is_none()
    };
    let mut unknown: Vec<String> = names.filter(is_unknown).collect();
    unknown.sort_unstable();
    let with_nearest = |name: String| {
        let nearest = variables.nearest(&name).map(str::to_owned);
        (name, nearest)
    };
    unknown.into_iter().map(with_nearest).collect()
}

/// All variables that mean something to us, by their letters and digits.
struct Variables(BTreeMap<String, String>);

impl Variables {
    fn of(schema: SchemaAt<'_>) -> Self {
        let settings = schema.settings("");
        let settings = settings.iter().map(|key| format!("{PREFIX}{}", key.to_uppercase().replace('.', SEPARATOR)));
        let all = settings.chain([FILE_VARIABLE.to_owned(), token::VARIABLE.to_owned()]);
        Self(all.filter_map(|name| Some((letters(&name)?, name))).collect())
    }

    /// The variable that a name is, but for what stands between its letters.
    fn misspelt(&self, name: &str) -> Option<&str> {
        let right = self.0.get(&letters(name)?)?;
        (!right.eq_ignore_ascii_case(name)).then_some(right)
    }

    fn nearest(&self, name: &str) -> Option<&str> {
        let name = letters(name)?;
        let likely = self.0.iter().map(|(letters, right)| (strsim::jaro_winkler(letters, &name), right));
        let nearest = likely.max_by(|a, b| a.0.total_cmp(&b.0));
        nearest.filter(|(likeness, _)| *likeness > VARIABLE_LIKENESS_MIN).map(|(_, right)| right.as_str())
    }
}

/// The letters and digits after `RAGWARD`; `None` for a variable that is not ours.
fn letters(name: &str) -> Option<String> {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    name.to_ascii_uppercase().strip_prefix(OURS).map(str::to_owned)
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|e| ConfigError::Invalid(format!("cannot read the configuration file `{shown}`: {e}")))?;
    text.parse().map_err(|e: toml::de::Error| ConfigError::Invalid(format!("`{shown}` is no TOML: {e}")))
}

/// The parts of the key that a variable sets; `None` for all others.
fn key_of(name: &str) -> Option<Vec<String>> {
    let name = name.to_ascii_uppercase();
    let key = name.strip_prefix(PREFIX)?;
    Some(key.split(SEPARATOR).map(str::to_lowercase).collect())
}

/// The value of a variable, by the type of its key: a text, a number and a truth value as they are, a list and a map as in
/// the file, `['a', 'b']` and `{ a = 1 }`.
fn value_of(name: &str, key: &[String], text: &str, schema: SchemaAt<'_>) -> Result<Value, ConfigError> {
    let mut at = schema;
    let mut path = String::new();
    for part in key {
        at = at.property(part, &path)?;
        path = joined(&path, part);
    }
    let wrong = |expected: &str| ConfigError::Invalid(format!("`{name}` must be {expected}"));
    match at.type_name() {
        "integer" => {
            let digits = text.parse::<i64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
            digits.map(Value::Integer).ok_or_else(|| wrong("a whole number"))
        }
        "number" => {
            let number = text.parse().ok().filter(|number: &f64| number.is_finite());
            number.map(Value::Float).ok_or_else(|| wrong("a number"))
        }
        "boolean" => match text {
            "true" => Ok(Value::Boolean(true)),
            "false" => Ok(Value::Boolean(false)),
            _ => Err(wrong("`true` or `false`")),
        },
        kind @ ("array" | "object") => {
            let written = format!("v = {text}").parse::<Table>().ok().filter(|table| table.len() == 1);
            let value = written.and_then(|mut table| table.remove("v"));
            let value = value.filter(|value| if kind == "array" { value.is_array() } else { value.is_table() });
            let value = value.ok_or_else(|| {
                wrong(if kind == "array" {
                    "a list as in the file, `['a', 'b']`"
                } else {
                    "a table as in the file, `{ a = 1 }`"
                })
            })?;
            if let Value::Table(table) = &value {
                check_keys(table, at, &path)?;
            }
            Ok(value)
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn set(settings: &mut Table, key: &[String], value: Value) {
    let Some((last, sections)) = key.split_last() else { return };
    let mut table = settings;
    for section in sections {
        let entry = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
        // A section that the file gives another type is refused with the key, once the variables are in.
        let Value::Table(inner) = entry else { return };
        table = inner;
    }
    table.insert(last.clone(), value);
}

/// Every key must be a property of the schema.
fn check_keys(settings: &Table, schema: SchemaAt<'_>, path: &str) -> Result<(), ConfigError> {
    for (key, value) in settings {
        let property = schema.property(key, path)?;
        if let Value::Table(inner) = value {
            check_keys(inner, property, &joined(path, key))?;
        }
    }
    Ok(())
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A place in the schema.
#[derive(Clone, Copy)]
struct SchemaAt<'s> {
    node: &'s Schema,
    root: &'s Schema,
}

impl<'s> SchemaAt<'s> {
    /// Follows a `$ref` into `$defs`.
    fn resolved(self) -> &'s Schema {
        let reference = self.node.get("$ref").and_then(Schema::as_str).and_then(|r| r.strip_prefix('#'));
        reference.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(self.node)
    }

    /// `string` for what is one of some texts, too.
    fn type_name(self) -> &'s str {
        self.resolved().get("type").and_then(Schema::as_str).unwrap_or("string")
    }

    /// The paths of all settings that hold no others.
    fn settings(self, path: &str) -> Vec<String> {
        let Some(known) = self.resolved().get("properties").and_then(Schema::as_object) else {
            return vec![path.to_owned()];
        };
        let below = known.iter().map(|(key, node)| SchemaAt { node, root: self.root }.settings(&joined(path, key)));
        below.flatten().collect()
    }

    fn property(self, key: &str, path: &str) -> Result<SchemaAt<'s>, ConfigError> {
        let node = self.resolved();
        let known = node.get("properties").and_then(Schema::as_object);
        if let Some(property) = known.and_then(|known| known.get(key)) {
            return Ok(SchemaAt { node: property, root: self.root });
        }
        if let Some(any) = node.get("additionalProperties").filter(|any| any.is_object()) {
            return Ok(SchemaAt { node: any, root: self.root });
        }
        let names = known.into_iter().flat_map(serde_json::Map::keys);
        let nearest = names.map(|name| (strsim::jaro_winkler(name, key), name)).max_by(|a, b| a.0.total_cmp(&b.0));
        let suggestion = nearest.filter(|(likeness, _)| *likeness > LIKENESS_MIN).map(|(_, name)| joined(path, name));
        Err(ConfigError::UnknownKey { key: joined(path, key), suggestion })
    }
}
