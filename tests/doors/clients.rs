//! Clients that others wrote do here what their own quickstarts do: `OpenFGA`'s SDKs, its command line, Connect for JavaScript
//! and Python, and `buf curl`. `OpenAI`'s SDK shows what an endpoint for embeddings is sent.
//!
//! The scripts lie in `clients/`, with the versions of what they need. Without these, a test says that it is skipped; with `CI`
//! set, it fails.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use ragward::language::dsl;
use serde_json::{Value, json};

use crate::doors::world::{MODEL, World};
use crate::support::documents::document;
use crate::support::fga::Fga;
use crate::support::model_server::ModelServer;
use crate::support::running::{Running, config};

/// The folders with Python packages that `.ci/run` installs, as in `PYTHONPATH`.
const PYTHON_PACKAGES: &str = "PYTHON_CLIENTS_PATH";

pub(super) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doors/clients").join(name)
}

/// Says that a test is skipped; with `CI` set, it fails.
pub(super) fn skip(what: &str, lacking: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI must run {what}; it lacks {lacking}");
    drop(writeln!(std::io::stderr(), "skipped: {what} lacks {lacking}"));
}

pub(super) fn python_packages() -> Option<OsString> {
    let found = std::env::var_os(PYTHON_PACKAGES).filter(|path| !path.is_empty());
    if found.is_none() {
        skip("a Python client", "its packages: name their folders in PYTHON_CLIENTS_PATH, as CONTRIBUTING.md says");
    }
    found
}

fn has_npm_packages(what: &str) -> bool {
    let found = folder("js/node_modules").is_dir();
    if !found {
        skip(what, "its packages: run `npm ci` in tests/doors/clients/js");
    }
    found
}

/// The result of a command: its exit status, and the text that it wrote to both of its channels.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) is_success: bool,
    pub(super) status: ExitStatus,
    pub(super) told: String,
}

pub(super) async fn outcome(command: Command) -> Outcome {
    let output = tokio::process::Command::from(command).output().await.expect("the program runs");
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Outcome { is_success: output.status.success(), status: output.status, told: told.concat() }
}

/// Runs a script of a client, which ends with `done`.
pub(super) async fn assert_done(what: &str, command: Command) {
    let Outcome { is_success, status, told } = outcome(command).await;
    assert!(is_success && told.trim_end().ends_with("done"), "{what} ({status}):\n{told}");
}

pub(super) fn python(script: &str, packages: &OsStr) -> Command {
    let mut command = Command::new("python3");
    command.arg(script).current_dir(folder("python"));
    command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(script).current_dir(folder("js"));
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn openfgas_sdks_do_their_quickstarts() {
    let python_packages = python_packages();
    let scripts = python_packages
        .iter()
        .flat_map(|packages| ["quickstart.py", "quickstart_async.py"].map(|script| (script, python(script, packages))));
    let mut scripts: Vec<(&str, Command)> = scripts.collect();
    if has_npm_packages("OpenFGA's JavaScript SDK") {
        scripts.push(("quickstart.mjs", node("quickstart.mjs")));
    }
    let with_tokens = World::start().await;
    let token = with_tokens.token("operator", "ragward:administer");
    for (script, mut command) in scripts {
        command.env("FGA_API_URL", format!("http://{}", with_tokens.address)).env("FGA_API_TOKEN", &token);
        assert_done(script, command).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_for_javascript_retrieves() {
    if !has_npm_packages("Connect for JavaScript") {
        return;
    }
    let world = World::start().await;
    let mut command = node("connect.mjs");
    command.env("RAGWARD_URL", format!("http://{}", world.address));
    command.env("RAGWARD_TOKEN", world.token("anne", "ragward:retrieve"));
    assert_done("connect.mjs", command).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_for_python_retrieves() {
    let Some(packages) = python_packages() else { return };
    let world = World::start().await;
    let mut command = python("connect_rpc.py", &packages);
    command.env("RAGWARD_URL", format!("http://{}", world.address));
    command.env("RAGWARD_TOKEN", world.token("anne", "ragward:retrieve"));
    assert_done("connect_rpc.py", command).await;
}

/// An endpoint in the form of `OpenAI`'s API cannot tell our requests from those of its own SDK.
#[tokio::test(flavor = "multi_thread")]
async fn openais_sdk_sends_what_we_send() {
    let Some(packages) = python_packages() else { return };
    let models = ModelServer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "the-key\n").unwrap();
    let mut settings = config(&directory.path().join("data"));
    let embedding = json!([{
        "collections": ["notes"], "url": models.url, "model": "small", "dimensions": 4, "api_key_file": key, "timeout": "60s",
    }]);
    settings.embedding = serde_json::from_value(embedding).unwrap();
    let running = Running::start(&settings).await;
    running.load(dsl::load(MODEL).unwrap(), Vec::new());
    let leave = document("document:leave", &["Parental leave lasts 18 weeks.", "Für Mütter und Väter: 👶"]);
    running.upsert("notes", vec![leave]).await.unwrap();
    let ours = models.take();
    let [ours] = ours.as_slice() else { panic!("{ours:?}") };
    let mut command = python("openai_embeddings.py", &packages);
    command.env("MODELS_URL", &models.url).env("MODELS_KEY", "the-key").env("NO_PROXY", "127.0.0.1");
    command.env("MODELS_INPUT", ours.body["input"].to_string());
    assert_done("openai_embeddings.py", command).await;
    let of_sdk = models.take();
    let [of_sdk] = of_sdk.as_slice() else { panic!("{of_sdk:?}") };
    assert_eq!((&ours.path, &ours.body), (&of_sdk.path, &of_sdk.body));
    for header in ["content-type", "accept", "authorization"] {
        assert_eq!(ours.headers.get(header), of_sdk.headers.get(header), "{header}");
    }
    assert_eq!(ours.headers["authorization"], "Bearer the-key");
}

#[tokio::test(flavor = "multi_thread")]
async fn buf_curl_calls_over_connect_and_grpc() {
    if !has_npm_packages("`buf curl`") {
        return;
    }
    let world = World::start().await;
    let home = tempfile::tempdir().unwrap();
    let token = format!("authorization: Bearer {}", world.token("anne", "ragward:retrieve"));
    let url = |rpc: &str| format!("http://{}/ragward.retrieval.v1.RetrievalService/{rpc}", world.address);
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let curl = |options: &[&str], data: &str, rpc: &str| {
        let mut command = Command::new(folder("js/node_modules/.bin/buf"));
        command.env("HOME", home.path()).current_dir(home.path()).arg("curl").args(options);
        command.args(["--data", data, &url(rpc)]);
        command
    };
    // Chunks that Anne sees, that she does not see, and that are not there.
    let known = r#"{"collection":"handbook","chunkIds":["document:welcome#0","document:salaries#0","absent"]}"#;
    let asked = r#"{"collection":"handbook","text":"leave","topK":10}"#;
    // Reflection is a stream of requests, which the door to Connect refuses.
    let rows: [(&str, &[&str]); 4] = [
        ("Connect", &["--schema", proto]),
        ("Connect over HTTP/2", &["--schema", proto, "--http2-prior-knowledge"]),
        ("gRPC", &["--schema", proto, "--http2-prior-knowledge", "--protocol", "grpc"]),
        ("gRPC, by reflection", &["--reflect-header", &token, "--http2-prior-knowledge", "--protocol", "grpc"]),
    ];
    for (row, options) in rows {
        let signed = [options, &["--header", &token]].concat();
        let [retrieved, rechecked] = [("Retrieve", asked), ("Recheck", known)].map(async |(rpc, data)| {
            let ran = outcome(curl(&signed, data, rpc)).await;
            assert!(ran.is_success, "{row}: {rpc}: {ran:?}");
            serde_json::from_str::<Value>(&ran.told).unwrap_or_else(|e| panic!("{row}: {rpc}: {e}: {ran:?}"))
        });
        let (retrieved, rechecked) = (retrieved.await, rechecked.await);
        let chunks = retrieved["chunks"].as_array().into_iter().flatten();
        let ids: Vec<&Value> = chunks.map(|chunk| &chunk["id"]).collect();
        assert_eq!(ids, ["document:welcome#0", "document:welcome#1"], "{row}");
        assert_eq!(retrieved["completion"], "COMPLETION_EXHAUSTED", "{row}");
        assert_eq!(rechecked["chunkIds"], json!(["document:welcome#0"]), "{row}");
        let refused = outcome(curl(options, known, "Recheck")).await;
        assert!(!refused.is_success && refused.told.contains("unauthenticated"), "{row}: {refused:?}");
    }
}

const STORE_FILE: &str = "
name: imported
model_file: model.fga
tuples:
  - user: user:anne
    relation: reader
    object: document:welcome
tests:
  - name: readers
    check:
      - user: user:anne
        object: document:welcome
        assertions:
          can_read: true
";
const TUPLES: &str =
    "user_type,user_id,user_relation,relation,object_type,object_id\nuser,carl,,reader,document,welcome\n";

/// Commands on one store, each with a part of what it tells. `$ID` is the store.
const COMMANDS: [(&str, &str); 26] = [
    ("store list", "$ID"),
    ("store get --store-id $ID", r#""name":"shop""#),
    ("model validate --file model.fga", r#""is_valid":true"#),
    ("model transform --file model.fga --output-format json", r#""schema_version""#),
    ("model write --store-id $ID --file model.fga", r#""authorization_model_id""#),
    ("model list --store-id $ID", r#""authorization_models""#),
    ("model get --store-id $ID", "define can_read: reader"),
    ("tuple write --store-id $ID user:anne reader document:welcome", r#""successful":[{"#),
    ("tuple write --store-id $ID --file tuples.csv", r#""failed_count":0"#),
    ("tuple read --store-id $ID", "user:carl"),
    ("tuple read --store-id $ID --user user:anne --object document:", "user:anne"),
    ("tuple changes --store-id $ID", "TUPLE_OPERATION_WRITE"),
    ("query check --store-id $ID user:anne can_read document:welcome", r#""allowed":true"#),
    ("query check --store-id $ID user:bob can_read document:welcome", r#""allowed":false"#),
    ("query list-objects --store-id $ID user:anne can_read document", r#"{"objects":["document:welcome"]}"#),
    // The order is that in which the answers of one check per relation arrive.
    ("query list-relations --store-id $ID user:anne document:welcome", r#""can_read""#),
    ("query list-relations --store-id $ID user:anne document:welcome", r#""reader""#),
    ("query list-relations --store-id $ID user:bob document:welcome", r#"{"relations":[]}"#),
    (
        "query list-users --store-id $ID --object document:welcome --relation can_read --user-filter user",
        r#"{"id":"anne","type":"user"}"#,
    ),
    ("query expand --store-id $ID can_read document:welcome", r#""userset":"document:welcome#reader""#),
    ("tuple delete --store-id $ID user:anne reader document:welcome", "{}"),
    ("query check --store-id $ID user:anne can_read document:welcome", r#""allowed":false"#),
    ("store export --store-id $ID", "user: user:carl"),
    ("store import --file store.fga.yaml", r#""name":"imported""#),
    ("model test --tests store.fga.yaml", "Checks 1/1 passing"),
    ("store delete --store-id $ID --force", "{}"),
];

/// Commands that are refused, with a part of what they tell.
const REFUSED: [(&str, &str); 2] = [
    ("store get --store-id $ID", "store_id_not_found"),
    ("query check --store-id $ID user:anne can_read document:welcome", "with error code"),
];

/// `fga` at one server.
struct FgaAt<'a> {
    fga: &'a Fga,
    home: &'a Path,
    address: &'a str,
    token: Option<&'a str>,
}

impl FgaAt<'_> {
    async fn run(&self, arguments: &str) -> Outcome {
        let mut command = self.fga.command(self.home);
        command.current_dir(self.home).args(["--api-url", &format!("http://{}", self.address)]);
        if let Some(token) = self.token {
            command.args(["--api-token", token]);
        }
        command.args(arguments.split(' '));
        outcome(command).await
    }

    async fn all_commands(&self, server: &str) {
        let made = self.run("store create --name shop --model model.fga").await;
        let (_, id) = made.told.split_once(r#""id":""#).unwrap_or_else(|| panic!("{server}: {made:?}"));
        let (id, _) = id.split_once('"').expect("the end of the id");
        for (command, part) in COMMANDS {
            let ran = self.run(&command.replace("$ID", id)).await;
            assert!(ran.is_success && ran.told.contains(&part.replace("$ID", id)), "{server}: {command}: {ran:?}");
        }
        for (command, part) in REFUSED {
            let ran = self.run(&command.replace("$ID", id)).await;
            assert!(!ran.is_success && ran.told.contains(part), "{server}: {command}: {ran:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openfgas_command_line_does_all_it_can() {
    let Some(fga) = Fga::find() else { return };
    let home = tempfile::tempdir().unwrap();
    for (file, text) in [("model.fga", MODEL), ("store.fga.yaml", STORE_FILE), ("tuples.csv", TUPLES)] {
        std::fs::write(home.path().join(file), text.trim_start()).unwrap();
    }
    let with_tokens = World::start().await;
    let token = with_tokens.token("operator", "ragward:administer");
    let at = FgaAt { fga: &fga, home: home.path(), address: &with_tokens.address, token: Some(&token) };
    at.all_commands("with a token").await;
    let refused = FgaAt { token: None, ..at }.run("store list").await;
    assert!(!refused.is_success && refused.told.contains("unauthenticated"), "{refused:?}");

    let data = tempfile::tempdir().unwrap();
    let believing = Running::start(&config(data.path())).await;
    let address = believing.address.to_string();
    let at = FgaAt { fga: &fga, home: home.path(), address: &address, token: None };
    at.all_commands("without a token").await;
    believing.stop().await.unwrap();
}
