//! What a relation of an object rests on, looked at for the sake of its conditions alone.
//!
//! `OpenFGA` lists users outwards from the object, and fails where a condition on the way fails, also when the tuple
//! would name nobody else. Checks of every user do not see that, so it is looked for once.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::CheckError;
use crate::relationship::index::{Index, Node, Subject};
use crate::relationship::program::{Expression, Program, RelationId, TypeId};

/// After so many conditions of one object the caller is asked whether to go on.
const CONDITIONS_BETWEEN_INTERRUPTS: usize = 64;

/// Fails with the first condition that fails among the tuples that the answer about the node can rest on.
pub(in crate::relationship) fn check_all(
    program: &Program,
    index: &Index,
    context: &Map<String, Value>,
    node: Node,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<(), CheckError> {
    let (mut seen, mut pending) = (HashSet::from([node]), vec![node]);
    while let Some(node) = pending.pop() {
        for (of, computed) in program.expression(node.relation).into_iter().flat_map(|e| tuples_of(e, node)) {
            for subject in met(program, index, context, of, go_on)? {
                let next = next(subject, computed);
                pending.extend(next.filter(|next| seen.insert(*next)));
            }
        }
        let computed = program.expression(node.relation).into_iter().flat_map(computed_of);
        let computed = computed.map(|relation| Node { relation, object: node.object });
        pending.extend(computed.filter(|next| seen.insert(*next)));
    }
    Ok(())
}

/// The users of the tuples about a node that count.
fn met(
    program: &Program,
    index: &Index,
    context: &Map<String, Value>,
    node: Node,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Vec<Subject>, CheckError> {
    if !go_on() {
        return Err(CheckError::Interrupted);
    }
    let mut subjects: Vec<Subject> = index.subjects(node).iter().collect();
    for (number, (subject, stored)) in index.conditioned(node).iter().enumerate() {
        if number % CONDITIONS_BETWEEN_INTERRUPTS == 0 && !go_on() {
            return Err(CheckError::Interrupted);
        }
        let Some(condition) = program.condition(stored.condition) else { continue };
        let of_tuple = stored.context.as_ref().map_err(Clone::clone)?;
        if condition.is_met(of_tuple, context)? {
            subjects.push(*subject);
        }
    }
    Ok(subjects)
}

type Asked<'a> = Option<&'a [(TypeId, RelationId)]>;

/// The nodes whose tuples an expression looks at, with what it asks of the objects that they name.
fn tuples_of(expression: &Expression, node: Node) -> Vec<(Node, Asked<'_>)> {
    let leaves = leaves(expression).into_iter();
    leaves
        .filter_map(|leaf| match leaf {
            Expression::Direct => Some((node, None)),
            Expression::TupleToUserset { tupleset, computed } => {
                Some((Node { relation: *tupleset, object: node.object }, Some(computed.as_slice())))
            }
            Expression::Computed(_)
            | Expression::Union(_)
            | Expression::Intersection(_)
            | Expression::Difference(_) => None,
        })
        .collect()
}

fn computed_of(expression: &Expression) -> Vec<RelationId> {
    let leaves = leaves(expression).into_iter();
    leaves.filter_map(|leaf| if let Expression::Computed(relation) = leaf { Some(*relation) } else { None }).collect()
}

fn leaves(expression: &Expression) -> Vec<&Expression> {
    let (mut leaves, mut pending) = (Vec::new(), vec![expression]);
    while let Some(expression) = pending.pop() {
        match expression {
            Expression::Union(operands) | Expression::Intersection(operands) => pending.extend(operands),
            Expression::Difference(operands) => pending.extend(operands.iter()),
            leaf @ (Expression::Direct | Expression::Computed(_) | Expression::TupleToUserset { .. }) => {
                leaves.push(leaf);
            }
        }
    }
    leaves
}

fn next(subject: Subject, asked: Asked<'_>) -> Option<Node> {
    match (subject, asked) {
        (Subject::Userset(node), None) => Some(node),
        (Subject::Object(type_id, object), Some(asked)) => {
            let (_, relation) = asked.iter().find(|(of, _)| *of == type_id)?;
            Some(Node { relation: *relation, object })
        }
        (Subject::Userset(_), Some(_)) | (Subject::Object(..), None) | (Subject::Wildcard(_), _) => None,
    }
}
