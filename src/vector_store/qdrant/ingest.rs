//! Replaces and deletes documents.
//!
//! Qdrant has no transactions over several points. A document is replaced by one request with two operations that the
//! server runs in order: it writes the new chunks, then deletes those chunks of the document that are not among them. A
//! server that dies between the two leaves the new chunks and some old ones. That is not a leak, because every chunk is
//! checked against its own guard. The server has not acknowledged the request either, so the client repeats it, and the
//! repeated request ends in the right state, whatever was left. A client that dies leaves nothing half-done, because it
//! sent one request.
//!
//! The operations of two writes to one document could mix. Within this process a lock prevents that. Several processes
//! must not ingest the same document at the same time.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::points_update_operation::{DeletePoints, Operation, PointStructList};
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use qdrant_client::qdrant::{
    Condition, Filter, PayloadIncludeSelector, PointId, PointStruct, PointsSelector, PointsUpdateOperation,
    UpdateBatchPoints, UpdateStatus, WriteOrdering, WriteOrderingType,
};

use super::collection::{Prepared, no_vector};
use super::fields::{CHUNK_ID, DOCUMENT_ID, string};
use super::layout::Layout;
use super::payload::{PointForm, PointText, point_id, to_point};
use super::read::ids_per_call;
use super::sparse_text::ChunkVectors;
use super::{QdrantStore, filter};
use crate::chunk::{Chunk, Document};
use crate::language::Object;
use crate::vector_store::exact::served_terms::Fields;
use crate::vector_store::{VectorStoreError, validation};

/// The largest document, in bytes. One request replaces it, so this bounds the memory of a request here and in the server.
const DOCUMENT_BYTES_MAX: usize = 32 << 20;
/// The size up to which documents are sent in one request, in bytes.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// The number of documents whose guards are read at the same time, when each document is looked up on its own.
const LOOKS_MAX: usize = 16;

/// A document in the form of its new points.
struct Replacement {
    document_id: String,
    chunk_ids: Vec<String>,
    points: Vec<PointStruct>,
    bytes: usize,
}

impl QdrantStore {
    /// Replaces documents and notes the write. The caller holds the lock for writing.
    pub(super) async fn replace_alone(
        &self,
        collection: &str,
        documents: Vec<Document>,
    ) -> Result<(), VectorStoreError> {
        let written = self.replace(collection, documents).await;
        // A write that failed may still take effect, so it counts as under way until the next one begins.
        if written.is_ok() {
            self.writes.end();
        }
        self.overviews.note_change(collection);
        written
    }

    /// Keeps the documents that have no other guards than these. The caller holds the lock for writing.
    pub(super) async fn documents_under(
        &self,
        collection: &str,
        document_ids: &BTreeSet<String>,
        guards: &BTreeSet<Object>,
    ) -> Result<BTreeSet<String>, VectorStoreError> {
        let is_under = |stored: Option<BTreeSet<Object>>| stored.is_some_and(|stored| stored.is_subset(guards));
        let all: Vec<String> = document_ids.iter().cloned().collect();
        if is_under(self.guards_of_documents(collection, &all).await?) {
            return Ok(document_ids.clone());
        }
        let looks = all.into_iter().map(|id| async move {
            let stored = self.guards_of_documents(collection, std::slice::from_ref(&id)).await?;
            Ok::<_, VectorStoreError>(is_under(stored).then_some(id))
        });
        let under: Vec<Option<String>> = stream::iter(looks).buffered(LOOKS_MAX).try_collect().await?;
        Ok(under.into_iter().flatten().collect())
    }

    async fn replace(&self, collection: &str, documents: Vec<Document>) -> Result<(), VectorStoreError> {
        self.check_own(collection)?;
        let documents = last_of_each(documents);
        let dimension = check(collection, &documents)?;
        if documents.is_empty() {
            return Ok(());
        }
        let Prepared { dimension: expected, limits, takes_texts } =
            Box::pin(self.prepare(collection, dimension)).await?;
        match (dimension, expected) {
            (Some(found), Some(expected)) if expected != found => {
                let collection = collection.to_owned();
                return Err(VectorStoreError::Dimension { collection, expected, found });
            }
            (Some(_), None) => return Err(no_vector(collection)),
            (Some(_), Some(_)) | (None, _) => {}
        }
        let chunks = || documents.iter().flat_map(|document| &document.chunks);
        if let Some(chunk) = chunks().find(|chunk| !takes_texts && chunk.vector.is_empty()) {
            let text = format!("chunk `{}` has no vector, and collection `{collection}` takes no texts", chunk.id);
            return Err(VectorStoreError::Invalid(text));
        }
        let replacements = self.replacements(collection, documents, takes_texts)?;
        // Qdrant would write the new chunks, and then refuse to delete the old ones, because the condition that spares
        // the new chunks is too long. That second operation would fail for ever, so nothing is written.
        let is_too_long = |replacement: &&Replacement| replacement.chunk_ids.len() > limits.values_max;
        if let Some(Replacement { document_id, chunk_ids, .. }) = replacements.iter().find(is_too_long) {
            let text = format!(
                "document `{document_id}` has {} chunks, and collection `{collection}` takes {} values in a condition \
                 (condition_max_size of its strict mode); raise that or cut the document",
                chunk_ids.len(),
                limits.values_max
            );
            return Err(VectorStoreError::Unsupported(text));
        }
        self.check_owners(collection, &replacements).await?;
        let mut operations = Vec::new();
        let mut bytes = 0;
        for replacement in replacements {
            if bytes > 0 && bytes + replacement.bytes > REQUEST_BYTES_MAX {
                self.update(collection, std::mem::take(&mut operations)).await?;
                bytes = 0;
            }
            bytes += replacement.bytes;
            operations.extend(replacement.into_operations());
        }
        self.update(collection, operations).await
    }

    pub(super) async fn remove(
        &self,
        collection: &str,
        document_ids: &BTreeSet<String>,
    ) -> Result<u64, VectorStoreError> {
        self.check_own(collection)?;
        let document_ids: Vec<String> = document_ids.iter().cloned().collect();
        let there: Vec<String> =
            self.count_chunks(collection, &document_ids).await?.into_iter().map(|(id, _)| id).collect();
        let ids_max = ids_per_call(self.limits(collection));
        for part in there.chunks(ids_max) {
            let points = Filter::must([filter::document_in(&Layout::default(), part.to_vec())]);
            self.update(collection, vec![delete(points)]).await?;
        }
        Ok(u64::try_from(there.len()).unwrap_or(u64::MAX))
    }

    /// Refuses a call that only Ragward's own collections take.
    pub(super) fn check_own(&self, collection: &str) -> Result<(), VectorStoreError> {
        if self.layout(collection).is_own() {
            return Ok(());
        }
        let text =
            format!("collection `{collection}` belongs to another program; Ragward reads it and does not fill it");
        Err(VectorStoreError::Unsupported(text))
    }

    /// Begins a write and turns the documents into its points. The caller holds the lock for writing.
    fn replacements(
        &self,
        collection: &str,
        documents: Vec<Document>,
        takes_texts: bool,
    ) -> Result<Vec<Replacement>, VectorStoreError> {
        let vector_name = self.config.vector_name_of(collection);
        let point_form = PointForm { stamp: self.writes.begin(), vector_name };
        let form = self.text_form(collection);
        let analysis = form.name();
        let mut vectors = takes_texts.then(|| ChunkVectors::new(form));
        let mut replacements = Vec::with_capacity(documents.len());
        for document in documents {
            let chunk_ids = document.chunks.iter().map(|chunk| chunk.id.clone()).collect();
            let mut points: Vec<PointStruct> = Vec::with_capacity(document.chunks.len());
            for (position, chunk) in document.chunks.into_iter().enumerate() {
                let text = vectors.as_mut().map(|vectors| PointText {
                    vector: vectors.of(fields(&document.title, &chunk), &chunk.metadata),
                    analysis: analysis.clone(),
                });
                points.push(to_point(point_form, &document.title, position, chunk, text));
            }
            let bytes = points.iter().map(Message::encoded_len).sum();
            if bytes > DOCUMENT_BYTES_MAX {
                let text =
                    format!("document `{}` has {bytes} bytes, at most {DOCUMENT_BYTES_MAX} are taken", document.id);
                return Err(VectorStoreError::Invalid(text));
            }
            replacements.push(Replacement { document_id: document.id, chunk_ids, points, bytes });
        }
        Ok(replacements)
    }

    /// Checks that no chunk replaces another document's chunk, unless that document is replaced in the same call.
    async fn check_owners(&self, collection: &str, replacements: &[Replacement]) -> Result<(), VectorStoreError> {
        let fields = PayloadIncludeSelector { fields: vec![CHUNK_ID.to_owned(), DOCUMENT_ID.to_owned()] };
        let chunk_ids: Vec<String> = replacements.iter().flat_map(|r| r.chunk_ids.iter().cloned()).collect();
        let there = self.get(collection, &chunk_ids, SelectorOptions::Include(fields)).await?;
        let replaced: HashSet<&str> = replacements.iter().map(|r| r.document_id.as_str()).collect();
        for replacement in replacements {
            for chunk_id in &replacement.chunk_ids {
                let Some(point) = there.get(chunk_id.as_str()) else { continue };
                if let Some(other) = string(&point.payload, CHUNK_ID).filter(|other| other != chunk_id) {
                    return Err(collision(chunk_id, other));
                }
                let owner = string(&point.payload, DOCUMENT_ID);
                if let Some(owner) = owner.filter(|owner| !replaced.contains(owner)) {
                    return Err(VectorStoreError::DuplicateChunk {
                        chunk_id: chunk_id.clone(),
                        document_id: replacement.document_id.clone(),
                        owner: Some(owner.to_owned()),
                    });
                }
            }
        }
        Ok(())
    }

    /// Runs the operations in order. They are applied and durable when it returns.
    pub(super) async fn update(
        &self,
        collection: &str,
        operations: Vec<PointsUpdateOperation>,
    ) -> Result<(), VectorStoreError> {
        let sent = operations.len();
        let request = UpdateBatchPoints {
            collection_name: collection.to_owned(),
            wait: Some(true),
            operations,
            ordering: Some(WriteOrdering { r#type: WriteOrderingType::Strong.into() }),
            timeout: None,
        };
        let mut points = self.points();
        let results = self.call(collection, points.update_batch(request)).await?.result;
        if results.len() != sent {
            let text = format!("{} results of {sent} operations", results.len());
            return Err(VectorStoreError::BadAnswer(text));
        }
        match results.iter().find(|result| result.status() != UpdateStatus::Completed) {
            None => Ok(()),
            Some(result) => {
                let status = result.status().as_str_name();
                Err(VectorStoreError::Unavailable(format!("a write was not confirmed ({status})")))
            }
        }
    }
}

impl Replacement {
    fn into_operations(self) -> [PointsUpdateOperation; 2] {
        let ids: Vec<PointId> = self.points.iter().filter_map(|point| point.id.clone()).collect();
        let write = PointStructList { points: self.points, ..PointStructList::default() };
        let stale = Filter {
            must: vec![filter::document_in(&Layout::default(), vec![self.document_id])],
            must_not: vec![Condition::has_id(ids)],
            ..Filter::default()
        };
        [PointsUpdateOperation { operation: Some(Operation::Upsert(write)) }, delete(stale)]
    }
}

fn fields<'a>(title: &'a str, chunk: &'a Chunk) -> Fields<'a> {
    Fields { title, heading_path: &chunk.heading_path, text: &chunk.text }
}

fn delete(points: Filter) -> PointsUpdateOperation {
    let selector = PointsSelector { points_selector_one_of: Some(PointsSelectorOneOf::Filter(points)) };
    let delete = DeletePoints { points: Some(selector), shard_key_selector: None };
    PointsUpdateOperation { operation: Some(Operation::DeletePoints(delete)) }
}

/// Keeps the last of several documents with one id, as if they had been written one after the other.
fn last_of_each(documents: Vec<Document>) -> Vec<Document> {
    let mut seen = HashSet::new();
    let mut last: Vec<Document> =
        documents.into_iter().rev().filter(|document| seen.insert(document.id.clone())).collect();
    last.reverse();
    last
}

/// Checks everything that can be known before the server is asked. Returns the dimension of the vectors; `None` without
/// vectors.
fn check(collection: &str, documents: &[Document]) -> Result<Option<usize>, VectorStoreError> {
    validation::check_collection_name(collection)?;
    let layout = Layout::default();
    let mut dimension = None;
    let mut owners: HashMap<&str, &str> = HashMap::new();
    let mut points: HashMap<String, &str> = HashMap::new();
    for document in documents {
        validation::check_document(document)?;
        for chunk in &document.chunks {
            if let Some(owner) = owners.insert(&chunk.id, &document.id) {
                return Err(VectorStoreError::DuplicateChunk {
                    chunk_id: chunk.id.clone(),
                    document_id: document.id.clone(),
                    owner: Some(owner.to_owned()),
                });
            }
            if let Some(other) = points.insert(point_id(&chunk.id), &chunk.id) {
                return Err(collision(&chunk.id, other));
            }
            if let Some(key) = chunk.metadata.keys().find(|key| layout.metadata_key(key).is_none()) {
                let text = format!("metadata key `{key}` of chunk `{}` must not contain `\"` or `\\`", chunk.id);
                return Err(VectorStoreError::Invalid(text));
            }
            if chunk.vector.is_empty() {
                continue;
            }
            let (found, expected) = (chunk.vector.len(), *dimension.get_or_insert(chunk.vector.len()));
            if found != expected {
                let collection = collection.to_owned();
                return Err(VectorStoreError::Dimension { collection, expected, found });
            }
        }
    }
    Ok(dimension)
}

fn collision(chunk_id: &str, other: &str) -> VectorStoreError {
    VectorStoreError::Invalid(format!("chunk ids `{chunk_id}` and `{other}` have the same point id; rename one"))
}
