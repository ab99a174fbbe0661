//! Reads YAML the way `OpenFGA`'s tools do, which use Go's `yaml.v3`.
//!
//! The versions of YAML disagree about scalars without quotes: `yes` is a text in YAML 1.2 and true in YAML 1.1. Go
//! takes it for either, depending on the field's type. A reader for YAML 1.2 hides whether a scalar had quotes, so this
//! module reads the parser's events itself.

mod node;
mod scalar;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use node::{Content, Node};
use scalar::Resolved;

/// A mistake in a text, with its line if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct YamlError {
    line: Option<usize>,
    detail: String,
}

impl YamlError {
    fn at(line: usize, detail: impl Into<String>) -> Self {
        Self { line: Some(line), detail: detail.into() }
    }

    /// Adds the line to an error that `serde` made without one.
    fn within(self, line: usize) -> Self {
        Self { line: self.line.or(Some(line)), ..self }
    }
}

impl Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

impl std::error::Error for YamlError {}

impl serde::de::Error for YamlError {
    fn custom<T: Display>(detail: T) -> Self {
        Self { line: None, detail: detail.to_string() }
    }
}

/// Parses a text that holds one document.
///
/// # Errors
/// When the text is not YAML, holds no document or several, or does not fit the type.
pub(super) fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    let root = node::document(text)?;
    T::deserialize(Value(&root))
}

/// Returns the line in which the value of `name` begins, in a text that is a mapping. For a block after a `|`, that is
/// its first line that is not blank.
pub(super) fn line_of(text: &str, name: &str) -> Option<usize> {
    let root = node::document(text).ok()?;
    let Content::Mapping(entries) = &root.content else { return None };
    let entries = node::merged(entries, root.line).ok()?;
    let is_named = |node: &Node<'_>| matches!(&node.content, Content::Scalar(scalar) if scalar.text == name);
    entries.into_iter().find(|(key, _)| is_named(key)).map(|(_, value)| value.line)
}

/// Deserializes a node.
#[derive(Clone, Copy)]
struct Value<'n, 't>(&'n Node<'t>);

impl Value<'_, '_> {
    fn resolved(self) -> Result<Option<Resolved>, YamlError> {
        match &self.0.content {
            Content::Scalar(scalar) => Ok(Some(scalar.resolve().map_err(|e| YamlError::at(self.0.line, e))?)),
            Content::Sequence(_) | Content::Mapping(_) => Ok(None),
        }
    }

    fn is_null(self) -> Result<bool, YamlError> {
        Ok(matches!(self.resolved()?, Some(Resolved::Null)))
    }

    fn unexpected<T>(self, wanted: &str) -> Result<T, YamlError> {
        let found = match &self.0.content {
            Content::Scalar(scalar) => format!("`{}`", scalar.text),
            Content::Sequence(_) => "a list".to_owned(),
            Content::Mapping(_) => "a mapping".to_owned(),
        };
        Err(YamlError::at(self.0.line, format!("{found} is not {wanted}")))
    }

    /// Returns the text of a scalar as it is written. As in Go, null is the empty text.
    fn text(self) -> Result<String, YamlError> {
        match (&self.0.content, self.resolved()?) {
            (_, Some(Resolved::Null)) => Ok(String::new()),
            (_, Some(Resolved::Binary(text))) => Ok(text),
            (Content::Scalar(scalar), Some(_)) => Ok(scalar.text.to_string()),
            _ => self.unexpected("a text"),
        }
    }
}

impl<'de> Deserializer<'de> for Value<'_, '_> {
    type Error = YamlError;

    /// Deserializes a value of a context, which is the only place without a fixed type.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        let line = self.0.line;
        match &self.0.content {
            Content::Sequence(items) => visitor.visit_seq(Items { rest: items.iter(), nulls: Nulls::Kept }),
            Content::Mapping(entries) => {
                let mut pairs = Vec::new();
                for (key, value) in node::merged(entries, line)? {
                    if !matches!(Value(key).resolved()?, Some(Resolved::Text(_))) {
                        return Value(key).unexpected("a text, which a name in a context must be; put it in quotes");
                    }
                    pairs.push((key, value));
                }
                visitor.visit_map(Entries::new(pairs))
            }
            Content::Scalar(scalar) => match scalar.resolve().map_err(|e| YamlError::at(line, e))? {
                Resolved::Null => visitor.visit_unit(),
                Resolved::Bool(value) => visitor.visit_bool(value),
                Resolved::Integer(value) => visitor.visit_i64(value),
                Resolved::Unsigned(value) => visitor.visit_u64(value),
                Resolved::Float(value) if value.is_finite() => visitor.visit_f64(value),
                Resolved::Float(_) => self.unexpected("a number that JSON has"),
                Resolved::Timestamp => {
                    self.unexpected("a value of a context: YAML takes it for a time; put it in quotes")
                }
                Resolved::Text(text) | Resolved::Binary(text) => visitor.visit_string(text),
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        match self.resolved()? {
            Some(Resolved::Bool(value)) => visitor.visit_bool(value),
            Some(Resolved::Text(text)) => match scalar::old_bool(&text) {
                Some(value) => visitor.visit_bool(value),
                None => self.unexpected("true or false without quotes"),
            },
            _ => self.unexpected("true or false without quotes"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        visitor.visit_string(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        if self.is_null()? { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    /// Deserializes a list of one type. As in Go, nulls in it are left out.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        match &self.0.content {
            Content::Sequence(items) => visitor.visit_seq(Items { rest: items.iter(), nulls: Nulls::LeftOut }),
            Content::Scalar(_) | Content::Mapping(_) => self.unexpected("a list"),
        }
    }

    /// Deserializes a mapping with any names. Scalars are texts as they are written, and an entry whose name is null is
    /// left out.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        let Content::Mapping(entries) = &self.0.content else { return self.unexpected("a mapping") };
        let mut pairs = Vec::new();
        for (key, value) in node::merged(entries, self.0.line)? {
            if !Value(key).is_null()? {
                pairs.push((key, value));
            }
        }
        visitor.visit_map(Entries::new(pairs))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, YamlError> {
        if self.is_null()? {
            return visitor.visit_map(Entries::new(Vec::new()));
        }
        self.deserialize_map(visitor).map_err(|e| e.within(self.0.line))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct
        enum identifier ignored_any
    }
}

#[derive(Clone, Copy)]
enum Nulls {
    Kept,
    LeftOut,
}

struct Items<'n, 't> {
    rest: std::slice::Iter<'n, std::rc::Rc<Node<'t>>>,
    nulls: Nulls,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = YamlError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, YamlError> {
        for item in self.rest.by_ref() {
            let item = Value(item);
            if matches!(self.nulls, Nulls::LeftOut) && item.is_null()? {
                continue;
            }
            return seed.deserialize(item).map(Some).map_err(|e| e.within(item.0.line));
        }
        Ok(None)
    }
}

/// The entries of a mapping. `serde` asks for each name before its value.
struct Entries<'n, 't> {
    rest: std::vec::IntoIter<(&'n Node<'t>, &'n Node<'t>)>,
    value: Option<&'n Node<'t>>,
}

impl<'n, 't> Entries<'n, 't> {
    fn new(pairs: Vec<(&'n Node<'t>, &'n Node<'t>)>) -> Self {
        Self { rest: pairs.into_iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = YamlError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, YamlError> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        let name = Value(key).text()?;
        let name = StrDeserializer::<YamlError>::new(&name);
        seed.deserialize(name).map(Some).map_err(|e| e.within(key.line))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, YamlError> {
        let value = self.value.take().ok_or_else(|| YamlError::custom("a value was asked for ahead of its name"))?;
        seed.deserialize(Value(value)).map_err(|e| e.within(value.line))
    }
}
