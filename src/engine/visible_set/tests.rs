use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, json};

use super::*;
use crate::engine::evaluator::LEVELS_MAX;
use crate::engine::snapshot::Snapshot;
use crate::language::dsl;
use crate::language::tuple::{Object, Relation, RelationshipTuple, TupleCondition, TypeName};

/// Builds a snapshot from a model and tuples. A line of `tuples` is `user relation object`, with the name of a
/// condition at the end if there is one.
fn snapshot(model: &str, tuples: &str) -> Snapshot {
    let text = format!("model\n  schema 1.1\ntype user\n{model}");
    let model = dsl::load(&text).unwrap_or_else(|e| panic!("{}", e.picture(&text)));
    let tuples = tuples.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let tuple = RelationshipTuple::parse(words[0], words[1], words[2]).expect("a tuple");
        match words.get(3) {
            None => tuple,
            Some(name) => tuple.with_condition(TupleCondition::new(name, Map::new()).expect("a condition")),
        }
    });
    Snapshot::new("", Arc::new(model)).with_tuples(&tuples.collect::<Vec<_>>()).expect("tuples that fit")
}

fn parsed(user: &str, relation: &str, type_name: &str) -> (User, Relation, TypeName) {
    let user = User::parse(user).expect("a user");
    (user, Relation::parse(relation).expect("a name"), TypeName::parse(type_name).expect("a type"))
}

/// Returns what `user:anne` sees and how many objects had to be checked. The set is compared with a check of every
/// object.
#[track_caller]
fn visible(snapshot: &Snapshot, relation: &str, type_name: &str) -> (BTreeSet<String>, u64) {
    let (user, relation, type_name) = parsed("user:anne", relation, type_name);
    let question = snapshot.question(&user, &relation, &type_name).expect("a known relation");
    let undecided = question.bounds(&mut || true).expect("bounds").undecided.len();
    let set = question.visible_set(&mut || true).expect("a set");
    let names: BTreeSet<String> =
        set.objects.iter().map(|number| snapshot.object(number).expect("a name").to_string()).collect();
    let checked = snapshot.objects_of(&type_name).filter(|o| snapshot.check(&user, &relation, o) == Ok(true));
    assert_eq!(names, checked.map(|object| object.to_string()).collect());
    (names, undecided)
}

#[track_caller]
fn check(model: &str, tuples: &str, expected: &[&str], asked: u64) {
    let names = expected.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(visible(&snapshot(model, tuples), "viewer", "doc"), (names, asked), "{model}{tuples}");
}

const GROUP: &str = "type group\n  relations\n    define member: [user, group#member]\n";
const FOLDERS: &str = "type folder
  relations
    define parent: [folder]
    define viewer: [user, user:*] or viewer from parent
type doc
  relations
    define parent: [folder]
    define viewer: viewer from parent
";

fn doc(viewer: &str, others: &str) -> String {
    format!("{GROUP}type doc\n  relations\n    define viewer: {viewer}\n{others}")
}

#[test]
fn tuples_are_followed_outwards() {
    let direct = doc("[user, user:*, group#member]", "");
    check(&direct, "", &[], 0);
    check(&direct, "user:bob viewer doc:1", &[], 0);
    check(&direct, "user:anne viewer doc:1\nuser:* viewer doc:2\nuser:bob viewer doc:3", &["doc:1", "doc:2"], 0);
    check(
        &direct,
        "user:anne member group:a\ngroup:a#member member group:b\ngroup:b#member viewer doc:1",
        &["doc:1"],
        0,
    );
    let cycle = "group:a#member member group:b\ngroup:b#member member group:a\ngroup:a#member viewer doc:1";
    check(&direct, cycle, &[], 0);
    check(&direct, &format!("{cycle}\nuser:anne member group:b"), &["doc:1"], 0);
    let folders = "folder:root parent folder:a\nfolder:a parent doc:1\nfolder:other parent doc:2";
    check(FOLDERS, &format!("{folders}\nuser:anne viewer folder:root"), &["doc:1"], 0);
    check(FOLDERS, &format!("{folders}\nuser:* viewer folder:other"), &["doc:2"], 0);
}

#[test]
fn all_operands_of_and_must_hold() {
    let both = doc("[user, group#member] and allowed", "    define allowed: [user, user:*]\n");
    check(&both, "user:anne viewer doc:1\nuser:anne allowed doc:1\nuser:anne viewer doc:2", &["doc:1"], 0);
    check(&both, "user:* allowed doc:1\nuser:anne member group:a\ngroup:a#member viewer doc:1", &["doc:1"], 0);
    check(&both, "user:* allowed doc:1", &[], 0);
}

#[test]
fn what_but_not_takes_away_is_asked_only_where_a_check_might_fail() {
    let less = doc("[user] but not blocked", "    define blocked: [user, group#member]\n");
    let granted = "user:anne viewer doc:1\nuser:anne viewer doc:2\n";
    check(&less, granted, &["doc:1", "doc:2"], 0);
    check(&less, &format!("{granted}user:bob blocked doc:1"), &["doc:1", "doc:2"], 0);
    check(&less, &format!("{granted}user:anne blocked doc:1"), &["doc:2"], 1);
    check(&less, &format!("{granted}group:a#member blocked doc:1"), &["doc:1", "doc:2"], 1);
    let in_group = "user:anne member group:a\ngroup:a#member blocked doc:1";
    check(&less, &format!("{granted}{in_group}"), &["doc:2"], 1);
    // Groups that contain each other are looked at once each, so anne is in none. A check has to say so.
    check(
        &less,
        &format!("{granted}group:a#member member group:b\ngroup:b#member member group:a\ngroup:a#member blocked doc:1"),
        &["doc:1", "doc:2"],
        1,
    );

    let twice = doc("[user] but not hidden", "    define hidden: [user] but not shown\n    define shown: [user]\n");
    let hidden = "user:anne viewer doc:1\nuser:anne hidden doc:1\n";
    check(&twice, hidden, &[], 1);
    check(&twice, &format!("{hidden}user:anne shown doc:1"), &["doc:1"], 1);
    let both = doc(
        "[user] but not blocked",
        "    define blocked: marked and suspect\n    define marked: [user]\n    define suspect: [group#member]\n",
    );
    // Anne is marked, and not suspect.
    let marked = "user:anne viewer doc:1\nuser:anne marked doc:1\ngroup:a#member suspect doc:1\n";
    check(&both, marked, &["doc:1"], 1);
    check(&both, &format!("{marked}group:a#member member group:b\ngroup:b#member member group:a"), &["doc:1"], 1);
    check(&both, "user:anne viewer doc:1\nuser:anne marked doc:1", &["doc:1"], 0);
}

#[test]
fn conditions_count_when_they_are_met() {
    let model = format!(
        "{GROUP}type doc
  relations
    define viewer: [user with small, group#member with small]
condition small(x: int) {{
  x < 3
}}
"
    );
    let tuples = "user:anne viewer doc:1 small\nuser:anne member group:a\ngroup:a#member viewer doc:2 small\nuser:bob viewer doc:3 small";
    let unknown = snapshot(&model, tuples);
    let with = |x: i64| unknown.with_context(json!({ "x": x }).as_object().expect("an object").clone());
    let both = BTreeSet::from(["doc:1".to_owned(), "doc:2".to_owned()]);
    assert_eq!(visible(&with(1), "viewer", "doc"), (both, 0));
    assert_eq!(visible(&with(5), "viewer", "doc"), (BTreeSet::new(), 0));
    // Without a value the condition fails. That allows nothing, and the set reports the failure.
    assert_eq!(visible(&unknown, "viewer", "doc"), (BTreeSet::new(), 2));
    let (user, relation, type_name) = parsed("user:anne", "viewer", "doc");
    assert!(matches!(unknown.list_objects(&user, &relation, &type_name), Err(CheckError::Condition(_))));
}

#[test]
fn what_is_too_deep_is_not_visible() {
    for levels in [LEVELS_MAX - 1, LEVELS_MAX, LEVELS_MAX + 1, LEVELS_MAX + 10] {
        // The document is one level away from the last folder, and each folder one from its parent.
        let mut tuples = format!("user:anne viewer folder:1\nfolder:{levels} parent doc:1\n");
        for folder in 1..levels {
            writeln!(tuples, "folder:{folder} parent folder:{}", folder + 1).expect("written");
        }
        // A check follows folders that contain each other one level further.
        let is_visible = levels <= LEVELS_MAX + 1;
        check(FOLDERS, &tuples, if is_visible { &["doc:1"] } else { &[] }, u64::from(levels > LEVELS_MAX));
    }
}

#[test]
fn a_userset_sees_its_own_objects_and_is_no_wildcard() {
    let model = doc("[user:*, group#member]", "");
    let snapshot = snapshot(&model, "user:* viewer doc:1\ngroup:a#member viewer doc:2\nuser:anne member group:a");
    let list = |user: &str, relation: &str, type_name: &str| -> Vec<String> {
        let (user, relation, type_name) = parsed(user, relation, type_name);
        let objects = snapshot.list_objects(&user, &relation, &type_name).expect("a list");
        objects.iter().map(Object::to_string).collect()
    };
    assert_eq!(list("group:a#member", "viewer", "doc"), ["doc:2"]);
    assert_eq!(list("group:a#member", "member", "group"), ["group:a"]);
    assert_eq!(list("user:*", "viewer", "doc"), ["doc:1"]);
    assert_eq!(list("user:unnamed", "viewer", "doc"), ["doc:1"]);
}

#[test]
fn candidates_are_not_decided_together_where_that_takes_more_than_a_check_of_each() {
    let among = |groups: usize| {
        let mut tuples = "user:anne viewer doc:1\nuser:bob viewer doc:2\n".to_owned();
        for number in 0..groups {
            writeln!(tuples, "user:anne member group:{number}").expect("written");
        }
        let snapshot = snapshot(&doc("[user, group#member]", ""), &tuples);
        let (user, relation, type_name) = parsed("user:anne", "viewer", "doc");
        let number = |name: &str| snapshot.object_number(&Object::parse(name).expect("an object")).expect("named");
        let candidates = RoaringBitmap::from_iter(["doc:1", "doc:2"].map(number));
        let found = snapshot.visible_among(&user, &relation, &type_name, &candidates, &mut || true).expect("decided");
        found.map(|found| found.objects == RoaringBitmap::from_iter([number("doc:1")]))
    };
    assert_eq!(among(10), Some(true));
    assert_eq!(among(10_000), None);
}

#[test]
fn a_reach_is_of_one_state() {
    let snapshot = snapshot(
        &doc("[user, group#member]", ""),
        "user:anne member group:a\ngroup:a#member viewer doc:1\nuser:bob viewer doc:2",
    );
    let (user, relation, type_name) = parsed("user:anne", "viewer", "doc");
    let number = |name: &str| snapshot.object_number(&Object::parse(name).expect("an object")).expect("named");
    let candidates = RoaringBitmap::from_iter(["doc:1", "doc:2"].map(number));
    let reach = snapshot.reach(&user, &relation, &type_name, candidates.len(), &mut || true);
    let reach = reach.expect("found").expect("cheap");
    let visible = |state: &Snapshot| {
        let visible = state.visible_by_reach(&reach, &candidates, &mut || true).expect("decided");
        visible.map(|visible| visible.objects)
    };
    assert_eq!(visible(&snapshot), Some(RoaringBitmap::from_iter([number("doc:1")])));
    let tuple = RelationshipTuple::parse("user:anne", "viewer", "doc:2").expect("a tuple");
    assert_eq!(visible(&snapshot.with_tuples(&[tuple]).expect("a tuple that fits")), None);
    assert_eq!(visible(&snapshot.with_context(Map::new())), None);
}

#[test]
fn a_long_chain_of_computed_relations_is_left_to_checks() {
    let relations = (1..500).map(|n| format!("    define r{n}: r{}\n", n - 1)).collect::<Vec<_>>().concat();
    let snapshot = snapshot(
        &format!("type doc\n  relations\n    define r0: [user]\n{relations}"),
        "user:anne r0 doc:1\nuser:bob r0 doc:2",
    );
    let among = |relation: &str| {
        let (user, relation, type_name) = parsed("user:anne", relation, "doc");
        let objects = 0..snapshot.object_count();
        let found = snapshot.visible_among(&user, &relation, &type_name, &objects.collect(), &mut || true);
        found.expect("decided").map(|found| found.objects.len())
    };
    assert_eq!(among("r20"), Some(1));
    assert_eq!(among("r499"), None);
}

#[test]
fn it_stops_when_told_to() {
    let mut tuples = String::new();
    for number in 0..10_000 {
        writeln!(tuples, "user:anne viewer doc:{number}").expect("written");
    }
    let snapshot = snapshot(&doc("[user]", ""), &tuples);
    let (user, relation, type_name) = parsed("user:anne", "viewer", "doc");
    let mut stop = || false;
    let stopped = snapshot.visible_set(&user, &relation, &type_name, &mut stop);
    assert_eq!(stopped, Err(CheckError::Interrupted));
    assert_eq!(snapshot.visible_set(&user, &relation, &type_name, &mut || true).expect("a set").objects.len(), 10_000);
}
