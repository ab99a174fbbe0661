//! Computes how many levels of tuples lie between a relation and the users of a type. The model alone decides that.
//! `OpenFGA` chooses its way of evaluating by these numbers.

use std::collections::{BTreeMap, BTreeSet};

use ragward::language::model::{AuthorizationModel, RestrictionKind, Rewrite};

/// A type and one of its relations.
type Name = (String, String);

/// The weights of all relations.
pub(super) struct Weights {
    /// All relations that each relation depends on.
    rests_on: BTreeMap<Name, BTreeSet<Name>>,
    /// The weight by relation and type of users. There is no entry if no tuple could make such a user hold the
    /// relation.
    weights: BTreeMap<(Name, String), u32>,
}

impl Weights {
    /// Computes the weights. Returns `None` where `OpenFGA` has none.
    pub(super) fn of(model: &AuthorizationModel) -> Option<Self> {
        let all: Vec<(Name, &Rewrite)> = model
            .types
            .iter()
            .flat_map(|of| of.relations.iter().map(|r| ((of.name.clone(), r.name.clone()), &r.rewrite)))
            .collect();
        if all.iter().any(|(name, rewrite)| !parents_are_complete(model, name, rewrite)) {
            return None;
        }
        let mut weights = Self { rests_on: BTreeMap::new(), weights: BTreeMap::new() };
        for (name, _) in &all {
            let mut rests_on = BTreeSet::new();
            let mut pending = vec![name.clone()];
            while let Some(next) = pending.pop() {
                let Some(rewrite) = rewrite_of(model, &next) else { continue };
                let direct = rewrite.leaves().into_iter().flat_map(|leaf| behind(model, &next, leaf));
                pending.extend(direct.filter(|found| rests_on.insert(found.clone())));
            }
            weights.rests_on.insert(name.clone(), rests_on);
        }
        if all.iter().any(|(name, rewrite)| weights.turns_in_a_cycle(model, name, rewrite)) {
            return None;
        }
        // The first rounds find the types that can reach a relation. Later rounds find the distances, as far as they do
        // not grow for ever.
        loop {
            let before = weights.weights.clone();
            for (name, rewrite) in &all {
                for of in &model.types {
                    if let Some(weight) = weights.of_rewrite(model, name, rewrite, &of.name) {
                        let weight = if weights.is_cyclic(name) { u32::MAX } else { weight };
                        weights.weights.insert((name.clone(), of.name.clone()), weight);
                    }
                }
            }
            if weights.weights == before {
                break;
            }
        }
        let is_empty = |(name, rewrite): &(Name, &Rewrite)| weights.has_empty_intersection(model, name, rewrite);
        (!all.iter().any(is_empty)).then_some(weights)
    }

    /// Returns whether a check reads these usersets of a relation apart from its other usersets.
    pub(super) fn is_apart(&self, relation: &Name, userset: &Name, type_name: &str) -> bool {
        !self.is_cyclic(relation) && self.weights.get(&(userset.clone(), type_name.to_owned())) == Some(&1)
    }

    /// Returns whether a check follows the relation level by level. It does if the relation leads back to itself in one
    /// way only, through its own usersets or parents, and no other part of the relation needs a level of tuples for
    /// users of the type.
    pub(super) fn goes_along_its_own(&self, model: &AuthorizationModel, name: &Name, type_name: &str) -> bool {
        let mut operands = vec![rewrite_of(model, name).expect("a relation of the model")];
        let mut ways_back = BTreeSet::new();
        while let Some(operand) = operands.pop() {
            if let Rewrite::Union(parts) = operand {
                operands.extend(parts);
                continue;
            }
            let weight = |found: &Name| self.weights.get(&(found.clone(), type_name.to_owned())).copied();
            let is_leaf = matches!(operand, Rewrite::Direct | Rewrite::TupleToUserset { .. });
            let behind = behind(model, name, operand);
            if is_leaf && behind.contains(name) {
                let is_parent = |leaf: &Rewrite| matches!(leaf, Rewrite::TupleToUserset { .. });
                ways_back.insert(is_parent(operand).then(|| format!("{operand:?}")));
            }
            let too_far = if is_leaf {
                behind.iter().any(|found| found != name && weight(found).is_some())
            } else {
                self.of_rewrite(model, name, operand, type_name).is_some_and(|weight| weight > 1)
            };
            let comes_back = |found: &Name| self.rests_on.get(found).is_some_and(|all| all.contains(name));
            if too_far || behind.iter().any(|found| found != name && comes_back(found)) {
                return false;
            }
        }
        ways_back.len() == 1
    }

    /// Returns whether `below` is the relation itself or one that it depends on.
    pub(super) fn is_below(&self, name: &Name, below: &Name) -> bool {
        name == below || self.rests_on.get(name).is_some_and(|rests_on| rests_on.contains(below))
    }

    fn is_cyclic(&self, name: &Name) -> bool {
        self.rests_on.get(name).is_some_and(|rests_on| rests_on.contains(name))
    }

    /// Returns whether `and` or `but not` stands between a relation and itself.
    fn turns_in_a_cycle(&self, model: &AuthorizationModel, name: &Name, rewrite: &Rewrite) -> bool {
        let is_operator = matches!(rewrite, Rewrite::Intersection(_) | Rewrite::Difference { .. });
        let comes_back = |found: &Name| found == name || self.rests_on.get(found).is_some_and(|all| all.contains(name));
        if is_operator {
            rewrite.leaves().into_iter().flat_map(|leaf| behind(model, name, leaf)).any(|found| comes_back(&found))
        } else {
            rewrite.operands().into_iter().any(|operand| self.turns_in_a_cycle(model, name, operand))
        }
    }

    fn of_rewrite(&self, model: &AuthorizationModel, name: &Name, rewrite: &Rewrite, of: &str) -> Option<u32> {
        let of_operand = |operand: &Rewrite| self.of_rewrite(model, name, operand, of);
        let known = |found: Name| self.weights.get(&(found, of.to_owned())).copied();
        match rewrite {
            Rewrite::Direct => {
                let named = restrictions(model, name)
                    .into_iter()
                    .any(|(type_name, userset)| type_name == of && userset.is_none());
                let usersets = behind(model, name, rewrite).into_iter().filter_map(known);
                usersets.map(|weight| weight.saturating_add(1)).chain(named.then_some(1)).max()
            }
            Rewrite::Computed(_) => behind(model, name, rewrite).into_iter().filter_map(known).max(),
            Rewrite::TupleToUserset { .. } => {
                let parents = behind(model, name, rewrite).into_iter().filter_map(known);
                parents.map(|weight| weight.saturating_add(1)).max()
            }
            Rewrite::Union(operands) => operands.iter().filter_map(of_operand).max(),
            Rewrite::Intersection(operands) => {
                let all: Option<Vec<u32>> = operands.iter().map(of_operand).collect();
                all?.into_iter().max()
            }
            Rewrite::Difference { base, subtract } => Some(of_operand(base)?.max(of_operand(subtract).unwrap_or(0))),
        }
    }

    fn has_empty_intersection(&self, model: &AuthorizationModel, name: &Name, rewrite: &Rewrite) -> bool {
        let reaches = |of: &str| self.of_rewrite(model, name, rewrite, of).is_some();
        let is_empty = matches!(rewrite, Rewrite::Intersection(_)) && !model.types.iter().any(|of| reaches(&of.name));
        is_empty || rewrite.operands().into_iter().any(|operand| self.has_empty_intersection(model, name, operand))
    }
}

fn rewrite_of<'a>(model: &'a AuthorizationModel, (type_name, relation): &Name) -> Option<&'a Rewrite> {
    Some(&model.type_definition(type_name)?.relation(relation)?.rewrite)
}

/// Returns the types and usersets that the tuples of a relation may name.
fn restrictions(model: &AuthorizationModel, (type_name, relation): &Name) -> Vec<(String, Option<String>)> {
    let definition = model.type_definition(type_name).and_then(|of| of.relation(relation));
    let restrictions = definition.into_iter().flat_map(|definition| &definition.directly_related);
    let with_userset = restrictions.map(|r| match &r.kind {
        RestrictionKind::Userset(userset) => (r.type_name.clone(), Some(userset.clone())),
        RestrictionKind::Object | RestrictionKind::Wildcard => (r.type_name.clone(), None),
    });
    with_userset.collect()
}

/// Returns the relations that a leaf reads.
fn behind(model: &AuthorizationModel, name: &Name, leaf: &Rewrite) -> Vec<Name> {
    match leaf {
        Rewrite::Direct => {
            restrictions(model, name).into_iter().filter_map(|(of, userset)| Some((of, userset?))).collect()
        }
        Rewrite::Computed(computed) => vec![(name.0.clone(), computed.clone())],
        Rewrite::TupleToUserset { tupleset, computed } => {
            let parents = restrictions(model, &(name.0.clone(), tupleset.clone())).into_iter();
            let parents = parents.map(|(parent, _)| (parent, computed.clone()));
            parents.filter(|parent| rewrite_of(model, parent).is_some()).collect()
        }
        Rewrite::Union(_) | Rewrite::Intersection(_) | Rewrite::Difference { .. } => Vec::new(),
    }
}

/// Returns whether every type that a tupleset may name has the relation that is asked of it.
fn parents_are_complete(model: &AuthorizationModel, name: &Name, rewrite: &Rewrite) -> bool {
    rewrite.leaves().into_iter().all(|leaf| match leaf {
        Rewrite::TupleToUserset { tupleset, computed } => {
            let parents = restrictions(model, &(name.0.clone(), tupleset.clone()));
            parents.into_iter().all(|(parent, _)| rewrite_of(model, &(parent, computed.clone())).is_some())
        }
        Rewrite::Direct
        | Rewrite::Computed(_)
        | Rewrite::Union(_)
        | Rewrite::Intersection(_)
        | Rewrite::Difference { .. } => true,
    })
}
