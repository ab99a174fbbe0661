//! The values of CEL, and the keys of its maps.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Stop;
use super::moment::Timestamp;
use super::number;

/// A value of CEL. Large values are shared, so cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    List(List),
    Map(Arc<Map>),
    Timestamp(Timestamp),
    /// A duration in nanoseconds.
    Duration(i64),
    IpAddress(Arc<IpAddress>),
    /// A type, by its name.
    Type(&'static str),
}

/// A list of values.
#[derive(Clone, Debug)]
pub(crate) struct List {
    pub(super) items: Arc<Vec<Value>>,
    /// Whether `+` joined it from two lists that were not empty. Only such a list reports an error in comparing its
    /// elements.
    pub(super) joined: bool,
}

/// A map, in the order of its keys.
pub(crate) type Map = BTreeMap<Key, Value>;

/// A key of a map. Two keys are equal only if they have the same type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    /// The bits of a double. Both zeros have the same bits.
    Double(u64),
    String(Arc<str>),
    Timestamp(Timestamp),
    Duration(i64),
    IpAddress(Arc<IpAddress>),
    Type(&'static str),
    /// A key that no lookup finds: a list, a map, or NaN.
    Unfindable(Unfindable),
}

/// A key that equals only itself: it carries the number of its entry.
#[derive(Clone, Debug)]
pub(crate) struct Unfindable {
    entry: usize,
    value: Value,
}

impl PartialEq for Unfindable {
    fn eq(&self, other: &Self) -> bool {
        self.entry == other.entry
    }
}

impl Eq for Unfindable {}

impl PartialOrd for Unfindable {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Unfindable {
    fn cmp(&self, other: &Self) -> Ordering {
        self.entry.cmp(&other.entry)
    }
}

/// An IPv4 or IPv6 address. An IPv4 address that is written as IPv6 (`::ffff:…`) is that IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IpAddress {
    pub(super) address: IpAddr,
    /// The network interface that an IPv6 address may name: `fe80::1%eth0`.
    pub(super) zone: Option<String>,
}

impl Key {
    /// Returns the key that finds `value` in a map, or `None` if no key can.
    pub(super) fn finding(value: &Value) -> Result<Option<Self>, Stop> {
        let key = match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(number) => Self::Int(*number),
            Value::Uint(number) => Self::Uint(*number),
            Value::Double(number) if number.is_nan() => return Ok(None),
            // Both zeros are the same key.
            Value::Double(number) => Self::Double((number + 0.0).to_bits()),
            Value::String(text) => Self::String(Arc::clone(text)),
            // Go cannot look these up, and stops the evaluation.
            Value::Bytes(_) => return Err(Stop::BytesAsKey),
            Value::Timestamp(timestamp) => Self::Timestamp(*timestamp),
            Value::Duration(nanoseconds) => Self::Duration(*nanoseconds),
            Value::IpAddress(address) => Self::IpAddress(Arc::clone(address)),
            Value::Type(name) => Self::Type(name),
            Value::List(_) | Value::Map(_) => return Ok(None),
        };
        Ok(Some(key))
    }

    /// Returns the key of the `entry`th entry of a map.
    pub(super) fn of(value: Value, entry: usize) -> Result<Self, Stop> {
        Ok(Self::finding(&value)?.unwrap_or(Self::Unfindable(Unfindable { entry, value })))
    }

    pub(super) fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(number) => Value::Int(number),
            Self::Uint(number) => Value::Uint(number),
            Self::Double(bits) => Value::Double(f64::from_bits(bits)),
            Self::String(text) => Value::String(text),
            Self::Timestamp(timestamp) => Value::Timestamp(timestamp),
            Self::Duration(nanoseconds) => Value::Duration(nanoseconds),
            Self::IpAddress(address) => Value::IpAddress(address),
            Self::Type(name) => Value::Type(name),
            Self::Unfindable(key) => key.value,
        }
    }
}

/// Looks up the value of a key. A number also finds an equal key of another type, except that a double with decimals
/// finds only a double.
pub(super) fn find<'m>(map: &'m Map, key: &Value) -> Result<Option<&'m Value>, Stop> {
    if map.is_empty() {
        return Ok(None);
    }
    let Some(exact) = Key::finding(key)? else { return Ok(None) };
    if let Some(found) = map.get(&exact) {
        return Ok(Some(found));
    }
    let signed = |number: i64| map.get(&Key::Int(number));
    let unsigned = |number: u64| map.get(&Key::Uint(number));
    Ok(match exact {
        Key::Int(number) => u64::try_from(number).ok().and_then(unsigned),
        Key::Uint(number) => i64::try_from(number).ok().and_then(signed),
        Key::Double(bits) => {
            let number = f64::from_bits(bits);
            let int = number::exact_int(number).and_then(signed);
            int.or_else(|| number::exact_uint(number).and_then(unsigned))
        }
        Key::Null
        | Key::Bool(_)
        | Key::String(_)
        | Key::Timestamp(_)
        | Key::Duration(_)
        | Key::IpAddress(_)
        | Key::Type(_)
        | Key::Unfindable(_) => None,
    })
}

impl Value {
    pub(super) fn string(text: &str) -> Self {
        Self::String(text.into())
    }

    pub(super) fn list(items: Vec<Self>) -> Self {
        Self::List(List { items: Arc::new(items), joined: false })
    }

    /// Returns the name of the value's type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::IpAddress(_) => "IPAddress",
            Self::Type(_) => "type",
        }
    }
}
