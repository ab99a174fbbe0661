use std::fmt::Write;
use std::sync::Arc;

use super::*;
use crate::engine::snapshot::Snapshot;
use crate::language::condition::InputSource;
use crate::language::dsl;
use crate::language::tuple::{RelationshipTuple, TupleCondition};

/// Builds a snapshot. A line of `tuples` is `user relation object`, with a condition after `with` if there is one.
fn snapshot(types: &str, tuples: &str) -> Snapshot {
    let text = format!("model\n  schema 1.1\ntype user\ntype bot\n{types}");
    let model = dsl::load(&text).unwrap_or_else(|e| panic!("{}", e.picture(&text)));
    let tuples: Vec<RelationshipTuple> = tuples.lines().filter(|line| !line.trim().is_empty()).map(tuple).collect();
    Snapshot::new("", Arc::new(model)).with_tuples(&tuples).expect("tuples that fit")
}

fn tuple(line: &str) -> RelationshipTuple {
    let (names, condition) = line.split_once(" with ").map_or((line, None), |(names, c)| (names, Some(c)));
    let words: Vec<&str> = names.split_whitespace().collect();
    let tuple = RelationshipTuple::parse(words[0], words[1], words[2]).expect("a tuple");
    let Some(condition) = condition else { return tuple };
    let (name, context) = condition.split_once(' ').unwrap_or((condition, ""));
    tuple.with_condition(TupleCondition::parse(name, context).expect("a condition"))
}

fn explained(snapshot: &Snapshot, question: &str) -> Explanation {
    let RelationshipTuple { user, relation, object, .. } = tuple(question);
    let explanation = snapshot.explain(&user, &relation, &object, &mut || true).expect("explained");
    assert_eq!(explanation.decision, snapshot.check(&user, &relation, &object), "{question}");
    explanation
}

/// Prints one line for each step, indented by its depth. A `-` marks a step that has no say.
fn outline(step: &ExplanationStep, depth: usize, lines: &mut String) {
    let mark = match step.outcome {
        Outcome::Holds => "yes",
        Outcome::DoesNotHold => "no",
        Outcome::Doubtful => "doubt",
        Outcome::Cycle => "cycle",
        Outcome::ConditionFailed => "failed",
        Outcome::TooDeep => "deep",
    };
    let through = |found: &Option<FoundTuple>| found.as_ref().map(|found| format!(" by {found}")).unwrap_or_default();
    let text = match &step.kind {
        StepKind::Relation { relation, object, through: by, closed, .. } => {
            let closed = closed.map(|closed| format!(" {closed:?}")).unwrap_or_default();
            format!("{object}#{relation}{}{closed}", through(by))
        }
        StepKind::Operation { operator, .. } => format!("{operator:?}"),
        StepKind::Tuples { definition } | StepKind::Parents { definition } => definition.clone(),
        StepKind::Tuple(found) => format!("tuple {found}"),
        StepKind::NoTuple { looked_for, .. } => format!("none of {}", looked_for.join(" ")),
        StepKind::NotAsked { tuple, relation } => format!("{relation} not asked by {tuple}"),
    };
    let say = if step.has_say { "" } else { "- " };
    let omitted = if step.omitted > 0 { format!(" +{}", step.omitted) } else { String::new() };
    writeln!(lines, "{}{say}{mark} {text}{omitted}", "  ".repeat(depth)).expect("written");
    for below in &step.steps {
        outline(below, depth + 1, lines);
    }
}

#[track_caller]
fn check(snapshot: &Snapshot, question: &str, expected: &[&str]) {
    let mut lines = String::new();
    outline(&explained(snapshot, question).root, 0, &mut lines);
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected, "{question}\n{lines}");
}

const DOCUMENTS: &str = "type group
  relations
    define member: [user, user:*, group#member]
type folder
  relations
    define viewer: [user, group#member]
type archive
  relations
    define keeper: [user]
type doc
  relations
    define parent: [folder, archive]
    define blocked: [user]
    define owner: [user]
    define viewer: [user, group#member] or owner or viewer from parent
    define can_read: viewer but not blocked
    define both: viewer and owner
";

#[test]
fn every_way_is_shown_and_what_has_no_say_is_named() {
    let tuples = "user:anne member group:a
group:a#member viewer doc:1
user:anne viewer folder:f
folder:f parent doc:1
archive:x parent doc:1
user:bob viewer doc:1
user:bob blocked doc:1";
    let snapshot = snapshot(DOCUMENTS, tuples);
    check(
        &snapshot,
        "user:anne can_read doc:1",
        &[
            "yes doc:1#can_read",
            "  yes doc:1#viewer",
            "    yes [user, group#member]",
            "      yes group:a#member by group:a#member viewer doc:1",
            "        yes tuple user:anne member group:a",
            "    yes viewer from parent +1",
            "      yes folder:f#viewer by folder:f parent doc:1",
            "        yes tuple user:anne viewer folder:f",
            "    - no doc:1#owner",
            "  no doc:1#blocked",
            "    no none of user:anne",
        ],
    );
    check(
        &snapshot,
        "user:bob can_read doc:1",
        &["no doc:1#can_read", "  - yes doc:1#viewer", "  yes doc:1#blocked", "    yes tuple user:bob blocked doc:1"],
    );
    check(
        &snapshot,
        "user:zoe both doc:1",
        &[
            "no doc:1#both",
            "  no doc:1#viewer",
            "    no [user, group#member]",
            "      no none of user:zoe",
            "      no group:a#member by group:a#member viewer doc:1",
            "        no none of user:zoe user:* group#member",
            "    no doc:1#owner",
            "      no none of user:zoe",
            "    no viewer from parent",
            "      no folder:f#viewer by folder:f parent doc:1",
            "        no none of user:zoe group#member",
            "      no viewer not asked by archive:x parent doc:1",
            "  no doc:1#owner",
            "    no none of user:zoe",
        ],
    );
    check(&snapshot, "bot:b can_read doc:1", &["no doc:1#can_read OutOfReach"]);
    check(&snapshot, "group:q#member member group:q", &["yes group:q#member Itself"]);
    check(&snapshot, "group:a#member viewer folder:f", &["no folder:f#viewer", "  no none of group:a#member"]);
    check(
        &snapshot,
        "user:anne viewer doc:none",
        &[
            "no doc:none#viewer",
            "  no [user, group#member]",
            "    no none of user:anne group#member",
            "  no doc:none#owner",
            "    no none of user:anne",
            "  no viewer from parent",
            "    no none of folder archive",
        ],
    );
}

#[test]
fn a_cycle_and_what_is_too_deep_are_said() {
    let two = snapshot(DOCUMENTS, "group:b#member member group:a\ngroup:a#member member group:b");
    check(
        &two,
        "user:anne member group:a",
        &[
            "cycle group:a#member",
            "  no none of user:anne user:*",
            "  cycle group:b#member by group:b#member member group:a",
            "    no none of user:anne user:*",
            "    cycle group:a#member by group:a#member member group:b Cycle",
        ],
    );
    let chained = (1..40).map(|n| format!("group:{n}#member member group:{}\n", n - 1)).collect::<Vec<_>>().concat();
    let chain = snapshot(DOCUMENTS, &format!("{chained}user:anne member group:39"));
    let deep = explained(&chain, "user:anne member group:0");
    assert_eq!(deep.decision, Err(CheckError::TooDeep));
    let mut lines = String::new();
    outline(&deep.root, 0, &mut lines);
    assert!(lines.contains("TooDeep") && lines.starts_with("deep group:0#member\n"), "{lines}");
}

const CONDITIONS: &str = "type group
  relations
    define member: [user with under, group#member with under]
type doc
  relations
    define parent: [doc with under]
    define viewer: [user with under, group#member, group#member with under] or viewer from parent
    define reader: [user, user with under]
condition under(x: int, limit: int) {
  x < limit
}
";

/// The user and the context of a question, whether the condition is met, and the values in the order of the parameters'
/// names.
type ConditionRow<'a> = (&'a str, &'a str, Option<bool>, &'a [(&'a str, InputSource)]);

#[test]
fn a_condition_is_shown_with_its_values() {
    let tuples = "user:anne reader doc:1 with under {\"limit\": 10}
user:bob reader doc:1 with under
user:anne viewer doc:1 with under {\"limit\": 1}
group:a#member viewer doc:1 with under {\"limit\": 3}
doc:2 parent doc:1 with under {\"limit\": 3}";
    let stored = snapshot(CONDITIONS, tuples);
    let rows: [ConditionRow<'_>; 4] = [
        ("user:anne", r#"{"x": 4}"#, Some(true), &[("10", InputSource::Tuple), ("4", InputSource::Request)]),
        ("user:anne", r#"{"x": 40}"#, Some(false), &[("10", InputSource::Tuple), ("40", InputSource::Request)]),
        (
            "user:anne",
            r#"{"x": 4, "limit": 1}"#,
            Some(true),
            &[("10", InputSource::Tuple), ("4", InputSource::Request)],
        ),
        ("user:bob", r#"{"x": "y"}"#, None, &[("", InputSource::Missing), ("\"y\"", InputSource::Request)]),
    ];
    for (user, context, met, inputs) in rows {
        let snapshot = stored.with_context(serde_json::from_str(context).expect("JSON"));
        let explanation = explained(&snapshot, &format!("{user} reader doc:1"));
        let StepKind::Tuple(FoundTuple { condition: Some(condition), .. }) = &explanation.root.steps[0].kind else {
            panic!("{explanation:?}");
        };
        assert_eq!((condition.name.as_str(), condition.expression.as_str()), ("under", "x < limit"), "{user}");
        assert_eq!(condition.met.as_ref().ok(), met.as_ref(), "{user} {context}");
        let found: Vec<(&str, InputSource)> = condition.inputs.iter().map(|i| (i.value.as_str(), i.source)).collect();
        assert_eq!(found, inputs, "{user} {context}");
    }
    let outside = stored.with_context(serde_json::from_str(r#"{"x": 3}"#).expect("JSON"));
    check(
        &outside,
        "user:anne viewer doc:1",
        &[
            "no doc:1#viewer",
            "  no [user with under, group#member, group#member with under]",
            "    no tuple user:anne viewer doc:1",
            "    no tuple group:a#member viewer doc:1",
            "  no viewer from parent",
            "    no tuple doc:2 parent doc:1",
        ],
    );
}

#[test]
fn what_is_wide_is_counted_and_what_decides_is_found() {
    let links = (0..500).map(|n| format!("group:{n}#member viewer doc:1\n")).collect::<Vec<_>>().concat();
    let snapshot = snapshot(DOCUMENTS, &format!("{links}user:anne member group:437"));
    check(
        &snapshot,
        "user:anne viewer doc:1",
        &[
            "yes doc:1#viewer",
            "  yes [user, group#member] +499",
            "    yes group:437#member by group:437#member viewer doc:1",
            "      yes tuple user:anne member group:437",
            "  - no doc:1#owner",
            "  - no viewer from parent",
        ],
    );
    let denied = explained(&snapshot, "user:bob viewer doc:1").root;
    assert_eq!((denied.steps[0].steps.len(), denied.steps[0].omitted), (SIBLINGS_MAX + 1, 500 - SIBLINGS_MAX));
}

fn measure(step: &ExplanationStep) -> (usize, usize) {
    let below: Vec<(usize, usize)> = step.steps.iter().map(measure).collect();
    (
        1 + below.iter().map(|(count, _)| count).sum::<usize>(),
        1 + below.iter().map(|(_, depth)| *depth).max().unwrap_or(0),
    )
}

#[test]
fn size_and_depth_are_bounded() {
    // Each of these groups contains every other one. Without a bound there are as many paths as orders of the groups.
    let pairs = (0..12).flat_map(|outer| (0..12).map(move |inner| (outer, inner))).filter(|(a, b)| a != b);
    let links = pairs.map(|(a, b)| format!("group:{b}#member member group:{a}\n")).collect::<Vec<_>>().concat();
    let dense = snapshot(DOCUMENTS, &links);
    let relations = (1..5_000).map(|n| format!("    define r{n}: r{} or s\n", n - 1)).collect::<Vec<_>>().concat();
    let long = format!("type doc\n  relations\n    define s: [user]\n    define r0: [user]\n{relations}");
    let long = snapshot(&long, "user:anne r0 doc:1");
    let wide = (0..5_000).map(|n| format!(" or r{n}")).collect::<Vec<_>>().concat();
    let relations = (0..5_000).map(|n| format!("    define r{n}: [user]\n")).collect::<Vec<_>>().concat();
    let wide = format!("type doc\n  relations\n{relations}    define all: [user]{wide}");
    let wide = snapshot(&wide, "user:anne r4999 doc:1");
    for (snapshot, question) in [
        (&dense, "user:anne member group:0"),
        (&long, "user:anne r4999 doc:1"),
        (&long, "user:bob r4999 doc:1"),
        (&wide, "user:anne all doc:1"),
        (&wide, "user:bob all doc:1"),
    ] {
        let explanation = explained(snapshot, question);
        let (count, depth) = measure(&explanation.root);
        assert!(count <= UNFOLDED_MAX * OPERANDS_MAX && depth <= DEPTH_MAX, "{question}: {count} steps, {depth} deep");
        assert_eq!(explanation.root.outcome == Outcome::Holds, explanation.decision == Ok(true), "{question}");
    }
    let wide = explained(&wide, "user:anne all doc:1").root;
    assert!(wide.steps[0].has_say && wide.omitted > 4_900, "{wide:?}");
}

#[test]
fn it_stops_when_it_is_told_to() {
    let snapshot = snapshot(CONDITIONS, "user:anne reader doc:1 with under {\"limit\": 10, \"x\": 1}");
    let RelationshipTuple { user, relation, object, .. } = tuple("user:anne reader doc:1");
    assert_eq!(snapshot.explain(&user, &relation, &object, &mut || false), Err(CheckError::Interrupted));
}
