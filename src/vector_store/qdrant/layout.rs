//! Reads chunks from the payloads of points. It reads the collections that Ragward fills and those of other programs,
//! which are not changed for it. `schema/qdrant-payload.md` is the contract.

use std::borrow::Cow;

use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use qdrant_client::qdrant::{PayloadExcludeSelector, PointId, Struct, Value as Payload, point_id::PointIdOptions};

use super::PayloadConfig;
use super::fields::{
    CHUNK_ID, DOCUMENT_ID, Fields, GUARD, HEADING_PATH, METADATA, TEXT, TITLE, VERSION, WRITTEN_AT, string, texts,
};
use super::path::{Path, PathError};
use super::payload::{point_id, point_of};
use super::version;
use crate::chunk::{Candidate, Chunk, ChunkMetadata, FoundChunk, Metadata, Value, Version, Written};
use crate::language::Object;

/// Tells where the parts of a chunk are in the payload of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) chunk_ids: ChunkIds,
    pub(super) guard: Path,
    pub(super) document_id: Path,
    pub(super) title: Path,
    pub(super) text: Path,
    /// The path of the metadata; `None` if the payload itself is the metadata.
    pub(super) metadata: Option<Path>,
}

/// The way in which the chunks of a collection are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkIds {
    /// A chunk has an id of its own in the payload, and the id of its point is made from that.
    Named,
    /// A chunk is named by the id of its point, as text.
    PointIds,
}

impl Default for Layout {
    /// Returns the layout that `ragward ingest` writes.
    fn default() -> Self {
        let path = Path::of_key;
        Self {
            chunk_ids: ChunkIds::Named,
            guard: path(GUARD),
            document_id: path(DOCUMENT_ID),
            title: path(TITLE),
            text: path(TEXT),
            metadata: Some(path(METADATA)),
        }
    }
}

impl Layout {
    /// Makes the layout of another program's collection. Its chunks are named by the ids of their points.
    ///
    /// # Errors
    /// When a text is not a path.
    pub(super) fn foreign(config: &PayloadConfig) -> Result<Self, PathError> {
        Ok(Self {
            chunk_ids: ChunkIds::PointIds,
            guard: Path::parse(config.guard())?,
            document_id: Path::parse(config.document_id())?,
            title: Path::parse(config.title())?,
            text: Path::parse(config.text())?,
            metadata: config.metadata().map(Path::parse).transpose()?,
        })
    }

    /// Returns whether Ragward fills the collection.
    pub(super) fn is_own(&self) -> bool {
        self.chunk_ids == ChunkIds::Named
    }

    /// Returns the id of a chunk's point; `None` for a chunk id that no point can have.
    pub(super) fn point_of(&self, chunk_id: &str) -> Option<PointId> {
        match self.chunk_ids {
            ChunkIds::Named => Some(point_of(chunk_id)),
            ChunkIds::PointIds => parse_point_id(chunk_id),
        }
    }

    /// Returns the fields that are read to check the chunk of a point. The text is not among them.
    pub(super) fn candidate_keys(&self) -> Vec<String> {
        let own: &[&str] = if self.is_own() { &[CHUNK_ID, VERSION, WRITTEN_AT] } else { &[] };
        own.iter().map(|field| (*field).to_owned()).chain([self.guard.key()]).collect()
    }

    /// Returns the fields that are read to look up the chunk of a point by its id: those of a candidate, and the id of the
    /// document.
    pub(super) fn found_keys(&self) -> Vec<String> {
        let document_id = self.document_is_apart_from_text().then(|| self.document_id.key());
        self.candidate_keys().into_iter().chain(document_id).collect()
    }

    /// Returns whether Qdrant can send the id of a document without the text of its chunk. If both are in one JSON text, it
    /// sends that whole. A chunk is looked up before anybody knows who may see it, so then the id is not asked for.
    fn document_is_apart_from_text(&self) -> bool {
        self.document_id.first() != self.text.first()
    }

    /// Selects everything in a payload except the text.
    ///
    /// A program may keep the text within an object or a JSON text, as `LlamaIndex` does. That object or JSON text is
    /// left out as a whole, unless the guard, the document's id or the metadata is in it, too. Then only the text in it
    /// is left out. Qdrant does not look into a JSON text. So Qdrant sends a JSON text that also holds the document's
    /// id, and the text in it is dropped here.
    ///
    /// A text inside the metadata is metadata, too, and nothing is left out. Otherwise the metadata of a chunk would
    /// differ between a reading without the text and one with it, and the chunk would seem to have changed.
    pub(super) fn all_but_text(&self) -> SelectorOptions {
        if self.metadata.as_ref().is_some_and(|metadata| metadata.leads_to(&self.text)) {
            return SelectorOptions::Enable(true);
        }
        let is_shared = [Some(&self.guard), Some(&self.document_id), self.metadata.as_ref()]
            .into_iter()
            .flatten()
            .any(|path| path.first() == self.text.first());
        let field = if is_shared { self.text.key() } else { Path::of_key(self.text.first()).key() };
        SelectorOptions::Exclude(PayloadExcludeSelector { fields: vec![field] })
    }

    /// Returns the path of a metadata key in a filter; `None` if Qdrant cannot name the key, or if the key is not
    /// metadata.
    pub(super) fn metadata_key(&self, key: &str) -> Option<String> {
        match &self.metadata {
            Some(path) => path.child(key),
            None => Some(Path::of_key(key)).filter(|_| self.is_metadata(key)).and_then(|path| path.quoted()),
        }
    }

    /// Reads the candidate of a point. Returns `None` unless the payload has a well-formed guard and names the chunk
    /// that belongs to the point's id.
    ///
    /// INVARIANT (no guard, no chunk): everything that is read from Qdrant passes here, so a chunk without a
    /// well-formed guard does not exist.
    pub(super) fn candidate(&self, id: Option<&PointId>, payload: &Fields, score: f32) -> Option<Candidate> {
        let guard = match self.guard.find(payload)?.kind.as_ref()? {
            Kind::StringValue(text) => Object::parse(text).ok()?,
            Kind::NullValue(_)
            | Kind::DoubleValue(_)
            | Kind::IntegerValue(_)
            | Kind::BoolValue(_)
            | Kind::StructValue(_)
            | Kind::ListValue(_) => return None,
        };
        let point_id_text = id_text(id)?;
        let chunk_id = match self.chunk_ids {
            ChunkIds::PointIds => point_id_text,
            ChunkIds::Named => {
                let chunk_id = string(payload, CHUNK_ID)?;
                (point_id_text == point_id(chunk_id)).then(|| chunk_id.to_owned())?
            }
        };
        let (version, written) = self.write_of(payload);
        Some(Candidate { chunk_id, guard, score, version, written })
    }

    /// Reads the chunk of a point that was looked up by its id with the fields of [`Self::found_keys`].
    pub(super) fn found(&self, id: Option<&PointId>, payload: &Fields) -> Option<FoundChunk> {
        let candidate = self.candidate(id, payload, 0.0)?;
        let document_id = if self.document_is_apart_from_text() {
            self.document_of_chunk(&candidate.chunk_id, payload)
        } else {
            None
        };
        Some(FoundChunk { candidate, document_id })
    }

    /// Returns the version of a point and when it was written, as far as its payload tells. Only our own collections
    /// are read, because another program may keep something else in fields of these names.
    fn write_of(&self, payload: &Fields) -> (Option<Version>, Written) {
        if self.is_own() { (version::of(payload), version::written_of(payload)) } else { (None, Written::Unknown) }
    }

    /// Returns the metadata of a point's chunk, if the chunk still has the guard and the version that were found.
    pub(super) fn metadata_as_found(
        &self,
        found: &Candidate,
        id: Option<&PointId>,
        payload: &Fields,
    ) -> Option<ChunkMetadata> {
        let chunk = self.chunk_metadata(id, payload)?;
        let is_same = chunk.chunk_id == found.chunk_id && chunk.guard == found.guard;
        (is_same && self.write_of(payload).0 == found.version).then_some(chunk)
    }

    /// Returns the chunk of a point, if it still has the guard and the version that were found.
    pub(super) fn chunk_as_found(&self, found: &Candidate, id: Option<&PointId>, payload: &Fields) -> Option<Chunk> {
        self.metadata_as_found(found, id, payload).map(|chunk| self.with_text(chunk, payload))
    }

    /// Reads the id of the document that a point belongs to.
    pub(super) fn document_of(&self, payload: &Fields) -> Option<String> {
        self.document_id.text(payload).map(Cow::into_owned)
    }

    /// Returns the id of a chunk's document. A chunk of another program that names no document is a document of its own.
    fn document_of_chunk(&self, chunk_id: &str, payload: &Fields) -> Option<String> {
        match (self.document_of(payload), self.chunk_ids) {
            (Some(document_id), _) => Some(document_id),
            (None, ChunkIds::PointIds) => Some(chunk_id.to_owned()),
            (None, ChunkIds::Named) => None,
        }
    }

    /// Returns the metadata of a point's chunk, if the point is one.
    fn chunk_metadata(&self, id: Option<&PointId>, payload: &Fields) -> Option<ChunkMetadata> {
        let Candidate { chunk_id, guard, .. } = self.candidate(id, payload, 0.0)?;
        let document_id = self.document_of_chunk(&chunk_id, payload)?;
        Some(ChunkMetadata { chunk_id, document_id, guard, metadata: self.metadata_of(payload) })
    }

    fn with_text(&self, chunk: ChunkMetadata, payload: &Fields) -> Chunk {
        let ChunkMetadata { chunk_id, document_id, guard, metadata } = chunk;
        let text = |path: &Path| path.text(payload).map(Cow::into_owned).unwrap_or_default();
        let (title, text) = (text(&self.title), text(&self.text));
        let heading_path = if self.is_own() { texts(payload, HEADING_PATH) } else { Vec::new() };
        Chunk { id: chunk_id, document_id, guard, title, heading_path, text, metadata, vector: Vec::new() }
    }

    /// Reads the metadata. It leaves out values of other programs that are none of [`Value`]'s kinds.
    fn metadata_of(&self, payload: &Fields) -> Metadata {
        let fields = match &self.metadata {
            None => payload,
            Some(path) => match path.find(payload).and_then(|value| value.kind.as_ref()) {
                Some(Kind::StructValue(Struct { fields })) => fields,
                Some(_) | None => return Metadata::new(),
            },
        };
        let is_metadata = |key: &str| self.metadata.is_some() || self.is_metadata(key);
        let value = |key: &String, value: &Payload| is_metadata(key).then(|| metadata_value(value))?;
        fields.iter().filter_map(|(key, field)| Some((key.clone(), value(key, field)?))).collect()
    }

    /// Returns whether a key is metadata, if the payload itself is the metadata. The guard, the text and every name
    /// that begins with `_` are not.
    fn is_metadata(&self, key: &str) -> bool {
        !key.starts_with('_') && key != self.guard.first() && key != self.text.first()
    }
}

/// Returns a value of metadata. A list that holds anything else than texts, numbers and truth values is none.
fn metadata_value(value: &Payload) -> Option<Value> {
    let Some(Kind::ListValue(list)) = &value.kind else { return scalar_value(value) };
    list.values.iter().map(scalar_value).collect::<Option<Vec<Value>>>().map(Value::List)
}

fn scalar_value(value: &Payload) -> Option<Value> {
    match value.kind.as_ref()? {
        Kind::BoolValue(value) => Some(Value::Bool(*value)),
        Kind::IntegerValue(value) => Some(Value::Int(*value)),
        Kind::DoubleValue(value) => Some(Value::Float(*value)),
        Kind::StringValue(value) => Some(Value::Text(value.clone())),
        Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_) => None,
    }
}

/// Returns the id of a point as text.
pub(super) fn id_text(id: Option<&PointId>) -> Option<String> {
    match id?.point_id_options.as_ref()? {
        PointIdOptions::Uuid(uuid) => Some(uuid.clone()),
        PointIdOptions::Num(number) => Some(number.to_string()),
    }
}

/// Parses the id of a point. An id has only one spelling, so that a chunk has one name: a number has no leading zeros,
/// and a UUID is in lower case with hyphens.
pub(super) fn parse_point_id(text: &str) -> Option<PointId> {
    if let Ok(number) = text.parse::<u64>() {
        return (number.to_string() == text).then(|| PointId::from(number));
    }
    let is_hyphen = |place: usize| matches!(place, 8 | 13 | 18 | 23);
    let fits = |(place, byte): (usize, u8)| {
        if is_hyphen(place) { byte == b'-' } else { matches!(byte, b'0'..=b'9' | b'a'..=b'f') }
    };
    let is_uuid = text.len() == 36 && text.bytes().enumerate().all(fits);
    is_uuid.then(|| PointId::from(text))
}

#[cfg(test)]
mod tests;
