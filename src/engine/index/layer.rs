//! What changed since the base was made, or since the layer below.
//!
//! A layer holds the whole list of users of every node that it touches, so that the newest layer with a node answers for
//! it alone. In the other direction it holds changes only: `user:*` may be named by a million tuples.

use std::sync::Arc;

use super::entry::{Conditions, Entry, State};
use super::names::Names;
use super::subjects::Packed;
use super::{Held, Index, Node, NumberMap, StoredCondition, Subject};

#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// The names that were new.
    pub(super) names: Names,
    tuples: NumberMap<Node, Arc<NodeTuples>>,
    /// By user: what each node that changed for it came to, sorted.
    holdings: NumberMap<Packed, Arc<[(Node, Held)]>>,
}

/// The tuples about one node.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeTuples {
    pub(super) plain: Vec<Packed>,
    pub(super) conditioned: Vec<(Subject, Arc<StoredCondition>)>,
    /// The objects that several tuples name, because the request brought some of them, with the condition of the tuple
    /// that counts alone for such an object when it asks.
    pub(super) of_request: Vec<(Subject, Option<Arc<StoredCondition>>)>,
}

impl Layer {
    /// The layer that puts the tuples of a request beside those of an index. The entries are sorted by node.
    pub(super) fn of_request(index: &Index, names: Names, added: &[Entry], conditions: &Conditions) -> Self {
        let mut tuples = NumberMap::default();
        for about_node in added.chunk_by(|a, b| a.node == b.node) {
            if let Some(Entry { node, .. }) = about_node.first() {
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

    /// The layer that makes these changes to an index. The entries are settled.
    pub(super) fn new(index: &Index, names: Names, mut changes: Vec<Entry>, conditions: &Conditions) -> Self {
        let mut tuples = NumberMap::default();
        for about_node in changes.chunk_by(|a, b| a.node == b.node) {
            if let Some(Entry { node, .. }) = about_node.first() {
                tuples.insert(*node, Arc::new(changed(index, *node, about_node, conditions)));
            }
        }
        changes.sort_unstable_by_key(|change| (change.subject, change.node));
        let mut holdings = NumberMap::default();
        for of_subject in changes.chunk_by(|a, b| a.subject == b.subject) {
            if let Some(Entry { subject, .. }) = of_subject.first() {
                holdings.insert(*subject, of_subject.iter().map(|change| (change.node, change.state.held())).collect());
            }
        }
        Self { names, tuples, holdings }
    }

    /// About how much it holds: names, nodes and users.
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

    /// Puts the changes of the layer above in.
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

/// Two sorted lists as one; of two entries about a node the newer one stays.
pub(super) fn overlaid(older: &[(Node, Held)], newer: &[(Node, Held)]) -> Vec<(Node, Held)> {
    let mut both = [newer, older].concat();
    // The sort is stable, so the newer entry is the first of its node.
    both.sort_by_key(|(node, _)| *node);
    both.dedup_by_key(|(node, _)| *node);
    both
}

impl State {
    fn held(self) -> Held {
        match self {
            Self::Absent => Held::Not,
            Self::Plain => Held::Plain,
            Self::Conditioned(_) => Held::Conditioned,
        }
    }
}

/// The tuples about a node after changes, in one pass: the list may be long.
fn changed(index: &Index, node: Node, changes: &[Entry], conditions: &Conditions) -> NodeTuples {
    let untouched = |subject: Packed| changes.binary_search_by_key(&subject, |change| change.subject).is_err();
    let mut plain: Vec<Packed> = index.plain(node).iter().copied().filter(|subject| untouched(*subject)).collect();
    let before = index.conditioned(node).iter().filter(|(subject, _)| untouched((*subject).into()));
    let mut conditioned: Vec<(Subject, Arc<StoredCondition>)> =
        before.map(|(subject, condition)| (*subject, Arc::clone(condition))).collect();
    for change in changes {
        match change.state {
            State::Absent => {}
            State::Plain => plain.push(change.subject),
            State::Conditioned(number) => {
                let condition = conditions.get(number);
                conditioned.extend(condition.map(|condition| (change.subject.into(), Arc::clone(condition))));
            }
        }
    }
    // Two sorted parts, which this sort merges.
    plain.sort();
    conditioned.sort_by_key(|(subject, _)| *subject);
    NodeTuples { plain, conditioned, of_request: Vec::new() }
}

/// The tuples about a node with those of a request, which may have the names of others. They are in the request's order.
fn beside(index: &Index, node: Node, added: &[Entry], conditions: &Conditions) -> NodeTuples {
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
    for Entry { subject, state, .. } in added {
        let condition = match state {
            State::Absent => continue,
            State::Plain => None,
            State::Conditioned(number) => match conditions.get(*number) {
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

/// What is between a user and a node after the tuples of a request came in.
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
