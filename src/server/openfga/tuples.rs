//! Tuples, conditions and contexts: the API's messages to relationships, and back.

use openfga_client::client as api;
use openfga_client::prost_wkt_types as wkt;
use serde_json::{Map, Number as JsonNumber, Value};

use super::refusal::{Number, Refusal, misfit_text};
use crate::relationship::tuple::TupleCondition;
use crate::relationship::validate::ValidModel;
use crate::relationship::{ParseError, RelationshipTuple, TupleMisfit};

/// The tuples of a request that count beside the stored ones. Each must be one that could be written. `OpenFGA` numbers a
/// wrong condition by the method that is called.
pub(super) fn contextual(
    model: &ValidModel,
    keys: &[api::TupleKey],
    wrong_condition: Number,
) -> Result<Vec<RelationshipTuple>, Refusal> {
    let refused = |key: &api::TupleKey, number, reason: String| {
        let tuple = format!("{}#{}@{}", key.object, key.relation, key.user);
        Refusal::new(number, format!("Invalid tuple '{tuple}'. Reason: {reason}"))
    };
    let mut tuples = Vec::with_capacity(keys.len());
    for key in keys {
        let tuple = read(key).map_err(|e| refused(key, Number::InvalidTuple, e.to_string()))?;
        model.admits(&tuple).map_err(|misfit| {
            let number = match misfit {
                TupleMisfit::UnknownCondition(_)
                | TupleMisfit::ConditionRestriction { .. }
                | TupleMisfit::Context(_) => wrong_condition,
                TupleMisfit::UnknownType(_)
                | TupleMisfit::UnknownRelation { .. }
                | TupleMisfit::Implicit(_)
                | TupleMisfit::TypeRestriction { .. } => Number::InvalidTuple,
            };
            refused(key, number, misfit_text(&misfit))
        })?;
        tuples.push(tuple);
    }
    Ok(tuples)
}

/// The tuple of a message.
pub(super) fn read(key: &api::TupleKey) -> Result<RelationshipTuple, ParseError> {
    let tuple = RelationshipTuple::parse(&key.user, &key.relation, &key.object)?;
    let Some(condition) = &key.condition else { return Ok(tuple) };
    let context = condition.context.as_ref().map(context_map).unwrap_or_default();
    Ok(tuple.with_condition(TupleCondition::new(&condition.name, context)?))
}

/// The message of a tuple.
pub(super) fn write(tuple: &RelationshipTuple) -> api::TupleKey {
    let condition = tuple.condition.as_ref().map(|condition| api::RelationshipCondition {
        name: condition.name().to_owned(),
        context: Some(context_message(condition.context())),
    });
    api::TupleKey {
        user: tuple.user.to_string(),
        relation: tuple.relation.to_string(),
        object: tuple.object.to_string(),
        condition,
    }
}

pub(super) fn timestamp(unix_ms: u64) -> wkt::Timestamp {
    let seconds = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(unix_ms % 1_000 * 1_000_000).unwrap_or_default();
    wkt::Timestamp { seconds, nanos }
}

/// The values of a context.
pub(in crate::server) fn context_map(context: &wkt::Struct) -> Map<String, Value> {
    context.fields.iter().map(|(name, value)| (name.clone(), json_value(value))).collect()
}

fn context_message(context: Map<String, Value>) -> wkt::Struct {
    wkt::Struct { fields: context.into_iter().map(|(name, value)| (name, message_value(value))).collect() }
}

/// The decoder bounds the nesting, so this may call itself.
fn json_value(value: &wkt::Value) -> Value {
    use wkt::value::Kind;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        // What is not a number is no value of any parameter.
        Some(Kind::NumberValue(number)) => JsonNumber::from_f64(*number).map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        Some(Kind::StructValue(object)) => Value::Object(context_map(object)),
        Some(Kind::ListValue(list)) => Value::Array(list.values.iter().map(json_value).collect()),
    }
}

fn message_value(value: Value) -> wkt::Value {
    use wkt::value::Kind;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => {
            Kind::ListValue(wkt::ListValue { values: items.into_iter().map(message_value).collect() })
        }
        Value::Object(object) => Kind::StructValue(context_message(object)),
    };
    wkt::Value { kind: Some(kind) }
}
