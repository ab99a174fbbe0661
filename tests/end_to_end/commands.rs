//! The commands of the README and the demo, as a user types them.

use std::process::{Command, Output};

use serde_json::Value;

/// Runs a command in the project's folder, away from the environment's settings.
fn ragward(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ragward"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = ragward(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&succeeds(&[arguments, &["--output", "json"]].concat())).unwrap()
}

/// The values of a field of each entry of a list.
fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|entry| entry[field].as_str().unwrap()).collect()
}

#[test]
fn the_demo_shows_two_answers_and_a_revocation() {
    let demo = json(&["demo"]);
    let (anne, bob, after) =
        (each(&demo["anne"], "guard"), each(&demo["bob"], "guard"), each(&demo["bob_after"], "guard"));
    assert!(anne.contains(&"document:on-call") && !bob.contains(&"document:on-call"));
    let of_hr = ["document:leave-casework", "document:parental-leave-old"];
    for page in of_hr {
        assert!(bob.contains(&page) && !anne.contains(&page) && !after.contains(&page), "{page}");
    }
    let hidden = ["document:parental-leave-draft", "document:board-minutes", "document:cover-budget"];
    assert!([anne, bob, after].concat().iter().all(|page| !hidden.contains(page)), "{demo}");
    let why = demo["why"].as_array().unwrap();
    assert!(why.iter().any(|row| row["page"] == "document:parental-leave-old" && row["anne"][1] == "withheld_from"));
    assert!(succeeds(&["demo"]).contains("ragward serve --data ragward-data --insecure-identity"));
}

#[test]
fn the_readme_works_on_a_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    let loaded = json(&["model", "load", "schema/handbook/store.fga.yaml", "--data", data]);
    assert_eq!((&loaded["tuples"], &loaded["types"]), (&Value::from(48), &Value::from(5)));
    let written = json(&["ingest", "schema/handbook", "--collection", "handbook", "--data", data]);
    assert_eq!(written["documents"], 16);
    let retrieve = ["retrieve", "--user", "user:anne", "--collection", "handbook", "--data", data, "--top-k", "3"];
    let found = json(&[&retrieve[..], &["parental leave"]].concat());
    assert_eq!((found["completion"].as_str(), found["recall"].as_str()), (Some("COMPLETE"), Some("EXACT")));
    assert_eq!(each(&found["chunks"], "id").first(), Some(&"document:parental-leave#0"));
    assert!(succeeds(&[&retrieve[..], &["parental leave"]].concat()).contains("Parental leave"));

    let recheck = ["recheck", "--user", "user:anne", "--collection", "handbook", "--data", data];
    assert!(succeeds(&[&recheck[..], &["document:on-call#0"]].concat()).contains("permitted"));
    let withheld = ragward(&[&recheck[..], &["document:on-call#0", "document:pay-bands#0"]].concat());
    assert_eq!(withheld.status.code(), Some(1));
    let check = |user| ragward(&["check", user, "can_read", "document:pay-bands", "--data", data]).status.code();
    assert_eq!((check("user:bob"), check("user:anne")), (Some(0), Some(1)));
    let model = json(&["model", "show", "--data", data]);
    assert_eq!(model["schema_version"], "1.1");
    assert_eq!(
        ragward(&["retrieve", "--user", "user:anne", "--collection", "none", "--data", data, "x"]).status.code(),
        Some(2)
    );
}

#[test]
fn documents_come_in_by_guard_by_type_and_with_vectors() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    succeeds(&["model", "load", "schema/handbook/store.fga.yaml", "--data", &data]);
    std::fs::create_dir(directory.path().join("notes")).unwrap();
    std::fs::write(directory.path().join("notes/welcome.md"), "# Hello\n\nA note of welcome.\n").unwrap();
    std::fs::write(directory.path().join("notes/empty.txt"), "").unwrap();
    let ingest = ["ingest", &path("notes"), "--data", &data];
    let by_type = json(&[&ingest[..], &["--collection", "typed", "--guard-type", "document"]].concat());
    assert_eq!((&by_type["documents"], by_type["empty"].as_array().unwrap().len()), (&Value::from(1), 1));
    json(&[&ingest[..], &["--collection", "guarded", "--guard", "document:pay-bands"]].concat());
    let chunk = r#"{"id":"v#0","document_id":"v","guard":"document:welcome","text":"A vector","vector":[1.0,0.0]}"#;
    std::fs::write(directory.path().join("chunks.jsonl"), chunk).unwrap();
    json(&["ingest", &path("chunks.jsonl"), "--collection", "vectors", "--data", &data]);
    std::fs::write(directory.path().join("query.json"), "[2.0, 0.5]").unwrap();

    let asked = |collection: &str, user: &str, query: &[&str]| {
        let found = json(&[&["retrieve", "--user", user, "--collection", collection, "--data", &data], query].concat());
        each(&found["chunks"], "id").into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    assert_eq!(asked("typed", "user:fay", &["welcome"]), ["document:welcome#0"]);
    assert_eq!(asked("guarded", "user:bob", &["welcome"]).len(), 1);
    assert_eq!(asked("guarded", "user:fay", &["welcome"]).len(), 0);
    assert_eq!(asked("vectors", "user:fay", &["--vector", &path("query.json")]), ["v#0"]);
    let unguarded = ragward(&[&ingest[..], &["--collection", "none"]].concat());
    assert_eq!(unguarded.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unguarded.stderr).contains("--guard-type"), "{unguarded:?}");
}

#[test]
fn the_rest_of_the_commands_say_what_they_should() {
    let tested = json(&["test", "schema/handbook/store.fga.yaml", "schema/models/workspace.fga.yaml"]);
    assert_eq!(tested["tests"]["passed"], tested["tests"]["total"]);
    assert!(succeeds(&["test", "schema/handbook/store.fga.yaml"]).contains("# Test Summary #\nTests 6/6 passing"));
    assert!(succeeds(&["model", "validate", "schema/handbook/model.fga"]).contains("is valid"));
    assert!(succeeds(&["config", "print"]).contains("relation = \"can_read\""));
    assert!(succeeds(&["config", "validate"]).contains("valid"));
    let schema: Value = serde_json::from_str(&succeeds(&["config", "schema"])).unwrap();
    assert!(schema["properties"]["retrieval"].is_object());
    assert!(succeeds(&["completions", "bash"]).contains("ragward"));
}

#[test]
fn a_failing_store_file_fails_the_command() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.fga.yaml");
    let text = "model: |\n  model\n    schema 1.1\n  type user\n  type doc\n    relations\n      define reader: [user]\ntuples:\n- \
                {user: 'user:anne', relation: reader, object: 'doc:1'}\ntests:\n- name: wrong\n  check:\n  - user: user:anne\n    \
                object: doc:1\n    assertions:\n      reader: false\n";
    std::fs::write(&file, text).unwrap();
    let output = ragward(&["test", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        told.contains("(FAILING)") && told.contains("Tests 0/1 passing") && told.contains("Checks 0/1 passing"),
        "{told}"
    );
}
