//! The door for MCP, as agents use it: who gets in, and what they get.

use ragward::audit::Door;
use ragward::server_config::McpConfig;
use serde_json::{Value, json};

use crate::doors::world::{COLLECTION, World};
use crate::support::http::{Call, Reply};
use crate::support::issuer::AUDIENCE;

const URL: &str = "https://ragward.example/mcp";
const METADATA: &str = "/.well-known/oauth-protected-resource/mcp";
const READ: &str = "ragward:retrieve";
const EVERYTHING: &str = "ragward:retrieve ragward:ingest ragward:administer ragward:explain ragward:assert_user";

async fn start() -> World {
    let mcp = McpConfig { url: URL.to_owned(), collection: Some(COLLECTION.to_owned()) };
    World::start_with(|settings| settings.server.mcp = Some(mcp)).await
}

fn posted(message: &Value) -> Call {
    Call::json("/mcp", message)
}

fn tool(name: &str, arguments: &Value) -> Call {
    let params = json!({ "name": name, "arguments": arguments });
    posted(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }))
}

fn search() -> Call {
    tool("search", &json!({ "query": "leave" }))
}

/// Returns the ids in the result of a search.
fn found(reply: &Reply) -> Vec<String> {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_door_of_its_audience_alone() {
    let world = start().await;
    let route = Call::json(&format!("/v1/collections/{COLLECTION}/retrieve"), &json!({ "text": "leave", "topK": 10 }));
    let stores = Call::new("GET", "/stores");
    let (agents, own) = (json!(URL), json!(AUDIENCE));
    let rows = [
        ("MCP, for MCP", search(), &agents, READ, 200),
        ("MCP, for MCP with all scopes", search(), &agents, EVERYTHING, 200),
        ("MCP, for the other doors", search(), &own, EVERYTHING, 401),
        ("MCP, without the scope", search(), &agents, "ragward:administer", 403),
        ("our route, for MCP", route.clone(), &agents, EVERYTHING, 401),
        ("our route, for it", route, &own, READ, 200),
        ("OpenFGA's API, for MCP", stores.clone(), &agents, EVERYTHING, 401),
        ("OpenFGA's API, for it", stores, &own, EVERYTHING, 200),
    ];
    for (row, call, audience, scope, status) in rows {
        let reply = world.send(&call.bearer(&world.token_for(audience, "anne", scope))).await;
        assert_eq!(reply.status, status, "{row}: {}", reply.text());
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

    let document = world.send(&Call::new("GET", METADATA)).await.json();
    assert_eq!((&document["resource"], &document["scopes_supported"]), (&json!(URL), &json!([READ])));
}
