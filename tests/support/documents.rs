//! Small documents for tests.

use ragward::proto::ingest::{Chunk, Document};

/// Returns a document with one chunk for each text, guarded by the object of its id.
pub(crate) fn document(id: &str, texts: &[&str]) -> Document {
    let chunk = |(position, text): (usize, &&str)| Chunk {
        id: format!("{id}#{position}"),
        guard: id.to_owned(),
        text: (*text).to_owned(),
        ..Chunk::default()
    };
    Document { id: id.to_owned(), title: String::new(), chunks: texts.iter().enumerate().map(chunk).collect() }
}
