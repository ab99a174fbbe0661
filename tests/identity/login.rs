//! `ragward login` at a provider that others wrote: a person logs in with a browser and by device, and commands ask as them.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::identity::mcp::Desktop;
use crate::identity::provider::{AUDIENCE, Served, ragward};
use crate::support::chromium::chromium;
use crate::support::provider::Provider;

const RETRIEVE: [&str; 4] = ["retrieve", "--collection", "handbook", "the leave pay release budget"];

/// The person's machine: commands there share a folder of states and no token of the environment.
pub(crate) struct Machine<'a> {
    pub(crate) states: tempfile::TempDir,
    pub(crate) server: &'a str,
}

impl Machine<'_> {
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = ragward();
        for name in ["RAGWARD_TOKEN", "RAGWARD_SERVER", "RAGWARD_CA_FILE"] {
            command.env_remove(name);
        }
        command.args(arguments).args(["--server", self.server]).env("XDG_STATE_HOME", self.states.path());
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.unwrap()
    }

    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--output", "json"]].concat()).await;
        assert!(output.status.success(), "{arguments:?}: {}", told(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

pub(crate) fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A `ragward login` that waits for the person.
pub(crate) struct Waiting {
    process: Child,
    told: Lines<BufReader<ChildStderr>>,
}

impl Waiting {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let told = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, told }
    }

    /// Returns the next indented line, which is for the person.
    pub(crate) async fn shown(&mut self) -> String {
        loop {
            let line = self.told.next_line().await.unwrap().expect("the login ended");
            if let Some(shown) = line.strip_prefix("    ") {
                return shown.to_owned();
            }
        }
    }

    /// Waits for the end. The output has what was not shown yet.
    pub(crate) async fn output(self) -> Output {
        let Self { process, mut told } = self;
        let rest = async {
            let mut rest = String::new();
            while let Some(line) = told.next_line().await.unwrap() {
                rest.push_str(&line);
                rest.push('\n');
            }
            rest
        };
        let (output, rest) = tokio::join!(process.wait_with_output(), rest);
        Output { stderr: rest.into_bytes(), ..output.unwrap() }
    }
}

/// Returns the text of all files in a folder and those below.
fn texts(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { texts(&path) } else { std::fs::read_to_string(path).unwrap() }).collect()
}

#[tokio::test]
async fn a_person_logs_in_and_commands_ask_as_that_person() {
    let Some(mut provider) = Provider::start().await else { return };
    let served = Served::start(&provider.issuer).await;
    let machine = Machine { states: tempfile::tempdir().unwrap(), server: &served.address };
    let issuer = provider.issuer.clone();
    let login = ["login", "--issuer", &issuer, "--resource", AUDIENCE];

    let refused: [(&str, &[&str], i32, &str); 6] = [
        ("nobody is logged in", &["whoami"], 1, "nobody is logged in"),
        ("nobody asks", &RETRIEVE, 2, "log in with `ragward login`"),
        ("another name of the server", &["login", "--issuer", &issuer], 2, "`--resource`"),
        (
            "another issuer",
            &["login", "--issuer", "https://evil.example", "--resource", AUDIENCE],
            2,
            "takes no tokens of",
        ),
        (
            "a client that nobody registered",
            &["login", "--issuer", &issuer, "--resource", AUDIENCE, "--device", "--client-id", "nobody"],
            2,
            "`--client-id` or",
        ),
        ("an issuer that nobody confirmed", &["login", "--resource", AUDIENCE], 2, "say so with `--issuer"),
    ];
    for (name, arguments, code, part) in refused {
        let output = machine.run(arguments).await;
        assert_eq!(output.status.code(), Some(code), "{name}: {}", told(&output));
        assert!(told(&output).contains(part), "{name}: {}", told(&output));
    }

    let mut waiting = Waiting::start(machine.command(&login));
    let url = waiting.shown().await;
    assert_eq!(provider.token(json!({"flow": "open", "url": url, "user": "anne"})).await, "200");
    let output = waiting.output().await;
    assert!(output.status.success(), "{}", told(&output));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("subject: anne") && shown.contains("client:  ragward-cli"), "{shown}");

    // Each command renews the token, and the provider ends a login whose refresh token comes twice.
    for round in 0..3 {
        let (one, other) = tokio::join!(machine.json(&RETRIEVE), machine.json(&RETRIEVE));
        assert_eq!(one["chunks"], other["chunks"], "round {round}");
        let guards = one["chunks"].to_string();
        assert!(guards.contains("document:") && !guards.contains("document:pay-bands"), "round {round}: {guards}");
    }
    let mut desktop = Desktop::start(machine.command(&["mcp", "--stdio", "--collection", "handbook"]));
    for round in ["with the login", "with its next token"] {
        let found = desktop.search().await["structuredContent"]["results"].to_string();
        assert!(found.contains("document%3A") && !found.contains("document%3Apay-bands"), "{round}: {found}");
    }
    let who = machine.json(&["whoami"]).await;
    assert_eq!((&who["subject"], &who["renewable"]), (&json!("anne"), &json!(true)), "{who}");

    let kept: Value = {
        let logins = machine.states.path().join("ragward/logins");
        serde_json::from_str(&texts(&logins)).unwrap()
    };
    for secret in ["access_token", "refresh_token"] {
        let secret = kept[secret].as_str().unwrap();
        for text in [&shown, &who.to_string()] {
            assert!(!text.contains(secret), "{text}");
        }
    }

    others_read_no_token(machine.states.path()).await;
    // It trusts the same issuer for the same audience, so it would take the token.
    let second = Served::start(&provider.issuer).await;
    let elsewhere = Machine { states: machine.states, server: &second.address };
    let output = elsewhere.run(&RETRIEVE).await;
    assert_eq!(output.status.code(), Some(2), "a second server on another port: {}", told(&output));
    assert!(told(&output).contains("log in with `ragward login`"), "{}", told(&output));
    let machine = Machine { states: elsewhere.states, server: &served.address };

    let out = machine.json(&["logout"]).await;
    assert_eq!(out["revoked"], json!(true), "{out}");
    assert_eq!(machine.run(&RETRIEVE).await.status.code(), Some(2));
    let refused = desktop.search().await;
    assert!(refused["isError"] == true && refused.to_string().contains("log in with `ragward login`"), "{refused}");

    // The person logs in again on this machine, by the code of a device.
    let mut waiting = Waiting::start(machine.command(&[&login[..], &["--device"]].concat()));
    let (url, code) = (waiting.shown().await, waiting.shown().await);
    assert_eq!(provider.token(json!({"flow": "type", "url": url, "code": code})).await, "200");
    let output = waiting.output().await;
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(machine.json(&["whoami"]).await["subject"], "anne");
}

/// Reads the logins as another user of the machine, which only root can try.
async fn others_read_no_token(states: &Path) {
    let logins = states.join("ragward/logins");
    let mut entries = std::fs::read_dir(&logins).unwrap().map(|entry| entry.unwrap().path());
    let login = entries.find(|path| path.extension().is_some_and(|extension| extension == "json")).unwrap();
    let control = states.join("for everybody");
    std::fs::write(&control, "").unwrap();
    let open = |path: &Path, mode: u32| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    open(states, 0o755);
    open(&control, 0o644);
    let read = async |path: &Path| {
        let as_nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "cat"];
        let output = Command::new("setpriv").args(as_nobody).arg(path).output().await;
        output.is_ok_and(|output| output.status.success())
    };
    if !read(&control).await {
        drop(writeln!(std::io::stderr(), "skipped: to read as another user, be root and have `setpriv`"));
        return;
    }
    assert!(!read(&login).await, "the folders keep others out");
    for folder in [logins.as_path(), logins.parent().unwrap()] {
        open(folder, 0o755);
    }
    assert!(!read(&login).await, "the file does, too");
}

#[tokio::test]
async fn an_issuer_registers_the_program_that_nobody_named() {
    let Some(mut provider) = Provider::start().await else { return };
    let served = Served::start_with(&provider.issuer, None).await;
    let machine = Machine { states: tempfile::tempdir().unwrap(), server: &served.address };
    let issuer = provider.issuer.clone();
    let mut clients: Vec<String> = Vec::new();
    // A machine registers once, and again after a logout. A registration is for logins by browser and by device, at any port.
    let rows = [
        ("the first login", Way::Browser, "bob", 1),
        ("another person", Way::Browser, "anne", 1),
        ("another way", Way::Device, "anne", 1),
        ("after a logout", Way::Browser, "bob", 2),
        ("after a logout, by device", Way::Device, "anne", 3),
    ];
    for (row, way, user, clients_expected) in rows {
        if clients_expected > clients.len() && !clients.is_empty() {
            assert_eq!(machine.json(&["logout"]).await["revoked"], json!(true), "{row}");
        }
        let login = ["login", "--issuer", &issuer, "--resource", AUDIENCE];
        let (arguments, flow) = match way {
            Way::Browser => (login.to_vec(), "open"),
            Way::Device => ([&login[..], &["--device"]].concat(), "type"),
        };
        let mut waiting = Waiting::start(machine.command(&arguments));
        let mut visit = json!({"flow": flow, "url": waiting.shown().await, "user": user});
        if way == Way::Device {
            visit["code"] = json!(waiting.shown().await);
        }
        assert_eq!(provider.token(visit).await, "200", "{row}");
        let output = waiting.output().await;
        assert!(output.status.success(), "{row}: {}", told(&output));

        let who = machine.json(&["whoami"]).await;
        assert_eq!((&who["subject"], &who["renewable"]), (&json!(user), &json!(true)), "{row}: {who}");
        let client = who["client_id"].as_str().unwrap().to_owned();
        if !clients.contains(&client) {
            clients.push(client);
        }
        assert_eq!(clients.len(), clients_expected, "{row}: {clients:?}");
        let chunks = machine.json(&RETRIEVE).await["chunks"].to_string();
        let is_bobs = chunks.contains("document:pay-bands") && !chunks.contains("document:on-call");
        assert_eq!(is_bobs, user == "bob", "{row}: {chunks}");
    }
}

/// The ways in which a person logs in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Browser,
    Device,
}

#[tokio::test]
async fn a_person_logs_in_in_a_real_browser() {
    let Some(chromium) = chromium("a login in a browser") else { return };
    let chromium = chromium.to_str().unwrap();
    let Some(mut provider) = Provider::start().await else { return };
    let served = Served::start(&provider.issuer).await;
    let machine = Machine { states: tempfile::tempdir().unwrap(), server: &served.address };
    let issuer = provider.issuer.clone();
    let login = ["login", "--issuer", &issuer, "--resource", AUDIENCE];
    let by_device = [&login[..], &["--device"]].concat();

    let mut waiting = Waiting::start(machine.command(&login));
    let url = waiting.shown().await;
    let visit = json!({"flow": "open", "url": url, "user": "bob", "chromium": chromium});
    assert_eq!(provider.token(visit).await, "200", "the page that the browser comes back to");
    let output = waiting.output().await;
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(machine.json(&["whoami"]).await["subject"], "bob");
    let chunks = machine.json(&RETRIEVE).await["chunks"].to_string();
    assert!(chunks.contains("document:pay-bands") && !chunks.contains("document:on-call"), "{chunks}");

    for (name, denies, subject) in [("the person denies", true, "bob"), ("the person confirms", false, "anne")] {
        let mut waiting = Waiting::start(machine.command(&by_device));
        let (url, code) = (waiting.shown().await, waiting.shown().await);
        let visit = json!({"flow": "type", "url": url, "code": code, "denies": denies, "chromium": chromium});
        provider.token(visit).await;
        let output = waiting.output().await;
        let is_denied = told(&output).contains("`access_denied`");
        assert_eq!((output.status.success(), is_denied), (!denies, denies), "{name}: {}", told(&output));
        assert_eq!(machine.json(&["whoami"]).await["subject"], subject, "{name}");
    }
}
