//! Remembers the answers of an evaluation, so that no node is evaluated twice. It also knows which nodes are on the path
//! from the question to the node in progress. An evaluation that comes back to such a node is a cycle, and is cut off.
//!
//! INVARIANT (final answers): an answer that rests on a cut is provisional. It is kept only while the node at which the
//! cycle was cut is in progress, and it is forgotten as soon as a node between the two is decided. So every final answer
//! is the one that a fresh evaluation would give, in whatever order questions were asked. (The method is tabling, as in
//! logic programming: "unknown" inside a cycle is the least fixed point of Kripke and Fitting.)

use super::{Outcome, Verdict};
use crate::engine::index::{Node, NumberMap};

#[derive(Default)]
pub(super) struct Memo {
    slots: NumberMap<Node, Slot>,
    /// The nodes whose unknown answer is only provisional, in the order in which they were found.
    provisional: Vec<Node>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    /// The answer *allowed* or *denied*. It may be used where at least as many levels are left as its height.
    decided: Option<Outcome>,
    unknown: Option<Unknown>,
    /// The position on the path while the node is in progress.
    on_path: Option<u32>,
    /// Whether the node is known not to be allowed, however far the evaluator descends.
    is_ruled_out: bool,
}

#[derive(Clone, Copy)]
struct Unknown {
    outcome: Outcome,
    /// How many levels were left when the answer was found.
    remaining: u32,
}

impl Slot {
    fn decided(&self, remaining: u32) -> Option<Outcome> {
        self.decided.filter(|outcome| outcome.height <= remaining)
    }

    fn decide(&mut self, outcome: Outcome) {
        if self.decided.is_none_or(|known| outcome.height < known.height) {
            self.decided = Some(outcome);
        }
    }
}

impl Memo {
    /// Returns the answer about a node with `remaining` levels left, if it is known to be allowed or denied.
    pub(super) fn decided(&self, node: Node, remaining: u32) -> Option<Outcome> {
        self.slots.get(&node)?.decided(remaining)
    }

    /// Returns the answer about a node with `remaining` levels left, if it is known.
    pub(super) fn recall(&self, node: Node, remaining: u32) -> Option<Outcome> {
        let slot = self.slots.get(&node)?;
        if let Some(outcome) = slot.decided(remaining) {
            return Some(outcome);
        }
        if let Some(unknown) = slot.unknown {
            let holds = match unknown.outcome.verdict {
                // With fewer levels left it is still too deep. With more it may be decided.
                Verdict::TooDeep => remaining <= unknown.remaining,
                Verdict::Doubted(_) | Verdict::Cyclic | Verdict::Failed(_) | Verdict::Allowed | Verdict::Denied => {
                    unknown.outcome.height <= remaining
                }
            };
            if holds {
                return Some(unknown.outcome);
            }
        }
        slot.on_path.map(Outcome::cut_off)
    }

    /// Notes that a node is in progress at a position of the path. Returns the mark for [`Memo::settle`].
    pub(super) fn enter(&mut self, node: Node, position: u32) -> usize {
        self.slots.entry(node).or_default().on_path = Some(position);
        self.provisional.len()
    }

    /// Notes the answer about a node that was entered, and returns it in the form that its asker may use.
    pub(super) fn settle(
        &mut self,
        node: Node,
        mut outcome: Outcome,
        remaining: u32,
        position: u32,
        mark: usize,
    ) -> Outcome {
        match outcome.verdict {
            Verdict::Allowed | Verdict::Denied => {
                self.forget(mark);
                let slot = self.slots.entry(node).or_default();
                slot.on_path = None;
                slot.decide(outcome);
            }
            Verdict::Doubted(_) | Verdict::Cyclic | Verdict::Failed(_) | Verdict::TooDeep => {
                if outcome.verdict != Verdict::Cyclic {
                    self.forget_cyclic(mark);
                }
                let final_answer = outcome.cut_at >= position;
                if final_answer {
                    outcome.cut_at = Outcome::NOT_CUT;
                    self.keep(mark, position);
                } else {
                    self.lower(mark, outcome.cut_at);
                    self.provisional.push(node);
                }
                let slot = self.slots.entry(node).or_default();
                slot.on_path = None;
                slot.unknown = Some(Unknown { outcome, remaining });
            }
        }
        outcome
    }

    /// Notes a final answer about a node: allowed or denied.
    pub(super) fn decide(&mut self, node: Node, outcome: Outcome) {
        self.slots.entry(node).or_default().decide(outcome);
    }

    /// Notes that these nodes are not allowed, however far the evaluator descends.
    pub(super) fn rule_out(&mut self, nodes: impl Iterator<Item = Node>) {
        for node in nodes {
            self.slots.entry(node).or_default().is_ruled_out = true;
        }
    }

    pub(super) fn is_ruled_out(&self, node: Node) -> bool {
        self.slots.get(&node).is_some_and(|slot| slot.is_ruled_out)
    }

    /// Undoes [`Memo::enter`] when there will be no answer.
    pub(super) fn leave(&mut self, node: Node) {
        if let Some(slot) = self.slots.get_mut(&node) {
            slot.on_path = None;
        }
    }

    /// Forgets all provisional answers since the mark.
    pub(super) fn forget(&mut self, mark: usize) {
        for node in self.provisional.drain(mark..) {
            if let Some(slot) = self.slots.get_mut(&node) {
                slot.unknown = None;
            }
        }
    }

    /// Notes that all provisional answers since the mark rest on a cut at `position` of the path, or at an earlier one.
    /// (This visits an answer once for each node of the path, and the path is short.)
    fn lower(&mut self, mark: usize, position: u32) {
        for node in self.provisional.iter().skip(mark) {
            if let Some(unknown) = self.slots.get_mut(node).and_then(|slot| slot.unknown.as_mut()) {
                unknown.outcome.cut_at = unknown.outcome.cut_at.min(position);
            }
        }
    }

    /// Forgets the cyclic answers since the mark. They were found while the node of the mark counted as part of a cycle.
    /// It has another answer now, so they may have another one as well.
    fn forget_cyclic(&mut self, mark: usize) {
        let found = self.provisional.split_off(mark);
        for node in found {
            let Some(slot) = self.slots.get_mut(&node) else { continue };
            match slot.unknown {
                Some(Unknown { outcome: Outcome { verdict: Verdict::Cyclic, .. }, .. }) => slot.unknown = None,
                Some(_) | None => self.provisional.push(node),
            }
        }
    }

    /// Makes the provisional answers since the mark final, unless they rest on a cut before `position`. They are all part
    /// of one cycle in which nothing could be decided.
    fn keep(&mut self, mark: usize, position: u32) {
        let found = self.provisional.split_off(mark);
        for node in found {
            let unknown = self.slots.get_mut(&node).and_then(|slot| slot.unknown.as_mut());
            match unknown {
                Some(unknown) if unknown.outcome.cut_at >= position => unknown.outcome.cut_at = Outcome::NOT_CUT,
                _ => self.provisional.push(node),
            }
        }
    }
}
