//! A real Keycloak for a test: in memory, on a free port of loopback, ended when the value is dropped.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::http::{Call, Reply};
use crate::support::openfga::variable;

/// The variable that names the folder of an unpacked distribution. Its `bin/kc.sh` needs Java 17 or later on the PATH.
const HOME: &str = "KEYCLOAK_HOME";
/// The first start prepares the distribution for its database. On two cores, both take a minute or two.
const START_TIMEOUT: Duration = Duration::from_mins(10);
/// The words that the server logs once it listens.
const LISTENING: &str = "Listening on:";
const ADMIN: &str = "admin";
/// The realm of the tests.
pub(crate) const REALM: &str = "acme";

/// A running server with one realm. Dropping it kills the process.
pub(crate) struct Keycloak {
    address: String,
    _process: Child,
}

impl Keycloak {
    /// Starts a server. If the caller names none, this says so and returns `None`.
    pub(crate) async fn start() -> Option<Self> {
        let Some(home) = variable(HOME).map(PathBuf::from) else {
            drop(writeln!(std::io::stderr(), "skipped: {HOME} names no Keycloak"));
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address").port();
        Some(Self { address: format!("127.0.0.1:{port}"), _process: start(&home, port).await })
    }

    pub(crate) fn issuer(&self) -> String {
        format!("http://{}/realms/{REALM}", self.address)
    }

    /// Makes something with the API of administrators, at a path below `/admin/realms`.
    pub(crate) async fn make(&self, path: &str, what: &Value) {
        let form = [("grant_type", "password"), ("client_id", "admin-cli"), ("username", ADMIN), ("password", ADMIN)];
        // A token of the administrator lives for a minute, and its rights are those of before the realm was made.
        let answer = self.tokens_of("master", &form).await;
        let token = answer["access_token"].as_str().expect("a token of the administrator");
        let reply = Call::json(&format!("/admin/realms{path}"), what).bearer(token).send(&self.address).await;
        assert_eq!(reply.status, 201, "{path}: {}", reply.text());
    }

    /// Asks for tokens, and returns the whole answer.
    pub(crate) async fn tokens(&self, form: &[(&str, &str)]) -> Value {
        self.tokens_of(REALM, form).await
    }

    async fn tokens_of(&self, realm: &str, form: &[(&str, &str)]) -> Value {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let form: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let path = format!("/realms/{realm}/protocol/openid-connect/token");
        let call = Call::new("POST", &path).with("content-type", "application/x-www-form-urlencoded");
        let reply: Reply = call.body(form.join("&")).send(&self.address).await;
        assert_eq!(reply.status, 200, "{form:?}: {}", reply.text());
        reply.json()
    }
}

async fn start(home: &Path, port: u16) -> Child {
    let mut process = Command::new(home.join("bin/kc.sh"))
        .args(["start-dev", "--db=dev-mem", "--http-host=127.0.0.1", &format!("--http-port={port}")])
        .env("KC_BOOTSTRAP_ADMIN_USERNAME", ADMIN)
        .env("KC_BOOTSTRAP_ADMIN_PASSWORD", ADMIN)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the server's process");
    let mut log = BufReader::new(process.stdout.take().expect("a pipe")).lines();
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
    process
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
