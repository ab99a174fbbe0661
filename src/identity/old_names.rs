//! Finds names as older versions wrote them: they percent-encoded every byte but ASCII letters, digits and `-._@~+`,
//! for all issuers. No token gives such a name any more, so a ban in a tuple with such a name would ban nobody.
//!
//! A stored name is an old one if two things hold. The old encoding makes exactly this text of some name. And today's
//! rule (`names`) refuses that name, or makes another text of it.

use std::collections::BTreeSet;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::config::{CheckedConfig, IdentityConfig, IdentityConfigError, IssuerConfig};
use super::names::{NameError, NameRules};
use crate::language::{Object, ParseError, RelationshipTuple, TypeName, User};

/// The ASCII characters that the old encoding encoded. It encoded everything outside of ASCII as well.
const OLD: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'@').remove(b'~').remove(b'+');

/// Distinguishes old names from those of today.
#[derive(Clone, Debug)]
pub struct OldNames {
    /// The types whose objects are named by tokens.
    types: BTreeSet<TypeName>,
    issuers: Vec<NameRules>,
}

/// The reason why an old name has no form today.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNewName {
    /// Today's rule refuses the name.
    #[error("tokens with this name are refused: {0}; set `encode_subjects` for its issuer, or delete the tuple")]
    Refused(#[from] NameError),
    /// The new name does not fit into its tuple.
    #[error(transparent)]
    Misfit(#[from] ParseError),
}

impl OldNames {
    /// Creates a detector for names that the configured issuers give.
    ///
    /// # Errors
    /// If settings cannot be used.
    pub fn new(config: &IdentityConfig) -> Result<Self, IdentityConfigError> {
        let CheckedConfig { settings, .. } = CheckedConfig::new(config)?;
        let IdentityConfig { user_type, machine_type, actor_type, claim_tuples, issuers, .. } = settings;
        let bearers = [user_type, actor_type].into_iter().chain(machine_type);
        let mapped = claim_tuples.into_iter().map(|mapping| mapping.object_type);
        Ok(Self { types: bearers.chain(mapped).collect(), issuers: issuers.iter().map(IssuerConfig::names).collect() })
    }

    /// Returns a tuple with the names of today, or `None` if it has no old name.
    #[must_use]
    pub fn rewritten(&self, tuple: &RelationshipTuple) -> Option<Result<RelationshipTuple, NoNewName>> {
        let of_user = match &tuple.user {
            User::Object(object) | User::Userset(object, _) => self.of(object),
            User::Wildcard(_) => None,
        };
        let of_object = self.of(&tuple.object);
        if of_user.is_none() && of_object.is_none() {
            return None;
        }
        let rewrite = || {
            let user = match (&tuple.user, of_user.transpose()?) {
                (User::Object(_), Some(new)) => User::Object(new),
                (User::Userset(_, relation), Some(new)) => User::parse(&format!("{new}#{relation}"))?,
                (user, _) => user.clone(),
            };
            // An object may not be as long as a user, so its length is checked again.
            let object = match of_object.transpose()? {
                Some(new) => Object::parse(new.as_str())?,
                None => tuple.object.clone(),
            };
            Ok(RelationshipTuple { user, object, ..tuple.clone() })
        };
        Some(rewrite())
    }

    /// Returns today's form of an old name, or `None` if the name is not an old one.
    fn of(&self, object: &Object) -> Option<Result<Object, NameError>> {
        let type_name = self.types.iter().find(|name| name.as_str() == object.type_name())?;
        // Issuers have different short names, so at most one of them gave this name.
        self.issuers.iter().find_map(|issuer| {
            let written = issuer.without_short_name(object.id())?;
            let name = old_name(written)?;
            let new = issuer.user(type_name, &name);
            (new.as_ref() != Ok(object)).then_some(new)
        })
    }
}

/// Returns the name from which the old encoding made this text, if the encoding changed anything.
fn old_name(written: &str) -> Option<String> {
    if !written.contains('%') {
        return None;
    }
    let name = percent_decode_str(written).decode_utf8().ok()?;
    (utf8_percent_encode(&name, OLD).to_string() == written).then(|| name.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::names::ShortName;
    use crate::identity::names::SpecialNames::{self, Encoded, Refused};

    /// The issuers' short names, and how each issuer's special names are treated.
    type Issuers<'i> = &'i [(Option<&'i str>, SpecialNames)];

    fn old_names(issuers: Issuers<'_>) -> OldNames {
        let type_name = |name: &str| TypeName::parse(name).unwrap();
        let rules = |(short, special): &(Option<&str>, SpecialNames)| NameRules {
            short_name: short.map(|short| ShortName::parse(short).unwrap()),
            special: *special,
        };
        OldNames { types: ["user", "group"].map(type_name).into(), issuers: issuers.iter().map(rules).collect() }
    }

    #[test]
    fn old_names_are_told_from_those_of_today() {
        let refused = "refused";
        let plain: Issuers<'_> = &[(None, Refused)];
        let encoding: Issuers<'_> = &[(None, Encoded)];
        let two: Issuers<'_> = &[(Some("corp"), Refused), (Some("spiffe"), Encoded)];
        let rows: [(&str, Issuers<'_>, &str, Option<&str>); 22] = [
            ("Auth0", plain, "user:auth0%7C65a1", Some("user:auth0|65a1")),
            ("a slash", plain, "group:%2Fcontractors", Some("group:/contractors")),
            ("an accent", plain, "user:%C3%A9", Some("user:\u{e9}")),
            ("a percent sign", plain, "user:50%25", Some("user:50%")),
            ("a space", plain, "group:Team%20A", Some(refused)),
            ("today's", plain, "user:auth0|65a1", None),
            ("today's, with a percent sign", plain, "user:50%", None),
            ("nothing to encode", plain, "user:anne", None),
            ("small letters", plain, "user:auth0%7c65a1", None),
            ("encoded for nothing", plain, "user:%61nne", None),
            ("half encoded", plain, "user:a%2Fb|c", None),
            ("no text", plain, "user:%FF", None),
            ("of another type", plain, "document:auth0%7C65a1", None),
            ("Auth0, encoding", encoding, "user:auth0%7C65a1", Some("user:auth0|65a1")),
            ("SPIFFE", encoding, "user:spiffe%3A%2F%2Fa", Some("user:spiffe%3A//a")),
            ("the same in both", encoding, "user:a%3Ab", None),
            ("a space, encoding", encoding, "group:Team%20A", None),
            ("of an issuer", two, "user:corp/auth0%7C1", Some("user:corp/auth0|1")),
            ("of an issuer that encodes", two, "user:spiffe/a%3Ab", None),
            ("of an issuer that does not", two, "user:corp/a%3Ab", Some(refused)),
            ("of no issuer", two, "user:auth0%7C1", None),
            ("of an unknown issuer", two, "user:other/auth0%7C1", None),
        ];
        for (row, issuers, name, expected) in rows {
            let found = old_names(issuers).of(&Object::parse(name).unwrap());
            let found = found.map(|new| new.map_or_else(|_error| refused.to_owned(), |new| new.to_string()));
            assert_eq!(found.as_deref(), expected, "{row}");
        }
    }

    #[test]
    fn every_name_of_a_tuple_is_rewritten() {
        let old_names = old_names(&[(None, Refused)]);
        let rows = [
            (("user:auth0%7C1", "banned", "document:a"), Some("user:auth0|1 banned document:a")),
            (("user:anne", "member", "group:%2Fout"), Some("user:anne member group:/out")),
            (("group:%2Fout#member", "banned", "document:a%7C"), Some("group:/out#member banned document:a%7C")),
            (("user:auth0%7C1", "member", "group:%2Fout"), Some("user:auth0|1 member group:/out")),
            (("user:*", "reader", "document:a"), None),
            (("user:anne", "reader", "document:a"), None),
        ];
        for ((user, relation, object), expected) in rows {
            let tuple = RelationshipTuple::parse(user, relation, object).unwrap();
            let found = old_names.rewritten(&tuple).map(|new| new.unwrap().to_string());
            assert_eq!(found.as_deref(), expected, "{tuple}");
        }
        let half = RelationshipTuple::parse("user:auth0%7C1", "member", "group:Team%20A").unwrap();
        assert!(matches!(old_names.rewritten(&half), Some(Err(NoNewName::Refused(NameError::Special)))));
    }
}
