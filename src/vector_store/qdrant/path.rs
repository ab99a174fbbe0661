//! Paths to values in a payload, such as `metadata.source`.

use std::borrow::Cow;

use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::{Struct, Value as Payload};

use super::fields::{Fields, scalar};
use crate::language::tuple::shown;

/// The path to a value in a payload: the names of nested objects, the outermost first. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    first: String,
    rest: Vec<String>,
}

/// The error for a text that is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` must be names with dots between them, without quotes, brackets or backslashes", shown(.0))]
pub struct PathError(String);

impl Path {
    /// Parses names with dots between them.
    ///
    /// # Errors
    /// When a name is empty or has a character that means something in Qdrant's paths.
    pub(super) fn parse(text: &str) -> Result<Self, PathError> {
        let reserved = ['"', '\\', '[', ']'];
        let is_name = |name: &str| !name.is_empty() && !name.contains(reserved) && !name.contains(char::is_control);
        let mut names = text.split('.');
        let first = names.next().unwrap_or_default().to_owned();
        let rest: Vec<String> = names.map(str::to_owned).collect();
        if !is_name(&first) || !rest.iter().all(|name| is_name(name)) {
            return Err(PathError(text.to_owned()));
        }
        Ok(Self { first, rest })
    }

    /// Returns the path that is one name, whatever its characters are.
    pub(super) fn of_key(key: &str) -> Self {
        Self { first: key.to_owned(), rest: Vec::new() }
    }

    pub(super) fn first(&self) -> &str {
        &self.first
    }

    /// Returns whether the value is at the top of the payload.
    pub(super) fn is_top(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns whether the value of `other` lies within the value of this path, or is the same.
    pub(super) fn leads_to(&self, other: &Self) -> bool {
        self.first == other.first && other.rest.starts_with(&self.rest)
    }

    /// Returns the path as Qdrant writes it in filters, selectors and indexes.
    pub(super) fn key(&self) -> String {
        let names: Vec<Cow<'_, str>> = self.names().map(|name| quoted_if_needed(name)).collect();
        names.join(".")
    }

    /// Returns the first name in quotes; `None` for a name that cannot be quoted.
    pub(super) fn quoted(&self) -> Option<String> {
        quote(&self.first)
    }

    /// Returns the path to a name within the object at this path; `None` for a name that cannot be quoted.
    pub(super) fn child(&self, name: &str) -> Option<String> {
        Some(format!("{}.{}", self.key(), quote(name)?))
    }

    /// Finds the value in a payload.
    pub(super) fn find<'a>(&self, payload: &'a Fields) -> Option<&'a Payload> {
        let mut value = payload.get(&self.first)?;
        for name in &self.rest {
            value = match value.kind.as_ref()? {
                Kind::StructValue(Struct { fields }) => fields.get(name)?,
                Kind::NullValue(_)
                | Kind::DoubleValue(_)
                | Kind::IntegerValue(_)
                | Kind::BoolValue(_)
                | Kind::StringValue(_)
                | Kind::ListValue(_) => return None,
            };
        }
        Some(value)
    }

    /// Reads the text, or the whole number as text. If the path goes on within a text, that text is read as JSON,
    /// because `LlamaIndex` keeps a node that way.
    pub(super) fn text<'a>(&self, payload: &'a Fields) -> Option<Cow<'a, str>> {
        if let Some(value) = self.find(payload) {
            return scalar(value);
        }
        let (name, within) = self.rest.split_first()?;
        match payload.get(&self.first)?.kind.as_ref()? {
            Kind::StringValue(json) => {
                let json: serde_json::Value = serde_json::from_str(json).ok()?;
                let mut value = json.get(name)?;
                for name in within {
                    value = value.get(name)?;
                }
                value.as_str().map(|text| Cow::Owned(text.to_owned()))
            }
            Kind::NullValue(_)
            | Kind::DoubleValue(_)
            | Kind::IntegerValue(_)
            | Kind::BoolValue(_)
            | Kind::StructValue(_)
            | Kind::ListValue(_) => None,
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.first.as_str()).chain(self.rest.iter().map(String::as_str))
    }
}

fn quote(name: &str) -> Option<String> {
    let nameable = !name.contains(['"', '\\']);
    nameable.then(|| format!("\"{name}\""))
}

fn quoted_if_needed(name: &str) -> Cow<'_, str> {
    // A name is quoted where Qdrant quotes it, because an index is looked up by the name that Qdrant gives it.
    let is_plain = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    if is_plain { Cow::Borrowed(name) } else { Cow::Owned(format!("\"{name}\"")) }
}
