//! The section `[vector_store.qdrant]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::validation;
use crate::settings::{HumanDuration, PositiveDuration, SecretFile, ServerTls, at_least_one};

/// The name of the sparse vector in each point, which Ragward makes of its text.
pub(super) const TEXT_VECTOR: &str = "ragward_text";

/// A Qdrant server, and how to search it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QdrantConfig {
    /// The address of its gRPC port, `http://host:port` or `https://host:port`.
    pub url: String,
    /// A PEM file with the only authorities whose certificates are accepted from an `https://` address. When unset, those
    /// that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// A file with the API key, if the server has one. It is sent to another machine only if the address is `https://`, or `tls` says
    /// that something else encrypts the way. The file is read again when it changes.
    pub api_key_file: Option<SecretFile>,
    /// `elsewhere` if something other than an `https://` address encrypts the way to the server, such as a service mesh.
    pub tls: Option<ServerTls>,
    /// The longest that one call may take.
    #[serde(with = "PositiveDuration")]
    pub timeout: Duration,
    /// The name of the vector in each point. When unset, the unnamed vector is searched.
    pub vector_name: Option<String>,
    /// The names of vectors by collection, where they differ from `vector_name`. An empty name means the unnamed vector.
    pub vector_names: BTreeMap<String, String>,
    /// Search by a full scan instead of the approximate index. That is exact, and slow on large collections.
    pub exact: bool,
    /// Scan, whatever `exact` says, if a user is known to see at most this many chunks. There the approximate index is
    /// slow as well, and misses most of what it should find.
    pub scanned_chunks_max: u64,
    /// How many replicas of a shard must agree on what is read. Where a shard has replicas, text queries need `one`.
    pub read_consistency: ReadConsistency,
    /// How long Ragward plans searches with what it last read of a collection: its size and the list of its guards. If reading
    /// takes more than a tenth of this time, the result is used for ten times as long as reading took. Until the next reading,
    /// a document that another program writes under a new guard may not be found. Rights are not affected: each chunk is checked
    /// all the same. Lower this to find such documents sooner. Raise it to spare Qdrant.
    #[serde(with = "HumanDuration")]
    pub overview_age_max: Duration,
    /// The most distinct guards of a collection that Ragward lists in order to search only what the user may see. A collection
    /// with more guards is searched as a whole, and what is found is checked. Then searches for users who may see little take
    /// longer, and may end as `LIMITED`. Raise this for larger collections, as long as Qdrant can list their guards within
    /// `timeout`.
    #[serde(deserialize_with = "at_least_one")]
    pub guards_max: usize,
    /// The most guards named in one filter. A longer list is inverted (all guards but these) or sent in parts.
    #[serde(deserialize_with = "at_least_one")]
    pub guards_per_filter_max: usize,
    /// The addresses of the gRPC ports of the other nodes of a cluster. Only text queries need them: Ragward asks each node for
    /// its version, because an older node weighs words by texts that a user may not see. If a shard is on a node that is not
    /// named here, text queries are refused.
    pub other_nodes: Vec<String>,
    /// The length of a usual text, in words. BM25 compares the length of each text with it. Ragward never counts it, because
    /// a count would tell of texts that a user may not see. After a change, ingest the documents again: until then, text
    /// queries are refused.
    #[serde(deserialize_with = "at_least_one")]
    pub text_average_length: u32,
    /// Collections that another program fills, by name.
    pub collections: BTreeMap<String, PayloadConfig>,
}

/// How many replicas of a shard must agree on what is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadConsistency {
    /// One replica answers. This is the server's own default.
    #[default]
    One,
    /// A point counts only if a majority of all replicas has it.
    Majority,
    /// A point counts only if at least half of the replicas plus one have it.
    Quorum,
    /// A point counts only if every replica has it.
    All,
}

/// The places of a chunk's parts in the payload of another program's points: keys with dots between them. If a part is
/// unset, it is where `written_by` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PayloadConfig {
    /// The program whose layout this is.
    pub written_by: WrittenBy,
    /// The object that a user's access is checked on, `type:id`. `ragward attach` can write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
    /// The document that a chunk belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_id: Option<String>,
    /// The title of that document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text of the chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Programs whose layout is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WrittenBy {
    /// `LangChain` keeps the text in `page_content` and everything else in `metadata`.
    Langchain,
    /// `LlamaIndex` keeps the text in `_node_content` and everything else beside it.
    LlamaIndex,
    /// Any other program: the text is in `text`, and the payload itself is the metadata.
    Other,
}

impl QdrantConfig {
    /// Configures the server at an address; every other setting has its default.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Checks the names of vectors.
    ///
    /// # Errors
    /// A sentence that names the setting, when a name belongs to the vectors of texts, and when no collection can have a name.
    pub(crate) fn check(&self) -> Result<(), String> {
        let for_all = self.vector_name.iter().map(|name| ("vector_store.qdrant.vector_name".to_owned(), name));
        let by_collection = self.vector_names.iter();
        let by_collection = by_collection.map(|(collection, name)| (setting_of(collection), name));
        for (setting, name) in for_all.chain(by_collection) {
            if name == TEXT_VECTOR {
                return Err(format!("`{setting}`: `{TEXT_VECTOR}` is the vector that Ragward makes of texts"));
            }
        }
        for collection in self.vector_names.keys() {
            validation::check_collection_name(collection)
                .map_err(|error| format!("`{}`: {error}", setting_of(collection)))?;
        }
        Ok(())
    }
}

fn setting_of(collection: &str) -> String {
    format!("vector_store.qdrant.vector_names.{collection}")
}

#[cfg(feature = "qdrant")]
impl QdrantConfig {
    /// Returns the name of the vector of a collection's points; `None` for the unnamed one.
    pub(super) fn vector_name_of(&self, collection: &str) -> Option<&str> {
        let name = self.vector_names.get(collection).or(self.vector_name.as_ref());
        name.map(String::as_str).filter(|name| !name.is_empty())
    }
}

impl PayloadConfig {
    /// Returns the layout of a program whose parts are all in their usual places.
    #[must_use]
    pub fn of(written_by: WrittenBy) -> Self {
        Self { written_by, guard: None, document_id: None, title: None, text: None }
    }
}

#[cfg(feature = "qdrant")]
impl PayloadConfig {
    /// Returns the key of the metadata; `None` where the payload itself is the metadata.
    pub(super) fn metadata(&self) -> Option<&'static str> {
        match self.written_by {
            WrittenBy::Langchain => Some("metadata"),
            WrittenBy::LlamaIndex | WrittenBy::Other => None,
        }
    }

    pub(super) fn guard(&self) -> &str {
        self.guard.as_deref().unwrap_or("guard")
    }

    pub(super) fn document_id(&self) -> &str {
        let usual = match self.written_by {
            WrittenBy::Langchain => "metadata.source",
            WrittenBy::LlamaIndex => "ref_doc_id",
            WrittenBy::Other => "document_id",
        };
        self.document_id.as_deref().unwrap_or(usual)
    }

    pub(super) fn title(&self) -> &str {
        let usual = match self.written_by {
            WrittenBy::Langchain => "metadata.title",
            WrittenBy::LlamaIndex | WrittenBy::Other => "title",
        };
        self.title.as_deref().unwrap_or(usual)
    }

    pub(super) fn text(&self) -> &str {
        let usual = match self.written_by {
            WrittenBy::Langchain => "page_content",
            WrittenBy::LlamaIndex => "_node_content.text",
            WrittenBy::Other => "text",
        };
        self.text.as_deref().unwrap_or(usual)
    }
}

impl Default for QdrantConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:6334".to_owned(),
            ca_file: None,
            api_key_file: None,
            tls: None,
            timeout: Duration::from_secs(5),
            vector_name: None,
            vector_names: BTreeMap::new(),
            exact: false,
            scanned_chunks_max: 100_000,
            read_consistency: ReadConsistency::default(),
            overview_age_max: Duration::from_secs(2),
            guards_max: 200_000,
            guards_per_filter_max: 10_000,
            other_nodes: Vec::new(),
            text_average_length: 200,
            collections: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row: its name, the name for all collections, the names by collection, and what the error says.
    type Row<'a> = (&'a str, Option<&'a str>, &'a [(&'a str, &'a str)], &'a str);

    #[test]
    fn names_of_vectors_are_checked() {
        let by_collection = "`vector_store.qdrant.vector_names.docs`";
        let rows: [Row<'_>; 6] = [
            ("no names", None, &[], ""),
            ("a name for all", Some("text"), &[], ""),
            ("names by collection", Some(""), &[("docs", "text"), ("wiki", "")], ""),
            ("the vector of texts for all", Some(TEXT_VECTOR), &[], "`vector_store.qdrant.vector_name`"),
            ("the vector of texts for one", None, &[("docs", TEXT_VECTOR)], by_collection),
            ("a collection without a name", None, &[("", "text")], "`vector_store.qdrant.vector_names.`"),
        ];
        for (row, vector_name, names, expected) in rows {
            let names = names.iter().map(|(collection, name)| ((*collection).to_owned(), (*name).to_owned()));
            let config = QdrantConfig {
                vector_name: vector_name.map(str::to_owned),
                vector_names: names.collect(),
                ..QdrantConfig::default()
            };
            let error = config.check().err().unwrap_or_default();
            assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{row}: {error}");
        }
    }
}
