//! Checks names: each must be well formed, defined once, and mean something where it is used.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{ModelError, ModelPart, NESTING_MAX, RelationPlace, nesting, relations};
use crate::language::limits::{RELATION_CHARS_MAX, TYPE_CHARS_MAX};
use crate::language::model::{AuthorizationModel, RelationDefinition, RestrictionKind, Rewrite, TypeRestriction};

const RESERVED: [&str; 2] = ["self", "this"];

pub(super) fn check(model: &AuthorizationModel) -> Vec<ModelError> {
    let mut checker = Checker { model, types: HashSet::new(), relations: HashMap::new(), errors: Vec::new() };
    checker.schema();
    checker.names();
    for (place, type_name, relation) in relations(model) {
        checker.relation(place, type_name, relation);
    }
    checker.conditions();
    checker.errors
}

struct Checker<'a> {
    model: &'a AuthorizationModel,
    types: HashSet<&'a str>,
    /// The relations, by type and name.
    relations: HashMap<(&'a str, &'a str), &'a RelationDefinition>,
    errors: Vec<ModelError>,
}

impl<'a> Checker<'a> {
    fn refuse(&mut self, place: ModelPart, message: impl Into<String>) {
        self.errors.push(ModelError::new(place, message));
    }

    fn slip(&mut self, place: ModelPart, message: impl Into<String>) {
        self.errors.push(ModelError { slip: true, ..ModelError::new(place, message) });
    }

    fn schema(&mut self) {
        match self.model.schema_version.as_str() {
            "1.1" | "1.2" => {}
            other => self.refuse(ModelPart::Schema, format!("invalid schema version `{other}`; use 1.1 or 1.2")),
        }
        if self.model.types.is_empty() {
            self.refuse(ModelPart::Model, "the model has no types");
        }
    }

    fn names(&mut self) {
        for (type_index, type_definition) in self.model.types.iter().enumerate() {
            let name = type_definition.name.as_str();
            let place = ModelPart::Type(type_index);
            if let Some(broken) = broken_rule(name, TYPE_CHARS_MAX) {
                self.refuse(place, format!("type `{name}` {broken}"));
            } else if is_odd(name) {
                self.slip(place, format!("type `{name}` {ODD}"));
            }
            if !self.types.insert(name) {
                let first = self.model.types.iter().position(|t| t.name == name).unwrap_or(type_index);
                self.refuse(ModelPart::Type(first), format!("the type `{name}` is defined more than once"));
            }
        }
        let mut seen = HashSet::new();
        for (place, type_name, relation) in relations(self.model) {
            let name = relation.name.as_str();
            self.relations.insert((type_name, name), relation);
            if let Some(broken) = broken_rule(name, RELATION_CHARS_MAX) {
                self.refuse(ModelPart::Relation(place), format!("relation `{name}` of type `{type_name}` {broken}"));
            } else if is_odd(name) {
                self.slip(ModelPart::Relation(place), format!("relation `{name}` of type `{type_name}` {ODD}"));
            }
            if !seen.insert((place.type_index, name)) {
                let message = format!("relation `{name}` is already defined in type `{type_name}`");
                self.refuse(ModelPart::Relation(place), message);
            }
        }
    }

    fn relation(&mut self, place: RelationPlace, type_name: &str, relation: &RelationDefinition) {
        if nesting(&relation.rewrite) > NESTING_MAX {
            let message = format!("relation `{}` is nested more than {NESTING_MAX} deep", relation.name);
            self.refuse(ModelPart::Relation(place), message);
            return;
        }
        self.arity(place, relation);
        self.direct(place, relation);
        for (index, leaf) in relation.rewrite.leaves().into_iter().enumerate() {
            match leaf {
                Rewrite::Computed(computed) => self.computed(place, index, type_name, relation, computed),
                Rewrite::TupleToUserset { tupleset, computed } => {
                    self.tuple_to_userset(place, index, type_name, tupleset, computed);
                }
                Rewrite::Direct | Rewrite::Union(_) | Rewrite::Intersection(_) | Rewrite::Difference { .. } => {}
            }
        }
        self.duplicate_operands(place, relation);
    }

    /// Checks that `or` and `and` join at least two operands.
    fn arity(&mut self, place: RelationPlace, relation: &RelationDefinition) {
        let mut pending = vec![&relation.rewrite];
        while let Some(rewrite) = pending.pop() {
            let operands = rewrite.operands();
            let is_set = matches!(rewrite, Rewrite::Union(_) | Rewrite::Intersection(_));
            if is_set && operands.len() < 2 {
                let message = format!("relation `{}` has an `or` or `and` with fewer than two operands", relation.name);
                self.refuse(ModelPart::Relation(place), message);
            }
            pending.extend(operands);
        }
    }

    fn direct(&mut self, relation_place: RelationPlace, relation: &RelationDefinition) {
        let name = relation.name.as_str();
        let restrictions = &relation.directly_related;
        if relation.rewrite.contains_direct() && restrictions.is_empty() {
            let message = format!("relation `{name}` takes tuples but names no types for them");
            self.refuse(ModelPart::Relation(relation_place), message);
        }
        if !relation.rewrite.contains_direct() && !restrictions.is_empty() {
            let message = format!("relation `{name}` names types for tuples but takes none");
            self.refuse(ModelPart::Relation(relation_place), message);
        }
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (index, restriction) in restrictions.iter().enumerate() {
            if let Some(first) = seen.insert(restriction.to_string(), index) {
                let message = format!("the type restriction `{restriction}` is a duplicate in the relation `{name}`");
                self.slip(ModelPart::Restriction { relation: relation_place, index: first }, message);
            }
            self.restriction(relation_place, index, restriction);
        }
    }

    fn restriction(&mut self, relation: RelationPlace, index: usize, restriction: &TypeRestriction) {
        let type_name = restriction.type_name.as_str();
        let place = ModelPart::Restriction { relation, index };
        if !self.types.contains(type_name) {
            self.refuse(place, format!("`{type_name}` is not a valid type"));
            return;
        }
        match &restriction.kind {
            RestrictionKind::Userset(userset) if self.relation_of(type_name, userset).is_none() => {
                self.refuse(place, format!("`{userset}` is not a valid relation for `{type_name}`"));
            }
            RestrictionKind::Object | RestrictionKind::Userset(_) | RestrictionKind::Wildcard => {}
        }
        if let Some(condition) = &restriction.condition
            && !self.model.conditions.contains_key(condition)
        {
            let message = format!("`{condition}` is not a defined condition in the model");
            self.refuse(ModelPart::RestrictionCondition { relation, index }, message);
        }
    }

    fn computed(
        &mut self,
        relation: RelationPlace,
        index: usize,
        type_name: &str,
        definition: &RelationDefinition,
        computed: &str,
    ) {
        let place = ModelPart::Operand { relation, index };
        if self.relation_of(type_name, computed).is_none() {
            self.refuse(place, format!("the relation `{computed}` does not exist"));
        } else if computed == definition.name {
            self.refuse(place, format!("the relation `{computed}` is defined in terms of itself"));
        }
    }

    fn tuple_to_userset(
        &mut self,
        relation: RelationPlace,
        index: usize,
        type_name: &str,
        tupleset: &str,
        computed: &str,
    ) {
        let place = ModelPart::Operand { relation, index };
        let Some(tupleset_relation) = self.relation_of(type_name, tupleset) else {
            self.refuse(place, format!("`{tupleset}` is not a valid relation for `{type_name}`"));
            return;
        };
        // A wildcard or a userset after `from` would grant through objects that no tuple names.
        let restrictions = &tupleset_relation.directly_related;
        let purely_direct = tupleset_relation.rewrite == Rewrite::Direct
            && restrictions.iter().all(|r| r.kind == RestrictionKind::Object);
        if !purely_direct {
            let message = format!(
                "`{tupleset}` is used after `from`, so it must be purely direct: `[type, …]` without `:*`, `#` and operators"
            );
            self.refuse(ModelPart::Tupleset { relation, index }, message);
            return;
        }
        let names: BTreeSet<&str> = restrictions.iter().map(|r| r.type_name.as_str()).collect();
        if !names.iter().any(|name| self.relation_of(name, computed).is_some()) {
            for name in names {
                let message = format!("`{computed}` does not exist on `{tupleset}`, which is of type `{name}`");
                self.refuse(place, message);
            }
        }
    }

    /// Finds operands that are repeated: `viewer or viewer` adds nothing and is most likely a slip.
    fn duplicate_operands(&mut self, relation: RelationPlace, definition: &RelationDefinition) {
        let operands = definition.rewrite.operands();
        let all_leaves = operands.iter().all(|operand| operand.operands().is_empty());
        if !all_leaves {
            return;
        }
        let mut seen: HashMap<&Rewrite, usize> = HashMap::new();
        for (index, operand) in operands.into_iter().enumerate() {
            if let Some(first) = seen.insert(operand, index) {
                let message = format!("an operand is a duplicate in the relation `{}`", definition.name);
                self.slip(ModelPart::Operand { relation, index: first }, message);
            }
        }
    }

    fn conditions(&mut self) {
        let used: HashSet<&str> = relations(self.model)
            .flat_map(|(_, _, relation)| &relation.directly_related)
            .filter_map(|restriction| restriction.condition.as_deref())
            .collect();
        let by_name: BTreeMap<&str, usize> =
            self.model.conditions.keys().enumerate().map(|(index, name)| (name.as_str(), index)).collect();
        for (name, index) in by_name {
            if !used.contains(name) {
                self.slip(ModelPart::Condition(index), format!("`{name}` condition is not used in the model"));
            }
        }
    }

    fn relation_of(&self, type_name: &str, relation: &str) -> Option<&'a RelationDefinition> {
        self.relations.get(&(type_name, relation)).copied()
    }
}

/// Returns the rule that a name breaks, if any.
fn broken_rule(name: &str, chars_max: usize) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some("has a reserved name".to_owned());
    }
    if name.is_empty() {
        return Some("has an empty name".to_owned());
    }
    let chars = name.chars().count();
    if chars > chars_max {
        return Some(format!("has a name of {chars} characters, at most {chars_max} are allowed"));
    }
    let bad = |c: char| matches!(c, ':' | '#' | '@' | ' ');
    name.contains(bad).then(|| "has a name with `:`, `#`, `@` or a space".to_owned())
}

const ODD: &str = "has a name with `*`, white space or a control character";

/// Returns whether a name is odd: a server takes such a name in a model, but a tuple may be unable to name it.
fn is_odd(name: &str) -> bool {
    name.contains(|c: char| c == '*' || c.is_whitespace() || c.is_control())
}
