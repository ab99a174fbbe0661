//! The command line asks its person for an approval, waits for the answer, and says how it ended.

use std::process::{Output, Stdio};

use ragward::proto::retrieval::request_approval_request::Request as Approved;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::identity::approver::{ASK, TOKEN, World, refused, secret};
use crate::identity::mcp::Desktop;
use crate::identity::world::ANNES;
use crate::support::issuer::HttpAnswer;

/// Returns a command of Anne at the server.
fn command(world: &World, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    for name in ["RAGWARD_SERVER", "RAGWARD_CA_FILE"] {
        command.env_remove(name);
    }
    let server = format!("http://{}", world.running.address);
    command.args(arguments).args(["--collection", "handbook", "--server", &server]);
    command.env("RAGWARD_TOKEN", world.token("anne", &[])).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Returns the search that needs an approval, as a command of Anne with these flags.
fn retrieve(world: &World, flags: &[&str]) -> Command {
    let search = ["retrieve", "leave", "--classification-max", "secret", "--output", "json"];
    command(world, &[&search[..], flags].concat())
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_command_shows_the_code_and_waits_for_a_yes() {
    let world = World::start(|_, _| {}).await;
    let mut command = retrieve(&world, &["--ask-approval", "--purpose", "write a letter"]);
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stderr.take().unwrap()).lines();
    let mut shown = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        let is_last = line.contains("--approval");
        shown.push(line);
        if is_last {
            break;
        }
    }
    let asked = world.issuer.forms(ASK).pop().unwrap();
    assert!(shown.iter().any(|line| line.trim() == asked["binding_message"]), "the code is shown: {shown:?}");
    let details: Value = serde_json::from_str(&asked["authorization_details"]).unwrap();
    assert_eq!(details[0]["purpose"], "write a letter");
    world.approve("anne", &[]);
    let mut answer = String::new();
    running.stdout.take().unwrap().read_to_string(&mut answer).await.unwrap();
    assert!(running.wait().await.unwrap().success(), "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["chunks"].as_array().map(Vec::len), Some(ANNES.len()), "{answer}");
}

#[tokio::test]
async fn a_command_ends_with_the_answer_of_the_person() {
    let rows = [
        ("a no", refused("access_denied"), "the person said no", 2),
        ("too late", refused("expired_token"), "the approval has expired", 2),
        ("an outage", HttpAnswer::Status(500), "the issuer does not answer about approvals", 3),
    ];
    for (row, answer, expected, exit) in rows {
        let world = World::start(|_, _| {}).await;
        world.issuer.set(TOKEN, answer);
        let output = retrieve(&world, &["--ask-approval"]).output().await.unwrap();
        assert!(told(&output).contains(expected), "{row}: {}", told(&output));
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(exit), true), "{row}");
    }
}

#[tokio::test]
async fn a_command_brings_an_approval_that_it_has() {
    let world = World::start(|_, _| {}).await;
    let output = retrieve(&world, &[]).output().await.unwrap();
    let refused = told(&output);
    assert!(refused.contains("--ask-approval"), "it says how to ask: {refused}");
    assert!(refused.contains("request_sha256"), "it shows what another program could ask for: {refused}");
    let approval = world.request(Approved::Retrieve(secret()), &world.token("anne", &[])).await.unwrap().approval;
    let other = retrieve(&world, &["--approval", &approval, "--top-k", "11"]).output().await.unwrap();
    assert!(told(&other).contains("is no approval of this request"), "{}", told(&other));
    let hyphen = retrieve(&world, &["--approval", "-Zm9v"]).output().await.unwrap();
    assert!(told(&hyphen).contains("is no approval of this request"), "it begins with a hyphen: {}", told(&hyphen));
    let pending = retrieve(&world, &["--approval", &approval]).output().await.unwrap();
    assert!(told(&pending).contains("has not answered yet"), "{}", told(&pending));
    let flags = ["--approval", &approval, "--ask-approval"];
    assert_eq!(retrieve(&world, &flags).output().await.unwrap().status.code(), Some(2), "one of the two flags");

    let world = World::start(|_, _| {}).await;
    let approval = world.request(Approved::Retrieve(secret()), &world.token("anne", &[])).await.unwrap().approval;
    world.approve("anne", &[]);
    let given = retrieve(&world, &["--approval", &approval]).output().await.unwrap();
    assert!(given.status.success(), "{}", told(&given));
    let used = retrieve(&world, &["--approval", &approval]).output().await.unwrap();
    assert!(told(&used).contains("was used"), "{}", told(&used));
}

#[tokio::test]
async fn a_desktop_client_asks_its_person() {
    let rows = [
        ("a client that can ask", Some(json!({ "elicitation": {} }))),
        ("one that cannot", Some(json!({}))),
        ("the older revision", None),
    ];
    for (row, can) in rows {
        let world = World::start(|_, _| {}).await;
        let mut desktop = Desktop::start(command(&world, &["mcp", "--stdio"]));
        let call = |approval: &Value, more: Value| {
            let arguments = json!({ "query": "leave", "classification_max": "secret", "approval": approval });
            let mut params = json!({ "name": "search", "arguments": arguments });
            if let Some(can) = &can {
                params["_meta"] = json!({
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities": can,
                });
            }
            params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            params
        };
        let told = desktop.ask("tools/call", &call(&Value::Null, json!({}))).await;
        let code = world.issuer.forms(ASK).pop().unwrap()["binding_message"].clone();
        assert!(told.to_string().contains(&code), "{row}: {told}");
        world.approve("anne", &[]);
        let again = if told["resultType"] == "input_required" {
            let said = json!({ "approval": { "action": "accept" } });
            call(&Value::Null, json!({ "requestState": told["requestState"], "inputResponses": said }))
        } else {
            let shown: Value = serde_json::from_str(told["content"][1]["text"].as_str().unwrap()).unwrap();
            assert_eq!(shown["error"], "APPROVAL_REQUIRED", "{row}");
            call(&shown["approval"], json!({}))
        };
        assert_eq!(told["resultType"] == "input_required", row == "a client that can ask", "{row}: {told}");
        let found = desktop.ask("tools/call", &again).await;
        assert_eq!(found["structuredContent"]["results"].as_array().map(Vec::len), Some(ANNES.len()), "{row}: {found}");
    }
}
