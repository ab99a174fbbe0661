//! The stored form of a document: what the index needs, without texts. Integers are variable-length (postcard), term ids of
//! a chunk ascend and are stored as differences.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::index::{Index, IndexedChunk, IndexedDocument};
use super::postings::TermId;
use crate::chunk::{Metadata, Value};
use crate::language::Object;

#[derive(Serialize, Deserialize)]
struct DocumentRecord<'a> {
    #[serde(borrow)]
    title: &'a str,
    chunks: Vec<ChunkRecord<'a>>,
}

#[derive(Serialize, Deserialize)]
struct ChunkRecord<'a> {
    id: &'a str,
    guard: &'a str,
    /// `None`: that of the chunk before.
    #[serde(borrow)]
    metadata: Option<Vec<(&'a str, ValueRecord<'a>)>>,
    has_vector: bool,
    /// Differences of term ids, and counts.
    terms: Vec<(u32, u32)>,
}

/// [`Value`] with its kind, which its own serialization leaves out.
#[derive(Serialize, Deserialize)]
enum ValueRecord<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
}

pub(super) fn encode(document: &IndexedDocument) -> Result<Vec<u8>, redb::Error> {
    let mut chunks = Vec::with_capacity(document.chunks.len());
    let mut last: Option<&Arc<Metadata>> = None;
    for chunk in &document.chunks {
        let is_shared = last.is_some_and(|last| Arc::ptr_eq(last, &chunk.metadata));
        last = Some(&chunk.metadata);
        chunks.push(ChunkRecord {
            id: &chunk.id,
            guard: chunk.guard.as_str(),
            metadata: (!is_shared).then(|| encode_metadata(&chunk.metadata)),
            has_vector: !chunk.vector.is_empty(),
            terms: differences(&chunk.terms),
        });
    }
    let record = DocumentRecord { title: &document.title, chunks };
    postcard::to_stdvec(&record).map_err(|e| redb::Error::Corrupted(format!("cannot encode a document: {e}")))
}

/// The vectors of its chunks, end to end.
pub(super) fn encode_vectors(document: &IndexedDocument) -> Vec<u8> {
    document.chunks.iter().flat_map(|chunk| &chunk.vector).flat_map(|x| x.to_le_bytes()).collect()
}

/// Reads a record back. The detail of an error is for whoever looks into a damaged file.
pub(super) fn decode(id: &str, record: &[u8], vectors: &[u8], index: &Index) -> Result<IndexedDocument, String> {
    let record: DocumentRecord<'_> = postcard::from_bytes(record).map_err(|e| e.to_string())?;
    let mut vectors = vectors.chunks_exact(index.dimension.unwrap_or(1) * size_of::<f32>());
    let mut metadata: Option<Arc<Metadata>> = None;
    let mut chunks = Vec::with_capacity(record.chunks.len());
    for chunk in record.chunks {
        if let Some(own) = chunk.metadata {
            metadata = Some(Arc::new(decode_metadata(own)));
        }
        let vector = if chunk.has_vector { vectors.next().ok_or("a vector is missing")? } else { &[] };
        chunks.push(IndexedChunk {
            id: chunk.id.into(),
            guard: Object::parse(chunk.guard).map_err(|e| e.to_string())?,
            metadata: metadata.clone().ok_or("the metadata is missing")?,
            vector: decode_vector(vector),
            terms: sums(chunk.terms, index.postings.terms_len())?,
        });
    }
    Ok(IndexedDocument { id: id.into(), title: record.title.into(), chunks })
}

fn encode_metadata(metadata: &Metadata) -> Vec<(&str, ValueRecord<'_>)> {
    let encode = |value| match value {
        &Value::Bool(b) => ValueRecord::Bool(b),
        &Value::Int(i) => ValueRecord::Int(i),
        &Value::Float(f) => ValueRecord::Float(f),
        Value::Text(text) => ValueRecord::Text(text),
    };
    metadata.iter().map(|(key, value)| (key.as_str(), encode(value))).collect()
}

fn decode_metadata(metadata: Vec<(&str, ValueRecord<'_>)>) -> Metadata {
    let decode = |value| match value {
        ValueRecord::Bool(b) => Value::Bool(b),
        ValueRecord::Int(i) => Value::Int(i),
        ValueRecord::Float(f) => Value::Float(f),
        ValueRecord::Text(text) => Value::Text(text.to_owned()),
    };
    metadata.into_iter().map(|(key, value)| (key.to_owned(), decode(value))).collect()
}

fn decode_vector(bytes: &[u8]) -> Vec<f32> {
    let (numbers, _) = bytes.as_chunks();
    numbers.iter().map(|number| f32::from_le_bytes(*number)).collect()
}

fn differences(terms: &[(TermId, u32)]) -> Vec<(u32, u32)> {
    let before = std::iter::once(0).chain(terms.iter().map(|(id, _)| *id));
    terms.iter().zip(before).map(|((id, count), before)| (id - before, *count)).collect()
}

fn sums(mut terms: Vec<(u32, u32)>, terms_len: TermId) -> Result<Vec<(TermId, u32)>, String> {
    let mut last: TermId = 0;
    for (id, _) in &mut terms {
        last = last.checked_add(*id).filter(|id| *id < terms_len).ok_or("a term is not in the dictionary")?;
        *id = last;
    }
    Ok(terms)
}
