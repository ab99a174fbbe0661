//! The data beside the project. It is not part of it, so a test that needs it says so and is skipped where it is
//! missing; with `CI` set it must be there.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The path of shared data; `None`, with a message, where there is none.
#[expect(clippy::disallowed_methods, reason = "a test may read the environment and say so")]
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if found.exists() {
        return Some(found);
    }
    assert!(std::env::var("CI").is_err(), "{} is missing", found.display());
    // Past the capture of the test harness, which would hide it.
    drop(writeln!(std::io::stderr(), "skipped: {} is missing", found.display()));
    None
}
