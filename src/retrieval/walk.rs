//! Checks the candidates of one search, best first, and no further than the answer needs.
//!
//! Where a server decides, its checks cost more than all else. So candidates are checked in stretches: each is as long as is
//! likely to give what is still missing, and its checks are sent together. What a known visible set hides is passed over
//! without a check. So where the set is right, the first stretch is the only one and asks about k chunks, and a denial costs
//! one check more.

use std::collections::{HashSet, VecDeque};

use super::guard_index::Hidden;
use crate::authz::AuthzError;
use crate::authz::enforce::{Enforcer, Permitted};
use crate::chunk::Candidate;
use crate::language::Object;

/// What is expected of candidates counts as much as so many that were checked. A wrong estimate makes the next stretch
/// twice as long, so there are few of them.
const EXPECTATION_WEIGHT: f64 = 10.0;
/// How many standard deviations of the binomial distribution a stretch after the first goes further than is expected to be
/// enough. With it 19 of 20 retrievals end with the second stretch; each stretch is a round trip.
const DEVIATIONS_LATER: f64 = 2.0;
/// The same where the visible set is known: a denial is the exception there, and most likely the only one.
const DEVIATIONS_LATER_IF_KNOWN: f64 = 1.0;

/// Goes through the candidates of one search, best first, and checks them as far as the answer needs.
pub(super) struct Walk<'h> {
    /// Not looked at, best first.
    ahead: VecDeque<Candidate>,
    /// Permitted and not taken, best first.
    ready: VecDeque<Permitted<Candidate>>,
    foreknown: Foreknown<'h>,
    asked: Tally,
    looked_at: Tally,
}

/// What is known of candidates before they are checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foreknown<'h> {
    /// Which of them a known visible set hides, where the search did not leave these out.
    pub(super) hidden: Option<&'h Hidden>,
    /// What is expected of the others.
    pub(super) expected: Expected,
}

/// What is expected of candidates that are not known to be hidden.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Expected {
    /// The visible set is known: nearly all are permitted.
    Known,
    /// Such a share of them is.
    Share(f64),
}

/// So many of so many.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    candidates: usize,
    permitted: usize,
}

impl<'h> Walk<'h> {
    /// A walk over candidates, best first.
    pub(super) fn new(candidates: Vec<Candidate>, foreknown: Foreknown<'h>) -> Self {
        let (asked, looked_at) = (Tally::default(), Tally::default());
        Self { ahead: candidates.into(), ready: VecDeque::new(), foreknown, asked, looked_at }
    }

    /// How many candidates it has looked at.
    pub(super) fn looked_at(&self) -> usize {
        self.looked_at.candidates
    }

    /// How many of these are permitted.
    pub(super) fn found(&self) -> usize {
        self.looked_at.permitted
    }

    /// How many are permitted at most, as far as is known without a check.
    pub(super) fn most(&self, enforcer: &Enforcer<'_>) -> usize {
        let may_be = |candidate: &&Candidate| match enforcer.known(&candidate.guard) {
            Some(permitted) => permitted,
            None => !self.hides(&candidate.guard),
        };
        self.ahead.iter().filter(may_be).count().saturating_add(self.ready.len())
    }

    fn hides(&self, guard: &Object) -> bool {
        self.foreknown.hidden.is_some_and(|hidden| hidden.hides(guard))
    }

    /// Goes on until so many are permitted and not taken, or to the end. Returns how many there are.
    ///
    /// # Errors
    /// When a decision could not be made.
    pub(super) async fn fill(&mut self, wanted: usize, enforcer: &mut Enforcer<'_>) -> Result<usize, AuthzError> {
        while self.ready.len() < wanted && !self.ahead.is_empty() {
            self.check_next(wanted - self.ready.len(), usize::MAX, enforcer).await?;
        }
        Ok(self.ready.len())
    }

    /// The next permitted candidates, best first; none only if there are no more. They are at most `wanted`, under at most
    /// `guards_max` guards that were not checked before, or as many as likely give so many that are permitted.
    ///
    /// # Errors
    /// When a decision could not be made.
    pub(super) async fn take(
        &mut self,
        wanted: usize,
        guards_max: usize,
        enforcer: &mut Enforcer<'_>,
    ) -> Result<Vec<Permitted<Candidate>>, AuthzError> {
        // Where fewer guards are enough for the answer, the caller sees first how far these take it.
        let least = if guards_max < wanted { 1 } else { wanted };
        while self.ready.len() < least && !self.ahead.is_empty() {
            self.check_next(wanted - self.ready.len(), guards_max, enforcer).await?;
        }
        Ok(self.ready.drain(..self.ready.len().min(wanted)).collect())
    }

    async fn check_next(
        &mut self,
        missing: usize,
        guards_max: usize,
        enforcer: &mut Enforcer<'_>,
    ) -> Result<(), AuthzError> {
        let Stretch { candidates, known, asked, .. } = self.stretch(missing, guards_max, enforcer);
        let permitted = enforcer.enforce(candidates).await?;
        self.asked.candidates += asked;
        self.asked.permitted += permitted.len().saturating_sub(known);
        self.looked_at.permitted += permitted.len();
        self.ready.extend(permitted);
        Ok(())
    }

    /// The next candidates that may be permitted, of which so many likely are. At least one is taken from those ahead.
    fn stretch(&mut self, missing: usize, guards_max: usize, enforcer: &Enforcer<'_>) -> Stretch {
        let share = self.share();
        // The first stretch is rounded to the nearest: one more would more likely be in vain than not. Where it was not enough,
        // the next ones go further, so that there are few of them.
        let deviations = match (self.asked.candidates, self.foreknown.expected) {
            (0, _) => 0.0,
            (_, Expected::Known) => DEVIATIONS_LATER_IF_KNOWN,
            (_, Expected::Share(_)) => DEVIATIONS_LATER,
        };
        let deviation = deviations * (count(missing) * (1.0 - share)).sqrt();
        let is_enough = |likely: f64, wanted: usize| likely + share / 2.0 >= count(wanted) + deviation;
        let mut stretch = Stretch::default();
        while !is_enough(count(stretch.known) + count(stretch.asked) * share, missing)
            && let Some(candidate) = self.ahead.pop_front()
        {
            match enforcer.known(&candidate.guard) {
                Some(true) => stretch.known += 1,
                Some(false) => {
                    self.looked_at.candidates += 1;
                    continue;
                }
                None if self.hides(&candidate.guard) => {
                    self.looked_at.candidates += 1;
                    continue;
                }
                None => {
                    let is_new = !stretch.guards.contains(&candidate.guard);
                    if is_new && is_enough(count(stretch.guards.len()) * share, guards_max) {
                        self.ahead.push_front(candidate);
                        break;
                    }
                    stretch.guards.insert(candidate.guard.clone());
                    stretch.asked += 1;
                }
            }
            self.looked_at.candidates += 1;
            stretch.candidates.push(candidate);
        }
        stretch
    }

    /// The share that is expected, corrected by what was found so far. Above 0.
    fn share(&self) -> f64 {
        let Tally { candidates, permitted } = self.asked;
        let expected = match self.foreknown.expected {
            Expected::Known => 1.0,
            Expected::Share(share) => share,
        };
        let share = (count(permitted) + expected * EXPECTATION_WEIGHT) / (count(candidates) + EXPECTATION_WEIGHT);
        share.clamp(f64::MIN_POSITIVE, 1.0)
    }
}

/// Candidates that are checked together.
#[derive(Debug, Default)]
struct Stretch {
    candidates: Vec<Candidate>,
    /// How many of them are known to be permitted.
    known: usize,
    /// How many of them nothing is known of, and their guards.
    asked: usize,
    guards: HashSet<Object>,
}

fn count(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
