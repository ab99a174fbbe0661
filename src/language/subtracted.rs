//! Finds the relations and the parameters of conditions that a model subtracts with `but not`.
//!
//! If it is not known whether a user holds such a relation, nobody may assume that the user does not: the relation may
//! exclude the user. The same holds for a parameter whose value is not known.

use std::collections::{HashMap, HashSet};

use super::model::{AuthorizationModel, RelationDefinition, RestrictionKind, Rewrite};

/// The relations and parameters that a model subtracts with `but not`. Those behind two `but not` are included,
/// although they may let somebody in again. So callers refuse more than they must, never less.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subtracted {
    /// For each type and relation, the types of the users that its tuples may have.
    relations: HashMap<String, HashMap<String, HashSet<String>>>,
    parameters: HashSet<String>,
}

/// A type and one of its relations, by name.
type Named<'m> = (&'m str, &'m str);

impl Subtracted {
    /// Collects the relations and parameters of a model: it starts from each relation that a `but not` takes out and
    /// follows the model to everything that decides it.
    #[must_use]
    pub fn of(model: &AuthorizationModel) -> Self {
        let mut walk = Walk { model, pending: Vec::new(), seen: HashSet::new(), subtracted: Self::default() };
        for definition in &model.types {
            for relation in &definition.relations {
                walk.taken_out(&definition.name, relation);
            }
        }
        // Each relation is followed once, so the model bounds the walk.
        while let Some((type_name, relation)) = walk.pending.pop() {
            let Some(definition) = walk.definition((type_name, relation)) else { continue };
            if walk.seen.insert((type_name, relation)) {
                walk.note(type_name, definition);
                walk.follow(type_name, definition, &definition.rewrite);
            }
        }
        walk.subtracted
    }

    /// Joins the relations and parameters of two models, for a caller who does not know which of the two decides.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let mut either = self.clone();
        for (type_name, relations) in &other.relations {
            let known = either.relations.entry(type_name.clone()).or_default();
            for (relation, users) in relations {
                known.entry(relation.clone()).or_default().extend(users.iter().cloned());
            }
        }
        either.parameters.extend(other.parameters.iter().cloned());
        either
    }

    /// Returns whether a tuple may take somebody out, if its user is of type `user_type`, its relation is `relation`,
    /// and its object is of type `object_type`.
    #[must_use]
    pub fn has_relation(&self, user_type: &str, relation: &str, object_type: &str) -> bool {
        let users = self.relations.get(object_type).and_then(|relations| relations.get(relation));
        users.is_some_and(|users| users.contains(user_type))
    }

    /// Returns whether a condition with a parameter of this name may take somebody out.
    #[must_use]
    pub fn has_parameter(&self, parameter: &str) -> bool {
        self.parameters.contains(parameter)
    }
}

struct Walk<'m> {
    model: &'m AuthorizationModel,
    pending: Vec<Named<'m>>,
    seen: HashSet<Named<'m>>,
    subtracted: Subtracted,
}

impl<'m> Walk<'m> {
    fn definition(&self, (type_name, relation): Named<'_>) -> Option<&'m RelationDefinition> {
        self.model.type_definition(type_name)?.relation(relation)
    }

    /// Starts a walk at each relation that a `but not` in `relation` takes out.
    fn taken_out(&mut self, type_name: &'m str, relation: &'m RelationDefinition) {
        let mut pending = vec![&relation.rewrite];
        while let Some(rewrite) = pending.pop() {
            match rewrite {
                Rewrite::Difference { base, subtract } => {
                    self.follow(type_name, relation, subtract);
                    pending.push(base);
                }
                Rewrite::Union(operands) | Rewrite::Intersection(operands) => pending.extend(operands),
                Rewrite::Direct | Rewrite::Computed(_) | Rewrite::TupleToUserset { .. } => {}
            }
        }
    }

    /// Follows one rewrite of a relation to the relations and conditions that decide it.
    fn follow(&mut self, type_name: &'m str, relation: &'m RelationDefinition, rewrite: &'m Rewrite) {
        for leaf in rewrite.leaves() {
            match leaf {
                Rewrite::Direct => self.tuples_of(type_name, relation),
                Rewrite::Computed(other) => self.pending.push((type_name, other)),
                Rewrite::TupleToUserset { tupleset, computed } => {
                    self.pending.push((type_name, tupleset));
                    let named = self.definition((type_name, tupleset));
                    let parents = named.into_iter().flat_map(|named| &named.directly_related);
                    self.pending.extend(parents.map(|parent| (parent.type_name.as_str(), computed.as_str())));
                }
                Rewrite::Union(_) | Rewrite::Intersection(_) | Rewrite::Difference { .. } => {}
            }
        }
    }

    /// Notes that a relation's tuples count, together with the types of their users.
    fn note(&mut self, type_name: &str, relation: &RelationDefinition) {
        let relations = self.subtracted.relations.entry(type_name.to_owned()).or_default();
        let users = relations.entry(relation.name.clone()).or_default();
        let objects = relation.directly_related.iter().filter(|taken| taken.kind == RestrictionKind::Object);
        users.extend(objects.map(|taken| taken.type_name.clone()));
    }

    /// Notes a relation's own tuples, and follows the usersets and conditions that these may name.
    fn tuples_of(&mut self, type_name: &'m str, relation: &'m RelationDefinition) {
        self.note(type_name, relation);
        for restriction in &relation.directly_related {
            if let RestrictionKind::Userset(userset) = &restriction.kind {
                self.pending.push((&restriction.type_name, userset));
            }
            let condition = restriction.condition.as_ref().and_then(|name| self.model.conditions.get(name));
            let parameters = condition.into_iter().flat_map(|condition| condition.parameters.keys());
            self.subtracted.parameters.extend(parameters.cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::dsl;

    /// Each row has a model, the `type#relation` pairs that it subtracts, and pairs that it does not subtract.
    #[test]
    fn a_model_tells_what_it_takes_out_by() {
        let rows: [(&str, &str, &[&str], &[&str]); 8] = [
            (
                "nothing is taken out",
                "type group\n relations\n  define member: [user]\ntype document\n relations\n  define reader: [user, group#member]",
                &[],
                &["group#member", "document#reader"],
            ),
            (
                "a relation of the same object",
                "type document\n relations\n  define banned: [user]\n  define reader: [user] but not banned",
                &["document#banned"],
                &["document#reader"],
            ),
            (
                "through a userset",
                "type group\n relations\n  define member: [user]\n  define owner: [user]\ntype document\n relations\n  \
                 define banned: [group#member]\n  define viewer: [group#owner]\n  define reader: viewer but not banned",
                &["group#member", "document#banned"],
                &["group#owner", "document#viewer", "document#reader"],
            ),
            (
                "through a parent",
                "type team\n relations\n  define blocked: [user]\n  define lead: [user]\ntype document\n relations\n  \
                 define team: [team]\n  define reader: [user] but not blocked from team",
                &["team#blocked", "document#team"],
                &["team#lead", "document#reader"],
            ),
            (
                "a cycle of groups",
                "type group\n relations\n  define member: [user, group#member]\ntype document\n relations\n  define out: \
                 [group#member]\n  define reader: [user] but not out",
                &["group#member", "document#out"],
                &["document#reader"],
            ),
            (
                "inside other operators",
                "type document\n relations\n  define a: [user]\n  define b: [user]\n  define c: [user]\n  define d: [user]\n  \
                 define reader: a or (b and (c but not d))",
                &["document#d"],
                &["document#a", "document#b", "document#c", "document#reader"],
            ),
            (
                "what is taken out of what is taken out",
                "type document\n relations\n  define a: [user]\n  define b: [user]\n  define c: [user]\n  define \
                 exempt: b but not c\n  define reader: a but not exempt",
                &["document#b", "document#c", "document#exempt"],
                &["document#a", "document#reader"],
            ),
            (
                "a relation that is used elsewhere",
                "type tenant\n relations\n  define member: [user]\ntype document\n relations\n  define tenant: [tenant]\n  \
                 define public: [user:*]\n  define reader: public and member from tenant\n  define writer: [user] but not reader",
                &["tenant#member", "document#public", "document#tenant", "document#reader"],
                &["document#writer"],
            ),
        ];
        for (row, types, within, outside) in rows {
            let model = dsl::load(&format!("model\n  schema 1.1\ntype user\n{types}\n")).unwrap();
            let subtracted = Subtracted::of(model.source());
            let has = |name: &&str| {
                let (type_name, relation) = name.split_once('#').unwrap();
                subtracted.relations.get(type_name).is_some_and(|relations| relations.contains_key(relation))
            };
            assert!(within.iter().all(has), "{row}: {subtracted:?}");
            assert!(!outside.iter().any(has), "{row}: {subtracted:?}");
        }
    }

    #[test]
    fn a_tuple_that_nobody_may_write_takes_nobody_out() {
        let model = dsl::load(
            "model\n  schema 1.1\ntype user\ntype client\ntype group\n relations\n  define member: [user, group#member]\ntype \
             document\n relations\n  define banned: [group#member, client, user:*]\n  define reader: [user, client] but not \
             banned\n",
        )
        .unwrap();
        let subtracted = Subtracted::of(model.source());
        let rows = [
            ("user", "member", "group", true),
            ("client", "member", "group", false),
            ("client", "banned", "document", true),
            ("user", "banned", "document", false),
            ("group", "banned", "document", false),
            ("user", "reader", "document", false),
            ("user", "member", "document", false),
            ("user", "member", "team", false),
        ];
        for (user_type, relation, object_type, expected) in rows {
            let found = subtracted.has_relation(user_type, relation, object_type);
            assert_eq!(found, expected, "{user_type} {relation} {object_type}");
        }
    }

    #[test]
    fn conditions_that_take_out_tell_their_parameters() {
        let model = dsl::load(
            "model\n  schema 1.1\ntype user\ntype document\n relations\n  define banned: [user with abroad]\n  define \
             viewer: [user with at_home]\n  define reader: viewer but not banned\ncondition abroad(country: string, home: \
             string) {\n country != home\n}\ncondition at_home(place: string) {\n place == \"home\"\n}\n",
        )
        .unwrap();
        let subtracted = Subtracted::of(model.source());
        let found = ["country", "home", "place", "other"].map(|name| subtracted.has_parameter(name));
        assert_eq!(found, [true, true, false, false]);
    }
}
