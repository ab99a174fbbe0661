//! Qdrant's filters in our terms.

use std::collections::BTreeSet;

use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::{Condition, FieldCondition, Filter as QdrantFilter};
use ragward::chunk::Value;
use ragward::vector_store::Filter;
use tonic::Status;

use super::not_implemented;

/// A filter, with what it says about guards apart.
pub(super) struct Restriction {
    /// `None`: any guard.
    pub(super) guards: Option<BTreeSet<String>>,
    pub(super) filter: Filter,
}

/// Takes a search's filter apart.
pub(super) fn restriction(filter: Option<QdrantFilter>) -> Result<Restriction, Status> {
    let mut filter = filter.unwrap_or_default();
    let mut guards: Option<BTreeSet<String>> = None;
    let mut rest = Vec::new();
    for condition in filter.must {
        match keywords(&condition, "guard") {
            None => rest.push(condition),
            Some(named) => {
                let named: BTreeSet<String> = named.into_iter().collect();
                guards = Some(guards.map_or(named.clone(), |guards| &guards & &named));
            }
        }
    }
    filter.must = rest;
    Ok(Restriction { guards, filter: translate(filter)? })
}

/// The texts that a condition lets a field have, if that is all it says.
pub(super) fn keywords(condition: &Condition, field: &str) -> Option<Vec<String>> {
    let Some(ConditionOneOf::Field(condition)) = &condition.condition_one_of else { return None };
    let MatchValue::Keywords(keywords) = condition.r#match.as_ref()?.match_value.as_ref()? else { return None };
    (condition.key == field).then(|| keywords.strings.clone())
}

fn translate(filter: QdrantFilter) -> Result<Filter, Status> {
    if filter.min_should.is_some() {
        return not_implemented();
    }
    let mut parts = conditions(filter.must)?;
    // No alternatives at all are no restriction.
    if !filter.should.is_empty() {
        parts.push(Filter::Any(conditions(filter.should)?));
    }
    parts.extend(conditions(filter.must_not)?.into_iter().map(|part| Filter::Not(Box::new(part))));
    Ok(Filter::All(parts))
}

fn conditions(conditions: Vec<Condition>) -> Result<Vec<Filter>, Status> {
    conditions.into_iter().map(condition).collect()
}

fn condition(condition: Condition) -> Result<Filter, Status> {
    match condition.condition_one_of {
        Some(ConditionOneOf::Filter(filter)) => translate(filter),
        Some(ConditionOneOf::Field(field)) => field_condition(field),
        _ => not_implemented(),
    }
}

fn field_condition(condition: FieldCondition) -> Result<Filter, Status> {
    let quoted = condition.key.strip_prefix("metadata.\"").and_then(|rest| rest.strip_suffix('"'));
    let Some(key) = quoted.map(str::to_owned) else { return not_implemented() };
    let values = match (condition.r#match.and_then(|condition| condition.match_value), condition.range) {
        (None, Some(range)) => {
            let (Some(low), Some(high)) = (range.gte, range.lte) else { return not_implemented() };
            return Ok(Filter::Between { key, low, high });
        }
        (Some(MatchValue::Keyword(text)), None) => vec![Value::Text(text)],
        (Some(MatchValue::Keywords(texts)), None) => texts.strings.into_iter().map(Value::Text).collect(),
        (Some(MatchValue::Boolean(value)), None) => vec![Value::Bool(value)],
        (Some(MatchValue::Integer(value)), None) => vec![Value::Int(value)],
        _ => return not_implemented(),
    };
    Ok(Filter::OneOf { key, values })
}
