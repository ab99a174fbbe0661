//! Evaluates filters on a point.

use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::{Condition, DatetimeRange, FieldCondition, Filter, Range, Timestamp, Value};
use ragward::vector_store::Moment;
use tonic::Status;

use super::path::{names, values};
use super::strict_mode::conditions;
use super::{Id, Point, not_implemented};

/// Returns whether a point passes. Without a filter every point passes.
pub(super) fn passes(filter: Option<&Filter>, id: &Id, point: &Point) -> Result<bool, Status> {
    let Some(filter) = filter else { return Ok(true) };
    if filter.min_should.is_some() {
        return not_implemented();
    }
    for condition in &filter.must {
        if !holds(condition, id, point)? {
            return Ok(false);
        }
    }
    for condition in &filter.must_not {
        if holds(condition, id, point)? {
            return Ok(false);
        }
    }
    // An empty list of alternatives is no restriction.
    let mut any = filter.should.is_empty();
    for condition in &filter.should {
        any |= holds(condition, id, point)?;
    }
    Ok(any)
}

/// Returns whether a filter has a condition that came with Qdrant 1.19. An older server refuses it.
pub(super) fn is_new(filter: &Filter) -> bool {
    let is_prefix = |condition: &Condition| match &condition.condition_one_of {
        Some(ConditionOneOf::Field(field)) => {
            let wanted = field.r#match.as_ref().and_then(|wanted| wanted.match_value.as_ref());
            matches!(wanted, Some(MatchValue::Prefix(_)))
        }
        _ => false,
    };
    conditions(filter).any(is_prefix)
}

fn holds(condition: &Condition, id: &Id, point: &Point) -> Result<bool, Status> {
    match &condition.condition_one_of {
        Some(ConditionOneOf::Filter(filter)) => passes(Some(filter), id, point),
        Some(ConditionOneOf::Field(field)) => field_holds(field, point),
        Some(ConditionOneOf::HasVector(wanted)) if wanted.has_vector.is_empty() => Ok(!point.vector.is_empty()),
        // There is one sparse vector at most.
        Some(ConditionOneOf::HasVector(_)) => Ok(!point.sparse.is_empty()),
        Some(ConditionOneOf::IsEmpty(empty)) => Ok(count(&empty.key, point)? == 0),
        Some(ConditionOneOf::HasId(ids)) => {
            // The id is turned into a message once, since parsing a thousand ids for each point takes seconds.
            let own = id.to_message();
            Ok(ids.has_id.contains(&own))
        }
        _ => not_implemented(),
    }
}

fn field_holds(field: &FieldCondition, point: &Point) -> Result<bool, Status> {
    if let Some(wanted) = &field.values_count {
        let count = count(&field.key, point)?;
        return Ok(wanted.gte.is_none_or(|least| count >= least) && wanted.lte.is_none_or(|most| count <= most));
    }
    let found = values(&point.payload, &names(&field.key)?);
    if let Some(range) = &field.datetime_range {
        return Ok(found.iter().any(|value| during(range, value)));
    }
    match (field.r#match.as_ref().and_then(|m| m.match_value.as_ref()), &field.range) {
        (Some(wanted), None) => matches(wanted, &found),
        (None, Some(range)) => Ok(found.iter().any(|value| within(range, value))),
        _ => not_implemented(),
    }
}

/// Returns the number of values of a field. A missing field and null have none.
fn count(key: &str, point: &Point) -> Result<u64, Status> {
    let found = values(&point.payload, &names(key)?);
    Ok(found.iter().filter(|value| !matches!(value.kind, None | Some(Kind::NullValue(_)))).count() as u64)
}

fn matches(wanted: &MatchValue, found: &[&Value]) -> Result<bool, Status> {
    let texts = found.iter().filter_map(|value| match &value.kind {
        Some(Kind::StringValue(text)) => Some(text),
        _ => None,
    });
    Ok(match wanted {
        MatchValue::Keyword(keyword) => texts.clone().any(|text| text == keyword),
        MatchValue::Keywords(any) => texts.clone().any(|text| any.strings.contains(text)),
        // `2.0` is not an integer.
        MatchValue::Integer(number) => found.iter().any(|value| value.kind == Some(Kind::IntegerValue(*number))),
        MatchValue::Integers(any) => found
            .iter()
            .any(|value| matches!(value.kind, Some(Kind::IntegerValue(number)) if any.integers.contains(&number))),
        // As in Qdrant, a field without a full-text index matches the text anywhere in the value, whatever other index
        // it has.
        MatchValue::Text(part) => texts.clone().any(|text| text.contains(part)),
        MatchValue::Prefix(start) => texts.clone().any(|text| text.starts_with(start.as_str())),
        MatchValue::Boolean(truth) => found.iter().any(|value| value.kind == Some(Kind::BoolValue(*truth))),
        MatchValue::ExceptIntegers(_)
        | MatchValue::ExceptKeywords(_)
        | MatchValue::Phrase(_)
        | MatchValue::TextAny(_)
        | MatchValue::Substring(_) => return not_implemented(),
    })
}

/// Compares a text that is a date or a time. Qdrant reads a few more forms than these.
fn during(range: &DatetimeRange, value: &Value) -> bool {
    let Some(Kind::StringValue(text)) = &value.kind else { return false };
    let Some(found) = Moment::parse(text) else { return false };
    let bound = |bound: &Timestamp| Moment::of_unix(bound.seconds, bound.nanos).expect("a time");
    range.gte.as_ref().is_none_or(|low| found >= bound(low))
        && range.lte.as_ref().is_none_or(|high| found <= bound(high))
        && range.gt.is_none()
        && range.lt.is_none()
}

fn within(range: &Range, value: &Value) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "Qdrant compares as floats too")]
    let number = match &value.kind {
        Some(Kind::IntegerValue(number)) => *number as f64,
        Some(Kind::DoubleValue(number)) => *number,
        _ => return false,
    };
    range.gte.is_none_or(|low| number >= low)
        && range.lte.is_none_or(|high| number <= high)
        && range.gt.is_none_or(|low| number > low)
        && range.lt.is_none_or(|high| number < high)
}
