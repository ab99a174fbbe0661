//! A chunk as a Qdrant point, and back. `schema/qdrant-payload.md` is the contract.

use std::collections::HashMap;

use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::{PointId, PointStruct, Struct, Value as Payload, Vectors, point_id::PointIdOptions};
use ring::digest::{SHA256, digest};

use crate::chunk::{Candidate, Chunk, Metadata, Value};
use crate::relationship::Object;

pub(super) const CHUNK_ID: &str = "chunk_id";
pub(super) const DOCUMENT_ID: &str = "document_id";
pub(super) const GUARD: &str = "guard";
/// The place of a chunk in its document, from 0. Each document has one chunk at 0, so counting those counts documents.
pub(super) const POSITION: &str = "position";
const TITLE: &str = "title";
const TEXT: &str = "text";
const METADATA: &str = "metadata";

type Fields = HashMap<String, Payload>;

/// The id of a chunk's point: a UUID of version 8 (RFC 9562) from the SHA-256 of the chunk's id. Two chunk ids with one
/// point id are told apart by the payload, so a collision is an error and never another chunk's text.
#[must_use]
pub fn point_id(chunk_id: &str) -> String {
    let hash = digest(&SHA256, chunk_id.as_bytes());
    let mut uuid = String::with_capacity(36);
    for (index, byte) in hash.as_ref().iter().take(16).enumerate() {
        let byte = match index {
            6 => byte & 0x0f | 0x80,
            8 => byte & 0x3f | 0x80,
            _ => *byte,
        };
        if matches!(index, 4 | 6 | 8 | 10) {
            uuid.push('-');
        }
        for digit in [byte >> 4, byte & 0x0f] {
            uuid.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    uuid
}

pub(super) fn point_of(chunk_id: &str) -> PointId {
    PointId { point_id_options: Some(PointIdOptions::Uuid(point_id(chunk_id))) }
}

/// The text form of a point's id; `None` for a number, which is no id of ours.
pub(super) fn uuid(id: Option<&PointId>) -> Option<&str> {
    match id?.point_id_options.as_ref()? {
        PointIdOptions::Uuid(uuid) => Some(uuid),
        PointIdOptions::Num(_) => None,
    }
}

/// The path of a metadata key in a filter; `None` for a key that Qdrant cannot name.
pub(super) fn metadata_path(key: &str) -> Option<String> {
    let nameable = !key.contains(['"', '\\']);
    nameable.then(|| format!("{METADATA}.\"{key}\""))
}

/// The point of a document's chunk; the chunk must have a vector.
pub(super) fn to_point(title: &str, position: usize, chunk: Chunk, vector_name: Option<&str>) -> PointStruct {
    let metadata = chunk.metadata.into_iter().map(|(key, value)| (key, to_payload(value))).collect();
    let text = |text: String| Payload { kind: Some(Kind::StringValue(text)) };
    let payload = HashMap::from([
        (GUARD.to_owned(), text(chunk.guard.to_string())),
        (DOCUMENT_ID.to_owned(), text(chunk.document_id)),
        (POSITION.to_owned(), Payload::from(i64::try_from(position).unwrap_or(i64::MAX))),
        (TITLE.to_owned(), text(title.to_owned())),
        (TEXT.to_owned(), text(chunk.text)),
        (METADATA.to_owned(), Payload { kind: Some(Kind::StructValue(Struct { fields: metadata })) }),
        (CHUNK_ID.to_owned(), text(chunk.id.clone())),
    ]);
    let vectors = match vector_name {
        Some(name) => Vectors::from(HashMap::from([(name.to_owned(), chunk.vector)])),
        None => Vectors::from(chunk.vector),
    };
    PointStruct { id: Some(point_of(&chunk.id)), payload, vectors: Some(vectors) }
}

/// What a point's payload says about the chunk, if it is one of ours: under the id that belongs to the chunk's id and with
/// a well-formed guard.
///
/// INVARIANT (no guard, no chunk): everything that is read from Qdrant passes here, so that a chunk without a well-formed
/// guard does not exist.
pub(super) fn to_candidate(id: Option<&PointId>, payload: &Fields, score: f32) -> Option<Candidate> {
    let chunk_id = string(payload, CHUNK_ID)?;
    let guard = Object::parse(string(payload, GUARD)?).ok()?;
    let ours = uuid(id) == Some(point_id(chunk_id).as_str());
    ours.then(|| Candidate { chunk_id: chunk_id.to_owned(), guard, score })
}

/// The chunk of a point, if it is one of ours.
pub(super) fn to_chunk(id: Option<&PointId>, payload: &Fields) -> Option<Chunk> {
    let Candidate { chunk_id, guard, .. } = to_candidate(id, payload, 0.0)?;
    let document_id = string(payload, DOCUMENT_ID)?.to_owned();
    let text = |field| string(payload, field).unwrap_or_default().to_owned();
    let metadata = match payload.get(METADATA).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StructValue(fields)) => to_metadata(fields),
        Some(_) | None => Metadata::new(),
    };
    let (title, text) = (text(TITLE), text(TEXT));
    Some(Chunk { id: chunk_id, document_id, guard, title, text, metadata, vector: Vec::new() })
}

/// A text field of a payload.
pub(super) fn string<'a>(payload: &'a Fields, field: &str) -> Option<&'a str> {
    match payload.get(field)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        Kind::NullValue(_)
        | Kind::DoubleValue(_)
        | Kind::IntegerValue(_)
        | Kind::BoolValue(_)
        | Kind::StructValue(_)
        | Kind::ListValue(_) => None,
    }
}

fn to_payload(value: Value) -> Payload {
    let kind = match value {
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Int(value) => Kind::IntegerValue(value),
        Value::Float(value) => Kind::DoubleValue(value),
        Value::Text(value) => Kind::StringValue(value),
    };
    Payload { kind: Some(kind) }
}

/// Values that somebody else wrote and that we have no form for are left out.
fn to_metadata(fields: &Struct) -> Metadata {
    let value = |kind: &Kind| match kind {
        Kind::BoolValue(value) => Some(Value::Bool(*value)),
        Kind::IntegerValue(value) => Some(Value::Int(*value)),
        Kind::DoubleValue(value) => Some(Value::Float(*value)),
        Kind::StringValue(value) => Some(Value::Text(value.clone())),
        Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_) => None,
    };
    fields.fields.iter().filter_map(|(key, field)| Some((key.clone(), value(field.kind.as_ref()?)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_id_is_a_uuid_of_the_chunk_id() {
        let ids: Vec<String> = ["a", "A", "a ", "", "a#1"].into_iter().map(point_id).collect();
        for (index, id) in ids.iter().enumerate() {
            let lengths: Vec<usize> = id.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
            assert_eq!(id.as_bytes()[14], b'8', "{id}");
            assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{id}");
            assert!(!ids[..index].contains(id), "{id}");
        }
        // Stored collections depend on it.
        assert_eq!(point_id("abc"), "ba7816bf-8f01-8fea-8141-40de5dae2223");
    }

    #[test]
    fn a_chunk_survives_the_way_there_and_back() {
        let metadata = Metadata::from([
            ("year".to_owned(), Value::Int(i64::MAX)),
            ("ratio".to_owned(), Value::Float(2.0)),
            ("draft".to_owned(), Value::Bool(false)),
            ("a.b c".to_owned(), Value::Text("2".to_owned())),
        ]);
        let chunk = Chunk {
            id: "handbook#3".to_owned(),
            document_id: "handbook".to_owned(),
            guard: Object::parse("document:handbook").expect("an object"),
            title: "Handbook".to_owned(),
            text: "Welcome.".to_owned(),
            metadata,
            vector: vec![1.0, 0.5],
        };
        let point = to_point("Handbook", 3, chunk.clone(), None);
        let read = to_chunk(point.id.as_ref(), &point.payload);
        assert_eq!(read, Some(Chunk { vector: Vec::new(), ..chunk }));
    }

    #[test]
    fn a_point_that_is_not_ours_is_no_candidate() {
        let text = |text: &str| Payload { kind: Some(Kind::StringValue(text.to_owned())) };
        let id = point_of("c1");
        let good = Fields::from([(CHUNK_ID.to_owned(), text("c1")), (GUARD.to_owned(), text("document:1"))]);
        assert!(to_candidate(Some(&id), &good, 1.0).is_some());

        let with = |field: &str, value: Option<Payload>| {
            let mut payload = good.clone();
            payload.remove(field);
            payload.extend(value.map(|value| (field.to_owned(), value)));
            payload
        };
        let malformed = ["", "document", "document:", "document:*", "user:a b", "group:eng#member"];
        let mut cases: Vec<Fields> = malformed.iter().map(|guard| with(GUARD, Some(text(guard)))).collect();
        cases.push(with(GUARD, None));
        cases.push(with(GUARD, Some(Payload { kind: None })));
        cases.push(with(GUARD, Some(Payload::from(7_i64))));
        cases.push(with(CHUNK_ID, None));
        cases.push(with(CHUNK_ID, Some(text("c2"))));
        for payload in cases {
            assert_eq!(to_candidate(Some(&id), &payload, 1.0), None, "{payload:?}");
        }
        let number = PointId { point_id_options: Some(PointIdOptions::Num(1)) };
        for foreign in [None, Some(&number), Some(&PointId::default()), Some(&point_of("c2"))] {
            assert_eq!(to_candidate(foreign, &good, 1.0), None, "{foreign:?}");
        }
    }
}
