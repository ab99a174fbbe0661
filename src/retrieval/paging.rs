//! The pages of one request: what its token says, which candidates were on an earlier page, and the token of the next page.

use std::collections::BTreeSet;
use std::time::Duration;

use super::answer::Retrieved;
use super::error::RetrievalError;
use super::page::{self, Binding, EarlierPages, PageCursor, Pages, RankingDigest};
use super::request::RetrievalRequest;
use crate::authz::ModelsUsed;
use crate::authz::enforce::Permitted;
use crate::chunk::Candidate;

/// Knows which page one request asks for.
pub(super) struct Paging {
    /// With one key for the whole request, so that all marks of a token are made with the same one.
    pages: Pages,
    /// The search that tokens are bound to; `None` where the caller asked for no pages, or gets none.
    binding: Option<Binding>,
    /// The end of the page before; `None` for the first page.
    before: Option<PageCursor>,
    /// Whether scores depend on everything that the principal may see, so that the pages before must stay as they were.
    ranks_whole: bool,
    /// The time since 1970.
    now: Duration,
}

/// Candidates by the page that they belong to.
pub(super) struct ByPage {
    /// Candidates that must still be on the pages before.
    pub(super) earlier: Vec<Candidate>,
    /// Candidates that come after the pages before.
    pub(super) later: Vec<Candidate>,
}

/// The continuation after a full page.
pub(super) enum NextPage {
    /// The caller asked for no pages, or gets none.
    None,
    /// There may be a next page, and this is its token.
    Token(String),
    /// The pages have as many chunks as a token can mark.
    PastLimit,
}

impl Paging {
    /// Reads the page token of a request. `binding` is `None` if the caller asked for no pages, or gets none.
    ///
    /// # Errors
    /// When the token is refused. A caller that gets no pages cannot have a token of one.
    pub(super) fn open(
        pages: &Pages,
        request: &RetrievalRequest,
        binding: Option<Binding>,
        now: Duration,
    ) -> Result<Self, RetrievalError> {
        let pages = pages.now();
        let before = match (request.page.as_deref(), &binding) {
            (None | Some(""), _) => Ok(None),
            (Some(_), None) => Err(page::refused()),
            (Some(token), Some(binding)) => pages.open(token, binding, now).map(Some),
        };
        let before = before.map_err(|violation| RetrievalError::Invalid(vec![violation]))?;
        Ok(Self { pages, binding, before, ranks_whole: request.needs_visible_set(), now })
    }

    /// Returns how many chunks all pages before have.
    pub(super) fn returned(&self) -> usize {
        self.before.as_ref().map_or(0, |before| before.earlier.returned())
    }

    /// Separates candidates by page. Drops those that a page before returned for good.
    pub(super) fn split(&self, mut candidates: Vec<Candidate>) -> ByPage {
        let Some(before) = &self.before else { return ByPage { earlier: Vec::new(), later: candidates } };
        if let EarlierPages::Marked(marks) = &before.earlier {
            candidates.retain(|found| before.is_before(found) && !marks.contains(&self.pages.mark(&found.chunk_id)));
        }
        let (later, earlier) = candidates.into_iter().partition(|candidate| before.is_before(candidate));
        ByPage { earlier, later }
    }

    /// Compares the chunks that are now on the earlier pages with the chunks that were returned there.
    ///
    /// # Errors
    /// When they differ: the token is refused.
    pub(super) fn check_unchanged(&self, earlier: &[Permitted<Candidate>]) -> Result<(), RetrievalError> {
        let now = || RankingDigest::of(earlier.iter().map(by_id_and_score));
        match self.before.as_ref().map(|before| &before.earlier) {
            Some(EarlierPages::Unchanged { ranking, .. }) if *ranking != now() => {
                Err(RetrievalError::Invalid(vec![page::refused()]))
            }
            Some(EarlierPages::Unchanged { .. } | EarlierPages::Marked(_)) | None => Ok(()),
        }
    }

    /// Compares the model that decided this page with the one that decided the pages before. `models` is `None` if
    /// nothing was decided. Such a page is empty, so any model may have decided the pages before.
    ///
    /// # Errors
    /// When the models differ, or several models decided: the token is refused.
    pub(super) fn check_model(&self, models: Option<&ModelsUsed>) -> Result<(), RetrievalError> {
        let (Some(before), Some(binding), Some(models)) = (&self.before, &self.binding, models) else { return Ok(()) };
        if before.model.goes_on_with(self.pages.mark_model(models, binding)) {
            return Ok(());
        }
        Err(RetrievalError::Invalid(vec![page::refused()]))
    }

    /// Makes the token that follows a full page of `chunks`, which `models` decided. `earlier` holds the chunks that
    /// are now on the pages before it.
    pub(super) fn next(
        &self,
        models: Option<&ModelsUsed>,
        earlier: &[Permitted<Candidate>],
        chunks: &[Retrieved],
    ) -> NextPage {
        let (Some(binding), Some(models), Some(last)) = (&self.binding, models, chunks.last()) else {
            return NextPage::None;
        };
        let returned = self.returned().saturating_add(chunks.len());
        if returned > page::RETURNED_MAX {
            return NextPage::PastLimit;
        }
        let on_page = chunks.iter().map(|retrieved| (retrieved.chunk.item().id.as_str(), retrieved.score));
        let earlier = if self.ranks_whole {
            let ranking = RankingDigest::of(earlier.iter().map(by_id_and_score).chain(on_page));
            EarlierPages::Unchanged { returned: u32::try_from(returned).unwrap_or(u32::MAX), ranking }
        } else {
            let mut marks = match self.before.as_ref().map(|before| &before.earlier) {
                Some(EarlierPages::Marked(marks)) => marks.clone(),
                Some(EarlierPages::Unchanged { .. }) | None => BTreeSet::new(),
            };
            marks.extend(on_page.map(|(chunk_id, _)| self.pages.mark(chunk_id)));
            EarlierPages::Marked(marks)
        };
        let model = self.pages.mark_model(models, binding);
        let cursor = PageCursor { score: last.score, chunk_id: last.chunk.item().id.clone(), model, earlier };
        NextPage::Token(self.pages.seal(&cursor, binding, self.now))
    }
}

fn by_id_and_score(candidate: &Permitted<Candidate>) -> (&str, f32) {
    (candidate.item().chunk_id.as_str(), candidate.item().score)
}
