//! Reads single values from the payload of a point.

use std::borrow::Cow;
use std::collections::HashMap;

use qdrant_client::qdrant::Value as Payload;
use qdrant_client::qdrant::value::Kind;

// The fields of the points that Ragward writes. `schema/qdrant-payload.md` is the contract.
pub(super) const CHUNK_ID: &str = "chunk_id";
pub(super) const DOCUMENT_ID: &str = "document_id";
pub(super) const GUARD: &str = "guard";
/// The position of a chunk in its document, from 0. Each document has one chunk at 0, so the number of these is the
/// number of documents.
pub(super) const POSITION: &str = "position";
pub(super) const TITLE: &str = "title";
pub(super) const HEADING_PATH: &str = "heading_path";
pub(super) const TEXT: &str = "text";
pub(super) const METADATA: &str = "metadata";
pub(super) const VERSION: &str = "version";
pub(super) const WRITTEN_AT: &str = "written_at";
/// The name of the analysis that made the sparse vector of the text. A text query may miss a point without it.
pub(super) const TEXT_ANALYSIS: &str = "_text_analysis";

/// A payload, or an object within one.
pub(super) type Fields = HashMap<String, Payload>;

/// Returns the text under a key.
pub(super) fn string<'a>(fields: &'a Fields, key: &str) -> Option<&'a str> {
    match fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        Kind::NullValue(_)
        | Kind::DoubleValue(_)
        | Kind::IntegerValue(_)
        | Kind::BoolValue(_)
        | Kind::StructValue(_)
        | Kind::ListValue(_) => None,
    }
}

/// Returns the texts of a list under a key; none if something else is there.
pub(super) fn texts(fields: &Fields, key: &str) -> Vec<String> {
    let Some(Kind::ListValue(list)) = fields.get(key).and_then(|value| value.kind.as_ref()) else { return Vec::new() };
    let text = |value: &Payload| match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        Kind::NullValue(_)
        | Kind::DoubleValue(_)
        | Kind::IntegerValue(_)
        | Kind::BoolValue(_)
        | Kind::StructValue(_)
        | Kind::ListValue(_) => None,
    };
    list.values.iter().filter_map(text).collect()
}

/// Returns the whole number under a key.
pub(super) fn integer(fields: &Fields, key: &str) -> Option<i64> {
    match fields.get(key)?.kind.as_ref()? {
        Kind::IntegerValue(number) => Some(*number),
        Kind::NullValue(_)
        | Kind::DoubleValue(_)
        | Kind::StringValue(_)
        | Kind::BoolValue(_)
        | Kind::StructValue(_)
        | Kind::ListValue(_) => None,
    }
}

/// Returns a text, or a whole number as text.
pub(super) fn scalar(value: &Payload) -> Option<Cow<'_, str>> {
    match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(Cow::Borrowed(text)),
        Kind::IntegerValue(number) => Some(Cow::Owned(number.to_string())),
        Kind::NullValue(_) | Kind::DoubleValue(_) | Kind::BoolValue(_) | Kind::StructValue(_) | Kind::ListValue(_) => {
            None
        }
    }
}
