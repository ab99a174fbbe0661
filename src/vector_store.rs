//! The port to a vector store, and its adapters.
//!
//! A search finds ids, scores and guards. Text is read by id afterwards. Only `retrieval` reads text, and only the text
//! of chunks that were permitted.
//!
//! The adapters are the embedded [`exact`] engine and `qdrant`. Adapters for servers share `remote`, which covers a set
//! of guards with several calls and remembers what a server holds.

mod collection_languages;
mod direction;
pub mod exact;
mod filter;
mod moment;
#[cfg(feature = "qdrant")]
pub mod qdrant;
mod qdrant_config;
#[cfg(feature = "qdrant")]
mod remote;
pub mod validation;

use std::collections::{BTreeSet, HashSet};
use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use roaring::RoaringBitmap;

pub use self::collection_languages::CollectionLanguages;
pub use self::moment::Moment;
pub use self::qdrant_config::{PayloadConfig, QdrantConfig, ReadConsistency, WrittenBy};
use crate::chunk::{Candidate, Chunk, ChunkMetadata, Document, FoundChunk, Metadata, Value};
use crate::error_code::ErrorCode;
use crate::language::Object;

/// The question of a search.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Ranks chunks by the BM25 score of their texts. The query text has at most [`validation::QUERY_BYTES_MAX`] bytes.
    /// A text without a word finds nothing.
    Text(String),
    /// Ranks chunks by the cosine similarity of their vectors to this one, which is finite and not all zero.
    Vector(Vec<f32>),
    /// Merges both rankings by reciprocal rank fusion (Cormack, Clarke and Büttcher 2009). The score of a chunk is the sum
    /// of 1 / (60 + rank) over the rankings that have it among their first [`HYBRID_DEPTH`].
    Hybrid {
        /// The text, as in [`Query::Text`].
        text: String,
        /// The vector, as in [`Query::Vector`].
        vector: Vec<f32>,
    },
}

/// How many chunks of each ranking a hybrid query merges.
///
/// The number does not depend on the limit of the search, so asking for more chunks never changes the order of the
/// first ones.
pub const HYBRID_DEPTH: usize = 1_000;

/// The constant of reciprocal rank fusion, as in the paper. The greater it is, the less the first ranks stand out.
const RANK_FUSION_K: f64 = 60.0;

/// Returns what a chunk of this rank, counted from 1, adds to the score of a hybrid query.
fn rank_share(rank: u32) -> f64 {
    1.0 / (RANK_FUSION_K + f64::from(rank))
}

/// A restriction that the caller adds. It must hold in addition to the visible set, so it can only shrink the answer. A condition on
/// a key holds for a list under that key if it holds for one of its values.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Passes a chunk that passes all of these. An empty list passes every chunk.
    All(Vec<Filter>),
    /// Passes a chunk that passes at least one of these. An empty list passes no chunk.
    Any(Vec<Filter>),
    /// Passes a chunk that the inner filter does not pass.
    Not(Box<Filter>),
    /// Passes a chunk whose metadata has one of these values under the key. Whole numbers and floats compare as numbers. A
    /// chunk without the key does not pass.
    OneOf {
        /// The key of the metadata.
        key: String,
        /// The values that pass.
        values: Vec<Value>,
    },
    /// Passes a chunk whose metadata has a number from `low` to `high` under the key, both included.
    Between {
        /// The key of the metadata.
        key: String,
        /// The lowest accepted number.
        low: f64,
        /// The highest accepted number.
        high: f64,
    },
    /// Passes a chunk whose metadata has a text under the key that is a moment from `from` to `until`, both included.
    During {
        /// The key of the metadata.
        key: String,
        /// The earliest accepted moment; `None` for no bound.
        from: Option<Moment>,
        /// The latest accepted moment; `None` for no bound.
        until: Option<Moment>,
    },
}

/// A limit on the visible set of a principal, beside its relations: the details of its token, for example.
///
/// A filter selects among the chunks of the visible set. A narrowing makes the set itself smaller, chunk by chunk. So
/// the chunks that it leaves out count in no statistic of a text query. Otherwise the scores that an agent sees would
/// depend on chunks that only its user may see.
pub trait Narrowing: Debug + Send + Sync {
    /// Returns whether a chunk with this guard and this metadata may be in the visible set.
    fn admits(&self, guard: &Object, metadata: &Metadata) -> bool;
}

/// The chunks that a search may look at.
///
/// BM25 counts its statistics over this set. If it counted over everything, hidden documents would move the scores of
/// visible ones. The set is never the boundary of what a caller sees; `authz::enforce` is.
#[derive(Clone, Debug)]
pub enum SearchSpace {
    /// Every chunk of the collection.
    Everything,
    /// The chunks of some guards. A search of no guards finds nothing.
    Guards {
        /// The table that the positions refer to.
        table: GuardTable,
        /// The positions of the guards in [`GuardTable::guards`].
        positions: RoaringBitmap,
    },
}

/// The distinct guards of a collection. Each guard keeps its position, and new ones are appended.
#[derive(Clone, Debug)]
pub struct GuardTable {
    /// The guards by position. A guard whose chunks are all gone may still be here.
    pub guards: Arc<Vec<Object>>,
    /// The positions of the guards that have chunks.
    pub in_use: Arc<RoaringBitmap>,
}

impl GuardTable {
    /// Makes a table of guards that all have chunks.
    #[must_use]
    pub fn new(guards: Vec<Object>) -> Self {
        let in_use = (0..).zip(&guards).map(|(position, _)| position).collect();
        Self { guards: Arc::new(guards), in_use: Arc::new(in_use) }
    }
}

/// A search of one collection.
#[derive(Clone, Debug)]
pub struct Search {
    /// The name of the collection, which must exist.
    pub collection: String,
    /// The question by which candidates are ranked.
    pub query: Query,
    /// The caller's filter, if there is one.
    pub filter: Option<Filter>,
    /// The chunks that the search may look at.
    pub space: SearchSpace,
    /// A limit that leaves chunks out of the search space. A store whose scores rest on no statistics may ignore it.
    pub narrowing: Option<Arc<dyn Narrowing>>,
    /// The lowest score that a candidate may have.
    pub min_score: Option<f64>,
    /// How many candidates of one document are returned at most, the best ones first. A store that cannot count by
    /// document returns more.
    pub per_document_max: Option<NonZeroUsize>,
    /// How many candidates are returned at most.
    pub limit: usize,
    /// How many candidates are enough if more of them would cost the store another search. At most `limit`.
    pub enough: usize,
}

/// The answer to a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Searched {
    /// The candidates, best score first. Equal scores are in the order of the bytes of their chunk ids.
    pub candidates: Vec<Candidate>,
    /// Whether these are certainly the best candidates of the search space. If not, the store searched approximately.
    pub exact: bool,
    /// The outlook for a search for more candidates.
    pub rest: Rest,
}

/// The outlook for a search for more candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It would find more, unless the candidates found so far are all that there are.
    Further,
    /// It would find no more, although there may be more: the store gave up.
    Unknown,
    /// It would find no more, because there is no more.
    Nothing,
}

/// The costs of a search among the chunks of some guards. A plan compares them with a search of the whole collection.
///
/// The unit is the cost of one more candidate in a search of the whole collection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchCosts {
    /// The cost of each guard in the search space.
    pub per_guard: f64,
    /// The additional cost of each chunk in the search space, compared with a search of the whole collection.
    pub per_chunk: f64,
}

impl SearchCosts {
    /// The costs of a store to which a search among some guards is never slower than one of the whole collection.
    pub const FREE: Self = Self { per_guard: 0.0, per_chunk: 0.0 };
}

/// The abilities and the size of a collection. They decide which plan is chosen, and whether a query is refused before
/// any work.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionInfo {
    /// The number of dimensions of its vectors; `None` while it has no vectors.
    pub dimension: Option<usize>,
    /// Whether it takes text queries. Their scores depend on statistics, so they need a known visible set. The store may
    /// still refuse one, with the reason.
    pub text_queries: bool,
    /// The costs of a search among some guards.
    pub search_costs: SearchCosts,
    /// How many candidates one search returns at most, if the store's server sets a limit.
    pub candidates_max: Option<usize>,
    /// The number of its chunks.
    pub chunks: u64,
    /// The number of its documents.
    pub documents: u64,
}

/// Says who made the vectors of a collection. Vectors of two models point in unrelated directions, so a query of one model finds
/// nothing sensible among the vectors of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VectorOrigin {
    /// There are no vectors yet.
    NoVectors,
    /// Ragward made them, with the model of this name.
    Model(String),
    /// Whoever wrote the documents sent them.
    Writers,
    /// The store keeps no note of it. The operator answers for it.
    Unnoted,
}

/// A model that makes vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorModel<'m> {
    /// The name of the model in the settings.
    pub name: &'m str,
    /// The number of dimensions of its vectors.
    pub dimension: usize,
}

/// A store that finds candidates and reads chunks.
#[async_trait]
pub trait VectorStore: Send + Sync {
    /// Describes a collection.
    ///
    /// # Errors
    /// [`VectorStoreError::UnknownCollection`] when there is none of this name, and another error when the store does not
    /// answer.
    async fn collection(&self, name: &str) -> Result<CollectionInfo, VectorStoreError>;

    /// Lists the distinct guards of a collection; `None` when the store cannot list all of them.
    ///
    /// # Errors
    /// As for [`VectorStore::collection`].
    async fn guards(&self, collection: &str) -> Result<Option<GuardTable>, VectorStoreError>;

    /// Estimates how many chunks are under these guards. `None` when that is not known without asking a server.
    fn chunks_under(&self, collection: &str, table: &GuardTable, positions: &RoaringBitmap) -> Option<u64> {
        let _ = (collection, table, positions);
        None
    }

    /// Finds the best candidates, at most [`Search::limit`] of them. [`Searched::rest`] tells whether there are more.
    ///
    /// A vector query matches every chunk with a vector, a text query every chunk that holds at least one of its words,
    /// and a hybrid query every chunk within [`HYBRID_DEPTH`] of either ranking. Where the store has transactions, a
    /// search sees each call of [`DocumentStore::upsert`] and [`DocumentStore::delete`] wholly or not at all.
    ///
    /// # Errors
    /// - As for [`VectorStore::collection`].
    /// - [`VectorStoreError::Dimension`] when the vector has another dimension than the collection. A collection
    ///   without vectors finds nothing instead.
    /// - [`VectorStoreError::Invalid`] for a query that [`validation::check_query`] refuses.
    /// - [`VectorStoreError::Unsupported`] for a kind of query that the store cannot answer.
    async fn search(&self, search: &Search) -> Result<Searched, VectorStoreError>;

    /// Looks up chunks by id, without text, for a re-check. Ids that do not exist are left out. The answers are in the order
    /// of the ids and have a score of 0; an id that is named twice is answered twice.
    ///
    /// # Errors
    /// As for [`VectorStore::collection`].
    async fn find(&self, collection: &str, chunk_ids: &[String]) -> Result<Vec<FoundChunk>, VectorStoreError>;

    /// Lists the distinct guards of the chunks of each document, in the order of the ids. A document that does not exist has
    /// none. A caller names few documents at a time.
    ///
    /// # Errors
    /// As for [`VectorStore::collection`], and [`VectorStoreError::Unsupported`] if the store has no documents.
    async fn document_guards(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Vec<Vec<Object>>, VectorStoreError> {
        let _ = (collection, document_ids);
        Err(no_documents())
    }

    /// Looks up the chunks of a document that are under one of these guards, without text, for a fetch: at most
    /// [`validation::CHUNKS_PER_DOCUMENT_MAX`] of them. They are in the order of the document where the store knows it, and
    /// otherwise in the order of their ids. They have a score of 0. If the document does not exist, there are none.
    ///
    /// # Errors
    /// As for [`VectorStore::document_guards`].
    async fn find_in_document(
        &self,
        collection: &str,
        document_id: &str,
        guards: &HashSet<Object>,
    ) -> Result<Vec<Candidate>, VectorStoreError> {
        let _ = (collection, document_id, guards);
        Err(no_documents())
    }

    /// Reads the metadata of those candidates that are still what `search` found, or what [`VectorStore::find`] found
    /// if `search` is `None`. The answers are in the order of the candidates; one that is named twice is answered
    /// twice.
    ///
    /// INVARIANT (no text): no text leaves the store. So a caller may ask about a candidate before it is decided
    /// whether its text may be read.
    ///
    /// INVARIANT (one version): as for [`VectorStore::read`].
    ///
    /// # Errors
    /// As for [`VectorStore::collection`].
    async fn read_metadata(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<ChunkMetadata>, VectorStoreError>;

    /// Reads the chunks of those candidates that are still what `search` found, or what [`VectorStore::find`] found if
    /// `search` is `None`. Their vectors are left empty. The answers are in the order of the candidates; one that is
    /// named twice is answered twice. A caller reads permitted candidates only.
    ///
    /// INVARIANT (one version): guard, metadata and text of a chunk are of one version. That version passes the filter
    /// of the search and has the guard, the version and the score of the candidate. A chunk that was replaced since it
    /// was found is left out.
    ///
    /// # Errors
    /// As for [`VectorStore::collection`].
    async fn read(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<Chunk>, VectorStoreError>;

    /// Tells who made the vectors of a collection.
    ///
    /// # Errors
    /// As for [`VectorStore::collection`].
    async fn vector_origin(&self, collection: &str) -> Result<VectorOrigin, VectorStoreError> {
        let _ = collection;
        Ok(VectorOrigin::Unnoted)
    }

    /// Checks, with at most one call to a server, that a search would be answered now.
    ///
    /// # Errors
    /// Returns the reason why a search would not be answered.
    async fn ready(&self) -> Result<(), VectorStoreError> {
        Ok(())
    }
}

fn no_documents() -> VectorStoreError {
    VectorStoreError::Unsupported("this vector store does not look up documents; name chunks".to_owned())
}

/// A document as a list shows it. Everything in it is of one version of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedDocument {
    /// The id of the document.
    pub id: String,
    /// The title, for people; may be empty.
    pub title: String,
    /// The number of its chunks.
    pub chunks: u32,
    /// The text under [`SOURCE_KEY`](crate::chunk::SOURCE_KEY) in the metadata of the first chunk.
    pub source: Option<String>,
    /// The guards of all its chunks; `None` if a chunk has no well-formed guard, because then nobody can be checked.
    pub guards: Option<BTreeSet<Object>>,
    /// The place of the document in the order of the list.
    pub place: String,
}

/// A part of the list of a collection's documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentPage {
    /// The documents of this part. A document that is written meanwhile may be missing.
    pub documents: Vec<ListedDocument>,
    /// The place at which the list goes on; `None` at its end.
    pub next: Option<String>,
}

/// A store that takes documents in. A document is replaced whole or not at all, and a change is durable once it is answered
/// with `Ok`.
#[async_trait]
pub trait DocumentStore: Send + Sync {
    /// Puts documents in. Each one replaces all chunks of the document with its id. If several have one id, the last
    /// one counts. The title of a chunk is its document's.
    ///
    /// The documents of one call are one transaction where the store has transactions, as the embedded engine does. The
    /// collection is made if it does not exist. Without documents nothing happens.
    ///
    /// The first vector fixes the dimension of the collection. Other stores keep it for good, and the embedded engine
    /// keeps it for as long as any vector stays.
    ///
    /// # Errors
    /// When [`validation::check_document`] refuses a document, when a vector has another dimension than the collection,
    /// and when a chunk id belongs to another document. Then nothing of the call was applied.
    async fn upsert(&self, collection: &str, documents: Vec<Document>) -> Result<(), VectorStoreError>;

    /// Like [`DocumentStore::upsert`], for a writer who may write under these guards alone.
    ///
    /// INVARIANT (one moment): no document is replaced that has another guard at that moment, or a chunk without a well-formed
    /// one. Another write may have given it one since the writer was checked. Where the store's server has no transactions, this
    /// holds among the writes of one process.
    ///
    /// # Errors
    /// As for [`DocumentStore::upsert`], and [`VectorStoreError::OtherGuard`] if there is such a document.
    async fn upsert_under(
        &self,
        collection: &str,
        documents: Vec<Document>,
        guards: &BTreeSet<Object>,
    ) -> Result<(), VectorStoreError>;

    /// Notes that the vectors of a collection are made with this model from now on; without one, that writers send them. A
    /// collection that does not exist is made for the note of a model. A store that keeps no notes does nothing.
    ///
    /// # Errors
    /// [`VectorStoreError::OtherModel`] when the collection has vectors of another origin.
    async fn note_model(&self, collection: &str, model: Option<VectorModel<'_>>) -> Result<(), VectorStoreError> {
        let _ = (collection, model);
        Ok(())
    }

    /// Deletes documents and returns how many of them existed.
    ///
    /// # Errors
    /// As for [`VectorStore::collection`].
    async fn delete(&self, collection: &str, document_ids: &BTreeSet<String>) -> Result<u64, VectorStoreError>;

    /// Like [`DocumentStore::delete`], for a writer who may write under these guards alone. A document that has another guard
    /// stays, and looks absent.
    ///
    /// INVARIANT (one moment): as for [`DocumentStore::upsert_under`].
    ///
    /// # Errors
    /// As for [`VectorStore::collection`].
    async fn delete_under(
        &self,
        collection: &str,
        document_ids: &BTreeSet<String>,
        guards: &BTreeSet<Object>,
    ) -> Result<u64, VectorStoreError>;

    /// Looks up documents by id and returns each one that exists with its number of chunks, in the order of the ids.
    ///
    /// # Errors
    /// As for [`VectorStore::collection`].
    async fn documents(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Vec<(String, u32)>, VectorStoreError>;

    /// Lists the names of all collections, in the order of their bytes.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn collection_names(&self) -> Result<Vec<String>, VectorStoreError>;

    /// Lists documents in an order of the store's own, which a change of other documents does not move. The list begins at the
    /// place `from`, whether or not a document is there, and at its beginning without one. It looks at no more than `limit`
    /// documents, and fewer if the store's server sets a limit. The part of a list may be empty before the list ends.
    ///
    /// # Errors
    /// - As for [`VectorStore::collection`].
    /// - [`VectorStoreError::Invalid`] when `from` is no place of a list.
    /// - [`VectorStoreError::Unsupported`] for a collection that another program fills.
    async fn list(&self, collection: &str, from: Option<&str>, limit: usize) -> Result<DocumentPage, VectorStoreError>;

    /// Returns the guards of all chunks of these documents. A caller uses them to check who may replace the documents.
    /// Returns `None` when a chunk has no well-formed guard, because then nobody can be checked.
    ///
    /// # Errors
    /// As for [`VectorStore::collection`].
    async fn guards_of(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Option<BTreeSet<Object>>, VectorStoreError>;
}

/// The reason why a store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum VectorStoreError {
    /// There is no collection of this name.
    #[error("there is no collection `{0}`; check its name, or put documents into it first")]
    UnknownCollection(String),
    /// A vector has another dimension than the collection.
    #[error("the vector has {found} dimensions, collection `{collection}` has {expected}")]
    Dimension {
        /// The name of the collection.
        collection: String,
        /// The dimension of the collection.
        expected: usize,
        /// The dimension of the vector.
        found: usize,
    },
    /// The vectors of a collection have another origin than the settings say.
    #[error(
        "the vectors of collection `{collection}` were made with another model than the settings (`embedding`) name for it, or by \
         others; put its documents into a new collection"
    )]
    OtherModel {
        /// The name of the collection.
        collection: String,
    },
    /// Two chunks have one id.
    #[error("chunk id `{chunk_id}` of document `{document_id}` is already used{}", .owner.as_ref().map(|o| format!(" by document `{o}`")).unwrap_or_default())]
    DuplicateChunk {
        /// The id of both chunks.
        chunk_id: String,
        /// The id of the document that was refused.
        document_id: String,
        /// The id of the document that has the chunk; `None` when the refused document names it twice.
        owner: Option<String>,
    },
    /// A document to replace has a guard by now under which the writer may not write.
    #[error("a document with one of these ids has another guard by now")]
    OtherGuard,
    /// The store does not take the document or the query.
    #[error("{0}")]
    Invalid(String),
    /// The store cannot do what was asked.
    #[error("{0}")]
    Unsupported(String),
    /// The store's server refused the request. The text is the server's own.
    #[error("the vector store refused the request: {0}")]
    Refused(String),
    /// The store could not be reached, or did not answer in time.
    #[error("the vector store is out of reach: {0}")]
    Unavailable(String),
    /// The store gave an answer that cannot be right.
    #[error("the vector store answered wrongly: {0}")]
    BadAnswer(String),
    /// The files of the data directory could not be read or written.
    #[error(transparent)]
    Storage(#[from] crate::storage::StorageError),
}

impl VectorStoreError {
    /// Returns the code that tells a caller what to do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownCollection(_) => ErrorCode::NotFound,
            Self::Dimension { .. } | Self::Invalid(_) => ErrorCode::InvalidArgument,
            Self::DuplicateChunk { .. } => ErrorCode::AlreadyExists,
            Self::OtherGuard => ErrorCode::PermissionDenied,
            Self::Unsupported(_) | Self::Refused(_) | Self::OtherModel { .. } => ErrorCode::FailedPrecondition,
            Self::Unavailable(_) | Self::BadAnswer(_) => ErrorCode::Unavailable,
            Self::Storage(e) => e.into(),
        }
    }
}
