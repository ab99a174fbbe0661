//! The servers that tests of the Qdrant adapter run over: the small one in memory, and a real one if its program is at
//! hand. Changes that other programs make to a collection go over the wire, in the same way for both.

use std::collections::{BTreeMap, HashMap};

use qdrant_client::qdrant::alias_operations::Action;
use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::points_client::PointsClient;
use qdrant_client::qdrant::points_update_operation::{Operation, PointStructList};
use qdrant_client::qdrant::{
    AliasOperations, ChangeAliases, CreateAlias, CreateCollectionBuilder, DeleteCollection, Distance,
    GetCollectionInfoRequest, PointStruct, PointsUpdateOperation, ScrollPointsBuilder, StrictModeConfig,
    UpdateBatchPoints, UpdateCollection, Value, VectorParamsBuilder,
};
use tonic::transport::Channel;

use crate::support::qdrant_process::Qdrant;
use crate::support::qdrant_server::QdrantServer;

/// A server of either kind. Dropping it ends it.
pub(crate) struct AnyQdrant {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    pub(crate) small: Option<QdrantServer>,
    _real: Option<Qdrant>,
}

/// Starts the small server, and a real one if Qdrant's program is at hand. If it is not, standard error says so.
pub(crate) async fn servers() -> Vec<AnyQdrant> {
    let small = QdrantServer::start().await;
    let small = AnyQdrant { name: "small", url: small.address.clone(), small: Some(small), _real: None };
    let real = Qdrant::start_own().await;
    let real = real.map(|real| AnyQdrant { name: "real", url: real.url.clone(), small: None, _real: Some(real) });
    [Some(small), real].into_iter().flatten().collect()
}

impl AnyQdrant {
    async fn channel(&self) -> Channel {
        Channel::from_shared(self.url.clone()).expect("an address").connect().await.expect("a server")
    }

    async fn points(&self) -> PointsClient<Channel> {
        PointsClient::new(self.channel().await)
    }

    async fn collections(&self) -> CollectionsClient<Channel> {
        CollectionsClient::new(self.channel().await)
    }

    /// Makes a collection as another program would: without indexes.
    pub(crate) async fn make(&self, name: &str, dimension: u64) {
        let vectors = VectorParamsBuilder::new(dimension, Distance::Cosine);
        let request = CreateCollectionBuilder::new(name).vectors_config(vectors);
        self.collections().await.create(request.build()).await.expect("a collection");
    }

    /// Puts points in as another program would, whatever their payload is.
    pub(crate) async fn put(&self, collection: &str, points: Vec<PointStruct>) {
        let list = PointStructList { points, ..PointStructList::default() };
        let request = UpdateBatchPoints {
            collection_name: collection.to_owned(),
            wait: Some(true),
            operations: vec![PointsUpdateOperation { operation: Some(Operation::Upsert(list)) }],
            ..UpdateBatchPoints::default()
        };
        self.points().await.update_batch(request).await.expect("taken in");
    }

    /// Returns the payloads of at most ten thousand points, each under the id of its point as text.
    pub(crate) async fn payloads(&self, collection: &str) -> BTreeMap<String, HashMap<String, Value>> {
        let request = ScrollPointsBuilder::new(collection).limit(10_000).with_payload(true);
        let points = self.points().await.scroll(request.build()).await.expect("points").into_inner().result;
        let id = |id: PointIdOptions| match id {
            PointIdOptions::Num(number) => number.to_string(),
            PointIdOptions::Uuid(uuid) => uuid,
        };
        let with_id = |point: qdrant_client::qdrant::RetrievedPoint| {
            (id(point.id.and_then(|id| id.point_id_options).expect("an id")), point.payload)
        };
        points.into_iter().map(with_id).collect()
    }

    /// Returns the names of a collection's indexes.
    pub(crate) async fn indexes(&self, collection: &str) -> Vec<String> {
        let request = GetCollectionInfoRequest { collection_name: collection.to_owned() };
        let info = self.collections().await.get(request).await.expect("a collection").into_inner().result;
        let mut fields: Vec<String> = info.expect("a description").payload_schema.into_keys().collect();
        fields.sort();
        fields
    }

    pub(crate) async fn make_alias(&self, alias: &str, collection: &str) {
        let create = CreateAlias { collection_name: collection.to_owned(), alias_name: alias.to_owned() };
        let actions = vec![AliasOperations { action: Some(Action::CreateAlias(create)) }];
        let request = ChangeAliases { actions, ..ChangeAliases::default() };
        self.collections().await.update_aliases(request).await.expect("an alias");
    }

    pub(crate) async fn delete(&self, collection: &str) {
        let request = DeleteCollection { collection_name: collection.to_owned(), ..DeleteCollection::default() };
        self.collections().await.delete(request).await.expect("deleted");
    }

    /// Sets the limits of a collection.
    pub(crate) async fn restrict(&self, collection: &str, strict_mode: StrictModeConfig) {
        let request = UpdateCollection {
            collection_name: collection.to_owned(),
            strict_mode_config: Some(strict_mode),
            ..UpdateCollection::default()
        };
        self.collections().await.update(request).await.expect("restricted");
    }
}
