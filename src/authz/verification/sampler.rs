//! Which decisions are verified. Pure, but for the random choice.
//!
//! Half of the choice goes to the kind of question that was verified least lately, so that a flood of one kind hides no
//! other; half to what was asked lately. Within both, each user has one place at most, so that a flood of one user hides
//! no other. Nobody can foretell the choice: it is made with keys that this process draws at its start.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tokio::time::Instant;

use super::stratum::Stratum;
use crate::authz::decider::Question;

/// Kinds that are known at a time: far more than a model has. Past it, those that were verified are forgotten, and begin anew.
const STRATA_MAX: usize = 16_384;
/// Questions of one kind that wait, each of another user.
const WAITING_PER_STRATUM_MAX: usize = 4;
/// Questions of any kind that wait, each of another user.
const RECENT_MAX: usize = 128;
/// What requests add to the questions that wait, in bytes. Past it only questions that add little are taken.
const CONTEXTUAL_BYTES_MAX: usize = 32 << 20;
/// What counts as little.
const CONTEXTUAL_BYTES_LITTLE: usize = 1 << 10;
/// Of so many questions of one user that come while one of them waits, each stays as likely. Of more, the later ones.
const RIVALS_MAX: usize = 64;

/// A question that was decided, and how.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) stratum: Stratum,
    pub(super) question: Question,
    /// What the copy answered; `None` where the server decided, since the copy is not trusted with it.
    pub(super) answered: Option<OfCopy>,
    /// Before it was decided.
    pub(super) at: Instant,
    /// The call that it belongs to.
    pub(super) trace_id: Option<Arc<str>>,
}

impl Asked {
    /// Whether both are one question, with what one request added.
    pub(super) fn is_same_question(&self, other: &Self) -> bool {
        let (own, other) = (&self.question, &other.question);
        own.check == other.check && Arc::ptr_eq(&own.contextual, &other.contextual)
    }
}

/// An answer of the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OfCopy {
    pub(super) allowed: bool,
    /// The number of the copy.
    pub(super) copy: u64,
    pub(super) model_id: Arc<str>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    strata: HashMap<Stratum, Kind>,
    recent: Vec<Waiting>,
    dice: Dice,
    /// Counts the kinds that were chosen.
    turn: u64,
    contextual_bytes: usize,
    /// Decisions since the last choice.
    decided: u32,
    /// Verifications that are to be made, and were not.
    due: f64,
}

#[derive(Debug, Default)]
struct Kind {
    waiting: Vec<Waiting>,
    /// The turn of its last choice; 0: it was never chosen.
    chosen: u64,
    /// The last choice, unless it is large.
    last: Option<Asked>,
}

#[derive(Debug)]
struct Waiting {
    asked: Asked,
    /// How many questions of this user came to this place, itself counted.
    rivals: usize,
}

impl Waiting {
    fn first(asked: Asked) -> Self {
        Self { asked, rivals: 1 }
    }
}

/// Random numbers that nobody outside can foretell.
#[derive(Debug, Default)]
pub(super) struct Dice {
    keys: RandomState,
    drawn: u64,
}

impl Dice {
    /// A number below `bound`; 0 where that is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.drawn = self.drawn.wrapping_add(1);
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from(self.keys.hash_one(self.drawn).checked_rem(bound).unwrap_or_default()).unwrap_or_default()
    }
}

impl Sampler {
    /// So many decisions were made.
    pub(super) fn count(&mut self, decided: usize) {
        self.decided = self.decided.saturating_add(u32::try_from(decided).unwrap_or(u32::MAX));
    }

    /// Up to `most` distinct numbers below `count`.
    pub(super) fn some_of(&mut self, count: usize, most: usize) -> Vec<usize> {
        if count <= most {
            return (0..count).collect();
        }
        // One of each part: distinct, and any of them may be it.
        let part = count.div_ceil(most);
        let parts = (0..count).step_by(part);
        parts.map(|first| first + self.dice.below(part.min(count - first))).collect()
    }

    /// A question that may be verified.
    pub(super) fn offer(&mut self, asked: Asked) {
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

    /// The questions to verify now, at most `most`: `share` of the decisions since the last time, and one of each kind that was
    /// never verified. What is more than `most` is not made up for.
    pub(super) fn choose(&mut self, most: u32, share: f64) -> Vec<Asked> {
        self.due = (self.due + f64::from(std::mem::take(&mut self.decided)) * share).min(f64::from(most));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let Self { strata, recent, dice, turn, .. } = self;
        let mut kinds: Vec<&mut Kind> = strata.values_mut().filter(|kind| !kind.waiting.is_empty()).collect();
        kinds.sort_unstable_by_key(|kind| kind.chosen);
        let unverified = kinds.iter().filter(|kind| kind.chosen == 0).count();
        // Each kind once, the oldest first, and then again while questions wait.
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
            // A kind that was never verified goes before what was asked lately.
            let kind_first = chosen.len() < unverified || chosen.len() % 2 == 0;
            let next =
                if kind_first { of_kind(dice).or_else(|| any(dice)) } else { any(dice).or_else(|| of_kind(dice)) };
            let Some(next) = next else { break };
            chosen.push(next);
        }
        self.count_bytes_less(&chosen);
        chosen
    }

    /// Questions that were chosen before, at most `most`, of such kinds of which none waits: kinds that nobody asks now must not
    /// keep a copy out that only they have to agree with.
    pub(super) fn again(&self, most: usize, is_wanted: impl Fn(&Stratum) -> bool) -> Vec<Asked> {
        let none_waits = self.strata.iter().filter(|(stratum, kind)| kind.waiting.is_empty() && is_wanted(stratum));
        let last = none_waits.filter_map(|(_, kind)| kind.last.clone()).map(|last| Asked { answered: None, ..last });
        last.take(most).collect()
    }

    fn count_bytes_less(&mut self, chosen: &[Asked]) {
        let bytes: usize = chosen.iter().map(|asked| asked.question.contextual.wire_bytes()).sum();
        self.contextual_bytes = self.contextual_bytes.saturating_sub(bytes);
    }

    /// The kinds that were asked.
    pub(super) fn strata(&self) -> impl Iterator<Item = &Stratum> {
        self.strata.keys()
    }

    fn count_bytes(&mut self) {
        let waiting = self.strata.values().flat_map(|kind| &kind.waiting).chain(&self.recent);
        self.contextual_bytes = waiting.map(|waits| waits.asked.question.contextual.wire_bytes()).sum();
    }
}

/// Puts a question among those that wait, one a user; gives the bytes of the one that goes for it, which may be itself.
///
/// The questions of a user are equally likely to stay, whatever their order: what a visible set hides is asked about before
/// what it shows is checked, and must not be pushed out by that.
fn put(waiting: &mut Vec<Waiting>, most: usize, asked: Asked, dice: &mut Dice) -> usize {
    let same_user = |waits: &Waiting| waits.asked.question.check.user == asked.question.check.user;
    let (place, stays) = match waiting.iter().position(same_user) {
        Some(place) => {
            let rivals = waiting.get_mut(place).map_or(1, |waits| {
                waits.rivals = (waits.rivals + 1).min(RIVALS_MAX);
                waits.rivals
            });
            (place, dice.below(rivals) != 0)
        }
        None if waiting.len() < most => {
            waiting.push(Waiting::first(asked));
            return 0;
        }
        // Either of the two, so that neither the first nor the last is sure of its place.
        None => (dice.below(waiting.len()), dice.below(2) == 0),
    };
    match waiting.get_mut(place) {
        Some(there) if !stays => {
            let is_same_user = there.asked.question.check.user == asked.question.check.user;
            let rivals = if is_same_user { there.rivals } else { 1 };
            std::mem::replace(there, Waiting { asked, rivals }).asked.question.contextual.wire_bytes()
        }
        Some(_) | None => asked.question.contextual.wire_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::decider::doubles::question;

    fn asked(user: &str, kind: usize) -> Asked {
        let question = question(user, 0);
        let mut stratum = Stratum::of(&question.check, &question.contextual, Vec::new());
        stratum.object_type = format!("type{kind}");
        Asked { stratum, question, answered: None, at: Instant::now(), trace_id: None }
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
        // It is asked for the first time in turn 777.
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

    /// Two that a visible set hides, then ten that are checked.
    #[tokio::test]
    async fn each_question_of_a_user_is_kept_as_likely() {
        let mut kept = [0_usize; 12];
        for _ in 0..12_000 {
            let mut sampler = Sampler::default();
            for number in 0..12 {
                sampler.offer(Asked { question: question("user:anne", number), ..asked("user:anne", 0) });
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
