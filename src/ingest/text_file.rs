//! A text file becomes a document: read, checked, cut into chunks.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use text_splitter::{MarkdownSplitter, TextSplitter};

use super::{Entry, IngestError};
use crate::chunk::{Chunk, Document, Metadata};
use crate::relationship::Object;
use crate::vector_store::validation::check_document;

/// Longest chunk, in characters: a few paragraphs, so that ten of them fit into any prompt.
const CHUNK_CHARACTERS: usize = 1_000;
/// Largest file, in bytes. A book has about one million.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Files that are read and cut at the same time; they are handed out in order.
const FILES_AHEAD: usize = 16;

/// A file that was found, and what is known about it before it is read.
#[derive(Debug)]
pub(super) struct TextFile {
    pub(super) path: PathBuf,
    pub(super) document_id: String,
    pub(super) guard: Object,
    /// `None`: taken from the file.
    pub(super) title: Option<String>,
    pub(super) metadata: Metadata,
}

impl TextFile {
    pub(super) fn size(&self) -> Result<u64, IngestError> {
        let metadata = std::fs::metadata(&self.path).map_err(|e| IngestError::unreadable(&self.path, &e))?;
        Ok(metadata.len())
    }

    fn read(self) -> Result<Entry, IngestError> {
        let content = self.content()?;
        let text = content.strip_prefix('\u{feff}').unwrap_or(&content);
        let bytes = content.len() as u64;
        let title = self.title.unwrap_or_else(|| title(&self.path, text));
        let chunk = |(place, text): (usize, &str)| Chunk {
            id: format!("{}#{place}", self.document_id),
            document_id: self.document_id.clone(),
            guard: self.guard.clone(),
            title: title.clone(),
            text: text.to_owned(),
            metadata: self.metadata.clone(),
            vector: Vec::new(),
        };
        let chunks: Vec<Chunk> = split(&self.path, text).into_iter().enumerate().map(chunk).collect();
        if chunks.is_empty() {
            return Ok(Entry { path: self.path, bytes, document: None });
        }
        let document = Document { id: self.document_id, title, chunks };
        check_document(&document).map_err(|e| IngestError::file(&self.path, format!("cannot be taken: {e}")))?;
        Ok(Entry { path: self.path, bytes, document: Some(document) })
    }

    fn content(&self) -> Result<String, IngestError> {
        let failed = |e: std::io::Error| IngestError::unreadable(&self.path, &e);
        let mut bytes = Vec::new();
        File::open(&self.path).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(IngestError::file(&self.path, format!("has more than {FILE_BYTES_MAX} bytes")));
        }
        String::from_utf8(bytes).map_err(|e| {
            let valid = e.utf8_error().valid_up_to();
            let line = e.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count() as u64 + 1;
            IngestError::line(&self.path, line, "is not valid UTF-8")
        })
    }
}

/// Reads files a few at a time on all cores, and gives them in order.
pub(super) fn read_ahead(
    mut files: impl Iterator<Item = Result<TextFile, IngestError>> + Send + 'static,
) -> impl Iterator<Item = Result<Entry, IngestError>> + Send {
    std::iter::from_fn(move || {
        let batch: Vec<_> = files.by_ref().take(FILES_AHEAD).collect();
        if batch.is_empty() {
            return None;
        }
        let read: Vec<_> = batch.into_par_iter().map(|file| file?.read()).collect();
        Some(read)
    })
    .flatten()
}

fn split<'a>(path: &Path, text: &'a str) -> Vec<&'a str> {
    if is_markdown(path) {
        return MarkdownSplitter::new(CHUNK_CHARACTERS).chunks(text).collect();
    }
    TextSplitter::new(CHUNK_CHARACTERS).chunks(text).collect()
}

/// The heading that a Markdown file begins with, or the file's name.
fn title(path: &Path, text: &str) -> String {
    let first_line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let heading = first_line.strip_prefix("# ").filter(|_| is_markdown(path)).map(str::trim);
    let stem = || path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    heading.filter(|heading| !heading.is_empty()).map_or_else(stem, str::to_owned)
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md" || extension == "markdown")
}
