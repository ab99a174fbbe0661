//! Page tokens: where the next page of one search begins.
//!
//! A token says after which chunk to go on, by score and id. A cosine depends on one chunk alone, so pages of a vector query
//! stay consistent while the corpus changes: what is new shows up in its place, and what is gone is missed by nobody. A chunk
//! that was returned and then replaced may be found once more, with a lower score, so the token holds a mark of each chunk
//! that was returned, and none comes twice. The score of a text or hybrid query depends on everything that the user may see.
//! Its token holds a digest of the pages before, and there is a next page only while those would be answered alike; else
//! the search begins anew. So all pages together are one answer. What the user may not see enters neither, so it ends no paging.
//!
//! It is authenticated with HMAC-SHA256 (RFC 2104) over its content and over everything that the search depends on: the whole
//! principal, collection, query, filter, number and lowest score of chunks, relation and authorization model. It holds
//! nothing but what the caller has seen already, and counts only what was permitted.
//!
//! INVARIANT (one refusal): a token that was changed, is another's or another search's, has expired, or goes on after pages
//! that changed, is refused with the same words.

mod binding;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

pub(super) use self::binding::Binding;
use super::{FieldViolation, RetrievalError};
use crate::authz::enforce::Permitted;
use crate::chunk::{Candidate, ID_BYTES_MAX};

/// Shortest secret of replicas that share their pages.
pub const KEY_BYTES_MIN: usize = 32;
/// Chunks on all pages of one search: each takes some bytes of the token.
pub(super) const RETURNED_MAX: usize = 10_000;
const VERSION: u8 = 4;
const MAC_BYTES: usize = 32;
const DIGEST_BYTES: usize = 32;
/// Among ten thousand marks, one that is another chunk's is less likely than a damaged bit.
const MARK_BYTES: usize = 6;
/// Before a chunk id from which a mark is made: no token begins so.
const MARKED: &[u8] = &[0xff];
/// Version, expiry, score, number of chunks, digest of them; then their marks, if there is no digest, and the chunk id.
const HEAD_BYTES: usize = 1 + 8 + 4 + 4 + DIGEST_BYTES;
const REFUSED: &str = "is not a page of this search, or has expired; ask for the first page again";

/// Makes and reads tokens. A clone has the same key.
#[derive(Clone)]
pub struct Pages {
    key: Arc<hmac::Key>,
    lifetime: Duration,
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// Of the last chunk of the page before.
    pub(super) score: f32,
    /// Of the last chunk of the page before.
    pub(super) chunk_id: String,
    /// The chunks of all pages before.
    pub(super) earlier: Earlier,
}

/// What is known of the chunks of all pages before.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Earlier {
    /// They are not returned again, wherever they are found.
    Marked(BTreeSet<Mark>),
    /// The ranking must not have changed.
    Unchanged {
        /// How many they are.
        returned: u32,
        /// They and their scores.
        answered: Answered,
    },
}

/// What tells that a chunk was returned; nobody without the key can make another chunk with the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark([u8; MARK_BYTES]);

/// A digest of the chunks of an answer, with their scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered([u8; DIGEST_BYTES]);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum PageKeyError {
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for the key of page tokens")]
    NoRandom,
    /// It could be guessed.
    #[error("the key of page tokens has {0} bytes, at least {KEY_BYTES_MIN} are needed")]
    TooShort(usize),
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl Pages {
    /// With a key of its own: tokens are of no use after a restart, nor to another replica.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new(lifetime: Duration) -> Result<Self, PageKeyError> {
        let mut secret = [0; KEY_BYTES_MIN];
        SystemRandom::new().fill(&mut secret).map_err(|_unspecified| PageKeyError::NoRandom)?;
        Self::with_key(&secret, lifetime)
    }

    /// With the key of several replicas.
    ///
    /// # Errors
    /// When it is too short.
    pub fn with_key(secret: &[u8], lifetime: Duration) -> Result<Self, PageKeyError> {
        if secret.len() < KEY_BYTES_MIN {
            return Err(PageKeyError::TooShort(secret.len()));
        }
        Ok(Self { key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret)), lifetime })
    }

    /// The token of a place; `now` is the time since 1970.
    pub(super) fn seal(&self, place: &Place, binding: &Binding, now: Duration) -> String {
        let expires_at = u64::try_from(now.saturating_add(self.lifetime).as_millis()).unwrap_or(u64::MAX);
        let mut token = vec![VERSION];
        token.extend(expires_at.to_be_bytes());
        token.extend(place.score.to_bits().to_be_bytes());
        let returned = u32::try_from(place.earlier.returned()).unwrap_or(u32::MAX);
        token.extend(returned.to_be_bytes());
        match &place.earlier {
            Earlier::Unchanged { answered, .. } => token.extend(answered.0),
            Earlier::Marked(marks) => {
                token.extend([0; DIGEST_BYTES]);
                token.extend(marks.iter().flat_map(|mark| mark.0));
            }
        }
        token.extend(place.chunk_id.as_bytes());
        let mac = hmac::sign(&self.key, &authenticated(&token, binding));
        token.extend(mac.as_ref());
        hex(&token)
    }

    /// The place of a token.
    ///
    /// # Errors
    /// See the invariant of the module.
    pub(super) fn open(&self, token: &str, binding: &Binding, now: Duration) -> Result<Place, FieldViolation> {
        self.read(token, binding, now).ok_or_else(refused)
    }

    fn read(&self, token: &str, binding: &Binding, now: Duration) -> Option<Place> {
        if token.len() > 2 * (HEAD_BYTES + RETURNED_MAX * MARK_BYTES + ID_BYTES_MAX + MAC_BYTES) {
            return None;
        }
        let token = from_hex(token)?;
        let (content, mac) = token.split_at_checked(token.len().checked_sub(MAC_BYTES)?)?;
        hmac::verify(&self.key, &authenticated(content, binding), mac).ok()?;
        let (version, rest) = content.split_first()?;
        let (expires_at, rest) = rest.split_first_chunk::<8>()?;
        let (score, rest) = rest.split_first_chunk::<4>()?;
        let (returned, rest) = rest.split_first_chunk::<4>()?;
        let (answered, rest) = rest.split_first_chunk::<DIGEST_BYTES>()?;
        let returned = u32::from_be_bytes(*returned);
        let (earlier, chunk_id) = if *answered == [0; DIGEST_BYTES] {
            let bytes = usize::try_from(returned).ok()?.checked_mul(MARK_BYTES)?;
            let (marks, chunk_id) = rest.split_at_checked(bytes)?;
            (Earlier::Marked(marks.as_chunks().0.iter().copied().map(Mark).collect()), chunk_id)
        } else {
            (Earlier::Unchanged { returned, answered: Answered(*answered) }, rest)
        };
        let is_current = now.as_millis() < u128::from(u64::from_be_bytes(*expires_at));
        let place = Place {
            score: f32::from_bits(u32::from_be_bytes(*score)),
            chunk_id: String::from_utf8(chunk_id.to_vec()).ok()?,
            earlier,
        };
        (*version == VERSION && is_current && place.score.is_finite()).then_some(place)
    }
}

impl Pages {
    /// The mark of a chunk.
    pub(super) fn mark(&self, chunk_id: &str) -> Mark {
        let mac = hmac::sign(&self.key, &[MARKED, chunk_id.as_bytes()].concat());
        Mark(mac.as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// Drops what was on a page before, unless it must be found unchanged. `before` is `None` for the first page.
    pub(super) fn skip_earlier(&self, before: Option<&Place>, candidates: &mut Vec<Candidate>) {
        if let Some(Place { earlier: Earlier::Marked(marks), .. }) = before {
            let is_later = |found: &Candidate| before.is_some_and(|before| before.is_before(found));
            candidates.retain(|found| is_later(found) && !marks.contains(&self.mark(&found.chunk_id)));
        }
    }
}

impl Earlier {
    /// How many chunks there were.
    pub(super) fn returned(&self) -> usize {
        match self {
            Self::Marked(marks) => marks.len(),
            Self::Unchanged { returned, .. } => usize::try_from(*returned).unwrap_or(usize::MAX),
        }
    }
}

impl Place {
    /// Whether a candidate comes after the pages before.
    pub(super) fn is_before(&self, candidate: &Candidate) -> bool {
        match candidate.score.partial_cmp(&self.score) {
            Some(Ordering::Less) => true,
            Some(Ordering::Equal) => candidate.chunk_id > self.chunk_id,
            Some(Ordering::Greater) | None => false,
        }
    }
}

/// What was on a page before, and what comes after.
pub(super) fn split(before: Option<&Place>, candidates: Vec<Candidate>) -> [Vec<Candidate>; 2] {
    let is_earlier = |candidate: &Candidate| before.is_some_and(|before| !before.is_before(candidate));
    let (earlier, later) = candidates.into_iter().partition(is_earlier);
    [earlier, later]
}

/// Whether the pages before would be answered as they were.
///
/// # Errors
/// See the invariant of the module.
pub(super) fn check_unchanged(before: Option<&Place>, earlier: &[Permitted<Candidate>]) -> Result<(), RetrievalError> {
    let found = || Answered::of(earlier.iter().map(|c| (c.item().chunk_id.as_str(), c.item().score)));
    match before.map(|before| &before.earlier) {
        Some(Earlier::Unchanged { answered, .. }) if *answered != found() => {
            Err(RetrievalError::Invalid(vec![refused()]))
        }
        Some(Earlier::Unchanged { .. } | Earlier::Marked(_)) | None => Ok(()),
    }
}

impl Answered {
    pub(super) fn of<'c>(chunks: impl Iterator<Item = (&'c str, f32)>) -> Self {
        let mut digest = Context::new(&SHA256);
        for (chunk_id, score) in chunks {
            digest.update(&score.to_bits().to_be_bytes());
            digest.update(&length(chunk_id));
            digest.update(chunk_id.as_bytes());
        }
        Self(finished(digest))
    }
}

pub(super) fn refused() -> FieldViolation {
    FieldViolation::new("page_token", REFUSED)
}

fn length(text: &str) -> [u8; 8] {
    u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes()
}

fn finished(digest: Context) -> [u8; DIGEST_BYTES] {
    let mut bytes = [0; DIGEST_BYTES];
    for (to, from) in bytes.iter_mut().zip(digest.finish().as_ref()) {
        *to = *from;
    }
    bytes
}

/// The digest has a fixed length and comes last, so no content can reach into it.
fn authenticated(content: &[u8], binding: &Binding) -> Vec<u8> {
    [content, &binding.0].concat()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Only what [`hex`] makes: another spelling of a token would be another token.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let nibble = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(nibble(high)? << 4 | nibble(low)?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn pages() -> Pages {
        Pages::with_key(&[7; KEY_BYTES_MIN], HOUR).expect("a key")
    }

    fn place() -> Place {
        let answered = Answered::of([("handbook/1#1", 0.5), ("handbook/1#2", 0.25)].into_iter());
        let earlier = Earlier::Unchanged { returned: 10, answered };
        Place { score: 0.25, chunk_id: "handbook/1#2".to_owned(), earlier }
    }

    #[test]
    fn every_part_of_an_answer_is_in_its_digest() {
        let answered = |chunks: &[(&str, f32)]| Answered::of(chunks.iter().copied());
        let apart: [&[(&str, f32)]; 7] = [
            &[],
            &[("a", 0.5)],
            &[("b", 0.5)],
            &[("a", 0.5_f32.next_up())],
            &[("a", 0.5), ("b", 0.5)],
            &[("b", 0.5), ("a", 0.5)],
            &[("a", 0.5), ("b", 0.5), ("c", 0.5)],
        ];
        for (place, one) in apart.iter().enumerate() {
            for (other_place, other) in apart.iter().enumerate() {
                assert_eq!(answered(one) == answered(other), place == other_place, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_token_opens_where_it_was_sealed_for() {
        let (binding, other) = (Binding([1; 32]), Binding([2; 32]));
        let token = pages().seal(&place(), &binding, HOUR);
        assert_eq!(pages().open(&token, &binding, HOUR), Ok(place()));
        for returned in [1, 2, RETURNED_MAX] {
            let marks = (0..returned).map(|number| pages().mark(&number.to_string())).collect();
            let by_cosine = Place { earlier: Earlier::Marked(marks), ..place() };
            assert_eq!(by_cosine.earlier.returned(), returned);
            assert_eq!(pages().open(&pages().seal(&by_cosine, &binding, HOUR), &binding, HOUR), Ok(by_cosine));
        }
        let refused = Err(FieldViolation::new("page_token", REFUSED));
        assert_eq!(pages().open(&token, &other, HOUR), refused);
        assert_eq!(pages().open(&token, &binding, 2 * HOUR), refused, "expired");
        let foreign = Pages::with_key(&[8; KEY_BYTES_MIN], HOUR).expect("a key");
        assert_eq!(foreign.open(&token, &binding, HOUR), refused);
        for wrong in ["", "0", "zz", &token.to_uppercase(), &format!("{token}00"), &"0".repeat(200_000)] {
            assert_eq!(pages().open(wrong, &binding, HOUR), refused, "{wrong}");
        }
        for position in 0..token.len() {
            let mut tampered = token.clone().into_bytes();
            tampered[position] = if tampered[position] == b'0' { b'1' } else { b'0' };
            let tampered = String::from_utf8(tampered).expect("digits");
            assert_eq!(pages().open(&tampered, &binding, HOUR), refused, "at {position}");
            assert_eq!(
                pages().open(token.get(..position).expect("digits"), &binding, HOUR),
                refused,
                "cut at {position}"
            );
        }
    }

    #[test]
    fn a_short_key_is_refused_and_no_key_is_shown() {
        assert!(matches!(Pages::with_key(&[7; KEY_BYTES_MIN - 1], HOUR), Err(PageKeyError::TooShort(31))));
        assert_eq!(format!("{:?}", pages()), "Pages { lifetime: 3600s, .. }");
    }
}
