//! Translates filters into Qdrant's conditions. All conditions of the adapter are made here.
//!
//! INVARIANT (a value is matched whole): a text is always sent as a *keyword*. If a text has white space,
//! `qdrant-client` would make a *text* match. Without a full-text index, Qdrant then finds every value that contains
//! the text: `team a` would match `team a b`. So no value goes through the client's conversions, and `tests/tidy.rs`
//! checks that.

use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::{
    Condition, DatetimeRange, FieldCondition, Filter as QdrantFilter, Match, Range, RepeatedIntegers, RepeatedStrings,
    Timestamp,
};

use super::fields::{POSITION, TEXT_ANALYSIS};
use super::layout::Layout;
use crate::chunk::Value;
use crate::vector_store::{Filter, Moment};

/// Every whole number below this is exactly one `f64`, so comparing as `f64` is exact.
const EXACT_INTEGERS: u64 = 1 << 53;

/// A start that no mark of a text's analysis has: each mark begins with a digit.
const NO_MARK: &str = ":";

/// A translated filter. *Never* and *always* are kept apart from conditions, because to Qdrant an empty list of alternatives
/// means *always*.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Clause {
    Always,
    Never,
    When(Box<Condition>),
}

/// Translates the filter of a caller.
pub(super) fn translate(filter: &Filter, layout: &Layout) -> Clause {
    match filter {
        Filter::All(parts) => all(parts, layout),
        Filter::Any(parts) => any(parts.iter().map(|part| translate(part, layout))),
        Filter::Not(part) => match translate(part, layout) {
            Clause::Always => Clause::Never,
            Clause::Never => Clause::Always,
            Clause::When(condition) => when(not(*condition)),
        },
        Filter::OneOf { key, values } => match layout.metadata_key(key) {
            Some(path) => any(values.iter().map(|value| equals(&path, value))),
            None => Clause::Never,
        },
        Filter::Between { key, low, high } => match layout.metadata_key(key) {
            Some(path) => when(between(&path, *low, *high)),
            None => Clause::Never,
        },
        Filter::During { key, from, until } => match layout.metadata_key(key) {
            Some(path) => when(during(&path, *from, *until)),
            None => Clause::Never,
        },
    }
}

/// Matches the chunks of these guards.
pub(super) fn guard_in(layout: &Layout, guards: Vec<String>) -> Condition {
    any_text(layout.guard.key(), guards)
}

/// Matches the chunks of these documents.
pub(super) fn document_in(layout: &Layout, document_ids: Vec<String>) -> Condition {
    any_text(layout.document_id.key(), document_ids)
}

/// Returns conditions on the document. Each chunk of these documents meets at least one of them. There may be two,
/// because another program may have written ids as whole numbers.
pub(super) fn of_documents(layout: &Layout, document_ids: &[String]) -> Vec<Condition> {
    let as_number = |id: &String| id.parse::<i64>().ok().filter(|number| number.to_string() == *id);
    let numbers: Vec<i64> = document_ids.iter().filter_map(as_number).collect();
    let texts = (!document_ids.is_empty()).then(|| document_in(layout, document_ids.to_vec()));
    let numbers = (!numbers.is_empty() && !layout.is_own()).then(|| any_number(layout.document_id.key(), numbers));
    texts.into_iter().chain(numbers).collect()
}

/// Matches what the condition does not match.
pub(super) fn not(condition: Condition) -> Condition {
    QdrantFilter::must_not([condition]).into()
}

/// Matches one chunk of each document.
pub(super) fn first_of_document() -> Condition {
    number(POSITION, 0)
}

/// Matches no point. A node older than Qdrant 1.19 cannot read this condition, and refuses the search that has it, even if
/// another node hands the search on to it. Such a node would ignore the corpus of a text query.
pub(super) fn of_no_mark() -> Condition {
    matches(TEXT_ANALYSIS, MatchValue::Prefix(NO_MARK.to_owned()))
}

/// Matches the points whose field is this text or a list with this text.
pub(super) fn text(key: impl Into<String>, text: String) -> Condition {
    matches(key, MatchValue::Keyword(text))
}

/// Matches the points whose field is this whole number.
pub(super) fn number(key: impl Into<String>, number: i64) -> Condition {
    matches(key, MatchValue::Integer(number))
}

fn any_text(key: impl Into<String>, strings: Vec<String>) -> Condition {
    matches(key, MatchValue::Keywords(RepeatedStrings { strings }))
}

fn any_number(key: impl Into<String>, integers: Vec<i64>) -> Condition {
    matches(key, MatchValue::Integers(RepeatedIntegers { integers }))
}

fn matches(key: impl Into<String>, value: MatchValue) -> Condition {
    let r#match = Some(Match { match_value: Some(value) });
    let field = FieldCondition { key: key.into(), r#match, ..FieldCondition::default() };
    Condition { condition_one_of: Some(ConditionOneOf::Field(field)) }
}

fn when(condition: Condition) -> Clause {
    Clause::When(Box::new(condition))
}

fn all(parts: &[Filter], layout: &Layout) -> Clause {
    let mut conditions = Vec::with_capacity(parts.len());
    for part in parts {
        match translate(part, layout) {
            Clause::Always => {}
            Clause::Never => return Clause::Never,
            Clause::When(condition) => conditions.push(*condition),
        }
    }
    if conditions.is_empty() { Clause::Always } else { when(QdrantFilter::must(conditions).into()) }
}

fn any(clauses: impl Iterator<Item = Clause>) -> Clause {
    let mut conditions = Vec::new();
    for clause in clauses {
        match clause {
            Clause::Always => return Clause::Always,
            Clause::Never => {}
            Clause::When(condition) => conditions.push(*condition),
        }
    }
    if conditions.is_empty() { Clause::Never } else { when(QdrantFilter::should(conditions).into()) }
}

/// Numbers are sent as ranges. To Qdrant's *match*, `2` and `2.0` are different values; to its *range* they are the
/// same number.
fn equals(path: &str, value: &Value) -> Clause {
    match value {
        Value::Bool(value) => when(matches(path, MatchValue::Boolean(*value))),
        Value::Text(value) => when(text(path, value.clone())),
        Value::Float(value) => when(between(path, *value, *value)),
        Value::Int(value) if value.unsigned_abs() < EXACT_INTEGERS => {
            #[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
            let value = *value as f64;
            when(between(path, value, value))
        }
        Value::Int(value) => when(number(path, *value)),
        // No value is a list: a condition is about the values in one.
        Value::List(_) => Clause::Never,
    }
}

/// Matches texts that are moments. Without bounds, the range is that of all times, since an empty range would match anything.
fn during(path: &str, from: Option<Moment>, until: Option<Moment>) -> Condition {
    /// The first second that a `google.protobuf.Timestamp` can hold.
    const FIRST_SECOND: i64 = -62_135_596_800;
    /// The last one.
    const LAST_SECOND: i64 = 253_402_300_799;
    let timestamp = |moment: Moment| Timestamp {
        seconds: moment.microseconds().div_euclid(1_000_000).clamp(FIRST_SECOND, LAST_SECOND),
        nanos: i32::try_from(moment.microseconds().rem_euclid(1_000_000) * 1_000).unwrap_or_default(),
    };
    let [first, last] = [FIRST_SECOND, LAST_SECOND].map(|seconds| Timestamp { seconds, nanos: 0 });
    let gte = Some(from.map_or(first, timestamp));
    let lte = Some(until.map_or(last, timestamp));
    Condition::datetime_range(path, DatetimeRange { gte, lte, lt: None, gt: None })
}

/// Qdrant keeps payloads as JSON. A number with many digits may be off by up to two units in the last place when Qdrant
/// reads it back. So the neighbours of such a bound are included.
fn between(path: &str, low: f64, high: f64) -> Condition {
    let low = if is_kept_exactly(low) { low } else { low.next_down().next_down() };
    let high = if is_kept_exactly(high) { high } else { high.next_up().next_up() };
    Condition::range(path, Range { gte: Some(low), lte: Some(high), lt: None, gt: None })
}

/// Returns whether a number comes back from JSON unchanged: it has so few digits that reading it rounds only once.
fn is_kept_exactly(number: f64) -> bool {
    /// Every whole number with this many digits is exactly one `f64`.
    const DIGITS_MAX: usize = 15;
    /// Every power of ten up to this one is exactly one `f64`.
    const POWER_MAX: i64 = 22;
    let text = format!("{number:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return true };
    let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let (Ok(exponent), Ok(places)) = (exponent.parse::<i64>(), i64::try_from(decimals)) else { return false };
    let count = digits.bytes().filter(u8::is_ascii_digit).count();
    count <= DIGITS_MAX && (exponent - places).abs() <= POWER_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(key: &str) -> Filter {
        Filter::OneOf { key: key.to_owned(), values: vec![Value::Text("x".to_owned())] }
    }

    #[track_caller]
    fn check(filter: &Filter, expected: &str) {
        let found = match translate(filter, &Layout::default()) {
            Clause::Always => "always",
            Clause::Never => "never",
            Clause::When(_) => "when",
        };
        assert_eq!(found, expected, "{filter:?}");
    }

    #[test]
    fn numbers_of_few_digits_are_kept_exactly() {
        let rows: [(f64, bool); 12] = [
            (0.0, true),
            (-0.1, true),
            (2021.5, true),
            (0.3, true),
            (1e22, true),
            (123_456_789_012_345.0, true),
            (f64::INFINITY, true),
            (0.1 + 0.2, false),
            (1e23, false),
            (1e-23, false),
            (1.0 / 3.0, false),
            (1_234_567_890_123_456.0, false),
        ];
        for (number, expected) in rows {
            assert_eq!(is_kept_exactly(number), expected, "{number}");
        }
    }

    /// INVARIANT (a filter only shrinks): a filter that cannot hold never becomes one that Qdrant takes for *always*.
    #[test]
    fn nothing_to_match_is_never() {
        let none = || Filter::OneOf { key: "a".to_owned(), values: vec![] };
        check(&Filter::Any(vec![]), "never");
        check(&none(), "never");
        check(&Filter::Any(vec![none(), Filter::Any(vec![])]), "never");
        check(&Filter::All(vec![text("a"), none()]), "never");
        check(&Filter::Any(vec![none(), text("a")]), "when");
        check(&Filter::Not(Box::new(Filter::All(vec![]))), "never");
        check(&text("\"a"), "never");
        check(&text("a\\"), "never");
        check(&Filter::Between { key: "a\".b".to_owned(), low: 0.0, high: 1.0 }, "never");

        check(&Filter::All(vec![]), "always");
        check(&Filter::Not(Box::new(none())), "always");
        check(&Filter::All(vec![Filter::All(vec![]), Filter::Not(Box::new(none()))]), "always");
        check(&Filter::Any(vec![text("a"), Filter::All(vec![])]), "always");
        check(&Filter::Not(Box::new(text("a"))), "when");
    }
}
