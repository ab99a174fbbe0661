//! Documents and their chunks. A chunk is the piece of a document that a search finds, and it has a guard: the object whose
//! relations decide who may see it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::language::Object;

/// The longest id of a chunk or a document, in bytes.
pub const ID_BYTES_MAX: usize = 512;
/// The most headings above a chunk. Markdown has six levels.
pub const HEADINGS_MAX: usize = 16;
/// The longest heading above a chunk, in bytes.
pub const HEADING_BYTES_MAX: usize = 1_024;

/// The metadata key under which `ragward ingest --source` records where a document came from.
pub const SOURCE_KEY: &str = "ingest_source";

/// The metadata key under which a chunk states the language of its text, such as `de` or `pt-BR`.
pub const LANGUAGE_KEY: &str = "language";

/// A value of a chunk's metadata, and of a filter.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A truth value, `true` or `false`.
    Bool(bool),
    /// A whole number of 64 bits.
    Int(i64),
    /// A floating-point number, which is never NaN or infinite.
    Float(f64),
    /// A text, which is compared byte by byte. One that is written as a date or a time can be compared with times, too.
    Text(String),
    /// Several values, none of which is a list. A condition holds for a list if it holds for one of them.
    List(Vec<Value>),
}

/// The metadata of a chunk, by key.
pub type Metadata = BTreeMap<String, Value>;

/// A document as it is ingested. It replaces all chunks of the document with the same id, or nothing changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The id of the document, unique in its collection.
    pub id: String,
    /// A title for people; may be empty.
    pub title: String,
    /// The chunks in the order of the document; at least one.
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
            heading_path: Vec::new(),
            text: text.to_owned(),
            metadata: Metadata::new(),
            vector: Vec::new(),
        };
        Self { id: id.to_owned(), title: String::new(), chunks: vec![chunk] }
    }
}

/// A piece of a document, with its text. It is read back from a store only once `authz::enforce` has permitted it.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// The id of the chunk, unique in its collection.
    pub id: String,
    /// The id of the document that the chunk belongs to.
    pub document_id: String,
    /// The object that the chunk is checked against.
    pub guard: Object,
    /// The title of the document; may be empty.
    pub title: String,
    /// The headings above the text, the outermost first; empty if there are none.
    pub heading_path: Vec<String>,
    /// The text; may be empty if there is a vector.
    pub text: String,
    /// The values that filters and the details of a token look at.
    pub metadata: Metadata,
    /// The embedding; empty if there is none, and in a chunk that was read back.
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

/// The version of a document. All chunks of one write have the same version, and the next write of the document has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version(pub u128);

/// The time at which the document of a chunk was written, as far as it is known.
///
/// A decision that is older than the document does not release its chunks: the right to read the old text of a document
/// does not include the right to read the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was written at this moment of this process's monotonic clock, or before.
    By(Instant),
    /// Another process wrote it at this time since 1970 by its own clock.
    AtWallTime(Duration),
    /// The program that wrote it does not note the time.
    Unknown,
}

/// A chunk as a search finds it: enough to check and rank it, without its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The id of the chunk, unique in its collection.
    pub chunk_id: String,
    /// The object that the chunk is checked against.
    pub guard: Object,
    /// The score, where higher is better. Its scale depends on the kind of query (BM25, cosine, reciprocal ranks).
    pub score: f32,
    /// The version of its document; `None` if another program wrote it.
    pub version: Option<Version>,
    /// The time at which its document was written.
    pub written: Written,
}

/// A chunk that was looked up by its id, without its text.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundChunk {
    /// The chunk as a search would find it, with a score of 0.
    pub candidate: Candidate,
    /// The id of the document that the chunk belongs to; `None` if the store cannot tell it without the text.
    pub document_id: Option<String>,
}
