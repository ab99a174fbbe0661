//! A slow, obvious evaluator that nobody optimises, to compare the fast one with. It shares the structure of a parsed
//! model with the library and nothing else.
//!
//! For one user, every relation of every object starts as unknown, and the definitions are applied until nothing changes
//! any more. What is unknown at the end depends on itself, and is denied.

use std::collections::{BTreeMap, BTreeSet};

use ragward::relationship::model::{AuthorizationModel, RelationDefinition, RestrictionKind, Rewrite};

/// A model with tuples.
pub(crate) struct Oracle {
    model: AuthorizationModel,
    /// The users of the tuples, by object and relation.
    tuples: BTreeMap<(String, String), BTreeSet<String>>,
    objects: BTreeSet<String>,
}

/// What one user holds.
pub(crate) struct Holdings(BTreeMap<(String, String), Truth>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Truth {
    Yes,
    No,
    Unknown,
}

impl Holdings {
    /// Whether the user holds the relation on the object. An object that no tuple names is not known here.
    pub(crate) fn check(&self, relation: &str, object: &str) -> bool {
        self.0.get(&(object.to_owned(), relation.to_owned())) == Some(&Truth::Yes)
    }
}

impl Oracle {
    /// Tuples are (user, relation, object).
    pub(crate) fn new(model: AuthorizationModel, tuples: impl IntoIterator<Item = (String, String, String)>) -> Self {
        let mut oracle = Self { model, tuples: BTreeMap::new(), objects: BTreeSet::new() };
        for (user, relation, object) in tuples {
            let user_object = user.split('#').next().unwrap_or_default();
            if !user_object.ends_with(":*") {
                oracle.objects.insert(user_object.to_owned());
            }
            oracle.objects.insert(object.clone());
            oracle.tuples.entry((object, relation)).or_default().insert(user);
        }
        oracle
    }

    /// Everything that a user (`user:anne`, `user:*` or `group:eng#member`) holds.
    pub(crate) fn holdings(&self, user: &str) -> Holdings {
        let possible = self.possible(user);
        let mut truths: BTreeMap<(String, String), Truth> = BTreeMap::new();
        for object in &self.objects {
            for relation in self.relations_of(type_of(object)) {
                truths.insert((object.clone(), relation.name.clone()), Truth::Unknown);
            }
        }
        loop {
            let mut changed = false;
            for ((object, relation), truth) in truths.clone() {
                if truth != Truth::Unknown {
                    continue;
                }
                let found = if format!("{object}#{relation}") == user {
                    Truth::Yes
                } else if possible.contains(&(type_of(&object).to_owned(), relation.clone())) {
                    let definition = self.relation(type_of(&object), &relation).expect("defined");
                    self.evaluate(user, &object, definition, &definition.rewrite, &truths)
                } else {
                    Truth::No
                };
                if found != Truth::Unknown {
                    truths.insert((object, relation), found);
                    changed = true;
                }
            }
            if !changed {
                return Holdings(truths);
            }
        }
    }

    fn evaluate(
        &self,
        user: &str,
        object: &str,
        definition: &RelationDefinition,
        rewrite: &Rewrite,
        truths: &BTreeMap<(String, String), Truth>,
    ) -> Truth {
        let evaluate = |rewrite| self.evaluate(user, object, definition, rewrite, truths);
        let truth_of = |object: &str, relation: &str| {
            truths.get(&(object.to_owned(), relation.to_owned())).copied().unwrap_or(Truth::No)
        };
        match rewrite {
            Rewrite::Direct => any(self.users(object, &definition.name).map(|named| {
                if named == user || (!user.contains('#') && named == format!("{}:*", type_of(user))) {
                    return Truth::Yes;
                }
                named.split_once('#').map_or(Truth::No, |(object, relation)| truth_of(object, relation))
            })),
            Rewrite::Computed(relation) => truth_of(object, relation),
            Rewrite::TupleToUserset { tupleset, computed } => {
                any(self.users(object, tupleset).map(|parent| truth_of(parent, computed)))
            }
            Rewrite::Union(operands) => any(operands.iter().map(evaluate)),
            Rewrite::Intersection(operands) => not(any(operands.iter().map(|operand| not(evaluate(operand))))),
            Rewrite::Difference { base, subtract } => not(any([not(evaluate(base)), evaluate(subtract)].into_iter())),
        }
    }

    /// The users of the tuples about an object's relation which the model allows there.
    fn users(&self, object: &str, relation: &str) -> impl Iterator<Item = &str> {
        let definition = self.relation(type_of(object), relation);
        let users = self.tuples.get(&(object.to_owned(), relation.to_owned()));
        users.into_iter().flatten().map(String::as_str).filter(move |user| {
            definition
                .is_some_and(|definition| definition.directly_related.iter().any(|r| r.to_string() == shape_of(user)))
        })
    }

    /// The relations (with their types) that such a user could hold if the right tuples were there.
    fn possible(&self, user: &str) -> BTreeSet<(String, String)> {
        let mut possible = BTreeSet::new();
        if let Some((object, relation)) = user.split_once('#') {
            possible.insert((type_of(object).to_owned(), relation.to_owned()));
        }
        loop {
            let before = possible.len();
            for definition in &self.model.types {
                for relation in &definition.relations {
                    if self.is_possible(user, &definition.name, relation, &possible) {
                        possible.insert((definition.name.clone(), relation.name.clone()));
                    }
                }
            }
            if possible.len() == before {
                return possible;
            }
        }
    }

    fn is_possible(
        &self,
        user: &str,
        type_name: &str,
        definition: &RelationDefinition,
        possible: &BTreeSet<(String, String)>,
    ) -> bool {
        let holds = |type_name: &str, relation: &str| possible.contains(&(type_name.to_owned(), relation.to_owned()));
        definition.rewrite.leaves().into_iter().any(|leaf| match leaf {
            Rewrite::Direct => definition.directly_related.iter().any(|restriction| match &restriction.kind {
                RestrictionKind::Userset(relation) => holds(&restriction.type_name, relation),
                RestrictionKind::Object | RestrictionKind::Wildcard => {
                    !user.contains('#') && restriction.type_name == type_of(user)
                }
            }),
            Rewrite::Computed(relation) => holds(type_name, relation),
            Rewrite::TupleToUserset { tupleset, computed } => self
                .relation(type_name, tupleset)
                .is_some_and(|tupleset| tupleset.directly_related.iter().any(|r| holds(&r.type_name, computed))),
            Rewrite::Union(_) | Rewrite::Intersection(_) | Rewrite::Difference { .. } => false,
        })
    }

    fn relation(&self, type_name: &str, relation: &str) -> Option<&RelationDefinition> {
        self.relations_of(type_name).iter().find(|r| r.name == relation)
    }

    fn relations_of(&self, type_name: &str) -> &[RelationDefinition] {
        self.model.types.iter().find(|t| t.name == type_name).map_or(&[], |t| t.relations.as_slice())
    }
}

fn type_of(object: &str) -> &str {
    object.split(':').next().unwrap_or_default()
}

/// The type restriction that a user needs: `user`, `user:*` or `group#member`.
fn shape_of(user: &str) -> String {
    match user.split_once('#') {
        Some((object, relation)) => format!("{}#{relation}", type_of(object)),
        None if user.ends_with(":*") => user.to_owned(),
        None => type_of(user).to_owned(),
    }
}

fn any(truths: impl Iterator<Item = Truth>) -> Truth {
    let mut all = Truth::No;
    for truth in truths {
        match truth {
            Truth::Yes => return Truth::Yes,
            Truth::Unknown => all = Truth::Unknown,
            Truth::No => {}
        }
    }
    all
}

fn not(truth: Truth) -> Truth {
    match truth {
        Truth::Yes => Truth::No,
        Truth::No => Truth::Yes,
        Truth::Unknown => Truth::Unknown,
    }
}
