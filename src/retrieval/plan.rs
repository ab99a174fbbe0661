//! How one request is searched. Pure: no I/O, no clock.
//!
//! Every plan ends in enforcement, so a wrong estimate costs time and never shows anything. The first k permitted of a
//! correct top n are the permitted top k, so searching wider keeps an answer exact.

#[cfg(test)]
mod tests;

use crate::vector_store::SearchCosts;

/// What a plan is chosen from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Situation {
    /// Chunks that are wanted, those of earlier pages among them.
    pub top_k: usize,
    /// Whether scores depend on corpus statistics (BM25), so that the visible set must be known before the search.
    pub needs_visible_set: bool,
    /// Distinct guards of the collection, if the store can list them.
    pub guards: Option<usize>,
    /// How many of them are visible, if the authorizer told them all at once.
    pub visible: Option<usize>,
    /// The share of chunks that are under visible guards, where these are known and the store tells; above 0, at most 1.
    pub visible_share: Option<f64>,
    /// The share of candidates that are permitted: as this request has found, or where the visible guards are not known as
    /// earlier ones have; above 0, at most 1.
    pub pass_rate: Option<f64>,
    /// Chunks of the collection.
    pub chunks: u64,
    /// What the store says that a search among some guards costs.
    pub search_costs: SearchCosts,
    /// Whether a check costs no network call.
    pub checks_are_local: bool,
    /// Most guards that may be checked ahead.
    pub guards_checked_max: usize,
    /// Most candidates of one search.
    pub candidates_max: usize,
}

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The visible guards are known; the search looks at those only.
    VisibleSetSearch(Widening),
    /// Every guard is checked first; then as if they had been known.
    ListThenSearch(Widening),
    /// Everything is searched; what was found is checked; more is searched while too little of it is permitted.
    SearchThenCheck(Widening),
}

/// The number of candidates of each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widening {
    first: usize,
    candidates_max: usize,
}

/// What one round of search and enforcement found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// How many candidates were asked for.
    pub limit: usize,
    /// How many candidates were looked at.
    pub candidates: usize,
    /// How many of these are permitted.
    pub permitted: usize,
}

/// Why no plan serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlan {
    /// The visible set is needed, and the store cannot list its guards.
    GuardsUnknown,
    /// The visible set is needed, and there are more guards than may be checked.
    TooManyGuards(usize),
}

/// A round asks for at least twice as many candidates as the one before it, so that there are few.
const WIDENING_MIN: usize = 2;
/// And for at most so many times as many, whatever the estimate: it may rest on one chunk.
const WIDENING_MAX: usize = 16;

/// Chooses the plan of the first round.
///
/// # Errors
/// When the visible set is needed and cannot be had.
pub fn choose(situation: &Situation) -> Result<Plan, NoPlan> {
    let Situation { top_k, needs_visible_set, guards, visible, candidates_max, .. } = *situation;
    if needs_visible_set && visible.is_none() {
        return match guards {
            Some(guards) if guards <= situation.guards_checked_max => Ok(Plan::ListThenSearch(situation.scoped())),
            Some(guards) => Err(NoPlan::TooManyGuards(guards)),
            None => Err(NoPlan::GuardsUnknown),
        };
    }
    let first = estimate(situation).map_or_else(|| first_guess(top_k), |share| candidates_for(top_k, share));
    let unscoped = Plan::SearchThenCheck(Widening { first, candidates_max });
    Ok(scoped_instead_of(situation, first).unwrap_or(unscoped))
}

/// The plan and the number of candidates of the round after one that found too little; `None` where a limit was reached.
/// A search of everything gives way to one within the visible set where that costs less than the next, wider one.
#[must_use]
pub fn refill(plan: Plan, situation: &Situation, found: Found) -> Option<(Plan, usize)> {
    let widening = plan.widening();
    if !plan.is_scoped()
        && let Some(better) = scoped_instead_of(situation, found.wider(situation.top_k))
    {
        return Some((better, better.widening().first()));
    }
    widening.next(situation.top_k, found).map(|limit| (plan, limit))
}

/// A search within the visible set, where it costs less than one of everything for so many candidates.
fn scoped_instead_of(situation: &Situation, candidates: usize) -> Option<Plan> {
    let is_too_wide = candidates > situation.candidates_max;
    if let Some(visible) = situation.visible {
        // Finite, so that a chunk that costs nothing makes no cost of infinitely many.
        let chunks = (float_of(situation.chunks) * visible_share(situation).unwrap_or(1.0)).min(f64::MAX);
        let SearchCosts { per_guard, per_chunk } = situation.search_costs;
        let pays = is_too_wide || float(visible) * per_guard + chunks * per_chunk <= float(candidates);
        return (situation.needs_visible_set || pays).then(|| Plan::VisibleSetSearch(situation.scoped()));
    }
    let guards = situation.guards.filter(|guards| *guards <= situation.guards_checked_max)?;
    // Checking every guard once is no more work than checking as many candidates.
    let pays = situation.checks_are_local || is_too_wide || guards <= situation.likely_checked(candidates);
    pays.then(|| Plan::ListThenSearch(situation.scoped()))
}

/// The share of candidates that are likely permitted, as far as the situation tells: what this request found, then what is
/// visible.
#[must_use]
pub fn estimate(situation: &Situation) -> Option<f64> {
    situation.pass_rate.or_else(|| visible_share(situation))
}

/// The share of chunks under visible guards. Where the store does not count these, guards have equal numbers of chunks.
fn visible_share(situation: &Situation) -> Option<f64> {
    let of_guards = match (situation.visible, situation.guards) {
        (Some(visible), Some(guards)) if guards > 0 => Some(float(visible) / float(guards)),
        _ => None,
    };
    situation.visible_share.or(of_guards)
}

impl Situation {
    /// Every candidate is visible, so the first round is enough unless a chunk changes hands meanwhile.
    const fn scoped(&self) -> Widening {
        Widening { first: self.top_k, candidates_max: self.candidates_max }
    }

    /// Of so many candidates that a search asks for, those that are likely checked. The first of them are enough, unless the
    /// estimate is wrong.
    fn likely_checked(&self, candidates: usize) -> usize {
        let enough = self.pass_rate.map_or(self.top_k, |rate| rounded_up(float(self.top_k) / rate));
        candidates.min(enough.max(self.top_k))
    }
}

/// Of so many candidates k are permitted, most of the time: at this share k are expected of k / share, give or take two
/// standard deviations of the binomial distribution.
fn candidates_for(top_k: usize, share: f64) -> usize {
    let share = share.clamp(f64::MIN_POSITIVE, 1.0);
    let deviation = (float(top_k) * (1.0 - share)).sqrt();
    rounded_up((float(top_k) + 2.0 * deviation) / share)
}

/// Where nothing is known of the share, most may be permitted.
fn first_guess(top_k: usize) -> usize {
    top_k.saturating_add(top_k.isqrt().saturating_mul(2))
}

impl Plan {
    /// Its name in reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::VisibleSetSearch(_) => "visible_set_search",
            Self::ListThenSearch(_) => "list_then_search",
            Self::SearchThenCheck(_) => "search_then_check",
        }
    }

    /// Whether it searches within the visible set.
    #[must_use]
    pub const fn is_scoped(&self) -> bool {
        match self {
            Self::VisibleSetSearch(_) | Self::ListThenSearch(_) => true,
            Self::SearchThenCheck(_) => false,
        }
    }

    /// Its rounds.
    #[must_use]
    pub const fn widening(&self) -> Widening {
        match self {
            Self::VisibleSetSearch(widening) | Self::ListThenSearch(widening) | Self::SearchThenCheck(widening) => {
                *widening
            }
        }
    }
}

impl Widening {
    /// The candidates of the first round.
    #[must_use]
    pub fn first(&self) -> usize {
        self.first.clamp(1, self.candidates_max.max(1))
    }

    /// How many of the candidates of a round are enough for it: a wider one brings the others where they are needed. The
    /// widest round has none after it.
    #[must_use]
    pub fn enough(&self, top_k: usize, limit: usize) -> usize {
        if limit < self.candidates_max { top_k.min(limit) } else { limit }
    }

    /// The candidates of the round after one that found too little; `None` when that one reached the limit.
    #[must_use]
    pub fn next(&self, top_k: usize, found: Found) -> Option<usize> {
        let most = found.limit.saturating_mul(WIDENING_MAX);
        let limit = found.wider(top_k).min(most).min(self.candidates_max);
        (found.limit < self.candidates_max).then_some(limit)
    }
}

impl Found {
    /// The share of candidates that were permitted; `None` where none was.
    #[must_use]
    pub fn pass_rate(&self) -> Option<f64> {
        (self.permitted > 0 && self.candidates > 0).then(|| float(self.permitted) / float(self.candidates))
    }

    /// How many candidates a wider search has to ask for, going by what was found.
    fn wider(&self, top_k: usize) -> usize {
        let least = self.limit.saturating_mul(WIDENING_MIN);
        let most = self.limit.saturating_mul(WIDENING_MAX);
        self.pass_rate().map_or(most, |rate| candidates_for(top_k, rate)).max(least)
    }
}

/// One count as a share of another, above 0; `None` where there is nothing.
#[must_use]
pub fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (float_of(part.max(1)) / float_of(whole)).min(1.0))
}

fn float(count: usize) -> f64 {
    u64::try_from(count).map_or(f64::INFINITY, float_of)
}

/// Counts of chunks fit; what does not is as good as infinite.
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
