//! The section `[vector_store.embedded]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::{Language, Languages};

/// The embedded engine, and how it reads texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddedConfig {
    /// The languages of a collection's texts, by codes such as `de` and `pt`. When unset, each chunk is taken for the language
    /// that its words show. Name them if many texts are short, so that none is taken for another language. After a change, the
    /// texts of the collection are indexed anew at the next start. A chunk may state its own language in its metadata under
    /// `language`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub languages: BTreeMap<String, Vec<Language>>,
}

impl EmbeddedConfig {
    /// Returns the languages of a collection.
    #[must_use]
    pub fn languages_of(&self, collection: &str) -> Languages {
        Languages::new(self.languages.get(collection).cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_named_by_codes() {
        let read = |text: &str| toml::from_str::<EmbeddedConfig>(text);
        let config = read("[languages]\nhandbook = ['de', 'pt-BR']").unwrap();
        assert_eq!(config.languages_of("handbook"), Languages::new(vec![Language::German, Language::Portuguese]));
        assert_eq!(config.languages_of("other"), Languages::default());
        let refused = read("[languages]\nhandbook = ['ja']").unwrap_err().to_string();
        assert!(refused.contains("`ja` is no language with rules of its own"), "{refused}");
    }
}
