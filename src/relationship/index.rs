//! The tuples that count under the current model, in memory, in the order in which the evaluator asks for them.
//!
//! A clone is cheap and shares its parts: a writer changes a clone and publishes it, so a reader's clone is a snapshot
//! that no write can change. Only the parts that a write touches are copied.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use super::condition::{ConditionError, TypedContext};
use super::program::{AdmittedTuple, ConditionId, Program, RelationId, ResolvedUser, TypeId};
use super::tuple::{Object, RelationshipTuple};

/// Into so many parts the index is cut. A write copies the parts it touches, a clone counts every part: at 1 M tuples a
/// part holds about 1,000, and both costs are some microseconds.
const SHARDS: usize = 1024;

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

#[derive(Clone, Debug, Default)]
struct TupleShard {
    /// Tuples without a condition.
    plain: NumberMap<Node, Vec<Subject>>,
    /// Tuples with one. A tuple is in one of both: its identity is the three names.
    conditioned: NumberMap<Node, Vec<(Subject, Arc<StoredCondition>)>>,
}

/// The same tuples, by user.
#[derive(Clone, Debug, Default)]
struct ReverseShard {
    plain: NumberMap<Subject, Vec<Node>>,
    conditioned: NumberMap<Subject, Vec<(Node, Arc<StoredCondition>)>>,
}

type NameShard = HashMap<Object, ObjectId>;

/// Names are kept by number in parts of so many, so that a clone counts parts and not names.
const NAMES_PER_PART: usize = 1024;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Index {
    tuples: Vec<Arc<TupleShard>>,
    reverse: Vec<Arc<ReverseShard>>,
    names: Vec<Arc<NameShard>>,
    named: Vec<Arc<Vec<Object>>>,
    objects: u32,
    count: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        let (tuples, names) = (Arc::new(TupleShard::default()), Arc::new(NameShard::default()));
        let reverse = vec![Arc::new(ReverseShard::default()); SHARDS];
        Self {
            tuples: vec![tuples; SHARDS],
            reverse,
            names: vec![names; SHARDS],
            named: Vec::new(),
            objects: 0,
            count: 0,
        }
    }

    /// Puts in the tuples that the model admits. One that is in is replaced: it may have had another condition.
    pub(super) fn insert_all<T: Borrow<RelationshipTuple>>(
        &mut self,
        program: &Program,
        tuples: impl IntoIterator<Item = T>,
    ) {
        let mut resolved: Vec<(Node, Subject)> = Vec::new();
        for tuple in tuples {
            let tuple = tuple.borrow();
            let Ok(AdmittedTuple { relation, user, condition }) = program.admit(tuple) else { continue };
            let object = self.number(&tuple.object);
            let subject = subject(&user, |object| self.number(object));
            let node = Node { relation, object };
            if let Some((id, condition)) = condition {
                // Tuples before it in the same call must not come after it.
                self.insert_plain(std::mem::take(&mut resolved));
                let Some(compiled) = program.condition(id) else { continue };
                let stored = StoredCondition { condition: id, context: compiled.tuple_context(&condition.context()) };
                self.insert_conditioned(node, subject, Arc::new(stored));
            } else {
                resolved.push((node, subject));
            }
        }
        self.insert_plain(resolved);
    }

    fn insert_plain(&mut self, mut resolved: Vec<(Node, Subject)>) {
        resolved.sort_unstable();
        for same_node in resolved.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((node, _)) = same_node.first() else { continue };
            let Some(shard) = self.tuples.get_mut(shard_of(node)) else { continue };
            let shard = Arc::make_mut(shard);
            let subjects = shard.plain.entry(*node).or_default();
            let before = subjects.len();
            insert_sorted(subjects, same_node.iter().map(|(_, subject)| *subject));
            self.count += subjects.len() - before;
            if let Some(conditioned) = shard.conditioned.get_mut(node) {
                let before = conditioned.len();
                conditioned.retain(|(subject, _)| !same_node.contains(&(*node, *subject)));
                self.count -= before - conditioned.len();
            }
        }
        resolved.sort_unstable_by_key(|(node, subject)| (*subject, *node));
        for same_subject in resolved.chunk_by(|(_, a), (_, b)| a == b) {
            let Some((_, subject)) = same_subject.first() else { continue };
            let Some(shard) = self.reverse.get_mut(shard_of(subject)) else { continue };
            let shard = Arc::make_mut(shard);
            let nodes = shard.plain.entry(*subject).or_default();
            insert_sorted(nodes, same_subject.iter().map(|(node, _)| *node));
            if let Some(conditioned) = shard.conditioned.get_mut(subject) {
                conditioned.retain(|(node, _)| !same_subject.contains(&(*node, *subject)));
            }
        }
    }

    fn insert_conditioned(&mut self, node: Node, subject: Subject, condition: Arc<StoredCondition>) {
        self.take_out(node, subject);
        let Some(shard) = self.tuples.get_mut(shard_of(&node)) else { return };
        let subjects = Arc::make_mut(shard).conditioned.entry(node).or_default();
        if let Err(position) = subjects.binary_search_by(|(known, _)| known.cmp(&subject)) {
            subjects.insert(position, (subject, Arc::clone(&condition)));
            self.count += 1;
        }
        let Some(shard) = self.reverse.get_mut(shard_of(&subject)) else { return };
        let nodes = Arc::make_mut(shard).conditioned.entry(subject).or_default();
        if let Err(position) = nodes.binary_search_by(|(known, _)| known.cmp(&node)) {
            nodes.insert(position, (node, condition));
        }
    }

    /// Takes a tuple out, if it is in.
    pub(super) fn remove(&mut self, program: &Program, tuple: &RelationshipTuple) {
        // The names alone identify it: what is in may have another condition than the model wants of this one.
        let Ok(user) = program.user(&tuple.user) else { return };
        let Ok(relation) = program.relation_id(tuple.object.type_name(), tuple.relation.as_str()) else { return };
        let node = Node { relation, object: self.number(&tuple.object) };
        let subject = subject(&user, |object| self.number(object));
        self.take_out(node, subject);
    }

    fn take_out(&mut self, node: Node, subject: Subject) {
        self.take_out_of_reverse(node, subject);
        let Some(shard) = self.tuples.get_mut(shard_of(&node)) else { return };
        if !shard.plain.contains_key(&node) && !shard.conditioned.contains_key(&node) {
            return;
        }
        let shard = Arc::make_mut(shard);
        if let Some(subjects) = shard.plain.get_mut(&node) {
            if let Ok(position) = subjects.binary_search(&subject) {
                subjects.remove(position);
                self.count -= 1;
            }
            if subjects.is_empty() {
                shard.plain.remove(&node);
            }
        }
        if let Some(subjects) = shard.conditioned.get_mut(&node) {
            if let Ok(position) = subjects.binary_search_by(|(known, _)| known.cmp(&subject)) {
                subjects.remove(position);
                self.count -= 1;
            }
            if subjects.is_empty() {
                shard.conditioned.remove(&node);
            }
        }
    }

    fn take_out_of_reverse(&mut self, node: Node, subject: Subject) {
        let Some(shard) = self.reverse.get_mut(shard_of(&subject)) else { return };
        if !shard.plain.contains_key(&subject) && !shard.conditioned.contains_key(&subject) {
            return;
        }
        let shard = Arc::make_mut(shard);
        if let Some(nodes) = shard.plain.get_mut(&subject) {
            if let Ok(position) = nodes.binary_search(&node) {
                nodes.remove(position);
            }
            if nodes.is_empty() {
                shard.plain.remove(&subject);
            }
        }
        if let Some(nodes) = shard.conditioned.get_mut(&subject) {
            nodes.retain(|(known, _)| *known != node);
            if nodes.is_empty() {
                shard.conditioned.remove(&subject);
            }
        }
    }

    /// The users of the tuples about a node that have no condition, sorted.
    pub(super) fn subjects(&self, node: Node) -> &[Subject] {
        self.tuples.get(shard_of(&node)).and_then(|shard| shard.plain.get(&node)).map_or(&[], Vec::as_slice)
    }

    /// The users of the tuples about a node that have a condition, sorted.
    pub(super) fn conditioned(&self, node: Node) -> &[(Subject, Arc<StoredCondition>)] {
        let shard = self.tuples.get(shard_of(&node)).filter(|shard| !shard.conditioned.is_empty());
        shard.and_then(|shard| shard.conditioned.get(&node)).map_or(&[], Vec::as_slice)
    }

    /// What the tuples without a condition are about whose user is this one, in no order that matters.
    pub(super) fn nodes(&self, subject: Subject) -> impl Iterator<Item = Node> {
        let nodes = self.reverse.get(shard_of(&subject)).and_then(|shard| shard.plain.get(&subject));
        nodes.map_or(&[][..], Vec::as_slice).iter().copied()
    }

    /// What the tuples with a condition are about whose user is this one.
    pub(super) fn conditioned_nodes(&self, subject: Subject) -> impl Iterator<Item = (Node, &StoredCondition)> {
        let shard = self.reverse.get(shard_of(&subject)).filter(|shard| !shard.conditioned.is_empty());
        let nodes = shard.and_then(|shard| shard.conditioned.get(&subject)).map_or(&[][..], Vec::as_slice);
        nodes.iter().map(|(node, condition)| (*node, condition.as_ref()))
    }

    /// The name of an object by its number.
    pub(super) fn name(&self, object: ObjectId) -> Option<&str> {
        let number = usize::try_from(object.0).ok()?;
        let part = self.named.get(number / NAMES_PER_PART)?;
        part.get(number % NAMES_PER_PART).map(Object::as_str)
    }

    /// The number of an object that a tuple names.
    pub(super) fn object(&self, object: &Object) -> Option<ObjectId> {
        self.names.get(name_shard_of(object)).and_then(|shard| shard.get(object)).copied()
    }

    /// Every object that a tuple names or once named.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.names.iter().flat_map(|shard| shard.keys())
    }

    /// How many tuples count.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    fn number(&mut self, object: &Object) -> ObjectId {
        if let Some(known) = self.object(object) {
            return known;
        }
        debug_assert!(self.objects < ObjectId::UNKNOWN.0, "four billion names do not fit into memory");
        let number = ObjectId(self.objects);
        self.objects = self.objects.saturating_add(1);
        if let Some(shard) = self.names.get_mut(name_shard_of(object)) {
            Arc::make_mut(shard).insert(object.clone(), number);
        }
        match self.named.last_mut().filter(|part| part.len() < NAMES_PER_PART) {
            Some(part) => Arc::make_mut(part).push(object.clone()),
            None => self.named.push(Arc::new(vec![object.clone()])),
        }
        number
    }
}

fn subject(user: &ResolvedUser<'_>, mut number: impl FnMut(&Object) -> ObjectId) -> Subject {
    match user {
        ResolvedUser::Object(type_id, object) => Subject::Object(*type_id, number(object)),
        ResolvedUser::Wildcard(type_id) => Subject::Wildcard(*type_id),
        ResolvedUser::Userset(relation, object) => {
            Subject::Userset(Node { relation: *relation, object: number(object) })
        }
    }
}

/// Puts sorted items into a sorted list. A few are put in one by one; for many, one sort is cheaper than moving the rest
/// of a long list for each.
fn insert_sorted<T: Ord>(list: &mut Vec<T>, added: impl ExactSizeIterator<Item = T>) {
    const FEW: usize = 16;
    if added.len() > FEW {
        list.extend(added);
        list.sort_unstable();
        list.dedup();
        return;
    }
    for item in added {
        if let Err(position) = list.binary_search(&item) {
            list.insert(position, item);
        }
    }
}

/// The part of a node's tuples, and of a subject's.
fn shard_of(key: &impl Hash) -> usize {
    let mut hasher = NumberHasher::default();
    key.hash(&mut hasher);
    // The upper bits: the map inside the shard uses the lower ones.
    usize::try_from(hasher.finish() >> 40).unwrap_or_default() % SHARDS
}

/// Names may be chosen to fall into one part; that only makes writes slower. The map inside hashes with a secret key.
fn name_shard_of(object: &Object) -> usize {
    let mixed =
        object.as_str().bytes().fold(0_usize, |mixed, byte| mixed.wrapping_mul(31).wrapping_add(usize::from(byte)));
    mixed % SHARDS
}
