//! The service of points.

use std::collections::{BTreeMap, HashMap};
use std::sync::PoisonError;

use qdrant_client::qdrant::create_vector_name_request::VectorConfig;
use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::points_server::Points;
use qdrant_client::qdrant::points_update_operation::Operation;
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::vectors::VectorsOptions;
use qdrant_client::qdrant::{
    ClearPayloadPoints, CountPoints, CountResponse, CountResult, CreateFieldIndexCollection, CreateVectorNameRequest,
    DeleteFieldIndexCollection, DeletePayloadPoints, DeletePointVectors, DeletePoints, DeleteVectorNameRequest,
    DiscoverBatchPoints, DiscoverBatchResponse, DiscoverPoints, DiscoverResponse, FacetCounts, FacetHit, FacetResponse,
    FacetValue, FieldType, Filter, GetPoints, GetResponse, Modifier, PointStruct, PointVectors,
    PointsOperationResponse, PointsSelector, QueryBatchPoints, QueryBatchResponse, QueryGroupsResponse,
    QueryPointGroups, QueryPoints, QueryResponse, RecommendBatchPoints, RecommendBatchResponse,
    RecommendGroupsResponse, RecommendPointGroups, RecommendPoints, RecommendResponse, RetrievedPoint, ScoredPoint,
    ScrollPoints, ScrollResponse, SearchBatchPoints, SearchBatchResponse, SearchGroupsResponse,
    SearchMatrixOffsetsResponse, SearchMatrixPairsResponse, SearchMatrixPoints, SearchPointGroups, SearchPoints,
    SearchResponse, SetPayloadPoints, UpdateBatchPoints, UpdateBatchResponse, UpdatePointVectors, UpdateResult,
    UpdateStatus, UpsertPoints, Value, VectorInput, Vectors, WithPayloadSelector, facet_value, query, vector,
    vector_input,
};
use tonic::{Request, Response, Status};

use super::filter::{is_new, passes};
use super::path::{names, path, selected, values};
use super::sparse::{Scored, by_index};
use super::strict_mode::Precision;
use super::{Collection, Engine, Id, Point, not_implemented};

/// Qdrant's own default limit.
const LIMIT: u64 = 10;

#[tonic::async_trait]
impl Points for Engine {
    async fn create_field_index(
        &self,
        request: Request<CreateFieldIndexCollection>,
    ) -> Result<Response<PointsOperationResponse>, Status> {
        let request = request.into_inner();
        let field = path(&names(&request.field_name)?);
        let kind = request.field_type();
        self.change(&request.collection_name, |known| known.indexes.insert(field, kind))?;
        Ok(Response::new(PointsOperationResponse { result: Some(completed()), time: 0.0, usage: None }))
    }

    async fn get(&self, request: Request<GetPoints>) -> Result<Response<GetResponse>, Status> {
        let request = request.into_inner();
        let result = self.read(&request.collection_name, |known| {
            let mut found = Vec::new();
            for id in &request.ids {
                let id = Id::of(Some(id))?;
                if let Some(point) = known.points.get(&id) {
                    found.push(retrieved(&id, point, request.with_payload.as_ref())?);
                }
            }
            Ok(found)
        })?;
        self.note_sent(result.iter().map(|point| &point.payload));
        Ok(Response::new(GetResponse { result, time: 0.0, usage: None }))
    }

    async fn count(&self, request: Request<CountPoints>) -> Result<Response<CountResponse>, Status> {
        let request = request.into_inner();
        let count = self.read(&request.collection_name, |known| {
            let precision = if request.exact == Some(false) { Precision::Approximate } else { Precision::Exact };
            known.admit(request.filter.as_ref(), None, precision)?;
            let mut count = 0;
            for (id, point) in &known.points {
                count += u64::from(passes(request.filter.as_ref(), id, point)?);
            }
            Ok(count)
        })?;
        Ok(Response::new(CountResponse { result: Some(CountResult { count }), time: 0.0, usage: None }))
    }

    /// Counts the values of a field, the most frequent first. As in Qdrant, only an indexed field can be counted.
    async fn facet(&self, request: Request<FacetCounts>) -> Result<Response<FacetResponse>, Status> {
        let request = request.into_inner();
        self.facets.lock().unwrap_or_else(PoisonError::into_inner).push(request.key.clone());
        let names = names(&request.key)?;
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        self.read(&request.collection_name, |known| {
            known.admit(request.filter.as_ref(), Some(request.limit.unwrap_or(LIMIT)), Precision::Approximate)?;
            if known.indexes.get(&path(&names)) != Some(&FieldType::Keyword) {
                let text = format!("Bad request: Index required but not found for \"{}\"", request.key);
                return Err(Status::invalid_argument(text));
            }
            for (id, point) in &known.points {
                if passes(request.filter.as_ref(), id, point)? {
                    for value in values(&point.payload, &names) {
                        if let Some(Kind::StringValue(text)) = &value.kind {
                            *counts.entry(text.clone()).or_default() += 1;
                        }
                    }
                }
            }
            Ok(())
        })?;
        let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
        counts.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
        counts.truncate(usize::try_from(request.limit.unwrap_or(LIMIT)).unwrap_or(usize::MAX));
        let hits = counts.into_iter().map(|(text, count)| FacetHit {
            value: Some(FacetValue { variant: Some(facet_value::Variant::StringValue(text)) }),
            count,
        });
        Ok(Response::new(FacetResponse { hits: hits.collect(), time: 0.0, usage: None }))
    }

    async fn query(&self, request: Request<QueryPoints>) -> Result<Response<QueryResponse>, Status> {
        let request = request.into_inner();
        self.queries.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        let knows_corpus = self.searching_node().knows_corpus();
        let result = self.read(&request.collection_name.clone(), |known| known.query(request, knows_corpus))?;
        self.note_sent(result.iter().map(|point| &point.payload));
        Ok(Response::new(QueryResponse { result, time: 0.0, usage: None }))
    }

    /// Returns points in the order of their ids. The offset is the first id of the page.
    async fn scroll(&self, request: Request<ScrollPoints>) -> Result<Response<ScrollResponse>, Status> {
        let request = request.into_inner();
        if request.order_by.is_some() {
            return not_implemented();
        }
        let from = request.offset.as_ref().map(|offset| Id::of(Some(offset))).transpose()?;
        let limit = usize::try_from(request.limit.unwrap_or(10)).unwrap_or(usize::MAX);
        let mut result = Vec::new();
        let mut next_page_offset = None;
        self.read(&request.collection_name, |known| {
            known.admit(request.filter.as_ref(), request.limit.map(u64::from), Precision::Approximate)?;
            for (id, point) in known.points.iter().filter(|(id, _)| from.as_ref().is_none_or(|from| *id >= from)) {
                if !passes(request.filter.as_ref(), id, point)? {
                    continue;
                }
                if result.len() == limit {
                    next_page_offset = Some(id.to_message());
                    break;
                }
                result.push(retrieved(id, point, request.with_payload.as_ref())?);
            }
            Ok(())
        })?;
        self.note_sent(result.iter().map(|point| &point.payload));
        Ok(Response::new(ScrollResponse { next_page_offset, result, time: 0.0, usage: None }))
    }

    async fn update_batch(&self, request: Request<UpdateBatchPoints>) -> Result<Response<UpdateBatchResponse>, Status> {
        let request = request.into_inner();
        let applied = self.change(&request.collection_name, |known| -> Result<Vec<UpdateResult>, Status> {
            let mut results = Vec::with_capacity(request.operations.len());
            for operation in request.operations {
                match operation.operation {
                    Some(Operation::Upsert(list)) => known.put(list.points)?,
                    Some(Operation::DeletePoints(delete)) => {
                        for id in known.selected(delete.points)? {
                            known.points.remove(&id);
                        }
                    }
                    Some(Operation::SetPayload(set)) if set.key.is_none() => {
                        for id in known.selected(set.points_selector)? {
                            let point = known.points.get_mut(&id).expect("a point that was selected");
                            point.payload.extend(set.payload.clone());
                        }
                    }
                    Some(Operation::UpdateVectors(update)) => {
                        for PointVectors { id, vectors } in update.points {
                            let id = Id::of(id.as_ref())?;
                            let (_, sparse) = known.vectors(vectors)?;
                            let gone = || Status::not_found(format!("Not found: No point with id {id} found"));
                            known.points.get_mut(&id).ok_or_else(gone)?.sparse = sparse;
                        }
                    }
                    Some(Operation::DeletePayload(delete)) => {
                        let keys: Vec<Vec<String>> =
                            delete.keys.iter().map(|key| names(key)).collect::<Result<_, _>>()?;
                        for id in known.selected(delete.points_selector)? {
                            let point = known.points.get_mut(&id).expect("a point that was selected");
                            for key in &keys {
                                let [key] = key.as_slice() else { return not_implemented() };
                                point.payload.remove(key);
                            }
                        }
                    }
                    _ => return not_implemented(),
                }
                results.push(completed());
            }
            Ok(results)
        })?;
        Ok(Response::new(UpdateBatchResponse { result: applied?, time: 0.0, usage: None }))
    }

    async fn upsert(&self, _: Request<UpsertPoints>) -> Result<Response<PointsOperationResponse>, Status> {
        not_implemented()
    }

    async fn delete(&self, _: Request<DeletePoints>) -> Result<Response<PointsOperationResponse>, Status> {
        not_implemented()
    }

    async fn update_vectors(
        &self,
        _: Request<UpdatePointVectors>,
    ) -> Result<Response<PointsOperationResponse>, Status> {
        not_implemented()
    }

    async fn delete_vectors(
        &self,
        _: Request<DeletePointVectors>,
    ) -> Result<Response<PointsOperationResponse>, Status> {
        not_implemented()
    }

    async fn set_payload(&self, _: Request<SetPayloadPoints>) -> Result<Response<PointsOperationResponse>, Status> {
        not_implemented()
    }

    async fn overwrite_payload(
        &self,
        _: Request<SetPayloadPoints>,
    ) -> Result<Response<PointsOperationResponse>, Status> {
        not_implemented()
    }

    async fn delete_payload(
        &self,
        _: Request<DeletePayloadPoints>,
    ) -> Result<Response<PointsOperationResponse>, Status> {
        not_implemented()
    }

    async fn clear_payload(&self, _: Request<ClearPayloadPoints>) -> Result<Response<PointsOperationResponse>, Status> {
        not_implemented()
    }

    async fn delete_field_index(
        &self,
        _: Request<DeleteFieldIndexCollection>,
    ) -> Result<Response<PointsOperationResponse>, Status> {
        not_implemented()
    }

    async fn create_vector_name(
        &self,
        request: Request<CreateVectorNameRequest>,
    ) -> Result<Response<PointsOperationResponse>, Status> {
        let request = request.into_inner();
        let Some(VectorConfig::SparseConfig(config)) = request.vector_config else { return not_implemented() };
        if config.modifier() != Modifier::Idf || !self.node().adds_vectors() {
            return not_implemented();
        }
        self.change(&request.collection_name, |known| known.text_vector = Some(request.vector_name))?;
        Ok(Response::new(PointsOperationResponse { result: Some(completed()), time: 0.0, usage: None }))
    }

    async fn delete_vector_name(
        &self,
        _: Request<DeleteVectorNameRequest>,
    ) -> Result<Response<PointsOperationResponse>, Status> {
        not_implemented()
    }

    /// Searches. As in Qdrant, the score, the filter and the payload of a point are of one version.
    async fn search(&self, request: Request<SearchPoints>) -> Result<Response<SearchResponse>, Status> {
        let request = request.into_inner();
        let wanted = match request.sparse_indices {
            Some(indices) => VectorInput::new_sparse(indices.data, request.vector),
            None => VectorInput::new_dense(request.vector),
        };
        let query = QueryPoints {
            collection_name: request.collection_name,
            query: Some(qdrant_client::qdrant::Query::new_nearest(wanted)),
            using: request.vector_name,
            filter: request.filter,
            params: request.params,
            limit: Some(request.limit),
            with_payload: request.with_payload,
            ..QueryPoints::default()
        };
        let knows_corpus = self.searching_node().knows_corpus();
        let result = self.read(&query.collection_name.clone(), |known| known.query(query, knows_corpus))?;
        self.note_sent(result.iter().map(|point| &point.payload));
        Ok(Response::new(SearchResponse { result, time: 0.0, usage: None }))
    }

    async fn search_batch(&self, _: Request<SearchBatchPoints>) -> Result<Response<SearchBatchResponse>, Status> {
        not_implemented()
    }

    async fn search_groups(&self, _: Request<SearchPointGroups>) -> Result<Response<SearchGroupsResponse>, Status> {
        not_implemented()
    }

    async fn recommend(&self, _: Request<RecommendPoints>) -> Result<Response<RecommendResponse>, Status> {
        not_implemented()
    }

    async fn recommend_batch(
        &self,
        _: Request<RecommendBatchPoints>,
    ) -> Result<Response<RecommendBatchResponse>, Status> {
        not_implemented()
    }

    async fn recommend_groups(
        &self,
        _: Request<RecommendPointGroups>,
    ) -> Result<Response<RecommendGroupsResponse>, Status> {
        not_implemented()
    }

    async fn discover(&self, _: Request<DiscoverPoints>) -> Result<Response<DiscoverResponse>, Status> {
        not_implemented()
    }

    async fn discover_batch(&self, _: Request<DiscoverBatchPoints>) -> Result<Response<DiscoverBatchResponse>, Status> {
        not_implemented()
    }

    async fn query_batch(&self, _: Request<QueryBatchPoints>) -> Result<Response<QueryBatchResponse>, Status> {
        not_implemented()
    }

    async fn query_groups(&self, _: Request<QueryPointGroups>) -> Result<Response<QueryGroupsResponse>, Status> {
        not_implemented()
    }

    async fn search_matrix_pairs(
        &self,
        _: Request<SearchMatrixPoints>,
    ) -> Result<Response<SearchMatrixPairsResponse>, Status> {
        not_implemented()
    }

    async fn search_matrix_offsets(
        &self,
        _: Request<SearchMatrixPoints>,
    ) -> Result<Response<SearchMatrixOffsetsResponse>, Status> {
        not_implemented()
    }
}

impl Collection {
    pub(super) fn put(&mut self, points: Vec<PointStruct>) -> Result<(), Status> {
        for point in points {
            let id = Id::of(point.id.as_ref())?;
            let (vector, sparse) = self.vectors(point.vectors)?;
            if !vector.is_empty() && u64::try_from(vector.len()).ok() != Some(self.dimension) {
                return Err(Status::invalid_argument("Wrong input: Vector dimension error"));
            }
            let payload = point.payload.into_iter().map(|(key, value)| (key, kept(value))).collect();
            self.points.insert(id, Point { payload, vector, sparse });
        }
        Ok(())
    }

    fn selected(&self, selector: Option<PointsSelector>) -> Result<Vec<Id>, Status> {
        let mut ids = Vec::new();
        match selector.and_then(|selector| selector.points_selector_one_of) {
            Some(PointsSelectorOneOf::Points(list)) => {
                for id in &list.ids {
                    ids.extend(Some(Id::of(Some(id))?).filter(|id| self.points.contains_key(id)));
                }
            }
            Some(PointsSelectorOneOf::Filter(filter)) => {
                for (id, point) in &self.points {
                    if passes(Some(&filter), id, point)? {
                        ids.push(id.clone());
                    }
                }
            }
            None => return not_implemented(),
        }
        Ok(ids)
    }

    /// Returns the dense and the sparse vector of a point. As in Qdrant, a point may lack a named vector, and the unnamed one
    /// has the empty name beside others.
    fn vectors(&self, vectors: Option<Vectors>) -> Result<(Vec<f32>, BTreeMap<u32, f32>), Status> {
        let missing = || Status::invalid_argument("Wrong input: Not existing vector name error");
        let own = self.vector_name.as_deref().unwrap_or_default();
        let named = match vectors.and_then(|vectors| vectors.vectors_options) {
            Some(VectorsOptions::Vector(vector)) => HashMap::from([(String::new(), vector)]),
            Some(VectorsOptions::Vectors(named)) => named.vectors,
            None => return Err(missing()),
        };
        let (mut dense, mut sparse) = (Vec::new(), BTreeMap::new());
        for (name, vector) in named {
            match vector.vector {
                Some(vector::Vector::Sparse(vector)) if Some(&name) == self.text_vector.as_ref() => {
                    sparse = by_index(vector)?;
                }
                Some(vector::Vector::Dense(vector)) if name == own => dense = vector.data,
                #[expect(deprecated, reason = "older clients fill it")]
                None if name == own => dense = vector.data,
                Some(_) | None => return Err(missing()),
            }
        }
        Ok((dense, sparse))
    }

    /// Searches. A server that does not know the corpus ignores it without a word, as Qdrant did before 1.19.
    fn query(&self, request: QueryPoints, knows_corpus: bool) -> Result<Vec<ScoredPoint>, Status> {
        if !knows_corpus && request.filter.as_ref().is_some_and(is_new) {
            return Err(Status::invalid_argument("Malformed Match condition"));
        }
        let is_exact = request.params.as_ref().is_some_and(qdrant_client::qdrant::SearchParams::exact);
        let precision = if is_exact { Precision::Exact } else { Precision::Approximate };
        self.admit(request.filter.as_ref(), Some(request.limit.unwrap_or(LIMIT)), precision)?;
        let mut scored = match nearest(request.query)? {
            Wanted::Sparse(wanted) if request.using.is_some() && request.using == self.text_vector => {
                let corpus = request.params.and_then(|params| params.idf).and_then(|idf| idf.corpus);
                let corpus = corpus.filter(|_| knows_corpus);
                self.nearest_texts(&wanted, corpus.as_ref(), request.filter.as_ref())?
            }
            Wanted::Dense(wanted) if request.using == self.vector_name && self.dimension > 0 => {
                self.nearest_vectors(&wanted, request.filter.as_ref())?
            }
            Wanted::Sparse(_) | Wanted::Dense(_) => {
                return Err(Status::invalid_argument("Wrong input: Not existing vector name error"));
            }
        };
        // As in Qdrant, a score must be above the threshold; an equal one is left out.
        scored.retain(|(score, ..)| request.score_threshold.is_none_or(|threshold| *score > threshold));
        // As in Qdrant, the order of equal scores means nothing.
        scored.sort_by(|(x, a, _), (y, b, _)| y.total_cmp(x).then_with(|| b.cmp(a)));
        scored.truncate(usize::try_from(request.limit.unwrap_or(LIMIT)).unwrap_or(usize::MAX));
        let selector = request.with_payload.as_ref().and_then(|selector| selector.selector_options.as_ref());
        let point = |(score, id, point): (f32, &Id, &Point)| {
            let payload = selected(&point.payload, selector)?;
            Ok(ScoredPoint { id: Some(id.to_message()), payload, score, ..ScoredPoint::default() })
        };
        scored.into_iter().map(point).collect()
    }

    fn nearest_vectors(&self, wanted: &[f32], filter: Option<&Filter>) -> Result<Vec<Scored<'_>>, Status> {
        if u64::try_from(wanted.len()).ok() != Some(self.dimension) {
            return Err(Status::invalid_argument("Wrong input: Vector dimension error"));
        }
        let wanted = direction(wanted);
        let mut scored = Vec::new();
        for (id, point) in self.points.iter().filter(|(_, point)| !point.vector.is_empty()) {
            if passes(filter, id, point)? {
                let product: f32 = wanted.iter().zip(direction(&point.vector)).map(|(x, y)| x * y).sum();
                // Adding 0.0 makes both zeros the same.
                scored.push((product + 0.0, id, point));
            }
        }
        Ok(scored)
    }
}

/// Returns a value as Qdrant reads it back from its disk, where it is JSON. Qdrant reads a number as a whole number
/// times a power of ten, and so rounds twice.
fn kept(mut value: Value) -> Value {
    match &mut value.kind {
        Some(Kind::DoubleValue(number)) => {
            let text = format!("{number:e}");
            let (digits, exponent) = text.split_once('e').expect("an exponent");
            let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
            let whole: f64 = digits.replace('.', "").parse().expect("digits");
            let power = exponent.parse::<i32>().expect("an exponent") - i32::try_from(decimals).expect("few decimals");
            let factor: f64 = format!("1e{}", power.abs()).parse().expect("a power of ten");
            *number = if power < 0 { whole / factor } else { whole * factor };
        }
        Some(Kind::StructValue(fields)) => {
            let within = std::mem::take(&mut fields.fields);
            fields.fields = within.into_iter().map(|(key, value)| (key, kept(value))).collect();
        }
        Some(Kind::ListValue(list)) => list.values = std::mem::take(&mut list.values).into_iter().map(kept).collect(),
        _ => {}
    }
    value
}

fn retrieved(id: &Id, point: &Point, wanted: Option<&WithPayloadSelector>) -> Result<RetrievedPoint, Status> {
    let payload = selected(&point.payload, wanted.and_then(|wanted| wanted.selector_options.as_ref()))?;
    Ok(RetrievedPoint { id: Some(id.to_message()), payload, ..RetrievedPoint::default() })
}

fn completed() -> UpdateResult {
    UpdateResult { operation_id: None, status: UpdateStatus::Completed.into() }
}

/// The vector that a search is about.
enum Wanted {
    Dense(Vec<f32>),
    Sparse(BTreeMap<u32, f32>),
}

fn nearest(query: Option<qdrant_client::qdrant::Query>) -> Result<Wanted, Status> {
    let Some(query::Variant::Nearest(nearest)) = query.and_then(|query| query.variant) else {
        return not_implemented();
    };
    match nearest.variant {
        Some(vector_input::Variant::Dense(dense)) => Ok(Wanted::Dense(dense.data)),
        Some(vector_input::Variant::Sparse(sparse)) => Ok(Wanted::Sparse(by_index(sparse)?)),
        _ => not_implemented(),
    }
}

/// Divides the vector by its length, both in f32, as Qdrant does. A vector that is taken to have length 0 or 1 stays as
/// it is.
fn direction(vector: &[f32]) -> Vec<f32> {
    let square: f32 = vector.iter().map(|x| x * x).sum();
    if square < f32::EPSILON || (square - 1.0).abs() <= 1e-6 {
        return vector.to_vec();
    }
    let length = square.sqrt();
    vector.iter().map(|x| x / length).collect()
}
