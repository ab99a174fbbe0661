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
//! The score of a text query depends on other chunks, too, so it may change although the chunk did not. There, and in a
//! hybrid query, the version tells whether the chunk changed. Where nobody wrote one, the score of a text query tells, and
//! a chunk of a hybrid query is compared by its guard and the filter alone.
//!
//! INVARIANT (one version): a point is returned only if its score is still the one that was found and it still passes
//! the filter. Its payload is read together with the score, and the layout compares guard and version.

use std::collections::HashMap;

use qdrant_client::qdrant::{
    Condition, Filter as QdrantFilter, PointId, ScoredPoint, SearchPoints, SparseIndices,
    with_payload_selector::SelectorOptions,
};

use super::QdrantStore;
use super::filter::{self, Clause};
use super::layout::id_text;
use super::read::{PAYLOADS_PER_CALL_MAX, ids_per_call};
use super::search::{Question, TextQuestion, refused_by_older, search_params};
use super::sparse_text::{SCORE_STEP, TEXT_VECTOR};
use crate::chunk::Candidate;
use crate::vector_store::direction::normalized;
use crate::vector_store::remote::server_search::Method;
use crate::vector_store::{Query, Search, VectorStoreError};

/// The most by which two scores of the same vector may differ. They may differ because two replicas may add up one
/// cosine in different orders. Scores of a text may also be rounded to neighbours.
const SCORE_TOLERANCE: f32 = 1e-5;

/// A search among some points.
struct AmongPoints<'a> {
    /// The caller's filter.
    wanted: Option<&'a Condition>,
    points: Vec<PointId>,
    question: Question<'a>,
    method: Method,
}

/// What a search asks for.
struct Questions {
    /// A vector of length 1.
    vector: Option<Vec<f32>>,
    text: Option<TextQuestion>,
}

/// The fields that tell whether a point is still the one that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SameBy {
    /// Its score.
    Score,
    /// Its version, which the layout compares; the score of a point without one.
    Version,
    /// Its version, which the layout compares.
    VersionAlone,
}

impl SameBy {
    fn holds(self, found: &Candidate, score: f32) -> bool {
        let tolerance = match self {
            Self::Score => Some(SCORE_TOLERANCE),
            Self::Version => found.version.is_none().then(|| SCORE_TOLERANCE.max(found.score * SCORE_STEP)),
            Self::VersionAlone => None,
        };
        // NaN is never the same score.
        tolerance.is_none_or(|tolerance| (score - found.score).abs() <= tolerance)
    }
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
        let Questions { vector, text } = self.questions(search)?;
        let questions = vector.as_deref().map(Question::Vector).into_iter().chain(text.as_ref().map(Question::Text));
        let questions: Vec<Question<'_>> = questions.collect();
        let same_by = match &search.query {
            Query::Vector(_) => SameBy::Score,
            Query::Text(_) => SameBy::Version,
            Query::Hybrid { .. } => SameBy::VersionAlone,
        };
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
            // A quantized vector may score differently in a scan than in a search through the index. So both are tried.
            let methods: &[Method] =
                if limits.allows_scans { &[Method::Scan, Method::Index] } else { &[Method::Index] };
            for question in &questions {
                // The first question of a hybrid query finds only some of the points, and the second one finds the others.
                let unread = part.values().filter(|(_, candidate)| !read.contains_key(candidate.chunk_id.as_str()));
                let mut asked: Vec<PointId> = unread.map(|(point, _)| point.clone()).collect();
                for method in methods {
                    if asked.is_empty() {
                        break;
                    }
                    let points = std::mem::take(&mut asked);
                    let asked_now =
                        AmongPoints { wanted: wanted.as_ref(), points, question: *question, method: *method };
                    let points = self.search_among(search, asked_now, payload.clone()).await?;
                    for point in points {
                        let Some((id, candidate)) = id_text(point.id.as_ref()).and_then(|id| part.get(id.as_str()))
                        else {
                            return Err(VectorStoreError::BadAnswer("a point that was not asked for".to_owned()));
                        };
                        if !same_by.holds(candidate, question.score(point.score)) {
                            asked.push(id.clone());
                            continue;
                        }
                        if read.insert(candidate.chunk_id.as_str(), point).is_some() {
                            return Err(VectorStoreError::BadAnswer("a point twice".to_owned()));
                        }
                    }
                }
            }
        }
        Ok(read)
    }

    /// Returns what a search asks for.
    fn questions(&self, search: &Search) -> Result<Questions, VectorStoreError> {
        let directed = |vector: &[f32]| (!self.has_texts_alone(&search.collection)).then(|| normalized(vector));
        Ok(match &search.query {
            Query::Vector(vector) => Questions { vector: directed(vector), text: None },
            Query::Text(text) => Questions { vector: None, text: self.text_question(search, text)? },
            Query::Hybrid { text, vector } => {
                Questions { vector: directed(vector), text: self.text_question(search, text)? }
            }
        })
    }

    /// Returns those of these points that pass the filter, with their scores and payloads.
    async fn search_among(
        &self,
        search: &Search,
        AmongPoints { wanted, points, question, method }: AmongPoints<'_>,
        payload: SelectorOptions,
    ) -> Result<Vec<ScoredPoint>, VectorStoreError> {
        let limit = u64::try_from(points.len()).unwrap_or(u64::MAX);
        let must: Vec<Condition> = wanted.into_iter().cloned().chain([Condition::has_id(points)]).collect();
        let (vector, sparse_indices, vector_name) = match question {
            Question::Vector(vector) => {
                let vector_name = self.config.vector_name_of(&search.collection).map(str::to_owned);
                (vector.to_vec(), None, vector_name)
            }
            Question::Text(TextQuestion { text, .. }) => {
                let indices = SparseIndices { data: text.indices.clone() };
                (text.values.clone(), Some(indices), Some(TEXT_VECTOR.to_owned()))
            }
        };
        let request = SearchPoints {
            collection_name: search.collection.clone(),
            vector,
            sparse_indices,
            vector_name,
            filter: Some(QdrantFilter {
                must,
                must_not: refused_by_older(question).into_iter().collect(),
                ..QdrantFilter::default()
            }),
            params: Some(search_params(question, method)),
            limit,
            with_payload: Some(payload.into()),
            with_vectors: Some(false.into()),
            read_consistency: self.read_consistency(),
            ..SearchPoints::default()
        };
        let mut client = self.points();
        #[expect(deprecated, reason = "`Query`, which is named in its place, reads payloads after it has scored")]
        let searching = client.search(request);
        let answer = self.call(&search.collection, searching).await;
        if matches!((question, &answer), (Question::Text(_), Err(VectorStoreError::Refused(_)))) {
            // An older node that took over refuses the search itself. This says why.
            self.check_corpus_is_known().await?;
        }
        Ok(answer?.result)
    }
}
