//! The types of parameters and of expressions.

use std::fmt;

use crate::relationship::model::ParameterType;

/// A type as far as it is known without values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A parameter of type `any`, or an element of a container of such: known only at evaluation.
    Any,
    /// What was taken out of an `any`, or is of several types: known only at evaluation, too. Unlike an `any`, it may be gone
    /// through.
    Dyn,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Null,
    Duration,
    Timestamp,
    IpAddress,
    List(Box<Kind>),
    Map(Box<Kind>, Box<Kind>),
    /// The type of a type, such as `int`.
    Type,
}

impl Kind {
    pub(super) fn of_parameter(parameter: &ParameterType) -> Result<Self, String> {
        let element = parameter.element.as_deref().map(Self::of_parameter).transpose()?.map(Box::new);
        let kind = match (parameter.name.as_str(), element) {
            ("map", Some(element)) => Self::Map(Box::new(Self::String), element),
            ("list", Some(element)) => Self::List(element),
            ("map" | "list", None) => return Err(format!("a {} needs the type of its elements", parameter.name)),
            ("any", None) => Self::Any,
            ("bool", None) => Self::Bool,
            ("string", None) => Self::String,
            ("int", None) => Self::Int,
            ("uint", None) => Self::Uint,
            ("double", None) => Self::Double,
            ("duration", None) => Self::Duration,
            ("timestamp", None) => Self::Timestamp,
            ("ipaddress", None) => Self::IpAddress,
            (other, None) => return Err(format!("there is no type `{other}`")),
            (other, Some(_)) => return Err(format!("type `{other}` has no elements")),
        };
        Ok(kind)
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Any | Self::Dyn)
    }

    /// Whether a value of one may stand where the other is expected. What CEL counts among messages may be null.
    pub(super) fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any | Self::Dyn, _)
            | (_, Self::Any | Self::Dyn)
            | (Self::Null, Self::Duration | Self::Timestamp | Self::IpAddress)
            | (Self::Duration | Self::Timestamp | Self::IpAddress, Self::Null) => true,
            (Self::List(a), Self::List(b)) => a.fits(b),
            (Self::Map(a_key, a), Self::Map(b_key, b)) => a_key.fits(b_key) && a.fits(b),
            (a, b) => a == b,
        }
    }

    /// What is known of a value that may be of either.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::List(a), Self::List(b)) => Self::List(Box::new(a.or(*b))),
            (a, b) if a == b => a,
            _ => Self::Dyn,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Dyn => f.write_str("dyn"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Null => f.write_str("null"),
            Self::Duration => f.write_str("duration"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::IpAddress => f.write_str("ipaddress"),
            Self::List(element) => write!(f, "list<{element}>"),
            Self::Map(_, element) => write!(f, "map<{element}>"),
            Self::Type => f.write_str("type"),
        }
    }
}
