//! `Explain` where a real `OpenFGA` server decides: the copy of its tuples explains, and says as of when.

use std::process::Output;
use std::time::{Duration, SystemTime};

use ragward::authz::openfga::{OpenFgaConfig, OpenFgaStore};
use ragward::authz::replica::{ReplicaConfig, ReplicaMode};
use ragward::config::{AuthorizerKind, Config};
use ragward::language::{RelationshipTuple, dsl, json};
use ragward::proto::retrieval::explain_request::Target;
use ragward::proto::retrieval::explanation_step::Kind;
use ragward::proto::retrieval::{ExplainRequest, ExplainResponse, ExplanationOutcome, ExplanationStep};
use tokio::process::Command;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::support::openfga::OpenFga;
use crate::support::running::{self, Running};

const PATIENCE: Duration = Duration::from_secs(30);
const MODEL: &str = "model
  schema 1.1
type user
type group
  relations
    define member: [user]
type doc
  relations
    define can_read: [user, group#member]
";

fn config(data: &std::path::Path, openfga: &OpenFgaConfig, mode: ReplicaMode) -> Config {
    let mut config = running::config(data);
    config.server.explain = true;
    config.authorizer.kind = AuthorizerKind::Openfga;
    config.authorizer.openfga = openfga.clone();
    config.authorizer.replica = ReplicaConfig {
        mode,
        poll_interval: Duration::from_millis(50),
        staleness_max: Duration::from_secs(2),
        overlap: Duration::from_secs(2),
        ..ReplicaConfig::default()
    };
    config
}

async fn explain(running: &Running, user: &str) -> Result<ExplainResponse, Status> {
    let request = ExplainRequest {
        user: user.to_owned(),
        target: Some(Target::Object("doc:1".to_owned())),
        relation: "can_read".to_owned(),
        ..ExplainRequest::default()
    };
    running.client.retrieval().explain(request).await.map(tonic::Response::into_inner)
}

fn as_of(explained: &ExplainResponse) -> SystemTime {
    SystemTime::try_from(explained.as_of.expect("a date")).expect("after 1970")
}

/// Asks until the explanation holds as of this moment, or of a later one.
async fn explain_as_of(running: &Running, user: &str, moment: SystemTime) -> ExplainResponse {
    let caught_up = async {
        loop {
            match explain(running, user).await {
                Ok(explained) if as_of(&explained) >= moment => return explained,
                Ok(_) => {}
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, caught_up).await.expect("the copy catches up in time")
}

/// Returns the tuples that the outcome rests on.
fn tuples(step: &ExplanationStep) -> Vec<String> {
    let shown = match &step.kind {
        Some(Kind::Tuple(tuple)) => Some(tuple),
        Some(Kind::Relation(relation)) => relation.through.as_ref(),
        Some(Kind::Operation(_) | Kind::Tuples(_) | Kind::Parents(_) | Kind::NoTuple(_) | Kind::NotAsked(_)) | None => {
            None
        }
    };
    let shown = shown.map(|tuple| format!("{} {} {}", tuple.user, tuple.relation, tuple.object));
    let below = step.steps.iter().filter(|step| step.has_say).flat_map(tuples);
    if step.outcome() == ExplanationOutcome::Holds { shown.into_iter().chain(below).collect() } else { Vec::new() }
}

fn tuple(text: &str) -> RelationshipTuple {
    let [user, relation, object] = text.split(' ').collect::<Vec<_>>().try_into().expect("three names");
    RelationshipTuple::parse(user, relation, object).expect("a tuple")
}

async fn command(running: &Running, user: &str) -> Output {
    let server = format!("http://{}", running.address);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    command.args(["explain", "--server", &server, "--user", user, "--object", "doc:1", "--relation", "can_read"]);
    command.output().await.expect("the command runs")
}

#[tokio::test]
async fn the_copy_of_a_server_explains_as_of_a_moment() {
    let Some(server) = OpenFga::start().await else { return };
    let openfga = server.config("explained");
    let store = OpenFgaStore::open(&openfga).await.expect("a store");
    let model = json::print(&dsl::parse(MODEL).expect("a model").model).expect("JSON");
    let model_id = store.write_model(serde_json::from_str(&model).expect("JSON")).await.expect("a model");
    let (direct, of_group) = (tuple("user:anne can_read doc:1"), tuple("group:eng#member can_read doc:1"));
    let member = tuple("user:bob member group:eng");
    store.write_tuples(&[direct.clone(), of_group, member]).await.expect("written");

    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&config(data.path(), &openfga, ReplicaMode::Decide)).await;
    let written = SystemTime::now();
    let through_group = ["group:eng#member can_read doc:1", "user:bob member group:eng"];
    let rows: [(&str, &str, bool, &[&str]); 3] = [
        ("direct", "user:anne", true, &["user:anne can_read doc:1"]),
        ("through a group", "user:bob", true, &through_group),
        ("denied", "user:zoe", false, &[]),
    ];
    for (name, user, allowed, rests_on) in rows {
        let explained = explain_as_of(&running, user, written).await;
        assert_eq!(explained.allowed, allowed, "{name}: {explained:?}");
        assert_eq!(explained.authorization_model_id, model_id, "{name}");
        assert!(as_of(&explained) <= SystemTime::now(), "{name}: {explained:?}");
        assert_eq!(tuples(explained.root.as_ref().expect("a step")), rests_on, "{name}: {explained:?}");
    }

    let shown = command(&running, "user:bob").await;
    let picture = String::from_utf8(shown.stdout).expect("UTF-8");
    assert!(picture.contains("✓ user:bob member group:eng"), "{picture}");
    assert!(picture.contains(&format!("\nmodel {model_id}\nas of ")), "{picture}");

    store.delete_tuples(&[direct]).await.expect("deleted");
    let revoked = explain_as_of(&running, "user:anne", SystemTime::now()).await;
    assert!(!revoked.allowed, "revoked: {revoked:?}");

    drop(server);
    let refusal = async {
        loop {
            match explain(&running, "user:bob").await {
                Ok(explained) => assert!(explained.allowed, "until the copy is too old: {explained:?}"),
                Err(status) => return status,
            }
            tokio::task::yield_now().await;
        }
    };
    let refusal = timeout(PATIENCE, refusal).await.expect("a stale copy is refused");
    assert_eq!(refusal.code(), Code::Unavailable, "{refusal:?}");
    assert!(refusal.message().contains("not fresh"), "{refusal:?}");
    let refused = command(&running, "user:bob").await;
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
}

#[tokio::test]
async fn a_server_without_a_copy_says_that_it_cannot_explain() {
    // Nobody listens there: the refusal needs no server.
    let openfga = OpenFgaConfig { address: "http://127.0.0.1:1".to_owned(), ..OpenFgaConfig::default() };
    let data = tempfile::tempdir().expect("a directory");
    let running = Running::start(&config(data.path(), &openfga, ReplicaMode::Off)).await;
    let refusal = explain(&running, "user:anne").await.expect_err("no copy");
    assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal:?}");
    assert!(refusal.message().contains("has no copy of its tuples"), "{refusal:?}");
}
