//! `ragward tune` against a real `OpenFGA`.

use std::path::Path;
use std::process::{Command, Output};

use ragward::authz::openfga::OpenFgaSource;
use ragward::authz::replica::source::RelationshipSource;
use serde_json::Value;

use crate::support::openfga::OpenFga;

fn ragward(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ragward")).args(arguments).output().expect("the program runs")
}

/// Measures and writes, and returns the report.
fn tuned(config: &str, budget: &str) -> Value {
    let arguments = ["--config", config, "--budget", budget, "--callers", "4", "--write", "--output", "json"];
    let tuned = ragward(&[&["tune"], &arguments[..]].concat());
    assert!(tuned.status.success(), "{tuned:?}");
    serde_json::from_slice(&tuned.stdout).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_measured_and_written_and_nothing_else_changes() {
    let Some(server) = OpenFga::start().await else { return };
    let openfga = server.config("tuned");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ragward.toml");
    let configured = |mode: &str| {
        format!(
            "# where it runs\n[data]\ndirectory = \"{}\"\n\n[authorizer]\nkind = \"openfga\" # ours\nreplica = {{ mode = \"{mode}\" \
             }}\n\n[authorizer.openfga]\naddress = \"{}\"\nstore_name = \"tuned\"\nchecks_per_call = 7 # too few\n",
            directory.path().join("data").display(),
            openfga.address
        )
    };
    std::fs::write(&file, configured("plan")).expect("written");
    let config = file.to_str().expect("text");
    let handbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/handbook/store.fga.yaml");
    let loaded = ragward(&["model", "load", handbook.to_str().expect("text"), "--config", config]);
    assert!(loaded.status.success(), "{loaded:?}");
    let source = OpenFgaSource::new(&openfga).expect("a source");
    let (version, _) = source.model(None).await.expect("a model");
    let log = source.changes(&version.store_id, "").await.expect("the log");

    let told = tuned(config, "10s");
    assert!(told["users"].as_u64() > Some(3), "the people of the handbook ask: {told}");
    let measurements = told["measurements"].as_array().expect("a list");
    assert!(measurements.len() > 10, "{told}");
    // On a busy machine, a setting may answer nothing in its time. Then the command says so.
    let asked = |m: &Value| m["answered"].as_u64().zip(m["failed"].as_u64()).is_some_and(|(a, f)| a + f > 0);
    assert!(measurements.iter().all(asked), "{told}");
    assert!(measurements[0]["checks_per_second"].as_f64() > Some(0.0), "what is configured answers: {told}");
    assert_eq!(measurements[0]["checks_per_call"], 7, "first what is configured");
    assert!(measurements.iter().any(|m| m["replica"] == "decide"), "{told}");

    // Which settings are fastest depends on the machine.
    let is_changed = told["recommended"]["advice"] == "change";
    assert_eq!(told["written_to"].as_str(), is_changed.then_some(config), "{told}");
    let after = std::fs::read_to_string(&file).expect("read");
    let per_call = &told["recommended"]["checks_per_call"];
    for line in ["# where it runs", "kind = \"openfga\" # ours", &format!("checks_per_call = {per_call} # too few")] {
        assert!(after.lines().any(|found| found == line), "`{line}` in\n{after}");
    }
    let valid = ragward(&["config", "validate", "--insecure-identity", "--config", config]);
    assert!(valid.status.success(), "{valid:?}");

    // A replica that decides calls the server so seldom that the values stay, and the file as well.
    std::fs::write(&file, configured("decide")).expect("written");
    let told = tuned(config, "5s");
    assert_eq!(told["recommended"]["advice"], "keep", "{told}");
    assert_eq!(told["recommended"]["checks_per_call"], 7, "{told}");
    assert!(told["written_to"].is_null(), "{told}");
    assert_eq!(std::fs::read_to_string(&file).expect("read"), configured("decide"), "the file stays");

    assert_eq!(source.model(None).await.expect("a model").0, version, "reads only");
    assert_eq!(source.changes(&version.store_id, "").await.expect("the log"), log, "reads only");
    assert!(!directory.path().join("data").exists(), "the data directory is not touched");
}

#[test]
fn there_is_nothing_to_tune_without_a_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ragward.toml");
    std::fs::write(&file, "").expect("written");
    let tuned = ragward(&["tune", "--config", file.to_str().expect("text")]);
    let told = String::from_utf8_lossy(&tuned.stderr);
    assert_eq!(tuned.status.code(), Some(2), "{told}");
    assert!(told.contains("authorizer.kind"), "{told}");
}
