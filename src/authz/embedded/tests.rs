use std::collections::BTreeSet;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::authz::Consistency;
use crate::language::{Relation, RelationshipTuple, TupleCondition, dsl};
use crate::tuple_store::OnConflict;

const MODEL: &str = "model
  schema 1.1
type user
type group
  relations
    define member: [user, group#member]
type doc
  relations
    define viewer: [user, group#member]
";

fn store(tuples: impl IntoIterator<Item = (String, &'static str, String)>) -> (TempDir, EmbeddedAuthorizer) {
    let tuples = tuples.into_iter().map(|(u, r, o)| RelationshipTuple::parse(&u, r, &o).expect("a tuple"));
    store_of(MODEL, tuples.collect())
}

fn store_of(model: &str, tuples: Vec<RelationshipTuple>) -> (TempDir, EmbeddedAuthorizer) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let stores = RelationshipStores::open(directory.path()).expect("opened");
    let store = stores.default_store_or_new().expect("a store");
    store.write_model(dsl::load(model).expect("a model")).expect("written");
    store.write_all(tuples, OnConflict::Refuse).expect("written");
    (directory, EmbeddedAuthorizer::new(stores))
}

fn batch(checks: impl IntoIterator<Item = (String, &'static str, String)>) -> CheckBatch {
    let parse = |(user, relation, object): (String, &str, String)| Check {
        user: Object::parse(&user).expect("a user"),
        relation: Relation::parse(relation).expect("a relation"),
        object: Object::parse(&object).expect("an object"),
    };
    CheckBatch {
        checks: checks.into_iter().map(parse).collect(),
        contextual: Arc::default(),
        consistency: Consistency::MinimizeLatency,
        deadline: Instant::now() + Duration::from_mins(1),
    }
}

fn question(user: &str, relation: &'static str, object: &str) -> (String, &'static str, String) {
    (user.to_owned(), relation, object.to_owned())
}

/// Returns the positions that were allowed. Fails unless every position is answered once.
async fn allowed(authorizer: &EmbeddedAuthorizer, batch: &CheckBatch) -> BTreeSet<usize> {
    let answers = authorizer.check(batch).await.expect("decided").list;
    let positions: BTreeSet<usize> = answers.iter().map(|a| a.position).collect();
    assert_eq!(answers.len(), batch.checks.len());
    assert_eq!(positions, (0..batch.checks.len()).collect());
    answers.iter().filter(|a| a.allowed).map(|a| a.position).collect()
}

#[tokio::test]
async fn every_check_is_answered_once_in_batches_of_any_size() {
    let (_directory, authorizer) =
        store([question("user:0", "viewer", "doc:0"), question("user:1", "viewer", "doc:1")]);
    for size in [0, 1, 2, 49, 50, 51, 127, 128, 129, 1_000] {
        // Two users take turns, and the same objects come again and again.
        let checks = (0..size).map(|n| (format!("user:{}", n % 2), "viewer", format!("doc:{}", n % 3)));
        let expected = (0..size).filter(|n| n % 2 == n % 3).collect();
        assert_eq!(allowed(&authorizer, &batch(checks)).await, expected, "{size}");
    }
}

#[tokio::test]
async fn what_the_model_does_not_know_is_denied() {
    let (_directory, authorizer) = store([question("user:0", "viewer", "doc:0")]);
    let checks = [
        question("user:0", "owner", "doc:0"),
        question("user:0", "viewer", "folder:0"),
        question("robot:0", "viewer", "doc:0"),
        question("user:0", "viewer", "doc:0"),
    ];
    assert_eq!(allowed(&authorizer, &batch(checks)).await, BTreeSet::from([3]));
}

#[tokio::test]
async fn without_a_model_nothing_is_decided() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let stores = RelationshipStores::open(directory.path()).expect("opened");
    let authorizer = EmbeddedAuthorizer::new(stores.clone());
    assert!(matches!(authorizer.check(&batch([])).await, Err(AuthzError::NoModel)));
    stores.default_store_or_new().expect("a store");
    assert!(matches!(authorizer.readiness().await, Err(AuthzError::NoModel)));
}

#[tokio::test]
async fn many_objects_of_one_user_are_decided_as_each_by_itself() {
    let granted = (0..300).step_by(3).map(|n| (format!("group:{}#member", n % 7), "viewer", format!("doc:{n}")));
    let nested = [question("group:5#member", "member", "group:6"), question("user:0", "member", "group:5")];
    let (_directory, authorizer) = store(granted.chain(nested).chain([question("user:0", "viewer", "doc:1")]));
    // Some objects come twice, and some are named by no tuple.
    let objects = || (0..400).chain(0..100).map(|n| format!("doc:{n}"));
    let together = batch(objects().map(|object| ("user:0".to_owned(), "viewer", object)));
    let mut expected = BTreeSet::new();
    for (position, object) in objects().enumerate() {
        let alone = batch([question("user:0", "viewer", &object)]);
        expected.extend((!allowed(&authorizer, &alone).await.is_empty()).then_some(position));
    }
    assert_eq!(allowed(&authorizer, &together).await, expected);
    assert!(expected.len() > 30, "{expected:?}");
}

#[tokio::test]
async fn too_deep_is_denied_and_no_other_check_fails() {
    let links = (1..40).map(|n| (format!("group:{n}#member"), "member", format!("group:{}", n - 1)));
    let (_directory, authorizer) = store(links.chain([question("user:0", "member", "group:39")]));
    let questions = batch([question("user:0", "member", "group:0"), question("user:0", "member", "group:39")]);
    assert_eq!(allowed(&authorizer, &questions).await, BTreeSet::from([1]));
}

/// Two groups may be banned. One is passed over because of its condition, and the other does not hold the user. That
/// leaves a doubt, which denies.
#[tokio::test]
async fn a_ban_in_doubt_lets_nobody_in() {
    const BANS: &str = "model
  schema 1.1
type user
type group
  relations
    define member: [user]
type doc
  relations
    define viewer: [user]
    define banned: [group#member, group#member with at_work]
    define can_read: viewer but not banned
condition at_work(hour: int) {
  hour >= 9
}
";
    let tuple = |user: &str, relation, object: &str| RelationshipTuple::parse(user, relation, object).expect("a tuple");
    let at_work = TupleCondition::parse("at_work", "").expect("a condition");
    let mut tuples = vec![tuple("user:0", "member", "group:0"), tuple("user:1", "member", "group:1")];
    for n in 0..100 {
        let doc = format!("doc:{n}");
        tuples.push(tuple("user:0", "viewer", &doc));
        if n % 2 == 1 {
            tuples.push(tuple("group:0#member", "banned", &doc).with_condition(at_work.clone()));
            tuples.push(tuple("group:1#member", "banned", &doc));
        }
    }
    let (_directory, authorizer) = store_of(BANS, tuples);
    // Few checks are decided one by one, many from the user outwards.
    for count in [2, 100] {
        let checks = (0..count).map(|n| question("user:0", "can_read", &format!("doc:{n}")));
        assert_eq!(allowed(&authorizer, &batch(checks)).await, (0..count).step_by(2).collect(), "{count}");
    }
}

#[tokio::test]
async fn a_long_check_moves_off_the_callers_thread_and_heeds_the_deadline() {
    // This is more than is decided on the caller's thread.
    let links = (0..30_000).map(|n| (format!("group:{n}#member"), "member", "group:all".to_owned()));
    let (_directory, authorizer) = store(links.chain([question("user:0", "member", "group:29999")]));
    let mut batch = batch([question("user:0", "member", "group:all")]);
    assert_eq!(allowed(&authorizer, &batch).await, BTreeSet::from([0]));
    batch.deadline = Instant::now();
    assert!(matches!(authorizer.check(&batch).await, Err(AuthzError::DeadlineExceeded)));
}
