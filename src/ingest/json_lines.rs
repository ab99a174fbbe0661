//! JSON Lines of chunks: the lines of a document stand together and become one document.

use std::collections::{BTreeMap, HashSet};
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::lines::{Line, Lines, metadata};
use super::{Entry, IngestError};
use crate::chunk::{Chunk, Document};
use crate::relationship::Object;
use crate::vector_store::validation::{CHUNKS_PER_DOCUMENT_MAX, check_chunk, check_document};

/// One chunk. An unknown field is most likely a misspelt one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChunkLine {
    id: String,
    document_id: String,
    guard: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    vector: Vec<f32>,
    #[serde(default)]
    metadata: BTreeMap<String, serde_json::Value>,
}

/// A chunk with the line that it stands on.
struct Numbered {
    line: u64,
    bytes: u64,
    chunk: Chunk,
}

/// The documents in the order of their lines.
pub(super) fn documents(
    path: &Path,
) -> Result<impl Iterator<Item = Result<Entry, IngestError>> + Send + use<>, IngestError> {
    let path = path.to_owned();
    let lines = Lines::open(&path)?;
    let at = path.clone();
    let mut dimension = Dimension::default();
    let chunks = lines.map(move |line| {
        let line = line?;
        let parsed = parse(&line).and_then(|numbered| dimension.check(&numbered).map(|()| numbered));
        parsed.map_err(|detail| IngestError::line(&at, line.number, detail))
    });
    let mut documents = Documents { path, chunks: chunks.peekable(), seen: HashSet::new() };
    Ok(std::iter::from_fn(move || documents.next().transpose()))
}

struct Documents<I: Iterator> {
    path: PathBuf,
    chunks: Peekable<I>,
    /// Ids of the documents so far.
    seen: HashSet<String>,
}

/// All vectors of a collection have one length. A file that mixes them is told the line.
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

impl<I: Iterator<Item = Result<Numbered, IngestError>>> Documents<I> {
    fn next(&mut self) -> Result<Option<Entry>, IngestError> {
        let Some(first) = self.chunks.next().transpose()? else { return Ok(None) };
        let document_id = first.chunk.document_id.clone();
        if !self.seen.insert(document_id.clone()) {
            let detail = format!("document `{document_id}` comes back; its lines must stand together");
            return Err(IngestError::line(&self.path, first.line, detail));
        }
        let (mut bytes, mut line) = (first.bytes, first.line);
        let title = first.chunk.title.clone();
        let mut ids = HashSet::from([first.chunk.id.clone()]);
        let mut chunks = vec![first.chunk];
        let is_next = |next: &Result<Numbered, IngestError>| {
            next.as_ref().map_or(true, |numbered| numbered.chunk.document_id == document_id)
        };
        while let Some(next) = self.chunks.next_if(is_next).transpose()? {
            (bytes, line) = (bytes + next.bytes, next.line);
            let refused = |detail: String| Err(IngestError::line(&self.path, line, detail));
            if next.chunk.title != title {
                return refused(format!("the title differs from that of the lines before of document `{document_id}`"));
            }
            if !ids.insert(next.chunk.id.clone()) {
                return refused(format!("chunk id `{}` is already used by this document", next.chunk.id));
            }
            if chunks.len() == CHUNKS_PER_DOCUMENT_MAX {
                return refused(format!("document `{document_id}` has more than {CHUNKS_PER_DOCUMENT_MAX} chunks"));
            }
            chunks.push(next.chunk);
        }
        let document = Document { id: document_id, title, chunks };
        check_document(&document).map_err(|e| IngestError::line(&self.path, line, e.to_string()))?;
        Ok(Some(Entry { path: self.path.clone(), bytes, document: Some(document) }))
    }
}

fn parse(line: &Line) -> Result<Numbered, String> {
    let ChunkLine { id, document_id, guard, title, text, vector, metadata: values } = line.parse()?;
    let guard = Object::parse(&guard).map_err(|e| format!("no guard: {e}"))?;
    let chunk = Chunk { id, document_id, guard, title, text, metadata: metadata(values)?, vector };
    check_chunk(&chunk).map_err(|e| e.to_string())?;
    Ok(Numbered { line: line.number, bytes: line.bytes, chunk })
}
