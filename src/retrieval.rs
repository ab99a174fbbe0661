//! Retrieval: one request from its parts to permitted chunks. Search gives candidates, enforcement decides, and only
//! then is text read.

mod answer;
mod decoys;
mod generations;
mod guard_index;
mod hydrate;
mod list_costs;
pub mod page;
mod pass_rates;
pub mod plan;
pub mod request;
mod retriever;
mod search_round;
mod stages;
mod visibility;
mod walk;

use std::future::Future;

use tokio::time::{Instant, timeout_at};

pub use answer::{Completion, PlanReport, Rechecked, Retrieval, Retrieved, Round};
pub use page::Pages;
pub use request::{FieldViolation, RecheckRequest, RetrievalParts, RetrievalRequest};
pub use retriever::Retriever;
pub use stages::StageTimes;

use crate::authz::AuthzError;
use crate::error_code::ErrorCode;
use crate::identity::principal::NotDetailed;
use crate::language::Relation;
use crate::language::tuple::shown;
use crate::vector_store::VectorStoreError;

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct RetrievalConfig {
    /// The relation on the guard that a user must hold to see a chunk.
    pub relation: Relation,
    /// Most chunks of one answer.
    pub top_k_max: u32,
    /// Most candidates of one search. A search that would need more ends as [`Completion::Limited`].
    pub candidates_max: usize,
    /// Most guards that one request may have checked ahead of its search.
    pub guards_checked_max: usize,
    /// Page tokens.
    pub pages: Pages,
    /// Whether whoever asks for it is told the plan of a retrieval. It counts what is withheld.
    pub explain_plan: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RetrievalError {
    /// Fields of the request are wrong; every one that was found.
    #[error("{}", request::join(.0))]
    Invalid(Vec<FieldViolation>),
    /// No decision.
    #[error(transparent)]
    Authz(#[from] AuthzError),
    /// No search.
    #[error(transparent)]
    VectorStore(#[from] VectorStoreError),
    /// The collection cannot be searched this way.
    #[error("{0}")]
    Unsupported(String),
    /// The collection has more guards than one request may have checked.
    #[error(
        "collection `{collection}` has {guards} guards, at most {guards_max} are checked ahead of a text search; raise `retrieval.guards_checked_max`"
    )]
    TooManyGuards {
        /// The collection.
        collection: String,
        /// Its guards.
        guards: usize,
        /// The limit.
        guards_max: usize,
    },
    /// There is no such chunk.
    #[error("collection `{collection}` has no chunk `{}`", shown(.chunk_id))]
    UnknownChunk {
        /// The collection.
        collection: String,
        /// The chunk.
        chunk_id: String,
    },
    /// The deadline passed.
    #[error("there was no answer before the deadline")]
    DeadlineExceeded,
    /// The token's details leave nothing of this request.
    #[error(transparent)]
    NotDetailed(#[from] NotDetailed),
}

impl RetrievalError {
    /// What the caller can do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(_) => ErrorCode::InvalidArgument,
            Self::Authz(e) => e.code(),
            Self::VectorStore(e) => e.code(),
            Self::Unsupported(_) => ErrorCode::FailedPrecondition,
            Self::TooManyGuards { .. } => ErrorCode::ResourceExhausted,
            Self::UnknownChunk { .. } => ErrorCode::NotFound,
            Self::DeadlineExceeded => ErrorCode::DeadlineExceeded,
            Self::NotDetailed(_) => ErrorCode::PermissionDenied,
        }
    }
}

/// A call of the vector store, under the deadline of the request.
async fn within<T>(
    deadline: Instant,
    call: impl Future<Output = Result<T, VectorStoreError>>,
) -> Result<T, RetrievalError> {
    match timeout_at(deadline, call).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => Err(RetrievalError::DeadlineExceeded),
    }
}
