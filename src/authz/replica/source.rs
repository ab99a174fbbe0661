//! The port to the server that a replica keeps a copy of.

use async_trait::async_trait;

use crate::authz::AuthzError;
use crate::authz::copy::ModelVersion;
use crate::language::RelationshipTuple;
use crate::language::validate::ValidModel;
use crate::tuple_store::Operation;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// The token that reads the next page.
    pub next: String,
}

/// One change of one tuple, as the server's log reports it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceChange {
    /// The tuple. If it was deleted, its condition is left out.
    pub tuple: RelationshipTuple,
    /// Whether the tuple was written or deleted.
    pub operation: Operation,
    /// The date of the change by the server's clock, in nanoseconds since 1970.
    pub unix_ns: i128,
}

/// The result of a look at the server's model.
#[derive(Debug)]
pub enum ModelNews {
    /// The model has the version that is already known.
    Known,
    /// The model is a new one.
    New(Box<ValidModel>),
    /// The model is a new one that the server accepts, but that this program cannot evaluate, for this reason.
    NotUnderstood(String),
}

/// Reads the model, the tuples and the changes of one store, past all caches: the copy must be one of the store, not of
/// a cache.
#[async_trait]
pub trait RelationshipSource: Send + Sync {
    /// Reads the version of the model that decides now, and the model itself unless its version is the known one.
    ///
    /// # Errors
    /// When the server is out of reach; [`AuthzError::NoModel`] when it has no such store, or the store has no model.
    async fn model(&self, known: Option<&ModelVersion>) -> Result<(ModelVersion, ModelNews), AuthzError>;

    /// Reads all tuples, page by page. The empty token reads the first page, and the last page returns the empty token.
    /// Tuples that are written meanwhile may be missing.
    ///
    /// # Errors
    /// When the server is out of reach, or has a tuple that cannot be understood.
    async fn tuples(&self, store_id: &str, token: &str) -> Result<Page<RelationshipTuple>, AuthzError>;

    /// Reads the changes after a token, page by page. An empty page is the end for now. The order is that of the log,
    /// which is not always that of the commits. A change may come twice.
    ///
    /// # Errors
    /// Like [`RelationshipSource::tuples`]; [`AuthzError::Refused`] when the token does not belong to this log.
    async fn changes(&self, store_id: &str, token: &str) -> Result<Page<SourceChange>, AuthzError>;

    /// Finds the tuple with these names as it is now, with its condition. Returns `None` when there is none.
    ///
    /// # Errors
    /// Like [`RelationshipSource::tuples`].
    async fn find(&self, store_id: &str, tuple: &RelationshipTuple) -> Result<Option<RelationshipTuple>, AuthzError>;
}
