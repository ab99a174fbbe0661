//! Page tokens: they tell where the next page of one search begins.
//!
//! A token holds the score and the id of the last chunk of a page. What else it holds depends on the query:
//!
//! - The cosine of a vector query depends on one chunk alone, so its pages stay consistent while the corpus changes. A
//!   new chunk shows up in its place, and a chunk that is gone is missing. A chunk that was returned may be replaced
//!   and found once more with a lower score. So the token holds a mark of each chunk that was returned, and no chunk
//!   comes twice.
//! - The score of a text or hybrid query depends on everything that the user may see. Its token holds a digest of the
//!   pages before. The chunks of these pages are searched and checked again, and the next page is given only if the
//!   pages would come out alike. Otherwise the token is refused and the search begins anew. So all pages together are
//!   one answer.
//!
//! Neither form depends on chunks that the user may not see. It would be simpler to hold a revision of the collection,
//! but wrong: a change of a hidden document would then end somebody's pages.
//!
//! A page costs a search over all pages before it, up to `retrieval.candidates_max`.
//!
//! A token is authenticated with HMAC-SHA256 (RFC 2104) over its content and over everything that the request brings to
//! the search: the whole principal with its access token and what narrows it, the collection, the query, the filter, the
//! number of chunks, their lowest score, and the relation. It holds nothing but what the caller has seen already, and counts only what
//! was permitted.
//!
//! INVARIANT (one model): one authorization model decides all pages. A token marks the model that decided the pages
//! before, as the decisions themselves name it. The model of the next page is known only once that page is decided, so
//! the two are compared just before the page is given out. A model belongs to one store, so a page of another store is
//! refused too.
//!
//! INVARIANT (one refusal): every refused token is refused with the same words. The token may have been changed, may
//! belong to somebody else or to another search, or may have expired. The pages before may have changed, or another
//! model may have decided them.

mod binding;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use self::binding::DIGEST_BYTES;
pub(super) use self::binding::{Binding, write_asked, write_option};
use super::request::FieldViolation;
use crate::authz::ModelsUsed;
use crate::chunk::{Candidate, ID_BYTES_MAX};
use crate::settings::{LiveSecret, SecretError, SecretFile};

/// The shortest secret that replicas may share for their page tokens, in bytes.
pub const KEY_BYTES_MIN: usize = 32;
/// The most chunks on all pages of one search. Each takes [`MARK_BYTES`] of the token.
pub(super) const RETURNED_MAX: usize = 10_000;
const VERSION: u8 = 5;
const MAC_BYTES: usize = 32;
/// The length of a chunk's mark. With this many bytes, the chance that any two of ten thousand marks are equal is below
/// one in five million.
const MARK_BYTES: usize = 6;
/// The byte that stands before the chunk id under the MAC of a mark. No token begins with it, so a mark is never the
/// MAC of a token.
const MARKED: &[u8] = &[0xff];
/// The byte that stands before the binding and the model id under the MAC of a model's mark. It keeps these marks apart
/// from those of chunks.
const MODEL: &[u8] = &[0xfe];
/// The fixed part of a token: version, expiry, score, the mark of the model, number of chunks returned, and their digest.
/// The marks of chunks follow, if there is no digest, and then the chunk id.
const HEAD_BYTES: usize = 1 + 8 + 4 + MAC_BYTES + 4 + DIGEST_BYTES;
const REFUSED: &str = "is not a page of this search, or has expired; ask for the first page again";

/// Makes and reads page tokens. A clone has the same key, and follows the same secret.
#[derive(Clone)]
pub struct Pages {
    key: Arc<hmac::Key>,
    lifetime: Duration,
    /// The secret that the key follows; `None` for a key that never changes.
    secret: Option<LiveSecret>,
}

/// The point at which a page begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PageCursor {
    /// The score of the last chunk of the page before.
    pub(super) score: f32,
    /// The id of the last chunk of the page before.
    pub(super) chunk_id: String,
    /// The model that decided all pages before.
    pub(super) model: ModelMark,
    pub(super) earlier: EarlierPages,
}

/// Shows which authorization model decided the pages of one search. Without the key, nobody learns from it which model
/// that was, nor whether the same model decided two searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ModelMark([u8; MAC_BYTES]);

/// The facts in a token about the chunks of all pages before.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum EarlierPages {
    /// These chunks are not returned again, wherever they are found.
    Marked(BTreeSet<ChunkMark>),
    /// The ranking of these chunks must not have changed.
    Unchanged {
        /// How many chunks all pages before have.
        returned: u32,
        ranking: RankingDigest,
    },
}

/// Shows that a chunk was returned. Nobody without the key can find another chunk with the same mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChunkMark([u8; MARK_BYTES]);

/// A digest of chunks in their order, with their scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RankingDigest([u8; DIGEST_BYTES]);

/// The reason why there is no key for page tokens.
#[derive(Debug, thiserror::Error)]
pub enum PageKeyError {
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for the key of page tokens")]
    NoRandom,
    /// The secret is so short that it could be guessed.
    #[error("the key of page tokens has {0} bytes, at least {KEY_BYTES_MIN} are needed")]
    TooShort(usize),
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl Pages {
    /// Makes a random key. Its tokens are of no use after a restart, nor to another replica.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new(lifetime: Duration) -> Result<Self, PageKeyError> {
        let mut secret = [0; KEY_BYTES_MIN];
        SystemRandom::new().fill(&mut secret).map_err(|_unspecified| PageKeyError::NoRandom)?;
        Self::with_key(&secret, lifetime)
    }

    /// Uses a secret that several replicas share, so that each takes the tokens of the others.
    ///
    /// # Errors
    /// When the secret has fewer than [`KEY_BYTES_MIN`] bytes.
    pub fn with_key(secret: &[u8], lifetime: Duration) -> Result<Self, PageKeyError> {
        if secret.len() < KEY_BYTES_MIN {
            return Err(PageKeyError::TooShort(secret.len()));
        }
        Ok(Self { key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret)), lifetime, secret: None })
    }

    /// Follows the secret of a file, which may change. Tokens of the secret before are refused from then on.
    ///
    /// # Errors
    /// When the file cannot be read, or its secret has fewer than [`KEY_BYTES_MIN`] bytes.
    pub fn following(self, file: &SecretFile) -> Result<Self, SecretError> {
        let fits = |text: &str| match Self::with_key(text.as_bytes(), Duration::ZERO) {
            Ok(_pages) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        Ok(Self { secret: Some(LiveSecret::read(file, fits)?), ..self })
    }

    /// Returns the pages of this moment, whose key stays the same from the beginning of a request to its end.
    pub(super) fn now(&self) -> Self {
        let current = self.secret.as_ref().map(LiveSecret::current);
        let followed = current.and_then(|secret| Self::with_key(secret.expose().as_bytes(), self.lifetime).ok());
        // A secret that is too short is never followed.
        followed.unwrap_or_else(|| self.clone())
    }

    /// Makes the token of a cursor. `now` is the time since 1970.
    pub(super) fn seal(&self, cursor: &PageCursor, binding: &Binding, now: Duration) -> String {
        let expires_at = u64::try_from(now.saturating_add(self.lifetime).as_millis()).unwrap_or(u64::MAX);
        let mut token = vec![VERSION];
        token.extend(expires_at.to_be_bytes());
        token.extend(cursor.score.to_bits().to_be_bytes());
        token.extend(cursor.model.0);
        let returned = u32::try_from(cursor.earlier.returned()).unwrap_or(u32::MAX);
        token.extend(returned.to_be_bytes());
        match &cursor.earlier {
            EarlierPages::Unchanged { ranking, .. } => token.extend(ranking.0),
            EarlierPages::Marked(marks) => {
                token.extend([0; DIGEST_BYTES]);
                token.extend(marks.iter().flat_map(|mark| mark.0));
            }
        }
        token.extend(cursor.chunk_id.as_bytes());
        let mac = hmac::sign(&self.key, &authenticated(&token, binding));
        token.extend(mac.as_ref());
        base16ct::lower::encode_string(&token)
    }

    /// Reads the cursor of a token. `now` is the time since 1970.
    ///
    /// # Errors
    /// When the token is refused; always the same violation, see the invariant of this module.
    pub(super) fn open(&self, token: &str, binding: &Binding, now: Duration) -> Result<PageCursor, FieldViolation> {
        self.read(token, binding, now).ok_or_else(refused)
    }

    fn read(&self, token: &str, binding: &Binding, now: Duration) -> Option<PageCursor> {
        if token.len() > 2 * (HEAD_BYTES + RETURNED_MAX * MARK_BYTES + ID_BYTES_MAX + MAC_BYTES) {
            return None;
        }
        // Upper-case digits are refused, so that a token has only one spelling.
        let token = base16ct::lower::decode_vec(token).ok()?;
        let (content, mac) = token.split_at_checked(token.len().checked_sub(MAC_BYTES)?)?;
        hmac::verify(&self.key, &authenticated(content, binding), mac).ok()?;
        let (version, rest) = content.split_first()?;
        let (expires_at, rest) = rest.split_first_chunk::<8>()?;
        let (score, rest) = rest.split_first_chunk::<4>()?;
        let (model, rest) = rest.split_first_chunk::<MAC_BYTES>()?;
        let (returned, rest) = rest.split_first_chunk::<4>()?;
        let (ranking, rest) = rest.split_first_chunk::<DIGEST_BYTES>()?;
        let returned = u32::from_be_bytes(*returned);
        let (earlier, chunk_id) = if *ranking == [0; DIGEST_BYTES] {
            let bytes = usize::try_from(returned).ok()?.checked_mul(MARK_BYTES)?;
            let (marks, chunk_id) = rest.split_at_checked(bytes)?;
            (EarlierPages::Marked(marks.as_chunks().0.iter().copied().map(ChunkMark).collect()), chunk_id)
        } else {
            (EarlierPages::Unchanged { returned, ranking: RankingDigest(*ranking) }, rest)
        };
        let is_current = now.as_millis() < u128::from(u64::from_be_bytes(*expires_at));
        let cursor = PageCursor {
            score: f32::from_bits(u32::from_be_bytes(*score)),
            chunk_id: String::from_utf8(chunk_id.to_vec()).ok()?,
            model: ModelMark(*model),
            earlier,
        };
        (*version == VERSION && is_current && cursor.score.is_finite()).then_some(cursor)
    }

    /// Makes the mark of a chunk.
    pub(super) fn mark(&self, chunk_id: &str) -> ChunkMark {
        let mac = hmac::sign(&self.key, &[MARKED, chunk_id.as_bytes()].concat());
        ChunkMark(mac.as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// Makes the mark of the model that decided pages of one search. Pages that several models decided get a mark that no
    /// model has, so nothing goes on after them.
    pub(super) fn mark_model(&self, models: &ModelsUsed, binding: &Binding) -> ModelMark {
        if models.has_changed {
            return ModelMark::OF_NO_MODEL;
        }
        let mac = hmac::sign(&self.key, &[MODEL, &binding.0, models.first.as_bytes()].concat());
        ModelMark(mac.as_ref().first_chunk().copied().unwrap_or(ModelMark::OF_NO_MODEL.0))
    }
}

impl ModelMark {
    /// The mark of pages that several models decided. No model has it: a MAC is all zeros with a probability of 2^-256.
    const OF_NO_MODEL: Self = Self([0; MAC_BYTES]);

    /// Returns whether one model decided the pages before, and the same one decided this page.
    pub(super) fn goes_on_with(self, of_this_page: Self) -> bool {
        self == of_this_page && self != Self::OF_NO_MODEL
    }
}

impl EarlierPages {
    /// Counts the chunks of these pages.
    pub(super) fn returned(&self) -> usize {
        match self {
            Self::Marked(marks) => marks.len(),
            Self::Unchanged { returned, .. } => usize::try_from(*returned).unwrap_or(usize::MAX),
        }
    }
}

impl PageCursor {
    /// Returns whether a candidate ranks after the pages before.
    pub(super) fn is_before(&self, candidate: &Candidate) -> bool {
        match candidate.score.partial_cmp(&self.score) {
            Some(Ordering::Less) => true,
            Some(Ordering::Equal) => candidate.chunk_id > self.chunk_id,
            Some(Ordering::Greater) | None => false,
        }
    }
}

impl RankingDigest {
    /// Digests the ids and the scores of chunks, in the order of the chunks.
    pub(super) fn of<'c>(chunks: impl Iterator<Item = (&'c str, f32)>) -> Self {
        let mut digest = Context::new(&SHA256);
        for (chunk_id, score) in chunks {
            digest.update(&score.to_bits().to_be_bytes());
            digest.update(&length(chunk_id));
            digest.update(chunk_id.as_bytes());
        }
        Self(binding::digest_bytes(&digest.finish()))
    }
}

/// Returns the one violation that every refused token gives.
pub(super) fn refused() -> FieldViolation {
    FieldViolation::new("page_token", REFUSED)
}

fn length(text: &str) -> [u8; 8] {
    u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes()
}

/// Returns the bytes that the MAC of a token covers. The binding has a fixed length and comes last, so no content can
/// reach into it.
fn authenticated(content: &[u8], binding: &Binding) -> Vec<u8> {
    [content, &binding.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn pages() -> Pages {
        Pages::with_key(&[7; KEY_BYTES_MIN], HOUR).expect("a key")
    }

    fn cursor() -> PageCursor {
        let ranking = RankingDigest::of([("handbook/1#1", 0.5), ("handbook/1#2", 0.25)].into_iter());
        let earlier = EarlierPages::Unchanged { returned: 10, ranking };
        let model = pages().mark_model(&used("model"), &Binding([1; 32]));
        PageCursor { score: 0.25, chunk_id: "handbook/1#2".to_owned(), model, earlier }
    }

    fn used(model_id: &str) -> ModelsUsed {
        ModelsUsed { first: model_id.into(), has_changed: false }
    }

    #[test]
    fn pages_go_on_with_one_model_of_one_search() {
        let (binding, other_binding) = (Binding([1; 32]), Binding([2; 32]));
        let foreign = Pages::with_key(&[8; KEY_BYTES_MIN], HOUR).expect("a key");
        let changed = ModelsUsed { has_changed: true, ..used("m1") };
        let m1 = pages().mark_model(&used("m1"), &binding);
        let none = pages().mark_model(&changed, &binding);
        let rows = [
            ("the same model", m1, pages().mark_model(&used("m1"), &binding), true),
            ("another model", m1, pages().mark_model(&used("m2"), &binding), false),
            ("a model without an id", m1, pages().mark_model(&used(""), &binding), false),
            ("another search", m1, pages().mark_model(&used("m1"), &other_binding), false),
            ("another key", m1, foreign.mark_model(&used("m1"), &binding), false),
            ("the model changed on this page", m1, none, false),
            ("the model changed on the page before", none, m1, false),
            ("the model changed on both pages", none, none, false),
        ];
        for (row, before, now, expected) in rows {
            assert_eq!(before.goes_on_with(now), expected, "{row}");
        }
    }

    #[test]
    fn every_part_of_a_ranking_is_in_its_digest() {
        let digest = |chunks: &[(&str, f32)]| RankingDigest::of(chunks.iter().copied());
        let apart: [&[(&str, f32)]; 7] = [
            &[],
            &[("a", 0.5)],
            &[("b", 0.5)],
            &[("a", 0.5_f32.next_up())],
            &[("a", 0.5), ("b", 0.5)],
            &[("b", 0.5), ("a", 0.5)],
            &[("a", 0.5), ("b", 0.5), ("c", 0.5)],
        ];
        for (row, one) in apart.iter().enumerate() {
            for (other_row, other) in apart.iter().enumerate() {
                assert_eq!(digest(one) == digest(other), row == other_row, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_token_opens_for_the_search_that_it_was_sealed_for() {
        let (binding, other) = (Binding([1; 32]), Binding([2; 32]));
        let token = pages().seal(&cursor(), &binding, HOUR);
        assert_eq!(pages().open(&token, &binding, HOUR), Ok(cursor()));
        for returned in [1, 2, RETURNED_MAX] {
            let marks = (0..returned).map(|number| pages().mark(&number.to_string())).collect();
            let by_cosine = PageCursor { earlier: EarlierPages::Marked(marks), ..cursor() };
            assert_eq!(by_cosine.earlier.returned(), returned, "{returned}");
            assert_eq!(
                pages().open(&pages().seal(&by_cosine, &binding, HOUR), &binding, HOUR),
                Ok(by_cosine),
                "{returned}"
            );
        }
        let refused = Err(FieldViolation::new("page_token", REFUSED));
        assert_eq!(pages().open(&token, &other, HOUR), refused, "another search");
        assert_eq!(pages().open(&token, &binding, 2 * HOUR), refused, "expired");
        let foreign = Pages::with_key(&[8; KEY_BYTES_MIN], HOUR).expect("a key");
        assert_eq!(foreign.open(&token, &binding, HOUR), refused, "another key");
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

    #[tokio::test(start_paused = true)]
    async fn the_key_follows_its_file_from_one_request_to_the_next() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("key");
        std::fs::write(&path, "a".repeat(KEY_BYTES_MIN)).expect("written");
        let file = SecretFile::new(&path);
        let key = file.read().expect("a secret");
        let pages = Pages::with_key(key.expose().as_bytes(), HOUR).expect("a key").following(&file).expect("a secret");
        let (binding, now) = (Binding([1; 32]), Duration::from_secs(1));
        let of_request = pages.now();
        let token = of_request.seal(&cursor(), &binding, now);
        let rows = [
            ("the same secret", "a".repeat(KEY_BYTES_MIN), true),
            ("a secret that is too short", "b".to_owned(), true),
            ("another secret", "b".repeat(KEY_BYTES_MIN), false),
            ("the first secret again", format!("{}\n", "a".repeat(KEY_BYTES_MIN)), true),
        ];
        for (row, secret, expected) in rows {
            std::fs::write(&path, secret).expect("written");
            // Longer than a secret is used without a look at its file.
            tokio::time::advance(Duration::from_mins(1)).await;
            assert_eq!(pages.now().open(&token, &binding, now).is_ok(), expected, "{row}");
            assert!(of_request.open(&token, &binding, now).is_ok(), "{row}: within the request");
        }
    }
}
