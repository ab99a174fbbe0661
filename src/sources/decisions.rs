//! The answers of sources that may count again for a short time.
//!
//! INVARIANT (complete key): an answer counts only for the same token, source, address, guard and version of the document. Each
//! write gives a document another version. So an answer is never older than the chunks that it releases.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Recall, SourceDocument, SourceQuestion};
use crate::chunk::Version;

/// The most answers that are remembered. When there are more, those that do not count any more are forgotten, or else all.
const REMEMBERED_MAX: usize = 65_536;

/// Remembers answers.
#[derive(Debug, Default)]
pub(super) struct RememberedDecisions {
    decisions: Mutex<HashMap<DecisionKey, Remembered>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct DecisionKey {
    /// The digest of the token of the call.
    bearer: [u8; 32],
    document: SourceDocument,
    version: Option<Version>,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    released: bool,
    asked_at: Instant,
    until: Instant,
}

impl RememberedDecisions {
    /// Returns whether the document of a question was released, if that is remembered and may count.
    pub(super) fn get(&self, question: &SourceQuestion<'_>) -> Option<bool> {
        let since = match question.recall {
            Recall::All => None,
            Recall::Since(moment) => Some(moment),
            Recall::None => return None,
        };
        let remembered = self.lock().get(&DecisionKey::of(question)).copied()?;
        let counts = Instant::now() < remembered.until && since.is_none_or(|moment| remembered.asked_at >= moment);
        counts.then_some(remembered.released)
    }

    /// Remembers the answer to a question that was asked at `asked_at`.
    pub(super) fn insert(&self, question: &SourceQuestion<'_>, released: bool, asked_at: Instant, lasts: Duration) {
        if lasts.is_zero() {
            return;
        }
        let mut decisions = self.lock();
        if decisions.len() >= REMEMBERED_MAX {
            let now = Instant::now();
            decisions.retain(|_, remembered| now < remembered.until);
        }
        if decisions.len() >= REMEMBERED_MAX {
            decisions.clear();
        }
        let key = DecisionKey::of(question);
        // A slow answer must not replace the answer to a later question.
        let is_older = decisions.get(&key).is_some_and(|known| known.asked_at > asked_at);
        if !is_older {
            decisions.insert(key, Remembered { released, asked_at, until: asked_at + lasts });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DecisionKey, Remembered>> {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DecisionKey {
    fn of(question: &SourceQuestion<'_>) -> Self {
        let SourceQuestion { document, version, bearer, recall: _, since_1970: _ } = *question;
        Self { bearer: bearer.digest(), document: document.clone(), version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::BearerToken;
    use crate::identity::sample::{self, NOW};
    use crate::language::Object;

    const LASTS: Duration = Duration::from_secs(10);

    fn document(id: &str) -> SourceDocument {
        let guard = Object::parse(&format!("document:{id}")).unwrap();
        SourceDocument { source: 0, guard, value: id.to_owned(), url: format!("https://wiki.example/{id}").into() }
    }

    fn bearer(text: &str) -> BearerToken {
        BearerToken::new(text, sample::token("anne", "ragward:retrieve", NOW + 60).facts())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_for_its_question_alone_and_not_for_long() {
        let (documents, bearers) = ([document("1"), document("2")], [bearer("a"), bearer("b")]);
        let elsewhere = SourceDocument { url: "https://wiki.example/other".into(), ..document("1") };
        let of_other_source = SourceDocument { source: 1, ..document("1") };
        let other_guard = SourceDocument { guard: Object::parse("document:3").unwrap(), ..document("1") };
        let asked_at = Instant::now();
        let asked = SourceQuestion {
            document: &documents[0],
            version: Some(Version(1)),
            bearer: &bearers[0],
            recall: Recall::All,
            since_1970: Duration::from_secs(NOW),
        };
        let later = asked_at + Duration::from_millis(1);
        let rows = [
            ("the same", asked, Some(true)),
            ("another document", SourceQuestion { document: &documents[1], ..asked }, None),
            ("another address", SourceQuestion { document: &elsewhere, ..asked }, None),
            ("another source", SourceQuestion { document: &of_other_source, ..asked }, None),
            ("another guard", SourceQuestion { document: &other_guard, ..asked }, None),
            ("another version", SourceQuestion { version: Some(Version(2)), ..asked }, None),
            ("no version", SourceQuestion { version: None, ..asked }, None),
            ("another token", SourceQuestion { bearer: &bearers[1], ..asked }, None),
            ("as fresh as the answer", SourceQuestion { recall: Recall::Since(asked_at), ..asked }, Some(true)),
            ("fresher than the answer", SourceQuestion { recall: Recall::Since(later), ..asked }, None),
            ("nothing remembered", SourceQuestion { recall: Recall::None, ..asked }, None),
        ];
        let remembered = RememberedDecisions::default();
        remembered.insert(&asked, true, asked_at, LASTS);
        for (row, question, expected) in &rows {
            assert_eq!(remembered.get(question), *expected, "{row}");
        }
        remembered.insert(&asked, false, asked_at, LASTS);
        assert_eq!(remembered.get(&asked), Some(false), "the last answer counts");
        remembered.insert(&asked, false, later, LASTS);
        remembered.insert(&asked, true, asked_at, LASTS);
        assert_eq!(remembered.get(&asked), Some(false), "the answer to an earlier question came later");
        tokio::time::advance(LASTS + Duration::from_millis(1)).await;
        assert_eq!(remembered.get(&asked), None, "its time is over");
        remembered.insert(&asked, true, Instant::now(), Duration::ZERO);
        assert_eq!(remembered.get(&asked), None, "nothing is remembered for no time");
    }
}
