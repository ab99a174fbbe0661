//! The reasons why a retrieval or a re-check has no answer.

use std::future::Future;

use tokio::time::{Instant, timeout_at};

use super::request::{self, FieldViolation};
use crate::authz::AuthzError;
use crate::error_code::ErrorCode;
use crate::identity::principal::NotDetailed;
use crate::inference::InferenceError;
use crate::language::tuple::shown;
use crate::sources::SourceError;
use crate::vector_store::VectorStoreError;

/// The reason why a retrieval or a re-check has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RetrievalError {
    /// Some fields of the request are wrong. The list may leave out further wrong fields.
    #[error("{}", request::join(.0))]
    Invalid(Vec<FieldViolation>),
    /// The authorizer made no decision.
    #[error(transparent)]
    Authz(#[from] AuthzError),
    /// The vector store gave no answer, or a wrong one.
    #[error(transparent)]
    VectorStore(#[from] VectorStoreError),
    /// A source did not say whether the user may see a document, or the call has no token to ask it with.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A model gave no answer that counts.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// The collection cannot be searched this way.
    #[error("{0}")]
    Unsupported(String),
    /// The collection has more guards than one request may have checked.
    #[error(
        "collection `{collection}` has {guards} guards, at most {guards_max} are checked ahead of a text search; raise `retrieval.guards_checked_max`"
    )]
    TooManyGuards {
        /// The collection that was to be searched.
        collection: String,
        /// How many distinct guards its chunks have.
        guards: usize,
        /// How many guards may be checked ahead of a search.
        guards_max: usize,
    },
    /// The collection has no such chunk.
    #[error("collection `{collection}` has no chunk `{}`", shown(.chunk_id))]
    UnknownChunk {
        /// The collection in which the chunk was looked up.
        collection: String,
        /// The id that no chunk has.
        chunk_id: String,
    },
    /// The deadline of the request passed.
    #[error("there was no answer before the deadline")]
    DeadlineExceeded,
    /// The details of the caller's token permit nothing that this request asks for.
    #[error(transparent)]
    NotDetailed(#[from] NotDetailed),
}

impl RetrievalError {
    /// Tells what the caller can do about it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(_) => ErrorCode::InvalidArgument,
            Self::Authz(e) => e.code(),
            Self::VectorStore(e) => e.code(),
            Self::Source(e) => e.code(),
            Self::Inference(e) => e.code(),
            Self::Unsupported(_) => ErrorCode::FailedPrecondition,
            Self::TooManyGuards { .. } => ErrorCode::ResourceExhausted,
            Self::UnknownChunk { .. } => ErrorCode::NotFound,
            Self::DeadlineExceeded => ErrorCode::DeadlineExceeded,
            Self::NotDetailed(_) => ErrorCode::PermissionDenied,
        }
    }
}

/// Waits for a call to a backend until the deadline of the request.
pub(super) async fn within<T, E>(
    deadline: Instant,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, RetrievalError>
where
    RetrievalError: From<E>,
{
    match timeout_at(deadline, call).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => Err(RetrievalError::DeadlineExceeded),
    }
}
