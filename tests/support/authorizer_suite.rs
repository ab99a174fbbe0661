//! The answers that every authorizer must give. An adapter loads [`model`] and [`tuples`] in its own way and is then
//! handed to [`run`].
//!
//! ```text
//! type user
//! type group
//!   define member: [user, user with at_work, user:*, group#member]
//! type folder
//!   define parent: [folder]
//!   define owner: [user]
//!   define viewer: [user, user:*, group#member] or owner or viewer from parent
//! type document
//!   define parent: [folder]
//!   define owner: [user]
//!   define approved: [user, user:*, user:* with at_work]
//!   define blocked: [user, user with at_work, group#member]
//!   define editor: [user, group#member] or owner
//!   define viewer: [user, user with at_work, user with halved, user:*, group#member] or editor or viewer from parent
//!   define can_read: viewer but not blocked
//!   define can_publish: editor and approved
//! condition at_work(hour: int) { hour >= 9 && hour < 17 }
//! condition halved(by: int) { 10 / by == 5 }
//! ```

use std::sync::Arc;
use std::time::Duration;

use ragward::authz::{Authorizer, Check, CheckBatch, Consistency, VisibleSetQuery};
use ragward::engine::Contextual;
use ragward::language::{Object, Relation, RelationshipTuple, TupleCondition};
use serde_json::{Value, json};
use tokio::time::Instant;

/// A deadline that is long enough for a busy machine. No test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A question (user, relation, object), and whether it is allowed.
type Row = (&'static str, &'static str, &'static str, bool);

const TUPLES: [(&str, &str, &str); 31] = [
    ("user:anne", "member", "group:eng"),
    ("user:bob", "member", "group:eng"),
    ("group:leads#member", "member", "group:eng"),
    ("user:lea", "member", "group:leads"),
    ("user:*", "member", "group:all"),
    // Each group contains the other.
    ("group:left#member", "member", "group:right"),
    ("group:right#member", "member", "group:left"),
    ("user:zed", "member", "group:left"),
    ("folder:root", "parent", "folder:sub"),
    ("folder:sub", "parent", "folder:deep"),
    ("group:eng#member", "viewer", "folder:root"),
    ("user:fay", "owner", "folder:deep"),
    ("folder:deep", "parent", "document:plan"),
    ("user:bob", "blocked", "document:plan"),
    ("user:carl", "owner", "document:own"),
    ("user:carl", "approved", "document:own"),
    ("user:carl", "owner", "document:draft"),
    ("user:dan", "approved", "document:own"),
    ("user:*", "approved", "document:open"),
    ("group:leads#member", "editor", "document:open"),
    ("user:*", "viewer", "document:public"),
    ("group:leads#member", "blocked", "document:public"),
    ("group:all#member", "viewer", "document:all"),
    ("group:right#member", "viewer", "document:cycle"),
    ("user:pipe|under_'quote\"é@example.com", "viewer", "document:odd/id?x=1&y='\"|é"),
    ("user:case", "viewer", "document:Case"),
    ("group:eng", "parent", "document:plan"),
    ("user:eve", "owner", "document:someday"),
    ("user:carl", "owner", "document:timed"),
    ("user:dora", "viewer", "document:doubt"),
    ("group:shift#member", "viewer", "document:rota"),
];

/// User, relation, object, condition and its stored context. If the context has no hour, the request brings none
/// either.
const TUPLES_WITH_CONDITIONS: [(&str, &str, &str, &str, &str); 8] = [
    ("user:cora", "viewer", "document:day", "at_work", r#"{"hour": 10}"#),
    ("user:cora", "viewer", "document:night", "at_work", r#"{"hour": 20}"#),
    ("user:cora", "viewer", "document:someday", "at_work", ""),
    ("user:eve", "viewer", "document:someday", "at_work", ""),
    ("user:cora", "viewer", "document:zero", "halved", r#"{"by": 0}"#),
    ("user:cora", "member", "group:shift", "at_work", ""),
    ("user:*", "approved", "document:timed", "at_work", ""),
    ("user:dora", "blocked", "document:doubt", "at_work", ""),
];

const ROWS: [Row; 64] = [
    // Direct relations.
    ("user:anne", "member", "group:eng", true),
    ("user:carl", "member", "group:eng", false),
    ("user:carl", "owner", "document:own", true),
    ("user:anne", "owner", "document:own", false),
    // Computed, through two steps.
    ("user:carl", "editor", "document:own", true),
    ("user:carl", "viewer", "document:own", true),
    ("user:carl", "can_read", "document:own", true),
    ("user:anne", "can_read", "document:own", false),
    // Usersets and nested groups.
    ("user:lea", "member", "group:eng", true),
    ("user:anne", "member", "group:leads", false),
    ("user:lea", "editor", "document:open", true),
    ("user:anne", "editor", "document:open", false),
    // Groups that contain each other.
    ("user:zed", "member", "group:left", true),
    ("user:zed", "member", "group:right", true),
    ("user:zed", "can_read", "document:cycle", true),
    ("user:anne", "member", "group:right", false),
    ("user:anne", "can_read", "document:cycle", false),
    // Tuple to userset, through three folders.
    ("user:anne", "viewer", "folder:root", true),
    ("user:anne", "viewer", "folder:deep", true),
    ("user:anne", "can_read", "document:plan", true),
    ("user:lea", "can_read", "document:plan", true),
    ("user:fay", "can_read", "document:plan", true),
    ("user:fay", "viewer", "folder:sub", false),
    ("user:carl", "can_read", "document:plan", false),
    // `but not`.
    ("user:bob", "viewer", "document:plan", true),
    ("user:bob", "can_read", "document:plan", false),
    ("user:lea", "viewer", "document:public", true),
    ("user:lea", "can_read", "document:public", false),
    ("user:anne", "can_read", "document:public", true),
    // `and`.
    ("user:carl", "can_publish", "document:own", true),
    ("user:carl", "can_publish", "document:draft", false),
    ("user:dan", "can_publish", "document:own", false),
    ("user:lea", "can_publish", "document:open", true),
    ("user:anne", "can_publish", "document:open", false),
    // Wildcards stand for users, not for other types.
    ("user:nobody-knows", "viewer", "document:public", true),
    ("user:nobody-knows", "member", "group:all", true),
    ("user:nobody-knows", "can_read", "document:all", true),
    ("user:nobody-knows", "approved", "document:open", true),
    ("group:eng", "viewer", "document:public", false),
    ("group:eng", "viewer", "folder:root", false),
    // Conditions that are met, that are not met, and that fail. A failed condition lets nobody in and fails no request.
    ("user:cora", "can_read", "document:day", true),
    ("user:cora", "can_read", "document:night", false),
    ("user:cora", "can_read", "document:someday", false),
    ("user:cora", "can_read", "document:zero", false),
    ("user:cora", "member", "group:shift", false),
    ("user:cora", "can_read", "document:rota", false),
    ("user:eve", "can_read", "document:someday", true),
    ("user:carl", "approved", "document:timed", false),
    ("user:carl", "can_publish", "document:timed", false),
    ("user:dora", "viewer", "document:doubt", true),
    ("user:dora", "can_read", "document:doubt", false),
    // Names are taken byte by byte.
    ("user:pipe|under_'quote\"é@example.com", "can_read", "document:odd/id?x=1&y='\"|é", true),
    ("user:pipe|under_'quote\"é@example.com", "can_read", "document:odd/id?x=1&y='\"|e\u{301}", false),
    ("user:case", "can_read", "document:Case", true),
    ("user:case", "can_read", "document:case", false),
    ("user:Case", "can_read", "document:Case", false),
    // Names that nobody wrote, or that the model does not have.
    ("user:anne", "can_read", "document:absent", false),
    ("user:absent", "can_read", "document:plan", false),
    ("user:anne", "can_fly", "document:plan", false),
    ("user:anne", "can_read", "folder:root", false),
    ("user:anne", "can_read", "planet:mars", false),
    ("robot:r2", "can_read", "document:public", false),
    ("robot:r2", "can_fly", "planet:mars", false),
    ("user:anne", "can_read", "docu'ment:plan", false),
];

/// Returns the model in `OpenFGA`'s JSON form.
pub(crate) fn model() -> Value {
    let this = || json!({ "this": {} });
    let computed = |relation: &str| json!({ "computedUserset": { "relation": relation } });
    let from_parent = |relation: &str| {
        let (tupleset, computed) = (json!({ "relation": "parent" }), json!({ "relation": relation }));
        json!({ "tupleToUserset": { "tupleset": tupleset, "computedUserset": computed } })
    };
    let union = |children: Vec<Value>| json!({ "union": { "child": children } });
    let (user, group, folder) = (json!({ "type": "user" }), json!({ "type": "group" }), json!({ "type": "folder" }));
    let everybody = json!({ "type": "user", "wildcard": {} });
    let user_with = |condition: &str| json!({ "type": "user", "condition": condition });
    let everybody_at_work = json!({ "type": "user", "wildcard": {}, "condition": "at_work" });
    let condition = |name: &str, expression: &str, parameter: &str| {
        let parameters = json!({ parameter: { "type_name": "TYPE_NAME_INT" } });
        json!({ "name": name, "expression": expression, "parameters": parameters })
    };
    let members = json!({ "type": "group", "relation": "member" });
    let direct = |types: &[&Value]| json!({ "directly_related_user_types": types });
    json!({
        "schema_version": "1.1",
        "type_definitions": [
            { "type": "user" },
            {
                "type": "group",
                "relations": { "member": this() },
                "metadata": { "relations": { "member": direct(&[&user, &user_with("at_work"), &everybody, &members]) } },
            },
            {
                "type": "folder",
                "relations": {
                    "parent": this(),
                    "owner": this(),
                    "viewer": union(vec![this(), computed("owner"), from_parent("viewer")]),
                },
                "metadata": { "relations": {
                    "parent": direct(&[&folder]),
                    "owner": direct(&[&user]),
                    "viewer": direct(&[&user, &everybody, &members]),
                } },
            },
            {
                "type": "document",
                "relations": {
                    "parent": this(),
                    "owner": this(),
                    "approved": this(),
                    "blocked": this(),
                    "editor": union(vec![this(), computed("owner")]),
                    "viewer": union(vec![this(), computed("editor"), from_parent("viewer")]),
                    "can_read": { "difference": { "base": computed("viewer"), "subtract": computed("blocked") } },
                    "can_publish": { "intersection": { "child": [computed("editor"), computed("approved")] } },
                },
                "metadata": { "relations": {
                    "parent": direct(&[&folder, &group]),
                    "owner": direct(&[&user]),
                    "approved": direct(&[&user, &everybody, &everybody_at_work]),
                    "blocked": direct(&[&user, &user_with("at_work"), &members]),
                    "editor": direct(&[&user, &members]),
                    "viewer":
                        direct(&[&user, &user_with("at_work"), &user_with("halved"), &everybody, &members]),
                } },
            },
        ],
        "conditions": {
            "at_work": condition("at_work", "hour >= 9 && hour < 17", "hour"),
            "halved": condition("halved", "10 / by == 5", "by"),
        },
    })
}

/// Returns the tuples that every adapter loads.
pub(crate) fn tuples() -> Vec<RelationshipTuple> {
    let parse = |(user, relation, object)| RelationshipTuple::parse(user, relation, object).expect("a tuple");
    let with_condition = |(user, relation, object, condition, context)| {
        parse((user, relation, object)).with_condition(TupleCondition::parse(condition, context).expect("a condition"))
    };
    TUPLES.into_iter().map(parse).chain(TUPLES_WITH_CONDITIONS.into_iter().map(with_condition)).collect()
}

/// Holds the authorizer to the port's contract. A failure begins with `name`.
pub(crate) async fn run(name: &str, authorizer: &dyn Authorizer) {
    assert!(!authorizer.readiness().await.expect("a loaded model").is_empty(), "{name}");
    each_row_alone(name, authorizer).await;
    batches_of_any_size(name, authorizer).await;
    batches_in_any_order(name, authorizer).await;
    visible_sets(name, authorizer).await;
    long_claims(name, authorizer).await;
}

async fn each_row_alone(name: &str, authorizer: &dyn Authorizer) {
    for row in ROWS {
        let decisions = decide(authorizer, &[row], Consistency::HigherConsistency).await;
        assert_eq!(decisions, [row.3], "{name}: {row:?}");
    }
}

/// Asks batches whose sizes are near the maximum of one call, and batches that need many calls. A batch that is larger
/// than the table repeats its questions.
async fn batches_of_any_size(name: &str, authorizer: &dyn Authorizer) {
    for size in [0, 1, 2, 49, 50, 51, 99, 100, 101, 1_025] {
        let rows: Vec<Row> = ROWS.into_iter().cycle().take(size).collect();
        hold(&format!("{name}: {size} checks"), authorizer, &rows).await;
    }
}

async fn batches_in_any_order(name: &str, authorizer: &dyn Authorizer) {
    let mut rows: Vec<Row> = ROWS.into_iter().chain(ROWS).collect();
    rows.reverse();
    hold(&format!("{name}: reversed"), authorizer, &rows).await;
    // A stride that shares no factor with the length visits each row once.
    for stride in [7, 11, 17] {
        let strided: Vec<Row> = (0..rows.len()).map(|i| rows[i * stride % rows.len()]).collect();
        hold(&format!("{name}: stride {stride}"), authorizer, &strided).await;
    }
    let alternating = [ROWS[0], ROWS[1]].repeat(60);
    hold(&format!("{name}: two questions, sixty times each"), authorizer, &alternating).await;
}

/// A visible set holds exactly the objects that checks allow, or is unknown. An object that cannot be decided does not
/// fail the whole set.
async fn visible_sets(name: &str, authorizer: &dyn Authorizer) {
    for user in ["user:cora", "user:dora"] {
        let rows: Vec<&Row> = ROWS.iter().filter(|row| (row.0, row.1) == (user, "can_read")).collect();
        let guards = rows.iter().map(|row| Object::parse(row.2).expect("an object")).collect();
        let query = VisibleSetQuery {
            user: Object::parse(user).expect("a user"),
            relation: Relation::parse("can_read").expect("a relation"),
            guards: Arc::new(guards),
            positions: Arc::new((0..).zip(&rows).map(|(position, _)| position).collect()),
            contextual: Arc::default(),
            consistency: Consistency::HigherConsistency,
            deadline: Instant::now() + PATIENCE,
        };
        let Some(visible) = authorizer.visible_set(&query).await.expect("a hint") else { continue };
        let visible = visible.positions;
        for (position, row) in (0..).zip(rows) {
            assert_eq!(visible.contains(position), row.3, "{name}: {user}: {row:?}");
        }
    }
}

/// Sends the most tuples that a request may add, all with long names, and more checks than fit into one call.
async fn long_claims(name: &str, authorizer: &dyn Authorizer) {
    let claimed = |number| match number {
        0 => "group:eng".to_owned(),
        _ => format!("group:{number:0>105}"),
    };
    let claim = |number| RelationshipTuple::parse("user:nell", "member", &claimed(number)).expect("a tuple");
    let contextual = Contextual { tuples: (0..100).map(claim).collect(), ..Contextual::default() };
    let checks = (0..60).map(|number| Check {
        user: Object::parse("user:nell").expect("a user"),
        relation: Relation::parse("can_read").expect("a relation"),
        object: Object::parse(&if number == 30 { "document:plan".to_owned() } else { format!("document:{number}") })
            .expect("an object"),
    });
    let batch = CheckBatch {
        checks: checks.collect(),
        contextual: Arc::new(contextual),
        consistency: Consistency::MinimizeLatency,
        deadline: Instant::now() + PATIENCE,
    };
    let list = authorizer.check(&batch).await.expect("decisions").list;
    let allowed: Vec<usize> =
        list.iter().filter(|decision| decision.allowed).map(|decision| decision.position).collect();
    assert_eq!((list.len(), allowed), (60, vec![30]), "{name}");
}

async fn hold(name: &str, authorizer: &dyn Authorizer, rows: &[Row]) {
    let decisions = decide(authorizer, rows, Consistency::MinimizeLatency).await;
    for (row, decision) in rows.iter().zip(&decisions) {
        assert_eq!(*decision, row.3, "{name}: {row:?}");
    }
}

/// Returns the decisions in the order of the questions. Panics unless each check has exactly one.
async fn decide(authorizer: &dyn Authorizer, rows: &[Row], consistency: Consistency) -> Vec<bool> {
    let checks = rows.iter().map(|(user, relation, object, _)| Check {
        user: Object::parse(user).expect("a user"),
        relation: Relation::parse(relation).expect("a relation"),
        object: Object::parse(object).expect("an object"),
    });
    let batch = CheckBatch {
        checks: checks.collect(),
        contextual: Arc::default(),
        consistency,
        deadline: Instant::now() + PATIENCE,
    };
    let mut decisions = vec![None; rows.len()];
    for decision in authorizer.check(&batch).await.expect("decisions").list {
        let earlier = decisions[decision.position].replace(decision.allowed);
        assert_eq!(earlier, None, "position {} was answered twice", decision.position);
    }
    decisions.into_iter().map(|decision| decision.expect("an answer to each check")).collect()
}
