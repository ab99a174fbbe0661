//! Tokens that lack a claim. If the model excludes people by that claim (`but not`), the token is refused. If it
//! excludes nobody by it, the user counts as one who *holds nothing*. If there is a real `OpenFGA`, it must give the
//! same results.

use ragward::config::AuthorizerKind;
use ragward::identity::config::{Absent, ClaimContext, ClaimTuple, IdentityConfig};
use ragward::language::validate::ValidModel;
use ragward::language::{Relation, RelationshipTuple, TypeName, dsl, json};
use ragward::proto::ingest::UpsertDocumentsRequest;
use serde_json::{Value, json};
use tonic::Code;

use crate::identity::world::{RETRIEVE, identity, seen};
use crate::support::documents::document;
use crate::support::issuer::{SigningKey, TestIssuer};
use crate::support::openfga::OpenFga;
use crate::support::running::{Running, config};

const TAKES_OUT: &str = "
model
  schema 1.1
type user
type group
  relations
    define member: [user]
type document
  relations
    define banned: [group#member]
    define reader: [user]
    define can_read: reader but not banned
";

/// A model that takes nobody out: it has no `but not`.
const LETS_IN: &str = "
model
  schema 1.1
type user
type group
  relations
    define member: [user]
type document
  relations
    define banned: [group#member]
    define reader: [user, group#member]
    define can_read: reader
";

const TUPLES: [(&str, &str, &str); 2] =
    [("user:anne", "reader", "document:plan"), ("group:/contractors#member", "banned", "document:plan")];
const SEEN: &[&str] = &["document:plan#0"];

struct Server {
    key: SigningKey,
    issuer: TestIssuer,
    running: Running,
    _data: tempfile::TempDir,
}

fn groups(absent: Option<Absent>) -> ClaimTuple {
    ClaimTuple {
        claim: "groups".to_owned(),
        relation: Relation::parse("member").unwrap(),
        object_type: TypeName::parse("group").unwrap(),
        absent,
    }
}

fn model(text: &str) -> ValidModel {
    dsl::load(text).unwrap()
}

fn tuples() -> Vec<RelationshipTuple> {
    TUPLES.map(|(user, relation, object)| RelationshipTuple::parse(user, relation, object).unwrap()).to_vec()
}

impl Server {
    async fn start(text: &str, openfga: Option<&OpenFga>, change: impl FnOnce(&mut IdentityConfig)) -> Self {
        let key = SigningKey::es256("key");
        let issuer = TestIssuer::start(&[&key]).await;
        let data = tempfile::tempdir().unwrap();
        let mut config = config(data.path());
        config.server.insecure_identity = false;
        config.identity = identity(&issuer);
        change(&mut config.identity);
        if let Some(openfga) = openfga {
            config.authorizer.kind = AuthorizerKind::Openfga;
            config.authorizer.openfga.address = openfga.config("ragward").address;
            let store = ragward::authz::openfga::OpenFgaStore::open(&openfga.config("ragward")).await.unwrap();
            store.write_model(in_json(text)).await.unwrap();
            store.write_tuples(&tuples()).await.unwrap();
        }
        let running = Running::start(&config).await;
        if openfga.is_none() {
            running.load(model(text), tuples());
        }
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
        Self { key, issuer, running, _data: data }
    }

    async fn seen(&self, user: &str, scope: &str, more: &Value) -> Result<Vec<String>, Code> {
        let mut claims = self.issuer.claims("anne", scope);
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        seen(&self.running, user, &self.key.sign(&claims)).await.map_err(|status| status.code())
    }
}

fn in_json(text: &str) -> Value {
    serde_json::from_str(&json::print(model(text).source()).unwrap()).unwrap()
}

/// The fate of a request: whether the document is seen, or an error if the token is refused.
type Fate = Result<bool, ()>;

/// Returns each token with its fate under the model that takes people out, and under the one that does not.
fn rows() -> Vec<(&'static str, Value, Fate, Fate)> {
    let refused = Err(());
    vec![
        ("no claim", json!({}), refused, Ok(true)),
        ("an empty list", json!({"groups": []}), refused, Ok(true)),
        ("null", json!({"groups": null}), refused, refused),
        ("an empty text", json!({"groups": ""}), refused, refused),
        ("a list with an empty text", json!({"groups": [""]}), refused, refused),
        ("a number", json!({"groups": 1}), refused, refused),
        ("a list of numbers", json!({"groups": [1]}), refused, refused),
        ("an object", json!({"groups": {"/contractors": true}}), refused, refused),
        ("another group", json!({"groups": ["/staff"]}), Ok(true), Ok(true)),
        ("another group as a text", json!({"groups": "/staff"}), Ok(true), Ok(true)),
        ("the group that is banned", json!({"groups": ["/staff", "/contractors"]}), Ok(false), Ok(true)),
        (
            "a distributed claim",
            json!({"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph.example"}}}),
            refused,
            refused,
        ),
        (
            "a distributed claim beside the claim",
            json!({"groups": ["/staff"], "_claim_names": {"groups": "src1"}}),
            refused,
            refused,
        ),
        (
            "an aggregated claim",
            json!({"groups": ["/staff"], "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"JWT": "e30.e30."}}}),
            refused,
            refused,
        ),
        (
            "another claim that is distributed",
            json!({"groups": ["/staff"], "_claim_names": {"address": "src1"}}),
            Ok(true),
            Ok(true),
        ),
        (
            "an actor that is distributed",
            json!({"groups": ["/staff"], "_claim_names": {"act": "src1"}}),
            refused,
            refused,
        ),
        (
            "details that are distributed",
            json!({"groups": ["/staff"], "_claim_names": {"authorization_details": "s"}}),
            refused,
            refused,
        ),
        ("sources without names", json!({"groups": ["/staff"], "_claim_sources": {"src1": {}}}), refused, refused),
        ("names that are a text", json!({"groups": ["/staff"], "_claim_names": "groups"}), refused, refused),
        ("names that are a list", json!({"groups": ["/staff"], "_claim_names": ["groups"]}), refused, refused),
        ("too many groups", json!({"hasgroups": true}), refused, refused),
        ("too many groups, as a text", json!({"hasgroups": "true", "groups": ["/staff"]}), refused, refused),
        ("not too many groups", json!({"hasgroups": false, "groups": ["/staff"]}), Ok(true), Ok(true)),
        (
            "the address of the groups",
            json!({"groups:src1": "https://graph.example", "groups": ["/staff"]}),
            refused,
            refused,
        ),
    ]
}

async fn check(authorizer: AuthorizerKind) {
    for (name, text) in [("takes out", TAKES_OUT), ("lets in", LETS_IN)] {
        let server = match authorizer {
            AuthorizerKind::Embedded => None,
            AuthorizerKind::Openfga => {
                let Some(server) = OpenFga::start().await else { return };
                Some(server)
            }
        };
        let server = Server::start(text, server.as_ref(), |identity| identity.claim_tuples = vec![groups(None)]).await;
        for (row, claims, takes_out, lets_in) in rows() {
            let expected = if text == TAKES_OUT { takes_out } else { lets_in };
            let expected = match expected {
                Ok(is_seen) => Ok(if is_seen { SEEN } else { &[] }.iter().map(|id| (*id).to_owned()).collect()),
                Err(()) => Err(Code::Unauthenticated),
            };
            assert_eq!(server.seen("", RETRIEVE, &claims).await, expected, "{row}, a model that {name}");
        }
    }
}

#[tokio::test]
async fn what_is_not_told_lets_nobody_in() {
    check(AuthorizerKind::Embedded).await;
}

#[tokio::test]
async fn what_is_not_told_lets_nobody_in_before_openfga() {
    check(AuthorizerKind::Openfga).await;
}

#[tokio::test]
async fn the_operator_may_say_what_an_absent_claim_means() {
    let none = Server::start(TAKES_OUT, None, |i| i.claim_tuples = vec![groups(Some(Absent::None))]).await;
    let refuse = Server::start(LETS_IN, None, |i| i.claim_tuples = vec![groups(Some(Absent::Refuse))]).await;
    for claims in [json!({}), json!({"groups": []})] {
        assert_eq!(none.seen("", RETRIEVE, &claims).await, Ok(vec![SEEN[0].to_owned()]), "{claims}");
        assert_eq!(refuse.seen("", RETRIEVE, &claims).await, Err(Code::Unauthenticated), "{claims}");
    }
    let elsewhere = json!({"_claim_names": {"groups": "src1"}});
    assert_eq!(none.seen("", RETRIEVE, &elsewhere).await, Err(Code::Unauthenticated), "it is there, and not here");
}

/// The token of a pipeline does not tell the groups of the user whom the pipeline names.
#[tokio::test]
async fn a_pipeline_names_no_user_of_whom_too_little_is_told() {
    let scope = "ragward:retrieve ragward:assert_user";
    let pipeline = json!({"sub": "pipeline", "client_id": "pipeline"});
    let with_groups = json!({"groups": ["/staff"]});
    let rows = [
        ("takes out", TAKES_OUT, None, Err(Code::PermissionDenied)),
        ("takes out, none", TAKES_OUT, Some(Absent::None), Ok(vec![SEEN[0].to_owned()])),
        ("lets in", LETS_IN, None, Ok(vec![SEEN[0].to_owned()])),
        ("lets in, refuse", LETS_IN, Some(Absent::Refuse), Err(Code::PermissionDenied)),
    ];
    for (row, text, absent, expected) in rows {
        let server = Server::start(text, None, |i| i.claim_tuples = vec![groups(absent)]).await;
        assert_eq!(server.seen("user:anne", scope, &pipeline).await, expected, "{row}");
        // The groups in a token are its bearer's own, even if the bearer names another user.
        let mut claims = with_groups.clone();
        claims["sub"] = json!("carl");
        assert_eq!(server.seen("user:anne", scope, &claims).await, expected, "{row}, by a person");
    }
}

#[tokio::test]
async fn a_new_model_decides_anew_what_an_absent_claim_means() {
    let server = Server::start(LETS_IN, None, |i| i.claim_tuples = vec![groups(None)]).await;
    let store = server.running.app.relationships().unwrap().default_store().unwrap();
    let seen = vec![SEEN[0].to_owned()];
    for round in 0..3 {
        assert_eq!(server.seen("", RETRIEVE, &json!({})).await, Ok(seen.clone()), "round {round}");
        store.write_model(model(TAKES_OUT)).unwrap();
        // The token is remembered; the refusal is not.
        assert_eq!(server.seen("", RETRIEVE, &json!({})).await, Err(Code::Unauthenticated), "round {round}");
        store.write_model(model(LETS_IN)).unwrap();
    }
}

/// A condition under `but not` looks at a value of the token.
#[tokio::test]
async fn a_value_that_is_not_told_lets_nobody_in() {
    let takes_out = "
model
  schema 1.1
type user
type document
  relations
    define banned: [user:* with abroad]
    define reader: [user]
    define can_read: reader but not banned
condition abroad(country: string) {
  country != \"home\"
}
";
    let lets_in = "
model
  schema 1.1
type user
type document
  relations
    define can_read: [user with abroad] or reader
    define reader: [user]
condition abroad(country: string) {
  country != \"home\"
}
";
    let country = |absent| ClaimContext { claim: "country".to_owned(), parameter: "country".to_owned(), absent };
    for (text, expected) in [(takes_out, Err(Code::Unauthenticated)), (lets_in, Ok(vec![SEEN[0].to_owned()]))] {
        let key = SigningKey::es256("key");
        let issuer = TestIssuer::start(&[&key]).await;
        let data = tempfile::tempdir().unwrap();
        let mut config = config(data.path());
        config.server.insecure_identity = false;
        config.identity = identity(&issuer);
        config.identity.claim_context = vec![country(None)];
        let running = Running::start(&config).await;
        running.load(model(text), vec![RelationshipTuple::parse("user:anne", "reader", "document:plan").unwrap()]);
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
        let ask = async |more: Value| {
            let mut claims = issuer.claims("anne", RETRIEVE);
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            seen(&running, "", &key.sign(&claims)).await.map_err(|status| status.code())
        };
        assert_eq!(ask(json!({})).await, expected, "{text}");
        assert_eq!(ask(json!({"country": "home"})).await, Ok(vec![SEEN[0].to_owned()]), "{text}");
        assert_eq!(ask(json!({"country": null})).await, Err(Code::Unauthenticated), "{text}");
        assert_eq!(ask(json!({"_claim_names": {"country": "src1"}})).await, Err(Code::Unauthenticated), "{text}");
    }
}
