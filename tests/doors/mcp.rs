//! The door for MCP, as agents use it: who gets in, and what they get.

use ragward::audit::Door;
use ragward::client::Client;
use ragward::proto::retrieval::RecheckRequest;
use ragward::server_config::{McpConfig, McpSearchBy, ServerConfig};
use ragward::settings::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::doors::world::{COLLECTION, World};
use crate::support::http::{Call, Reply};
use crate::support::issuer::AUDIENCE;

pub(super) const URL: &str = "https://ragward.example/mcp";
const METADATA: &str = "/.well-known/oauth-protected-resource/mcp";
pub(super) const READ: &str = "ragward:retrieve";
const EVERYTHING: &str = "ragward:retrieve ragward:ingest ragward:administer ragward:explain ragward:assert_user";

pub(super) async fn start() -> World {
    start_with(|_| {}).await
}

/// Starts a server with other settings.
async fn start_with(change: impl FnOnce(&mut ServerConfig)) -> World {
    let mcp = McpConfig {
        url: URL.to_owned(),
        collection: Some(COLLECTION.to_owned()),
        url_key: None,
        url_hosts: Vec::new(),
        search_by: McpSearchBy::Words,
        explain: false,
    };
    World::start_with(|settings| {
        settings.server.mcp = Some(mcp);
        change(&mut settings.server);
    })
    .await
}

pub(super) fn posted(message: &Value) -> Call {
    Call::json("/mcp", message)
}

pub(super) fn tool(name: &str, arguments: &Value) -> Call {
    let params = json!({ "name": name, "arguments": arguments });
    posted(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }))
}

pub(super) fn search() -> Call {
    tool("search", &json!({ "query": "leave" }))
}

/// Returns the ids in the result of a search.
pub(super) fn found(reply: &Reply) -> Vec<String> {
    let answer = reply.json();
    let results = answer["result"]["structuredContent"]["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    results.iter().map(|result| result["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_ask_one_question_and_get_two_answers() {
    let world = start().await;
    let (anne, bob) = (world.token_for(&json!(URL), "anne", READ), world.token_for(&json!(URL), "bob", READ));
    let of_anne = found(&world.send(&search().bearer(&anne)).await);
    let of_bob = found(&world.send(&search().bearer(&bob)).await);
    assert!(!of_anne.is_empty() && of_anne.iter().all(|id| id.contains("welcome")), "{of_anne:?}");
    assert!(!of_bob.is_empty() && of_bob.iter().all(|id| id.contains("salaries")), "{of_bob:?}");

    let fetched = |id: &str, token: &str| tool("fetch", &json!({ "id": id })).bearer(token);
    let own = world.send(&fetched(&of_anne[0], &anne)).await.json();
    assert_eq!(own["result"]["structuredContent"]["id"], of_anne[0].as_str(), "{own}");
    let nothing = world.send(&fetched("handbook/nothing", &anne)).await.json();
    assert_eq!(nothing["result"]["isError"], true, "{nothing}");
    for (row, id) in [
        ("what another may see", of_bob[0].as_str()),
        ("no id", "nothing"),
        ("no collection", "/a"),
        ("another collection", "gone/a"),
    ] {
        let reply = world.send(&fetched(id, &anne)).await.json();
        assert_eq!(reply, nothing, "{row} looks like what is not there");
    }

    let named = tool("search", &json!({ "query": "leave", "user": "user:bob" })).bearer(&anne);
    assert_eq!(world.send(&named).await.json()["result"]["isError"], true, "an argument names a person");
    let meta = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "search", "arguments": { "query": "leave" }, "_meta": { "user": "user:bob", "subject": "bob" },
    } });
    let elsewhere = posted(&meta).with("x-user", "user:bob").with("mcp-session-id", "of-bob").bearer(&anne);
    assert_eq!(found(&world.send(&elsewhere).await), of_anne, "names elsewhere change nothing");

    let records = world.stop().await;
    assert_eq!(records.len(), 10, "one record for each call of a tool");
    assert!(records.iter().all(|record| record.door == Some(Door::Mcp)), "{records:?}");
    assert!(records.iter().all(|record| record.principal.is_some()), "{records:?}");
}

/// The statuses of one call at each door.
#[derive(Debug, PartialEq, Eq)]
struct Statuses {
    mcp: u16,
    connect: u16,
    rest: u16,
    grpc: Code,
    openfga: u16,
}

impl Statuses {
    /// Returns what a token gets that opens no door but, perhaps, that for MCP.
    const fn shut_but(mcp: u16) -> Self {
        Self { mcp, connect: 401, rest: 401, grpc: Code::Unauthenticated, openfga: 401 }
    }
}

/// Calls every door with one token.
async fn statuses(world: &World, token: &str) -> Statuses {
    let known = json!({ "collection": COLLECTION, "chunkIds": ["a"] });
    let connect = Call::json("/ragward.retrieval.v1.RetrievalService/Recheck", &known);
    let rest = Call::json(&format!("/v1/collections/{COLLECTION}/recheck"), &json!({ "chunkIds": ["a"] }));
    let status = async |call: Call| world.send(&call.bearer(token)).await.status;
    let client = Client::with_token(&format!("http://{}", world.address), &Secret::new(token)).unwrap();
    let message = RecheckRequest {
        collection: COLLECTION.to_owned(),
        chunk_ids: vec!["a".to_owned()],
        ..RecheckRequest::default()
    };
    let grpc = client.retrieval().recheck(message).await;
    Statuses {
        mcp: status(search()).await,
        connect: status(connect).await,
        rest: status(rest).await,
        grpc: grpc.map_or_else(|status| status.code(), |_answer| Code::Ok),
        openfga: status(Call::new("GET", "/stores")).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_doors_of_one_audience() {
    let world = start().await;
    let (agents, own) = (json!(URL), json!(AUDIENCE));
    let both = json!([AUDIENCE, URL]);
    let rows = [
        ("own, to read", &own, READ, Statuses { mcp: 401, connect: 200, rest: 200, grpc: Code::Ok, openfga: 403 }),
        (
            "own, to administer",
            &own,
            "ragward:administer",
            Statuses { mcp: 401, connect: 403, rest: 403, grpc: Code::PermissionDenied, openfga: 200 },
        ),
        (
            "own, for everything",
            &own,
            EVERYTHING,
            Statuses { mcp: 401, connect: 200, rest: 200, grpc: Code::Ok, openfga: 200 },
        ),
        ("MCP, to read", &agents, READ, Statuses::shut_but(200)),
        ("MCP, for everything", &agents, EVERYTHING, Statuses::shut_but(200)),
        ("MCP, to administer", &agents, "ragward:administer", Statuses::shut_but(403)),
        ("MCP, to assert users", &agents, "ragward:assert_user", Statuses::shut_but(403)),
        ("MCP, for nothing", &agents, "", Statuses::shut_but(403)),
        ("MCP in a list", &json!([URL]), READ, Statuses::shut_but(200)),
        ("both, to read", &both, READ, Statuses::shut_but(200)),
        ("both, for everything", &both, EVERYTHING, Statuses::shut_but(200)),
        ("both the other way round, for everything", &json!([URL, AUDIENCE]), EVERYTHING, Statuses::shut_but(200)),
        ("both, to administer", &both, "ragward:administer", Statuses::shut_but(403)),
        ("both, to assert users", &both, "ragward:assert_user", Statuses::shut_but(403)),
        ("a path below MCP's", &json!(format!("{URL}/a")), EVERYTHING, Statuses::shut_but(401)),
        ("another server", &json!("https://other.example/mcp"), EVERYTHING, Statuses::shut_but(401)),
    ];
    for (row, audience, scope, expected) in rows {
        // Twice: what the server remembers of a token at one door is nothing to another door.
        for turn in ["first", "second"] {
            let found = statuses(&world, &world.token_for(audience, "anne", scope)).await;
            assert_eq!(found, expected, "{row}, the {turn} time");
        }
    }
    let [reader, operator] = [READ, EVERYTHING].map(|scope| world.token_for(&agents, "anne", scope));
    let of_reader = found(&world.send(&search().bearer(&reader)).await);
    assert!(!of_reader.is_empty());
    assert_eq!(found(&world.send(&search().bearer(&operator)).await), of_reader, "other scopes have no effect");
    let named = tool("search", &json!({ "query": "leave", "user": "user:bob" }));
    let [of_reader, of_operator] = [&reader, &operator].map(|token| named.clone().bearer(token));
    let refused = world.send(&of_reader).await.json();
    assert_eq!(refused["result"]["isError"], true, "{refused}");
    assert_eq!(world.send(&of_operator).await.json(), refused, "nobody asks for another user");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shut_door_is_a_path_like_any_other() {
    let world = World::start().await;
    let token = world.token("anne", EVERYTHING);
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let rows = [
        ("a message", posted(&list).bearer(&token), 404),
        ("a message without a token", posted(&list), 401),
        ("GET", Call::new("GET", "/mcp").bearer(&token), 404),
        ("no JSON", posted(&list).without("content-type").bearer(&token), 404),
        ("a token for it", posted(&list).bearer(&world.token_for(&json!(URL), "anne", READ)), 401),
        ("a token for both", posted(&list).bearer(&world.token_for(&json!([URL, AUDIENCE]), "anne", READ)), 404),
    ];
    for (row, call, status) in rows {
        let reply = world.send(&call).await;
        assert_eq!(reply.status, status, "{row}: {}", reply.text());
        let other = world.send(&call.path("/nothing")).await;
        assert_eq!((reply.status, reply.text()), (other.status, other.text()), "{row}");
    }
    let metadata = world.send(&Call::new("GET", METADATA)).await;
    assert_eq!(metadata.status, 404, "{}", metadata.text());
    let records = world.stop().await;
    assert_eq!(records.len(), 12, "one record for each call, at both paths");
    for record in records {
        assert_eq!((record.door, record.call.as_str()), (Some(Door::Rest), "unknown"), "{record:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_let_in_is_told_where_to_get_a_token() {
    let world = start().await;
    let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {} });
    let listed = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let metadata = format!("resource_metadata=\"https://ragward.example{METADATA}\"");
    for (row, call) in [("initialize", posted(&initialize)), ("tools/list", posted(&listed)), ("a tool", search())] {
        let reply = world.send(&call).await;
        let challenge = reply.header("www-authenticate").unwrap_or_default();
        assert_eq!((reply.status, challenge), (401, format!("Bearer scope=\"{READ}\", {metadata}").as_str()), "{row}");
    }
    let reply = world.send(&search().bearer(&world.token_for(&json!(URL), "anne", "other"))).await;
    let expected = format!("Bearer error=\"insufficient_scope\", scope=\"{READ}\", {metadata}");
    assert_eq!((reply.status, reply.header("www-authenticate")), (403, Some(expected.as_str())));
    let text = reply.json()["error"]["message"].to_string();
    assert!(text.contains(&format!("needs the scope `{READ}`")), "{text}");

    let document = world.send(&Call::new("GET", METADATA)).await.json();
    assert_eq!((&document["resource"], &document["scopes_supported"]), (&json!(URL), &json!([READ])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_lists_fails_nobody() {
    const CONNECTIONS: usize = 32;
    const LISTS: usize = 40;
    let world = start().await;
    let token = world.token_for(&json!(URL), "bob", READ);
    let list = posted(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" })).bearer(&token);
    let list_on = list.clone().with("connection", "keep-alive").bytes(&world.address);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = TcpStream::connect(&world.address).await.unwrap();
        connection.write_all(&list_on.repeat(LISTS - 1)).await.unwrap();
        connection.write_all(&list.bytes(&world.address)).await.unwrap();
        connections.push(connection);
    }
    // Nobody has read an answer of the flood yet.
    let anne = world.token_for(&json!(URL), "anne", READ);
    let of_anne = found(&world.send(&search().bearer(&anne)).await);
    assert!(!of_anne.is_empty() && of_anne.iter().all(|id| id.contains("welcome")), "{of_anne:?}");

    let expected = world.send(&list).await;
    let end = format!("\r\n\r\n{}", expected.text());
    for (number, mut connection) in connections.into_iter().enumerate() {
        let mut answers = String::new();
        connection.read_to_string(&mut answers).await.unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), LISTS, "connection {number}");
        assert_eq!(answers.matches(end.as_str()).count(), LISTS, "connection {number}");
    }
    let records = world.stop().await;
    let lists = records.iter().filter(|record| record.call == "mcp/tools/list");
    assert_eq!(lists.count(), CONNECTIONS * LISTS + 1, "each leaves a record");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_page_may_send_what_the_protocol_needs() {
    let (page, needed) = ("https://app.example", ["authorization", "mcp-protocol-version", "mcp-method", "mcp-name"]);
    let world = start_with(|server| server.cors_origins = vec![page.to_owned()]).await;
    let asked = |origin: &str| {
        let asked = Call::new("OPTIONS", "/mcp").with("origin", origin).with("access-control-request-method", "POST");
        asked.with("access-control-request-headers", needed.join(", "))
    };
    let reply = world.send(&asked(page)).await;
    let allowed: Vec<&str> = reply.header("access-control-allow-headers").unwrap_or_default().split(", ").collect();
    assert!(reply.status < 300 && needed.iter().all(|name| allowed.contains(name)), "{reply:?}");
    assert_eq!(reply.header("access-control-allow-origin"), Some(page));
    assert_eq!(world.send(&asked("https://attacker.example")).await.status, 403, "another page");

    let anne = world.token_for(&json!(URL), "anne", READ);
    let reply = world.send(&search().with("origin", page).bearer(&anne)).await;
    assert!(!found(&reply).is_empty());
    assert_eq!(reply.header("access-control-allow-origin"), Some(page));
    let reply = world.send(&search().with("origin", page)).await;
    let exposed = reply.header("access-control-expose-headers").unwrap_or_default();
    assert!(
        reply.status == 401 && exposed.contains("www-authenticate"),
        "the page learns where to get a token: {reply:?}"
    );
}
