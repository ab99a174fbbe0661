//! The condition of a relationship tuple: its name, and the values stored for its parameters.

use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::{CONTEXT_BYTES_MAX, ParseError, RELATION_CHARS_MAX, check_name};

/// A value never has more than this many bytes on the wire for each byte of its JSON. Shorter JSON needs no measuring.
const WIRE_BYTES_PER_JSON_BYTE_MAX: usize = 16;
/// 2^53. Above it, not every whole number is a double.
const WHOLE_DOUBLE_MAX: f64 = 9_007_199_254_740_992.0;

/// The name of a condition and the stored part of its context. The context is kept as canonical JSON, so that equal
/// contexts are equal values: names are sorted, and numbers are the doubles that they are on `OpenFGA`'s wire.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TupleCondition {
    name: Arc<str>,
    context: Arc<str>,
}

impl TupleCondition {
    /// Names a condition and stores `context` with it.
    ///
    /// # Errors
    /// If the name is malformed.
    pub fn new(name: &str, context: Map<String, Value>) -> Result<Self, ParseError> {
        check_name("condition", name, RELATION_CHARS_MAX)?;
        let context = if context.is_empty() { "{}".to_owned() } else { Value::Object(canonical(context)).to_string() };
        Ok(Self { name: name.into(), context: context.into() })
    }

    /// Like [`TupleCondition::new`], with the context as JSON text. An empty text is an empty context.
    ///
    /// # Errors
    /// If the name is malformed or the text is not a JSON object.
    pub fn parse(name: &str, context: &str) -> Result<Self, ParseError> {
        if context.trim().is_empty() {
            return Self::new(name, Map::new());
        }
        match serde_json::from_str(context) {
            Ok(context) => Self::new(name, context),
            Err(e) => Err(ParseError::new("condition", name, format!("has a context that is no JSON object: {e}"))),
        }
    }

    /// Returns the condition's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the stored values of the condition's parameters.
    #[must_use]
    pub fn context(&self) -> Map<String, Value> {
        // `context` was written from a map, so it parses as one.
        serde_json::from_str(&self.context).unwrap_or_default()
    }

    /// Returns the size of the context in bytes if it is too long to be stored.
    #[must_use]
    pub fn excess_bytes(&self) -> Option<usize> {
        if self.context.len() * WIRE_BYTES_PER_JSON_BYTE_MAX <= CONTEXT_BYTES_MAX {
            return None;
        }
        Some(fields_wire_bytes(&self.context())).filter(|bytes| *bytes > CONTEXT_BYTES_MAX)
    }

    /// Returns the stored values of the condition's parameters as canonical JSON.
    #[must_use]
    pub fn context_json(&self) -> &str {
        &self.context
    }

    /// Returns the size in bytes as `OpenFGA`'s protobuf message `RelationshipCondition`.
    pub(super) fn wire_bytes(&self) -> usize {
        delimited(self.name.len()) + delimited(fields_wire_bytes(&self.context()))
    }
}

/// Returns the size of a `google.protobuf.Struct` in bytes. The recursion is bounded because JSON's nesting is.
pub(crate) fn fields_wire_bytes(fields: &Map<String, Value>) -> usize {
    let entry = |(name, value): (&String, &Value)| delimited(delimited(name.len()) + delimited(wire_bytes(value)));
    fields.iter().map(entry).sum()
}

/// Returns the size of a `google.protobuf.Value` in bytes.
fn wire_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 2,
        Value::Number(_) => 9,
        Value::String(text) => delimited(text.len()),
        Value::Array(items) => delimited(items.iter().map(|item| delimited(wire_bytes(item))).sum()),
        Value::Object(fields) => delimited(fields_wire_bytes(fields)),
    }
}

/// Returns the size of a length-delimited field: a tag of one byte, the length in seven bits a byte, and the content.
pub(crate) fn delimited(bytes: usize) -> usize {
    let length_bits = usize::BITS - (bytes | 1).leading_zeros();
    1 + usize::try_from(length_bits.div_ceil(7)).unwrap_or_default() + bytes
}

/// Sorts by name, whatever map `serde_json` was built with. The recursion is bounded because the JSON reader bounds
/// nesting.
fn canonical(object: Map<String, Value>) -> Map<String, Value> {
    let mut entries: Vec<(String, Value)> = object.into_iter().collect();
    entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    entries.into_iter().map(|(name, value)| (name, canonical_value(value))).collect()
}

pub(crate) fn canonical_value(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(canonical_number(&number)),
        Value::Array(items) => Value::Array(items.into_iter().map(canonical_value).collect()),
        Value::Object(object) => Value::Object(canonical(object)),
        other @ (Value::Null | Value::Bool(_) | Value::String(_)) => other,
    }
}

fn canonical_number(number: &Number) -> Number {
    let Some(double) = number.as_f64() else {
        return number.clone();
    };
    if double.fract() == 0.0 && double.abs() <= WHOLE_DOUBLE_MAX {
        // A whole double prints without a fraction, so the text parses as an integer.
        if let Ok(whole) = format!("{double:.0}").parse::<i64>() {
            return Number::from(whole);
        }
    }
    Number::from_f64(double).unwrap_or_else(|| number.clone())
}

/// Returns whether no name and no text within the value holds a control character. The recursion is bounded because
/// JSON's nesting is.
pub(crate) fn is_clean(value: &Value) -> bool {
    let clean = |text: &str| !text.contains(char::is_control);
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => clean(text),
        Value::Array(items) => items.iter().all(is_clean),
        Value::Object(fields) => fields.iter().all(|(name, value)| clean(name) && is_clean(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_contexts_are_equal_values() {
        let rows = [
            (r#"{"b": 1, "a": [1.0, "x"]}"#, r#"{"a":[1,"x"],"b":1}"#),
            (r#"{"a": {"z": null, "y": -0.0}}"#, r#"{"a":{"y":0,"z":null}}"#),
            (r#"{"a": 0.5, "b": 9007199254740993}"#, r#"{"a":0.5,"b":9007199254740992}"#),
            (r#"{"a": "1", "b": true}"#, r#"{"a":"1","b":true}"#),
            ("", "{}"),
        ];
        for (written, kept) in rows {
            let condition = TupleCondition::parse("c", written).expect(written);
            assert_eq!(condition.context_json(), kept, "{written}");
            assert_eq!(TupleCondition::new("c", condition.context()).expect("again"), condition, "{written}");
        }
    }

    /// The expected sizes are those that `prost` encodes the same values to.
    #[test]
    fn a_long_context_is_measured_as_on_the_wire() {
        let text = |value: &str| format!(r#"{{"a": {value}}}"#);
        let rows = [
            (text(&format!("\"{}\"", "x".repeat(32_750))), None),
            (text(&format!("\"{}\"", "x".repeat(32_754))), Some(32_769)),
            (text(&format!("\"{}\"", r#"\""#.repeat(32_000))), None),
            (text(&format!("[{}1]", "1,".repeat(2_900))), None),
            (text(&format!("[{}1]", "1,".repeat(3_000))), Some(33_026)),
            (text(r#"[null, true, {"b": []}]"#), None),
        ];
        for (context, expected) in rows {
            assert_eq!(
                TupleCondition::parse("c", &context).expect("a context").excess_bytes(),
                expected,
                "{context:.40}"
            );
        }
    }

    #[test]
    fn what_is_no_context_is_refused() {
        let deep = format!(r#"{{"a": {}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        let rows = [
            ("c", "[1]", "no JSON object"),
            ("c", deep.as_str(), "no JSON object"),
            ("a:b", "{}", "must not contain"),
            ("", "{}", "must not be empty"),
        ];
        for (name, context, expected) in rows {
            let refused = TupleCondition::parse(name, context).expect_err(expected).to_string();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
