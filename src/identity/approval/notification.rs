//! The tokens by which an issuer shows that a notification is its own (CIBA Core 1.0, sections 7.1 and 10.2).
//!
//! A token holds the nonce of its question, the end of its use, and a MAC under a key that all replicas share. So nothing is
//! kept for it, and each replica knows the tokens of all others.

use ring::hmac;

/// The bytes of a nonce, as [`random_nonce`](super::sealed::random_nonce) makes it.
const NONCE_BYTES: usize = 16;
const EXPIRY_BYTES: usize = 8;
const MAC_BYTES: usize = 32;
/// The length of a token: two hexadecimal digits for each byte. An issuer takes up to 1,024 characters.
const TOKEN_CHARACTERS: usize = 2 * (NONCE_BYTES + EXPIRY_BYTES + MAC_BYTES);

/// Makes the tokens of notifications and knows them again.
#[derive(Debug)]
pub(crate) struct NotificationKey(hmac::Key);

impl NotificationKey {
    /// Makes the key from a secret that has no other use.
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Makes the token of a question, which is good until `expires_at`, in seconds since 1970. Returns `None` if the nonce is
    /// not one of [`random_nonce`](super::sealed::random_nonce).
    pub(crate) fn token(&self, nonce: &str, expires_at: u64) -> Option<String> {
        let nonce = base16ct::lower::decode_vec(nonce).ok().filter(|nonce| nonce.len() == NONCE_BYTES)?;
        let content = [nonce.as_slice(), &expires_at.to_be_bytes()].concat();
        let mac = hmac::sign(&self.0, &content);
        Some(base16ct::lower::encode_string(&[content.as_slice(), mac.as_ref()].concat()))
    }

    /// Returns the nonce of the question whose token this is; `None` if it was not made with this key, or has expired.
    pub(crate) fn nonce(&self, token: &str, now: u64) -> Option<String> {
        if token.len() != TOKEN_CHARACTERS {
            return None;
        }
        // Upper-case digits are refused, so that a token has only one spelling.
        let token = base16ct::lower::decode_vec(token).ok()?;
        let (content, mac) = token.split_at_checked(NONCE_BYTES + EXPIRY_BYTES)?;
        // This compares in constant time.
        hmac::verify(&self.0, content, mac).ok()?;
        let (nonce, expires_at) = content.split_last_chunk::<EXPIRY_BYTES>()?;
        (now < u64::from_be_bytes(*expires_at)).then(|| base16ct::lower::encode_string(nonce))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::approval::sealed::random_nonce;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn only_whole_tokens_of_this_key_are_known_until_they_expire() {
        let (key, other) = (NotificationKey::new(&[7; 32]), NotificationKey::new(&[8; 32]));
        let nonce = random_nonce().unwrap();
        let token = key.token(&nonce, NOW + 60).unwrap();
        assert!(token.len() <= 1_024 && token.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{token}");
        let later = NOW + 60;
        let rows = [
            ("itself", token.clone(), NOW, true),
            ("in its last second", token.clone(), later - 1, true),
            ("after its end", token.clone(), later, false),
            ("of another key", other.token(&nonce, later).unwrap(), NOW, false),
            ("in capitals", token.to_uppercase(), NOW, false),
            ("with a space", format!("{token} "), NOW, false),
            ("none at all", String::new(), NOW, false),
            ("the nonce alone", nonce.clone(), NOW, false),
            ("letters that are no digits", "z".repeat(TOKEN_CHARACTERS), NOW, false),
        ];
        for (row, token, now, is_known) in rows {
            assert_eq!(key.nonce(&token, now), is_known.then(|| nonce.clone()), "{row}");
        }
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'0' { b'1' } else { b'0' };
            assert_eq!(key.nonce(std::str::from_utf8(&changed).unwrap(), NOW), None, "changed at {place}");
            assert_eq!(key.nonce(token.get(..place).unwrap(), NOW), None, "cut at {place}");
        }
    }

    #[test]
    fn a_token_is_made_for_a_nonce_alone() {
        let key = NotificationKey::new(&[7; 32]);
        let long = "0".repeat(34);
        for (row, nonce) in
            [("none", ""), ("a short one", "00"), ("no digits", "question"), ("a long one", long.as_str())]
        {
            assert_eq!(key.token(nonce, NOW), None, "{row}");
        }
        assert_ne!(key.token(&random_nonce().unwrap(), NOW), key.token(&random_nonce().unwrap(), NOW));
    }
}
