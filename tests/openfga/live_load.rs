//! Loads a model with its tuples into a real `OpenFGA`: whatever stops the load, the earlier model decides until all is
//! in.

use std::time::Duration;

use ragward::authz::openfga::{Loaded, OpenFgaAuthorizer, OpenFgaConfig, OpenFgaStore};
use ragward::authz::{Authorizer, Check, CheckBatch, Consistency};
use ragward::error_code::ErrorCode;
use ragward::language::validate::ValidModel;
use ragward::language::{Object, Relation, RelationshipTuple, TupleCondition, dsl};
use tokio::time::Instant;

use crate::support::openfga::OpenFga;

/// The number of tuples, which is more than one transaction of every limit here.
const TUPLES: usize = 30;

/// Returns a model whose relation for reading has this name, so that the tuples of one model do not fit another.
fn model(relation: &str) -> ValidModel {
    let text = format!(
        "model\n  schema 1.1\ntype user\ntype doc\n  relations\n    define {relation}: [user, user with noted]\n\
         condition noted(note: string) {{ note != '' }}\n"
    );
    dsl::load(&text).expect("a model")
}

fn tuple(relation: &str, number: usize) -> RelationshipTuple {
    RelationshipTuple::parse("user:anne", relation, &format!("doc:{number}")).expect("a tuple")
}

fn tuples(relation: &str) -> Vec<RelationshipTuple> {
    (0..TUPLES).map(|number| tuple(relation, number)).collect()
}

fn noted(relation: &str, number: usize, bytes: usize) -> RelationshipTuple {
    let context = format!("{{\"note\": \"{}\"}}", "x".repeat(bytes));
    tuple(relation, number).with_condition(TupleCondition::parse("noted", &context).expect("a condition"))
}

/// Returns the number of documents that Anne may read under the model that decides.
async fn readable(config: &OpenFgaConfig, relation: &str) -> usize {
    let authorizer = OpenFgaAuthorizer::new(config).expect("an authorizer");
    let check = |number: usize| Check {
        user: Object::parse("user:anne").expect("a user"),
        relation: Relation::parse(relation).expect("a relation"),
        object: Object::parse(&format!("doc:{number}")).expect("an object"),
    };
    let batch = CheckBatch {
        checks: (0..TUPLES).map(check).collect(),
        contextual: std::sync::Arc::default(),
        consistency: Consistency::HigherConsistency,
        deadline: Instant::now() + Duration::from_secs(20),
    };
    authorizer.check(&batch).await.expect("decisions").list.iter().filter(|answer| answer.allowed).count()
}

async fn decides(config: &OpenFgaConfig) -> String {
    OpenFgaAuthorizer::new(config).expect("an authorizer").readiness().await.expect("a model").to_string()
}

#[tokio::test]
async fn the_limits_of_a_server_are_learned() {
    // A row has the flags of the server and the length of each tuple's note.
    let rows: [(&str, &[&str], usize); 6] = [
        ("by default", &[], 0),
        ("one tuple a write", &["--max-tuples-per-write=1"], 0),
        ("seven tuples a write", &["--max-tuples-per-write=7"], 0),
        ("as many as there are", &["--max-tuples-per-write=30"], 0),
        ("long contexts", &[], 30_000),
        ("short messages", &["--grpc-max-recv-msg-bytes=20000", "--max-tuples-per-write=20"], 3_000),
    ];
    for (row, flags, note) in rows {
        let Some(server) = OpenFga::start_with(flags).await else { return };
        let config = server.config("limits");
        let store = OpenFgaStore::open(&config).await.expect("a store");
        let all = if note == 0 { tuples("reader") } else { (0..TUPLES).map(|n| noted("reader", n, note)).collect() };
        let Loaded { model_id, decides: is_new } = store.load(&model("reader"), &all).await.expect(row);
        assert!(is_new, "{row}");
        assert_eq!(decides(&config).await, model_id, "{row}");
        assert_eq!(readable(&config, "reader").await, TUPLES, "{row}");
        // Stored tuples are skipped, and the same model gets no second version.
        let again = store.load(&model("reader"), &all).await.expect(row);
        assert_eq!(again.model_id, model_id, "{row}, again");
        // The earlier model does not take the tuples of this one.
        let next = store.load(&model("viewer"), &tuples("viewer")).await.expect(row);
        assert_eq!(decides(&config).await, next.model_id, "{row}, the next model");
        assert_eq!(readable(&config, "viewer").await, TUPLES, "{row}, the next model");
    }
}

#[tokio::test]
async fn a_load_that_stops_leaves_the_model_from_before() {
    let Some(server) = OpenFga::start_with(&["--max-tuples-per-write=7"]).await else { return };
    let config = server.config("stopped");
    let store = OpenFgaStore::open(&config).await.expect("a store");
    store.load(&model("reader"), &tuples("reader")).await.expect("loaded");
    // The new model takes these tuples, the earlier one does not.
    let mut all = tuples("viewer");
    all[20] = noted("viewer", 20, 3);
    store.load(&model("viewer"), &all[20..21]).await.expect("loaded");
    store.load(&model("reader"), &[]).await.expect("loaded");
    assert_eq!(readable(&config, "reader").await, TUPLES);

    let stopped = store.load(&model("viewer"), &tuples("viewer")).await.expect_err("another condition");
    assert_eq!(stopped.code(), ErrorCode::AlreadyExists);
    let text = stopped.to_string();
    for words in [
        "tuple `user:anne viewer doc:20` is already there with another condition; delete it first",
        "14 of 30 tuples are in, and the model from before still decides; load the same again to finish",
    ] {
        assert!(text.contains(words), "`{words}` is missing in: {text}");
    }
    assert_eq!(readable(&config, "reader").await, TUPLES, "the model from before decides");
    assert_eq!(readable(&config, "viewer").await, 0, "the new model does not decide");

    store.delete_tuples(&all[20..21]).await.expect("deleted");
    store.load(&model("viewer"), &tuples("viewer")).await.expect("the same again");
    assert_eq!(readable(&config, "viewer").await, TUPLES);
}

#[tokio::test]
async fn a_first_load_that_stops_leaves_a_model_that_allows_nothing() {
    let Some(server) = OpenFga::start_with(&["--grpc-max-recv-msg-bytes=20000"]).await else { return };
    let config = server.config("first");
    let store = OpenFgaStore::open(&config).await.expect("a store");
    let mut all = tuples("reader");
    all[20] = noted("reader", 20, 25_000);
    let stopped = store.load(&model("reader"), &all).await.expect_err("a message that is too long");
    let text = stopped.to_string();
    assert!(text.contains("20 of 30 tuples are in, and an empty model decides, so nothing is allowed"), "{text}");
    assert_eq!(readable(&config, "reader").await, 0);

    store.load(&model("reader"), &tuples("reader")).await.expect("without it");
    assert_eq!(readable(&config, "reader").await, TUPLES);
}

#[tokio::test]
async fn a_configured_model_goes_on_to_decide() {
    let Some(server) = OpenFga::start().await else { return };
    let config = server.config("configured");
    let first = OpenFgaStore::open(&config).await.expect("a store").load(&model("reader"), &[]).await.expect("loaded");
    let pinned = OpenFgaConfig { authorization_model_id: Some(first.model_id.clone()), ..config };
    let store = OpenFgaStore::open(&pinned).await.expect("a store");
    let loaded = store.load(&model("viewer"), &tuples("viewer")).await.expect("loaded");
    assert!(!loaded.decides);
    assert_ne!(loaded.model_id, first.model_id);
    assert_eq!(decides(&pinned).await, first.model_id);
}

/// The report counts no tuple that the server did not take.
#[tokio::test]
async fn a_server_that_is_gone_was_not_changed() {
    let Some(server) = OpenFga::start().await else { return };
    let store = OpenFgaStore::open(&server.config("gone")).await.expect("a store");
    drop(server);
    let stopped = store.load(&model("reader"), &tuples("reader")).await.expect_err("out of reach");
    assert!(stopped.to_string().ends_with("nothing was changed"), "{stopped}");
}
