//! Clients for MCP that others wrote ask here as agents do: the official ones for Python and JavaScript, the inspector, and the
//! tools of `LangChain` and `LlamaIndex`. The protocol's own suite says how the door conforms.
//!
//! The scripts lie in `clients/python` and `clients/mcp`, with the versions of what they need.

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use ragward::client::Client;
use ragward::config::Config;
use ragward::identity::config::{
    ApprovalConfig, BackchannelConfig, BindingMessage, Delivery, IssuerConfig, IssuerDetails,
};
use ragward::language::Relation;
use ragward::proto::ingest::{Chunk, Document, UpsertDocumentsRequest};
use ragward::proto::metadata::value::Kind;
use ragward::server_config::{McpConfig, McpSearchBy};
use ragward::settings::{OAuthClientConfig, Secret, SecretFile};
use serde_json::{Value, json};

use crate::doors::clients::{Outcome, assert_done, folder, outcome, python, python_packages, skip};
use crate::doors::world::{COLLECTION, World, prepare};
use crate::support::held_port::HeldPort;
use crate::support::issuer::AUDIENCE;
use crate::support::provider::Provider;

/// Node.js 22 or later, which `.ci/run` installs. The inspector and the suite do not run on an older one.
const NODE: &str = "NODE_22_BIN";
/// The folders with `LangChain`'s packages that `.ci/run` installs, as in `PYTHONPATH`.
const LANGCHAIN_PACKAGES: &str = "PYTHON_LANGCHAIN_PATH";
const READ: &str = "ragward:retrieve";
/// The page at which people answer. Nobody opens it here.
const PAGE: &str = "https://login.example/requests";

fn given(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

/// Returns a command of Node.js in the folder of its clients for MCP. If it cannot run here, this says so and returns `None`.
fn node(what: &str) -> Option<Command> {
    let Some(program) = given(NODE) else {
        skip(what, "Node.js 22 or later: name its program in NODE_22_BIN");
        return None;
    };
    if !folder("mcp/node_modules").is_dir() {
        skip(what, "its packages: run `npm ci` in tests/doors/clients/mcp");
        return None;
    }
    let mut command = Command::new(program);
    command.current_dir(folder("mcp"));
    Some(command)
}

/// Returns the scripts of the official clients that can run here, the one in Python and the one in JavaScript.
fn official(python_script: &'static str, node_script: &'static str) -> Vec<(&'static str, Command)> {
    let mut scripts = Vec::new();
    if let Some(packages) = python_packages() {
        scripts.push((python_script, python(python_script, &packages)));
    }
    if let Some(mut command) = node("the official client for MCP in JavaScript") {
        command.arg(node_script);
        scripts.push((node_script, command));
    }
    scripts
}

/// Starts a server whose door for MCP has the URL at which it is called, since clients compare it with the server's metadata.
async fn start(change: impl FnOnce(&mut Config)) -> World {
    // The server listens on it before the value is dropped.
    let port = HeldPort::new();
    let address = port.address.to_string();
    let mcp = McpConfig {
        url: format!("http://{address}/mcp"),
        collection: Some(COLLECTION.to_owned()),
        url_key: None,
        url_hosts: Vec::new(),
        search_by: McpSearchBy::Words,
        explain: false,
    };
    World::start_at(&address, |settings| {
        settings.server.mcp = Some(mcp);
        change(settings);
    })
    .await
}

fn url(world: &World) -> String {
    format!("http://{}/mcp", world.address)
}

/// Returns a token with which Anne's agent reads.
fn token(world: &World) -> String {
    world.token_for(&json!(url(world)), "anne", READ)
}

#[tokio::test(flavor = "multi_thread")]
async fn official_clients_find_the_way_from_no_token_to_an_answer() {
    let Some(mut provider) = Provider::start().await else { return };
    let issuer = IssuerConfig::new(&provider.issuer);
    let world = start(|settings| settings.identity.issuers = vec![issuer]).await;
    let url = url(&world);
    let login =
        |scope: &str, resource: &str| json!({"flow": "login", "user": "anne", "scope": scope, "resource": resource});
    let tokens = json!({
        "other audience": provider.token(login(READ, AUDIENCE)).await,
        "other scope": provider.token(login("ragward:ingest", &url)).await,
    });
    let redirect_uris = ["https://desk.example/callback"];
    let known = json!({
        "client_id": "desk",
        "client_secret": "the secret of desk",
        "token_endpoint_auth_method": "client_secret_post",
        "redirect_uris": redirect_uris,
    });
    let unknown = json!({ "redirect_uris": redirect_uris });
    for (row, client) in [("known to the provider", known), ("registers itself", unknown)] {
        for (script, mut command) in official("mcp_oauth.py", "oauth.mjs") {
            command.env("MCP_URL", &url).env("MCP_ISSUER", &provider.issuer);
            command.env("MCP_CLIENT", client.to_string()).env("MCP_TOKENS", tokens.to_string());
            assert_done(&format!("{script}, {row}"), command).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_an_official_client_gets_what_holds_at_each_call() {
    let world = start(|_| {}).await;
    let tokens = json!({ "anne": token(&world), "bob": world.token_for(&json!(url(&world)), "bob", READ) });
    let operator = world.token("operator", "ragward:administer");
    for (script, mut command) in official("mcp_session.py", "session.mjs") {
        command.env("MCP_URL", url(&world)).env("MCP_TOKENS", tokens.to_string());
        command.env("RAGWARD_URL", format!("http://{}", world.address)).env("RAGWARD_TOKEN", &operator);
        assert_done(script, command).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn official_clients_ask_their_person() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("approval.secret");
    std::fs::write(&secret, "the secret of the client").unwrap();
    let world = start(|settings| {
        let collection = Some(COLLECTION.to_owned());
        settings.identity.approval = vec![ApprovalConfig { collection, ..ApprovalConfig::default() }];
        settings.approval = Some(BackchannelConfig {
            issuer: settings.identity.issuers[0].issuer.clone(),
            client: OAuthClientConfig::with_secret("assistant", SecretFile::new(secret)),
            key_file: None,
            delivery: Delivery::Poll,
            scope: format!("openid {READ}"),
            binding_message: BindingMessage::Code,
            show_query: false,
            expiry: Duration::from_mins(5),
            details: IssuerDetails::Unsupported,
            page_url: Some(PAGE.to_owned()),
        });
    })
    .await;
    world.approves_all("anne", READ);
    for (script, mut command) in official("mcp_approval.py", "approval.mjs") {
        command.env("MCP_URL", url(&world)).env("MCP_TOKEN", token(&world)).env("APPROVAL_PAGE", PAGE);
        assert_done(script, command).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn official_clients_quote_hostile_documents() {
    let world = start(|settings| {
        settings.identity.write_relation = Relation::parse("reader").unwrap();
        let mcp = settings.server.mcp.as_mut().unwrap();
        mcp.url_key = Some("url".to_owned());
        mcp.url_hosts = vec!["wiki.example".to_owned()];
    })
    .await;
    write_hostile_documents(&world).await;
    for (script, mut command) in official("mcp_hostile.py", "hostile.mjs") {
        command.env("MCP_URL", url(&world)).env("MCP_TOKEN", token(&world));
        assert_done(script, command).await;
    }
}

/// Writes the documents of `hostile.json`, each as the person who may write under its guard.
async fn write_hostile_documents(world: &World) {
    let hostile: Value = serde_json::from_str(&std::fs::read_to_string(folder("hostile.json")).unwrap()).unwrap();
    let documents = hostile["documents"].as_array().unwrap();
    for (writer, guard) in [("anne", "document:welcome"), ("bob", "document:salaries")] {
        let of_writer: Vec<&Value> = documents.iter().filter(|document| document["guard"] == guard).collect();
        assert!(!of_writer.is_empty(), "{writer} writes nothing");
        let messages = of_writer.into_iter().map(|document| UpsertDocumentsRequest {
            collection: "hostile".to_owned(),
            document: Some(hostile_document(document)),
        });
        let messages: Vec<UpsertDocumentsRequest> = messages.collect();
        let token = Secret::new(world.token(writer, "ragward:ingest"));
        let client = Client::with_token(&format!("http://{}", world.address), &token).unwrap();
        client.ingest().upsert_documents(tokio_stream::iter(messages)).await.unwrap();
    }
}

fn hostile_document(document: &Value) -> Document {
    let text = |name: &str| document[name].as_str().unwrap_or_else(|| panic!("{document} has no {name}")).to_owned();
    let url = ragward::proto::metadata::Value { kind: Some(Kind::StringValue(text("metadata_url"))) };
    let chunk = Chunk {
        id: text("chunk"),
        guard: text("guard"),
        text: text("text"),
        metadata: [("url".to_owned(), url)].into(),
        ..Chunk::default()
    };
    Document { id: text("document"), title: text("title"), chunks: vec![chunk] }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_of_the_protocol_fails_where_it_is_expected_to_and_nowhere_else() {
    let Some(mut command) = node("the conformance suite of MCP") else { return };
    let world = start(|_| {}).await;
    // The suite fails, too, when a scenario passes that is expected to fail. It does not mind a name that is none of its own.
    command.args(["--import", "./bearer.mjs", "node_modules/@modelcontextprotocol/conformance/dist/index.js"]);
    command.args(["server", "--url", &url(&world), "--suite", "all", "--spec-version", "2025-11-25"]);
    command.args(["--expected-failures", "expected-failures.yaml"]).env("MCP_TOKEN", token(&world));
    let Outcome { is_success, status, told } = outcome(command).await;
    assert!(is_success, "{status}: {told}");
    let expected = std::fs::read_to_string(folder("mcp").join("expected-failures.yaml")).unwrap();
    for scenario in expected.lines().filter_map(|line| line.trim().strip_prefix("- ")) {
        assert!(told.contains(&format!("  ~ {scenario}\n")), "{scenario} did not fail as expected: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inspector_lists_and_calls_tools() {
    let what = "the inspector of MCP";
    if node(what).is_none() {
        return;
    }
    let world = start(|_| {}).await;
    let home = tempfile::tempdir().unwrap();
    let authorization = format!("authorization: Bearer {}", token(&world));
    let signed = ["--header", authorization.as_str()];
    let search = ["--method", "tools/call", "--tool-name", "search", "--tool-arg", "query=leave"];
    for era in ["legacy", "modern"] {
        let asked = async |headers: &[&str], arguments: &[&str]| {
            let mut command = node(what).unwrap();
            command.arg("node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js");
            command.args(["--cli", &url(&world), "--transport", "http", "--protocol-era", era, "--stored-auth-only"]);
            command.arg("--quiet").args(headers).args(arguments).env("HOME", home.path());
            outcome(command).await
        };
        let read = |ran: &Outcome| -> Value {
            assert!(ran.is_success, "{era}: {ran:?}");
            serde_json::from_str(&ran.told).unwrap_or_else(|e| panic!("{era}: {e}: {ran:?}"))
        };
        // It also finds what other clients would not understand in the tools' schemas.
        let listed = read(&asked(&signed, &["--method", "tools/list", "--strict"]).await);
        let names: Vec<&Value> = listed["tools"].as_array().into_iter().flatten().map(|tool| &tool["name"]).collect();
        assert_eq!(names, ["search", "fetch"], "{era}");
        let found = read(&asked(&signed, &search).await);
        let results = found["structuredContent"]["results"].as_array().into_iter().flatten();
        let ids: Vec<&Value> = results.map(|result| &result["id"]).collect();
        assert_eq!(ids, ["handbook/document%3Awelcome%230", "handbook/document%3Awelcome%231"], "{era}: {found}");
        let refused = asked(&[], &search).await;
        assert!(!refused.is_success && refused.told.contains("auth_required"), "{era}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_frameworks_get_their_tools_from_the_door() {
    let langchain = given(LANGCHAIN_PACKAGES);
    if langchain.is_none() {
        let lacking = "its packages: name their folders in PYTHON_LANGCHAIN_PATH, as CONTRIBUTING.md says";
        skip("LangChain's client for MCP", lacking);
    }
    let world = start(|_| {}).await;
    let rows = [("mcp_llama_index.py", python_packages()), ("mcp_langchain.py", langchain)];
    for (script, packages) in rows {
        let Some(packages) = packages else { continue };
        let mut command = python(script, &packages);
        command.env("MCP_URL", url(&world)).env("MCP_TOKEN", token(&world));
        assert_done(script, command).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_starts_the_door_on_its_own_standard_streams() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    prepare(&data).await;
    for (script, mut command) in official("mcp_stdio.py", "stdio.mjs") {
        command.env("RAGWARD", env!("CARGO_BIN_EXE_ragward")).env("RAGWARD_DATA", &data);
        assert_done(script, command).await;
    }
}
