//! Reads documents from files: a folder of Markdown and plain text, with or without a catalog, or JSON Lines of chunks that
//! already have vectors. `schema/payload.md` is the contract of the files.
//!
//! Documents are read one after the other, so a corpus need not fit into memory. A document that cannot be read becomes an
//! error that names the file and line, and the reading goes on. Every document that is returned is whole.

mod catalog;
mod config;
mod cut;
mod decode;
mod folder;
mod json_lines;
mod lines;
pub mod prune;
mod source_label;
mod text_file;

use std::path::{Path, PathBuf};

pub use self::config::{CollectionCutConfig, IngestConfig};
pub use self::cut::{CHARACTERS_MAX, CHARACTERS_MIN, ChunkSize, CutText, Piece, TextForm, cut};
pub use self::source_label::{NotASourceLabel, SourceLabel};
use crate::chunk::Document;
use crate::error_code::ErrorCode;
use crate::language::{Object, TypeName};

/// The place that documents are read from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Every file below a folder whose extension is that of Markdown (`.md`, `.markdown`), plain text (`.txt`, `.text`) or HTML
    /// (`.html`, `.htm`, `.xhtml`), in small or capital letters. Hidden files are left out, and so are symbolic links
    /// to what is within the folder. A link that leads out of the folder or nowhere is an error.
    Folder {
        /// The folder to read.
        root: PathBuf,
        /// The rule by which a file gets its guard.
        guard: GuardRule,
    },
    /// The files that a catalog (JSON Lines) names.
    Catalog {
        /// The file of the catalog.
        path: PathBuf,
        /// The folder that the paths of the catalog are relative to.
        root: PathBuf,
    },
    /// A file with one chunk in each line.
    JsonLines {
        /// The file to read.
        path: PathBuf,
    },
}

/// The rule by which a file of a folder without a catalog gets its guard.
#[derive(Clone, Debug)]
pub enum GuardRule {
    /// All files have this object for their guard. The id of a document is its path within the folder.
    One(Object),
    /// The guard of a file is an object of this type. Its id is the path of the file within the folder, without the extension.
    /// White space, control characters, `:`, `#`, `*` and `%` are percent-encoded. The guard is the id of the document, too.
    Type(TypeName),
}

/// A folder below a source's folder that holds no file. It looks like a folder whose disk is not mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmptyFolder {
    /// The path of the folder.
    pub path: PathBuf,
    /// The beginning of the id of each document that was read from this folder.
    pub ids_begin: String,
}

/// A document, with the file that it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceDocument {
    /// The file that the document was read from.
    pub path: PathBuf,
    /// How many bytes were read for the document.
    pub bytes: u64,
    /// The name of the file's encoding, if it is not UTF-8.
    pub encoding: Option<&'static str>,
    /// The document; `None` if the file has no text.
    pub document: Option<Document>,
}

/// The amount that there is to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The number of documents; `None` if only reading everything would tell.
    pub documents: Option<u64>,
    /// The size of the files, in bytes.
    pub bytes: u64,
}

/// Documents in the order of the catalog, the lines or the paths. An error stands in for each document that is skipped.
pub type SourceDocuments = Box<dyn Iterator<Item = Result<SourceDocument, IngestError>> + Send>;

/// The reason why a document was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// The operating system does not let the file be read.
    #[error("cannot read `{}`: {detail}", .path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        detail: String,
    },
    /// A file breaks a rule.
    #[error("`{}` {detail}", .path.display())]
    File {
        /// The file that breaks the rule.
        path: PathBuf,
        /// The rule that the file breaks. The text continues a sentence that begins with the file's name.
        detail: String,
    },
    /// A line breaks a rule.
    #[error("`{}`, line {line}: {detail}", .path.display())]
    Line {
        /// The file of the line.
        path: PathBuf,
        /// The number of the line, counted from 1.
        line: u64,
        /// The problem with the line.
        detail: String,
    },
}

impl IngestError {
    /// Returns the code that tells a caller what it can do.
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
    /// Counts what there is to read, for a progress bar. It reads the catalog and the names and sizes of files, but not
    /// their contents.
    ///
    /// Some errors, such as a bad line of the catalog, are found without reading contents. These are returned beside
    /// the totals of the rest.
    ///
    /// # Errors
    /// If the folder, catalog or file cannot be opened.
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

    /// Finds the empty folders of a folder whose files are found without a catalog. Other sources name their files, and a file
    /// that is named and missing is an error.
    ///
    /// # Errors
    /// If the folder cannot be opened.
    pub fn empty_folders(&self) -> Result<Vec<EmptyFolder>, IngestError> {
        match self {
            Self::Folder { root, guard } => folder::empty_folders(root, guard),
            Self::Catalog { .. } | Self::JsonLines { .. } => Ok(Vec::new()),
        }
    }

    /// Finds the documents of a folder whose form is not read, such as PDF. Other sources name their files.
    #[must_use]
    pub fn not_read(&self) -> Vec<PathBuf> {
        match self {
            Self::Folder { root, .. } => folder::not_read(root),
            Self::Catalog { .. } | Self::JsonLines { .. } => Vec::new(),
        }
    }

    /// Reads the documents one after the other, cut into chunks of the default size. Each item may be an error.
    ///
    /// # Errors
    /// If the folder, catalog or file cannot be opened.
    pub fn documents(&self) -> Result<SourceDocuments, IngestError> {
        self.documents_of_size(ChunkSize::default())
    }

    /// Like [`Source::documents`], with chunks of another size. JSON Lines are cut already.
    ///
    /// # Errors
    /// If the folder, catalog or file cannot be opened.
    pub fn documents_of_size(&self, size: ChunkSize) -> Result<SourceDocuments, IngestError> {
        Ok(match self {
            Self::Folder { root, guard } => Box::new(text_file::read_ahead(folder::files(root, guard)?, size)),
            Self::Catalog { path, root } => Box::new(text_file::read_ahead(catalog::files(path, root)?, size)),
            Self::JsonLines { path } => Box::new(json_lines::documents(path)?),
        })
    }
}

#[cfg(test)]
mod tests;
