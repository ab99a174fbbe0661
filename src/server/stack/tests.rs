//! A door that lives in this test: it speaks JSON over plain HTTP, calls the stack in process, and renders refusals in a shape
//! of its own.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Code;
use tonic::codegen::http::StatusCode;
use tonic::transport::Endpoint;
use tower::Layer;

use super::*;
use crate::audit::{Door, Record};
use crate::authz::consistency_token::ConsistencyTokens;
use crate::authz::embedded::EmbeddedAuthorizer;
use crate::chunk::{Chunk, Document};
use crate::identity::{StepUpRules, sample};
use crate::language::{Relation, RelationshipTuple, dsl};
use crate::proto::retrieval::retrieval_service_client::RetrievalServiceClient;
use crate::proto::retrieval::{RecheckRequest, RecheckResponse};
use crate::retrieval::{Pages, RetrievalConfig, Retriever};
use crate::server::audit::sample::{open_log, records};
use crate::server::operations::{OPERATIONS, Operation};
use crate::server::{Authentication, TokenAuthentication};
use crate::tuple_store::{OnConflict, RelationshipStores};
use crate::vector_store::DocumentStore;
use crate::vector_store::exact::ExactStore;

const RECHECK: &str = "/ragward.retrieval.v1.RetrievalService/Recheck";
const MODEL: &str = "
model
  schema 1.1
type user
type note
  relations
    define can_read: [user]
";

/// `POST /recheck` with `{"user", "collection", "ids"}` gives `{"result": [ids]}`, or `{"status": {"error"}}` with the HTTP
/// status of the refusal.
#[derive(Clone)]
struct JsonDoor {
    stack: Stack,
    /// The RPC that it calls.
    path: &'static str,
}

impl JsonDoor {
    async fn answer(&self, request: http::Request<Value>) -> http::Response<Value> {
        let (caller, body) = request.into_parts();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let ids = body["ids"].as_array().cloned().unwrap_or_default();
        let message = RecheckRequest {
            user: text("user"),
            collection: text("collection"),
            chunk_ids: ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect(),
            ..RecheckRequest::default()
        };
        match self.stack.unary::<_, RecheckResponse>(self.path, &caller, &message).await {
            Ok(answer) => http::Response::new(json!({ "result": answer.message.chunk_ids })),
            Err(refusal) => Self::refused(&refusal),
        }
    }

    fn refused(refusal: &Refusal) -> http::Response<Value> {
        let fields: Vec<&str> = refusal.violations().iter().map(|violation| violation.field.as_str()).collect();
        let mut response = http::Response::new(json!({ "status": { "error": refusal.text(), "fields": fields } }));
        *response.status_mut() = refusal.http_status();
        if let Some(challenge) = refusal.challenge() {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
        }
        if let Some(token) = refusal.consistency_token() {
            response.headers_mut().insert(consistency_token::HEADER, token.clone());
        }
        response
    }
}

struct World {
    door: JsonDoor,
    directory: TempDir,
}

/// Returns a stack over a data directory with two notes, of which Anne may read `note:open`.
async fn world(authentication: Authentication, path: &'static str) -> World {
    let directory = tempfile::tempdir().unwrap();
    let stores = RelationshipStores::open(directory.path()).unwrap();
    let relationships = stores.default_store_or_new().unwrap();
    relationships.write_model(dsl::load(MODEL).unwrap()).unwrap();
    let tuple = RelationshipTuple::parse("user:anne", "can_read", "note:open").unwrap();
    relationships.write_all(vec![tuple], OnConflict::Refuse).unwrap();
    let store = Arc::new(ExactStore::open(directory.path()).unwrap());
    store.upsert("notes", ["open", "shut"].map(note).to_vec()).await.unwrap();
    let authorizer = Arc::new(EmbeddedAuthorizer::new(stores.clone()));
    let config = RetrievalConfig {
        relation: Relation::parse("can_read").unwrap(),
        top_k_max: 10,
        candidates_max: 100,
        guards_checked_max: 100,
        explain_plan: false,
        ..RetrievalConfig::default()
    };
    let services = Services {
        retriever: Retriever::new(
            Arc::clone(&authorizer) as _,
            Arc::clone(&store) as _,
            config,
            Pages::new(Duration::from_mins(1)).unwrap(),
        ),
        vector_store: Arc::clone(&store) as _,
        documents: store,
        relationships: Some(stores),
        explain: false,
        request_timeout: Duration::from_secs(10),
        connections_max: 1,
        tls: None,
        guards: crate::server::Guards::default(),
        mcp: None,
        request_context: crate::identity::RequestContextRules::default(),
        authorizer,
        authentication,
        login_client_id: None,
        ingest: crate::ingest::IngestConfig::default(),
        audit: Some(open_log(directory.path())),
        consistency_tokens: Arc::new(ConsistencyTokens::new().unwrap()),
    };
    World { door: JsonDoor { stack: Stack::new(services).unwrap(), path }, directory }
}

fn note(name: &str) -> Document {
    let chunk = Chunk {
        id: name.to_owned(),
        document_id: name.to_owned(),
        guard: crate::language::Object::parse(&format!("note:{name}")).unwrap(),
        title: String::new(),
        heading_path: Vec::new(),
        text: "a note".to_owned(),
        metadata: crate::chunk::Metadata::new(),
        vector: Vec::new(),
    };
    Document { id: name.to_owned(), title: String::new(), chunks: vec![chunk] }
}

/// Returns a request at the door, over HTTP/1.1 and with these bearer tokens.
fn request(body: Value, tokens: &[&str]) -> http::Request<Value> {
    let mut request = http::Request::post("/recheck").header("content-type", "application/json");
    for token in tokens {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(body).unwrap()
}

fn told(records: &[Record]) -> Vec<(&str, &str)> {
    records.iter().map(|record| (record.call.as_str(), record.code.as_str())).collect()
}

fn by_token() -> Authentication {
    let relation = Relation::parse("can_edit").unwrap();
    let tokens = TokenAuthentication::new(sample::verifier(), relation, StepUpRules::default()).unwrap();
    tokens.open();
    Authentication::Tokens(Arc::new(tokens))
}

#[tokio::test]
async fn a_door_gets_the_message_of_an_answer() {
    let World { door, directory } = world(Authentication::Believed, RECHECK).await;
    let asked = json!({ "user": "user:anne", "collection": "notes", "ids": ["shut", "open", "gone"] });
    let response = door.answer(request(asked, &[])).await;
    assert_eq!((response.status(), response.body()), (StatusCode::OK, &json!({ "result": ["open"] })));
    let records = records(directory.path());
    assert_eq!(told(&records), [(RECHECK.trim_start_matches('/'), "OK")]);
    let principal = records[0].principal.as_ref().unwrap();
    assert_eq!(principal.subject.as_deref(), Some("user:anne"), "who asked is recorded once, by the stack");
}

#[tokio::test]
async fn a_door_renders_refusals_in_its_own_shape() {
    let valid = json!({ "user": "user:anne", "collection": "notes", "ids": ["open"] });
    let wrong = json!({ "user": "nobody", "collection": "", "ids": [] });
    let gone = json!({ "user": "user:anne", "collection": "gone", "ids": ["open"] });
    let unknown = "/ragward.retrieval.v1.RetrievalService/Added";
    let streamed = "/openfga.v1.OpenFGAService/StreamedListObjects";
    let none: &[&str] = &[];
    let believed = || Authentication::Believed;
    let rows = [
        ("wrong fields", believed(), RECHECK, &wrong, none, 400, "INVALID_ARGUMENT"),
        ("a collection that is not there", believed(), RECHECK, &gone, none, 404, "NOT_FOUND"),
        ("an RPC that is not there", believed(), unknown, &valid, none, 501, "UNIMPLEMENTED"),
        ("an RPC of another message", believed(), streamed, &valid, none, 400, "INVALID_ARGUMENT"),
        ("no token", by_token(), RECHECK, &valid, none, 401, "UNAUTHENTICATED"),
        ("a wrong token", by_token(), RECHECK, &valid, &["wrong"], 401, "UNAUTHENTICATED"),
        ("two tokens", by_token(), RECHECK, &valid, &["one", "other"], 401, "UNAUTHENTICATED"),
    ];
    for (row, authentication, path, body, tokens, status, code) in rows {
        let World { door, directory } = world(authentication, path).await;
        let response = door.answer(request(body.clone(), tokens)).await;
        assert_eq!(response.status().as_u16(), status, "{row}: {response:?}");
        let error = response.body()["status"]["error"].as_str().unwrap_or_default();
        assert!(!error.is_empty(), "{row}: {response:?}");
        assert!(response.headers().contains_key(consistency_token::HEADER), "{row}");
        assert_eq!(response.headers().contains_key("www-authenticate"), status == 401, "{row}");
        if row == "wrong fields" {
            assert_eq!(response.body()["status"]["fields"], json!(["user", "collection"]));
        }
        let records = records(directory.path());
        assert_eq!(records.len(), 1, "{row}");
        assert_eq!(records[0].code, code, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_in_process_call_ends_when_its_caller_stops_waiting() {
    let World { door, directory: _directory } = world(Authentication::Believed, RECHECK).await;
    let asked = json!({ "user": "user:anne", "collection": "notes", "ids": ["open"] });
    let mut request = request(asked, &[]);
    request.headers_mut().insert("grpc-timeout", "1S".parse().unwrap());
    let service = tower::service_fn(|_request| std::future::pending());
    let service = AuditLayer { audit: None, work: OngoingWork::default() }.layer(service);
    let stack = Stack { service: BoxCloneSyncService::new(service), ..door.stack.clone() };
    let response = JsonDoor { stack, ..door }.answer(request).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}

/// Returns the head of a request that came by no connection.
fn local_caller() -> request::Parts {
    request(Value::Null, &[]).into_parts().0
}

/// Asks as Anne about one note of a collection.
async fn recheck(
    stack: &Stack,
    caller: &request::Parts,
    collection: &str,
) -> Result<InProcessAnswer<RecheckResponse>, Refusal> {
    let message = RecheckRequest {
        user: "user:anne".to_owned(),
        collection: collection.to_owned(),
        chunk_ids: vec!["open".to_owned()],
        ..RecheckRequest::default()
    };
    stack.unary(RECHECK, caller, &message).await
}

#[tokio::test]
async fn the_record_names_the_door_that_the_process_itself_has_noted() {
    let rows = [
        ("no door", None, Door::InProcess),
        ("a door", Some(Door::Rest), Door::Rest),
        ("another door", Some(Door::Grpc), Door::Grpc),
    ];
    for (row, noted, expected) in rows {
        let World { door: JsonDoor { stack, .. }, directory } = world(Authentication::Believed, RECHECK).await;
        let mut caller = local_caller();
        for name in ["door", "x-door", "ragward-door"] {
            caller.headers.insert(name, "openfga_http".parse().unwrap());
        }
        if let Some(noted) = noted {
            caller.extensions.insert(noted);
        }
        recheck(&stack, &caller, "notes").await.unwrap();
        recheck(&stack, &caller, "gone").await.unwrap_err();
        let doors: Vec<Option<Door>> = records(directory.path()).iter().map(|record| record.door).collect();
        assert_eq!(doors, [Some(expected); 2], "{row}: an answer and a refusal");
    }
}

#[tokio::test]
async fn a_connection_within_the_process_is_a_door_of_its_own() {
    let World { door: JsonDoor { stack, .. }, directory } = world(Authentication::Believed, RECHECK).await;
    let peers =
        [("within the process", None, Door::InProcess), ("from elsewhere", Some([10, 0, 0, 7].into()), Door::Grpc)];
    for (row, peer, expected) in peers {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let incoming = stream::iter([Ok(Arrived { io: theirs, peer })]).chain(stream::pending());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(stack.clone().serve(incoming, async move { drop(stopped.await) }));
        let mut ours = Some(TokioIo::new(ours));
        let connector = tower::service_fn(move |_address| {
            std::future::ready(ours.take().ok_or_else(|| io::Error::other("there is one connection")))
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
        let message = RecheckRequest {
            user: "user:anne".to_owned(),
            collection: "notes".to_owned(),
            chunk_ids: vec!["open".to_owned()],
            ..RecheckRequest::default()
        };
        RetrievalServiceClient::new(channel).recheck(message).await.unwrap();
        drop(stop);
        serving.await.unwrap();
        assert_eq!(records(directory.path()).last().unwrap().door, Some(expected), "{row}");
    }
}

#[tokio::test]
async fn an_in_process_answer_takes_room_until_it_is_dropped() {
    let World { door: JsonDoor { stack, .. }, directory: _directory } = world(Authentication::Believed, RECHECK).await;
    let mut caller = local_caller();
    let before = stack.answers.free_units();
    let answer = recheck(&stack, &caller, "notes").await.unwrap();
    let held = Operation::at(RECHECK).unwrap().answer_bytes_max.unwrap() / 1_024;
    assert_eq!(stack.answers.free_units(), before.map(|units| units - held), "the caller's own room, and that of all");
    assert_eq!(stack.call_permits.available_permits(), STREAMS_MAX as usize - 1);
    drop(answer);
    assert_eq!(stack.answers.free_units(), before);
    assert_eq!(stack.call_permits.available_permits(), STREAMS_MAX as usize);

    let connection = stack.answers.for_connection();
    caller.extensions.insert(AnswerSlot::new(&connection, Instant::now() + Duration::from_secs(10)));
    let by_connection = recheck(&stack, &caller, "notes").await.unwrap();
    assert_eq!(connection.free_units(), before.map(|units| units - held), "the connection's room, and that of all");
    assert_eq!(stack.answers.free_units()[0], before[0], "the room of other callers is theirs");
    assert_eq!(stack.call_permits.available_permits(), STREAMS_MAX as usize, "the connection bounds its calls itself");
    drop(by_connection);
    assert_eq!(connection.free_units(), before);
}

#[tokio::test(start_paused = true)]
async fn an_in_process_call_is_refused_past_the_bounds_of_the_port() {
    let World { door: JsonDoor { stack, .. }, directory } = world(Authentication::Believed, RECHECK).await;
    let caller = local_caller();
    let began = Instant::now();
    let holder = AnswerSlot::new(&stack.answers, began + Duration::from_secs(1));
    holder.reserve(usize::MAX).await.unwrap();
    let refused = recheck(&stack, &caller, "notes").await.unwrap_err();
    assert_eq!((refused.code(), refused.retry_after()), (Code::ResourceExhausted, Some(Duration::from_secs(1))));
    assert!(began.elapsed() >= Duration::from_secs(10), "it waits for as long as a request may take");
    assert_eq!(told(&records(directory.path())), [(RECHECK.trim_start_matches('/'), "RESOURCE_EXHAUSTED")]);
    drop(holder);

    let permits = Arc::clone(&stack.call_permits).acquire_many_owned(STREAMS_MAX).await.unwrap();
    assert_eq!(
        recheck(&stack, &caller, "notes").await.unwrap_err().code(),
        Code::ResourceExhausted,
        "too many calls run"
    );
    assert_eq!(records(directory.path()).len(), 2, "it is recorded, too");
    drop(permits);

    let large = recheck(&stack, &caller, &"x".repeat(2 << 20)).await;
    assert_eq!(large.unwrap_err().code(), Code::ResourceExhausted, "a message that is too large");
}

#[tokio::test]
async fn a_call_past_the_bounds_is_not_answered() {
    let World { door, directory } = world(Authentication::Believed, RECHECK).await;
    let message = Body::new(Full::from(vec![0u8; frames::HEAD_BYTES]));
    let mut request = http::Request::post(RECHECK).header("content-type", "application/grpc").body(message).unwrap();
    *request.version_mut() = Version::HTTP_2;
    let refused = door.stack.oneshot(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert_eq!(told(&records(directory.path())), [(RECHECK.trim_start_matches('/'), "INTERNAL")]);
}

#[tokio::test]
async fn every_operation_of_the_table_has_its_service() {
    let World { door, directory: _directory } = world(Authentication::Believed, RECHECK).await;
    // `OpenFGA` has it in its API and does not implement it.
    let without = "/openfga.v1.OpenFGAService/UpdateStore";
    for operation in OPERATIONS.iter().filter(|operation| operation.path != without) {
        let message = Body::new(Full::from(vec![0u8; frames::HEAD_BYTES]));
        let mut request =
            http::Request::post(operation.path).header("content-type", "application/grpc").body(message).unwrap();
        *request.version_mut() = Version::HTTP_2;
        request.extensions_mut().insert(AnswerSlot::new(&door.stack.answers, Instant::now()));
        let answered = door.stack.clone().oneshot(request).await;
        let code = answered.err().map(|refusal| refusal.code());
        assert_ne!(code, Some(Code::Unimplemented), "{}", operation.path);
    }
}
