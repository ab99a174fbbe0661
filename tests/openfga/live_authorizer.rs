//! The adapter against a real `OpenFGA` server.

use std::time::Duration;

use ragward::authz::openfga::{OpenFgaAuthorizer, OpenFgaConfig, OpenFgaStore, WriteError};
use ragward::authz::{Authorizer, AuthzError, Check, CheckBatch, Consistency};
use ragward::language::{Object, Relation, RelationshipTuple};
use serde_json::json;
use tokio::time::Instant;

use crate::support::openfga::OpenFga;

fn batch(user: &str, relation: &str, object: &str) -> CheckBatch {
    let check = Check {
        user: Object::parse(user).expect("a user"),
        relation: Relation::parse(relation).expect("a relation"),
        object: Object::parse(object).expect("an object"),
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    CheckBatch {
        checks: vec![check],
        contextual: std::sync::Arc::default(),
        consistency: Consistency::HigherConsistency,
        deadline,
    }
}

async fn allowed(authorizer: &OpenFgaAuthorizer, user: &str, relation: &str, object: &str) -> bool {
    let answers = authorizer.check(&batch(user, relation, object)).await.expect("a decision").list;
    assert_eq!(answers.len(), 1, "{user} {relation} {object}");
    answers[0].allowed
}

#[tokio::test]
async fn the_port_suite_holds() {
    let Some(server) = OpenFga::start().await else { return };
    let config = server.config("suite");
    let store = OpenFgaStore::open(&config).await.expect("a store");
    store.write_model(crate::support::authorizer_suite::model()).await.expect("a model");
    store.write_tuples(&crate::support::authorizer_suite::tuples()).await.expect("tuples");
    crate::support::authorizer_suite::run("a real server", &OpenFgaAuthorizer::new(&config).expect("an authorizer"))
        .await;
}

#[tokio::test]
async fn a_server_without_store_or_model_decides_nothing() {
    let Some(server) = OpenFga::start().await else { return };
    let config = server.config("empty");
    let authorizer = OpenFgaAuthorizer::new(&config).expect("an authorizer");
    assert!(matches!(authorizer.readiness().await, Err(AuthzError::NoModel)));
    let answers = authorizer.check(&batch("user:anne", "can_read", "document:plan")).await;
    assert!(matches!(answers, Err(AuthzError::NoModel)), "{answers:?}");

    let store = OpenFgaStore::open(&config).await.expect("a store");
    assert!(matches!(authorizer.readiness().await, Err(AuthzError::NoModel)));

    let again = OpenFgaStore::open(&config).await.expect("the same store");
    assert_eq!(store.store_id(), again.store_id());
    let model_id = store.write_model(crate::support::authorizer_suite::model()).await.expect("a model");
    assert_eq!(*authorizer.readiness().await.expect("a model"), model_id);

    let absent = OpenFgaConfig { authorization_model_id: Some("01JZZZZZZZZZZZZZZZZZZZZZZZ".to_owned()), ..config };
    let authorizer = OpenFgaAuthorizer::new(&absent).expect("an authorizer");
    let answers = authorizer.check(&batch("user:anne", "can_read", "document:plan")).await;
    assert!(matches!(answers, Err(AuthzError::Refused(_))), "{answers:?}");
}

/// Tuples of an older model grant nothing that the current model does not let them grant.
#[tokio::test]
async fn a_new_model_and_a_revoked_tuple_count_at_once() {
    let Some(server) = OpenFga::start().await else { return };
    let config = server.config("changes");
    let store = OpenFgaStore::open(&config).await.expect("a store");
    let first = store.write_model(crate::support::authorizer_suite::model()).await.expect("a model");
    store.write_tuples(&crate::support::authorizer_suite::tuples()).await.expect("tuples");
    store.write_tuples(&crate::support::authorizer_suite::tuples()).await.expect("loading twice is loading once");
    let authorizer = OpenFgaAuthorizer::new(&config).expect("an authorizer");
    let by_id = OpenFgaConfig {
        store_id: Some(store.store_id().to_owned()),
        authorization_model_id: Some(first.clone()),
        ..config.clone()
    };
    let pinned = OpenFgaAuthorizer::new(&by_id).expect("an authorizer");
    assert!(allowed(&authorizer, "user:carl", "owner", "document:own").await);
    assert!(allowed(&authorizer, "user:anne", "can_read", "document:plan").await);

    let revoked = RelationshipTuple::parse("user:anne", "member", "group:eng").expect("a tuple");
    store.delete_tuples(std::slice::from_ref(&revoked)).await.expect("deleted");
    store.delete_tuples(&[revoked]).await.expect("deleting twice is deleting once");
    assert!(!allowed(&authorizer, "user:anne", "can_read", "document:plan").await);

    let only_robots = json!({
        "schema_version": "1.1",
        "type_definitions": [
            { "type": "user" },
            { "type": "robot" },
            {
                "type": "document",
                "relations": { "owner": { "this": {} } },
                "metadata": { "relations": { "owner": { "directly_related_user_types": [{ "type": "robot" }] } } },
            },
        ],
    });
    let second = store.write_model(only_robots).await.expect("a model");
    assert_ne!(first, second);
    assert!(!allowed(&authorizer, "user:carl", "owner", "document:own").await);
    assert!(allowed(&pinned, "user:carl", "owner", "document:own").await, "a configured model stays");
}

#[tokio::test]
async fn what_the_server_refuses_is_an_error() {
    let Some(server) = OpenFga::start().await else { return };
    let config = server.config("refusals");
    let store = OpenFgaStore::open(&config).await.expect("a store");
    for model in [json!({}), json!([]), json!({ "schema_version": "1.1", "type_definitions": [{ "type": "" }] })] {
        let written = store.write_model(model.clone()).await;
        assert!(matches!(written, Err(AuthzError::Refused(_))), "{model}: {written:?}");
    }
    store.write_model(crate::support::authorizer_suite::model()).await.expect("a model");
    let unfit = RelationshipTuple::parse("folder:root", "owner", "document:own").expect("a tuple");
    let written = store.write_tuples(&[unfit]).await;
    assert!(matches!(written, Err(WriteError::Server(AuthzError::Refused(_)))), "{written:?}");

    let too_many = OpenFgaAuthorizer::new(&OpenFgaConfig { checks_per_call: 51, ..config }).expect("an authorizer");
    let mut batch = batch("user:carl", "owner", "document:own");
    batch.checks = vec![batch.checks[0].clone(); 51];
    let answers = too_many.check(&batch).await;
    assert!(matches!(answers, Err(AuthzError::TooManyChecks { checks_max: Some(50) })), "{answers:?}");
}
