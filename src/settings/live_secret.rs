//! A secret that may change while it is used: its file is read again and again.
//!
//! A user of the secret asks for the current one each time, and keeps none. So a change needs neither a restart nor a task that
//! waits for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Secret, SecretError, SecretFile};

/// The time for which a secret is used without a look at its file. The file is small and on this machine, so a look takes some
/// tens of microseconds.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// The shortest time between two looks when a server refuses the secret, which may have changed in between.
const LOOK_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Says whether a text can be the secret, or what is wrong with it. The reason never repeats the text.
type Fits = fn(&str) -> Result<(), String>;

/// A secret that is read again when its file changes. Clones share what was read.
#[derive(Clone, Debug)]
pub struct LiveSecret(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: SecretFile,
    fits: Fits,
    seen: Mutex<Seen>,
}

/// The result of the looks so far.
#[derive(Debug)]
struct Seen {
    /// The last secret that could be used.
    secret: Arc<Secret>,
    looked_at: Instant,
    /// The fault at the last look, so that the log names each fault once.
    fault: Option<SecretError>,
}

impl LiveSecret {
    /// Reads the secret for the first time. `fits` says whether it can be used.
    ///
    /// # Errors
    /// When the file cannot be read, or its secret cannot be used.
    pub fn read(file: &SecretFile, fits: Fits) -> Result<Self, SecretError> {
        let secret = Arc::new(usable(file, fits)?);
        let seen = Seen { secret, looked_at: Instant::now(), fault: None };
        Ok(Self(Arc::new(Shared { file: file.clone(), fits, seen: Mutex::new(seen) })))
    }

    /// Returns the current secret. If the file cannot be used any more, this is the last secret that could be used, and the log
    /// says why.
    #[must_use]
    pub fn current(&self) -> Arc<Secret> {
        self.after(LOOK_INTERVAL)
    }

    /// Returns the secret that the file holds at this moment, or the last one that could be used. For secrets that are seldom used.
    #[must_use]
    pub fn latest(&self) -> Arc<Secret> {
        self.after(Duration::ZERO)
    }

    /// Looks for another secret soon, because a server has refused this one.
    pub fn refused(&self) {
        drop(self.after(LOOK_INTERVAL_MIN));
    }

    /// Returns the secret, after a look at the file if the last look is this old.
    fn after(&self, age: Duration) -> Arc<Secret> {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.looked_at.elapsed() >= age {
            seen.look(&self.0.file, self.0.fits);
        }
        Arc::clone(&seen.secret)
    }
}

impl Seen {
    fn look(&mut self, file: &SecretFile, fits: Fits) {
        self.looked_at = Instant::now();
        let path = file.path().display();
        match usable(file, fits) {
            Ok(secret) if secret == *self.secret => self.fault = None,
            Ok(secret) => {
                tracing::info!(%path, "the file of a secret has changed; the new secret counts from now on");
                self.secret = Arc::new(secret);
                self.fault = None;
            }
            Err(fault) => {
                if self.fault.as_ref() != Some(&fault) {
                    tracing::error!(%fault, "the file of a secret has changed and cannot be used; the old secret stays");
                }
                self.fault = Some(fault);
            }
        }
    }
}

/// Reads a secret that can be used. A file is empty for a moment while some programs write it, so an empty secret is none.
fn usable(file: &SecretFile, fits: Fits) -> Result<Secret, SecretError> {
    let secret = file.read()?;
    let fault = |detail: String| SecretError { path: file.path().to_owned(), detail };
    if secret.expose().is_empty() {
        return Err(fault("it is empty".to_owned()));
    }
    fits(secret.expose()).map_err(fault)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(text: &str) -> Result<(), String> {
        if text.len() <= 8 { Ok(()) } else { Err("it is too long".to_owned()) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_follows_its_file_as_long_as_the_file_is_good() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("secret");
        std::fs::write(&path, "first\n").expect("written");
        let live = LiveSecret::read(&SecretFile::new(&path), short).expect("a secret");
        let mut last = "first";
        let rows: [(&str, Option<&str>, &str); 7] = [
            ("the same", Some("first\n"), "first"),
            ("another one", Some("second"), "second"),
            ("an empty file", Some(""), "second"),
            ("a line break alone", Some("\n"), "second"),
            ("one that does not fit", Some("much too long"), "second"),
            ("no file", None, "second"),
            ("another file", Some("third"), "third"),
        ];
        for (row, content, expected) in rows {
            match content {
                Some(content) => std::fs::write(&path, content).expect("written"),
                None => std::fs::remove_file(&path).expect("removed"),
            }
            assert_eq!(live.current().expose(), last, "{row}: not before the next look");
            tokio::time::advance(LOOK_INTERVAL).await;
            assert_eq!(live.current().expose(), expected, "{row}");
            last = expected;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_is_refused_is_looked_for_sooner() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("secret");
        std::fs::write(&path, "first").expect("written");
        let live = LiveSecret::read(&SecretFile::new(&path), short).expect("a secret");
        std::fs::write(&path, "second").expect("written");
        live.refused();
        assert_eq!(live.current().expose(), "first", "the file was looked at a moment ago");
        tokio::time::advance(LOOK_INTERVAL_MIN).await;
        assert_eq!(live.current().expose(), "first", "nobody has refused it since");
        live.refused();
        assert_eq!(live.current().expose(), "second");
        std::fs::write(&path, "third").expect("written");
        assert_eq!(live.latest().expose(), "third", "at once");
    }

    #[tokio::test]
    async fn what_cannot_be_used_at_the_start_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let rows = [
            ("no file", None, "No such file"),
            ("an empty file", Some(""), "it is empty"),
            ("one that does not fit", Some("canary-93-canary"), "it is too long"),
        ];
        for (row, content, expected) in rows {
            let path = directory.path().join(row);
            if let Some(content) = content {
                std::fs::write(&path, content).expect("written");
            }
            let error = LiveSecret::read(&SecretFile::new(&path), short).expect_err(row).to_string();
            assert!(error.contains(expected) && error.contains(row), "{row}: {error}");
            assert!(!error.contains("canary-93"), "{row}: {error}");
        }
    }
}
