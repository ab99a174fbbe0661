//! A slow, obvious evaluator that stays unoptimised, to compare the fast one with. The only thing that it shares with
//! the library is the structure of a parsed model.
//!
//! For one user, every relation of every object starts as unknown, and the definitions are applied until nothing
//! changes any more. A relation that is still unknown then either depends on itself, and is denied, or depends on a
//! condition that failed.
//!
//! `OpenFGA` finds checks, lists of users and lists of objects in different ways, and so does this evaluator: see
//! [`Purpose`].

#![expect(clippy::wildcard_enum_match_arm, reason = "a rewrite that is not named leads nowhere")]

mod conditions;
mod weights;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use ragward::language::RelationshipTuple;
use ragward::language::dsl;
use ragward::language::model::{AuthorizationModel, RelationDefinition, RestrictionKind, Rewrite, TypeRestriction};
use serde_json::{Map, Value};

use self::weights::Weights;

/// A model with tuples, and the context of a request.
pub(crate) struct Oracle {
    model: AuthorizationModel,
    weights: Option<Weights>,
    /// The tuples that the model allows, by object and relation.
    tuples: BTreeMap<(String, String), Vec<Named>>,
    /// The objects that tuples name.
    objects: BTreeSet<String>,
    /// Other objects that questions name.
    unnamed: BTreeSet<String>,
    /// The answers so far, by user and purpose. They are kept because a list of users asks the same questions again and
    /// again.
    known: RefCell<BTreeMap<(String, Purpose), Rc<Holdings>>>,
}

/// The user of a tuple, and whether the tuple counts.
struct Named {
    user: String,
    counts: Truth,
    origin: Origin,
}

/// The place that a tuple comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Store,
    Request,
}

/// The kind of question that an answer is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    /// A check. A tuple of the request that names the user hides the stored one.
    Check,
    Users,
    /// A list of objects. A failed condition is not met, and a relation that depends on itself is not held, even under
    /// `but not`.
    Sets,
}

/// The relations that one user holds.
pub(crate) struct Holdings(BTreeMap<(String, String), Truth>);

/// The truth of a statement. Under `or`, the truth of the whole is the last of its parts in this order: see [`any`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Truth {
    No,
    /// False, but a failed condition was passed over. `but not` turns this into a failure.
    Doubted,
    /// The statement depends on itself.
    Unknown,
    /// The statement depends on a condition that failed.
    Failed,
    Yes,
}

impl Holdings {
    /// Returns whether the user holds the relation on the object, or `None` if that depends on a condition that failed.
    pub(crate) fn check(&self, relation: &str, object: &str) -> Option<bool> {
        match self.0.get(&(object.to_owned(), relation.to_owned())) {
            Some(Truth::Yes) => Some(true),
            Some(Truth::Failed) => None,
            Some(Truth::No | Truth::Doubted | Truth::Unknown) | None => Some(false),
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
            weights: Weights::of(&model),
            model,
            tuples: BTreeMap::new(),
            objects: BTreeSet::new(),
            unnamed: BTreeSet::new(),
            known: RefCell::default(),
        };
        oracle.put(tuples, context, Origin::Store);
        oracle
    }

    /// Adds the tuples of a request.
    pub(crate) fn with_request(mut self, tuples: &[RelationshipTuple], context: &Map<String, Value>) -> Self {
        self.put(tuples.iter().cloned(), context, Origin::Request);
        self
    }

    fn put(
        &mut self,
        tuples: impl IntoIterator<Item = RelationshipTuple>,
        context: &Map<String, Value>,
        origin: Origin,
    ) {
        for tuple in tuples {
            let (user, relation) = (tuple.user.to_string(), tuple.relation.to_string());
            let (object, condition) = (tuple.object.to_string(), tuple.condition.as_ref());
            // A userset within itself says nothing and cannot be written.
            let says_nothing = user == format!("{object}#{relation}");
            if says_nothing
                || !self.allows(&user, &relation, &object, condition.map(ragward::language::TupleCondition::name))
            {
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
                self.objects.insert(user_object.to_owned());
            }
            self.objects.insert(object.clone());
            self.tuples.entry((object, relation)).or_default().push(Named { user, counts, origin });
        }
    }

    /// Adds objects that questions may name although no tuple does.
    pub(crate) fn asked_about(self, objects: &[&str]) -> Self {
        Self { unnamed: objects.iter().map(|object| (*object).to_owned()).collect(), ..self }
    }

    /// Reads the model and the tuples of a store file, in its plain form only: `model: |` and `- user: / relation: /
    /// object:`.
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

    /// Returns everything that a user (`user:anne`, `user:*` or `group:eng#member`) holds.
    pub(crate) fn holdings(&self, user: &str) -> Rc<Holdings> {
        self.holdings_for(user, Purpose::Check)
    }

    fn holdings_for(&self, user: &str, purpose: Purpose) -> Rc<Holdings> {
        let key = (user.to_owned(), purpose);
        let known = self.known.borrow().get(&key).cloned();
        known.unwrap_or_else(|| {
            let found = Rc::new(Asked { oracle: self, user, purpose }.holdings());
            self.known.borrow_mut().insert(key, Rc::clone(&found));
            found
        })
    }

    /// Returns the objects of a type that a user holds a relation on, or `None` if a condition that matters fails.
    pub(crate) fn list_objects(&self, user: &str, relation: &str, type_name: &str) -> Option<BTreeSet<String>> {
        let is_single = !user.contains('#') && !user.ends_with(":*");
        if is_single && self.weights.is_some() {
            return self.objects_as_sets(user, relation, type_name);
        }
        let holdings = self.holdings(user);
        let is_checked = self.needed(relation, type_name, followed)?.iter().any(|(of, relation)| {
            self.relation(of, relation).is_some_and(|definition| has_operator(&definition.rewrite))
        });
        let mut listed = BTreeSet::new();
        for (object, reached) in self.reached(user, relation, type_name)? {
            let asked = reached == relation && type_of(&object) == type_name;
            if asked && (!is_checked || holdings.check(relation, &object)?) {
                listed.insert(object);
            }
        }
        Some(listed)
    }

    /// Finds the list as `OpenFGA` does for a single user, by computing with sets. A condition matters if its tuple
    /// names the user, or a userset or parent that the user holds.
    fn objects_as_sets(&self, user: &str, relation: &str, type_name: &str) -> Option<BTreeSet<String>> {
        let holdings = self.holdings_for(user, Purpose::Sets);
        let holds = |object: &str, relation: &str| holdings.check(relation, object) == Some(true);
        let asked = Asked { oracle: self, user, purpose: Purpose::Sets };
        for (of, relation) in self.needed(relation, type_name, Rewrite::leaves)? {
            let definition = self.relation(&of, &relation)?;
            for object in self.objects_of(&of) {
                let fails = definition.rewrite.leaves().into_iter().any(|leaf| match leaf {
                    Rewrite::Direct => self.users(object, &relation).iter().any(|named| {
                        let userset = named.user.split_once('#').is_some_and(|(o, r)| holds(o, r));
                        named.counts == Truth::Failed && (asked.is_named(&named.user) || userset)
                    }),
                    Rewrite::TupleToUserset { tupleset, computed } => {
                        let mut parents = self.users(object, tupleset).iter();
                        parents.any(|parent| parent.counts == Truth::Failed && holds(&parent.user, computed))
                    }
                    _ => false,
                });
                if fails {
                    return None;
                }
            }
        }
        let all = self.objects.union(&self.unnamed).filter(|object| type_of(object) == type_name);
        Some(all.filter(|object| holds(object, relation)).cloned().collect())
    }

    /// Returns the relations, with their types, that a target depends on through these `parts` of the definitions.
    fn needed(
        &self,
        relation: &str,
        type_name: &str,
        parts: fn(&Rewrite) -> Vec<&Rewrite>,
    ) -> Option<BTreeSet<(String, String)>> {
        let mut needed = BTreeSet::from([(type_name.to_owned(), relation.to_owned())]);
        loop {
            let before = needed.len();
            for (type_name, relation) in needed.clone() {
                let definition = self.relation(&type_name, &relation)?;
                for leaf in parts(&definition.rewrite) {
                    match leaf {
                        Rewrite::Direct => {
                            needed.extend(definition.directly_related.iter().filter_map(|r| match &r.kind {
                                RestrictionKind::Userset(relation) => Some((r.type_name.clone(), relation.clone())),
                                RestrictionKind::Object | RestrictionKind::Wildcard => None,
                            }));
                        }
                        Rewrite::Computed(computed) => drop(needed.insert((type_name.clone(), computed.clone()))),
                        Rewrite::TupleToUserset { tupleset, computed } => {
                            let parents = &self.relation(&type_name, tupleset)?.directly_related;
                            let parents = parents.iter().filter(|r| self.relation(&r.type_name, computed).is_some());
                            needed.extend(parents.map(|parent| (parent.type_name.clone(), computed.clone())));
                        }
                        Rewrite::Union(_) | Rewrite::Intersection(_) | Rewrite::Difference { .. } => {}
                    }
                }
            }
            if needed.len() == before {
                return Some(needed);
            }
        }
    }

    /// Returns the relations of objects that can be reached from a user, along relations that the target depends on.
    fn reached(&self, user: &str, relation: &str, type_name: &str) -> Option<BTreeSet<(String, String)>> {
        let needed = self.needed(relation, type_name, followed)?;
        let mut reached: BTreeSet<(String, String)> = BTreeSet::new();
        if let Some((object, relation)) = user.split_once('#') {
            reached.insert((object.to_owned(), relation.to_owned()));
        }
        let asked = Asked { oracle: self, user, purpose: Purpose::Check };
        loop {
            let before = reached.len();
            for object in self.objects.union(&self.unnamed) {
                for definition in self.relations_of(type_of(object)) {
                    if !needed.contains(&(type_of(object).to_owned(), definition.name.clone())) {
                        continue;
                    }
                    for leaf in followed(&definition.rewrite) {
                        let is_reached =
                            |object: &str, relation: &str| reached.contains(&(object.to_owned(), relation.to_owned()));
                        let comes = match leaf {
                            Rewrite::Direct => any(self.users(object, &definition.name).iter().filter_map(|named| {
                                let userset = named.user.split_once('#');
                                let on_the_way =
                                    asked.is_named(&named.user) || userset.is_some_and(|(o, r)| is_reached(o, r));
                                on_the_way.then_some(named.counts)
                            })),
                            Rewrite::Computed(computed) if is_reached(object, computed) => Truth::Yes,
                            Rewrite::TupleToUserset { tupleset, computed } => {
                                let parents = self.users(object, tupleset).iter();
                                any(parents
                                    .filter(|parent| is_reached(&parent.user, computed))
                                    .map(|parent| parent.counts))
                            }
                            _ => Truth::No,
                        };
                        if comes == Truth::Yes {
                            reached.insert((object.clone(), definition.name.clone()));
                        }
                    }
                }
            }
            if reached.len() == before {
                break;
            }
        }
        let fails = |(object, relation): (&String, &String)| {
            let definition = self.relation(type_of(object), relation);
            definition.is_some_and(|definition| {
                followed(&definition.rewrite).into_iter().any(|leaf| {
                    let failed = |of: &str, on_the_way: &dyn Fn(&str) -> bool| {
                        self.users(object, of)
                            .iter()
                            .any(|named| named.counts == Truth::Failed && on_the_way(&named.user))
                    };
                    let is_reached =
                        |object: &str, relation: &str| reached.contains(&(object.to_owned(), relation.to_owned()));
                    match leaf {
                        Rewrite::Direct => failed(relation, &|named| {
                            asked.is_named(named) || named.split_once('#').is_some_and(|(o, r)| is_reached(o, r))
                        }),
                        Rewrite::TupleToUserset { tupleset, computed } => {
                            failed(tupleset, &|named| is_reached(named, computed))
                        }
                        _ => false,
                    }
                })
            })
        };
        let nodes = self
            .objects
            .iter()
            .flat_map(|object| self.relations_of(type_of(object)).iter().map(move |r| (object, &r.name)));
        let mut nodes =
            nodes.filter(|(object, relation)| needed.contains(&(type_of(object).to_owned(), (*relation).clone())));
        (!nodes.any(fails)).then_some(reached)
    }

    /// Returns the users of a kind (`user`, or `group#member`, which includes objects and the wildcard of the type)
    /// that hold a relation on an object. Returns `None` if a condition fails between the object and any of its users.
    pub(crate) fn list_users(&self, object: &str, relation: &str, kind: &str) -> Option<BTreeSet<String>> {
        let (type_name, userset) = kind.split_once('#').map_or((kind, None), |(of, relation)| (of, Some(relation)));
        if !self.leads_to(kind, object, relation) {
            return Some(BTreeSet::new());
        }
        if self.fails(object, relation, &mut BTreeSet::new()) {
            return None;
        }
        let everybody = format!("{type_name}:*");
        let open = self.holdings_for(&everybody, Purpose::Users).check(relation, object)?;
        let mut listed: BTreeSet<String> = open.then_some(everybody).into_iter().collect();
        let itself = (type_of(object) == type_name).then(|| object.to_owned());
        for named in self.objects_of(type_name).cloned().chain(itself) {
            let its_userset = userset.map(|relation| format!("{named}#{relation}"));
            for user in std::iter::once(named).chain(its_userset) {
                let holdings = self.holdings_for(&user, Purpose::Users);
                let asked = Asked { oracle: self, user: &user, purpose: Purpose::Users };
                // If the wildcard is listed, a user is listed only if tuples name the user.
                let is_covered = open && !user.contains('#');
                let listed_too = holdings.check(relation, object)?
                    && (!is_covered || asked.is_named_on_the_way(&holdings, object, relation, &mut BTreeSet::new()));
                if listed_too {
                    listed.insert(user);
                }
            }
        }
        Some(listed)
    }

    /// Returns whether a list searches for users of this kind at all. The search follows only the first operand of
    /// `and` and of `but not`.
    pub(crate) fn leads_to(&self, kind: &str, object: &str, relation: &str) -> bool {
        let (type_name, userset) = kind.split_once('#').map_or((kind, None), |(of, relation)| (of, Some(relation)));
        let Some(needed) = self.needed(relation, type_of(object), followed) else { return false };
        let takes = |(of, relation): &(String, String)| {
            let definition = self.relation(of, relation);
            definition.is_some_and(|definition| {
                let named = definition.directly_related.iter().any(|r| {
                    let is_single = r.kind == RestrictionKind::Object && userset.is_none();
                    r.type_name == type_name && (is_single || r.kind == RestrictionKind::Wildcard)
                });
                named && followed(&definition.rewrite).contains(&&Rewrite::Direct)
            })
        };
        match userset {
            Some(relation) => needed.contains(&(type_name.to_owned(), relation.to_owned())) || needed.iter().any(takes),
            None => needed.iter().any(takes),
        }
    }

    /// Returns whether a loop ends a list of users somewhere below a relation of an object.
    pub(crate) fn has_loop(&self, object: &str, relation: &str) -> bool {
        let asked = Asked { oracle: self, user: "", purpose: Purpose::Users };
        let (mut seen, mut pending) = (BTreeSet::new(), vec![(object.to_owned(), relation.to_owned())]);
        while let Some((object, relation)) = pending.pop() {
            if !seen.insert((object.clone(), relation.clone())) {
                continue;
            }
            let Some(definition) = self.relation(type_of(&object), &relation) else { continue };
            let mut parts = vec![&definition.rewrite];
            while let Some(part) = parts.pop() {
                parts.extend(part.operands());
                let named = |relation: &str| self.users(&object, relation).iter().map(|named| named.user.clone());
                match part {
                    Rewrite::Difference { subtract, .. } if asked.ends_list(&object, definition, subtract) => {
                        return true;
                    }
                    Rewrite::Direct => pending.extend(named(&relation).filter_map(|user| {
                        user.split_once('#').map(|(object, relation)| (object.to_owned(), relation.to_owned()))
                    })),
                    Rewrite::Computed(computed) => pending.push((object.clone(), computed.clone())),
                    Rewrite::TupleToUserset { tupleset, computed } => {
                        pending.extend(named(tupleset).map(|parent| (parent, computed.clone())));
                    }
                    _ => {}
                }
            }
        }
        false
    }

    fn objects_of<'a>(&'a self, type_name: &'a str) -> impl Iterator<Item = &'a String> {
        self.objects.iter().filter(move |object| type_of(object) == type_name)
    }

    /// Returns whether a condition fails among the tuples between a relation of an object and its users.
    fn fails(&self, object: &str, relation: &str, seen: &mut BTreeSet<(String, String)>) -> bool {
        if !seen.insert((object.to_owned(), relation.to_owned())) {
            return false;
        }
        let Some(definition) = self.relation(type_of(object), relation) else { return false };
        definition.rewrite.leaves().into_iter().any(|leaf| match leaf {
            Rewrite::Direct => self.users(object, relation).iter().any(|named| match named.counts {
                Truth::Failed => true,
                Truth::Yes => named.user.split_once('#').is_some_and(|(of, relation)| self.fails(of, relation, seen)),
                Truth::No | Truth::Doubted | Truth::Unknown => false,
            }),
            Rewrite::TupleToUserset { tupleset, computed } => {
                self.users(object, tupleset).iter().any(|named| match named.counts {
                    Truth::Failed => true,
                    Truth::Yes => self.fails(&named.user, computed, seen),
                    Truth::No | Truth::Doubted | Truth::Unknown => false,
                })
            }
            Rewrite::Computed(computed) => self.fails(object, computed, seen),
            Rewrite::Union(_) | Rewrite::Intersection(_) | Rewrite::Difference { .. } => false,
        })
    }

    /// Returns the users of the tuples of an object's relation.
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

    /// Returns the relations, with their types, that such a user could hold if the right tuples were there.
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

/// One user's question for one purpose.
struct Asked<'a> {
    oracle: &'a Oracle,
    user: &'a str,
    purpose: Purpose,
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
        // First settle what is certain, and then whatever else depends on a condition that failed.
        self.settle(&mut truths, &[Truth::Yes, Truth::No]);
        if self.purpose == Purpose::Sets {
            while self.deny_unfounded(&mut truths) {
                self.settle(&mut truths, &[Truth::Yes, Truth::No]);
            }
        }
        self.deny_own_cycles(&mut truths);
        self.settle(&mut truths, &[Truth::Doubted, Truth::Failed]);
        Holdings(truths)
    }

    /// Denies relations that depend on themselves only through their own usersets or parents. A check reads each of
    /// those once, so such a cycle adds nothing.
    fn deny_own_cycles(&self, truths: &mut BTreeMap<(String, String), Truth>) {
        let oracle = self.oracle;
        let Some(weights) = oracle.weights.as_ref().filter(|_| !self.user.contains('#')) else { return };
        let name_of = |(object, relation): &(String, String)| (type_of(object).to_owned(), relation.clone());
        let names: BTreeSet<(String, String)> = unknown(truths).iter().map(name_of).collect();
        let is_own = |name: &(String, String)| weights.goes_along_its_own(&oracle.model, name, type_of(self.user));
        for own in names.into_iter().filter(is_own) {
            self.settle_where(truths, &[Truth::Doubted, Truth::Failed], &|node| weights.is_below(&own, &name_of(node)));
            let cyclic = unknown(truths).into_iter().filter(|node| name_of(node) == own);
            truths.extend(cyclic.map(|node| (node, Truth::No)).collect::<Vec<_>>());
        }
        self.settle(truths, &[Truth::Yes, Truth::No]);
    }

    /// Applies the definitions to the unknown statements, and keeps each result that is one of the given truths, until
    /// no statement changes any more.
    fn settle(&self, truths: &mut BTreeMap<(String, String), Truth>, what: &[Truth]) {
        self.settle_where(truths, what, &|_| true);
    }

    fn settle_where(
        &self,
        truths: &mut BTreeMap<(String, String), Truth>,
        what: &[Truth],
        of: &dyn Fn(&(String, String)) -> bool,
    ) {
        loop {
            let mut changed = false;
            for (object, relation) in unknown(truths).into_iter().filter(of) {
                let definition = self.oracle.relation(type_of(&object), &relation).expect("defined");
                let found = self.evaluate(&object, definition, &definition.rewrite, truths, truths);
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

    /// Denies the unknown statements that would not hold even if nothing unknown were subtracted anywhere. Returns
    /// whether there were any.
    fn deny_unfounded(&self, truths: &mut BTreeMap<(String, String), Truth>) -> bool {
        let all = unknown(truths);
        let mut hoped = truths.clone();
        hoped.extend(all.iter().map(|node| (node.clone(), Truth::No)));
        loop {
            let mut changed = false;
            for node in &all {
                let (object, relation) = node;
                let definition = self.oracle.relation(type_of(object), relation).expect("defined");
                let found = self.evaluate(object, definition, &definition.rewrite, &hoped, truths);
                changed |= found == Truth::Yes && hoped.insert(node.clone(), found) != Some(Truth::Yes);
            }
            if !changed {
                break;
            }
        }
        let unfounded = all.into_iter().filter(|node| hoped.get(node) == Some(&Truth::No));
        let denied: Vec<_> = unfounded.map(|node| (node, Truth::No)).collect();
        let some = !denied.is_empty();
        truths.extend(denied);
        some
    }

    /// Evaluates a definition. Operands that are subtracted take their truths from `certain`. Where that differs from
    /// `truths`, only what is certain is subtracted.
    fn evaluate(
        &self,
        object: &str,
        definition: &RelationDefinition,
        rewrite: &Rewrite,
        truths: &BTreeMap<(String, String), Truth>,
        certain: &BTreeMap<(String, String), Truth>,
    ) -> Truth {
        let evaluate = |rewrite| self.evaluate(object, definition, rewrite, truths, certain);
        let truth_of = |object: &str, relation: &str| {
            truths.get(&(object.to_owned(), relation.to_owned())).copied().unwrap_or(Truth::No)
        };
        match rewrite {
            Rewrite::Direct => {
                let named = self.oracle.users(object, &definition.name);
                let counting = named.iter().filter(|one| self.is_named(&one.user) && !self.is_hidden(one, named));
                let own = counting.map(|named| self.counts(named));
                let usersets = named.iter().filter_map(|named| {
                    let (of, relation) = named.user.split_once('#')?;
                    let group = self.read_apart(object, &definition.name, of, relation);
                    Some((group, self.counts(named), truth_of(of, relation)))
                });
                any(own.chain([through(usersets)]))
            }
            Rewrite::Computed(relation) => truth_of(object, relation),
            Rewrite::TupleToUserset { tupleset, computed } => {
                let parents = self.oracle.users(object, tupleset).iter();
                through(parents.map(|parent| (None, self.counts(parent), truth_of(&parent.user, computed))))
            }
            Rewrite::Union(operands) => any(operands.iter().map(evaluate)),
            Rewrite::Intersection(operands) => all(operands.iter().map(evaluate)),
            Rewrite::Difference { base, subtract } if self.ends_list(object, definition, subtract) => {
                all([evaluate(base), Truth::Unknown].into_iter())
            }
            Rewrite::Difference { base, subtract } => {
                let taken_away = self.evaluate(object, definition, subtract, certain, certain);
                let is_hoped = !std::ptr::eq(truths, certain) && taken_away != Truth::Yes;
                let left = if is_hoped { Truth::Yes } else { not(taken_away) };
                all([evaluate(base), left].into_iter())
            }
        }
    }

    /// Returns whether a tuple names the user somewhere on the way to a relation that the user holds. The way does not
    /// lead through operands that are subtracted.
    fn is_named_on_the_way(
        &self,
        holdings: &Holdings,
        object: &str,
        relation: &str,
        seen: &mut BTreeSet<(String, String)>,
    ) -> bool {
        if !seen.insert((object.to_owned(), relation.to_owned())) || holdings.check(relation, object) != Some(true) {
            return false;
        }
        let definition = self.oracle.relation(type_of(object), relation).expect("defined");
        self.is_named_in(holdings, object, definition, &definition.rewrite, seen)
    }

    fn is_named_in(
        &self,
        holdings: &Holdings,
        object: &str,
        definition: &RelationDefinition,
        part: &Rewrite,
        seen: &mut BTreeSet<(String, String)>,
    ) -> bool {
        let met = |relation: &str| {
            let named = self.oracle.users(object, relation).iter().filter(|named| named.counts == Truth::Yes);
            named.map(|named| named.user.clone()).collect::<Vec<_>>()
        };
        let is_held = |part: &Rewrite| self.evaluate(object, definition, part, &holdings.0, &holdings.0) == Truth::Yes;
        match part {
            Rewrite::Direct => met(&definition.name).iter().any(|user| {
                let userset = user.split_once('#');
                user == self.user || userset.is_some_and(|(o, r)| self.is_named_on_the_way(holdings, o, r, seen))
            }),
            Rewrite::Computed(computed) => self.is_named_on_the_way(holdings, object, computed, seen),
            Rewrite::TupleToUserset { tupleset, computed } => {
                met(tupleset).iter().any(|parent| self.is_named_on_the_way(holdings, parent, computed, seen))
            }
            Rewrite::Union(operands) => {
                operands.iter().any(|operand| self.is_named_in(holdings, object, definition, operand, seen))
            }
            Rewrite::Intersection(operands) => {
                let mut named = operands.iter();
                is_held(part) && named.any(|operand| self.is_named_in(holdings, object, definition, operand, seen))
            }
            Rewrite::Difference { base, .. } => {
                is_held(part) && self.is_named_in(holdings, object, definition, base, seen)
            }
        }
    }

    /// Returns whether an operand that is subtracted leads back to itself through usersets and computed relations
    /// alone. Then a list of users is empty.
    fn ends_list(&self, object: &str, definition: &RelationDefinition, subtract: &Rewrite) -> bool {
        self.purpose == Purpose::Users && self.comes_back(object, &definition.name, subtract, &[])
    }

    fn comes_back(&self, object: &str, relation: &str, part: &Rewrite, path: &[(String, String)]) -> bool {
        let next: Vec<(String, String)> = match part {
            Rewrite::Direct => {
                let counting = self.oracle.users(object, relation).iter().filter(|named| named.counts == Truth::Yes);
                counting.filter_map(|named| named.user.split_once('#')).map(|(o, r)| (o.into(), r.into())).collect()
            }
            Rewrite::Computed(computed) => vec![(object.to_owned(), computed.clone())],
            _ => Vec::new(),
        };
        next.into_iter().any(|node| {
            let (object, relation) = &node;
            let Some(definition) = self.oracle.relation(type_of(object), relation) else { return false };
            let path = [path, std::slice::from_ref(&node)].concat();
            let before = &path[..path.len() - 1];
            before.contains(&node) || self.comes_back(object, relation, &definition.rewrite, &path)
        })
    }

    fn counts(&self, named: &Named) -> Truth {
        if self.purpose == Purpose::Sets && named.counts == Truth::Failed { Truth::No } else { named.counts }
    }

    /// Returns whether this tuple is hidden by another one. If tuples of the request name the user of a check, only the
    /// first of them counts.
    fn is_hidden(&self, one: &Named, named: &[Named]) -> bool {
        let is_single = !self.user.contains('#') && !self.user.ends_with(":*");
        if self.purpose != Purpose::Check || !is_single || one.user != self.user {
            return false;
        }
        let first = named.iter().find(|named| named.origin == Origin::Request && named.user == self.user);
        first.is_some_and(|first| !std::ptr::eq(first, one))
    }

    /// Returns the group of usersets that a check reads together with this one, or `None` if the check does not read
    /// the usersets in groups. In a group, a failed condition is passed over if another condition is met.
    fn read_apart(&self, object: &str, relation: &str, of: &str, userset: &str) -> Option<String> {
        let weights = self.oracle.weights.as_ref().filter(|_| !self.user.contains('#'))?;
        let name = |of: &str, relation: &str| (type_of(of).to_owned(), relation.to_owned());
        let is_apart = weights.is_apart(&name(object, relation), &name(of, userset), type_of(self.user));
        is_apart.then(|| format!("{}#{userset}", type_of(of)))
    }

    fn is_named(&self, named: &str) -> bool {
        named == self.user || (!self.user.contains('#') && named == format!("{}:*", type_of(self.user)))
    }
}

fn type_of(object: &str) -> &str {
    object.split(':').next().unwrap_or_default()
}

/// Returns the type restriction that a user needs: `user`, `user:*` or `group#member`.
fn shape_of(user: &str) -> String {
    match user.split_once('#') {
        Some((object, relation)) => format!("{}#{relation}", type_of(object)),
        None if user.ends_with(":*") => user.to_owned(),
        None => type_of(user).to_owned(),
    }
}

/// Joins usersets or parents. An item holds the group that is read together, the truth of its tuple, and the truth of
/// the userset or parent behind it. As in `OpenFGA`, a failed condition does not matter if another tuple of its group
/// counts, but it leaves a doubt.
fn through(tuples: impl Iterator<Item = (Option<String>, Truth, Truth)>) -> Truth {
    let (mut behind, mut failed) = (BTreeMap::<_, Vec<Truth>>::new(), BTreeSet::new());
    for (group, counts, truth) in tuples {
        match counts {
            Truth::Yes => behind.entry(group).or_default().push(truth),
            Truth::Failed => drop(failed.insert(group)),
            Truth::No | Truth::Doubted | Truth::Unknown => {}
        }
    }
    let failures = failed.iter().map(|group| if behind.contains_key(group) { Truth::Doubted } else { Truth::Failed });
    any(behind.values().flatten().copied().chain(failures))
}

fn unknown(truths: &BTreeMap<(String, String), Truth>) -> Vec<(String, String)> {
    truths.iter().filter(|(_, truth)| **truth == Truth::Unknown).map(|(node, _)| node.clone()).collect()
}

fn has_operator(rewrite: &Rewrite) -> bool {
    matches!(rewrite, Rewrite::Intersection(_) | Rewrite::Difference { .. })
        || rewrite.operands().into_iter().any(has_operator)
}

/// Returns the parts of a definition that a list of objects follows.
fn followed(rewrite: &Rewrite) -> Vec<&Rewrite> {
    match rewrite {
        Rewrite::Union(operands) => operands.iter().flat_map(followed).collect(),
        Rewrite::Intersection(operands) => operands.first().map(followed).unwrap_or_default(),
        Rewrite::Difference { base, .. } => followed(base),
        Rewrite::Direct | Rewrite::Computed(_) | Rewrite::TupleToUserset { .. } => vec![rewrite],
    }
}

fn any(truths: impl Iterator<Item = Truth>) -> Truth {
    truths.max().unwrap_or(Truth::No)
}

/// Joins truths under `and`. A statement that depends on itself outweighs a failed condition, because depending on
/// itself is reason enough to deny.
fn all(truths: impl Iterator<Item = Truth>) -> Truth {
    let weight = |truth: &Truth| match truth {
        Truth::No => 0,
        Truth::Doubted => 1,
        Truth::Unknown => 2,
        Truth::Failed => 3,
        Truth::Yes => 4,
    };
    truths.min_by_key(weight).unwrap_or(Truth::Yes)
}

fn not(truth: Truth) -> Truth {
    match truth {
        Truth::Yes => Truth::No,
        Truth::No => Truth::Yes,
        Truth::Doubted => Truth::Failed,
        unknown @ (Truth::Unknown | Truth::Failed) => unknown,
    }
}
