//! Values of a context (JSON) as values of a parameter's type, with `OpenFGA`'s conversions.

use std::collections::HashMap;
use std::sync::Arc;

use cel::Value as CelValue;
use cel::objects::{Key, Map as CelMap};
use chrono::{DateTime, FixedOffset, TimeDelta};
use serde_json::Value;

use super::ip_address;
use super::kind::Kind;

/// The value, or what was expected and what was found. `serde_json` bounds the nesting, so this may call itself.
pub(super) fn convert(kind: &Kind, value: &Value) -> Result<CelValue, String> {
    let unexpected = || format!("expected {}, found {}", article(kind), found(value));
    match (kind, value) {
        (Kind::Any | Kind::Dyn, value) => Ok(any(value)),
        (Kind::Bool, Value::Bool(value)) => Ok(CelValue::Bool(*value)),
        (Kind::String, Value::String(text)) => Ok(CelValue::from(text.as_str())),
        (Kind::Int, value) => whole(value).map(CelValue::Int).ok_or_else(unexpected),
        (Kind::Uint, value) => {
            whole(value).and_then(|number| u64::try_from(number).ok()).map(CelValue::UInt).ok_or_else(unexpected)
        }
        (Kind::Double, value) => double(value).map(CelValue::Float).ok_or_else(unexpected),
        (Kind::Duration, Value::String(text)) => duration(text).map(CelValue::Duration).ok_or_else(unexpected),
        (Kind::Timestamp, Value::String(text)) => timestamp(text).map(CelValue::Timestamp).ok_or_else(unexpected),
        (Kind::IpAddress, Value::String(text)) => ip_address::parse(text),
        (Kind::List(element), Value::Array(items)) => {
            let mut converted = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                converted.push(convert(element, item).map_err(|e| format!("item {index}: {e}"))?);
            }
            Ok(CelValue::List(Arc::new(converted)))
        }
        (Kind::Map(_, element), Value::Object(entries)) => {
            let mut converted = HashMap::with_capacity(entries.len());
            for (name, item) in entries {
                let item = convert(element, item).map_err(|e| format!("entry `{name}`: {e}"))?;
                converted.insert(Key::from(name.as_str()), item);
            }
            Ok(CelValue::Map(CelMap { map: Arc::new(converted) }))
        }
        (
            Kind::Bool
            | Kind::String
            | Kind::Duration
            | Kind::Timestamp
            | Kind::IpAddress
            | Kind::List(_)
            | Kind::Map(..)
            | Kind::Bytes
            | Kind::Null
            | Kind::Type,
            _,
        ) => Err(unexpected()),
    }
}

/// Numbers are doubles, as everywhere in JSON.
fn any(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => CelValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => CelValue::from(text.as_str()),
        Value::Array(items) => CelValue::List(Arc::new(items.iter().map(any).collect())),
        Value::Object(entries) => {
            let entries: HashMap<Key, CelValue> =
                entries.iter().map(|(name, item)| (Key::from(name.as_str()), any(item))).collect();
            CelValue::Map(CelMap { map: Arc::new(entries) })
        }
    }
}

/// A whole number, also in a string. One that is too large is the largest there is, as in `OpenFGA`.
fn whole(value: &Value) -> Option<i64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => match text.parse::<i64>() {
            Ok(number) => return Some(number),
            Err(_) => number_in(text)?,
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    if number.is_finite() && number.fract() != 0.0 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and saturating is what is wanted")]
    let saturated = number as i64;
    Some(saturated)
}

/// A double; in a string, only a number that is a double exactly (`0.5`, not `0.1`), as in `OpenFGA`.
fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.strip_prefix(['+', '-']).unwrap_or(text) {
            "Inf" | "inf" if text.starts_with('-') => Some(f64::NEG_INFINITY),
            "Inf" | "inf" => Some(f64::INFINITY),
            _ => number_in(text).filter(|number| number.is_finite() && is_exactly(*number, text)),
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Infinite where it is too large.
fn number_in(text: &str) -> Option<f64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    if digits { text.parse::<f64>().ok() } else { None }
}

/// No double has more decimals.
const DECIMALS_MAX: usize = 1074;

/// Compares digits: those that the double has in full, and those of the text.
fn is_exactly(number: f64, text: &str) -> bool {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let Ok(exponent) = exponent.parse::<i64>() else { return false };
    significant(&format!("{number:.DECIMALS_MAX$}"), 0) == significant(mantissa, exponent)
}

/// The digits without zeros around them, and the power of ten of the last one.
fn significant(text: &str, exponent: i64) -> (String, i64) {
    let (whole, decimals) = text.trim_start_matches(['+', '-']).split_once('.').unwrap_or((text, ""));
    let digits: String = whole.chars().chain(decimals.chars()).filter(char::is_ascii_digit).collect();
    let digits = digits.trim_start_matches('0');
    let bare = digits.trim_end_matches('0');
    if bare.is_empty() {
        return (String::new(), 0);
    }
    let signed = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    let last = exponent.saturating_sub(signed(decimals.len())).saturating_add(signed(digits.len() - bare.len()));
    (bare.to_owned(), last)
}

/// RFC 3339 as Go reads it: capital letters, also a comma before the fraction, also one digit for the hour, no leap
/// second.
fn timestamp(text: &str) -> Option<DateTime<FixedOffset>> {
    let (date, rest) = text.split_once('T')?;
    let (hour, rest) = rest.split_once(':')?;
    let well_formed = (1..=2).contains(&hour.len()) && hour.bytes().all(|b| b.is_ascii_digit());
    let leap_second = rest.get(3..5) == Some("60");
    let lower_case = rest.ends_with('z');
    if !well_formed || leap_second || lower_case {
        return None;
    }
    DateTime::parse_from_rfc3339(&format!("{date}T{hour:0>2}:{}", rest.replacen(',', ".", 1))).ok()
}

/// A duration as Go writes it: `300ms`, `-1.5h`, `2h45m`.
fn duration(text: &str) -> Option<TimeDelta> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(TimeDelta::zero());
    }
    let mut nanoseconds: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = rest.split_at_checked(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?)?;
        let unit_length = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_length)?;
        nanoseconds = nanoseconds.checked_add(part_nanoseconds(number, unit)?)?;
        rest = after;
    }
    Some(TimeDelta::nanoseconds(if negative { -nanoseconds } else { nanoseconds }))
}

fn part_nanoseconds(number: &str, unit: &str) -> Option<i64> {
    let unit: i64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanoseconds = whole.checked_mul(unit)?;
    let mut scale = unit;
    for digit in fraction.bytes() {
        if !digit.is_ascii_digit() {
            return None;
        }
        // Below a nanosecond there is nothing.
        nanoseconds = nanoseconds.checked_add(i64::from(digit - b'0') * scale / 10)?;
        scale /= 10;
    }
    Some(nanoseconds)
}

fn article(kind: &Kind) -> String {
    match kind {
        Kind::Duration => "a duration such as `1h30m`".to_owned(),
        Kind::Timestamp => "a timestamp such as `2024-01-31T08:00:00Z`".to_owned(),
        Kind::Int | Kind::IpAddress => format!("an {kind}"),
        Kind::Any
        | Kind::Dyn
        | Kind::Bool
        | Kind::Uint
        | Kind::Double
        | Kind::String
        | Kind::Bytes
        | Kind::Null
        | Kind::List(_)
        | Kind::Map(..)
        | Kind::Type => format!("a {kind}"),
    }
}

/// What a value is, without showing much of it.
fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(number) => format!("`{number}`"),
        Value::String(text) => {
            let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
            format!("the string `{shown}`")
        }
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
    }
}
