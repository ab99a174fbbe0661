//! Where checks wait, in turns: every principal gets the same share of the calls, however much it asks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::authz::decider::Scope;
use crate::relationship::Object;

/// Checks that a principal gets into a call before it is the next one's turn. More than one, so that a request is spread
/// over few calls.
const TURN: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    /// One for each kind of call, in turns as well.
    lanes: VecDeque<Lane<T>>,
    by_principal: HashMap<Object, usize>,
    len: usize,
}

/// Those whose checks can share a call.
#[derive(Debug)]
struct Lane<T> {
    scope: Arc<Scope>,
    turns: VecDeque<Object>,
    waiting: HashMap<Object, VecDeque<T>>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { lanes: VecDeque::new(), by_principal: HashMap::new(), len: 0 }
    }
}

impl<T> FairQueue<T> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many wait for this principal.
    pub(super) fn len_of(&self, principal: &Object) -> usize {
        self.by_principal.get(principal).copied().unwrap_or_default()
    }

    pub(super) fn push(&mut self, scope: &Arc<Scope>, principal: &Object, item: T) {
        let known = self.lanes.iter().position(|lane| lane.scope.shares_calls_with(scope));
        let at = known.unwrap_or(self.lanes.len());
        if known.is_none() {
            let lane = Lane { scope: Arc::clone(scope), turns: VecDeque::new(), waiting: HashMap::new() };
            self.lanes.push_back(lane);
        }
        let Some(lane) = self.lanes.get_mut(at) else { return };
        if !lane.waiting.contains_key(principal) {
            lane.turns.push_back(principal.clone());
        }
        lane.waiting.entry(principal.clone()).or_default().push_back(item);
        *self.by_principal.entry(principal.clone()).or_default() += 1;
        self.len += 1;
    }

    /// What the next call asks: at most `checks_max` that can share it, those that `is_wanted` drops left out.
    pub(super) fn take(
        &mut self,
        checks_max: usize,
        mut is_wanted: impl FnMut(&T) -> bool,
    ) -> Option<(Arc<Scope>, Vec<T>)> {
        while let Some(mut lane) = self.lanes.pop_front() {
            let mut taken = Vec::new();
            while taken.len() < checks_max {
                let Some(principal) = lane.turns.pop_front() else { break };
                let Some(mut waiting) = lane.waiting.remove(&principal) else { continue };
                for _ in 0..TURN.min(checks_max - taken.len()) {
                    let Some(item) = waiting.pop_front() else { break };
                    self.forget_one(&principal);
                    if is_wanted(&item) {
                        taken.push(item);
                    }
                }
                if !waiting.is_empty() {
                    lane.turns.push_back(principal.clone());
                    lane.waiting.insert(principal, waiting);
                }
            }
            let scope = Arc::clone(&lane.scope);
            if !lane.turns.is_empty() {
                self.lanes.push_back(lane);
            }
            if !taken.is_empty() {
                return Some((scope, taken));
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
    use crate::authz::decider::doubles::scope;

    fn principal(name: &str) -> Object {
        Object::parse(&format!("user:{name}")).expect("a user")
    }

    fn push(queue: &mut FairQueue<(String, usize)>, scope: &Arc<Scope>, name: &str, count: usize) {
        for number in 0..count {
            queue.push(scope, &principal(name), (name.to_owned(), number));
        }
    }

    fn all(queue: &mut FairQueue<(String, usize)>, checks_max: usize) -> Vec<Vec<(String, usize)>> {
        std::iter::from_fn(|| queue.take(checks_max, |_| true)).map(|(_, taken)| taken).collect()
    }

    #[test]
    fn who_asks_much_does_not_hold_up_the_others() {
        let mut queue = FairQueue::default();
        let scope = Arc::new(scope());
        push(&mut queue, &scope, "greedy", 10_000);
        for number in 0..10 {
            push(&mut queue, &scope, &format!("modest{number}"), 1);
        }
        assert_eq!((queue.len(), queue.len_of(&principal("greedy"))), (10_010, 10_000));
        let (_, first) = queue.take(50, |_| true).expect("a call");
        assert_eq!(first.iter().filter(|(name, _)| name.starts_with("modest")).count(), 10);
        assert_eq!(first.len(), 50, "full, with whoever waits");
    }

    #[test]
    fn everything_comes_out_once_and_each_principals_in_order() {
        for checks_max in [1, 7, 16, 17, 50, 1_000] {
            let mut queue = FairQueue::default();
            let scope = Arc::new(scope());
            for (name, count) in [("a", 1), ("b", 16), ("c", 17), ("d", 100)] {
                push(&mut queue, &scope, name, count);
            }
            let calls = all(&mut queue, checks_max);
            assert!(calls.iter().rev().skip(1).all(|call| call.len() == checks_max), "only the last one is not full");
            for (name, count) in [("a", 1), ("b", 16), ("c", 17), ("d", 100)] {
                let numbers = calls.iter().flatten().filter(|item| item.0 == name).map(|item| item.1);
                assert!(numbers.eq(0..count), "{name} in calls of {checks_max}");
                assert_eq!(queue.len_of(&principal(name)), 0);
            }
            assert_eq!(queue.len(), 0);
        }
    }

    #[test]
    fn what_differs_in_freshness_or_model_shares_no_call() {
        let mut queue = FairQueue::default();
        let scopes = [
            scope(),
            Scope { consistency: Consistency::HigherConsistency, ..scope() },
            Scope { model_id: "other".to_owned(), ..scope() },
            Scope { store_id: "other".to_owned(), ..scope() },
        ]
        .map(Arc::new);
        for (number, scope) in scopes.iter().enumerate() {
            push(&mut queue, scope, &format!("{number}"), 3);
        }
        // The generation says what may be recalled, not how to ask.
        push(&mut queue, &Arc::new(Scope { generation: 9, recall: Recall::Nothing, ..scope() }), "0", 1);
        let mut calls = Vec::new();
        while let Some((scope, taken)) = queue.take(50, |_| true) {
            let expected = scopes.iter().position(|other| other.shares_calls_with(&scope)).expect("a scope");
            assert!(taken.iter().all(|(name, _)| *name == expected.to_string()), "{taken:?}");
            calls.push(taken.len());
        }
        assert_eq!(calls, [4, 3, 3, 3]);
    }

    #[test]
    fn what_nobody_waits_for_is_left_out() {
        let mut queue = FairQueue::default();
        let scope = Arc::new(scope());
        push(&mut queue, &scope, "a", 100);
        push(&mut queue, &scope, "b", 2);
        let (_, taken) = queue.take(50, |item| item.0 == "b").expect("a call");
        assert_eq!(taken.len(), 2);
        assert!(queue.take(50, |_| false).is_none());
        assert_eq!(queue.len(), 0);
    }
}
