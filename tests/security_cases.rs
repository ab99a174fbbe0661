//! Classes of authorization bugs that relationship engines had in production (from the public advisories of `OpenFGA`
//! and `SpiceDB`), each with the test that it cannot happen here. Some classes have their tests elsewhere:
//!
//! | class | test |
//! |---|---|
//! | a list skipped a check that check makes (CVE-2023-40579, CVE-2022-21646) | `relationship/evaluator_oracle.rs`:
//! lists of random worlds; `conformance`: every check is asked as lists, too |
//! | `and`, `but not` wrong, also in fast paths (CVE-2024-31452, CVE-2024-42473) | `relationship/evaluator_oracle.rs`:
//! set algebra to depth 5 |
//! | a short circuit under exclusion denied wrongly (CVE-2024-38361) | `relationship/evaluator_oracle.rs`: equality
//! both ways |
//! | an answer cut off by a cycle was kept (CVE-2025-46331) | `relationship/evaluator_oracle.rs`: questions together
//! and alone, in a random order; below |
//! | ids compared without case by a store of documents (CVE-2026-55170) | below for tuples; `vector_store_suite` for
//! guards |
//! | an endpoint without the auth check, audience not checked, keys in pages and logs | not a matter of an evaluator or
//! a store |
#![cfg(test)]

mod support {
    #[expect(dead_code, reason = "this program has its conversations over gRPC alone")]
    pub(crate) mod conversation;
    pub(crate) mod dice;
    #[expect(dead_code, reason = "this program has its conversations over gRPC alone")]
    pub(crate) mod http;
    pub(crate) mod ragward_server;
}

use std::collections::BTreeSet;
use std::sync::Arc;

use ragward::engine::evaluator::{CheckError, STEPS_BETWEEN_INTERRUPTS};
use ragward::engine::snapshot::{Snapshot, UserFilter};
use ragward::language::validate::ValidModel;
use ragward::language::{Object, Relation, RelationshipTuple, TupleCondition, TypeName, User, dsl};
use ragward::tuple_store::{OnConflict, RelationshipStore, RelationshipStores};
use serde_json::{Map, Value, json};

use self::support::conversation::{Answer, Conversation};
use self::support::dice::Dice;
use self::support::ragward_server;

const GROUPS: &str = "
type user
type group
  relations
    define member: [user, user:*, group#member]
type doc
  relations
    define parent: [doc]
    define viewer: [user, group#member] or viewer from parent
";

fn model(types: &str) -> ValidModel {
    let text = format!("model\n  schema 1.1{types}");
    dsl::load(&text).unwrap_or_else(|errors| panic!("{}", errors.picture(&text)))
}

/// Parses `user relation object`, and `with` a condition's name if it follows.
fn tuple(text: &str) -> RelationshipTuple {
    let words: Vec<&str> = text.split(' ').collect();
    let parsed =
        RelationshipTuple::parse(words[0], words[1], words[2]).unwrap_or_else(|error| panic!("{text}: {error}"));
    match words.get(4) {
        Some(name) => parsed.with_condition(TupleCondition::new(name, Map::new()).expect("a condition")),
        None => parsed,
    }
}

fn tuples(lines: &[&str]) -> Vec<RelationshipTuple> {
    lines.iter().map(|line| tuple(line)).collect()
}

fn snapshot(types: &str, lines: &[&str]) -> Snapshot {
    Snapshot::new("", Arc::new(model(types))).with_tuples(&tuples(lines)).expect("tuples that fit")
}

fn context(values: Value) -> Map<String, Value> {
    let Value::Object(values) = values else { panic!("{values} is no object") };
    values
}

fn holds(snapshot: &Snapshot, question: &str) -> Result<bool, CheckError> {
    let RelationshipTuple { user, relation, object, .. } = tuple(question);
    snapshot.check(&user, &relation, &object)
}

#[track_caller]
fn allows(snapshot: &Snapshot, question: &str) {
    check(snapshot, question, true);
}

#[track_caller]
fn denies(snapshot: &Snapshot, question: &str) {
    check(snapshot, question, false);
}

#[track_caller]
fn check(snapshot: &Snapshot, question: &str, expected: bool) {
    assert_eq!(holds(snapshot, question), Ok(expected), "{question}");
}

fn store() -> (tempfile::TempDir, RelationshipStore) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = RelationshipStores::open(directory.path()).expect("opened").default_store_or_new().expect("a store");
    (directory, store)
}

/// CVE-2022-39341, CVE-2022-39342, CVE-2022-39352.
#[test]
fn a_tupleset_takes_objects_only() {
    let rows = ["[doc, doc:*]", "[doc, doc#viewer]", "viewer", "[doc] or viewer", "[doc] but not viewer"];
    for parent in rows {
        let text = format!(
            "model\n  schema 1.1\ntype user\ntype doc\n  relations\n    define parent: {parent}\n    \
             define viewer: [user] or viewer from parent\n"
        );
        assert!(dsl::load(&text).is_err(), "{parent}");
    }
    // A tuple of this form from an older model says nothing.
    let (_directory, store) = store();
    store
        .write_model(model(
            "\ntype user\ntype doc\n  relations\n    define viewer: [user]\n    define parent: [doc:*, doc#viewer]\n",
        ))
        .expect("a model");
    let lines = ["doc:* parent doc:1", "doc:2#viewer parent doc:1", "user:anne viewer doc:2"];
    store.write_all(tuples(&lines), OnConflict::Refuse).expect("written");
    store.write_model(model(GROUPS)).expect("a model");
    let state = store.snapshot().expect("read").expect("a model");
    allows(&state, "user:anne viewer doc:2");
    denies(&state, "user:anne viewer doc:1");
    for line in lines.iter().take(2) {
        assert!(store.write_all(tuples(&[line]), OnConflict::Refuse).is_err(), "{line}");
    }
}

/// CVE-2022-23542.
#[test]
fn tuples_of_an_older_model_count_only_where_the_newer_takes_them() {
    let (_directory, store) = store();
    let document = |viewer: &str| {
        model(&format!(
            "\ntype user\ntype bot\ntype group\n  relations\n    define member: [user]\ntype doc\n  relations\n    define viewer: {viewer}\n"
        ))
    };
    store.write_model(document("[user, user:*, bot, group#member]")).expect("a model");
    let lines = [
        "user:anne viewer doc:1",
        "user:* viewer doc:2",
        "bot:b viewer doc:1",
        "group:g#member viewer doc:3",
        "user:anne member group:g",
    ];
    store.write_all(tuples(&lines), OnConflict::Refuse).expect("written");
    let rows = [
        ("[user, user:*, bot, group#member]", [true, true, true, true]),
        ("[user:*, bot, group#member]", [false, true, true, true]),
        ("[user, bot, group#member]", [true, false, true, true]),
        ("[user, user:*, group#member]", [true, true, false, true]),
        ("[user, user:*, bot]", [true, true, true, false]),
    ];
    let questions =
        ["user:anne viewer doc:1", "user:anne viewer doc:2", "bot:b viewer doc:1", "user:anne viewer doc:3"];
    for (viewer, expected) in rows {
        store.write_model(document(viewer)).expect("a model");
        let state = store.snapshot().expect("read").expect("a model");
        for (question, expected) in questions.into_iter().zip(expected) {
            check(&state, question, expected);
        }
    }
}

const CONDITIONED: &str = "
type user
type doc
  relations
    define viewer: [user with small, user:* with small]
    define editor: [user, user with small, user with even]
condition small(x: int) {
  x < 3
}
condition even(x: int) {
  x % 2 == 0
}
";

/// CVE-2024-56323, CVE-2026-55866: one request's tuples and context are invisible to all others, even at the same time.
#[test]
fn every_request_has_its_own_context_and_tuples() {
    let state = snapshot(CONDITIONED, &["user:anne viewer doc:1 with small"]);
    let request =
        |x: i64, extra: &[&str]| state.for_request(&tuples(extra), context(json!({ "x": x }))).expect("a request");
    std::thread::scope(|scope| {
        for thread in 0..4_i64 {
            let request = &request;
            scope.spawn(move || {
                for round in 0..200_i64 {
                    let x = (thread + round) % 6;
                    check(&request(x, &[]), "user:anne viewer doc:1", x < 3);
                    allows(&request(x, &["user:bob editor doc:1"]), "user:bob editor doc:1");
                    denies(&request(x, &[]), "user:bob editor doc:1");
                }
            });
        }
    });
}

/// CVE-2025-25196.
#[test]
fn a_wildcard_is_no_userset() {
    let state = snapshot(GROUPS, &["user:* member group:all", "group:all#member viewer doc:1"]);
    allows(&state, "user:anne member group:all");
    allows(&state, "user:* member group:all");
    denies(&state, "group:x#member member group:all");
    denies(&state, "group:x#member viewer doc:1");
    allows(&state, "group:all#member viewer doc:1");
}

/// CVE-2025-46331.
#[test]
fn the_order_of_questions_changes_no_answer() {
    let ring = [
        "group:b#member member group:a",
        "group:c#member member group:b",
        "group:a#member member group:c",
        // This is asked after the ring, since an answer that the ring cut off must not be kept.
        "group:d#member member group:a",
        "user:anne member group:d",
    ];
    let state = snapshot(GROUPS, &ring);
    let member = Relation::parse("member").expect("a name");
    for (name, expected) in [("user:anne", true), ("user:bob", false)] {
        let user = User::parse(name).expect("a user");
        for seed in 0..50 {
            let mut groups = ["group:a", "group:b", "group:c"];
            Dice::new(seed).shuffle(&mut groups);
            let mut evaluation = state.evaluation(&user).expect("a known user");
            for group in groups {
                let object = Object::parse(group).expect("an object");
                assert_eq!(
                    evaluation.check(&member, &object, &mut || true),
                    Ok(expected),
                    "{name}, seed {seed}: {group} of {groups:?}"
                );
            }
        }
    }
}

/// CVE-2025-48371.
#[test]
fn contextual_tuples_keep_to_the_type_restrictions() {
    let state = snapshot(GROUPS, &["user:anne member group:g"]);
    let rows = [
        "user:* viewer doc:1",
        "doc:2 viewer doc:1",
        "doc:2#viewer viewer doc:1",
        "user:anne owner doc:1",
        "user:anne viewer page:1",
        "doc:1#viewer viewer doc:1",
        "doc:2#viewer parent doc:1",
    ];
    for row in rows {
        assert!(state.for_request(&tuples(&[row]), Map::new()).is_err(), "{row}");
    }
    let with = state.for_request(&tuples(&["group:g#member viewer doc:1"]), Map::new()).expect("fits");
    allows(&with, "user:anne viewer doc:1");
    denies(&state, "user:anne viewer doc:1");
}

/// CVE-2025-55213.
#[test]
fn every_assignable_userset_counts() {
    let types = "
type user
type team
  relations
    define member: [user]
type group
  relations
    define member: [user]
    define guest: [user]
type doc
  relations
    define viewer: [team#member, group#member, group#guest, doc#editor]
    define editor: [user]
";
    let usersets = ["team:t#member", "group:g#member", "group:g#guest", "doc:d#editor"];
    // This goes through many orders of writing, and through each userset alone.
    for seed in 0..20 {
        let mut order = usersets;
        Dice::new(seed).shuffle(&mut order);
        for count in 1..=order.len() {
            let written: Vec<String> = order[..count].iter().map(|userset| format!("{userset} viewer doc:1")).collect();
            let members = usersets.iter().enumerate().map(|(number, userset)| {
                let (object, relation) = userset.split_once('#').expect("a userset");
                format!("user:{number} {relation} {object}")
            });
            let lines: Vec<String> = written.iter().cloned().chain(members).collect();
            let state = snapshot(types, &lines.iter().map(String::as_str).collect::<Vec<_>>());
            for (number, userset) in usersets.iter().enumerate() {
                check(&state, &format!("user:{number} viewer doc:1"), order[..count].contains(userset));
            }
        }
    }
}

/// CVE-2025-64751: a tuple's condition must be exactly that of one restriction.
#[test]
fn a_tuple_names_the_condition_that_the_model_asks_for() {
    let fits = |line: &str| model(CONDITIONED).admits(&tuple(line)).is_ok();
    let rows = [
        ("user:* viewer doc:1", false),
        ("user:* viewer doc:1 with small", true),
        ("user:* viewer doc:1 with even", false),
        ("user:anne viewer doc:1", false),
        ("user:anne viewer doc:1 with even", false),
        ("user:anne editor doc:1", true),
        ("user:anne editor doc:1 with even", true),
        ("user:anne editor doc:1 with nothing", false),
        ("user:* editor doc:1 with small", false),
    ];
    for (line, expected) in rows {
        assert_eq!(fits(line), expected, "{line}");
    }
    // This tuple was written while no condition was required, so it says nothing any more.
    let (_directory, store) = store();
    store
        .write_model(model("\ntype user\ntype doc\n  relations\n    define viewer: [user, user:*]\n"))
        .expect("a model");
    store.write_all(tuples(&["user:* viewer doc:1", "user:anne viewer doc:1"]), OnConflict::Refuse).expect("written");
    store.write_model(model(CONDITIONED)).expect("a model");
    let state = store.snapshot().expect("read").expect("a model").with_context(context(json!({ "x": 1 })));
    denies(&state, "user:anne viewer doc:1");
    denies(&state, "user:bob viewer doc:1");
}

/// CVE-2026-24851: neither names nor the order of writing change an answer.
#[test]
fn answers_do_not_depend_on_names_or_order() {
    let lines = [
        "user:a member group:1",
        "group:1#member member group:2",
        "group:2#member viewer doc:1",
        "doc:1 parent doc:2",
        "user:* member group:3",
        "group:3#member viewer doc:3",
    ];
    let questions: Vec<String> =
        (1..=4).flat_map(|doc| ["a", "b"].map(|user| format!("user:{user} viewer doc:{doc}"))).collect();
    let expected: Vec<bool> =
        questions.iter().map(|question| holds(&snapshot(GROUPS, &lines), question).expect("decided")).collect();
    assert_eq!(expected, [true, false, true, false, true, true, false, false]);
    for seed in 1..=60 {
        let mut dice = Dice::new(seed);
        let mut ids = ["0", "zz", "A", "\u{10FFFD}", "~", "-1", "é", "00"];
        dice.shuffle(&mut ids);
        // Each id is replaced by another one, everywhere.
        let renamed = |text: &str| {
            let word = |word: &str| match word.split_once(':') {
                Some((of, "*")) => format!("{of}:*"),
                Some((of, rest)) => {
                    let (id, relation) =
                        rest.split_once('#').map_or((rest, None), |(id, relation)| (id, Some(relation)));
                    let position = ["a", "b", "1", "2", "3", "4"].iter().position(|known| *known == id).expect("an id");
                    format!(
                        "{of}:{}{}",
                        ids[position],
                        relation.map(|relation| format!("#{relation}")).unwrap_or_default()
                    )
                }
                None => word.to_owned(),
            };
            text.split(' ').map(word).collect::<Vec<_>>().join(" ")
        };
        let mut written: Vec<String> = lines.iter().map(|line| renamed(line)).collect();
        dice.shuffle(&mut written);
        let state = snapshot(GROUPS, &written.iter().map(String::as_str).collect::<Vec<_>>());
        for (question, expected) in questions.iter().zip(&expected) {
            assert_eq!(holds(&state, &renamed(question)), Ok(*expected), "{question}, seed {seed}");
        }
    }
}

/// CVE-2026-33729, CVE-2026-41131, CVE-2026-48096: different values stay apart, however alike they look.
#[test]
fn values_that_look_alike_are_different() {
    let condition = |context: &str| TupleCondition::parse("c", context).expect(context);
    let apart = [
        (r#"{"a": 1}"#, r#"{"a": "1"}"#),
        (r#"{"a": "b,c"}"#, r#"{"a": ["b", "c"]}"#),
        (r#"{"a": ["b,c"]}"#, r#"{"a": ["b", "c"]}"#),
        (r#"{"a": [["b"], "c"]}"#, r#"{"a": ["b", ["c"]]}"#),
        (r#"{"a": "1", "b": ""}"#, r#"{"a": "", "b": "1"}"#),
        (r#"{"a": "x\",\"b\":\"y"}"#, r#"{"a": "x", "b": "y"}"#),
        (r#"{"a": null}"#, "{}"),
        (r#"{"a": true}"#, r#"{"a": "true"}"#),
        (r#"{"a": "\u00e9"}"#, r#"{"a": "e\u0301"}"#),
    ];
    for (one, other) in apart {
        assert_ne!(condition(one), condition(other), "{one} {other}");
    }
    assert_eq!(condition(r#"{"a": 1}"#), condition(r#"{"a": 1.0}"#), "numbers are doubles");
    // These ids have the same letters when they are joined.
    let types = "\ntype a\ntype aa\ntype doc\n  relations\n    define r: [a, aa]\n    define rr: [a, aa]\n";
    let state = snapshot(types, &["a:ab r doc:1"]);
    for question in ["aa:b r doc:1", "a:a r doc:b1", "a:ab rr doc:1", "a:ab r doc:11", "a:abr rr doc:1"] {
        denies(&state, question);
    }
    allows(&state, "a:ab r doc:1");
}

/// CVE-2026-55170.
#[test]
fn ids_are_compared_byte_by_byte() {
    let (_directory, store) = store();
    store.write_model(model("\ntype user\ntype Doc\n  relations\n    define viewer: [user]\ntype doc\n  relations\n    define viewer: [user]\n")).expect("a model");
    let objects = [
        "doc:a",
        "doc:A",
        "Doc:a",
        "Doc:A",
        "doc:\u{e9}",
        "doc:e\u{301}",
        "doc:a\u{200b}",
        "doc:a.",
        "doc:a\u{a0}",
        "doc:a\u{202e}",
        "doc:ａ",
    ];
    for (number, written) in objects.iter().enumerate() {
        store.write_all(tuples(&[&format!("user:{number} viewer {written}")]), OnConflict::Refuse).expect(written);
    }
    let state = store.snapshot().expect("read").expect("a model");
    for (number, written) in objects.iter().enumerate() {
        for asked in &objects {
            check(&state, &format!("user:{number} viewer {asked}"), asked == written);
        }
    }
    for malformed in ["doc:a ", "doc: a", "doc:a\n", "doc:a\u{0}", "doc:a\t", "doc:"] {
        assert!(Object::parse(malformed).is_err(), "{malformed:?}");
    }
}

/// CVE-2023-35933, CVE-2024-23820: the work is bounded, and stops at its deadline.
#[test]
fn a_wide_fan_out_ends_when_it_is_told_to() {
    const WIDTH: u64 = 100_000;
    let lines: Vec<String> = (0..WIDTH).map(|number| format!("group:{number}#member member group:all")).collect();
    let state = snapshot(GROUPS, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let user = User::parse("user:anne").expect("a user");
    let (member, all) = (Relation::parse("member").expect("a name"), Object::parse("group:all").expect("an object"));
    let mut evaluation = state.evaluation(&user).expect("a known user");
    let mut asked = 0_u64;
    assert_eq!(
        evaluation.check(&member, &all, &mut || {
            asked += 1;
            true
        }),
        Ok(false)
    );
    let steps_at_most = (asked + 1) * STEPS_BETWEEN_INTERRUPTS;
    assert!((WIDTH..20 * WIDTH).contains(&steps_at_most), "{steps_at_most} steps");
    for stop_after in [0, 1, 5] {
        let mut evaluation = state.evaluation(&user).expect("a known user");
        let mut asked = 0;
        let stopped = evaluation.check(&member, &all, &mut || {
            asked += 1;
            asked <= stop_after
        });
        assert_eq!((stopped, asked), (Err(CheckError::Interrupted), stop_after + 1), "{stop_after}");
    }
    // Lists stop, too.
    let lines: Vec<String> = (0..WIDTH).map(|number| format!("user:anne member group:{number}")).collect();
    let state = snapshot(GROUPS, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let group = TypeName::parse("group").expect("a type");
    let stopped = state.for_listed(&user, &member, &group, &mut || false, &mut |_| true);
    assert_eq!(stopped, Err(CheckError::Interrupted));
    let users = UserFilter { type_name: TypeName::parse("user").expect("a type"), relation: None };
    let stopped = state.for_users(&all, &member, &users, &mut || false, &mut |_| true);
    assert_eq!(stopped, Err(CheckError::Interrupted));
}

/// Opens a conversation over the API that every client uses.
async fn conversation(types: &str) -> (tempfile::TempDir, Conversation) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut conversation = Conversation::with(&ragward_server::serve(directory.path()).await);
    conversation.call("CreateStore", json!({ "name": "security" })).await;
    let written = conversation.call("Model", json!(format!("model\n  schema 1.1{types}"))).await;
    assert!(matches!(written, Answer::Message(_)), "{written}");
    (directory, conversation)
}

fn number(answer: &Answer) -> Option<u32> {
    match answer {
        Answer::Message(_) => None,
        Answer::Refused(number, _) => Some(*number),
    }
}

async fn stored(conversation: &mut Conversation) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut token = json!("");
    loop {
        let answer = conversation.call("Read", json!({ "page_size": 100, "continuation_token": token })).await;
        let Answer::Message(page) = answer else { panic!("{answer}") };
        let tuples = page.get("tuples").and_then(Value::as_array).cloned().unwrap_or_default();
        found.extend(tuples.iter().map(|tuple| tuple["key"].to_string()));
        token = page.get("continuation_token").cloned().unwrap_or_default();
        if token.as_str().unwrap_or_default().is_empty() {
            return found;
        }
    }
}

/// CVE-2026-34972.
#[tokio::test]
async fn equal_items_of_a_batch_with_other_contexts_are_independent() {
    let (_directory, mut conversation) = conversation(CONDITIONED).await;
    let key = json!({ "user": "user:anne", "relation": "viewer", "object": "doc:1" });
    let mut written = key.clone();
    written["condition"] = json!({ "name": "small" });
    let answer = conversation.call("Write", json!({ "writes": { "tuple_keys": [written] } })).await;
    assert_eq!(number(&answer), None, "{answer}");
    let contexts =
        [json!({ "x": 1 }), json!({ "x": 5 }), json!({}), json!({ "x": "1" }), json!({ "x": 2.5 }), json!({ "x": 2 })];
    let items: Vec<Value> = contexts
        .iter()
        .enumerate()
        .map(|(id, context)| json!({ "tuple_key": key, "context": context, "correlation_id": id.to_string() }))
        .collect();
    let answer = conversation.call("BatchCheck", json!({ "checks": items })).await;
    let Answer::Message(message) = &answer else { panic!("{answer}") };
    let results: Vec<Option<bool>> = (0..contexts.len())
        .map(|id| message["result"][id.to_string()].get("allowed").and_then(Value::as_bool))
        .collect();
    assert_eq!(results, [Some(true), Some(false), None, Some(true), None, Some(true)], "{answer}");
}

/// CVE-2024-27101, CVE-2025-64529: at the limits, a call does everything, or does nothing and fails.
#[tokio::test]
async fn a_write_or_batch_that_is_too_large_does_nothing() {
    let (_directory, mut conversation) = conversation(GROUPS).await;
    let key = |n: usize| json!({ "user": format!("user:{n}"), "relation": "member", "object": "group:g" });
    let mut kept = 0;
    for (count, from, refused) in [
        (0, 0, Some(3)),
        (1, 0, None),
        (99, 1, None),
        (100, 100, None),
        (101, 200, Some(2053)),
        (1_001, 200, Some(2053)),
    ] {
        let keys: Vec<Value> = (from..from + count).map(key).collect();
        let answer = conversation.call("Write", json!({ "writes": { "tuple_keys": keys } })).await;
        assert_eq!(number(&answer), refused, "{count} tuples: {answer}");
        kept += if refused.is_none() { count } else { 0 };
        assert_eq!(stored(&mut conversation).await.len(), kept, "after {count} tuples");
    }
    for (count, refused) in
        [(0, Some(3)), (1, None), (49, None), (50, None), (51, Some(2000)), (1_000, Some(2000)), (65_537, Some(8))]
    {
        let check = |n: usize| json!({ "tuple_key": key(n), "correlation_id": n.to_string() });
        let checks: Vec<Value> = (0..count).map(check).collect();
        let answer = conversation.call("BatchCheck", json!({ "checks": checks })).await;
        assert_eq!(number(&answer), refused, "{count} checks: {answer}");
        if let Answer::Message(message) = &answer {
            assert_eq!(message["result"].as_object().map(Map::len), Some(count), "{count} checks");
        }
    }
}

/// CVE-2025-64529: with one bad tuple in a write, no tuple is written.
#[tokio::test]
async fn a_write_with_one_bad_tuple_does_nothing() {
    let (_directory, mut conversation) = conversation(GROUPS).await;
    let good = json!({ "user": "user:anne", "relation": "member", "object": "group:g" });
    let first = json!({ "user": "user:first", "relation": "member", "object": "group:g" });
    conversation.call("Write", json!({ "writes": { "tuple_keys": [first] } })).await;
    let mut rows = vec![
        (json!({ "writes": { "tuple_keys": [good, good] } }), 2004),
        (json!({ "writes": { "tuple_keys": [good, first] } }), 2017),
        (json!({ "writes": { "tuple_keys": [good] }, "deletes": { "tuple_keys": [good] } }), 2004),
        (
            json!({ "writes": { "tuple_keys": [good] }, "deletes": { "tuple_keys": [{ "user": "user:none", "relation": "member", "object": "group:g" }] } }),
            2017,
        ),
        (
            json!({ "writes": { "tuple_keys": [good, { "user": "user:anne", "relation": "owner", "object": "group:g" }] } }),
            2000,
        ),
        (
            json!({ "writes": { "tuple_keys": [good, { "user": "doc:1", "relation": "member", "object": "group:g" }] } }),
            2000,
        ),
        (
            json!({ "writes": { "tuple_keys": [good, { "user": "user:a\u{0}b", "relation": "member", "object": "group:g" }] } }),
            2000,
        ),
    ];
    let other = json!({ "user": "user:other", "relation": "member", "object": "group:g" });
    conversation.call("Write", json!({ "writes": { "tuple_keys": [other] } })).await;
    let before = stored(&mut conversation).await;
    assert_eq!(before.len(), 2);
    // The delete alone would succeed.
    rows.push((json!({ "writes": { "tuple_keys": [other] }, "deletes": { "tuple_keys": [first] } }), 2017));
    for (request, expected) in rows {
        let answer = conversation.call("Write", request.clone()).await;
        assert_eq!(number(&answer), Some(expected), "{request}: {answer}");
        assert_eq!(stored(&mut conversation).await, before, "{request}");
    }
}
