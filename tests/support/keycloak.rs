//! A real Keycloak for a test: in memory, on a free port of loopback, ended with all its processes when the value is dropped.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::support::http::{Call, Reply};
use crate::support::openfga::variable;

/// The variable that names the folder of an unpacked distribution. Its `bin/kc.sh` needs Java 17 or later on the PATH.
const HOME: &str = "KEYCLOAK_HOME";
/// The first start prepares the distribution for its database. On two cores, a start takes half a minute.
const START_TIMEOUT: Duration = Duration::from_mins(10);
/// The words that the server logs once it listens.
const LISTENING: &str = "Listening on:";
/// The option that names where Keycloak has a person's device asked.
const DEVICES: &str = "--spi-ciba-auth-channel-ciba-http-auth-channel-http-authentication-channel-uri";
const ADMIN: &str = "admin";
/// The realm of the tests.
pub(crate) const REALM: &str = "acme";

/// A running server with one realm.
pub(crate) struct Keycloak {
    pub(crate) address: String,
    /// The questions to people, in their order.
    questions: UnboundedReceiver<Question>,
    process: Child,
    _data: tempfile::TempDir,
}

/// A question that a person's device is asked to show.
pub(crate) struct Question {
    pub(crate) login_hint: String,
    pub(crate) binding_message: String,
    /// The token by which the device answers.
    bearer: String,
}

impl Keycloak {
    /// Starts a server. If the caller names none, this says so and returns `None`; with `CI` set, it panics.
    pub(crate) async fn start() -> Option<Self> {
        let Some(home) = variable(HOME).map(PathBuf::from) else {
            assert!(variable("CI").is_none(), "CI must run the live tests: put the folder of Keycloak into {HOME}");
            drop(writeln!(std::io::stderr(), "skipped: {HOME} names no Keycloak"));
            return None;
        };
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
        let devices = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let data = tempfile::tempdir().expect("a folder");
        let devices_url = format!("http://{}/ask", devices.local_addr().expect("its address"));
        let process = start(&home, data.path(), free.port(), &devices_url);
        let (asked, questions) = unbounded_channel();
        tokio::spawn(serve_devices(devices, asked));
        // From here on, a panic ends the server, too.
        let mut keycloak = Self { address: free.to_string(), questions, process, _data: data };
        keycloak.listens().await;
        Some(keycloak)
    }

    pub(crate) fn issuer(&self) -> String {
        format!("http://{}/realms/{REALM}", self.address)
    }

    pub(crate) fn token_endpoint(&self) -> String {
        format!("{}/protocol/openid-connect/token", self.issuer())
    }

    /// Makes something with the API of administrators, at a path below `/admin/realms`.
    pub(crate) async fn make(&self, path: &str, what: &Value) {
        let form = [("grant_type", "password"), ("client_id", "admin-cli"), ("username", ADMIN), ("password", ADMIN)];
        // A token of the administrator lives for a minute, and its rights are those of before the realm was made.
        let reply = post(&self.address, "/realms/master/protocol/openid-connect/token", &form, &[]).await;
        let answer = reply.json();
        let token = answer["access_token"].as_str().expect("a token of the administrator");
        let reply = Call::json(&format!("/admin/realms{path}"), what).bearer(token).send(&self.address).await;
        assert_eq!(reply.status, 201, "{path}: {}", reply.text());
    }

    /// Asks for tokens, and returns the whole answer.
    pub(crate) async fn tokens(&self, form: &[(&str, &str)]) -> Value {
        self.tokens_with(form, &[]).await
    }

    /// Like [`Self::tokens`], with more headers.
    pub(crate) async fn tokens_with(&self, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Value {
        let path = format!("/realms/{REALM}/protocol/openid-connect/token");
        let reply = post(&self.address, &path, form, headers).await;
        assert_eq!(reply.status, 200, "{form:?}: {}", reply.text());
        reply.json()
    }

    /// Returns the next question to a person.
    pub(crate) async fn question(&mut self) -> Question {
        self.questions.recv().await.expect("a question")
    }

    /// Answers a question as the person's device does: `SUCCEED`, `UNAUTHORIZED` or `CANCELLED`.
    pub(crate) async fn answer(&self, question: &Question, status: &str) {
        let path = format!("/realms/{REALM}/protocol/openid-connect/ext/ciba/auth/callback");
        let call = Call::json(&path, &json!({ "status": status })).bearer(&question.bearer);
        let reply = call.send(&self.address).await;
        assert_eq!(reply.status, 200, "{status}: {}", reply.text());
    }

    /// Logs a person in on the page at an address, as a browser does. Returns the address that the browser is sent to.
    pub(crate) async fn log_in(&self, page: &str, user: &str, password: &str) -> String {
        let page = Call::new("GET", self.path(page)).send(&self.address).await;
        let text = page.text();
        let form = text.split_once("<form").and_then(|(_, form)| form.split_once("action=\""));
        let action = form.and_then(|(_, action)| action.split_once('"'));
        let (action, _) = action.unwrap_or_else(|| panic!("a form, not {} {text}", page.status));
        let action = action.replace("&amp;", "&");
        let cookies = page.headers.iter().filter(|(name, _)| name == "set-cookie");
        let cookies: Vec<&str> = cookies.filter_map(|(_, cookie)| cookie.split(';').next()).collect();
        let cookies = cookies.join("; ");
        let form = [("username", user), ("password", password)];
        let reply = post(&self.address, self.path(&action), &form, &[("cookie", cookies.as_str())]).await;
        assert_eq!(reply.status, 302, "{}", reply.text());
        reply.header("location").expect("an address").to_owned()
    }

    /// Returns the path of an address of this server.
    fn path<'u>(&self, url: &'u str) -> &'u str {
        let path = url.strip_prefix("http://").and_then(|rest| rest.strip_prefix(&self.address));
        path.unwrap_or_else(|| panic!("`{url}` is not at {}", self.address))
    }

    /// Waits until the server listens.
    async fn listens(&mut self) {
        let mut log = BufReader::new(self.process.stdout.take().expect("a pipe")).lines();
        let listening = async {
            let mut last = String::new();
            while let Ok(Some(line)) = log.next_line().await {
                if line.contains(LISTENING) {
                    return Ok(());
                }
                last = line;
            }
            Err(last)
        };
        let listening = timeout(START_TIMEOUT, listening).await.expect("Keycloak did not start in time");
        listening.unwrap_or_else(|last| panic!("Keycloak ended: {last}"));
        // The server would wait for a full pipe. This ends with the process.
        tokio::spawn(async move { while let Ok(Some(_line)) = log.next_line().await {} });
    }
}

impl Drop for Keycloak {
    fn drop(&mut self) {
        // The server is a child of `kc.sh`, so the whole group ends. Nobody could be told of an error here.
        if let Some(id) = self.process.id() {
            drop(std::process::Command::new("kill").args(["-KILL", "--", &format!("-{id}")]).status());
        }
    }
}

fn start(home: &Path, data: &Path, port: u16, devices_url: &str) -> Child {
    let data = data.display();
    Command::new(home.join("bin/kc.sh"))
        .args(["start-dev", "--db=dev-mem", "--http-host=127.0.0.1"])
        .args([format!("--http-port={port}"), format!("{DEVICES}={devices_url}")])
        .env("KC_BOOTSTRAP_ADMIN_USERNAME", ADMIN)
        .env("KC_BOOTSTRAP_ADMIN_PASSWORD", ADMIN)
        .env(
            "JAVA_OPTS_APPEND",
            format!("-Djava.io.tmpdir={data} -Dquarkus.transaction-manager.object-store.directory={data}/transactions"),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("the server's process")
}

/// Asks Keycloak about a token, as the server that the token is meant for (RFC 7662).
pub(crate) async fn introspected(address: &str, client: &str, secret: &str, token: &str) -> Value {
    let path = format!("/realms/{REALM}/protocol/openid-connect/token/introspect");
    post(address, &path, &[("client_id", client), ("client_secret", secret), ("token", token)], &[]).await.json()
}

async fn post(address: &str, path: &str, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Reply {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let form: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let mut call = Call::new("POST", path).with("content-type", "application/x-www-form-urlencoded");
    for (name, value) in headers {
        call = call.with(name, *value);
    }
    call.body(form.join("&")).send(address).await
}

/// Takes questions in place of people's devices.
async fn serve_devices(listener: TcpListener, asked: UnboundedSender<Question>) {
    while let Ok((mut connection, _)) = listener.accept().await {
        let question = read_question(&mut connection).await;
        // The test may have ended.
        if question.is_some_and(|question| asked.send(question).is_err()) {
            return;
        }
    }
}

async fn read_question(connection: &mut TcpStream) -> Option<Question> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let header = |name: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let mut body = vec![0; header("content-length")?.parse().ok()?];
    connection.read_exact(&mut body).await.ok()?;
    let answer = b"HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    connection.write_all(answer).await.ok()?;
    let asked: Value = serde_json::from_slice(&body).ok()?;
    let text = |name: &str| asked[name].as_str().map(str::to_owned);
    let bearer = header("authorization")?.strip_prefix("Bearer ")?.to_owned();
    Some(Question { login_hint: text("login_hint")?, binding_message: text("binding_message")?, bearer })
}

/// Returns a client of the realm with the default scopes and those that it may ask for.
pub(crate) fn client(id: &str, scopes: &[&str], more: &Value) -> Value {
    let mut client = json!({
        "clientId": id, "enabled": true, "protocol": "openid-connect", "standardFlowEnabled": false, "fullScopeAllowed": true,
        "defaultClientScopes": ["basic", "acr", "roles", "profile", "email", "web-origins"], "optionalClientScopes": scopes,
    });
    for (name, value) in more.as_object().expect("an object") {
        client[name.as_str()] = value.clone();
    }
    client
}
