//! Data in a folder beside the project, outside the repository. If the data is missing, a test that needs it says so
//! and is skipped. If `CI` is set, the data must be there.

use std::io::Write;
use std::path::{Path, PathBuf};

/// Returns the path of shared data. If there is none, this says so and returns `None`.
#[expect(clippy::disallowed_methods, reason = "a test may read the environment and say so")]
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if found.exists() {
        return Some(found);
    }
    assert!(std::env::var("CI").is_err(), "{} is missing", found.display());
    // This writes past the capture of the test harness, which would hide it.
    drop(writeln!(std::io::stderr(), "skipped: {} is missing", found.display()));
    None
}
