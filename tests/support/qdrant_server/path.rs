//! Payload keys: `a.b`, with quotes around names that hold other characters.

use std::collections::HashMap;

use qdrant_client::qdrant::Value;
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use tonic::Status;

/// Returns the names in a path.
pub(super) fn names(path: &str) -> Result<Vec<String>, Status> {
    let malformed = || Status::invalid_argument(format!("Wrong input: Invalid json path: '{path}'"));
    let mut names = Vec::new();
    let mut rest = path;
    loop {
        let (name, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted.split_once('"').ok_or_else(malformed)?
        } else {
            let end = rest.find(|c| !is_plain(c)).unwrap_or(rest.len());
            if end == 0 {
                return Err(malformed());
            }
            rest.split_at(end)
        };
        names.push(name.to_owned());
        if after.is_empty() {
            return Ok(names);
        }
        rest = after.strip_prefix('.').ok_or_else(malformed)?;
    }
}

/// Returns the path of these names as Qdrant writes it.
pub(super) fn path(names: &[String]) -> String {
    let quoted = |name: &String| if name.chars().all(is_plain) { name.clone() } else { format!("\"{name}\"") };
    names.iter().map(quoted).collect::<Vec<_>>().join(".")
}

/// Returns whether a name may hold this character without quotes.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-')
}

/// Returns the values under a path. Each item of a list is a value.
pub(super) fn values<'a>(payload: &'a HashMap<String, Value>, names: &[String]) -> Vec<&'a Value> {
    let Some((first, rest)) = names.split_first() else { return Vec::new() };
    let Some(value) = payload.get(first) else { return Vec::new() };
    match (&value.kind, rest) {
        (Some(Kind::ListValue(list)), []) => list.values.iter().collect(),
        (_, []) => vec![value],
        (Some(Kind::StructValue(fields)), rest) => values(&fields.fields, rest),
        _ => Vec::new(),
    }
}

/// Returns the part of a payload that was asked for.
pub(super) fn selected(
    payload: &HashMap<String, Value>,
    selector: Option<&SelectorOptions>,
) -> Result<HashMap<String, Value>, Status> {
    match selector {
        Some(SelectorOptions::Enable(true)) => Ok(payload.clone()),
        Some(SelectorOptions::Enable(false)) | None => Ok(HashMap::new()),
        Some(SelectorOptions::Include(include)) => {
            let mut selected = HashMap::new();
            for path in &include.fields {
                copy(payload, &names(path)?, &mut selected);
            }
            Ok(selected)
        }
        Some(SelectorOptions::Exclude(exclude)) => {
            let mut left = payload.clone();
            for path in &exclude.fields {
                remove(&mut left, &names(path)?);
            }
            Ok(left)
        }
    }
}

fn remove(from: &mut HashMap<String, Value>, names: &[String]) {
    match names {
        [] => {}
        [name] => drop(from.remove(name)),
        [first, rest @ ..] => {
            if let Some(Value { kind: Some(Kind::StructValue(fields)) }) = from.get_mut(first) {
                remove(&mut fields.fields, rest);
            }
        }
    }
}

fn copy(from: &HashMap<String, Value>, names: &[String], into: &mut HashMap<String, Value>) {
    let Some((first, rest)) = names.split_first() else { return };
    let Some(value) = from.get(first) else { return };
    match (&value.kind, rest) {
        (_, []) => drop(into.insert(first.clone(), value.clone())),
        (Some(Kind::StructValue(fields)), rest) => {
            let nested = into.entry(first.clone()).or_insert_with(|| Value {
                kind: Some(Kind::StructValue(qdrant_client::qdrant::Struct { fields: HashMap::new() })),
            });
            if let Some(Kind::StructValue(inner)) = &mut nested.kind {
                copy(&fields.fields, rest, &mut inner.fields);
            }
        }
        _ => {}
    }
}
