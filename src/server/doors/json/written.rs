//! Writes the message of an answer as JSON, straight from its bytes: an answer may be large, and is in memory once already.
//!
//! Equal answers are equal bytes: fields come in the order of their numbers, and the keys of a map are sorted.

use std::fmt::Display;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions};
use serde::ser::{Error, SerializeMap};
use serde::{Serialize, Serializer};

use super::GOOGLE;
use super::wire::{self, Field, Packed, Raw};
use crate::server::refusal::Refusal;

/// The numbers of the fields of an entry of a map.
const KEY: u32 = 1;
const VALUE: u32 = 2;

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
    message: &[u8],
    unset: UnsetMessages,
) -> Result<Vec<u8>, Refusal> {
    // The JSON of an answer is seldom more than a quarter larger than its message.
    let mut json = Vec::with_capacity(message.len() + message.len() / 4);
    let answer = Message { descriptor, bytes: message, unset };
    answer.serialize(&mut serde_json::Serializer::new(&mut json)).map_err(|error| lost(descriptor, &error))?;
    Ok(json)
}

/// Returns the JSON of an encoded message, for a place inside of other JSON.
///
/// # Errors
/// When the bytes are not this message: a defect, of which the log tells.
pub(in crate::server::doors) fn value(
    descriptor: &MessageDescriptor,
    message: &[u8],
    unset: UnsetMessages,
) -> Result<serde_json::Value, Refusal> {
    let answer = Message { descriptor, bytes: message, unset };
    serde_json::to_value(answer).map_err(|error| lost(descriptor, &error))
}

fn lost(descriptor: &MessageDescriptor, error: &dyn Display) -> Refusal {
    tracing::error!(%error, message = descriptor.full_name(), "an answer cannot be written as JSON");
    Refusal::lost()
}

/// An encoded message.
#[derive(Clone, Copy)]
struct Message<'a> {
    descriptor: &'a MessageDescriptor,
    bytes: &'a [u8],
    unset: UnsetMessages,
}

/// One value of a field.
#[derive(Clone, Copy)]
struct One<'a> {
    kind: &'a Kind,
    raw: Raw<'a>,
    unset: UnsetMessages,
}

/// The items of a list, or the entries of a map.
#[derive(Clone, Copy)]
struct Many<'a> {
    kind: &'a Kind,
    found: &'a [Field<'a>],
    unset: UnsetMessages,
}

impl Serialize for Message<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { descriptor, bytes, unset } = *self;
        if descriptor.package_name() == GOOGLE {
            return google_json(descriptor, bytes)?.serialize(serializer);
        }
        let fields = wire::fields(bytes).map_err(S::Error::custom)?;
        let mut object = serializer.serialize_map(None)?;
        for field in descriptor.fields() {
            let (name, kind) = (field.json_name(), &field.kind());
            let found = occurrences(&fields, field.number());
            match found {
                _ if field.is_map() => object.serialize_entry(name, &Entries(Many { kind, found, unset }))?,
                _ if field.is_list() => object.serialize_entry(name, &Items(Many { kind, found, unset }))?,
                [one] => object.serialize_entry(name, &One { kind, raw: one.value, unset })?,
                [] if !field.supports_presence() => {
                    object.serialize_entry(name, &One { kind, raw: default_of(kind), unset })?;
                }
                [] if unset == UnsetMessages::Null && is_lone_message(&field) => object.serialize_entry(name, &())?,
                [] => {}
                [_, _, ..] => return Err(S::Error::custom(format!("`{name}` occurs twice"))),
            }
        }
        object.end()
    }
}

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.kind, self.raw) {
            (Kind::Message(descriptor), Raw::Bytes(bytes)) => {
                Message { descriptor, bytes, unset: self.unset }.serialize(serializer)
            }
            (Kind::String, Raw::Bytes(text)) => serializer.serialize_str(utf8(text)?),
            (Kind::Bytes, Raw::Bytes(bytes)) => serializer.collect_str(&Base64Display::new(bytes, &STANDARD)),
            (Kind::Bool, Raw::Varint(value)) => serializer.serialize_bool(value != 0),
            (Kind::Enum(values), Raw::Varint(value)) => named(values, int32(value)?, serializer),
            (Kind::Int32, Raw::Varint(value)) => serializer.serialize_i32(int32(value)?),
            (Kind::Sint32, Raw::Varint(value)) => {
                serializer.serialize_i32(i32::try_from(zigzag(value)).map_err(S::Error::custom)?)
            }
            (Kind::Sfixed32, Raw::Fixed32(value)) => serializer.serialize_i32(i32::from_le_bytes(value)),
            (Kind::Uint32, Raw::Varint(value)) => {
                serializer.serialize_u32(u32::try_from(value).map_err(S::Error::custom)?)
            }
            (Kind::Fixed32, Raw::Fixed32(value)) => serializer.serialize_u32(u32::from_le_bytes(value)),
            // Many readers of JSON keep numbers as doubles, which do not hold these.
            (Kind::Int64, Raw::Varint(value)) => serializer.collect_str(&value.cast_signed()),
            (Kind::Sint64, Raw::Varint(value)) => serializer.collect_str(&zigzag(value)),
            (Kind::Sfixed64, Raw::Fixed64(value)) => serializer.collect_str(&i64::from_le_bytes(value)),
            (Kind::Uint64, Raw::Varint(value)) => serializer.collect_str(&value),
            (Kind::Fixed64, Raw::Fixed64(value)) => serializer.collect_str(&u64::from_le_bytes(value)),
            (Kind::Float, Raw::Fixed32(value)) => match f32::from_le_bytes(value) {
                value if value.is_finite() => serializer.serialize_f32(value),
                value => serializer.serialize_str(not_finite(f64::from(value))),
            },
            (Kind::Double, Raw::Fixed64(value)) => match f64::from_le_bytes(value) {
                value if value.is_finite() => serializer.serialize_f64(value),
                value => serializer.serialize_str(not_finite(value)),
            },
            (_, Raw::Varint(_) | Raw::Fixed64(_) | Raw::Fixed32(_) | Raw::Bytes(_)) => {
                Err(S::Error::custom("a field has a value of another kind"))
            }
        }
    }
}

struct Items<'a>(Many<'a>);

impl Serialize for Items<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Many { kind, found, unset } = self.0;
        let one = |raw| One { kind, raw, unset };
        match (packed_form(kind), found) {
            (Some(form), [Field { value: Raw::Bytes(packed), .. }]) => {
                let values = wire::unpacked(packed, form).map_err(S::Error::custom)?;
                serializer.collect_seq(values.into_iter().map(one))
            }
            (Some(_) | None, _) => serializer.collect_seq(found.iter().map(|item| one(item.value))),
        }
    }
}

struct Entries<'a>(Many<'a>);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Many { kind, found, unset } = self.0;
        let entry = kind.as_message().ok_or_else(|| S::Error::custom("a map is not one of entries"))?;
        let (key_kind, kind) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let mut entries = Vec::with_capacity(found.len());
        for entry in found {
            let (Raw::Bytes(bytes), Kind::String) = (entry.value, &key_kind) else {
                return Err(S::Error::custom("a map has keys that are no texts"));
            };
            let fields = wire::fields(bytes).map_err(S::Error::custom)?;
            let raw = |number, kind| occurrences(&fields, number).last().map_or(default_of(kind), |field| field.value);
            let Raw::Bytes(key) = raw(KEY, &key_kind) else {
                return Err(S::Error::custom("the key of a map is no text"));
            };
            entries.push((utf8::<S::Error>(key)?, One { kind: &kind, raw: raw(VALUE, &kind), unset }));
        }
        entries.sort_by_key(|(key, _)| *key);
        serializer.collect_map(entries)
    }
}

/// Returns the items of one field.
fn occurrences<'f, 'm>(fields: &'f [Field<'m>], number: u32) -> &'f [Field<'m>] {
    let from = fields.partition_point(|field| field.number < number);
    let behind = fields.partition_point(|field| field.number <= number);
    fields.get(from..behind).unwrap_or_default()
}

/// Returns the value of a field that is not in a message.
const fn default_of(kind: &Kind) -> Raw<'static> {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Raw::Fixed64([0; 8]),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Raw::Fixed32([0; 4]),
        Kind::String | Kind::Bytes | Kind::Message(_) => Raw::Bytes(&[]),
        Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Bool
        | Kind::Enum(_) => Raw::Varint(0),
    }
}

/// Returns the form in which a list of this kind may be packed.
const fn packed_form(kind: &Kind) -> Option<Packed> {
    match default_of(kind) {
        Raw::Varint(_) => Some(Packed::Varints),
        Raw::Fixed64(_) => Some(Packed::Fixed64),
        Raw::Fixed32(_) => Some(Packed::Fixed32),
        Raw::Bytes(_) => None,
    }
}

fn named<S: Serializer>(values: &EnumDescriptor, number: i32, serializer: S) -> Result<S::Ok, S::Error> {
    match values.get_value(number) {
        Some(value) => serializer.serialize_str(value.name()),
        None => serializer.serialize_i32(number),
    }
}

fn utf8<E: Error>(text: &[u8]) -> Result<&str, E> {
    std::str::from_utf8(text).map_err(E::custom)
}

fn int32<E: Error>(value: u64) -> Result<i32, E> {
    i32::try_from(value.cast_signed()).map_err(E::custom)
}

/// Reads a number in which small negative numbers are short.
const fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// Returns the JSON of one of Google's own types. The tree keeps the keys of structures sorted.
fn google_json<E: Error>(descriptor: &MessageDescriptor, bytes: &[u8]) -> Result<serde_json::Value, E> {
    let message = DynamicMessage::decode(descriptor.clone(), bytes).map_err(E::custom)?;
    library_json(&message).map_err(E::custom)
}

fn library_json(message: &DynamicMessage) -> Result<serde_json::Value, serde_json::Error> {
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

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_reflect::{DescriptorPool, MapKey, ReflectMessage, Value};
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::server::reflection;

    /// Returns a message of a type, made of JSON.
    fn message(name: &str, json: &Json) -> DynamicMessage {
        let descriptor = reflection::pool().unwrap().get_message_by_name(name).unwrap();
        DynamicMessage::deserialize(descriptor, json).unwrap()
    }

    fn written_text(message: &DynamicMessage, unset: UnsetMessages) -> String {
        let json = written(&message.descriptor(), &message.encode_to_vec(), unset).unwrap();
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
            let expected = library_json(&message).unwrap();
            let text = written_text(&message, UnsetMessages::LeftOut);
            assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), expected, "{name}: {json}");
        }
    }

    /// The turns in which all fields are set: as many as the largest choice of the protocols has alternatives.
    const TURNS_OF_ALL: usize = 7;

    /// Returns a message whose fields are set, within `depth` messages. Of alternatives, `turn` tells which one. The last turns
    /// leave out every second field.
    fn filled(descriptor: &MessageDescriptor, depth: usize, turn: usize) -> DynamicMessage {
        let google = match descriptor.full_name() {
            "google.protobuf.Struct" => json!({ "b": [1.5, null, { "y": "", "x": true }], "a": false }),
            "google.protobuf.Value" => json!([{ "b": 1.0, "a": null }]),
            "google.protobuf.ListValue" => json!([1.0]),
            "google.protobuf.Timestamp" => json!("2026-01-02T03:04:05.000000006Z"),
            "google.protobuf.Duration" => json!("1.500s"),
            "google.protobuf.BoolValue" => json!(true),
            "google.protobuf.Int32Value" => json!(-5),
            "google.protobuf.StringValue" => json!("a"),
            _ => Json::Null,
        };
        if !google.is_null() {
            return DynamicMessage::deserialize(descriptor.clone(), google).unwrap();
        }
        let mut message = DynamicMessage::new(descriptor.clone());
        for (number, field) in descriptor.fields().enumerate() {
            let alternatives = field.containing_oneof().map_or(1, |oneof| oneof.fields().len());
            let is_too_deep = depth == 0 && matches!(field.kind(), Kind::Message(_));
            let is_left_out = turn >= TURNS_OF_ALL && number % 2 == turn % 2;
            if is_too_deep || is_left_out || (alternatives > 1 && number % alternatives != turn % alternatives) {
                continue;
            }
            let one = |kind: &Kind| sample(kind, depth, turn);
            let kind = field.kind();
            let value = if field.is_map() {
                let value = one(&kind.as_message().unwrap().map_entry_value_field().kind());
                Value::Map(["b", "a", ""].map(|key| (MapKey::String(key.to_owned()), value.clone())).into())
            } else if field.is_list() {
                Value::List(vec![one(&kind), one(&kind)])
            } else {
                one(&kind)
            };
            message.set_field(&field, value);
        }
        message
    }

    fn sample(kind: &Kind, depth: usize, turn: usize) -> Value {
        let negative = turn.is_multiple_of(2);
        match kind {
            Kind::Double => Value::F64(if negative { -0.1 } else { 1e300 }),
            Kind::Float => Value::F32(if negative { -0.5 } else { 2.0 }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(if negative { i32::MIN } else { i32::MAX }),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(if negative { i64::MIN } else { i64::MAX }),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(u32::MAX),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(u64::MAX),
            Kind::Bool => Value::Bool(negative),
            Kind::String => Value::String("a\"\u{1f600}\n\u{0}\u{2028}".to_owned()),
            Kind::Bytes => Value::Bytes(vec![0, 0xff, 7].into()),
            Kind::Enum(_) => Value::EnumNumber(if negative { 1 } else { 9_999 }),
            Kind::Message(descriptor) => Value::Message(filled(descriptor, depth.saturating_sub(1), turn)),
        }
    }

    #[test]
    fn each_message_is_what_the_library_makes_of_it() {
        let pool = reflection::pool().unwrap();
        let descriptors: Vec<MessageDescriptor> =
            pool.all_messages().filter(|message| !message.is_map_entry() && message.package_name() != GOOGLE).collect();
        assert!(descriptors.len() > 100, "{} messages", descriptors.len());
        for descriptor in &descriptors {
            for (depth, turn) in (0..4).flat_map(|depth| (0..TURNS_OF_ALL + 2).map(move |turn| (depth, turn))) {
                let message = filled(descriptor, depth, turn);
                let row = format!("{}, depth {depth}, turn {turn}", descriptor.full_name());
                let text = written_text(&message, UnsetMessages::LeftOut);
                let expected = library_json(&message).unwrap();
                assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), expected, "{row}");
            }
        }
    }

    /// Returns a descriptor with a field of each kind, alone and as a list, which our protocols do not have.
    fn every_kind() -> MessageDescriptor {
        use prost_types::field_descriptor_proto::{Label, Type};
        use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

        let kinds = [
            Type::Double,
            Type::Float,
            Type::Int64,
            Type::Uint64,
            Type::Int32,
            Type::Fixed64,
            Type::Fixed32,
            Type::Bool,
            Type::String,
            Type::Bytes,
            Type::Uint32,
            Type::Sfixed32,
            Type::Sfixed64,
            Type::Sint32,
            Type::Sint64,
        ];
        let labels = [Label::Optional, Label::Repeated];
        let fields = kinds.iter().flat_map(|kind| labels.map(|label| (*kind, label))).zip(1..);
        let fields = fields.map(|((kind, label), number)| FieldDescriptorProto {
            name: Some(format!("field{number}")),
            number: Some(number),
            label: Some(label.into()),
            r#type: Some(kind.into()),
            ..FieldDescriptorProto::default()
        });
        let message = DescriptorProto {
            name: Some("EveryKind".to_owned()),
            field: fields.collect(),
            ..DescriptorProto::default()
        };
        let file = FileDescriptorProto {
            name: Some("every_kind.proto".to_owned()),
            syntax: Some("proto3".to_owned()),
            message_type: vec![message],
            ..FileDescriptorProto::default()
        };
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_proto(file).unwrap();
        pool.get_message_by_name("EveryKind").unwrap()
    }

    #[test]
    fn each_kind_of_value_is_what_the_library_makes_of_it() {
        let descriptor = every_kind();
        for turn in 0..2 {
            let message = filled(&descriptor, 1, turn);
            let text = written_text(&message, UnsetMessages::LeftOut);
            assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), library_json(&message).unwrap(), "turn {turn}");
        }
        let empty = DynamicMessage::new(descriptor);
        let text = written_text(&empty, UnsetMessages::LeftOut);
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), library_json(&empty).unwrap(), "nothing is set");
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
        let chunk = message("ragward.retrieval.v1.Chunk", &json!({})).descriptor();
        let rows: [(&str, &[u8]); 6] = [
            ("a key that goes on", b"\xff"),
            ("a text that is cut", b"\x0a\x02a"),
            ("a text that is none", b"\x0a\x01\xff"),
            ("a number in place of a text", b"\x08\x01"),
            ("a text that occurs twice", b"\x0a\x01a\x0a\x01b"),
            ("an entry of a map that is none", b"\x3a\x01\xff"),
        ];
        for (row, bytes) in rows {
            assert!(written(&chunk, bytes, UnsetMessages::LeftOut).is_err(), "{row}");
        }
    }
}
