//! Looks at everything that a relation of an object rests on, to find what makes a list of users fail.
//!
//! `OpenFGA` lists users outwards from the object. The list fails if a condition on any path fails, even if its tuple
//! would add nobody. It also fails if any path is too long; a computed relation counts as a step there. Checks of
//! single users do not notice these failures, so this module looks for them once for each list.
//!
//! `OpenFGA` also leaves nobody under `but not` if the subtracted part comes back to itself through usersets and
//! computed relations alone. An `or`, an `and` or a `from` on the way makes it forget the cycle. [`Loops`] holds such
//! nodes. A list may thus lack somebody whom a check allows; otherwise it holds exactly those whom a check allows.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{CheckError, LEVELS_MAX, STEPS_BETWEEN_INTERRUPTS};
use crate::engine::index::{Index, Node, Subject};
use crate::language::program::{Expression, Program, RelationId, TypeId};

/// How many conditions of one object are evaluated until the caller is asked whether to go on.
const CONDITIONS_BETWEEN_INTERRUPTS: usize = 64;
/// How many nodes are visited before known ones are passed over. Through cycles there can be very many ways to the same
/// node; after this many visits only nodes that are new are looked at.
const VISITS_MAX: u64 = 100_000;

/// The nodes from which usersets and computed relations alone lead into a cycle. In a list of users, a `but not` that
/// subtracts one of these nodes leaves nobody.
#[derive(Debug, Default)]
pub(in crate::engine) struct Loops(HashSet<Node>);

impl Loops {
    pub(super) fn contains(&self, node: Node) -> bool {
        self.0.contains(&node)
    }
}

/// One look at everything that a node rests on.
pub(in crate::engine) struct Expansion<'a> {
    program: &'a Program,
    index: &'a Index,
    context: &'a Map<String, Value>,
    go_on: &'a mut dyn FnMut() -> bool,
    /// The nodes that each node rests on directly.
    next: HashMap<Node, Vec<Node>>,
    /// How many steps lie below each node that leads into no cycle.
    heights: HashMap<Node, u32>,
    path: Vec<Node>,
    visits: u64,
}

/// The length of the longest path below a node.
#[derive(Clone, Copy)]
struct Height {
    steps: u32,
    /// Whether a path came back to a node that is still being visited.
    is_cut: bool,
}

impl<'a> Expansion<'a> {
    pub(in crate::engine) fn new(
        program: &'a Program,
        index: &'a Index,
        context: &'a Map<String, Value>,
        go_on: &'a mut dyn FnMut() -> bool,
    ) -> Self {
        let (next, heights) = (HashMap::new(), HashMap::new());
        Self { program, index, context, go_on, next, heights, path: Vec::new(), visits: 0 }
    }

    /// Visits every node that the answer about this node can rest on, and returns the loops among them. Fails if a
    /// condition fails on the way, or if a way is too long.
    pub(in crate::engine) fn look_through(mut self, node: Node) -> Result<Loops, CheckError> {
        self.visit(node)?;
        Ok(self.loops())
    }

    /// Removes nodes that lead nowhere until none is left. Each remaining node leads into a cycle.
    fn loops(mut self) -> Loops {
        let program = self.program;
        let keeps_loops = |node: &Node| {
            matches!(program.expression(node.relation), Some(Expression::Direct | Expression::Computed(_)))
        };
        self.next.retain(|node, _| keeps_loops(node));
        let mut before: HashMap<Node, Vec<Node>> = HashMap::new();
        let mut left: HashMap<Node, usize> = HashMap::new();
        for (node, next) in &self.next {
            let ways = next.iter().filter(|next| self.next.contains_key(next));
            left.insert(*node, ways.clone().count());
            for next in ways {
                before.entry(*next).or_default().push(*node);
            }
        }
        let mut ends: Vec<Node> = left.iter().filter(|(_, ways)| **ways == 0).map(|(node, _)| *node).collect();
        while let Some(end) = ends.pop() {
            left.remove(&end);
            for node in before.remove(&end).unwrap_or_default() {
                if let Some(ways) = left.get_mut(&node) {
                    *ways -= 1;
                    if *ways == 0 {
                        ends.push(node);
                    }
                }
            }
        }
        Loops(left.into_keys().collect())
    }

    /// Visits a node and everything below it, and returns the node's height. The path is at most as long as there are
    /// levels, so this function may call itself.
    fn visit(&mut self, node: Node) -> Result<Height, CheckError> {
        let remaining = usize::try_from(LEVELS_MAX).unwrap_or(usize::MAX).checked_sub(self.path.len());
        let remaining = remaining.ok_or(CheckError::TooDeep)?;
        if self.path.contains(&node) {
            return Ok(Height { steps: 0, is_cut: true });
        }
        if let Some(steps) = self.heights.get(&node).copied() {
            let reaches = usize::try_from(steps).unwrap_or(usize::MAX) > remaining;
            return if reaches { Err(CheckError::TooDeep) } else { Ok(Height { steps, is_cut: false }) };
        }
        self.visits += 1;
        if self.visits.is_multiple_of(STEPS_BETWEEN_INTERRUPTS) && !(self.go_on)() {
            return Err(CheckError::Interrupted);
        }
        if self.visits > VISITS_MAX && self.next.contains_key(&node) {
            return Ok(Height { steps: 0, is_cut: true });
        }
        let mut height = Height { steps: 0, is_cut: false };
        self.path.push(node);
        for next in self.next_of(node)? {
            let Height { steps, is_cut } = self.visit(next)?;
            height = Height { steps: height.steps.max(steps + 1), is_cut: height.is_cut || is_cut };
        }
        self.path.pop();
        if !height.is_cut {
            self.heights.insert(node, height.steps);
        }
        Ok(height)
    }

    fn next_of(&mut self, node: Node) -> Result<Vec<Node>, CheckError> {
        if let Some(known) = self.next.get(&node) {
            return Ok(known.clone());
        }
        let mut found = Vec::new();
        for leaf in self.program.expression(node.relation).map(leaves).unwrap_or_default() {
            match leaf {
                Expression::Direct => found.extend(self.met(node)?.into_iter().filter_map(userset)),
                Expression::TupleToUserset { tupleset, computed } => {
                    let parents = self.met(Node { relation: *tupleset, object: node.object })?;
                    found.extend(parents.into_iter().filter_map(|parent| asked(parent, computed)));
                }
                Expression::Computed(relation) => found.push(Node { relation: *relation, object: node.object }),
                Expression::Union(_) | Expression::Intersection(_) | Expression::Difference(_) => {}
            }
        }
        self.next.insert(node, found.clone());
        Ok(found)
    }

    /// Returns the users of those tuples about a node that count.
    fn met(&mut self, node: Node) -> Result<Vec<Subject>, CheckError> {
        if !(self.go_on)() {
            return Err(CheckError::Interrupted);
        }
        let mut subjects: Vec<Subject> = self.index.subjects(node).iter().collect();
        for (number, (subject, stored)) in self.index.conditioned(node).iter().enumerate() {
            if number % CONDITIONS_BETWEEN_INTERRUPTS == 0 && !(self.go_on)() {
                return Err(CheckError::Interrupted);
            }
            if stored.is_met(self.context)? {
                subjects.push(*subject);
            }
        }
        Ok(subjects)
    }
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

pub(in crate::engine) fn userset(subject: Subject) -> Option<Node> {
    match subject {
        Subject::Userset(node) => Some(node),
        Subject::Object(..) | Subject::Wildcard(_) => None,
    }
}

/// Returns the node to ask about for a parent, unless the parent's type lacks the relation.
pub(in crate::engine) fn asked(parent: Subject, computed: &[(TypeId, RelationId)]) -> Option<Node> {
    let Subject::Object(type_id, object) = parent else { return None };
    let (_, relation) = computed.iter().find(|(of, _)| *of == type_id)?;
    Some(Node { relation: *relation, object })
}
