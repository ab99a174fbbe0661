//! The gRPC surface, end to end: a real client, a real server, the embedded engines.

use crate::support::documents::document;
use crate::support::running::{Running, config};
use crate::support::untimed::Untimed;
use ragward::client::Probe;
use ragward::language::{RelationshipTuple, dsl};
use ragward::proto::ingest::{Chunk, DeleteDocumentsRequest, Document, GetIngestStatusRequest, UpsertDocumentsRequest};
use ragward::proto::metadata::{Value, value};
use ragward::proto::retrieval::retrieve_request::Query;
use ragward::proto::retrieval::{
    ChunkReference, Completion, ExplainRequest, ExplanationOutcome, FetchRequest, Filter, FilterList, OneOf, Range,
    Recall, RecheckRequest, RetrieveRequest, RetrieveResponse, Vector, filter,
};
use ragward::proto::retrieval::{RelationshipTuple as RelationshipTupleMessage, explain_request};
use tonic::{Code, Status};
use tonic_types::StatusExt;

const MODEL: &str = "
model
  schema 1.1

type user

type group
  relations
    define member: [user, group#member]

type document
  relations
    define blocked: [user]
    define reader: [user, user:*, group#member]
    define can_read: reader but not blocked
";

const TUPLES: [(&str, &str, &str); 6] = [
    ("user:*", "reader", "document:welcome"),
    ("group:hr#member", "reader", "document:salaries"),
    ("group:hr_leads#member", "member", "group:hr"),
    ("user:bob", "member", "group:hr_leads"),
    ("user:anne", "reader", "document:roadmap"),
    ("user:carl", "blocked", "document:welcome"),
];

fn tuple((user, relation, object): (&str, &str, &str)) -> RelationshipTuple {
    RelationshipTuple::parse(user, relation, object).unwrap()
}

/// Starts a server with three documents behind the model above. Every text mentions leave.
async fn handbook(data: &std::path::Path) -> Running {
    let running = Running::start(&config(data)).await;
    running.load(dsl::load(MODEL).unwrap(), TUPLES.map(tuple).to_vec());
    let documents = vec![
        document("document:welcome", &["Welcome: how to ask for leave", "The kitchen is open on leave days"]),
        document("document:salaries", &["Salaries during parental leave"]),
        document("document:roadmap", &["Roadmap: what to leave out"]),
        document("document:nobody", &["A page about leave that nobody may see"]),
    ];
    running.upsert("handbook", documents).await.unwrap();
    running
}

fn ask(user: &str, text: &str) -> RetrieveRequest {
    RetrieveRequest {
        user: user.to_owned(),
        collection: "handbook".to_owned(),
        query: Some(Query::Text(text.to_owned())),
        top_k: 10,
        ..RetrieveRequest::default()
    }
}

fn ids(response: &RetrieveResponse) -> Vec<&str> {
    let mut ids: Vec<&str> = response.chunks.iter().map(|chunk| chunk.id.as_str()).collect();
    ids.sort_unstable();
    ids
}

async fn answer(running: &Running, request: RetrieveRequest) -> RetrieveResponse {
    running.client.retrieval().retrieve(request).await.unwrap().into_inner().untimed()
}

#[tokio::test]
async fn two_people_get_two_answers() {
    let data = tempfile::tempdir().unwrap();
    let running = handbook(data.path()).await;
    let rows: [(&str, &[&str]); 4] = [
        ("user:anne", &["document:roadmap#0", "document:welcome#0", "document:welcome#1"]),
        ("user:bob", &["document:salaries#0", "document:welcome#0", "document:welcome#1"]),
        ("user:carl", &[]),
        ("agent:anne", &[]),
    ];
    for (user, expected) in rows {
        let response = answer(&running, ask(user, "leave")).await;
        assert_eq!(ids(&response), expected, "{user}");
        assert_eq!(response.completion(), Completion::Exhausted, "{user}");
        assert_eq!(response.recall(), Recall::Exact, "{user}");
        assert!(
            response.chunks.iter().all(|chunk| chunk.text.contains("leave") && chunk.guard == chunk.document_id),
            "{user}: {response:?}"
        );
    }
    let one = answer(&running, RetrieveRequest { top_k: 1, ..ask("user:bob", "leave") }).await;
    assert_eq!((one.chunks.len(), one.completion()), (1, Completion::Complete));
}

#[tokio::test]
async fn a_revoked_tuple_ends_the_sight_of_held_chunks() {
    let data = tempfile::tempdir().unwrap();
    let running = handbook(data.path()).await;
    let held = ["document:salaries#0", "document:nobody#0", "document:gone#0", "document:welcome#1"].map(String::from);
    let recheck = || RecheckRequest {
        user: "user:bob".to_owned(),
        collection: "handbook".to_owned(),
        chunk_ids: held.to_vec(),
        ..RecheckRequest::default()
    };
    let permitted = running.client.retrieval().recheck(recheck()).await.unwrap().into_inner().chunk_ids;
    assert_eq!(permitted, ["document:salaries#0", "document:welcome#1"]);
    running.delete(tuple(TUPLES[3]));
    let permitted = running.client.retrieval().recheck(recheck()).await.unwrap().into_inner().chunk_ids;
    assert_eq!(permitted, ["document:welcome#1"]);
    assert_eq!(ids(&answer(&running, ask("user:bob", "leave")).await), ["document:welcome#0", "document:welcome#1"]);
}

#[tokio::test]
async fn a_filter_only_narrows() {
    let data = tempfile::tempdir().unwrap();
    let running = handbook(data.path()).await;
    let year = |year| Value { kind: Some(value::Kind::IntValue(year)) };
    let mut report = document("document:roadmap", &["leave in 2025", "leave in 2026"]);
    for (chunk, at) in report.chunks.iter_mut().zip([2025, 2026]) {
        chunk.metadata.insert("year".to_owned(), year(at));
    }
    running.upsert("handbook", vec![report]).await.unwrap();
    let one_of = Filter { kind: Some(filter::Kind::OneOf(OneOf { key: "year".to_owned(), values: vec![year(2026)] })) };
    let range = |low, high| Filter { kind: Some(filter::Kind::Range(Range { key: "year".to_owned(), low, high })) };
    let not = Filter { kind: Some(filter::Kind::Not(Box::new(one_of.clone()))) };
    let any_of_none = Filter { kind: Some(filter::Kind::AnyOf(FilterList::default())) };
    let all_of_none = Filter { kind: Some(filter::Kind::AllOf(FilterList::default())) };
    let everything: &[&str] = &["document:roadmap#0", "document:roadmap#1", "document:welcome#0", "document:welcome#1"];
    let rows: [(Filter, &[&str]); 6] = [
        (one_of, &["document:roadmap#1"]),
        (range(Some(2025.5), None), &["document:roadmap#1"]),
        (range(None, Some(2025.0)), &["document:roadmap#0"]),
        (not, &["document:roadmap#0", "document:welcome#0", "document:welcome#1"]),
        (any_of_none, &[]),
        (all_of_none, everything),
    ];
    for (filter, expected) in rows {
        let request = RetrieveRequest { filter: Some(filter.clone()), ..ask("user:anne", "leave") };
        assert_eq!(ids(&answer(&running, request).await), expected, "{filter:?}");
    }
}

#[tokio::test]
async fn documents_are_replaced_counted_and_deleted() {
    let data = tempfile::tempdir().unwrap();
    let running = handbook(data.path()).await;
    let written = running.upsert("handbook", vec![document("document:roadmap", &["a", "b", "c"])]).await.unwrap();
    assert_eq!((written.documents, written.chunks), (1, 3));
    let status = |document_ids: &[&str]| GetIngestStatusRequest {
        collection: "handbook".to_owned(),
        document_ids: document_ids.iter().map(|id| (*id).to_owned()).collect(),
    };
    let asked = status(&["document:roadmap", "document:gone"]);
    let held = running.client.ingest().get_ingest_status(asked).await.unwrap().into_inner();
    assert_eq!((held.documents, held.chunks, held.dimension), (4, 7, 0));
    assert_eq!(
        held.found.iter().map(|d| (d.document_id.as_str(), d.chunks)).collect::<Vec<_>>(),
        [("document:roadmap", 3)]
    );
    let delete = DeleteDocumentsRequest {
        collection: "handbook".to_owned(),
        document_ids: vec!["document:roadmap".to_owned(), "document:gone".to_owned()],
    };
    let deleted = running.client.ingest().delete_documents(delete).await.unwrap().into_inner();
    assert_eq!(deleted.documents, 1);
    let held = running.client.ingest().get_ingest_status(status(&[])).await.unwrap().into_inner();
    assert_eq!((held.documents, held.chunks), (3, 4));
}

#[track_caller]
fn refused(name: &str, status: &Status, code: Code, reason: &str, fields: &[&str]) {
    assert_eq!(status.code(), code, "{name}: {status:?}");
    let info = status.get_details_error_info().expect("ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "ragward"), "{name}");
    let violations = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
    let found: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(found, fields, "{name}: {status:?}");
}

#[tokio::test]
async fn a_bad_retrieval_is_refused_by_field() {
    let data = tempfile::tempdir().unwrap();
    let running = handbook(data.path()).await;
    let with_vector = Document {
        id: "document:vector".to_owned(),
        chunks: vec![Chunk {
            id: "document:vector#0".to_owned(),
            guard: "document:welcome".to_owned(),
            vector: vec![1.0, 0.0],
            ..Chunk::default()
        }],
        ..Document::default()
    };
    running.upsert("vectors", vec![with_vector]).await.unwrap();
    let vector = |values: &[f32]| Some(Query::Vector(Vector { values: values.to_vec() }));
    let deep = (0..9).fold(Filter { kind: Some(filter::Kind::AllOf(FilterList::default())) }, |inner, _| Filter {
        kind: Some(filter::Kind::Not(Box::new(inner))),
    });
    let base = || ask("user:anne", "leave");
    let answered = running.client.retrieval().retrieve(base()).await.unwrap();
    let given = answered.metadata().get("ragward-consistency-token").unwrap().to_str().unwrap().to_owned();
    assert_eq!(answered.get_ref().consistency_token, given, "metadata and message have one token");
    let fresh_as =
        |token: &str, consistency| RetrieveRequest { consistency, consistency_token: token.to_owned(), ..base() };
    assert!(!answer(&running, fresh_as(&given, 3)).await.chunks.is_empty());
    let vectors = |query| RetrieveRequest { collection: "vectors".to_owned(), query, ..base() };
    let invalid = (Code::InvalidArgument, "INVALID_ARGUMENT");
    let rows: Vec<(RetrieveRequest, (Code, &str), &[&str])> = vec![
        (ask("", "leave"), invalid, &["user"]),
        (ask("anne", "leave"), invalid, &["user"]),
        (ask("user:*", "leave"), invalid, &["user"]),
        (ask("group:hr#member", "leave"), invalid, &["user"]),
        (ask("user:a\u{7}b", "leave"), invalid, &["user"]),
        (ask(&format!("user:{}", "x".repeat(10_000)), "leave"), invalid, &["user"]),
        (RetrieveRequest { top_k: 0, ..base() }, invalid, &["top_k"]),
        (RetrieveRequest { top_k: 101, ..base() }, invalid, &["top_k"]),
        (RetrieveRequest { top_k: 10_001, ..base() }, invalid, &["top_k"]),
        (RetrieveRequest { query: None, ..base() }, invalid, &["query"]),
        (RetrieveRequest { consistency: 9, ..base() }, invalid, &["consistency"]),
        (RetrieveRequest { consistency: 3, ..base() }, invalid, &["consistency_token"]),
        (fresh_as("not a token", 3), invalid, &["consistency_token"]),
        (fresh_as(&given, 0), invalid, &["consistency_token"]),
        (fresh_as(&given, 2), invalid, &["consistency_token"]),
        (RetrieveRequest { filter: Some(deep), ..base() }, invalid, &["filter"]),
        (RetrieveRequest { filter: Some(Filter::default()), ..base() }, invalid, &["filter"]),
        (RetrieveRequest { collection: "a/b".to_owned(), ..base() }, invalid, &["collection"]),
        (RetrieveRequest { collection: "gone".to_owned(), ..base() }, (Code::NotFound, "NOT_FOUND"), &[]),
        (vectors(vector(&[f32::NAN, 0.0])), invalid, &["vector.values"]),
        (vectors(vector(&[f32::INFINITY, 0.0])), invalid, &["vector.values"]),
        (vectors(vector(&[0.0, 0.0])), invalid, &["vector.values"]),
        (vectors(vector(&[1.0, 0.0, 0.0])), invalid, &["vector.values"]),
    ];
    for (request, (code, reason), fields) in rows {
        let name = format!("{request:?}");
        let status = running.client.retrieval().retrieve(request).await.expect_err(&name);
        refused(&name, &status, code, reason, fields);
    }
    // The answer does not tell whether hidden chunks have vectors: a collection without vectors finds nothing.
    let none = answer(&running, RetrieveRequest { query: vector(&[1.0]), ..base() }).await;
    assert_eq!((none.chunks.len(), none.completion()), (0, Completion::Exhausted));
    let found = answer(&running, vectors(vector(&[3.0, 4.0]))).await;
    assert_eq!(found.chunks.len(), 1);
    assert!((found.chunks[0].score - 0.6).abs() < 1e-6);
}

#[tokio::test]
async fn a_bad_document_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let running = handbook(data.path()).await;
    let edited = |edit: fn(&mut Document)| {
        let mut document = document("document:roadmap", &["new text", "more new text"]);
        edit(&mut document);
        document
    };
    let rows: Vec<(Document, Code)> = vec![
        (edited(|d| d.chunks[1].guard.clear()), Code::InvalidArgument),
        (edited(|d| d.chunks[1].guard = "document".to_owned()), Code::InvalidArgument),
        (edited(|d| d.chunks[1].guard = "document:*".to_owned()), Code::InvalidArgument),
        (edited(|d| d.chunks[1].id = d.chunks[0].id.clone()), Code::AlreadyExists),
        (edited(|d| d.chunks[1].id = "document:welcome#0".to_owned()), Code::AlreadyExists),
        (edited(|d| d.chunks[1].id.clear()), Code::InvalidArgument),
        (edited(|d| d.chunks[1].vector = vec![f32::NAN]), Code::InvalidArgument),
        (edited(|d| d.chunks[1].vector = vec![0.0, 0.0]), Code::InvalidArgument),
        (edited(|d| d.chunks[1].text.clear()), Code::InvalidArgument),
        (edited(|d| d.chunks.clear()), Code::InvalidArgument),
        (edited(|d| d.id.clear()), Code::InvalidArgument),
        (edited(|d| drop(d.chunks[1].metadata.insert("k".to_owned(), Value::default()))), Code::InvalidArgument),
    ];
    for (document, code) in rows {
        let status = running.upsert("handbook", vec![document.clone()]).await.expect_err(&format!("{document:?}"));
        assert_eq!(status.code(), code, "{status:?} for {document:?}");
        let response = answer(&running, ask("user:anne", "roadmap")).await;
        assert_eq!(ids(&response), ["document:roadmap#0"], "after {status:?}");
    }
}

#[tokio::test]
async fn an_oversized_document_is_refused_before_it_is_expanded() {
    let data = tempfile::tempdir().unwrap();
    let running = handbook(data.path()).await;
    let long = "x".repeat(500_000);
    let unguarded = |count: usize| vec![Chunk::default(); count];
    let short = || Document { id: "document:a".to_owned(), ..Document::default() };
    let documents = [
        ("a long id", Document { id: long.clone(), chunks: unguarded(1_000), ..Document::default() }),
        ("a long title", Document { id: "document:a".to_owned(), title: long, chunks: unguarded(2_000) }),
        ("a million chunks", Document { chunks: unguarded(1_000_000), ..short() }),
        ("chunks without a guard", Document { chunks: unguarded(1_000), ..short() }),
        ("no chunks", short()),
    ];
    for (name, document) in documents {
        let status = running.upsert("handbook", vec![document]).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
        assert!(status.message().len() + status.details().len() < 8_192, "{name}: {} bytes", status.details().len());
    }
    let recheck = RecheckRequest {
        user: "user:anne".to_owned(),
        collection: "handbook".to_owned(),
        chunk_ids: vec![String::new(); 1_000],
        ..RecheckRequest::default()
    };
    let status = running.client.retrieval().recheck(recheck).await.unwrap_err();
    refused("empty ids", &status, Code::InvalidArgument, "INVALID_ARGUMENT", &["chunk_ids[0]"]);
}

#[tokio::test]
async fn a_hidden_page_that_cannot_be_decided_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let running = handbook(data.path()).await;
    let before = answer(&running, ask("user:anne", "leave")).await;
    // There are more nested groups than are resolved, and the asker is at the far end of them.
    let link = |n: usize| RelationshipTuple::parse(&format!("group:{}#member", n + 1), "member", &format!("group:{n}"));
    let mut chain: Vec<RelationshipTuple> = (0..40).map(|n| link(n).unwrap()).collect();
    chain.push(tuple(("user:anne", "member", "group:40")));
    chain.push(tuple(("group:0#member", "reader", "document:deep")));
    running.write(chain);
    running
        .upsert("handbook", vec![document("document:deep", &["A page about leave behind many groups"])])
        .await
        .unwrap();
    assert_eq!(answer(&running, ask("user:anne", "leave")).await, before);
}

#[tokio::test]
async fn forbidden_and_absent_look_the_same() {
    let data = tempfile::tempdir().unwrap();
    let running = handbook(data.path()).await;
    let recheck = |id: &str| RecheckRequest {
        user: "user:anne".to_owned(),
        collection: "handbook".to_owned(),
        chunk_ids: vec![id.to_owned()],
        ..RecheckRequest::default()
    };
    let forbidden = running.client.retrieval().recheck(recheck("document:salaries#0")).await.unwrap().into_inner();
    let absent = running.client.retrieval().recheck(recheck("document:absent00#0")).await.unwrap().into_inner();
    assert_eq!(forbidden.untimed(), absent.untimed());
    let fetch = |chunk: &str, document: &str| FetchRequest {
        user: "user:anne".to_owned(),
        collection: "handbook".to_owned(),
        chunk_ids: vec![chunk.to_owned()],
        document_ids: vec![document.to_owned()],
        ..FetchRequest::default()
    };
    let fetched = async |chunk: &str, document: &str| {
        running.client.retrieval().fetch(fetch(chunk, document)).await.unwrap().into_inner().untimed()
    };
    let absent = fetched("document:absent00#0", "document:absent00").await;
    assert_eq!(fetched("document:salaries#0", "document:salaries").await, absent);
    assert_eq!((absent.chunks.len(), absent.completion()), (0, Completion::Exhausted));
    // The answer is the same, byte for byte and score for score, once the hidden pages are gone.
    let before = answer(&running, ask("user:anne", "leave salaries")).await;
    let delete = DeleteDocumentsRequest {
        collection: "handbook".to_owned(),
        document_ids: vec!["document:salaries".to_owned(), "document:nobody".to_owned()],
    };
    running.client.ingest().delete_documents(delete).await.unwrap();
    assert_eq!(answer(&running, ask("user:anne", "leave salaries")).await, before);
}

#[tokio::test]
async fn no_model_is_an_error_and_not_an_empty_answer() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(&config(data.path())).await;
    running.upsert("handbook", vec![document("document:welcome", &["leave"])]).await.unwrap();
    let status = running.client.retrieval().retrieve(ask("user:anne", "leave")).await.expect_err("no model");
    refused("no model", &status, Code::FailedPrecondition, "FAILED_PRECONDITION", &[]);
    assert!(status.message().contains("ragward model load"), "{status:?}");
}

#[tokio::test]
async fn running_streams_end_when_the_server_stops() {
    let data = tempfile::tempdir().unwrap();
    let running = handbook(data.path()).await;
    let (send, messages) = tokio::sync::mpsc::channel(1);
    let message = |id: &str| UpsertDocumentsRequest {
        collection: "handbook".to_owned(),
        document: Some(document(id, &["late leave"])),
    };
    let mut ingest = running.client.ingest();
    let upserting = tokio::spawn(async move {
        ingest.upsert_documents(tokio_stream::wrappers::ReceiverStream::new(messages)).await.unwrap().into_inner()
    });
    // The server has taken the first message once there is room for two more.
    for id in ["document:1", "document:2", "document:3"] {
        send.send(message(id)).await.unwrap();
    }
    let address = running.address;
    let stopped = running.stop();
    send.send(message("document:4")).await.unwrap();
    drop(send);
    assert_eq!(upserting.await.unwrap().documents, 4);
    stopped.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the port is still open");

    let again = Running::start(&config(data.path())).await;
    let status = GetIngestStatusRequest {
        collection: "handbook".to_owned(),
        document_ids: vec!["document:1".to_owned(), "document:4".to_owned()],
    };
    assert_eq!(again.client.ingest().get_ingest_status(status).await.unwrap().into_inner().found.len(), 2);
}

#[tokio::test]
async fn health_and_reflection_are_there() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let data = tempfile::tempdir().unwrap();
    let running = handbook(data.path()).await;
    assert!(running.client.health(Probe::Readiness).await.unwrap().serving);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", running.address)).unwrap();
    let mut reflection = ServerReflectionClient::new(endpoint.connect().await.unwrap());
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection.server_reflection_info(tokio_stream::iter([list])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else { panic!("{answer:?}") };
    let mut names: Vec<&str> = services.service.iter().map(|service| service.name.as_str()).collect();
    names.sort_unstable();
    for name in ["grpc.health.v1.Health", "ragward.ingest.v1.IngestService", "ragward.retrieval.v1.RetrievalService"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn an_explanation_is_for_who_may_have_it() {
    let data = tempfile::tempdir().unwrap();
    let ask = |object: &str| ExplainRequest {
        user: "user:bob".to_owned(),
        target: Some(explain_request::Target::Object(object.to_owned())),
        ..ExplainRequest::default()
    };
    let running = handbook(data.path()).await;
    let refusal = running.client.retrieval().explain(ask("document:salaries")).await.unwrap_err();
    refused("not configured", &refusal, Code::FailedPrecondition, "FAILED_PRECONDITION", &[]);
    assert!(refusal.message().contains("server.explain"), "{refusal:?}");
    running.stop().await.unwrap();

    let mut config = config(data.path());
    config.server.explain = true;
    let running = Running::start(&config).await;
    let explained = running.client.retrieval().explain(ask("document:salaries")).await.unwrap().into_inner();
    assert!(explained.allowed && explained.undecided.is_empty());
    assert_eq!((explained.relation.as_str(), explained.object.as_str()), ("can_read", "document:salaries"));
    assert_eq!(explained.root.unwrap().outcome(), ExplanationOutcome::Holds);
    let of_chunk = |chunk_id: &str| {
        let chunk = ChunkReference { collection: "handbook".to_owned(), chunk_id: chunk_id.to_owned() };
        ExplainRequest { target: Some(explain_request::Target::Chunk(chunk)), ..ask("") }
    };
    let explained = running.client.retrieval().explain(of_chunk("document:nobody#0")).await.unwrap().into_inner();
    assert_eq!((explained.allowed, explained.object.as_str()), (false, "document:nobody"));
    let tuple = RelationshipTupleMessage {
        user: "user:bob".to_owned(),
        relation: "reader".to_owned(),
        object: "document:nobody".to_owned(),
        condition: None,
    };
    let with_tuple = ExplainRequest { contextual_tuples: vec![tuple.clone()], ..of_chunk("document:nobody#0") };
    assert!(running.client.retrieval().explain(with_tuple).await.unwrap().into_inner().allowed);
    // This chunk is behind a guard that the model does not know, so the explanation says why nobody sees it.
    let mut stray = document("document:stray", &["leave"]);
    stray.chunks[0].guard = "page:stray".to_owned();
    running.upsert("handbook", vec![stray]).await.unwrap();
    let explained = running.client.retrieval().explain(of_chunk("document:stray#0")).await.unwrap().into_inner();
    assert!(!explained.allowed && explained.undecided.contains("type `page`"), "{explained:?}");

    let misfit = RelationshipTupleMessage { relation: "can_read".to_owned(), ..tuple.clone() };
    let rows: Vec<(ExplainRequest, Code, &[&str])> = vec![
        (ExplainRequest::default(), Code::InvalidArgument, &["user", "target"]),
        (ask("page:a"), Code::InvalidArgument, &["object"]),
        (ExplainRequest { user: "robot:r".to_owned(), ..ask("document:a") }, Code::InvalidArgument, &["user"]),
        (ExplainRequest { relation: "sees".to_owned(), ..ask("document:a") }, Code::InvalidArgument, &["relation"]),
        (ExplainRequest { relation: "a b".to_owned(), ..ask("document:a") }, Code::InvalidArgument, &["relation"]),
        (of_chunk("gone#0"), Code::NotFound, &[]),
        (
            ExplainRequest { contextual_tuples: vec![RelationshipTupleMessage::default()], ..ask("document:a") },
            Code::InvalidArgument,
            &["contextual_tuples[0]"],
        ),
        (
            ExplainRequest { contextual_tuples: vec![misfit], ..ask("document:a") },
            Code::InvalidArgument,
            &["contextual_tuples"],
        ),
        (
            ExplainRequest { contextual_tuples: vec![tuple; 101], ..ask("document:a") },
            Code::InvalidArgument,
            &["contextual_tuples"],
        ),
    ];
    for (request, code, fields) in rows {
        let name = format!("{request:?}");
        let status = running.client.retrieval().explain(request).await.expect_err(&name);
        let reason = if code == Code::NotFound { "NOT_FOUND" } else { "INVALID_ARGUMENT" };
        refused(&name, &status, code, reason, fields);
    }
}
