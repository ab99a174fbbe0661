//! Remembers tokens that were verified lately, and tokens for one request that were used.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::digest::{SHA256, digest};

use super::{Refusal, VerifiedToken};

/// The most tokens in one generation. A token takes some kilobytes of memory.
const TOKENS_MAX: usize = 8_192;
/// The time, in seconds, for which a token is believed without another look at its issuer's keys. A key that was
/// withdrawn counts for this long at most.
pub(super) const REMEMBERED_SECONDS_MAX: u64 = 300;
/// The most used tokens that are remembered. While there are that many, other tokens for one request are refused.
const USED_MAX: usize = 100_000;

type Digest = [u8; 32];

/// Verified tokens by the digest of their bytes, so that no token itself stays in memory. When the young generation is
/// full, it replaces the old one.
#[derive(Debug, Default)]
pub(super) struct RememberedTokens {
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Digest, RememberedToken>,
    old: HashMap<Digest, RememberedToken>,
}

#[derive(Clone, Debug)]
struct RememberedToken {
    token: Arc<VerifiedToken>,
    /// The time until which the token is believed, in seconds since 1970.
    until: u64,
}

impl RememberedTokens {
    pub(super) fn digest(token: &str) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        bytes
    }

    /// Returns the token with this digest, as long as it may be believed.
    pub(super) fn get(&self, digest: &Digest, now: u64) -> Option<Arc<VerifiedToken>> {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = generations.young.get(digest).or_else(|| generations.old.get(digest))?;
        (now < remembered.until).then(|| Arc::clone(&remembered.token))
    }

    pub(super) fn insert(&self, digest: Digest, token: &Arc<VerifiedToken>, now: u64) {
        let until = token.facts.expires_at.min(now.saturating_add(REMEMBERED_SECONDS_MAX));
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.young.len() >= TOKENS_MAX {
            generations.old = mem::take(&mut generations.young);
        }
        generations.young.insert(digest, RememberedToken { token: Arc::clone(token), until });
    }
}

/// Tokens for one request that are in use or were used, each until it expires. They are known to this process only: see
/// `SECURITY.md`.
#[derive(Debug, Default)]
pub(super) struct UsedTokens {
    used: Mutex<HashMap<Digest, u64>>,
}

/// The one use of a token, while its request runs. INVARIANT (one answer): nobody else gets a use of the same token. If
/// this is dropped without [`Use::answered`], the token can be used again.
#[derive(Debug)]
pub struct Use {
    tokens: Arc<UsedTokens>,
    digest: Digest,
    is_answered: AtomicBool,
}

impl UsedTokens {
    /// Begins the one use of a token.
    pub(super) fn begin(
        self: &Arc<Self>,
        token: &VerifiedToken,
        leeway_seconds: u64,
        now: u64,
    ) -> Result<Use, Refusal> {
        let facts = &token.facts;
        // The length keeps the issuer and the id apart.
        let name = format!("{}:{}{}", facts.issuer.len(), facts.issuer, facts.token_id);
        let mut used = self.lock();
        if used.len() >= USED_MAX {
            used.retain(|_, until| now < *until);
        }
        let digest = RememberedTokens::digest(&name);
        if used.len() >= USED_MAX || used.contains_key(&digest) {
            return Err(Refusal::Used);
        }
        used.insert(digest, facts.expires_at.saturating_add(leeway_seconds));
        Ok(Use { tokens: Arc::clone(self), digest, is_answered: AtomicBool::new(false) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, u64>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Use {
    /// Uses the token up, because there is an answer.
    pub fn answered(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
    }

    /// Takes [`Use::answered`] back, because the answer was withheld after all.
    pub fn withheld(&self) {
        self.is_answered.store(false, Ordering::Relaxed);
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if !*self.is_answered.get_mut() {
            self.tokens.lock().remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::sample::{self, LEEWAY_SECONDS, NOW};

    /// A way in which a call ends.
    type End = fn(Use);

    #[test]
    fn a_token_is_used_up_by_an_answer_alone() {
        let ends: [(&str, End, bool); 5] = [
            ("an error", drop, true),
            ("an answer", |one_use| one_use.answered(), false),
            (
                "an answer that was withheld",
                |one_use| {
                    one_use.answered();
                    one_use.withheld();
                },
                true,
            ),
            (
                "a panic",
                |one_use| {
                    let panics = std::panic::AssertUnwindSafe(move || {
                        let _held = one_use;
                        panic!("in the call");
                    });
                    assert!(std::panic::catch_unwind(panics).is_err());
                },
                true,
            ),
            (
                "an answer that is still on its way",
                |one_use| {
                    one_use.answered();
                    drop(Arc::new(one_use));
                },
                false,
            ),
        ];
        let token = sample::token("anne", "ragward:retrieve", NOW + 60);
        for (row, end, is_usable) in ends {
            let used = Arc::new(UsedTokens::default());
            let begin = |now| used.begin(&token, LEEWAY_SECONDS, now);
            let one_use = begin(NOW).unwrap();
            assert_eq!(begin(NOW).err(), Some(Refusal::Used), "{row}: while it is in use");
            end(one_use);
            assert_eq!(begin(NOW).is_ok(), is_usable, "{row}");
        }
    }

    #[test]
    fn used_tokens_are_bounded() {
        let used = Arc::new(UsedTokens::default());
        let token = sample::token("anne", "ragward:retrieve", NOW + 60);
        let others = (0..USED_MAX).map(|n| (RememberedTokens::digest(&n.to_string()), NOW + 60));
        used.lock().extend(others);
        assert_eq!(used.begin(&token, LEEWAY_SECONDS, NOW).err(), Some(Refusal::Used));
        // Expired tokens make room.
        let later = sample::token("anne", "ragward:retrieve", NOW + 600);
        assert!(used.begin(&later, LEEWAY_SECONDS, NOW + 60).is_ok());
    }
}
