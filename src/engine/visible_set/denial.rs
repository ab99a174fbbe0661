//! Finds out whether a check of something that is not possible would be denied for certain, and could not fail.

use super::Question;
use super::graph::{Formula, Graph};
use crate::engine::evaluator::CheckError;
use crate::engine::index::{Node, ObjectId};
use crate::language::program::{Expression, RelationId};

/// How many computed relations are looked through to find a certain denial. Beyond that the question is left to a
/// check.
const LOOKS_MAX: u8 = 8;

/// A relation's place in the graph, and the object that it is about.
#[derive(Clone, Copy)]
pub(super) struct At {
    place: usize,
    relation: RelationId,
    object: ObjectId,
    /// How many computed relations may still be looked through.
    looks: u8,
}

impl At {
    pub(super) fn new(place: usize, relation: RelationId, object: ObjectId) -> Self {
        Self { place, relation, object, looks: LOOKS_MAX }
    }
}

/// A part of a relation's formula, with the same part of its definition.
#[derive(Clone, Copy)]
pub(super) struct FormulaPart<'f, 'a, 'd> {
    pub(super) formula: &'f Formula<'a>,
    pub(super) definition: &'d Expression,
}

/// Returns whether a check of a part of a definition would be denied for certain, given that the part is not possible.
/// Such a check cannot fail on a condition, a cycle or too many levels, because it comes to no tuple with a condition,
/// no userset and no parent. `is_possible` tells whether a part of the relation at a place is possible on the same
/// object.
pub(super) fn is_surely_denied<'f, 'a>(
    question: &Question<'a>,
    graph: &'f Graph<'a>,
    at: At,
    part: FormulaPart<'f, 'a, '_>,
    is_possible: &mut dyn FnMut(usize, &'f Formula<'a>) -> Result<bool, CheckError>,
) -> Result<bool, CheckError> {
    let Question { index, program, .. } = question;
    let part_of = |(formula, definition)| FormulaPart { formula, definition };
    Ok(match (part.formula, part.definition) {
        (_, Expression::Direct) => {
            let node = Node { relation: at.relation, object: at.object };
            // Usersets come first in the order of subjects.
            index.subjects(node).usersets().is_empty() && index.conditioned(node).is_empty()
        }
        (_, Expression::TupleToUserset { tupleset, .. }) => {
            let node = Node { relation: *tupleset, object: at.object };
            index.subjects(node).is_empty() && index.conditioned(node).is_empty()
        }
        (_, Expression::Computed(computed)) => {
            let Some(place) = graph.place(*computed) else {
                // The graph has every relation that the user could hold at all.
                return Ok(true);
            };
            match (graph.relations.get(place), program.expression(*computed), at.looks.checked_sub(1)) {
                (Some(relation), Some(definition), Some(looks)) => {
                    let at = At { place, relation: *computed, looks, ..at };
                    is_surely_denied(question, graph, at, part_of((&relation.formula, definition)), is_possible)?
                }
                _ => false,
            }
        }
        (Formula::Any(formulas), Expression::Union(definitions)) => {
            // If a union is not possible, none of its operands is.
            for part in formulas.iter().zip(definitions).map(part_of) {
                if !is_surely_denied(question, graph, at, part, is_possible)? {
                    return Ok(false);
                }
            }
            true
        }
        (Formula::All(formulas), Expression::Intersection(definitions)) => {
            for part in formulas.iter().zip(definitions).map(part_of) {
                if !is_possible(at.place, part.formula)? && is_surely_denied(question, graph, at, part, is_possible)? {
                    return Ok(true);
                }
            }
            false
        }
        (Formula::Minus(formulas, _), Expression::Difference(definitions)) => {
            let ((base, _), [definition, _]) = (&**formulas, &**definitions);
            is_surely_denied(question, graph, at, part_of((base, definition)), is_possible)?
        }
        // A formula has the shape of its definition, so this does not happen.
        (_, Expression::Union(_) | Expression::Intersection(_) | Expression::Difference(_)) => false,
    })
}
