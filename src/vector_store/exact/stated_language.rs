//! The language that a chunk states of itself.

use crate::analysis::Language;
use crate::chunk::{LANGUAGE_KEY, Metadata, Value};

/// Returns the language that the metadata names, if it is one that has rules of its own.
pub(super) fn stated_language(metadata: &Metadata) -> Option<Language> {
    match metadata.get(LANGUAGE_KEY)? {
        Value::Text(tag) => tag.parse().ok(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::List(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tag_states_a_language() {
        let rows = [
            ("a tag", Value::Text("de-AT".to_owned()), Some(Language::German)),
            ("a language without rules", Value::Text("ja".to_owned()), None),
            ("a number", Value::Int(1), None),
        ];
        for (name, value, expected) in rows {
            assert_eq!(stated_language(&Metadata::from([(LANGUAGE_KEY.to_owned(), value)])), expected, "{name}");
        }
        assert_eq!(stated_language(&Metadata::new()), None);
    }
}
