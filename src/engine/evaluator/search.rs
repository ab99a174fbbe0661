//! Relations that depend on each other through `or` alone, looked through breadth-first.
//!
//! Where usersets or parents are all in each other, the ways through them are more than anybody can go, and most are too
//! long. So the evaluator goes down them one after another only until that shows: until a way is too long, or comes back
//! to itself where that decides nothing. Then it starts anew where it came in, and goes to every node once, those first
//! that are fewest levels away. What is allowed is allowed by a shortest way, so nothing is missed; and the work is that
//! of the tuples, not of the ways.
//!
//! Along a relation's own usersets or parents `OpenFGA` searches in this way, too, and the answer is what its search says
//! (see `levels`). Elsewhere it goes all the ways, until one is too long or the time is up; so there the answer is *too
//! deep*, unless somebody is allowed.

use std::collections::VecDeque;

use super::frame::{Frame, Part, Task};
use super::{Evaluation, Outcome, Purpose, Verdict};
use crate::engine::index::{Node, NumberMap};
use crate::language::program::{Program, RelationId};

/// Relations that depend on each other, while one of them is being worked on.
pub(super) struct Recursion {
    /// See [`Program::recursion`].
    number: u32,
    /// The position of the frame that came in.
    entry: usize,
    /// `None` while it is gone down one way after another.
    search: Option<Search>,
}

struct Search {
    first: Node,
    /// The one at hand, and how many levels remain there.
    at: (Node, u32),
    /// INVARIANT (shortest ways): where most levels remain comes first.
    pending: VecDeque<(Node, u32)>,
    /// With the most levels that remained. As in `OpenFGA`, the first one counts only once it is come back to.
    reached: NumberMap<Node, u32>,
    /// Those from which the first one is come back to.
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
            // It may have been reached by a shorter way since.
            if self.reached.get(&node).is_none_or(|most| *most == remaining) {
                self.at = (node, remaining);
                return Some(self.at);
            }
        }
        None
    }
}

/// The definition of the node that comes next in the innermost search, and its levels; notes how many levels it is down
/// from the first, where `first` remain.
pub(super) fn next<'a>(
    recursions: &mut [Recursion],
    program: &'a Program,
    first: u32,
    down: &mut u32,
) -> Option<Part<'a>> {
    let (node, remaining) = recursions.last_mut()?.search.as_mut()?.next()?;
    *down = first.saturating_sub(remaining);
    Some(Part::Expression(program.expression(node.relation)?, node, remaining))
}

impl Evaluation<'_> {
    /// Notes that a relation is going to be worked on, by a frame that is going to be the last.
    pub(super) fn enter_recursion(&mut self, relation: RelationId) {
        let Some(number) = self.program.recursion(relation) else { return };
        if self.recursions.last().is_none_or(|innermost| innermost.number != number) {
            self.recursions.push(Recursion { number, entry: self.frames.len(), search: None });
        }
    }

    /// Notes that the frame of a relation is gone, which was the last.
    pub(super) fn leave_recursion(&mut self) {
        self.recursions.pop_if(|innermost| innermost.entry == self.frames.len());
    }

    /// What a search says at once about a node that belongs to it: it looks at the node later.
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

    /// Whether the answer about a relation shows that going down one way after another is no good.
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

    /// Whether what depends on itself alone is not held: cycles decide nothing.
    fn is_least(&self, relation: RelationId) -> bool {
        self.purpose == Purpose::Sets || self.passes_cycles(relation)
    }

    /// Starts anew at the frame that came into the innermost recursion.
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
        // How many levels there are matters where cycles are none, and there is a limit.
        let levels_matter = self.is_least(node.relation) && self.purpose == Purpose::Check;
        if levels_matter || !self.memo.is_hopeless(node) {
            search.pending.push_back((node, remaining));
        }
        if let Some(innermost) = self.recursions.last_mut() {
            innermost.search = Some(search);
        }
        self.frames.push(Frame { task: Task::Search { down: 0 }, node, remaining, so_far: Outcome::DENIED });
    }

    /// The answer of a search whose frame was taken off.
    pub(super) fn end_search(&mut self, Frame { node, remaining, so_far, .. }: &Frame<'_>) -> Outcome {
        let (relation, mut outcome) = (node.relation, *so_far);
        let has_own = self.has_own_usersets(relation) || self.has_own_parents(relation);
        if has_own && outcome.height > *remaining && outcome.verdict != Verdict::Allowed {
            let verdict = self.beyond_levels(relation);
            outcome = outcome.or(Outcome { verdict, ..Outcome::DENIED });
        }
        let search = self.recursions.last_mut().and_then(|innermost| innermost.search.as_mut());
        if let (Verdict::Denied, Some(search)) = (outcome.verdict, search) {
            // There is nobody at all: nothing was too deep.
            self.memo.give_up_hope(search.reached.keys().copied());
            if has_own && outcome.height <= *remaining {
                // The first one is one level away from these, and whatever they come to, it comes to.
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
