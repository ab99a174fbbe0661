//! Turns names from outside (subjects, actors, clients, mapped claims, asserted users) into `OpenFGA` objects. All of
//! them follow one rule.
//!
//! A name stays as it is, but a name that holds `*`, `:`, `#`, white space or a control character is refused. If its
//! issuer sets `encode_subjects`, these characters and `%` are percent-encoded instead. Refusing is the default: an
//! issuer that is not known to use such names may have been tricked into issuing one. The issuer's short name and `/`
//! stand before its names. A short name holds no `/`, so the first `/` ends it, and two pairs of issuer and name never
//! give one object.
//!
//! Names are compared byte by byte: `é` as one character and as `e` with an accent are two names.

use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::language::tuple::{USER_BYTES_MAX, encoded_id};
use crate::language::{Object, ParseError, TypeName, User};

/// The longest short name of an issuer, in bytes. All of its users bear it, and a user has 512 bytes at most.
const SHORT_NAME_BYTES_MAX: usize = 64;

/// The reason why a name cannot become an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty.
    #[error("the name is empty")]
    Empty,
    /// The name holds a special character of `OpenFGA`, and its issuer's names are not encoded.
    #[error("the name holds `*`, `:`, `#`, white space or a control character")]
    Special,
    /// The name is longer than `OpenFGA` allows.
    #[error("the name is too long")]
    TooLong,
}

/// An issuer's short name: ASCII letters, digits and `-_.`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShortName(Arc<str>);

impl ShortName {
    /// Parses a short name. Returns `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let fits = !text.is_empty() && text.len() <= SHORT_NAME_BYTES_MAX && text.bytes().all(is_plain);
        fits.then(|| Self(text.into()))
    }
}

impl fmt::Display for ShortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ShortName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ShortName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| {
            D::Error::custom(format!(
                "`{name}` is not a short name: write at most {SHORT_NAME_BYTES_MAX} letters, digits and `-_.`"
            ))
        })
    }
}

/// The treatment of names that hold a special character of `OpenFGA`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SpecialNames {
    /// The name is refused. A name that is not special stays as it is.
    #[default]
    Refused,
    /// Special characters and `%` are percent-encoded.
    Encoded,
}

/// The rules by which the names of one issuer become objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NameRules {
    /// The short name that keeps this issuer's names apart from those of others.
    pub(super) short_name: Option<ShortName>,
    pub(super) special: SpecialNames,
}

impl NameRules {
    /// Turns a name into a user.
    ///
    /// # Errors
    /// If the rule refuses the name, or the user would be longer than `OpenFGA` allows.
    pub(super) fn user(&self, type_name: &TypeName, name: &str) -> Result<Object, NameError> {
        match User::parse(&self.text(type_name, name)?) {
            Ok(User::Object(object)) => Ok(object),
            // Only the length can be wrong here, because the rule lets no wildcard and no userset pass.
            Ok(User::Userset(..) | User::Wildcard(_)) | Err(_) => Err(NameError::TooLong),
        }
    }

    /// Turns a name into an object that users hold relations on. `OpenFGA` allows less length for it than for a user.
    ///
    /// # Errors
    /// If the rule refuses the name, or the object would be longer than `OpenFGA` allows.
    pub(super) fn object(&self, type_name: &TypeName, name: &str) -> Result<Object, NameError> {
        Object::parse(&self.text(type_name, name)?).map_err(|_length| NameError::TooLong)
    }

    /// Returns whether an object has the form that this rule gives to names, so that it may be a name of this issuer.
    pub(super) fn gives(&self, object: &Object) -> bool {
        let Some(written) = self.without_short_name(object.id()) else { return false };
        if self.special == SpecialNames::Refused {
            return is_plain(written).is_ok();
        }
        // Each name has one spelling. If `%3a` counted beside `%3A`, it would give another user, whom no ban names.
        percent_decode_str(written).decode_utf8().is_ok_and(|name| !name.is_empty() && encoded_id(&name) == written)
    }

    /// Returns the rest of an object's id after the issuer's short name, or `None` if the id does not begin with it.
    pub(super) fn without_short_name<'i>(&self, id: &'i str) -> Option<&'i str> {
        match &self.short_name {
            None => Some(id),
            Some(ShortName(short)) => id.strip_prefix(&**short)?.strip_prefix('/'),
        }
    }

    fn text(&self, type_name: &TypeName, name: &str) -> Result<String, NameError> {
        // The encoded name is at least as long as the name itself.
        if name.len() > USER_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let written = match (is_plain(name), self.special) {
            (Err(NameError::Empty), _) => return Err(NameError::Empty),
            (_, SpecialNames::Encoded) => encoded_id(name),
            (plain, SpecialNames::Refused) => plain.map(str::to_owned)?,
        };
        Ok(match &self.short_name {
            None => format!("{type_name}:{written}"),
            Some(short) => format!("{type_name}:{short}/{written}"),
        })
    }
}

/// Parses a user whom somebody names beside a token, or without one. The name must have the form of names in tokens.
///
/// # Errors
/// If the text is not a single user, or its name is refused.
pub(super) fn asserted(user: &str) -> Result<Object, ParseError> {
    let refused = |rule: String| ParseError { what: "user", value: user.to_owned(), rule };
    let User::Object(object) = User::parse(user)? else {
        return Err(refused("must be one user such as `user:anne`, not a wildcard or a userset".to_owned()));
    };
    match is_plain(object.id()) {
        Ok(_) => Ok(object),
        Err(error) => Err(refused(format!("is refused: {error}"))),
    }
}

/// Returns the name if it holds no special character.
fn is_plain(name: &str) -> Result<&str, NameError> {
    let is_special = |c: char| matches!(c, '*' | '#' | ':') || c.is_whitespace() || c.is_control();
    if name.is_empty() {
        Err(NameError::Empty)
    } else if name.contains(is_special) {
        Err(NameError::Special)
    } else {
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::SpecialNames::{Encoded, Refused};
    use super::*;

    fn of_type(name: &str) -> TypeName {
        TypeName::parse(name).unwrap()
    }

    fn rules(short_name: Option<&str>, special: SpecialNames) -> NameRules {
        NameRules { short_name: short_name.map(|name| ShortName::parse(name).unwrap()), special }
    }

    #[test]
    fn names_become_objects_by_one_rule() {
        use NameError::{Empty, Special, TooLong};
        type Written<'a> = Result<&'a str, NameError>;
        let long = "a".repeat(507);
        let users: [(&str, &str, Written<'_>, Written<'_>); 28] = [
            ("plain", "anne", Ok("anne"), Ok("anne")),
            ("an address", "anne@example.com", Ok("anne@example.com"), Ok("anne@example.com")),
            ("Auth0", "auth0|65a1", Ok("auth0|65a1"), Ok("auth0|65a1")),
            ("Auth0, another connection", "google-oauth2|1", Ok("google-oauth2|1"), Ok("google-oauth2|1")),
            ("a slash", "corp/anne", Ok("corp/anne"), Ok("corp/anne")),
            ("a slash before", "/contractors", Ok("/contractors"), Ok("/contractors")),
            ("one character with an accent", "\u{e9}", Ok("\u{e9}"), Ok("\u{e9}")),
            ("an accent of its own", "e\u{301}", Ok("e\u{301}"), Ok("e\u{301}")),
            ("a percent sign", "50%", Ok("50%"), Ok("50%25")),
            ("an encoding", "an%20ne", Ok("an%20ne"), Ok("an%2520ne")),
            ("a SPIFFE id", "spiffe://a/b", Err(Special), Ok("spiffe%3A//a/b")),
            ("everybody", "*", Err(Special), Ok("%2A")),
            ("a star within", "a*b", Err(Special), Ok("a%2Ab")),
            ("a userset", "eng#member", Err(Special), Ok("eng%23member")),
            ("a user", "user:bob", Err(Special), Ok("user%3Abob")),
            ("a space", "an ne", Err(Special), Ok("an%20ne")),
            ("a space behind", "anne ", Err(Special), Ok("anne%20")),
            ("a tab", "an\tne", Err(Special), Ok("an%09ne")),
            ("a line's end", "anne\n", Err(Special), Ok("anne%0A")),
            ("a zero", "anne\0", Err(Special), Ok("anne%00")),
            ("a space that does not break", "an\u{a0}ne", Err(Special), Ok("an%C2%A0ne")),
            ("an ideographic space", "an\u{3000}ne", Err(Special), Ok("an%E3%80%80ne")),
            ("a line separator", "an\u{2028}ne", Err(Special), Ok("an%E2%80%A8ne")),
            ("the next line, a control character", "an\u{85}ne", Err(Special), Ok("an%C2%85ne")),
            ("nothing", "", Err(Empty), Err(Empty)),
            ("as long as can be", &long, Ok(&long), Ok(&long)),
            ("one byte more", &"a".repeat(508), Err(TooLong), Err(TooLong)),
            ("too long once encoded", &"*".repeat(170), Err(Special), Err(TooLong)),
        ];
        for (row, name, verbatim, encoded) in users {
            for (special, expected) in [(Refused, verbatim), (Encoded, encoded)] {
                let found = rules(None, special).user(&of_type("user"), name);
                assert_eq!(found.as_ref().map(Object::id), expected.as_ref().map(|id| *id), "{row}, {special:?}");
                let of_corp = rules(Some("corp"), special).user(&of_type("user"), name);
                let with_short_name = expected
                    .map(|id| format!("corp/{id}"))
                    .and_then(|id| if id.len() > 507 { Err(TooLong) } else { Ok(id) });
                assert_eq!(
                    of_corp.map(|user| user.id().to_owned()),
                    with_short_name,
                    "{row}, {special:?}, of an issuer"
                );
            }
        }
        let group = of_type("group");
        let letters = |count: usize| "\u{e9}".repeat(count);
        assert_eq!(rules(None, Refused).object(&group, "/contractors").unwrap().as_str(), "group:/contractors");
        assert!(rules(None, Refused).object(&group, &letters(250)).is_ok(), "256 characters");
        assert_eq!(rules(None, Refused).object(&group, &letters(251)), Err(TooLong), "objects are shorter than users");
        assert_eq!(rules(None, Refused).object(&group, ""), Err(Empty));
    }

    #[test]
    fn short_names_hold_no_delimiter() {
        let rows = ["corp", "corp-2", "a.b_c", "A"];
        for name in rows {
            assert_eq!(ShortName::parse(name).map(|name| name.to_string()).as_deref(), Some(name), "{name}");
        }
        for name in ["", "a/b", "/", "a%2Fb", "%", "a b", "a:b", "a#b", "*", "\u{e9}", &"a".repeat(65)] {
            assert_eq!(ShortName::parse(name), None, "`{name}`");
        }
    }

    #[test]
    fn an_asserted_user_is_one_that_the_issuer_may_have_named() {
        let rows = [
            ("plain", "user:anne", [true, false, true, false]),
            ("of an issuer", "user:corp/anne", [true, true, true, true]),
            ("of another", "user:corp-2/anne", [true, false, true, false]),
            ("the short name alone", "user:corp", [true, false, true, false]),
            ("nothing behind it", "user:corp/", [true, false, true, false]),
            ("the short name encoded", "user:%63orp/anne", [true, false, false, false]),
            ("a slash in the name", "user:corp//anne", [true, true, true, true]),
            ("encoded", "user:corp/a%3Ab", [true, true, true, true]),
            ("encoded in small letters", "user:corp/a%3ab", [true, true, false, false]),
            ("encoded for nothing", "user:corp/%61nne", [true, true, false, false]),
            ("half an encoding", "user:corp/a%2", [true, true, false, false]),
            ("no text", "user:corp/%FF", [true, true, false, false]),
        ];
        let issuers = [(None, Refused), (Some("corp"), Refused), (None, Encoded), (Some("corp"), Encoded)];
        for (row, user, expected) in rows {
            let user = asserted(user).unwrap();
            assert_eq!(issuers.map(|(short, special)| rules(short, special).gives(&user)), expected, "{row}");
        }
        for user in
            ["user:*", "user:a*b", "user:a b", "user:an\u{a0}ne", "user:a\u{3000}", "group:a#member", "anne", ""]
        {
            assert!(asserted(user).is_err(), "`{user}`");
        }
    }

    /// Names made of characters that could move a delimiter.
    fn any_name() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[ab/%*:#25F ]{1,6}", "[ab./_-]{1,6}", "(corp|corp-2)?/?[ab/%]{0,3}(%2F|%25|%3A)?"]
    }

    proptest! {
        /// Two pairs of issuer and name never give one object, whether names are encoded or not. No object is a
        /// wildcard, a userset or of another type.
        #[test]
        fn two_names_never_give_one_user(
            a in any_name(),
            b in any_name(),
            m in 0usize..4,
            n in 0usize..4,
            special in proptest::array::uniform4(prop_oneof![Just(Refused), Just(Encoded)]),
        ) {
            let short_names = ["corp", "corp-2", "a", "2F"];
            let of = |issuer: usize| rules(Some(short_names[issuer]), special[issuer]);
            let user = of_type("user");
            for give in [NameRules::user, NameRules::object] {
                if let (Ok(left), Ok(right)) = (give(&of(m), &user, &a), give(&of(n), &user, &b)) {
                    prop_assert_eq!(left == right, (m, &a) == (n, &b), "{} {}", left, right);
                    prop_assert!(of(m).gives(&left) && of(n).gives(&right));
                    prop_assert_eq!(of(m).gives(&right), m == n || right == left);
                }
                // A single issuer has no short name.
                let alone = rules(None, special[0]);
                if let (Ok(left), Ok(right)) = (give(&alone, &user, &a), give(&alone, &user, &b)) {
                    prop_assert_eq!(left == right, a == b, "{} {}", left, right);
                }
                if let Ok(object) = give(&alone, &user, &a) {
                    prop_assert_eq!(object.type_name(), "user");
                    prop_assert!(matches!(User::parse(object.as_str()), Ok(User::Object(_))));
                    prop_assert_eq!(asserted(object.as_str()), Ok(object.clone()));
                    prop_assert!(alone.gives(&object));
                }
            }
        }
    }
}
