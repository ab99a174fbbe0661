//! Calls of tools by agents that act for people: what they get, and what is recorded of them.

use ragward::audit::Door;
use ragward::identity::DelegationOn;
use ragward::identity::config::DelegationConfig;
use ragward::language::{Relation, RelationshipTuple};
use ragward::server_config::McpConfig;
use serde_json::{Value, json};

use crate::identity::delegation::acted;
use crate::identity::rpcs::records;
use crate::identity::world::{RETRIEVE, identity, start_with};
use crate::support::http::{Call, Reply};
use crate::support::issuer::{SigningKey, TestIssuer};
use crate::support::running::Running;

const URL: &str = "https://ragward.example/mcp";
const RPCS: &str = "ragward.retrieval.v1.RetrievalService";

/// A server whose agents need `agent_reader` on each guard, beside the right of the person for whom they act.
struct World {
    running: Running,
    key: SigningKey,
    issuer: TestIssuer,
    data: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let key = SigningKey::es256("key");
        let issuer = TestIssuer::start(&[&key]).await;
        let data = tempfile::tempdir().unwrap();
        let mut identity = identity(&issuer);
        let relation = Some(Relation::parse("agent_reader").unwrap());
        identity.delegation = DelegationConfig { relation, on: DelegationOn::Guard };
        let collection = Some("handbook".to_owned());
        let mcp = McpConfig { url: URL.to_owned(), collection, url_key: None, url_hosts: Vec::new() };
        let running = start_with(data.path(), identity, |config| config.server.mcp = Some(mcp)).await;
        Self { running, key, issuer, data }
    }

    fn token(&self, subject: &str, more: &[(&str, Value)]) -> String {
        let mut claims = self.issuer.claims(subject, RETRIEVE);
        claims["aud"] = json!(URL);
        for (name, value) in more {
            claims[*name] = value.clone();
        }
        self.key.sign(&claims)
    }

    async fn called(&self, token: &str, name: &str, arguments: Value) -> Reply {
        let params = json!({ "name": name, "arguments": arguments });
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let reply = Call::json("/mcp", &message).bearer(token).send(&self.running.address.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply
    }

    /// Returns the ids that a search finds, in their order.
    async fn found(&self, token: &str) -> Vec<String> {
        let answer = self.called(token, "search", json!({ "query": "leave" })).await.json();
        let results = answer["result"]["structuredContent"]["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let mut ids: Vec<String> = results.iter().map(|result| result["id"].as_str().unwrap().to_owned()).collect();
        ids.sort_unstable();
        ids
    }
}

/// Returns the ids of both chunks of a document, as a search returns them.
fn chunks(document: &str) -> [String; 2] {
    ["0", "1"].map(|chunk| format!("handbook/{}%23{chunk}", document.replace(':', "%3A")))
}

#[tokio::test]
async fn a_tuple_that_is_deleted_between_two_calls_counts_in_the_second() {
    let world = World::start().await;
    let tuple = |user: &str, relation: &str, object: &str| RelationshipTuple::parse(user, relation, object).unwrap();
    let (anne, agent) = (world.token("anne", &[]), world.token("anne", &[acted("helper")]));
    let [welcome, roadmap, draft] = ["document:welcome", "document:roadmap", "page:draft"].map(chunks);
    let fetched = async |token: &str, id: &str| world.called(token, "fetch", json!({ "id": id })).await.json();
    let text = json!("about leave");

    assert_eq!(world.found(&anne).await, [roadmap.clone(), welcome.clone(), draft.clone()].concat());
    assert_eq!(world.found(&agent).await, [welcome.clone(), draft.clone()].concat());
    assert_eq!(fetched(&anne, &roadmap[0]).await["result"]["structuredContent"]["text"], text);
    assert_eq!(fetched(&agent, &draft[0]).await["result"]["structuredContent"]["text"], text);
    let nothing = fetched(&anne, "handbook/nothing").await;
    assert_eq!(nothing["result"]["isError"], true, "{nothing}");

    world.running.delete(tuple("user:anne", "reader", "document:roadmap"));
    assert_eq!(world.found(&anne).await, [welcome.clone(), draft.clone()].concat(), "without the person's right");
    assert_eq!(fetched(&anne, &roadmap[0]).await, nothing, "without the person's right");

    world.running.delete(tuple("agent:helper", "agent_reader", "page:draft"));
    assert_eq!(world.found(&agent).await, welcome, "without the agent's right");
    assert_eq!(fetched(&agent, &draft[0]).await, nothing, "without the agent's right");
    assert_eq!(world.found(&anne).await, [welcome.clone(), draft.clone()].concat(), "the person needs no agent");

    world.running.write(vec![tuple("agent:helper", "agent_reader", "page:draft")]);
    assert_eq!(world.found(&agent).await, [welcome, draft].concat(), "with the right again");
}

/// The name of a row, the token, the tool and its arguments; the RPC, the code and the agents in the record.
type Row<'a> = (&'a str, &'a str, &'a str, Value, &'a str, &'a str, &'a [&'a str]);

#[tokio::test]
async fn records_name_the_person_and_the_agents() {
    let world = World::start().await;
    let anne = world.token("anne", &[]);
    let through = world.token("anne", &[("act", json!({ "sub": "helper", "act": { "sub": "planner" } }))]);
    let welcome = &chunks("document:welcome")[0];
    let (search, fetch) = (json!({ "query": "leave" }), json!({ "id": welcome }));
    let of_agents = ["agent:helper", "agent:planner"].as_slice();
    let rows: [Row<'_>; 6] = [
        ("a search", &anne, "search", search.clone(), "Retrieve", "OK", &[]),
        ("a fetch", &anne, "fetch", fetch.clone(), "Fetch", "OK", &[]),
        ("a search of agents", &through, "search", search, "Retrieve", "OK", of_agents),
        ("a fetch of agents", &through, "fetch", fetch, "Fetch", "OK", of_agents),
        ("no id", &through, "fetch", json!({ "id": "nothing" }), "Fetch", "NOT_FOUND", of_agents),
        (
            "an argument that names a person",
            &through,
            "search",
            json!({ "query": "leave", "user": "user:bob" }),
            "Retrieve",
            "INVALID_ARGUMENT",
            of_agents,
        ),
    ];
    for (_, token, name, arguments, ..) in &rows {
        world.called(token, name, arguments.clone()).await;
    }
    world.running.stop().await.unwrap();
    let records: Vec<_> =
        records(world.data.path()).into_iter().filter(|record| record.door == Some(Door::Mcp)).collect();
    assert_eq!(records.len(), rows.len(), "one record for each call of a tool: {records:?}");
    for (record, (row, _, _, _, rpc, code, actors)) in records.iter().zip(&rows) {
        assert_eq!((record.call.as_str(), record.code.as_str()), (format!("{RPCS}/{rpc}").as_str(), *code), "{row}");
        let principal = record.principal.as_ref().unwrap_or_else(|| panic!("{row}: {record:?}"));
        assert_eq!(principal.subject.as_deref(), Some("user:anne"), "{row}");
        assert_eq!(principal.actors, *actors, "{row}");
        assert_eq!(principal.client_id.as_deref(), Some("assistant"), "{row}");
        assert_eq!(principal.asserted_by, None, "{row}");
        assert_eq!(record.released.is_some(), *code == "OK", "{row}: {record:?}");
    }
}
