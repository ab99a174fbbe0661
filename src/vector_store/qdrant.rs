//! Qdrant as the vector store, over gRPC.
//!
//! A search brings ids, scores and guards; text is read by id, afterwards. What a point holds is written down in
//! `schema/qdrant-payload.md`. Answers are checked: a duplicate, a surplus or an unknown point fails the call, and a point
//! without a well-formed guard is never returned.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::points_client::PointsClient;
use qdrant_client::qdrant::{self, ReadConsistencyType, read_consistency};
use roaring::RoaringBitmap;
use tokio::time::timeout;
use tonic::{Code, Response, Status};

use super::overview::Overviews;
use super::own_writes::OwnWrites;
use super::{CollectionInfo, DocumentStore, GuardTable, Search, Searched, VectorStore, VectorStoreError};
use crate::backend::{BackendChannel, BackendError, Credential, Reach, Secret, channel, is_of_the_connection};
use crate::chunk::{Candidate, Chunk, ChunkMetadata, Document};
use crate::config;
use crate::language::Object;

mod attach;
mod collection;
mod fields;
mod filter;
mod guard_template;
mod ingest;
mod layout;
mod names;
mod overview;
mod path;
mod payload;
mod read;
mod reread;
mod search;
mod version;

use names::Names;

pub use attach::{Attach, Attached};
pub use guard_template::{GuardTemplate, TemplateError};
pub use layout::{ForeignLayout, Layout};
pub use path::{Path, PathError};
pub use payload::point_id;

/// An answer holds at most some thousand chunks with their text.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Where Qdrant is and how to search it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QdrantConfig {
    /// The gRPC address, such as `http://127.0.0.1:6334`.
    pub url: String,
    /// The API key.
    pub api_key: Option<Secret>,
    /// The longest wait for one call.
    pub timeout: Duration,
    /// The name of the vector in each point; the unnamed vector when unset.
    pub vector_name: Option<String>,
    /// Search by a full scan instead of the approximate index: exact, and slow on large collections.
    pub exact: bool,
    /// Scan, whatever `exact` says, where a space is known to hold at most so many chunks: there the approximate index is slow
    /// as well, and loses most of what it should find.
    pub scanned_chunks_max: u64,
    /// How many replicas of a shard must agree on what is read; the server's own rule when unset.
    pub read_consistency: Option<ReadConsistency>,
    /// For how long the guards and sizes of a collection are taken as known, or ten times as long as it takes to ask for
    /// them, if that is longer. What others wrote meanwhile is found after it; what this process wrote, at once.
    pub overview_age_max: Duration,
    /// A collection with more distinct guards than this is not listed; then everything is searched and checked after.
    pub guards_max: usize,
    /// Guards named in one filter; a longer list is turned round or sent in parts.
    pub guards_per_filter_max: usize,
    /// The collections of other programs, by name.
    pub layouts: BTreeMap<String, Layout>,
}

/// How many replicas of a shard must agree on what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadConsistency {
    /// Points that the majority of all replicas has.
    Majority,
    /// Points that all of half the replicas and one more have.
    Quorum,
    /// Points that every replica has.
    All,
}

/// Searches and fills Qdrant collections.
#[derive(Debug)]
pub struct QdrantStore {
    channel: BackendChannel,
    config: QdrantConfig,
    own: Layout,
    names: Names,
    overviews: Overviews,
    reach: Reach,
    writes: OwnWrites,
    /// One writer at a time: replacing a document is two operations on the server, and those of two writers must not mix.
    writing: tokio::sync::Mutex<()>,
}

impl QdrantConfig {
    /// A server at this address, with the numbers of a configuration that sets none.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        let defaults = config::QdrantConfig::default();
        Self {
            url: url.into(),
            api_key: None,
            timeout: Duration::from_millis(defaults.timeout_ms),
            vector_name: None,
            exact: defaults.exact,
            scanned_chunks_max: defaults.scanned_chunks_max,
            read_consistency: None,
            overview_age_max: Duration::from_millis(defaults.overview_age_max_ms),
            guards_max: defaults.guards_max,
            guards_per_filter_max: defaults.guards_per_filter_max,
            layouts: BTreeMap::new(),
        }
    }
}

impl QdrantStore {
    /// Prepares the calls; the server is contacted at the first one. Must run inside tokio.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(config: &QdrantConfig) -> Result<Self, BackendError> {
        Ok(Self {
            channel: channel("`vector_store.qdrant.url`", &config.url, Credential::api_key(config.api_key.as_ref())?)?,
            config: config.clone(),
            own: Layout::default(),
            names: Names::default(),
            overviews: Overviews::new(config.overview_age_max, config.timeout),
            reach: Reach::new("qdrant"),
            writes: OwnWrites::default(),
            writing: tokio::sync::Mutex::new(()),
        })
    }

    fn points(&self) -> PointsClient<BackendChannel> {
        PointsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn collections(&self) -> CollectionsClient<BackendChannel> {
        CollectionsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Where the parts of a chunk are in a collection's points.
    fn layout(&self, collection: &str) -> &Layout {
        self.config.layouts.get(collection).unwrap_or(&self.own)
    }

    fn read_consistency(&self) -> Option<qdrant::ReadConsistency> {
        let consistency = match self.config.read_consistency? {
            ReadConsistency::Majority => ReadConsistencyType::Majority,
            ReadConsistency::Quorum => ReadConsistencyType::Quorum,
            ReadConsistency::All => ReadConsistencyType::All,
        };
        Some(qdrant::ReadConsistency { value: Some(read_consistency::Value::Type(consistency.into())) })
    }

    /// The answer to one call on a collection that is there under its own name.
    async fn call<T>(
        &self,
        collection: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, VectorStoreError> {
        self.check_name(collection).await?;
        self.answer(collection, call).await
    }

    async fn answer<T>(
        &self,
        collection: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, VectorStoreError> {
        let answer = match timeout(self.config.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(failed(collection, &status)),
            Err(_elapsed) => {
                let waited = self.config.timeout.as_millis();
                Err(VectorStoreError::Unavailable(format!("it did not answer within {waited} ms")))
            }
        };
        match &answer {
            Err(error @ VectorStoreError::Unavailable(_)) => self.reach.failed(error),
            Ok(_) | Err(_) => self.reach.answered(),
        }
        answer
    }
}

/// Why a call failed, by what can be done about it.
fn failed(collection: &str, status: &Status) -> VectorStoreError {
    let message = status.message().to_owned();
    if is_of_the_connection(status) {
        return VectorStoreError::Unavailable(message);
    }
    match status.code() {
        Code::NotFound => VectorStoreError::UnknownCollection(collection.to_owned()),
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => VectorStoreError::Refused(message),
        // The answer is larger than any that was asked for.
        Code::OutOfRange | Code::Ok => VectorStoreError::BadAnswer(message),
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => VectorStoreError::Unavailable(message),
    }
}

#[async_trait]
impl VectorStore for QdrantStore {
    async fn collection(&self, name: &str) -> Result<CollectionInfo, VectorStoreError> {
        Ok(self.overview(name).await?.info.clone())
    }

    /// See [`QdrantConfig::overview_age_max`]; `None` as well where the guards have no index or do not come in time.
    async fn guards(&self, collection: &str) -> Result<Option<GuardTable>, VectorStoreError> {
        Ok(self.overview(collection).await?.guards.as_ref().map(|guards| guards.table().clone()))
    }

    fn chunks_under(&self, collection: &str, table: &GuardTable, positions: &RoaringBitmap) -> Option<u64> {
        self.overviews.last_known(collection)?.guards.as_ref()?.chunks_under(table, positions)
    }

    /// A space of nearly all guards may find chunks whose guards are newer than its table. Which of several equal scores
    /// at the end of an answer are in it is Qdrant's choice, unless the search is a scan and few are equal.
    async fn search(&self, search: &Search) -> Result<Searched, VectorStoreError> {
        Box::pin(self.find_nearest(search)).await
    }

    async fn find(&self, collection: &str, chunk_ids: &[String]) -> Result<Vec<Candidate>, VectorStoreError> {
        self.read_candidates(collection, chunk_ids).await
    }

    async fn read_metadata(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<ChunkMetadata>, VectorStoreError> {
        self.read_metadata_of(collection, search, found).await
    }

    async fn read(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<Chunk>, VectorStoreError> {
        self.read_chunks(collection, search, found).await
    }

    /// Asks for what needs the key: Qdrant's own health check answers without.
    async fn ready(&self) -> Result<(), VectorStoreError> {
        self.answer("", self.collections().list(qdrant::ListCollectionsRequest {})).await.map(drop)
    }
}

#[async_trait]
impl DocumentStore for QdrantStore {
    async fn upsert(&self, collection: &str, documents: Vec<Document>) -> Result<(), VectorStoreError> {
        let _alone = self.writing.lock().await;
        let written = self.replace(collection, documents).await;
        // A write that failed may still take effect: it counts as under way until the next one begins.
        if written.is_ok() {
            self.writes.end();
        }
        self.overviews.note_change(collection);
        written
    }

    async fn delete(&self, collection: &str, document_ids: &BTreeSet<String>) -> Result<u64, VectorStoreError> {
        let _alone = self.writing.lock().await;
        let removed = self.remove(collection, document_ids).await;
        self.overviews.note_change(collection);
        removed
    }

    async fn documents(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Vec<(String, u32)>, VectorStoreError> {
        self.count_chunks(collection, document_ids).await
    }

    async fn guards_of(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Option<BTreeSet<Object>>, VectorStoreError> {
        self.guards_of_documents(collection, document_ids).await
    }
}
