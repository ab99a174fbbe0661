//! `OpenFGA`'s sample stores: those that Ragward can evaluate pass, the others are named.
#![cfg(test)]

#[path = "support/shared.rs"]
mod support;

use std::path::{Path, PathBuf};

use ragward::relationship::store_file::{self, AssertionKind, StoreFileError};

/// The files that need conditions, which are not evaluated yet.
const WITH_CONDITIONS: [&str; 4] = [
    "advanced-entitlements/store.fga.yaml",
    "banking/store.fga.yaml",
    "groups-resource-attributes/store.fga.yaml",
    "superadmin/store.fga.yaml",
];

#[test]
fn sample_stores_pass() {
    let Some(root) = support::shared("openfga-tests/sample-stores") else { return };
    let mut asked = [(AssertionKind::Check, 0), (AssertionKind::ListObjects, 0), (AssertionKind::ListUsers, 0)];
    let mut not_run = Vec::new();
    for path in store_files(&root) {
        let name = path.strip_prefix(&root).expect("below").display().to_string();
        let store = match store_file::read(&path) {
            Ok(store) => store,
            Err(StoreFileError::NotSupported { what, .. }) => {
                assert_eq!(what, "conditions", "{name}");
                not_run.push(name);
                continue;
            }
            Err(other) => panic!("{name}: {other}"),
        };
        let outcome = store_file::run(store).expect("tuples that fit");
        for test in &outcome.tests {
            for assertion in &test.assertions {
                assert!(assertion.passed(), "{name}, {}: {assertion:#?}", test.name);
            }
        }
        for (kind, count) in &mut asked {
            *count += outcome.count(*kind).1;
        }
    }
    assert_eq!(not_run, WITH_CONDITIONS);
    let expected = [(AssertionKind::Check, 156), (AssertionKind::ListObjects, 8), (AssertionKind::ListUsers, 15)];
    assert_eq!(asked, expected);
}

/// The store files below a folder, sorted.
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
