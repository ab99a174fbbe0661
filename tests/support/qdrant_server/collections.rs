//! The service of collections.

use std::collections::HashMap;
use std::sync::PoisonError;

use qdrant_client::qdrant::alias_operations::Action;
use qdrant_client::qdrant::collections_server::Collections;
use qdrant_client::qdrant::{
    AliasDescription, ChangeAliases, CollectionClusterInfoRequest, CollectionClusterInfoResponse, CollectionConfig,
    CollectionDescription, CollectionExistsRequest, CollectionExistsResponse, CollectionInfo,
    CollectionOperationResponse, CollectionParams, CreateCollection, CreateShardKeyRequest, CreateShardKeyResponse,
    DeleteCollection, DeleteShardKeyRequest, DeleteShardKeyResponse, Distance, FieldType, GetCollectionInfoRequest,
    GetCollectionInfoResponse, ListAliasesRequest, ListAliasesResponse, ListCollectionAliasesRequest,
    ListCollectionsRequest, ListCollectionsResponse, ListShardKeysRequest, ListShardKeysResponse, Modifier,
    PayloadSchemaInfo, PayloadSchemaType, SparseVectorConfig, SparseVectorParams, UpdateCollection,
    UpdateCollectionClusterSetupRequest, UpdateCollectionClusterSetupResponse, VectorParams, VectorParamsMap,
    VectorsConfig, vectors_config,
};
use tonic::{Request, Response, Status};

use super::{Collection, Engine, not_implemented};

#[tonic::async_trait]
impl Collections for Engine {
    async fn get(
        &self,
        request: Request<GetCollectionInfoRequest>,
    ) -> Result<Response<GetCollectionInfoResponse>, Status> {
        let name = request.into_inner().collection_name;
        let info = self.read(&name, |known| Ok(known.describe()))?;
        Ok(Response::new(GetCollectionInfoResponse { result: Some(info), time: 0.0 }))
    }

    async fn create(
        &self,
        request: Request<CreateCollection>,
    ) -> Result<Response<CollectionOperationResponse>, Status> {
        let request = request.into_inner();
        let text_vector = match request.sparse_vectors_config {
            None => None,
            Some(sparse) if sparse.map.values().all(|params| params.modifier() == Modifier::Idf) => {
                sparse.map.into_keys().next()
            }
            Some(_) => return not_implemented(),
        };
        let config = request.vectors_config.and_then(|config| config.config);
        let none = VectorParams { distance: Distance::Cosine.into(), ..VectorParams::default() };
        let (vector_name, params) = match config {
            None if text_vector.is_some() => (None, none),
            Some(vectors_config::Config::Params(params)) => (None, params),
            Some(vectors_config::Config::ParamsMap(named)) if named.map.len() == 1 => {
                let (name, params) = named.map.into_iter().next().expect("one vector");
                (Some(name), params)
            }
            Some(vectors_config::Config::ParamsMap(_)) | None => return not_implemented(),
        };
        if params.distance() != Distance::Cosine {
            return not_implemented();
        }
        let collection = Collection { dimension: params.size, vector_name, text_vector, ..Collection::default() };
        if !self.add(request.collection_name, collection) {
            return Err(Status::invalid_argument("Wrong input: Collection already exists!"));
        }
        Ok(Response::new(CollectionOperationResponse { result: true, time: 0.0 }))
    }

    /// Lists the collections, without aliases.
    async fn list(&self, _: Request<ListCollectionsRequest>) -> Result<Response<ListCollectionsResponse>, Status> {
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        let described = collections.keys().map(|name| CollectionDescription { name: name.clone() }).collect();
        Ok(Response::new(ListCollectionsResponse { collections: described, time: 0.0 }))
    }

    /// Updates a collection's strict mode and its metadata.
    async fn update(
        &self,
        request: Request<UpdateCollection>,
    ) -> Result<Response<CollectionOperationResponse>, Status> {
        let request = request.into_inner();
        self.change(&request.collection_name, |known| {
            known.strict_mode = request.strict_mode_config.or_else(|| known.strict_mode.take());
            known.metadata.extend(request.metadata);
        })?;
        Ok(Response::new(CollectionOperationResponse { result: true, time: 0.0 }))
    }

    async fn delete(
        &self,
        request: Request<DeleteCollection>,
    ) -> Result<Response<CollectionOperationResponse>, Status> {
        let name = request.into_inner().collection_name;
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        let result = collections.remove(&name).is_some();
        Ok(Response::new(CollectionOperationResponse { result, time: 0.0 }))
    }

    async fn update_aliases(
        &self,
        request: Request<ChangeAliases>,
    ) -> Result<Response<CollectionOperationResponse>, Status> {
        for action in request.into_inner().actions {
            let Some(Action::CreateAlias(create)) = action.action else { return not_implemented() };
            self.read(&create.collection_name, |_| Ok(()))?;
            let mut aliases = self.aliases.write().unwrap_or_else(PoisonError::into_inner);
            aliases.insert(create.alias_name, create.collection_name);
        }
        Ok(Response::new(CollectionOperationResponse { result: true, time: 0.0 }))
    }

    async fn list_collection_aliases(
        &self,
        _: Request<ListCollectionAliasesRequest>,
    ) -> Result<Response<ListAliasesResponse>, Status> {
        not_implemented()
    }

    async fn list_aliases(&self, _: Request<ListAliasesRequest>) -> Result<Response<ListAliasesResponse>, Status> {
        let aliases = self.aliases.read().unwrap_or_else(PoisonError::into_inner);
        let described = aliases.iter().map(|(alias, collection)| AliasDescription {
            alias_name: alias.clone(),
            collection_name: collection.clone(),
        });
        Ok(Response::new(ListAliasesResponse { aliases: described.collect(), time: 0.0 }))
    }

    async fn collection_cluster_info(
        &self,
        request: Request<CollectionClusterInfoRequest>,
    ) -> Result<Response<CollectionClusterInfoResponse>, Status> {
        self.read(&request.into_inner().collection_name, |_| Ok(()))?;
        Ok(Response::new(self.node().placement()))
    }

    async fn collection_exists(
        &self,
        _: Request<CollectionExistsRequest>,
    ) -> Result<Response<CollectionExistsResponse>, Status> {
        not_implemented()
    }

    async fn update_collection_cluster_setup(
        &self,
        _: Request<UpdateCollectionClusterSetupRequest>,
    ) -> Result<Response<UpdateCollectionClusterSetupResponse>, Status> {
        not_implemented()
    }

    async fn create_shard_key(
        &self,
        _: Request<CreateShardKeyRequest>,
    ) -> Result<Response<CreateShardKeyResponse>, Status> {
        not_implemented()
    }

    async fn delete_shard_key(
        &self,
        _: Request<DeleteShardKeyRequest>,
    ) -> Result<Response<DeleteShardKeyResponse>, Status> {
        not_implemented()
    }

    async fn list_shard_keys(
        &self,
        _: Request<ListShardKeysRequest>,
    ) -> Result<Response<ListShardKeysResponse>, Status> {
        not_implemented()
    }
}

impl Collection {
    fn describe(&self) -> CollectionInfo {
        let params = VectorParams { size: self.dimension, distance: Distance::Cosine.into(), ..Default::default() };
        let vectors = match self.vector_name.clone() {
            None => vectors_config::Config::Params(params),
            Some(vector) => {
                vectors_config::Config::ParamsMap(VectorParamsMap { map: HashMap::from([(vector, params)]) })
            }
        };
        let text = SparseVectorParams { modifier: Some(Modifier::Idf.into()), ..SparseVectorParams::default() };
        let texts = self.text_vector.clone().map(|name| SparseVectorConfig { map: HashMap::from([(name, text)]) });
        let params = CollectionParams {
            vectors_config: (self.dimension > 0).then_some(VectorsConfig { config: Some(vectors) }),
            sparse_vectors_config: texts,
            ..CollectionParams::default()
        };
        let index = |(field, kind): (&String, &FieldType)| {
            let data_type = match kind {
                FieldType::Keyword => PayloadSchemaType::Keyword,
                FieldType::Integer => PayloadSchemaType::Integer,
                FieldType::Float => PayloadSchemaType::Float,
                FieldType::Geo => PayloadSchemaType::Geo,
                FieldType::Text => PayloadSchemaType::Text,
                FieldType::Bool => PayloadSchemaType::Bool,
                FieldType::Datetime => PayloadSchemaType::Datetime,
                FieldType::Uuid => PayloadSchemaType::Uuid,
            };
            (field.clone(), PayloadSchemaInfo { data_type: data_type.into(), ..PayloadSchemaInfo::default() })
        };
        CollectionInfo {
            config: Some(CollectionConfig {
                params: Some(params),
                strict_mode_config: self.strict_mode.clone(),
                metadata: self.metadata.clone(),
                ..CollectionConfig::default()
            }),
            points_count: Some(self.points.len() as u64),
            payload_schema: self.indexes.iter().map(index).collect(),
            ..CollectionInfo::default()
        }
    }
}
