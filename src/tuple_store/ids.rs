//! The ids of stores and models. They are ULIDs, so they sort in the order in which they were given out.

use std::fmt;

use ulid::Ulid;

/// The id of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(Ulid);

/// The id of one version of a store's model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(Ulid);

/// Parses an id in its only written form: 26 characters, letters in upper case.
fn parse(text: &str) -> Option<Ulid> {
    Ulid::from_string(text).ok().filter(|id| id.to_string() == text)
}

/// Returns a new id that sorts after `latest`, even if the clock was set back since.
fn next(latest: Option<Ulid>) -> Ulid {
    let id = Ulid::new();
    latest.and_then(|latest| latest.increment()).map_or(id, |after_latest| id.max(after_latest))
}

impl StoreId {
    /// The greatest possible id. No store is given it before the year 10889.
    pub const NEVER_GIVEN: Self = Self(Ulid(u128::MAX));

    /// Parses an id; returns `None` if the text is not one in its only written form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse(text).map(Self)
    }

    pub(super) fn after(latest: Option<Self>) -> Self {
        Self(next(latest.map(|latest| latest.0)))
    }

    pub(super) fn from_key(key: u128) -> Self {
        Self(Ulid(key))
    }

    pub(super) fn key(self) -> u128 {
        self.0.0
    }
}

impl ModelId {
    /// Parses an id; returns `None` if the text is not one in its only written form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse(text).map(Self)
    }

    pub(super) fn after(latest: Option<Self>) -> Self {
        Self(next(latest.map(|latest| latest.0)))
    }

    pub(super) fn from_key(key: u128) -> Self {
        Self(Ulid(key))
    }

    pub(super) fn key(self) -> u128 {
        self.0.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_written_form() {
        for good in ["01JZZZZZZZZZZZZZZZZZZZZZZZ", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"] {
            assert_eq!(StoreId::parse(good).map(|id| id.to_string()).as_deref(), Some(good), "{good}");
        }
        for bad in
            ["", "01JZZZ", "01jzzzzzzzzzzzzzzzzzzzzzzz", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "01JUZZZZZZZZZZZZZZZZZZZZZZ"]
        {
            assert_eq!(StoreId::parse(bad), None, "`{bad}`");
        }
    }

    #[test]
    fn ids_go_on_after_the_clock_was_set_back() {
        let future = ModelId::parse("7ZZZZZZZZZZZZZZZZZZZZZZZZ0");
        assert_eq!(ModelId::after(future).to_string(), "7ZZZZZZZZZZZZZZZZZZZZZZZZ1");
        assert!(Some(ModelId::after(None)) < future);
    }
}
