//! Makes a failing world small, and prints it in the form that the conformance tests read.

use std::fmt::Write;

use ragward::language::dsl;
use ragward::language::model::Rewrite;
use ragward::language::validate::ValidModel;
use ragward::language::{RelationshipTuple, TupleCondition};
use serde_json::{Value, json};

use super::{World, drop_unused};

/// Returns the smallest failing world: nothing more can be dropped from it without losing the failure.
pub(crate) async fn shrink(mut world: World, fails: impl AsyncFn(&World) -> bool) -> World {
    'smaller: loop {
        for candidate in candidates(&world) {
            if is_world(&candidate) && fails(&candidate).await {
                world = candidate;
                continue 'smaller;
            }
        }
        return world;
    }
}

/// Returns whether the world is well-formed. Stored tuples need not fit the model, contextual ones must. No two stored
/// tuples have the same names.
fn is_world(world: &World) -> bool {
    let is_repeated = |(number, tuple): (usize, &RelationshipTuple)| {
        world.tuples.iter().skip(number + 1).any(|other| other.key() == tuple.key())
    };
    let repeats = world.tuples.iter().enumerate().any(is_repeated);
    !repeats
        && ValidModel::new(world.model.clone())
            .is_ok_and(|valid| world.contextual.iter().all(|tuple| valid.admits(tuple).is_ok()))
}

/// Returns every world that is one step smaller.
fn candidates(world: &World) -> Vec<World> {
    let mut smaller = Vec::new();
    let mut add = |change: &dyn Fn(&mut World)| {
        let mut candidate = world.clone();
        change(&mut candidate);
        drop_unused(&mut candidate.model);
        smaller.push(candidate);
    };
    for position in 0..world.tuples.len() {
        add(&|candidate| drop(candidate.tuples.remove(position)));
    }
    for position in 0..world.contextual.len() {
        add(&|candidate| drop(candidate.contextual.remove(position)));
        add(&|candidate| {
            let tuple = candidate.contextual.remove(position);
            candidate.tuples.push(tuple);
        });
    }
    for name in world.context.keys() {
        add(&|candidate| drop(candidate.context.remove(name)));
    }
    for (of, definition) in world.model.types.iter().enumerate() {
        add(&|candidate| drop(candidate.model.types.remove(of)));
        for (position, relation) in definition.relations.iter().enumerate() {
            add(&|candidate| drop(candidate.model.types[of].relations.remove(position)));
            for rewrite in simpler(&relation.rewrite) {
                add(&|candidate| {
                    let relation = &mut candidate.model.types[of].relations[position];
                    relation.rewrite = rewrite.clone();
                    if !relation.rewrite.contains_direct() {
                        relation.directly_related.clear();
                    }
                });
            }
            for restriction in 0..relation.directly_related.len() {
                add(&|candidate| {
                    drop(candidate.model.types[of].relations[position].directly_related.remove(restriction));
                });
            }
        }
    }
    smaller
}

/// Returns every rewrite that is one step simpler: an operation is replaced by one of its operands, or an operand is
/// left out.
fn simpler(rewrite: &Rewrite) -> Vec<Rewrite> {
    let mut found: Vec<Rewrite> = rewrite.operands().into_iter().cloned().collect();
    let many = |operands: &[Rewrite], build: &dyn Fn(Vec<Rewrite>) -> Rewrite| {
        let mut found = Vec::new();
        for position in 0..operands.len() {
            if operands.len() > 2 {
                let mut fewer = operands.to_vec();
                fewer.remove(position);
                found.push(build(fewer));
            }
            for simple in simpler(&operands[position]) {
                let mut changed = operands.to_vec();
                changed[position] = simple;
                found.push(build(changed));
            }
        }
        found
    };
    match rewrite {
        Rewrite::Direct => {}
        Rewrite::Computed(_) | Rewrite::TupleToUserset { .. } => found.push(Rewrite::Direct),
        Rewrite::Union(operands) => found.extend(many(operands, &Rewrite::Union)),
        Rewrite::Intersection(operands) => found.extend(many(operands, &Rewrite::Intersection)),
        Rewrite::Difference { base, subtract } => {
            let both = [(**base).clone(), (**subtract).clone()];
            found.extend(many(&both, &|mut both| {
                let subtract = Box::new(both.pop().expect("two operands"));
                Rewrite::Difference { base: Box::new(both.pop().expect("two operands")), subtract }
            }));
        }
    }
    found
}

/// Returns a row for `tests/data/oracle_failures.yaml`: the world with one assertion (`check`, `list_objects`,
/// `list_users`).
pub(crate) fn row(name: &str, world: &World, kind: &str, assertion: &Value) -> String {
    let mut assertion = assertion.clone();
    assertion["contextualTuples"] = world.contextual.iter().map(tuple_json).collect();
    assertion["context"] = Value::Object(world.context.clone());
    let mut row = format!("  - name: {name}\n    stages:\n      - model: |\n");
    for line in dsl::print(&world.model).lines() {
        writeln!(row, "          {line}").expect("a string");
    }
    row.push_str("        tuples:\n");
    for tuple in &world.tuples {
        writeln!(row, "          - {}", tuple_json(tuple)).expect("a string");
    }
    let list = match kind {
        "check" => "checkAssertions",
        "list_objects" => "listObjectsAssertions",
        _ => "listUsersAssertions",
    };
    writeln!(row, "        {list}:\n          - {assertion}").expect("a string");
    row
}

fn tuple_json(tuple: &RelationshipTuple) -> Value {
    let mut written = json!({
        "user": tuple.user.to_string(),
        "relation": tuple.relation.to_string(),
        "object": tuple.object.to_string(),
    });
    if let Some(condition) = &tuple.condition {
        written["condition"] = condition_json(condition);
    }
    written
}

fn condition_json(condition: &TupleCondition) -> Value {
    json!({ "name": condition.name(), "context": condition.context() })
}
