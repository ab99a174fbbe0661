//! The evaluator against the oracle, on random worlds: set algebra to depth 5, cycles, wildcards, usersets of several
//! types, parents, conditions, contextual tuples. One evaluation answers many questions in a random order, so that a
//! wrong entry of its memo shows.
//!
//! `RAGWARD_ORACLE_SEED` (a number) adds as many worlds, beginning with that seed. A failing world is made small and
//! printed as a row for `tests/data/oracle_failures.yaml`, which `tests/conformance_tests.rs` replays.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ragward::engine::evaluator::CheckError;
use ragward::engine::snapshot::{Snapshot, UserFilter};
use ragward::language::validate::ValidModel;
use ragward::language::{Object, Relation, RelationshipTuple, TypeName, User};
use ragward::store_file;
use serde_json::{Value, json};

use crate::support::dice::Dice;
use crate::support::oracle::Oracle;
use crate::support::random_world::shrink::{row, shrink};
use crate::support::random_world::{OBJECTS, SUBJECTS, Size, TYPES, USER_FILTERS, World, relations_of};
use crate::support::shared_data::shared;

const FIRST_SEED: u64 = 1;
const WORLDS: u64 = 1_300;
const SIZE: Size = Size { tuples_max: 40, rewrite_depth: 5 };
const COMPARISONS_MIN: u64 = 1_000_000;
/// The number of threads, one for each core of a small machine.
const THREADS: u64 = 2;

/// A question for which the expected answer and the found one differ.
struct Difference {
    kind: &'static str,
    assertion: Value,
    found: String,
}

/// An answer, or `None` if a condition failed.
type Answer<T> = Option<T>;

fn answer<T>(found: Result<T, CheckError>) -> Result<Answer<T>, String> {
    match found {
        Ok(decided) => Ok(Some(decided)),
        Err(CheckError::Condition(_)) => Ok(None),
        Err(
            error @ (CheckError::Unknown(_) | CheckError::TooDeep | CheckError::TooMuchWork | CheckError::Interrupted),
        ) => Err(error.to_string()),
    }
}

/// Returns the state that decides the requests of a world, and the oracle about that world. Returns `None` if the model
/// is impossible.
fn both(world: &World) -> Option<(Snapshot, Oracle)> {
    let valid = Arc::new(ValidModel::new(world.model.clone()).ok()?);
    let stored = Snapshot::new("", Arc::clone(&valid)).with_tuples(&world.fitting(&valid)).expect("fitting tuples");
    let snapshot = stored.for_request(&world.contextual, world.context.clone()).expect("fitting contextual tuples");
    let oracle = Oracle::new(world.model.clone(), world.tuples.iter().cloned(), &world.context);
    Some((snapshot, oracle.with_request(&world.contextual, &world.context).asked_about(&OBJECTS)))
}

/// Compares all answers about a world, up to the first difference.
fn compare(world: &World, order: u64, comparisons: &AtomicU64) -> Result<(), Difference> {
    let Some((snapshot, oracle)) = both(world) else { return Ok(()) };
    let defined = |type_name: &str, relation: &str| {
        world.model.type_definition(type_name).is_some_and(|definition| definition.relation(relation).is_some())
    };
    let relations = TYPES.into_iter().flat_map(|of| relations_of(of).iter().map(move |relation| (of, *relation)));
    let relations: Vec<(&str, &str)> = relations.filter(|(of, relation)| defined(of, relation)).collect();
    let nodes = OBJECTS.iter().flat_map(|object| {
        let of_object = relations.iter().filter(|(of, _)| object.split(':').next() == Some(of));
        of_object.map(move |(_, relation)| (*object, *relation))
    });
    let mut nodes: Vec<(&str, &str)> = nodes.collect();
    let mut dice = Dice::new(order);
    dice.shuffle(&mut nodes);
    let compared = |count: usize| comparisons.fetch_add(u64::try_from(count).expect("few"), Ordering::Relaxed);
    for subject in SUBJECTS {
        let user = User::parse(subject).expect("a user");
        let Ok(mut evaluation) = snapshot.evaluation(&user) else { continue };
        let holdings = oracle.holdings(subject);
        for (object, relation) in &nodes {
            let expected = holdings.check(relation, object);
            let (asked, of) = (Relation::parse(relation).expect("a name"), Object::parse(object).expect("an object"));
            let together = answer(evaluation.check(&asked, &of, &mut || true));
            let alone = answer(snapshot.check(&user, &asked, &of));
            compared(2);
            if together != Ok(expected) || alone != Ok(expected) {
                let tuple = json!({ "user": subject, "relation": relation, "object": object });
                return Err(Difference {
                    kind: "check",
                    assertion: expectation(&json!({ "tuple": tuple }), expected.map(|held| json!(held))),
                    found: format!("among others {together:?}, alone {alone:?}"),
                });
            }
        }
        for (type_name, relation) in &relations {
            let expected = oracle.list_objects(subject, relation, type_name);
            let (asked, of) = (Relation::parse(relation).expect("a name"), TypeName::parse(type_name).expect("a type"));
            let found = answer(snapshot.list_objects(&user, &asked, &of)).map(|listed| listed.map(|all| texts(&all)));
            compared(1);
            if found != Ok(expected.clone()) {
                let request = json!({ "user": subject, "type": type_name, "relation": relation });
                return Err(Difference {
                    kind: "list_objects",
                    assertion: expectation(&json!({ "request": request }), expected.map(|listed| json!(listed))),
                    found: format!("{found:?}"),
                });
            }
        }
    }
    for (object, relation) in &nodes {
        for kind in USER_FILTERS {
            let (type_name, userset) = kind.split_once('#').map_or((kind, None), |(of, relation)| (of, Some(relation)));
            let known =
                world.model.type_definition(type_name).is_some() && userset.is_none_or(|r| defined(type_name, r));
            if !known {
                continue;
            }
            let expected = oracle.list_users(object, relation, kind);
            let filter = UserFilter {
                type_name: TypeName::parse(type_name).expect("a type"),
                relation: userset.map(|relation| Relation::parse(relation).expect("a name")),
            };
            let (asked, of) = (Relation::parse(relation).expect("a name"), Object::parse(object).expect("an object"));
            let found = answer(snapshot.list_users(&of, &asked, &filter)).map(|listed| listed.map(|all| texts(&all)));
            compared(1);
            let held = expected
                .as_ref()
                .is_none_or(|listed| lists_whom_checks_allow(world, &oracle, (object, relation), kind, listed));
            if found != Ok(expected.clone()) || !held {
                let request = json!({ "filters": [kind], "object": object, "relation": relation });
                return Err(Difference {
                    kind: "list_users",
                    assertion: expectation(&json!({ "request": request }), expected.map(|listed| json!(listed))),
                    found: if held { format!("{found:?}") } else { "a list that is not what checks allow".to_owned() },
                });
            }
        }
    }
    Ok(())
}

/// Checks that a list of users has exactly the users whom a check allows, or the wildcard in their place. As in
/// `OpenFGA`, three cases are exempt: a tuple of the request replaces a stored one in checks alone, a loop ends the
/// list, or the relation does not lead to users of the kind.
fn lists_whom_checks_allow(
    world: &World,
    oracle: &Oracle,
    (object, relation): (&str, &str),
    kind: &str,
    listed: &BTreeSet<String>,
) -> bool {
    let (type_name, userset) = kind.split_once('#').map_or((kind, None), |(of, relation)| (of, Some(relation)));
    let hides = |tuple: &RelationshipTuple| world.tuples.iter().any(|stored| stored.key() == tuple.key());
    if world.contextual.iter().any(hides) || oracle.has_loop(object, relation) {
        return true;
    }
    SUBJECTS.iter().all(|subject| {
        let is_asked = match subject.split_once('#') {
            Some((of, relation)) => of.starts_with(&format!("{type_name}:")) && userset == Some(relation),
            None => subject.split(':').next() == Some(type_name),
        };
        if !is_asked {
            return true;
        }
        let is_allowed = oracle.holdings(subject).check(relation, object) == Some(true);
        let for_everybody = !subject.contains('#') && listed.contains(&format!("{type_name}:*"));
        match (listed.contains(*subject), is_allowed) {
            (true, allowed) => allowed,
            (false, true) => for_everybody || !oracle.leads_to(kind, object, relation),
            (false, false) => true,
        }
    })
}

fn texts<T: ToString>(items: &[T]) -> BTreeSet<String> {
    items.iter().map(T::to_string).collect()
}

fn expectation(question: &Value, expected: Option<Value>) -> Value {
    let mut assertion = question.clone();
    match expected {
        Some(expected) => assertion["expectation"] = expected,
        // A failed condition is reported as a wrong input.
        None => assertion["errorCode"] = json!(2000),
    }
    assertion
}

/// Compares the worlds of these seeds.
fn run(seeds: std::ops::Range<u64>) -> u64 {
    let comparisons = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (seeds, comparisons) = (seeds.clone(), &comparisons);
            scope.spawn(move || {
                for seed in seeds.filter(|seed| seed % THREADS == thread) {
                    let world = World::random(seed, SIZE);
                    if compare(&world, seed, comparisons).is_err() {
                        fail(seed, world);
                    }
                }
            });
        }
    });
    comparisons.into_inner()
}

fn fail(seed: u64, world: World) -> ! {
    let uncounted = AtomicU64::new(0);
    let fails = async |candidate: &World| compare(candidate, seed, &uncounted).is_err();
    let small = futures::executor::block_on(shrink(world, fails));
    let Err(Difference { kind, assertion, found }) = compare(&small, seed, &uncounted) else {
        panic!("seed {seed}: the failure is gone");
    };
    panic!("seed {seed}: found {found}\n{}", row(&format!("seed_{seed}"), &small, kind, &assertion));
}

#[test]
fn the_evaluator_answers_as_the_oracle() {
    let comparisons = run(FIRST_SEED..FIRST_SEED + WORLDS);
    eprintln!("{comparisons} comparisons, seeds {FIRST_SEED} to {}", FIRST_SEED + WORLDS - 1);
    assert!(comparisons >= COMPARISONS_MIN, "only {comparisons} comparisons");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test may read the environment")]
fn the_evaluator_answers_as_the_oracle_from_another_seed() {
    let Ok(seed) = std::env::var("RAGWARD_ORACLE_SEED") else { return };
    let seed: u64 = seed.parse().expect("RAGWARD_ORACLE_SEED is a number");
    eprintln!("{} comparisons from seed {seed} on", run(seed..seed + WORLDS));
}

#[test]
fn the_evaluator_answers_as_the_oracle_about_a_real_corpus() {
    let Some(path) = shared("corpora/keps/store.fga.yaml") else { return };
    let oracle = Oracle::load(&path);
    let store = store_file::read(&path).expect("a store file");
    let snapshot = Snapshot::new("", Arc::new(store.model)).with_tuples(&store.tuples).expect("tuples that fit");
    let named = |type_name: &str| {
        let mut objects: Vec<Object> = snapshot.objects_of(&TypeName::parse(type_name).expect("a type")).collect();
        objects.sort();
        objects
    };
    let (users, documents) = (named("user"), named("document"));
    assert_eq!((users.len(), documents.len()), (725, 617));
    for user in users.into_iter().step_by(145) {
        let holdings = oracle.holdings(user.as_str());
        let asker = User::Object(user.clone());
        let mut evaluation = snapshot.evaluation(&asker).expect("a known user");
        for document in &documents {
            for relation in ["can_read", "can_edit", "archived_for"] {
                let held = holdings.check(relation, document.as_str());
                let relation = Relation::parse(relation).expect("a name");
                assert_eq!(
                    evaluation.check(&relation, document, &mut || true).ok(),
                    held,
                    "{user} {relation} {document}"
                );
            }
        }
    }
}
