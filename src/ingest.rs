//! Reading documents from files: a folder of Markdown and plain text, with or without a catalog, or JSON Lines of chunks that
//! already have vectors. `schema/payload.md` is the contract of the files.
//!
//! Documents are read one after the other, so a corpus need not fit into memory. What cannot be read is an error that names
//! the file and line, and the reading goes on; every document that is given is whole.

mod catalog;
mod folder;
mod json_lines;
mod lines;
mod text_file;

use std::path::{Path, PathBuf};

use crate::chunk::Document;
use crate::error_code::ErrorCode;
use crate::language::{Object, TypeName};

/// Where documents come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Every `.md`, `.markdown`, `.txt` and `.text` file below a folder. Hidden files are left out, and so are symbolic links
    /// within the folder; a link that leads out of the folder or nowhere is an error.
    Folder {
        /// The folder.
        root: PathBuf,
        /// How a file gets its guard.
        guard: GuardRule,
    },
    /// The files that a catalog (JSON Lines) names.
    Catalog {
        /// The catalog.
        path: PathBuf,
        /// The folder that its paths are relative to.
        root: PathBuf,
    },
    /// Chunks, one a line.
    JsonLines {
        /// The file.
        path: PathBuf,
    },
}

/// How a file of a folder without a catalog gets its guard.
#[derive(Clone, Debug)]
pub enum GuardRule {
    /// One object for all. The document id is the path within the folder.
    One(Object),
    /// An object of this type whose id is the path within the folder without its extension; white space, control
    /// characters, `:`, `#`, `*` and `%` are percent-encoded. It is the document id, too.
    Type(TypeName),
}

/// One document as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The file that it was read from.
    pub path: PathBuf,
    /// How many bytes were read for it.
    pub bytes: u64,
    /// The document; `None` when the file holds no text.
    pub document: Option<Document>,
}

/// What there is to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// `None` when only reading everything would tell.
    pub documents: Option<u64>,
    /// Of the files that are read.
    pub bytes: u64,
}

/// Documents in the order of the catalog, of the lines, or of the paths, with an error in place of what is passed over.
pub type Entries = Box<dyn Iterator<Item = Result<Entry, IngestError>> + Send>;

/// Why a document was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// The system does not give the file.
    #[error("cannot read `{}`: {detail}", .path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// A file is not what it should be.
    #[error("`{}` {detail}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The rule that it broke.
        detail: String,
    },
    /// A line is not what it should be.
    #[error("`{}`, line {line}: {detail}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        detail: String,
    },
}

impl IngestError {
    /// What the caller can do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unreadable { .. } => ErrorCode::NotFound,
            Self::File { .. } | Self::Line { .. } => ErrorCode::InvalidArgument,
        }
    }

    fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), detail: error.to_string() }
    }

    fn file(path: &Path, detail: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), detail: detail.into() }
    }

    fn line(path: &Path, line: u64, detail: impl Into<String>) -> Self {
        Self::Line { path: path.to_owned(), line, detail: detail.into() }
    }
}

impl Source {
    /// Counts ahead, for a progress bar; reads the catalog and the names and sizes of files, not their contents.
    ///
    /// # Errors
    /// When the folder, catalog or file cannot be opened. Else the errors that show without reading contents, such as a bad
    /// line of the catalog, are given with the totals of what is left.
    pub fn totals(&self) -> Result<(Totals, Vec<IngestError>), IngestError> {
        let sizes: Box<dyn Iterator<Item = Result<u64, IngestError>>> = match self {
            Self::Folder { root, guard } => Box::new(folder::files(root, guard)?.map(|file| file?.size())),
            Self::Catalog { path, root } => Box::new(catalog::files(path, root)?.map(|file| file?.size())),
            Self::JsonLines { path } => {
                let metadata = std::fs::metadata(path).map_err(|e| IngestError::unreadable(path, &e))?;
                return Ok((Totals { documents: None, bytes: metadata.len() }, Vec::new()));
            }
        };
        let (mut documents, mut bytes) = (0, 0);
        let mut errors = Vec::new();
        for size in sizes {
            match size {
                Ok(size) => {
                    documents += 1;
                    bytes += size;
                }
                Err(error) => errors.push(error),
            }
        }
        Ok((Totals { documents: Some(documents), bytes }, errors))
    }

    /// Reads the documents.
    ///
    /// # Errors
    /// When the folder, catalog or file cannot be opened. Each entry may be an error, too.
    pub fn documents(&self) -> Result<Entries, IngestError> {
        Ok(match self {
            Self::Folder { root, guard } => Box::new(text_file::read_ahead(folder::files(root, guard)?)),
            Self::Catalog { path, root } => Box::new(text_file::read_ahead(catalog::files(path, root)?)),
            Self::JsonLines { path } => Box::new(json_lines::documents(path)?),
        })
    }
}

#[cfg(test)]
mod tests;
