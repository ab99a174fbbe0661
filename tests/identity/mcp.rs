//! `ragward mcp --stdio --server`: a desktop client asks as the person whose token the command finds.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::identity::world::{ANNES, RETRIEVE, World};

/// A command that a desktop client has started. It ends with the value.
pub(crate) struct Desktop {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    process: Child,
}

impl Desktop {
    /// Starts a command at the server of a world, for a person who has never logged in.
    fn of_world(world: &World, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
        for name in ["RAGWARD_TOKEN", "RAGWARD_SERVER", "RAGWARD_CA_FILE"] {
            command.env_remove(name);
        }
        command.args(["mcp", "--stdio", "--collection", "handbook", "--server"]);
        command.arg(format!("http://{}", world.running.address)).args(arguments);
        command.env("XDG_STATE_HOME", "/nowhere/states");
        Self::start(command)
    }

    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { input: process.stdin.take().unwrap(), output, process }
    }

    /// Sends a request, and returns its result.
    async fn ask(&mut self, method: &str, params: &Value) -> Value {
        let message = json!({ "jsonrpc": "2.0", "id": "a", "method": method, "params": params });
        self.input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
        let line = self.output.next_line().await.unwrap().expect("the command ended");
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["id"], "a", "{answer}");
        answer["result"].clone()
    }

    pub(crate) async fn search(&mut self) -> Value {
        self.ask("tools/call", &json!({ "name": "search", "arguments": { "query": "leave" } })).await
    }

    /// Ends the input, and returns whether the command ended well.
    async fn end(self) -> bool {
        let Self { input, mut process, .. } = self;
        drop(input);
        process.wait().await.unwrap().success()
    }
}

/// Returns the chunks in the result of a search, in order of their names.
fn found(result: &Value) -> Vec<String> {
    let results = result["structuredContent"]["results"].as_array().unwrap_or_else(|| panic!("{result}"));
    let mut ids: Vec<String> = results.iter().map(|result| result["id"].as_str().unwrap().to_owned()).collect();
    ids.sort_unstable();
    ids
}

fn ids(chunks: &[&str]) -> Vec<String> {
    chunks.iter().map(|id| format!("handbook/{}", id.replace(':', "%3A").replace('#', "%23"))).collect()
}

#[tokio::test]
async fn each_call_carries_the_token_of_its_moment() {
    let world = World::start(|_| {}).await;
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("token");
    std::fs::write(&file, world.token("anne", RETRIEVE, &[])).unwrap();
    let mut desktop = Desktop::of_world(&world, &["--token-file", file.to_str().unwrap()]);
    assert_eq!(found(&desktop.search().await), ids(&ANNES));
    assert_eq!(found(&desktop.search().await), ids(&ANNES), "the connection is used again");
    std::fs::write(&file, world.token("bob", RETRIEVE, &[])).unwrap();
    let of_bob = found(&desktop.search().await);
    let has = |page: &str| of_bob.iter().any(|id| id.contains(page));
    assert!(has("salaries") && !has("roadmap"), "with the token of another person: {of_bob:?}");
    // The file is gone as after `ragward logout`.
    std::fs::remove_file(&file).unwrap();
    let refused = desktop.search().await;
    assert_eq!(refused["isError"], true, "{refused}");
    assert!(desktop.end().await);
}

#[tokio::test]
async fn whoever_is_not_logged_in_is_told_how() {
    let world = World::start(|_| {}).await;
    let mut desktop = Desktop::of_world(&world, &[]);
    let tools = desktop.ask("tools/list", &json!({})).await;
    assert_eq!(tools["tools"][0]["name"], "search", "a client may begin before its person logs in");
    let refused = desktop.search().await;
    let text = refused["content"][0]["text"].as_str().unwrap_or_default();
    assert!(refused["isError"] == true && text.contains("log in with `ragward login`"), "{refused}");
    assert!(desktop.end().await);
}

#[tokio::test]
async fn a_name_on_the_command_line_needs_a_token_that_allows_it() {
    let world = World::start(|_| {}).await;
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("token");
    let path = file.to_str().unwrap();
    std::fs::write(&file, world.token("anne", RETRIEVE, &[])).unwrap();
    let mut desktop = Desktop::of_world(&world, &["--token-file", path, "--user", "user:bob"]);
    let refused = desktop.search().await;
    let text = refused["content"][0]["text"].as_str().unwrap_or_default();
    assert!(refused["isError"] == true && text.contains("does not let its bearer ask for this user"), "{refused}");
    assert!(desktop.end().await);
}
