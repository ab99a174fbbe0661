//! Chooses which decisions are verified. This is pure, except for the random choice.
//!
//! Half of the choice goes to the kind of question whose last verification is longest ago, so that a flood of one kind hides
//! no other. The other half goes to recent questions. In both halves each user has at most one place, so that a flood of one
//! user hides no other. Nobody outside can predict the choice, because the process draws its keys at the start.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tokio::time::Instant;

use super::stratum::Stratum;
use crate::authz::decider::Question;

/// The most kinds that are known at a time: far more than a model has. When there are that many, the verified kinds are
/// forgotten and begin anew.
const STRATA_MAX: usize = 16_384;
/// The most waiting questions of one kind, each of another user.
const WAITING_PER_STRATUM_MAX: usize = 4;
/// The most waiting questions of any kind, each of another user.
const RECENT_MAX: usize = 128;
/// The most bytes that requests add to the waiting questions. Beyond that, only questions that add little are taken.
const CONTEXTUAL_BYTES_MAX: usize = 32 << 20;
/// A request that adds at most this many bytes adds little.
const CONTEXTUAL_BYTES_LITTLE: usize = 1 << 10;
/// The most questions that count as rivals for one place. While one question of a user waits, the user's later ones
/// compete for its place. Up to this many, each is equally likely to end up in it. Beyond that, later ones are
/// likelier.
const RIVALS_MAX: usize = 64;

/// A question of a request, and the copy's answer to it.
#[derive(Clone, Debug)]
pub(super) struct SampledQuestion {
    pub(super) stratum: Stratum,
    pub(super) question: Question,
    /// The answer of the copy; `None` if the server decided, because the copy is not trusted with this question.
    pub(super) answered: Option<CopyAnswer>,
    /// A moment before the decision.
    pub(super) at: Instant,
    /// The trace of the call that asked.
    pub(super) trace_id: Option<Arc<str>>,
}

impl SampledQuestion {
    /// Returns whether both are the same question of the same request.
    pub(super) fn is_same_question(&self, other: &Self) -> bool {
        let (own, other) = (&self.question, &other.question);
        own.check == other.check && Arc::ptr_eq(&own.contextual, &other.contextual)
    }
}

/// One answer of the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CopyAnswer {
    pub(super) allowed: bool,
    /// The number of the copy that answered.
    pub(super) copy: u64,
    pub(super) model_id: Arc<str>,
}

/// The questions from which verification chooses.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    strata: HashMap<Stratum, StratumQueue>,
    recent: Vec<Pending>,
    dice: Dice,
    /// The number of times that any kind was chosen.
    turn: u64,
    contextual_bytes: usize,
    /// The number of decisions since the last choice.
    decided: u32,
    /// The number of verifications that are due and not made yet. A fraction is carried over to the next choice.
    due: f64,
}

#[derive(Debug, Default)]
struct StratumQueue {
    waiting: Vec<Pending>,
    /// The turn at which this kind was chosen last; 0 if it never was.
    chosen: u64,
    /// The question that was chosen last, unless its request adds many bytes.
    last: Option<SampledQuestion>,
}

#[derive(Debug)]
struct Pending {
    asked: SampledQuestion,
    /// The number of questions of this user that have competed for this place, including this one.
    rivals: usize,
}

impl Pending {
    fn first(asked: SampledQuestion) -> Self {
        Self { asked, rivals: 1 }
    }
}

/// Random numbers that nobody outside can predict.
#[derive(Debug, Default)]
pub(super) struct Dice {
    keys: RandomState,
    drawn: u64,
}

impl Dice {
    /// Draws a number below `bound`, or 0 if `bound` is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.drawn = self.drawn.wrapping_add(1);
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from(self.keys.hash_one(self.drawn).checked_rem(bound).unwrap_or_default()).unwrap_or_default()
    }
}

impl Sampler {
    /// Notes that this many decisions were made.
    pub(super) fn count(&mut self, decided: usize) {
        self.decided = self.decided.saturating_add(u32::try_from(decided).unwrap_or(u32::MAX));
    }

    /// Draws up to `most` distinct numbers below `count`, in rising order.
    pub(super) fn some_of(&mut self, count: usize, most: usize) -> Vec<usize> {
        if count <= most {
            return (0..count).collect();
        }
        // One number is drawn from each part, so they are distinct, and every number may be drawn.
        let part = count.div_ceil(most);
        let parts = (0..count).step_by(part);
        parts.map(|first| first + self.dice.below(part.min(count - first))).collect()
    }

    /// Takes in a question that may be chosen.
    pub(super) fn offer(&mut self, asked: SampledQuestion) {
        let bytes = asked.question.contextual.wire_bytes();
        if bytes > CONTEXTUAL_BYTES_LITTLE && self.contextual_bytes.saturating_add(bytes) > CONTEXTUAL_BYTES_MAX {
            return;
        }
        if self.strata.len() >= STRATA_MAX && !self.strata.contains_key(&asked.stratum) {
            self.strata.retain(|_, kind| kind.chosen == 0);
            self.count_bytes();
        }
        let (mut came, mut left) = (bytes, 0);
        if self.strata.len() < STRATA_MAX || self.strata.contains_key(&asked.stratum) {
            came += bytes;
            let kind = self.strata.entry(asked.stratum.clone()).or_default();
            left += put(&mut kind.waiting, WAITING_PER_STRATUM_MAX, asked.clone(), &mut self.dice);
        }
        left += put(&mut self.recent, RECENT_MAX, asked, &mut self.dice);
        self.contextual_bytes = self.contextual_bytes.saturating_add(came).saturating_sub(left);
    }

    /// Chooses at most `most` questions to verify now: `share` of the decisions since the last call, and one of each
    /// kind that was never verified. Questions beyond `most` are dropped, not made up for later.
    pub(super) fn choose(&mut self, most: u32, share: f64) -> Vec<SampledQuestion> {
        self.due = (self.due + f64::from(std::mem::take(&mut self.decided)) * share).min(f64::from(most));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let Self { strata, recent, dice, turn, .. } = self;
        let mut kinds: Vec<&mut StratumQueue> = strata.values_mut().filter(|kind| !kind.waiting.is_empty()).collect();
        kinds.sort_unstable_by_key(|kind| kind.chosen);
        let unverified = kinds.iter().filter(|kind| kind.chosen == 0).count();
        // Each kind gives one question, beginning with the kind that was chosen longest ago. While questions are left,
        // another round follows.
        let mut next_kind = 0;
        let mut of_kind = |dice: &mut Dice| {
            if kinds.get(next_kind).is_none() {
                kinds.retain(|kind| !kind.waiting.is_empty());
                next_kind = 0;
            }
            let kind = kinds.get_mut(next_kind).filter(|kind| !kind.waiting.is_empty())?;
            next_kind += 1;
            *turn += 1;
            kind.chosen = *turn;
            let place = dice.below(kind.waiting.len());
            let asked = kind.waiting.swap_remove(place).asked;
            let is_little = asked.question.contextual.wire_bytes() <= CONTEXTUAL_BYTES_LITTLE;
            kind.last = is_little.then(|| asked.clone());
            Some(asked)
        };
        let mut any = |dice: &mut Dice| {
            let place = dice.below(recent.len());
            (place < recent.len()).then(|| recent.swap_remove(place).asked)
        };
        let (mut chosen, mut unpaid) = (Vec::new(), unverified);
        while chosen.len() < most {
            if self.due >= 1.0 {
                self.due -= 1.0;
            } else if unpaid > 0 {
                unpaid -= 1;
            } else {
                break;
            }
            // A kind that was never verified comes before recent questions.
            let kind_first = chosen.len() < unverified || chosen.len() % 2 == 0;
            let next =
                if kind_first { of_kind(dice).or_else(|| any(dice)) } else { any(dice).or_else(|| of_kind(dice)) };
            let Some(next) = next else { break };
            chosen.push(next);
        }
        self.count_bytes_less(&chosen);
        chosen
    }

    /// Returns up to `most` questions that were asked before: one of each wanted kind that has no waiting question.
    /// Without them, a kind that nobody asks about any more could keep a copy out for ever, because it alone has not
    /// agreed yet.
    pub(super) fn again(&self, most: usize, is_wanted: impl Fn(&Stratum) -> bool) -> Vec<SampledQuestion> {
        let none_waits = self.strata.iter().filter(|(stratum, kind)| kind.waiting.is_empty() && is_wanted(stratum));
        let last =
            none_waits.filter_map(|(_, kind)| kind.last.clone()).map(|last| SampledQuestion { answered: None, ..last });
        last.take(most).collect()
    }

    fn count_bytes_less(&mut self, chosen: &[SampledQuestion]) {
        let bytes: usize = chosen.iter().map(|asked| asked.question.contextual.wire_bytes()).sum();
        self.contextual_bytes = self.contextual_bytes.saturating_sub(bytes);
    }

    /// Returns the kinds that were asked.
    pub(super) fn strata(&self) -> impl Iterator<Item = &Stratum> {
        self.strata.keys()
    }

    fn count_bytes(&mut self) {
        let waiting = self.strata.values().flat_map(|kind| &kind.waiting).chain(&self.recent);
        self.contextual_bytes = waiting.map(|waits| waits.asked.question.contextual.wire_bytes()).sum();
    }
}

/// Puts a question among the waiting ones, of which each user has at most one. Returns the bytes of the question that
/// loses its place, which may be the new one.
///
/// All questions of a user are equally likely to stay, whatever their order. The guards that a visible set hides are
/// offered first, and then the checks of those that it shows. Those checks must not push the hidden guards out.
fn put(waiting: &mut Vec<Pending>, most: usize, asked: SampledQuestion, dice: &mut Dice) -> usize {
    let same_user = |waits: &Pending| waits.asked.question.check.user == asked.question.check.user;
    let (place, stays) = match waiting.iter().position(same_user) {
        Some(place) => {
            let rivals = waiting.get_mut(place).map_or(1, |waits| {
                waits.rivals = (waits.rivals + 1).min(RIVALS_MAX);
                waits.rivals
            });
            (place, dice.below(rivals) != 0)
        }
        None if waiting.len() < most => {
            waiting.push(Pending::first(asked));
            return 0;
        }
        // The question in this place and the new one are equally likely to stay, so that neither the first nor the last
        // is sure of its place.
        None => (dice.below(waiting.len()), dice.below(2) == 0),
    };
    match waiting.get_mut(place) {
        Some(there) if !stays => {
            let is_same_user = there.asked.question.check.user == asked.question.check.user;
            let rivals = if is_same_user { there.rivals } else { 1 };
            std::mem::replace(there, Pending { asked, rivals }).asked.question.contextual.wire_bytes()
        }
        Some(_) | None => asked.question.contextual.wire_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::decider::doubles::question;

    fn asked(user: &str, kind: usize) -> SampledQuestion {
        let question = question(user, 0);
        let mut stratum = Stratum::of(&question.check, &question.contextual, Vec::new());
        stratum.object_type = format!("type{kind}");
        SampledQuestion { stratum, question, answered: None, at: Instant::now(), trace_id: None }
    }

    #[tokio::test]
    async fn every_kind_is_chosen_under_a_flood_of_one() {
        let mut sampler = Sampler::default();
        let (kinds, faulty) = (10_000, 7_777);
        let mut turns_until_found = None;
        for turn in 0..2_000 {
            for _ in 0..100 {
                sampler.offer(asked("user:flood", 0));
            }
            for kind in (turn * 10..turn * 10 + 10).map(|kind| kind % kinds) {
                sampler.offer(asked(&format!("user:{turn}"), kind));
            }
            sampler.count(110);
            if sampler.choose(20, 0.01).iter().any(|asked| asked.stratum.object_type == format!("type{faulty}")) {
                turns_until_found = Some(turn);
                break;
            }
        }
        // This kind is asked for the first time in turn 777.
        assert!(turns_until_found.is_some_and(|turn| turn < 1_000), "{turns_until_found:?}");
    }

    #[tokio::test]
    async fn a_user_who_floods_hides_nobody() {
        let mut sampler = Sampler::default();
        sampler.offer(asked("user:quiet", 0));
        for _ in 0..100_000 {
            sampler.offer(asked("user:flood", 0));
        }
        sampler.count(100_000);
        let chosen = sampler.choose(20, 0.01);
        assert!(chosen.iter().any(|asked| asked.question.check.user.id() == "quiet"), "{chosen:?}");
    }

    /// Offers two questions about what a visible set hides, and then ten checks.
    #[tokio::test]
    async fn each_question_of_a_user_is_kept_as_likely() {
        let mut kept = [0_usize; 12];
        for _ in 0..12_000 {
            let mut sampler = Sampler::default();
            for number in 0..12 {
                sampler.offer(SampledQuestion { question: question("user:anne", number), ..asked("user:anne", 0) });
            }
            sampler.count(kept.len());
            let chosen = sampler.choose(1, 1.0);
            let number = (0..12).position(|number| question("user:anne", number).check == chosen[0].question.check);
            kept[number.expect("one of them")] += 1;
        }
        assert!(kept.iter().all(|times| (700..1_300).contains(times)), "{kept:?}");
    }

    #[tokio::test]
    async fn a_few_of_many_are_any_of_them() {
        let mut sampler = Sampler::default();
        let mut chosen = [0_usize; 21];
        for _ in 0..2_100 {
            let some = sampler.some_of(chosen.len(), 8);
            assert!(some.len() <= 8 && some.is_sorted_by(|a, b| a < b), "{some:?}");
            for number in some {
                chosen[number] += 1;
            }
        }
        assert!(chosen.iter().all(|times| (500..1_100).contains(times)), "{chosen:?}");
    }

    #[tokio::test]
    async fn no_more_is_chosen_than_is_due() {
        let mut sampler = Sampler::default();
        let mut chosen = 0;
        for turn in 0..10_000 {
            sampler.offer(asked(&format!("user:{}", turn % 7), 0));
            sampler.count(1);
            chosen += sampler.choose(20, 0.01).len();
        }
        assert!((95..=105).contains(&chosen), "{chosen} of 10,000");
        sampler.count(1_000_000);
        for user in 0..100 {
            sampler.offer(asked(&format!("user:{user}"), 0));
        }
        assert_eq!(sampler.choose(20, 1.0).len(), 20, "bounded");
        assert_eq!(sampler.choose(20, 1.0).len(), 0, "what was too much is not made up for");
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let mut sampler = Sampler::default();
        for kind in 0..STRATA_MAX * 2 {
            sampler.offer(asked("user:anne", kind));
            sampler.choose(1, 0.0);
        }
        assert!(sampler.strata.len() <= STRATA_MAX && sampler.recent.len() <= RECENT_MAX);
    }
}
