//! The key of the log. It is made at the first start, and only its owner can read it. The chain, the head and digests
//! each have a key of their own, derived from it.
//!
//! Once the log has a head, a second line of the file says that the log has begun. A log without segments or head is
//! then one that was removed, not a new one.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::error::AuditError;
use super::mac::Mac;

/// The length of the key in bytes, the output size of SHA-256.
const KEY_BYTES: usize = 32;
/// The line which says that the log has begun.
const BEGUN: &str = "begun";
/// The permission bits of other users, who must not read the key.
const OTHERS: u32 = 0o077;

/// The key of one log.
#[derive(Clone)]
pub struct AuditKey {
    chain: hmac::Key,
    head: hmac::Key,
    query: hmac::Key,
    token_id: hmac::Key,
    question: hmac::Key,
    has_begun: bool,
}

/// The kind of value that a digest stands for. One value has different digests for different purposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestPurpose {
    /// The digest of a query.
    Query,
    /// The digest of a token's `jti`.
    TokenId,
    /// The digest of a user, a relation and an object.
    Question,
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditKey(hidden)")
    }
}

impl AuditKey {
    /// Reads the key from its file.
    ///
    /// # Errors
    /// If there is no file, if others may read it, or if it does not hold a key.
    pub fn read(path: &Path) -> Result<Self, AuditError> {
        let unusable = |detail: String| AuditError::Key { path: path.to_owned(), detail };
        let mode = fs::metadata(path).map_err(|e| unusable(e.to_string()))?.permissions().mode();
        if mode & OTHERS != 0 {
            return Err(unusable(format!("others may read it (mode {:o}); run `chmod 600` on it", mode & 0o777)));
        }
        let text = fs::read_to_string(path).map_err(|e| unusable(e.to_string()))?;
        let malformed = || unusable(format!("it must hold {} hexadecimal digits", KEY_BYTES * 2));
        let (digits, has_begun) = match text.trim_end().split_once('\n') {
            None => (text.trim_end(), false),
            Some((digits, BEGUN)) => (digits.trim_end(), true),
            Some(_) => return Err(malformed()),
        };
        let mut bytes = [0; KEY_BYTES];
        let decoded = base16ct::lower::decode(digits, &mut bytes).map_err(|_malformed| malformed())?;
        if decoded.len() != KEY_BYTES {
            return Err(malformed());
        }
        let key = Self::from_bytes(&bytes);
        Ok(Self { has_begun, ..key })
    }

    /// Returns whether a log with this key has had a head.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Notes in the key's file that the log has begun. It tries only once.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn note_begun(&mut self, path: &Path) -> Result<(), AuditError> {
        self.has_begun = true;
        let write = || {
            let ends_a_line = fs::read_to_string(path)?.ends_with('\n');
            let mut file = OpenOptions::new().append(true).open(path)?;
            file.write_all(format!("{}{BEGUN}\n", if ends_a_line { "" } else { "\n" }).as_bytes())?;
            file.sync_all()
        };
        write().map_err(|e| AuditError::Key { path: path.to_owned(), detail: e.to_string() })
    }

    /// Makes a key and its file.
    ///
    /// # Errors
    /// If the file exists already or cannot be written.
    pub fn create(path: &Path) -> Result<Self, AuditError> {
        let unusable = |detail: String| AuditError::Key { path: path.to_owned(), detail };
        let mut bytes = [0; KEY_BYTES];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_unspecified| unusable("the system gives no random numbers".to_owned()))?;
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(format!("{}\n", base16ct::lower::encode_string(&bytes)).as_bytes())?;
            file.sync_all()
        };
        write().map_err(|e| unusable(e.to_string()))?;
        Ok(Self::from_bytes(&bytes))
    }

    /// Makes a key from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let master = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let derived = |purpose: &str| {
            hmac::Key::new(
                hmac::HMAC_SHA256,
                hmac::sign(&master, format!("ragward audit 1 {purpose}").as_bytes()).as_ref(),
            )
        };
        Self {
            chain: derived("chain"),
            head: derived("head"),
            query: derived("query"),
            token_id: derived("token id"),
            question: derived("question"),
            has_begun: false,
        }
    }

    /// Returns the MAC of an entry's bytes.
    pub(super) fn chain(&self, entry: &[u8]) -> Mac {
        Mac::of(&hmac::sign(&self.chain, entry))
    }

    /// Returns the MAC of the head's bytes.
    pub(super) fn head(&self, head: &[u8]) -> Mac {
        Mac::of(&hmac::sign(&self.head, head))
    }

    /// Returns the digest of something that is not kept itself.
    #[must_use]
    pub fn digest(&self, purpose: DigestPurpose, bytes: &[u8]) -> String {
        let key = match purpose {
            DigestPurpose::Query => &self.query,
            DigestPurpose::TokenId => &self.token_id,
            DigestPurpose::Question => &self.question,
        };
        base16ct::lower::encode_string(hmac::sign(key, bytes).as_ref())
    }
}
