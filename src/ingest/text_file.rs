//! Turns a text file into a document: reads it, checks it and cuts it into chunks.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use rayon::prelude::*;
use tokio::time::Instant;

use super::decode::{Decoded, NotText, decode};
use super::{ChunkSize, IngestError, Piece, SourceDocument, TextForm, cut};
use crate::chunk::{Chunk, Document, Metadata};
use crate::language::Object;
use crate::vector_store::validation::check_document;

/// The largest file, in bytes. A book has about one million bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// How many files are read and cut at the same time. They are returned in order.
const FILES_AHEAD: usize = 16;
/// The longest time that reading a file may take. On a network drive that hangs, reading never ends. The time is well
/// below a minute, because a server ends an upload that is silent for a minute.
const READ_TIME_MAX: Duration = Duration::from_secs(20);
/// The most files that are given up in one run. Each of them leaves a thread behind, which waits for the operating
/// system.
const GIVEN_UP_MAX: usize = 64;

/// A file that was found but not read yet.
#[derive(Debug)]
pub(super) struct TextFile {
    pub(super) path: PathBuf,
    pub(super) document_id: String,
    pub(super) guard: Object,
    /// The title; `None` if it is to be taken from the text.
    pub(super) title: Option<String>,
    pub(super) metadata: Metadata,
}

impl TextFile {
    pub(super) fn size(&self) -> Result<u64, IngestError> {
        let metadata = std::fs::metadata(&self.path).map_err(|e| IngestError::unreadable(&self.path, &e))?;
        Ok(metadata.len())
    }

    /// Cuts the content of the file into chunks.
    fn entry(self, content: &FileContent, size: ChunkSize) -> Result<SourceDocument, IngestError> {
        let FileContent { bytes, decoded: Decoded { text, encoding } } = content;
        let (bytes, encoding) = (*bytes, *encoding);
        let cut = cut(text, form(&self.path), size);
        let stem = || self.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let title = self.title.or(cut.title).unwrap_or_else(stem);
        // The catalog's word comes before the file's.
        let mut metadata = cut.metadata;
        metadata.extend(self.metadata);
        let chunk = |(place, piece): (usize, Piece)| Chunk {
            id: format!("{}#{place}", self.document_id),
            document_id: self.document_id.clone(),
            guard: self.guard.clone(),
            title: title.clone(),
            heading_path: piece.heading_path,
            text: piece.text,
            metadata: metadata.clone(),
            vector: Vec::new(),
        };
        let chunks: Vec<Chunk> = cut.pieces.into_iter().enumerate().map(chunk).collect();
        if chunks.is_empty() {
            return Ok(SourceDocument { path: self.path, bytes, encoding, document: None });
        }
        let document = Document { id: self.document_id, title, chunks };
        check_document(&document).map_err(|e| IngestError::file(&self.path, format!("cannot be taken: {e}")))?;
        Ok(SourceDocument { path: self.path, bytes, encoding, document: Some(document) })
    }

    fn content(&self) -> Result<FileContent, IngestError> {
        let failed = |e: std::io::Error| IngestError::unreadable(&self.path, &e);
        let mut bytes = Vec::new();
        File::open(&self.path).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(IngestError::file(&self.path, format!("has more than {FILE_BYTES_MAX} bytes")));
        }
        let read = bytes.len() as u64;
        let decoded = decode(bytes).map_err(|e| match e {
            NotText::DamagedUtf8 { line } => IngestError::line(&self.path, line, "is not valid UTF-8"),
            NotText::Binary => IngestError::file(&self.path, "has no text: its bytes are in no known encoding"),
        })?;
        Ok(FileContent { bytes: read, decoded })
    }
}

/// The content of a file.
#[derive(Debug)]
pub(super) struct FileContent {
    /// The size of the file.
    bytes: u64,
    decoded: Decoded,
}

/// Reads files a few at a time, cuts them on all cores, and returns them in order.
pub(super) fn read_ahead(
    files: impl Iterator<Item = Result<TextFile, IngestError>> + Send + 'static,
    size: ChunkSize,
) -> impl Iterator<Item = Result<SourceDocument, IngestError>> + Send {
    read_ahead_within(files, size, READ_TIME_MAX, TextFile::content)
}

fn read_ahead_within(
    mut files: impl Iterator<Item = Result<TextFile, IngestError>> + Send + 'static,
    size: ChunkSize,
    time_max: Duration,
    content: impl Fn(&TextFile) -> Result<FileContent, IngestError> + Send + Sync + Copy + 'static,
) -> impl Iterator<Item = Result<SourceDocument, IngestError>> + Send {
    let mut given_up = 0;
    std::iter::from_fn(move || {
        let batch: Vec<_> = files.by_ref().take(FILES_AHEAD).collect();
        if batch.is_empty() {
            return None;
        }
        if given_up >= GIVEN_UP_MAX {
            let not_read =
                |file: TextFile| IngestError::file(&file.path, "was not read: too many files before it took too long");
            return Some(batch.into_iter().map(|file| Err(file.map_or_else(|e| e, not_read))).collect::<Vec<_>>());
        }
        let contents = contents(batch, time_max, content, &mut given_up);
        let entries = contents.into_par_iter().map(|read| {
            let (file, content) = read?;
            file.entry(&content, size)
        });
        Some(entries.collect())
    })
    .flatten()
}

/// A file with its content.
type Content = Result<(TextFile, FileContent), IngestError>;
/// A thread that reads a file.
struct Reading {
    path: PathBuf,
    content: Receiver<Content>,
    thread: JoinHandle<()>,
}

/// Reads files at the same time, each on a thread of its own. Nothing can interrupt a thread that waits for the operating
/// system, so one slow file must not hold up the others. The thread of a file that is given up is left to itself; all other
/// threads are joined.
fn contents(
    files: Vec<Result<TextFile, IngestError>>,
    time_max: Duration,
    content: impl Fn(&TextFile) -> Result<FileContent, IngestError> + Send + Copy + 'static,
    given_up: &mut usize,
) -> Vec<Content> {
    let deadline = Instant::now() + time_max;
    let mut reading: Vec<Result<Reading, IngestError>> = Vec::new();
    for file in files {
        reading.push(file.and_then(|file| {
            let path = file.path.clone();
            let (sender, receiver) = mpsc::channel();
            let read = move || {
                let content = content(&file).map(|content| (file, content));
                if sender.send(content).is_err() {
                    tracing::debug!("a file was read after it was given up");
                }
            };
            let thread = std::thread::Builder::new().name("read".to_owned()).spawn(read);
            let thread = thread.map_err(|e| IngestError::unreadable(&path, &e))?;
            Ok(Reading { path, content: receiver, thread })
        }));
    }
    let mut finished = Vec::new();
    for file in reading {
        finished.push(file.and_then(|Reading { path, content, thread }| {
            let left = deadline.saturating_duration_since(Instant::now());
            match content.recv_timeout(left) {
                Ok(content) => {
                    // The thread ends right after it has sent.
                    thread.join().map_err(|_panicked| IngestError::file(&path, "could not be read"))?;
                    content
                }
                Err(_late) => {
                    *given_up += 1;
                    Err(IngestError::file(&path, format!("was not read within {} seconds", time_max.as_secs())))
                }
            }
        }));
    }
    finished
}

/// Returns the extension of a file in small letters.
pub(super) fn extension(path: &Path) -> Option<String> {
    path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase)
}

fn form(path: &Path) -> TextForm {
    match extension(path).as_deref() {
        Some("md" | "markdown") => TextForm::Markdown,
        Some("htm" | "html" | "xhtml") => TextForm::Html,
        Some(_) | None => TextForm::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The read of a file whose name begins with `slow` never ends.
    #[test]
    fn a_file_that_is_slow_to_read_is_passed_over_by_name() {
        let file = |name: String| TextFile {
            path: PathBuf::from(&name),
            guard: Object::parse("doc:a").unwrap(),
            document_id: name,
            title: None,
            metadata: Metadata::new(),
        };
        let content = |file: &TextFile| {
            while file.document_id.starts_with("slow") {
                std::thread::park();
            }
            let decoded = Decoded { text: file.document_id.clone(), encoding: None };
            Ok(FileContent { bytes: 1, decoded })
        };
        let names = ["a", "slow 1", "b", "slow 2"].map(str::to_owned);
        let files = names.into_iter().chain((0..40).map(|number| format!("c{number}")));
        let read: Vec<_> = read_ahead_within(
            files.map(move |name| Ok(file(name))),
            ChunkSize::default(),
            Duration::from_secs(2),
            content,
        )
        .map(|entry| entry.map(|entry| entry.path.display().to_string()).map_err(|e| e.to_string()))
        .collect();
        assert_eq!(read.len(), 44);
        let errors: Vec<&String> = read.iter().filter_map(|entry| entry.as_ref().err()).collect();
        assert!(
            errors
                .iter()
                .zip(["slow 1", "slow 2"])
                .all(|(error, name)| error.starts_with(&format!("`{name}` was not read")))
        );
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert_eq!(read[2], Ok("b".to_owned()));

        let slow = (0..GIVEN_UP_MAX + 40).map(move |number| Ok(file(format!("slow {number}"))));
        let read: Vec<_> = read_ahead_within(slow, ChunkSize::default(), Duration::ZERO, content).collect();
        assert!(read.iter().all(Result::is_err), "{read:?}");
        assert!(read.last().unwrap().as_ref().is_err_and(|e| e.to_string().contains("too many files before it")));
    }
}
