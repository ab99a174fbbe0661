//! The bulk of an index. It is compact, made in one go and never changed, and every state that grew from it shares it.

use std::sync::Arc;

use super::entry::{Conditions, TupleEntry, TupleState};
use super::lists::Lists;
use super::names::Names;
use super::subjects::Packed;
use super::{Held, Node, ObjectId, StoredCondition, Subject};
use crate::language::program::RelationId;

#[derive(Debug)]
pub(super) struct Base {
    pub(super) names: Names,
    /// The users of tuples without a condition, sorted, by object and relation.
    plain: Lists<Packed>,
    /// The users of tuples with a condition, sorted, by object and relation.
    conditioned: Lists<(Subject, Arc<StoredCondition>)>,
    plain_nodes: Nodes,
    conditioned_nodes: Nodes,
}

/// The other direction: the nodes of the tuples that name a user.
#[derive(Debug, Default)]
struct Nodes {
    /// The nodes of each object, by the form in which a tuple names it: [`ITSELF`], or a relation's number plus one for
    /// a userset.
    of_objects: Lists<Node>,
    /// The nodes of each wildcard, by its type.
    of_wildcards: Lists<Node>,
}

const ITSELF: u32 = 0;

impl Base {
    /// Builds a base from entries that [`settle`](super::entry::settle) has sorted.
    pub(super) fn new(names: Names, entries: &[TupleEntry], conditions: &Conditions) -> Self {
        let is_plain = |entry: &&TupleEntry| entry.state == TupleState::Plain;
        let count = entries.iter().filter(is_plain).count();
        let plain =
            entries.iter().filter(is_plain).map(|entry| (entry.node.object.0, entry.node.relation.0, entry.subject));
        let conditioned = entries.iter().filter_map(|TupleEntry { node, subject, state }| {
            let TupleState::Conditioned(number) = state else { return None };
            Some((node.object.0, node.relation.0, ((*subject).into(), Arc::clone(conditions.get(*number)?))))
        });
        let is_conditioned = |entry: &&TupleEntry| matches!(entry.state, TupleState::Conditioned(_));
        Self {
            names,
            plain: Lists::from_sorted(count, plain),
            conditioned: Lists::from_sorted(0, conditioned),
            plain_nodes: Nodes::of(entries.iter().filter(is_plain)),
            conditioned_nodes: Nodes::of(entries.iter().filter(is_conditioned)),
        }
    }

    pub(super) fn plain(&self, node: Node) -> &[Packed] {
        self.plain.get(node.object.0, node.relation.0)
    }

    pub(super) fn conditioned(&self, node: Node) -> &[(Subject, Arc<StoredCondition>)] {
        self.conditioned.get(node.object.0, node.relation.0)
    }

    /// Returns the nodes of the tuples that name a user.
    pub(super) fn nodes(&self, subject: Subject, held: Held) -> &[Node] {
        match held {
            Held::Plain => self.plain_nodes.get(subject),
            Held::Conditioned => self.conditioned_nodes.get(subject),
            Held::Not | Held::Both => &[],
        }
    }

    /// Appends the entries about the wanted nodes, in order.
    pub(super) fn entries(
        &self,
        wanted: impl Fn(Node) -> bool,
        conditions: &mut Conditions,
        entries: &mut Vec<TupleEntry>,
    ) {
        for (node, subject) in self.plain.iter().map(|(object, relation, subject)| (node(object, relation), *subject)) {
            if wanted(node) {
                entries.push(TupleEntry { node, subject, state: TupleState::Plain });
            }
        }
        for (object, relation, (subject, condition)) in self.conditioned.iter() {
            let node = node(object, relation);
            if wanted(node) {
                let state = TupleState::Conditioned(conditions.push(Arc::clone(condition)));
                entries.push(TupleEntry { node, subject: (*subject).into(), state });
            }
        }
    }
}

fn node(object: u32, relation: u32) -> Node {
    Node { relation: RelationId(relation), object: ObjectId(object) }
}

impl Nodes {
    fn of<'a>(entries: impl Iterator<Item = &'a TupleEntry>) -> Self {
        let (mut of_objects, mut of_wildcards) = (Vec::new(), Vec::new());
        for TupleEntry { node, subject, .. } in entries {
            match (*subject).into() {
                Subject::Userset(userset) => of_objects.push((userset.object.0, userset.relation.0 + 1, *node)),
                Subject::Object(_, object) => of_objects.push((object.0, ITSELF, *node)),
                Subject::Wildcard(type_id) => of_wildcards.push((type_id.0, ITSELF, *node)),
            }
        }
        of_objects.sort_unstable();
        of_wildcards.sort_unstable();
        Self {
            of_objects: Lists::from_sorted(of_objects.len(), of_objects.into_iter()),
            of_wildcards: Lists::from_sorted(of_wildcards.len(), of_wildcards.into_iter()),
        }
    }

    fn get(&self, subject: Subject) -> &[Node] {
        match subject {
            Subject::Userset(userset) => self.of_objects.get(userset.object.0, userset.relation.0 + 1),
            Subject::Object(_, object) => self.of_objects.get(object.0, ITSELF),
            Subject::Wildcard(type_id) => self.of_wildcards.get(type_id.0, ITSELF),
        }
    }
}
