//! Names of a token as `OpenFGA` objects: an encoding that keeps different names apart and cannot widen one.
//!
//! `type:` + the issuer's short name and `/` where it has one + the name, in which every byte but
//! `A-Z a-z 0-9 - . _ @ ~ +` becomes `%` and two capital hexadecimal digits. `%` itself is such a byte, so no two names
//! share an encoding, and `*`, `#`, `:`, `/` and white space do not occur in one.

use crate::relationship::tuple::USER_BYTES_MAX;
use crate::relationship::{Object, TypeName, User};

/// Why a name is no user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// There is nothing in it.
    #[error("the name is empty")]
    Empty,
    /// `OpenFGA` takes no longer users.
    #[error("the encoded name has more than {USER_BYTES_MAX} bytes")]
    TooLong,
}

/// Encodes one name of one issuer; `namespace` is that issuer's short name where there are several.
///
/// # Errors
/// When it is empty or, once encoded, too long.
pub fn encode(type_name: &TypeName, namespace: Option<&str>, name: &str) -> Result<Object, SubjectError> {
    if name.is_empty() {
        return Err(SubjectError::Empty);
    }
    // An encoding is at least as long as what it encodes.
    if name.len() > USER_BYTES_MAX {
        return Err(SubjectError::TooLong);
    }
    let mut encoded = format!("{type_name}:");
    if let Some(namespace) = namespace {
        push_encoded(&mut encoded, namespace);
        encoded.push('/');
    }
    push_encoded(&mut encoded, name);
    match User::parse(&encoded) {
        Ok(User::Object(object)) => Ok(object),
        // Only the length is left to refuse: no encoded name is a wildcard or a userset.
        Ok(User::Userset(..) | User::Wildcard(_)) | Err(_) => Err(SubjectError::TooLong),
    }
}

/// Whether a character means something in `OpenFGA` beside itself, or is white space or a control character. Encoded it means
/// nothing any more; but an issuer that is not known to use it may have been talked into it.
#[must_use]
pub fn is_special(c: char) -> bool {
    matches!(c, '*' | '#' | ':') || c.is_whitespace() || c.is_control()
}

/// Whether the issuer of that short name gave the user its name; `namespace` as in [`encode`].
#[must_use]
pub fn is_of(user: &Object, namespace: &str) -> bool {
    let mut prefix = String::new();
    push_encoded(&mut prefix, namespace);
    let rest = user.id().strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('/'));
    rest.is_some_and(|name| !name.is_empty())
}

fn push_encoded(encoded: &mut String, name: &str) {
    const HEXADECIMAL: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |nibble: u8| HEXADECIMAL.get(usize::from(nibble)).copied().unwrap_or_default();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'@' | b'~' | b'+') {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(['%', digit(byte >> 4), digit(byte & 0xF)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user() -> TypeName {
        TypeName::parse("user").unwrap()
    }

    #[test]
    fn a_user_is_of_the_issuer_that_named_it() {
        let rows = [
            ("user:corp/anne", true),
            ("user:partner/anne", false),
            ("user:corp-2/anne", false),
            ("user:corp", false),
            ("user:corp/", false),
            ("user:anne", false),
            ("user:%63orp/anne", false),
        ];
        for (user, expected) in rows {
            let User::Object(object) = User::parse(user).unwrap() else { panic!("{user} is an object") };
            assert_eq!(is_of(&object, "corp"), expected, "{user}");
        }
        assert!(is_of(&encode(&user(), Some("a b/c"), "x").unwrap(), "a b/c"));
    }

    #[test]
    fn names_become_users_that_cannot_widen() {
        let rows: [(&str, Option<&str>, Result<&str, SubjectError>); 12] = [
            ("anne", None, Ok("user:anne")),
            ("anne@example.com", None, Ok("user:anne@example.com")),
            ("anne", Some("corp"), Ok("user:corp/anne")),
            ("corp/anne", None, Ok("user:corp%2Fanne")),
            ("*", None, Ok("user:%2A")),
            ("eng#member", None, Ok("user:eng%23member")),
            ("group:eng", None, Ok("user:group%3Aeng")),
            ("an ne", None, Ok("user:an%20ne")),
            ("an%20ne", None, Ok("user:an%2520ne")),
            ("\u{e9}\n\0", None, Ok("user:%C3%A9%0A%00")),
            ("", None, Err(SubjectError::Empty)),
            ("", Some("corp"), Err(SubjectError::Empty)),
        ];
        for (name, namespace, expected) in rows {
            let found = encode(&user(), namespace, name);
            assert_eq!(found.as_ref().map(Object::as_str), expected.as_ref().map(|text| *text), "`{name}`");
        }
        assert!(encode(&user(), None, &"a".repeat(507)).is_ok());
        for long in ["a".repeat(508), "*".repeat(170), "a".repeat(4_096)] {
            assert_eq!(encode(&user(), None, &long), Err(SubjectError::TooLong));
        }
    }

    proptest! {
        /// Different names, or equal names of different issuers, are different users; none is a wildcard, a userset or of
        /// another type.
        #[test]
        fn the_encoding_is_injective(a in any::<String>(), b in any::<String>(), m in 0usize..3, n in 0usize..3) {
            let namespaces = [Some("corp"), Some("corp-2"), Some("partner")];
            if let (Ok(left), Ok(right)) = (encode(&user(), namespaces[m], &a), encode(&user(), namespaces[n], &b)) {
                prop_assert_eq!(left == right, (m, &a) == (n, &b));
            }
            if let Ok(alone) = encode(&user(), None, &a) {
                prop_assert_eq!(alone.type_name(), "user");
                prop_assert!(matches!(User::parse(alone.as_str()), Ok(User::Object(_))));
                let other = encode(&user(), None, &b);
                prop_assert_eq!(other.is_ok_and(|other| other == alone), a == b);
            }
        }

        #[test]
        fn delimiters_do_not_move(a in "[ab/%*:#]{1,6}", b in "[ab/%*:#]{1,6}") {
            let (left, right) = (encode(&user(), None, &a).unwrap(), encode(&user(), None, &b).unwrap());
            prop_assert_eq!(left == right, a == b);
        }
    }
}
