//! The assertions of a model: questions with the answers that their author expects. `OpenFGA` keeps them beside a model and
//! never decides by them.

use openfga_client::client as api;
use prost::Message;
use serde_json::Value;

use super::source::read_tuple;
use super::wire;
use crate::authz::AuthzError;
use crate::engine::Contextual;
use crate::language::tuple::canonical_value;
use crate::language::{Object, ParseError, Relation, RelationshipTuple, User};

/// A check with the answer that its author expects.
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    /// The user of the check.
    pub user: User,
    /// The relation of the check.
    pub relation: Relation,
    /// The object of the check.
    pub object: Object,
    /// Whether the user is expected to hold the relation.
    pub expected: bool,
    /// The tuples and values that count for this check alone.
    pub contextual: Contextual,
}

/// Reads assertions in the encoding in which a store keeps them, the message `openfga.v1.Assertions`.
///
/// # Errors
/// When the bytes are not such a message, or an assertion has a malformed name.
pub fn decode_assertions(bytes: &[u8]) -> Result<Vec<Assertion>, AuthzError> {
    let message = api::Assertions::decode(bytes);
    let message = message.map_err(|e| AuthzError::Stored(format!("the assertions of the model: {e}")))?;
    message.assertions.iter().map(read).collect()
}

/// Writes assertions in the encoding in which a store keeps them, the message `openfga.v1.Assertions`.
///
/// # Errors
/// When a context cannot be sent.
pub fn encode_assertions(assertions: &[Assertion]) -> Result<Vec<u8>, AuthzError> {
    let assertions: Vec<api::Assertion> = assertions.iter().map(write).collect::<Result<_, _>>()?;
    Ok(api::Assertions { assertions }.encode_to_vec())
}

/// Reads one message of an assertion.
pub(super) fn read(message: &api::Assertion) -> Result<Assertion, AuthzError> {
    let key = message.tuple_key.clone().unwrap_or_default();
    let malformed = |e: ParseError| AuthzError::BadAnswer(format!("an assertion of the model: {e}"));
    let tuples: Result<Vec<RelationshipTuple>, AuthzError> =
        message.contextual_tuples.iter().map(|tuple| read_tuple(Some(tuple))).collect();
    let context = message.context.as_ref().map(serde_json::to_value).transpose();
    let context = context.map_err(|e| AuthzError::BadAnswer(format!("the context of an assertion: {e}")))?;
    let context = match context.map(canonical_value) {
        Some(Value::Object(context)) => context,
        Some(_) | None => serde_json::Map::new(),
    };
    Ok(Assertion {
        user: User::parse(&key.user).map_err(malformed)?,
        relation: Relation::parse(&key.relation).map_err(malformed)?,
        object: Object::parse(&key.object).map_err(malformed)?,
        expected: message.expectation,
        contextual: Contextual { tuples: tuples?, context },
    })
}

/// Makes the message of one assertion.
pub(super) fn write(assertion: &Assertion) -> Result<api::Assertion, AuthzError> {
    let (contextual_tuples, context) = wire::new_contextual(&assertion.contextual)?;
    let tuple_key = api::AssertionTupleKey {
        user: assertion.user.to_string(),
        relation: assertion.relation.to_string(),
        object: assertion.object.to_string(),
    };
    Ok(api::Assertion {
        tuple_key: Some(tuple_key),
        expectation: assertion.expected,
        contextual_tuples: contextual_tuples.map(|tuples| tuples.tuple_keys).unwrap_or_default(),
        context,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::language::TupleCondition;

    #[test]
    fn assertions_are_read_back() {
        let tuple = |user: &str| RelationshipTuple::parse(user, "reader", "doc:1").expect("a tuple");
        let condition = TupleCondition::parse("in_hours", r#"{"opens": 9}"#).expect("a condition");
        let Value::Object(context) = json!({ "hour": 9, "tags": ["a", null], "more": { "x": 0.5 } }) else {
            panic!("an object")
        };
        let with = |user: &str, contextual: Contextual| Assertion {
            user: User::parse(user).expect("a user"),
            relation: Relation::parse("reader").expect("a relation"),
            object: Object::parse("doc:1").expect("an object"),
            expected: user != "user:*",
            contextual,
        };
        let tuples = vec![tuple("group:eng#member"), tuple("user:zoe").with_condition(condition)];
        let rows = [
            ("none", vec![]),
            ("plain", vec![with("user:anne", Contextual::default())]),
            ("not expected, of everybody", vec![with("user:*", Contextual::default())]),
            ("with a context", vec![with("user:anne", Contextual { tuples: Vec::new(), context: context.clone() })]),
            ("with tuples", vec![with("group:eng#member", Contextual { tuples, context })]),
        ];
        for (row, assertions) in rows {
            let bytes = encode_assertions(&assertions).expect(row);
            assert_eq!(decode_assertions(&bytes).expect(row), assertions, "{row}");
        }
        assert!(matches!(decode_assertions(b"\xff\xff"), Err(AuthzError::Stored(_))));
    }
}
