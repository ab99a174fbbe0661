//! Writes a chunk as a point of a collection that Ragward fills. `schema/qdrant-payload.md` is the contract.

use std::collections::HashMap;

use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::vectors::VectorsOptions;
use qdrant_client::qdrant::{ListValue, NamedVectors, PointId, PointStruct, Struct, Value as Payload, Vector, Vectors};
use ring::digest::{SHA256, digest};

use super::fields::{
    CHUNK_ID, DOCUMENT_ID, GUARD, HEADING_PATH, METADATA, POSITION, TEXT, TEXT_ANALYSIS, TITLE, VERSION, WRITTEN_AT,
};
use super::sparse_text::{SparseText, TEXT_VECTOR};
use super::version;
use crate::chunk::{Chunk, Value};
use crate::vector_store::direction::normalized;
use crate::vector_store::remote::own_writes::Stamp;

/// Returns the id of a chunk's point: a UUID of version 8 (RFC 9562) from the SHA-256 of the chunk's id. A program that
/// writes points itself needs it, too.
///
/// Two chunk ids with one point id are told apart by the payload, so a collision is an error and never another chunk's
/// text.
#[must_use]
pub fn point_id(chunk_id: &str) -> String {
    let hash = digest(&SHA256, chunk_id.as_bytes());
    let first = hash.as_ref().first_chunk().copied().unwrap_or_default();
    let version_and_variant = 0x8_u128 << 76 | 0b10_u128 << 62;
    let uuid = u128::from_be_bytes(first) & !(0xf_u128 << 76 | 0b11_u128 << 62) | version_and_variant;
    let digits = format!("{uuid:032x}");
    let mut text = String::with_capacity(36);
    for (index, digit) in digits.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

pub(super) fn point_of(chunk_id: &str) -> PointId {
    PointId::from(point_id(chunk_id))
}

/// The name by which Qdrant knows the vector that has no name.
const UNNAMED: &str = "";

/// What all points of a write have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct PointForm<'a> {
    pub(super) stamp: Stamp,
    /// The name of the vector; `None` for the unnamed one.
    pub(super) vector_name: Option<&'a str>,
}

/// The text of a chunk, for text queries.
#[derive(Debug)]
pub(super) struct PointText {
    /// The vector; `None` if the text has no terms.
    pub(super) vector: Option<SparseText>,
    /// The name of the analysis that made the vector.
    pub(super) analysis: String,
}

/// Returns a chunk as a point, at a position of its document. The chunk must have a vector, or its text must come with it.
pub(super) fn to_point(
    form: PointForm<'_>,
    title: &str,
    position: usize,
    chunk: Chunk,
    searched: Option<PointText>,
) -> PointStruct {
    let PointForm { stamp, vector_name } = form;
    let metadata = chunk.metadata.into_iter().map(|(key, value)| (key, to_payload(value))).collect();
    let text = |text: String| Payload { kind: Some(Kind::StringValue(text)) };
    let mut payload = HashMap::from([
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
    if !chunk.heading_path.is_empty() {
        let values = chunk.heading_path.into_iter().map(text).collect();
        payload.insert(HEADING_PATH.to_owned(), Payload { kind: Some(Kind::ListValue(ListValue { values })) });
    }
    let mut vectors: HashMap<String, Vector> = HashMap::new();
    if !chunk.vector.is_empty() {
        // Qdrant would keep a vector shorter than about 0.0003 as it is, and lose one whose squares do not fit an f32.
        let direction = Vector::new_dense(normalized(&chunk.vector));
        vectors.insert(vector_name.unwrap_or(UNNAMED).to_owned(), direction);
    }
    if let Some(PointText { vector, analysis }) = searched {
        payload.insert(TEXT_ANALYSIS.to_owned(), text(analysis));
        if let Some(SparseText { indices, values }) = vector {
            vectors.insert(TEXT_VECTOR.to_owned(), Vector::new_sparse(indices, values));
        }
    }
    let vectors = Vectors { vectors_options: Some(VectorsOptions::Vectors(NamedVectors { vectors })) };
    PointStruct { id: Some(point_of(&chunk.id)), payload, vectors: Some(vectors) }
}

/// Recursion is bounded: no list is in a list.
fn to_payload(value: Value) -> Payload {
    let kind = match value {
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Int(value) => Kind::IntegerValue(value),
        Value::Float(value) => Kind::DoubleValue(value),
        Value::Text(value) => Kind::StringValue(value),
        Value::List(values) => Kind::ListValue(ListValue { values: values.into_iter().map(to_payload).collect() }),
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
