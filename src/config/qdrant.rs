//! The section `[vector_store.qdrant]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Qdrant server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QdrantConfig {
    /// The address of its gRPC port.
    pub url: String,
    /// A file with the API key; none when empty.
    pub api_key_file: PathBuf,
    /// The longest that one call may take, in milliseconds.
    pub timeout_ms: u64,
    /// The name of the vector in each point; the unnamed vector when empty.
    pub vector_name: String,
    /// Search by a full scan in place of the approximate index: exact, and slow on large collections.
    pub exact: bool,
    /// Scan, whatever `exact` says, where what a user sees is known to be at most so many chunks.
    pub scanned_chunks_max: u64,
    /// How many replicas of a shard must agree on what is read.
    pub read_consistency: ReadConsistency,
    /// For how long the guards and sizes of a collection are taken as known, in milliseconds; ten times as long as it takes
    /// to ask for them, if that is longer. Documents that others put in under new guards are found after it.
    pub overview_age_max_ms: u64,
    /// A collection with more distinct guards is searched as a whole and checked after.
    pub guards_max: usize,
    /// Guards named in one filter; a longer list is turned round (all but these) or sent in parts.
    pub guards_per_filter_max: usize,
    /// Collections that another program fills, by name.
    pub collections: BTreeMap<String, PayloadConfig>,
}

/// How many replicas of a shard must agree on what is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadConsistency {
    /// The server's own rule: one replica answers.
    #[default]
    One,
    /// Points that the majority of all replicas has.
    Majority,
    /// Points that all of half the replicas and one more have.
    Quorum,
    /// Points that every replica has.
    All,
}

/// Where another program keeps the parts of a chunk in the payload of its points: names with dots between them. What is
/// empty is where `written_by` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PayloadConfig {
    /// Whose layout it is.
    pub written_by: WrittenBy,
    /// The object that a user's access is checked on, `type:id`; `ragward attach` can write it.
    #[serde(default)]
    pub guard: String,
    /// The document that a chunk belongs to.
    #[serde(default)]
    pub document_id: String,
    /// The title of that document.
    #[serde(default)]
    pub title: String,
    /// The chunk's text.
    #[serde(default)]
    pub text: String,
}

/// Programs whose layout is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WrittenBy {
    /// `LangChain`: text in `page_content`, the rest in `metadata`.
    Langchain,
    /// `LlamaIndex`: text in `_node_content`, the rest beside it.
    LlamaIndex,
    /// Any other: text in `text`, and the payload itself is the metadata.
    Other,
}

impl PayloadConfig {
    /// The path of the metadata; empty: the payload itself.
    #[must_use]
    pub fn metadata(&self) -> &'static str {
        match self.written_by {
            WrittenBy::Langchain => "metadata",
            WrittenBy::LlamaIndex | WrittenBy::Other => "",
        }
    }

    /// With the paths that are not named.
    #[must_use]
    pub fn completed(&self) -> Self {
        let [document_id, title, text] = match self.written_by {
            WrittenBy::Langchain => ["metadata.source", "metadata.title", "page_content"],
            WrittenBy::LlamaIndex => ["ref_doc_id", "title", "_node_content.text"],
            WrittenBy::Other => ["document_id", "title", "text"],
        };
        let or = |path: &String, usual: &str| if path.is_empty() { usual.to_owned() } else { path.clone() };
        Self {
            written_by: self.written_by,
            guard: or(&self.guard, "guard"),
            document_id: or(&self.document_id, document_id),
            title: or(&self.title, title),
            text: or(&self.text, text),
        }
    }
}

impl Default for QdrantConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:6334".to_owned(),
            api_key_file: PathBuf::new(),
            timeout_ms: 5_000,
            vector_name: String::new(),
            exact: false,
            scanned_chunks_max: 100_000,
            read_consistency: ReadConsistency::default(),
            overview_age_max_ms: 2_000,
            guards_max: 200_000,
            guards_per_filter_max: 10_000,
            collections: BTreeMap::new(),
        }
    }
}
