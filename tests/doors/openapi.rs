//! The description at `/openapi.json`, as tools that others wrote read it: a validator, and Schemathesis, which makes requests
//! from it and compares each answer with it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use ragward::audit::Record;
use ragward::language::{RelationshipTuple, dsl};

use crate::doors::clients::{assert_done, folder, outcome, python, python_packages};
use crate::doors::world::{COLLECTION, MODEL, World, records};
use crate::support::documents::document;
use crate::support::running::{Running, config};

/// The seed of the requests that Schemathesis makes up.
const SEED: &str = "20261130";
/// The most requests that Schemathesis makes up for an operation, beside those that follow from the description alone.
const EXAMPLES_MAX: &str = "50";
/// The checks that Schemathesis makes of each answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance";

/// The ways in which Schemathesis finds requests for one operation at a time: what the description has as examples, what follows
/// from its limits, and what is made up.
const ALL_PHASES: &str = "examples,coverage,fuzzing";
/// The RPCs that are answered to callers who may write under no guard.
const WITHOUT_A_RIGHT_TO_WRITE: [&str; 8] = [
    "Retrieve",
    "Recheck",
    "Fetch",
    "Explain",
    "ListDocuments",
    "ListCollections",
    "DeleteDocuments",
    "GetIngestStatus",
];

/// Schemathesis at a server. Its files go into `home`.
fn schemathesis(packages: &OsStr, home: &Path, address: &str, phases: &str) -> Command {
    let mut command = Command::new("python3");
    let paths = std::env::split_paths(packages).chain([folder("python")]);
    command.env("PYTHONPATH", std::env::join_paths(paths).unwrap()).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("SCHEMATHESIS_HOOKS", "openapi_hooks").env("HOME", home).current_dir(home);
    command.args(["-m", "schemathesis.cli", "run", &format!("http://{address}/openapi.json"), "--no-color"]);
    command.args(["--seed", SEED, "--max-examples", EXAMPLES_MAX, "--checks", CHECKS]);
    command.args(["--phases", phases, "--generation-database", "none", "--continue-on-failure"]);
    command
}

async fn assert_conforming(what: &str, command: Command) {
    let ran = outcome(command).await;
    assert!(ran.is_success, "{what}:\n{}", ran.told);
}

/// Checks that each of these RPCs was answered at least once, so that a run whose requests are all refused is noticed.
fn assert_answered(what: &str, records: &[Record], rpcs: &[&str]) {
    let answered = records.iter().filter(|record| record.code == "OK");
    let answered: BTreeSet<&str> = answered.filter_map(|record| Some(record.call.split_once('/')?.1)).collect();
    let missing: Vec<&&str> = rpcs.iter().filter(|rpc| !answered.contains(*rpc)).collect();
    assert!(missing.is_empty(), "{what}: {missing:?} were never answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_described_is_what_is_answered() {
    let Some(packages) = python_packages() else { return };
    let home = tempfile::tempdir().unwrap();

    let data = tempfile::tempdir().unwrap();
    let mut settings = config(data.path());
    settings.server.explain = true;
    let believing = Running::start(&settings).await;
    let tuple = RelationshipTuple::parse("user:anne", "reader", "document:welcome").unwrap();
    believing.load(dsl::load(MODEL).unwrap(), vec![tuple]);
    believing.upsert(COLLECTION, vec![document("document:welcome", &["about leave"])]).await.unwrap();
    let address = believing.address.to_string();
    let mut validator = python("openapi_valid.py", &packages);
    validator.env("RAGWARD_URL", format!("http://{address}"));
    assert_done("openapi_valid.py", validator).await;
    assert_conforming("callers are believed", schemathesis(&packages, home.path(), &address, ALL_PHASES)).await;
    believing.stop().await.unwrap();
    let writes = ["UpsertDocuments", "PutDocument"];
    assert_answered(
        "callers are believed",
        &records(data.path()),
        &[WITHOUT_A_RIGHT_TO_WRITE.as_slice(), &writes].concat(),
    );

    let world = World::start().await;
    let scopes = "ragward:retrieve ragward:ingest ragward:explain ragward:administer ragward:assert_user";
    let token = world.token("anne", scopes);
    let mut with_token = schemathesis(&packages, home.path(), &world.address, "fuzzing");
    with_token.args(["--header", &format!("authorization: Bearer {token}")]);
    assert_conforming("with a token", with_token).await;
    assert_answered("with a token", &world.stop().await, &WITHOUT_A_RIGHT_TO_WRITE);
}
