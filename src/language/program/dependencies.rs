//! Finds which relations of a model depend on which.

use std::collections::HashSet;

use super::{Expression, Program, RelationId};

/// The graph of dependencies between a model's relations.
pub(super) struct Dependencies {
    /// For each relation, the relations that it depends on.
    edges: Vec<Vec<Edge>>,
    /// Whether some tupleset leads to a type that lacks the relation asked of it.
    pub(super) lack_a_relation: bool,
}

/// The set operations through which a relation depends on another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Through {
    /// No operation but `or`.
    UnionsAlone,
    /// At least one `and` or `but not`.
    Operator,
}

/// A dependency on a relation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Edge {
    pub(super) to: RelationId,
    pub(super) through: Through,
    /// The relation whose tuples lead there: the tupleset for parents, the relation itself for usersets, `None` for a
    /// computed relation.
    pub(super) tuples: Option<RelationId>,
}

impl Dependencies {
    pub(super) fn of(program: &Program) -> Self {
        let mut dependencies = Self { edges: Vec::new(), lack_a_relation: false };
        for (id, relation) in (0..).map(RelationId).zip(&program.relations) {
            dependencies.edges.push(Vec::new());
            dependencies.add(program, id, &relation.expression, Through::UnionsAlone);
        }
        dependencies
    }

    /// Adds the dependencies of one part of the definition of the last relation.
    fn add(&mut self, program: &Program, of: RelationId, expression: &Expression, through: Through) {
        let mut found: Vec<Edge> = Vec::new();
        let mut edge = |to: RelationId, tuples| found.push(Edge { to, through, tuples });
        match expression {
            Expression::Direct => program.usersets_of(of).for_each(|userset| edge(userset, Some(of))),
            Expression::Computed(computed) => edge(*computed, None),
            Expression::TupleToUserset { tupleset, computed } => {
                let parents = program.get(*tupleset).into_iter().flat_map(|r| &r.objects);
                for (parent, _) in parents {
                    self.lack_a_relation |= computed.iter().all(|(of, _)| of != parent);
                }
                for (_, relation) in computed {
                    edge(*relation, Some(*tupleset));
                }
            }
            Expression::Union(operands) => {
                for operand in operands {
                    self.add(program, of, operand, through);
                }
            }
            Expression::Intersection(operands) => {
                for operand in operands {
                    self.add(program, of, operand, Through::Operator);
                }
            }
            Expression::Difference(operands) => {
                for operand in operands.iter() {
                    self.add(program, of, operand, Through::Operator);
                }
            }
        }
        if let Some(edges) = self.edges.last_mut() {
            edges.append(&mut found);
        }
    }

    fn from(&self, relation: RelationId) -> &[Edge] {
        self.edges.get(relation.index()).map_or(&[], Vec::as_slice)
    }

    /// Returns the dependencies between the given relations.
    pub(super) fn within(&self, members: &[RelationId]) -> Vec<Edge> {
        let is_inner: HashSet<RelationId> = members.iter().copied().collect();
        let edges = members.iter().flat_map(|member| self.from(*member));
        edges.filter(|edge| is_inner.contains(&edge.to)).copied().collect()
    }

    /// Returns the strongly connected components, each after those that it depends on (Kosaraju's algorithm).
    pub(super) fn components(&self) -> Vec<Vec<RelationId>> {
        let mut back: Vec<Vec<RelationId>> = vec![Vec::new(); self.edges.len()];
        for (from, edges) in (0..).map(RelationId).zip(&self.edges) {
            for edge in edges {
                if let Some(back) = back.get_mut(edge.to.index()) {
                    back.push(from);
                }
            }
        }
        // This first pass walks the reversed graph, so that relations on which others depend finish last.
        let finished = in_order_of_finish(&back);
        let mut seen = vec![false; self.edges.len()];
        let mut components = Vec::new();
        for start in finished.into_iter().rev() {
            let (mut members, mut pending) = (Vec::new(), vec![start]);
            while let Some(relation) = pending.pop() {
                match seen.get_mut(relation.index()) {
                    Some(seen) if !*seen => *seen = true,
                    _ => continue,
                }
                members.push(relation);
                pending.extend(self.from(relation).iter().map(|edge| edge.to));
            }
            if !members.is_empty() {
                components.push(members);
            }
        }
        components
    }

    /// Returns the number of each relation's component, if the relations of the component depend on each other through
    /// `or` alone.
    pub(super) fn recursions(&self) -> Vec<Option<u32>> {
        let mut recursions = vec![None; self.edges.len()];
        for (number, members) in (0..).zip(self.components()) {
            let inner = self.within(&members);
            if inner.is_empty() || inner.iter().any(|edge| edge.through == Through::Operator) {
                continue;
            }
            for member in members {
                if let Some(recursion) = recursions.get_mut(member.index()) {
                    *recursion = Some(number);
                }
            }
        }
        recursions
    }
}

fn in_order_of_finish(successors: &[Vec<RelationId>]) -> Vec<RelationId> {
    let mut seen = vec![false; successors.len()];
    let mut finished = Vec::with_capacity(successors.len());
    for start in (0..).map(RelationId).take(successors.len()) {
        // Each entry has a relation and the number of its successors that were visited.
        let mut path = vec![(start, 0)];
        while let Some((relation, next)) = path.last_mut() {
            let Some(seen) = seen.get_mut(relation.index()) else { break };
            if *next == 0 && std::mem::replace(seen, true) {
                path.pop();
                continue;
            }
            if let Some(successor) = successors.get(relation.index()).and_then(|of| of.get(*next)) {
                *next += 1;
                path.push((*successor, 0));
            } else {
                finished.push(*relation);
                path.pop();
            }
        }
    }
    finished
}
