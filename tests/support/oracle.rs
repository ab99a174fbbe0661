//! A slow, obvious evaluator that nobody optimises, to compare the fast one with. It shares the structure of a parsed
//! model with the library and nothing else.
//!
//! For one user, every relation of every object starts as unknown, and the definitions are applied until nothing changes
//! any more. What is unknown at the end depends on itself, and is denied, or depends on a condition that failed.

#[path = "oracle/conditions.rs"]
mod conditions;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use ragward::relationship::RelationshipTuple;
use ragward::relationship::dsl;
use ragward::relationship::model::{AuthorizationModel, RelationDefinition, RestrictionKind, Rewrite, TypeRestriction};
use serde_json::{Map, Value};

/// A model with tuples, and the context of a request.
pub(crate) struct Oracle {
    model: AuthorizationModel,
    /// By object and relation; only those that the model allows.
    tuples: BTreeMap<(String, String), Vec<Named>>,
    /// Those that tuples name.
    objects: BTreeSet<String>,
    /// Others that are asked about.
    unnamed: BTreeSet<String>,
    /// By user and whether wildcards count: a list of users asks for the same again and again.
    known: RefCell<BTreeMap<(String, bool), Rc<Holdings>>>,
}

/// The user of a tuple, and whether the tuple counts.
struct Named {
    user: String,
    counts: Truth,
}

/// What one user holds.
pub(crate) struct Holdings(BTreeMap<(String, String), Truth>);

/// In this order, the last of several is what they come to together (`or`): see [`any`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Truth {
    No,
    /// It depends on itself.
    Unknown,
    /// It depends on a condition that failed.
    Failed,
    Yes,
}

impl Holdings {
    /// Whether the user holds the relation on the object; `None` where that depends on a condition that failed.
    pub(crate) fn check(&self, relation: &str, object: &str) -> Option<bool> {
        match self.0.get(&(object.to_owned(), relation.to_owned())) {
            Some(Truth::Yes) => Some(true),
            Some(Truth::Failed) => None,
            Some(Truth::No | Truth::Unknown) | None => Some(false),
        }
    }
}

impl Oracle {
    pub(crate) fn new(
        model: AuthorizationModel,
        tuples: impl IntoIterator<Item = RelationshipTuple>,
        context: &Map<String, Value>,
    ) -> Self {
        let mut oracle = Self {
            model,
            tuples: BTreeMap::new(),
            objects: BTreeSet::new(),
            unnamed: BTreeSet::new(),
            known: RefCell::default(),
        };
        for tuple in tuples {
            let (user, relation) = (tuple.user.to_string(), tuple.relation.to_string());
            let (object, condition) = (tuple.object.to_string(), tuple.condition.as_ref());
            // A userset in itself says nothing and cannot be written.
            let says_nothing = user == format!("{object}#{relation}");
            if says_nothing || !oracle.allows(&user, &relation, &object, condition.map(|c| c.name())) {
                continue;
            }
            let counts = condition.map_or(Truth::Yes, |condition| {
                match conditions::is_met(condition.name(), &condition.context(), context) {
                    Some(true) => Truth::Yes,
                    Some(false) => Truth::No,
                    None => Truth::Failed,
                }
            });
            let user_object = user.split('#').next().unwrap_or_default();
            if !user_object.ends_with(":*") {
                oracle.objects.insert(user_object.to_owned());
            }
            oracle.objects.insert(object.clone());
            oracle.tuples.entry((object, relation)).or_default().push(Named { user, counts });
        }
        oracle
    }

    /// The same, asked about objects that no tuple may name, too.
    pub(crate) fn asked_about(self, objects: &[&str]) -> Self {
        Self { unnamed: objects.iter().map(|object| (*object).to_owned()).collect(), ..self }
    }

    /// Reads the model and the tuples of a store file: only its plain form, `model: |` and `- user: / relation: / object:`.
    pub(crate) fn load(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("a store file");
        let (mut model, mut tuples, mut in_model) = (String::new(), Vec::new(), false);
        let (mut user, mut relation) = (String::new(), String::new());
        for line in text.lines() {
            if line == "model: |" {
                in_model = true;
            } else if line == "tuples:" {
                in_model = false;
            } else if in_model {
                model.push_str(line.strip_prefix("  ").unwrap_or(line));
                model.push('\n');
            } else if let Some(value) = line.strip_prefix("- user: ") {
                value.clone_into(&mut user);
            } else if let Some(value) = line.strip_prefix("  relation: ") {
                value.clone_into(&mut relation);
            } else if let Some(value) = line.strip_prefix("  object: ") {
                tuples.push(RelationshipTuple::parse(&user, &relation, value).expect("a tuple"));
            }
        }
        Self::new(dsl::parse(&model).expect("a model").model, tuples, &Map::new())
    }

    /// Everything that a user (`user:anne`, `user:*` or `group:eng#member`) holds.
    pub(crate) fn holdings(&self, user: &str) -> Rc<Holdings> {
        self.holdings_with(user, true)
    }

    fn holdings_with(&self, user: &str, wildcards_count: bool) -> Rc<Holdings> {
        let key = (user.to_owned(), wildcards_count);
        let known = self.known.borrow().get(&key).cloned();
        known.unwrap_or_else(|| {
            let found = Rc::new(Asked { oracle: self, user, wildcards_count }.holdings());
            self.known.borrow_mut().insert(key, Rc::clone(&found));
            found
        })
    }

    /// The objects of a type that a user holds a relation on; `None` where a condition failed that one of them depends on.
    pub(crate) fn list_objects(
        &self,
        holdings: &Holdings,
        relation: &str,
        type_name: &str,
    ) -> Option<BTreeSet<String>> {
        let mut listed = BTreeSet::new();
        for object in self.objects_of(type_name) {
            if holdings.check(relation, object)? {
                listed.insert(object.clone());
            }
        }
        Some(listed)
    }

    /// The users of a kind (`user` or `group#member`) that hold a relation on an object; `None` where a condition fails on
    /// the way from the object to its users, whoever they are.
    pub(crate) fn list_users(&self, object: &str, relation: &str, kind: &str) -> Option<BTreeSet<String>> {
        let (type_name, userset) = kind.split_once('#').map_or((kind, None), |(of, relation)| (of, Some(relation)));
        let anybody =
            userset.map_or_else(|| format!("{type_name}:any"), |relation| format!("{type_name}:any#{relation}"));
        let possible = self.possible(&anybody).contains(&(type_of(object).to_owned(), relation.to_owned()));
        if possible && self.fails(object, relation, &mut BTreeSet::new()) {
            return None;
        }
        let everybody = format!("{type_name}:*");
        let open = userset.is_none() && self.holdings(&everybody).check(relation, object)?;
        let mut listed: BTreeSet<String> = open.then_some(everybody).into_iter().collect();
        for named in self.objects_of(type_name) {
            let user = userset.map_or_else(|| named.clone(), |relation| format!("{named}#{relation}"));
            // Beside everybody, only who would hold it anyway.
            let asked = self.holdings(&user).check(relation, object)?;
            if asked && self.holdings_with(&user, !open).check(relation, object)? {
                listed.insert(user);
            }
        }
        Some(listed)
    }

    fn objects_of<'a>(&'a self, type_name: &'a str) -> impl Iterator<Item = &'a String> {
        self.objects.iter().filter(move |object| type_of(object) == type_name)
    }

    /// Whether a condition fails among the tuples that lead from a relation of an object to its users.
    fn fails(&self, object: &str, relation: &str, seen: &mut BTreeSet<(String, String)>) -> bool {
        if !seen.insert((object.to_owned(), relation.to_owned())) {
            return false;
        }
        let Some(definition) = self.relation(type_of(object), relation) else { return false };
        definition.rewrite.leaves().into_iter().any(|leaf| match leaf {
            Rewrite::Direct => self.users(object, relation).iter().any(|named| match named.counts {
                Truth::Failed => true,
                Truth::Yes => named.user.split_once('#').is_some_and(|(of, relation)| self.fails(of, relation, seen)),
                Truth::No | Truth::Unknown => false,
            }),
            Rewrite::TupleToUserset { tupleset, computed } => {
                self.users(object, tupleset).iter().any(|named| match named.counts {
                    Truth::Failed => true,
                    Truth::Yes => self.fails(&named.user, computed, seen),
                    Truth::No | Truth::Unknown => false,
                })
            }
            Rewrite::Computed(computed) => self.fails(object, computed, seen),
            Rewrite::Union(_) | Rewrite::Intersection(_) | Rewrite::Difference { .. } => false,
        })
    }

    /// The users of the tuples about an object's relation.
    fn users(&self, object: &str, relation: &str) -> &[Named] {
        self.tuples.get(&(object.to_owned(), relation.to_owned())).map_or(&[], Vec::as_slice)
    }

    fn allows(&self, user: &str, relation: &str, object: &str, condition: Option<&str>) -> bool {
        let definition = self.relation(type_of(object), relation);
        definition.is_some_and(|definition| {
            definition.directly_related.iter().any(|restriction| {
                let shape = TypeRestriction { condition: None, ..restriction.clone() }.to_string();
                shape == shape_of(user) && restriction.condition.as_deref() == condition
            })
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

/// Who asks.
struct Asked<'a> {
    oracle: &'a Oracle,
    user: &'a str,
    /// Whether tuples about everybody of a type count for an object of that type.
    wildcards_count: bool,
}

impl Asked<'_> {
    fn holdings(&self) -> Holdings {
        let possible = self.oracle.possible(self.user);
        let mut truths: BTreeMap<(String, String), Truth> = BTreeMap::new();
        for object in self.oracle.objects.union(&self.oracle.unnamed) {
            for relation in self.oracle.relations_of(type_of(object)) {
                let itself = format!("{object}#{}", relation.name) == self.user;
                let unreachable = !possible.contains(&(type_of(object).to_owned(), relation.name.clone()));
                let truth = if itself {
                    Truth::Yes
                } else if unreachable {
                    Truth::No
                } else {
                    Truth::Unknown
                };
                truths.insert((object.clone(), relation.name.clone()), truth);
            }
        }
        // First what is certain. Then, of what is not, what depends on a condition that failed.
        self.settle(&mut truths, &[Truth::Yes, Truth::No]);
        self.settle(&mut truths, &[Truth::Failed]);
        Holdings(truths)
    }

    /// Applies the definitions to what is unknown until nothing becomes one of these any more.
    fn settle(&self, truths: &mut BTreeMap<(String, String), Truth>, what: &[Truth]) {
        loop {
            let mut changed = false;
            for ((object, relation), truth) in truths.clone() {
                if truth != Truth::Unknown {
                    continue;
                }
                let definition = self.oracle.relation(type_of(&object), &relation).expect("defined");
                let found = self.evaluate(&object, definition, &definition.rewrite, truths);
                if what.contains(&found) {
                    truths.insert((object, relation), found);
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    fn evaluate(
        &self,
        object: &str,
        definition: &RelationDefinition,
        rewrite: &Rewrite,
        truths: &BTreeMap<(String, String), Truth>,
    ) -> Truth {
        let evaluate = |rewrite| self.evaluate(object, definition, rewrite, truths);
        let truth_of = |object: &str, relation: &str| {
            truths.get(&(object.to_owned(), relation.to_owned())).copied().unwrap_or(Truth::No)
        };
        match rewrite {
            Rewrite::Direct => {
                let named = self.oracle.users(object, &definition.name);
                let own = named.iter().filter(|named| self.is_named(&named.user)).map(|named| named.counts);
                let usersets = named.iter().filter_map(|named| {
                    let (object, relation) = named.user.split_once('#')?;
                    Some((named.counts, truth_of(object, relation)))
                });
                any(own.chain([through(usersets)]))
            }
            Rewrite::Computed(relation) => truth_of(object, relation),
            Rewrite::TupleToUserset { tupleset, computed } => {
                let parents = self.oracle.users(object, tupleset).iter();
                through(parents.map(|parent| (parent.counts, truth_of(&parent.user, computed))))
            }
            Rewrite::Union(operands) => any(operands.iter().map(evaluate)),
            Rewrite::Intersection(operands) => all(operands.iter().map(evaluate)),
            Rewrite::Difference { base, subtract } => all([evaluate(base), not(evaluate(subtract))].into_iter()),
        }
    }

    fn is_named(&self, named: &str) -> bool {
        let everybody = self.wildcards_count || self.user.ends_with(":*");
        named == self.user || (everybody && !self.user.contains('#') && named == format!("{}:*", type_of(self.user)))
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

/// Through usersets or parents: pairs of whether the tuple counts, and what is behind it. As in `OpenFGA`, a failed
/// condition does not matter where another tuple counts.
fn through(tuples: impl Iterator<Item = (Truth, Truth)>) -> Truth {
    let (mut behind, mut failed) = (Vec::new(), false);
    for (counts, truth) in tuples {
        match counts {
            Truth::Yes => behind.push(truth),
            Truth::Failed => failed = true,
            Truth::No | Truth::Unknown => {}
        }
    }
    if behind.is_empty() && failed { Truth::Failed } else { any(behind.into_iter()) }
}

fn any(truths: impl Iterator<Item = Truth>) -> Truth {
    truths.max().unwrap_or(Truth::No)
}

/// A failed condition weighs less here than what depends on itself: that alone is reason enough to deny.
fn all(truths: impl Iterator<Item = Truth>) -> Truth {
    let weight = |truth: &Truth| match truth {
        Truth::No => 0,
        Truth::Unknown => 1,
        Truth::Failed => 2,
        Truth::Yes => 3,
    };
    truths.min_by_key(weight).unwrap_or(Truth::Yes)
}

fn not(truth: Truth) -> Truth {
    match truth {
        Truth::Yes => Truth::No,
        Truth::No => Truth::Yes,
        unknown @ (Truth::Unknown | Truth::Failed) => unknown,
    }
}
