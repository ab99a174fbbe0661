//! Tuples whose names are resolved, on their way into the index.

use std::collections::HashMap;
use std::sync::Arc;

use super::subjects::Packed;
use super::{Node, ObjectId, StoredCondition, Subject};
use crate::language::program::{AdmittedTuple, ConditionId, Program, ResolvedUser};
use crate::language::tuple::{Object, RelationshipTuple, TupleCondition};

/// The tuple between a node and a user, as it is now or as a change will leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TupleEntry {
    pub(super) node: Node,
    pub(super) subject: Packed,
    pub(super) state: TupleState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TupleState {
    /// There is no tuple.
    Absent,
    /// There is a tuple without a condition.
    Plain,
    /// There is a tuple with this one of the [`Conditions`].
    Conditioned(u32),
}

/// The conditions of tuples, by number. Equal ones are kept once.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    stored: Vec<Arc<StoredCondition>>,
    known: HashMap<(ConditionId, TupleCondition), u32>,
}

impl Conditions {
    pub(super) fn get(&self, number: u32) -> Option<&Arc<StoredCondition>> {
        self.stored.get(super::at(number))
    }

    pub(super) fn push(&mut self, stored: Arc<StoredCondition>) -> u32 {
        self.stored.push(stored);
        u32::try_from(self.stored.len() - 1).unwrap_or(u32::MAX)
    }

    fn number(&mut self, program: &Program, id: ConditionId, condition: &TupleCondition) -> Option<u32> {
        if let Some(known) = self.known.get(&(id, condition.clone())) {
            return Some(*known);
        }
        let compiled = program.condition(id)?;
        let context = compiled.tuple_context(&condition.context());
        let number = self.push(Arc::new(StoredCondition { condition: Arc::clone(compiled), context }));
        self.known.insert((id, condition.clone()), number);
        Some(number)
    }
}

/// Resolves a tuple that is to be inserted. Returns `None` if the model does not admit it.
pub(super) fn written(
    program: &Program,
    tuple: &RelationshipTuple,
    conditions: &mut Conditions,
    mut number: impl FnMut(&Object) -> ObjectId,
) -> Option<TupleEntry> {
    let AdmittedTuple { relation, user, condition } = program.admit(tuple).ok()?;
    let state = match condition {
        None => TupleState::Plain,
        Some((id, condition)) => TupleState::Conditioned(conditions.number(program, id, condition)?),
    };
    let node = Node { relation, object: number(&tuple.object) };
    Some(TupleEntry { node, subject: subject(&user, |object| Some(number(object)))?.into(), state })
}

/// Resolves a tuple that is to be removed. Its names alone identify it: the tuple in the index may have another
/// condition than the model demands now. Returns `None` if no tuple has these names.
pub(super) fn removed(
    program: &Program,
    tuple: &RelationshipTuple,
    number: impl Fn(&Object) -> Option<ObjectId>,
) -> Option<TupleEntry> {
    let user = program.user(&tuple.user).ok()?;
    let relation = program.relation_id(tuple.object.type_name(), tuple.relation.as_str()).ok()?;
    let node = Node { relation, object: number(&tuple.object)? };
    Some(TupleEntry { node, subject: subject(&user, number)?.into(), state: TupleState::Absent })
}

fn subject(user: &ResolvedUser<'_>, mut number: impl FnMut(&Object) -> Option<ObjectId>) -> Option<Subject> {
    Some(match user {
        ResolvedUser::Object(type_id, object) => Subject::Object(*type_id, number(object)?),
        ResolvedUser::Wildcard(type_id) => Subject::Wildcard(*type_id),
        ResolvedUser::Userset(relation, object) => {
            Subject::Userset(Node { relation: *relation, object: number(object)? })
        }
    })
}

/// Sorts entries by node and user, and keeps the last of several entries about the same tuple.
pub(super) fn settle(entries: &mut Vec<TupleEntry>) {
    // The sort has to be stable. It is fast where sorted parts follow each other, as they do here.
    entries.sort_by_key(|entry| (entry.node.object, entry.node.relation, entry.subject));
    entries.dedup_by(|later, kept| {
        let same = later.node == kept.node && later.subject == kept.subject;
        if same {
            *kept = *later;
        }
        same
    });
}
