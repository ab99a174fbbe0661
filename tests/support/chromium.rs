//! Chromium, the browser of the tests that need a real one.

use std::io::Write;
use std::path::PathBuf;

/// Finds Chromium. Without it, the test says that it is skipped; with `CI` set, it fails.
pub(crate) fn chromium(test: &str) -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM_BIN").filter(|path| !path.is_empty()).map(PathBuf::from);
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|candidate| candidate.is_file())
    };
    let found = named.or_else(on_path);
    if found.is_none() {
        let lacking = "Chromium: put `chromium` on the PATH, or its path into CHROMIUM_BIN";
        assert!(std::env::var_os("CI").is_none(), "CI must run {test}; it lacks {lacking}");
        drop(writeln!(std::io::stderr(), "skipped: {test} lacks {lacking}"));
    }
    found
}
