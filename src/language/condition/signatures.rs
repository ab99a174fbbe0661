//! The overloads of the operators and functions: the types they take, the type they return, and how their cost is
//! counted.

use cel::common::ast::operators as op;

use super::meter::Price;
use super::value::Value;

/// A type in a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// A type variable: any type, but the same wherever it stands in one signature.
    A,
    B,
    ListOfA,
    MapOfAToB,
    Bool,
    Bytes,
    Double,
    Duration,
    Dyn,
    Int,
    IpAddress,
    String,
    Timestamp,
    Type,
    Uint,
}

impl Sort {
    /// Returns whether a value is of this type. The elements of lists and maps are not examined.
    pub(super) fn has(self, value: &Value) -> bool {
        match self {
            Self::A | Self::B | Self::Dyn => true,
            Self::ListOfA => matches!(value, Value::List(_)),
            Self::MapOfAToB => matches!(value, Value::Map(_)),
            Self::Bool => matches!(value, Value::Bool(_)),
            Self::Bytes => matches!(value, Value::Bytes(_)),
            Self::Double => matches!(value, Value::Double(_)),
            Self::Duration => matches!(value, Value::Duration(_)),
            Self::Int => matches!(value, Value::Int(_)),
            Self::IpAddress => matches!(value, Value::IpAddress(_)),
            Self::String => matches!(value, Value::String(_)),
            Self::Timestamp => matches!(value, Value::Timestamp(_)),
            Self::Type => matches!(value, Value::Type(_)),
            Self::Uint => matches!(value, Value::Uint(_)),
        }
    }
}

/// A way to call a function. The target of a method is its first argument.
#[derive(Debug)]
pub(super) struct Overload {
    pub(super) arguments: &'static [Sort],
    pub(super) result: Sort,
    pub(super) price: Price,
}

const fn overload(arguments: &'static [Sort], result: Sort) -> Overload {
    priced(arguments, result, Price::One)
}

const fn priced(arguments: &'static [Sort], result: Sort, price: Price) -> Overload {
    Overload { arguments, result, price }
}

const ADD: [Overload; 9] = [
    priced(&[Sort::Bytes, Sort::Bytes], Sort::Bytes, Price::Both),
    overload(&[Sort::Double, Sort::Double], Sort::Double),
    overload(&[Sort::Duration, Sort::Duration], Sort::Duration),
    overload(&[Sort::Duration, Sort::Timestamp], Sort::Timestamp),
    overload(&[Sort::Timestamp, Sort::Duration], Sort::Timestamp),
    overload(&[Sort::Int, Sort::Int], Sort::Int),
    overload(&[Sort::ListOfA, Sort::ListOfA], Sort::ListOfA),
    priced(&[Sort::String, Sort::String], Sort::String, Price::Both),
    overload(&[Sort::Uint, Sort::Uint], Sort::Uint),
];
const SUBTRACT: [Overload; 6] = [
    overload(&[Sort::Double, Sort::Double], Sort::Double),
    overload(&[Sort::Duration, Sort::Duration], Sort::Duration),
    overload(&[Sort::Int, Sort::Int], Sort::Int),
    overload(&[Sort::Timestamp, Sort::Duration], Sort::Timestamp),
    overload(&[Sort::Timestamp, Sort::Timestamp], Sort::Duration),
    overload(&[Sort::Uint, Sort::Uint], Sort::Uint),
];
/// The overloads of multiplication and division.
const SCALE: [Overload; 3] = [
    overload(&[Sort::Double, Sort::Double], Sort::Double),
    overload(&[Sort::Int, Sort::Int], Sort::Int),
    overload(&[Sort::Uint, Sort::Uint], Sort::Uint),
];
const REMAINDER: [Overload; 2] =
    [overload(&[Sort::Int, Sort::Int], Sort::Int), overload(&[Sort::Uint, Sort::Uint], Sort::Uint)];
const NEGATE: [Overload; 2] = [overload(&[Sort::Double], Sort::Double), overload(&[Sort::Int], Sort::Int)];
/// The overloads of comparisons. Numbers of two types are compared only if the type of one is not known.
const ORDER: [Overload; 8] = [
    overload(&[Sort::Bool, Sort::Bool], Sort::Bool),
    overload(&[Sort::Int, Sort::Int], Sort::Bool),
    overload(&[Sort::Uint, Sort::Uint], Sort::Bool),
    overload(&[Sort::Double, Sort::Double], Sort::Bool),
    priced(&[Sort::String, Sort::String], Sort::Bool, Price::Shorter),
    priced(&[Sort::Bytes, Sort::Bytes], Sort::Bool, Price::Shorter),
    overload(&[Sort::Timestamp, Sort::Timestamp], Sort::Bool),
    overload(&[Sort::Duration, Sort::Duration], Sort::Bool),
];
const EQUALITY: [Overload; 1] = [priced(&[Sort::A, Sort::A], Sort::Bool, Price::Shorter)];
const NOT: [Overload; 1] = [overload(&[Sort::Bool], Sort::Bool)];
const LOGIC: [Overload; 1] = [overload(&[Sort::Bool, Sort::Bool], Sort::Bool)];
const CONDITIONAL: [Overload; 1] = [overload(&[Sort::Bool, Sort::A, Sort::A], Sort::A)];
const INDEX: [Overload; 2] =
    [overload(&[Sort::ListOfA, Sort::Int], Sort::A), overload(&[Sort::MapOfAToB, Sort::A], Sort::B)];
const IN: [Overload; 2] =
    [priced(&[Sort::A, Sort::ListOfA], Sort::Bool, Price::Elements), overload(&[Sort::A, Sort::MapOfAToB], Sort::Bool)];
const SIZE: [Overload; 4] = [
    overload(&[Sort::Bytes], Sort::Int),
    overload(&[Sort::ListOfA], Sort::Int),
    overload(&[Sort::MapOfAToB], Sort::Int),
    overload(&[Sort::String], Sort::Int),
];
const MATCHES: [Overload; 1] = [priced(&[Sort::String, Sort::String], Sort::Bool, Price::Match)];
const CONTAINS: [Overload; 1] = [priced(&[Sort::String, Sort::String], Sort::Bool, Price::Search)];
const STARTS_OR_ENDS: [Overload; 1] = [priced(&[Sort::String, Sort::String], Sort::Bool, Price::Second)];
const IN_CIDR: [Overload; 1] = [overload(&[Sort::IpAddress, Sort::String], Sort::Bool)];
const DATE_PART: [Overload; 2] =
    [overload(&[Sort::Timestamp], Sort::Int), overload(&[Sort::Timestamp, Sort::String], Sort::Int)];
/// The overloads of the parts that both timestamps and durations have.
const TIME_PART: [Overload; 3] = [
    overload(&[Sort::Timestamp], Sort::Int),
    overload(&[Sort::Timestamp, Sort::String], Sort::Int),
    overload(&[Sort::Duration], Sort::Int),
];
const IP_ADDRESS: [Overload; 1] = [overload(&[Sort::String], Sort::IpAddress)];
const TO_BOOL: [Overload; 2] = [overload(&[Sort::Bool], Sort::Bool), overload(&[Sort::String], Sort::Bool)];
const TO_BYTES: [Overload; 2] =
    [overload(&[Sort::Bytes], Sort::Bytes), priced(&[Sort::String], Sort::Bytes, Price::First)];
const TO_DOUBLE: [Overload; 4] = [
    overload(&[Sort::Double], Sort::Double),
    overload(&[Sort::Int], Sort::Double),
    overload(&[Sort::String], Sort::Double),
    overload(&[Sort::Uint], Sort::Double),
];
const TO_DURATION: [Overload; 2] =
    [overload(&[Sort::Duration], Sort::Duration), overload(&[Sort::String], Sort::Duration)];
const TO_DYN: [Overload; 1] = [overload(&[Sort::A], Sort::Dyn)];
const TO_INT: [Overload; 6] = [
    overload(&[Sort::Int], Sort::Int),
    overload(&[Sort::Double], Sort::Int),
    overload(&[Sort::Duration], Sort::Int),
    overload(&[Sort::String], Sort::Int),
    overload(&[Sort::Timestamp], Sort::Int),
    overload(&[Sort::Uint], Sort::Int),
];
const TO_STRING: [Overload; 8] = [
    overload(&[Sort::String], Sort::String),
    overload(&[Sort::Bool], Sort::String),
    priced(&[Sort::Bytes], Sort::String, Price::First),
    overload(&[Sort::Double], Sort::String),
    overload(&[Sort::Duration], Sort::String),
    overload(&[Sort::Int], Sort::String),
    overload(&[Sort::Timestamp], Sort::String),
    overload(&[Sort::Uint], Sort::String),
];
const TO_TIMESTAMP: [Overload; 3] = [
    overload(&[Sort::Timestamp], Sort::Timestamp),
    overload(&[Sort::Int], Sort::Timestamp),
    overload(&[Sort::String], Sort::Timestamp),
];
const TO_TYPE: [Overload; 1] = [overload(&[Sort::A], Sort::Type)];
const TO_UINT: [Overload; 4] = [
    overload(&[Sort::Uint], Sort::Uint),
    overload(&[Sort::Double], Sort::Uint),
    overload(&[Sort::Int], Sort::Uint),
    overload(&[Sort::String], Sort::Uint),
];

/// Returns the overloads of an operator, or of a function that is called without a target.
pub(super) fn function(name: &str) -> &'static [Overload] {
    match name {
        op::ADD => &ADD,
        op::SUBSTRACT => &SUBTRACT,
        op::MULTIPLY | op::DIVIDE => &SCALE,
        op::MODULO => &REMAINDER,
        op::NEGATE => &NEGATE,
        op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS => &ORDER,
        op::EQUALS | op::NOT_EQUALS => &EQUALITY,
        op::LOGICAL_NOT | op::NOT_STRICTLY_FALSE => &NOT,
        op::LOGICAL_AND | op::LOGICAL_OR => &LOGIC,
        op::CONDITIONAL => &CONDITIONAL,
        op::INDEX => &INDEX,
        op::IN => &IN,
        "size" => &SIZE,
        "matches" => &MATCHES,
        "ipaddress" => &IP_ADDRESS,
        "bool" => &TO_BOOL,
        "bytes" => &TO_BYTES,
        "double" => &TO_DOUBLE,
        "duration" => &TO_DURATION,
        "dyn" => &TO_DYN,
        "int" => &TO_INT,
        "string" => &TO_STRING,
        "timestamp" => &TO_TIMESTAMP,
        "type" => &TO_TYPE,
        "uint" => &TO_UINT,
        _ => &[],
    }
}

/// Returns the overloads of a function that is called on a target.
pub(super) fn method(name: &str) -> &'static [Overload] {
    match name {
        "size" => &SIZE,
        "matches" => &MATCHES,
        "contains" => &CONTAINS,
        "startsWith" | "endsWith" => &STARTS_OR_ENDS,
        "in_cidr" => &IN_CIDR,
        "getFullYear" | "getMonth" | "getDate" | "getDayOfMonth" | "getDayOfWeek" | "getDayOfYear" => &DATE_PART,
        "getHours" | "getMinutes" | "getSeconds" | "getMilliseconds" => &TIME_PART,
        _ => &[],
    }
}
