//! Which objects a list of objects has to check.
//!
//! `OpenFGA` lists objects outwards from the user: along the first operand of `and` and the base of `but not`, and then
//! checks what it came to. A condition that fails on the way fails the list, also where it leads to no object; one that the
//! way does not come to fails nothing. So the way is gone here, too: it finds every object that a check could allow.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{CheckError, STEPS_BETWEEN_INTERRUPTS};
use crate::relationship::index::{Index, Node, ObjectId, StoredCondition, Subject};
use crate::relationship::program::{Expression, Program, RelationId, ResolvedUser, TypeId};

/// The objects on which the user could hold the relation, each once; the asker's own may be one that no tuple names.
///
/// # Errors
/// The first condition that fails on the way, and when `go_on` said to stop.
pub(in crate::relationship) fn candidates(
    program: &Program,
    index: &Index,
    context: &Map<String, Value>,
    user: &ResolvedUser<'_>,
    target: RelationId,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Vec<ObjectId>, CheckError> {
    let links = Links::to(program, target);
    let mut walk =
        Walk { program, index, context, links, reached: HashSet::new(), pending: Vec::new(), steps: 0, go_on };
    match user {
        ResolvedUser::Object(type_id, object) => {
            if let Some(object) = index.object(object) {
                walk.follow(Subject::Object(*type_id, object))?;
            }
            walk.follow(Subject::Wildcard(*type_id))?;
        }
        ResolvedUser::Wildcard(type_id) => walk.follow(Subject::Wildcard(*type_id))?,
        ResolvedUser::Userset(relation, object) => {
            // A userset holds its own relation, whether or not a tuple names its object.
            let object = index.object(object).unwrap_or(ObjectId::UNKNOWN_ASKER);
            walk.reach(Node { relation: *relation, object });
        }
    }
    let mut found = Vec::new();
    while let Some(node) = walk.pending.pop() {
        if node.relation == target {
            found.push(node.object);
        }
        walk.go_on_from(node)?;
    }
    Ok(found)
}

/// Whether the way from such users leads to the relation: from objects of a type, or from usersets of a relation.
pub(in crate::relationship) fn leads_to(
    program: &Program,
    type_id: TypeId,
    userset: Option<RelationId>,
    target: RelationId,
) -> bool {
    let links = Links::to(program, target);
    match userset {
        Some(userset) => links.all.contains(&userset),
        None => links.direct.iter().any(|relation| program.takes(*relation, type_id)),
    }
}

/// How the relations that matter for the target follow from others.
#[derive(Default)]
struct Links {
    /// All of them, and the target.
    all: HashSet<RelationId>,
    /// Those that tuples are written to directly.
    direct: HashSet<RelationId>,
    /// By a relation: those of the same object that are computed from it.
    computed: HashMap<RelationId, Vec<RelationId>>,
    /// By a relation: its type, and for those that ask a parent for it the tupleset and the relation.
    from_parent: HashMap<RelationId, Vec<(TypeId, RelationId, RelationId)>>,
}

impl Links {
    fn to(program: &Program, target: RelationId) -> Self {
        let mut links = Self::default();
        links.all.insert(target);
        let mut pending = vec![target];
        while let Some(relation) = pending.pop() {
            let mut needed: Vec<RelationId> = Vec::new();
            for leaf in program.expression(relation).map(followed).unwrap_or_default() {
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
}

/// The leaves that are followed: of all operands of `or`, of the first of `and` and of `but not`.
fn followed(expression: &Expression) -> Vec<&Expression> {
    let (mut leaves, mut pending) = (Vec::new(), vec![expression]);
    while let Some(expression) = pending.pop() {
        match expression {
            Expression::Union(operands) => pending.extend(operands),
            Expression::Intersection(operands) => pending.extend(operands.first()),
            Expression::Difference(operands) => pending.extend(operands.first()),
            leaf @ (Expression::Direct | Expression::Computed(_) | Expression::TupleToUserset { .. }) => {
                leaves.push(leaf);
            }
        }
    }
    leaves
}

struct Walk<'a, 'b> {
    program: &'a Program,
    index: &'a Index,
    context: &'a Map<String, Value>,
    links: Links,
    reached: HashSet<Node>,
    pending: Vec<Node>,
    steps: u64,
    go_on: &'b mut dyn FnMut() -> bool,
}

impl Walk<'_, '_> {
    fn reach(&mut self, node: Node) {
        if self.reached.insert(node) {
            self.pending.push(node);
        }
    }

    fn go_on_from(&mut self, node: Node) -> Result<(), CheckError> {
        self.follow(Subject::Userset(node))?;
        for relation in self.links.computed.get(&node.relation).cloned().unwrap_or_default() {
            self.reach(Node { relation, object: node.object });
        }
        for (of, tupleset, relation) in self.links.from_parent.get(&node.relation).cloned().unwrap_or_default() {
            for child in self.named_by(Subject::Object(of, node.object), &|named| named == tupleset)? {
                self.reach(Node { relation, object: child.object });
            }
        }
        Ok(())
    }

    /// Along the tuples that name a user.
    fn follow(&mut self, subject: Subject) -> Result<(), CheckError> {
        let direct = std::mem::take(&mut self.links.direct);
        let found = self.named_by(subject, &|relation| direct.contains(&relation));
        self.links.direct = direct;
        found?.into_iter().for_each(|node| self.reach(node));
        Ok(())
    }

    /// What the tuples are about that name a user and count.
    fn named_by(&mut self, subject: Subject, wanted: &dyn Fn(RelationId) -> bool) -> Result<Vec<Node>, CheckError> {
        let index = self.index;
        let mut found = Vec::new();
        for node in index.nodes(subject) {
            self.step()?;
            if wanted(node.relation) {
                found.push(node);
            }
        }
        for (node, stored) in index.conditioned_nodes(subject) {
            self.step()?;
            if wanted(node.relation) && self.is_met(stored)? {
                found.push(node);
            }
        }
        Ok(found)
    }

    fn is_met(&self, stored: &StoredCondition) -> Result<bool, CheckError> {
        let Some(condition) = self.program.condition(stored.condition) else { return Ok(false) };
        let context = stored.context.as_ref().map_err(Clone::clone)?;
        Ok(condition.is_met(context, self.context)?)
    }

    fn step(&mut self) -> Result<(), CheckError> {
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_BETWEEN_INTERRUPTS) && !(self.go_on)() {
            return Err(CheckError::Interrupted);
        }
        Ok(())
    }
}
