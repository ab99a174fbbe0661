//! `OpenFGA`'s command line, as a reference.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The outcome of `fga model test` or of `ragward test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// All assertions hold.
    Pass,
    /// An assertion does not hold, or cannot be decided.
    Fail,
    /// The file is refused, so no assertion runs.
    Refused,
}

/// The program `fga`.
pub(crate) struct Fga {
    binary: PathBuf,
}

impl Fga {
    /// Finds the program. If it is not on this machine, this says so and returns `None`; with `CI` set, it panics.
    pub(crate) fn find() -> Option<Self> {
        let named = std::env::var_os("FGA_BIN").filter(|path| !path.is_empty()).map(PathBuf::from);
        let on_path = || {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).map(|folder| folder.join("fga")).find(|candidate| candidate.is_file())
        };
        let Some(binary) = named.or_else(on_path) else {
            assert!(std::env::var_os("CI").is_none(), "CI must compare with `fga`: put its path into FGA_BIN");
            drop(writeln!(std::io::stderr(), "skipped: no `fga` on the PATH and no FGA_BIN"));
            return None;
        };
        Some(Self { binary })
    }

    /// Returns the command that runs the program. A home of its own keeps the configuration of the machine's user out.
    pub(crate) fn command(&self, home: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("HOME", home);
        command
    }

    /// Runs a store file and returns the outcome.
    pub(crate) fn test(&self, store_file: &Path) -> Verdict {
        let mut command = self.command(store_file.parent().expect("a folder"));
        let run = command.args(["model", "test", "--tests"]).arg(store_file).output().expect("fga runs");
        let told = String::from_utf8_lossy(&run.stderr);
        match (run.status.success(), told.contains("# Test Summary #")) {
            (true, _) => Verdict::Pass,
            (false, true) => Verdict::Fail,
            (false, false) => Verdict::Refused,
        }
    }
}
