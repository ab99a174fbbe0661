//! A chunk as a point of a collection that Ragward fills. `schema/qdrant-payload.md` is the contract.

use std::collections::HashMap;

use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::{PointId, PointStruct, Struct, Value as Payload, Vectors};
use ring::digest::{SHA256, digest};

use super::layout::Fields;
use super::version::{self, Stamp};
use crate::chunk::{Chunk, Value};
use crate::vector_store::direction::normalized;

pub(super) const CHUNK_ID: &str = "chunk_id";
pub(super) const DOCUMENT_ID: &str = "document_id";
pub(super) const GUARD: &str = "guard";
/// The place of a chunk in its document, from 0. Each document has one chunk at 0, so counting those counts documents.
pub(super) const POSITION: &str = "position";
pub(super) const TITLE: &str = "title";
pub(super) const TEXT: &str = "text";
pub(super) const METADATA: &str = "metadata";
pub(super) const VERSION: &str = "version";
pub(super) const WRITTEN_AT: &str = "written_at";

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
    PointId::from(point_id(chunk_id))
}

/// The point of a document's chunk; the chunk must have a vector.
pub(super) fn to_point(
    title: &str,
    stamp: Stamp,
    position: usize,
    chunk: Chunk,
    vector_name: Option<&str>,
) -> PointStruct {
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
        (VERSION.to_owned(), text(version::to_text(stamp.version))),
        (WRITTEN_AT.to_owned(), Payload::from(stamp.written_at)),
    ]);
    // Qdrant takes a vector that is shorter than about 0.0003 as it is, and one whose square is no f32 for nothing.
    let direction = normalized(&chunk.vector);
    let vectors = match vector_name {
        Some(name) => Vectors::from(HashMap::from([(name.to_owned(), direction)])),
        None => Vectors::from(direction),
    };
    PointStruct { id: Some(point_of(&chunk.id)), payload, vectors: Some(vectors) }
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

/// A field of a payload that is a whole number.
pub(super) fn integer(payload: &Fields, field: &str) -> Option<i64> {
    match payload.get(field)?.kind.as_ref()? {
        Kind::IntegerValue(number) => Some(*number),
        Kind::NullValue(_)
        | Kind::DoubleValue(_)
        | Kind::StringValue(_)
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
}
