//! Several tenants in one collection. Only the token says which tenant a caller belongs to: as a relationship of one
//! request (`claim_tuples`), or as a value that conditions compare (`claim_context`). Every chunk is checked against
//! the caller's tenant, also by a real OpenFGA, if there is one.

use ragward::language::{Relation, TypeName};
use std::process::Command;

use ragward::config::{AuthorizerKind, Config};
use ragward::identity::config::{ClaimContext, ClaimTuple};
use ragward::proto::ingest::UpsertDocumentsRequest;
use ragward::proto::retrieval::{Filter, OneOf, RecheckRequest, RetrieveRequest, filter};
use serde_json::{Value, json};
use tonic::Code;

use crate::identity::world::{RETRIEVE, about_leave, identity, text_value, with_token};
use crate::support::documents::document;
use crate::support::issuer::{SigningKey, TestIssuer};
use crate::support::openfga::OpenFga;
use crate::support::running::{Running, config};

/// Members of its tenant may read a page. A condition decides who may read a note.
const STORE: &str = "
model: |
  model
    schema 1.1
  type user
  type tenant
    relations
      define member: [user]
  type page
    relations
      define tenant: [tenant]
      define reader: [user:*]
      define can_read: reader and member from tenant
  type note
    relations
      define can_read: [user:* with of_tenant]
  condition of_tenant(tenant: string, owner: string) {
    tenant == owner
  }
tuples:
  - { user: 'tenant:acme', relation: tenant, object: 'page:acme' }
  - { user: 'tenant:globex', relation: tenant, object: 'page:globex' }
  - { user: 'user:*', relation: reader, object: 'page:acme' }
  - { user: 'user:*', relation: reader, object: 'page:globex' }
  - user: 'user:*'
    relation: can_read
    object: 'note:acme'
    condition: { name: of_tenant, context: { owner: acme } }
  - user: 'user:*'
    relation: can_read
    object: 'note:globex'
    condition: { name: of_tenant, context: { owner: globex } }
";
const GUARDS: [&str; 4] = ["page:acme", "page:globex", "note:acme", "note:globex"];

struct Tenants {
    key: SigningKey,
    issuer: TestIssuer,
    running: Running,
    _data: tempfile::TempDir,
}

impl Tenants {
    async fn start(openfga: Option<&OpenFga>) -> Self {
        let key = SigningKey::es256("key");
        let issuer = TestIssuer::start(&[&key]).await;
        let data = tempfile::tempdir().unwrap();
        let mut config = config(data.path());
        if let Some(openfga) = openfga {
            config.authorizer.kind = AuthorizerKind::Openfga;
            config.authorizer.openfga.address = openfga.config("ragward").address;
        }
        load_store(&config, STORE);
        config.server.insecure_identity = false;
        config.identity = identity(&issuer);
        let tenant = || "tenant".to_owned();
        config.identity.claim_context = vec![ClaimContext { claim: tenant(), parameter: tenant(), absent: None }];
        config.identity.claim_tuples = vec![ClaimTuple {
            claim: tenant(),
            relation: Relation::parse("member").unwrap(),
            object_type: TypeName::parse("tenant").unwrap(),
            absent: None,
        }];
        let running = Running::start(&config).await;
        let messages = GUARDS.map(|guard| {
            let mut document = document(guard, &[&format!("about leave, canary of {guard}")]);
            let owner = guard.split(':').nth(1).unwrap();
            document.chunks[0].metadata.insert("owner".to_owned(), text_value(owner));
            UpsertDocumentsRequest { collection: "handbook".to_owned(), document: Some(document) }
        });
        running
            .app
            .in_process()
            .unwrap()
            .client()
            .ingest()
            .upsert_documents(tokio_stream::iter(messages))
            .await
            .unwrap();
        Self { key, issuer, running, _data: data }
    }

    fn token(&self, subject: &str, scope: &str, more: &[(&str, Value)]) -> String {
        let mut claims = self.issuer.claims(subject, scope);
        for (name, value) in more {
            claims[*name] = value.clone();
        }
        self.key.sign(&claims)
    }

    /// Returns the guards of the chunks that are seen, and checks that the answer holds nothing that it never may.
    async fn seen(&self, request: RetrieveRequest, token: &str) -> Result<String, Code> {
        let answer = self.running.client.retrieval().retrieve(with_token(request, token)).await;
        let answer = answer.map_err(|status| status.code())?.into_inner();
        let mut guards: Vec<&str> = answer.chunks.iter().map(|chunk| chunk.guard.as_str()).collect();
        guards.sort_unstable();
        let shown = format!("{answer:?}");
        for hidden in GUARDS.iter().filter(|guard| !guards.contains(guard)) {
            assert!(!shown.contains(hidden), "{hidden} is in {shown}");
        }
        Ok(guards.join(" "))
    }
}

/// Loads the store with the command, as an operator would.
pub(crate) fn load_store(config: &Config, store: &str) {
    let file = config.data.directory.join("store.fga.yaml");
    std::fs::write(&file, store).unwrap();
    let settings = config.data.directory.join("ragward.toml");
    std::fs::write(&settings, toml::to_string(config).unwrap()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ragward"));
    let output = command.args(["model", "load"]).arg(file).arg("--config").arg(settings).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn check(tenants: &Tenants) {
    let of = |tenant: Value| tenants.token("anne", RETRIEVE, &[("tenant", tenant)]);
    let rows = [
        (json!("acme"), Ok("note:acme page:acme")),
        (json!("globex"), Ok("note:globex page:globex")),
        (json!("ACME"), Ok("")),
        // A tuple that is left out could be one that forbids, so a refused name refuses the token.
        (json!("acme "), Err(Code::Unauthenticated)),
        (json!("*"), Err(Code::Unauthenticated)),
        (json!("acme#member"), Err(Code::Unauthenticated)),
        (json!("tenant:acme"), Err(Code::Unauthenticated)),
        (json!(""), Err(Code::Unauthenticated)),
        // A list gives memberships, but it is not a text that a condition could compare.
        (json!(["acme", "globex"]), Ok("page:acme page:globex")),
        (json!([]), Ok("")),
        (json!(7), Err(Code::Unauthenticated)),
        (json!({"acme": true}), Err(Code::Unauthenticated)),
        (json!(null), Err(Code::Unauthenticated)),
    ];
    for (tenant, expected) in rows {
        let found = tenants.seen(about_leave(""), &of(tenant.clone())).await;
        assert_eq!(found.as_deref(), expected.as_deref(), "{tenant}");
    }
    let nobodys = tenants.token("anne", RETRIEVE, &[]);
    assert_eq!(tenants.seen(about_leave(""), &nobodys).await.as_deref(), Ok(""));

    // Nothing in the request reaches another tenant: not a filter, not a known id, not a name.
    let acme = of(json!("acme"));
    let owner = OneOf { key: "owner".to_owned(), values: vec![text_value("globex")] };
    let of_globex = Filter { kind: Some(filter::Kind::OneOf(owner)) };
    let filtered = RetrieveRequest { filter: Some(of_globex), ..about_leave("") };
    assert_eq!(tenants.seen(filtered, &acme).await.as_deref(), Ok(""));
    let recheck = RecheckRequest {
        user: String::new(),
        collection: "handbook".to_owned(),
        chunk_ids: GUARDS.map(|guard| format!("{guard}#0")).to_vec(),
        ..RecheckRequest::default()
    };
    let kept = tenants.running.client.retrieval().recheck(with_token(recheck, &acme)).await.unwrap();
    assert_eq!(kept.into_inner().chunk_ids, ["page:acme#0", "note:acme#0"]);
    for other in ["user:bob", "tenant:globex", "tenant:globex#member"] {
        assert_eq!(tenants.seen(about_leave(other), &acme).await, Err(Code::PermissionDenied), "{other}");
    }
    // A pipeline names a user. Its own tenant bounds the call, and makes the user a member of nothing.
    let scope = "ragward:retrieve ragward:assert_user";
    let pipeline = tenants.token("pipeline", scope, &[("client_id", json!("pipeline")), ("tenant", json!("acme"))]);
    assert_eq!(tenants.seen(about_leave("user:anne"), &pipeline).await.as_deref(), Ok("note:acme"));
}

#[tokio::test]
async fn a_tenant_is_what_the_token_says() {
    check(&Tenants::start(None).await).await;
}

#[tokio::test]
async fn a_tenant_is_what_the_token_says_to_openfga_too() {
    let Some(openfga) = OpenFga::start().await else { return };
    check(&Tenants::start(Some(&openfga)).await).await;
}
