//! Makes the calls of a search. `vector_store::remote::server_search` decides how many calls there are.
//!
//! Qdrant's own groups are not used for a maximum per document. Its group search ends after a fixed number of inner
//! requests, so too few groups would not mean that there are no more. Instead, the chunks of a document are counted
//! here, and the next calls leave out documents that are complete.

use qdrant_client::qdrant::{
    Condition, Filter as QdrantFilter, IdfParams, PayloadIncludeSelector, Query as QdrantQuery, QueryPoints,
    ScoredPoint, SearchParams, VectorInput, with_payload_selector::SelectorOptions,
};

use super::QdrantStore;
use super::filter::{self, Clause};
use super::layout::Layout;
use super::sparse_text::{self, SparseText, TEXT_VECTOR};
use crate::chunk::Candidate;
use crate::vector_store::direction::normalized;
use crate::vector_store::remote::Hit;
use crate::vector_store::remote::server_search::{
    Method, NOTHING, NearestAnswer, NearestCall, NearestPoints, Point, ServerSearch, Unguarded,
};
use crate::vector_store::remote::space_parts::SpacePart;
use crate::vector_store::{Query, Search, SearchSpace, Searched, VectorStoreError, validation};

/// A text query that Qdrant can answer.
#[derive(Clone, Debug)]
pub(super) struct TextQuestion {
    pub(super) text: SparseText,
    /// The conditions that each chunk of the visible set meets.
    pub(super) visible: Vec<Condition>,
    /// The chunks that are searched, and over which statistics are counted: those of the visible set that are marked. A vector
    /// without its mark may be that of another text.
    pub(super) corpus: QdrantFilter,
}

/// The point of reference to which the nearest chunks are searched.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question<'a> {
    /// A vector of length 1.
    Vector(&'a [f32]),
    Text(&'a TextQuestion),
}

impl Question<'_> {
    /// Returns the score of a point from the one that Qdrant found.
    pub(super) fn score(self, found: f32) -> f32 {
        match self {
            Self::Vector(_) => found,
            Self::Text(_) => sparse_text::rounded(found),
        }
    }
}

/// The part of a search that is the same in all its calls.
struct SearchCalls<'a> {
    store: &'a QdrantStore,
    collection: &'a str,
    layout: &'a Layout,
    question: Question<'a>,
    /// The caller's filter.
    wanted: Option<Condition>,
}

impl QdrantStore {
    pub(super) async fn find_nearest(&self, search: &Search) -> Result<Searched, VectorStoreError> {
        validation::check_query(&search.query)?;
        match &search.query {
            Query::Vector(vector) => self.find_by_vector(search, vector).await,
            Query::Text(text) => self.find_by_text(search, text).await,
            Query::Hybrid { text, vector } => self.find_hybrid(search, text, vector).await,
        }
    }

    pub(super) async fn find_by_vector(&self, search: &Search, vector: &[f32]) -> Result<Searched, VectorStoreError> {
        if self.has_texts_alone(&search.collection) {
            return Ok(NOTHING);
        }
        self.find_by(search, Question::Vector(&normalized(vector))).await
    }

    /// Returns whether the points of a collection have vectors of their texts and no others, as far as the last overview tells.
    pub(super) fn has_texts_alone(&self, collection: &str) -> bool {
        let overview = self.overviews.last_known(collection);
        overview.is_some_and(|overview| overview.info.text_queries && !overview.has_vectors)
    }

    /// Finds the chunks of the search space that are nearest to a question.
    pub(super) async fn find_by(&self, search: &Search, question: Question<'_>) -> Result<Searched, VectorStoreError> {
        let collection = search.collection.as_str();
        let layout = self.layout(collection);
        let wanted = search.filter.as_ref().map_or(Clause::Always, |filter| filter::translate(filter, layout));
        let wanted = match wanted {
            Clause::Always => None,
            Clause::Never => return Ok(NOTHING),
            Clause::When(condition) => Some(*condition),
        };
        let is_text = matches!(question, Question::Text(_));
        let server_search = ServerSearch {
            search,
            limits: self.limits(collection),
            guards_per_filter_max: self.config.guards_per_filter_max,
            chunks: self.known_chunks(search),
            scanned_chunks_max: self.config.scanned_chunks_max,
            // The index of texts misses none.
            method: if self.config.exact || is_text { Method::Scan } else { Method::Index },
            is_filtered: wanted.is_some(),
        };
        let calls = SearchCalls { store: self, collection, layout, question, wanted };
        let Searched { candidates, exact, rest } = server_search.run(&calls).await?;
        let candidates: Vec<Candidate> = candidates.into_iter().map(|found| self.writes.dated(found)).collect();
        Ok(Searched { candidates, exact, rest })
    }

    /// Returns how many chunks the search space holds, as far as the last overview tells.
    fn known_chunks(&self, search: &Search) -> Option<u64> {
        let overview = self.overviews.last_known(&search.collection)?;
        match &search.space {
            SearchSpace::Everything => Some(overview.info.chunks),
            SearchSpace::Guards { table, positions } => overview.guards.as_ref()?.chunks_under(table, positions),
        }
    }

    /// Turns a refusal for a wrong dimension into an error with both numbers. Qdrant's refusal has them only in a
    /// sentence.
    async fn why_refused(&self, collection: &str, found: usize, text: String) -> VectorStoreError {
        match self.expected_dimension(collection).await {
            Ok(Some(expected)) if expected != found => {
                VectorStoreError::Dimension { collection: collection.to_owned(), expected, found }
            }
            Ok(_) => VectorStoreError::Refused(text),
            Err(e) => e,
        }
    }
}

impl NearestPoints for SearchCalls<'_> {
    async fn nearest(&self, call: NearestCall<'_>) -> Result<NearestAnswer, VectorStoreError> {
        let Self { store, collection, layout, question, wanted } = self;
        let mut fields = layout.candidate_keys();
        if call.by_document {
            fields.push(layout.document_id.key());
        }
        // Our condition and the caller's must both hold, so the caller's can only shrink what is found.
        let (query, using, space) = match question {
            Question::Vector(vector) => {
                let query = VectorInput::new_dense(vector.to_vec());
                let using = store.config.vector_name_of(collection).map(str::to_owned);
                (query, using, guard_condition(layout, call.part))
            }
            // The search space of a text query is one part, which is its corpus.
            Question::Text(TextQuestion { text, corpus, .. }) => {
                let query = VectorInput::new_sparse(text.indices.clone(), text.values.clone());
                (query, Some(TEXT_VECTOR.to_owned()), Some(corpus.clone().into()))
            }
        };
        let must: Vec<Condition> = space.into_iter().chain(wanted.clone()).collect();
        let unguarded = (call.unguarded == Unguarded::LeftOut).then(|| Condition::is_empty(layout.guard.key()));
        let must_not: Vec<Condition> = filter::of_documents(layout, call.without_documents)
            .into_iter()
            .chain(unguarded)
            .chain(refused_by_older(*question))
            .collect();
        let is_filtered = !must.is_empty() || !must_not.is_empty();
        let request = QueryPoints {
            collection_name: (*collection).to_owned(),
            query: Some(QdrantQuery::new_nearest(query)),
            using,
            filter: is_filtered.then(|| QdrantFilter { must, must_not, ..QdrantFilter::default() }),
            params: Some(search_params(*question, call.method)),
            limit: Some(u64::try_from(call.limit).unwrap_or(u64::MAX)),
            with_payload: Some(SelectorOptions::Include(PayloadIncludeSelector { fields }).into()),
            with_vectors: Some(false.into()),
            read_consistency: store.read_consistency(),
            ..QueryPoints::default()
        };
        let mut points = store.points();
        match Box::pin(store.call(collection, points.query(request))).await {
            Ok(answer) => {
                let points = answer.result.into_iter().map(|point| {
                    let point = ScoredPoint { score: question.score(point.score), ..point };
                    read_point(layout, &point, call.by_document)
                });
                NearestAnswer::checked(points.collect(), call.limit)
            }
            Err(VectorStoreError::Refused(text)) => match question {
                Question::Vector(vector) => Err(store.why_refused(collection, vector.len(), text).await),
                Question::Text(_) => Err(VectorStoreError::Refused(text)),
            },
            Err(e) => Err(e),
        }
    }
}

/// Returns how a search is done, and the chunks over which the statistics of a text query are counted.
pub(super) fn search_params(question: Question<'_>, method: Method) -> SearchParams {
    let idf = match question {
        Question::Vector(_) => None,
        Question::Text(TextQuestion { corpus, .. }) => Some(IdfParams { corpus: Some(corpus.clone()) }),
    };
    SearchParams { exact: Some(method == Method::Scan), idf, ..SearchParams::default() }
}

/// Returns the condition by which a node that would count hidden chunks refuses a text query.
pub(super) fn refused_by_older(question: Question<'_>) -> Option<Condition> {
    matches!(question, Question::Text(_)).then(filter::of_no_mark)
}

fn guard_condition(layout: &Layout, part: &SpacePart) -> Option<Condition> {
    match part {
        SpacePart::Everything => None,
        SpacePart::Guards(guards) => Some(filter::guard_in(layout, guards.clone())),
        SpacePart::AllBut(guards) => Some(filter::not(filter::guard_in(layout, guards.clone()))),
    }
}

fn read_point(layout: &Layout, point: &ScoredPoint, by_document: bool) -> Point {
    let candidate = layout.candidate(point.id.as_ref(), &point.payload, point.score);
    if candidate.is_none() {
        tracing::debug!(point = ?point.id, "not a chunk");
        tracing::warn!(
            "a point is not a chunk with a well-formed guard and is not returned; its id is logged at debug"
        );
    }
    let document_id = if by_document { layout.document_of(&point.payload) } else { None };
    Point { score: point.score, hit: candidate.map(|candidate| Hit { candidate, document_id }) }
}
