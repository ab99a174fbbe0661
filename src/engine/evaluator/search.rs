//! Searches relations that depend on each other through `or` alone, breadth-first.
//!
//! If many groups or folders contain each other, there are more paths through them than anybody can follow, and most
//! are too long. The evaluator first follows one path after another. It gives this up when a path is too long, or comes
//! back to itself in a place where a cycle decides nothing. Then it starts again at the node where it entered these
//! relations, and visits every node once, nearest first. A user who is allowed is allowed by a shortest path, so
//! nothing is missed. The work grows with the tuples and not with the paths, and the answer does not depend on earlier
//! questions.
//!
//! `OpenFGA` searches like this along a relation's own usersets or parents, and there the answer is what its search
//! says (see `levels`). Elsewhere, with several relations or with usersets beside parents, it follows every path until
//! one is too long or its time is up. Where hundreds of groups contain each other, it does not end in time. In that
//! case the answer here is *too deep*, unless the user is allowed.
//!
//! Cycles through `and` and `but not` are not searched. They are followed path by path, within [`super::STEPS_MAX`].

use std::collections::VecDeque;

use super::frame::{Frame, Subquestion, Task};
use super::{Evaluation, Outcome, Purpose, Verdict};
use crate::engine::index::{Node, NumberMap};
use crate::language::program::{Program, RelationId};

/// A set of relations that depend on each other, while one of them is in progress.
pub(super) struct Recursion {
    /// The number of the set (see [`Program::recursion`]).
    number: u32,
    /// The position of the frame that entered the set.
    entry: usize,
    /// The search; `None` while the evaluator follows one path after another.
    search: Option<Search>,
}

struct Search {
    first: Node,
    /// The node that is being looked at, and how many levels are left there.
    at: (Node, u32),
    /// INVARIANT (shortest ways): nodes with more levels left come first.
    pending: VecDeque<(Node, u32)>,
    /// The nodes that were reached, each with the most levels that were left there. As in `OpenFGA`, the first node is
    /// not among them until a path comes back to it.
    reached: NumberMap<Node, u32>,
    /// The nodes from which a path comes back to the first node.
    before_first: Vec<Node>,
}

impl Search {
    fn new(first: Node, remaining: u32) -> Self {
        let reached = NumberMap::default();
        Self { first, at: (first, remaining), pending: VecDeque::new(), reached, before_first: Vec::new() }
    }

    fn reach(&mut self, node: Node, remaining: u32) {
        let (at, remaining_at) = self.at;
        if node == self.first {
            self.before_first.push(at);
        }
        if self.reached.get(&node).is_some_and(|most| *most >= remaining) {
            return;
        }
        self.reached.insert(node, remaining);
        if remaining == remaining_at {
            self.pending.push_front((node, remaining));
        } else {
            self.pending.push_back((node, remaining));
        }
    }

    fn next(&mut self) -> Option<(Node, u32)> {
        while let Some((node, remaining)) = self.pending.pop_front() {
            // A shorter way to it may have been found since.
            if self.reached.get(&node).is_none_or(|most| *most == remaining) {
                self.at = (node, remaining);
                return Some(self.at);
            }
        }
        None
    }
}

/// Takes the next node of the innermost search, and returns its definition and the levels that are left. Sets `down` to
/// the node's distance from the first node, where `first` levels were left.
pub(super) fn next<'a>(
    recursions: &mut [Recursion],
    program: &'a Program,
    first: u32,
    down: &mut u32,
) -> Option<Subquestion<'a>> {
    let (node, remaining) = recursions.last_mut()?.search.as_mut()?.next()?;
    *down = first.saturating_sub(remaining);
    Some(Subquestion::Expression(program.expression(node.relation)?, node, remaining))
}

impl Evaluation<'_> {
    /// Notes that the frame that is about to be pushed works on this relation.
    pub(super) fn enter_recursion(&mut self, relation: RelationId) {
        let Some(number) = self.program.recursion(relation) else { return };
        if self.recursions.last().is_none_or(|innermost| innermost.number != number) {
            self.recursions.push(Recursion { number, entry: self.frames.len(), search: None });
        }
    }

    /// Notes that the frame of a relation, which was the last one, has been popped.
    pub(super) fn leave_recursion(&mut self) {
        self.recursions.pop_if(|innermost| innermost.entry == self.frames.len());
    }

    /// Answers a question about a node of the running search without descending: with the known answer, or with
    /// *denied* until the search has visited the node.
    pub(super) fn found_by_search(&mut self, node: Node, remaining: u32) -> Option<Outcome> {
        let number = self.program.recursion(node.relation)?;
        let innermost = self.recursions.last_mut().filter(|innermost| innermost.number == number)?;
        let search = innermost.search.as_mut()?;
        let known = self.memo.decided(node, remaining);
        if known.is_none() {
            search.reach(node, remaining);
        }
        known.or(Some(Outcome::DENIED))
    }

    pub(super) fn is_searching(&self) -> bool {
        self.recursions.last().is_some_and(|innermost| innermost.search.is_some())
    }

    /// Returns whether this answer about a relation shows that following one path after another does not work.
    pub(super) fn is_to_be_searched(&self, relation: RelationId, answer: Outcome) -> bool {
        if self.program.recursion(relation).is_none() || self.is_searching() {
            return false;
        }
        match answer.verdict {
            Verdict::Allowed | Verdict::Denied => false,
            Verdict::TooDeep => true,
            Verdict::Doubted(_) | Verdict::Cyclic | Verdict::Failed(_) => {
                answer.cut_at != Outcome::NOT_CUT && self.is_least(relation)
            }
        }
    }

    /// Returns whether a node that depends on itself alone is denied, so that a cycle decides nothing.
    fn is_least(&self, relation: RelationId) -> bool {
        self.purpose == Purpose::Sets || self.passes_cycles(relation)
    }

    /// Starts again, as a search, at the frame that entered the innermost recursion.
    pub(super) fn begin_search(&mut self) {
        let Some(entry) = self.recursions.last().map(|innermost| innermost.entry) else { return };
        self.drop_frames(entry + 1);
        let Some(Frame { task: Task::Relation { position, mark, .. }, node, remaining, .. }) = self.frames.last()
        else {
            return;
        };
        let (position, mark, node, remaining) = (*position, *mark, *node, *remaining);
        self.memo.forget(mark);
        self.path_length = position + 1;
        let mut search = Search::new(node, remaining);
        // Where cycles decide nothing, an answer can still depend on the number of levels if that is limited.
        let levels_matter = self.is_least(node.relation) && self.purpose == Purpose::Check;
        if levels_matter || !self.memo.is_ruled_out(node) {
            search.pending.push_back((node, remaining));
        }
        if let Some(innermost) = self.recursions.last_mut() {
            innermost.search = Some(search);
        }
        self.frames.push(Frame { task: Task::Search { down: 0 }, node, remaining, so_far: Outcome::DENIED });
    }

    /// Returns the answer of a search whose frame was popped.
    pub(super) fn end_search(&mut self, Frame { node, remaining, so_far, .. }: &Frame<'_>) -> Outcome {
        let (relation, mut outcome) = (node.relation, *so_far);
        let has_own = self.has_own_usersets(relation) || self.has_own_parents(relation);
        if has_own && outcome.height > *remaining && outcome.verdict != Verdict::Allowed {
            let verdict = self.beyond_levels(relation);
            outcome = outcome.or(Outcome { verdict, ..Outcome::DENIED });
        }
        let search = self.recursions.last_mut().and_then(|innermost| innermost.search.as_mut());
        if let (Verdict::Denied, Some(search)) = (outcome.verdict, search) {
            // The search found nobody at all, so no number of levels would help.
            self.memo.rule_out(search.reached.keys().copied());
            if has_own && outcome.height <= *remaining {
                // The first node is one level below each of these nodes, so each of them has the first node's outcome.
                let height = outcome.height.saturating_add(1);
                for node in std::mem::take(&mut search.before_first) {
                    self.memo.decide(node, Outcome { height, ..outcome });
                }
            }
        }
        if self.is_least(relation) || outcome.verdict == Verdict::Allowed {
            outcome
        } else {
            outcome.or(Outcome::TOO_DEEP)
        }
    }
}
