//! Reads a key back into its question. If nothing gets lost, no two questions can share a key.

use serde_json::{Map, Number, Value};

use super::{
    DecisionKey, FALSE, LIST, NULL, NUMBER_DOUBLE, NUMBER_SIGNED, NUMBER_TEXT, NUMBER_UNSIGNED, OBJECT,
    SOURCE_AUTHORITY, SOURCE_COPY, TEXT, TRUE, USER_OBJECT, USER_USERSET, USER_WILDCARD, VERSION,
};
use crate::authz::{Check, Source};
use crate::engine::Contextual;
use crate::language::{Object, Relation, RelationshipTuple, TupleCondition, TypeName, User};

/// The question that a key stands for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Meaning {
    pub(super) store_id: String,
    pub(super) model_id: String,
    pub(super) generation: u64,
    pub(super) source: Source,
    pub(super) contextual: Contextual,
    pub(super) check: Check,
}

pub(super) fn decode(key: &DecisionKey) -> Meaning {
    let mut reader = Reader(&key.0);
    assert_eq!(reader.byte(), VERSION);
    let (store_id, model_id, generation) = (reader.text(), reader.text(), reader.u64());
    let source = match reader.byte() {
        SOURCE_AUTHORITY => Source::Authority,
        SOURCE_COPY => Source::Copy(reader.u64()),
        other => panic!("no source begins with {other}"),
    };
    let contextual = reader.contextual();
    let user = User::parse(&reader.text()).expect("a user");
    let User::Object(user) = user else { panic!("one user, not {user}") };
    let (relation, object) = (reader.relation(), reader.object_name());
    assert!(reader.0.is_empty(), "{} bytes are left over", reader.0.len());
    Meaning { store_id, model_id, generation, source, contextual, check: Check { user, relation, object } }
}

/// Reads one part after another from the front of some bytes.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (array, rest) = self.0.split_first_chunk().expect("enough bytes");
        self.0 = rest;
        *array
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn contextual(&mut self) -> Contextual {
        let tuples = (0..self.count()).map(|_| self.tuple()).collect();
        Contextual { tuples, context: self.object() }
    }

    pub(crate) fn count(&mut self) -> usize {
        usize::from_le_bytes(self.array())
    }

    pub(crate) fn text(&mut self) -> String {
        let (text, rest) = self.0.split_at(usize::from_le_bytes(*self.0.first_chunk().expect("a length")) + 8);
        self.0 = rest;
        String::from_utf8(text[8..].to_vec()).expect("a text")
    }

    fn relation(&mut self) -> Relation {
        Relation::parse(&self.text()).expect("a relation")
    }

    fn object_name(&mut self) -> Object {
        Object::parse(&self.text()).expect("an object")
    }

    fn tuple(&mut self) -> RelationshipTuple {
        let user = match self.byte() {
            USER_OBJECT => User::parse(&self.text()).expect("a user"),
            USER_USERSET => User::Userset(self.object_name(), self.relation()),
            USER_WILDCARD => User::Wildcard(TypeName::parse(&self.text()).expect("a type")),
            other => panic!("no user begins with {other}"),
        };
        let (relation, object) = (self.relation(), self.object_name());
        let condition = match self.byte() {
            0 => None,
            _ => Some(TupleCondition::parse(&self.text(), &self.text()).expect("a condition")),
        };
        RelationshipTuple { user, relation, object, condition }
    }

    fn object(&mut self) -> Map<String, Value> {
        (0..self.count()).map(|_| (self.text(), self.value())).collect()
    }

    fn value(&mut self) -> Value {
        match self.byte() {
            NULL => Value::Null,
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            NUMBER_UNSIGNED => Value::Number(self.u64().into()),
            NUMBER_SIGNED => Value::Number(i64::from_le_bytes(self.array()).into()),
            NUMBER_DOUBLE => Number::from_f64(f64::from_bits(self.u64())).expect("a finite double").into(),
            NUMBER_TEXT => Value::Number(self.text().parse().expect("a number")),
            TEXT => Value::String(self.text()),
            LIST => (0..self.count()).map(|_| self.value()).collect(),
            OBJECT => Value::Object(self.object()),
            other => panic!("no value begins with {other}"),
        }
    }
}
