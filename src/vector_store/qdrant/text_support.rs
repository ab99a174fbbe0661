//! Finds out whether a collection may be searched by text.
//!
//! Three things must hold. Every chunk that the user may see has the vector of its text, made by the analysis of this
//! version: otherwise an answer would lack chunks silently. A hidden chunk without one refuses nothing. All shards are on nodes
//! that Ragward can call, because only a node itself tells its version. Each of these nodes knows the corpus of statistics, which
//! came with Qdrant 1.19: an older one ignores it without a word, and counts hidden chunks.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use qdrant_client::qdrant::collections_client::CollectionsClient;

use qdrant_client::qdrant::qdrant_client::QdrantClient;
use qdrant_client::qdrant::{
    CollectionClusterInfoRequest, CollectionClusterInfoResponse, CollectionInfo as QdrantCollectionInfo, Condition,
    Datatype, Filter, HealthCheckRequest,
};

use super::collection::{Counting, has_text_vector, text_vector};
use super::fields::TEXT_ANALYSIS;
use super::sparse_text::TextForm;
use super::{QdrantStore, ReadConsistency, filter};
use crate::backend::BackendChannel;
use crate::vector_store::VectorStoreError;
use crate::vector_store::remote::limits::CallLimits;
use crate::vector_store::remote::text_support::TextSupport;

/// The oldest version that counts statistics over a corpus.
const OLDEST: NodeVersion = NodeVersion { major: 1, minor: 19 };

/// The version of a node, without its patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NodeVersion {
    major: u32,
    minor: u32,
}

impl NodeVersion {
    /// Reads a version such as `1.19.2`. One that is not released yet counts as the release before it.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim_start_matches('v').splitn(3, '.');
        let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse::<u32>().ok()?);
        let patch = parts.next()?;
        let is_early = patch.starts_with("0-");
        Some(Self { major, minor: if is_early { minor.checked_sub(1)? } else { minor } })
    }
}

/// Returns whether the index of texts keeps weights as they were sent. If it keeps one byte of each, the byte counts from the
/// least to the largest weight that any chunk has, so hidden chunks would move the scores of visible ones.
fn keeps_whole_weights(info: &QdrantCollectionInfo) -> bool {
    let index = text_vector(info).and_then(|vector| vector.index.as_ref());
    index.is_none_or(|index| matches!(index.datatype(), Datatype::Default | Datatype::Float32))
}

impl QdrantStore {
    /// Returns what decides which vectors the texts of a collection get.
    pub(super) fn text_form(&self, collection: &str) -> TextForm {
        TextForm { average_length: self.config.text_average_length, languages: self.languages.of(collection) }
    }

    /// Returns whether a collection takes text queries.
    pub(super) async fn text_support(
        &self,
        collection: &str,
        info: &QdrantCollectionInfo,
        limits: CallLimits,
    ) -> Result<TextSupport, VectorStoreError> {
        if !has_text_vector(info) {
            return Ok(TextSupport::Absent);
        }
        if !keeps_whole_weights(info) {
            let why = "the index of its texts keeps weights in short, by the weights of all chunks (`datatype`)";
            return Ok(TextSupport::Refused(why.to_owned()));
        }
        if !limits.allows_scans {
            let why =
                "its strict mode allows no exact counts, so nobody knows whether all of its chunks would be found";
            return Ok(TextSupport::Refused(why.to_owned()));
        }
        let placements = match self.placements(collection).await {
            Ok(placements) => placements,
            Err(error) => {
                tracing::warn!(collection, %error, "nobody says where the shards are, so text queries are refused");
                let why = "not every node of Qdrant says where its shards are";
                return Ok(TextSupport::Refused(why.to_owned()));
            }
        };
        Ok(support_of(&placements, self.config.read_consistency))
    }

    /// Counts those of these points whose vectors of texts were not made by this analysis.
    pub(super) async fn count_unmarked(
        &self,
        collection: &str,
        among: Vec<Condition>,
    ) -> Result<u64, VectorStoreError> {
        let mark = filter::text(TEXT_ANALYSIS, self.text_form(collection).name());
        let unmarked = Filter { must: among, must_not: vec![mark], ..Filter::default() };
        self.count_points(collection, Some(unmarked), Counting::Exact).await
    }

    /// Asks each node where it sees the shards of a collection.
    async fn placements(&self, collection: &str) -> Result<Vec<CollectionClusterInfoResponse>, VectorStoreError> {
        let nodes = self.nodes().map(|node| async move {
            let mut node = CollectionsClient::new(node);
            let request = CollectionClusterInfoRequest { collection_name: collection.to_owned() };
            self.call(collection, node.collection_cluster_info(request)).await
        });
        try_join_all(nodes).await
    }

    /// Iterates over channels to all nodes that are configured.
    fn nodes(&self) -> impl Iterator<Item = BackendChannel> {
        std::iter::once(&self.channel).chain(&self.other_nodes).cloned()
    }

    /// Checks that all nodes count statistics over a corpus.
    ///
    /// A connection is made again without a word, and the next node may be an older one. So each text query asks before its
    /// search and after it. Neither answer need come from the node that searches, if a load balancer stands before several. So
    /// the search itself has a condition that an older node refuses ([`filter::of_no_mark`]).
    ///
    /// # Errors
    /// [`VectorStoreError::Unsupported`] when a node is too old.
    pub(super) async fn check_corpus_is_known(&self) -> Result<(), VectorStoreError> {
        try_join_all(self.nodes().map(|node| self.check_version(node))).await.map(drop)
    }

    async fn check_version(&self, node: BackendChannel) -> Result<(), VectorStoreError> {
        let mut node = QdrantClient::new(node);
        let reply = self.answer("", node.health_check(HealthCheckRequest {})).await?;
        match NodeVersion::parse(&reply.version) {
            Some(version) if version >= OLDEST => Ok(()),
            version => {
                let found = version.map_or_else(
                    || "one of an unknown version".to_owned(),
                    |NodeVersion { major, minor }| format!("{major}.{minor}"),
                );
                let NodeVersion { major, minor } = OLDEST;
                let text = format!(
                    "text queries need Qdrant {major}.{minor}, and this is {found}: it would weigh words by texts that the \
                     user may not see"
                );
                Err(VectorStoreError::Unsupported(text))
            }
        }
    }
}

/// Returns whether the nodes that were asked have all shards, and how many there are.
///
/// Replicas of a shard add up a score in orders of their own, so its last digits may differ. If replicas must agree, Qdrant
/// compares scores exactly, and would drop such a chunk without a word.
fn support_of(placements: &[CollectionClusterInfoResponse], consistency: ReadConsistency) -> TextSupport {
    let asked: BTreeSet<u64> = placements.iter().map(|placed| placed.peer_id).collect();
    let remote = placements.iter().flat_map(|placed| &placed.remote_shards);
    if remote.map(|shard| shard.peer_id).any(|peer_id| !asked.contains(&peer_id)) {
        let why = "some of its shards are on nodes that `vector_store.qdrant.other_nodes` does not name";
        return TextSupport::Refused(why.to_owned());
    }
    if consistency != ReadConsistency::One && has_replicas(placements) {
        let why = "its replicas must agree (`vector_store.qdrant.read_consistency`), and they round scores of texts differently";
        return TextSupport::Refused(why.to_owned());
    }
    let is_whole = placements.iter().all(|placed| placed.shard_count == 1);
    if is_whole { TextSupport::Whole } else { TextSupport::InParts }
}

/// Returns whether a shard is on several nodes.
fn has_replicas(placements: &[CollectionClusterInfoResponse]) -> bool {
    let mut nodes_of_shards: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for placed in placements {
        for shard in &placed.local_shards {
            nodes_of_shards.entry(shard.shard_id).or_default().insert(placed.peer_id);
        }
        for shard in &placed.remote_shards {
            nodes_of_shards.entry(shard.shard_id).or_default().insert(shard.peer_id);
        }
    }
    nodes_of_shards.values().any(|nodes| nodes.len() > 1)
}

#[cfg(test)]
mod tests {
    use qdrant_client::qdrant::{
        CollectionConfig, CollectionParams, LocalShardInfo, Modifier, RemoteShardInfo, SparseIndexConfig,
        SparseVectorConfig, SparseVectorParams,
    };

    use super::*;
    use crate::vector_store::qdrant::sparse_text::TEXT_VECTOR;

    /// A node's view: its own id, the number of shards, and the ids of the other nodes that have some.
    fn placed(peer_id: u64, shard_count: u64, others: &[u64]) -> CollectionClusterInfoResponse {
        let remote = |peer_id: &u64| RemoteShardInfo { peer_id: *peer_id, ..RemoteShardInfo::default() };
        let remote_shards = others.iter().map(remote).collect();
        CollectionClusterInfoResponse {
            peer_id,
            shard_count,
            remote_shards,
            ..CollectionClusterInfoResponse::default()
        }
    }

    #[test]
    fn all_shards_are_on_nodes_that_were_asked() {
        let rows = [
            ("one node", vec![placed(1, 1, &[])], Some(TextSupport::Whole)),
            ("one node with two shards", vec![placed(1, 2, &[])], Some(TextSupport::InParts)),
            ("a node that was not asked", vec![placed(1, 1, &[2])], None),
            ("two nodes", vec![placed(1, 1, &[2]), placed(2, 1, &[1])], Some(TextSupport::Whole)),
            ("two nodes with two shards", vec![placed(1, 2, &[2]), placed(2, 2, &[1])], Some(TextSupport::InParts)),
            ("a third node", vec![placed(1, 1, &[2]), placed(2, 1, &[1, 3])], None),
            ("a node twice", vec![placed(1, 1, &[2]), placed(1, 1, &[2])], None),
        ];
        for (row, placements, expected) in rows {
            let found = Some(support_of(&placements, ReadConsistency::One))
                .filter(|found| !matches!(found, TextSupport::Refused(_)));
            assert_eq!(found, expected, "{row}");
        }
    }

    /// A node's view: its own id, the shards that it has, and where the others are.
    fn holding(peer_id: u64, shards: &[u32], others: &[(u32, u64)]) -> CollectionClusterInfoResponse {
        let local = |shard_id: &u32| LocalShardInfo { shard_id: *shard_id, ..LocalShardInfo::default() };
        let remote = |(shard_id, peer_id): &(u32, u64)| RemoteShardInfo {
            shard_id: *shard_id,
            peer_id: *peer_id,
            ..RemoteShardInfo::default()
        };
        CollectionClusterInfoResponse {
            local_shards: shards.iter().map(local).collect(),
            remote_shards: others.iter().map(remote).collect(),
            ..placed(peer_id, 1, &[])
        }
    }

    #[test]
    fn replicas_that_must_agree_take_no_texts() {
        let rows = [
            ("one node", vec![holding(1, &[0], &[])], false),
            ("a shard on each node", vec![holding(1, &[0], &[(1, 2)]), holding(2, &[1], &[(0, 1)])], false),
            ("a shard on two nodes", vec![holding(1, &[0], &[(0, 2)]), holding(2, &[0], &[(0, 1)])], true),
            (
                "no shard here, and one on two others",
                vec![holding(1, &[], &[(0, 2), (0, 3)]), holding(2, &[0], &[]), holding(3, &[0], &[])],
                true,
            ),
        ];
        for (row, placements, are_replicas) in rows {
            for consistency in [ReadConsistency::Majority, ReadConsistency::Quorum, ReadConsistency::All] {
                let found = support_of(&placements, consistency);
                assert_eq!(matches!(found, TextSupport::Refused(_)), are_replicas, "{row}: {found:?}");
            }
            let found = support_of(&placements, ReadConsistency::One);
            assert!(!matches!(found, TextSupport::Refused(_)), "{row}: {found:?}");
        }
    }

    #[test]
    fn weights_are_kept_as_they_were_sent() {
        let rows = [
            ("no word about the index", None, true),
            ("Qdrant's own default", Some(Datatype::Default), true),
            ("four bytes", Some(Datatype::Float32), true),
            ("two bytes", Some(Datatype::Float16), false),
            ("one byte", Some(Datatype::Uint8), false),
        ];
        for (row, datatype, expected) in rows {
            let index = datatype
                .map(|datatype| SparseIndexConfig { datatype: Some(datatype.into()), ..SparseIndexConfig::default() });
            let vector = SparseVectorParams { index, modifier: Some(Modifier::Idf.into()) };
            let sparse_vectors_config = Some(SparseVectorConfig { map: [(TEXT_VECTOR.to_owned(), vector)].into() });
            let params = CollectionParams { sparse_vectors_config, ..CollectionParams::default() };
            let config = CollectionConfig { params: Some(params), ..CollectionConfig::default() };
            let info = QdrantCollectionInfo { config: Some(config), ..QdrantCollectionInfo::default() };
            assert!(has_text_vector(&info), "{row}");
            assert_eq!(keeps_whole_weights(&info), expected, "{row}");
        }
    }

    #[test]
    fn only_a_node_that_knows_the_corpus_is_new_enough() {
        let rows = [
            ("1.18.4", false),
            ("1.19.0", true),
            ("v1.19.3", true),
            ("1.19.0-dev", false),
            ("1.20.0-dev", true),
            ("1.20.1", true),
            ("1.100.0", true),
            ("2.0.0", true),
            ("0.99.0", false),
            ("1.19", false),
            ("", false),
            ("latest", false),
            ("1.-19.0", false),
        ];
        for (text, expected) in rows {
            assert_eq!(NodeVersion::parse(text).is_some_and(|version| version >= OLDEST), expected, "{text}");
        }
    }
}
