//! Shows an explanation as JSON: the message, with the names of its enums.

use serde_json::{Map, Value, json};

use crate::proto::retrieval::explanation_step::Kind;
use crate::proto::retrieval::{ExplainResponse, ExplanationStep, FoundCondition, FoundTuple};

pub(super) fn response(explained: &ExplainResponse) -> Value {
    json!({
        "allowed": explained.allowed,
        "undecided": explained.undecided,
        "user": explained.user,
        "relation": explained.relation,
        "object": explained.object,
        "authorization_model_id": explained.authorization_model_id,
        "as_of": super::as_of(explained),
        "root": explained.root.as_ref().map(step_json),
    })
}

/// Shows one step. The recursion is bounded because the decoder bounds the nesting of a message.
fn step_json(step: &ExplanationStep) -> Value {
    let mut fields = Map::new();
    let outcome = step.outcome().as_str_name().trim_start_matches("EXPLANATION_OUTCOME_");
    fields.insert("outcome".to_owned(), outcome.into());
    fields.insert("has_say".to_owned(), step.has_say.into());
    if let Some((name, kind)) = step.kind.as_ref().map(kind) {
        fields.insert(name.to_owned(), kind);
    }
    if !step.steps.is_empty() {
        fields.insert("steps".to_owned(), step.steps.iter().map(step_json).collect());
    }
    if step.omitted > 0 {
        fields.insert("omitted".to_owned(), step.omitted.into());
    }
    Value::Object(fields)
}

fn kind(kind: &Kind) -> (&'static str, Value) {
    match kind {
        Kind::Relation(relation) => {
            let mut shown = json!({
                "relation": relation.relation,
                "object": relation.object,
                "definition": relation.definition,
                "operator": relation.operator().as_str_name().trim_start_matches("SET_OPERATOR_"),
            });
            if let (Value::Object(shown), Some(through)) = (&mut shown, &relation.through) {
                shown.insert("through".to_owned(), found(through));
            }
            let closed = relation.closed().as_str_name().trim_start_matches("CLOSED_REASON_");
            if let (Value::Object(shown), false) = (&mut shown, closed == "UNSPECIFIED") {
                shown.insert("closed".to_owned(), closed.into());
            }
            ("relation", shown)
        }
        Kind::Operation(operation) => {
            let operator = operation.operator().as_str_name().trim_start_matches("SET_OPERATOR_");
            ("operation", json!({ "operator": operator, "definition": operation.definition }))
        }
        Kind::Tuples(definition) => ("tuples", definition.as_str().into()),
        Kind::Parents(definition) => ("parents", definition.as_str().into()),
        Kind::Tuple(tuple) => ("tuple", found(tuple)),
        Kind::NoTuple(none) => {
            ("no_tuple", json!({ "relation": none.relation, "object": none.object, "looked_for": none.looked_for }))
        }
        Kind::NotAsked(not_asked) => {
            ("not_asked", json!({ "tuple": not_asked.tuple.as_ref().map(found), "relation": not_asked.relation }))
        }
    }
}

fn found(tuple: &FoundTuple) -> Value {
    let mut shown = json!({ "user": tuple.user, "relation": tuple.relation, "object": tuple.object });
    if let (Value::Object(shown), Some(found)) = (&mut shown, &tuple.condition) {
        shown.insert("condition".to_owned(), condition(found));
    }
    shown
}

fn condition(found: &FoundCondition) -> Value {
    let inputs: Vec<Value> = found
        .inputs
        .iter()
        .map(|input| {
            let source = input.source().as_str_name().trim_start_matches("INPUT_SOURCE_");
            json!({ "parameter": input.parameter, "value": input.value, "source": source })
        })
        .collect();
    json!({
        "name": found.name,
        "expression": found.expression,
        "inputs": inputs,
        "met": found.met,
        "error": found.error,
    })
}
