//! The port to a vector store, and its adapters. A search gives ids, scores and guards; text is read by id, afterwards,
//! and only `retrieval` asks for it, for chunks that were permitted.

mod direction;
pub mod exact;
mod filter;
mod guard_counts;
mod hits;
mod limits;
mod overview;
mod own_writes;
#[cfg(feature = "qdrant")]
pub mod qdrant;
mod server_search;
mod space_parts;
pub mod validation;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use roaring::RoaringBitmap;

use crate::chunk::{Candidate, Chunk, ChunkMetadata, Document, Metadata, Value};
use crate::error_code::ErrorCode;
use crate::language::Object;

/// What is searched for.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// BM25 over the chunk texts. At most [`validation::QUERY_BYTES_MAX`] long; a text without any word finds nothing.
    Text(String),
    /// Cosine similarity to the chunk vectors. Finite and not all zero.
    Vector(Vec<f32>),
    /// Both, merged by reciprocal rank fusion (Cormack, Clarke and Büttcher 2009): a chunk scores the sum of 1 / (60 + its
    /// rank) over the rankings of the space that have it among their first [`HYBRID_DEPTH`].
    Hybrid {
        /// As in [`Query::Text`].
        text: String,
        /// As in [`Query::Vector`].
        vector: Vec<f32>,
    },
}

/// How deep each of the two rankings of a hybrid query is looked at. It bounds the answer, so it is the same whatever the
/// limit: more chunks of one answer never change the order of the first.
pub const HYBRID_DEPTH: usize = 1_000;

/// The caller's own restriction; it is AND-ed below ours, so it can only shrink the answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Every one holds. Empty: always.
    All(Vec<Filter>),
    /// At least one holds. Empty: never.
    Any(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// The metadata value under the key is one of these. Int and Float compare as numbers. A missing key never matches.
    OneOf {
        /// The metadata key.
        key: String,
        /// The accepted values.
        values: Vec<Value>,
    },
    /// The metadata value under the key is a number within the bounds, both inclusive.
    Between {
        /// The metadata key.
        key: String,
        /// Lowest accepted value.
        low: f64,
        /// Highest accepted value.
        high: f64,
    },
}

/// What a principal may see at most, whatever its relations show: the details of its token, say. Unlike a filter it
/// belongs to the visible set, so it takes part in the statistics of a text query.
pub trait Narrowing: Debug + Send + Sync {
    /// Whether a chunk of this guard and with this metadata may be in the visible set.
    fn admits(&self, guard: &Object, metadata: &Metadata) -> bool;
}

/// Which chunks a search may look at. A hint for speed and, for BM25, the set whose statistics count; never the
/// boundary: `authz::enforce` is.
#[derive(Clone, Debug)]
pub enum SearchSpace {
    /// Every chunk of the collection.
    Everything,
    /// The chunks of these guards: positions in [`GuardTable::guards`]. An empty bitmap finds nothing.
    Guards {
        /// The table that the positions refer to.
        table: GuardTable,
        /// The positions.
        positions: RoaringBitmap,
    },
}

/// The distinct guards of a collection, each at a stable position; later guards are appended.
#[derive(Clone, Debug)]
pub struct GuardTable {
    /// By position. A guard whose chunks are all gone may still be here.
    pub guards: Arc<Vec<Object>>,
    /// The positions of the guards that have chunks.
    pub in_use: Arc<RoaringBitmap>,
}

impl GuardTable {
    /// A table of guards that all have chunks.
    #[must_use]
    pub fn new(guards: Vec<Object>) -> Self {
        let in_use = (0..).zip(&guards).map(|(position, _)| position).collect();
        Self { guards: Arc::new(guards), in_use: Arc::new(in_use) }
    }
}

/// One search.
#[derive(Clone, Debug)]
pub struct Search {
    /// The collection; it must exist.
    pub collection: String,
    /// What for.
    pub query: Query,
    /// The caller's filter.
    pub filter: Option<Filter>,
    /// Where to look.
    pub space: SearchSpace,
    /// What takes away from the space, chunk by chunk. A store whose scores rest on no statistics may leave it aside.
    pub narrowing: Option<Arc<dyn Narrowing>>,
    /// Only candidates with this score or a better one.
    pub min_score: Option<f64>,
    /// At most so many candidates of one document, the best. A store that cannot count by document gives more.
    pub per_document_max: Option<NonZeroUsize>,
    /// How many candidates at most.
    pub limit: usize,
    /// How many are enough, where the others would cost the store a second search. At most `limit`.
    pub enough: usize,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Searched {
    /// Best score first, ties by chunk id (bytes ascending).
    pub candidates: Vec<Candidate>,
    /// Whether certainly none of the space scores better than these; otherwise they are the engine's own approximation.
    pub exact: bool,
    /// What a wider search would find.
    pub rest: Rest,
}

impl Searched {
    /// The answer of a search whose space or filter leaves no chunk.
    const NOTHING: Self = Self { candidates: Vec::new(), exact: true, rest: Rest::Nothing };
}

/// What a search for more candidates would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// More, unless these happened to be all.
    Further,
    /// Nothing more, though there may be more: the engine gave no more.
    Unknown,
    /// Nothing more.
    Nothing,
}

/// The cost of a search within a [`SearchSpace`], which a plan compares with a search of the whole collection.
///
/// The unit is the cost of one more candidate in a search of the whole collection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchCosts {
    /// The cost of each guard in the space.
    pub per_guard: f64,
    /// The cost of each chunk in the space, on top of what a search of the whole collection pays for that chunk.
    pub per_chunk: f64,
}

impl SearchCosts {
    /// The costs of a store that never searches a space slower than the whole collection.
    pub const FREE: Self = Self { per_guard: 0.0, per_chunk: 0.0 };
}

/// What a collection can do, so that a plan can be chosen and a query be refused before any work.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionInfo {
    /// The length of its vectors; `None` while it has none.
    pub dimension: Option<usize>,
    /// Whether it takes text queries. Their scores depend on corpus statistics, so they need a known visible set.
    pub text_queries: bool,
    /// What a search among some guards costs.
    pub search_costs: SearchCosts,
    /// Most candidates of one search, where the store's server sets a limit.
    pub candidates_max: Option<usize>,
    /// Chunks in it.
    pub chunks: u64,
    /// Documents in it.
    pub documents: u64,
}

/// Finds candidates and reads chunks.
#[async_trait]
pub trait VectorStore: Send + Sync {
    /// What the collection can do.
    ///
    /// # Errors
    /// [`VectorStoreError::UnknownCollection`], or the store is out of reach.
    async fn collection(&self, name: &str) -> Result<CollectionInfo, VectorStoreError>;

    /// The distinct guards of a collection; `None` when the store cannot list them.
    ///
    /// # Errors
    /// As [`VectorStore::collection`].
    async fn guards(&self, collection: &str) -> Result<Option<GuardTable>, VectorStoreError>;

    /// How many chunks are under these guards, as far as it is known without asking anybody. An estimate.
    fn chunks_under(&self, collection: &str, table: &GuardTable, positions: &RoaringBitmap) -> Option<u64> {
        let _ = (collection, table, positions);
        None
    }

    /// At most `limit` candidates. Fewer than `limit` means that
    /// there are no more. Every item that matches the space, filter and query kind counts: for vectors, every chunk with a vector;
    /// for text, every chunk that holds at least one of the query's terms; for both, every chunk in the depth of either. A search sees each `upsert` and `delete` call
    /// wholly or not at all, where the store has transactions.
    ///
    /// # Errors
    /// As [`VectorStore::collection`]; [`VectorStoreError::Dimension`] (a collection without vectors has none to differ
    /// from: it finds nothing); [`VectorStoreError::Invalid`] for a query that [`validation::check_query`] refuses;
    /// [`VectorStoreError::Unsupported`].
    async fn search(&self, search: &Search) -> Result<Searched, VectorStoreError>;

    /// The chunks that exist among these ids as they are now, without text: for a re-check. In the order asked, score 0.
    /// An id that is asked twice is answered twice.
    ///
    /// # Errors
    /// As [`VectorStore::collection`].
    async fn find(&self, collection: &str, chunk_ids: &[String]) -> Result<Vec<Candidate>, VectorStoreError>;

    /// Reads the metadata of the candidates that are still what `search` found, or [`VectorStore::find`] if `search` is
    /// `None`. The answers are in the order of the candidates; one that is named twice is answered twice.
    ///
    /// INVARIANT (no text): no text leaves the store. So a caller may ask about a candidate before it is decided whether its
    /// text may be read.
    ///
    /// INVARIANT (one version): as for [`VectorStore::read`].
    ///
    /// # Errors
    /// As [`VectorStore::collection`].
    async fn read_metadata(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<ChunkMetadata>, VectorStoreError>;

    /// Reads the chunks of these candidates that are still what was found, vectors left empty: by this search, or by
    /// [`VectorStore::find`] where there is none. Only for candidates that were permitted. In their order; one that is named
    /// twice is answered twice.
    ///
    /// INVARIANT (one version): guard, metadata and text of a chunk are of one version, which passes the search's filter and
    /// has the candidate's guard, version and score. What was replaced since it was found is left out.
    ///
    /// # Errors
    /// As [`VectorStore::collection`].
    async fn read(
        &self,
        collection: &str,
        search: Option<&Search>,
        found: &[Candidate],
    ) -> Result<Vec<Chunk>, VectorStoreError>;

    /// Whether a search would be answered now, found out with no more than one call to a backend.
    ///
    /// # Errors
    /// Why it would not.
    async fn ready(&self) -> Result<(), VectorStoreError> {
        Ok(())
    }
}

/// Takes documents in. Each is replaced whole or not at all, and what was answered `Ok` is durable.
#[async_trait]
pub trait DocumentStore: Send + Sync {
    /// Puts the documents in, in one transaction where the store has them (the embedded engine); each replaces all chunks
    /// of its id. Of several with one id the last counts. Makes the collection if it is not there; without documents
    /// nothing happens. The title of a chunk is its document's.
    ///
    /// # Errors
    /// On a document that [`validation::check_document`] refuses, a wrong dimension (the first vector fixes it: for good, or
    /// in the embedded engine for as long as there is a vector that stays), a chunk id that belongs to another document; then nothing of the call was applied.
    async fn upsert(&self, collection: &str, documents: Vec<Document>) -> Result<(), VectorStoreError>;

    /// Takes documents out; the number of those that were there.
    ///
    /// # Errors
    /// As [`VectorStore::collection`].
    async fn delete(&self, collection: &str, document_ids: &BTreeSet<String>) -> Result<u64, VectorStoreError>;

    /// The documents that exist among these ids, each with how many chunks it has. In the order asked.
    ///
    /// # Errors
    /// As [`VectorStore::collection`].
    async fn documents(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Vec<(String, u32)>, VectorStoreError>;

    /// The guards of all chunks of the documents that exist among these ids: for the check of who may replace them. `None` when
    /// a chunk of them has no usable guard, so that nobody can be checked.
    ///
    /// # Errors
    /// As [`VectorStore::collection`].
    async fn guards_of(
        &self,
        collection: &str,
        document_ids: &[String],
    ) -> Result<Option<BTreeSet<Object>>, VectorStoreError>;
}

/// Why a store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum VectorStoreError {
    /// There is no such collection.
    #[error("there is no collection `{0}`; check its name, or put documents into it first")]
    UnknownCollection(String),
    /// The vector does not have the collection's dimension.
    #[error("the vector has {found} dimensions, collection `{collection}` has {expected}")]
    Dimension {
        /// The collection.
        collection: String,
        /// Its dimension.
        expected: usize,
        /// The vector's.
        found: usize,
    },
    /// Two chunks with one id.
    #[error("chunk id `{chunk_id}` of document `{document_id}` is already used{}", .owner.as_ref().map(|o| format!(" by document `{o}`")).unwrap_or_default())]
    DuplicateChunk {
        /// The id.
        chunk_id: String,
        /// The document that was refused.
        document_id: String,
        /// The document that has it; `None`: the same document names it twice.
        owner: Option<String>,
    },
    /// A document or query that this store cannot take.
    #[error("{0}")]
    Invalid(String),
    /// The store cannot do this.
    #[error("{0}")]
    Unsupported(String),
    /// The server behind the store refused what it was asked; the text is its own.
    #[error("the vector store refused the request: {0}")]
    Refused(String),
    /// The store is out of reach or did not answer in time.
    #[error("the vector store is out of reach: {0}")]
    Unavailable(String),
    /// The store answered something that cannot be.
    #[error("the vector store answered wrongly: {0}")]
    BadAnswer(String),
    /// The data directory failed.
    #[error(transparent)]
    Storage(#[from] crate::storage::StorageError),
}

impl VectorStoreError {
    /// What the caller can do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownCollection(_) => ErrorCode::NotFound,
            Self::Dimension { .. } | Self::Invalid(_) => ErrorCode::InvalidArgument,
            Self::DuplicateChunk { .. } => ErrorCode::AlreadyExists,
            Self::Unsupported(_) | Self::Refused(_) => ErrorCode::FailedPrecondition,
            Self::Unavailable(_) | Self::BadAnswer(_) => ErrorCode::Unavailable,
            Self::Storage(e) => e.into(),
        }
    }
}
