//! The words of a relationship tuple, each a type that cannot hold a malformed value.
//!
//! The limits are `OpenFGA`'s (see [`limits`](super::limits)). Names are compared byte by byte: no case folding, no
//! Unicode normalization. Like `OpenFGA`, this module refuses the space and control characters, and takes all other
//! white space.

mod condition;

use std::fmt::{self, Write};
use std::sync::Arc;

pub use condition::TupleCondition;
pub(crate) use condition::is_clean;
pub(crate) use condition::{canonical_value, delimited, fields_wire_bytes};

pub use super::limits::{CONTEXT_BYTES_MAX, OBJECT_CHARS_MAX, RELATION_CHARS_MAX, TYPE_CHARS_MAX, USER_BYTES_MAX};

/// A refused name. Its message gives the value and the rule that the value broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{}` {rule}", shown(.value))]
pub struct ParseError {
    /// The kind of name that was expected, such as `type`.
    pub what: &'static str,
    /// The value that was refused.
    pub value: String,
    /// The rule that the value broke.
    pub rule: String,
}

impl ParseError {
    fn new(what: &'static str, value: &str, rule: impl Into<String>) -> Self {
        Self { what, value: value.to_owned(), rule: rule.into() }
    }
}

/// Escapes control characters and cuts the text at 80 characters, so that hostile input cannot garble a log or a
/// terminal.
pub(crate) fn shown(value: &str) -> String {
    let mut shown: String = value.chars().take(80).flat_map(char::escape_debug).collect();
    if value.chars().nth(80).is_some() {
        shown.push('…');
    }
    shown
}

/// Percent-encodes `%` and the characters that an object's id cannot hold. Different texts give different ids.
pub(crate) fn encoded_id(text: &str) -> String {
    let mut id = String::with_capacity(text.len());
    for character in text.chars() {
        let is_reserved = matches!(character, ':' | '#' | '%' | '*');
        if is_reserved || character.is_whitespace() || character.is_control() {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a string does not fail.
                write!(id, "%{byte:02X}").unwrap_or_default();
            }
        } else {
            id.push(character);
        }
    }
    id
}

/// A type of the authorization model, such as `document`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeName(Arc<str>);

/// A relation of a type, such as `can_read`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relation(Arc<str>);

/// An object, `type:id`: the thing that a relation is held on. A chunk's guard is an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    text: Arc<str>,
    colon: u16,
}

/// The user of a relationship tuple.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum User {
    /// A single object: `user:anne`.
    Object(Object),
    /// Everybody who holds a relation on an object: `group:eng#member`.
    Userset(Object, Relation),
    /// Every object of a type: `user:*`.
    Wildcard(TypeName),
}

/// A relationship tuple: `user` holds `relation` on `object`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RelationshipTuple {
    /// The user who holds the relation.
    pub user: User,
    /// The relation that is held.
    pub relation: Relation,
    /// The object that the relation is held on.
    pub object: Object,
    /// The condition under which the tuple counts. Without one it always counts. The three names alone identify a
    /// tuple: a store never holds two tuples that differ only in their conditions.
    pub condition: Option<TupleCondition>,
}

fn check_name(what: &'static str, value: &str, chars_max: usize) -> Result<(), ParseError> {
    if value.is_empty() {
        return Err(ParseError::new(what, value, "must not be empty"));
    }
    check_length(what, value, chars_max)?;
    let bad = |c: char| matches!(c, ':' | '#' | '@' | ' ') || c.is_control();
    if value.contains(bad) {
        return Err(ParseError::new(what, value, "must not contain `:`, `#`, `@`, spaces or control characters"));
    }
    Ok(())
}

fn check_length(what: &'static str, value: &str, chars_max: usize) -> Result<(), ParseError> {
    // A character has at least one byte, so a value this short needs no counting.
    let chars = if value.len() > chars_max { value.chars().count() } else { 0 };
    if chars > chars_max {
        let rule = format!("has {chars} characters, at most {chars_max} are allowed");
        return Err(ParseError::new(what, value, rule));
    }
    Ok(())
}

impl TypeName {
    /// Parses a type name.
    ///
    /// # Errors
    /// If the name is empty, is too long, or holds a reserved character, a space or a control character.
    pub fn parse(value: &str) -> Result<Self, ParseError> {
        check_name("type", value, TYPE_CHARS_MAX)?;
        Ok(Self(value.into()))
    }

    /// Makes a type name from a constant of this program, such as the default of a setting.
    pub(crate) fn from_static(name: &'static str) -> Self {
        debug_assert!(Self::parse(name).is_ok(), "`{name}` is no type name");
        Self(name.into())
    }

    /// Returns the type's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Relation {
    /// Parses a relation name.
    ///
    /// # Errors
    /// If the name is empty, is too long, or holds a reserved character, a space or a control character.
    pub fn parse(value: &str) -> Result<Self, ParseError> {
        check_name("relation", value, RELATION_CHARS_MAX)?;
        Ok(Self(value.into()))
    }

    /// Makes a relation name from a constant of this program, such as the default of a setting.
    pub(crate) fn from_static(name: &'static str) -> Self {
        debug_assert!(Self::parse(name).is_ok(), "`{name}` is no relation name");
        Self(name.into())
    }

    /// Returns the relation's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Object {
    /// Parses `type:id`.
    ///
    /// # Errors
    /// If the value has no type or no id, if it is too long, if the id is `*`, or if the id holds `:`, `#`, a space or
    /// a control character.
    pub fn parse(value: &str) -> Result<Self, ParseError> {
        check_length("object", value, OBJECT_CHARS_MAX)?;
        Self::parse_any_length(value)
    }

    /// Parses `type:id` without the length limit of objects. An object that stands as a user has the limit of users.
    pub(crate) fn parse_any_length(value: &str) -> Result<Self, ParseError> {
        const WHAT: &str = "object";
        let Some((type_name, id)) = value.split_once(':') else {
            return Err(ParseError::new(WHAT, value, "must have the form `type:id`"));
        };
        check_name(WHAT, type_name, TYPE_CHARS_MAX)
            .map_err(|e| ParseError::new(WHAT, value, format!("has a type that {}", e.rule)))?;
        if id.is_empty() {
            return Err(ParseError::new(WHAT, value, "has no id after `:`"));
        }
        if id == "*" {
            return Err(ParseError::new(WHAT, value, "is a wildcard; name one object"));
        }
        if id.contains(|c: char| matches!(c, ':' | '#' | ' ') || c.is_control()) {
            return Err(ParseError::new(
                WHAT,
                value,
                "has an id that contains `:`, `#`, a space or a control character",
            ));
        }
        let Ok(colon) = u16::try_from(type_name.len()) else {
            return Err(ParseError::new(WHAT, value, "has a type that is too long"));
        };
        Ok(Self { text: value.into(), colon })
    }

    /// Returns the type, the part before the colon.
    #[must_use]
    pub fn type_name(&self) -> &str {
        self.text.get(..usize::from(self.colon)).unwrap_or_default()
    }

    /// Returns the id, the part after the colon.
    #[must_use]
    pub fn id(&self) -> &str {
        self.text.get(usize::from(self.colon) + 1..).unwrap_or_default()
    }

    /// Returns the whole name, `type:id`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl User {
    /// Parses `type:id`, `type:*` or `type:id#relation`.
    ///
    /// # Errors
    /// If the value has none of these forms or is too long.
    pub fn parse(value: &str) -> Result<Self, ParseError> {
        const WHAT: &str = "user";
        let as_user = |e: ParseError| ParseError::new(WHAT, value, e.rule);
        if value.len() > USER_BYTES_MAX {
            let rule = format!("has {} bytes, at most {USER_BYTES_MAX} are allowed", value.len());
            return Err(ParseError::new(WHAT, value, rule));
        }
        if let Some((object, relation)) = value.split_once('#') {
            let object = Object::parse_any_length(object).map_err(as_user)?;
            if object.id().contains('*') || relation.contains('*') {
                return Err(ParseError::new(WHAT, value, "is a userset with `*` in it"));
            }
            return Ok(Self::Userset(object, Relation::parse(relation).map_err(as_user)?));
        }
        if let Some(type_name) = value.strip_suffix(":*") {
            return Ok(Self::Wildcard(TypeName::parse(type_name).map_err(as_user)?));
        }
        Ok(Self::Object(Object::parse_any_length(value).map_err(as_user)?))
    }

    /// Returns the type of the object, of the userset's object, or of the wildcard.
    #[must_use]
    pub fn type_name(&self) -> &str {
        match self {
            Self::Object(object) | Self::Userset(object, _) => object.type_name(),
            Self::Wildcard(type_name) => type_name.as_str(),
        }
    }
}

impl RelationshipTuple {
    /// Parses the three names of a tuple.
    ///
    /// # Errors
    /// If one of them is malformed.
    pub fn parse(user: &str, relation: &str, object: &str) -> Result<Self, ParseError> {
        Ok(Self {
            user: User::parse(user)?,
            relation: Relation::parse(relation)?,
            object: Object::parse(object)?,
            condition: None,
        })
    }

    /// Returns the same tuple with a condition.
    #[must_use]
    pub fn with_condition(self, condition: TupleCondition) -> Self {
        Self { condition: Some(condition), ..self }
    }

    /// Returns the tuple's size in bytes as `OpenFGA`'s protobuf message `TupleKey`.
    pub(crate) fn wire_bytes(&self) -> usize {
        let names = [self.user.to_string().len(), self.relation.as_str().len(), self.object.as_str().len()];
        let condition = self.condition.as_ref().map(|condition| delimited(condition.wire_bytes()));
        names.into_iter().map(delimited).sum::<usize>() + condition.unwrap_or_default()
    }

    /// Returns the three names that identify the tuple.
    #[must_use]
    pub fn key(&self) -> (&Object, &Relation, &User) {
        (&self.object, &self.relation, &self.user)
    }
}

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(object) => write!(f, "{object}"),
            Self::Userset(object, relation) => write!(f, "{object}#{relation}"),
            Self::Wildcard(type_name) => write!(f, "{type_name}:*"),
        }
    }
}

impl fmt::Display for RelationshipTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.user, self.relation, self.object)
    }
}

impl fmt::Debug for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

impl fmt::Debug for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(user: &str, rule: &str) {
        match User::parse(user) {
            Ok(parsed) => assert!(rule.is_empty(), "`{user}` was taken as {parsed:?}"),
            Err(e) => assert!(!rule.is_empty() && e.to_string().contains(rule), "`{user}`: {e}"),
        }
    }

    #[test]
    fn users_have_one_of_three_forms() {
        let nothing_wrong = "";
        refused("user:anne", nothing_wrong);
        refused("user:*", nothing_wrong);
        refused("group:eng#member", nothing_wrong);
        refused(&format!("user:{}", "a".repeat(507)), nothing_wrong);
        refused("user:pipe|under_@domain.com", nothing_wrong);
        refused("anne", "must have the form");
        refused("", "must have the form");
        refused(":anne", "must not be empty");
        refused("user:", "no id");
        refused("user:an ne", "a space");
        refused("user:an\u{a0}ne\u{2003}\u{202e}", nothing_wrong);
        refused("user:an\u{85}ne", "control character");
        refused("user:a\u{0}b", "control character");
        refused("user:a:b", "contains `:`");
        refused("group:eng#", "must not be empty");
        refused("group:*#member", "wildcard");
        refused("group:a*#member", "with `*`");
        refused("group:a#*", "with `*`");
        refused("group:eng#member#member", "must not contain");
        refused(&format!("user:{}", "a".repeat(508)), "513 bytes");
    }

    #[test]
    fn names_are_compared_byte_by_byte() {
        let parse = |s: &str| Object::parse(s).ok();
        assert_ne!(parse("doc:A"), parse("doc:a"));
        assert_ne!(parse("doc:\u{e9}"), parse("doc:e\u{301}"));
    }
}
