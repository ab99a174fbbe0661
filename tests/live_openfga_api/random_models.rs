//! Random models, most of them odd: relations that lead to themselves, to nothing, or to one relation in several ways.

use serde_json::{Map, Value, json};

use super::dice::Dice;

const RELATIONS: [&str; 5] = ["r0", "r1", "r2", "r3", "r4"];
const DEPTH_MAX: usize = 3;

/// The request that writes the model of a seed.
pub(crate) fn request(seed: u64) -> Value {
    let mut dice = Dice::new(seed);
    let (doc, folder) = (definition(&mut dice, "doc"), definition(&mut dice, "folder"));
    json!({ "schema_version": "1.1", "type_definitions": [{ "type": "user" }, doc, folder] })
}

fn definition(dice: &mut Dice, name: &str) -> Value {
    let parents = json!({ "directly_related_user_types": [{ "type": "doc" }, { "type": "folder" }] });
    let mut relations = Map::from_iter([("parent".to_owned(), json!({ "this": {} }))]);
    let mut metadata = Map::from_iter([("parent".to_owned(), parents)]);
    let mut names = RELATIONS;
    dice.shuffle(&mut names);
    for relation in names {
        let depth = dice.below(DEPTH_MAX + 1);
        let rewrite = rewrite(dice, depth);
        if rewrite.to_string().contains("\"this\"") {
            let types: Vec<Value> = (0..=dice.below(2)).map(|_| restriction(dice)).collect();
            metadata.insert(relation.to_owned(), json!({ "directly_related_user_types": types }));
        }
        relations.insert(relation.to_owned(), rewrite);
    }
    json!({ "type": name, "relations": relations, "metadata": { "relations": metadata } })
}

fn rewrite(dice: &mut Dice, depth: usize) -> Value {
    let relation = json!({ "relation": RELATIONS[dice.below(RELATIONS.len())] });
    if depth == 0 {
        return match dice.below(5) {
            0 | 1 => json!({ "this": {} }),
            2 => json!({ "tupleToUserset": { "tupleset": { "relation": "parent" }, "computedUserset": relation } }),
            _ => json!({ "computedUserset": relation }),
        };
    }
    let first = rewrite(dice, depth - 1);
    let depth = dice.below(depth);
    let second = rewrite(dice, depth);
    match dice.below(4) {
        0 | 1 => json!({ "union": { "child": [first, second] } }),
        2 => json!({ "intersection": { "child": [first, second] } }),
        _ => json!({ "difference": { "base": first, "subtract": second } }),
    }
}

fn restriction(dice: &mut Dice) -> Value {
    match dice.below(3) {
        0 => json!({ "type": "user" }),
        _ => json!({
            "type": if dice.below(2) == 0 { "doc" } else { "folder" },
            "relation": RELATIONS[dice.below(RELATIONS.len())],
        }),
    }
}
