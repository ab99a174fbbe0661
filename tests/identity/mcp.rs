//! `ragward mcp --stdio --server`: a desktop client asks as the person whose token the command finds.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::identity::world::{ANNES, RETRIEVE, World};
use crate::support::issuer::AUDIENCE;

/// A command that a desktop client has started. It ends with the value.
pub(crate) struct Desktop {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    process: Child,
}

impl Desktop {
    /// Starts a command at the server of a world, for a person who has never logged in.
    fn of_world(world: &World, arguments: &[&str]) -> Self {
        Self::with_states(world, arguments, Path::new("/nowhere/states"))
    }

    /// Like [`Self::of_world`], for a person whose logins are in this folder of states.
    fn with_states(world: &World, arguments: &[&str], states: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
        for name in ["RAGWARD_TOKEN", "RAGWARD_SERVER", "RAGWARD_CA_FILE"] {
            command.env_remove(name);
        }
        command.args(["mcp", "--stdio", "--collection", "handbook", "--server"]);
        command.arg(format!("http://{}", world.running.address)).args(arguments);
        command.env("XDG_STATE_HOME", states);
        Self::start(command)
    }

    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { input: process.stdin.take().unwrap(), output, process }
    }

    async fn send(&mut self, message: &Value) {
        self.input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    /// Sends a request, and returns its result.
    pub(crate) async fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.send(&json!({ "jsonrpc": "2.0", "id": "a", "method": method, "params": params })).await;
        let line = self.output.next_line().await.unwrap().expect("the command ended");
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["id"], "a", "{answer}");
        answer["result"].clone()
    }

    pub(crate) async fn search(&mut self) -> Value {
        self.ask("tools/call", &search()).await
    }

    /// Ends the input, and returns whether the command ended well.
    async fn end(self) -> bool {
        let Self { input, mut process, .. } = self;
        drop(input);
        process.wait().await.unwrap().success()
    }
}

/// Returns the parameters of a search.
fn search() -> Value {
    json!({ "name": "search", "arguments": { "query": "leave" } })
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
    fs::write(&file, world.token("anne", RETRIEVE, &[])).unwrap();
    let mut desktop = Desktop::of_world(&world, &["--token-file", file.to_str().unwrap()]);
    assert_eq!(found(&desktop.search().await), ids(&ANNES));
    assert_eq!(found(&desktop.search().await), ids(&ANNES), "the connection is used again");
    fs::write(&file, world.token("bob", RETRIEVE, &[])).unwrap();
    let of_bob = found(&desktop.search().await);
    let has = |page: &str| of_bob.iter().any(|id| id.contains(page));
    assert!(has("salaries") && !has("roadmap"), "with the token of another person: {of_bob:?}");
    // The file is gone as after `ragward logout`.
    fs::remove_file(&file).unwrap();
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
    fs::write(&file, world.token("anne", RETRIEVE, &[])).unwrap();
    let mut desktop = Desktop::of_world(&world, &["--token-file", path, "--user", "user:bob"]);
    let refused = desktop.search().await;
    let text = refused["content"][0]["text"].as_str().unwrap_or_default();
    assert!(refused["isError"] == true && text.contains("does not let its bearer ask for this user"), "{refused}");
    assert!(desktop.end().await);
}

/// Stores a login whose access token has ended, and returns its file.
fn store_ended_login(states: &Path, server: &str, issuer: &str) -> PathBuf {
    let folder = states.join("ragward/logins");
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    let file = folder.join(format!("{}.json", server.replace(':', "%3A").replace('/', "%2F")));
    let login = json!({
        "version": 1,
        "origin": server,
        "issuer": issuer,
        "resource": AUDIENCE,
        "client_id": "cli",
        "scope": RETRIEVE,
        "token_endpoint": format!("{issuer}/token"),
        "revocation_endpoint": null,
        "expires_at": 1,
        "access_token": "ended",
        "refresh_token": "first",
    });
    fs::write(&file, login.to_string()).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    file
}

/// Reads a request, and returns its body.
async fn read_body(connection: &mut BufReader<TcpStream>) -> String {
    let (mut length, mut line) = (0, String::new());
    while line != "\r\n" {
        line.clear();
        assert_ne!(connection.read_line(&mut line).await.unwrap(), 0, "the request has no end");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.unwrap();
    String::from_utf8(body).unwrap()
}

#[tokio::test]
async fn a_call_that_is_given_up_does_not_lose_the_login() {
    let world = World::start(|_| {}).await;
    let states = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let file = store_ended_login(states.path(), &format!("http://{}", world.running.address), &issuer);
    let mut desktop = Desktop::with_states(&world, &[], states.path());

    desktop.send(&json!({ "jsonrpc": "2.0", "id": "b", "method": "tools/call", "params": search() })).await;
    let (connection, _) = listener.accept().await.unwrap();
    let mut connection = BufReader::new(connection);
    let asked = read_body(&mut connection).await;
    assert!(asked.contains("refresh_token=first&"), "{asked}");
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "b" } });
    desktop.send(&cancelled).await;
    assert_eq!(desktop.ask("ping", &json!({})).await, json!({}), "what came before it was taken");

    let token = world.token("anne", RETRIEVE, &[]);
    let renewed =
        json!({ "access_token": token, "token_type": "Bearer", "expires_in": 300, "refresh_token": "second" });
    let renewed = renewed.to_string();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", renewed.len());
    connection.write_all(format!("{head}{renewed}").as_bytes()).await.unwrap();
    // Nobody answers another question for a token.
    assert_eq!(found(&desktop.search().await), ids(&ANNES));
    assert!(fs::read_to_string(file).unwrap().contains("\"second\""));
    assert!(desktop.end().await);
}
