//! Qdrant as the vector store, over gRPC.
//!
//! A search returns ids, scores and guards, and text is read by id afterwards. `schema/qdrant-payload.md` says what a
//! point holds. Answers are checked: a duplicate, a surplus or an unknown point fails the call, and a point without a
//! well-formed guard is never returned.
//!
//! There are no filters by containers, such as folders of which a user sees everything. A payload field for them would
//! have to follow every move of a document in the relationships. A field that is out of date would lose chunks
//! silently, because nobody looks for what a filter hides. Instead, a long list of guards is inverted or sent in parts.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use async_trait::async_trait;
use qdrant_client::qdrant::collections_client::CollectionsClient;
use qdrant_client::qdrant::points_client::PointsClient;
use qdrant_client::qdrant::{self, ReadConsistencyType, read_consistency};
use roaring::RoaringBitmap;
use tokio::time::timeout;
use tonic::{Code, Response, Status};

use super::remote::overview::Overviews;
use super::remote::own_writes::OwnWrites;
use super::{
    CollectionInfo, CollectionLanguages, DocumentPage, DocumentStore, GuardTable, Search, Searched, VectorModel,
    VectorOrigin, VectorStore, VectorStoreError,
};
use crate::backend::{
    BackendChannel, BackendError, Credential, Reach, ServerAddress, WayToServer, channel, is_of_the_connection,
};
use crate::chunk::{Candidate, Chunk, ChunkMetadata, Document, FoundChunk};
use crate::language::Object;

mod attach;
mod attach_texts;
mod collection;
mod documents;
mod fields;
mod filter;
mod guard_template;
mod ingest;
mod layout;
mod list;
mod model_note;
mod names;
mod overview;
mod path;
mod payload;
mod read;
mod reread;
mod search;
mod sparse_text;
mod text_search;
mod text_support;
mod version;

use layout::Layout;
use names::Names;

pub use super::qdrant_config::{PayloadConfig, QdrantConfig, ReadConsistency, WrittenBy};
pub use attach::{Attach, AttachError, Attached};
pub use guard_template::{GuardTemplate, TemplateError};
pub use path::PathError;
pub use payload::point_id;

/// The largest message that is taken. An answer holds at most some thousand chunks with their text.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A Qdrant server as a store.
#[derive(Debug)]
pub struct QdrantStore {
    channel: BackendChannel,
    /// The channels to the other nodes, in the order of [`QdrantConfig::other_nodes`].
    other_nodes: Vec<BackendChannel>,
    config: QdrantConfig,
    languages: CollectionLanguages,
    own: Layout,
    /// The layouts of other programs, by collection.
    foreign: BTreeMap<String, Layout>,
    names: Names,
    overviews: Overviews,
    reach: Reach,
    writes: OwnWrites,
    /// Held while documents are written. It takes two operations on the server to replace a document, and the
    /// operations of two writes must not mix.
    writing: tokio::sync::Mutex<()>,
}

impl QdrantStore {
    /// Opens a store. The server is contacted at the first call. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn new(config: &QdrantConfig) -> Result<Self, BackendError> {
        let mut foreign = BTreeMap::new();
        for (collection, payload) in &config.collections {
            let wrong = |e| BackendError::Setting(format!("`vector_store.qdrant.collections.{collection}`: {e}"));
            foreign.insert(collection.clone(), Layout::foreign(payload).map_err(wrong)?);
        }
        let way = WayToServer { setting: "vector_store.qdrant.tls", tls: config.tls };
        let channel_to = |setting: &'static str, address: &str| {
            let address = ServerAddress { setting, address, ca_file: config.ca_file.as_deref() };
            channel(address, Credential::api_key_of_file(config.api_key_file.as_ref())?, way)
        };
        let others = config.other_nodes.iter().map(|node| channel_to("`vector_store.qdrant.other_nodes`", node));
        Ok(Self {
            channel: channel_to("`vector_store.qdrant.url`", &config.url)?,
            other_nodes: others.collect::<Result<_, BackendError>>()?,
            config: config.clone(),
            languages: CollectionLanguages::default(),
            own: Layout::default(),
            foreign,
            names: Names::default(),
            overviews: Overviews::new(config.overview_age_max, config.timeout),
            reach: Reach::new("qdrant"),
            writes: OwnWrites::default(),
            writing: tokio::sync::Mutex::new(()),
        })
    }

    /// Sets the languages of texts.
    #[must_use]
    pub fn with_languages(self, languages: CollectionLanguages) -> Self {
        Self { languages, ..self }
    }

    fn points(&self) -> PointsClient<BackendChannel> {
        PointsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn collections(&self) -> CollectionsClient<BackendChannel> {
        CollectionsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Returns the layout of a collection's points.
    fn layout(&self, collection: &str) -> &Layout {
        self.foreign.get(collection).unwrap_or(&self.own)
    }

    fn read_consistency(&self) -> Option<qdrant::ReadConsistency> {
        let consistency = match self.config.read_consistency {
            ReadConsistency::One => return None,
            ReadConsistency::Majority => ReadConsistencyType::Majority,
            ReadConsistency::Quorum => ReadConsistencyType::Quorum,
            ReadConsistency::All => ReadConsistencyType::All,
        };
        Some(qdrant::ReadConsistency { value: Some(read_consistency::Value::Type(consistency.into())) })
    }

    /// Checks that the collection exists under this name, and then waits for one call on it.
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
        // Tonic gives this code when an answer is larger than the accepted size.
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

    /// Returns `None` also where the guards have no index or do not come in time. [`QdrantConfig::overview_age_max`]
    /// says how old the list may be.
    async fn guards(&self, collection: &str) -> Result<Option<GuardTable>, VectorStoreError> {
        Ok(self.overview(collection).await?.guards.as_ref().map(|guards| guards.table().clone()))
    }

    async fn vector_origin(&self, collection: &str) -> Result<VectorOrigin, VectorStoreError> {
        self.origin(collection).await
    }

    fn chunks_under(&self, collection: &str, table: &GuardTable, positions: &RoaringBitmap) -> Option<u64> {
        self.overviews.last_known(collection)?.guards.as_ref()?.chunks_under(table, positions)
    }

    /// A search among nearly all guards may find chunks whose guards are newer than the table. If several candidates at
    /// the end of an answer have equal scores, Qdrant chooses which of them it returns. It has no choice in a scan in
    /// which few are equal.
    async fn search(&self, search: &Search) -> Result<Searched, VectorStoreError> {
        Box::pin(self.find_nearest(search)).await
    }

    async fn find(&self, collection: &str, chunk_ids: &[String]) -> Result<Vec<FoundChunk>, VectorStoreError> {
        self.find_chunks(collection, chunk_ids).await
    }

    /// Needs a keyword index on the guard, as `ragward attach` makes it.
    async fn document_guards(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Vec<Vec<Object>>, VectorStoreError> {
        self.guards_by_document(collection, document_ids).await
    }

    async fn find_in_document(
        &self,
        collection: &str,
        document_id: &str,
        guards: &HashSet<Object>,
    ) -> Result<Vec<Candidate>, VectorStoreError> {
        self.candidates_of_document(collection, document_id, guards).await
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
    async fn note_model(&self, collection: &str, model: Option<VectorModel<'_>>) -> Result<(), VectorStoreError> {
        let _alone = self.writing.lock().await;
        self.note(collection, model).await
    }

    async fn upsert(&self, collection: &str, documents: Vec<Document>) -> Result<(), VectorStoreError> {
        let _alone = self.writing.lock().await;
        self.replace_alone(collection, documents).await
    }

    async fn upsert_under(
        &self,
        collection: &str,
        documents: Vec<Document>,
        guards: &BTreeSet<Object>,
    ) -> Result<(), VectorStoreError> {
        let _alone = self.writing.lock().await;
        let ids: Vec<String> = documents.iter().map(|document| document.id.clone()).collect();
        match self.guards_of_documents(collection, &ids).await {
            Ok(Some(stored)) if stored.is_subset(guards) => {}
            Ok(Some(_) | None) => return Err(VectorStoreError::OtherGuard),
            Err(VectorStoreError::UnknownCollection(_)) => {}
            Err(error) => return Err(error),
        }
        self.replace_alone(collection, documents).await
    }

    async fn delete(&self, collection: &str, document_ids: &BTreeSet<String>) -> Result<u64, VectorStoreError> {
        let _alone = self.writing.lock().await;
        let removed = self.remove(collection, document_ids).await;
        self.overviews.note_change(collection);
        removed
    }

    async fn delete_under(
        &self,
        collection: &str,
        document_ids: &BTreeSet<String>,
        guards: &BTreeSet<Object>,
    ) -> Result<u64, VectorStoreError> {
        let _alone = self.writing.lock().await;
        let ids = self.documents_under(collection, document_ids, guards).await?;
        let removed = self.remove(collection, &ids).await;
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

    async fn collection_names(&self) -> Result<Vec<String>, VectorStoreError> {
        self.list_collections().await
    }

    /// The order is that of the ids of the points of first chunks.
    async fn list(&self, collection: &str, from: Option<&str>, limit: usize) -> Result<DocumentPage, VectorStoreError> {
        self.list_documents(collection, from, limit).await
    }

    async fn guards_of(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Option<BTreeSet<Object>>, VectorStoreError> {
        self.guards_of_documents(collection, document_ids).await
    }
}
