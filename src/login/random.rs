//! The random texts of a login, which nobody else can guess.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use super::error::LoginError;

/// The number of random bytes that RFC 7636, section 4.1, recommends for a verifier.
const BYTES: usize = 32;

/// Returns a random text of letters that need no encoding in a URL.
///
/// # Errors
/// When the system has no randomness.
pub(super) fn random_text() -> Result<String, LoginError> {
    let mut bytes = [0; BYTES];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(URL_SAFE_NO_PAD.encode(bytes)),
        Err(_unspecified) => Err(LoginError::Setup("the system gives no random bytes".to_owned())),
    }
}

/// The secret by which a program proves that it began the login whose code it brings (PKCE, RFC 7636).
pub(super) struct Verifier(String);

impl Verifier {
    pub(super) fn new() -> Result<Self, LoginError> {
        random_text().map(Self)
    }

    /// Returns what the issuer sees before it gives a code.
    pub(super) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.0.as_bytes()))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_standard() {
        // RFC 7636, appendix B.
        let verifier = Verifier("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned());
        assert_eq!(verifier.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert_eq!(format!("{verifier:?}"), "Verifier(hidden)");
    }

    #[test]
    fn no_two_texts_are_equal() {
        let (one, other) = (random_text().unwrap(), random_text().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 43, "{one}");
    }
}
