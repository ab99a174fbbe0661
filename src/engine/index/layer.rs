//! The changes since the base, or the layer below, was made.
//!
//! A layer holds the whole list of users for each node that it touches, so the newest layer with a node is the only one
//! to ask. For the nodes of a user it holds the changes only, because a million tuples may name `user:*`.

use std::sync::Arc;

use super::entry::{Conditions, TupleEntry, TupleState};
use super::names::Names;
use super::subjects::Packed;
use super::{Held, Index, Node, NumberMap, StoredCondition, Subject};

#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// The names that are new in this layer.
    pub(super) names: Names,
    tuples: NumberMap<Node, Arc<NodeTuples>>,
    /// The nodes that changed for each user, sorted, each with the kind of tuples that now lie between the two.
    holdings: NumberMap<Packed, Arc<[(Node, Held)]>>,
}

/// All tuples about one node.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeTuples {
    pub(super) plain: Vec<Packed>,
    pub(super) conditioned: Vec<(Subject, Arc<StoredCondition>)>,
    /// The users that several tuples name, if the request brought one of these tuples. Each user comes with the
    /// condition of the one tuple that counts when that user is the asker.
    pub(super) of_request: Vec<(Subject, Option<Arc<StoredCondition>>)>,
}

impl Layer {
    /// Makes the layer that puts a request's tuples beside those of an index. The entries must be sorted by node.
    pub(super) fn of_request(index: &Index, names: Names, added: &[TupleEntry], conditions: &Conditions) -> Self {
        let mut tuples = NumberMap::default();
        for about_node in added.chunk_by(|a, b| a.node == b.node) {
            if let Some(TupleEntry { node, .. }) = about_node.first() {
                tuples.insert(*node, Arc::new(beside(index, *node, about_node, conditions)));
            }
        }
        let mut changed: Vec<(Packed, Node)> = added.iter().map(|entry| (entry.subject, entry.node)).collect();
        changed.sort_unstable();
        changed.dedup();
        let mut holdings = NumberMap::default();
        for of_subject in changed.chunk_by(|a, b| a.0 == b.0) {
            if let Some((subject, _)) = of_subject.first() {
                let held = of_subject.iter().map(|(subject, node)| (*node, held(tuples.get(node), *subject)));
                holdings.insert(*subject, held.collect());
            }
        }
        Self { names, tuples, holdings }
    }

    /// Makes the layer that applies changes to an index. The entries must be settled.
    pub(super) fn new(index: &Index, names: Names, mut changes: Vec<TupleEntry>, conditions: &Conditions) -> Self {
        let mut tuples = NumberMap::default();
        for about_node in changes.chunk_by(|a, b| a.node == b.node) {
            if let Some(TupleEntry { node, .. }) = about_node.first() {
                tuples.insert(*node, Arc::new(changed(index, *node, about_node, conditions)));
            }
        }
        changes.sort_unstable_by_key(|change| (change.subject, change.node));
        let mut holdings = NumberMap::default();
        for of_subject in changes.chunk_by(|a, b| a.subject == b.subject) {
            if let Some(TupleEntry { subject, .. }) = of_subject.first() {
                holdings.insert(*subject, of_subject.iter().map(|change| (change.node, change.state.held())).collect());
            }
        }
        Self { names, tuples, holdings }
    }

    /// Returns roughly how much the layer holds: its names, nodes and users together.
    pub(super) fn len(&self) -> usize {
        self.names.len() + self.tuples.len() + self.holdings.len()
    }

    pub(super) fn tuples(&self, node: Node) -> Option<&NodeTuples> {
        self.tuples.get(&node).map(|tuples| &**tuples)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (Node, &NodeTuples)> {
        self.tuples.iter().map(|(node, tuples)| (*node, &**tuples))
    }

    pub(super) fn holdings(&self, subject: Subject) -> &[(Node, Held)] {
        self.holdings.get(&subject.into()).map_or(&[], |holdings| &**holdings)
    }

    /// Applies the changes of the layer above to this one.
    pub(super) fn absorb(&mut self, hasher: &std::hash::RandomState, above: &Self) {
        self.names.append(hasher, &above.names);
        self.tuples.extend(above.tuples.iter().map(|(node, tuples)| (*node, Arc::clone(tuples))));
        for (subject, newer) in &above.holdings {
            let both = match self.holdings.get(subject) {
                Some(older) => overlaid(older, newer).into(),
                None => Arc::clone(newer),
            };
            self.holdings.insert(*subject, both);
        }
    }
}

/// Merges two sorted lists. Of two entries about the same node, the newer one stays.
pub(super) fn overlaid(older: &[(Node, Held)], newer: &[(Node, Held)]) -> Vec<(Node, Held)> {
    let mut both = [newer, older].concat();
    // The sort is stable, so the newer entry is the first one of its node.
    both.sort_by_key(|(node, _)| *node);
    both.dedup_by_key(|(node, _)| *node);
    both
}

impl TupleState {
    fn held(self) -> Held {
        match self {
            Self::Absent => Held::Not,
            Self::Plain => Held::Plain,
            Self::Conditioned(_) => Held::Conditioned,
        }
    }
}

/// Returns the tuples about a node after some changes. It takes one pass, because the list may be long.
fn changed(index: &Index, node: Node, changes: &[TupleEntry], conditions: &Conditions) -> NodeTuples {
    let untouched = |subject: Packed| changes.binary_search_by_key(&subject, |change| change.subject).is_err();
    let mut plain: Vec<Packed> = index.plain(node).iter().copied().filter(|subject| untouched(*subject)).collect();
    let before = index.conditioned(node).iter().filter(|(subject, _)| untouched((*subject).into()));
    let mut conditioned: Vec<(Subject, Arc<StoredCondition>)> =
        before.map(|(subject, condition)| (*subject, Arc::clone(condition))).collect();
    for change in changes {
        match change.state {
            TupleState::Absent => {}
            TupleState::Plain => plain.push(change.subject),
            TupleState::Conditioned(number) => {
                let condition = conditions.get(number);
                conditioned.extend(condition.map(|condition| (change.subject.into(), Arc::clone(condition))));
            }
        }
    }
    // These are two sorted parts, and this sort merges them.
    plain.sort();
    conditioned.sort_by_key(|(subject, _)| *subject);
    NodeTuples { plain, conditioned, of_request: Vec::new() }
}

/// Returns the tuples about a node together with those of a request. `added` is in the request's order, and may repeat
/// the names of other tuples.
fn beside(index: &Index, node: Node, added: &[TupleEntry], conditions: &Conditions) -> NodeTuples {
    let mut tuples = NodeTuples {
        plain: index.plain(node).to_vec(),
        conditioned: index.conditioned(node).to_vec(),
        of_request: Vec::new(),
    };
    let is_stored = |subject: Packed| {
        let conditioned = index.conditioned(node).binary_search_by_key(&subject, |(known, _)| (*known).into());
        conditioned.is_ok() || index.plain(node).binary_search(&subject).is_ok()
    };
    let mut firsts: Vec<(Packed, Option<Arc<StoredCondition>>)> = Vec::new();
    for TupleEntry { subject, state, .. } in added {
        let condition = match state {
            TupleState::Absent => continue,
            TupleState::Plain => None,
            TupleState::Conditioned(number) => match conditions.get(*number) {
                Some(condition) => Some(Arc::clone(condition)),
                None => continue,
            },
        };
        let first = firsts.iter().find(|(known, _)| known == subject).map(|(_, condition)| condition.clone());
        if first.is_some() || is_stored(*subject) {
            tuples.of_request.push(((*subject).into(), first.unwrap_or_else(|| condition.clone())));
        }
        firsts.push((*subject, condition.clone()));
        match condition {
            None => tuples.plain.push(*subject),
            Some(condition) => tuples.conditioned.push(((*subject).into(), condition)),
        }
    }
    tuples.plain.sort();
    tuples.plain.dedup();
    tuples.conditioned.sort_by_key(|(subject, _)| *subject);
    tuples
}

/// Returns which tuples lie between a user and a node once a request's tuples are inserted.
fn held(tuples: Option<&Arc<NodeTuples>>, subject: Packed) -> Held {
    let Some(tuples) = tuples else { return Held::Not };
    let plain = tuples.plain.binary_search(&subject).is_ok();
    let conditioned = tuples.conditioned.binary_search_by_key(&subject, |(known, _)| (*known).into()).is_ok();
    match (plain, conditioned) {
        (true, true) => Held::Both,
        (true, false) => Held::Plain,
        (false, true) => Held::Conditioned,
        (false, false) => Held::Not,
    }
}
