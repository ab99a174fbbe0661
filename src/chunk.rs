//! Chunks: the pieces of documents that a search finds, each with the guard that it is checked against.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::language::Object;

/// Longest chunk or document id, in bytes.
pub const ID_BYTES_MAX: usize = 512;

/// A value of a chunk's metadata, and of a filter.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number; never NaN or infinite.
    Float(f64),
    /// A text, compared byte by byte.
    Text(String),
}

/// Metadata by key.
pub type Metadata = BTreeMap<String, Value>;

/// A document as it is ingested: it replaces all chunks of the same id, or nothing happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The document's id, unique in its collection.
    pub id: String,
    /// A title for people; may be empty.
    pub title: String,
    /// In the document's order; at least one.
    pub chunks: Vec<Chunk>,
}

impl Document {
    /// Makes a document of one chunk, which has the document's id. It has no title, no metadata and no vector.
    #[must_use]
    pub fn of_text(id: &str, guard: Object, text: &str) -> Self {
        let chunk = Chunk {
            id: id.to_owned(),
            document_id: id.to_owned(),
            guard,
            title: String::new(),
            text: text.to_owned(),
            metadata: Metadata::new(),
            vector: Vec::new(),
        };
        Self { id: id.to_owned(), title: String::new(), chunks: vec![chunk] }
    }
}

/// One piece of a document, text included. Only what `authz::enforce` permitted is ever read back as one.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Unique in the collection.
    pub id: String,
    /// The document that it belongs to.
    pub document_id: String,
    /// The object that it is checked against.
    pub guard: Object,
    /// The title of its document; may be empty.
    pub title: String,
    /// The text; may be empty when there is a vector.
    pub text: String,
    /// What filters look at.
    pub metadata: Metadata,
    /// The embedding; empty when there is none. Not read back.
    pub vector: Vec<f32>,
}

/// A chunk without its text: enough to decide whether the text may be read.
#[derive(Clone, Debug, PartialEq)]
pub struct ChunkMetadata {
    /// The id of the chunk, unique in its collection.
    pub chunk_id: String,
    /// The id of the document that the chunk belongs to.
    pub document_id: String,
    /// The object that the chunk is checked against.
    pub guard: Object,
    /// The values that filters and the details of a token look at.
    pub metadata: Metadata,
}

/// One write of a document. All chunks that it put in have its version, and the next write of the document has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version(pub u128);

/// When a chunk's document was written, as far as that is known. A decision that is older than the document does not release
/// the chunk: whoever may read a document's old text need not be allowed to read the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// At this moment of this process's monotonic clock, or before it.
    By(Instant),
    /// By another process, at this time since 1970 of that process's clock.
    AtWallTime(Duration),
    /// By a program that does not note it.
    Unknown,
}

/// What a search finds: enough to check and rank a chunk, without its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The chunk's id.
    pub chunk_id: String,
    /// The object that it is checked against.
    pub guard: Object,
    /// Higher is better; the scale is the query kind's own (BM25, cosine, reciprocal ranks).
    pub score: f32,
    /// The write that put it in; `None` where another program did.
    pub version: Option<Version>,
    /// When that was.
    pub written: Written,
}
