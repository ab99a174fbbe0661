//! The work list of an evaluation: what waits for answers about its parts, and what it asks for next.

use super::levels::{OWN_END, ToLast, below};
use super::outcome::{Outcome, Verdict};
use crate::engine::index::{Node, Subject, Subjects};
use crate::language::program::{Expression, RelationId, TypeId};

/// Something that waits for answers about its parts.
pub(super) struct Frame<'a> {
    pub(super) task: Task<'a>,
    pub(super) node: Node,
    /// How many levels may still be gone down.
    pub(super) remaining: u32,
    pub(super) so_far: Outcome,
}

pub(super) enum Task<'a> {
    /// A relation of an object, which is on the path.
    Relation { expression: Option<&'a Expression>, position: u32, mark: usize },
    /// The nodes that are left of a search, of which the one at hand is so many levels below the first.
    Search { down: u32 },
    /// The operands that are left of `or`.
    Union(&'a [Expression]),
    /// The operands that are left of `and`, and of `but not`, whose second counts negated.
    Intersection { left: &'a [Expression], subtract_last: bool },
    /// The usersets or parents that are left, one level down: those without a condition, and those whose condition is
    /// met. `computed` says what to ask of a parent.
    Level {
        left: Subjects<'a>,
        met: Vec<Subject>,
        computed: &'a [(TypeId, RelationId)],
        to_last: ToLast<'a>,
        /// These are the relation's own usersets or parents, which `OpenFGA` goes along level by level.
        own: bool,
        /// Whether the one that was asked last may be on the last level.
        may_be_last: bool,
    },
}

/// What a frame asks for next.
pub(super) enum Part<'a> {
    Expression(&'a Expression, Node, u32),
    Relation(Node, u32),
    TooDeep,
}

impl<'a> Frame<'a> {
    /// Takes the answer about a part; whether it decides.
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
                    // See [`Evaluation::at_end_of_own`].
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

    pub(super) fn next(&mut self) -> Option<Part<'a>> {
        let (node, remaining) = (self.node, self.remaining);
        let part = |expression| Part::Expression(expression, node, remaining);
        match &mut self.task {
            Task::Relation { expression, .. } => expression.take().map(part),
            // What is left of it is known to the evaluation.
            Task::Search { .. } => None,
            Task::Union(left) | Task::Intersection { left, .. } => left.split_off_first().map(part),
            Task::Level { left, met, computed, to_last, may_be_last, .. } => {
                let next = next_node(left, met, computed)?;
                *may_be_last = remaining == 1 && to_last.includes(node.relation, next.relation);
                let Some(below) = below(remaining, *may_be_last) else {
                    if remaining == 0 || matches!(to_last, ToLast::Never) {
                        // The others are as deep as this one.
                        *left = Subjects::default();
                        met.clear();
                    }
                    return Some(Part::TooDeep);
                };
                Some(Part::Relation(next, below))
            }
        }
    }
}

/// What to ask of the next userset or parent.
fn next_node(left: &mut Subjects<'_>, met: &mut Vec<Subject>, computed: &[(TypeId, RelationId)]) -> Option<Node> {
    while let Some(subject) = left.split_off_first().or_else(|| met.pop()) {
        match subject {
            Subject::Userset(node) => return Some(node),
            Subject::Object(type_id, object) => {
                let asked = computed.iter().find(|(of, _)| *of == type_id);
                if let Some((_, relation)) = asked {
                    return Some(Node { relation: *relation, object });
                }
            }
            // No relation after `from` takes wildcards (valid model).
            Subject::Wildcard(_) => {}
        }
    }
    None
}
