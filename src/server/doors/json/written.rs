//! Writes the message of an answer as JSON, straight from its descriptor.
//!
//! Equal answers are equal bytes: fields come in the order of their numbers, and the keys of a map are sorted.

use std::fmt::Display;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage, SerializeOptions, Value};
use prost_reflect::{FieldDescriptor, MessageDescriptor};
use serde::ser::{Error, SerializeMap};
use serde::{Serialize, Serializer};
use tonic::codegen::Bytes;

use super::GOOGLE;
use crate::server::refusal::Refusal;

/// The way in which an answer shows a message field that is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server::doors) enum UnsetMessages {
    LeftOut,
    /// As `null`, unless the field is one of several alternatives. `OpenFGA`'s gateway writes them so.
    Null,
}

/// Writes an encoded message as JSON.
///
/// # Errors
/// When the bytes are not this message: a defect, of which the log tells.
pub(in crate::server::doors) fn written(
    descriptor: &MessageDescriptor,
    message: Bytes,
    unset: UnsetMessages,
) -> Result<Vec<u8>, Refusal> {
    // The JSON of an answer is seldom more than a quarter larger than its message.
    let mut json = Vec::with_capacity(message.len() + message.len() / 4);
    let message = DynamicMessage::decode(descriptor.clone(), message).map_err(|error| lost(descriptor, &error))?;
    let answer = Shown { value: &message, unset };
    answer.serialize(&mut serde_json::Serializer::new(&mut json)).map_err(|error| lost(descriptor, &error))?;
    Ok(json)
}

/// Returns the JSON of an encoded message, for a place inside of other JSON.
///
/// # Errors
/// When the bytes are not this message: a defect, of which the log tells.
pub(in crate::server::doors) fn value(
    descriptor: &MessageDescriptor,
    message: Bytes,
    unset: UnsetMessages,
) -> Result<serde_json::Value, Refusal> {
    let message = DynamicMessage::decode(descriptor.clone(), message).map_err(|error| lost(descriptor, &error))?;
    serde_json::to_value(Shown { value: &message, unset }).map_err(|error| lost(descriptor, &error))
}

fn lost(descriptor: &MessageDescriptor, error: &dyn Display) -> Refusal {
    tracing::error!(%error, message = descriptor.full_name(), "an answer cannot be written as JSON");
    Refusal::lost()
}

/// A message, or a value of one of its fields, as its JSON shows it.
struct Shown<'a, T> {
    value: &'a T,
    unset: UnsetMessages,
}

/// A value of a field. Its JSON depends on the kind of the field.
#[derive(Clone, Copy)]
struct FieldValue<'a> {
    value: &'a Value,
    kind: &'a Kind,
}

impl Serialize for Shown<'_, DynamicMessage> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let descriptor = self.value.descriptor();
        if descriptor.package_name() == GOOGLE {
            return google_json(self.value).map_err(S::Error::custom)?.serialize(serializer);
        }
        let mut object = serializer.serialize_map(None)?;
        for field in descriptor.fields() {
            if self.value.has_field(&field) || !field.supports_presence() {
                let value = FieldValue { value: &self.value.get_field(&field), kind: &field.kind() };
                object.serialize_entry(field.json_name(), &Shown { value: &value, unset: self.unset })?;
            } else if self.unset == UnsetMessages::Null && is_lone_message(&field) {
                object.serialize_entry(field.json_name(), &())?;
            }
        }
        object.end()
    }
}

impl Serialize for Shown<'_, FieldValue<'_>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let FieldValue { value, kind } = *self.value;
        match value {
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::I32(value) => serializer.serialize_i32(*value),
            Value::U32(value) => serializer.serialize_u32(*value),
            // Many readers of JSON keep numbers as doubles, which do not hold these.
            Value::I64(value) => serializer.collect_str(value),
            Value::U64(value) => serializer.collect_str(value),
            Value::F32(value) if value.is_finite() => serializer.serialize_f32(*value),
            Value::F32(value) => serializer.serialize_str(not_finite(f64::from(*value))),
            Value::F64(value) if value.is_finite() => serializer.serialize_f64(*value),
            Value::F64(value) => serializer.serialize_str(not_finite(*value)),
            Value::String(value) => serializer.serialize_str(value),
            Value::Bytes(value) => serializer.collect_str(&Base64Display::new(value, &STANDARD)),
            Value::EnumNumber(number) => match kind.as_enum().and_then(|values| values.get_value(*number)) {
                Some(named) => serializer.serialize_str(named.name()),
                None => serializer.serialize_i32(*number),
            },
            Value::Message(message) => Shown { value: message, unset: self.unset }.serialize(serializer),
            Value::List(values) => {
                let values: Vec<FieldValue<'_>> = values.iter().map(|value| FieldValue { value, kind }).collect();
                serializer.collect_seq(values.iter().map(|value| Shown { value, unset: self.unset }))
            }
            Value::Map(values) => {
                let entry = kind.as_message().ok_or_else(|| S::Error::custom("a map is not one of entries"))?;
                let kind = entry.map_entry_value_field().kind();
                let with_kind = |(key, value)| (key, FieldValue { value, kind: &kind });
                let mut values: Vec<(&MapKey, FieldValue<'_>)> = values.iter().map(with_kind).collect();
                values.sort_unstable_by_key(|(key, _)| *key);
                let shown = values.iter().map(|(key, value)| (key_text(key), Shown { value, unset: self.unset }));
                serializer.collect_map(shown)
            }
        }
    }
}

/// Returns the JSON of one of Google's own types. The tree keeps the keys of structures sorted.
fn google_json(message: &DynamicMessage) -> Result<serde_json::Value, serde_json::Error> {
    message.serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new().skip_default_fields(false))
}

/// Tells whether a field holds one message, and is not an alternative of other fields.
fn is_lone_message(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(_)) && field.containing_oneof().is_none()
}

const fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value.is_sign_positive() {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// Returns the key of a map as the text that JSON demands.
fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::server::reflection;

    /// Returns a message of a type, made of JSON.
    fn message(name: &str, json: &Json) -> DynamicMessage {
        let descriptor = reflection::pool().unwrap().get_message_by_name(name).unwrap();
        DynamicMessage::deserialize(descriptor, json).unwrap()
    }

    fn written_text(message: &DynamicMessage, unset: UnsetMessages) -> String {
        let json = written(&message.descriptor(), message.encode_to_vec().into(), unset).unwrap();
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn an_answer_is_the_json_of_protocol_buffers() {
        let rows = [
            ("ragward.retrieval.v1.RetrieveResponse", json!({})),
            (
                "ragward.retrieval.v1.RetrieveResponse",
                json!({
                    "chunks": [{
                        "id": "a\"\n\u{1f600}",
                        "score": 0.25,
                        "metadata": {
                            "year": { "intValue": "-9007199254740993" },
                            "draft": { "boolValue": false },
                            "area": { "stringValue": "" },
                            "share": { "doubleValue": 1e300 },
                        },
                    }, {}],
                    "completion": "COMPLETION_EXHAUSTED",
                }),
            ),
            ("ragward.retrieval.v1.ExplainResponse", json!({ "asOf": "2026-01-02T03:04:05.000000006Z" })),
            (
                "openfga.v1.ReadResponse",
                json!({ "tuples": [{ "key": { "user": "user:anne", "condition": {
                    "name": "c", "context": { "b": [1.5, null, { "y": 1.0, "x": "" }], "a": true },
                } } }] }),
            ),
        ];
        for (name, json) in rows {
            let message = message(name, &json);
            // The library's own writer is the measure.
            let expected = google_json(&message).unwrap();
            let text = written_text(&message, UnsetMessages::LeftOut);
            assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), expected, "{name}: {json}");
        }
    }

    #[test]
    fn numbers_that_json_lacks_are_named() {
        let numbers = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        for (number, name) in numbers.into_iter().zip(["NaN", "Infinity", "-Infinity"]) {
            let mut value = message("ragward.metadata.v1.Value", &json!({}));
            value.set_field_by_name("double_value", Value::F64(number));
            let expected = format!(r#"{{"doubleValue":"{name}"}}"#);
            assert_eq!(written_text(&value, UnsetMessages::LeftOut), expected, "{name}");
        }
    }

    #[test]
    fn equal_answers_are_equal_bytes() {
        let keys: Vec<String> = (0..20).map(|number| format!("key{number:02}")).collect();
        let metadata: serde_json::Map<String, Json> =
            keys.iter().rev().map(|key| (key.clone(), json!({ "boolValue": true }))).collect();
        let message = message("ragward.retrieval.v1.Chunk", &json!({ "metadata": metadata }));
        let text = written_text(&message, UnsetMessages::LeftOut);
        let places: Vec<Option<usize>> = keys.iter().map(|key| text.find(key.as_str())).collect();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{text}");
    }

    #[test]
    fn openfgas_answers_show_messages_that_are_not_set() {
        let rows = [
            ("openfga.v1.Tuple", json!({}), r#"{"key":null,"timestamp":null}"#),
            (
                "openfga.v1.ReadResponse",
                json!({ "tuples": [{ "key": { "user": "user:anne" } }] }),
                r#"{"tuples":[{"key":{"user":"user:anne","relation":"","object":"","condition":null},"timestamp":null}],"continuation_token":""}"#,
            ),
            // The alternatives of a userset are left out.
            ("openfga.v1.Userset", json!({ "this": {} }), r#"{"this":{}}"#),
            (
                "openfga.v1.TypeDefinition",
                json!({ "type": "document", "relations": { "reader": { "union": { "child": [{ "this": {} }] } } } }),
                r#"{"type":"document","relations":{"reader":{"union":{"child":[{"this":{}}]}}},"metadata":null}"#,
            ),
        ];
        for (name, json, expected) in rows {
            assert_eq!(written_text(&message(name, &json), UnsetMessages::Null), expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_message_is_lost() {
        let descriptor = message("ragward.retrieval.v1.Chunk", &json!({})).descriptor();
        assert!(written(&descriptor, Bytes::from_static(b"\xff"), UnsetMessages::LeftOut).is_err());
    }
}
