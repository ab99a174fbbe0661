//! The evaluator against the oracle, on random models and tuples: set algebra, cycles, wildcards, usersets, parents.
//! One evaluation answers many questions in a random order, so a wrong entry of its memo shows.
#![cfg(test)]

#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/shared.rs"]
mod support;

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use ragward::relationship::model::{
    AuthorizationModel, RelationDefinition, RestrictionKind, Rewrite, TypeDefinition, TypeRestriction,
};
use ragward::relationship::snapshot::Snapshot;
use ragward::relationship::validate::ValidModel;
use ragward::relationship::{Object, Relation, RelationshipTuple, TypeName, User, store_file};

use self::oracle::Oracle;

/// The relations of `doc` whose definitions are random.
const RELATIONS: [&str; 5] = ["r0", "r1", "r2", "r3", "r4"];

/// Everybody who may ask, a stranger among them, and everything that may be asked about. So few that no chain of them is
/// deeper than the evaluator goes.
const SUBJECTS: [&str; 12] = [
    "user:0",
    "user:1",
    "user:2",
    "user:stranger",
    "user:*",
    "bot:0",
    "group:0#member",
    "group:1#member",
    "doc:0#r0",
    "doc:1#r2",
    "doc:2#r4",
    "doc:unnamed#r1",
];
const OBJECTS: [&str; 5] = ["group:0", "group:1", "doc:0", "doc:1", "doc:2"];

fn restriction(shape: &str) -> TypeRestriction {
    let (type_name, kind) = match (shape.split_once('#'), shape.strip_suffix(":*")) {
        (Some((type_name, relation)), _) => (type_name, RestrictionKind::Userset(relation.to_owned())),
        (None, Some(type_name)) => (type_name, RestrictionKind::Wildcard),
        (None, None) => (shape, RestrictionKind::Object),
    };
    TypeRestriction { type_name: type_name.to_owned(), kind, condition: None }
}

fn relation(name: &str, rewrite: Rewrite, shapes: &[&str]) -> RelationDefinition {
    let directly_related = shapes.iter().map(|shape| restriction(shape)).collect();
    RelationDefinition { name: name.to_owned(), rewrite, directly_related, source: None }
}

/// Computed relations only look back, as a model may not define a relation by itself; parents and usersets look anywhere.
fn rewrite(position: usize) -> impl Strategy<Value = Rewrite> {
    let earlier = RELATIONS.iter().take(position.max(1)).copied().collect::<Vec<_>>();
    let computed = select(earlier).prop_map(move |relation| match position {
        0 => Rewrite::Direct,
        _ => Rewrite::Computed(relation.to_owned()),
    });
    let from_parent = select(&RELATIONS[..])
        .prop_map(|relation| Rewrite::TupleToUserset { tupleset: "parent".to_owned(), computed: relation.to_owned() });
    let leaf = prop_oneof![Just(Rewrite::Direct), Just(Rewrite::Direct), computed, from_parent];
    leaf.prop_recursive(5, 12, 3, |operand| {
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
    let shapes = vec!["user", "user:*", "group#member", "doc#r0", "doc#r1", "doc#r2", "doc#r3", "doc#r4", "bot"];
    (rewrite(position), subsequence(shapes, 2..7)).prop_map(move |(rewrite, shapes)| {
        let shapes = if rewrite.contains_direct() { shapes } else { Vec::new() };
        relation(name, rewrite, &shapes)
    })
}

fn model() -> impl Strategy<Value = AuthorizationModel> {
    let documents: Vec<_> =
        RELATIONS.iter().enumerate().map(|(position, name)| document_relation(position, name).boxed()).collect();
    documents.prop_map(|mut relations| {
        relations.push(relation("parent", Rewrite::Direct, &["doc", "group"]));
        let types = [
            ("user", Vec::new()),
            ("bot", Vec::new()),
            ("group", vec![relation("member", Rewrite::Direct, &["user", "user:*", "group#member"])]),
            ("doc", relations),
        ];
        let types = types.map(|(name, relations)| TypeDefinition { name: name.to_owned(), relations, source: None });
        AuthorizationModel { schema_version: "1.1".to_owned(), types: types.into(), ..AuthorizationModel::default() }
    })
}

/// Not all fit the model: the evaluator is not given those that do not, the oracle must see that they have no effect.
fn tuples() -> impl Strategy<Value = Vec<RelationshipTuple>> {
    let user = prop_oneof![
        3 => (0..3).prop_map(|id| format!("user:{id}")),
        1 => Just("user:*".to_owned()),
        1 => Just("bot:0".to_owned()),
        2 => (0..2).prop_map(|id| format!("group:{id}#member")),
        3 => (0..3, 0..5).prop_map(|(id, relation)| format!("doc:{id}#r{relation}")),
        6 => (0..3).prop_map(|id| format!("doc:{id}")),
    ];
    let document = (user.clone(), 0..8, 0..3).prop_map(|(user, relation, id)| {
        let relation = if relation < 5 { format!("r{relation}") } else { "parent".to_owned() };
        (user, relation, format!("doc:{id}"))
    });
    let group = (user, 0..2).prop_map(|(user, id)| (user, "member".to_owned(), format!("group:{id}")));
    let tuple = prop_oneof![6 => document, 1 => group];
    let parsed = tuple
        .prop_map(|(user, relation, object)| RelationshipTuple::parse(&user, &relation, &object).expect("a tuple"));
    prop::collection::vec(parsed, 0..60)
}

/// (object, relation) pairs.
fn questions() -> Vec<(Object, Relation)> {
    let relations = |object: &str| if object.starts_with("doc") { &RELATIONS[..] } else { &["member"][..] };
    let pairs = OBJECTS.iter().flat_map(|object| relations(object).iter().map(move |relation| (object, relation)));
    pairs.map(|(o, r)| (Object::parse(o).expect("an object"), Relation::parse(r).expect("a name"))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_global_rejects: 100_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_evaluator_answers_as_the_oracle(
        model in model(),
        tuples in tuples(),
        order in Just(questions()).prop_shuffle(),
    ) {
        let Ok(valid) = ValidModel::new(model.clone()) else {
            return Err(TestCaseError::reject("an impossible model"));
        };
        let valid = Arc::new(valid);
        let fitting: Vec<RelationshipTuple> = tuples.iter().filter(|t| valid.admits(t).is_ok()).cloned().collect();
        let snapshot = Snapshot::new("", Arc::clone(&valid)).with_tuples(&fitting).expect("fitting tuples");
        let words = |t: &RelationshipTuple| (t.user.to_string(), t.relation.to_string(), t.object.to_string());
        // The oracle knows the objects that tuples name; this one names the rest, and fits no model.
        let naming = OBJECTS.iter().map(|object| ("user:0".to_owned(), "none".to_owned(), (*object).to_owned()));
        let oracle = Oracle::new(model, tuples.iter().map(words).chain(naming));
        for subject in SUBJECTS {
            let holdings = oracle.holdings(subject);
            let user = User::parse(subject).expect("a user");
            let mut evaluation = snapshot.evaluation(&user).expect("a known user");
            for (object, relation) in &order {
                let expected = holdings.check(relation.as_str(), object.as_str());
                let together = evaluation.check(relation, object, &mut || true);
                prop_assert_eq!(together, Ok(expected), "{} {} {}, among others", subject, relation, object);
                let alone = snapshot.check(&user, relation, object);
                prop_assert_eq!(alone, Ok(expected), "{} {} {}, alone", subject, relation, object);
            }
        }
    }
}

#[test]
fn the_evaluator_answers_as_the_oracle_about_a_real_corpus() {
    let Some(path) = support::shared("corpora/keps/store.fga.yaml") else { return };
    let oracle = Oracle::load(&path);
    let store = store_file::read(&path).expect("a store file");
    let snapshot = Snapshot::new("", Arc::new(store.model)).with_tuples(&store.tuples).expect("tuples that fit");
    let named = |type_name: &str| {
        let mut objects: Vec<Object> = snapshot.objects_of(&TypeName::parse(type_name).expect("a type")).collect();
        objects.sort();
        objects
    };
    let (users, documents) = (named("user"), named("document"));
    assert_eq!((users.len(), documents.len()), (725, 617));
    for user in users.into_iter().step_by(145) {
        let holdings = oracle.holdings(user.as_str());
        let asker = User::Object(user.clone());
        let mut evaluation = snapshot.evaluation(&asker).expect("a known user");
        for document in &documents {
            for relation in ["can_read", "can_edit", "archived_for"] {
                let held = holdings.check(relation, document.as_str());
                let relation = Relation::parse(relation).expect("a name");
                assert_eq!(
                    evaluation.check(&relation, document, &mut || true),
                    Ok(held),
                    "{user} {relation} {document}"
                );
            }
        }
    }
}
