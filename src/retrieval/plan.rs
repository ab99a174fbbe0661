//! Decides how a request is searched, step by step. This module is pure: it does no I/O and reads no clock.
//!
//! [`choose`] plans the first search. After each step [`next_step`] looks at how far the round has come and says what
//! happens next, so every decision of a retrieval is here.
//!
//! Every plan ends in enforcement, so a wrong estimate costs time and never releases anything. Suppose that a search
//! returns the n best candidates: the first k of them that are permitted are then the k best permitted chunks of all.
//! So a wider search never changes what a narrower one has found, and an answer that is filled up this way stays exact.

#[cfg(test)]
mod tests;

use crate::vector_store::{Rest, SearchCosts};

/// The facts from which a plan is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Situation {
    /// How many chunks this answer may have.
    pub(super) page_size: usize,
    /// How many chunks this answer and all pages before it may have. A search for a page finds the earlier pages again.
    pub(super) top_k: usize,
    /// Whether scores depend on corpus statistics (BM25) or on ranks, so that the visible set must be known before the search.
    pub(super) needs_visible_set: bool,
    /// How many distinct guards the collection has, if the store can list them.
    pub(super) guards: Option<usize>,
    /// How many of these guards are visible, if the authorizer told them all at once.
    pub(super) visible: Option<usize>,
    /// The share of chunks that are under visible guards, above 0 and at most 1. `None` where the visible guards are not
    /// known, or the store does not count chunks by guard.
    pub(super) visible_share: Option<f64>,
    /// The share of candidates that earlier searches found permitted, above 0 and at most 1. `None` where nothing was
    /// learned, and where the visible guards are known, which give a better estimate.
    pub(super) pass_rate: Option<f64>,
    /// How many chunks the collection has.
    pub(super) chunks: u64,
    /// The cost of a search among some guards, according to the store.
    pub(super) search_costs: SearchCosts,
    /// Whether a check costs no network call.
    pub(super) checks_are_local: bool,
    /// The most guards that may be checked ahead of a search.
    pub(super) guards_checked_max: usize,
    /// The most candidates of one search.
    pub(super) candidates_max: usize,
}

/// A way to search: what is known before it, and what it looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plan {
    /// The authorizer tells the visible guards all at once, and the search looks only at chunks under them.
    VisibleSetSearch,
    /// Every guard of the collection is checked first, and the search looks only at chunks under those that are visible.
    ListThenSearch,
    /// Everything is searched, and what is found is checked. A wider search follows while too little of it is permitted.
    SearchThenCheck,
}

/// A search to carry out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PlannedSearch {
    pub(super) plan: Plan,
    /// The most candidates that the search may return.
    pub(super) limit: usize,
    /// The expected share of permitted candidates, learned from the searches before this one.
    pub(super) pass_rate: Option<f64>,
}

/// A round of one search, and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Round {
    pub(super) search: PlannedSearch,
    /// How many candidates the search found. Those that an earlier page returned for good are left out.
    pub(super) candidates: usize,
    /// The outlook of a wider search.
    pub(super) rest: Rest,
    /// Whether the store counted chunks by document, and so left out chunks of documents that already have enough.
    pub(super) is_counted_by_document: bool,
    /// How many times the retrieval has repeated a search because a chunk was replaced before it was read.
    pub(super) repeats: usize,
    /// Whether nothing can be permitted, whatever a search finds: the actor may not act for the subject.
    pub(super) permits_nothing: bool,
    pub(super) progress: Progress,
}

/// How far the candidates of a round were processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// No candidate was checked yet.
    Searched {
        /// The most that enforcement can permit: every candidate that is not known to be hidden counts as permitted. `None`
        /// where it is not known what is hidden.
        at_most: Option<Tally>,
    },
    /// Candidates were checked, best first, as far as the answer needs.
    Enforced {
        tally: Tally,
        /// How many permitted candidates can be read for this answer.
        ready: usize,
    },
    /// The texts of permitted candidates were read.
    Read {
        /// A chunk that its source withholds does not count as permitted.
        tally: Tally,
        /// How many chunks the answer has.
        chunks: usize,
        /// How many candidates were passed over because their chunks are gone or were replaced since the search.
        changed: usize,
    },
    /// Sources were asked as often as one request may ask, and the answer is not full.
    Spent,
}

/// How many candidates were looked at, and how many of them are permitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) candidates: usize,
    pub(super) permitted: usize,
}

/// The next step of a retrieval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RetrievalStep {
    /// Begin a new round.
    Search(PlannedSearch),
    /// Begin the same round again: a chunk was replaced, and its new version may belong in the answer.
    SearchAgain,
    /// Check the candidates, best first, as far as the answer needs.
    Enforce,
    /// Read the texts of the best permitted candidates.
    Read,
    /// Answer with what was read.
    Answer(Completion),
}

/// The reason why an answer has no more chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The answer has as many chunks as the caller asked for.
    Complete,
    /// There are no more chunks that match and that the principal may see.
    Exhausted,
    /// A work limit was reached. There may be more chunks.
    ///
    /// This is the one exception to the rule that nothing depends on what is hidden. Where everything is searched and
    /// then checked, the limit is reached sooner if many hidden chunks match. The answer then says so, instead of
    /// claiming that there is nothing more.
    Limited,
}

/// The reason why a collection cannot be searched for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlan {
    /// The visible set is needed, and the store cannot list its guards.
    GuardsUnknown,
    /// The visible set is needed, and the collection has more guards than may be checked: this many.
    TooManyGuards(usize),
}

/// How many times a search is repeated because a chunk was replaced before it was read. After that the answer leaves such
/// chunks out and is not called exact: documents that are written all the time must not keep a request going.
const REPEATS_MAX: usize = 2;
/// A wider search asks for at least this many times as many candidates as the one before it, so that there are few rounds.
const WIDENING_MIN: usize = 2;
/// A wider search asks for at most this many times as many candidates, because the estimate may rest on a single chunk.
const WIDENING_MAX: usize = 16;

/// Plans the first search.
///
/// A text query needs the visible set first. BM25 weighs a term by how many chunks hold it. If it counted all chunks,
/// hidden documents would move the scores of visible ones. The embedded evaluator finds the set with one evaluation. A
/// server may be unable to tell the set. Then every guard is checked ahead, up to a limit.
///
/// A vector query needs no statistics. Where it is not known what the principal may see, everything is searched and the
/// candidates are checked.
///
/// # Errors
/// When the visible set is needed and cannot be had.
pub(super) fn choose(situation: &Situation) -> Result<PlannedSearch, NoPlan> {
    if situation.needs_visible_set && situation.visible.is_none() {
        return match situation.guards {
            Some(guards) if guards <= situation.guards_checked_max => {
                Ok(situation.within_visible_set(Plan::ListThenSearch))
            }
            Some(guards) => Err(NoPlan::TooManyGuards(guards)),
            None => Err(NoPlan::GuardsUnknown),
        };
    }
    let top_k = situation.top_k;
    let candidates = estimate(situation).map_or_else(|| first_guess(top_k), |share| candidates_for(top_k, share));
    let everything = situation.search(Plan::SearchThenCheck, candidates);
    Ok(visible_set_instead_of(situation, candidates).unwrap_or(everything))
}

/// Decides what follows a step.
///
/// A retrieval ends: each wider search asks for at least [`WIDENING_MIN`] times as many candidates up to
/// [`Situation::candidates_max`], the plan changes once at most, and a search is repeated at most [`REPEATS_MAX`] times.
pub(super) fn next_step(situation: &Situation, round: &Round) -> RetrievalStep {
    let may_find_more = round.rest == Rest::Further;
    match round.progress {
        // Too few candidates can be permitted, so a wider search comes before any check.
        Progress::Searched { at_most: Some(at_most) }
            if may_find_more
                && at_most.permitted < situation.page_size
                && let Some(wider) = widen(situation, round.search, at_most) =>
        {
            RetrievalStep::Search(wider)
        }
        Progress::Searched { .. } => RetrievalStep::Enforce,
        Progress::Spent => RetrievalStep::Answer(Completion::Limited),
        Progress::Enforced { .. } | Progress::Read { .. } if round.permits_nothing => {
            RetrievalStep::Answer(Completion::Exhausted)
        }
        Progress::Enforced { tally, ready }
            if may_find_more
                && ready < situation.page_size
                && let Some(wider) = widen(situation, round.search, tally) =>
        {
            RetrievalStep::Search(wider)
        }
        Progress::Enforced { .. } => RetrievalStep::Read,
        Progress::Read { changed, .. } if changed > 0 && round.repeats < REPEATS_MAX => RetrievalStep::SearchAgain,
        Progress::Read { chunks, .. } if chunks >= situation.page_size => RetrievalStep::Answer(Completion::Complete),
        Progress::Read { tally, chunks, .. } if may_find_more || has_hidden_siblings(round, chunks) => {
            widen(situation, round.search, tally)
                .map_or(RetrievalStep::Answer(Completion::Limited), RetrievalStep::Search)
        }
        // A chunk that was left out may have been replaced with one that belongs in the answer.
        Progress::Read { changed, .. } if changed > 0 => RetrievalStep::Answer(Completion::Limited),
        Progress::Read { .. } => RetrievalStep::Answer(match round.rest {
            Rest::Nothing => Completion::Exhausted,
            Rest::Unknown | Rest::Further => Completion::Limited,
        }),
    }
}

/// Returns whether the store may have left out chunks that belong in the answer. The store counted every candidate for
/// its document, even one that later fell out, so it may have left out another chunk of that document.
fn has_hidden_siblings(round: &Round, chunks: usize) -> bool {
    round.is_counted_by_document && chunks < round.candidates
}

/// Plans the search after one that found too little; `None` where the limit was reached.
///
/// A search within the visible set follows a search of everything where it costs less than the wider search.
fn widen(situation: &Situation, search: PlannedSearch, tally: Tally) -> Option<PlannedSearch> {
    let situation = &Situation { pass_rate: tally.pass_rate().or(situation.pass_rate), ..*situation };
    let candidates = candidates_after(search.limit, tally, situation.top_k);
    if !search.plan.is_within_visible_set()
        && let Some(narrower) = visible_set_instead_of(situation, candidates)
    {
        return Some(narrower);
    }
    let limit = candidates.min(search.limit.saturating_mul(WIDENING_MAX));
    (search.limit < situation.candidates_max).then(|| situation.search(search.plan, limit))
}

/// Plans a search within the visible set, where it costs less than searching everything for this many candidates.
fn visible_set_instead_of(situation: &Situation, candidates: usize) -> Option<PlannedSearch> {
    let is_too_wide = candidates > situation.candidates_max;
    if let Some(visible) = situation.visible {
        // The number must be finite, because infinity times a cost of zero is not a number.
        let chunks = (float_of(situation.chunks) * visible_share(situation).unwrap_or(1.0)).min(f64::MAX);
        let SearchCosts { per_guard, per_chunk } = situation.search_costs;
        let pays = is_too_wide || float(visible) * per_guard + chunks * per_chunk <= float(candidates);
        return (situation.needs_visible_set || pays).then(|| situation.within_visible_set(Plan::VisibleSetSearch));
    }
    let guards = situation.guards.filter(|guards| *guards <= situation.guards_checked_max)?;
    // Checking every guard once is no more work than checking as many candidates.
    let pays = situation.checks_are_local || is_too_wide || guards <= situation.likely_checked(candidates);
    pays.then(|| situation.within_visible_set(Plan::ListThenSearch))
}

/// Returns the share of candidates that are likely permitted. Earlier searches tell it, or else the visible set does;
/// `None` where nothing is known.
pub(super) fn estimate(situation: &Situation) -> Option<f64> {
    situation.pass_rate.or_else(|| visible_share(situation))
}

/// Returns the share of chunks under visible guards. Where the store does not count these, every guard is assumed to
/// have equally many chunks.
fn visible_share(situation: &Situation) -> Option<f64> {
    let of_guards = match (situation.visible, situation.guards) {
        (Some(visible), Some(guards)) if guards > 0 => Some(float(visible) / float(guards)),
        _ => None,
    };
    situation.visible_share.or(of_guards)
}

impl Situation {
    /// Returns how many candidates are enough for a search of this limit. A store may return only that many and leave
    /// the others to a wider search. The widest search has none after it, so it must return all.
    pub(super) fn enough(&self, limit: usize) -> usize {
        if limit < self.candidates_max { self.top_k.min(limit) } else { limit }
    }

    /// Returns a search within the visible set. Every candidate is visible, so the first search is enough unless
    /// relationships change meanwhile.
    fn within_visible_set(&self, plan: Plan) -> PlannedSearch {
        self.search(plan, self.top_k)
    }

    /// Returns a search for this many candidates, within the limits.
    fn search(&self, plan: Plan, candidates: usize) -> PlannedSearch {
        PlannedSearch { plan, limit: candidates.clamp(1, self.candidates_max.max(1)), pass_rate: self.pass_rate }
    }

    /// Returns how many of the candidates of a search are likely checked: only the first ones, unless the estimate is
    /// wrong.
    fn likely_checked(&self, candidates: usize) -> usize {
        let enough = self.pass_rate.map_or(self.top_k, |rate| rounded_up(float(self.top_k) / rate));
        candidates.min(enough.max(self.top_k))
    }
}

/// Returns how many candidates the search after one that found too little must ask for.
fn candidates_after(limit: usize, tally: Tally, top_k: usize) -> usize {
    let least = limit.saturating_mul(WIDENING_MIN);
    let most = limit.saturating_mul(WIDENING_MAX);
    tally.pass_rate().map_or(most, |rate| candidates_for(top_k, rate)).max(least)
}

/// Returns how many candidates most likely hold k permitted ones. At this share, k are expected among `k / share`. Two
/// standard deviations of the binomial distribution are added.
fn candidates_for(top_k: usize, share: f64) -> usize {
    let share = share.clamp(f64::MIN_POSITIVE, 1.0);
    let deviation = (float(top_k) * (1.0 - share)).sqrt();
    rounded_up((float(top_k) + 2.0 * deviation) / share)
}

/// Returns how many candidates to ask for where nothing is known of the share. It assumes that most are permitted.
fn first_guess(top_k: usize) -> usize {
    top_k.saturating_add(top_k.isqrt().saturating_mul(2))
}

impl Plan {
    /// Returns the name of the plan in audit records, such as `search_then_check`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VisibleSetSearch => "visible_set_search",
            Self::ListThenSearch => "list_then_search",
            Self::SearchThenCheck => "search_then_check",
        }
    }

    /// Returns whether the search looks only at the visible set.
    pub(super) const fn is_within_visible_set(self) -> bool {
        match self {
            Self::VisibleSetSearch | Self::ListThenSearch => true,
            Self::SearchThenCheck => false,
        }
    }
}

impl Tally {
    /// Returns the share of candidates that are permitted; `None` where none is.
    pub(super) fn pass_rate(self) -> Option<f64> {
        (self.permitted > 0 && self.candidates > 0).then(|| float(self.permitted) / float(self.candidates))
    }

    /// Returns the difference to an earlier tally.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            candidates: self.candidates.saturating_sub(before.candidates),
            permitted: self.permitted.saturating_sub(before.permitted),
        }
    }
}

/// Returns one count as a share of another, above 0 and at most 1; `None` where the whole is nothing.
pub(super) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (float_of(part.max(1)) / float_of(whole)).min(1.0))
}

fn float(count: usize) -> f64 {
    u64::try_from(count).map_or(f64::INFINITY, float_of)
}

/// Counts of chunks fit into 32 bits. A count that does not is as good as infinite.
fn float_of(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float saturates, which is what is meant"
)]
fn rounded_up(count: f64) -> usize {
    count.ceil() as usize
}
