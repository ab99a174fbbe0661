//! The types of parameters and expressions.

use std::fmt;

use crate::language::model::ParameterType;

/// A type, as far as it is known before evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The type of a parameter declared as `any`, or of an element of a container of `any`. Only an evaluation knows
    /// more.
    Any,
    /// The type of something taken out of an `any`, or of an expression with several types. Only an evaluation knows
    /// more. Unlike an `any`, a comprehension may iterate over it.
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
    /// A type that is not known yet, such as that of the elements of an empty list, or one that a signature leaves
    /// open.
    Variable(u32),
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
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Dyn | Self::Variable(_) => f.write_str("dyn"),
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
