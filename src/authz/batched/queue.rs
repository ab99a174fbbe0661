//! The queue of waiting checks. Principals take turns: each gets the same share of the calls, however much it asks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::authz::decider::Basis;
use crate::language::Object;

/// The number of checks that a principal gets into a call in one turn. It is more than one, so that a request is spread over
/// few calls.
const TURN: usize = 16;

/// The bounds of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallBounds {
    pub(super) checks_max: usize,
    pub(super) bytes_max: usize,
}

/// Items that wait for a call, by the basis of that call and by principal.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    /// One for each kind of call. They take turns as well.
    sub_queues: VecDeque<SubQueue<T>>,
    by_principal: HashMap<Object, usize>,
    len: usize,
}

/// The items that can share a call, in the turns of their principals.
#[derive(Debug)]
struct SubQueue<T> {
    basis: Arc<Basis>,
    turns: VecDeque<Object>,
    waiting: HashMap<Object, VecDeque<T>>,
    /// The number of turns that are left until the next sub-queue is served. A sub-queue starts with one turn for each of its
    /// principals.
    turns_left: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { sub_queues: VecDeque::new(), by_principal: HashMap::new(), len: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Returns how many items wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns how many items of this principal wait.
    pub(super) fn len_of(&self, principal: &Object) -> usize {
        self.by_principal.get(principal).copied().unwrap_or_default()
    }

    /// Returns how many principals wait, this one included even if none of its items wait.
    pub(super) fn principals_with(&self, principal: &Object) -> usize {
        self.by_principal.len() + usize::from(!self.by_principal.contains_key(principal))
    }

    pub(super) fn push(&mut self, basis: &Arc<Basis>, principal: &Object, item: T) {
        let known = self.sub_queues.iter().position(|sub_queue| sub_queue.basis.shares_calls_with(basis));
        let at = known.unwrap_or(self.sub_queues.len());
        if known.is_none() {
            let sub_queue =
                SubQueue { basis: Arc::clone(basis), turns: VecDeque::new(), waiting: HashMap::new(), turns_left: 0 };
            self.sub_queues.push_back(sub_queue);
        }
        let Some(sub_queue) = self.sub_queues.get_mut(at) else { return };
        if !sub_queue.waiting.contains_key(principal) {
            sub_queue.turns.push_back(principal.clone());
        }
        sub_queue.waiting.entry(principal.clone()).or_default().push_back(item);
        *self.by_principal.entry(principal.clone()).or_default() += 1;
        self.len += 1;
    }

    /// Takes the items of the next call: as many as can share it within the bounds. Items that are not wanted any more are
    /// dropped. An item with more bytes than a call may have leaves by itself.
    ///
    /// A sub-queue gets as many turns as it has principals. While another sub-queue waits, a call takes no more items than these
    /// turns are worth. So a principal gains nothing by asking in a way that shares no call with the others.
    pub(super) fn take(
        &mut self,
        CallBounds { checks_max, bytes_max }: CallBounds,
        bytes_of: impl Fn(&T) -> usize,
        mut is_wanted: impl FnMut(&T) -> bool,
    ) -> Option<(Arc<Basis>, Vec<T>)> {
        while let Some(mut sub_queue) = self.sub_queues.pop_front() {
            if sub_queue.turns_left == 0 {
                sub_queue.turns_left = sub_queue.turns.len();
            }
            let fair_max =
                if self.sub_queues.is_empty() { usize::MAX } else { sub_queue.turns_left.saturating_mul(TURN) };
            let checks_max = checks_max.min(fair_max);
            let (mut taken, mut bytes, mut is_full) = (Vec::new(), 0, false);
            while taken.len() < checks_max && !is_full {
                let Some(principal) = sub_queue.turns.pop_front() else { break };
                sub_queue.turns_left = sub_queue.turns_left.saturating_sub(1);
                let Some(mut waiting) = sub_queue.waiting.remove(&principal) else { continue };
                let taken_before = taken.len();
                for _ in 0..TURN.min(checks_max - taken.len()) {
                    is_full =
                        !taken.is_empty() && waiting.front().is_some_and(|item| bytes + bytes_of(item) > bytes_max);
                    if is_full {
                        break;
                    }
                    let Some(item) = waiting.pop_front() else { break };
                    self.forget_one(&principal);
                    if is_wanted(&item) {
                        bytes += bytes_of(&item);
                        taken.push(item);
                    }
                }
                if !waiting.is_empty() {
                    // A principal goes first in the next call if there was no room for any of its checks, or if the end
                    // of the call cut its turn short.
                    let got = taken.len() - taken_before;
                    if (is_full && got == 0) || (!is_full && got < TURN) {
                        sub_queue.turns.push_front(principal.clone());
                        sub_queue.turns_left += 1;
                    } else {
                        sub_queue.turns.push_back(principal.clone());
                    }
                    sub_queue.waiting.insert(principal, waiting);
                }
            }
            let basis = Arc::clone(&sub_queue.basis);
            match (sub_queue.turns.is_empty(), sub_queue.turns_left) {
                (true, _) => {}
                (false, 0) => self.sub_queues.push_back(sub_queue),
                (false, _) => self.sub_queues.push_front(sub_queue),
            }
            if !taken.is_empty() {
                return Some((basis, taken));
            }
        }
        None
    }

    fn forget_one(&mut self, principal: &Object) {
        self.len = self.len.saturating_sub(1);
        let Some(count) = self.by_principal.get_mut(principal) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.by_principal.remove(principal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::Consistency;
    use crate::authz::decider::Recall;
    use crate::authz::decider::doubles::basis;

    fn principal(name: &str) -> Object {
        Object::parse(&format!("user:{name}")).expect("a user")
    }

    /// The name of a principal, and the number of its check.
    type NumberedCheck = (String, usize);

    fn push(queue: &mut FairQueue<NumberedCheck>, basis: &Arc<Basis>, name: &str, count: usize) {
        for number in 0..count {
            queue.push(basis, &principal(name), (name.to_owned(), number));
        }
    }

    fn take(queue: &mut FairQueue<NumberedCheck>, checks_max: usize) -> Option<(Arc<Basis>, Vec<NumberedCheck>)> {
        queue.take(CallBounds { checks_max, bytes_max: usize::MAX }, |_| 1, |_| true)
    }

    fn all(queue: &mut FairQueue<NumberedCheck>, checks_max: usize) -> Vec<Vec<NumberedCheck>> {
        std::iter::from_fn(|| take(queue, checks_max)).map(|(_, taken)| taken).collect()
    }

    #[test]
    fn who_asks_much_does_not_hold_up_the_others() {
        let mut queue = FairQueue::default();
        let basis = Arc::new(basis());
        push(&mut queue, &basis, "greedy", 10_000);
        for number in 0..10 {
            push(&mut queue, &basis, &format!("modest{number}"), 1);
        }
        assert_eq!((queue.len(), queue.len_of(&principal("greedy"))), (10_010, 10_000));
        let (_, first) = take(&mut queue, 50).expect("a call");
        assert_eq!(first.iter().filter(|(name, _)| name.starts_with("modest")).count(), 10);
        assert_eq!(first.len(), 50, "full, with whoever waits");
    }

    #[test]
    fn everything_comes_out_once_and_each_principals_in_order() {
        for checks_max in [1, 7, 16, 17, 50, 1_000] {
            let mut queue = FairQueue::default();
            let basis = Arc::new(basis());
            for (name, count) in [("a", 1), ("b", 16), ("c", 17), ("d", 100)] {
                push(&mut queue, &basis, name, count);
            }
            let calls = all(&mut queue, checks_max);
            assert!(calls.iter().rev().skip(1).all(|call| call.len() == checks_max), "only the last one is not full");
            for (name, count) in [("a", 1), ("b", 16), ("c", 17), ("d", 100)] {
                let numbers = calls.iter().flatten().filter(|item| item.0 == name).map(|item| item.1);
                assert!(numbers.eq(0..count), "{name} in calls of {checks_max}");
                assert_eq!(queue.len_of(&principal(name)), 0, "{name}, {checks_max}");
            }
            assert_eq!(queue.len(), 0, "{checks_max}");
        }
    }

    #[test]
    fn what_differs_in_freshness_or_model_shares_no_call() {
        let mut queue = FairQueue::default();
        let bases = [
            basis(),
            Basis { consistency: Consistency::HigherConsistency, ..basis() },
            Basis { model_id: "other".to_owned(), ..basis() },
            Basis { store_id: "other".to_owned(), ..basis() },
        ]
        .map(Arc::new);
        for (number, basis) in bases.iter().enumerate() {
            push(&mut queue, basis, &format!("{number}"), 3);
        }
        // The generation says which answers may be recalled. It does not change how to ask.
        push(&mut queue, &Arc::new(Basis { generation: 9, recall: Recall::Nothing, ..basis() }), "0", 1);
        let mut calls = Vec::new();
        while let Some((basis, taken)) = take(&mut queue, 50) {
            let expected = bases.iter().position(|other| other.shares_calls_with(&basis)).expect("a basis");
            assert!(taken.iter().all(|(name, _)| *name == expected.to_string()), "{taken:?}");
            calls.push(taken.len());
        }
        assert_eq!(calls, [4, 3, 3, 3]);
    }

    #[test]
    fn a_lane_of_its_own_is_no_greater_share() {
        let mut queue = FairQueue::default();
        let shared = Arc::new(basis());
        let fresh = Arc::new(Basis { consistency: Consistency::HigherConsistency, ..basis() });
        push(&mut queue, &fresh, "greedy", 1_000);
        for number in 0..15 {
            push(&mut queue, &shared, &format!("modest{number}"), 32);
        }
        let mut greedy = 0;
        while queue.len() > queue.len_of(&principal("greedy")) {
            let (_, taken) = take(&mut queue, 50).expect("a call");
            greedy += taken.iter().filter(|(name, _)| name == "greedy").count();
        }
        assert!((32..=64).contains(&greedy), "{greedy} of one while each of the others got 32");
        assert_eq!(take(&mut queue, 50).expect("a call").1.len(), 50, "alone, it fills calls");
    }

    #[test]
    fn what_nobody_waits_for_is_left_out() {
        let mut queue = FairQueue::default();
        let basis = Arc::new(basis());
        push(&mut queue, &basis, "a", 100);
        push(&mut queue, &basis, "b", 2);
        let bounds = CallBounds { checks_max: 50, bytes_max: usize::MAX };
        let (_, taken) = queue.take(bounds, |_| 1, |item| item.0 == "b").expect("a call");
        assert_eq!(taken.len(), 2);
        assert!(queue.take(bounds, |_| 1, |_| false).is_none());
        assert_eq!(queue.len(), 0);
    }

    /// Checks of `long` have 40 bytes each, checks of `huge` 200, and all others 1.
    #[test]
    fn a_call_is_within_its_bytes_and_nobody_is_passed_over() {
        let bytes_of = |(name, _): &(String, usize)| match name.as_str() {
            "long" => 40,
            "huge" => 200,
            _ => 1,
        };
        let mut queue = FairQueue::default();
        let basis = Arc::new(basis());
        for (name, count) in [("a", 40), ("long", 4), ("huge", 3), ("b", 20)] {
            push(&mut queue, &basis, name, count);
        }
        let mut calls = Vec::new();
        let bounds = CallBounds { checks_max: 50, bytes_max: 50 };
        while let Some((_, taken)) = queue.take(bounds, bytes_of, |_| true) {
            assert!(taken.len() == 1 || taken.iter().map(bytes_of).sum::<usize>() <= 50, "{taken:?}");
            let counts = taken.chunk_by(|a, b| a.0 == b.0).map(|alike| format!("{}:{}", alike[0].0, alike.len()));
            calls.push(counts.collect::<Vec<_>>().join(" "));
        }
        let expected =
            ["a:16", "long:1", "huge:1", "b:16 a:16", "long:1", "huge:1", "b:4 a:8", "long:1", "huge:1", "long:1"];
        assert_eq!(calls, expected);
        assert_eq!(queue.len(), 0);
    }
}
