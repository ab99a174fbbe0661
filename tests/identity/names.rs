//! Names from the token to the tuple, and stored names in the percent-encoding of an older version.

use std::path::Path;
use std::process::{Command, Output};

use ragward::authz::openfga::OpenFgaStore;
use ragward::config::{AuthorizerKind, Config};
use ragward::identity::config::OldNamesPolicy;
use ragward::language::{RelationshipTuple, dsl, json};
use ragward::proto::ingest::UpsertDocumentsRequest;
use ragward::tuple_store::{OnConflict, RelationshipStores};
use serde_json::{Value, json};
use tonic::Code;

use crate::identity::world::{RETRIEVE, World, identity, seen};
use crate::support::documents::document;
use crate::support::issuer::{SigningKey, TestIssuer};
use crate::support::openfga::OpenFga;
use crate::support::running::{Running, config};

#[tokio::test]
async fn a_name_is_the_same_in_token_tuple_and_request() {
    let world = World::start(|_| {}).await;
    let scope = "ragward:retrieve ragward:assert_user";
    let pipeline = world.token("pipeline", scope, &[("client_id", json!("pipeline"))]);
    let (public, salaries) =
        (["document:welcome#0", "document:welcome#1"], ["document:salaries#0", "document:salaries#1"]);
    let both: Vec<&str> = salaries.iter().chain(&public).copied().collect();
    for name in
        ["auth0|65a1", "google-oauth2|1", "staff/anne", "/anne", "\u{e9}", "50%", "a%20b", "x@y.example", "~a+b"]
    {
        let user = format!("user:{name}");
        assert_eq!(world.seen(name, &[]).await.unwrap(), public, "{name}");
        world.running.write(vec![RelationshipTuple::parse(&user, "reader", "document:salaries").unwrap()]);
        assert_eq!(world.seen(name, &[]).await.unwrap(), both, "{name}");
        assert_eq!(seen(&world.running, &user, &pipeline).await.unwrap(), both, "{name}");
    }
    // Two spellings of one letter are two names.
    assert_eq!(world.seen("e\u{301}", &[]).await.unwrap(), public);
    for name in ["user:an ne", "user:a*b", "user:an\u{a0}ne", "user:an\u{3000}ne", "user:", "user:*", "anne"] {
        let status = seen(&world.running, name, &pipeline).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
    }
}

const MODEL: &str = "
model
  schema 1.1
type user
type document
  relations
    define banned: [user]
    define reader: [user:*]
    define can_read: reader but not banned
";

fn tuple(user: &str, relation: &str) -> RelationshipTuple {
    RelationshipTuple::parse(user, relation, "document:plan").unwrap()
}

fn ragward(arguments: &[&str], settings: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    command.args(arguments).arg("--config").arg(settings).env_remove("RUST_LOG").output().unwrap()
}

struct Upgrade {
    key: SigningKey,
    issuer: TestIssuer,
    config: Config,
    settings: std::path::PathBuf,
    _data: tempfile::TempDir,
}

impl Upgrade {
    async fn new(openfga: Option<&OpenFga>) -> Self {
        let key = SigningKey::es256("key");
        let issuer = TestIssuer::start(&[&key]).await;
        let data = tempfile::tempdir().unwrap();
        let mut config = config(data.path());
        config.server.insecure_identity = false;
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        config.identity = identity(&issuer);
        if let Some(openfga) = openfga {
            config.authorizer.kind = AuthorizerKind::Openfga;
            config.authorizer.openfga.address = openfga.config("ragward").address;
        }
        let settings = data.path().join("ragward.toml");
        std::fs::write(&settings, toml::to_string(&config).unwrap()).unwrap();
        Self { key, issuer, config, settings, _data: data }
    }

    /// Fills a store as a server of the older version left it.
    async fn store(&self, openfga: Option<&OpenFga>, tuples: Vec<RelationshipTuple>) {
        let model = dsl::load(MODEL).unwrap();
        let Some(openfga) = openfga else {
            let store = RelationshipStores::open(&self.config.data.directory).unwrap().default_store_or_new().unwrap();
            store.write_model(model).unwrap();
            store.write_all(tuples, OnConflict::Refuse).unwrap();
            return;
        };
        let store = OpenFgaStore::open(&openfga.config("ragward")).await.unwrap();
        store.write_model(serde_json::from_str(&json::print(model.source()).unwrap()).unwrap()).await.unwrap();
        store.write_tuples(&tuples).await.unwrap();
    }

    async fn start(&self) -> Running {
        let running = Running::start(&self.config).await;
        let message = UpsertDocumentsRequest {
            collection: "handbook".to_owned(),
            document: Some(document("document:plan", &["about leave"])),
        };
        running
            .app
            .in_process()
            .unwrap()
            .client()
            .ingest()
            .upsert_documents(tokio_stream::iter([message]))
            .await
            .unwrap();
        running
    }

    async fn seen(&self, running: &Running, subject: &str) -> usize {
        seen(running, "", &self.key.sign(&self.issuer.claims(subject, RETRIEVE))).await.unwrap().len()
    }
}

/// A ban that the old version wrote still bans after the upgrade. The server answers nothing until the ban names the
/// same user again.
async fn upgrade(openfga: Option<&OpenFga>) {
    let upgrade = Upgrade::new(openfga).await;
    let old = [tuple("user:auth0%7C65a1", "banned"), tuple("user:%C3%A9", "banned"), tuple("user:*", "reader")];
    upgrade.store(openfga, old.to_vec()).await;

    let refused = ragward(&["serve"], &upgrade.settings);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{text}");
    for part in
        ["2 stored tuples", "user:auth0%7C65a1", "user:auth0|65a1", "ragward names rewrite", "identity.old_names"]
    {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    let listed = ragward(&["--output", "json", "names", "check"], &upgrade.settings);
    let report: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((listed.status.code(), &report["found"], &report["rewritten"]), (Some(1), &json!(2), &json!(0)));
    assert_eq!(report["left"].as_array().unwrap().len(), 2, "{report}");

    let rewritten = ragward(&["--output", "json", "names", "rewrite"], &upgrade.settings);
    let report: Value = serde_json::from_slice(&rewritten.stdout).unwrap();
    assert_eq!((rewritten.status.code(), &report["rewritten"]), (Some(0), &json!(2)), "{report}");
    assert_eq!(ragward(&["names", "check"], &upgrade.settings).status.code(), Some(0));
    let running = upgrade.start().await;
    for (subject, expected) in [("auth0|65a1", 0), ("\u{e9}", 0), ("auth0|65a2", 1), ("auth0%7C65a1", 1)] {
        assert_eq!(upgrade.seen(&running, subject).await, expected, "{subject}");
    }
}

#[tokio::test]
async fn a_ban_by_the_old_version_still_bans() {
    upgrade(None).await;
}

#[tokio::test]
async fn a_ban_by_the_old_version_still_bans_in_openfga() {
    let Some(openfga) = OpenFga::start().await else { return };
    upgrade(Some(&openfga)).await;
}

#[tokio::test]
async fn old_names_may_be_meant() {
    let mut upgrade = Upgrade::new(None).await;
    upgrade.store(None, vec![tuple("user:a%7Cb", "banned"), tuple("user:*", "reader")]).await;
    upgrade.config.identity.old_names = OldNamesPolicy::Accept;
    let running = upgrade.start().await;
    assert_eq!(upgrade.seen(&running, "a%7Cb").await, 0);
    assert_eq!(upgrade.seen(&running, "a|b").await, 1);
}

/// A name that has no form today, or whose new form exists already, is reported and not changed.
#[tokio::test]
async fn what_cannot_be_rewritten_is_told() {
    let upgrade = Upgrade::new(None).await;
    let old = vec![tuple("user:Team%20A", "banned"), tuple("user:a%7Cb", "banned"), tuple("user:a|b", "banned")];
    upgrade.store(None, old).await;
    let output = ragward(&["--output", "json", "names", "rewrite"], &upgrade.settings);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["found"], &report["rewritten"]), (Some(1), &json!(2), &json!(1)));
    let left = &report["left"][0];
    assert_eq!(left["stored"], json!("user:Team%20A banned document:plan"));
    assert!(left["problem"].as_str().unwrap().contains("encode_subjects"), "{left}");
}
