//! Compares the root of the tree with the evaluator's decision on random models: set algebra, cycles, parents,
//! usersets, and conditions that are met, are not met, or cannot be evaluated.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::Outcome;
use crate::engine::evaluator::CheckError;
use crate::engine::snapshot::Snapshot;
use crate::language::model::{
    AuthorizationModel, Condition, ParameterType, RelationDefinition, RestrictionKind, Rewrite, TypeDefinition,
    TypeRestriction,
};
use crate::language::tuple::{Object, Relation, RelationshipTuple, TupleCondition, User};
use crate::language::validate::ValidModel;

const RELATIONS: [&str; 4] = ["r0", "r1", "r2", "r3"];
const USERS: [&str; 5] = ["user:0", "user:stranger", "user:*", "doc:0#r0", "doc:1#r2"];
const SHAPES: [&str; 7] = ["user", "user with cc", "user:*", "user:* with cc", "doc#r0", "doc#r2 with cc", "doc#r3"];

fn restriction(shape: &str) -> TypeRestriction {
    let (shape, condition) = shape.split_once(" with ").map_or((shape, None), |(shape, c)| (shape, Some(c.to_owned())));
    let (type_name, kind) = match (shape.split_once('#'), shape.strip_suffix(":*")) {
        (Some((type_name, relation)), _) => (type_name, RestrictionKind::Userset(relation.to_owned())),
        (None, Some(type_name)) => (type_name, RestrictionKind::Wildcard),
        (None, None) => (shape, RestrictionKind::Object),
    };
    TypeRestriction { type_name: type_name.to_owned(), kind, condition }
}

fn relation(name: &str, rewrite: Rewrite, shapes: &[&str]) -> RelationDefinition {
    let directly_related = shapes.iter().map(|shape| restriction(shape)).collect();
    RelationDefinition { name: name.to_owned(), rewrite, directly_related, source: None }
}

fn rewrite(position: usize) -> impl Strategy<Value = Rewrite> {
    let earlier: Vec<&str> = RELATIONS.iter().take(position.max(1)).copied().collect();
    let computed = select(earlier).prop_map(move |relation| match position {
        0 => Rewrite::Direct,
        _ => Rewrite::Computed(relation.to_owned()),
    });
    let from_parent = select(&RELATIONS[..])
        .prop_map(|relation| Rewrite::TupleToUserset { tupleset: "parent".to_owned(), computed: relation.to_owned() });
    let leaf = prop_oneof![Just(Rewrite::Direct), Just(Rewrite::Direct), computed, from_parent];
    leaf.prop_recursive(3, 8, 3, |operand| {
        let operands = prop::collection::vec(operand.clone(), 2..4);
        prop_oneof![
            operands.clone().prop_map(Rewrite::Union),
            operands.prop_map(Rewrite::Intersection),
            (operand.clone(), operand).prop_map(|(base, subtract)| Rewrite::Difference {
                base: Box::new(base),
                subtract: Box::new(subtract)
            }),
        ]
    })
}

fn document_relation(position: usize, name: &'static str) -> impl Strategy<Value = RelationDefinition> {
    (rewrite(position), subsequence(SHAPES.to_vec(), 2..6)).prop_map(move |(rewrite, shapes)| {
        let shapes = if rewrite.contains_direct() { shapes } else { Vec::new() };
        relation(name, rewrite, &shapes)
    })
}

fn model() -> impl Strategy<Value = AuthorizationModel> {
    let documents: Vec<_> =
        RELATIONS.iter().enumerate().map(|(position, name)| document_relation(position, name).boxed()).collect();
    documents.prop_map(|mut relations| {
        relations.push(relation("parent", Rewrite::Direct, &["doc", "doc with cc"]));
        let types = [("user", Vec::new()), ("doc", relations)];
        let types = types.map(|(name, relations)| TypeDefinition { name: name.to_owned(), relations, source: None });
        let int = ParameterType { name: "int".to_owned(), element: None };
        let parameters = [("x".to_owned(), int)].into();
        let condition = Condition { expression: "x < 5".to_owned(), parameters, source: None };
        AuthorizationModel {
            schema_version: "1.1".to_owned(),
            types: types.into(),
            conditions: [("cc".to_owned(), condition)].into(),
        }
    })
}

fn tuples() -> impl Strategy<Value = Vec<RelationshipTuple>> {
    let user = prop_oneof![
        2 => Just("user:0".to_owned()),
        1 => Just("user:*".to_owned()),
        3 => (0..3, 0..4).prop_map(|(id, relation)| format!("doc:{id}#r{relation}")),
        4 => (0..3).prop_map(|id| format!("doc:{id}")),
    ];
    let condition = select(vec![None, None, Some("{}"), Some(r#"{"x": 1}"#), Some(r#"{"x": 9}"#)]);
    let tuple = (user, 0..6, 0..3, condition).prop_map(|(user, relation, id, condition)| {
        let relation = if relation < 4 { format!("r{relation}") } else { "parent".to_owned() };
        let tuple = RelationshipTuple::parse(&user, &relation, &format!("doc:{id}")).expect("a tuple");
        match condition {
            Some(context) => tuple.with_condition(TupleCondition::parse("cc", context).expect("a condition")),
            None => tuple,
        }
    });
    prop::collection::vec(tuple, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_global_rejects: 100_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_walk_comes_out_as_the_evaluator(
        model in model(),
        tuples in tuples(),
        context in select(vec!["{}", r#"{"x": 1}"#, r#"{"x": 9}"#, r#"{"x": "y"}"#]),
    ) {
        let Ok(valid) = ValidModel::new(model) else {
            return Err(TestCaseError::reject("an impossible model"));
        };
        let fitting: Vec<RelationshipTuple> = tuples.iter().filter(|t| valid.admits(t).is_ok()).cloned().collect();
        let snapshot = Snapshot::new("", Arc::new(valid)).with_tuples(&fitting).expect("fitting tuples");
        let snapshot = snapshot.with_context(serde_json::from_str(context).expect("JSON"));
        for user in USERS {
            let user = User::parse(user).expect("a user");
            for object in ["doc:0", "doc:1", "doc:2"] {
                for relation in RELATIONS {
                    let relation = Relation::parse(relation).expect("a name");
                    let object = Object::parse(object).expect("an object");
                    let decision = snapshot.check(&user, &relation, &object);
                    let explained = snapshot.explain(&user, &relation, &object, &mut || true).expect("explained");
                    prop_assert_eq!(&explained.decision, &decision, "{} {} {}", user, relation, object);
                    let agrees = match explained.root.outcome {
                        Outcome::Holds => decision == Ok(true),
                        Outcome::DoesNotHold | Outcome::Doubtful | Outcome::Cycle => decision == Ok(false),
                        Outcome::ConditionFailed => matches!(decision, Err(CheckError::Condition(_))),
                        Outcome::TooDeep => matches!(decision, Err(CheckError::TooDeep)),
                    };
                    prop_assert!(agrees, "{} {} {}: {:?}, but {:#?}", user, relation, object, decision, explained.root);
                }
            }
        }
    }
}
