//! `OpenFGA`'s own check cases against the evaluator: as stored tuples, in the order of the file and in other orders.
#![cfg(test)]

#[path = "support/shared.rs"]
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use ragward::relationship::evaluator::CheckError;
use ragward::relationship::snapshot::{Snapshot, UserFilter};
use ragward::relationship::store::{OnConflict, RelationshipStores};
use ragward::relationship::{Object, Relation, RelationshipTuple, TypeName, User, dsl};
use serde::Deserialize;

#[derive(Deserialize)]
struct Cases {
    tests: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    stages: Vec<Stage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stage {
    model: String,
    #[serde(default)]
    tuples: Option<Vec<Tuple>>,
    #[serde(default)]
    check_assertions: Option<Vec<CheckAssertion>>,
    #[serde(default)]
    list_objects_assertions: Option<Vec<ListObjectsAssertion>>,
    #[serde(default)]
    list_users_assertions: Option<Vec<ListUsersAssertion>>,
}

#[derive(Deserialize, Clone)]
struct Tuple {
    user: String,
    relation: String,
    object: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CheckAssertion {
    #[serde(default)]
    name: Option<String>,
    tuple: Tuple,
    #[serde(default)]
    contextual_tuples: Option<Vec<Tuple>>,
    #[serde(default)]
    expectation: bool,
    #[serde(default)]
    error_code: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListObjectsAssertion {
    request: ListObjectsRequest,
    #[serde(default)]
    contextual_tuples: Option<Vec<Tuple>>,
    #[serde(default)]
    expectation: Option<Vec<String>>,
    #[serde(default)]
    error_code: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListUsersAssertion {
    request: ListUsersRequest,
    #[serde(default)]
    expectation: Option<Vec<String>>,
    #[serde(default)]
    error_code: Option<u32>,
}

#[derive(Deserialize)]
struct ListUsersRequest {
    /// `user` or `group#member`.
    filters: Vec<String>,
    object: String,
    relation: String,
}

#[derive(Deserialize)]
struct ListObjectsRequest {
    user: String,
    #[serde(rename = "type")]
    type_name: String,
    relation: String,
}

/// What was asked, so that nothing is left out without notice.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    cases: usize,
    stages: usize,
    checks: usize,
    object_lists: usize,
    user_lists: usize,
}

#[test]
fn openfga_cases() {
    let Some(path) = support::shared("openfga-tests/check/consolidated_part.yaml") else { return };
    let text = std::fs::read_to_string(path).expect("readable");
    let cases: Cases = serde_saphyr::from_str(&text).expect("the form of OpenFGA's cases");
    for seed in 0..5 {
        let mut asked = Asked::default();
        for case in &cases.tests {
            run(case, seed, &mut asked);
        }
        assert_eq!(
            asked,
            Asked { cases: 57, stages: 66, checks: 147, object_lists: 116, user_lists: 117 },
            "order {seed}"
        );
    }
}

/// Runs the stages of a case on one durable store. Seed 0 keeps the order of the tuples.
fn run(case: &Case, seed: u64, asked: &mut Asked) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let stores = RelationshipStores::open(directory.path()).expect("opened");
    let store = stores.default_store_or_new().expect("a store");
    asked.cases += 1;
    for (number, stage) in case.stages.iter().enumerate() {
        let at = format!("{} stage {number} order {seed}", case.name);
        asked.stages += 1;
        let model = dsl::load(&stage.model).unwrap_or_else(|e| panic!("{at}: {}", e.picture(&stage.model)));
        store.write_model(model).expect("written");
        let mut tuples: Vec<RelationshipTuple> = stage.tuples.iter().flatten().map(parsed).collect();
        shuffle(&mut tuples, seed);
        store.write_all(tuples, OnConflict::Refuse).unwrap_or_else(|e| panic!("{at}: {e}"));
        let snapshot = store.snapshot().expect("read").expect("a model");
        for assertion in stage.check_assertions.iter().flatten() {
            asked.checks += 1;
            check(&at, &snapshot, assertion);
        }
        for assertion in stage.list_objects_assertions.iter().flatten() {
            asked.object_lists += 1;
            list_objects(&at, &snapshot, assertion);
        }
        for assertion in stage.list_users_assertions.iter().flatten() {
            asked.user_lists += 1;
            list_users(&at, &snapshot, assertion);
        }
    }
}

fn check(at: &str, snapshot: &Arc<Snapshot>, assertion: &CheckAssertion) {
    let Tuple { user, relation, object } = &assertion.tuple;
    let at = format!("{at} {}: {user} {relation} {object}", assertion.name.as_deref().unwrap_or_default());
    let contextual: Vec<RelationshipTuple> = assertion.contextual_tuples.iter().flatten().map(parsed).collect();
    let answer = snapshot.with_tuples(&contextual).map_err(|e| e.to_string()).and_then(|snapshot| {
        let user = User::parse(user).map_err(|e| e.to_string())?;
        let relation = Relation::parse(relation).map_err(|e| e.to_string())?;
        let object = Object::parse(object).map_err(|e| e.to_string())?;
        snapshot.check(&user, &relation, &object).map_err(|e| e.to_string())
    });
    match assertion.error_code {
        Some(code) => assert!(answer.is_err(), "{at}: expected error {code}, got {answer:?}"),
        None => assert_eq!(answer, Ok(assertion.expectation), "{at}"),
    }
}

fn list_objects(at: &str, snapshot: &Arc<Snapshot>, assertion: &ListObjectsAssertion) {
    let ListObjectsRequest { user, type_name, relation } = &assertion.request;
    let at = format!("{at}: list {type_name} that {user} holds {relation} on");
    let contextual: Vec<RelationshipTuple> = assertion.contextual_tuples.iter().flatten().map(parsed).collect();
    let snapshot = snapshot.with_tuples(&contextual).unwrap_or_else(|e| panic!("{at}: {e}"));
    let user = User::parse(user).expect("a user");
    let (type_name, relation) =
        (TypeName::parse(type_name).expect("a type"), Relation::parse(relation).expect("a name"));
    let listed = snapshot.list_objects(&user, &relation, &type_name);
    if assertion.error_code.is_some() {
        assert!(matches!(listed, Err(CheckError::Unknown(_))), "{at}: {listed:?}");
        return;
    }
    let listed: BTreeSet<String> = listed.expect("listed").iter().map(ToString::to_string).collect();
    let expected: BTreeSet<String> = assertion.expectation.iter().flatten().cloned().collect();
    assert_eq!(listed, expected, "{at}");
}

fn list_users(at: &str, snapshot: &Arc<Snapshot>, assertion: &ListUsersAssertion) {
    let ListUsersRequest { filters, object, relation } = &assertion.request;
    let at = format!("{at}: list {filters:?} that hold {relation} on {object}");
    assert_eq!(assertion.error_code, None, "{at}");
    let (object, relation) = (Object::parse(object).expect("an object"), Relation::parse(relation).expect("a name"));
    let mut listed = BTreeSet::new();
    for filter in filters {
        let (type_name, of) = filter.split_once('#').map_or((filter.as_str(), None), |(t, r)| (t, Some(r)));
        let filter = UserFilter {
            type_name: TypeName::parse(type_name).expect("a type"),
            relation: of.map(|relation| Relation::parse(relation).expect("a name")),
        };
        let users = snapshot.list_users(&object, &relation, &filter).unwrap_or_else(|e| panic!("{at}: {e}"));
        listed.extend(users.iter().map(ToString::to_string));
    }
    let expected: BTreeSet<String> = assertion.expectation.iter().flatten().cloned().collect();
    assert_eq!(listed, expected, "{at}");
}

fn parsed(tuple: &Tuple) -> RelationshipTuple {
    RelationshipTuple::parse(&tuple.user, &tuple.relation, &tuple.object).expect("a tuple")
}

/// A permutation that depends on the seed alone.
fn shuffle<T>(items: &mut [T], seed: u64) {
    if seed == 0 {
        return;
    }
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let upper = usize::try_from(state >> 33).expect("31 bits");
        items.swap(last, upper % (last + 1));
    }
}
