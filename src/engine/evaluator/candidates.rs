//! Finds the objects of a list, starting from the user.
//!
//! `OpenFGA` has two ways of listing objects, and this module follows both.
//!
//! 1. *As sets*, for a single user, if the model has weights. For each relation on the way it finds the set of objects
//!    on which the user holds that relation. All operands count, and there is no limit of levels. A condition that
//!    fails makes the list fail if its tuple names the user, or a userset or parent that the user holds.
//! 2. *The old way*, for usersets, for everybody, and for models without weights (see `language::program::weights`). It
//!    goes outwards along the first operand of `and` and the base of `but not`, at most 25 hops, and then checks each
//!    object that it came to. A condition that fails on the way makes the list fail. A condition off the way does not.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::{Map, Value};

use super::{CheckError, Evaluation, LEVELS_UNBOUNDED, Purpose, STEPS_BETWEEN_INTERRUPTS};
use crate::engine::index::{Index, Node, ObjectId, Subject};
use crate::language::program::{Expression, Program, RelationId, ResolvedUser, TypeId};

/// The old way ends after this many tuples and computed relations. `OpenFGA` has the same limit.
const HOPS_MAX: u32 = 25;

/// A question for a list of objects.
pub(in crate::engine) struct List<'a> {
    pub(in crate::engine) program: &'a Program,
    pub(in crate::engine) index: &'a Index,
    pub(in crate::engine) context: &'a Map<String, Value>,
    pub(in crate::engine) user: ResolvedUser<'a>,
    pub(in crate::engine) target: RelationId,
}

impl List<'_> {
    /// Calls `take` with each object on which the user holds the relation, once each and in no order, until `take`
    /// returns `false`. The user's own object may be one that no tuple names. `evaluation` must be one of this user.
    ///
    /// # Errors
    /// When a condition on the way fails, when a check fails, or when `go_on` returns `false`.
    pub(in crate::engine) fn for_objects(
        self,
        evaluation: Evaluation<'_>,
        go_on: &mut dyn FnMut() -> bool,
        take: &mut dyn FnMut(ObjectId) -> bool,
    ) -> Result<(), CheckError> {
        let as_sets = matches!(self.user, ResolvedUser::Object(..)) && self.program.weights().is_some();
        if as_sets { self.find(evaluation, go_on, take) } else { self.find_and_check(evaluation, go_on, take) }
    }

    /// Lists objects as sets. If the model combines conditions with `and` or `but not` on the way, nothing is handed
    /// over until the walk has ended: a condition that decides who is in the list may still fail.
    fn find(
        self,
        evaluation: Evaluation<'_>,
        go_on: &mut dyn FnMut() -> bool,
        take: &mut dyn FnMut(ObjectId) -> bool,
    ) -> Result<(), CheckError> {
        let links = Links::to(self.program, self.target, Operands::All);
        let waits = links.has_operators && links.take_conditions(self.program);
        let mut evaluation = evaluation.with_purpose(Purpose::Sets);
        let mut walk = Walk::new(&self, links, u32::MAX);
        walk.begin(&self.user, go_on)?;
        let mut found = Vec::new();
        while let Some((node, hops)) = walk.pending.pop_front() {
            let is_union = walk.links.unions.contains(&node.relation);
            if !is_union && !evaluation.check_node(node, LEVELS_UNBOUNDED, go_on)? {
                continue;
            }
            if node.relation == self.target {
                if waits {
                    found.push(node.object);
                } else if !take(node.object) {
                    return Ok(());
                }
            }
            walk.go_on_from(node, hops, go_on)?;
        }
        for object in found {
            if !take(object) {
                break;
            }
        }
        Ok(())
    }

    /// Lists objects in the old way.
    fn find_and_check(
        self,
        mut evaluation: Evaluation<'_>,
        go_on: &mut dyn FnMut() -> bool,
        take: &mut dyn FnMut(ObjectId) -> bool,
    ) -> Result<(), CheckError> {
        let links = Links::to(self.program, self.target, Operands::First);
        let is_checked = links.has_operators;
        let mut walk = Walk::new(&self, links, HOPS_MAX);
        walk.begin(&self.user, go_on)?;
        let mut found = Vec::new();
        while let Some((node, hops)) = walk.pending.pop_front() {
            if node.relation == self.target {
                found.push(node.object);
            }
            walk.go_on_from(node, hops, go_on)?;
        }
        for object in found {
            if (!is_checked || evaluation.check_number(self.target, object, go_on)?) && !take(object) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Returns whether a path leads to the target from the objects of a type, or from the usersets of `userset` if that is
/// given. As in `OpenFGA`, a path also leads from usersets if tuples may name everybody of their type.
pub(in crate::engine) fn leads_to(
    program: &Program,
    type_id: TypeId,
    userset: Option<RelationId>,
    target: RelationId,
) -> bool {
    let links = Links::to(program, target, Operands::First);
    match userset {
        Some(userset) => {
            let takes_everybody = |relation: &RelationId| program.takes_everybody(*relation, type_id);
            links.all.contains(&userset) || links.direct.iter().any(takes_everybody)
        }
        None => links.direct.iter().any(|relation| program.takes(*relation, type_id)),
    }
}

/// Says which operands of `and` and `but not` are followed.
#[derive(Clone, Copy)]
enum Operands {
    First,
    All,
}

/// The relations that matter for a target, and how each of them leads to others.
#[derive(Default)]
struct Links {
    /// All relations that matter, including the target.
    all: HashSet<RelationId>,
    /// The relations that are held as soon as any operand is held.
    unions: HashSet<RelationId>,
    has_operators: bool,
    /// The relations that tuples are written to directly.
    direct: HashSet<RelationId>,
    /// The relations of the same object that are computed from each relation.
    computed: HashMap<RelationId, Vec<RelationId>>,
    /// The relations that ask a parent for each relation. An entry holds the parent's type, the tupleset and the asking
    /// relation.
    from_parent: HashMap<RelationId, Vec<(TypeId, RelationId, RelationId)>>,
}

impl Links {
    fn to(program: &Program, target: RelationId, operands: Operands) -> Self {
        let mut links = Self::default();
        links.all.insert(target);
        let mut pending = vec![target];
        while let Some(relation) = pending.pop() {
            let mut needed: Vec<RelationId> = Vec::new();
            let (leaves, is_union) = program.expression(relation).map(|e| followed(e, operands)).unwrap_or_default();
            if is_union {
                links.unions.insert(relation);
            }
            links.has_operators |= !is_union;
            for leaf in leaves {
                match leaf {
                    Expression::Direct => {
                        links.direct.insert(relation);
                        needed.extend(program.usersets_of(relation));
                    }
                    Expression::Computed(from) => {
                        links.computed.entry(*from).or_default().push(relation);
                        needed.push(*from);
                    }
                    Expression::TupleToUserset { tupleset, computed } => {
                        for (of, from) in computed {
                            links.from_parent.entry(*from).or_default().push((*of, *tupleset, relation));
                            needed.push(*from);
                        }
                    }
                    Expression::Union(_) | Expression::Intersection(_) | Expression::Difference(_) => {}
                }
            }
            pending.extend(needed.into_iter().filter(|relation| links.all.insert(*relation)));
        }
        links
    }

    /// Returns whether a tuple on the way may have a condition.
    fn take_conditions(&self, program: &Program) -> bool {
        let tuplesets = self.from_parent.values().flatten().map(|(_, tupleset, _)| tupleset);
        self.all.iter().chain(tuplesets).any(|relation| program.takes_conditions(*relation))
    }
}

/// Returns the leaves of a definition that are followed, and whether holding any one of them is enough.
fn followed(expression: &Expression, operands: Operands) -> (Vec<&Expression>, bool) {
    let (mut leaves, mut pending, mut is_union) = (Vec::new(), vec![expression], true);
    while let Some(expression) = pending.pop() {
        let of_operator = match expression {
            Expression::Union(operands) => {
                pending.extend(operands);
                continue;
            }
            Expression::Intersection(operands) => operands.as_slice(),
            Expression::Difference(operands) => operands.as_slice(),
            leaf @ (Expression::Direct | Expression::Computed(_) | Expression::TupleToUserset { .. }) => {
                leaves.push(leaf);
                continue;
            }
        };
        is_union = false;
        match operands {
            Operands::First => pending.extend(of_operator.first()),
            Operands::All => pending.extend(of_operator),
        }
    }
    (leaves, is_union)
}

struct Walk<'a> {
    index: &'a Index,
    context: &'a Map<String, Value>,
    links: Links,
    reached: HashSet<Node>,
    /// The nodes that were reached and still have to be followed, each with its number of hops.
    pending: VecDeque<(Node, u32)>,
    hops_max: u32,
    steps: u64,
}

impl<'a> Walk<'a> {
    fn new(list: &List<'a>, links: Links, hops_max: u32) -> Self {
        let List { index, context, .. } = *list;
        Self { index, context, links, reached: HashSet::new(), pending: VecDeque::new(), hops_max, steps: 0 }
    }

    fn begin(&mut self, user: &ResolvedUser<'_>, go_on: &mut dyn FnMut() -> bool) -> Result<(), CheckError> {
        match user {
            ResolvedUser::Object(type_id, object) => {
                if let Some(object) = self.index.object(object) {
                    self.follow(Subject::Object(*type_id, object), 1, go_on)?;
                }
                self.follow(Subject::Wildcard(*type_id), 1, go_on)
            }
            ResolvedUser::Wildcard(type_id) => self.follow(Subject::Wildcard(*type_id), 1, go_on),
            ResolvedUser::Userset(relation, object) => {
                // A userset holds its own relation, even if no tuple names its object.
                let object = self.index.object(object).unwrap_or(ObjectId::UNKNOWN_ASKER);
                self.reach(Node { relation: *relation, object }, 0)
            }
        }
    }

    fn reach(&mut self, node: Node, hops: u32) -> Result<(), CheckError> {
        if !self.reached.insert(node) {
            return Ok(());
        }
        if hops > self.hops_max {
            return Err(CheckError::TooDeep);
        }
        self.pending.push_back((node, hops));
        Ok(())
    }

    fn go_on_from(&mut self, node: Node, hops: u32, go_on: &mut dyn FnMut() -> bool) -> Result<(), CheckError> {
        let hops = hops.saturating_add(1);
        self.follow(Subject::Userset(node), hops, go_on)?;
        for relation in self.links.computed.get(&node.relation).cloned().unwrap_or_default() {
            self.reach(Node { relation, object: node.object }, hops)?;
        }
        for (of, tupleset, relation) in self.links.from_parent.get(&node.relation).cloned().unwrap_or_default() {
            let children = self.named_by(Subject::Object(of, node.object), &|named| named == tupleset, go_on)?;
            for child in children {
                self.reach(Node { relation, object: child.object }, hops)?;
            }
        }
        Ok(())
    }

    /// Follows the tuples that name a user.
    fn follow(&mut self, subject: Subject, hops: u32, go_on: &mut dyn FnMut() -> bool) -> Result<(), CheckError> {
        let direct = std::mem::take(&mut self.links.direct);
        let found = self.named_by(subject, &|relation| direct.contains(&relation), go_on);
        self.links.direct = direct;
        found?.into_iter().try_for_each(|node| self.reach(node, hops))
    }

    /// Returns the nodes of the tuples that name a user and count.
    fn named_by(
        &mut self,
        subject: Subject,
        wanted: &dyn Fn(RelationId) -> bool,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Node>, CheckError> {
        let index = self.index;
        let mut found = Vec::new();
        for node in index.nodes(subject) {
            self.step(go_on)?;
            if wanted(node.relation) {
                found.push(node);
            }
        }
        for (node, stored) in index.conditioned_nodes(subject) {
            self.step(go_on)?;
            if wanted(node.relation) && stored.is_met(self.context)? {
                found.push(node);
            }
        }
        Ok(found)
    }

    fn step(&mut self, go_on: &mut dyn FnMut() -> bool) -> Result<(), CheckError> {
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_BETWEEN_INTERRUPTS) && !go_on() {
            return Err(CheckError::Interrupted);
        }
        Ok(())
    }
}
