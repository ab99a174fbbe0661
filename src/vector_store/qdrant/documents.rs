//! Looks up the chunks of documents: their guards first, and then the chunks under some of these.

use std::collections::HashSet;

use futures::future::try_join_all;
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use qdrant_client::qdrant::{Condition, Filter, PayloadIncludeSelector, PointId, ScrollPoints, facet_value::Variant};

use super::fields::{POSITION, integer};
use super::read::ids_per_call;
use super::{QdrantStore, filter};
use crate::chunk::Candidate;
use crate::language::Object;
use crate::vector_store::VectorStoreError;
use crate::vector_store::validation::CHUNKS_PER_DOCUMENT_MAX;

/// The largest number of guards of one document. A document that Ragward wrote has no more, because it has no more
/// chunks. A larger one of another program looks absent: an error would tell that it is there.
const GUARDS_MAX: usize = CHUNKS_PER_DOCUMENT_MAX + 1;

impl QdrantStore {
    /// Lists the distinct guards of each document. Each document is one call to the server, and all calls run at the same
    /// time.
    pub(super) async fn guards_by_document(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Vec<Vec<Object>>, VectorStoreError> {
        try_join_all(document_ids.iter().map(|id| self.guards_of_document(collection, id))).await
    }

    async fn guards_of_document(&self, collection: &str, document_id: &str) -> Result<Vec<Object>, VectorStoreError> {
        let layout = self.layout(collection);
        let guards_max = GUARDS_MAX.min(self.limits(collection).answer_max);
        let limit = u64::try_from(guards_max).unwrap_or(u64::MAX);
        let of_document = Filter::should(filter::of_documents(layout, &[document_id.to_owned()]));
        let hits = self.facet(collection, &layout.guard.key(), Some(of_document), limit).await?;
        if hits.len() >= guards_max {
            tracing::warn!(collection, guards_max, "a document has too many guards to be fetched; name its chunks");
            return Ok(Vec::new());
        }
        let guards = hits.into_iter().filter_map(|hit| {
            let Some(Variant::StringValue(guard)) = hit.value.and_then(|value| value.variant) else { return None };
            Object::parse(&guard).ok()
        });
        Ok(guards.collect())
    }

    /// Lists the chunks of a document that are under one of these guards, at most [`CHUNKS_PER_DOCUMENT_MAX`] of them.
    pub(super) async fn candidates_of_document(
        &self,
        collection: &str,
        document_id: &str,
        guards: &HashSet<Object>,
    ) -> Result<Vec<Candidate>, VectorStoreError> {
        if guards.is_empty() {
            return Ok(Vec::new());
        }
        let layout = self.layout(collection);
        let limits = self.limits(collection);
        let of_document: Condition = Filter::should(filter::of_documents(layout, &[document_id.to_owned()])).into();
        // More guards than a condition may name are compared here alone.
        let under_guards = (guards.len() <= ids_per_call(limits))
            .then(|| filter::guard_in(layout, guards.iter().map(ToString::to_string).collect()));
        let wanted = Filter::must([of_document].into_iter().chain(under_guards));
        let own: &[&str] = if layout.is_own() { &[POSITION] } else { &[] };
        let own = own.iter().map(|field| (*field).to_owned());
        let fields = layout.candidate_keys().into_iter().chain([layout.document_id.key()]).chain(own).collect();
        let payload = SelectorOptions::Include(PayloadIncludeSelector { fields });
        let mut seen: HashSet<String> = HashSet::new();
        let mut found: Vec<PlacedCandidate> = Vec::new();
        let mut from: Option<PointId> = None;
        while found.len() < CHUNKS_PER_DOCUMENT_MAX {
            let request = ScrollPoints {
                collection_name: collection.to_owned(),
                filter: Some(wanted.clone()),
                offset: from,
                limit: Some(u32::try_from(ids_per_call(limits)).unwrap_or(u32::MAX)),
                with_payload: Some(payload.clone().into()),
                with_vectors: Some(false.into()),
                read_consistency: self.read_consistency(),
                ..ScrollPoints::default()
            };
            let mut points = self.points();
            let page = self.call(collection, points.scroll(request)).await?;
            let before = seen.len();
            for point in page.result {
                let Some(candidate) = layout.candidate(point.id.as_ref(), &point.payload, 0.0) else { continue };
                if !seen.insert(candidate.chunk_id.clone()) {
                    return Err(VectorStoreError::BadAnswer("a point twice".to_owned()));
                }
                let is_of_document = layout.document_of(&point.payload).is_some_and(|id| id == document_id);
                if is_of_document && guards.contains(&candidate.guard) {
                    let position = if layout.is_own() { integer(&point.payload, POSITION) } else { None };
                    found.push(PlacedCandidate { position, candidate: self.writes.dated(candidate) });
                }
            }
            from = page.next_page_offset;
            // A page without chunks ends the list: a server that repeats itself would keep us forever.
            if from.is_none() || seen.len() == before {
                break;
            }
        }
        // The sort is stable, so chunks without positions stay in the order of their ids.
        found.sort_by_key(|placed| placed.position);
        // The last page may have brought more than are wanted.
        found.truncate(CHUNKS_PER_DOCUMENT_MAX);
        Ok(found.into_iter().map(|placed| placed.candidate).collect())
    }
}

/// A candidate, with its position in its document if the document has positions.
struct PlacedCandidate {
    position: Option<i64>,
    candidate: Candidate,
}
