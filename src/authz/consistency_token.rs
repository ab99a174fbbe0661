//! Consistency tokens: a caller sends one so that the answer takes in everything that was written before the token was
//! issued.
//!
//! A token holds a moment of this process's monotonic clock. It is authenticated (HMAC-SHA256, RFC 2104) with a key
//! that lives as long as the process and never leaves it. A token with another key comes from another replica, or from
//! before a restart. Nobody here knows the moment that it holds, but it was issued before it arrived. So it stands for
//! the moment at which it was first seen.
//!
//! Tokens travel as metadata, because `OpenFGA`'s messages have no place for them, and in Ragward's own messages.
//!
//! INVARIANT (never too old): a token is never read as an earlier moment than the one at which it was issued. No clocks
//! are compared, replicas share no key, and no clock that can be set is read. So a wrong clock, a restart or a forged
//! token can only ask for fresher answers.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::error::Unspecified;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::time::{Duration, Instant};

/// The first byte. A later form of tokens takes another number.
const VERSION: u8 = 1;
/// The version (1 byte) and the nanoseconds since the start of the process (8 bytes).
const CONTENT_BYTES: usize = 1 + 8;
const TOKEN_BYTES: usize = CONTENT_BYTES + 32;
/// The most tokens of other processes that are remembered: about 1 MB. When there are that many, all are forgotten, and
/// then count as new, which is safe.
const SEEN_MAX: usize = 10_000;

/// Issues consistency tokens and reads them.
#[derive(Debug)]
pub struct ConsistencyTokens {
    key: hmac::Key,
    started: Instant,
    /// The moment at which each token of another process was first seen.
    seen: Mutex<HashMap<[u8; TOKEN_BYTES], Instant>>,
}

/// The text is not a token that any process of Ragward issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a consistency token; send one back as it was given")]
pub struct NotAToken;

impl ConsistencyTokens {
    /// Draws a new key.
    ///
    /// # Errors
    /// When the system provides no random numbers.
    pub fn new() -> Result<Self, Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?;
        Ok(Self { key, started: Instant::now(), seen: Mutex::default() })
    }

    /// Issues the token of this moment. An answer to a request with this token takes in everything that was written
    /// before.
    #[must_use]
    pub fn issue(&self) -> String {
        // 64 bits hold 580 years.
        let nanoseconds = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut token = vec![VERSION];
        token.extend(nanoseconds.to_be_bytes());
        let mac = hmac::sign(&self.key, &token);
        token.extend(mac.as_ref());
        BASE64_URL_SAFE_NO_PAD.encode(token)
    }

    /// Returns the moment that a token stands for.
    ///
    /// # Errors
    /// When it does not have the form of a token.
    pub fn moment(&self, token: &str) -> Result<Instant, NotAToken> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_malformed| NotAToken)?;
        let token = <[u8; TOKEN_BYTES]>::try_from(bytes).map_err(|_other_length| NotAToken)?;
        let (content, mac) = token.split_at_checked(CONTENT_BYTES).ok_or(NotAToken)?;
        let (&[version], nanoseconds) = content.split_first_chunk::<1>().ok_or(NotAToken)?;
        if version != VERSION {
            return Err(NotAToken);
        }
        let own = hmac::verify(&self.key, content, mac).is_ok();
        let nanoseconds = <[u8; 8]>::try_from(nanoseconds).map_err(|_other_length| NotAToken)?;
        let issued = self.started.checked_add(Duration::from_nanos(u64::from_be_bytes(nanoseconds)));
        match issued.filter(|_| own) {
            Some(issued) => Ok(issued),
            None => Ok(self.first_seen(token)),
        }
    }

    fn first_seen(&self, token: [u8; TOKEN_BYTES]) -> Instant {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= SEEN_MAX && !seen.contains_key(&token) {
            seen.clear();
        }
        *seen.entry(token).or_insert_with(Instant::now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn wait(milliseconds: u64) {
        tokio::time::advance(Duration::from_millis(milliseconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_own_token_is_the_moment_it_was_given_out() {
        let tokens = ConsistencyTokens::new().expect("random numbers");
        for milliseconds in [0, 1, 86_400_000] {
            wait(milliseconds).await;
            let (issued, token) = (Instant::now(), tokens.issue());
            wait(5_000).await;
            assert_eq!(tokens.moment(&token), Ok(issued), "{milliseconds}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_of_another_process_is_the_moment_it_was_first_seen() {
        let (tokens, other) = (ConsistencyTokens::new().expect("random"), ConsistencyTokens::new().expect("random"));
        wait(10).await;
        let token = other.issue();
        wait(10).await;
        let first_seen = Instant::now();
        assert_eq!(tokens.moment(&token), Ok(first_seen));
        wait(10).await;
        assert_eq!(tokens.moment(&token), Ok(first_seen), "it can be satisfied in time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_token_is_never_older() {
        let tokens = ConsistencyTokens::new().expect("random numbers");
        wait(1_000).await;
        let token = BASE64_URL_SAFE_NO_PAD.decode(tokens.issue()).expect("a token");
        wait(1_000).await;
        for position in 1..token.len() {
            let mut changed = token.clone();
            changed[position] ^= 1;
            let moment = tokens.moment(&BASE64_URL_SAFE_NO_PAD.encode(changed));
            assert_eq!(moment, Ok(Instant::now()), "byte {position}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_forgotten_counts_as_new() {
        let tokens = ConsistencyTokens::new().expect("random numbers");
        let foreign = |number: usize| {
            let mut token = [0; TOKEN_BYTES];
            token[0] = VERSION;
            token[1..9].copy_from_slice(&u64::try_from(number).expect("small").to_be_bytes());
            BASE64_URL_SAFE_NO_PAD.encode(token)
        };
        for number in 0..SEEN_MAX {
            tokens.moment(&foreign(number)).expect("a token");
        }
        wait(10).await;
        tokens.moment(&foreign(SEEN_MAX)).expect("a token");
        assert_eq!(tokens.moment(&foreign(0)), Ok(Instant::now()));
        assert_eq!(tokens.seen.lock().expect("a lock").len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_token_is_refused() {
        let tokens = ConsistencyTokens::new().expect("random numbers");
        let (token, other_version) = (tokens.issue(), BASE64_URL_SAFE_NO_PAD.encode([2; TOKEN_BYTES]));
        for text in [
            "",
            "0",
            "not a token",
            &token.replacen('A', "", 1),
            &format!("{token}A"),
            &format!("{token}="),
            &other_version,
        ] {
            assert_eq!(tokens.moment(text), Err(NotAToken), "`{text}`");
        }
    }
}
