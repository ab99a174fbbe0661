//! Remembers tokens that were verified lately, and tokens for one request that were used.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::digest::{SHA256, digest};

use super::approvable::Approval;
use super::token::TokenFacts;
use super::{Refusal, VerifiedToken};

/// The most tokens in one generation. A token takes some kilobytes of memory.
const TOKENS_MAX: usize = 8_192;
/// The time, in seconds, for which a token is believed without another look at its issuer's keys. A key that was
/// withdrawn counts for this long at most.
pub(super) const REMEMBERED_SECONDS_MAX: u64 = 300;
/// The most used tokens that are remembered. While there are that many, other tokens for one request are refused.
const USED_MAX: usize = 100_000;
/// The most used tokens of one client at one issuer that are remembered, so that one client cannot use up the room of all.
const USED_OF_CLIENT_MAX: usize = 10_000;

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
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// Each use, by the digest of its name.
    uses: HashMap<Digest, UsedBy>,
    /// The number of uses of each client.
    of_client: HashMap<Digest, usize>,
}

#[derive(Clone, Copy, Debug)]
struct UsedBy {
    client: Digest,
    /// The time until which the use is remembered, in seconds since 1970.
    until: u64,
}

/// The one use of a token, while its request runs. INVARIANT (one answer): nobody else gets a use of the same token. If
/// this is dropped without [`Use::answered`] and [`Use::text_read`], the token can be used again.
#[derive(Debug)]
pub struct Use {
    tokens: Arc<UsedTokens>,
    digest: Digest,
    is_answered: AtomicBool,
    is_text_read: AtomicBool,
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
        self.begin_until(&name, facts, facts.expires_at.saturating_add(leeway_seconds), now)
    }

    /// Begins the one use of an approval, or of one further page of the approved search. The nonce counts and not the token,
    /// so another token with the same approval does not help.
    pub(super) fn begin_approval(
        self: &Arc<Self>,
        token: &VerifiedToken,
        approval: &Approval,
        page_token: Option<&str>,
        now: u64,
    ) -> Result<Use, Refusal> {
        let facts = &token.facts;
        let page = page_token.unwrap_or_default();
        // Neither has a colon, and no name of a token begins with a letter.
        let name = format!("approval:{}:{page}", approval.nonce);
        self.begin_until(&name, facts, approval.expires_at, now)
    }

    fn begin_until(self: &Arc<Self>, name: &str, facts: &TokenFacts, until: u64, now: u64) -> Result<Use, Refusal> {
        // A use is forgotten when it expires. One that begins then could be a second one.
        if until <= now {
            return Err(Refusal::Used);
        }
        let digest = RememberedTokens::digest(name);
        let client = format!("{}:{}{}", facts.issuer.len(), facts.issuer, facts.client_id);
        let client = RememberedTokens::digest(&client);
        let mut used = self.lock();
        if !used.has_room_for(&client) {
            used.forget_expired(now);
        }
        if !used.has_room_for(&client) || used.uses.contains_key(&digest) {
            return Err(Refusal::Used);
        }
        used.uses.insert(digest, UsedBy { client, until });
        *used.of_client.entry(client).or_default() += 1;
        drop(used);
        let (is_answered, is_text_read) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Use { tokens: Arc::clone(self), digest, is_answered, is_text_read })
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    fn has_room_for(&self, client: &Digest) -> bool {
        let of_client = self.of_client.get(client).copied().unwrap_or_default();
        self.uses.len() < USED_MAX && of_client < USED_OF_CLIENT_MAX
    }

    fn forget_expired(&mut self, now: u64) {
        let expired: Vec<Digest> =
            self.uses.iter().filter(|(_, used)| used.until <= now).map(|(digest, _)| *digest).collect();
        for digest in expired {
            self.forget(&digest);
        }
    }

    fn forget(&mut self, digest: &Digest) {
        let Some(UsedBy { client, .. }) = self.uses.remove(digest) else { return };
        if let Some(count) = self.of_client.get_mut(&client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_client.remove(&client);
            }
        }
    }
}

impl Use {
    /// Uses the token up, because there is an answer.
    pub fn answered(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
    }

    /// Uses the token up, because texts are about to be read for its request. Nothing takes this back.
    pub fn text_read(&self) {
        self.is_text_read.store(true, Ordering::Relaxed);
    }

    /// Takes [`Use::answered`] back, because the answer was withheld after all.
    pub fn withheld(&self) {
        self.is_answered.store(false, Ordering::Relaxed);
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if !*self.is_answered.get_mut() && !*self.is_text_read.get_mut() {
            self.tokens.lock().forget(&self.digest);
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
        let ends: [(&str, End, bool); 7] = [
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
            ("text that was read for an answer that nobody got", |one_use| one_use.text_read(), false),
            (
                "text that was read for an answer that was withheld",
                |one_use| {
                    one_use.text_read();
                    one_use.answered();
                    one_use.withheld();
                },
                false,
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
    fn what_has_ended_does_not_begin_anew() {
        let used = Arc::new(UsedTokens::default());
        let token = sample::token("anne", "ragward:retrieve", NOW + 600);
        let (nonce, request_sha256) = ("a".to_owned(), "b".to_owned());
        let approval = Approval { nonce, request_sha256, chunks_max: 1, expires_at: NOW + 60 };
        let rows = [
            ("for the first time", NOW, true),
            ("a second time", NOW + 59, false),
            ("at its end", NOW + 60, false),
            ("after its end", NOW + 61, false),
        ];
        for (row, now, is_begun) in rows {
            used.lock().forget_expired(now);
            let begun = used.begin_approval(&token, &approval, None, now);
            assert_eq!(begun.is_ok(), is_begun, "{row}");
            if let Ok(one_use) = begun {
                one_use.text_read();
            }
        }
    }

    #[test]
    fn used_tokens_are_bounded() {
        let used = Arc::new(UsedTokens::default());
        let token = sample::token("anne", "ragward:retrieve", NOW + 60);
        let fill = |count: usize, client: Digest| {
            let mut used = used.lock();
            for n in 0..count {
                let digest = RememberedTokens::digest(&format!("{client:?}{n}"));
                used.uses.insert(digest, UsedBy { client, until: NOW + 60 });
            }
            used.of_client.insert(client, count);
        };
        for client in 1..=u8::try_from(USED_MAX / USED_OF_CLIENT_MAX).unwrap() {
            let begun = used.begin(&token, LEEWAY_SECONDS, NOW);
            assert!(begun.is_ok(), "other clients do not fill the room of this one");
            drop(begun);
            fill(USED_OF_CLIENT_MAX, [client; 32]);
        }
        assert_eq!(used.begin(&token, LEEWAY_SECONDS, NOW).err(), Some(Refusal::Used), "the room of all is full");
        // Expired tokens make room.
        let later = sample::token("anne", "ragward:retrieve", NOW + 600);
        assert!(used.begin(&later, LEEWAY_SECONDS, NOW + 60).is_ok());
        let (open, counts) = {
            let left = used.lock();
            (left.uses.len(), left.of_client.len())
        };
        assert_eq!((open, counts), (0, 0), "nothing is left of them");
        // One client fills its own room.
        let own = RememberedTokens::digest("6:issuerapp");
        fill(USED_OF_CLIENT_MAX, own);
        assert_eq!(used.begin(&token, LEEWAY_SECONDS, NOW).err(), Some(Refusal::Used), "the room of one is full");
    }
}
