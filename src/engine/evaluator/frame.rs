//! The work list of an evaluation: frames that wait for answers about their parts, and what each asks next.

use super::expansion::asked;
use super::levels::{OWN_END, ToLast, below};
use super::outcome::{Outcome, Verdict};
use crate::engine::index::{Node, Subject, Subjects};
use crate::language::program::{Expression, RelationId, TypeId};

/// A question, or a part of one, that waits for answers about its parts.
pub(super) struct Frame<'a> {
    pub(super) task: Task<'a>,
    pub(super) node: Node,
    /// How many levels the evaluator may still descend from here.
    pub(super) remaining: u32,
    pub(super) so_far: Outcome,
}

pub(super) enum Task<'a> {
    /// A relation of an object. It is on the path.
    Relation { expression: Option<&'a Expression>, position: u32, mark: usize },
    /// A search. The node that it looks at is `down` levels below the first one.
    Search { down: u32 },
    /// The remaining operands of `or`.
    Union(&'a [Expression]),
    /// The remaining operands of `and`, or of `but not`, whose second operand counts negated.
    Intersection { left: &'a [Expression], subtract_last: bool },
    /// The remaining usersets or parents, one level down: those without a condition, and those whose condition is met.
    /// `computed` says which relation to ask of a parent.
    Level {
        left: Subjects<'a>,
        met: Vec<Subject>,
        computed: &'a [(TypeId, RelationId)],
        to_last: ToLast<'a>,
        /// Whether these are the relation's own usersets or parents, which `OpenFGA` follows level by level.
        own: bool,
        /// Whether the one that was asked last may be on the last level.
        may_be_last: bool,
    },
}

/// The next question of a frame.
pub(super) enum Subquestion<'a> {
    Expression(&'a Expression, Node, u32),
    Relation(Node, u32),
    TooDeep,
}

impl<'a> Frame<'a> {
    /// Takes the answer about a part, and returns whether it decides the frame.
    pub(super) fn take(&mut self, answer: Outcome) -> bool {
        let (answer, deciding) = match &self.task {
            Task::Relation { .. } => {
                self.so_far = answer;
                return true;
            }
            Task::Union(_) => (answer, Verdict::Allowed),
            Task::Search { down } => {
                (Outcome { height: answer.height.saturating_add(*down), ..answer }, Verdict::Allowed)
            }
            Task::Level { own, may_be_last, .. } => {
                let height = answer.height.saturating_add(1);
                let height = match (own, answer.verdict) {
                    (true, Verdict::Allowed) => height,
                    // See `Evaluation::at_end_of_own`.
                    (true, _) => height.max(OWN_END + 1),
                    (false, _) => height.max(if *may_be_last { 1 } else { 2 }),
                };
                (Outcome { height, ..answer }, Verdict::Allowed)
            }
            Task::Intersection { left, subtract_last } => {
                let negate = *subtract_last && left.is_empty();
                (if negate { answer.negated() } else { answer }, Verdict::Denied)
            }
        };
        if answer.verdict == deciding {
            self.so_far = answer;
            return true;
        }
        self.so_far = match &self.task {
            Task::Intersection { .. } => self.so_far.and(answer),
            Task::Relation { .. } | Task::Search { .. } | Task::Union(_) | Task::Level { .. } => self.so_far.or(answer),
        };
        false
    }

    pub(super) fn next(&mut self) -> Option<Subquestion<'a>> {
        let (node, remaining) = (self.node, self.remaining);
        let part = |expression| Subquestion::Expression(expression, node, remaining);
        match &mut self.task {
            Task::Relation { expression, .. } => expression.take().map(part),
            // The evaluation itself knows the remaining nodes of a search.
            Task::Search { .. } => None,
            Task::Union(left) | Task::Intersection { left, .. } => left.split_off_first().map(part),
            Task::Level { left, met, computed, to_last, may_be_last, .. } => {
                let next = next_node(left, met, computed)?;
                *may_be_last = remaining == 1 && to_last.includes(node.relation, next.relation);
                let Some(below) = below(remaining, *may_be_last) else {
                    if remaining == 0 || matches!(to_last, ToLast::Never) {
                        // The remaining ones are as deep as this one.
                        *left = Subjects::default();
                        met.clear();
                    }
                    return Some(Subquestion::TooDeep);
                };
                Some(Subquestion::Relation(next, below))
            }
        }
    }
}

/// Returns the next node to ask, out of the remaining usersets or parents.
fn next_node(left: &mut Subjects<'_>, met: &mut Vec<Subject>, computed: &[(TypeId, RelationId)]) -> Option<Node> {
    while let Some(subject) = left.split_off_first().or_else(|| met.pop()) {
        match subject {
            Subject::Userset(node) => return Some(node),
            // In a valid model no relation after `from` takes wildcards.
            parent @ (Subject::Object(..) | Subject::Wildcard(_)) => {
                if let Some(node) = asked(parent, computed) {
                    return Some(node);
                }
            }
        }
    }
    None
}
