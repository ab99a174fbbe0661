//! A server with an issuer, a model with people, agents and machines, and a few documents.

use std::path::Path;

use ragward::config::Config;
use ragward::identity::config::{IdentityConfig, IssuerConfig, PeopleConfig};
use ragward::language::{RelationshipTuple, dsl};
use ragward::proto::ingest::Document;
use ragward::proto::metadata::{Value as Metadata, value::Kind};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{RetrieveRequest, RetrieveResponse};
use serde_json::Value;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use crate::support::documents::document;
use crate::support::issuer::{AUDIENCE, SigningKey, TestIssuer};
use crate::support::running::{Running, config};
use crate::support::untimed::Untimed;

pub(crate) const RETRIEVE: &str = "ragward:retrieve";

/// The chunks that Anne may see.
pub(crate) const ANNES: [&str; 6] = [
    "document:roadmap#0",
    "document:roadmap#1",
    "document:welcome#0",
    "document:welcome#1",
    "page:draft#0",
    "page:draft#1",
];

pub(crate) const MODEL: &str = "
model
  schema 1.1

type user
  relations
    define can_act_for: [agent]

type agent

type client

type group
  relations
    define member: [user]

type document
  relations
    define agent_reader: [agent]
    define reader: [user, user:*, group#member, client]
    define can_read: reader
    define can_edit: [user, client]

type page
  relations
    define agent_reader: [agent]
    define reader: [user]
    define can_read: reader
";

const TUPLES: [(&str, &str, &str); 12] = [
    ("user:*", "reader", "document:welcome"),
    ("user:anne", "reader", "document:roadmap"),
    ("user:anne", "reader", "page:draft"),
    ("user:bob", "reader", "document:salaries"),
    ("group:hr#member", "reader", "document:salaries"),
    ("client:crawler", "can_edit", "document:welcome"),
    ("client:crawler", "reader", "document:welcome"),
    ("agent:helper", "can_act_for", "user:anne"),
    ("agent:helper", "agent_reader", "document:welcome"),
    // The agent may see more than its user.
    ("agent:helper", "agent_reader", "document:salaries"),
    ("agent:helper", "agent_reader", "page:draft"),
    ("user:anne", "can_edit", "document:roadmap"),
];

/// Returns the configuration of a server that takes the tokens of one issuer.
pub(crate) fn identity(issuer: &TestIssuer) -> IdentityConfig {
    // Tests of logins choose the time of a login, so the client is the mark of a person.
    let people = PeopleConfig { clients_alone: true, clients: vec!["assistant".to_owned()], ..PeopleConfig::default() };
    let issuer = IssuerConfig { people, ..IssuerConfig::new(&issuer.url) };
    IdentityConfig { audience: Some(AUDIENCE.to_owned()), issuers: vec![issuer], ..IdentityConfig::default() }
}

pub(crate) async fn start(data: &Path, identity: IdentityConfig) -> Running {
    start_with(data, identity, |_| {}).await
}

/// Like [`start`], with more settings.
pub(crate) async fn start_with(data: &Path, identity: IdentityConfig, change: impl FnOnce(&mut Config)) -> Running {
    let mut config: Config = config(data);
    config.server.insecure_identity = false;
    config.identity = identity;
    change(&mut config);
    let running = Running::start(&config).await;
    let tuples = TUPLES.map(|(user, relation, object)| RelationshipTuple::parse(user, relation, object).unwrap());
    running.load(dsl::load(MODEL).unwrap(), tuples.to_vec());
    // Local administration needs no token.
    let documents = ["document:welcome", "document:roadmap", "document:salaries", "page:draft"].map(classified);
    let local = ragward::proto::ingest::UpsertDocumentsRequest { collection: "handbook".to_owned(), document: None };
    let messages = documents
        .map(|document| ragward::proto::ingest::UpsertDocumentsRequest { document: Some(document), ..local.clone() });
    running.app.in_process().unwrap().client().ingest().upsert_documents(tokio_stream::iter(messages)).await.unwrap();
    running
}

/// Returns a document about leave with two chunks, the second of which is secret.
fn classified(id: &str) -> Document {
    let mut document = document(id, &["about leave", "more about leave"]);
    for (chunk, class) in document.chunks.iter_mut().zip(["internal", "secret"]) {
        chunk.metadata.insert("classification".to_owned(), text_value(class));
    }
    document
}

pub(crate) fn text_value(text: &str) -> Metadata {
    Metadata { kind: Some(Kind::StringValue(text.to_owned())) }
}

pub(crate) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}");
    request.metadata_mut().insert("authorization", MetadataValue::try_from(value).unwrap());
    request
}

pub(crate) fn about_leave(user: &str) -> RetrieveRequest {
    RetrieveRequest {
        user: user.to_owned(),
        collection: "handbook".to_owned(),
        query: Some(Query::Text("leave".to_owned())),
        top_k: 10,
        ..RetrieveRequest::default()
    }
}

pub(crate) async fn retrieve(running: &Running, user: &str, token: &str) -> Result<RetrieveResponse, Status> {
    let request = with_token(about_leave(user), token);
    Ok(running.client.retrieval().retrieve(request).await?.into_inner().untimed())
}

/// Returns the ids of the chunks that a user sees.
pub(crate) async fn seen(running: &Running, user: &str, token: &str) -> Result<Vec<String>, Status> {
    let mut ids: Vec<String> = retrieve(running, user, token).await?.chunks.into_iter().map(|chunk| chunk.id).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// A running server and its issuer, with one key.
pub(crate) struct World {
    pub(crate) key: SigningKey,
    pub(crate) issuer: TestIssuer,
    pub(crate) running: Running,
    _data: tempfile::TempDir,
}

impl World {
    pub(crate) async fn start(change: impl FnOnce(&mut IdentityConfig)) -> Self {
        let key = SigningKey::es256("key");
        let issuer = TestIssuer::start(&[&key]).await;
        let data = tempfile::tempdir().unwrap();
        let mut identity = identity(&issuer);
        change(&mut identity);
        let running = start(data.path(), identity).await;
        Self { key, issuer, running, _data: data }
    }

    /// Returns a token with more claims than every token has.
    pub(crate) fn token(&self, subject: &str, scope: &str, more: &[(&str, Value)]) -> String {
        let mut claims = self.issuer.claims(subject, scope);
        for (name, value) in more {
            claims[*name] = value.clone();
        }
        self.key.sign(&claims)
    }

    pub(crate) async fn seen(&self, subject: &str, more: &[(&str, Value)]) -> Result<Vec<String>, Status> {
        seen(&self.running, "", &self.token(subject, RETRIEVE, more)).await
    }
}
