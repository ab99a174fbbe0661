//! Checks the candidates of one search, best first, and no further than the answer needs.
//!
//! Where a server decides, checks cost more than all else. So candidates are checked in stretches. A stretch is long
//! enough that it likely fills the answer, and its checks are sent as one batch. A candidate that a known visible set
//! hides is skipped without a check. If the set is right, the first stretch is the only one and asks about k chunks.
//! Each denial costs one check more.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::guard_index::HiddenGuards;
use super::plan::Tally;
use crate::authz::AuthzError;
use crate::authz::enforce::{Enforcer, Permitted};
use crate::chunk::Candidate;
use crate::language::Object;

/// The weight of the expectation, in checked candidates. With this weight, a wrong estimate makes the next stretch
/// twice as long, so there are few stretches.
const EXPECTATION_WEIGHT: f64 = 10.0;
/// A stretch after the first one goes this many standard deviations of the binomial distribution beyond what is expected to
/// be enough. Each stretch is a round trip; with this margin, 19 of 20 retrievals end with the second one.
const DEVIATIONS_LATER: f64 = 2.0;
/// Like [`DEVIATIONS_LATER`], for a known visible set. There a denial is the exception, and most likely the only one.
const DEVIATIONS_LATER_IF_KNOWN: f64 = 1.0;

/// Goes through the candidates of one search, best first.
pub(super) struct Walk {
    /// Candidates that were not looked at, best first.
    ahead: VecDeque<Candidate>,
    /// Candidates that are permitted and were not taken, best first.
    ready: VecDeque<Permitted<Candidate>>,
    foreknown: Foreknown,
    /// The candidates that were unknown before their check, and those of them that are permitted.
    asked: Tally,
    looked_at: Tally,
}

/// The facts about candidates that are known before any check.
#[derive(Clone, Debug)]
pub(super) struct Foreknown {
    /// The guards that a known visible set hides, where the search did not leave their chunks out.
    pub(super) hidden: Option<Arc<HiddenGuards>>,
    /// How many of the other candidates are expected to be permitted.
    pub(super) expected: Expected,
}

/// How many of the candidates that are not known to be hidden are expected to be permitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Expected {
    /// Nearly all of them, because the visible set is known.
    NearlyAll,
    /// This share of them, above 0 and at most 1.
    Share(f64),
}

impl Walk {
    /// Returns a walk over candidates, best first.
    pub(super) fn new(candidates: Vec<Candidate>, foreknown: Foreknown) -> Self {
        let (asked, looked_at) = (Tally::default(), Tally::default());
        Self { ahead: candidates.into(), ready: VecDeque::new(), foreknown, asked, looked_at }
    }

    /// Counts the candidates that were looked at, and those of them that are permitted.
    pub(super) fn looked_at(&self) -> Tally {
        self.looked_at
    }

    /// Counts the candidates that may turn out to be permitted, before any further check.
    pub(super) fn permitted_at_most(&self, enforcer: &Enforcer<'_>) -> usize {
        let may_be = |candidate: &&Candidate| match enforcer.known(&candidate.guard) {
            Some(permitted) => permitted,
            None => !self.hides(&candidate.guard),
        };
        self.ahead.iter().filter(may_be).count().saturating_add(self.ready.len())
    }

    /// Returns whether it is known which guards are hidden, though the search did not leave them out.
    pub(super) fn knows_hidden(&self) -> bool {
        self.foreknown.hidden.is_some()
    }

    fn hides(&self, guard: &Object) -> bool {
        self.foreknown.hidden.as_ref().is_some_and(|hidden| hidden.contains(guard))
    }

    /// Checks candidates until `wanted` of them are ready, or to the end. Returns how many are ready.
    ///
    /// # Errors
    /// When a decision could not be made.
    pub(super) async fn fill(&mut self, wanted: usize, enforcer: &mut Enforcer<'_>) -> Result<usize, AuthzError> {
        while self.ready.len() < wanted && !self.ahead.is_empty() {
            self.check_next(wanted - self.ready.len(), usize::MAX, enforcer).await?;
        }
        Ok(self.ready.len())
    }

    /// Takes the next permitted candidates, best first, at most `wanted` of them. Returns none only if there are no
    /// more.
    ///
    /// Each batch of checks has at most `guards_max` guards that were not checked before, or as many as likely give
    /// `guards_max` permitted ones.
    ///
    /// # Errors
    /// When a decision could not be made.
    pub(super) async fn take(
        &mut self,
        wanted: usize,
        guards_max: usize,
        enforcer: &mut Enforcer<'_>,
    ) -> Result<Vec<Permitted<Candidate>>, AuthzError> {
        // If `guards_max` is less than `wanted`, the caller may need fewer candidates than `wanted`. So the loop ends
        // with the first ready candidate, and the caller sees whether it needs more.
        let least = if guards_max < wanted { 1 } else { wanted };
        while self.ready.len() < least && !self.ahead.is_empty() {
            self.check_next(wanted - self.ready.len(), guards_max, enforcer).await?;
        }
        Ok(self.ready.drain(..self.ready.len().min(wanted)).collect())
    }

    /// Checks the next stretch, which likely gives `missing` permitted candidates.
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

    /// Takes the next candidates until `missing` of them are likely permitted. Takes at least one, and leaves out those
    /// that are known to be denied or hidden.
    fn stretch(&mut self, missing: usize, guards_max: usize, enforcer: &Enforcer<'_>) -> Stretch {
        let share = self.share();
        // The first stretch has the length that is expected to be enough, rounded to the nearest number: a longer one
        // would more likely check in vain. The next stretches go further, so that there are few of them.
        let deviations = match (self.asked.candidates, self.foreknown.expected) {
            (0, _) => 0.0,
            (_, Expected::NearlyAll) => DEVIATIONS_LATER_IF_KNOWN,
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

    /// Returns the expected share of permitted candidates among the next ones: the first expectation, corrected by what
    /// was found so far. It is above 0 and at most 1.
    fn share(&self) -> f64 {
        let Tally { candidates, permitted } = self.asked;
        let expected = match self.foreknown.expected {
            Expected::NearlyAll => 1.0,
            Expected::Share(share) => share,
        };
        let share = (count(permitted) + expected * EXPECTATION_WEIGHT) / (count(candidates) + EXPECTATION_WEIGHT);
        share.clamp(f64::MIN_POSITIVE, 1.0)
    }
}

/// Candidates that are checked as one batch.
#[derive(Debug, Default)]
struct Stretch {
    candidates: Vec<Candidate>,
    /// How many candidates are known to be permitted.
    known: usize,
    /// How many candidates have to be asked about.
    asked: usize,
    /// The guards of the candidates that have to be asked about.
    guards: HashSet<Object>,
}

fn count(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
