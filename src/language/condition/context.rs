//! Converts the values of a context from JSON to the parameters' types, as `OpenFGA` does.

use std::sync::Arc;

use serde_json::Value;

use super::ip_address;
use super::kind::Kind;
use super::moment::{self, Timestamp};
use super::value::{Key, Map, Value as CelValue};

/// Converts a value, or says which type was expected and what was found. The recursion is bounded because `serde_json`
/// bounds nesting.
pub(super) fn convert(kind: &Kind, value: &Value) -> Result<CelValue, String> {
    let unexpected = || format!("expected {}, found {}", article(kind), found(value));
    match (kind, value) {
        (Kind::Any | Kind::Dyn, value) => Ok(any(value)),
        (Kind::Bool, Value::Bool(value)) => Ok(CelValue::Bool(*value)),
        (Kind::String, Value::String(text)) => Ok(CelValue::string(text)),
        (Kind::Int, value) => whole(value).map(CelValue::Int).ok_or_else(unexpected),
        (Kind::Uint, value) => {
            whole(value).and_then(|number| u64::try_from(number).ok()).map(CelValue::Uint).ok_or_else(unexpected)
        }
        (Kind::Double, value) => double(value).map(CelValue::Double).ok_or_else(unexpected),
        (Kind::Duration, Value::String(text)) => {
            moment::parse_duration(text).map(CelValue::Duration).ok_or_else(unexpected)
        }
        (Kind::Timestamp, Value::String(text)) => {
            Timestamp::of_context(text).map(CelValue::Timestamp).ok_or_else(unexpected)
        }
        (Kind::IpAddress, Value::String(text)) => ip_address::parse(text),
        (Kind::List(element), Value::Array(items)) => {
            let mut converted = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                converted.push(convert(element, item).map_err(|e| format!("item {index}: {e}"))?);
            }
            Ok(CelValue::list(converted))
        }
        (Kind::Map(_, element), Value::Object(entries)) => {
            let mut converted = Map::new();
            for (name, item) in entries {
                let item = convert(element, item).map_err(|e| format!("entry `{name}`: {e}"))?;
                converted.insert(Key::String(name.as_str().into()), item);
            }
            Ok(CelValue::Map(Arc::new(converted)))
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
            | Kind::Type
            | Kind::Variable(_),
            _,
        ) => Err(unexpected()),
    }
}

/// Converts a value to `any`. Numbers become doubles, as everywhere in JSON.
fn any(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => CelValue::Double(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => CelValue::string(text),
        Value::Array(items) => CelValue::list(items.iter().map(any).collect()),
        Value::Object(entries) => {
            let entries = entries.iter().map(|(name, item)| (Key::String(name.as_str().into()), any(item)));
            CelValue::Map(Arc::new(entries.collect()))
        }
    }
}

/// Reads a whole number, also from a string. As in `OpenFGA`, one that is too large becomes the largest there is.
fn whole(value: &Value) -> Option<i64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => return text.parse().ok().or_else(|| whole_in(text)),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    if number.is_finite() && number.fract() != 0.0 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and saturating is what is wanted")]
    let saturated = number as i64;
    Some(saturated)
}

/// Reads a double. As in `OpenFGA`, a string must hold a number that is exactly a double (`0.5`, not `0.1`).
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

/// Reads a whole number that is written with a point or an exponent. It need not be a double: `9007199254740993.0`. Go
/// reads it with a mantissa of 64 bits. If these bits cannot tell a number from a whole number, it counts as that whole
/// number.
fn whole_in(text: &str) -> Option<i64> {
    number_in(text)?;
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (digits, power) = significant(mantissa, exponent.parse().ok()?);
    if power > POWER_MAX {
        return None;
    }
    let magnitude = match usize::try_from(power) {
        Ok(zeros) if zeros <= INT_DIGITS_MAX => format!("0{digits}{}", "0".repeat(zeros)).parse().unwrap_or(u128::MAX),
        Ok(_too_large) => u128::MAX,
        Err(_negative) => rounded(&digits, usize::try_from(power.unsigned_abs()).ok()?)?,
    };
    Some(if text.starts_with('-') {
        i64::try_from(magnitude).map_or(i64::MIN, |magnitude| -magnitude)
    } else {
        i64::try_from(magnitude).unwrap_or(i64::MAX)
    })
}

/// Returns the whole number that Go reads from these digits, of which the last `decimals` are decimals. Returns `None`
/// if Go finds none. The last digit must not be zero.
fn rounded(digits: &str, decimals: usize) -> Option<u128> {
    let (kept, cut) = digits.split_at_checked(DIGITS_KEPT).unwrap_or((digits, ""));
    let Some(decimals) = decimals.checked_sub(cut.len()) else { return Some(u128::MAX) };
    // If there are more decimals than kept digits, the number is less than a tenth.
    let scale = 10_u128.checked_pow(u32::try_from(decimals).ok()?)?;
    let number: u128 = kept.parse().ok()?;
    let (whole, rest) = (number / scale, number % scale);
    let bits = u128::BITS - whole.leading_zeros();
    // Half of the mantissa's last bit is worth one part in two to the power of `half`.
    let Some(half) = MANTISSA_BITS.checked_sub(bits).map(|bits| bits + 1) else { return Some(u128::MAX) };
    let is_nothing = |part: u128| (1_u128 << half).checked_mul(part).is_some_and(|parts| parts <= scale);
    if is_nothing(scale - rest) {
        Some(whole + 1)
    } else {
        // A number below one keeps all of its bits.
        (whole > 0 && is_nothing(rest + u128::from(!cut.is_empty()))).then_some(whole)
    }
}

/// The digits of the longest `i64`.
const INT_DIGITS_MAX: usize = 19;
/// Go's numbers end at two to the power of about 2,147,483,647, which is ten to the power of this.
const POWER_MAX: i64 = 646_456_993;
/// The bits of the mantissa that Go reads a number into.
const MANTISSA_BITS: u32 = 64;
/// One less than the number of digits that always fit into a `u128`.
const DIGITS_KEPT: usize = 37;

/// Reads a number. One that is too large becomes infinite.
fn number_in(text: &str) -> Option<f64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    if digits { text.parse::<f64>().ok() } else { None }
}

/// The decimals of the longest exact double.
const DECIMALS_MAX: usize = 1074;

/// Returns whether a double has exactly the value of the text, by comparing all digits of both.
fn is_exactly(number: f64, text: &str) -> bool {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let Ok(exponent) = exponent.parse::<i64>() else { return false };
    significant(&format!("{number:.DECIMALS_MAX$}"), 0) == significant(mantissa, exponent)
}

/// Returns the digits without the zeros around them, and the power of ten of the last one.
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
        | Kind::Type
        | Kind::Variable(_) => format!("a {kind}"),
    }
}

/// Names a value's type for an error, without showing much of the value.
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
