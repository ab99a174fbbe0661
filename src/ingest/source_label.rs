//! The source that a run of ingestion records in its documents, so that a later run knows which of them it may remove.

use super::{IngestError, SourceDocument, SourceDocuments};
use crate::chunk::{Document, SOURCE_KEY, Value};
use crate::language::tuple::shown;
use crate::vector_store::validation::check_document;

/// The longest label, in bytes.
const BYTES_MAX: usize = 128;

/// The name of a source, such as `handbook`. It is kept in the metadata of each chunk, under
/// [`SOURCE_KEY`](crate::chunk::SOURCE_KEY).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLabel(String);

/// The text is not the name of a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("source `{}` must have 1 to {} bytes, and no control characters", shown(.0), BYTES_MAX)]
pub struct NotASourceLabel(String);

impl SourceLabel {
    /// Parses the name of a source.
    ///
    /// # Errors
    /// When it is empty, too long, or has a control character.
    pub fn parse(text: &str) -> Result<Self, NotASourceLabel> {
        if text.is_empty() || text.len() > BYTES_MAX || text.contains(char::is_control) {
            return Err(NotASourceLabel(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the name as a text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Records the source in documents. A document whose metadata has no room for it becomes an error.
    #[must_use]
    pub fn record_in(self, documents: SourceDocuments) -> SourceDocuments {
        Box::new(documents.map(move |entry| {
            let SourceDocument { path, bytes, encoding, document } = entry?;
            let Some(document) = document else { return Ok(SourceDocument { path, bytes, encoding, document: None }) };
            let document = self.labelled(document);
            check_document(&document)
                .map_err(|error| IngestError::file(&path, format!("cannot be taken with its source: {error}")))?;
            Ok(SourceDocument { path, bytes, encoding, document: Some(document) })
        }))
    }

    fn labelled(&self, mut document: Document) -> Document {
        for chunk in &mut document.chunks {
            chunk.metadata.insert(SOURCE_KEY.to_owned(), Value::Text(self.0.clone()));
        }
        document
    }
}
