//! Turns the API's messages of tuples, conditions and contexts into relationships, and back.

use openfga_client::client as api;
use openfga_client::prost_wkt_types as wkt;
use serde_json::{Map, Number, Value};

use super::error::{ErrorNumber, OpenFgaError, misfit_text};
use crate::language::tuple::{TupleCondition, is_clean};
use crate::language::validate::ValidModel;
use crate::language::{ParseError, RelationshipTuple, TupleMisfit};

/// Returns the contextual tuples of a request. Each must be one that could be written; a tuple that the model implies
/// anyway is dropped. `wrong_condition` is the error number for a refused condition. As in `OpenFGA`, it depends on the
/// method.
pub(super) fn contextual(
    model: &ValidModel,
    keys: &[api::TupleKey],
    wrong_condition: ErrorNumber,
) -> Result<Vec<RelationshipTuple>, OpenFgaError> {
    let mut tuples = Vec::with_capacity(keys.len());
    for key in keys {
        let tuple = read(key).map_err(|e| invalid(key, ErrorNumber::InvalidTuple, &e.to_string()))?;
        match model.admits(&tuple) {
            Ok(()) => tuples.push(tuple),
            Err(TupleMisfit::Implicit(_)) => {}
            Err(misfit) => {
                let of_condition = match misfit {
                    TupleMisfit::UnknownCondition(_)
                    | TupleMisfit::ShortCondition(_)
                    | TupleMisfit::LongContext(_)
                    | TupleMisfit::ConditionRestriction { .. }
                    | TupleMisfit::Context(_) => true,
                    TupleMisfit::UnknownType(_)
                    | TupleMisfit::UnknownRelation { .. }
                    | TupleMisfit::Implicit(_)
                    | TupleMisfit::TypeRestriction { .. } => false,
                };
                let number = if of_condition { wrong_condition } else { ErrorNumber::InvalidTuple };
                return Err(invalid(key, number, &misfit_text(&misfit)));
            }
        }
    }
    Ok(tuples)
}

/// Returns the tuple of a message that is to be written.
pub(super) fn to_write(model: &ValidModel, key: &api::TupleKey) -> Result<RelationshipTuple, OpenFgaError> {
    let refused = |reason: String| invalid(key, ErrorNumber::ValidationError, &reason);
    let tuple = read(key).map_err(|e| refused(e.to_string()))?;
    model.stores(&tuple).map_err(|misfit| refused(misfit_text(&misfit)))?;
    Ok(tuple)
}

fn invalid(key: &api::TupleKey, number: ErrorNumber, reason: &str) -> OpenFgaError {
    let tuple = format!("{}#{}@{}", key.object, key.relation, key.user);
    OpenFgaError::new(number, format!("Invalid tuple '{tuple}'. Reason: {reason}"))
}

/// Returns whether a text has the form of a user in a tuple that is to be deleted. `OpenFGA` asks for less there than
/// elsewhere: it takes a name without a type, and `*`. The model need not know the user.
pub(super) fn is_user(text: &str) -> bool {
    if text.is_empty() || text.contains(|c: char| c == ' ' || c.is_control()) {
        return false;
    }
    let (object, relation) = text.split_once('#').map_or((text, None), |(object, relation)| (object, Some(relation)));
    let named = object.split_once(':').filter(|(type_name, id)| !type_name.is_empty() && !id.is_empty());
    match (named, relation) {
        (None, None) => !object.contains(':'),
        (Some((_, id)), None) => !id.contains(':'),
        (Some((_, id)), Some(relation)) => {
            !id.contains([':', '*']) && !relation.is_empty() && !relation.contains([':', '*', '#'])
        }
        (None, Some(_)) => false,
    }
}

/// Refuses control characters in the context of a question, as `OpenFGA` does.
pub(super) fn check_context(context: Option<&wkt::Struct>) -> Result<(), OpenFgaError> {
    let dirty = context.is_some_and(|context| !is_clean(&Value::Object(context_map(context))));
    if dirty { Err(OpenFgaError::validation("invalid context: it has control characters")) } else { Ok(()) }
}

/// Returns the tuple of a message.
pub(super) fn read(key: &api::TupleKey) -> Result<RelationshipTuple, ParseError> {
    let tuple = RelationshipTuple::parse(&key.user, &key.relation, &key.object)?;
    let Some(condition) = &key.condition else { return Ok(tuple) };
    let context = condition.context.as_ref().map(context_map).unwrap_or_default();
    Ok(tuple.with_condition(TupleCondition::new(&condition.name, context)?))
}

/// Returns the message of a tuple.
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

/// Returns the message of a moment, given in milliseconds since 1970.
pub(super) fn timestamp(unix_ms: u64) -> wkt::Timestamp {
    let seconds = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(unix_ms % 1_000 * 1_000_000).unwrap_or_default();
    wkt::Timestamp { seconds, nanos }
}

/// Returns the values of a context.
pub(in crate::server) fn context_map(context: &wkt::Struct) -> Map<String, Value> {
    context.fields.iter().map(|(name, value)| (name.clone(), json_value(value))).collect()
}

fn context_message(context: Map<String, Value>) -> wkt::Struct {
    wkt::Struct { fields: context.into_iter().map(|(name, value)| (name, message_value(value))).collect() }
}

/// Recursive: the decoder bounds how deep a value is nested.
fn json_value(value: &wkt::Value) -> Value {
    use wkt::value::Kind;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        // NaN and the infinities are no values of any parameter.
        Some(Kind::NumberValue(number)) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_to_delete_have_a_form() {
        for good in ["anne", "*", "user:anne", "user:*", "user:a*", "group:g#member", "us@er:a@b", "user:a\u{a0}b"] {
            assert!(is_user(good), "`{good}`");
        }
        let bad =
            ["", " ", "user:", ":anne", ":", "user:a:b", "user:a b", "user:a\nb", "group:g#", "#member", "g#member"];
        let more = ["group:*#member", "group:a*#member", "group:g#m*", "group:g#m#m", "group:g#m:m", "group:#member"];
        for bad in bad.iter().chain(&more) {
            assert!(!is_user(bad), "`{bad}`");
        }
    }
}
