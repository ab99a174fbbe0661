//! `ragward eval`, and the searches of `ragward test`, over the demo's handbook.

use std::fs;

use serde_json::{Value, json};

use super::commands::{json as json_of, ragward, succeeds};
use crate::support::running::{Running, config};

/// Loads the handbook into a data directory.
fn handbook(data: &str) {
    succeeds(&["model", "load", "schema/handbook/store.fga.yaml", "--data", data]);
    succeeds(&["ingest", "schema/handbook", "--collection", "handbook", "--data", data]);
}

/// Returns the answer to a question of a user.
fn answer<'a>(report: &'a Value, user: &str, question: &str) -> &'a Value {
    let answers = report["answers"].as_array().unwrap();
    let found = answers.iter().find(|answer| answer["user"] == user && answer["question"] == question);
    found.unwrap_or_else(|| panic!("{user}, {question}: {report:#}"))
}

#[test]
fn the_handbook_is_measured_by_user() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (data, picture) = (path("data"), path("figures.svg"));
    handbook(&data);
    let questions = ["eval", "schema/handbook/questions.toml", "--k", "5", "--data", &data];
    let report = json_of(&[&questions[..], &["--picture", &picture]].concat());
    let rows = [("user:anne", 4, 4), ("user:bob", 3, 3), ("user:fay", 3, 2)];
    let users = report["users"].as_array().unwrap();
    assert_eq!(users.len(), rows.len(), "{report:#}");
    for (user, (name, asked, counted)) in users.iter().zip(rows) {
        assert_eq!((&user["user"], &user["asked"], &user["counted"]), (&json!(name), &json!(asked), &json!(counted)));
        assert_eq!(user["recall"], json!(1.0), "{name}");
    }
    assert_eq!((&report["all"]["asked"], &report["all"]["counted"]), (&json!(10), &json!(9)));
    // A page that a user may not see is said, and is not missed.
    let leave = answer(&report, "user:fay", "parental leave");
    assert_eq!(leave["not_visible"], json!(["document:parental-leave"]));
    assert_eq!((&leave["recall"], &leave["ranks"]), (&json!(1.0), &json!({"document:benefits": 1})));
    let expenses = answer(&report, "user:fay", "how do I claim expenses");
    assert_eq!((&expenses["recall"], &expenses["not_visible"]), (&Value::Null, &json!(["document:expenses"])));
    let told = succeeds(&questions);
    assert!(told.contains("not counted: user:fay asked `how do I claim expenses`: `document:expenses`"), "{told}");
    assert!(!told.contains("missed"), "{told}");
    let drawn = fs::read_to_string(&picture).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.contains("user:fay") && drawn.contains("2 questions"), "{drawn}");
}

/// A row: its name, the lines of its file, its flags, the exit code, and what is said on either stream.
type EvalRow<'a> = (&'a str, &'a [&'a str], &'a [&'a str], i32, &'a str);

/// A question that expects a document in vain is missed, and a document that must not come fails the command.
#[test]
fn what_is_missed_or_unwanted_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    handbook(&data);
    let line = |query: &str, user: &str, rest: Value| {
        let mut line = json!({"query": query, "user": user});
        line.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        line.to_string()
    };
    let missed = line("holiday", "user:anne", json!({"expect": ["document:welcome"]}));
    let unwanted = line("pay bands", "user:bob", json!({"not": ["document:pay-bands"]}));
    let nobody = json!({"query": "holiday", "expect": ["document:holiday"]}).to_string();
    let hidden = line("pay bands", "user:anne", json!({"expect": ["document:pay-bands"]}));
    let absent = line("pay bands", "user:anne", json!({"expect": ["document:no-such"]}));
    let rows: [EvalRow<'_>; 9] = [
        (
            "missed",
            &[&missed],
            &[],
            0,
            "missed: user:anne asked `holiday`: `document:welcome` is not among the first 1",
        ),
        ("too little recall", &[&missed], &["--min-recall", "0.5"], 1, "recall is 0.000, below 0.5"),
        ("enough of everything", &[&missed], &["--min-mrr", "0", "--min-ndcg", "0"], 0, "1 of 1"),
        ("unwanted", &[&unwanted], &[], 1, "1 documents came that must not"),
        ("hidden", &[&hidden], &["--min-recall", "0"], 1, "recall is unknown, because no question counts"),
        (
            "absent, which looks the same",
            &[&absent],
            &[],
            0,
            "not counted: user:anne asked `pay bands`: `document:no-such`",
        ),
        ("nobody asks", &[&nobody], &[], 2, "name the user who asks with `--user`"),
        ("the flag's user asks", &[&nobody], &["--user", "user:anne", "--min-recall", "1"], 0, "user:anne"),
        ("a share that is none", &[&nobody], &["--min-recall", "2"], 2, "a number from 0 to 1"),
    ];
    for (row, lines, flags, code, expected) in rows {
        fs::write(directory.path().join("questions.jsonl"), lines.join("\n")).unwrap();
        let file = path("questions.jsonl");
        let eval = ["eval", &file, "--collection", "handbook", "--k", "1", "--data", &data];
        let output = ragward(&[&eval[..], flags].concat());
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{row}: {told}");
        assert!(told.contains(expected), "{row}: {told}");
    }
    let file = path("questions.jsonl");
    let nameless = ragward(&["eval", &file, "--data", &data]);
    assert_eq!(nameless.status.code(), Some(2), "no collection: {nameless:?}");
}

/// A server gives the figures that its data directory gives.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_measured_as_a_directory_is() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data").to_str().unwrap().to_owned();
    let questions = ["eval", "schema/handbook/questions.toml", "--k", "5"];
    let of_data = tokio::task::block_in_place(|| {
        handbook(&data);
        json_of(&[&questions[..], &["--data", &data]].concat())
    });
    let running = Running::start(&config(data.as_ref())).await;
    let address = format!("http://{}", running.address);
    let of_server = tokio::task::block_in_place(|| json_of(&[&questions[..], &["--server", &address]].concat()));
    assert_eq!(of_server, of_data);
}

#[test]
fn searches_of_a_store_file_are_tested() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let report = path("report.xml");
    let passed = json_of(&["test", "schema/handbook/retrieval.yaml", "--junit", &report]);
    assert_eq!((&passed["retrieval"]["passed"], &passed["retrieval"]["total"]), (&json!(5), &json!(5)), "{passed:#}");
    let xml = fs::read_to_string(&report).unwrap();
    assert!(xml.contains("tests=\"3\" failures=\"0\" errors=\"0\"") && xml.contains("A contractor alone"), "{xml}");

    let store = |tests: &str| format!("store_file: store.fga.yaml\ndocuments: chunks.jsonl\ntests:\n{tests}");
    let world = "model: |\n  model\n    schema 1.1\n  type user\n  type document\n    relations\n      define can_read: [user]\n\
                 tuples:\n- {user: user:a, relation: can_read, object: document:a}\n";
    let chunk = |id: &str| json!({"id": format!("{id}#0"), "document_id": id, "guard": format!("document:{id}"), "text": "pay"});
    fs::write(directory.path().join("store.fga.yaml"), world).unwrap();
    fs::write(directory.path().join("chunks.jsonl"), format!("{}\n{}\n", chunk("a"), chunk("b"))).unwrap();
    let ask = |rest: &str| store(&format!("- name: one\n  retrieval:\n  - {{user: user:a, query: pay, {rest}}}\n"));
    let rows = [
        ("it comes", ask("expect: [a], not: [b]"), 0, "Retrieval 1/1 passing"),
        ("it is hidden", ask("expect: [b]"), 1, "got [a]; `b` is hidden from user:a, or not there"),
        ("it must not come", ask("not: [a]"), 1, "expected [], without [a], got [a]"),
        ("too few are asked for", ask("top_k: 1, expect: [a, b]"), 1, "`top_k` must be"),
        ("nothing is expected", ask("top_k: 1"), 1, "neither `expect` nor `not`"),
        ("expected and unwanted", ask("expect: [a], not: [a]"), 1, "`a` is in both"),
        ("more than an answer has", ask("top_k: 1000, not: [b]"), 1, "not run: top_k"),
        ("no documents", ask("not: [b]").replace("documents: chunks.jsonl\n", ""), 1, "no `documents` to search"),
        (
            "documents elsewhere",
            ask("not: [b]").replace("chunks.jsonl", ".."),
            1,
            "is not in the folder of the store file",
        ),
        (
            "a model and a store file",
            format!("model_file: m.fga\n{}", ask("not: [b]")),
            1,
            "both `store_file` and a model",
        ),
    ];
    for (row, text, code, expected) in rows {
        fs::write(directory.path().join("retrieval.yaml"), text).unwrap();
        let output = ragward(&["test", &path("retrieval.yaml"), "--junit", &report]);
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{row}: {told}");
        assert!(told.contains(expected), "{row}: {told}");
        let xml = fs::read_to_string(&report).unwrap();
        assert_eq!(xml.contains("failures=\"0\" errors=\"0\""), code == 0, "{row}: {xml}");
    }
}
