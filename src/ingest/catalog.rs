//! Reads the catalog of a folder. It names the files that are documents, and the object that guards each of them.

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path};

use serde::{Deserialize, Deserializer};

use super::IngestError;
use super::folder::inside;
use super::lines::{Line, Lines, metadata};
use super::text_file::TextFile;
use crate::language::Object;

/// One line of the catalog.
#[derive(Deserialize)]
struct CatalogLine {
    id: String,
    path: String,
    #[serde(default)]
    title: Option<String>,
    #[serde(default, deserialize_with = "present")]
    guard: Option<String>,
    /// All other fields are metadata.
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

/// Refuses `null` for a field that is there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// Finds the files that a catalog names, in its order.
pub(super) fn files(
    catalog: &Path,
    root: &Path,
) -> Result<impl Iterator<Item = Result<TextFile, IngestError>> + Send + use<>, IngestError> {
    let root = root.canonicalize().map_err(|e| IngestError::unreadable(root, &e))?;
    let lines = Lines::open(catalog)?;
    let catalog = lines.path().to_owned();
    let mut seen = HashSet::new();
    Ok(lines.map(move |line| {
        let line = line?;
        let at_line = |detail: String| IngestError::line(&catalog, line.number, detail);
        let file = text_file(&root, &line).map_err(at_line)?;
        if !seen.insert(file.document_id.clone()) {
            return Err(at_line(format!("document `{}` was named before", file.document_id)));
        }
        Ok(file)
    }))
}

fn text_file(root: &Path, line: &Line) -> Result<TextFile, String> {
    let CatalogLine { id, path, title, guard, rest } = line.parse()?;
    // A misspelt `guard` would leave the document under the guard that its id names.
    if let Some(key) = rest.keys().find(|key| strsim::damerau_levenshtein(key, "guard") == 1) {
        return Err(format!("`{key}` looks like `guard` misspelt; rename it"));
    }
    let guard = Object::parse(guard.as_deref().unwrap_or(&id)).map_err(|e| format!("no guard: {e}"))?;
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.is_empty() || !Path::new(&path).components().all(is_plain) {
        return Err(format!("path `{path}` must stay within the folder"));
    }
    let path = inside(root, &root.join(&path)).map_err(|e| e.to_string())?;
    if !path.is_file() {
        return Err(format!("`{}` is not a file", path.display()));
    }
    Ok(TextFile { path, document_id: id, guard, title, metadata: metadata(rest)? })
}
