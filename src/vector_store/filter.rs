//! The meaning of a filter. The embedded engine follows this definition, and every other adapter is tested against it.

use std::cmp::Ordering;

use super::{Filter, Moment};
use crate::chunk::{Metadata, Value};

impl Filter {
    /// Returns whether a chunk with this metadata passes.
    #[must_use]
    pub fn matches(&self, metadata: &Metadata) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.matches(metadata)),
            Self::Any(filters) => filters.iter().any(|filter| filter.matches(metadata)),
            Self::Not(filter) => !filter.matches(metadata),
            Self::OneOf { key, values } => any(metadata, key, |found| values.iter().any(|wanted| equal(found, wanted))),
            Self::Between { key, low, high } => any(metadata, key, |found| within(found, *low, *high)),
            Self::During { key, from, until } => any(metadata, key, |found| during(found, *from, *until)),
        }
    }
}

/// Returns whether the value under a key meets a condition, or one of the values of a list.
fn any(metadata: &Metadata, key: &str, condition: impl Fn(&Value) -> bool) -> bool {
    match metadata.get(key) {
        Some(Value::List(values)) => values.iter().any(condition),
        Some(value @ (Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_))) => condition(value),
        None => false,
    }
}

fn during(found: &Value, from: Option<Moment>, until: Option<Moment>) -> bool {
    let Value::Text(text) = found else { return false };
    Moment::parse(text)
        .is_some_and(|found| from.is_none_or(|from| from <= found) && until.is_none_or(|until| found <= until))
}

fn equal(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Int(int), Value::Float(float)) | (Value::Float(float), Value::Int(int)) => {
            compare(*int, *float) == Some(Ordering::Equal)
        }
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b) == Some(Ordering::Equal),
        (Value::Bool(_) | Value::Text(_) | Value::Int(_) | Value::Float(_) | Value::List(_), _) => false,
    }
}

fn within(found: &Value, low: f64, high: f64) -> bool {
    match found {
        Value::Int(int) => {
            compare(*int, low).is_some_and(Ordering::is_ge) && compare(*int, high).is_some_and(Ordering::is_le)
        }
        Value::Float(float) => low <= *float && *float <= high,
        Value::Bool(_) | Value::Text(_) | Value::List(_) => false,
    }
}

/// Compares a whole number with a float without rounding it to a float first. `None` for NaN.
fn compare(int: i64, float: f64) -> Option<Ordering> {
    const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        return None;
    }
    if float >= TWO_TO_63 {
        return Some(Ordering::Less);
    }
    if float < -TWO_TO_63 {
        return Some(Ordering::Greater);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the whole part was just seen to fit")]
    let whole = float.trunc() as i64;
    Some(int.cmp(&whole).then_with(|| {
        let rest = float - float.trunc();
        0.0_f64.partial_cmp(&rest).unwrap_or(Ordering::Equal)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of(key: &str, value: Value) -> Filter {
        Filter::OneOf { key: key.to_owned(), values: vec![value] }
    }

    fn between(key: &str, low: f64, high: f64) -> Filter {
        Filter::Between { key: key.to_owned(), low, high }
    }

    fn during(key: &str, from: &str, until: &str) -> Filter {
        Filter::During { key: key.to_owned(), from: Moment::parse(from), until: Moment::parse(until) }
    }

    #[test]
    fn filters_mean_what_the_port_says() {
        let text = |s: &str| Value::Text(s.to_owned());
        let metadata: Metadata = [
            ("sig".to_owned(), text("node")),
            ("stable".to_owned(), Value::Bool(true)),
            ("year".to_owned(), Value::Int(2021)),
            ("big".to_owned(), Value::Int(9_007_199_254_740_993)),
            ("share".to_owned(), Value::Float(0.5)),
            ("whole".to_owned(), Value::Float(3.0)),
            ("tags".to_owned(), Value::List(vec![text("a b"), Value::Int(7)])),
            ("none".to_owned(), Value::List(vec![])),
            ("day".to_owned(), text("2026-11-30")),
            ("days".to_owned(), Value::List(vec![text("2020-01-01"), text("no day")])),
        ]
        .into();
        let rows = [
            (one_of("sig", text("node")), true),
            (one_of("sig", text("Node")), false),
            (one_of("stable", Value::Bool(true)), true),
            (one_of("stable", Value::Int(1)), false),
            (one_of("year", Value::Int(2021)), true),
            (one_of("year", Value::Float(2021.0)), true),
            (one_of("year", text("2021")), false),
            (one_of("whole", Value::Int(3)), true),
            // No float is 2^53 + 1. The filter must not round this number to its neighbour.
            (one_of("big", Value::Float(9_007_199_254_740_992.0)), false),
            (one_of("share", Value::Float(f64::NAN)), false),
            (one_of("absent", Value::Int(1)), false),
            (Filter::Not(Box::new(one_of("absent", Value::Int(1)))), true),
            (Filter::OneOf { key: "sig".to_owned(), values: vec![] }, false),
            (between("year", 2021.0, 2021.0), true),
            (between("year", 2021.5, 2022.0), false),
            (between("year", f64::NEG_INFINITY, f64::INFINITY), true),
            (between("year", f64::NAN, 3000.0), false),
            (between("share", 0.5, 0.6), true),
            (between("sig", 0.0, 1.0), false),
            (between("absent", f64::NEG_INFINITY, f64::INFINITY), false),
            (one_of("tags", text("a b")), true),
            (one_of("tags", text("a")), false),
            (one_of("tags", Value::Int(7)), true),
            (one_of("tags", Value::List(vec![text("a b")])), false),
            (Filter::Not(Box::new(one_of("tags", text("a b")))), false),
            (one_of("none", text("a b")), false),
            (between("tags", 6.0, 8.0), true),
            (between("none", f64::NEG_INFINITY, f64::INFINITY), false),
            (during("day", "2026-11-30", "2026-11-30"), true),
            (during("day", "2026-11-30T00:00:01Z", "2027-01-01"), false),
            (during("day", "2026-01-01", "2026-11-29"), false),
            (during("days", "2020-01-01", "2020-12-31"), true),
            (during("sig", "1970-01-01", "2100-01-01"), false),
            (during("year", "1970-01-01", "2100-01-01"), false),
            (Filter::During { key: "day".to_owned(), from: None, until: None }, true),
            (Filter::All(vec![]), true),
            (Filter::Any(vec![]), false),
            (Filter::All(vec![one_of("sig", text("node")), between("year", 0.0, 1.0)]), false),
            (Filter::Any(vec![one_of("sig", text("node")), between("year", 0.0, 1.0)]), true),
        ];
        for (filter, expected) in rows {
            assert_eq!(filter.matches(&metadata), expected, "{filter:?}");
        }
    }

    #[test]
    fn whole_numbers_compare_with_floats_exactly() {
        let rows = [
            (0, -0.0, Some(Ordering::Equal)),
            (1, 1.5, Some(Ordering::Less)),
            (-1, -1.5, Some(Ordering::Greater)),
            (i64::MAX, 9_223_372_036_854_775_808.0, Some(Ordering::Less)),
            (i64::MIN, -9_223_372_036_854_775_808.0, Some(Ordering::Equal)),
            (i64::MIN, -1e300, Some(Ordering::Greater)),
            (0, f64::NAN, None),
        ];
        for (int, float, expected) in rows {
            assert_eq!(compare(int, float), expected, "{int} and {float}");
        }
    }
}
