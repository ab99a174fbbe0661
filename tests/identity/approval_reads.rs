//! No text is read for a request that needs an approval and has none, whatever its form and door. A store that is no part of
//! the server counts: a small Qdrant notes what it sends.

use ragward::config::{Config, VectorStoreKind};
use ragward::language::{RelationshipTuple, dsl};
use ragward::proto::ingest::{Document, UpsertDocumentsRequest};
use ragward::proto::retrieval::request_approval_request::Request as Approved;
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{
    FetchRequest, RequestApprovalRequest, RequestApprovalResponse, RetrieveRequest, RetrieveResponse, Vector,
};
use serde_json::json;
use tempfile::TempDir;
use tonic::Status;

use crate::identity::approval_secrets::give;
use crate::identity::approver::{ASK, PUBLIC_URL, Settings, TOKEN, ids, reason, refused, settings};
use crate::identity::world::{MODEL, RETRIEVE, text_value, with_token};
use crate::support::documents::document;
use crate::support::http::Call;
use crate::support::issuer::{HttpAnswer, SigningKey, TestIssuer};
use crate::support::qdrant_server::QdrantServer;
use crate::support::running::{Running, config};

const MCP_URL: &str = "https://ragward.example/mcp";
/// The field of a point that holds the text of a chunk.
const TEXT: &str = "text";

/// A server whose chunks are in a store that counts.
struct Counted {
    running: Running,
    qdrant: QdrantServer,
    key: SigningKey,
    issuer: TestIssuer,
    _data: TempDir,
}

/// Returns a document of two chunks, the second of which is secret.
fn classified(id: &str) -> UpsertDocumentsRequest {
    let mut document: Document = document(id, &["about leave", "more about leave"]);
    for (chunk, class) in document.chunks.iter_mut().zip(["internal", "secret"]) {
        chunk.vector = vec![1.0, 0.5];
        chunk.metadata.insert("classification".to_owned(), text_value(class));
    }
    UpsertDocumentsRequest { collection: "handbook".to_owned(), document: Some(document) }
}

impl Counted {
    async fn start() -> Self {
        let key = SigningKey::es256("key");
        let issuer = TestIssuer::start(&[&key]).await;
        issuer.serve_backchannel(ASK, TOKEN);
        issuer.set(ASK, HttpAnswer::Json(json!({ "auth_req_id": "question", "expires_in": 120, "interval": 1 })));
        issuer.set(TOKEN, refused("authorization_pending"));
        let (data, qdrant) = (tempfile::tempdir().unwrap(), QdrantServer::start().await);
        let Settings { identity, approval, mcp } = settings(&data, &issuer, |_, _| {});
        let mut config: Config = config(data.path());
        config.server.insecure_identity = false;
        config.server.public_url = Some(PUBLIC_URL.to_owned());
        config.server.mcp = Some(mcp);
        config.identity = identity;
        config.approval = Some(approval);
        config.vector_store.kind = VectorStoreKind::Qdrant;
        config.vector_store.qdrant.url.clone_from(&qdrant.address);
        config.vector_store.qdrant.exact = true;
        let running = Running::start(&config).await;
        let right = |object: &str| RelationshipTuple::parse("user:anne", "reader", object).unwrap();
        running.load(dsl::load(MODEL).unwrap(), vec![right("document:welcome"), right("document:roadmap")]);
        let messages = ["document:welcome", "document:roadmap"].map(classified);
        let local = running.app.in_process().unwrap();
        local.client().ingest().upsert_documents(tokio_stream::iter(messages)).await.unwrap();
        qdrant.take_sent_fields();
        Self { running, qdrant, key, issuer, _data: data }
    }

    fn token(&self, audience: Option<&str>) -> String {
        let mut claims = self.issuer.claims("anne", RETRIEVE);
        if let Some(audience) = audience {
            claims["aud"] = json!(audience);
        }
        self.key.sign(&claims)
    }

    /// Returns whether the store has sent any text since the last look.
    fn has_sent_text(&self) -> bool {
        self.qdrant.take_sent_fields().contains(TEXT)
    }

    async fn retrieve(&self, request: RetrieveRequest, token: &str) -> Result<RetrieveResponse, Status> {
        Ok(self.running.client.retrieval().retrieve(with_token(request, token)).await?.into_inner())
    }

    async fn fetch(&self, request: FetchRequest, token: &str) -> Result<usize, Status> {
        let answer = self.running.client.retrieval().fetch(with_token(request, token)).await?.into_inner();
        Ok(answer.chunks.len())
    }

    async fn request(&self, request: Approved, token: &str) -> RequestApprovalResponse {
        let request = RequestApprovalRequest { request: Some(request), purpose: "answer a question".to_owned() };
        let mut client = self.running.client.retrieval();
        client.request_approval(with_token(request, token)).await.unwrap().into_inner()
    }
}

fn search() -> RetrieveRequest {
    RetrieveRequest {
        collection: "handbook".to_owned(),
        query: Some(Query::Vector(Vector { values: vec![1.0, 0.5] })),
        top_k: 10,
        classification_max: "secret".to_owned(),
        ..RetrieveRequest::default()
    }
}

fn fetch_of(chunk_ids: &[&str], document_ids: &[&str]) -> FetchRequest {
    let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    FetchRequest {
        collection: "handbook".to_owned(),
        chunk_ids: owned(chunk_ids),
        document_ids: owned(document_ids),
        classification_max: "secret".to_owned(),
        ..FetchRequest::default()
    }
}

#[tokio::test]
async fn no_text_is_read_before_an_approval() {
    let counted = Counted::start().await;
    let (anne, at_mcp) = (counted.token(None), counted.token(Some(MCP_URL)));

    // Requests that need no approval show that the store counts, and read nothing that needs one.
    let without = RetrieveRequest { classification_max: String::new(), ..search() };
    let answer = counted.retrieve(without, &anne).await.unwrap();
    assert_eq!(ids(&answer), ["document:roadmap#0", "document:welcome#0"]);
    assert!(counted.has_sent_text(), "a search without a ceiling");
    let without = FetchRequest { classification_max: String::new(), ..fetch_of(&["document:roadmap#1"], &[]) };
    assert_eq!(counted.fetch(without, &anne).await.unwrap(), 0);
    assert!(!counted.has_sent_text(), "a fetch of a secret chunk without a ceiling");

    let searches = [
        ("a search", search()),
        ("the first page", RetrieveRequest { page_token: Some(String::new()), ..search() }),
        ("a page", RetrieveRequest { page_token: Some("AAAA".to_owned()), ..search() }),
        ("one chunk of each document", RetrieveRequest { per_document_max: 1, ..search() }),
        ("an approval of nobody", RetrieveRequest { approval: "AAAA".to_owned(), ..search() }),
    ];
    for (row, request) in searches {
        counted.retrieve(request, &anne).await.expect_err(row);
        assert!(!counted.has_sent_text(), "{row}");
    }
    let fetches = [
        ("a fetch of a secret chunk", fetch_of(&["document:roadmap#1"], &[])),
        ("a fetch of all", fetch_of(&["document:roadmap#0", "document:roadmap#1", "document:welcome#1"], &[])),
        ("a fetch of a document", fetch_of(&[], &["document:roadmap"])),
    ];
    for (row, request) in fetches {
        counted.fetch(request, &anne).await.expect_err(row);
        assert!(!counted.has_sent_text(), "{row}");
    }
    let arguments = json!({ "query": "leave", "classification_max": "secret" });
    let params = json!({ "name": "search", "arguments": arguments });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let reply = Call::json("/mcp", &message).bearer(&at_mcp).send(&counted.running.address.to_string()).await;
    assert!(reply.text().contains("APPROVAL_REQUIRED"), "{}", reply.text());
    assert!(!counted.has_sent_text(), "a tool of MCP, which asked the person");

    let pending = counted.request(Approved::Retrieve(search()), &anne).await;
    assert!(!counted.has_sent_text(), "a question");
    let waiting = RetrieveRequest { approval: pending.approval, ..search() };
    let not_yet = counted.retrieve(waiting, &anne).await.unwrap_err();
    assert_eq!((reason(&not_yet).as_str(), counted.has_sent_text()), ("APPROVAL_PENDING", false), "{not_yet:?}");
}

#[tokio::test]
async fn text_is_read_for_a_yes_and_not_for_a_no() {
    let counted = Counted::start().await;
    let anne = counted.token(None);
    let approval = counted.request(Approved::Retrieve(search()), &anne).await.approval;
    give(&counted.key, &counted.issuer, "anne");
    assert!(!counted.has_sent_text(), "before the yes is used");
    let other = RetrieveRequest { approval: approval.clone(), top_k: 11, ..search() };
    counted.retrieve(other, &anne).await.expect_err("another request");
    assert!(!counted.has_sent_text(), "another request");
    let answer = counted.retrieve(RetrieveRequest { approval: approval.clone(), ..search() }, &anne).await.unwrap();
    assert_eq!((answer.chunks.len(), counted.has_sent_text()), (4, true));
    counted.retrieve(RetrieveRequest { approval, ..search() }, &anne).await.expect_err("a second use");
    assert!(!counted.has_sent_text(), "a second use");

    let fetch = fetch_of(&["document:roadmap#1"], &[]);
    let approval = counted.request(Approved::Fetch(fetch.clone()), &anne).await.approval;
    give(&counted.key, &counted.issuer, "anne");
    assert!(!counted.has_sent_text(), "before the yes is used");
    assert_eq!(counted.fetch(FetchRequest { approval, ..fetch }, &anne).await.unwrap(), 1);
    assert!(counted.has_sent_text(), "a fetch");

    let rows = [
        ("a token of somebody else", None, "APPROVAL_UNPROVED"),
        ("a no", Some(refused("access_denied")), "APPROVAL_DENIED"),
    ];
    for (row, answer, expected) in rows {
        let approval = counted.request(Approved::Retrieve(search()), &anne).await.approval;
        match answer {
            Some(answer) => counted.issuer.set(TOKEN, answer),
            None => drop(give(&counted.key, &counted.issuer, "bob")),
        }
        let refused = counted.retrieve(RetrieveRequest { approval, ..search() }, &anne).await.unwrap_err();
        assert_eq!((reason(&refused).as_str(), counted.has_sent_text()), (expected, false), "{row}: {refused:?}");
    }
}
