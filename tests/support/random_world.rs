//! Random worlds: a model, stored tuples, and what a request adds to them. Everything follows from a seed.
//!
//! The universe is small, so that even a few tuples make cycles, bring wildcards together with usersets, and reach an
//! object in several ways. No chain in it is longer than an evaluator follows.

pub(crate) mod shrink;

use std::collections::BTreeMap;

use ragward::language::model::{
    AuthorizationModel, Condition, ParameterType, RelationDefinition, RestrictionKind, Rewrite, TypeDefinition,
    TypeRestriction,
};
use ragward::language::validate::ValidModel;
use ragward::language::{RelationshipTuple, TupleCondition};
use serde_json::{Map, Value, json};

use super::dice::Dice;

/// A model, its tuples and a request.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) model: AuthorizationModel,
    /// The stored tuples. Not all of them fit the model.
    pub(crate) tuples: Vec<RelationshipTuple>,
    /// The request's tuples. All of them fit the model. No two have the same object, relation and user, but some share
    /// all three with a stored tuple.
    pub(crate) contextual: Vec<RelationshipTuple>,
    pub(crate) context: Map<String, Value>,
}

/// The size that a world may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) tuples_max: usize,
    /// The deepest nesting of `or`, `and` and `but not`.
    pub(crate) rewrite_depth: usize,
}

/// Everybody who may ask, including strangers, and usersets and objects that no tuple names.
pub(crate) const SUBJECTS: [&str; 17] = [
    "user:0",
    "user:1",
    "user:2",
    "user:stranger",
    "user:*",
    "bot:0",
    "bot:*",
    "group:0#member",
    "group:1#manager",
    "group:unnamed#member",
    "folder:0#r0",
    "doc:0#r0",
    "doc:1#r2",
    "doc:2#r4",
    "doc:1",
    "group:0",
    "group:*",
];
/// The objects that questions may name.
pub(crate) const OBJECTS: [&str; 9] =
    ["group:0", "group:1", "group:unnamed", "folder:0", "folder:1", "doc:0", "doc:1", "doc:2", "doc:unnamed"];
/// The types that have relations.
pub(crate) const TYPES: [&str; 3] = ["group", "folder", "doc"];
/// The filters of lists of users: `type` or `type#relation`.
pub(crate) const USER_FILTERS: [&str; 5] = ["user", "bot", "group#member", "doc#r0", "group"];

/// The name of a condition, its expression, and the name and type of each parameter.
type NamedCondition = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
/// The conditions of every model that has some. Each can be met, not met, and fail.
const CONDITIONS: [NamedCondition; 5] = [
    ("small", "x < 3", &[("x", "int")]),
    ("named", "s == 'a' || s == 'b'", &[("s", "string")]),
    ("enabled", "b", &[("b", "bool")]),
    ("listed", "s in l", &[("l", "list<string>"), ("s", "string")]),
    ("divides", "6 / x > 1", &[("x", "int")]),
];

/// The relations with random definitions, which may refer to each other.
const DOC_RELATIONS: [&str; 5] = ["r0", "r1", "r2", "r3", "r4"];
const FOLDER_RELATIONS: [&str; 2] = ["r0", "r1"];
/// The most models that are drawn for one world. If a model is impossible (nobody can ever hold one of its relations),
/// another one is drawn.
const ATTEMPTS_MAX: usize = 10_000;

impl World {
    /// Returns the world of a seed. Worlds of even seeds have no conditions, so that pure set algebra gets its share.
    pub(crate) fn random(seed: u64, size: Size) -> Self {
        let mut dice = Dice::new(seed);
        let conditions = seed % 2 == 1;
        for _ in 0..ATTEMPTS_MAX {
            let model = model(&mut dice, conditions, size.rewrite_depth);
            if let Ok(valid) = ValidModel::new(model.clone()) {
                return Self::around(&mut dice, model, &valid, size.tuples_max);
            }
        }
        panic!("seed {seed}: no possible model in {ATTEMPTS_MAX} attempts");
    }

    /// Returns a world around a model.
    pub(crate) fn around(dice: &mut Dice, model: AuthorizationModel, valid: &ValidModel, tuples_max: usize) -> Self {
        let mut tuples: Vec<RelationshipTuple> = Vec::new();
        let mut contextual = Vec::new();
        let count = dice.below(tuples_max);
        let with_contextual = dice.chance(50);
        for _ in 0..count {
            let tuple = if dice.chance(85) { fitting(dice, &model) } else { stray(dice) };
            let Some(tuple) = tuple else { continue };
            let mut known = tuples.iter().chain(&contextual);
            if let Some(known) = known.find(|known: &&RelationshipTuple| known.key() == tuple.key()) {
                // This adds a tuple of the request beside a stored one, which may have another condition.
                let is_of_request = contextual.iter().any(|tuple: &RelationshipTuple| tuple.key() == known.key());
                if with_contextual && !is_of_request && valid.admits(&tuple).is_ok() {
                    contextual.push(tuple);
                }
                continue;
            }
            if with_contextual && dice.chance(25) && valid.admits(&tuple).is_ok() {
                contextual.push(tuple);
            } else {
                tuples.push(tuple);
            }
        }
        Self { model, tuples, contextual, context: context(dice) }
    }

    /// Returns the stored tuples that fit the model.
    pub(crate) fn fitting(&self, valid: &ValidModel) -> Vec<RelationshipTuple> {
        self.tuples.iter().filter(|tuple| valid.admits(tuple).is_ok()).cloned().collect()
    }
}

/// The random choices that make a world.
trait Choose {
    fn chance(&mut self, percent: usize) -> bool;
    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T;
    /// Returns between `min` and `max` of the items, each at most once, in their order.
    fn some<T: Clone>(&mut self, from: &[T], min: usize, max: usize) -> Vec<T>;
}

impl Choose for Dice {
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn some<T: Clone>(&mut self, from: &[T], min: usize, max: usize) -> Vec<T> {
        let mut positions: Vec<usize> = (0..from.len()).collect();
        self.shuffle(&mut positions);
        positions.truncate(min + self.below(max + 1 - min));
        positions.sort_unstable();
        positions.into_iter().map(|position| from[position].clone()).collect()
    }
}

/// Returns the relations of a type, including those of tuplesets.
pub(crate) fn relations_of(type_name: &str) -> &'static [&'static str] {
    match type_name {
        "group" => &["member", "manager"],
        "folder" => &["parent", "r0", "r1"],
        "doc" => &["parent", "r0", "r1", "r2", "r3", "r4"],
        _ => &[],
    }
}

fn model(dice: &mut Dice, conditions: bool, rewrite_depth: usize) -> AuthorizationModel {
    let shapes = ["user", "user:*", "bot", "bot:*", "group", "group#member", "group#manager"];
    let member = relation(dice, conditions, "member", Rewrite::Direct, &shapes);
    let rewrite = match dice.below(4) {
        0 => Rewrite::Union(vec![Rewrite::Direct, computed("member")]),
        1 => Rewrite::Difference { base: Box::new(computed("member")), subtract: Box::new(Rewrite::Direct) },
        _ => Rewrite::Direct,
    };
    let manager = relation(dice, conditions, "manager", rewrite, &shapes);
    let mut folder = vec![relation(dice, conditions, "parent", Rewrite::Direct, &["folder", "group"])];
    let shapes = ["user", "user:*", "group#member", "group#manager", "folder#r0", "folder#r1", "bot"];
    for (position, name) in FOLDER_RELATIONS.into_iter().enumerate() {
        let rewrite = random_rewrite(dice, &FOLDER_RELATIONS, position, 2);
        folder.push(relation(dice, conditions, name, rewrite, &shapes));
    }
    let mut doc = vec![relation(dice, conditions, "parent", Rewrite::Direct, &["doc", "folder"])];
    let shapes = [
        "user",
        "user:*",
        "bot",
        "bot:*",
        "group",
        "group:*",
        "group#member",
        "group#manager",
        "folder#r0",
        "folder#r1",
        "doc#r0",
        "doc#r1",
        "doc#r2",
        "doc#r3",
        "doc#r4",
    ];
    for (position, name) in DOC_RELATIONS.into_iter().enumerate() {
        let depth = dice.below(rewrite_depth + 1);
        let rewrite = random_rewrite(dice, &DOC_RELATIONS, position, depth);
        doc.push(relation(dice, conditions, name, rewrite, &shapes));
    }
    let types =
        [("user", Vec::new()), ("bot", Vec::new()), ("group", vec![member, manager]), ("folder", folder), ("doc", doc)];
    let mut model = AuthorizationModel {
        schema_version: "1.1".to_owned(),
        types: types.map(|(name, relations)| TypeDefinition { name: name.to_owned(), relations, source: None }).into(),
        conditions: BTreeMap::new(),
    };
    drop_unused(&mut model);
    model
}

/// Drops the conditions that no restriction names, since a model with an unused one is refused.
pub(crate) fn drop_unused(model: &mut AuthorizationModel) {
    let restrictions = model.types.iter().flat_map(|t| &t.relations).flat_map(|r| &r.directly_related);
    let used: Vec<String> = restrictions.filter_map(|restriction| restriction.condition.clone()).collect();
    let used_ones = CONDITIONS.into_iter().filter(|(name, ..)| used.iter().any(|used| used == name));
    model.conditions = used_ones
        .map(|(name, expression, parameters)| {
            let parameters = parameters.iter().map(|(name, kind)| ((*name).to_owned(), parameter_type(kind)));
            let condition =
                Condition { expression: expression.to_owned(), parameters: parameters.collect(), source: None };
            (name.to_owned(), condition)
        })
        .collect();
}

fn parameter_type(written: &str) -> ParameterType {
    match written.split_once('<') {
        None => ParameterType { name: written.to_owned(), element: None },
        Some((name, element)) => {
            let element = parameter_type(element.trim_end_matches('>'));
            ParameterType { name: name.to_owned(), element: Some(Box::new(element)) }
        }
    }
}

fn computed(relation: &str) -> Rewrite {
    Rewrite::Computed(relation.to_owned())
}

/// Makes a random rewrite. Computed relations refer only to earlier ones, since a model may not define a relation by
/// itself; parents and usersets refer to any.
fn random_rewrite(dice: &mut Dice, siblings: &[&str], position: usize, depth: usize) -> Rewrite {
    if depth == 0 || dice.chance(20) {
        return match dice.below(4) {
            2 if position > 0 => computed(siblings[dice.below(position)]),
            3 => Rewrite::TupleToUserset { tupleset: "parent".to_owned(), computed: (*dice.pick(siblings)).to_owned() },
            _ => Rewrite::Direct,
        };
    }
    let operand = |dice: &mut Dice| random_rewrite(dice, siblings, position, depth - 1);
    match dice.below(5) {
        0 | 1 => Rewrite::Union((0..2 + dice.below(2)).map(|_| operand(dice)).collect()),
        2 => Rewrite::Intersection((0..2 + dice.below(2)).map(|_| operand(dice)).collect()),
        _ => Rewrite::Difference { base: Box::new(operand(dice)), subtract: Box::new(operand(dice)) },
    }
}

fn relation(dice: &mut Dice, conditions: bool, name: &str, rewrite: Rewrite, shapes: &[&str]) -> RelationDefinition {
    let mut directly_related = Vec::new();
    if rewrite.contains_direct() {
        for shape in dice.some(shapes, 1, shapes.len().min(6)) {
            let conditioned = conditions && dice.chance(35);
            let condition = conditioned.then(|| dice.pick(&CONDITIONS).0);
            directly_related.push(restriction(shape, condition));
            if conditioned && dice.chance(30) {
                directly_related.push(restriction(shape, None));
            }
        }
    }
    RelationDefinition { name: name.to_owned(), rewrite, directly_related, source: None }
}

fn restriction(shape: &str, condition: Option<&str>) -> TypeRestriction {
    let (type_name, kind) = match (shape.split_once('#'), shape.strip_suffix(":*")) {
        (Some((type_name, relation)), _) => (type_name, RestrictionKind::Userset(relation.to_owned())),
        (None, Some(type_name)) => (type_name, RestrictionKind::Wildcard),
        (None, None) => (shape, RestrictionKind::Object),
    };
    TypeRestriction { type_name: type_name.to_owned(), kind, condition: condition.map(str::to_owned) }
}

fn object(dice: &mut Dice, type_name: &str) -> String {
    let count = match type_name {
        "user" | "doc" => 3,
        "bot" => 1,
        _ => 2,
    };
    format!("{type_name}:{}", dice.below(count))
}

/// Returns a tuple that the model takes. If it has a condition, the condition can be evaluated most of the time.
fn fitting(dice: &mut Dice, model: &AuthorizationModel) -> Option<RelationshipTuple> {
    let direct = model.types.iter().flat_map(|of| of.relations.iter().map(move |relation| (of, relation)));
    let direct: Vec<_> = direct.filter(|(_, relation)| !relation.directly_related.is_empty()).collect();
    let (of, relation) = dice.pick(&direct);
    let restriction = dice.pick(&relation.directly_related);
    let type_name = restriction.type_name.as_str();
    let user = match &restriction.kind {
        RestrictionKind::Object => object(dice, type_name),
        RestrictionKind::Wildcard => format!("{type_name}:*"),
        RestrictionKind::Userset(relation) => format!("{}#{relation}", object(dice, type_name)),
    };
    let tuple = RelationshipTuple::parse(&user, &relation.name, &object(dice, &of.name)).ok()?;
    let Some(name) = &restriction.condition else { return Some(tuple) };
    let parameters = CONDITIONS.into_iter().find(|(known, ..)| known == name).map(|(.., parameters)| parameters)?;
    let mut stored = Map::new();
    for (parameter, _) in parameters {
        if dice.chance(45) {
            stored.insert((*parameter).to_owned(), value(dice, parameter));
        }
    }
    Some(tuple.with_condition(TupleCondition::new(name, stored).ok()?))
}

/// Returns a tuple that most models do not take.
fn stray(dice: &mut Dice) -> Option<RelationshipTuple> {
    let type_name = *dice.pick(&TYPES);
    let relation = *dice.pick(relations_of(type_name));
    let user = *dice.pick(&["user:0", "user:*", "bot:0", "group:0#member", "doc:1#r3", "folder:1", "doc:*"]);
    let tuple = RelationshipTuple::parse(user, relation, &object(dice, type_name)).ok()?;
    if dice.chance(50) {
        return Some(tuple);
    }
    let name = dice.pick(&CONDITIONS).0;
    Some(tuple.with_condition(TupleCondition::new(name, Map::new()).ok()?))
}

fn value(dice: &mut Dice, parameter: &str) -> Value {
    match parameter {
        "x" => json!(dice.below(5)),
        "s" => json!(*dice.pick(&["a", "b", "c"])),
        "b" => json!(dice.chance(60)),
        _ => json!(dice.some(&["a", "b", "c"], 0, 3)),
    }
}

/// Returns the context of a request. Sometimes a value is missing, sometimes it has the wrong type.
fn context(dice: &mut Dice) -> Map<String, Value> {
    let mut context = Map::new();
    for parameter in ["x", "s", "b", "l", "unknown"] {
        match dice.below(10) {
            0 | 1 => {}
            2 => {
                let wrong = [json!(null), json!("a"), json!(0.5), json!([1]), json!({"a": 1}), json!(true)];
                context.insert(parameter.to_owned(), dice.pick(&wrong).clone());
            }
            _ => {
                context.insert(parameter.to_owned(), value(dice, parameter));
            }
        }
    }
    context
}
