//! Reads points by id, and counts chunks and guards by document.

use std::collections::{BTreeSet, HashMap};

use qdrant_client::qdrant::{
    Condition, FacetCounts, FacetHit, Filter, GetPoints, PayloadIncludeSelector, PointId, RetrievedPoint, ValuesCount,
    facet_value::Variant, with_payload_selector::SelectorOptions,
};

use super::collection::Counting;
use super::fields::Fields;
use super::layout::{Layout, id_text};
use super::{QdrantStore, filter};
use crate::chunk::{Candidate, Chunk, ChunkMetadata, FoundChunk};
use crate::language::Object;
use crate::vector_store::remote::limits::CallLimits;
use crate::vector_store::validation::CHUNKS_PER_DOCUMENT_MAX;
use crate::vector_store::{Search, VectorStoreError};

/// The most ids that one condition names and that one answer covers.
const IDS_PER_CALL_MAX: usize = 1_000;
/// How many points one call reads with text or metadata: the answer must fit a message.
pub(super) const PAYLOADS_PER_CALL_MAX: usize = 500;
/// The largest number of guards of the documents of one call. One document that Ragward wrote has no more, because it has no more
/// chunks.
const GUARDS_MAX: usize = CHUNKS_PER_DOCUMENT_MAX + 1;

/// The guards of some documents.
enum GuardsFound {
    /// The guards of all their points.
    All(BTreeSet<Object>),
    /// One of their points has no well-formed guard.
    Unguarded,
    /// There are more than one call lists.
    TooMany,
}

/// A point that was read.
struct ReadPoint {
    id: Option<PointId>,
    payload: Fields,
}

impl QdrantStore {
    pub(super) async fn find_chunks(
        &self,
        collection: &str,
        chunk_ids: &[String],
    ) -> Result<Vec<FoundChunk>, VectorStoreError> {
        let layout = self.layout(collection);
        let fields = PayloadIncludeSelector { fields: layout.found_keys() };
        let points = self.get(collection, chunk_ids, SelectorOptions::Include(fields)).await?;
        let found = |id: &String| {
            let point = points.get(id.as_str())?;
            let FoundChunk { candidate, document_id } = layout.found(point.id.as_ref(), &point.payload)?;
            let found = FoundChunk { candidate: self.writes.dated(candidate), document_id };
            (found.candidate.chunk_id == *id).then_some(found)
        };
        Ok(chunk_ids.iter().filter_map(found).collect())
    }

    pub(super) async fn read_metadata_of(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<ChunkMetadata>, VectorStoreError> {
        let layout = self.layout(collection);
        let points = self.read_found(collection, search, found, layout.all_but_text()).await?;
        let metadata = |found: &Candidate| {
            let point = points.get(found.chunk_id.as_str())?;
            layout.metadata_as_found(found, point.id.as_ref(), &point.payload)
        };
        Ok(found.iter().filter_map(metadata).collect())
    }

    pub(super) async fn read_chunks(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<Chunk>, VectorStoreError> {
        let layout = self.layout(collection);
        let points = self.read_found(collection, search, found, SelectorOptions::Enable(true)).await?;
        let chunk = |found: &Candidate| {
            let point = points.get(found.chunk_id.as_str())?;
            layout.chunk_as_found(found, point.id.as_ref(), &point.payload)
        };
        Ok(found.iter().filter_map(chunk).collect())
    }

    /// Reads the points of these candidates, by chunk id. After a search, it reads only those points that still pass
    /// the search's filter with the same score. The caller compares guard and version with what was found.
    async fn read_found(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
        payload: SelectorOptions,
    ) -> Result<HashMap<String, ReadPoint>, VectorStoreError> {
        if let Some(search) = search {
            let points = self.reread(search, found, payload).await?.into_iter();
            return Ok(points
                .map(|(chunk_id, point)| (chunk_id.to_owned(), ReadPoint { id: point.id, payload: point.payload }))
                .collect());
        }
        let chunk_ids: Vec<String> = found.iter().map(|found| found.chunk_id.clone()).collect();
        let points = self.get(collection, &chunk_ids, payload).await?.into_iter();
        Ok(points
            .map(|(chunk_id, point)| (chunk_id.to_owned(), ReadPoint { id: point.id, payload: point.payload }))
            .collect())
    }

    /// Reads the points of these chunk ids, by chunk id. It leaves out ids that no point has. A point may hold another
    /// chunk, which the caller finds out.
    pub(super) async fn get<'i>(
        &self,
        collection: &str,
        chunk_ids: &'i [String],
        payload: SelectorOptions,
    ) -> Result<HashMap<&'i str, RetrievedPoint>, VectorStoreError> {
        let layout = self.layout(collection);
        let distinct: BTreeSet<&str> = chunk_ids.iter().map(String::as_str).collect();
        let named = |id: &'i str| Some((id, layout.point_of(id)?));
        let points_of: Vec<(&str, PointId)> = distinct.into_iter().filter_map(named).collect();
        let mut found = HashMap::with_capacity(points_of.len());
        // An unknown collection is an error even if there is nothing to read.
        if points_of.is_empty() && !chunk_ids.is_empty() {
            self.expected_dimension(collection).await?;
        }
        let per_call = match payload {
            SelectorOptions::Include(_) => IDS_PER_CALL_MAX,
            SelectorOptions::Enable(_) | SelectorOptions::Exclude(_) => PAYLOADS_PER_CALL_MAX,
        };
        for part in points_of.chunks(per_call) {
            let mut asked: HashMap<String, &str> =
                part.iter().filter_map(|(id, point)| Some((id_text(Some(point))?, *id))).collect();
            let request = GetPoints {
                collection_name: collection.to_owned(),
                ids: part.iter().map(|(_, point)| point.clone()).collect(),
                with_payload: Some(payload.clone().into()),
                read_consistency: self.read_consistency(),
                ..GetPoints::default()
            };
            let mut points = self.points();
            for point in self.call(collection, points.get(request)).await?.result {
                // An id is removed once it was answered, so a second answer about it counts as one that was not asked
                // for.
                match id_text(point.id.as_ref()).and_then(|id| asked.remove(&id)) {
                    Some(id) => found.insert(id, point),
                    None => return Err(VectorStoreError::BadAnswer("a point that was not asked for".to_owned())),
                };
            }
        }
        Ok(found)
    }

    /// Counts the chunks of these documents, for those that exist.
    pub(super) async fn count_chunks(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Vec<(String, u32)>, VectorStoreError> {
        let layout = self.layout(collection);
        let ids_max = ids_per_call(self.limits(collection));
        let mut counts: HashMap<String, u32> = HashMap::new();
        for part in document_ids.chunks(ids_max) {
            let limit = u64::try_from(part.len()).unwrap_or(u64::MAX);
            for hit in self.facet(collection, &layout.document_id.key(), Some(documents(layout, part)), limit).await? {
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
    /// Lists the guards of the chunks of these documents; `None` when one of their points has no well-formed guard, or when one
    /// document has too many guards to list. Nobody may write such a document.
    pub(super) async fn guards_of_documents(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Option<BTreeSet<Object>>, VectorStoreError> {
        let limits = self.limits(collection);
        let guards_max = GUARDS_MAX.min(limits.answer_max);
        let mut guards = BTreeSet::new();
        // Each part that has too many guards is halved, so there are at most twice as many parts as documents.
        let mut parts: Vec<&[String]> = document_ids.chunks(ids_per_call(limits)).collect();
        while let Some(part) = parts.pop() {
            match self.guards_of_part(collection, part, guards_max).await? {
                GuardsFound::All(found) => guards.extend(found),
                GuardsFound::Unguarded => return Ok(None),
                GuardsFound::TooMany if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                GuardsFound::TooMany => {
                    tracing::warn!(
                        collection,
                        guards_max,
                        "a document has too many guards, so it can be written by nobody"
                    );
                    return Ok(None);
                }
            }
        }
        Ok(Some(guards))
    }

    async fn guards_of_part(
        &self,
        collection: &str,
        part: &[String],
        guards_max: usize,
    ) -> Result<GuardsFound, VectorStoreError> {
        let layout = self.layout(collection);
        let filter = documents(layout, part);
        let points = self.count_points(collection, Some(filter.clone()), Counting::Exact).await?;
        let limit = u64::try_from(guards_max).unwrap_or(u64::MAX);
        // A guard field with a list of values would be counted once for each value, and so hide that another point has no
        // guard.
        let one = ValuesCount { gte: Some(1), lte: Some(1), ..ValuesCount::default() };
        let of_one = Filter::must([filter.into(), Condition::values_count(layout.guard.key(), one)]);
        let hits = self.facet(collection, &layout.guard.key(), Some(of_one), limit).await?;
        // There may be more guards, and nobody would check one that is missing here.
        if hits.len() >= guards_max {
            return Ok(GuardsFound::TooMany);
        }
        let (mut guards, mut guarded) = (BTreeSet::new(), 0_u64);
        for hit in hits {
            if let Some(Variant::StringValue(guard)) = hit.value.and_then(|value| value.variant)
                && let Ok(guard) = Object::parse(&guard)
            {
                guards.insert(guard);
                guarded = guarded.saturating_add(hit.count);
            }
        }
        Ok(if guarded < points { GuardsFound::Unguarded } else { GuardsFound::All(guards) })
    }

    /// Counts how many points have each value of an indexed field.
    pub(super) async fn facet(
        &self,
        collection: &str,
        key: &str,
        filter: Option<Filter>,
        limit: u64,
    ) -> Result<Vec<FacetHit>, VectorStoreError> {
        let request = self.facet_request(collection, key, filter, limit, Counting::Exact);
        let mut points = self.points();
        Ok(self.call(collection, points.facet(request)).await?.hits)
    }

    pub(super) fn facet_request(
        &self,
        collection: &str,
        key: &str,
        filter: Option<Filter>,
        limit: u64,
        counting: Counting,
    ) -> FacetCounts {
        FacetCounts {
            collection_name: collection.to_owned(),
            key: key.to_owned(),
            filter,
            limit: Some(limit),
            exact: Some(counting.is_exact()),
            read_consistency: self.read_consistency(),
            ..FacetCounts::default()
        }
    }
}

/// Returns how many ids one call may name, within the collection's limits.
pub(super) fn ids_per_call(limits: CallLimits) -> usize {
    IDS_PER_CALL_MAX.min(limits.answer_max).min(limits.values_max)
}

fn documents(layout: &Layout, document_ids: &[String]) -> Filter {
    Filter::must([filter::document_in(layout, document_ids.to_vec())])
}
