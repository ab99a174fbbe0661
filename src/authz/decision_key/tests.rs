//! No two questions share a key, and no question has two.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::decode::{Meaning, decode};
use super::*;
use crate::authz::decider::{Question, Recall};
use crate::authz::{Check, Consistency};
use crate::language::{Object, Relation, TupleCondition, TypeName};

fn key(meaning: &Meaning) -> DecisionKey {
    let basis = Basis {
        store_id: meaning.store_id.clone(),
        model_id: meaning.model_id.clone(),
        consistency: Consistency::MinimizeLatency,
        generation: meaning.generation,
        recall: Recall::Generation,
        source: meaning.source,
    };
    let question = Question { check: meaning.check.clone(), contextual: Arc::new(meaning.contextual.clone()) };
    let questions = Questions {
        basis: Arc::new(basis),
        principal: question.check.user.clone(),
        list: vec![question],
        deadline: Instant::now(),
    };
    DecisionKey::of(&questions).remove(0)
}

fn meaning() -> Meaning {
    let tuple = RelationshipTuple::parse("group:eng#member", "viewer", "folder:root").expect("a tuple");
    let condition = TupleCondition::parse("in_office", r#"{"ip": "10.0.0.1"}"#).expect("a condition");
    let context = json!({ "a": 1, "b": [1, [2], []], "c": { "d": null } });
    Meaning {
        store_id: "store".to_owned(),
        model_id: "model".to_owned(),
        generation: 7,
        source: Source::Authority,
        contextual: Contextual {
            tuples: vec![tuple.clone().with_condition(condition), tuple],
            context: context.as_object().expect("an object").clone(),
        },
        check: Check {
            user: Object::parse("user:anne").expect("a user"),
            relation: Relation::parse("can_read").expect("a relation"),
            object: Object::parse("document:1").expect("an object"),
        },
    }
}

/// Each row changes one part of the question. Some shift a delimiter, so that a plain joined text would stay the same.
#[test]
fn every_difference_makes_another_key() {
    let mut rows: Vec<(String, Meaning)> = vec![("as it is".to_owned(), meaning())];
    let mut row = |name: &str, change: &dyn Fn(&mut Meaning)| {
        let mut changed = meaning();
        change(&mut changed);
        rows.push((name.to_owned(), changed));
    };
    row("store", &|m| m.store_id = "stor".to_owned());
    row("model", &|m| m.model_id = "emodel".to_owned());
    row("store and model shifted", &|m| {
        (m.store_id, m.model_id) = ("storem".to_owned(), "odel".to_owned());
    });
    row("generation", &|m| m.generation = 8);
    row("source", &|m| m.source = Source::Copy(7));
    row("another copy", &|m| m.source = Source::Copy(8));
    row("user", &|m| m.check.user = Object::parse("user:ann").expect("a user"));
    row("user by case", &|m| m.check.user = Object::parse("user:Anne").expect("a user"));
    row("user's type", &|m| m.check.user = Object::parse("robot:anne").expect("a user"));
    row("relation", &|m| m.check.relation = Relation::parse("can_write").expect("a relation"));
    row("object", &|m| m.check.object = Object::parse("document:11").expect("an object"));
    row("object in another normal form", &|m| m.check.object = Object::parse("document:e\u{301}").expect("an object"));
    row("object in a normal form", &|m| m.check.object = Object::parse("document:\u{e9}").expect("an object"));
    row("user and relation shifted", &|m| {
        m.check.user = Object::parse("user:annecan").expect("a user");
        m.check.relation = Relation::parse("_read").expect("a relation");
    });
    row("no tuple", &|m| m.contextual.tuples.clear());
    row("a tuple less", &|m| m.contextual.tuples.truncate(1));
    row("tuples in another order", &|m| m.contextual.tuples.reverse());
    row("one tuple twice", &|m| m.contextual.tuples[1] = m.contextual.tuples[0].clone());
    row("tuple's relation", &|m| m.contextual.tuples[1].relation = Relation::parse("owner").expect("a relation"));
    row("tuple's object", &|m| m.contextual.tuples[1].object = Object::parse("folder:r").expect("an object"));
    for user in ["group:eng", "group:*", "group:eng#members", "group:en#gmember"] {
        row(&format!("tuple of {user}"), &|m| m.contextual.tuples[1].user = User::parse(user).expect("a user"));
    }
    for (name, context) in [("in_office", "{}"), ("in_offic", r#"{"ip": "10.0.0.1"}"#), ("in_office", r#"{"ip": 10}"#)]
    {
        row(&format!("condition {name} {context}"), &|m| {
            m.contextual.tuples[0].condition = Some(TupleCondition::parse(name, context).expect("a condition"));
        });
    }
    for a in [
        json!(1.0),
        json!("1"),
        json!(-1),
        json!(true),
        json!(null),
        json!([1]),
        json!([[1]]),
        json!({}),
        json!([]),
        json!(""),
        json!("null"),
        json!(0.0),
        json!(-0.0),
        json!({ "a": 1 }),
        json!(u64::MAX),
        json!(1e300),
        json!(1.5),
    ] {
        row(&format!("a = {a}"), &|m| {
            m.contextual.context.insert("a".to_owned(), a.clone());
        });
    }
    for b in [json!([1, [2, []]]), json!([[1], 2, []]), json!([1, 2, []]), json!([1, [2]]), json!([])] {
        row(&format!("b = {b}"), &|m| {
            m.contextual.context.insert("b".to_owned(), b.clone());
        });
    }
    row("a name moved into its neighbour", &|m| {
        m.contextual.context = json!({ "a": 1, "bc": [1, [2], []] }).as_object().expect("an object").clone();
    });
    row("no context", &|m| m.contextual.context.clear());
    row("an object's names swapped", &|m| {
        m.contextual.context.insert("c".to_owned(), json!({ "d": { "c": null } }));
    });

    let mut seen: HashMap<DecisionKey, String> = HashMap::new();
    for (name, meaning) in rows {
        let key = key(&meaning);
        assert_eq!(decode(&key), meaning, "{name}");
        if let Some(other) = seen.insert(key, name.clone()) {
            panic!("`{name}` and `{other}` have one key");
        }
    }
}

#[test]
fn how_to_ask_is_no_part_of_it() {
    let expected = key(&meaning());
    let question = Question { check: meaning().check, contextual: Arc::new(meaning().contextual) };
    let basis = Basis {
        store_id: "store".to_owned(),
        model_id: "model".to_owned(),
        consistency: Consistency::HigherConsistency,
        generation: 7,
        recall: Recall::Nothing,
        source: Source::Authority,
    };
    // The second question shares the allocation of the contextual part; the third has an equal one of its own.
    let again = Question { contextual: Arc::new(meaning().contextual), ..question.clone() };
    let questions = Questions {
        basis: Arc::new(basis),
        principal: Object::parse("user:somebody").expect("a user"),
        list: vec![question.clone(), question, again],
        deadline: Instant::now(),
    };
    assert_eq!(DecisionKey::of(&questions), [expected.clone(), expected.clone(), expected]);
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        // Numbers are short, because the reader of stored contexts is not exact in the last bit of long ones.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        (-3_i32..4).prop_map(|whole| Value::from(f64::from(whole))),
        (-3_i64..4).prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
        "-?[0-3]".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]{0,2}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn any_object(types: &'static [&'static str]) -> impl Strategy<Value = Object> {
    (prop::sample::select(types), "[a-c0-2|/é.]{1,4}")
        .prop_map(|(type_name, id)| Object::parse(&format!("{type_name}:{id}")).expect("an object"))
}

fn any_tuple() -> impl Strategy<Value = RelationshipTuple> {
    let relation = || "[a-c]{1,3}".prop_map(|text| Relation::parse(&text).expect("a relation"));
    let user = prop_oneof![
        any_object(&["user", "group"]).prop_map(User::Object),
        (any_object(&["group"]), relation()).prop_map(|(object, relation)| User::Userset(object, relation)),
        "[a-c]{1,3}".prop_map(|text| User::Wildcard(TypeName::parse(&text).expect("a type"))),
    ];
    let context = prop::collection::btree_map("[a-c]{0,2}", any_value(), 0..3);
    let condition = ("[a-c]{1,3}", context)
        .prop_map(|(name, context)| TupleCondition::new(&name, context.into_iter().collect()).expect("a condition"));
    (user, relation(), any_object(&["folder", "doc"]), prop::option::of(condition))
        .prop_map(|(user, relation, object, condition)| RelationshipTuple { user, relation, object, condition })
}

fn any_meaning() -> impl Strategy<Value = Meaning> {
    let tuples = prop::collection::vec(any_tuple(), 0..4);
    let context = prop::collection::btree_map("[a-c]{0,2}", any_value(), 0..4);
    let check = (any_object(&["user", "robot"]), "[a-c]{1,3}", any_object(&["doc", "folder"]));
    let source = prop_oneof![Just(Source::Authority), any::<u64>().prop_map(Source::Copy)];
    ("[A-C]{0,3}", "[A-C]{0,3}", (any::<u64>(), source), tuples, context, check).prop_map(
        |(store_id, model_id, (generation, source), tuples, context, (user, relation, object))| Meaning {
            store_id,
            model_id,
            generation,
            source,
            contextual: Contextual { tuples, context: context.into_iter().collect() },
            check: Check { user, relation: Relation::parse(&relation).expect("a relation"), object },
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_key_can_be_read_back(meaning in any_meaning()) {
        prop_assert_eq!(decode(&key(&meaning)), meaning);
    }
}
