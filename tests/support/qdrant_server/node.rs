//! What a node says of itself: its version, and where the shards are.

use std::sync::PoisonError;

use qdrant_client::qdrant::qdrant_server::Qdrant;
use qdrant_client::qdrant::{
    CollectionClusterInfoResponse, HealthCheckReply, HealthCheckRequest, LocalShardInfo, RemoteShardInfo,
};
use tonic::{Request, Response, Status};

use super::Engine;

/// A node, as it describes itself.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) version: &'static str,
    /// The version of the node that takes its place when the next search comes.
    pub(crate) next_version: Option<&'static str>,
    /// The version of the node to which each search is handed on. A load balancer may do that, or the node itself.
    pub(crate) searched_by: Option<&'static str>,
    pub(crate) peer_id: u64,
    /// How many shards of each collection it has.
    pub(crate) local_shards: u32,
    /// How many shards of each collection the node 2 has.
    pub(crate) remote_shards: u32,
}

impl Default for Node {
    fn default() -> Self {
        Self { version: "1.20.0", next_version: None, searched_by: None, peer_id: 1, local_shards: 1, remote_shards: 0 }
    }
}

impl Node {
    /// Returns whether statistics are counted over the corpus of a search. An older version ignores the corpus.
    pub(super) fn knows_corpus(&self) -> bool {
        self.minor() >= 19
    }

    /// Returns whether a collection can be given another vector.
    pub(super) fn adds_vectors(&self) -> bool {
        self.minor() >= 18
    }

    fn minor(&self) -> u32 {
        self.version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or_default()
    }

    pub(super) fn placement(&self) -> CollectionClusterInfoResponse {
        let local = |shard_id| LocalShardInfo { shard_id, ..LocalShardInfo::default() };
        let remote = |shard_id| RemoteShardInfo { shard_id, peer_id: 2, ..RemoteShardInfo::default() };
        CollectionClusterInfoResponse {
            peer_id: self.peer_id,
            shard_count: u64::from(self.local_shards + self.remote_shards),
            local_shards: (0..self.local_shards).map(local).collect(),
            remote_shards: (0..self.remote_shards).map(remote).collect(),
            ..CollectionClusterInfoResponse::default()
        }
    }
}

impl Engine {
    pub(super) fn node(&self) -> Node {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the node that takes a search.
    pub(super) fn searching_node(&self) -> Node {
        let mut node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = node.next_version.take() {
            node.version = version;
        }
        let version = node.searched_by.unwrap_or(node.version);
        Node { version, ..node.clone() }
    }
}

#[tonic::async_trait]
impl Qdrant for Engine {
    async fn health_check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckReply>, Status> {
        let version = self.node().version.to_owned();
        Ok(Response::new(HealthCheckReply { title: "qdrant".to_owned(), version, commit: None }))
    }
}
