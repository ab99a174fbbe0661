//! Finds relations that nobody can ever hold, and relations that are defined by themselves.
//!
//! A relation has an entrypoint if some tuple could make it true. The relations with entrypoints are the least set that
//! satisfies the rules of [`Analysis::can_be_held`]; whenever a relation joins the set, the relations that use it are
//! examined again.
//!
//! `OpenFGA` searches in another way, which misses some entrypoints ([`search`]). A relation that its search misses is
//! refused here as well, since a model that is taken here must be taken there.

mod search;

use std::collections::HashMap;

use self::search::Search;

use super::{ModelError, ModelPart, relations};
use crate::language::model::{AuthorizationModel, RelationDefinition, RestrictionKind, Rewrite};

pub(super) fn check(model: &AuthorizationModel) -> Vec<ModelError> {
    let analysis = Analysis::new(model);
    let mut search = Search::new(&analysis);
    let mut errors = Vec::new();
    for (index, (place, type_name, relation)) in relations(model).enumerate() {
        let name = &relation.name;
        let message = if analysis.reaches_cycle(index) {
            format!("`{name}` is an impossible relation for `{type_name}` (potential loop)")
        } else if !analysis.held.get(index).copied().unwrap_or(false) {
            format!("`{name}` is an impossible relation for `{type_name}` (no entrypoint)")
        } else if search.misses(index) {
            format!("no entrypoint is found for `{name}` of `{type_name}`: it leads to one relation in several ways")
        } else {
            continue;
        };
        errors.push(ModelError::new(ModelPart::Relation(place), message));
    }
    errors
}

struct Analysis<'a> {
    indexes: HashMap<(&'a str, &'a str), usize>,
    relations: Vec<(&'a str, &'a RelationDefinition)>,
    /// For each relation, whether somebody can hold it.
    held: Vec<bool>,
    /// For each relation, whether it is on a loop of computed relations or leads to one.
    loops: Vec<Visit>,
}

#[derive(Clone, Copy, PartialEq)]
enum Visit {
    NotYet,
    OnPath,
    Clean,
    ReachesCycle,
}

impl<'a> Analysis<'a> {
    fn new(model: &'a AuthorizationModel) -> Self {
        let relations: Vec<(&str, &RelationDefinition)> = relations(model).map(|(_, t, r)| (t, r)).collect();
        let indexes = relations.iter().enumerate().map(|(index, (t, r))| ((*t, r.name.as_str()), index)).collect();
        let (held, loops) = (vec![false; relations.len()], vec![Visit::NotYet; relations.len()]);
        let mut analysis = Self { indexes, relations, held, loops };
        analysis.find_held();
        for index in 0..analysis.relations.len() {
            analysis.find_loops(index);
        }
        analysis
    }

    fn find_held(&mut self) {
        let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); self.relations.len()];
        for index in 0..self.relations.len() {
            for used in self.used_by(index) {
                if let Some(dependents) = dependents.get_mut(used) {
                    dependents.push(index);
                }
            }
        }
        let mut pending: Vec<usize> = (0..self.relations.len()).collect();
        while let Some(index) = pending.pop() {
            let Some((type_name, relation)) = self.relations.get(index).copied() else { continue };
            let known = self.held.get(index).copied().unwrap_or(false);
            if known || !self.can_be_held(type_name, relation, &relation.rewrite) {
                continue;
            }
            if let Some(held) = self.held.get_mut(index) {
                *held = true;
            }
            pending.extend(dependents.get(index).into_iter().flatten());
        }
    }

    /// Returns the relations that [`Analysis::can_be_held`] asks about.
    fn used_by(&self, index: usize) -> Vec<usize> {
        let Some((type_name, relation)) = self.relations.get(index) else {
            return Vec::new();
        };
        let usersets = relation.directly_related.iter().filter_map(|restriction| match &restriction.kind {
            RestrictionKind::Userset(userset) => self.index_of(&restriction.type_name, userset),
            RestrictionKind::Object | RestrictionKind::Wildcard => None,
        });
        let mut used: Vec<usize> = usersets.collect();
        for leaf in relation.rewrite.leaves() {
            if let Rewrite::TupleToUserset { tupleset, computed } = leaf {
                let parents = self.parents(type_name, tupleset);
                used.extend(parents.filter_map(|parent| self.index_of(parent, computed)));
            }
        }
        used.extend(self.computed_from(index));
        used
    }

    /// Returns the types of the objects that a relation after `from` may hold.
    fn parents(&self, type_name: &str, tupleset: &str) -> impl Iterator<Item = &'a str> {
        let tupleset = self.index_of(type_name, tupleset).and_then(|index| self.relations.get(index));
        let restrictions = tupleset.map(|(_, tupleset)| tupleset.directly_related.iter());
        restrictions.into_iter().flatten().map(|restriction| restriction.type_name.as_str())
    }

    fn can_be_held(&self, type_name: &str, relation: &RelationDefinition, rewrite: &Rewrite) -> bool {
        match rewrite {
            Rewrite::Direct => relation.directly_related.iter().any(|restriction| match &restriction.kind {
                RestrictionKind::Object | RestrictionKind::Wildcard => true,
                RestrictionKind::Userset(userset) => self.is_held(&restriction.type_name, userset),
            }),
            Rewrite::Computed(computed) => self.is_held(type_name, computed),
            Rewrite::TupleToUserset { tupleset, computed } => {
                self.parents(type_name, tupleset).any(|parent| self.is_held(parent, computed))
            }
            Rewrite::Union(operands) => operands.iter().any(|o| self.can_be_held(type_name, relation, o)),
            Rewrite::Intersection(operands) => operands.iter().all(|o| self.can_be_held(type_name, relation, o)),
            Rewrite::Difference { base, subtract } => {
                self.can_be_held(type_name, relation, base) && self.can_be_held(type_name, relation, subtract)
            }
        }
    }

    fn is_held(&self, type_name: &str, relation: &str) -> bool {
        self.index_of(type_name, relation).and_then(|index| self.held.get(index)).copied().unwrap_or(false)
    }

    fn index_of(&self, type_name: &str, relation: &str) -> Option<usize> {
        self.indexes.get(&(type_name, relation)).copied()
    }

    fn reaches_cycle(&self, index: usize) -> bool {
        self.loops.get(index) == Some(&Visit::ReachesCycle)
    }

    /// Follows computed relations from `start`, depth first, with an explicit stack in place of recursion.
    fn find_loops(&mut self, start: usize) {
        let mut path: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut entering = Some(start);
        loop {
            if let Some(index) = entering.take() {
                match self.loops.get(index) {
                    Some(Visit::NotYet) => {
                        self.mark(index, Visit::OnPath);
                        path.push((index, self.computed_from(index)));
                    }
                    // Every relation on the path, down to its start, leads to a loop.
                    Some(Visit::OnPath | Visit::ReachesCycle) => {
                        for (on_path, _) in &path {
                            if let Some(visit) = self.loops.get_mut(*on_path) {
                                *visit = Visit::ReachesCycle;
                            }
                        }
                    }
                    Some(Visit::Clean) | None => {}
                }
            }
            let Some((index, next)) = path.last_mut() else {
                return;
            };
            entering = next.pop();
            if entering.is_none() {
                let finished = *index;
                if self.loops.get(finished) == Some(&Visit::OnPath) {
                    self.mark(finished, Visit::Clean);
                }
                path.pop();
            }
        }
    }

    fn mark(&mut self, index: usize, visit: Visit) {
        if let Some(slot) = self.loops.get_mut(index) {
            *slot = visit;
        }
    }

    fn computed_from(&self, index: usize) -> Vec<usize> {
        let Some((type_name, relation)) = self.relations.get(index) else {
            return Vec::new();
        };
        let leaves = relation.rewrite.leaves();
        let computed = leaves.into_iter().filter_map(|leaf| match leaf {
            Rewrite::Computed(computed) => self.index_of(type_name, computed),
            Rewrite::Direct
            | Rewrite::TupleToUserset { .. }
            | Rewrite::Union(_)
            | Rewrite::Intersection(_)
            | Rewrite::Difference { .. } => None,
        });
        computed.collect()
    }
}
