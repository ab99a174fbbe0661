//! Decides what a scalar is, by the rules of Go's `yaml.v3`: those of YAML 1.2, with the numbers and times of YAML 1.1.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{NaiveDate, NaiveDateTime};

/// A scalar as it is written.
pub(super) struct Scalar<'t> {
    pub(super) text: Cow<'t, str>,
    /// Whether it has quotes or is a block.
    pub(super) quoted: bool,
    /// The tag: `str` for YAML's own `!!str`, and the whole tag otherwise.
    pub(super) tag: Option<String>,
}

/// The type and value of a scalar, where the field asks for no type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Resolved {
    Null,
    Bool(bool),
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    Timestamp,
    Text(String),
    /// The decoded text of a `!!binary`.
    Binary(String),
}

impl Scalar<'_> {
    /// Finds type and value. Fails if the tag names another type than the text has.
    pub(super) fn resolve(&self) -> Result<Resolved, String> {
        let text = || Resolved::Text(self.text.to_string());
        let plain = || resolve_plain(&self.text);
        let Some(tag) = &self.tag else {
            return Ok(if self.quoted { text() } else { plain() });
        };
        let resolved = match tag.as_str() {
            "null" | "bool" | "int" | "float" | "timestamp" => plain(),
            "binary" => {
                let bytes =
                    STANDARD.decode(self.text.as_bytes()).map_err(|e| format!("`!!binary` is no base64: {e}"))?;
                return Ok(Resolved::Binary(
                    String::from_utf8(bytes).map_err(|e| format!("`!!binary` holds no text: {e}"))?,
                ));
            }
            _ => return Ok(text()),
        };
        let name = match resolved {
            Resolved::Null => "null",
            Resolved::Bool(_) => "bool",
            // A whole number is a float, too, if the tag asks for one.
            Resolved::Integer(_) | Resolved::Unsigned(_) if tag == "float" => "float",
            Resolved::Integer(_) | Resolved::Unsigned(_) => "int",
            Resolved::Float(_) => "float",
            Resolved::Timestamp => "timestamp",
            Resolved::Text(_) | Resolved::Binary(_) => "str",
        };
        if name == tag { Ok(resolved) } else { Err(format!("`{}` is no `!!{tag}`", self.text)) }
    }
}

/// Returns the truth value that Go reads from one of the words of YAML 1.1, if the field asks for a truth value.
pub(super) fn old_bool(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

fn resolve_plain(text: &str) -> Resolved {
    let constant = match text {
        "" | "~" | "null" | "Null" | "NULL" => Some(Resolved::Null),
        "true" | "True" | "TRUE" => Some(Resolved::Bool(true)),
        "false" | "False" | "FALSE" => Some(Resolved::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => Some(Resolved::Float(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Some(Resolved::Float(f64::INFINITY)),
        "-.inf" | "-.Inf" | "-.INF" => Some(Resolved::Float(f64::NEG_INFINITY)),
        _ => None,
    };
    let could_be_a_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    if let Some(constant) = constant {
        return constant;
    }
    if !could_be_a_number {
        return Resolved::Text(text.to_owned());
    }
    if is_timestamp(text) {
        return Resolved::Timestamp;
    }
    number(text).unwrap_or_else(|| Resolved::Text(text.to_owned()))
}

fn number(text: &str) -> Option<Resolved> {
    let digits = text.replace('_', "");
    if text.starts_with('.') {
        // Go does not remove underscores from these.
        return decimal(text);
    }
    let (sign, magnitude) = match digits.as_bytes().first() {
        Some(b'-') => (-1, digits.get(1..)?),
        Some(b'+') => (1, digits.get(1..)?),
        _ => (1, digits.as_str()),
    };
    integer(sign, magnitude).or_else(|| decimal(&digits))
}

/// Parses an integer whose base is told by `0x`, `0o`, `0b` or a leading zero.
fn integer(sign: i128, magnitude: &str) -> Option<Resolved> {
    let lower = magnitude.to_ascii_lowercase();
    let (radix, digits) = if let Some(digits) = lower.strip_prefix("0x") {
        (16, digits)
    } else if let Some(digits) = lower.strip_prefix("0o") {
        (8, digits)
    } else if let Some(digits) = lower.strip_prefix("0b") {
        (2, digits)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, lower.get(1..)?)
    } else {
        (10, lower.as_str())
    };
    // `from_str_radix` would accept a second sign.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let value = sign * i128::from_str_radix(digits, radix).ok()?;
    match (i64::try_from(value), u64::try_from(value)) {
        (Ok(value), _) => Some(Resolved::Integer(value)),
        (Err(_), Ok(value)) => Some(Resolved::Unsigned(value)),
        (Err(_), Err(_)) => None,
    }
}

fn decimal(text: &str) -> Option<Resolved> {
    let all_of_a_number = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'));
    let value = text.parse::<f64>().ok().filter(|value| all_of_a_number && value.is_finite())?;
    Some(Resolved::Float(value))
}

/// Recognizes the four forms that Go knows: a date, and a date with a time after `T`, `t` or a space.
fn is_timestamp(text: &str) -> bool {
    let year_digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if year_digits != 4 || text.as_bytes().get(year_digits) != Some(&b'-') {
        return false;
    }
    let with_time = |format: &str, text: &str| NaiveDateTime::parse_from_str(text, format).is_ok();
    let Some(split) = text.find(['T', 't', ' ']) else {
        return NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok();
    };
    if text.as_bytes().get(split) == Some(&b' ') {
        return with_time("%Y-%m-%d %H:%M:%S%.f", text);
    }
    let text = text.replacen('t', "T", 1);
    let local = text.strip_suffix('Z').or_else(|| {
        let (local, zone) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
        let [b'+' | b'-', hour @ .., b':', _, _] = zone.as_bytes() else { return None };
        (hour.len() == 2 && zone.bytes().filter(u8::is_ascii_digit).count() == 4).then_some(local)
    });
    local.is_some_and(|local| with_time("%Y-%m-%dT%H:%M:%S%.f", local))
}
