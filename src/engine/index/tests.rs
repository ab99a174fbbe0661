//! Compares the index with a plain map of tuples under random changes, in all of its forms: layers, merged layers, a
//! new base, and a request's own layer.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::language::dsl;
use crate::language::tuple::TupleCondition;
use crate::language::validate::ValidModel;

const MODEL: &str = "model
  schema 1.1
type user
type group
  relations
    define member: [user, group#member]
type doc
  relations
    define parent: [doc]
    define viewer: [user, user:*, group#member, user with recent, user:* with recent, group#member with recent]
    define editor: [user]
condition recent(day: int) {
  day > 5
}
";

/// Object, relation and user of a tuple.
type Key = (String, String, String);
/// A tuple, with the day of its condition if it has one.
type Dated = (Key, Option<u32>);
type Plain = BTreeMap<Key, Option<u32>>;

fn model() -> ValidModel {
    dsl::load(MODEL).expect("a model")
}

fn tuple((object, relation, user): &Key, day: Option<u32>) -> RelationshipTuple {
    let tuple = RelationshipTuple::parse(user, relation, object).expect("a tuple");
    match day {
        None => tuple,
        Some(day) => {
            tuple.with_condition(TupleCondition::parse("recent", &format!(r#"{{"day": {day}}}"#)).expect("a condition"))
        }
    }
}

/// Compares every answer of the index with the map.
fn compare(index: &Index, program: &Program, plain: &Plain) {
    assert_eq!(index.len(), plain.len());
    let name = |object: ObjectId| index.name(object).expect("a name").to_owned();
    let relations: BTreeMap<RelationId, &str> =
        [("group", "member"), ("doc", "parent"), ("doc", "viewer"), ("doc", "editor")]
            .into_iter()
            .map(|(of, relation)| (program.relation_id(of, relation).expect("a relation"), relation))
            .collect();
    let user_of = |subject: Subject| match subject {
        Subject::Userset(node) => format!("{}#{}", name(node.object), relations[&node.relation]),
        Subject::Wildcard(_) => "user:*".to_owned(),
        Subject::Object(_, object) => name(object),
    };
    let (mut forward, mut backward) = (Plain::new(), Plain::new());
    let mut subjects = BTreeSet::from([Subject::Wildcard(program.type_id("user").expect("a type"))]);
    let names: Vec<String> = index.objects().map(str::to_owned).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a name has one number");
    let objects: Vec<Object> = names
        .iter()
        .map(String::as_str)
        .chain(["doc:nowhere"])
        .map(|name| Object::parse(name).expect("an object"))
        .collect();
    let numbers = index.objects_of(objects.iter());
    assert_eq!(numbers, objects.iter().map(|object| index.object(object)).collect::<Vec<_>>());
    for object in &names {
        let number = index.object(&Object::parse(object).expect("an object")).expect("a number");
        assert_eq!(&name(number), object, "{object}");
        let type_id = program.type_id(object.split(':').next().expect("a type")).expect("known");
        subjects.insert(Subject::Object(type_id, number));
        for (relation, relation_name) in &relations {
            let node = Node { relation: *relation, object: number };
            subjects.insert(Subject::Userset(node));
            let sorted: Vec<Subject> = index.subjects(node).iter().collect();
            let is_sorted = sorted.is_sorted() && index.conditioned(node).is_sorted_by_key(|(subject, _)| *subject);
            assert!(is_sorted, "{object}#{relation_name}");
            let are_found = sorted.iter().all(|subject| index.subjects(node).contains(*subject));
            assert!(are_found, "{object}#{relation_name}");
            let usersets = sorted.iter().filter(|subject| matches!(subject, Subject::Userset(_))).count();
            assert_eq!(index.subjects(node).usersets().iter().count(), usersets, "{object}#{relation_name}");
            let key = |subject: Subject| (object.clone(), (*relation_name).to_owned(), user_of(subject));
            forward.extend(sorted.into_iter().map(|subject| (key(subject), None)));
            forward.extend(index.conditioned(node).iter().map(|(subject, stored)| (key(*subject), Some(day(stored)))));
        }
    }
    for subject in subjects {
        let user = user_of(subject);
        let key = |node: Node| (name(node.object), relations[&node.relation].to_owned(), user.clone());
        let nodes: Vec<Node> = relations.keys().flat_map(|relation| index.nodes_of(subject, *relation)).collect();
        assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), nodes.len(), "{user}: a node is named once");
        assert_eq!(index.nodes(subject).collect::<BTreeSet<_>>(), nodes.iter().copied().collect(), "{user}");
        let conditioned = |relation: &RelationId| index.conditioned_nodes_of(subject, *relation).count();
        let by_relation: usize = relations.keys().map(conditioned).sum();
        assert_eq!(by_relation, index.conditioned_nodes(subject).count(), "{user}");
        backward.extend(nodes.into_iter().map(|node| (key(node), None)));
        backward.extend(index.conditioned_nodes(subject).map(|(node, stored)| (key(node), Some(day(stored)))));
    }
    assert_eq!(&forward, plain);
    assert_eq!(&backward, plain);
}

fn day(stored: &StoredCondition) -> u32 {
    let text = format!("{:?}", stored.context.as_ref().expect("values that fit"));
    text.chars().filter(char::is_ascii_digit).collect::<String>().parse().expect("the day")
}

#[derive(Clone, Debug)]
enum IndexChange {
    /// Removes and inserts tuples, as a layer.
    Change(Vec<Key>, Vec<Dated>),
    /// Inserts tuples, as a new base.
    Load(Vec<Dated>),
    Compact,
    /// Makes a new base without any change.
    Rebuild,
}

fn keys() -> impl Strategy<Value = Key> {
    let users = prop_oneof![
        (0..4_u32).prop_map(|n| format!("user:{n}")),
        (0..3_u32).prop_map(|n| format!("group:{n}#member")),
        Just("user:*".to_owned()),
    ];
    let viewers = (0..4_u32, users).prop_map(|(n, user)| (format!("doc:{n}"), "viewer".to_owned(), user));
    let editors = (0..4_u32, 0..4_u32)
        .prop_map(|(object, user)| (format!("doc:{object}"), "editor".to_owned(), format!("user:{user}")));
    let parents = (0..4_u32, 0..6_u32)
        .prop_map(|(object, user)| (format!("doc:{object}"), "parent".to_owned(), format!("doc:{user}")));
    let members = (0..3_u32, 0..4_u32)
        .prop_map(|(object, user)| (format!("group:{object}"), "member".to_owned(), format!("user:{user}")));
    prop_oneof![3 => viewers, 1 => editors, 1 => parents, 1 => members]
}

fn tuples() -> impl Strategy<Value = Vec<Dated>> {
    let one = (keys(), proptest::option::of(0..3_u32));
    // Only `viewer` takes a condition.
    let one = one.prop_map(|(key, day)| if key.1 == "viewer" { (key, day) } else { (key, None) });
    proptest::collection::vec(one, 0..12)
}

fn steps() -> impl Strategy<Value = Vec<IndexChange>> {
    let step = prop_oneof![
        6 => (proptest::collection::vec(keys(), 0..4), tuples()).prop_map(|(out, put)| IndexChange::Change(out, put)),
        1 => tuples().prop_map(IndexChange::Load),
        2 => Just(IndexChange::Compact),
        1 => Just(IndexChange::Rebuild),
    ];
    proptest::collection::vec(step, 1..16)
}

fn parsed(tuples: &[Dated]) -> Vec<RelationshipTuple> {
    tuples.iter().map(|(key, day)| tuple(key, *day)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn an_index_holds_what_was_put_in_and_not_taken_out(steps in steps(), contextual in tuples()) {
        let model = model();
        let program = model.program();
        let (mut index, mut plain) = (Index::new(), Plain::new());
        for step in steps {
            let (before, plain_before) = (index.clone(), plain.clone());
            match step {
                IndexChange::Change(out, put) => {
                    let removed: Vec<RelationshipTuple> = out.iter().map(|key| tuple(key, None)).collect();
                    index.change(program, &removed, &parsed(&put));
                    plain.retain(|key, _| !out.contains(key));
                    plain.extend(put);
                }
                IndexChange::Load(put) => {
                    index.load(program, parsed(&put));
                    plain.extend(put);
                }
                IndexChange::Compact => index.compact(),
                IndexChange::Rebuild => index.rebuild(|_| {}),
            }
            compare(&index, program, &plain);
            compare(&before, program, &plain_before);
        }
        let mut of_request = index.clone();
        of_request.change(program, &[], &parsed(&contextual));
        compare(&index, program, &plain);
        plain.extend(contextual);
        compare(&of_request, program, &plain);
    }
}

#[test]
fn layers_stay_few_and_small() {
    let model = model();
    let program = model.program();
    let mut index = Index::new();
    let user = |n: usize| RelationshipTuple::parse(&format!("user:{n}"), "viewer", &format!("doc:{}", n / 3));
    let changes = 3 * LAYERS_MIN;
    let mut layers_max = 0;
    for n in 0..changes {
        index.change(program, &[], &[user(n).expect("a tuple")]);
        index.compact();
        layers_max = layers_max.max(index.layers.len());
        let held: usize = index.layers.iter().map(|layer| layer.len()).sum();
        assert!(held <= LAYERS_MIN + index.len() / BASE_SHARE, "{held} entries after {n} changes");
    }
    assert_eq!(index.len(), changes);
    // Each layer is at least eight times as large as the next, so their number is about the logarithm to the base 8 of
    // their sum.
    assert!(layers_max <= 6, "{layers_max} layers");
    let everything: Vec<RelationshipTuple> = (0..changes).map(|n| user(n).expect("a tuple")).collect();
    index.change(program, &everything, &[user(0).expect("a tuple")]);
    assert_eq!((index.len(), index.layers.len()), (1, 0), "a large change is a new base");
}

#[test]
fn a_request_adds_a_layer_and_copies_nothing_else() {
    let model = model();
    let program = model.program();
    let mut index = Index::new();
    let line = |n: u32| RelationshipTuple::parse(&format!("user:{n}"), "viewer", &format!("doc:{n}")).expect("a tuple");
    index.load(program, (0..1_000).map(line));
    index.change(program, &[], &[line(2_000)]);
    let mut of_request = index.clone();
    of_request.change(program, &[], &[line(3_000)]);
    assert!(Arc::ptr_eq(&index.base, &of_request.base) && Arc::ptr_eq(&index.layers[0], &of_request.layers[0]));
    assert_eq!(of_request.layers.last().map(|layer| layer.len()), Some(4), "two names, a node and a user");
}
