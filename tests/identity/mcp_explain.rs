//! The tool `explain`: it is there for those who may call it, about themselves, and for all others there is none.

use ragward::audit::{Door, Record};
use serde_json::{Value, json};

use crate::identity::delegation::acted;
use crate::identity::mcp_tools::{RPCS, World, chunks};
use crate::identity::rpcs::records;
use crate::identity::world::RETRIEVE;
use crate::support::http::{Call, Reply};

const EXPLAIN: &str = "ragward:explain";
const BOTH: &str = "ragward:retrieve ragward:explain";
const ALL_BUT_EXPLAIN: &str = "ragward:retrieve ragward:ingest ragward:administer ragward:assert_user";

fn scope(scope: &str) -> (&'static str, Value) {
    ("scope", json!(scope))
}

/// Returns the names of the tools that a caller finds, in their order.
async fn listed(world: &World, token: &str) -> Vec<String> {
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let answer = sent(world, token, &message).await.json();
    let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}"));
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

async fn sent(world: &World, token: &str, message: &Value) -> Reply {
    Call::json("/mcp", message).bearer(token).send(&world.running.address.to_string()).await
}

/// Calls a tool in the newest revision of MCP, with `more` parameters of the call.
async fn called_anew(world: &World, token: &str, tool: &str, more: &Value) -> Reply {
    let revision = "2026-07-28";
    let mut params = json!({
        "name": tool,
        "arguments": { "id": "handbook/nothing" },
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": revision,
            "io.modelcontextprotocol/clientCapabilities": {},
        },
    });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let call = Call::json("/mcp", &message).bearer(token).with("mcp-protocol-version", revision);
    let call = call.with("mcp-method", "tools/call").with("mcp-name", tool);
    call.send(&world.running.address.to_string()).await
}

/// Returns what a caller can see of an answer. Only the time of it may differ.
fn seen(reply: &Reply) -> (u16, String, Vec<&str>) {
    let names = reply.headers.iter().map(|(name, _)| name.as_str()).collect();
    (reply.status, reply.text(), names)
}

fn of_mcp(records: Vec<Record>) -> Vec<Record> {
    records.into_iter().filter(|record| record.door == Some(Door::Mcp)).collect()
}

#[tokio::test]
async fn for_whoever_may_not_call_it_there_is_no_such_tool() {
    let narrowed = ("authorization_details", json!([{ "type": "ragward_retrieval" }]));
    let rows = [
        ("a reader", vec![scope(RETRIEVE)], false),
        ("all other scopes", vec![scope(ALL_BUT_EXPLAIN)], false),
        ("an agent", vec![scope(BOTH), acted("helper")], false),
        ("a narrowed token", vec![scope(BOTH), narrowed], false),
        ("who may explain", vec![scope(BOTH)], true),
    ];
    let [chunk, _] = chunks("document:roadmap");
    let arguments = [
        json!({ "id": chunk }),
        json!({ "id": "handbook/nothing" }),
        json!({ "id": chunk, "user": "user:bob" }),
        json!({ "id": 1 }),
        json!({}),
        json!([]),
        json!(null),
    ];
    let brought_back = [
        ("nothing", json!({})),
        ("a state", json!({ "requestState": "a" })),
        ("a state that is no text", json!({ "requestState": 1 })),
        ("a no", json!({ "requestState": "a", "inputResponses": { "approval": { "action": "decline" } } })),
        ("responses in a list", json!({ "inputResponses": [] })),
    ];
    for is_offered in [false, true] {
        let world = World::start_with(|mcp| mcp.explain = is_offered).await;
        for (row, claims, may_explain) in &rows {
            let row = format!("{row}, offered: {is_offered}");
            let token = world.token("anne", claims);
            let is_there = is_offered && *may_explain;
            let expected = if is_there { &["search", "fetch", "explain"][..] } else { &["search", "fetch"] };
            assert_eq!(listed(&world, &token).await, expected, "{row}");
            for arguments in &arguments {
                let unknown = world.called(&token, "no_such_tool", arguments.clone()).await;
                let found = world.called(&token, "explain", arguments.clone()).await;
                assert_eq!(unknown.json()["error"]["code"], -32_602, "{row}: {arguments}");
                assert_eq!(seen(&found) == seen(&unknown), !is_there, "{row}: {arguments}: {}", found.text());
            }
            for (of_client, more) in &brought_back {
                let unknown = called_anew(&world, &token, "no_such_tool", more).await;
                let found = called_anew(&world, &token, "explain", more).await;
                assert_eq!(unknown.json()["error"]["code"], -32_602, "{row}: {of_client}");
                assert_eq!(seen(&found) == seen(&unknown), !is_there, "{row}: {of_client}: {}", found.text());
            }
        }
        world.running.stop().await.unwrap();
        let explained = format!("{RPCS}/Explain");
        for record in of_mcp(records(world.data.path())).iter().filter(|record| record.call == explained) {
            assert!(is_offered, "{record:?}");
            // The record tells who tried.
            let may_explain = record.refusal.is_none();
            assert!(
                may_explain || (record.refusal.as_deref(), record.code.as_str()) == (Some("scope"), "INVALID_ARGUMENT")
            );
        }
    }
}

#[tokio::test]
async fn it_says_of_its_caller_what_the_rpc_says() {
    let world = World::start_with(|mcp| mcp.explain = true).await;
    let (agent, operator) = (world.token("anne", &[scope(BOTH)]), world.own_token("anne", EXPLAIN));
    let rows = [
        ("what she may see", "document:roadmap", None, true),
        ("what she may not see", "document:salaries", None, false),
        ("another relation", "document:roadmap", Some("can_edit"), true),
        ("another relation that she lacks", "document:welcome", Some("can_edit"), false),
    ];
    for (row, document, relation, allowed) in rows {
        let mut arguments = json!({ "id": chunks(document)[0] });
        let mut question = json!({ "chunk": { "collection": "handbook", "chunkId": format!("{document}#0") } });
        if let Some(relation) = relation {
            arguments["relation"] = json!(relation);
            question["relation"] = json!(relation);
        }
        let answer = world.called(&agent, "explain", arguments).await.json();
        let mut found = answer["result"]["structuredContent"].clone();
        let twin: Value = serde_json::from_str(answer["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(twin, found, "{row}: the text says the same");
        let rpc = Call::json("/v1/explain", &question).bearer(&operator).send(&world.running.address.to_string()).await;
        let mut expected = rpc.json();
        assert_eq!(rpc.status, 200, "{row}: {expected}");
        for explanation in [&mut found, &mut expected] {
            assert!(explanation["asOf"].is_string(), "{row}: {explanation}");
            explanation["asOf"] = Value::Null;
        }
        assert_eq!(found, expected, "{row}");
        assert_eq!((&found["user"], &found["allowed"]), (&json!("user:anne"), &json!(allowed)), "{row}");
    }

    let of_nothing = world.called(&agent, "explain", json!({ "id": "handbook/nothing" })).await.json();
    assert_eq!(of_nothing["result"]["isError"], true, "{of_nothing}");
    for id in ["nothing", "gone/nothing", "ragward://handbook/nothing", ""] {
        assert_eq!(world.called(&agent, "explain", json!({ "id": id })).await.json(), of_nothing, "`{id}`");
    }
    let chunk = &chunks("document:roadmap")[0];
    for name in ["user", "subject", "token", "context", "contextual_tuples", "object"] {
        let mut arguments = json!({ "id": chunk });
        arguments[name] = json!("user:bob");
        let refused = world.called(&agent, "explain", arguments).await.json();
        assert_eq!(refused["result"]["isError"], true, "`{name}`: {refused}");
    }

    world.running.stop().await.unwrap();
    let explained = format!("{RPCS}/Explain");
    let records = of_mcp(records(world.data.path()));
    assert!(records.iter().all(|record| record.call == explained), "{records:?}");
    let codes: Vec<&str> = records.iter().map(|record| record.code.as_str()).collect();
    let expected = [vec!["OK"; rows.len()], vec!["NOT_FOUND"; 5], vec!["INVALID_ARGUMENT"; 6]].concat();
    assert_eq!(codes, expected, "the record has the code of each call");
    for record in &records {
        let principal = record.principal.as_ref().unwrap();
        assert_eq!(principal.subject.as_deref(), Some("user:anne"), "{record:?}");
    }
}

#[tokio::test]
async fn the_door_asks_for_the_scope_of_its_first_tools_alone() {
    let world = World::start_with(|mcp| mcp.explain = true).await;
    let address = world.running.address.to_string();
    let document = Call::new("GET", "/.well-known/oauth-protected-resource/mcp").send(&address).await.json();
    assert_eq!(document["scopes_supported"], json!([RETRIEVE]), "{document}");
    let explain = json!({ "name": "explain", "arguments": { "id": chunks("document:roadmap")[0] } });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": explain });
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let token = world.token("anne", &[scope(EXPLAIN)]);
    for (row, message) in [("the list", &list), ("the tool", &call)] {
        let reply = sent(&world, &token, message).await;
        let challenge = reply.header("www-authenticate").unwrap_or_default();
        assert_eq!(reply.status, 403, "{row}: {}", reply.text());
        assert!(
            challenge.contains(&format!("scope=\"{RETRIEVE}\"")) && !challenge.contains(EXPLAIN),
            "{row}: {challenge}"
        );
    }
}
