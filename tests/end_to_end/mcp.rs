//! `ragward mcp --stdio` as a desktop client starts it: lines in, lines out.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::held_port::HeldPort;

/// Runs the command over these lines, and then ends its input.
fn spoken(arguments: &[&str], lines: &[String]) -> Output {
    let states = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    for name in ["RAGWARD_TOKEN", "RAGWARD_SERVER", "RAGWARD_CA_FILE", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.args(["mcp", "--stdio"]).args(arguments).env("XDG_STATE_HOME", states.path());
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = process.stdin.take().unwrap();
    // The answers of a test fit into a pipe, so they need no reader meanwhile. A command that was refused reads nothing.
    drop(input.write_all(lines.concat().as_bytes()));
    drop(input);
    process.wait_with_output().unwrap()
}

/// Returns the messages of a command that ended well and logged nothing. Those without an id are under `null`.
#[track_caller]
fn answers(output: &Output) -> BTreeMap<String, Value> {
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && log.is_empty(), "{:?}: {log}", output.status);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let messages = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut answers = BTreeMap::new();
    for message in messages {
        let before = answers.insert(message["id"].to_string(), message.clone());
        assert_eq!(before, None, "a second answer: {message}");
    }
    answers
}

fn message(id: u32, method: &str, params: &Value) -> String {
    format!("{}\n", json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
}

fn tool(id: u32, name: &str, arguments: &Value) -> String {
    message(id, "tools/call", &json!({ "name": name, "arguments": arguments }))
}

fn search(id: u32) -> String {
    tool(id, "search", &json!({ "query": "parental leave", "top_k": 50 }))
}

fn cancelled(id: u32) -> String {
    let params = json!({ "requestId": id });
    format!("{}\n", json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params }))
}

/// Returns the ids in the result of a search.
fn found(answer: &Value) -> Vec<String> {
    let results = answer["result"]["structuredContent"]["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    results.iter().map(|result| result["id"].as_str().unwrap().to_owned()).collect()
}

fn handbook() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
        command.args(arguments).arg("--data").arg(directory.path()).current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["model", "load", "schema/handbook/store.fga.yaml"]);
    run(&["ingest", "schema/handbook", "--collection", "handbook"]);
    directory
}

#[test]
fn a_desktop_client_searches_as_the_user_of_the_command_line() {
    let handbook = handbook();
    let data = handbook.path().to_str().unwrap();
    let of = |user: &'static str| ["--data", data, "--user", user, "--collection", "handbook"];
    let with_names = json!({ "query": "parental leave", "top_k": 50, "user": "user:bob" });
    let meta = json!({
        "name": "search",
        "arguments": { "query": "parental leave", "top_k": 50 },
        "_meta": { "user": "user:bob", "subject": "bob" },
    });
    let lines = [
        message(1, "initialize", &json!({ "protocolVersion": "2025-11-25", "capabilities": {} })),
        format!("{}\n", json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })),
        message(2, "tools/list", &json!({})),
        search(3),
        "\n".to_owned(),
        tool(4, "search", &with_names),
        message(5, "tools/call", &meta),
        tool(6, "fetch", &json!({ "id": "handbook/document%3Apay-bands%230" })),
        tool(7, "fetch", &json!({ "id": "handbook/nothing" })),
        tool(8, "fetch", &json!({ "id": "elsewhere/document%3Aon-call%230" })),
        message(9, "resources/read", &json!({ "uri": "ragward://handbook/document%3Aon-call%230" })),
    ];
    let anne = answers(&spoken(&of("user:anne"), &lines));
    let bob = answers(&spoken(&of("user:bob"), &lines));
    assert_eq!(anne.len(), 9, "each request has one answer: {anne:?}");
    assert_eq!(anne["1"]["result"]["protocolVersion"], "2025-11-25");
    assert_eq!(anne["2"]["result"]["tools"][0]["name"], "search");

    let (of_anne, of_bob) = (found(&anne["3"]), found(&bob["3"]));
    let has =
        |ids: &[String], page: &str| ids.iter().any(|id| id.starts_with(&format!("handbook/document%3A{page}%23")));
    assert!(has(&of_anne, "on-call") && !has(&of_anne, "parental-leave-old"), "{of_anne:?}");
    assert!(has(&of_bob, "parental-leave-old") && !has(&of_bob, "on-call"), "{of_bob:?}");
    assert_eq!(anne["4"]["result"]["isError"], true, "an argument names a person: {}", anne["4"]);
    assert_eq!(found(&anne["5"]), of_anne, "names elsewhere change nothing");

    let result = |answers: &BTreeMap<String, Value>, id: &str| answers[id]["result"].clone();
    assert_eq!(bob["6"]["result"]["structuredContent"]["id"], "handbook/document%3Apay-bands%230", "{}", bob["6"]);
    for (row, id) in [("what is hidden", "6"), ("another collection", "8")] {
        assert_eq!(result(&anne, id), result(&anne, "7"), "{row} looks like what is not there");
    }
    assert!(anne["9"]["result"]["contents"][0]["text"].is_string(), "{}", anne["9"]);
    let error = &bob["9"]["error"];
    assert_eq!(error["code"], -32_002, "{error}");
    assert_eq!(error["data"], json!({ "uri": "ragward://handbook/document%3Aon-call%230" }), "{error}");
}

#[test]
fn bad_lines_are_answered_and_the_next_one_is_read() {
    let handbook = handbook();
    let arguments = ["--data", handbook.path().to_str().unwrap(), "--user", "user:anne"];
    let batch = format!("[{}]\n", message(1, "ping", &json!({})).trim());
    let rows = [
        ("no JSON", "ping\n".to_owned(), -32_700),
        ("a batch", batch, -32_600),
        ("a response", format!("{}\n", json!({ "jsonrpc": "2.0", "result": {} })), -32_600),
        ("a huge line", format!("{}\n", "a".repeat(3 * 64 * 1_024)), -32_600),
    ];
    for (row, line, code) in rows {
        let answers = answers(&spoken(&arguments, &[line, message(2, "ping", &json!({}))]));
        assert_eq!(answers["null"]["error"]["code"], code, "{row}: {answers:?}");
        assert_eq!(answers["2"]["result"], json!({}), "{row}");
    }
    let none = answers(&spoken(&arguments, &[search(1)]));
    let text = none["1"]["result"]["content"][0]["text"].as_str().unwrap_or_default();
    assert!(text.contains("collection: is missing"), "nobody named a collection: {none:?}");
}

#[test]
fn calls_are_bounded_and_end_when_they_are_given_up() {
    // This server takes connections and says nothing, so no call ends by itself.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", silent.local_addr().unwrap());
    let mut lines: Vec<String> = (1..=64).map(search).collect();
    lines.extend([search(1), search(65)]);
    lines.extend((1..=64).map(cancelled));
    // An id of no call, and an id that is free again.
    lines.extend([cancelled(70), search(1), cancelled(1), message(100, "ping", &json!({}))]);
    let answers = answers(&spoken(&["--server", &server, "--collection", "handbook"], &lines));
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["100", "65", "null"], "what was given up has no answer");
    assert_eq!(answers["null"]["error"]["code"], -32_600, "its id is in use: {}", answers["null"]);
    assert_eq!(answers["65"]["result"]["isError"], true, "there are too many: {}", answers["65"]);
}

#[test]
fn a_server_out_of_reach_is_told_to_the_model() {
    let unused = HeldPort::new();
    let lines = [message(1, "tools/list", &json!({})), search(2)];
    let answers =
        answers(&spoken(&["--server", &format!("http://{}", unused.address), "--collection", "handbook"], &lines));
    assert_eq!(answers["1"]["result"]["tools"][1]["name"], "fetch", "the tools are listed without the server");
    let result = &answers["2"]["result"];
    assert_eq!(result["isError"], true, "{result}");
    assert!(result["content"][0]["text"].as_str().unwrap().contains("out of reach"), "{result}");
}

#[test]
fn wrong_flags_end_the_command_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (there, missing) = (directory.path().to_str().unwrap(), directory.path().join("no"));
    let missing = missing.to_str().unwrap();
    let rows: [(&str, &[&str], &str); 4] = [
        ("no user", &["--data", there], "`--user`"),
        ("no data", &["--data", missing, "--user", "user:anne"], "there is no data directory"),
        ("no address", &["--server", "nowhere at all"], "`--server`"),
        ("a token for nobody", &["--data", there, "--token-file", "token"], "--token-file"),
    ];
    for (row, arguments, told) in rows {
        let output = spoken(arguments, &[]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{row}: {log}");
        assert!(log.contains(told), "{row}: {log}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_ragward")).arg("mcp").stdin(Stdio::null()).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && log.contains("`--stdio`"), "no way to speak: {log}");
}
