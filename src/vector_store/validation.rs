//! Limits and rules for what a store takes in. They do not depend on what is already stored.
//!
//! Every adapter applies them before it does any work, so a call that is refused has done nothing.

use std::collections::HashSet;

use super::{Query, VectorStoreError};
use crate::chunk::{Chunk, Document, HEADING_BYTES_MAX, HEADINGS_MAX, ID_BYTES_MAX, Metadata, Value};
use crate::language::tuple::shown;

/// The longest name of a collection, in bytes. Qdrant would take 255.
pub const COLLECTION_BYTES_MAX: usize = 128;
/// The largest number of chunks of one document, which is replaced in one transaction.
pub const CHUNKS_PER_DOCUMENT_MAX: usize = 10_000;
/// The longest text of one chunk, in bytes. A chunk goes into a prompt whole.
pub const CHUNK_TEXT_BYTES_MAX: usize = 65_536;
/// The longest title of a document, in bytes.
pub const TITLE_BYTES_MAX: usize = 1_024;
/// The largest number of metadata keys of one chunk.
pub const METADATA_KEYS_MAX: usize = 64;
/// The largest size of the metadata of one chunk, keys and values together, in bytes. A number counts as 8.
pub const METADATA_BYTES_MAX: usize = 16_384;
/// The largest number of dimensions of a vector. The widest embeddings in common use have 4,096.
pub const VECTOR_DIMENSION_MAX: usize = 4_096;
/// The longest text query, in bytes: a long paragraph.
pub const QUERY_BYTES_MAX: usize = 8_192;
/// The largest number of different words of a text query. Each word costs a walk over its occurrences. In Chinese and
/// Japanese each pair of characters is a word, so a long question has some hundred.
pub const QUERY_TERMS_MAX: usize = 1_024;

/// Checks that every store can hold a collection of this name.
///
/// # Errors
/// [`VectorStoreError::Invalid`] when some store could not.
pub(super) fn check_collection_name(name: &str) -> Result<(), VectorStoreError> {
    check_name(name, COLLECTION_BYTES_MAX).map_err(|rule| invalid(format!("collection `{}` {rule}", shown(name))))
}

/// Checks what is known of a document before its chunks are looked at.
///
/// # Errors
/// [`VectorStoreError::Invalid`] when the id, the title or the number of chunks breaks a rule.
pub(crate) fn check_document_size(id: &str, title: &str, chunks: usize) -> Result<(), VectorStoreError> {
    let refused = |rule: String| invalid(format!("document `{}` {rule}", shown(id)));
    check_name(id, ID_BYTES_MAX).map_err(refused)?;
    if title.len() > TITLE_BYTES_MAX {
        let found = title.len();
        return Err(refused(format!("has a title of {found} bytes, at most {TITLE_BYTES_MAX} are allowed")));
    }
    if chunks == 0 {
        return Err(refused("has no chunks".to_owned()));
    }
    if chunks > CHUNKS_PER_DOCUMENT_MAX {
        return Err(refused(format!("has {chunks} chunks, at most {CHUNKS_PER_DOCUMENT_MAX} are allowed")));
    }
    Ok(())
}

/// Checks a document against the limits of this module.
///
/// # Errors
/// [`VectorStoreError::Invalid`] when it breaks a rule, and [`VectorStoreError::DuplicateChunk`] when two of its chunks have
/// one id.
pub fn check_document(document: &Document) -> Result<(), VectorStoreError> {
    check_document_size(&document.id, &document.title, document.chunks.len())?;
    let mut ids = HashSet::with_capacity(document.chunks.len());
    for chunk in &document.chunks {
        check_chunk(chunk)?;
        if chunk.document_id != document.id {
            let other = shown(&chunk.document_id);
            let (id, chunk) = (shown(&document.id), shown(&chunk.id));
            return Err(invalid(format!("document `{id}` has a chunk `{chunk}` of document `{other}`")));
        }
        if !ids.insert(chunk.id.as_str()) {
            return Err(VectorStoreError::DuplicateChunk {
                chunk_id: chunk.id.clone(),
                document_id: document.id.clone(),
                owner: None,
            });
        }
    }
    Ok(())
}

/// Checks a chunk against the limits of this module.
///
/// # Errors
/// [`VectorStoreError::Invalid`] when it breaks a rule.
pub(crate) fn check_chunk(chunk: &Chunk) -> Result<(), VectorStoreError> {
    let rules = || -> Result<(), String> {
        check_name(&chunk.id, ID_BYTES_MAX)?;
        if chunk.text.is_empty() && chunk.vector.is_empty() {
            return Err("has neither text nor vector".to_owned());
        }
        if chunk.text.len() > CHUNK_TEXT_BYTES_MAX {
            let found = chunk.text.len();
            return Err(format!("has {found} bytes of text, at most {CHUNK_TEXT_BYTES_MAX} are allowed"));
        }
        if chunk.heading_path.len() > HEADINGS_MAX {
            let found = chunk.heading_path.len();
            return Err(format!("has {found} headings, at most {HEADINGS_MAX} are allowed"));
        }
        if let Some(heading) = chunk.heading_path.iter().find(|heading| heading.len() > HEADING_BYTES_MAX) {
            let found = heading.len();
            return Err(format!("has a heading of {found} bytes, at most {HEADING_BYTES_MAX} are allowed"));
        }
        if !chunk.vector.is_empty() {
            check_vector(&chunk.vector).map_err(|rule| format!("has a vector that {rule}"))?;
        }
        check_metadata(&chunk.metadata)
    };
    rules().map_err(|rule| {
        let (id, document) = (shown(&chunk.id), shown(&chunk.document_id));
        invalid(format!("chunk `{id}` of document `{document}` {rule}"))
    })
}

/// Checks a query against the limits of this module.
///
/// # Errors
/// [`VectorStoreError::Invalid`] when it breaks a rule.
pub fn check_query(query: &Query) -> Result<(), VectorStoreError> {
    let (text, vector) = match query {
        Query::Text(text) => (Some(text), None),
        Query::Vector(vector) => (None, Some(vector)),
        Query::Hybrid { text, vector } => (Some(text), Some(vector)),
    };
    if let Some(text) = text.filter(|text| text.len() > QUERY_BYTES_MAX) {
        return Err(invalid(format!("the query has {} bytes, at most {QUERY_BYTES_MAX} are allowed", text.len())));
    }
    vector.map_or(Ok(()), |vector| {
        check_vector(vector).map_err(|rule| invalid(format!("the query is a vector that {rule}")))
    })
}

fn check_name(name: &str, bytes_max: usize) -> Result<(), String> {
    if name.is_empty() {
        return Err("has an empty name".to_owned());
    }
    if name.len() > bytes_max {
        return Err(format!("has a name of {} bytes, at most {bytes_max} are allowed", name.len()));
    }
    if name.contains(char::is_control) {
        return Err("has a control character in its name".to_owned());
    }
    Ok(())
}

fn check_vector(vector: &[f32]) -> Result<(), String> {
    if vector.is_empty() {
        return Err("is empty".to_owned());
    }
    if vector.len() > VECTOR_DIMENSION_MAX {
        return Err(format!("has {} dimensions, at most {VECTOR_DIMENSION_MAX} are allowed", vector.len()));
    }
    if let Some(position) = vector.iter().position(|x| !x.is_finite()) {
        return Err(format!("is not finite at position {position}"));
    }
    if vector.iter().all(|x| *x == 0.0) {
        return Err("is all zero, so it has no direction".to_owned());
    }
    Ok(())
}

fn check_metadata(metadata: &Metadata) -> Result<(), String> {
    if metadata.len() > METADATA_KEYS_MAX {
        return Err(format!("has {} metadata keys, at most {METADATA_KEYS_MAX} are allowed", metadata.len()));
    }
    let mut bytes = 0;
    for (key, value) in metadata {
        if key.is_empty() || key.contains(char::is_control) {
            return Err(format!("has a metadata key `{}` that is empty or holds a control character", shown(key)));
        }
        bytes += key.len();
        let values = match value {
            Value::List(values) => {
                // Each value of a list counts one more, so that a list of empty texts has a bound, too.
                bytes += values.len();
                values.as_slice()
            }
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) => std::slice::from_ref(value),
        };
        for value in values {
            bytes += match value {
                Value::Float(number) if !number.is_finite() => {
                    return Err(format!("has a number under metadata key `{}` that is not finite", shown(key)));
                }
                Value::List(_) => {
                    return Err(format!("has a list in a list under metadata key `{}`", shown(key)));
                }
                Value::Text(text) => text.len(),
                Value::Bool(_) | Value::Int(_) | Value::Float(_) => size_of::<f64>(),
            };
        }
    }
    if bytes > METADATA_BYTES_MAX {
        return Err(format!("has {bytes} bytes of metadata, at most {METADATA_BYTES_MAX} are allowed"));
    }
    Ok(())
}

fn invalid(text: String) -> VectorStoreError {
    VectorStoreError::Invalid(text)
}
