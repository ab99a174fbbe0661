//! The stored form of a document: everything that the index needs, without texts. Integers have variable length
//! (postcard). The term ids of a chunk ascend, and only their differences are stored.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::index::{Index, IndexedChunk, IndexedDocument, IndexedTerm};
use super::postings::TermId;
use super::stated_language::stated_language;
use crate::analysis::Language;
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
    /// The metadata; `None` if the chunk before has the same.
    #[serde(borrow)]
    metadata: Option<Vec<(&'a str, ValueRecord<'a>)>>,
    has_vector: bool,
    terms: Vec<TermRecord>,
}

/// A term of a chunk. Postcard writes it as two integers, one after the other.
#[derive(Serialize, Deserialize)]
struct TermRecord {
    /// The id of the term, less the id of the term before.
    difference: u32,
    count: u32,
}

/// A [`Value`] with its kind, which its own serialization leaves out.
#[derive(Serialize, Deserialize)]
enum ValueRecord<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    // Added later. Files of earlier versions have none.
    List(#[serde(borrow)] Vec<ValueRecord<'a>>),
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
            terms: encode_terms(&chunk.terms),
        });
    }
    let record = DocumentRecord { title: &document.title, chunks };
    postcard::to_stdvec(&record).map_err(|e| redb::Error::Corrupted(format!("cannot encode a document: {e}")))
}

/// Returns the title of a stored record's document.
pub(super) fn title(record: &[u8]) -> Result<&str, redb::Error> {
    Ok(parsed(record)?.title)
}

/// Returns the languages that the chunks of a stored record state, in the order of the document.
pub(super) fn stated_languages(record: &[u8]) -> Result<Vec<Option<Language>>, redb::Error> {
    let mut last = None;
    let stated = parsed(record)?.chunks.into_iter().map(|chunk| {
        if let Some(own) = chunk.metadata {
            last = stated_language(&decode_metadata(own));
        }
        last
    });
    Ok(stated.collect())
}

fn parsed(record: &[u8]) -> Result<DocumentRecord<'_>, redb::Error> {
    postcard::from_bytes(record).map_err(|e| redb::Error::Corrupted(format!("cannot read a document: {e}")))
}

/// Returns a stored record with other terms. `next_terms` returns the terms of one chunk after the other, by ascending
/// id.
pub(super) fn replace_terms(
    record: &[u8],
    mut next_terms: impl FnMut() -> Vec<IndexedTerm>,
) -> Result<Vec<u8>, redb::Error> {
    let mut record = parsed(record)?;
    for chunk in &mut record.chunks {
        chunk.terms = encode_terms(&next_terms());
    }
    postcard::to_stdvec(&record).map_err(|e| redb::Error::Corrupted(format!("cannot encode a document: {e}")))
}

/// The headings above a chunk. A version of Ragward that does not know of them replaces a text and leaves them behind, so they
/// count for the text that they were written with alone.
#[derive(Serialize, Deserialize)]
struct HeadingPathRecord {
    text_digest: [u8; 16],
    headings: Vec<String>,
}

pub(super) fn encode_heading_path(headings: &[String], text: &str) -> Result<Vec<u8>, redb::Error> {
    let record = HeadingPathRecord { text_digest: text_digest(text), headings: headings.to_vec() };
    postcard::to_stdvec(&record).map_err(|e| redb::Error::Corrupted(format!("cannot encode headings: {e}")))
}

/// Returns the headings above a text, or none if they were written with another text.
pub(super) fn decode_heading_path(record: &[u8], text: &str) -> Result<Vec<String>, redb::Error> {
    let record: HeadingPathRecord = postcard::from_bytes(record)
        .map_err(|e| redb::Error::Corrupted(format!("cannot read the headings of a chunk: {e}")))?;
    Ok(if record.text_digest == text_digest(text) { record.headings } else { Vec::new() })
}

fn text_digest(text: &str) -> [u8; 16] {
    let digest = digest(&SHA256, text.as_bytes());
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

/// Encodes the vectors of a document's chunks, end to end.
pub(super) fn encode_vectors(document: &IndexedDocument) -> Vec<u8> {
    document.chunks.iter().flat_map(|chunk| &chunk.vector).flat_map(|x| x.to_le_bytes()).collect()
}

/// Decodes a document. The text of an error helps to find the damage in a file.
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
            terms: decode_terms(chunk.terms, index.postings.terms_len())?,
        });
    }
    Ok(IndexedDocument { id: id.into(), title: record.title.into(), chunks })
}

fn encode_metadata(metadata: &Metadata) -> Vec<(&str, ValueRecord<'_>)> {
    metadata.iter().map(|(key, value)| (key.as_str(), encode_value(value))).collect()
}

/// Recursion is bounded: no list is in a list.
fn encode_value(value: &Value) -> ValueRecord<'_> {
    match value {
        &Value::Bool(b) => ValueRecord::Bool(b),
        &Value::Int(i) => ValueRecord::Int(i),
        &Value::Float(f) => ValueRecord::Float(f),
        Value::Text(text) => ValueRecord::Text(text),
        Value::List(values) => ValueRecord::List(values.iter().map(encode_value).collect()),
    }
}

fn decode_metadata(metadata: Vec<(&str, ValueRecord<'_>)>) -> Metadata {
    metadata.into_iter().map(|(key, value)| (key.to_owned(), decode_value(value))).collect()
}

/// Recursion is bounded: only what was checked is stored, and there no list is in a list.
fn decode_value(value: ValueRecord<'_>) -> Value {
    match value {
        ValueRecord::Bool(b) => Value::Bool(b),
        ValueRecord::Int(i) => Value::Int(i),
        ValueRecord::Float(f) => Value::Float(f),
        ValueRecord::Text(text) => Value::Text(text.to_owned()),
        ValueRecord::List(values) => Value::List(values.into_iter().map(decode_value).collect()),
    }
}

fn decode_vector(bytes: &[u8]) -> Vec<f32> {
    let (numbers, _) = bytes.as_chunks();
    numbers.iter().map(|number| f32::from_le_bytes(*number)).collect()
}

fn encode_terms(terms: &[IndexedTerm]) -> Vec<TermRecord> {
    let before = std::iter::once(0).chain(terms.iter().map(|term| term.id));
    terms
        .iter()
        .zip(before)
        .map(|(term, before)| TermRecord { difference: term.id - before, count: term.count })
        .collect()
}

fn decode_terms(records: Vec<TermRecord>, terms_len: TermId) -> Result<Vec<IndexedTerm>, String> {
    let mut last: TermId = 0;
    // The terms are most of a record. They have the size of their records, so this collects them in the same memory.
    let terms = records.into_iter().map(|TermRecord { difference, count }| {
        last = last.checked_add(difference).filter(|id| *id < terms_len).ok_or("a term is not in the dictionary")?;
        Ok(IndexedTerm { id: last, count })
    });
    terms.collect()
}
