//! Reads JSON as the message of a request, by its descriptor.
//!
//! The mapping is that of protocol buffers (`ProtoJSON`), in both directions: [`written`] turns answers into JSON. Both go
//! through `prost-reflect`, so no message type needs code of its own, and the doors of all services share them.

mod wire;
mod written;

use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value,
};
use serde::de::Error;
use serde_json::{Value as Json, json};
use tonic::Code;

pub(super) use self::written::{UnsetMessages, value, written};
use super::routes::Fields;
use crate::retrieval::FieldViolation;
use crate::server::refusal::Refusal;
use crate::strict_json;

/// The deepest nesting of our own requests: a filter of 8 levels, each of which is three objects or lists.
const DEPTH_MAX: usize = 64;

/// The package of Google's own types: times, structures, errors. Most of them have a JSON of their own.
const GOOGLE: &str = "google.protobuf";

/// The treatment of requests that say more than they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// A field that the message lacks or that occurs twice is refused, and so is a body that contradicts the path.
    Strict,
    /// Unknown fields are ignored, and the path wins, as in `OpenFGA`'s gateway.
    Lenient,
}

/// The part of a URL that tells a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The path of the request sets the field. Nothing else in the request adds to that value or replaces it.
    Path,
    /// A list is told item by item.
    Query,
}

/// Reads a message from JSON.
///
/// # Errors
/// When the text is not JSON, or not the JSON of this message. The refusal says where.
pub(super) fn read(
    descriptor: &MessageDescriptor,
    json: &[u8],
    strictness: Strictness,
) -> Result<DynamicMessage, Refusal> {
    let options = DeserializeOptions::new().deny_unknown_fields(strictness == Strictness::Strict);
    let message = match strictness {
        Strictness::Strict => strict_json::object(json, DEPTH_MAX).map(Json::Object).and_then(|object| {
            named_once(descriptor, &object)?;
            DynamicMessage::deserialize_with_options(descriptor.clone(), object, &options)
        }),
        Strictness::Lenient => {
            // serde_json bounds the depth: 128 levels.
            let mut text = serde_json::Deserializer::from_slice(json);
            DynamicMessage::deserialize_with_options(descriptor.clone(), &mut text, &options)
                .and_then(|message| text.end().map(|()| message))
        }
    };
    message.map_err(|error| {
        let name = descriptor.name();
        Refusal::new(Code::InvalidArgument, format!("the body is not the JSON of a `{name}`: {error}"))
    })
}

/// Refuses a field that stands under both of its names, `chunkIds` and `chunk_ids`. A reader that takes one of them would be
/// told something else than a reader that takes the other.
fn named_once(descriptor: &MessageDescriptor, json: &Json) -> Result<(), serde_json::Error> {
    // Google's own types have a JSON of their own, in which names are not fields.
    let (Json::Object(object), false) = (json, descriptor.package_name() == GOOGLE) else { return Ok(()) };
    for field in descriptor.fields() {
        let (json_name, name) = (field.json_name(), field.name());
        if json_name != name && object.contains_key(json_name) && object.contains_key(name) {
            return Err(Error::custom(format!("`{json_name}` and `{name}` are one field, which occurs twice")));
        }
        let Kind::Message(mut of_field) = field.kind() else { continue };
        if field.is_map() {
            let Kind::Message(of_value) = of_field.map_entry_value_field().kind() else { continue };
            of_field = of_value;
        }
        let Some(value) = object.get(json_name).or_else(|| object.get(name)) else { continue };
        match value {
            Json::Array(values) => values.iter().try_for_each(|value| named_once(&of_field, value))?,
            Json::Object(values) if field.is_map() => {
                values.values().try_for_each(|value| named_once(&of_field, value))?;
            }
            Json::Object(_) => named_once(&of_field, value)?,
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }
    Ok(())
}

/// Sets fields of a message from the path or the query of a request. A name with dots is that of a field within fields. The
/// path comes last, so that it has the last word.
///
/// # Errors
/// When the message has no such field, the text is no value of it, or the rest of the request says something else of it.
pub(super) fn set(
    message: &mut DynamicMessage,
    fields: &Fields,
    place: Place,
    strictness: Strictness,
) -> Result<(), Refusal> {
    for (name, text) in fields {
        let wrong = |text: &str| Refusal::from(FieldViolation::new(name, text));
        let (mut within, mut rest) = (&mut *message, name.as_str());
        while let Some((outer, inner)) = rest.split_once('.') {
            let field =
                field(within, outer).filter(|field| matches!(field.kind(), Kind::Message(_)) && !field.is_list());
            let outer = field.and_then(|field| within.get_field_mut(&field).as_message_mut());
            (within, rest) = (outer.ok_or_else(|| wrong("is not a field of this request"))?, inner);
        }
        match (field(within, rest), strictness) {
            (Some(field), _) => set_one(within, &field, text, place, strictness).map_err(wrong)?,
            (None, Strictness::Lenient) => {}
            (None, Strictness::Strict) => return Err(wrong("is not a field of this request")),
        }
    }
    Ok(())
}

fn field(message: &DynamicMessage, name: &str) -> Option<FieldDescriptor> {
    let descriptor = message.descriptor();
    descriptor.get_field_by_json_name(name).or_else(|| descriptor.get_field_by_name(name))
}

/// Sets one field from a text, or tells what is wrong with the text.
fn set_one(
    message: &mut DynamicMessage,
    field: &FieldDescriptor,
    text: &str,
    place: Place,
    strictness: Strictness,
) -> Result<(), &'static str> {
    // The JSON of numbers, enums, times and wrappers may be a text, so one form serves them all.
    let json = json!({ field.json_name(): value_json(&field.kind(), field.is_list(), text) });
    let one = DynamicMessage::deserialize_with_options(message.descriptor(), json, &DeserializeOptions::new());
    let value = one.map_err(|_wrong| "has a value of another kind")?.get_field(field).into_owned();
    let said = message.has_field(field).then(|| message.get_field(field).into_owned());
    match (said, value) {
        (Some(Value::List(mut all)), Value::List(more)) if place == Place::Query => {
            all.extend(more);
            message.set_field(field, Value::List(all));
        }
        (Some(said), value) if said != value && strictness == Strictness::Strict => {
            return Err("contradicts the path of the request");
        }
        (_, value) => message.set_field(field, value),
    }
    Ok(())
}

/// Writes the value of a field in a URL as JSON.
fn value_json(kind: &Kind, is_list: bool, text: &str) -> Json {
    let is_wrapped = kind.as_message().is_some_and(|message| message.full_name() == "google.protobuf.BoolValue");
    let is_bool = *kind == Kind::Bool || is_wrapped;
    let value = match text {
        "true" | "false" if is_bool => Json::from(text == "true"),
        _ => Json::from(text),
    };
    if is_list { Json::from(vec![value]) } else { value }
}

#[cfg(test)]
mod tests {
    use prost_reflect::SerializeOptions;

    use super::*;
    use crate::server::reflection;

    fn message(name: &str) -> MessageDescriptor {
        reflection::pool().unwrap().get_message_by_name(name).unwrap()
    }

    fn read_and_set(name: &str, body: &str, fields: &[(&str, &str)], strictness: Strictness) -> Result<Json, String> {
        let told = |refusal: Refusal| match refusal.violations() {
            [] => refusal.text().to_owned(),
            violations => format!("{} {}", violations[0].field, violations[0].description),
        };
        let fields = fields.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut message = read(&message(name), body.as_bytes(), strictness).map_err(told)?;
        set(&mut message, &fields, Place::Path, strictness).map_err(told)?;
        Ok(message.serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new()).unwrap())
    }

    #[test]
    fn our_requests_are_read_strictly() {
        let recheck = "ragward.retrieval.v1.RecheckRequest";
        let explain = "ragward.retrieval.v1.ExplainRequest";
        let rows = [
            ("names of both spellings", recheck, r#"{"chunkIds":["a"],"user":"user:anne"}"#, vec![], Ok(())),
            ("names as in the proto", recheck, r#"{"chunk_ids":["a"]}"#, vec![], Ok(())),
            ("a field from the path", recheck, "{}", vec![("collection", "notes")], Ok(())),
            ("the same in path and body", recheck, r#"{"collection":"a"}"#, vec![("collection", "a")], Ok(())),
            ("another in the body", recheck, r#"{"collection":"b"}"#, vec![("collection", "a")], Err("contradicts")),
            ("a field within a field", explain, "{}", vec![("chunk.collection", "notes")], Ok(())),
            ("an unknown field", recheck, r#"{"chunk_id":["a"]}"#, vec![], Err("chunk_id")),
            ("an unknown field in the query", recheck, "{}", vec![("limit", "1")], Err("is not a field")),
            ("a field twice", recheck, r#"{"user":"a","user":"b"}"#, vec![], Err("twice")),
            (
                "a field in both spellings",
                recheck,
                r#"{"chunkIds":["a"],"chunk_ids":["b"]}"#,
                vec![],
                Err("occurs twice"),
            ),
            ("another type", recheck, r#"{"user":1}"#, vec![], Err("invalid type")),
            ("an unknown name of an enum", recheck, r#"{"consistency":"SOON"}"#, vec![], Err("SOON")),
            ("no JSON", recheck, "user=anne", vec![], Err("expected value")),
            ("an empty body", recheck, "", vec![], Err("EOF")),
            ("two values", recheck, "{} {}", vec![], Err("trailing")),
            ("a list", recheck, "[]", vec![], Err("not an object")),
        ];
        for (row, name, body, fields, expected) in rows {
            let read = read_and_set(name, body, &fields, Strictness::Strict);
            match (expected, read) {
                (Ok(()), read) => assert!(read.is_ok(), "{row}: {read:?}"),
                (Err(part), Err(told)) => assert!(told.contains(part), "{row}: {told}"),
                (Err(_), Ok(read)) => panic!("{row}: {read}"),
            }
        }
    }

    #[test]
    fn openfgas_requests_are_read_as_its_gateway_reads_them() {
        let rows = [
            ("a number in the query", "ReadChangesRequest", "{}", vec![("page_size", "7")], json!({ "page_size": 7 })),
            ("an unknown field", "CheckRequest", r#"{"nope":1}"#, vec![("store_id", "a")], json!({ "store_id": "a" })),
            ("path wins", "CheckRequest", r#"{"store_id":"b"}"#, vec![("store_id", "a")], json!({ "store_id": "a" })),
            ("an unknown query", "ListStoresRequest", "{}", vec![("nope", "7")], json!({})),
        ];
        for (row, name, body, fields, expected) in rows {
            let read = read_and_set(&format!("openfga.v1.{name}"), body, &fields, Strictness::Lenient);
            assert_eq!(read, Ok(expected), "{row}");
        }
    }

    #[test]
    fn nothing_replaces_what_the_path_says() {
        let (lenient, strict) = (Strictness::Lenient, Strictness::Strict);
        let delete = "ragward.ingest.v1.DeleteDocumentsRequest";
        let rows = [
            (
                "openfga.v1.GetStoreRequest",
                lenient,
                ("store_id", "b"),
                ("store_id", "a"),
                Some(json!({ "store_id": "a" })),
            ),
            (delete, strict, ("collection", "b"), ("collection", "a"), None),
            (delete, strict, ("collection", "b"), ("collection", ""), None),
            (delete, strict, ("document_ids", "b"), ("document_ids", "a"), None),
            (delete, strict, ("documentIds", "b"), ("document_ids", "a"), None),
        ];
        for (name, strictness, query, path, expected) in rows {
            let fields = |(name, value): (&str, &str)| vec![(name.to_owned(), value.to_owned())];
            let mut read = DynamicMessage::new(message(name));
            set(&mut read, &fields(query), Place::Query, strictness).unwrap();
            let is_set = set(&mut read, &fields(path), Place::Path, strictness);
            let found = is_set.ok().map(|()| {
                read.serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new()).unwrap()
            });
            assert_eq!(found, expected, "{name}: {query:?}, {path:?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let filter = "ragward.retrieval.v1.RetrieveRequest";
        let deep = format!("{{\"filter\":{}{}}}", "{\"not\":".repeat(10_000), "}".repeat(10_000));
        assert!(read(&message(filter), deep.as_bytes(), Strictness::Strict).is_err());
    }
}
