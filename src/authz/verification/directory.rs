//! The files beside the copy: its standing, the questions behind that standing, and the mark by which an operator
//! trusts the copy again.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::questions::KeptQuestion;
use super::standing::Standing;

const STANDING_FILE: &str = "standing.json";
const QUESTIONS_FILE: &str = "questions.json";
/// The mark that `ragward replica trust` leaves. The process that acts on it removes it.
const TRUST_FILE: &str = "trust-again";

/// The files of the standing cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{path}`: {detail}")]
pub struct TrustError {
    path: PathBuf,
    detail: String,
}

/// The directory of a replica, for the files of its standing.
#[derive(Clone, Debug)]
pub struct StandingDirectory(PathBuf);

impl StandingDirectory {
    /// Names the directory of a replica. Nothing is read yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// Reads the standing. If there is no file, the copy was never distrusted. A file that cannot be read counts as a
    /// fall.
    #[must_use]
    pub fn read(&self) -> Standing {
        let path = self.0.join(STANDING_FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Standing::default(),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "the standing of the replica cannot be read; another copy is made");
                return Standing::unreadable();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::error!(path = %path.display(), %error, "the standing of the replica cannot be read; another copy is made");
            Standing::unreadable()
        })
    }

    /// Stores a standing whole. If that fails, the previous one stays.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, standing: &Standing) -> Result<(), TrustError> {
        self.replace(STANDING_FILE, standing)
    }

    /// Reads the kept questions. They only say what is asked first, so a file that cannot be read counts as empty.
    pub(super) fn read_questions(&self) -> Vec<KeptQuestion> {
        let path = self.0.join(QUESTIONS_FILE);
        let read = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
            read => read.and_then(|text| Ok(serde_json::from_slice(&text)?)),
        };
        read.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the questions about the replica cannot be read; they are forgotten");
            Vec::new()
        })
    }

    pub(super) fn write_questions(&self, questions: &[KeptQuestion]) -> Result<(), TrustError> {
        self.replace(QUESTIONS_FILE, questions)
    }

    fn replace(&self, name: &str, content: &(impl Serialize + ?Sized)) -> Result<(), TrustError> {
        let path = self.0.join(name);
        let written = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
            file.write_all(&serde_json::to_vec(content)?)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        written().map_err(|e: std::io::Error| TrustError { path: path.clone(), detail: e.to_string() })
    }

    /// Leaves the mark by which an operator lets the copy be trusted again, once another copy is made and proven. A
    /// running server acts on the mark within a second; otherwise the next server does at its start.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn trust_again(&self) -> Result<(), TrustError> {
        let path = self.0.join(TRUST_FILE);
        std::fs::write(&path, []).map_err(|e| TrustError { path: path.clone(), detail: e.to_string() })
    }

    /// Removes the mark, and returns whether there was one.
    pub(super) fn take_trust_again(&self) -> bool {
        std::fs::remove_file(self.0.join(TRUST_FILE)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::verification::standing::Trust;

    #[test]
    fn what_is_kept_is_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let kept = StandingDirectory::new(directory.path());
        assert_eq!(kept.read(), Standing::default());
        let out: Standing = serde_json::from_str(r#"{ "trust": "out", "falls": 2 }"#).expect("a standing");
        kept.write(&out).expect("written");
        assert_eq!(kept.read(), out);
        std::fs::write(directory.path().join(STANDING_FILE), "{").expect("written");
        assert_eq!(kept.read().trust, Trust::Rebuilding, "fails closed");
        assert!(!kept.take_trust_again());
        kept.trust_again().expect("written");
        assert_eq!([kept.take_trust_again(), kept.take_trust_again()], [true, false]);
    }
}
