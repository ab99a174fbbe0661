//! Requests with one thing wrong each. Every refusal is JSON with the true status, and record and metrics tell the code that
//! is on the wire.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::doors::world::{Counted, World};
use crate::support::http::{Call, Reply};
use crate::support::running::{Running, config};

const REST: &str = "/v1/collections/handbook/retrieve";
const CONNECT: &str = "/ragward.retrieval.v1.RetrievalService/Retrieve";
const RETRIEVE: &str = "ragward.retrieval.v1.RetrievalService/Retrieve";
const CREATE_STORE: &str = "openfga.v1.OpenFGAService/CreateStore";
const GET_STORE: &str = "openfga.v1.OpenFGAService/GetStore";
const LIST_STORES: &str = "openfga.v1.OpenFGAService/ListStores";
const CHECK: &str = "openfga.v1.OpenFGAService/Check";
/// The record's name for a path that names no RPC.
const UNKNOWN: &str = "unknown";
/// The largest body of a request for chunks: four times the largest message.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest body of a request to `OpenFGA`'s API, by the same rule.
const OPENFGA_BODY_BYTES_MAX: usize = 4 * 512 * 1_204;

struct Row {
    name: String,
    call: Call,
    status: u16,
    /// The code in the body; empty for an answer.
    told: String,
    /// The code in record and metrics.
    code: &'static str,
    rpc: &'static str,
}

/// Returns a row of the doors to Ragward's own services, where the body's code is that of gRPC in small letters.
fn ours(name: &str, call: Call, status: u16, code: &'static str, rpc: &'static str) -> Row {
    let told = if code == "OK" { String::new() } else { code.to_lowercase() };
    Row { name: name.to_owned(), call, status, told, code, rpc }
}

/// Returns a row of `OpenFGA`'s HTTP API, which has names of its own.
fn theirs(name: &str, call: Call, status: u16, told: &str, code: &'static str, rpc: &'static str) -> Row {
    Row { name: format!("OpenFGA's API: {name}"), call, status, told: told.to_owned(), code, rpc }
}

fn nested(depth: usize) -> String {
    format!("{}{{}}{}", "{\"not\":".repeat(depth), "}".repeat(depth))
}

/// Returns rows about the body of a retrieval, which hold for both doors to it. `good` is an answered request.
fn rows_of_bodies(door: &str, good: &Call, fields: &Value) -> Vec<Row> {
    let fields = fields.to_string();
    let with = |more: &str| format!("{},{more}}}", fields.trim_end_matches('}'));
    let invalid: [(&str, Vec<u8>); 14] = [
        ("no JSON", b"text=leave&top_k=3".to_vec()),
        ("an empty body", Vec::new()),
        ("a half", fields.as_bytes()[..fields.len() - 1].to_vec()),
        ("two values", format!("{fields} {fields}").into()),
        ("a list", format!("[{fields}]").into()),
        ("null", b"null".to_vec()),
        ("a text", b"\"leave\"".to_vec()),
        ("bytes that are no text", b"{\"text\":\"\xff\"}".to_vec()),
        ("a byte order mark", [b"\xef\xbb\xbf".as_slice(), fields.as_bytes()].concat()),
        ("an unknown field", with("\"nope\":1").into()),
        ("a field twice", with("\"topK\":4").into()),
        ("a number in place of a text", with("\"pageToken\":1").into()),
        ("a name that its enum lacks", with("\"consistency\":\"SOON\"").into()),
        ("too deep", with(&format!("\"filter\":{}", nested(10_000))).into()),
    ];
    let invalid = invalid.map(|(name, body)| (name, good.clone().body(body), 400, "INVALID_ARGUMENT"));
    let typed = |value: &str| good.clone().without("content-type").with("content-type", value);
    let more = [
        ("as it should be", good.clone(), 200, "OK"),
        ("as large as may be", good.clone().body(padded(&fields, BODY_BYTES_MAX)), 200, "OK"),
        ("too large", good.clone().body(padded(&fields, BODY_BYTES_MAX + 1)), 413, "RESOURCE_EXHAUSTED"),
        ("GET", good.clone().verb("GET"), 405, "UNIMPLEMENTED"),
        ("HEAD", good.clone().verb("HEAD"), 405, "UNIMPLEMENTED"),
        ("PUT", good.clone().verb("PUT"), 405, "UNIMPLEMENTED"),
        ("DELETE", good.clone().verb("DELETE"), 405, "UNIMPLEMENTED"),
        ("OPTIONS", good.clone().verb("OPTIONS"), 405, "UNIMPLEMENTED"),
        ("an unknown verb", good.clone().verb("FETCH"), 405, "UNIMPLEMENTED"),
        ("JSON of a charset", typed("application/json; charset=utf-8"), 200, "OK"),
        ("no type", good.clone().without("content-type"), 415, "INVALID_ARGUMENT"),
        ("plain text", typed("text/plain"), 415, "INVALID_ARGUMENT"),
        ("a form", typed("application/x-www-form-urlencoded"), 415, "INVALID_ARGUMENT"),
        ("a form with files", typed("multipart/form-data; boundary=a"), 415, "INVALID_ARGUMENT"),
        ("a beginning of a type", typed("application/jsonp"), 415, "INVALID_ARGUMENT"),
        ("two types", good.clone().with("content-type", "text/plain"), 415, "INVALID_ARGUMENT"),
        ("another encoding", good.clone().with("content-encoding", "br"), 415, "INVALID_ARGUMENT"),
        ("HTTP/1.0", good.clone().version("HTTP/1.0"), 200, "OK"),
    ];
    let encoded = |body: Vec<u8>| good.clone().with("content-encoding", "gzip").body(body);
    let as_gzip = encoded(gzip(fields.as_bytes()));
    let compressed = match door {
        // Clients of Connect may compress.
        "Connect" => vec![
            ("gzip", as_gzip, 200, "OK"),
            ("gzip, as large as may be", encoded(gzip(&padded(&fields, BODY_BYTES_MAX))), 200, "OK"),
            (
                "gzip that becomes too large",
                encoded(gzip(&padded(&fields, BODY_BYTES_MAX + 1))),
                413,
                "RESOURCE_EXHAUSTED",
            ),
            ("gzip that is none", encoded(fields.clone().into()), 400, "INVALID_ARGUMENT"),
            ("gzip twice", encoded(gzip(&gzip(fields.as_bytes()))), 400, "INVALID_ARGUMENT"),
        ],
        _ => vec![("gzip", as_gzip, 415, "INVALID_ARGUMENT")],
    };
    let rows = more.into_iter().chain(compressed).chain(invalid);
    let rpc = |status: u16| if door == "REST" && status == 405 { UNKNOWN } else { RETRIEVE };
    rows.map(|(name, call, status, code)| ours(&format!("{door}: {name}"), call, status, code, rpc(status))).collect()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn padded(fields: &str, bytes: usize) -> Vec<u8> {
    let mut body = vec![b' '; bytes - fields.len()];
    body.extend_from_slice(fields.as_bytes());
    body
}

/// Returns rows about the head of a request to our own routes.
fn rows_of_heads(good: &Call, plain: &Call, tokens: &Tokens) -> Vec<Row> {
    let at = |path: &str| good.clone().path(path);
    let missing = |name: &str, path: &str| ours(name, at(path), 404, "NOT_FOUND", UNKNOWN);
    let wrong = |name: &str, call: Call| ours(name, call, 401, "UNAUTHENTICATED", RETRIEVE);
    let foreign = |name: &str, call: Call| ours(name, call, 403, "PERMISSION_DENIED", UNKNOWN);
    vec![
        ours("an id in percents", at("/v1/collections/%68andbook/retrieve"), 200, "OK", RETRIEVE),
        ours("an unknown id", at("/v1/collections/absent/retrieve"), 404, "NOT_FOUND", RETRIEVE),
        ours("a slash in percents", at("/v1/collections/a%2Fb/retrieve"), 400, "INVALID_ARGUMENT", RETRIEVE),
        ours("percents of percents", at("/v1/collections/%2568andbook/retrieve"), 400, "INVALID_ARGUMENT", RETRIEVE),
        ours(
            "another collection in the body",
            good.clone().body(r#"{"collection":"other","text":"leave","topK":3}"#),
            400,
            "INVALID_ARGUMENT",
            RETRIEVE,
        ),
        missing("a trailing slash", "/v1/collections/handbook/retrieve/"),
        missing("a doubled slash", "//v1/collections/handbook/retrieve"),
        missing("a literal in percents", "/v1/collections/handbook/%72etrieve"),
        missing("capitals", "/v1/Collections/handbook/retrieve"),
        missing("percents that are no text", "/v1/collections/%FF/retrieve"),
        missing("an unknown path", "/v1/nothing"),
        missing("the root", "/"),
        missing("a trailing slash at Connect", "/ragward.retrieval.v1.RetrievalService/Retrieve/"),
        missing("an unknown method at Connect", "/ragward.retrieval.v1.RetrievalService/Nothing"),
        wrong("no token", plain.clone()),
        wrong("a token that is none", plain.clone().bearer("nonsense")),
        wrong("authorization twice", good.clone().bearer(&tokens.reader)),
        wrong("authorization twice, one of them wrong", good.clone().bearer("nonsense")),
        wrong("a password", plain.clone().with("authorization", "Basic YW5uZTpw")),
        wrong("a token in the URL", plain.clone().path(&format!("{REST}?access_token={}", tokens.reader))),
        wrong("a token in a cookie", plain.clone().with("cookie", format!("access_token={}", tokens.reader))),
        wrong("no JSON and no token", plain.clone().body("text=leave")),
        ours("no token, wrong verb", plain.clone().verb("GET"), 401, "UNAUTHENTICATED", UNKNOWN),
        ours("no token, unknown path", plain.clone().path("/v1/nothing"), 401, "UNAUTHENTICATED", UNKNOWN),
        ours("another scope", plain.clone().bearer(&tokens.administrator), 403, "PERMISSION_DENIED", RETRIEVE),
        foreign("no host", good.clone().without("host")),
        foreign("no host, HTTP/1.0", good.clone().without("host").version("HTTP/1.0")),
        foreign("two hosts", good.clone().with("host", "localhost").with("host", "localhost")),
        foreign("another host", good.clone().with("host", "attacker.example")),
        foreign("another host in the request line", at("http://attacker.example/v1/collections/handbook/retrieve")),
        foreign("another origin", good.clone().with("origin", "https://attacker.example")),
    ]
}

/// Returns rows about `OpenFGA`'s HTTP API. `store` is the id of a store.
fn rows_of_openfga(store: &str, tokens: &Tokens) -> Vec<Row> {
    let stores = |body: &str| Call::json("/stores", &json!({})).bearer(&tokens.administrator).body(body);
    let at = |verb: &str, path: &str| Call::new(verb, path).bearer(&tokens.administrator);
    let refused =
        |name: &str, body: &str| theirs(name, stores(body), 400, "validation_error", "INVALID_ARGUMENT", CREATE_STORE);
    let missing = |name: &str, verb: &str, path: &str| {
        theirs(name, at(verb, path), 404, "undefined_endpoint", "NOT_FOUND", UNKNOWN)
    };
    let checked = Call::json(&format!("/stores/{store}/check"), &json!({})).bearer(&tokens.administrator);
    let deep = format!("{{\"context\":{}}}", nested(10_000));
    let large = padded("{\"name\":\"large\"}", OPENFGA_BODY_BYTES_MAX + 1);
    let plain = stores("{\"name\":\"plain\"}").without("content-type");
    let (first, rest) = store.split_at(1);
    let in_percents = format!("/stores/%{:02X}{rest}", first.as_bytes()[0]);
    vec![
        theirs("an unknown field", stores(r#"{"name":"more","nope":1}"#), 201, "", "OK", CREATE_STORE),
        theirs("an id in percents", at("GET", &in_percents), 200, "", "OK", GET_STORE),
        refused("no JSON", "name=doors"),
        refused("half an object", "{\"name\":\"doors\""),
        refused("an empty body", ""),
        refused("a list", "[]"),
        theirs("too deep", checked.clone().body(deep), 400, "validation_error", "INVALID_ARGUMENT", CHECK),
        theirs(
            "a field that is missing",
            checked.clone(),
            400,
            "tuple_key_value_not_specified",
            "INVALID_ARGUMENT",
            CHECK,
        ),
        theirs("too large", stores("").body(large), 413, "resource_exhausted", "RESOURCE_EXHAUSTED", CREATE_STORE),
        theirs("another verb", at("PUT", "/stores"), 404, "unimplemented", "UNIMPLEMENTED", UNKNOWN),
        theirs("HEAD", at("HEAD", "/stores"), 404, "unimplemented", "UNIMPLEMENTED", UNKNOWN),
        theirs("no type", plain.clone(), 415, "validation_error", "INVALID_ARGUMENT", CREATE_STORE),
        theirs(
            "plain text",
            plain.with("content-type", "text/plain"),
            415,
            "validation_error",
            "INVALID_ARGUMENT",
            CREATE_STORE,
        ),
        missing("a trailing slash", "POST", &format!("/stores/{store}/check/")),
        missing("an unknown path", "POST", &format!("/stores/{store}/nothing")),
        theirs("no token", Call::new("GET", "/stores"), 401, "unauthenticated", "UNAUTHENTICATED", LIST_STORES),
        theirs(
            "a reader's token",
            Call::new("GET", "/stores").bearer(&tokens.reader),
            403,
            "forbidden",
            "PERMISSION_DENIED",
            LIST_STORES,
        ),
        theirs(
            "another origin",
            at("GET", "/stores").with("origin", "null"),
            403,
            "forbidden",
            "PERMISSION_DENIED",
            UNKNOWN,
        ),
        theirs(
            "an unknown store",
            at("GET", "/stores/01JZZZZZZZZZZZZZZZZZZZZZZZ"),
            404,
            "store_id_not_found",
            "NOT_FOUND",
            GET_STORE,
        ),
    ]
}

struct Tokens {
    reader: String,
    administrator: String,
}

fn assert_told(row: &Row, reply: &Reply) {
    let Row { name, status, told, .. } = row;
    assert_eq!(reply.status, *status, "{name}: {}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{name}");
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{name}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{name}");
    assert_eq!(reply.header("www-authenticate").is_some(), *status == 401 || told_of_scope(row), "{name}");
    let is_of_verb = row.code == "UNIMPLEMENTED";
    assert_eq!(reply.header("allow").is_some(), is_of_verb, "{name}");
    if name.contains("HEAD") {
        assert!(reply.body.is_empty(), "{name}");
    } else if !told.is_empty() {
        let body = reply.json();
        assert_eq!(body["code"], json!(told), "{name}: {body}");
        assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "{name}: {body}");
    }
}

/// Returns whether the gate refused because of the token's scope, which the challenge names.
fn told_of_scope(row: &Row) -> bool {
    row.status == 403 && row.rpc != UNKNOWN
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_json_and_told_alike_everywhere() {
    let world = World::start().await;
    let tokens = Tokens {
        reader: world.token("anne", "ragward:retrieve"),
        administrator: world.token("anne", "ragward:administer"),
    };
    let fields = json!({ "text": "leave", "topK": 3 });
    let plain = Call::json(REST, &fields);
    let good = plain.clone().bearer(&tokens.reader);
    let named = json!({ "collection": "handbook", "text": "leave", "topK": 3 });
    let connect = Call::json(CONNECT, &named).bearer(&tokens.reader);
    let made = Call::json("/stores", &json!({ "name": "doors" })).bearer(&tokens.administrator);
    let store = world.send(&made).await;
    assert_eq!(store.status, 201, "{}", store.text());
    let store = store.json()["id"].as_str().unwrap().to_owned();

    let mut rows = rows_of_bodies("REST", &good, &fields);
    rows.extend(rows_of_bodies("Connect", &connect, &named));
    rows.extend(rows_of_heads(&good, &plain, &tokens));
    rows.extend(rows_of_openfga(&store, &tokens));
    for row in &rows {
        assert_told(row, &world.send(&row.call).await);
    }

    let counted = world.counted().await;
    let records = world.stop().await;
    let told: Vec<(&str, &str, &str)> = [("the store is made", CREATE_STORE, "OK")]
        .into_iter()
        .chain(rows.iter().map(|row| (row.name.as_str(), row.rpc, row.code)))
        .collect();
    for (record, (name, rpc, code)) in records.iter().zip(&told) {
        assert_eq!((record.call.as_str(), record.code.as_str()), (*rpc, *code), "the record of `{name}`");
    }
    assert_eq!(records.len(), told.len(), "one record for each request");
    let mut expected: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (_, rpc, code) in told {
        *expected.entry((rpc, code)).or_default() += 1;
    }
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for Counted { rpc, code, count, .. } in &counted {
        *counts.entry((rpc.as_str(), code.as_str())).or_default() += count;
    }
    assert_eq!(counts, expected, "the metrics");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_token_sends_no_large_request() {
    let world = World::start().await;
    let rows = [("a name", 100, 404), ("a long name", 2_000, 413), ("as large as a search may be", 1_000_000, 413)];
    for (row, bytes, status) in rows {
        let check = Call::json("/grpc.health.v1.Health/Check", &json!({ "service": "a".repeat(bytes) }));
        assert_eq!(world.send(&check).await.status, status, "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_a_status() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(&config(data.path())).await;
    let empty = Call::new("GET", "/healthz").send(&running.address.to_string()).await;
    assert_eq!((empty.status, empty.json()), (503, json!({ "status": "NOT_SERVING" })), "no model is loaded");
    let full = World::start().await.send(&Call::new("GET", "/healthz")).await;
    assert_eq!((full.status, full.json()), (200, json!({ "status": "SERVING" })), "a model is loaded");
}

/// Proxies write such headers for servers that believe them.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_name_a_user_change_nothing() {
    let world = World::start().await;
    let good = Call::json(REST, &json!({ "text": "leave", "topK": 10 }));
    let good = good.bearer(&world.token("anne", "ragward:retrieve"));
    let seen = |reply: &Reply| {
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["chunks"].clone()
    };
    let plain = seen(&world.send(&good).await);
    let ids: Vec<&str> = plain.as_array().unwrap().iter().filter_map(|chunk| chunk["id"].as_str()).collect();
    assert_eq!(ids.len(), 2, "{plain}");
    assert!(ids.iter().all(|id| id.starts_with("document:welcome")), "{ids:?}");
    let rows = [
        ("x-user", "user:bob"),
        ("x-user-id", "bob"),
        ("x-remote-user", "bob"),
        ("remote-user", "bob"),
        ("x-forwarded-user", "user:bob"),
        ("x-forwarded-email", "bob@example.com"),
        ("x-auth-request-user", "bob"),
        ("x-authenticated-userid", "bob"),
        ("x-ragward-user", "user:bob"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1;host=attacker.example"),
        ("x-forwarded-host", "attacker.example"),
        ("x-original-url", "/stores"),
        ("x-rewrite-url", "/stores"),
        ("x-http-method-override", "DELETE"),
        ("x-client-cert", "subject=bob"),
        ("x-forwarded-client-cert", "By=spiffe://example/a;Hash=00;URI=spiffe://example/bob"),
        ("x-ssl-client-s-dn", "CN=bob"),
        ("cookie", "user=bob"),
    ];
    for (name, value) in rows {
        assert_eq!(seen(&world.send(&good.clone().with(name, value)).await), plain, "{name}");
    }
    for query in ["user=user:bob", "topK=1", "nope=1", "access_token=x"] {
        let asked = good.clone().path(&format!("{REST}?{query}"));
        assert_eq!(seen(&world.send(&asked).await), plain, "a URL with {query}");
    }
}
