//! How far the evaluator descends through usersets and parents, and where `OpenFGA` follows them in ways of its own.
//!
//! `OpenFGA`'s default is one question for each userset or parent, and the evaluator asks like that, too. The
//! [`Weights`] of a model allow two other ways. First, `OpenFGA` can read the usersets of one relation together, apart
//! from the other usersets, if one level of tuples decides them. Then a userset of another relation that counts does
//! not make it pass over a failed condition. Second, it can go level by level along a relation's own usersets or
//! parents. Both ways reach one level more, look at no node twice, and deny somebody who is in none of these nodes,
//! however deep they are. `OpenFGA` chooses between these ways and its default by how fast they were. It nearly always
//! chooses the other ways, so the evaluator answers as they do.

use super::{Asker, Evaluation, Verdict};
use crate::engine::index::{Node, Subject};
use crate::language::program::weights::Weights;
use crate::language::program::{Expression, RelationId, TypeId};

/// With this many levels left, a relation's own usersets or parents are not followed to their end.
pub(in crate::engine) const OWN_END: u32 = 2;

/// Says whether the evaluator descends to the last level.
#[derive(Clone, Copy)]
pub(in crate::engine) enum ToLast<'a> {
    Never,
    Always,
    /// Only to usersets that are read apart for users of this type.
    Apart(&'a Weights, TypeId),
}

impl ToLast<'_> {
    pub(in crate::engine) fn includes(self, relation: RelationId, asked: RelationId) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Apart(weights, type_id) => weights.is_apart(relation, asked, type_id),
        }
    }
}

/// Returns how many levels are left one level down, or `None` if the evaluator does not descend there.
pub(in crate::engine) fn below(remaining: u32, may_be_last: bool) -> Option<u32> {
    match remaining {
        0 => None,
        1 if !may_be_last => None,
        more => Some(more - 1),
    }
}

impl<'a> Evaluation<'a> {
    /// Returns the userset's relation if `OpenFGA` reads usersets of that relation apart from the other usersets of
    /// `relation`.
    pub(super) fn read_apart(&self, relation: Option<RelationId>, subject: Subject) -> Option<RelationId> {
        let (weights, type_id) = self.weights()?;
        match subject {
            Subject::Userset(Node { relation: userset, .. }) => {
                weights.is_apart(relation?, userset, type_id).then_some(userset)
            }
            Subject::Object(..) | Subject::Wildcard(_) => None,
        }
    }

    /// Returns the model's weights and the asker's type. There are none for a userset that asks: `OpenFGA` answers it
    /// in the default way.
    fn weights(&self) -> Option<(&'a Weights, TypeId)> {
        match self.asker {
            Asker::Object(type_id, _) | Asker::Wildcard(type_id) => Some((self.program.weights()?, type_id)),
            Asker::Userset(_) => None,
        }
    }

    /// Returns whether the evaluator descends to the last level from a relation to its usersets.
    pub(in crate::engine) fn usersets_to_last(&self, relation: RelationId, remaining: u32) -> ToLast<'a> {
        match self.weights() {
            Some((weights, type_id)) if remaining == 1 => {
                let own = weights.has_own_usersets(relation, type_id);
                if own { ToLast::Always } else { ToLast::Apart(weights, type_id) }
            }
            Some(_) | None => ToLast::Never,
        }
    }

    /// Returns whether the evaluator descends to the last level from a relation to its parents.
    pub(in crate::engine) fn parents_to_last(
        &self,
        relation: RelationId,
        computed: &[(TypeId, RelationId)],
        remaining: u32,
    ) -> ToLast<'a> {
        let is_gone = remaining == 1
            && self.weights().is_some_and(|(weights, type_id)| {
                weights.are_flat(computed, type_id) || weights.has_own_parents(relation, type_id)
            });
        if is_gone { ToLast::Always } else { ToLast::Never }
    }

    /// Returns the verdict where the evaluator does not descend further. As in `OpenFGA`, a relation's own usersets or
    /// parents are not searched if no tuple could make the asker hold any of them.
    pub(in crate::engine) fn beyond_levels(&mut self, relation: RelationId) -> Verdict {
        let has_own = self.has_own_usersets(relation) || self.has_own_parents(relation);
        if has_own && !self.is_named_in(relation) { Verdict::Denied } else { Verdict::TooDeep }
    }

    /// Returns whether a cycle among a relation's own usersets or parents counts as nothing: `OpenFGA` looks at each of
    /// them once.
    pub(in crate::engine) fn passes_cycles(&self, relation: RelationId) -> bool {
        self.has_own_usersets(relation) || self.has_own_parents(relation)
    }

    pub(in crate::engine) fn has_own_usersets(&self, relation: RelationId) -> bool {
        self.weights().is_some_and(|(weights, type_id)| weights.has_own_usersets(relation, type_id))
    }

    pub(in crate::engine) fn has_own_parents(&self, relation: RelationId) -> bool {
        self.weights().is_some_and(|(weights, type_id)| weights.has_own_parents(relation, type_id))
    }

    /// Returns whether any tuple names the asker in a way that could make it hold the relation, without usersets or
    /// parents.
    fn is_named_in(&mut self, relation: RelationId) -> bool {
        if let Some((_, known)) = self.named_in.iter().find(|(of, _)| *of == relation) {
            return *known;
        }
        let found = self.find_in(relation);
        self.named_in.push((relation, found));
        found
    }

    fn find_in(&self, relation: RelationId) -> bool {
        let mut direct = Vec::new();
        let mut pending: Vec<(RelationId, &Expression)> = Vec::new();
        pending.extend(self.program.expression(relation).map(|expression| (relation, expression)));
        while let Some((of, expression)) = pending.pop() {
            match expression {
                Expression::Direct => direct.push(of),
                Expression::Computed(computed) => {
                    pending.extend(self.program.expression(*computed).map(|expression| (*computed, expression)));
                }
                Expression::TupleToUserset { .. } => {}
                Expression::Union(operands) | Expression::Intersection(operands) => {
                    pending.extend(operands.iter().map(|operand| (of, operand)));
                }
                Expression::Difference(operands) => pending.extend(operands.first().map(|base| (of, base))),
            }
        }
        let (own, everybody) = match self.asker {
            Asker::Object(type_id, object) => (Some(Subject::Object(type_id, object)), Subject::Wildcard(type_id)),
            Asker::Wildcard(type_id) => (None, Subject::Wildcard(type_id)),
            Asker::Userset(_) => return true,
        };
        own.into_iter().chain([everybody]).any(|subject| {
            let conditioned = self.index.conditioned_nodes(subject).map(|(node, _)| node);
            self.index.nodes(subject).chain(conditioned).any(|node| direct.contains(&node.relation))
        })
    }
}
