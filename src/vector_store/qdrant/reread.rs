//! Reads what a search found, by a second search.
//!
//! Another program may replace a point between the search and the reading. So a second search reads the points: it
//! names their ids, and has the same vector and the same filter. Qdrant's `Search` takes score, filter and payload of a
//! point from one version of it, under one lock. Its `Query` and `Scroll` read payloads afterwards, so their answers
//! may mix two versions. It would not be enough to read by id and to compare a version: the score and the filter would
//! be those of the first search, and that one read its payloads afterwards as well.
//!
//! In a collection of more than ten shards `Search` reads payloads afterwards, too. There the version that Ragward
//! wrote still tells versions of a point apart: it was read after the first search had scored, it is read again after
//! this one, and no point returns to a version that it had before.
//!
//! INVARIANT (one version): a point is returned only if its score is still the one that was found and it still passes
//! the filter. Its payload is read together with the score, and the layout compares guard and version.

use std::collections::HashMap;

use qdrant_client::qdrant::{
    Condition, Filter as QdrantFilter, PointId, ScoredPoint, SearchPoints, with_payload_selector::SelectorOptions,
};

use super::QdrantStore;
use super::filter::{self, Clause};
use super::layout::id_text;
use super::read::{PAYLOADS_PER_CALL_MAX, ids_per_call};
use super::search::search_params;
use crate::chunk::Candidate;
use crate::vector_store::direction::normalized;
use crate::vector_store::remote::server_search::Method;
use crate::vector_store::{Query, Search, VectorStoreError};

/// The most by which two scores of the same vector may differ. They may differ because two replicas may add up one
/// cosine in different orders.
const SCORE_TOLERANCE: f32 = 1e-5;

/// A search among some points.
struct AmongPoints<'a> {
    /// The caller's filter.
    wanted: Option<&'a Condition>,
    points: Vec<PointId>,
    method: Method,
}

impl QdrantStore {
    /// Returns the points of these candidates that still pass the search's filter with the same score, by chunk id.
    pub(super) async fn reread<'f>(
        &self,
        search: &Search,
        found: &'f [Candidate],
        payload: SelectorOptions,
    ) -> Result<HashMap<&'f str, ScoredPoint>, VectorStoreError> {
        let layout = self.layout(&search.collection);
        let mut read: HashMap<&'f str, ScoredPoint> = HashMap::with_capacity(found.len());
        let wanted = match search.filter.as_ref().map(|filter| filter::translate(filter, layout)) {
            None | Some(Clause::Always) => None,
            Some(Clause::Never) => return Ok(read),
            Some(Clause::When(condition)) => Some(*condition),
        };
        let limits = self.limits(&search.collection);
        let named = |candidate: &'f Candidate| {
            let point = layout.point_of(&candidate.chunk_id)?;
            Some((id_text(Some(&point))?, (point, candidate)))
        };
        // Each point is read once, however often it is named.
        let named: HashMap<String, (PointId, &'f Candidate)> = found.iter().filter_map(named).collect();
        let ids: Vec<&String> = named.keys().collect();
        for part in ids.chunks(PAYLOADS_PER_CALL_MAX.min(ids_per_call(limits))) {
            let part: HashMap<&str, &(PointId, &'f Candidate)> =
                part.iter().filter_map(|id| Some((id.as_str(), named.get(*id)?))).collect();
            let mut asked: Vec<PointId> = part.values().map(|(point, _)| point.clone()).collect();
            // A quantized vector may score differently in a scan than in a search through the index. So both are tried.
            let methods: &[Method] =
                if limits.allows_scans { &[Method::Scan, Method::Index] } else { &[Method::Index] };
            for method in methods {
                let asked_now =
                    AmongPoints { wanted: wanted.as_ref(), points: std::mem::take(&mut asked), method: *method };
                let points = self.search_among(search, asked_now, payload.clone()).await?;
                for point in points {
                    let Some((id, candidate)) = id_text(point.id.as_ref()).and_then(|id| part.get(id.as_str())) else {
                        return Err(VectorStoreError::BadAnswer("a point that was not asked for".to_owned()));
                    };
                    // NaN is never the same score.
                    let is_same_score = (point.score - candidate.score).abs() <= SCORE_TOLERANCE;
                    if !is_same_score {
                        asked.push(id.clone());
                        continue;
                    }
                    if read.insert(candidate.chunk_id.as_str(), point).is_some() {
                        return Err(VectorStoreError::BadAnswer("a point twice".to_owned()));
                    }
                }
                if asked.is_empty() {
                    break;
                }
            }
        }
        Ok(read)
    }

    /// Returns those of these points that pass the filter, with their scores and payloads.
    async fn search_among(
        &self,
        search: &Search,
        AmongPoints { wanted, points, method }: AmongPoints<'_>,
        payload: SelectorOptions,
    ) -> Result<Vec<ScoredPoint>, VectorStoreError> {
        let Query::Vector(vector) = &search.query else {
            return Err(VectorStoreError::Unsupported("the Qdrant store takes vector queries only".to_owned()));
        };
        let limit = u64::try_from(points.len()).unwrap_or(u64::MAX);
        let must: Vec<Condition> = wanted.into_iter().cloned().chain([Condition::has_id(points)]).collect();
        let request = SearchPoints {
            collection_name: search.collection.clone(),
            vector: normalized(vector),
            vector_name: self.config.vector_name.clone(),
            filter: Some(QdrantFilter::must(must)),
            params: Some(search_params(method)),
            limit,
            with_payload: Some(payload.into()),
            with_vectors: Some(false.into()),
            read_consistency: self.read_consistency(),
            ..SearchPoints::default()
        };
        let mut client = self.points();
        #[expect(deprecated, reason = "`Query`, which is named in its place, reads payloads after it has scored")]
        let searching = client.search(request);
        Ok(self.call(&search.collection, searching).await?.result)
    }
}
