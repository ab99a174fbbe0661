//! Messages to the door for MCP with one thing wrong each, and names of persons in every place where somebody might look for
//! one.

use ragward::audit::Door;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tonic::codegen::{Bytes, http};

use crate::doors::mcp::{READ, URL, found, posted, search, start, tool};
use crate::support::http::{Call, Reply};

const NEWEST: &str = "2026-07-28";

/// The answer that a caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// A status of HTTP; the body is none of the protocol's.
    Status(u16),
    /// A status of HTTP, and an error of the protocol with this code.
    Fault(u16, i64),
    /// The tool failed, and its result says why.
    Failure,
}

struct Row {
    name: &'static str,
    call: Call,
    told: Told,
}

fn row(name: &'static str, call: Call, told: Told) -> Row {
    Row { name, call, told }
}

fn asked(method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

/// Returns a message of the newest revision, with the headers that belong to it.
fn newest(method: &str, params: &Value) -> Call {
    let mut params = params.clone();
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": NEWEST,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    posted(&asked(method, &params)).with("mcp-protocol-version", NEWEST).with("mcp-method", method)
}

fn newest_search() -> Call {
    newest("tools/call", &json!({ "name": "search", "arguments": { "query": "leave" } })).with("mcp-name", "search")
}

/// Returns a search with one more argument.
fn search_with(name: &str, value: Value) -> Call {
    let mut arguments = json!({ "query": "leave" });
    arguments[name] = value;
    tool("search", &arguments)
}

fn raw(body: impl Into<Vec<u8>>) -> Call {
    Call::new("POST", "/mcp").with("content-type", "application/json").body(body)
}

/// Rows about the head of a request.
fn rows_of_heads() -> Vec<Row> {
    let typed = |value: &str| search().without("content-type").with("content-type", value);
    vec![
        row("GET", search().verb("GET"), Told::Status(405)),
        row("DELETE, which ends a session elsewhere", search().verb("DELETE"), Told::Status(405)),
        row("PUT", search().verb("PUT"), Told::Status(405)),
        row("no content type", search().without("content-type"), Told::Status(415)),
        row("a form", typed("application/x-www-form-urlencoded"), Told::Status(415)),
        row("a text", typed("text/plain"), Told::Status(415)),
        row("an event stream", typed("text/event-stream"), Told::Status(415)),
        row("an encoded body", search().with("content-encoding", "gzip"), Told::Status(415)),
    ]
}

/// Rows about messages that are none, or that are in no revision.
fn rows_of_messages() -> Vec<Row> {
    let ping = asked("ping", &json!({}));
    let deep = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{}{}}}",
        "{\"a\":".repeat(2_000),
        "}".repeat(2_000)
    );
    let incapable = json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": NEWEST } });
    let incapable = posted(&asked("tools/list", &incapable)).with("mcp-protocol-version", NEWEST);
    let revision = |value: &str| posted(&ping).with("mcp-protocol-version", value);
    let mut rows = vec![
        row("a batch", raw(format!("[{ping}]")), Told::Fault(400, -32_600)),
        row("an empty batch", raw("[]"), Told::Fault(400, -32_600)),
        row("nothing", raw(""), Told::Fault(400, -32_700)),
        row("no JSON", raw("query=leave"), Told::Fault(400, -32_700)),
        row("no text", raw(vec![0xff, 0xfe]), Told::Fault(400, -32_700)),
        row("half of a message", raw("{\"jsonrpc\":\"2.0\""), Told::Fault(400, -32_700)),
        row("two messages", raw(format!("{ping}{ping}")), Told::Fault(400, -32_700)),
        row("deep JSON", raw(deep), Told::Fault(400, -32_700)),
        row("a response", raw(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), Told::Fault(400, -32_600)),
        row("a number", raw("1"), Told::Fault(400, -32_700)),
        row("a huge query", search_with("query", "a".repeat(70_000).into()), Told::Fault(413, -32_600)),
        row("an old revision", revision("2024-11-05"), Told::Fault(400, -32_022)),
        row("a revision of the future", revision("2099-01-01"), Told::Fault(400, -32_022)),
        row("no revision", revision("latest"), Told::Fault(400, -32_022)),
        row("an unknown method", posted(&asked("completion/complete", &json!({}))), Told::Fault(200, -32_601)),
        row("a method of servers", posted(&asked("sampling/createMessage", &json!({}))), Told::Fault(200, -32_601)),
        row("the newest revision's question", posted(&asked("server/discover", &json!({}))), Told::Fault(200, -32_601)),
        row("the older revision's question", newest("initialize", &json!({})), Told::Fault(404, -32_601)),
    ];
    let revision_in_header =
        |value: &str| newest_search().without("mcp-protocol-version").with("mcp-protocol-version", value);
    let differing = [
        ("the newest revision in the header alone", revision(NEWEST)),
        ("no header of the revision", newest_search().without("mcp-protocol-version")),
        ("the other revision in the header", revision_in_header("2025-11-25")),
        ("no header of the method", newest_search().without("mcp-method")),
        ("two headers of the method", newest_search().with("mcp-method", "tools/call")),
        ("another method in the header", newest_search().without("mcp-method").with("mcp-method", "tools/list")),
        ("no header of the tool", newest_search().without("mcp-name")),
        ("another tool in the header", newest_search().without("mcp-name").with("mcp-name", "fetch")),
    ];
    rows.extend(differing.into_iter().map(|(name, call)| row(name, call, Told::Fault(400, -32_020))));
    rows.push(row("no capabilities", incapable.with("mcp-method", "tools/list"), Told::Fault(400, -32_602)));
    rows
}

/// Rows about calls of tools.
fn rows_of_tools() -> Vec<Row> {
    let called = |params: Value| posted(&asked("tools/call", &params));
    let mut rows = vec![
        row("no name", called(json!({})), Told::Fault(200, -32_602)),
        row("a name that is no text", called(json!({ "name": 1 })), Told::Fault(200, -32_602)),
        row("an unknown tool", called(json!({ "name": "explain" })), Told::Fault(200, -32_602)),
        row("a tool in capitals", called(json!({ "name": "Search" })), Told::Fault(200, -32_602)),
        row("arguments in a list", called(json!({ "name": "search", "arguments": [] })), Told::Failure),
        row("no arguments", called(json!({ "name": "search" })), Told::Failure),
        row("no id", tool("fetch", &json!({})), Told::Failure),
        row(
            "a person for whom to fetch",
            tool("fetch", &json!({ "id": "handbook/a", "user": "user:bob" })),
            Told::Failure,
        ),
    ];
    let arguments = [
        ("a user", "user", json!("user:bob")),
        ("a subject", "subject", json!("bob")),
        ("a principal", "principal", json!("user:bob")),
        ("a token", "token", json!("abc")),
        ("a right", "relation", json!("owner")),
        ("a context", "context", json!({ "user": "user:bob" })),
        ("a filter that is a text", "filter", json!("area = people")),
        ("a filter that is none", "filter", json!({ "area": "people" })),
        ("a filter of two kinds", "filter", json!({ "oneOf": { "key": "a" }, "not": {} })),
        ("fewer results than none", "top_k", json!(-1)),
        ("half a result", "top_k", json!(1.5)),
        ("more results than a number counts", "top_k", json!(u64::MAX)),
        ("a query that is a list", "query", json!(["leave"])),
        ("a collection that is no text", "collection", json!(1)),
    ];
    rows.extend(arguments.into_iter().map(|(name, key, value)| row(name, search_with(key, value), Told::Failure)));
    rows
}

impl Told {
    /// Returns the code in the record and in the metrics.
    const fn recorded(self) -> &'static str {
        match self {
            Self::Status(405) | Self::Fault(_, -32_601) => "UNIMPLEMENTED",
            Self::Fault(413, _) => "RESOURCE_EXHAUSTED",
            Self::Status(_) | Self::Fault(..) | Self::Failure => "INVALID_ARGUMENT",
        }
    }
}

/// Checks an answer, which tells what is wrong and nothing of a document.
fn check(name: &str, reply: &Reply, told: Told) {
    match told {
        Told::Status(status) => assert_eq!(reply.status, status, "{name}: {}", reply.text()),
        Told::Fault(status, code) => {
            let answer = reply.json();
            assert_eq!((reply.status, &answer["error"]["code"]), (status, &json!(code)), "{name}: {answer}");
        }
        Told::Failure => {
            let answer = reply.json();
            assert_eq!((reply.status, &answer["result"]["isError"]), (200, &json!(true)), "{name}: {answer}");
        }
    }
    assert!(!reply.text().contains("about leave"), "{name}: {}", reply.text());
    assert_eq!(reply.header("mcp-session-id"), None, "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_is_refused_behind_the_gate() {
    let world = start().await;
    let token = world.token_for(&json!(URL), "anne", READ);
    let rows: Vec<Row> = [rows_of_heads(), rows_of_messages(), rows_of_tools()].into_iter().flatten().collect();
    for Row { name, call, told } in &rows {
        check(name, &world.send(&call.clone().bearer(&token)).await, *told);
        let reply = world.send(call).await;
        assert_eq!(reply.status, 401, "{name}, without a token: {}", reply.text());
        check(name, &reply, Told::Status(401));
    }
    for (name, call) in [
        ("another host", search().with("host", "attacker.example")),
        ("a foreign page", search().with("origin", "https://attacker.example")),
    ] {
        for call in [call.clone().bearer(&token), call] {
            check(name, &world.send(&call).await, Told::Status(403));
        }
    }
    assert!(!found(&world.send(&search().bearer(&token)).await).is_empty(), "the door goes on");
    let counted = world.counted().await;
    let records = world.stop().await;
    assert_eq!(records.len(), rows.len() * 2 + 5, "one record for each request");
    for (Row { name, told, .. }, codes) in rows.iter().zip(records.chunks(2)) {
        let codes: Vec<&str> = codes.iter().map(|record| record.code.as_str()).collect();
        assert_eq!(codes, [told.recorded(), "UNAUTHENTICATED"], "{name}, with a token and without");
    }
    for code in ["OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "UNAUTHENTICATED"] {
        let recorded = records.iter().filter(|record| record.code == code).count();
        let measured = counted.iter().filter(|counted| counted.door == "mcp" && counted.code == code);
        assert_eq!(measured.map(|counted| counted.count).sum::<usize>(), recorded, "{code}, in the metrics");
    }
    assert!(records.iter().all(|record| record.door == Some(Door::Mcp)), "{records:?}");
    let answered = records.iter().filter(|record| record.code == "OK");
    assert_eq!(answered.count(), 1, "the last one alone was answered");
}

/// A proxy brings the calls of many clients over one connection. Some of them have no token.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_never_end_keep_no_bearer_waiting() {
    /// As many as are read at a time before their callers are judged.
    const UNENDED: usize = 16;
    let world = start().await;
    let anne = world.token_for(&json!(URL), "anne", READ);
    let connection = TcpStream::connect(&world.address).await.unwrap();
    let (client, connection) = h2::client::handshake(connection).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let uri = format!("http://{}/mcp", world.address);
    let request = || http::Request::post(&uri).header("content-type", "application/json");
    let mut unended = Vec::new();
    for _ in 0..UNENDED {
        let mut client = client.clone().ready().await.unwrap();
        let (answer, mut body) = client.send_request(request().body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(b"{"), false).unwrap();
        unended.push((answer, body));
    }

    let head = request().header("authorization", format!("Bearer {anne}")).body(()).unwrap();
    let (answer, mut body) = client.ready().await.unwrap().send_request(head, false).unwrap();
    let search = asked("tools/call", &json!({ "name": "search", "arguments": { "query": "leave" } }));
    body.send_data(search.to_string().into(), true).unwrap();
    let mut answer = answer.await.unwrap();
    let mut text = Vec::new();
    while let Some(piece) = answer.body_mut().data().await {
        text.extend_from_slice(&piece.unwrap());
    }
    let text = String::from_utf8(text).unwrap();
    assert!(answer.status() == 200 && text.contains("welcome"), "{}: {text}", answer.status());
    drop(unended);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_persons_have_no_effect_anywhere() {
    let world = start().await;
    let anne = world.token_for(&json!(URL), "anne", READ);
    let of_anne = world.send(&search().bearer(&anne)).await;
    assert!(found(&of_anne).iter().all(|id| id.contains("welcome")), "{}", of_anne.text());
    let named = json!({ "user": "user:bob", "subject": "bob", "sub": "bob", "token": "abc", "progressToken": 1 });
    let params = json!({ "name": "search", "arguments": { "query": "leave" } });
    let mut in_meta = params.clone();
    in_meta["_meta"] = named.clone();
    let mut beside = params.clone();
    for (name, value) in named.as_object().unwrap() {
        beside[name.as_str()] = value.clone();
    }
    let mut around = asked("tools/call", &params);
    around["user"] = json!("user:bob");
    let headers = ["x-user", "x-forwarded-user", "x-remote-user", "x-ragward-user", "ragward-user", "from"];
    let with_headers = headers.into_iter().fold(search(), |call, name| call.with(name, "user:bob"));
    let rows = [
        ("in `_meta`", posted(&asked("tools/call", &in_meta))),
        ("beside the arguments", posted(&asked("tools/call", &beside))),
        ("beside the parameters", posted(&around)),
        ("in headers", with_headers),
        ("in the query", search().path("/mcp?user=user:bob&access_token=abc")),
        ("a session of somebody else", search().with("mcp-session-id", "of-bob")),
    ];
    for (name, call) in rows {
        let reply = world.send(&call.bearer(&anne)).await;
        assert_eq!((reply.status, &reply.body), (200, &of_anne.body), "{name}: {}", reply.text());
    }
    let newest = world.send(&newest_search().bearer(&anne)).await;
    assert_eq!(found(&newest), found(&of_anne), "in the newest revision");
    assert_eq!(newest.json()["result"]["resultType"], "complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_ends_nobody_elses_call() {
    let world = start().await;
    let anne = world.token_for(&json!(URL), "anne", READ);
    let expected = found(&world.send(&search().bearer(&anne)).await);
    let whole = search().bearer(&anne).bytes(&world.address);
    let rows = [
        ("within the head", &whole[..20]),
        ("within the message", &whole[..whole.len() - 10]),
        ("within the call", whole.as_slice()),
    ];
    for (name, sent) in rows {
        let mut connection = TcpStream::connect(&world.address).await.unwrap();
        connection.write_all(sent).await.unwrap();
        drop(connection);
        assert_eq!(found(&world.send(&search().bearer(&anne)).await), expected, "{name}");
    }
    // Ids are each client's own, so nobody can cancel by them.
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    let reply = world.send(&posted(&cancelled).bearer(&anne)).await;
    assert_eq!((reply.status, reply.body.len()), (202, 0));
    assert_eq!(world.send(&posted(&cancelled)).await.status, 401, "without a token");
    let codes: Vec<String> = world.stop().await.into_iter().map(|record| record.code).collect();
    let known = ["OK", "CANCELLED", "INVALID_ARGUMENT", "UNAUTHENTICATED"];
    assert!(codes.iter().all(|code| known.contains(&code.as_str())), "{codes:?}");
    assert!(codes.iter().filter(|code| *code == "OK").count() >= 5, "{codes:?}");
}
