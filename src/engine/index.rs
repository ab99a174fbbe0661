//! The tuples that count under the current model, in memory, in the order in which the evaluator asks for them, and in
//! the other direction, from users to what names them.
//!
//! A clone is cheap and shares its parts: a writer changes a clone and publishes it, so a reader's clone is a snapshot
//! that no write can change. The parts are a *base*, compact arrays that are made in one go, and above it a few
//! *layers*, each the changes of some writes. A write adds a layer; [`Index::compact`] keeps layers few and small beside
//! the base, as in a log-structured merge tree (O'Neil et al., 1996). The contextual tuples of a request are one more
//! layer, in a clone that only the request sees. They do not take the place of stored ones with the same names: both
//! are there ([`Index::of_request`] says where that matters).

mod base;
mod entry;
mod layer;
mod lists;
mod names;
mod subjects;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use self::base::Base;
use self::entry::{Conditions, Entry, State};
use self::layer::Layer;
use self::names::Names;
use self::subjects::Packed;
use crate::language::condition::{ConditionError, TypedContext};
use crate::language::program::{ConditionId, Program, RelationId, TypeId};
use crate::language::tuple::{Object, RelationshipTuple};

pub(super) use subjects::Subjects;

/// Changes beyond these are not a layer but a new base: a layer's cost grows with the lists that it touches, a base's
/// only with what there is.
const LAYER_CHANGES_MAX: usize = 1_000;
/// A layer is joined with the one below it unless that is so many times larger: an entry is copied some tens of times
/// before it gets into the base, and a look-up asks few layers.
const LAYER_GROWTH: usize = 8;
/// Layers together hold up to this, and one part in [`BASE_SHARE`] of the base; then they become a new base. A name, node
/// or user in a layer takes about 100 bytes.
const LAYERS_MIN: usize = 4_096;
const BASE_SHARE: usize = 16;

/// An object by number. Numbers are given in the order of first sight and are not given up while the index lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ObjectId(pub(super) u32);

impl ObjectId {
    /// An object that no tuple names, when it is the one who asks.
    pub(super) const UNKNOWN_ASKER: Self = Self(u32::MAX);
    /// Any other object that no tuple names.
    pub(super) const UNKNOWN: Self = Self(u32::MAX - 1);
}

/// A relation of an object: what tuples are about, and what a userset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node {
    pub(super) relation: RelationId,
    pub(super) object: ObjectId,
}

/// The user of a tuple. The order puts usersets first, so that they are one slice of a sorted list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Subject {
    Userset(Node),
    Wildcard(TypeId),
    Object(TypeId, ObjectId),
}

/// Hashes the numbers of this module. They are given in order, so nobody can choose them to collide.
#[derive(Clone, Copy, Default)]
pub(super) struct NumberHasher(u64);

pub(super) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    /// The variant of an enum.
    fn write_isize(&mut self, number: isize) {
        self.write_u32(u32::try_from(number).unwrap_or(u32::MAX));
    }

    fn write_u32(&mut self, number: u32) {
        // The multiplier is 2^64 divided by the golden ratio: it spreads consecutive numbers.
        self.0 = (self.0.rotate_left(5) ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// The condition of a tuple, with what it brings along for the parameters; the error, where that does not fit them (any
/// more).
#[derive(Debug)]
pub(super) struct StoredCondition {
    pub(super) condition: ConditionId,
    pub(super) context: Result<TypedContext, ConditionError>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Index {
    base: Arc<Base>,
    /// Oldest first.
    layers: Vec<Arc<Layer>>,
    /// Of names. Its keys are secret, so nobody can choose names that collide.
    hasher: RandomState,
    count: usize,
    /// Whether a tuple of the request has the names of another one.
    has_doubles: bool,
}

/// A tuple of the request.
pub(super) struct OfRequest<'a> {
    condition: Option<&'a Arc<StoredCondition>>,
}

impl OfRequest<'_> {
    /// Whether it is the one with this condition, of those in the index.
    pub(super) fn is(&self, condition: Option<&Arc<StoredCondition>>) -> bool {
        self.condition.map(Arc::as_ptr) == condition.map(Arc::as_ptr)
    }
}

/// What is between a user and a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    Not,
    Plain,
    Conditioned,
    /// A tuple of the request is beside a stored one.
    Both,
}

impl Held {
    fn includes(self, wanted: Self) -> bool {
        self == wanted || self == Self::Both
    }
}

/// A base in the making.
struct Bulk {
    names: Names,
    entries: Vec<Entry>,
    conditions: Conditions,
    hasher: RandomState,
}

impl Bulk {
    fn put_in<T: Borrow<RelationshipTuple>>(&mut self, program: &Program, tuples: impl IntoIterator<Item = T>) {
        let Self { names, entries, conditions, hasher } = self;
        for tuple in tuples {
            entries.extend(entry::written(program, tuple.borrow(), conditions, |object| {
                let (name, hash) = (object.as_str(), hasher.hash_one(object.as_str()));
                names.find(hash, name).unwrap_or_else(|| names.push(hasher, hash, name))
            }));
        }
    }
}

impl Index {
    pub(super) fn new() -> Self {
        let base = Base::new(Names::from(ObjectId(0)), &[], &Conditions::default());
        Self { base: Arc::new(base), layers: Vec::new(), hasher: RandomState::new(), count: 0, has_doubles: false }
    }

    /// Takes tuples out that are in, and puts tuples in that the model admits. One that is in is replaced: it may have had
    /// another condition. Of several with the same names the last one counts.
    pub(super) fn change<T: Borrow<RelationshipTuple>>(
        &mut self,
        program: &Program,
        removed: &[RelationshipTuple],
        added: &[T],
    ) {
        let removed = removed.iter().filter_map(|tuple| entry::removed(program, tuple, |object| self.object(object)));
        let mut changes: Vec<Entry> = removed.collect();
        if changes.len() + added.len() > LAYER_CHANGES_MAX {
            self.rebuild(|bulk| {
                bulk.entries.append(&mut changes);
                bulk.put_in(program, added.iter().map(Borrow::borrow));
            });
            return;
        }
        let (mut conditions, mut names) = (Conditions::default(), Names::from(ObjectId(self.object_count())));
        for tuple in added {
            changes.extend(self.entry(program, tuple.borrow(), &mut conditions, &mut names));
        }
        entry::settle(&mut changes);
        if changes.is_empty() {
            return;
        }
        self.add_layer(Layer::new(self, names, changes, &conditions));
    }

    /// Puts the tuples of a request that the model admits beside those that are in.
    pub(super) fn put_beside(&mut self, program: &Program, of_request: &[RelationshipTuple]) {
        let (mut conditions, mut names) = (Conditions::default(), Names::from(ObjectId(self.object_count())));
        let mut added: Vec<Entry> = Vec::with_capacity(of_request.len());
        for tuple in of_request {
            added.extend(self.entry(program, tuple, &mut conditions, &mut names));
        }
        // Stable: those about one node stay in the order of the request.
        added.sort_by_key(|entry| (entry.node.object, entry.node.relation));
        if !added.is_empty() {
            self.add_layer(Layer::of_request(self, names, &added, &conditions));
        }
    }

    fn entry(
        &self,
        program: &Program,
        tuple: &RelationshipTuple,
        conditions: &mut Conditions,
        names: &mut Names,
    ) -> Option<Entry> {
        entry::written(program, tuple, conditions, |object| {
            self.find(object).unwrap_or_else(|hash| {
                let name = object.as_str();
                names.find(hash, name).unwrap_or_else(|| names.push(&self.hasher, hash, name))
            })
        })
    }

    fn add_layer(&mut self, layer: Layer) {
        for (node, tuples) in layer.nodes() {
            let before = self.plain(node).len() + self.conditioned(node).len();
            self.count = self.count + tuples.plain.len() + tuples.conditioned.len() - before;
            self.has_doubles |= !tuples.of_request.is_empty();
        }
        self.layers.push(Arc::new(layer));
    }

    /// Puts in any number of tuples that the model admits.
    pub(super) fn load<T: Borrow<RelationshipTuple>>(
        &mut self,
        program: &Program,
        tuples: impl IntoIterator<Item = T>,
    ) {
        self.rebuild(|bulk| bulk.put_in(program, tuples));
    }

    /// Bounds what the layers take and cost, for whoever keeps this state.
    pub(super) fn compact(&mut self) {
        while let [.., below, top] = self.layers.as_slice()
            && below.len() < LAYER_GROWTH * top.len()
        {
            let mut joined = Layer::clone(below);
            joined.absorb(&self.hasher, top);
            self.layers.truncate(self.layers.len() - 2);
            self.layers.push(Arc::new(joined));
        }
        let held: usize = self.layers.iter().map(|layer| layer.len()).sum();
        if held > LAYERS_MIN + self.count / BASE_SHARE {
            self.rebuild(|_| {});
        }
    }

    /// Makes a new base of everything that is in, with more changes.
    fn rebuild(&mut self, change: impl FnOnce(&mut Bulk)) {
        let mut names = self.base.names.clone();
        for layer in &self.layers {
            names.append(&self.hasher, &layer.names);
        }
        let mut conditions = Conditions::default();
        let entries = self.entries(&mut conditions);
        let mut bulk = Bulk { names, entries, conditions, hasher: self.hasher.clone() };
        change(&mut bulk);
        let Bulk { mut names, mut entries, conditions, .. } = bulk;
        names.close_page();
        entry::settle(&mut entries);
        entries.retain(|entry| entry.state != State::Absent);
        self.count = entries.len();
        self.layers = Vec::new();
        self.base = Arc::new(Base::new(names, &entries, &conditions));
    }

    /// All tuples.
    fn entries(&self, conditions: &mut Conditions) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(self.count);
        self.base.entries(|node| self.layered(node).is_none(), conditions, &mut entries);
        let mut seen = HashSet::new();
        for (node, tuples) in self.layers.iter().rev().flat_map(|layer| layer.nodes()) {
            if !seen.insert(node) {
                continue;
            }
            entries.extend(tuples.plain.iter().map(|subject| Entry { node, subject: *subject, state: State::Plain }));
            for (subject, condition) in &tuples.conditioned {
                let state = State::Conditioned(conditions.push(Arc::clone(condition)));
                entries.push(Entry { node, subject: (*subject).into(), state });
            }
        }
        entries
    }

    /// The users of the tuples about a node that have no condition.
    pub(super) fn subjects(&self, node: Node) -> Subjects<'_> {
        Subjects(self.plain(node))
    }

    fn plain(&self, node: Node) -> &[Packed] {
        self.layered(node).map_or_else(|| self.base.plain(node), |tuples| &tuples.plain)
    }

    /// The users of the tuples about a node that have a condition, sorted.
    pub(super) fn conditioned(&self, node: Node) -> &[(Subject, Arc<StoredCondition>)] {
        self.layered(node).map_or_else(|| self.base.conditioned(node), |tuples| &tuples.conditioned)
    }

    /// The request's tuple, where it stands beside another one about the same node and user. `None` where there is one
    /// tuple at most.
    pub(super) fn of_request(&self, node: Node, subject: Subject) -> Option<OfRequest<'_>> {
        if !self.has_doubles {
            return None;
        }
        let tuples = self.layered(node)?;
        let (_, condition) = tuples.of_request.iter().find(|(of, _)| *of == subject)?;
        Some(OfRequest { condition: condition.as_ref() })
    }

    /// Whether [`Index::of_request`] has anything to say.
    pub(super) fn has_doubles(&self) -> bool {
        self.has_doubles
    }

    /// The tuples about a node, if they changed since the base was made.
    fn layered(&self, node: Node) -> Option<&layer::NodeTuples> {
        self.layers.iter().rev().find_map(|layer| layer.tuples(node))
    }

    /// The nodes of the tuples without a condition that name a user, in no order.
    pub(super) fn nodes(&self, subject: Subject) -> impl Iterator<Item = Node> {
        self.holdings(subject, Held::Plain, None)
    }

    /// The nodes of the tuples with a condition that name a user, in no order.
    pub(super) fn conditioned_nodes(&self, subject: Subject) -> impl Iterator<Item = (Node, &StoredCondition)> {
        self.with_conditions(self.holdings(subject, Held::Conditioned, None), subject)
    }

    /// As [`Index::nodes`], of one relation alone.
    pub(super) fn nodes_of(&self, subject: Subject, relation: RelationId) -> impl Iterator<Item = Node> {
        self.holdings(subject, Held::Plain, Some(relation))
    }

    /// As [`Index::conditioned_nodes`], of one relation alone.
    pub(super) fn conditioned_nodes_of(
        &self,
        subject: Subject,
        relation: RelationId,
    ) -> impl Iterator<Item = (Node, &StoredCondition)> {
        self.with_conditions(self.holdings(subject, Held::Conditioned, Some(relation)), subject)
    }

    fn with_conditions(
        &self,
        nodes: impl Iterator<Item = Node>,
        subject: Subject,
    ) -> impl Iterator<Item = (Node, &StoredCondition)> {
        nodes.flat_map(move |node| {
            let subjects = self.conditioned(node);
            let (start, end) = (
                subjects.partition_point(|(known, _)| *known < subject),
                subjects.partition_point(|(known, _)| *known <= subject),
            );
            let of_subject = subjects.get(start..end).unwrap_or_default();
            of_subject.iter().map(move |(_, condition)| (node, &**condition))
        })
    }

    /// What a user is named by, of one relation or of all.
    fn holdings(&self, subject: Subject, wanted: Held, relation: Option<RelationId>) -> impl Iterator<Item = Node> {
        let mut changes: Vec<(Node, Held)> = Vec::new();
        for layer in &self.layers {
            let newer = part_of(layer.holdings(subject), relation, |(node, _)| node.relation);
            if !newer.is_empty() {
                changes = layer::overlaid(&changes, newer);
            }
        }
        let newer: Vec<Node> =
            changes.iter().filter(|(_, held)| held.includes(wanted)).map(|(node, _)| *node).collect();
        let older = part_of(self.base.nodes(subject, wanted), relation, |node| node.relation).iter().copied();
        older.filter(move |node| changes.binary_search_by_key(node, |(known, _)| *known).is_err()).chain(newer)
    }

    /// The number of an object that a tuple names.
    pub(super) fn object(&self, object: &Object) -> Option<ObjectId> {
        self.find(object).ok()
    }

    /// The numbers of many objects, of each that a tuple names.
    pub(super) fn objects_of<'o>(&self, objects: impl Iterator<Item = &'o Object>) -> Vec<Option<ObjectId>> {
        let wanted: Vec<(u64, &str)> =
            objects.map(|object| (self.hasher.hash_one(object.as_str()), object.as_str())).collect();
        let mut found = self.base.names.find_all(&wanted);
        for ((hash, name), number) in wanted.iter().zip(&mut found).filter(|(_, number)| number.is_none()) {
            *number = self.layers.iter().find_map(|layer| layer.names.find(*hash, name));
        }
        found
    }

    /// The number of an object, or the hash of its name.
    fn find(&self, object: &Object) -> Result<ObjectId, u64> {
        let (name, hash) = (object.as_str(), self.hasher.hash_one(object.as_str()));
        let found = self.all_names().find_map(|names| names.find(hash, name));
        found.ok_or(hash)
    }

    /// The name of an object.
    pub(super) fn name(&self, object: ObjectId) -> Option<&str> {
        self.all_names().find_map(|names| names.name(object))
    }

    /// The name of every object that a tuple names or once named.
    pub(super) fn objects(&self) -> impl Iterator<Item = &str> {
        self.all_names().flat_map(Names::iter)
    }

    /// So many objects have a number, from 0 on.
    pub(super) fn object_count(&self) -> u32 {
        self.layers.last().map_or_else(|| self.base.names.next(), |layer| layer.names.next()).0
    }

    /// How many tuples count.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    fn all_names(&self) -> impl Iterator<Item = &Names> {
        std::iter::once(&self.base.names).chain(self.layers.iter().map(|layer| &layer.names))
    }
}

/// The part of a list, sorted by relation, that is of one relation; all of it when `None`.
fn part_of<T>(sorted: &[T], relation: Option<RelationId>, of: impl Fn(&T) -> RelationId) -> &[T] {
    let Some(relation) = relation else { return sorted };
    let start = sorted.partition_point(|item| of(item) < relation);
    let rest = sorted.get(start..).unwrap_or_default();
    rest.get(..rest.partition_point(|item| of(item) == relation)).unwrap_or_default()
}

/// A number as a position.
fn at(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
