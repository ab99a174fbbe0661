//! The operators and functions of CEL. Arithmetic that overflows is an error.

use std::cmp::Ordering;
use std::sync::Arc;

use super::moment::{self, DatePart, Timestamp};
use super::pattern::Pattern;
use super::value::{self, List, Value};
use super::{Failure, Stop, comparison, ip_address, meter::Meter, number};

/// An operator or a function that is applied after all of its arguments were evaluated.
#[derive(Clone, Debug)]
pub(super) enum Function {
    Not,
    Negate,
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    In,
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    /// `matches` with a pattern that was known when the model was written.
    MatchesPattern(Arc<Pattern>),
    Part(DatePart),
    InCidr,
    IpAddress,
    Convert(Conversion),
}

/// A conversion: `int(…)`, `string(…)` and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conversion {
    Bool,
    Bytes,
    Double,
    Duration,
    Dyn,
    Int,
    String,
    Timestamp,
    Type,
    Uint,
}

impl Conversion {
    pub(super) fn of_function(name: &str) -> Option<Self> {
        Some(match name {
            "bool" => Self::Bool,
            "bytes" => Self::Bytes,
            "double" => Self::Double,
            "duration" => Self::Duration,
            "dyn" => Self::Dyn,
            "int" => Self::Int,
            "string" => Self::String,
            "timestamp" => Self::Timestamp,
            "type" => Self::Type,
            "uint" => Self::Uint,
            _ => return None,
        })
    }
}

impl Function {
    /// Returns the function of this name. Operators have the names that the parser gives them.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        use cel::common::ast::operators as op;
        if let Some(conversion) = Conversion::of_function(name) {
            return Some(Self::Convert(conversion));
        }
        if let Some(part) = DatePart::of_method(name) {
            return Some(Self::Part(part));
        }
        Some(match name {
            op::LOGICAL_NOT => Self::Not,
            op::NEGATE => Self::Negate,
            op::EQUALS => Self::Equal,
            op::NOT_EQUALS => Self::Unequal,
            op::LESS => Self::Less,
            op::LESS_EQUALS => Self::LessEqual,
            op::GREATER => Self::Greater,
            op::GREATER_EQUALS => Self::GreaterEqual,
            op::ADD => Self::Add,
            op::SUBSTRACT => Self::Subtract,
            op::MULTIPLY => Self::Multiply,
            op::DIVIDE => Self::Divide,
            op::MODULO => Self::Remainder,
            op::IN => Self::In,
            "size" => Self::Size,
            "contains" => Self::Contains,
            "startsWith" => Self::StartsWith,
            "endsWith" => Self::EndsWith,
            "matches" => Self::Matches,
            "in_cidr" => Self::InCidr,
            "ipaddress" => Self::IpAddress,
            _ => return None,
        })
    }

    pub(super) fn apply(&self, arguments: &[Value], meter: &mut Meter) -> Result<Value, Failure> {
        if self.is_asked_of_operand() && matches!(arguments, [Value::IpAddress(_), ..]) {
            return Err(Stop::AddressAsOperand.into());
        }
        match arguments {
            [one] => self.apply_to_one(one, meter),
            [left, right] => self.apply_to_two(left, right, meter),
            _ => Err(self.no_such_overload()),
        }
    }

    /// Returns whether CEL in Go asks the first operand to apply the function. An IP address claims that it can, then
    /// fails, and nothing absorbs that failure.
    fn is_asked_of_operand(&self) -> bool {
        match self {
            Self::Negate
            | Self::Less
            | Self::LessEqual
            | Self::Greater
            | Self::GreaterEqual
            | Self::Add
            | Self::Subtract
            | Self::Multiply
            | Self::Divide
            | Self::Remainder
            | Self::Size
            | Self::Matches => true,
            Self::Not
            | Self::Equal
            | Self::Unequal
            | Self::In
            | Self::Contains
            | Self::StartsWith
            | Self::EndsWith
            | Self::MatchesPattern(_)
            | Self::Part(_)
            | Self::InCidr
            | Self::IpAddress
            | Self::Convert(_) => false,
        }
    }

    /// Returns whether each overload checks the types of its arguments by itself.
    pub(super) fn has_guards(&self) -> bool {
        let anything = matches!(self, Self::Convert(Conversion::Dyn | Conversion::Type));
        matches!(self, Self::Convert(_) | Self::Part(_)) && !anything
    }

    pub(super) fn no_such_overload(&self) -> Failure {
        Failure::Error(format!("no such overload of {self:?}").into())
    }

    fn apply_to_one(&self, argument: &Value, meter: &mut Meter) -> Result<Value, Failure> {
        let known = match (self, argument) {
            (Self::Convert(conversion), _) => return convert(*conversion, argument, meter),
            (Self::Not, Value::Bool(value)) => Some(Value::Bool(!value)),
            (Self::Negate, Value::Int(number)) => number.checked_neg().map(Value::Int),
            (Self::Negate, Value::Double(number)) => Some(Value::Double(-number)),
            (Self::Negate, Value::Duration(nanoseconds)) => nanoseconds.checked_neg().map(Value::Duration),
            (Self::Size, Value::String(text)) => {
                meter.work(text.len())?;
                Some(whole(text.chars().count()))
            }
            (Self::Size, Value::Bytes(bytes)) => Some(whole(bytes.len())),
            (Self::Size, Value::List(list)) => Some(whole(list.items.len())),
            (Self::Size, Value::Map(map)) => Some(whole(map.len())),
            (Self::Part(part), Value::Timestamp(timestamp)) => timestamp.part(*part).map(Value::Int),
            (Self::Part(part), Value::Duration(nanoseconds)) => {
                moment::duration_part(*nanoseconds, *part).map(Value::Int)
            }
            (Self::IpAddress, Value::String(text)) => {
                return ip_address::parse(text).map_err(|detail| Failure::Error(detail.into()));
            }
            _ => return Err(self.no_such_overload()),
        };
        known.ok_or_else(|| self.out_of_range())
    }

    fn out_of_range(&self) -> Failure {
        Failure::Error(format!("the result of {self:?} is out of range").into())
    }

    fn apply_to_two(&self, left: &Value, right: &Value, meter: &mut Meter) -> Result<Value, Failure> {
        let ordered = |meter: &mut Meter, fits: fn(Ordering) -> bool| {
            comparison::compare(left, right, meter).map(|order| Value::Bool(order.is_some_and(fits)))
        };
        match self {
            Self::Equal => comparison::equal(left, right, meter).map(Value::Bool),
            // Values that cannot be compared are unequal.
            Self::Unequal => match comparison::equal(left, right, meter) {
                Ok(equal) => Ok(Value::Bool(!equal)),
                Err(Failure::Error(_)) => Ok(Value::Bool(true)),
                Err(stop @ Failure::Stop(_)) => Err(stop),
            },
            Self::Less => ordered(meter, Ordering::is_lt),
            Self::LessEqual => ordered(meter, Ordering::is_le),
            Self::Greater => ordered(meter, Ordering::is_gt),
            Self::GreaterEqual => ordered(meter, Ordering::is_ge),
            Self::Add => self.add(left, right, meter),
            Self::Subtract | Self::Multiply | Self::Divide | Self::Remainder => self.calculate(left, right),
            Self::In => self.is_in(left, right, meter),
            Self::Contains | Self::StartsWith | Self::EndsWith => self.compare_texts(left, right, meter),
            Self::Matches => match (left, right) {
                (Value::String(text), Value::String(pattern)) => {
                    let pattern = Pattern::compile(pattern).map_err(|detail| Failure::Error(detail.into()))?;
                    Ok(Value::Bool(pattern.matches(text)))
                }
                _ => Err(self.no_such_overload()),
            },
            Self::MatchesPattern(pattern) => {
                if let Value::String(text) = left {
                    Ok(Value::Bool(pattern.matches(text)))
                } else if let Value::Type(name) = left {
                    // CEL in Go treats a constant pattern the same way.
                    Ok(Value::Bool(pattern.matches(name)))
                } else {
                    Err(self.no_such_overload())
                }
            }
            Self::Part(part) => match (left, right) {
                (Value::Timestamp(timestamp), Value::String(zone)) => {
                    let unknown = || Failure::Error("there is no such time zone".into());
                    timestamp.part_in(*part, zone).map(Value::Int).ok_or_else(unknown)
                }
                _ => Err(self.no_such_overload()),
            },
            Self::InCidr => match (left, right) {
                (Value::IpAddress(address), Value::String(network)) => {
                    ip_address::is_in(address, network).map(Value::Bool).map_err(|detail| Failure::Error(detail.into()))
                }
                _ => Err(self.no_such_overload()),
            },
            Self::Not | Self::Negate | Self::Size | Self::IpAddress | Self::Convert(_) => Err(self.no_such_overload()),
        }
    }

    fn add(&self, left: &Value, right: &Value, meter: &mut Meter) -> Result<Value, Failure> {
        let sum = match (left, right) {
            (Value::Int(a), Value::Int(b)) => a.checked_add(*b).map(Value::Int),
            (Value::Uint(a), Value::Uint(b)) => a.checked_add(*b).map(Value::Uint),
            (Value::Double(a), Value::Double(b)) => Some(Value::Double(a + b)),
            (Value::String(a), Value::String(b)) => {
                meter.work(a.len().saturating_add(b.len()))?;
                Some(Value::String([a.as_ref(), b.as_ref()].concat().into()))
            }
            (Value::Bytes(a), Value::Bytes(b)) => {
                meter.work(a.len().saturating_add(b.len()))?;
                Some(Value::Bytes([a.as_ref(), b.as_ref()].concat().into()))
            }
            (Value::List(a), Value::List(b)) => Some(Value::List(joined(a, b, meter)?)),
            (Value::Duration(a), Value::Duration(b)) => a.checked_add(*b).map(Value::Duration),
            (Value::Timestamp(time), Value::Duration(nanoseconds))
            | (Value::Duration(nanoseconds), Value::Timestamp(time)) => time.plus(*nanoseconds).map(Value::Timestamp),
            _ => return Err(self.no_such_overload()),
        };
        sum.ok_or_else(|| self.out_of_range())
    }

    fn calculate(&self, left: &Value, right: &Value) -> Result<Value, Failure> {
        let result = match (self, left, right) {
            (Self::Subtract, Value::Int(a), Value::Int(b)) => a.checked_sub(*b).map(Value::Int),
            (Self::Subtract, Value::Uint(a), Value::Uint(b)) => a.checked_sub(*b).map(Value::Uint),
            (Self::Subtract, Value::Double(a), Value::Double(b)) => Some(Value::Double(a - b)),
            (Self::Subtract, Value::Duration(a), Value::Duration(b)) => a.checked_sub(*b).map(Value::Duration),
            (Self::Subtract, Value::Timestamp(a), Value::Timestamp(b)) => a.since(b).map(Value::Duration),
            (Self::Subtract, Value::Timestamp(time), Value::Duration(nanoseconds)) => {
                let negative = nanoseconds.checked_neg();
                negative.and_then(|nanoseconds| time.plus(nanoseconds)).map(Value::Timestamp)
            }
            (Self::Multiply, Value::Int(a), Value::Int(b)) => a.checked_mul(*b).map(Value::Int),
            (Self::Multiply, Value::Uint(a), Value::Uint(b)) => a.checked_mul(*b).map(Value::Uint),
            (Self::Multiply, Value::Double(a), Value::Double(b)) => Some(Value::Double(a * b)),
            // `checked_div` also fails on a division by zero.
            (Self::Divide, Value::Int(a), Value::Int(b)) => a.checked_div(*b).map(Value::Int),
            (Self::Divide, Value::Uint(a), Value::Uint(b)) => a.checked_div(*b).map(Value::Uint),
            (Self::Divide, Value::Double(a), Value::Double(b)) => Some(Value::Double(a / b)),
            (Self::Remainder, Value::Int(a), Value::Int(b)) => a.checked_rem(*b).map(Value::Int),
            (Self::Remainder, Value::Uint(a), Value::Uint(b)) => a.checked_rem(*b).map(Value::Uint),
            _ => return Err(self.no_such_overload()),
        };
        result.ok_or_else(|| self.out_of_range())
    }

    /// Evaluates `element in whole`. Elements that cannot be compared are skipped.
    fn is_in(&self, element: &Value, whole: &Value, meter: &mut Meter) -> Result<Value, Failure> {
        match whole {
            Value::List(list) => {
                for item in list.items.iter() {
                    match comparison::equal(element, item, meter) {
                        Ok(true) => return Ok(Value::Bool(true)),
                        Ok(false) | Err(Failure::Error(_)) => {}
                        Err(stop @ Failure::Stop(_)) => return Err(stop),
                    }
                }
                Ok(Value::Bool(false))
            }
            Value::Map(map) => Ok(Value::Bool(value::find(map, element)?.is_some())),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::String(_)
            | Value::Bytes(_)
            | Value::Timestamp(_)
            | Value::Duration(_)
            | Value::IpAddress(_)
            | Value::Type(_) => Err(self.no_such_overload()),
        }
    }

    fn compare_texts(&self, text: &Value, part: &Value, meter: &mut Meter) -> Result<Value, Failure> {
        let (Value::String(text), Value::String(part)) = (text, part) else { return Err(self.no_such_overload()) };
        let holds = if matches!(self, Self::StartsWith) {
            text.starts_with(part.as_ref())
        } else if matches!(self, Self::EndsWith) {
            text.ends_with(part.as_ref())
        } else {
            meter.work(text.len())?;
            text.contains(part.as_ref())
        };
        Ok(Value::Bool(holds))
    }
}

/// Joins two lists. An empty one leaves the other as it is.
fn joined(a: &List, b: &List, meter: &mut Meter) -> Result<List, Failure> {
    if a.items.is_empty() {
        return Ok(b.clone());
    }
    if b.items.is_empty() {
        return Ok(a.clone());
    }
    meter.work(a.items.len().saturating_add(b.items.len()).saturating_mul(size_of::<Value>()))?;
    Ok(List { items: Arc::new(a.items.iter().chain(b.items.iter()).cloned().collect()), joined: true })
}

fn whole(size: usize) -> Value {
    Value::Int(i64::try_from(size).unwrap_or(i64::MAX))
}

fn convert(to: Conversion, from: &Value, meter: &mut Meter) -> Result<Value, Failure> {
    let refused = || Failure::Error(format!("a {} is not converted to {to:?}", from.type_name()).into());
    let converted = match (to, from) {
        (Conversion::Dyn, _)
        | (Conversion::Bool, Value::Bool(_))
        | (Conversion::Bytes, Value::Bytes(_))
        | (Conversion::Double, Value::Double(_))
        | (Conversion::Duration, Value::Duration(_))
        | (Conversion::Int, Value::Int(_))
        | (Conversion::String, Value::String(_))
        | (Conversion::Timestamp, Value::Timestamp(_))
        | (Conversion::Uint, Value::Uint(_)) => Some(from.clone()),
        (Conversion::Type, _) => Some(Value::Type(from.type_name())),
        (Conversion::Bool, Value::String(text)) => match text.as_ref() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(Value::Bool(false)),
            _ => None,
        },
        (Conversion::Bytes, Value::String(text)) => {
            meter.work(text.len())?;
            Some(Value::Bytes(text.as_bytes().into()))
        }
        (Conversion::Double, Value::Int(number)) => Some(Value::Double(number::from_int(*number))),
        (Conversion::Double, Value::Uint(number)) => Some(Value::Double(number::from_uint(*number))),
        (Conversion::Double, Value::String(text)) => number::parse_double(text).map(Value::Double),
        (Conversion::Duration, Value::String(text)) => moment::parse_duration(text).map(Value::Duration),
        (Conversion::Int, Value::Uint(number)) => i64::try_from(*number).ok().map(Value::Int),
        (Conversion::Int, Value::Double(number)) => number::to_int(*number).map(Value::Int),
        (Conversion::Int, Value::String(text)) => text.parse().ok().map(Value::Int),
        (Conversion::Int, Value::Timestamp(timestamp)) => Some(Value::Int(timestamp.seconds())),
        (Conversion::Int, Value::Duration(nanoseconds)) => Some(Value::Int(*nanoseconds)),
        (Conversion::Uint, Value::Int(number)) => u64::try_from(*number).ok().map(Value::Uint),
        (Conversion::Uint, Value::Double(number)) => number::to_uint(*number).map(Value::Uint),
        // Go takes no sign here.
        (Conversion::Uint, Value::String(text)) if !text.starts_with('+') => text.parse().ok().map(Value::Uint),
        (Conversion::Timestamp, Value::Int(seconds)) => Timestamp::of_seconds(*seconds).map(Value::Timestamp),
        (Conversion::Timestamp, Value::String(text)) => Timestamp::of_text(text).map(Value::Timestamp),
        (Conversion::String, Value::Bytes(bytes)) => {
            meter.work(bytes.len())?;
            std::str::from_utf8(bytes).ok().map(Value::string)
        }
        (Conversion::String, _) => text(from).map(|text| Value::string(&text)),
        _ => None,
    };
    converted.ok_or_else(refused)
}

/// Evaluates `string(value)` for a value that is not a string.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Int(number) => Some(number.to_string()),
        Value::Uint(number) => Some(number.to_string()),
        Value::Double(number) => Some(number::double_text(*number)),
        Value::Timestamp(timestamp) => timestamp.text(),
        Value::Duration(nanoseconds) => Some(moment::duration_text(*nanoseconds)),
        Value::Null
        | Value::String(_)
        | Value::Bytes(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::IpAddress(_)
        | Value::Type(_) => None,
    }
}
