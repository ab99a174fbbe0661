//! `ragward serve` as its operator would start it: with tokens, metrics and the record, over a few documents.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ragward::audit::{AuditKey, Event, Record, read_log};
use ragward::config::Config;
use ragward::identity::config::{IdentityConfig, IssuerConfig, PeopleConfig};
use ragward::language::{RelationshipTuple, dsl};
use serde_json::json;

use crate::support::documents::document;
use crate::support::held_port::HeldPort;
use crate::support::http::{Call, Reply};
use crate::support::issuer::{AUDIENCE, HttpAnswer, SigningKey, TestIssuer};
use crate::support::running::{Running, config};
use crate::support::served::Served;

pub(crate) const COLLECTION: &str = "handbook";

pub(crate) const MODEL: &str = "
model
  schema 1.1

type user

type document
  relations
    define reader: [user]
    define can_read: reader
";

/// The readers of each document.
const READERS: [(&str, &str); 2] = [("user:anne", "document:welcome"), ("user:bob", "document:salaries")];

/// The number of calls with these labels, as the metrics tell it.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) rpc: String,
    pub(crate) code: String,
    pub(crate) door: String,
    pub(crate) count: usize,
}

pub(crate) struct World {
    pub(crate) address: String,
    pub(crate) metrics: HeldPort,
    pub(crate) served: Served,
    data: PathBuf,
    key: SigningKey,
    issuer: TestIssuer,
    _directory: tempfile::TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Like [`Self::start`], with other settings.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_at("127.0.0.1:0", change).await
    }

    /// Like [`Self::start_with`], at an address.
    pub(crate) async fn start_at(listen: &str, change: impl FnOnce(&mut Config)) -> Self {
        let key = SigningKey::es256("key");
        let issuer = TestIssuer::start(&[&key]).await;
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        prepare(&data).await;
        // The exporter does not take port 0, which means any free port.
        let metrics = HeldPort::new();
        let mut settings = config(&data);
        settings.server.insecure_identity = false;
        settings.identity = identity(&issuer);
        settings.telemetry.metrics_listen = Some(metrics.address);
        change(&mut settings);
        let file = directory.path().join("ragward.toml");
        std::fs::write(&file, toml::to_string(&settings).unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
        command.arg("--config").arg(file).args(["serve", "--listen", listen]).stdin(Stdio::null());
        let served = Served::start(command);
        Self { address: served.address.clone(), metrics, served, data, key, issuer, _directory: directory }
    }

    pub(crate) fn token(&self, subject: &str, scope: &str) -> String {
        self.key.sign(&self.issuer.claims(subject, scope))
    }

    /// Returns a token for another audience than the server's own.
    pub(crate) fn token_for(&self, audience: &serde_json::Value, subject: &str, scope: &str) -> String {
        let mut claims = self.issuer.claims(subject, scope);
        claims["aud"] = audience.clone();
        self.key.sign(&claims)
    }

    /// Lets the issuer ask people, and lets this one approve whatever is asked.
    pub(crate) fn approves_all(&self, subject: &str, scope: &str) {
        self.issuer.serve_backchannel("/ask", "/token");
        let asked = json!({ "auth_req_id": "question", "expires_in": 120, "interval": 1 });
        self.issuer.set("/ask", HttpAnswer::Json(asked));
        let given = json!({ "access_token": self.token(subject, scope), "token_type": "Bearer" });
        self.issuer.set("/token", HttpAnswer::Json(given));
    }

    pub(crate) async fn send(&self, call: &Call) -> Reply {
        call.send(&self.address).await
    }

    /// Returns how many calls were answered, by RPC, code and door.
    pub(crate) async fn counted(&self) -> Vec<Counted> {
        let metrics = Call::new("GET", "/metrics").send(&self.metrics.address.to_string()).await.text();
        let counted = metrics.lines().filter_map(|line| {
            let (labels, count) = line.strip_prefix("ragward_requests_total{rpc=\"")?.split_once("\"} ")?;
            let (rpc, labels) = labels.split_once("\",code=\"")?;
            let (code, door) = labels.split_once("\",door=\"")?;
            let [rpc, code, door] = [rpc, code, door].map(str::to_owned);
            Some(Counted { rpc, code, door, count: count.parse().ok()? })
        });
        counted.collect()
    }

    /// Stops the server and returns the records of all calls, in their order.
    pub(crate) async fn stop(self) -> Vec<Record> {
        self.served.stop().await;
        records(&self.data)
    }
}

fn identity(issuer: &TestIssuer) -> IdentityConfig {
    let people = PeopleConfig { clients_alone: true, clients: vec!["assistant".to_owned()], ..PeopleConfig::default() };
    let issuer = IssuerConfig { people, ..IssuerConfig::new(&issuer.url) };
    IdentityConfig { audience: Some(AUDIENCE.to_owned()), issuers: vec![issuer], ..IdentityConfig::default() }
}

/// Fills a data folder with two documents, and with who may read each.
pub(super) async fn prepare(data: &Path) {
    let mut settings = config(data);
    // The record of the server under test holds its own calls alone.
    settings.audit.enabled = false;
    let running = Running::start(&settings).await;
    let tuples = READERS.map(|(user, object)| RelationshipTuple::parse(user, "reader", object).unwrap());
    running.load(dsl::load(MODEL).unwrap(), tuples.to_vec());
    let documents = READERS.map(|(_, id)| document(id, &["about leave", "more about leave"]));
    running.upsert(COLLECTION, documents.to_vec()).await.unwrap();
    running.stop().await.unwrap();
}

pub(super) fn records(data: &Path) -> Vec<Record> {
    let key = AuditKey::read(&data.join("audit.key")).unwrap();
    let mut records = Vec::new();
    let report = read_log(&data.join("audit"), &key, |_, _, entry| {
        if let Event::Record(record) = &entry.event {
            records.push((**record).clone());
        }
    });
    assert!(report.unwrap().is_intact());
    records
}
