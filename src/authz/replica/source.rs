//! The port to the server that a replica copies.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::authz::AuthzError;
use crate::language::RelationshipTuple;
use crate::language::validate::ValidModel;
use crate::tuple_store::Operation;

/// Which model of which store decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelVersion {
    /// The store.
    pub store_id: String,
    /// The model.
    pub model_id: String,
}

/// A part of a list, and where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The part.
    pub items: Vec<T>,
    /// The token to go on with.
    pub next: String,
}

/// One change of one tuple, as the server's log has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceChange {
    /// The tuple; one that was taken out has no condition.
    pub tuple: RelationshipTuple,
    /// What happened.
    pub operation: Operation,
    /// When, by the server's clock, in nanoseconds since 1970.
    pub unix_ns: i128,
}

/// What is new about the model.
#[derive(Debug)]
pub enum ModelNews {
    /// It is the known version.
    Known,
    /// It is another one.
    New(Box<ValidModel>),
    /// It is another one, which the server takes and this program cannot evaluate, for this reason.
    NotUnderstood(String),
}

/// Reads model, tuples and changes of one store, past all caches: a copy of a cache is no copy.
#[async_trait]
pub trait RelationshipSource: Send + Sync {
    /// The version of the model that decides now, and the model itself unless it is the known version.
    ///
    /// # Errors
    /// [`AuthzError::NoModel`] when there is none or no store, or the server is out of reach.
    async fn model(&self, known: Option<&ModelVersion>) -> Result<(ModelVersion, ModelNews), AuthzError>;

    /// All tuples, page by page, from the empty token to the empty token. What is written meanwhile may be missing.
    ///
    /// # Errors
    /// When the server is out of reach, or has a tuple that cannot be understood.
    async fn tuples(&self, store_id: &str, token: &str) -> Result<Page<RelationshipTuple>, AuthzError>;

    /// The changes after a token, page by page; an empty page ends them for now. The order is that of the log, which need
    /// not be that of the commits, and a change may come again.
    ///
    /// # Errors
    /// As [`RelationshipSource::tuples`]; [`AuthzError::Refused`] when the token is not one of this log.
    async fn changes(&self, store_id: &str, token: &str) -> Result<Page<SourceChange>, AuthzError>;

    /// The tuple with these names as it is now, with its condition; `None` when it is not there.
    ///
    /// # Errors
    /// As [`RelationshipSource::tuples`].
    async fn find(&self, store_id: &str, tuple: &RelationshipTuple) -> Result<Option<RelationshipTuple>, AuthzError>;
}
