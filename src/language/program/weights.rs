//! The distance between a relation and the users of a type, counted in levels of tuples.
//!
//! `OpenFGA` chooses its way of evaluating by these numbers (its "weighted graph"), and some answers show which way it
//! chose: which failed conditions it passes over, where its limit of levels takes effect, and how it lists objects.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use super::dependencies::{Dependencies, Edge, Through};
use super::{Expression, Program, RelationId, TypeId};

/// The weight of a relation that can be any number of levels away.
const INFINITE: u32 = u32::MAX;

/// The weights of all relations of a model.
#[derive(Debug)]
pub(crate) struct Weights {
    relations: Vec<RelationWeights>,
}

#[derive(Debug, Default)]
struct RelationWeights {
    types: Vec<TypeWeight>,
    /// Whether the relation depends on itself.
    is_cyclic: bool,
}

/// The distance between a relation and the users of one type.
#[derive(Clone, Copy, Debug, PartialEq)]
struct TypeWeight {
    type_id: TypeId,
    /// One more than the largest number of usersets and parents between the relation and tuples that name such users.
    weight: u32,
    /// Whether the relation depends on its own usersets, and on nothing else that needs a level of tuples.
    own_usersets: bool,
    /// Whether the relation depends on its own parents, and on nothing else that needs a level of tuples.
    own_parents: bool,
}

type ByType = Vec<(TypeId, u32)>;

impl Weights {
    /// Computes the weights. Returns `None` where `OpenFGA` has none: a parent's type lacks the relation, `and` or `but
    /// not` is part of a cycle, or the operands of `and` have no type of users in common.
    pub(super) fn of(program: &Program, dependencies: &Dependencies) -> Option<Self> {
        if dependencies.lack_a_relation {
            return None;
        }
        let mut weights = Self { relations: Vec::new() };
        weights.relations.resize_with(program.relations.len(), RelationWeights::default);
        for members in dependencies.components() {
            weights.weigh(program, dependencies, &members)?;
        }
        Some(weights)
    }

    /// Weighs the relations of one component: relations that depend on each other, or a single one. Everything else
    /// that they depend on has been weighed.
    fn weigh(&mut self, program: &Program, dependencies: &Dependencies, members: &[RelationId]) -> Option<()> {
        let inner = dependencies.within(members);
        if inner.iter().any(|edge| edge.through == Through::Operator) {
            return None;
        }
        let mut all: ByType = Vec::new();
        for member in members {
            for (type_id, weight) in self.of_expression(program, *member, program.expression(*member)?)? {
                add(&mut all, type_id, weight);
            }
        }
        let mut types = all.into_iter().map(|(type_id, weight)| TypeWeight {
            type_id,
            weight: if inner.is_empty() { weight } else { INFINITE },
            own_usersets: false,
            own_parents: false,
        });
        let types: Vec<TypeWeight> = types.by_ref().collect();
        for member in members {
            if let Some(relation) = self.relations.get_mut(member.index()) {
                *relation = RelationWeights { types: types.clone(), is_cyclic: !inner.is_empty() };
            }
        }
        // The relation has exactly one way back to itself, and no other relation is on that way.
        let ways_back: HashSet<Edge> = inner.into_iter().collect();
        let mut ways_back = ways_back.into_iter();
        if let (1, Some(Edge { to, tuples: Some(tuples), .. }), None) =
            (members.len(), ways_back.next(), ways_back.next())
        {
            self.mark_recursive(program, to, tuples)?;
        }
        Some(())
    }

    fn mark_recursive(&mut self, program: &Program, relation: RelationId, tuples: RelationId) -> Option<()> {
        let expression = program.expression(relation)?;
        for position in 0..self.relations.get(relation.index())?.types.len() {
            let type_id = self.relations.get(relation.index())?.types.get(position)?.type_id;
            let alone = self.is_else_flat(program, relation, expression, type_id);
            let weight = self.relations.get_mut(relation.index())?.types.get_mut(position)?;
            (weight.own_usersets, weight.own_parents) = (alone && tuples == relation, alone && tuples != relation);
        }
        Some(())
    }

    /// Returns whether an operand of `or` needs no level of tuples to reach users of the type, apart from the
    /// relation's own usersets and parents.
    fn is_else_flat(&self, program: &Program, relation: RelationId, operand: &Expression, type_id: TypeId) -> bool {
        let is_unreachable = |other: &RelationId| *other == relation || self.weight(*other, type_id).is_none();
        match operand {
            Expression::Union(operands) => {
                operands.iter().all(|operand| self.is_else_flat(program, relation, operand, type_id))
            }
            Expression::Direct => program.usersets_of(relation).all(|userset| is_unreachable(&userset)),
            Expression::TupleToUserset { computed, .. } => computed.iter().all(|(_, other)| is_unreachable(other)),
            Expression::Computed(_) | Expression::Intersection(_) | Expression::Difference(_) => {
                let weights = self.of_expression(program, relation, operand).unwrap_or_default();
                weights.iter().all(|(of, weight)| *of != type_id || *weight <= 1)
            }
        }
    }

    /// Computes the weights of an expression. Returns `None` where `OpenFGA` has none.
    fn of_expression(&self, program: &Program, relation: RelationId, expression: &Expression) -> Option<ByType> {
        let mut weights: ByType = Vec::new();
        match expression {
            Expression::Direct => {
                let direct = program.get(relation)?;
                for (type_id, _) in direct.objects.iter().chain(&direct.wildcards) {
                    add(&mut weights, *type_id, 1);
                }
                for (userset, _) in &direct.usersets {
                    self.add_level(&mut weights, *userset);
                }
            }
            Expression::TupleToUserset { computed, .. } => {
                for (_, parent) in computed {
                    self.add_level(&mut weights, *parent);
                }
            }
            Expression::Computed(computed) => {
                weights.extend(self.types_of(*computed).map(|of| (of.type_id, of.weight)));
            }
            Expression::Union(operands) => {
                for operand in operands {
                    for (type_id, weight) in self.of_expression(program, relation, operand)? {
                        add(&mut weights, type_id, weight);
                    }
                }
            }
            Expression::Intersection(operands) => {
                let (first, others) = operands.split_first()?;
                weights = self.of_expression(program, relation, first)?;
                for operand in others {
                    let other = self.of_expression(program, relation, operand)?;
                    weights.retain(|(type_id, _)| other.iter().any(|(of, _)| of == type_id));
                    raise(&mut weights, &other);
                }
                if weights.is_empty() {
                    return None;
                }
            }
            Expression::Difference(operands) => {
                let [base, subtract] = &**operands;
                weights = self.of_expression(program, relation, base)?;
                raise(&mut weights, &self.of_expression(program, relation, subtract)?);
            }
        }
        Some(weights)
    }

    fn add_level(&self, weights: &mut ByType, of: RelationId) {
        for TypeWeight { type_id, weight, .. } in self.types_of(of) {
            add(weights, *type_id, weight.saturating_add(1));
        }
    }

    fn types_of(&self, relation: RelationId) -> impl Iterator<Item = &TypeWeight> {
        self.relations.get(relation.index()).into_iter().flat_map(|relation| &relation.types)
    }

    fn of_type(&self, relation: RelationId, type_id: TypeId) -> Option<TypeWeight> {
        self.types_of(relation).find(|of| of.type_id == type_id).copied()
    }

    fn weight(&self, relation: RelationId, type_id: TypeId) -> Option<u32> {
        self.of_type(relation, type_id).map(|of| of.weight)
    }

    /// Returns whether the object's own tuples decide which users of the type hold the relation.
    fn is_flat(&self, relation: RelationId, type_id: TypeId) -> bool {
        self.weight(relation, type_id) == Some(1)
    }

    /// Returns whether `OpenFGA` reads these usersets of a relation apart from its other usersets.
    pub(crate) fn is_apart(&self, relation: RelationId, userset: RelationId, type_id: TypeId) -> bool {
        let is_cyclic = self.relations.get(relation.index()).is_none_or(|relation| relation.is_cyclic);
        !is_cyclic && self.is_flat(userset, type_id)
    }

    /// Returns whether `OpenFGA` follows the relation's own usersets level by level, in a search of its own.
    pub(crate) fn has_own_usersets(&self, relation: RelationId, type_id: TypeId) -> bool {
        self.of_type(relation, type_id).is_some_and(|of| of.own_usersets)
    }

    /// Returns whether `OpenFGA` follows the relation's own parents level by level, in a search of its own.
    pub(crate) fn has_own_parents(&self, relation: RelationId, type_id: TypeId) -> bool {
        self.of_type(relation, type_id).is_some_and(|of| of.own_parents)
    }

    /// Returns whether `OpenFGA` reads these parents together with the tuples that name the users of their relation.
    pub(crate) fn are_flat(&self, parents: &[(TypeId, RelationId)], type_id: TypeId) -> bool {
        let mut weights = parents.iter().filter_map(|(_, parent)| self.weight(*parent, type_id)).peekable();
        weights.peek().is_some() && weights.all(|weight| weight == 1)
    }
}

fn add(weights: &mut ByType, type_id: TypeId, weight: u32) {
    match weights.iter_mut().find(|(of, _)| *of == type_id) {
        Some((_, known)) => *known = weight.max(*known),
        None => weights.push((type_id, weight)),
    }
}

fn raise(weights: &mut ByType, by: &ByType) {
    for (type_id, weight) in weights {
        let other = by.iter().find(|(of, _)| of == type_id).map_or(0, |(_, weight)| *weight);
        *weight = other.max(*weight);
    }
}
