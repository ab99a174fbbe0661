//! The door before a stack that lives in this test: it lets everybody in, or nobody, and answers as the services do.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;
use tower::service_fn;

use super::*;
use crate::proto::retrieval::{Chunk, FetchRequest, RetrieveRequest};
use crate::server::answers::Answers;
use crate::server::doors::{Arrival, Doors, Guards};

/// The requests and messages that reached the stack.
#[derive(Debug, Default)]
struct Seen {
    routes: Vec<Route>,
    messages: Vec<Bytes>,
}

/// Returns a request as clients of the older revision send it.
fn call(method: &str, params: &Json) -> String {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string()
}

fn tool(name: &str, arguments: &Json) -> String {
    call("tools/call", &json!({ "name": name, "arguments": arguments }))
}

fn posted(body: impl Into<Bytes>) -> http::Request<Body> {
    let request = http::Request::post(PATH).header("host", "localhost").header("content-type", "application/json");
    request.body(Body::new(Full::from(body.into()))).unwrap()
}

/// Sends a request to the door before a stack that refuses everybody with `refusal`, or lets everybody in.
async fn sent(request: http::Request<Body>, refusal: Option<Refusal>) -> (StatusCode, HeaderMap, Json, Seen) {
    let doors = Doors::new(
        Guards::default(),
        Some(McpSettings { collection: Some("handbook".to_owned()), ..McpSettings::default() }),
    )
    .unwrap();
    let Arrival::Mcp(door, shape) = doors.arrival(&request) else { panic!("no message of MCP") };
    let seen = Arc::new(Mutex::new(Seen::default()));
    let noted = Arc::clone(&seen);
    let stack = service_fn(move |request: http::Request<Body>| {
        let (noted, refusal) = (Arc::clone(&noted), refusal.clone());
        async move { answered(request, refusal, &noted).await }
    });
    let response = door.answered(stack, request, shape).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let json = if body.is_empty() { Json::Null } else { serde_json::from_slice(&body).unwrap() };
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    (parts.status, parts.headers, json, seen)
}

async fn answered(
    request: http::Request<Body>,
    refusal: Option<Refusal>,
    seen: &Mutex<Seen>,
) -> Result<http::Response<Body>, Refusal> {
    let route = Route::of(&request);
    seen.lock().unwrap().routes.push(route.clone());
    if let Some(refusal) = refusal.or_else(|| route.refusal()) {
        return Err(refusal);
    }
    let Some(DoorCall::Mcp(call)) = request.extensions().get::<DoorCall>().cloned() else {
        return Ok(http::Response::new(Body::empty()));
    };
    let body = request.into_body().collect().await.map_err(|status| Refusal::from(&status))?.to_bytes();
    seen.lock().unwrap().messages.push(body.slice(frames::HEAD_BYTES..));
    let chunk = Chunk { id: "a#1".to_owned(), text: "about leave".to_owned(), ..Chunk::default() };
    let answer = match call.call.action {
        Action::Search => RetrieveResponse { chunks: vec![chunk], ..RetrieveResponse::default() }.encode_to_vec(),
        Action::Fetch | Action::Read => {
            FetchResponse { chunks: vec![chunk], ..FetchResponse::default() }.encode_to_vec()
        }
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let pieces = [Ok::<_, Status>(Frame::data(frames::framed(&answer)?)), Ok(Frame::trailers(trailers))];
    call.answer(http::Response::new(Body::new(StreamBody::new(stream::iter(pieces)))), None).await
}

#[tokio::test]
async fn the_protocols_own_questions_are_answered_to_whoever_is_let_in() {
    let none = json!({});
    let rows = [
        ("initialize", "mcp/initialize", "/protocolVersion", json!("2025-11-25")),
        ("ping", "mcp/ping", "", json!({})),
        ("tools/list", "mcp/tools/list", "/tools/0/name", json!("search")),
        ("tools/list", "mcp/tools/list", "/tools/1/name", json!("fetch")),
        ("resources/list", "mcp/resources/list", "/resources", json!([])),
        (
            "resources/templates/list",
            "mcp/resources/templates/list",
            "/resourceTemplates/0/uriTemplate",
            json!("ragward://{collection}/{chunk}"),
        ),
    ];
    for (method, name, pointer, expected) in rows {
        let (status, _, answer, seen) = sent(posted(call(method, &none)), None).await;
        assert_eq!((status, &answer["id"]), (StatusCode::OK, &json!(7)), "{method}");
        assert_eq!(answer["result"].pointer(pointer), Some(&expected), "{method}: {answer}");
        assert_eq!(seen.routes, [Route::Mcp(name)], "{method}");

        let refusal = Refusal::new(Code::Unauthenticated, "no token").with_challenge("Bearer".to_owned());
        let (status, headers, answer, _) = sent(posted(call(method, &none)), Some(refusal)).await;
        assert_eq!(
            (status, headers["www-authenticate"].to_str().unwrap()),
            (StatusCode::UNAUTHORIZED, "Bearer"),
            "{method}"
        );
        assert_eq!(answer.get("result"), None, "{method}: {answer}");
    }
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    let (status, _, answer, _) = sent(posted(notification.to_string()), None).await;
    assert_eq!((status, answer), (StatusCode::ACCEPTED, Json::Null));
}

#[tokio::test]
async fn a_message_without_a_place_is_refused_and_recorded_as_one_too_many() {
    // It waits until now.
    let slot = AnswerSlot::new(&Answers::new(), Instant::now());
    let mut places = Vec::new();
    while let Ok(place) = slot.admit_unjudged().await {
        places.push(place);
    }
    let mut request = posted(call("ping", &json!({})));
    request.extensions_mut().insert(slot);
    let (status, headers, answer, seen) = sent(request, None).await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (StatusCode::TOO_MANY_REQUESTS, "1"));
    assert_eq!(answer["error"]["code"], json!(-32_603), "{answer}");
    let [Route::Refused(NotServed::Mcp(recorded))] = seen.routes.as_slice() else { panic!("{:?}", seen.routes) };
    assert_eq!(recorded.code(), Code::ResourceExhausted);
    drop(places);
}

#[tokio::test]
async fn a_tool_calls_its_rpc_for_nobody_by_name() {
    let mut request = posted(tool("search", &json!({ "query": "leave", "top_k": 3 })));
    for (name, value) in [("authorization", "Bearer abc"), ("x-user", "user:bob"), ("mcp-session-id", "of-bob")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let (status, headers, answer, seen) = sent(request, None).await;
    assert_eq!((status, headers.get("mcp-session-id")), (StatusCode::OK, None));
    let message = RetrieveRequest::decode(seen.messages[0].clone()).unwrap();
    let expected = RetrieveRequest {
        collection: "handbook".to_owned(),
        query: Some(crate::proto::retrieval::retrieve_request::Query::Text("leave".to_owned())),
        top_k: 3,
        ..RetrieveRequest::default()
    };
    assert_eq!(message, expected, "no user, no context");
    let result = &answer["result"];
    assert_eq!(result["structuredContent"]["results"][0]["id"], "handbook/a%231");
    let twin: Json = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(twin, result["structuredContent"], "the text says the same");

    let (_, _, answer, seen) = sent(posted(tool("fetch", &json!({ "id": "handbook/a%231" }))), None).await;
    let message = FetchRequest::decode(seen.messages[0].clone()).unwrap();
    let chunk_ids = vec!["a#1".to_owned()];
    assert_eq!(message, FetchRequest { collection: "handbook".to_owned(), chunk_ids, ..FetchRequest::default() });
    assert_eq!(answer["result"]["structuredContent"]["text"], "about leave");
}

#[tokio::test]
async fn bad_input_is_refused_behind_the_gate() {
    let deep = (0..100).fold(json!({}), |inner, _| json!({ "not": inner }));
    let rows: [(&str, String, u16, Option<i64>); 12] = [
        ("a user", tool("search", &json!({ "query": "leave", "user": "user:bob" })), 200, None),
        ("a token", tool("fetch", &json!({ "id": "a/b", "token": "abc" })), 200, None),
        (
            "a filter that is none",
            tool("search", &json!({ "query": "leave", "filter": { "area": "people" } })),
            200,
            None,
        ),
        ("a filter that is too deep", tool("search", &json!({ "query": "leave", "filter": deep })), 400, Some(-32_700)),
        ("more results than a number counts", tool("search", &json!({ "query": "a", "top_k": u64::MAX })), 200, None),
        ("no arguments", call("tools/call", &json!({ "name": "search" })), 200, None),
        ("arguments in a list", call("tools/call", &json!({ "name": "search", "arguments": [] })), 200, Some(-32_602)),
        ("an unknown tool", tool("explain", &json!({})), 200, Some(-32_602)),
        ("an unknown method", call("completion/complete", &json!({})), 200, Some(-32_601)),
        ("a batch", format!("[{}]", call("ping", &json!({}))), 400, Some(-32_600)),
        ("no JSON", "query".to_owned(), 400, Some(-32_700)),
        ("a huge query", tool("search", &json!({ "query": "a".repeat(MESSAGE_BYTES_MAX) })), 413, Some(-32_600)),
    ];
    for (row, body, status, code) in rows {
        let (found, _, answer, seen) = sent(posted(body.clone()), None).await;
        assert_eq!(found.as_u16(), status, "{row}: {answer}");
        match code {
            Some(code) => assert_eq!(answer["error"]["code"], code, "{row}: {answer}"),
            None => assert_eq!(answer["result"]["isError"], true, "{row}: {answer}"),
        }
        assert!(seen.messages.is_empty(), "{row}: no service gets a message");
        assert_eq!(seen.routes.len(), 1, "{row}: there is one record");

        let refusal = Refusal::new(Code::PermissionDenied, "not meant for this").with_challenge("Bearer".to_owned());
        let (found, _, answer, _) = sent(posted(body), Some(refusal)).await;
        assert_eq!(found, StatusCode::FORBIDDEN, "{row}");
        assert_eq!(answer["error"]["message"], "not meant for this", "{row}: the caller learns nothing else");
    }
}

#[tokio::test]
async fn a_resource_is_the_text_of_a_chunk() {
    let read = |uri: &str| posted(call("resources/read", &json!({ "uri": uri })));
    let (status, _, answer, seen) = sent(read("ragward://handbook/a%231"), None).await;
    let contents = json!([{ "uri": "ragward://handbook/a%231", "mimeType": "text/plain", "text": "about leave" }]);
    assert_eq!((status, &answer["result"]["contents"]), (StatusCode::OK, &contents));
    assert_eq!(FetchRequest::decode(seen.messages[0].clone()).unwrap().chunk_ids, ["a#1"]);

    let gone = Refusal::new(Code::NotFound, "there is no such collection");
    let nothing = sent(read("ragward://handbook/a%231"), Some(gone)).await.2;
    assert_eq!(nothing["error"]["code"], -32_002, "{nothing}");
    assert_eq!(sent(read("handbook"), None).await.2, nothing, "no URI looks like one of nothing");
    assert_eq!(sent(posted(call("resources/read", &json!({}))), None).await.2, nothing, "so does none at all");
}

#[tokio::test]
async fn a_tool_that_fails_tells_the_model_why() {
    let refusal = Refusal::new(Code::NotFound, "there is no such collection");
    let (status, _, answer, _) = sent(posted(tool("search", &json!({ "query": "leave" }))), Some(refusal)).await;
    assert_eq!((status, &answer["result"]["isError"]), (StatusCode::OK, &json!(true)));
    assert_eq!(answer["result"]["content"][0]["text"], "there is no such collection");
}

#[test]
fn the_head_of_a_request_is_checked_before_its_body() {
    let doors = Doors::new(Guards::default(), Some(McpSettings::default())).unwrap();
    let shut = Doors::new(Guards::default(), None).unwrap();
    let arrival = |request: http::request::Builder| doors.arrival(&request.uri(PATH).body(()).unwrap());
    let local = |method: &str| http::Request::builder().method(method).header("host", "localhost");
    let json = |method: &str| local(method).header("content-type", "application/json");
    assert!(matches!(arrival(json("POST")), Arrival::Mcp(..)));
    let rows = [
        ("GET", json("GET")),
        ("DELETE, which ended sessions", json("DELETE")),
        ("no content type", local("POST")),
        ("a form", local("POST").header("content-type", "text/plain")),
        ("gzip", json("POST").header("content-encoding", "gzip")),
        ("another host", http::Request::post(PATH).header("host", "attacker.example")),
        ("a foreign page", json("POST").header("origin", "https://attacker.example")),
    ];
    for (row, request) in rows {
        assert!(matches!(arrival(request), Arrival::Refused(..)), "{row}");
    }
    let request = json("POST").uri(PATH).body(()).unwrap();
    assert!(matches!(shut.arrival(&request), Arrival::AsItIs), "the door is shut unless a setting opens it");
}
