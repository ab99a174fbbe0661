//! Qdrant as the vector store, over gRPC.
//!
//! A search returns ids, scores and guards, and text is read by id afterwards. `schema/qdrant-payload.md` says what a point
//! holds. Answers are checked: a duplicate, a surplus or an unknown point fails the call, and a point without a well-formed
//! guard is never returned.
//!
//! There are no filters by containers, such as folders of which a user sees everything. A payload field for them would have to
//! follow every move of a document in the relationships, and a stale one would lose chunks silently, since what a filter hides
//! is not looked for. Lists of guards that are turned round or split serve the same need.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::points_client::PointsClient;
use qdrant_client::qdrant::{self, ReadConsistencyType, read_consistency};
use roaring::RoaringBitmap;
use tokio::time::timeout;
use tonic::{Code, Response, Status};

use super::remote::overview::Overviews;
use super::remote::own_writes::OwnWrites;
use super::{CollectionInfo, DocumentStore, GuardTable, Search, Searched, VectorStore, VectorStoreError};
use crate::backend::{BackendChannel, BackendError, Credential, Reach, Secret, channel, is_of_the_connection};
use crate::chunk::{Candidate, Chunk, ChunkMetadata, Document};
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

pub use attach::{Attach, AttachError, Attached};
pub use guard_template::{GuardTemplate, TemplateError};
pub use layout::{ForeignLayout, Layout};
pub use path::{Path, PathError};
pub use payload::point_id;

/// The largest message that is taken. An answer holds at most some thousand chunks with their text.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The settings of a [`QdrantStore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QdrantConfig {
    /// The gRPC address, such as `http://127.0.0.1:6334`.
    pub url: String,
    /// The API key, if the server asks for one.
    pub api_key: Option<Secret>,
    /// The longest wait for one call.
    pub timeout: Duration,
    /// The name of the vector in each point; `None` for the unnamed vector.
    pub vector_name: Option<String>,
    /// Whether every search scans all vectors instead of using the approximate index. A scan is exact, and slow on large
    /// collections.
    pub exact: bool,
    /// The size up to which the chunks of some guards are scanned even if `exact` is not set. There the approximate index is
    /// slow as well, and misses most of what it should find.
    pub scanned_chunks_max: u64,
    /// How many replicas of a shard must agree on what is read; `None` for the server's own rule.
    pub read_consistency: Option<ReadConsistency>,
    /// How long the guards and sizes of a collection are taken as known, or ten times as long as it takes to ask for them if
    /// that is longer. What other programs write meanwhile is found afterwards, and what this process writes at once.
    pub overview_age_max: Duration,
    /// The largest number of distinct guards that are listed. A collection with more is searched as a whole, and its
    /// candidates are checked afterwards.
    pub guards_max: usize,
    /// The largest number of guards in one filter. A longer list is turned round or sent in parts.
    pub guards_per_filter_max: usize,
    /// The layouts of collections that other programs fill, by name. They are configuration and not data in Qdrant: whoever can
    /// write a point must not be able to say which field guards it.
    pub layouts: BTreeMap<String, Layout>,
}

/// How many replicas of a shard must agree on what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadConsistency {
    /// A point counts if the majority of all replicas has it.
    Majority,
    /// A point counts if all replicas that were asked have it, which are half of them and one more.
    Quorum,
    /// A point counts if every replica has it.
    All,
}

/// A Qdrant server as a store.
#[derive(Debug)]
pub struct QdrantStore {
    channel: BackendChannel,
    config: QdrantConfig,
    own: Layout,
    names: Names,
    overviews: Overviews,
    reach: Reach,
    writes: OwnWrites,
    /// Held while documents are written. Replacing a document is two operations on the server, and those of two writes must
    /// not mix.
    writing: tokio::sync::Mutex<()>,
}

impl QdrantConfig {
    /// Returns the default settings for a server at this address.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            api_key: None,
            timeout: Duration::from_secs(5),
            vector_name: None,
            exact: false,
            scanned_chunks_max: 100_000,
            read_consistency: None,
            overview_age_max: Duration::from_secs(2),
            guards_max: 200_000,
            guards_per_filter_max: 10_000,
            layouts: BTreeMap::new(),
        }
    }
}

impl QdrantStore {
    /// Opens a store. The server is contacted at the first call. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the settings cannot be used.
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

    /// The layout of a collection's points.
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

    /// Waits for one call on a collection, after checking that the collection exists under this name.
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

/// Sorts a failed call by what can be done about it.
fn failed(collection: &str, status: &Status) -> VectorStoreError {
    let message = status.message().to_owned();
    if is_of_the_connection(status) {
        return VectorStoreError::Unavailable(message);
    }
    match status.code() {
        Code::NotFound => VectorStoreError::UnknownCollection(collection.to_owned()),
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => VectorStoreError::Refused(message),
        // Tonic says so when an answer is larger than any that was asked for.
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

    /// `None` also where the guards have no index or do not come in time. [`QdrantConfig::overview_age_max`] says how old the
    /// list may be.
    async fn guards(&self, collection: &str) -> Result<Option<GuardTable>, VectorStoreError> {
        Ok(self.overview(collection).await?.guards.as_ref().map(|guards| guards.table().clone()))
    }

    fn chunks_under(&self, collection: &str, table: &GuardTable, positions: &RoaringBitmap) -> Option<u64> {
        self.overviews.last_known(collection)?.guards.as_ref()?.chunks_under(table, positions)
    }

    /// A search among nearly all guards may find chunks whose guards are newer than the table. Qdrant chooses which of several
    /// equal scores are at the end of an answer, unless the search is a scan and few are equal.
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

    /// Makes a call that needs the API key, which Qdrant's own health check does not.
    async fn ready(&self) -> Result<(), VectorStoreError> {
        self.answer("", self.collections().list(qdrant::ListCollectionsRequest {})).await.map(drop)
    }
}

#[async_trait]
impl DocumentStore for QdrantStore {
    async fn upsert(&self, collection: &str, documents: Vec<Document>) -> Result<(), VectorStoreError> {
        let _alone = self.writing.lock().await;
        let written = self.replace(collection, documents).await;
        // A write that failed may still take effect, so it counts as under way until the next one begins.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_a_file_that_sets_nothing() {
        let file = crate::config::QdrantConfig::default();
        let defaults = QdrantConfig::new(file.url);
        assert_eq!(defaults.timeout, Duration::from_millis(file.timeout_ms));
        assert_eq!(defaults.overview_age_max, Duration::from_millis(file.overview_age_max_ms));
        assert_eq!((defaults.exact, defaults.scanned_chunks_max), (file.exact, file.scanned_chunks_max));
        let guards = (defaults.guards_max, defaults.guards_per_filter_max);
        assert_eq!(guards, (file.guards_max, file.guards_per_filter_max));
    }
}
