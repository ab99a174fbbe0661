//! The service of points.

use std::collections::BTreeSet;

use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::points_server::Points;
use qdrant_client::qdrant::points_update_operation::Operation;
use qdrant_client::qdrant::{
    ClearPayloadPoints, CountPoints, CountResponse, CountResult, CreateFieldIndexCollection, CreateVectorNameRequest,
    DeleteFieldIndexCollection, DeletePayloadPoints, DeletePointVectors, DeletePoints, DeleteVectorNameRequest,
    DiscoverBatchPoints, DiscoverBatchResponse, DiscoverPoints, DiscoverResponse, FacetCounts, FacetHit, FacetResponse,
    FacetValue, Filter as QdrantFilter, GetPoints, GetResponse, PointId, PointStruct, PointsOperationResponse,
    PointsSelector, QueryBatchPoints, QueryBatchResponse, QueryGroupsResponse, QueryPointGroups, QueryPoints,
    QueryResponse, RecommendBatchPoints, RecommendBatchResponse, RecommendGroupsResponse, RecommendPointGroups,
    RecommendPoints, RecommendResponse, RetrievedPoint, ScoredPoint, ScrollPoints, ScrollResponse, SearchBatchPoints,
    SearchBatchResponse, SearchGroupsResponse, SearchMatrixOffsetsResponse, SearchMatrixPairsResponse,
    SearchMatrixPoints, SearchPointGroups, SearchPoints, SearchResponse, SetPayloadPoints, UpdateBatchPoints,
    UpdateBatchResponse, UpdatePointVectors, UpdateResult, UpdateStatus, UpsertPoints, facet_value, query,
    vector_input,
};
use ragward::chunk::{Chunk, Document};
use ragward::vector_store::qdrant::point_id;
use ragward::vector_store::{DocumentStore, Query, Scope, Search, VectorStore};
use tonic::{Request, Response, Status};

use super::filter::{Restriction, keywords, restriction};
use super::{Engine, failed, not_implemented, or_empty, payload};

#[tonic::async_trait]
impl Points for Engine {
    async fn create_field_index(
        &self,
        request: Request<CreateFieldIndexCollection>,
    ) -> Result<Response<PointsOperationResponse>, Status> {
        let request = request.into_inner();
        self.change(&request.collection_name, |collection| collection.indexes.insert(request.field_name))?;
        Ok(Response::new(PointsOperationResponse { result: Some(completed()), time: 0.0, usage: None }))
    }

    async fn get(&self, request: Request<GetPoints>) -> Result<Response<GetResponse>, Status> {
        let request = request.into_inner();
        let known = self.known(&request.collection_name)?;
        let mut chunk_ids = Vec::new();
        for id in &request.ids {
            chunk_ids.extend(known.chunk_ids.get(payload::uuid(Some(id))?).cloned());
        }
        let chunks = or_empty(self.store.read(&request.collection_name, &chunk_ids).await, Vec::new())?;
        let points = chunks.into_iter().map(|chunk| RetrievedPoint {
            id: Some(PointId::from(point_id(&chunk.id))),
            payload: payload::of_chunk(chunk, request.with_payload.as_ref()),
            ..RetrievedPoint::default()
        });
        Ok(Response::new(GetResponse { result: points.collect(), time: 0.0, usage: None }))
    }

    /// Counts documents; that is the only filter that is understood.
    async fn count(&self, request: Request<CountPoints>) -> Result<Response<CountResponse>, Status> {
        let request = request.into_inner();
        self.known(&request.collection_name)?;
        let first = QdrantFilter::must([qdrant_client::qdrant::Condition::matches("position", 0_i64)]);
        if request.filter != Some(first) {
            return not_implemented();
        }
        let info = self.store.collection(&request.collection_name).await;
        let count = or_empty(info.map(|info| info.documents), 0)?;
        Ok(Response::new(CountResponse { result: Some(CountResult { count }), time: 0.0, usage: None }))
    }

    /// Counts the chunks of documents.
    async fn facet(&self, request: Request<FacetCounts>) -> Result<Response<FacetResponse>, Status> {
        let request = request.into_inner();
        self.known(&request.collection_name)?;
        let Some(document_ids) = request.filter.as_ref().and_then(documents) else { return not_implemented() };
        let counts = or_empty(self.store.documents(&request.collection_name, &document_ids).await, Vec::new())?;
        let hits = counts.into_iter().map(|(id, chunks)| FacetHit {
            value: Some(FacetValue { variant: Some(facet_value::Variant::StringValue(id)) }),
            count: u64::from(chunks),
        });
        Ok(Response::new(FacetResponse { hits: hits.collect(), time: 0.0, usage: None }))
    }

    async fn query(&self, request: Request<QueryPoints>) -> Result<Response<QueryResponse>, Status> {
        let request = request.into_inner();
        let known = self.known(&request.collection_name)?;
        if request.using != known.vector_name {
            return Err(Status::invalid_argument("Wrong input: Not existing vector name error"));
        }
        let vector = nearest(request.query)?;
        if u64::try_from(vector.len()).ok() != Some(known.dimension) {
            return Err(Status::invalid_argument("Wrong input: Vector dimension error"));
        }
        let Restriction { guards, filter } = restriction(request.filter)?;
        let table = or_empty(self.store.guards(&request.collection_name).await, None)?;
        let scope = match (guards, table) {
            (None, _) => Scope::Everything,
            (Some(_), None) => return Ok(Response::new(QueryResponse::default())),
            (Some(guards), Some(table)) => {
                let named = (0..).zip(table.guards.iter()).filter(|(_, guard)| guards.contains(guard.as_str()));
                let positions = named.map(|(position, _)| position).collect();
                Scope::Guards { table, positions }
            }
        };
        let search = Search {
            collection: request.collection_name,
            query: Query::Vector(vector),
            filter: Some(filter),
            scope,
            narrowing: None,
            min_score: request.score_threshold.map(f64::from),
            per_document_max: None,
            limit: usize::try_from(request.limit.unwrap_or(10)).unwrap_or(usize::MAX),
        };
        let candidates = or_empty(self.store.search(&search).await, Vec::new())?;
        let ids: Vec<String> = candidates.iter().map(|candidate| candidate.chunk_id.clone()).collect();
        let chunks = or_empty(self.store.read(&search.collection, &ids).await, Vec::new())?;
        let points = candidates.into_iter().zip(chunks).map(|(candidate, chunk)| ScoredPoint {
            id: Some(PointId::from(point_id(&chunk.id))),
            payload: payload::of_chunk(chunk, request.with_payload.as_ref()),
            score: candidate.score,
            ..ScoredPoint::default()
        });
        Ok(Response::new(QueryResponse { result: points.collect(), time: 0.0, usage: None }))
    }

    /// Replaces documents (new points, then the deletion of the others of their document) and deletes documents.
    async fn update_batch(&self, request: Request<UpdateBatchPoints>) -> Result<Response<UpdateBatchResponse>, Status> {
        let request = request.into_inner();
        let name = request.collection_name;
        let vector_name = self.known(&name)?.vector_name;
        let mut result = Vec::with_capacity(request.operations.len());
        let mut operations = request.operations.into_iter().map(|operation| operation.operation);
        while let Some(operation) = operations.next() {
            match operation {
                Some(Operation::Upsert(list)) => {
                    let document = document(list.points, vector_name.as_deref())?;
                    let Some(Some(Operation::DeletePoints(stale))) = operations.next() else {
                        return not_implemented();
                    };
                    if stale.points != Some(others_of(&document)) {
                        return not_implemented();
                    }
                    self.replace(&name, document).await?;
                    result.extend([completed(), completed()]);
                }
                Some(Operation::DeletePoints(points)) => {
                    let filter = match points.points.and_then(|selector| selector.points_selector_one_of) {
                        Some(PointsSelectorOneOf::Filter(filter)) => filter,
                        Some(PointsSelectorOneOf::Points(_)) | None => return not_implemented(),
                    };
                    let Some(ids) = documents(&filter) else { return not_implemented() };
                    or_empty(self.store.delete(&name, &BTreeSet::from_iter(ids)).await, 0)?;
                    result.push(completed());
                }
                _ => return not_implemented(),
            }
        }
        Ok(Response::new(UpdateBatchResponse { result, time: 0.0, usage: None }))
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
        _: Request<CreateVectorNameRequest>,
    ) -> Result<Response<PointsOperationResponse>, Status> {
        not_implemented()
    }

    async fn delete_vector_name(
        &self,
        _: Request<DeleteVectorNameRequest>,
    ) -> Result<Response<PointsOperationResponse>, Status> {
        not_implemented()
    }

    async fn search(&self, _: Request<SearchPoints>) -> Result<Response<SearchResponse>, Status> {
        not_implemented()
    }

    async fn search_batch(&self, _: Request<SearchBatchPoints>) -> Result<Response<SearchBatchResponse>, Status> {
        not_implemented()
    }

    async fn search_groups(&self, _: Request<SearchPointGroups>) -> Result<Response<SearchGroupsResponse>, Status> {
        not_implemented()
    }

    async fn scroll(&self, _: Request<ScrollPoints>) -> Result<Response<ScrollResponse>, Status> {
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

impl Engine {
    async fn replace(&self, collection: &str, document: Document) -> Result<(), Status> {
        let chunk_ids: Vec<String> = document.chunks.iter().map(|chunk| chunk.id.clone()).collect();
        self.store.upsert(collection, vec![document]).await.map_err(|e| failed(&e))?;
        self.change(collection, |known| known.chunk_ids.extend(chunk_ids.into_iter().map(|id| (point_id(&id), id))))
    }
}

fn completed() -> UpdateResult {
    UpdateResult { operation_id: None, status: UpdateStatus::Completed.into() }
}

fn nearest(query: Option<qdrant_client::qdrant::Query>) -> Result<Vec<f32>, Status> {
    let Some(query::Variant::Nearest(nearest)) = query.and_then(|query| query.variant) else {
        return not_implemented();
    };
    match nearest.variant {
        Some(vector_input::Variant::Dense(dense)) => Ok(dense.data),
        _ => not_implemented(),
    }
}

/// The documents of which a filter takes every chunk.
fn documents(filter: &QdrantFilter) -> Option<Vec<String>> {
    let [condition] = filter.must.as_slice() else { return None };
    let only = QdrantFilter::must([condition.clone()]);
    keywords(condition, "document_id").filter(|_| *filter == only)
}

/// Selects the points of a document's earlier versions.
fn others_of(document: &Document) -> PointsSelector {
    let ids = document.chunks.iter().map(|chunk| PointId::from(point_id(&chunk.id)));
    let filter = QdrantFilter {
        must: vec![qdrant_client::qdrant::Condition::matches("document_id", vec![document.id.clone()])],
        must_not: vec![qdrant_client::qdrant::Condition::has_id(ids)],
        ..QdrantFilter::default()
    };
    PointsSelector { points_selector_one_of: Some(PointsSelectorOneOf::Filter(filter)) }
}

fn document(points: Vec<PointStruct>, vector_name: Option<&str>) -> Result<Document, Status> {
    let mut chunks: Vec<Chunk> = Vec::with_capacity(points.len());
    for point in points {
        let id = payload::uuid(point.id.as_ref())?.to_owned();
        let chunk = payload::to_chunk(point, vector_name)?;
        if id != point_id(&chunk.id) {
            return not_implemented();
        }
        chunks.push(chunk);
    }
    let Some(first) = chunks.first() else { return not_implemented() };
    Ok(Document { id: first.document_id.clone(), title: first.title.clone(), chunks })
}
