//! Values for conditions that requests state, through a real server: who may state which, and that no cache and no page
//! token carries an answer from one context into another. A real OpenFGA decides, too, if there is one.

use ragward::config::AuthorizerKind;
use ragward::identity::DelegationOn;
use ragward::identity::config::{ClaimContext, DelegationConfig, RequestContextKey, SettableBy};
use ragward::language::Relation;
use ragward::proto::ingest::UpsertDocumentsRequest;
use ragward::proto::retrieval::{RecheckRequest, RetrieveRequest};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::identity::delegation::acted;
use crate::identity::rpcs::records;
use crate::identity::tenant_claims::load_store;
use crate::identity::world::{RETRIEVE, about_leave, identity, with_token};
use crate::support::documents::document;
use crate::support::issuer::{SigningKey, TestIssuer};
use crate::support::openfga::OpenFga;
use crate::support::running::{Running, config};

/// Everybody may read `note:plain`. The others ask for a purpose, and for the tenant of their owner.
const STORE: &str = "
model: |
  model
    schema 1.1
  type agent
  type user
    relations
      define can_act_for: [agent]
  type note
    relations
      define can_read: [user:*, user:* with for_purpose]
  condition for_purpose(purpose: string, tenant: string, needed: string, owner: string) {
    purpose == needed && tenant == owner
  }
tuples:
  - { user: 'agent:helper', relation: can_act_for, object: 'user:anne' }
  - { user: 'user:*', relation: can_read, object: 'note:plain' }
  - user: 'user:*'
    relation: can_read
    object: 'note:one'
    condition: { name: for_purpose, context: { needed: reviewing, owner: acme } }
  - user: 'user:*'
    relation: can_read
    object: 'note:two'
    condition: { name: for_purpose, context: { needed: treating, owner: acme } }
  - user: 'user:*'
    relation: can_read
    object: 'note:three'
    condition: { name: for_purpose, context: { needed: reviewing, owner: globex } }
";
const NOTES: [&str; 4] = ["note:plain", "note:one", "note:two", "note:three"];
const PIPELINE: &str = "ragward:retrieve ragward:assert_user";

struct World {
    key: SigningKey,
    issuer: TestIssuer,
    running: Running,
    data: tempfile::TempDir,
}

impl World {
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
        let relation = Some(Relation::parse("can_act_for").unwrap());
        config.identity.delegation = DelegationConfig { relation, on: DelegationOn::User };
        let tenant = || "tenant".to_owned();
        config.identity.claim_context = vec![ClaimContext { claim: tenant(), parameter: tenant(), absent: None }];
        let listed = |parameter: &str, settable_by| RequestContextKey { parameter: parameter.to_owned(), settable_by };
        config.identity.request_context =
            vec![listed("purpose", SettableBy::Unbounded), listed("ip", SettableBy::Everyone)];
        let running = Running::start(&config).await;
        let messages = NOTES.map(|note| UpsertDocumentsRequest {
            collection: "handbook".to_owned(),
            document: Some(document(note, &["about leave"])),
        });
        let local = running.app.in_process().unwrap();
        local.client().ingest().upsert_documents(tokio_stream::iter(messages)).await.unwrap();
        Self { key, issuer, running, data }
    }

    fn token(&self, subject: &str, scope: &str, more: &[(&str, Value)]) -> String {
        let mut claims = self.issuer.claims(subject, scope);
        for (name, value) in more {
            claims[*name] = value.clone();
        }
        self.key.sign(&claims)
    }

    /// Returns the guards of the chunks that are seen.
    async fn seen(&self, request: RetrieveRequest, token: &str) -> Result<String, Status> {
        let answer = self.running.client.retrieval().retrieve(with_token(request, token)).await?.into_inner();
        let mut guards: Vec<&str> = answer.chunks.iter().map(|chunk| chunk.guard.as_str()).collect();
        guards.sort_unstable();
        Ok(guards.join(" "))
    }
}

fn about_leave_in(user: &str, context: &Value) -> RetrieveRequest {
    RetrieveRequest { context: Some(serde_json::from_value(context.clone()).unwrap()), ..about_leave(user) }
}

async fn check_callers(world: &World) {
    const INVALID: Result<&str, Code> = Err(Code::InvalidArgument);
    let acme = ("tenant", json!("acme"));
    let user = world.token("anne", RETRIEVE, std::slice::from_ref(&acme));
    let of_no_tenant = world.token("anne", RETRIEVE, &[]);
    let of_null = world.token("anne", RETRIEVE, &[("tenant", json!(null))]);
    let agent = world.token("anne", RETRIEVE, &[acme.clone(), acted("helper")]);
    let narrowed = json!([{ "type": "ragward_retrieval" }]);
    let narrowed = world.token("anne", RETRIEVE, &[acme.clone(), ("authorization_details", narrowed)]);
    let pipeline = world.token("pipeline", PIPELINE, &[("client_id", json!("pipeline")), acme]);
    let reviewing = || json!({ "purpose": "reviewing" });
    let rows = [
        ("a user without a context", &user, "", json!({}), Ok("note:plain")),
        ("a user with one purpose", &user, "", reviewing(), Ok("note:one note:plain")),
        ("a user with the other purpose", &user, "", json!({ "purpose": "treating" }), Ok("note:plain note:two")),
        ("a user with the first purpose again", &user, "", reviewing(), Ok("note:one note:plain")),
        ("an unknown purpose", &user, "", json!({ "purpose": "selling" }), Ok("note:plain")),
        ("a purpose of a wrong type", &user, "", json!({ "purpose": 7 }), Ok("note:plain")),
        ("both listed parameters", &user, "", json!({ "purpose": "reviewing", "ip": "1" }), Ok("note:one note:plain")),
        ("a tenant beside the claim", &user, "", json!({ "tenant": "globex" }), INVALID),
        ("the claim's own tenant", &user, "", json!({ "tenant": "acme" }), INVALID),
        ("a tenant in place of the claim", &of_no_tenant, "", json!({ "tenant": "acme" }), INVALID),
        ("a tenant in place of a null claim", &of_null, "", json!({ "tenant": "acme" }), Err(Code::Unauthenticated)),
        ("a purpose with a null claim", &of_null, "", reviewing(), Err(Code::Unauthenticated)),
        ("a purpose without a tenant", &of_no_tenant, "", reviewing(), Ok("note:plain")),
        ("the time", &user, "", json!({ "now": "2026-01-01T00:00:00Z" }), INVALID),
        ("the address", &user, "", json!({ "client_ip": "10.0.0.1" }), INVALID),
        ("a parameter of the tuples", &user, "", json!({ "owner": "acme" }), INVALID),
        ("an agent without a context", &agent, "", json!({}), Ok("note:plain")),
        ("an agent with a purpose", &agent, "", reviewing(), INVALID),
        ("an agent with an address", &agent, "", json!({ "ip": "10.0.0.1" }), Ok("note:plain")),
        ("a narrowed token with a purpose", &narrowed, "", reviewing(), INVALID),
        ("a narrowed token with an address", &narrowed, "", json!({ "ip": "10.0.0.1" }), Ok("note:plain")),
        ("a pipeline for a user", &pipeline, "user:anne", reviewing(), Ok("note:one note:plain")),
        ("a pipeline with a tenant", &pipeline, "user:anne", json!({ "tenant": "globex" }), INVALID),
    ];
    for (row, token, user, context, expected) in rows {
        let found = world.seen(about_leave_in(user, &context), token).await;
        let code = found.as_ref().map(String::as_str).map_err(Status::code);
        assert_eq!(code, expected, "{row}: {found:?}");
        if let Err(status) = found
            && status.code() == Code::InvalidArgument
        {
            let name = context.as_object().unwrap().keys().next().unwrap();
            assert!(status.message().contains(&format!("context: has `{name}`")), "{row}: {status:?}");
        }
        let recheck = RecheckRequest {
            user: user.to_owned(),
            collection: "handbook".to_owned(),
            chunk_ids: NOTES.map(|note| format!("{note}#0")).to_vec(),
            context: Some(serde_json::from_value(context).unwrap()),
            ..RecheckRequest::default()
        };
        let kept = world.running.client.retrieval().recheck(with_token(recheck, token)).await;
        let kept = kept.map_err(|status| status.code()).map(|kept| {
            let mut ids = kept.into_inner().chunk_ids;
            ids.sort_unstable();
            ids.join(" ").replace("#0", "")
        });
        assert_eq!(kept.as_deref(), expected.as_deref(), "{row}: rechecked");
    }
}

async fn check_pages(world: &World) {
    let token = world.token("anne", RETRIEVE, &[("tenant", json!("acme"))]);
    let page = |context: &Value, page_token: &str| {
        let page_token = Some(page_token.to_owned());
        with_token(RetrieveRequest { top_k: 1, page_token, ..about_leave_in("", context) }, &token)
    };
    let retrieval = || world.running.client.retrieval();
    let reviewing = json!({ "purpose": "reviewing" });
    let first = retrieval().retrieve(page(&reviewing, "")).await.unwrap().into_inner();
    assert_ne!(first.next_page_token, "");
    let rows = [
        ("the same context", reviewing.clone(), true),
        ("another purpose", json!({ "purpose": "treating" }), false),
        ("no context", json!({}), false),
        ("one more parameter", json!({ "purpose": "reviewing", "ip": "1" }), false),
        ("the same context again", reviewing, true),
    ];
    for (row, context, fits) in rows {
        let second = retrieval().retrieve(page(&context, &first.next_page_token)).await;
        let code = second.as_ref().err().map(Status::code);
        assert_eq!(code, (!fits).then_some(Code::InvalidArgument), "{row}: {second:?}");
    }
}

#[tokio::test]
async fn a_request_states_what_it_may() {
    let world = World::start(None).await;
    check_callers(&world).await;
    check_pages(&world).await;
    let World { running, data, .. } = world;
    running.stop().await.unwrap();
    let records = records(data.path());
    let keys = |record: &ragward::audit::Record| record.request.as_ref().map(|request| request.context_keys.clone());
    let recorded: Vec<Vec<String>> = records.iter().filter_map(keys).collect();
    let rows: [&[&str]; 4] = [&[], &["purpose"], &["ip"], &["ip", "purpose"]];
    for expected in rows {
        assert!(recorded.iter().any(|keys| keys == expected), "{expected:?}: {recorded:?}");
    }
    let told = format!("{records:?}");
    for value in ["reviewing", "treating", "selling", "10.0.0.1"] {
        assert!(!told.contains(value), "the value `{value}` is recorded");
    }
}

#[tokio::test]
async fn a_request_states_what_it_may_to_openfga_too() {
    let Some(openfga) = OpenFga::start().await else { return };
    let world = World::start(Some(&openfga)).await;
    check_callers(&world).await;
    check_pages(&world).await;
}
