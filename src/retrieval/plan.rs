//! How one request is searched. Pure: no I/O, no clock.

/// What a plan is chosen from.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Chunks that are wanted.
    pub top_k: usize,
    /// Whether scores depend on corpus statistics (BM25), so that the visible set must be known before the search.
    pub needs_visible_set: bool,
    /// Distinct guards of the collection, if the store can list them.
    pub guards: Option<usize>,
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
    /// Every guard is checked first; the search looks at the visible ones only.
    VisibleSetSearch(Widening),
    /// Everything is searched; what was found is checked; more is searched while too little of it is permitted.
    SearchThenCheck(Widening),
}

/// The number of candidates of each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widening {
    first: usize,
    candidates_max: usize,
}

/// Why no plan serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlan {
    /// The visible set is needed, and the store cannot list its guards.
    GuardsUnknown,
    /// The visible set is needed, and there are more guards than may be checked.
    TooManyGuards(usize),
}

/// How much wider each round is than the one before it.
const WIDENING_FACTOR: usize = 4;

/// Chooses a plan.
///
/// # Errors
/// When the visible set is needed and cannot be had.
pub fn choose(situation: &Situation) -> Result<Plan, NoPlan> {
    let Situation { top_k, needs_visible_set, guards, checks_are_local, guards_checked_max, candidates_max } =
        *situation;
    let affordable = guards.is_some_and(|guards| guards <= guards_checked_max);
    if affordable && (needs_visible_set || checks_are_local) {
        // Every candidate is visible, so the first round is enough unless a chunk changes hands meanwhile.
        return Ok(Plan::VisibleSetSearch(Widening { first: top_k, candidates_max }));
    }
    if needs_visible_set {
        return Err(guards.map_or(NoPlan::GuardsUnknown, NoPlan::TooManyGuards));
    }
    // A few more than wanted, so that a few denials do not cost another round.
    let spare = top_k.isqrt().saturating_mul(2);
    Ok(Plan::SearchThenCheck(Widening { first: top_k.saturating_add(spare), candidates_max }))
}

impl Plan {
    /// Its name in logs and records.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::VisibleSetSearch(_) => "visible_set_search",
            Self::SearchThenCheck(_) => "search_then_check",
        }
    }
}

impl Widening {
    /// The candidates of a round, counted from 0; `None` when the round before reached the limit.
    #[must_use]
    pub fn candidates(&self, round: u32) -> Option<usize> {
        let wanted = |round: u32| self.first.saturating_mul(WIDENING_FACTOR.saturating_pow(round));
        match round.checked_sub(1) {
            Some(before) if wanted(before) >= self.candidates_max => None,
            _ => Some(wanted(round).min(self.candidates_max)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REMOTE_VECTOR: Situation = Situation {
        top_k: 10,
        needs_visible_set: false,
        guards: Some(617),
        checks_are_local: false,
        guards_checked_max: 1_000,
        candidates_max: 300,
    };

    #[test]
    fn a_plan_follows_the_situation() {
        let text = Situation { needs_visible_set: true, ..REMOTE_VECTOR };
        let local = Situation { checks_are_local: true, ..REMOTE_VECTOR };
        let visible_set = |plan| matches!(plan, Ok(Plan::VisibleSetSearch(_)));
        assert!(matches!(choose(&REMOTE_VECTOR), Ok(Plan::SearchThenCheck(_))));
        assert!(visible_set(choose(&text)));
        assert!(visible_set(choose(&local)));
        assert!(matches!(choose(&Situation { guards: Some(1_001), ..local }), Ok(Plan::SearchThenCheck(_))));
        assert_eq!(choose(&Situation { guards: Some(1_001), ..text }), Err(NoPlan::TooManyGuards(1_001)));
        assert_eq!(choose(&Situation { guards: None, ..text }), Err(NoPlan::GuardsUnknown));
    }

    #[test]
    fn rounds_widen_up_to_the_limit_and_end() {
        let rounds = |first| {
            let widening = Widening { first, candidates_max: 300 };
            (0..).map_while(|round| widening.candidates(round)).collect::<Vec<usize>>()
        };
        assert_eq!(rounds(16), [16, 64, 256, 300]);
        assert_eq!(rounds(300), [300]);
        assert_eq!(rounds(1_000), [300]);
        assert_eq!(rounds(75), [75, 300]);
    }
}
