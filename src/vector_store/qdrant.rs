//! Qdrant as the vector store, over gRPC.
//!
//! A search brings ids, scores and guards; text is read by id, afterwards. What a point holds is written down in
//! `schema/qdrant-payload.md`. Answers are checked: a duplicate, a surplus or an unknown point fails the call, and a point
//! without a well-formed guard is never returned.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::points_client::PointsClient;
use tokio::time::timeout;
use tonic::{Code, Response, Status};

use super::{CollectionInfo, DocumentStore, GuardTable, Search, VectorStore, VectorStoreError};
use crate::backend::{BackendChannel, BackendError, Credential, Secret, channel};
use crate::chunk::{Candidate, Chunk, Document};
use crate::relationship::Object;

mod collection;
mod filter;
mod ingest;
mod payload;
mod read;
mod search;

pub use payload::point_id;

/// The longest wait for one call unless configured otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
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
}

/// Searches and fills Qdrant collections.
#[derive(Debug)]
pub struct QdrantStore {
    channel: BackendChannel,
    timeout: Duration,
    vector_name: Option<String>,
    exact: bool,
    /// One writer at a time: replacing a document is two operations on the server, and those of two writers must not mix.
    writing: tokio::sync::Mutex<()>,
}

impl QdrantConfig {
    /// The defaults for a server at this address.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), api_key: None, timeout: TIMEOUT, vector_name: None, exact: false }
    }
}

impl QdrantStore {
    /// Prepares the calls; the server is contacted at the first one. Must run inside tokio.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(config: &QdrantConfig) -> Result<Self, BackendError> {
        Ok(Self {
            channel: channel(&config.url, Credential::api_key(config.api_key.as_ref())?)?,
            timeout: config.timeout,
            vector_name: config.vector_name.clone(),
            exact: config.exact,
            writing: tokio::sync::Mutex::new(()),
        })
    }

    fn points(&self) -> PointsClient<BackendChannel> {
        PointsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn collections(&self) -> CollectionsClient<BackendChannel> {
        CollectionsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The answer to one call on a collection.
    async fn call<T>(
        &self,
        collection: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, VectorStoreError> {
        match timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(failed(collection, &status)),
            Err(_elapsed) => {
                let waited = self.timeout.as_millis();
                Err(VectorStoreError::Unavailable(format!("it did not answer within {waited} ms")))
            }
        }
    }
}

/// Why a call failed, by what can be done about it.
fn failed(collection: &str, status: &Status) -> VectorStoreError {
    let message = status.message().to_owned();
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
        self.describe(name).await
    }

    /// Qdrant can count the distinct guards, but not keep them at stable positions.
    async fn guards(&self, collection: &str) -> Result<Option<GuardTable>, VectorStoreError> {
        self.expected_dimension(collection).await?;
        Ok(None)
    }

    /// Equal scores are in order of chunk id within the answer. Which of several equal scores at its end are in it is
    /// Qdrant's choice.
    async fn search(&self, search: &Search) -> Result<Vec<Candidate>, VectorStoreError> {
        Box::pin(self.find_nearest(search)).await
    }

    async fn find(&self, collection: &str, chunk_ids: &[String]) -> Result<Vec<Candidate>, VectorStoreError> {
        self.read_candidates(collection, chunk_ids).await
    }

    async fn read(&self, collection: &str, chunk_ids: &[String]) -> Result<Vec<Chunk>, VectorStoreError> {
        self.read_chunks(collection, chunk_ids).await
    }
}

#[async_trait]
impl DocumentStore for QdrantStore {
    async fn upsert(&self, collection: &str, documents: Vec<Document>) -> Result<(), VectorStoreError> {
        self.replace(collection, documents).await
    }

    async fn delete(&self, collection: &str, document_ids: &BTreeSet<String>) -> Result<u64, VectorStoreError> {
        self.remove(collection, document_ids).await
    }

    async fn documents(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Vec<(String, u32)>, VectorStoreError> {
        self.count_chunks(collection, document_ids).await
    }

    async fn guards_of(&self, collection: &str, document_ids: &[String]) -> Result<BTreeSet<Object>, VectorStoreError> {
        self.guards_of_documents(collection, document_ids).await
    }
}
