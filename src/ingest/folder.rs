//! Finds the text files of a folder, and makes their guards.

use std::collections::HashSet;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use super::text_file::{TextFile, extension};
use super::{EmptyFolder, GuardRule, IngestError};
use crate::chunk::Metadata;
use crate::language::Object;
use crate::language::tuple::encoded_id;

/// The extensions of the files that are read, in small letters.
const EXTENSIONS: [&str; 7] = ["htm", "html", "markdown", "md", "text", "txt", "xhtml"];
/// The extensions of other documents that people write. They are not read, and named.
const NOT_READ: [&str; 14] =
    ["adoc", "doc", "docx", "epub", "odp", "ods", "odt", "pdf", "ppt", "pptx", "rst", "rtf", "xls", "xlsx"];

/// Finds the text files of a folder, in the order of their paths.
pub(super) fn files(
    root: &Path,
    guard: &GuardRule,
) -> Result<impl Iterator<Item = Result<TextFile, IngestError>> + Send + 'static, IngestError> {
    let root = root.canonicalize().map_err(|e| IngestError::unreadable(root, &e))?;
    // If the root cannot be opened, the whole reading fails. If a folder below it cannot be opened, that is one error
    // among others.
    std::fs::read_dir(&root).map_err(|e| IngestError::unreadable(&root, &e))?;
    let mut paths = Vec::new();
    collect(&root, &root, &mut paths);
    let (guard, mut seen) = (guard.clone(), HashSet::new());
    Ok(paths.into_iter().map(move |path| {
        let file = text_file(&root, path?, &guard)?;
        if !seen.insert(file.document_id.clone()) {
            let detail = format!("gives document id `{}`, as another file of the folder does", file.document_id);
            return Err(IngestError::file(&file.path, detail));
        }
        Ok(file)
    }))
}

/// Finds the text files below a folder. An error stands in the place of each link, file or folder that cannot be read.
fn collect(root: &Path, folder: &Path, paths: &mut Vec<Result<PathBuf, IngestError>>) {
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<DirEntry>, std::io::Error>>);
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(e) => return paths.push(Err(IngestError::unreadable(folder, &e))),
    };
    entries.sort_by_key(DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        match entry.file_type() {
            Err(e) => paths.push(Err(IngestError::unreadable(&path, &e))),
            Ok(kind) if kind.is_symlink() => match inside(root, &path) {
                Err(error) => paths.push(Err(error)),
                // The target is read under its own path.
                Ok(target) if is_read(root, &target) => {}
                // Without this error, its document would seem to be gone.
                Ok(target) if target.is_dir() || is_text(&path) => {
                    paths.push(Err(IngestError::file(&path, "is a link to something that is not read")));
                }
                Ok(_) => {}
            },
            Ok(kind) if kind.is_dir() => collect(root, &path, paths),
            Ok(kind) if kind.is_file() && is_text(&path) => paths.push(Ok(path)),
            // Without this error, its document would seem to be gone. Only a regular file is opened: opening a pipe would
            // wait for a writer.
            Ok(kind) if !kind.is_file() && is_text(&path) => {
                paths.push(Err(IngestError::file(&path, "is not a regular file")));
            }
            Ok(_) => {}
        }
    }
}

/// Finds the folders below a folder that hold no file at any depth, without those inside of one that is found. A folder that
/// cannot be read counts as one with files: reading it is an error of its own.
pub(super) fn empty_folders(root: &Path, rule: &GuardRule) -> Result<Vec<EmptyFolder>, IngestError> {
    let root = root.canonicalize().map_err(|e| IngestError::unreadable(root, &e))?;
    let mut empty = Vec::new();
    // That the root itself is empty is seen by what was read.
    find_empty(&root, &mut empty);
    let named = empty.into_iter().filter(|path| *path != root).map(|path| {
        let inside = format!("{}/", name(path.strip_prefix(&root).unwrap_or(&path))?);
        let ids_begin = match rule {
            GuardRule::One(_) => inside,
            GuardRule::Type(type_name) => format!("{type_name}:{}", encoded_id(&inside)),
        };
        Ok(EmptyFolder { path, ids_begin })
    });
    named.collect()
}

/// Returns whether a folder holds a file at any depth. If not, the folder is put into `empty`; otherwise those below it are.
fn find_empty(folder: &Path, empty: &mut Vec<PathBuf>) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return true };
    let (mut holds_file, mut below) = (false, Vec::new());
    for entry in entries {
        let Ok(entry) = entry else { return true };
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let has_content = !is_folder || find_empty(&entry.path(), &mut below);
        holds_file |= has_content;
    }
    if holds_file {
        empty.append(&mut below);
    } else {
        empty.push(folder.to_owned());
    }
    holds_file
}

/// Returns whether a file or folder below the root is read under its own path. The path has no links.
fn is_read(root: &Path, path: &Path) -> bool {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let is_hidden = relative.iter().any(|part| part.as_encoded_bytes().starts_with(b"."));
    !is_hidden && (path.is_dir() || path.is_file() && is_text(path))
}

fn is_text(path: &Path) -> bool {
    extension(path).is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// Finds the documents below a folder whose form is not read, in the order of their paths. What cannot be read is found by
/// [`files`].
pub(super) fn not_read(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !is_hidden => open.push(path),
                Ok(kind) if kind.is_file() && !is_hidden => {
                    if extension(&path).is_some_and(|extension| NOT_READ.contains(&extension.as_str())) {
                        found.push(path);
                    }
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    found.sort_unstable();
    found
}

/// Follows links, and returns the file that a path leads to. The file must be within the folder.
pub(super) fn inside(root: &Path, path: &Path) -> Result<PathBuf, IngestError> {
    let target = path.canonicalize().map_err(|e| IngestError::unreadable(path, &e))?;
    if target.starts_with(root) {
        return Ok(target);
    }
    Err(IngestError::file(path, "leads out of the folder"))
}

/// Writes a path below the root as ids of documents have it.
fn name(relative: &Path) -> Result<String, IngestError> {
    let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
    parts.map(|parts| parts.join("/")).ok_or_else(|| IngestError::file(relative, "has a name that is not valid UTF-8"))
}

fn text_file(root: &Path, path: PathBuf, rule: &GuardRule) -> Result<TextFile, IngestError> {
    let relative = path.strip_prefix(root).unwrap_or(&path);
    let (document_id, guard) = match rule {
        GuardRule::One(guard) => (name(relative)?, guard.clone()),
        GuardRule::Type(type_name) => {
            let id = encoded_id(&name(&relative.with_extension(""))?);
            let guard = Object::parse(&format!("{type_name}:{id}"))
                .map_err(|e| IngestError::file(&path, format!("gives no guard: {e}")))?;
            (guard.as_str().to_owned(), guard)
        }
    };
    Ok(TextFile { path, document_id, guard, title: None, metadata: Metadata::new() })
}
