//! How one request is searched. Pure: no I/O, no clock.
//!
//! Every plan ends in enforcement, so a wrong estimate costs time and never shows anything. The first k permitted of a
//! correct top n are the permitted top k, so searching wider keeps an answer exact.

#[cfg(test)]
mod tests;

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
    /// The share of candidates that are permitted, as learned or as this request has found so far; above 0, at most 1.
    pub pass_rate: Option<f64>,
    /// Chunks of the collection, where a search of everything goes through an index and one within a scope scans.
    pub indexed_chunks: Option<u64>,
    /// Whether a search within a scope costs what is in the scope (the embedded engine); elsewhere every guard of it makes
    /// the filter longer.
    pub scope_is_cheap: bool,
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
    /// How many were found that were not on an earlier page.
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
/// Where one guard more in a filter costs as much as so many candidates more in an unfiltered search. A guard is a hash
/// look-up for each point that is compared; a candidate comes with its payload and a check.
const GUARDS_PER_CANDIDATE: usize = 16;
/// And so many chunks more in a scan. An index does not help there: a walk of Qdrant's graph under a list that holds a tenth of
/// the chunks finds a tenth of the best.
const CHUNKS_PER_CANDIDATE: usize = 32;

/// Chooses a plan. Asked again after a round with the pass rate that it found, it may choose another one.
///
/// # Errors
/// When the visible set is needed and cannot be had.
pub fn choose(situation: &Situation) -> Result<Plan, NoPlan> {
    let Situation { top_k, needs_visible_set, guards, visible, candidates_max, .. } = *situation;
    let widening = |first| Widening { first, candidates_max };
    let share = estimate(situation);
    let unfiltered = share.map_or_else(|| first_guess(top_k), |share| candidates_for(top_k, share));
    if let Some(visible) = visible {
        let in_scope = float_of(situation.indexed_chunks.unwrap_or_default()) * share.unwrap_or_default();
        let is_short = visible <= unfiltered.saturating_mul(GUARDS_PER_CANDIDATE);
        let is_small = in_scope <= float(unfiltered.saturating_mul(CHUNKS_PER_CANDIDATE));
        let filter_pays = (is_short && is_small) || unfiltered > candidates_max;
        if needs_visible_set || situation.scope_is_cheap || filter_pays {
            // Every candidate is visible, so the first round is enough unless a chunk changes hands meanwhile.
            return Ok(Plan::VisibleSetSearch(widening(top_k)));
        }
        return Ok(Plan::SearchThenCheck(widening(unfiltered)));
    }
    let affordable = guards.filter(|guards| *guards <= situation.guards_checked_max);
    if needs_visible_set {
        return match (affordable, guards) {
            (Some(_), _) => Ok(Plan::ListThenSearch(widening(top_k))),
            (None, Some(guards)) => Err(NoPlan::TooManyGuards(guards)),
            (None, None) => Err(NoPlan::GuardsUnknown),
        };
    }
    // Checking every guard once is no more work than checking as many candidates.
    let list_pays = |guards: usize| situation.checks_are_local || guards <= unfiltered || unfiltered > candidates_max;
    if affordable.is_some_and(list_pays) {
        return Ok(Plan::ListThenSearch(widening(top_k)));
    }
    Ok(Plan::SearchThenCheck(widening(unfiltered)))
}

/// The plan and the number of candidates of the round after one that found too little; `None` where a limit was reached.
/// A search of everything gives way to one within the visible set where what was found, now in the situation, makes that pay.
#[must_use]
pub fn refill(plan: Plan, situation: &Situation, found: Found) -> Option<(Plan, usize)> {
    if !plan.is_scoped()
        && let Ok(better) = choose(situation)
        && better.is_scoped()
    {
        return Some((better, better.widening().first()));
    }
    plan.widening().next(situation.top_k, found).map(|limit| (plan, limit))
}

/// The share of chunks that are permitted, as far as the situation tells: what was found weighs more than the share of
/// guards, because guards have unequal numbers of chunks.
#[must_use]
pub fn estimate(situation: &Situation) -> Option<f64> {
    let of_guards = match (situation.visible, situation.guards) {
        (Some(visible), Some(guards)) if guards > 0 => Some(float(visible) / float(guards)),
        _ => None,
    };
    situation.pass_rate.or(of_guards)
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

    /// The candidates of the round after one that found too little; `None` when that one reached the limit.
    #[must_use]
    pub fn next(&self, top_k: usize, found: Found) -> Option<usize> {
        if found.limit >= self.candidates_max {
            return None;
        }
        let least = found.limit.saturating_mul(WIDENING_MIN);
        let most = found.limit.saturating_mul(WIDENING_MAX);
        let wanted = found.pass_rate().map_or(most, |rate| candidates_for(top_k, rate));
        Some(wanted.clamp(least, most).min(self.candidates_max))
    }
}

impl Found {
    /// The share of candidates that were permitted; `None` where none was.
    #[must_use]
    pub fn pass_rate(&self) -> Option<f64> {
        (self.permitted > 0 && self.candidates > 0).then(|| float(self.permitted) / float(self.candidates))
    }
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
