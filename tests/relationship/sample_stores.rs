//! `OpenFGA`'s sample stores: all of their tests pass.

use std::path::{Path, PathBuf};

use ragward::store_file::{self, AssertionKind};

use crate::support::shared_data::shared;

#[test]
fn sample_stores_pass() {
    let Some(root) = shared("openfga-tests/sample-stores") else { return };
    let mut asked = [(AssertionKind::Check, 0), (AssertionKind::ListObjects, 0), (AssertionKind::ListUsers, 0)];
    let mut files = 0;
    for path in store_files(&root) {
        let name = path.strip_prefix(&root).expect("below").display().to_string();
        let store = store_file::read(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        let outcome = store_file::run(store).unwrap_or_else(|e| panic!("{name}: {e}"));
        files += 1;
        for test in &outcome.tests {
            for assertion in &test.assertions {
                assert!(assertion.passed(), "{name}, {}: {assertion:#?}", test.name);
            }
        }
        for (kind, count) in &mut asked {
            *count += outcome.count(*kind).1;
        }
    }
    let expected = [(AssertionKind::Check, 190), (AssertionKind::ListObjects, 14), (AssertionKind::ListUsers, 17)];
    assert_eq!((files, asked), (21, expected));
}

#[test]
fn our_own_reference_stores_pass() {
    let files = store_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schema"));
    assert_eq!(files.len(), 2);
    for path in files {
        let name = path.display();
        let store = store_file::read(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        let outcome = store_file::run(store).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(outcome.passed() && outcome.count(AssertionKind::Check).1 > 0, "{name}: {outcome:#?}");
    }
}

/// Returns the store files below a folder, sorted.
fn store_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(store_files(&path));
        } else if path.to_string_lossy().ends_with(".fga.yaml") {
            files.push(path);
        }
    }
    files.sort();
    files
}
