//! Turns messages into domain values and back. If a message lacks a value that is needed, the violation names its
//! field. (`client` turns a document into its message.)

use std::collections::BTreeMap;

use prost_types::Timestamp;

use super::refusal::{Refusal, VIOLATIONS_MAX};
use crate::chunk::{Chunk, Document, Metadata, Value};
use crate::language::Object;
use crate::language::tuple::shown;
use crate::proto::{ingest, metadata, retrieval};
use crate::retrieval::FieldViolation;
use crate::vector_store::{Filter, Moment, validation};

/// Returns the document of a message. Its sizes are checked before it is expanded, because each chunk gets a copy of
/// the document's id and title.
pub(super) fn document(message: ingest::Document) -> Result<Document, Refusal> {
    validation::check_document_size(&message.id, &message.title, message.chunks.len())?;
    let mut violations = Vec::new();
    let mut chunks = Vec::with_capacity(message.chunks.len());
    for (position, chunk) in message.chunks.into_iter().enumerate() {
        if violations.len() >= VIOLATIONS_MAX {
            break;
        }
        let field = |name: &str| format!("document.chunks[{position}].{name}");
        let of_document = |rule: String| format!("{rule} (document `{}`)", shown(&message.id));
        let guard = Object::parse(&chunk.guard);
        let metadata = metadata_value(chunk.metadata);
        match (guard, metadata) {
            (Ok(guard), Ok(metadata)) => chunks.push(Chunk {
                id: chunk.id,
                document_id: message.id.clone(),
                guard,
                title: message.title.clone(),
                heading_path: chunk.heading_path,
                text: chunk.text,
                metadata,
                vector: chunk.vector,
            }),
            (guard, metadata) => {
                violations.extend(guard.err().map(|e| FieldViolation::new(field("guard"), of_document(e.to_string()))));
                violations.extend(metadata.err().map(|e| FieldViolation::new(field("metadata"), of_document(e))));
            }
        }
    }
    if !violations.is_empty() {
        return Err(Refusal::invalid(violations));
    }
    let document = Document { id: message.id, title: message.title, chunks };
    validation::check_document(&document)?;
    Ok(document)
}

/// Returns the messages of the metadata of a chunk.
pub(crate) fn metadata_message(values: Metadata) -> BTreeMap<String, metadata::Value> {
    values.into_iter().map(|(key, value)| (key, value_message(value))).collect()
}

/// Recursion is bounded: no list is in a list.
fn value_message(value: Value) -> metadata::Value {
    let kind = match value {
        Value::Bool(value) => metadata::value::Kind::BoolValue(value),
        Value::Int(value) => metadata::value::Kind::IntValue(value),
        Value::Float(value) => metadata::value::Kind::DoubleValue(value),
        Value::Text(value) => metadata::value::Kind::StringValue(value),
        Value::List(values) => {
            let values = values.into_iter().map(value_message).collect();
            metadata::value::Kind::ListValue(metadata::ValueList { values })
        }
    };
    metadata::Value { kind: Some(kind) }
}

pub(super) fn metadata_value(messages: BTreeMap<String, metadata::Value>) -> Result<Metadata, String> {
    let mut values = Metadata::new();
    for (key, message) in messages {
        let value = value(message).map_err(|rule| format!("`{}` {rule}", shown(&key)))?;
        values.insert(key, value);
    }
    Ok(values)
}

fn value(message: metadata::Value) -> Result<Value, &'static str> {
    let Some(metadata::value::Kind::ListValue(list)) = message.kind else { return scalar(message) };
    Ok(Value::List(list.values.into_iter().map(scalar).collect::<Result<_, _>>()?))
}

fn scalar(message: metadata::Value) -> Result<Value, &'static str> {
    match message.kind {
        Some(metadata::value::Kind::BoolValue(value)) => Ok(Value::Bool(value)),
        Some(metadata::value::Kind::IntValue(value)) => Ok(Value::Int(value)),
        Some(metadata::value::Kind::DoubleValue(value)) if value.is_finite() => Ok(Value::Float(value)),
        Some(metadata::value::Kind::DoubleValue(_)) => Err("is not a finite number"),
        Some(metadata::value::Kind::StringValue(value)) => Ok(Value::Text(value)),
        Some(metadata::value::Kind::ListValue(_)) => Err("has a list in a list, or a list in a filter"),
        None => Err("has no value"),
    }
}

/// Returns the filter of a message. The decoder bounds how deep a message is nested, and so bounds this recursion.
pub(super) fn filter(message: retrieval::Filter) -> Result<Filter, FieldViolation> {
    let violation = |rule: &str| FieldViolation::new("filter", rule);
    match message.kind {
        None => Err(violation(
            "has a condition without a kind; set `all_of`, `any_of`, `not`, `one_of`, `range` or `time_range`",
        )),
        Some(retrieval::filter::Kind::AllOf(list)) => Ok(Filter::All(filters(list)?)),
        Some(retrieval::filter::Kind::AnyOf(list)) => Ok(Filter::Any(filters(list)?)),
        Some(retrieval::filter::Kind::Not(inner)) => Ok(Filter::Not(Box::new(filter(*inner)?))),
        Some(retrieval::filter::Kind::OneOf(retrieval::OneOf { key, values })) => {
            let values: Result<Vec<Value>, &str> = values.into_iter().map(scalar).collect();
            let values = values.map_err(|rule| FieldViolation::new("filter.one_of.values", rule))?;
            Ok(Filter::OneOf { key, values })
        }
        Some(retrieval::filter::Kind::Range(retrieval::Range { key, low, high })) => {
            Ok(Filter::Between { key, low: low.unwrap_or(f64::NEG_INFINITY), high: high.unwrap_or(f64::INFINITY) })
        }
        Some(retrieval::filter::Kind::TimeRange(retrieval::TimeRange { key, earliest, latest })) => {
            let moment = |bound: Option<Timestamp>| {
                let wrong = || FieldViolation::new("filter.time_range", "has a bound that is no time");
                bound.map(|bound| Moment::of_unix(bound.seconds, bound.nanos).ok_or_else(wrong)).transpose()
            };
            Ok(Filter::During { key, from: moment(earliest)?, until: moment(latest)? })
        }
    }
}

fn filters(list: retrieval::FilterList) -> Result<Vec<Filter>, FieldViolation> {
    list.filters.into_iter().map(filter).collect()
}
