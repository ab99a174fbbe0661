//! The tuples that count under a model, in memory. They are kept by node, in the order in which the evaluator asks for
//! them, and also by user, to find the nodes that tuples give to a user.
//!
//! Cloning an index is cheap, because clones share their parts. A writer changes a clone and publishes it, so a
//! reader's clone is a snapshot that no write changes.
//!
//! The parts are a *base* and a few *layers* above it. The base consists of flat arrays that are made in one go. Each
//! layer holds the changes of some writes, and a look-up takes the newest layer that has the node. [`Index::compact`]
//! keeps the layers few, and small beside the base, as in a log-structured merge tree (O'Neil et al., 1996). So the
//! cost of a write grows with the longest list that it touches: for a group of a million members, a write copies 8 MB.
//! The writer makes a new base now and then; a reader never does.
//!
//! The contextual tuples of a request are one more layer, in a clone that only this request sees. They do not replace
//! stored tuples with the same names: both are there ([`Index::of_request`] says where that matters).
//!
//! Names and their numbers stay as long as the index lives, even those of deleted tuples. A restart forgets these.

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

use serde_json::{Map, Value};

use self::base::Base;
use self::entry::{Conditions, TupleEntry, TupleState};
use self::layer::Layer;
use self::names::Names;
use self::subjects::Packed;
use crate::language::condition::{CompiledCondition, ConditionError, TypedContext};
use crate::language::program::{Program, RelationId, TypeId};
use crate::language::tuple::{Object, RelationshipTuple};

pub(super) use subjects::Subjects;

/// A write with more changes than this makes a new base instead of a layer. The cost of a layer grows with the lists
/// that it touches, and the cost of a base only with the number of tuples.
const LAYER_CHANGES_MAX: usize = 1_000;
/// A layer is merged with the one below it unless that one is at least this many times as large. So an entry is copied
/// some tens of times before it reaches the base, and a look-up asks few layers.
const LAYER_GROWTH: usize = 8;
/// The layers become a new base once they hold more entries than this plus one [`BASE_SHARE`]th of the tuples. An entry
/// is a name, a node or a user, and takes about 100 bytes.
const LAYERS_MIN: usize = 4_096;
const BASE_SHARE: usize = 16;

/// The number of an object. Numbers are given in the order in which objects are first seen, and stay as long as the
/// index lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ObjectId(pub(super) u32);

impl ObjectId {
    /// Stands for the asker, if no tuple names it.
    pub(super) const UNKNOWN_ASKER: Self = Self(u32::MAX);
    /// Stands for any other object that no tuple names.
    pub(super) const UNKNOWN: Self = Self(u32::MAX - 1);
}

/// One relation of one object. Tuples are about a node, and a userset is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node {
    pub(super) relation: RelationId,
    pub(super) object: ObjectId,
}

/// The user of a tuple. Usersets sort first, so they are one slice of a sorted list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Subject {
    Userset(Node),
    Wildcard(TypeId),
    Object(TypeId, ObjectId),
}

/// Hashes the numbers of this module. Numbers are given in order, so nobody can choose them to collide.
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

    /// Hashes the variant of an enum.
    fn write_isize(&mut self, number: isize) {
        self.write_u32(u32::try_from(number).unwrap_or(u32::MAX));
    }

    fn write_u32(&mut self, number: u32) {
        // The multiplier is 2^64 divided by the golden ratio. It spreads consecutive numbers.
        self.0 = (self.0.rotate_left(5) ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// The condition of a tuple, and the values that the tuple brings for its parameters. The values are an error if they
/// do not fit the parameters, for example because the model changed.
#[derive(Debug)]
pub(super) struct StoredCondition {
    pub(super) condition: Arc<CompiledCondition>,
    pub(super) context: Result<TypedContext, ConditionError>,
}

impl StoredCondition {
    /// Returns whether the condition is met with the tuple's own values and those of the request.
    pub(super) fn is_met(&self, request: &Map<String, Value>) -> Result<bool, ConditionError> {
        match &self.context {
            Ok(of_tuple) => self.condition.is_met(of_tuple, request),
            Err(error) => Err(error.clone()),
        }
    }
}

/// The tuples that count under one model, in memory.
#[derive(Clone, Debug)]
pub(super) struct Index {
    base: Arc<Base>,
    /// The oldest layer comes first.
    layers: Vec<Arc<Layer>>,
    /// Hashes names. Its keys are secret, so nobody can choose names that collide.
    hasher: RandomState,
    count: usize,
    /// Whether a tuple of the request has the same names as another tuple.
    has_doubles: bool,
}

/// A tuple of the request that has the same names as another tuple.
pub(super) struct OfRequest<'a> {
    condition: Option<&'a Arc<StoredCondition>>,
}

impl OfRequest<'_> {
    /// Returns whether this is the one tuple with the given condition, among the tuples with the same names.
    pub(super) fn is(&self, condition: Option<&Arc<StoredCondition>>) -> bool {
        self.condition.map(Arc::as_ptr) == condition.map(Arc::as_ptr)
    }
}

/// Says whether tuples with a condition, without one, or both lie between a user and a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    Not,
    Plain,
    Conditioned,
    /// One with and one without a condition; the request brought one of them.
    Both,
}

impl Held {
    fn includes(self, wanted: Self) -> bool {
        self == wanted || self == Self::Both
    }
}

/// The number of an object, or the hash of a name that has no number yet.
enum Lookup {
    Found(ObjectId),
    New { hash: u64 },
}

/// A base that is being built.
struct Bulk {
    names: Names,
    entries: Vec<TupleEntry>,
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

    /// Removes tuples, and inserts those that the model admits. A tuple that exists is replaced, since its condition
    /// may differ. If several tuples have the same names, the last one counts.
    pub(super) fn change<T: Borrow<RelationshipTuple>>(
        &mut self,
        program: &Program,
        removed: &[RelationshipTuple],
        added: &[T],
    ) {
        let removed = removed.iter().filter_map(|tuple| entry::removed(program, tuple, |object| self.object(object)));
        let mut changes: Vec<TupleEntry> = removed.collect();
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

    /// Inserts those of the request's tuples that the model admits, beside the tuples that exist.
    pub(super) fn put_beside(&mut self, program: &Program, of_request: &[RelationshipTuple]) {
        let (mut conditions, mut names) = (Conditions::default(), Names::from(ObjectId(self.object_count())));
        let mut added: Vec<TupleEntry> = Vec::with_capacity(of_request.len());
        for tuple in of_request {
            added.extend(self.entry(program, tuple, &mut conditions, &mut names));
        }
        // The sort is stable, so the tuples about one node stay in the order of the request.
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
    ) -> Option<TupleEntry> {
        entry::written(program, tuple, conditions, |object| {
            let hash = match self.find(object) {
                Lookup::Found(number) => return number,
                Lookup::New { hash } => hash,
            };
            let name = object.as_str();
            names.find(hash, name).unwrap_or_else(|| names.push(&self.hasher, hash, name))
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

    /// Inserts any number of tuples that the model admits, as a new base.
    pub(super) fn load<T: Borrow<RelationshipTuple>>(
        &mut self,
        program: &Program,
        tuples: impl IntoIterator<Item = T>,
    ) {
        self.rebuild(|bulk| bulk.put_in(program, tuples));
    }

    /// Bounds the memory and the cost of the layers. Whoever keeps an index calls this after each change.
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

    /// Makes a new base of all tuples and of further changes.
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
        entries.retain(|entry| entry.state != TupleState::Absent);
        self.count = entries.len();
        self.layers = Vec::new();
        self.base = Arc::new(Base::new(names, &entries, &conditions));
    }

    /// Collects all tuples.
    fn entries(&self, conditions: &mut Conditions) -> Vec<TupleEntry> {
        let mut entries = Vec::with_capacity(self.count);
        self.base.entries(|node| self.layered(node).is_none(), conditions, &mut entries);
        let mut seen = HashSet::new();
        for (node, tuples) in self.layers.iter().rev().flat_map(|layer| layer.nodes()) {
            if !seen.insert(node) {
                continue;
            }
            entries.extend(tuples.plain.iter().map(|subject| TupleEntry {
                node,
                subject: *subject,
                state: TupleState::Plain,
            }));
            for (subject, condition) in &tuples.conditioned {
                let state = TupleState::Conditioned(conditions.push(Arc::clone(condition)));
                entries.push(TupleEntry { node, subject: (*subject).into(), state });
            }
        }
        entries
    }

    /// Returns the users of the tuples about a node that have no condition.
    pub(super) fn subjects(&self, node: Node) -> Subjects<'_> {
        Subjects(self.plain(node))
    }

    fn plain(&self, node: Node) -> &[Packed] {
        self.layered(node).map_or_else(|| self.base.plain(node), |tuples| &tuples.plain)
    }

    /// Returns the users of the tuples about a node that have a condition, sorted.
    pub(super) fn conditioned(&self, node: Node) -> &[(Subject, Arc<StoredCondition>)] {
        self.layered(node).map_or_else(|| self.base.conditioned(node), |tuples| &tuples.conditioned)
    }

    /// Returns the request's tuple about this node and user, if another tuple has the same names.
    pub(super) fn of_request(&self, node: Node, subject: Subject) -> Option<OfRequest<'_>> {
        if !self.has_doubles {
            return None;
        }
        let tuples = self.layered(node)?;
        let (_, condition) = tuples.of_request.iter().find(|(of, _)| *of == subject)?;
        Some(OfRequest { condition: condition.as_ref() })
    }

    /// Returns whether [`Index::of_request`] can return anything at all.
    pub(super) fn has_doubles(&self) -> bool {
        self.has_doubles
    }

    /// Returns the tuples about a node if they changed since the base was made.
    fn layered(&self, node: Node) -> Option<&layer::NodeTuples> {
        self.layers.iter().rev().find_map(|layer| layer.tuples(node))
    }

    /// Returns the nodes of the tuples without a condition that name a user, in no order.
    pub(super) fn nodes(&self, subject: Subject) -> impl Iterator<Item = Node> {
        self.holdings(subject, Held::Plain, None)
    }

    /// Returns the nodes of the tuples with a condition that name a user, in no order.
    pub(super) fn conditioned_nodes(&self, subject: Subject) -> impl Iterator<Item = (Node, &StoredCondition)> {
        self.with_conditions(self.holdings(subject, Held::Conditioned, None), subject)
    }

    /// Like [`Index::nodes`], for one relation only.
    pub(super) fn nodes_of(&self, subject: Subject, relation: RelationId) -> impl Iterator<Item = Node> {
        self.holdings(subject, Held::Plain, Some(relation))
    }

    /// Like [`Index::conditioned_nodes`], for one relation only.
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

    /// Returns the nodes of the wanted tuples that name a user, of one relation or of all.
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

    /// Returns the number of an object, if a tuple names it.
    pub(super) fn object(&self, object: &Object) -> Option<ObjectId> {
        match self.find(object) {
            Lookup::Found(number) => Some(number),
            Lookup::New { .. } => None,
        }
    }

    /// Like [`Index::object`], for many objects at once, which is faster than one at a time.
    pub(super) fn objects_of<'o>(&self, objects: impl Iterator<Item = &'o Object>) -> Vec<Option<ObjectId>> {
        let wanted: Vec<(u64, &str)> =
            objects.map(|object| (self.hasher.hash_one(object.as_str()), object.as_str())).collect();
        let mut found = self.base.names.find_all(&wanted);
        for ((hash, name), number) in wanted.iter().zip(&mut found).filter(|(_, number)| number.is_none()) {
            *number = self.layers.iter().find_map(|layer| layer.names.find(*hash, name));
        }
        found
    }

    fn find(&self, object: &Object) -> Lookup {
        let (name, hash) = (object.as_str(), self.hasher.hash_one(object.as_str()));
        let found = self.all_names().find_map(|names| names.find(hash, name));
        found.map_or(Lookup::New { hash }, Lookup::Found)
    }

    /// Returns the name of an object.
    pub(super) fn name(&self, object: ObjectId) -> Option<&str> {
        self.all_names().find_map(|names| names.name(object))
    }

    /// Returns the name of every object that a tuple names or once named.
    pub(super) fn objects(&self) -> impl Iterator<Item = &str> {
        self.all_names().flat_map(Names::iter)
    }

    /// Returns how many objects have a number. The numbers start at 0.
    pub(super) fn object_count(&self) -> u32 {
        self.layers.last().map_or_else(|| self.base.names.next(), |layer| layer.names.next()).0
    }

    /// Returns how many tuples count.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    fn all_names(&self) -> impl Iterator<Item = &Names> {
        std::iter::once(&self.base.names).chain(self.layers.iter().map(|layer| &layer.names))
    }
}

/// Returns the part of a list that belongs to a relation, or the whole list if `relation` is `None`. The list must be
/// sorted by relation.
fn part_of<T>(sorted: &[T], relation: Option<RelationId>, of: impl Fn(&T) -> RelationId) -> &[T] {
    let Some(relation) = relation else { return sorted };
    let start = sorted.partition_point(|item| of(item) < relation);
    let rest = sorted.get(start..).unwrap_or_default();
    rest.get(..rest.partition_point(|item| of(item) == relation)).unwrap_or_default()
}

/// Converts a number to a position.
fn at(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
