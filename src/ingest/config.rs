//! The section `[ingest]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CHARACTERS_MAX, CHARACTERS_MIN, ChunkSize};

/// How texts are cut into chunks, by `ragward ingest` and by a server that gets a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// The longest chunk, in characters, from 100 to 16,000. Documents that are there stay as they are until they are put in again
    /// (`ragward ingest --recut`).
    pub chunk_characters: usize,
    /// The most characters of a chunk that the next one repeats, at most half of `chunk_characters`. Chunks of different sections
    /// repeat nothing.
    pub chunk_overlap: usize,
    /// Other values for collections, by the name of the collection.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub collections: BTreeMap<String, CollectionCutConfig>,
}

/// How the texts of one collection are cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CollectionCutConfig {
    /// The longest chunk, in characters. When unset, it is that of all collections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_characters: Option<usize>,
    /// The most characters of a chunk that the next one repeats. When unset, it is that of all collections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_overlap: Option<usize>,
}

impl Default for IngestConfig {
    fn default() -> Self {
        let size = ChunkSize::default();
        Self { chunk_characters: size.characters(), chunk_overlap: size.overlap(), collections: BTreeMap::new() }
    }
}

impl IngestConfig {
    /// Checks the sizes of all collections.
    ///
    /// # Errors
    /// Returns a sentence that names the settings.
    pub fn check(&self) -> Result<(), String> {
        let own = self.collections.keys().map(|name| (format!("ingest.collections.{name}"), self.size_of(name)));
        for (section, size) in [("ingest".to_owned(), self.common_size())].into_iter().chain(own) {
            if size.is_none() {
                return Err(format!(
                    "`{section}.chunk_characters` must be from {CHARACTERS_MIN} to {CHARACTERS_MAX}, and \
                     `{section}.chunk_overlap` at most half of it"
                ));
            }
        }
        Ok(())
    }

    /// Returns the size of the chunks of a collection.
    #[must_use]
    pub fn size(&self, collection: &str) -> ChunkSize {
        self.size_of(collection).unwrap_or_default()
    }

    fn common_size(&self) -> Option<ChunkSize> {
        ChunkSize::new(self.chunk_characters, self.chunk_overlap)
    }

    fn size_of(&self, collection: &str) -> Option<ChunkSize> {
        let Some(own) = self.collections.get(collection) else { return self.common_size() };
        let characters = own.chunk_characters.unwrap_or(self.chunk_characters);
        ChunkSize::new(characters, own.chunk_overlap.unwrap_or(self.chunk_overlap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_may_have_its_own_size() {
        let own = |chunk_characters, chunk_overlap| CollectionCutConfig { chunk_characters, chunk_overlap };
        let rows = [
            ("the default", own(None, None), Some((1_000, 0))),
            ("other characters", own(Some(500), None), Some((500, 0))),
            ("an overlap", own(None, Some(200)), Some((1_000, 200))),
            ("the largest", own(Some(16_000), Some(8_000)), Some((16_000, 8_000))),
            ("too short", own(Some(99), None), None),
            ("too long", own(Some(16_001), None), None),
            ("too much overlap", own(Some(500), Some(251)), None),
        ];
        for (row, own, expected) in rows {
            let config = IngestConfig { collections: [("c".to_owned(), own)].into(), ..IngestConfig::default() };
            assert_eq!(config.check().is_ok(), expected.is_some(), "{row}");
            let size = config.size("c");
            assert_eq!((size.characters(), size.overlap()), expected.unwrap_or((1_000, 0)), "{row}");
            assert_eq!(config.size("other"), ChunkSize::default(), "{row}");
        }
    }
}
