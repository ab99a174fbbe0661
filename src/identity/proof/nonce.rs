//! The server's nonces (RFC 9449, section 8). A proof that repeats one was made a short while ago, so nobody can have made it in
//! advance for later.
//!
//! A nonce is computed from a secret and the time. So nothing is stored, and replicas with the same secret take each other's.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// The shortest secret of nonces, in bytes.
const SECRET_BYTES_MIN: usize = 32;
/// The time for which the server hands one nonce out, in seconds. It takes the nonce for as long again, so that a client that
/// has just got it can use it.
const PERIOD_SECONDS: u64 = 300;
/// The length of a nonce before it is encoded.
const NONCE_BYTES: usize = 16;
/// Keeps nonces apart from everything else that could be made with the same secret.
const PURPOSE: &[u8] = b"ragward proof nonce\0";

/// Makes nonces, and recognizes those that it made.
#[derive(Clone)]
pub struct NonceKey(hmac::Key);

/// The age of a nonce that is still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceAge {
    /// It is the nonce of now.
    Current,
    /// It is about to end, and its client should get a new one.
    Old,
}

/// The reason why there is no key for nonces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NonceKeyError {
    /// The secret has fewer bytes than 32.
    #[error("the secret of nonces has {0} bytes and needs at least {SECRET_BYTES_MIN}")]
    TooShort(usize),
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    NoRandom,
}

impl NonceKey {
    /// Uses a secret that several replicas may share.
    ///
    /// # Errors
    /// When the secret is too short.
    pub fn new(secret: &[u8]) -> Result<Self, NonceKeyError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(NonceKeyError::TooShort(secret.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// Makes a secret that only this process knows.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn random() -> Result<Self, NonceKeyError> {
        let mut secret = [0; SECRET_BYTES_MIN];
        SystemRandom::new().fill(&mut secret).map_err(|_unspecified| NonceKeyError::NoRandom)?;
        Self::new(&secret)
    }

    /// Returns the nonce of the time `now`, in seconds since 1970.
    #[must_use]
    pub fn nonce(&self, now: u64) -> String {
        self.of_period(now / PERIOD_SECONDS)
    }

    /// Returns the age of a nonce, or `None` if it is not taken (any more).
    pub(super) fn age(&self, nonce: &str, now: u64) -> Option<NonceAge> {
        let period = now / PERIOD_SECONDS;
        // Anybody can get the nonce, so the comparison need not take constant time.
        if nonce == self.of_period(period) {
            return Some(NonceAge::Current);
        }
        // The clock of another replica may be a little ahead.
        let others = [period.saturating_sub(1), period.saturating_add(1)];
        others.into_iter().any(|other| nonce == self.of_period(other)).then_some(NonceAge::Old)
    }

    fn of_period(&self, period: u64) -> String {
        let mut message = PURPOSE.to_vec();
        message.extend(period.to_be_bytes());
        let tag = hmac::sign(&self.0, &message);
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..NONCE_BYTES).unwrap_or_default())
    }
}

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_for_one_period_more() {
        let now = 1_000 * PERIOD_SECONDS;
        let (key, replica) = (NonceKey::new(&[7; 32]).unwrap(), NonceKey::new(&[7; 32]).unwrap());
        let nonce = replica.nonce(now);
        let rows = [
            ("at once", now, Some(NonceAge::Current)),
            ("at the end of its period", now + PERIOD_SECONDS - 1, Some(NonceAge::Current)),
            ("in the next period", now + PERIOD_SECONDS, Some(NonceAge::Old)),
            ("at the end of the next period", now + 2 * PERIOD_SECONDS - 1, Some(NonceAge::Old)),
            ("after that", now + 2 * PERIOD_SECONDS, None),
            ("by a clock that is behind", now - 1, Some(NonceAge::Old)),
            ("by a clock that is far behind", now - PERIOD_SECONDS - 1, None),
        ];
        for (row, now, expected) in rows {
            assert_eq!(key.age(&nonce, now), expected, "{row}");
        }
        let others = [
            ("of another secret", NonceKey::new(&[8; 32]).unwrap().nonce(now)),
            ("of a random secret", NonceKey::random().unwrap().nonce(now)),
            ("cut", nonce.chars().skip(1).collect()),
            ("longer", format!("{nonce}A")),
            ("nothing", String::new()),
        ];
        for (row, other) in others {
            assert_eq!(key.age(&other, now), None, "{row}");
        }
        assert_ne!(key.nonce(now), key.nonce(now + PERIOD_SECONDS));
    }

    #[test]
    fn a_short_secret_is_refused() {
        let rows = [("none", 0, false), ("a byte too few", 31, false), ("enough", 32, true), ("more", 64, true)];
        for (row, length, expected) in rows {
            let made = NonceKey::new(&vec![7; length]);
            assert_eq!(made.map(drop), if expected { Ok(()) } else { Err(NonceKeyError::TooShort(length)) }, "{row}");
        }
    }
}
