//! The door before a stack that lives in this test: it lets everybody in, or nobody, and answers as the services do.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;
use tokio::time::Instant;
use tower::service_fn;

use super::*;
use crate::proto::retrieval::{Chunk, FetchRequest, RetrieveRequest};
use crate::server::answers::Answers;
use crate::server::doors::{Arrival, Doors, Guards, Notifications};

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
    sent_to(McpSettings { collection: Some("handbook".to_owned()), ..McpSettings::default() }, request, refusal).await
}

/// Like [`sent`], to a door with these settings.
async fn sent_to(
    settings: McpSettings,
    request: http::Request<Body>,
    refusal: Option<Refusal>,
) -> (StatusCode, HeaderMap, Json, Seen) {
    let doors = Doors::new(Guards::default(), Some(settings), Notifications::Absent).unwrap();
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
        let mut admitted = http::Response::new(Body::empty());
        admitted.headers_mut().insert(NONCE_HEADER, HeaderValue::from_static("abc"));
        return Ok(admitted);
    };
    let body = request.into_body().collect().await.map_err(|status| Refusal::from(&status))?.to_bytes();
    seen.lock().unwrap().messages.push(body.slice(frames::HEAD_BYTES..));
    let chunk = Chunk { id: "a#1".to_owned(), text: "about leave".to_owned(), ..Chunk::default() };
    let answer = match call.call.action {
        Action::Search => RetrieveResponse { chunks: vec![chunk], ..RetrieveResponse::default() }.encode_to_vec(),
        Action::Fetch | Action::Read => {
            FetchResponse { chunks: vec![chunk], ..FetchResponse::default() }.encode_to_vec()
        }
        Action::Explain => panic!("nobody is let in to explain"),
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
        let (status, headers, answer, seen) = sent(posted(call(method, &none)), None).await;
        assert_eq!((status, &answer["id"]), (StatusCode::OK, &json!(7)), "{method}");
        assert_eq!(headers[NONCE_HEADER], "abc", "{method}: the nonce of the gate");
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
    let (status, headers, answer, _) = sent(posted(notification.to_string()), None).await;
    assert_eq!((status, answer), (StatusCode::ACCEPTED, Json::Null));
    assert_eq!(headers[NONCE_HEADER], "abc", "the nonce of the gate");
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
        ("arguments in a list", call("tools/call", &json!({ "name": "search", "arguments": [] })), 200, None),
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
async fn whoever_is_not_let_in_cannot_tell_whether_there_is_a_tool() {
    let rows = [
        ("no token", Refusal::new(Code::Unauthenticated, "no").with_challenge("Bearer".to_owned())),
        ("too little scope", Refusal::denied("no").with_challenge("Bearer".to_owned())),
        ("the issuer is away", Refusal::unavailable("later")),
        ("the record is away", Refusal::unrecorded()),
        ("the answer is late", Refusal::late()),
        ("too many requests", Refusal::busy("later", Duration::from_secs(1))),
        ("a defect", Refusal::lost()),
    ];
    for (row, refusal) in rows {
        let answer = async |name: &str| {
            let settings = McpSettings { explain: true, ..McpSettings::default() };
            let request = posted(tool(name, &json!({ "id": "handbook/a" })));
            let (status, headers, answer, _) = sent_to(settings, request, Some(refusal.clone())).await;
            (status, headers, answer)
        };
        assert_eq!(answer("explain").await, answer("no_such_tool").await, "{row}");
    }
}

/// Returns a request of the newest revision, with the headers that belong to it.
fn stateless(method: &str, target: Option<&str>) -> http::Request<Body> {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let mut request = posted(call(method, &json!({ "name": target, "_meta": meta })));
    let headers = [("mcp-protocol-version", Some("2026-07-28")), ("mcp-method", Some(method)), ("mcp-name", target)];
    for (name, value) in headers {
        if let Some(value) = value {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
    }
    request
}

/// Returns a request whose message ends with an error.
fn broken(error: Status) -> http::Request<Body> {
    let mut request = posted("");
    *request.body_mut() = Body::new(StreamBody::new(stream::iter([Err::<Frame<Bytes>, Status>(error)])));
    request
}

/// A request with a fault, and what is told of it: to the client by HTTP and by JSON-RPC, and to the record.
struct FaultRow {
    name: &'static str,
    request: http::Request<Body>,
    status: u16,
    code: i64,
    recorded: Code,
}

fn fault(name: &'static str, request: http::Request<Body>, status: u16, code: i64, recorded: Code) -> FaultRow {
    FaultRow { name, request, status, code, recorded }
}

#[tokio::test(start_paused = true)]
async fn each_fault_has_one_code() {
    let slot = AnswerSlot::new(&Answers::new(), Instant::now() + Duration::from_secs(1));
    let mut places = Vec::new();
    while let Ok(place) = slot.admit_unjudged().await {
        places.push(place);
    }
    let mut crowded = posted(call("ping", &json!({})));
    crowded.extensions_mut().insert(slot);
    let with = |header: &'static str, value: &'static str| {
        let mut request = posted(call("ping", &json!({})));
        request.headers_mut().insert(header, HeaderValue::from_static(value));
        request
    };
    let incapable = json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2026-07-28" } });
    let mut incapable = posted(call("ping", &incapable));
    incapable.headers_mut().insert("mcp-protocol-version", HeaderValue::from_static("2026-07-28"));
    let (invalid, exhausted) = (Code::InvalidArgument, Code::ResourceExhausted);
    let rows = [
        fault("a crowded connection", crowded, 429, -32_603, exhausted),
        fault(
            "a message that is late",
            broken(Status::deadline_exceeded("late")),
            504,
            -32_603,
            Code::DeadlineExceeded,
        ),
        fault("a message that breaks off", broken(Status::unknown("broken")), 400, -32_700, invalid),
        fault("a message that is too large", posted(vec![b' '; MESSAGE_BYTES_MAX + 1]), 413, -32_600, exhausted),
        fault("no JSON", posted("ping"), 400, -32_700, invalid),
        fault("a batch", posted("[]"), 400, -32_600, invalid),
        fault("another revision", with("mcp-protocol-version", "2024-11-05"), 400, -32_022, invalid),
        fault("a header that differs", with("mcp-protocol-version", "2026-07-28"), 400, -32_020, invalid),
        fault("no capabilities", incapable, 400, -32_602, invalid),
        fault("no such method", posted(call("sampling/createMessage", &json!({}))), 200, -32_601, Code::Unimplemented),
        fault("no such method, stateless", stateless("initialize", None), 404, -32_601, Code::Unimplemented),
        fault("no such tool", posted(tool("explain", &json!({}))), 200, -32_602, invalid),
        fault("no such tool, stateless", stateless("tools/call", Some("explain")), 400, -32_602, invalid),
    ];
    for FaultRow { name, request, status, code, recorded } in rows {
        let (found, headers, answer, seen) = sent(request, None).await;
        assert_eq!((found.as_u16(), &answer["error"]["code"]), (status, &json!(code)), "{name}: {answer}");
        // The record and the measures have the code of what the stack gives.
        let given: Vec<Option<Code>> = seen.routes.iter().map(|route| route.refusal().map(|why| why.code())).collect();
        assert_eq!(given, [Some(recorded)], "{name}");
        let retry_after = headers.get("retry-after").map(|value| value.to_str().unwrap());
        assert_eq!(retry_after, (status == 429).then_some("1"), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn few_questions_of_one_connection_run_at_a_time() {
    const RUNNING_MAX: usize = 16;
    let doors = Doors::new(Guards::default(), Some(McpSettings::default()), Notifications::Absent).unwrap();
    let slot = AnswerSlot::new(&Answers::new(), Instant::now() + Duration::from_secs(1));
    // The record of a question is never kept here.
    let stack = service_fn(|request: http::Request<Body>| async move {
        match Route::of(&request).refusal() {
            Some(refusal) => Err(refusal),
            None => std::future::pending::<Result<http::Response<Body>, Refusal>>().await,
        }
    });
    let asked = || {
        let mut request = posted(call("tools/list", &json!({})));
        request.extensions_mut().insert(slot.clone());
        let Arrival::Mcp(door, shape) = doors.arrival(&request) else { panic!("no message of MCP") };
        door.answered(stack, request, shape)
    };
    let mut open: FuturesUnordered<_> = (0..=RUNNING_MAX).map(|_| asked()).collect();
    let first = open.next().await.unwrap();
    assert_eq!(first.status(), StatusCode::TOO_MANY_REQUESTS, "one more waits for its place in vain");
    assert_eq!(open.len(), RUNNING_MAX, "all others still run");
}

#[tokio::test]
async fn a_resource_is_the_text_of_a_chunk() {
    let read = |uri: &str| posted(call("resources/read", &json!({ "uri": uri })));
    let (status, _, answer, seen) = sent(read("ragward://handbook/a%231"), None).await;
    let contents = json!([{ "uri": "ragward://handbook/a%231", "mimeType": "text/plain", "text": "about leave" }]);
    assert_eq!((status, &answer["result"]["contents"]), (StatusCode::OK, &contents));
    assert_eq!(FetchRequest::decode(seen.messages[0].clone()).unwrap().chunk_ids, ["a#1"]);

    let gone = || Some(Refusal::new(Code::NotFound, "there is no such collection"));
    let rows = [
        ("a URI of nothing", read("ragward://handbook/a%231"), gone(), "ragward://handbook/a%231"),
        ("no URI of a chunk", read("handbook"), None, "handbook"),
        ("another scheme", read("file:///etc/passwd"), None, "file:///etc/passwd"),
        ("no URI at all", posted(call("resources/read", &json!({}))), None, ""),
        ("a URI that is no text", posted(call("resources/read", &json!({ "uri": ["a"] }))), None, ""),
    ];
    for (row, request, refusal, uri) in rows {
        let (status, _, answer, _) = sent(request, refusal).await;
        let error = json!({ "code": -32_002, "message": tools::NOTHING_THERE, "data": { "uri": uri } });
        assert_eq!((status, &answer["error"]), (StatusCode::OK, &error), "{row}");
    }
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
    let doors = Doors::new(Guards::default(), Some(McpSettings::default()), Notifications::Absent).unwrap();
    let shut = Doors::new(Guards::default(), None, Notifications::Absent).unwrap();
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
