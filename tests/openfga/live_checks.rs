//! The stack of checks, and lists, in front of a real `OpenFGA` server.

use std::sync::Arc;
use std::time::Duration;

use ragward::app::stack_checks;
use ragward::authz::ChecksConfig;
use ragward::authz::openfga::{OpenFgaConfig, OpenFgaStore};
use ragward::authz::{Authorizer, Check, CheckBatch, Consistency, VisibleSetQuery};
use ragward::language::{Object, Relation, RelationshipTuple};
use roaring::RoaringBitmap;
use tokio::time::{Instant, interval, timeout};

use crate::support::openfga::OpenFga;

const LONG: Duration = Duration::from_secs(20);

fn document(number: usize) -> Object {
    Object::parse(&format!("document:{number}")).expect("an object")
}

fn owned(number: usize) -> RelationshipTuple {
    RelationshipTuple::parse("user:carl", "owner", &format!("document:{number}")).expect("a tuple")
}

fn batch(count: usize, consistency: Consistency) -> CheckBatch {
    let check = |number| Check {
        user: Object::parse("user:carl").expect("a user"),
        relation: Relation::parse("can_read").expect("a relation"),
        object: document(number),
    };
    let checks = (0..count).map(check).collect();
    CheckBatch { checks, contextual: Arc::default(), consistency, deadline: Instant::now() + LONG }
}

async fn allowed(authorizer: &dyn Authorizer, count: usize, consistency: Consistency) -> Vec<usize> {
    let list = authorizer.check(&batch(count, consistency)).await.expect("decisions").list;
    assert_eq!(list.len(), count, "{consistency:?}");
    let mut allowed: Vec<usize> = list.into_iter().filter(|a| a.allowed).map(|a| a.position).collect();
    allowed.sort_unstable();
    allowed
}

async fn loaded(server: &OpenFga, name: &str) -> (OpenFgaConfig, OpenFgaStore) {
    let config = server.config(name);
    let store = OpenFgaStore::open(&config).await.expect("a store");
    store.write_model(crate::support::authorizer_suite::model()).await.expect("a model");
    store.write_tuples(&crate::support::authorizer_suite::tuples()).await.expect("tuples");
    (config, store)
}

#[tokio::test]
async fn the_port_suite_holds_for_the_stack() {
    let Some(server) = OpenFga::start().await else { return };
    let (config, _) = loaded(&server, "suite").await;
    // One row puts more checks in a call than the server takes, so that the stack learns the server's limit.
    for (cache_ttl, checks_per_call) in [(0, 50), (60, 50), (0, 200)] {
        let checks = ChecksConfig { cache_ttl: Duration::from_secs(cache_ttl), ..ChecksConfig::default() };
        let stack = stack_checks(&OpenFgaConfig { checks_per_call, ..config.clone() }, &checks).expect("a stack");
        let name = format!("remembered for {cache_ttl} s, {checks_per_call} checks in a call");
        crate::support::authorizer_suite::run(&name, &stack).await;
    }
}

#[tokio::test]
async fn a_revocation_ends_what_is_remembered() {
    let Some(server) = OpenFga::start().await else { return };
    let (config, store) = loaded(&server, "revocation").await;
    store.write_tuples(&(0..300).map(owned).collect::<Vec<_>>()).await.expect("tuples");
    let checks = ChecksConfig {
        cache_ttl: Duration::from_mins(10),
        changelog_poll: Duration::from_millis(50),
        ..ChecksConfig::default()
    };
    let stack = stack_checks(&config, &checks).expect("a stack");
    for revoked in 0..3 {
        let remembered = allowed(&stack, 10, Consistency::MinimizeLatency).await;
        assert_eq!(remembered, (revoked..10).collect::<Vec<_>>(), "before document {revoked} is revoked");
        store.delete_tuples(&[owned(revoked)]).await.expect("deleted");
        let current = allowed(&stack, 10, Consistency::HigherConsistency).await;
        assert_eq!(current.first(), Some(&(revoked + 1)), "after document {revoked} is revoked");
        let mut ticks = interval(Duration::from_millis(5));
        let seen = async {
            while allowed(&stack, 10, Consistency::MinimizeLatency).await.contains(&revoked) {
                ticks.tick().await;
            }
        };
        timeout(LONG, seen).await.expect("the revocation is seen");
    }
}

/// The stack remembers for long and reads no changelog, so that only the consistency of a request decides what counts.
#[tokio::test]
async fn a_moment_is_answered_with_what_was_written_before() {
    let Some(server) = OpenFga::start().await else { return };
    let (config, store) = loaded(&server, "moments").await;
    store.write_tuples(&(0..10).map(owned).collect::<Vec<_>>()).await.expect("tuples");
    let checks =
        ChecksConfig { cache_ttl: Duration::from_mins(10), changelog_poll: Duration::ZERO, ..ChecksConfig::default() };
    let stack = stack_checks(&config, &checks).expect("a stack");
    let all: Vec<usize> = (0..10).collect();
    assert_eq!(allowed(&stack, 10, Consistency::MinimizeLatency).await, all);
    store.delete_tuples(&[owned(0)]).await.expect("deleted");
    let revoked = Consistency::AtLeastAsFresh(Instant::now());
    assert_eq!(allowed(&stack, 10, Consistency::MinimizeLatency).await, all, "remembered");
    assert_eq!(allowed(&stack, 10, revoked).await, all[1..], "what was remembered is older");
    assert_eq!(allowed(&stack, 10, Consistency::MinimizeLatency).await, all[1..], "and it was replaced");
    store.write_tuples(&[owned(0)]).await.expect("written");
    assert_eq!(allowed(&stack, 10, revoked).await, all[1..], "as new as asked for: recalled");
    assert_eq!(allowed(&stack, 10, Consistency::AtLeastAsFresh(Instant::now())).await, all);
}

#[tokio::test]
async fn a_list_is_the_visible_set_or_not_known() {
    let Some(server) = OpenFga::start().await else { return };
    let (config, store) = loaded(&server, "lists").await;
    store.write_tuples(&(0..990).step_by(2).map(owned).collect::<Vec<_>>()).await.expect("tuples");
    let stack = stack_checks(&config, &ChecksConfig::default()).expect("a stack");
    let mut guards: Vec<Object> = (0..1_200).map(document).collect();
    guards.extend(["folder:root", "planet:mars", "document:own"].map(|name| Object::parse(name).expect("an object")));
    let query = |user: &str, positions: RoaringBitmap| VisibleSetQuery {
        user: Object::parse(user).expect("a user"),
        relation: Relation::parse("can_read").expect("a relation"),
        guards: Arc::new(guards.clone()),
        positions: Arc::new(positions),
        contextual: Arc::default(),
        consistency: Consistency::HigherConsistency,
        deadline: Instant::now() + LONG,
    };
    let known = async |query: &VisibleSetQuery| {
        let visible = stack.visible_set(query).await.expect("an answer");
        visible.map(|visible| visible.positions)
    };
    let visible = known(&query("user:carl", (0..1_200).chain([1_202]).collect())).await.expect("a whole list");
    let expected: RoaringBitmap = (0..990).step_by(2).chain([1_202]).collect();
    assert_eq!(*visible, expected);
    let some = known(&query("user:carl", (10..20).collect())).await.expect("a whole list");
    assert_eq!(*some, (10..20).step_by(2).collect::<RoaringBitmap>());
    assert!(known(&query("user:nobody", (0..1_200).collect())).await.expect("a whole list").is_empty());
    // The model lacks the type or its relation, so the server refuses to list, and the visible set is unknown.
    assert!(known(&query("user:carl", (0..1_203).collect())).await.is_none());
    store.write_tuples(&(0..1_200).map(owned).collect::<Vec<_>>()).await.expect("tuples");
    assert!(known(&query("user:carl", (0..1_200).collect())).await.is_none(), "the server stops at 1,000");
}
