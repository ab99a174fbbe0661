//! The key of a remembered decision: everything that the decision depends on, and nothing else.
//!
//! INVARIANT (injective): two questions have the same key only if they are the same question. The type of every part
//! follows from its position or from a tag, and every text and list carries its length. So no delimiter can shift, and
//! no number can pass for a text. `decode` proves it: it reads the question back from the key.
//!
//! The key leaves out the deadline and the consistency, which only say how to ask. The age of a decision tells whether
//! it is new enough.

use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::Source;
use super::decider::{Basis, Questions};
use crate::engine::Contextual;
use crate::language::{RelationshipTuple, User};

#[cfg(test)]
pub(crate) mod decode;
#[cfg(test)]
mod tests;

/// The first byte. A later form of keys takes another number.
const VERSION: u8 = 2;

const SOURCE_AUTHORITY: u8 = 0;
const SOURCE_COPY: u8 = 1;

const USER_OBJECT: u8 = 0;
const USER_USERSET: u8 = 1;
const USER_WILDCARD: u8 = 2;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const NUMBER_UNSIGNED: u8 = 3;
const NUMBER_SIGNED: u8 = 4;
const NUMBER_DOUBLE: u8 = 5;
const NUMBER_TEXT: u8 = 6;
const TEXT: u8 = 7;
const LIST: u8 = 8;
const OBJECT: u8 = 9;

/// The key of one decision. A clone shares the bytes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DecisionKey(Arc<[u8]>);

impl DecisionKey {
    /// Makes the keys of all questions, in their order.
    #[must_use]
    pub fn of(questions: &Questions) -> Vec<Self> {
        let mut keys = Vec::with_capacity(questions.list.len());
        // All questions of one request share their contextual part, so it is written once.
        let mut prefix: Option<(&Arc<Contextual>, Vec<u8>)> = None;
        for question in &questions.list {
            let (_, common) = match prefix.take() {
                Some(known) if Arc::ptr_eq(known.0, &question.contextual) => prefix.insert(known),
                _ => {
                    let mut common = Vec::new();
                    write_basis(&mut common, &questions.basis);
                    write_contextual(&mut common, &question.contextual);
                    prefix.insert((&question.contextual, common))
                }
            };
            let mut bytes = common.clone();
            let check = &question.check;
            write_text(&mut bytes, check.user.as_str());
            write_text(&mut bytes, check.relation.as_str());
            write_text(&mut bytes, check.object.as_str());
            keys.push(Self(bytes.into()));
        }
        keys
    }

    /// Returns the size of the key in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

fn write_basis(out: &mut Vec<u8>, basis: &Basis) {
    out.push(VERSION);
    write_text(out, &basis.store_id);
    write_text(out, &basis.model_id);
    out.extend_from_slice(&basis.generation.to_le_bytes());
    match basis.source {
        Source::Authority => out.push(SOURCE_AUTHORITY),
        Source::Copy(number) => {
            out.push(SOURCE_COPY);
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

pub(crate) fn write_contextual(out: &mut Vec<u8>, contextual: &Contextual) {
    write_count(out, contextual.tuples.len());
    for tuple in &contextual.tuples {
        write_tuple(out, tuple);
    }
    write_object(out, &contextual.context);
}

fn write_tuple(out: &mut Vec<u8>, tuple: &RelationshipTuple) {
    match &tuple.user {
        User::Object(object) => {
            out.push(USER_OBJECT);
            write_text(out, object.as_str());
        }
        User::Userset(object, relation) => {
            out.push(USER_USERSET);
            write_text(out, object.as_str());
            write_text(out, relation.as_str());
        }
        User::Wildcard(type_name) => {
            out.push(USER_WILDCARD);
            write_text(out, type_name.as_str());
        }
    }
    write_text(out, tuple.relation.as_str());
    write_text(out, tuple.object.as_str());
    out.push(u8::from(tuple.condition.is_some()));
    if let Some(condition) = &tuple.condition {
        write_text(out, condition.name());
        // Equal contexts have equal texts, because the JSON is canonical.
        write_text(out, condition.context_json());
    }
}

/// Writes the entries sorted by name, since two objects are equal whatever their order. This function and
/// [`write_value`] call each other; the reader that made the value bounds how deep that goes.
fn write_object(out: &mut Vec<u8>, object: &Map<String, Value>) {
    let mut entries: Vec<(&String, &Value)> = object.iter().collect();
    entries.sort_unstable_by_key(|(name, _)| *name);
    write_count(out, entries.len());
    for (name, value) in entries {
        write_text(out, name);
        write_value(out, value);
    }
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(false) => out.push(FALSE),
        Value::Bool(true) => out.push(TRUE),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => {
            out.push(TEXT);
            write_text(out, text);
        }
        Value::Array(items) => {
            out.push(LIST);
            write_count(out, items.len());
            for item in items {
                write_value(out, item);
            }
        }
        Value::Object(object) => {
            out.push(OBJECT);
            write_object(out, object);
        }
    }
}

/// Writes a number so that 1 and 1.0 make two keys. If both are the same value to a condition, that only costs a call.
fn write_number(out: &mut Vec<u8>, number: &Number) {
    if let Some(unsigned) = number.as_u64() {
        out.push(NUMBER_UNSIGNED);
        out.extend_from_slice(&unsigned.to_le_bytes());
    } else if let Some(signed) = number.as_i64() {
        out.push(NUMBER_SIGNED);
        out.extend_from_slice(&signed.to_le_bytes());
    } else if let Some(double) = number.as_f64() {
        out.push(NUMBER_DOUBLE);
        out.extend_from_slice(&double.to_bits().to_le_bytes());
    } else {
        out.push(NUMBER_TEXT);
        write_text(out, &number.to_string());
    }
}

pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    write_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn write_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&count.to_le_bytes());
}
