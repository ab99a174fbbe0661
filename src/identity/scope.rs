//! The scopes that permit a token's bearer to use Ragward (RFC 6749, section 3.3).

use std::fmt;

/// A scope of Ragward. Other scopes in a token have no effect here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Permits `Retrieve`, `Recheck`, `Fetch` and `RequestApproval`.
    Retrieve,
    /// Permits writing and deleting documents.
    Ingest,
    /// Permits `OpenFGA`'s API: models and tuples.
    Administer,
    /// Permits asking why a chunk is shown or withheld.
    Explain,
    /// Permits naming the user in the request.
    AssertUser,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scope {
    /// All scopes of Ragward.
    pub const ALL: [Self; 5] = [Self::Retrieve, Self::Ingest, Self::Administer, Self::Explain, Self::AssertUser];

    /// Returns the scope's name in a token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retrieve => "ragward:retrieve",
            Self::Ingest => "ragward:ingest",
            Self::Administer => "ragward:administer",
            Self::Explain => "ragward:explain",
            Self::AssertUser => "ragward:assert_user",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Retrieve => 1,
            Self::Ingest => 1 << 1,
            Self::Administer => 1 << 2,
            Self::Explain => 1 << 3,
            Self::AssertUser => 1 << 4,
        }
    }
}

impl Scopes {
    /// Reads Ragward's scopes from a `scope` claim: names separated by spaces, compared byte by byte.
    #[must_use]
    pub fn parse(claim: &str) -> Self {
        Self::named(&claim.split(' ').collect::<Vec<&str>>(), "")
    }

    /// Returns Ragward's scopes among some names, which begin with `prefix`.
    pub(super) fn named(names: &[&str], prefix: &str) -> Self {
        let is_named = |scope: &&Scope| names.iter().any(|name| name.strip_prefix(prefix) == Some(scope.as_str()));
        Scope::ALL.iter().filter(is_named).copied().collect()
    }

    /// Returns whether the set has this scope.
    #[must_use]
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            Scope::ALL.into_iter().filter(|scope| self.contains(*scope)).map(Scope::as_str).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_count() {
        let rows: [(&str, &[Scope]); 8] = [
            ("", &[]),
            ("ragward:retrieve", &[Scope::Retrieve]),
            ("openid ragward:ingest ragward:assert_user", &[Scope::Ingest, Scope::AssertUser]),
            ("Ragward:retrieve", &[]),
            ("ragward:retrieve2", &[]),
            ("ragward:administer,ragward:retrieve", &[]),
            ("ragward:administer\tragward:retrieve", &[]),
            ("ragward:*", &[]),
        ];
        for (claim, expected) in rows {
            assert_eq!(Scopes::parse(claim), expected.iter().copied().collect(), "`{claim}`");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        let all: Scopes = Scope::ALL.into_iter().collect();
        assert_eq!(Scopes::parse(&all.to_string()), all);
    }
}
