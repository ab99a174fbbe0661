//! Compares visible sets with checks and with the oracle, on random worlds: set algebra to depth 5, cycles, wildcards,
//! usersets of several types, parents, conditions, contextual tuples. The comparisons go on after random writes, and
//! under other names in another order.
//!
//! `RAGWARD_ORACLE_SEED` (a number) adds as many worlds, beginning with that seed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ragward::authz::embedded::EmbeddedAuthorizer;
use ragward::authz::{Authorizer, Check, CheckBatch, Consistency, VisibleSetQuery};
use ragward::engine::Contextual;
use ragward::engine::snapshot::Snapshot;
use ragward::language::validate::ValidModel;
use ragward::language::{Object, Relation, RelationshipTuple, TypeName, User};
use ragward::tuple_store::{OnConflict, RelationshipStores, TupleWrite};
use roaring::RoaringBitmap;
use tokio::time::Instant;

use crate::support::dice::Dice;
use crate::support::oracle::Oracle;
use crate::support::random_world::{OBJECTS, SUBJECTS, Size, TYPES, World, relations_of};

const SIZE: Size = Size { tuples_max: 40, rewrite_depth: 5 };
const FIRST_SEED: u64 = 1;
const WORLDS: u64 = 600;

/// Returns the seeds of a run's worlds.
#[expect(clippy::disallowed_methods, reason = "a test may read the environment and say so")]
fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let extra = std::env::var("RAGWARD_ORACLE_SEED").ok().map(|seed| seed.parse::<u64>().expect("a number"));
    let run = |first: u64| first..first.saturating_add(count);
    run(FIRST_SEED).chain(extra.map(run).into_iter().flatten())
}

/// Returns the relations of a world's model, with their types.
fn relations(world: &World) -> Vec<(TypeName, Relation)> {
    let defined = |type_name: &str, relation: &str| {
        world.model.type_definition(type_name).is_some_and(|definition| definition.relation(relation).is_some())
    };
    let all = TYPES.into_iter().flat_map(|of| relations_of(of).iter().map(move |relation| (of, *relation)));
    let all = all.filter(|(of, relation)| defined(of, relation));
    all.map(|(of, relation)| (TypeName::parse(of).expect("a type"), Relation::parse(relation).expect("a name")))
        .collect()
}

fn visible(snapshot: &Snapshot, user: &User, relation: &Relation, type_name: &TypeName) -> BTreeSet<String> {
    let set = snapshot.visible_set(user, relation, type_name, &mut || true).expect("a set");
    set.objects.iter().map(|number| snapshot.object(number).expect("a name").to_string()).collect()
}

/// Finds which of some objects are visible, all at once.
fn visible_among(
    snapshot: &Snapshot,
    user: &User,
    relation: &Relation,
    type_name: &TypeName,
    dice: &mut Dice,
) -> (BTreeSet<String>, Option<BTreeSet<String>>) {
    let objects = snapshot.objects_of(type_name).filter(|_| dice.below(3) > 0);
    let candidates: RoaringBitmap = objects.filter_map(|object| snapshot.object_number(&object)).collect();
    let named = |objects: &RoaringBitmap| -> BTreeSet<String> {
        objects.iter().map(|number| snapshot.object(number).expect("a name").to_string()).collect()
    };
    let among = snapshot.visible_among(user, relation, type_name, &candidates, &mut || true).expect("decided");
    (named(&candidates), among.map(|among| named(&among.objects)))
}

fn oracle(world: &World, tuples: impl IntoIterator<Item = RelationshipTuple>) -> Oracle {
    Oracle::new(world.model.clone(), tuples, &world.context).asked_about(&OBJECTS)
}

#[test]
fn a_visible_set_is_what_checks_allow_and_the_oracle_says() {
    let (mut visible_objects, mut decided_together) = (0, 0);
    for seed in seeds(WORLDS) {
        let world = World::random(seed, SIZE);
        let mut dice = Dice::new(seed);
        let Ok(valid) = ValidModel::new(world.model.clone()).map(Arc::new) else { continue };
        let stored = Snapshot::new("", Arc::clone(&valid)).with_tuples(&world.fitting(&valid)).expect("fitting tuples");
        let snapshot = stored.for_request(&world.contextual, world.context.clone()).expect("fitting contextual tuples");
        let oracle = oracle(&world, world.tuples.iter().cloned()).with_request(&world.contextual, &world.context);
        for subject in SUBJECTS {
            let holdings = oracle.holdings(subject);
            let user = User::parse(subject).expect("a user");
            for (type_name, relation) in relations(&world) {
                let found = visible(&snapshot, &user, &relation, &type_name);
                let objects: BTreeSet<Object> = snapshot.objects_of(&type_name).collect();
                let checked = objects.iter().filter(|object| snapshot.check(&user, &relation, object) == Ok(true));
                let checked: BTreeSet<String> = checked.map(ToString::to_string).collect();
                let told = objects.iter().map(ToString::to_string);
                let told: BTreeSet<String> =
                    told.filter(|object| holdings.check(relation.as_str(), object) == Some(true)).collect();
                assert_eq!(found, checked, "seed {seed}: {subject} {relation} {type_name}, against checks");
                let (candidates, among) = visible_among(&snapshot, &user, &relation, &type_name, &mut dice);
                let expected: BTreeSet<String> = checked.intersection(&candidates).cloned().collect();
                let at = format!("seed {seed}: {subject} {relation} {type_name} among {candidates:?}");
                assert!(among.as_ref().is_none_or(|among| *among == expected), "{at}: {among:?}, not {expected:?}");
                decided_together += u64::from(among.is_some_and(|among| !among.is_empty()));
                assert_eq!(found, told, "seed {seed}: {subject} {relation} {type_name}, against the oracle");
                visible_objects += found.len();
            }
        }
    }
    assert!(visible_objects > 10_000, "only {visible_objects} objects were visible: the worlds test nothing");
    assert!(decided_together > 5_000, "only {decided_together} sets were found among candidates");
}

/// Renames everything but wildcards, within the same kind.
fn renamed(name: &str) -> String {
    match (name.split_once(':'), name.split_once('#')) {
        (_, Some((object, relation))) => format!("{}#{relation}", renamed(object)),
        (Some((_, "*")) | None, None) => name.to_owned(),
        (Some((type_name, id)), None) => format!("{type_name}:renamed-{id}"),
    }
}

#[test]
fn names_and_the_order_of_writing_change_nothing() {
    for seed in seeds(100) {
        let world = World::random(seed, SIZE);
        let Ok(valid) = ValidModel::new(world.model.clone()).map(Arc::new) else { continue };
        let state = |tuples: &[RelationshipTuple]| {
            let with = Snapshot::new("", Arc::clone(&valid)).with_tuples(tuples).expect("fitting tuples");
            with.with_context(world.context.clone())
        };
        let tuples = world.fitting(&valid);
        let mut other: Vec<RelationshipTuple> = tuples
            .iter()
            .map(|tuple| {
                let [user, object] = [tuple.user.to_string(), tuple.object.to_string()].map(|name| renamed(&name));
                let renamed = RelationshipTuple::parse(&user, tuple.relation.as_str(), &object).expect("a tuple");
                RelationshipTuple { condition: tuple.condition.clone(), ..renamed }
            })
            .collect();
        Dice::new(seed).shuffle(&mut other);
        let (as_written, otherwise) = (state(&tuples), state(&other));
        for subject in SUBJECTS {
            let [user, other_user] = [subject.to_owned(), renamed(subject)].map(|s| User::parse(&s).expect("a user"));
            for (type_name, relation) in relations(&world) {
                let found = visible(&as_written, &user, &relation, &type_name);
                let expected: BTreeSet<String> = found.iter().map(|name| renamed(name)).collect();
                let found = visible(&otherwise, &other_user, &relation, &type_name);
                assert_eq!(found, expected, "seed {seed}: {subject} {relation} {type_name}");
            }
        }
    }
}

/// Returns a store of a world's model without tuples, and an authorizer over it.
fn embedded(world: &World) -> (tempfile::TempDir, RelationshipStores, EmbeddedAuthorizer) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let stores = RelationshipStores::open(directory.path()).expect("opened");
    let store = stores.default_store_or_new().expect("a store");
    store.write_model(ValidModel::new(world.model.clone()).expect("a valid model")).expect("written");
    (directory, stores.clone(), EmbeddedAuthorizer::new(stores))
}

/// Returns everything that questions may name, as the guards of a collection.
fn guards() -> Arc<Vec<Object>> {
    let others = ["user:0", "unknown:1", "doc:strange"];
    Arc::new(OBJECTS.iter().chain(&others).map(|name| Object::parse(name).expect("an object")).collect())
}

fn query(user: &str, relation: &Relation, guards: &Arc<Vec<Object>>, contextual: Contextual) -> VisibleSetQuery {
    VisibleSetQuery {
        user: Object::parse(user).expect("a user"),
        relation: relation.clone(),
        guards: Arc::clone(guards),
        positions: Arc::new((0..).zip(guards.iter()).map(|(position, _)| position).collect()),
        contextual: Arc::new(contextual),
        consistency: Consistency::default(),
        deadline: Instant::now() + Duration::from_mins(5),
    }
}

async fn asked(authorizer: &EmbeddedAuthorizer, query: &VisibleSetQuery) -> BTreeSet<String> {
    let set = authorizer.visible_set(query).await.expect("decided").expect("known").positions;
    set.iter().map(|position| query.guards[usize::try_from(position).expect("few")].to_string()).collect()
}

/// The number of checks of one kind that are decided together.
const TOGETHER: usize = 64;

/// Returns the guards of a type on which checks allow a user a relation. It asks often enough for checks to be decided
/// together.
async fn checked(
    authorizer: &EmbeddedAuthorizer,
    user: &str,
    (relation, type_name): (&Relation, &TypeName),
    guards: &[Object],
) -> BTreeSet<String> {
    let user = Object::parse(user).expect("an object");
    let of_type: Vec<&Object> = guards.iter().filter(|guard| guard.type_name() == type_name.as_str()).collect();
    let objects = of_type.iter().cycle().take(if of_type.is_empty() { 0 } else { TOGETHER.max(of_type.len()) });
    let check = |object: &&Object| Check { user: user.clone(), relation: relation.clone(), object: (*object).clone() };
    let batch = CheckBatch {
        checks: objects.map(check).collect(),
        contextual: Arc::default(),
        consistency: Consistency::default(),
        deadline: Instant::now() + Duration::from_mins(5),
    };
    let answers = authorizer.check(&batch).await.expect("decided").list;
    let allowed = answers.into_iter().filter(|answer| answer.allowed);
    allowed.map(|answer| batch.checks[answer.position].object.to_string()).collect()
}

/// Questions are repeated between writes. So anything that is kept from earlier questions is used, and must be dropped
/// after a write.
#[tokio::test]
async fn a_write_counts_at_once() {
    const USERS: [&str; 5] = ["user:0", "user:1", "user:stranger", "bot:0", "doc:1"];
    for seed in seeds(12) {
        let world = World::random(seed, SIZE);
        let valid = ValidModel::new(world.model.clone()).expect("a valid model");
        let (_directory, stores, authorizer) = embedded(&world);
        let store = stores.default_store().expect("the store");
        let mut dice = Dice::new(seed);
        let mut guards = guards();
        let mut pool = world.fitting(&valid);
        pool.extend(world.contextual.iter().cloned());
        let mut written: Vec<RelationshipTuple> = Vec::new();
        for round in 0..25 {
            if pool.is_empty() {
                break;
            }
            let tuple = pool[dice.below(pool.len())].clone();
            let known = written.iter().position(|known| known.key() == tuple.key());
            let write = match known {
                None => TupleWrite { writes: vec![tuple.clone()], ..TupleWrite::default() },
                Some(_) => TupleWrite { deletes: vec![tuple.clone()], ..TupleWrite::default() },
            };
            store.write(&write).expect("written");
            match known {
                None => written.push(tuple),
                Some(position) => drop(written.swap_remove(position)),
            }
            if dice.below(5) == 0 {
                let mut more = guards.to_vec();
                more.push(Object::parse(&format!("doc:new-{round}")).expect("an object"));
                guards = Arc::new(more);
            }
            let oracle = oracle(&world, written.iter().cloned());
            for (type_name, relation) in relations(&world) {
                let user = USERS[dice.below(USERS.len())];
                let holdings = oracle.holdings(user);
                // Guards of all types are asked about at once, and the relation means another thing on each.
                let expected: BTreeSet<String> = guards
                    .iter()
                    .map(ToString::to_string)
                    .filter(|guard| holdings.check(relation.as_str(), guard) == Some(true))
                    .collect();
                let contextual = Contextual { tuples: Vec::new(), context: world.context.clone() };
                let found = asked(&authorizer, &query(user, &relation, &guards, contextual)).await;
                assert_eq!(found, expected, "seed {seed}, round {round}: {user} {relation} {type_name}");
                let plain = asked(&authorizer, &query(user, &relation, &guards, Contextual::default())).await;
                let again = asked(&authorizer, &query(user, &relation, &guards, Contextual::default())).await;
                assert_eq!(plain, again, "seed {seed}, round {round}: {user} {relation} {type_name}");
                let of_type = |guard: &&String| guard.split(':').next() == Some(type_name.as_str());
                let of_type: BTreeSet<String> = plain.iter().filter(of_type).cloned().collect();
                for _ in 0..2 {
                    let together = checked(&authorizer, user, (&relation, &type_name), &guards).await;
                    assert_eq!(
                        together, of_type,
                        "seed {seed}, round {round}: {user} {relation} {type_name}, together"
                    );
                }
                if world.model.conditions.is_empty() {
                    assert_eq!(plain, expected, "seed {seed}, round {round}: {user} {relation} {type_name}");
                }
            }
        }
    }
}

/// The additions of one request are invisible to the next, whichever comes first.
#[tokio::test]
async fn contextual_tuples_stay_with_their_request() {
    for seed in seeds(60) {
        let world = World::random(seed, SIZE);
        let valid = ValidModel::new(world.model.clone()).expect("a valid model");
        let (_directory, stores, authorizer) = embedded(&world);
        let fitting = world.fitting(&valid);
        stores.default_store().expect("the store").write_all(fitting.clone(), OnConflict::Refuse).expect("written");
        let guards = guards();
        let with = Contextual { tuples: world.contextual.clone(), context: world.context.clone() };
        let without = Contextual { tuples: Vec::new(), context: world.context.clone() };
        let all = oracle(&world, fitting.iter().cloned()).with_request(&world.contextual, &world.context);
        let fewer = oracle(&world, fitting.iter().cloned());
        for user in ["user:0", "user:1", "bot:0"] {
            for (type_name, relation) in relations(&world) {
                for (contextual, oracle) in [(&without, &fewer), (&with, &all), (&without, &fewer)] {
                    let holdings = oracle.holdings(user);
                    let guarded = guards.iter().map(ToString::to_string);
                    let expected: BTreeSet<String> =
                        guarded.filter(|guard| holdings.check(relation.as_str(), guard) == Some(true)).collect();
                    let found = asked(&authorizer, &query(user, &relation, &guards, contextual.clone())).await;
                    assert_eq!(found, expected, "seed {seed}: {user} {relation} {type_name}");
                }
            }
        }
    }
}
