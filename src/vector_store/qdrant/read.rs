//! Reading by id.

use std::collections::{BTreeSet, HashMap, HashSet};

use qdrant_client::qdrant::{
    FacetCountsBuilder, Filter, GetPointsBuilder, PayloadIncludeSelector, RetrievedPoint, facet_value::Variant,
    with_payload_selector::SelectorOptions,
};

use super::payload::{CHUNK_ID, DOCUMENT_ID, GUARD, point_id, point_of, to_candidate, to_chunk, uuid};
use super::{QdrantStore, filter};
use crate::chunk::{Candidate, Chunk};
use crate::relationship::Object;
use crate::vector_store::VectorStoreError;

/// Ids in one call.
pub(super) const IDS_PER_CALL_MAX: usize = 1_000;
/// Most guards of the documents of one call.
const GUARDS_MAX: u64 = 10_000;

impl QdrantStore {
    pub(super) async fn read_candidates(
        &self,
        collection: &str,
        chunk_ids: &[String],
    ) -> Result<Vec<Candidate>, VectorStoreError> {
        let fields = PayloadIncludeSelector { fields: vec![CHUNK_ID.to_owned(), GUARD.to_owned()] };
        let points = self.get(collection, chunk_ids, SelectorOptions::Include(fields)).await?;
        Ok(chunk_ids.iter().filter_map(|id| candidate(points.get(&point_id(id))?, id)).collect())
    }

    pub(super) async fn read_chunks(
        &self,
        collection: &str,
        chunk_ids: &[String],
    ) -> Result<Vec<Chunk>, VectorStoreError> {
        let points = self.get(collection, chunk_ids, SelectorOptions::Enable(true)).await?;
        let chunk = |id: &String| {
            let point = points.get(&point_id(id))?;
            to_chunk(point.id.as_ref(), &point.payload).filter(|chunk| chunk.id == *id)
        };
        Ok(chunk_ids.iter().filter_map(chunk).collect())
    }

    /// The points of these chunks that are there, by point id.
    pub(super) async fn get(
        &self,
        collection: &str,
        chunk_ids: &[String],
        payload: SelectorOptions,
    ) -> Result<HashMap<String, RetrievedPoint>, VectorStoreError> {
        let distinct: Vec<&String> = chunk_ids.iter().collect::<HashSet<_>>().into_iter().collect();
        let mut found = HashMap::with_capacity(distinct.len());
        for part in distinct.chunks(IDS_PER_CALL_MAX) {
            let ids: Vec<_> = part.iter().map(|id| point_of(id)).collect();
            let mut asked: HashSet<String> = part.iter().map(|id| point_id(id)).collect();
            let request = GetPointsBuilder::new(collection, ids).with_payload(payload.clone()).with_vectors(false);
            let mut points = self.points();
            for point in self.call(collection, points.get(request.build())).await?.result {
                // Taken out once it was answered, so that a second answer is one that was not asked for.
                match uuid(point.id.as_ref()).and_then(|id| asked.take(id)) {
                    Some(id) => found.insert(id, point),
                    None => return Err(VectorStoreError::BadAnswer("a point that was not asked for".to_owned())),
                };
            }
        }
        Ok(found)
    }

    /// How many chunks each of these documents has, for those that are there.
    pub(super) async fn count_chunks(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Vec<(String, u32)>, VectorStoreError> {
        let mut counts: HashMap<String, u32> = HashMap::new();
        for part in document_ids.chunks(IDS_PER_CALL_MAX) {
            let filter = Filter::must([filter::document_in(part.to_vec())]);
            let limit = u64::try_from(part.len()).unwrap_or(u64::MAX);
            let request = FacetCountsBuilder::new(collection, DOCUMENT_ID).filter(filter).limit(limit).exact(true);
            let mut points = self.points();
            for hit in self.call(collection, points.facet(request.build())).await?.hits {
                let Some(Variant::StringValue(id)) = hit.value.and_then(|value| value.variant) else {
                    return Err(VectorStoreError::BadAnswer("a document id that is not a text".to_owned()));
                };
                if !part.contains(&id) || counts.contains_key(&id) {
                    return Err(VectorStoreError::BadAnswer(format!("document `{id}`, which was not asked for")));
                }
                counts.insert(id, u32::try_from(hit.count).unwrap_or(u32::MAX));
            }
        }
        Ok(document_ids.iter().filter_map(|id| Some((id.clone(), *counts.get(id)?))).collect())
    }
}

impl QdrantStore {
    /// The guards of the chunks of these documents. A point whose guard is none is never answered, so it has none here.
    pub(super) async fn guards_of_documents(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<BTreeSet<Object>, VectorStoreError> {
        let mut guards = BTreeSet::new();
        for part in document_ids.chunks(IDS_PER_CALL_MAX) {
            let filter = Filter::must([filter::document_in(part.to_vec())]);
            let request = FacetCountsBuilder::new(collection, GUARD).filter(filter).limit(GUARDS_MAX).exact(true);
            let mut points = self.points();
            let hits = self.call(collection, points.facet(request.build())).await?.hits;
            // There may be more, and one that is left out is one that nobody checks.
            if hits.len() as u64 >= GUARDS_MAX {
                return Err(VectorStoreError::Unsupported("the documents have too many guards; name fewer".to_owned()));
            }
            for hit in hits {
                if let Some(Variant::StringValue(guard)) = hit.value.and_then(|value| value.variant) {
                    guards.extend(Object::parse(&guard).ok());
                }
            }
        }
        Ok(guards)
    }
}

/// The candidate of a point that is really that of this chunk.
fn candidate(point: &RetrievedPoint, chunk_id: &str) -> Option<Candidate> {
    to_candidate(point.id.as_ref(), &point.payload, 0.0).filter(|candidate| candidate.chunk_id == chunk_id)
}
