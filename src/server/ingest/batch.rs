//! Documents that are gathered to be written in one go.

use std::collections::BTreeSet;
use std::time::Duration;

use prost::Message;
use tokio::time::Instant;

use super::turns::Turn;
use crate::chunk::Document;
use crate::language::Object;
use crate::proto::ingest as message;
use crate::server::refusal::Refusal;
use crate::server::values;

/// A batch is full with this many chunks, or with [`BYTES_MAX`] bytes of messages: enough to share the cost of a commit.
const CHUNKS_MAX: usize = 2_048;
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// The longest time for which documents are gathered. So a slow stream cannot keep its turn from others, and its
/// documents are soon written.
const GATHERED_MAX: Duration = Duration::from_secs(1);

/// Documents of one collection, and the turn that they are written in.
pub(super) struct Batch {
    collection: String,
    documents: Vec<Document>,
    chunks: usize,
    bytes: usize,
    due: Instant,
    turn: Turn,
}

impl Batch {
    /// Returns an empty batch. The turn ends when the batch is dropped or written.
    pub(super) fn new(collection: &str, turn: Turn) -> Self {
        let due = Instant::now() + GATHERED_MAX;
        Self { collection: collection.to_owned(), documents: Vec::new(), chunks: 0, bytes: 0, due, turn }
    }

    pub(super) fn push(&mut self, document: message::Document) -> Result<(), Refusal> {
        self.bytes += document.encoded_len();
        self.chunks += document.chunks.len();
        self.documents.push(values::document(document)?);
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.chunks >= CHUNKS_MAX || self.bytes >= BYTES_MAX
    }

    /// Returns the moment at which the batch is written, full or not.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    pub(super) fn collection(&self) -> &str {
        &self.collection
    }

    pub(super) fn document_ids(&self) -> Vec<String> {
        self.documents.iter().map(|document| document.id.clone()).collect()
    }

    /// Returns whether a chunk has come with a vector.
    pub(super) fn has_vectors(&self) -> bool {
        self.documents.iter().flat_map(|document| &document.chunks).any(|chunk| !chunk.vector.is_empty())
    }

    /// Returns the dimension of the first vector, if there is one.
    pub(super) fn dimension(&self) -> Option<usize> {
        let chunks = self.documents.iter().flat_map(|document| &document.chunks);
        chunks.map(|chunk| chunk.vector.len()).find(|dimension| *dimension > 0)
    }

    pub(super) fn documents_mut(&mut self) -> &mut [Document] {
        &mut self.documents
    }

    /// Returns the distinct guards of all chunks.
    pub(super) fn guards(&self) -> Vec<Object> {
        let chunks = self.documents.iter().flat_map(|document| &document.chunks);
        let guards: BTreeSet<Object> = chunks.map(|chunk| chunk.guard.clone()).collect();
        guards.into_iter().collect()
    }

    pub(super) fn documents(&self) -> u64 {
        self.documents.len() as u64
    }

    pub(super) fn chunks(&self) -> u64 {
        self.chunks as u64
    }

    /// Gives the collection, the documents, and the turn to hold until they are written.
    pub(super) fn into_parts(self) -> (String, Vec<Document>, Turn) {
        (self.collection, self.documents, self.turn)
    }
}
