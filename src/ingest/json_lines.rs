//! Reads JSON Lines of chunks. The lines of a document stand together and become one document.
//!
//! A document is returned only if all of its lines are right. Otherwise a part of it would replace the whole document
//! in the store. A line that does not even name its document may belong to the document before it or to the one after
//! it, so both are skipped.

use std::collections::{BTreeMap, HashSet};
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::lines::{Line, Lines, metadata};
use super::{IngestError, SourceDocument};
use crate::chunk::{Chunk, Document};
use crate::language::Object;
use crate::vector_store::validation::{CHUNKS_PER_DOCUMENT_MAX, check_chunk, check_document};

/// The chunk of one line. An unknown field is refused, since it is most likely misspelt.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChunkLine {
    id: String,
    document_id: String,
    guard: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    heading_path: Vec<String>,
    #[serde(default)]
    text: String,
    #[serde(default)]
    vector: Vec<f32>,
    #[serde(default)]
    metadata: BTreeMap<String, serde_json::Value>,
}

/// A chunk with the number and the length of its line.
struct Numbered {
    line: u64,
    bytes: u64,
    chunk: Chunk,
}

/// The one field that is still read from a wrong line.
#[derive(Deserialize)]
struct DocumentOf {
    document_id: String,
}

/// A line that is wrong, and its error.
struct Faulty {
    /// The id of the line's document, if the line names it.
    document_id: Option<String>,
    error: IngestError,
}

/// Reads the documents of a file, in the order of their lines.
pub(super) fn documents(
    path: &Path,
) -> Result<impl Iterator<Item = Result<SourceDocument, IngestError>> + Send + use<>, IngestError> {
    let path = path.to_owned();
    let lines = Lines::open(&path)?;
    let at = path.clone();
    let mut dimension = Dimension::default();
    let chunks = lines.map(move |line| {
        let line = line.map_err(|error| Faulty { document_id: None, error })?;
        let parsed = parse(&line).and_then(|numbered| dimension.check(&numbered).map(|()| numbered));
        parsed.map_err(|detail| Faulty {
            document_id: line.parse().ok().map(|DocumentOf { document_id }| document_id),
            error: IngestError::line(&at, line.number, detail),
        })
    });
    let mut documents =
        Documents { path, chunks: chunks.peekable(), seen: HashSet::new(), passed_over: None, after_unknown: false };
    Ok(std::iter::from_fn(move || documents.next()))
}

struct Documents<I: Iterator> {
    path: PathBuf,
    chunks: Peekable<I>,
    /// The ids of the documents so far.
    seen: HashSet<String>,
    /// The document whose other lines are skipped.
    passed_over: Option<String>,
    /// Whether the last line did not name its document.
    after_unknown: bool,
}

/// Checks that all vectors of a file have one length, as a collection demands. The store would refuse them later,
/// without naming the line.
#[derive(Default)]
struct Dimension(Option<(usize, u64)>);

impl Dimension {
    fn check(&mut self, Numbered { line, chunk, .. }: &Numbered) -> Result<(), String> {
        let length = chunk.vector.len();
        match self.0 {
            _ if length == 0 => Ok(()),
            Some((first, at)) if first != length => Err(format!(
                "the vector has {length} numbers, and that of line {at} has {first}; all must have as many"
            )),
            Some(_) => Ok(()),
            None => {
                self.0 = Some((length, *line));
                Ok(())
            }
        }
    }
}

impl<I: Iterator<Item = Result<Numbered, Faulty>>> Documents<I> {
    fn next(&mut self) -> Option<Result<SourceDocument, IngestError>> {
        loop {
            match self.chunks.next()? {
                Err(faulty) if faulty.document_id.is_some() && faulty.document_id == self.passed_over => {}
                Ok(numbered) if Some(&numbered.chunk.document_id) == self.passed_over.as_ref() => {}
                Err(faulty) => return Some(Err(self.pass_over(faulty))),
                Ok(first) => return Some(self.document(first)),
            }
        }
    }

    /// Skips the document of a wrong line.
    fn pass_over(&mut self, Faulty { document_id, error }: Faulty) -> IngestError {
        self.after_unknown = document_id.is_none();
        if let Some(document_id) = document_id {
            self.seen.insert(document_id.clone());
            self.passed_over = Some(document_id);
        }
        error
    }

    /// Reads the rest of a document after its first line.
    fn document(&mut self, first: Numbered) -> Result<SourceDocument, IngestError> {
        let document_id = first.chunk.document_id.clone();
        let refused = |path: &Path, line: u64, detail: String| Err(IngestError::line(path, line, detail));
        // If the document is refused, its other lines are skipped. If it is whole, it has no other lines to skip.
        self.passed_over = Some(document_id.clone());
        if !self.seen.insert(document_id.clone()) {
            let detail = format!("document `{document_id}` comes back; its lines must stand together");
            return refused(&self.path, first.line, detail);
        }
        if std::mem::take(&mut self.after_unknown) {
            let detail = format!("document `{document_id}` is skipped: the line before may belong to it");
            return refused(&self.path, first.line, detail);
        }
        let (mut bytes, mut line) = (first.bytes, first.line);
        let title = first.chunk.title.clone();
        let mut ids = HashSet::from([first.chunk.id.clone()]);
        let mut chunks = vec![first.chunk];
        let belongs = |next: &Result<Numbered, Faulty>| match next {
            Ok(numbered) => numbered.chunk.document_id == document_id,
            Err(faulty) => faulty.document_id.as_ref().is_none_or(|id| *id == document_id),
        };
        while let Some(next) = self.chunks.next_if(belongs) {
            let next = match next {
                Ok(next) => next,
                Err(faulty) => {
                    self.after_unknown = faulty.document_id.is_none();
                    return Err(faulty.error);
                }
            };
            (bytes, line) = (bytes + next.bytes, next.line);
            if next.chunk.title != title {
                let detail = format!("the title differs from that of earlier lines of document `{document_id}`");
                return refused(&self.path, line, detail);
            }
            if !ids.insert(next.chunk.id.clone()) {
                let detail = format!("chunk id `{}` is already used by this document", next.chunk.id);
                return refused(&self.path, line, detail);
            }
            if chunks.len() == CHUNKS_PER_DOCUMENT_MAX {
                let detail = format!("document `{document_id}` has more than {CHUNKS_PER_DOCUMENT_MAX} chunks");
                return refused(&self.path, line, detail);
            }
            chunks.push(next.chunk);
        }
        let document = Document { id: document_id, title, chunks };
        check_document(&document).map_err(|e| IngestError::line(&self.path, line, e.to_string()))?;
        Ok(SourceDocument { path: self.path.clone(), bytes, encoding: None, document: Some(document) })
    }
}

fn parse(line: &Line) -> Result<Numbered, String> {
    let ChunkLine { id, document_id, guard, title, heading_path, text, vector, metadata: values } = line.parse()?;
    let guard = Object::parse(&guard).map_err(|e| format!("no guard: {e}"))?;
    let chunk = Chunk { id, document_id, guard, title, heading_path, text, metadata: metadata(values)?, vector };
    check_chunk(&chunk).map_err(|e| e.to_string())?;
    Ok(Numbered { line: line.number, bytes: line.bytes, chunk })
}
