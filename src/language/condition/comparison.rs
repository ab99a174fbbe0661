//! The equality and the order of CEL's values.

use std::cmp::Ordering;

use super::Failure;
use super::meter::Meter;
use super::number;
use super::value::{Key, List, Map, Value, find};

/// Evaluates `left == right`. Values of different types are unequal, except that numbers are compared as numbers, and
/// that an IP address cannot be compared with anything else.
///
/// The recursion is bounded because expressions and contexts bound the nesting of a value.
pub(super) fn equal(left: &Value, right: &Value, meter: &mut Meter) -> Result<bool, Failure> {
    meter.work(size_of::<Value>())?;
    match (left, right) {
        (Value::Null, Value::Null) => Ok(true),
        (Value::Null, _) | (_, Value::Null) => Ok(false),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
            Ok(compare_numbers(left, right) == Some(Ordering::Equal))
        }
        (Value::String(a), Value::String(b)) => {
            meter.work(a.len().min(b.len()))?;
            Ok(a == b)
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            meter.work(a.len().min(b.len()))?;
            Ok(a == b)
        }
        (Value::List(a), Value::List(b)) => equal_lists(a, b, meter),
        (Value::Map(a), Value::Map(b)) => equal_maps(a, b, meter),
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(a.instant() == b.instant()),
        (Value::Duration(a), Value::Duration(b)) => Ok(a == b),
        (Value::Type(a), Value::Type(b)) => Ok(a == b),
        (Value::IpAddress(a), Value::IpAddress(b)) => Ok(a == b),
        (Value::IpAddress(_), _) => Err(Failure::no_such_overload("_==_")),
        _ => Ok(false),
    }
}

fn equal_lists(a: &List, b: &List, meter: &mut Meter) -> Result<bool, Failure> {
    if a.items.len() != b.items.len() {
        return Ok(false);
    }
    let mut failed = None;
    for (left, right) in a.items.iter().zip(b.items.iter()) {
        match equal(left, right, meter) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(Failure::Error(error)) => failed = failed.or(Some(error)),
            Err(stop @ Failure::Stop(_)) => return Err(stop),
        }
    }
    match failed {
        Some(error) if a.joined => Err(Failure::Error(error)),
        Some(_) | None => Ok(true),
    }
}

fn equal_maps(a: &Map, b: &Map, meter: &mut Meter) -> Result<bool, Failure> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (key, left) in a {
        if let Key::String(text) = key {
            meter.work(text.len())?;
        }
        // CEL in Go finds no value for such a key on either side.
        let Some(right) = find(b, &key.clone().into_value())? else { return Ok(false) };
        match equal(left, right, meter) {
            Ok(true) | Err(Failure::Error(_)) => {}
            Ok(false) => return Ok(false),
            Err(stop @ Failure::Stop(_)) => return Err(stop),
        }
    }
    Ok(true)
}

/// Compares two numbers. Returns `None` if one is NaN, or is not a number at all.
fn compare_numbers(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Uint(b)) => Some(compare_int_with_uint(*a, *b)),
        (Value::Uint(a), Value::Int(b)) => Some(compare_int_with_uint(*b, *a).reverse()),
        (Value::Double(a), Value::Int(b)) => number::compare_with_int(*a, *b),
        (Value::Int(a), Value::Double(b)) => number::compare_with_int(*b, *a).map(Ordering::reverse),
        (Value::Double(a), Value::Uint(b)) => number::compare_with_uint(*a, *b),
        (Value::Uint(a), Value::Double(b)) => number::compare_with_uint(*b, *a).map(Ordering::reverse),
        _ => None,
    }
}

fn compare_int_with_uint(int: i64, uint: u64) -> Ordering {
    u64::try_from(int).map_or(Ordering::Less, |int| int.cmp(&uint))
}

/// Compares two values. Returns `None` if one is NaN, so that there is no order.
pub(super) fn compare(left: &Value, right: &Value, meter: &mut Meter) -> Result<Option<Ordering>, Failure> {
    let unordered = || Failure::no_such_overload("_<_");
    let is_nan = |value: &Value| matches!(value, Value::Double(number) if number.is_nan());
    match left {
        Value::Null | Value::List(_) | Value::Map(_) | Value::IpAddress(_) | Value::Type(_) => return Err(unordered()),
        _ if is_nan(left) || is_nan(right) => return Ok(None),
        Value::Bool(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::Timestamp(_)
        | Value::Duration(_) => {}
    }
    let order = match (left, right) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => {
            meter.work(a.len().min(b.len()))?;
            a.cmp(b)
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            meter.work(a.len().min(b.len()))?;
            a.cmp(b)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => a.instant().cmp(&b.instant()),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        _ => compare_numbers(left, right).ok_or_else(unordered)?,
    };
    Ok(Some(order))
}
