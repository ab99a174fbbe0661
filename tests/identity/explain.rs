//! Explanations for the bearer of a token: they rest on the token's claims as a retrieval does, and need the same right as
//! every explanation.

use ragward::identity::DelegationOn;
use ragward::identity::config::{ClaimContext, ClaimTuple, IdentityConfig};
use ragward::language::{Relation, RelationshipTuple, TypeName, dsl};
use serde_json::{Value, json};

use crate::identity::delegation::{acted, delegated};
use crate::identity::world::{MODEL, RETRIEVE, World};
use crate::support::http::{Call, Reply};

const EXPLAIN: &str = "ragward:explain";

/// Takes groups, a tenant and agents from tokens.
fn told(identity: &mut IdentityConfig) {
    delegated(DelegationOn::User, "can_act_for")(identity);
    identity.claim_tuples = vec![ClaimTuple {
        claim: "groups".to_owned(),
        relation: Relation::parse("member").unwrap(),
        object_type: TypeName::parse("group").unwrap(),
        absent: None,
    }];
    let tenant = || "tenant".to_owned();
    identity.claim_context = vec![ClaimContext { claim: tenant(), parameter: tenant(), absent: None }];
}

async fn explained(world: &World, token: &str, question: &Value) -> Reply {
    Call::json("/v1/explain", question).bearer(token).send(&world.running.address.to_string()).await
}

#[tokio::test]
async fn an_empty_user_is_the_bearer_with_all_that_the_token_tells() {
    let with_machines = |identity: &mut IdentityConfig| {
        told(identity);
        identity.machine_type = Some(TypeName::parse("client").unwrap());
    };
    let world = World::start(with_machines).await;
    let hr = ("groups", json!(["hr"]));
    let anne = world.token("anne", EXPLAIN, &[]);
    let of_hr = world.token("anne", EXPLAIN, std::slice::from_ref(&hr));
    let crawler = world.token("crawler", EXPLAIN, &[("client_id", json!("crawler"))]);
    let salaries = || json!({ "object": "document:salaries" });
    let named = |user: &str| json!({ "user": user, "object": "document:salaries" });
    let chunk = json!({ "chunk": { "collection": "handbook", "chunkId": "document:roadmap#0" } });
    let rows = [
        ("what the bearer may see", &anne, chunk, "user:anne", "document:roadmap", true),
        ("what the bearer may not see", &anne, salaries(), "user:anne", "document:salaries", false),
        ("by a group of the token", &of_hr, salaries(), "user:anne", "document:salaries", true),
        (
            "the bearer by name, without the token's groups",
            &of_hr,
            named("user:anne"),
            "user:anne",
            "document:salaries",
            false,
        ),
        ("another user", &anne, named("user:bob"), "user:bob", "document:salaries", true),
        ("a machine", &crawler, json!({ "object": "document:welcome" }), "client:crawler", "document:welcome", true),
        (
            "with a tuple of the question",
            &anne,
            json!({
                "object": "document:salaries",
                "contextualTuples": [{ "user": "user:anne", "relation": "reader", "object": "document:salaries" }],
            }),
            "user:anne",
            "document:salaries",
            true,
        ),
    ];
    for (row, token, question, user, object, allowed) in rows {
        let reply = explained(&world, token, &question).await;
        let answer = reply.json();
        assert_eq!(reply.status, 200, "{row}: {answer}");
        assert_eq!((&answer["user"], &answer["object"]), (&json!(user), &json!(object)), "{row}");
        assert_eq!(answer["allowed"].as_bool().unwrap_or_default(), allowed, "{row}: {answer}");
    }
}

#[tokio::test]
async fn explaining_oneself_needs_what_every_explanation_needs() {
    let world = World::start(told).await;
    let narrowed = ("authorization_details", json!([{ "type": "ragward_retrieval" }]));
    let tenant = ("tenant", json!("acme"));
    let question = json!({ "object": "document:welcome" });
    let in_context = |context: Value| json!({ "object": "document:welcome", "context": context });
    let rows = [
        ("no right to explain", world.token("anne", RETRIEVE, &[]), question.clone(), 403),
        (
            "all other rights",
            world.token("anne", "ragward:retrieve ragward:ingest ragward:administer", &[]),
            question.clone(),
            403,
        ),
        ("an agent", world.token("anne", EXPLAIN, &[acted("helper")]), question.clone(), 403),
        (
            "a machine that is no user",
            world.token("crawler", EXPLAIN, &[("client_id", json!("crawler"))]),
            question.clone(),
            403,
        ),
        ("a narrowed token", world.token("anne", EXPLAIN, &[narrowed]), question.clone(), 403),
        ("a value", world.token("anne", EXPLAIN, &[]), in_context(json!({ "hour": 9 })), 200),
        (
            "a value that the token sets",
            world.token("anne", EXPLAIN, &[tenant]),
            in_context(json!({ "tenant": "globex" })),
            400,
        ),
        ("the right to explain", world.token("anne", EXPLAIN, &[]), question, 200),
    ];
    for (row, token, question, status) in rows {
        let reply = explained(&world, &token, &question).await;
        assert_eq!(reply.status, status, "{row}: {}", reply.text());
    }
}

/// The model takes people out by their groups, so a token that does not tell them says too little of its bearer.
#[tokio::test]
async fn a_token_that_tells_too_little_explains_others_alone() {
    let takes_out = "define can_read: reader but not banned\n    define banned: [group#member]";
    let model = MODEL.replacen("define can_read: reader", takes_out, 1);
    let world = World::start(told).await;
    let banned = RelationshipTuple::parse("group:staff#member", "banned", "document:salaries").unwrap();
    world.running.load(dsl::load(&model).unwrap(), vec![banned]);
    let silent = world.token("operator", EXPLAIN, &[]);
    let telling = world.token("operator", EXPLAIN, &[("groups", json!(["staff"]))]);
    let own = json!({ "object": "document:welcome" });
    let of_bob = json!({ "user": "user:bob", "object": "document:welcome" });
    let rows = [
        ("itself, without groups", &silent, &own, 401),
        ("itself, with groups", &telling, &own, 200),
        ("another, without groups", &silent, &of_bob, 200),
        ("another, with groups", &telling, &of_bob, 200),
    ];
    for (row, token, question, status) in rows {
        let reply = explained(&world, token, question).await;
        assert_eq!(reply.status, status, "{row}: {}", reply.text());
    }
}
