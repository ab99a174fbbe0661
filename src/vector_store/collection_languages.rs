//! The section `[vector_store.languages]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::{Language, Languages};

/// The languages of texts, by collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CollectionLanguages(pub BTreeMap<String, Vec<Language>>);

impl CollectionLanguages {
    /// Returns the languages of a collection.
    #[must_use]
    pub fn of(&self, collection: &str) -> Languages {
        Languages::new(self.0.get(collection).cloned().unwrap_or_default())
    }

    /// Iterates over the collections that name their languages.
    pub fn collections(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns whether no collection names its languages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_named_by_codes() {
        let read = |text: &str| toml::from_str::<CollectionLanguages>(text);
        let languages = read("handbook = ['de', 'pt-BR']").unwrap();
        assert_eq!(languages.of("handbook"), Languages::new(vec![Language::German, Language::Portuguese]));
        assert_eq!(languages.of("other"), Languages::default());
        let refused = read("handbook = ['ja']").unwrap_err().to_string();
        assert!(refused.contains("`ja` is no language with rules of its own"), "{refused}");
    }
}
