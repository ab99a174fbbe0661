//! Approvals as callers hold them: sealed, so that nobody else can read, make or change one. All replicas that share the key
//! open them, so nothing is kept for an approval that nobody comes back with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::notification::NotificationKey;
use crate::identity::approvable::Grant;
use crate::identity::token::TokenFacts;
use crate::settings::Secret;

/// The shortest secret that replicas may share, in bytes.
const KEY_BYTES_MIN: usize = 32;
/// The longest sealed approval that is opened, in characters. It names the actors of a token, which has at most 16 KiB, in a form
/// that may be three times as long.
const SEALED_BYTES_MAX: usize = 64 * 1_024;
/// The random bytes of a nonce.
const RANDOM_BYTES: usize = 16;
/// Keeps the key of approvals apart from every other key that a file may serve for.
const LABEL: &[u8] = b"ragward approval 1";
/// Keeps the key of notifications apart from that of approvals.
const NOTIFICATION_LABEL: &[u8] = b"ragward approval notification 1";

/// The caller for whom a person is asked. Equal askers join one question, and no other asker can use its approval.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asker {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) client_id: String,
    /// The actors who act for the subject, outermost first.
    pub(crate) actors: Vec<String>,
}

/// The content of a sealed approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenApproval {
    pub(crate) asker: Asker,
    pub(crate) nonce: String,
    pub(crate) request_sha256: String,
    pub(crate) chunks_max: u64,
    /// The issuer's id of its question to the person.
    pub(crate) question: String,
    /// The pause between polls that the issuer asks for, in seconds.
    pub(crate) interval: u64,
    /// The end of the approval, in seconds since 1970.
    pub(crate) expires_at: u64,
}

/// Seals approvals and opens them, and has the key of the notifications about them.
#[derive(Debug)]
pub(crate) struct Seal {
    approvals: LessSafeKey,
    notifications: NotificationKey,
}

impl Asker {
    /// Returns the asker whose token this is.
    pub(crate) fn of(facts: &TokenFacts) -> Self {
        let TokenFacts { issuer, subject, client_id, actors, .. } = facts;
        Self {
            issuer: issuer.to_string(),
            subject: subject.clone(),
            client_id: client_id.clone(),
            actors: actors.iter().map(|actor| actor.object.to_string()).collect(),
        }
    }

    /// Returns the asker with its outermost actor alone: the agent that is checked. The other actors are history, which an agent
    /// may vary by having its token exchanged along other ways.
    pub(crate) fn agent(&self) -> Self {
        Self { actors: self.actors.iter().take(1).cloned().collect(), ..self.clone() }
    }
}

impl OpenApproval {
    pub(crate) fn grant(&self) -> Grant {
        let Self { nonce, request_sha256, chunks_max, .. } = self.clone();
        Grant { nonce, request_sha256, chunks_max }
    }
}

impl Seal {
    /// Makes the key from a secret that replicas share, or a random one.
    ///
    /// # Errors
    /// If the secret is too short, or the system gives no random numbers. The text says which.
    pub(crate) fn new(secret: Option<&Secret>) -> Result<Self, String> {
        let mut random = [0; KEY_BYTES_MIN];
        let bytes = match secret.map(|secret| secret.expose().as_bytes()) {
            Some(bytes) if bytes.len() < KEY_BYTES_MIN => {
                return Err(format!(
                    "`approval.key_file` has {} bytes, at least {KEY_BYTES_MIN} are needed",
                    bytes.len()
                ));
            }
            Some(bytes) => bytes,
            None => {
                random_bytes(&mut random)?;
                random.as_slice()
            }
        };
        let secret = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let key = UnboundKey::new(&AES_256_GCM, hmac::sign(&secret, LABEL).as_ref());
        let key = key.map_err(|_length| "the key of approvals has a wrong length".to_owned())?;
        let notifications = NotificationKey::new(hmac::sign(&secret, NOTIFICATION_LABEL).as_ref());
        Ok(Self { approvals: LessSafeKey::new(key), notifications })
    }

    /// Returns the key of the tokens that issuers send with their notifications.
    pub(crate) fn notifications(&self) -> &NotificationKey {
        &self.notifications
    }

    /// Seals an approval; `None` if the system gives no random numbers.
    pub(crate) fn seal(&self, approval: &OpenApproval) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        random_bytes(&mut nonce).ok()?;
        let mut content = serde_json::to_vec(approval).ok()?;
        let unique = Nonce::assume_unique_for_key(nonce);
        self.approvals.seal_in_place_append_tag(unique, Aad::from(LABEL), &mut content).ok()?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &content].concat()))
    }

    /// Opens an approval; `None` if it was not sealed with this key, or was changed.
    pub(crate) fn open(&self, sealed: &str) -> Option<OpenApproval> {
        if sealed.len() > SEALED_BYTES_MAX {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, content) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut content = content.to_vec();
        let unique = Nonce::assume_unique_for_key(*nonce);
        let opened = self.approvals.open_in_place(unique, Aad::from(LABEL), &mut content).ok()?;
        serde_json::from_slice(opened).ok()
    }
}

/// Returns a random text that tells an approval from every other one; `None` if the system gives no random numbers.
pub(crate) fn random_nonce() -> Option<String> {
    let mut bytes = [0; RANDOM_BYTES];
    random_bytes(&mut bytes).ok()?;
    Some(base16ct::lower::encode_string(&bytes))
}

/// Returns a code for people, such as `4F7K-9QXM`. It has no letters and digits that look alike.
pub(crate) fn random_code() -> Option<String> {
    const LETTERS: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
    let mut bytes = [0; 8];
    random_bytes(&mut bytes).ok()?;
    let letter = |byte: &u8| LETTERS.get(usize::from(byte % 32)).copied().map(char::from);
    let code: String = bytes.iter().filter_map(letter).collect();
    let (first, second) = code.split_at_checked(4)?;
    Some(format!("{first}-{second}"))
}

fn random_bytes(bytes: &mut [u8]) -> Result<(), String> {
    let filled = SystemRandom::new().fill(bytes);
    filled.map_err(|_unspecified| "the system gives no random numbers for approvals".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval() -> OpenApproval {
        let asker = Asker {
            issuer: "https://login.example".to_owned(),
            subject: "anne".to_owned(),
            client_id: "desk".to_owned(),
            actors: vec!["agent:helper".to_owned()],
        };
        OpenApproval {
            asker,
            nonce: random_nonce().unwrap(),
            request_sha256: "0".repeat(64),
            chunks_max: 5,
            question: "question".to_owned(),
            interval: 5,
            expires_at: 1_800_000_000,
        }
    }

    #[test]
    fn only_who_has_the_key_opens_an_approval() {
        let secret = Secret::new("0123456789abcdef0123456789abcdef");
        let (one, replica) = (Seal::new(Some(&secret)).unwrap(), Seal::new(Some(&secret)).unwrap());
        let other = Seal::new(None).unwrap();
        let approval = approval();
        let sealed = one.seal(&approval).unwrap();
        assert_eq!(replica.open(&sealed), Some(approval.clone()));
        assert_eq!(other.open(&sealed), None);
        assert_ne!(one.seal(&approval).unwrap(), sealed, "nobody sees that two are of one request");
        assert!(!sealed.contains("anne"));
        for place in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(one.open(std::str::from_utf8(&changed).unwrap()), None, "changed at {place}");
            assert_eq!(one.open(sealed.get(..place).unwrap()), None, "cut at {place}");
        }
    }

    #[test]
    fn a_long_history_is_no_reason_to_ask_in_vain() {
        let mut approval = approval();
        approval.asker.actors = vec![format!("agent:{}", "%2F".repeat(160)); 75];
        let seal = Seal::new(None).unwrap();
        let sealed = seal.seal(&approval).unwrap();
        assert_eq!(seal.open(&sealed), Some(approval));
        assert_eq!(seal.open(&"A".repeat(SEALED_BYTES_MAX + 1)), None);
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert!(Seal::new(Some(&Secret::new("short"))).is_err_and(|error| error.contains("key_file")));
    }

    #[test]
    fn codes_are_read_aloud() {
        let code = random_code().unwrap();
        assert_eq!((code.len(), code.find('-')), (9, Some(4)), "{code}");
        assert!(!code.contains(['0', 'O', '1', 'I']), "{code}");
    }
}
