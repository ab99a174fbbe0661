//! The chunks of an answer, as commands print them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::output::excerpt;
use crate::proto::metadata;
use crate::proto::retrieval::Chunk;

/// The number of characters of a chunk's text that a table shows.
const EXCERPT_CHARACTERS: usize = 160;

#[derive(Serialize)]
pub(super) struct ChunkJson<'a> {
    id: &'a str,
    document_id: &'a str,
    guard: &'a str,
    title: &'a str,
    heading_path: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rerank_score: Option<f64>,
    metadata: BTreeMap<&'a str, serde_json::Value>,
    text: &'a str,
}

impl<'a> ChunkJson<'a> {
    /// Returns a chunk of a search.
    pub(super) fn ranked(chunk: &'a Chunk) -> Self {
        Self { score: Some(chunk.score), ..Self::unranked(chunk) }
    }

    /// Returns a chunk that no search has ranked.
    pub(super) fn unranked(chunk: &'a Chunk) -> Self {
        Self {
            id: &chunk.id,
            document_id: &chunk.document_id,
            guard: &chunk.guard,
            title: &chunk.title,
            heading_path: &chunk.heading_path,
            score: None,
            rerank_score: chunk.rerank_score,
            metadata: chunk.metadata.iter().map(|(key, value)| (key.as_str(), json_value(value))).collect(),
            text: &chunk.text,
        }
    }
}

/// Returns title and text, cut for a table.
pub(super) fn shown(chunk: &Chunk) -> String {
    let title = excerpt(&chunk.title, EXCERPT_CHARACTERS);
    format!("{title}\n{}", excerpt(&chunk.text, EXCERPT_CHARACTERS))
}

/// Recursion is bounded: no list is in a list.
fn json_value(value: &metadata::Value) -> serde_json::Value {
    match &value.kind {
        Some(metadata::value::Kind::BoolValue(value)) => (*value).into(),
        Some(metadata::value::Kind::IntValue(value)) => (*value).into(),
        Some(metadata::value::Kind::DoubleValue(value)) => (*value).into(),
        Some(metadata::value::Kind::StringValue(value)) => value.as_str().into(),
        Some(metadata::value::Kind::ListValue(list)) => list.values.iter().map(json_value).collect(),
        None => serde_json::Value::Null,
    }
}
