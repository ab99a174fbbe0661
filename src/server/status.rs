//! Errors as gRPC statuses: one mapping for all services. A caller is told what to do; what a backend said, which may
//! name things that the caller must not know of, goes to the log.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::authz::AuthzError;
use crate::error_code::ErrorCode;
use crate::retrieval::{FieldViolation, RetrievalError};
use crate::vector_store::VectorStoreError;

/// `google.rpc.ErrorInfo.domain`.
pub(super) const DOMAIN: &str = "ragward";

/// Most wrong fields that one answer names: clients refuse long headers, which is where a status travels.
pub(super) const VIOLATIONS_MAX: usize = 10;
/// Longest text of a status, in bytes.
const TEXT_BYTES_MAX: usize = 2_048;

/// The status of an answer that is withheld because its record was not kept.
pub(super) fn unrecorded() -> Status {
    let text = "the answer could not be recorded, so it is not given; try again later";
    Status::with_error_details(Code::Unavailable, text, details_of(ErrorCode::Unavailable))
}

/// The status of a call whose work ended in a panic.
pub(super) fn lost() -> Status {
    Status::with_error_details(Code::Internal, "internal error", details_of(ErrorCode::Internal))
}

/// The status of wrong fields.
pub(super) fn invalid(mut violations: Vec<FieldViolation>) -> Status {
    violations.truncate(VIOLATIONS_MAX);
    RetrievalError::Invalid(violations).into()
}

impl From<RetrievalError> for Status {
    fn from(error: RetrievalError) -> Self {
        let text = match &error {
            RetrievalError::Authz(e) => {
                tracing::warn!(error = %e, "no authorization decision");
                e.caller_text().to_owned()
            }
            RetrievalError::VectorStore(e) => store_text(e),
            RetrievalError::TooManyGuards { .. } => {
                // How many guards there are is not the caller's to know.
                tracing::warn!(%error, "refused");
                "the collection has too many guards for a text search; the server's log says what to set".to_owned()
            }
            RetrievalError::Invalid(_)
            | RetrievalError::Unsupported(_)
            | RetrievalError::UnknownChunk { .. }
            | RetrievalError::DeadlineExceeded
            | RetrievalError::NotDetailed(_) => error.to_string(),
        };
        let mut details = details_of(error.code());
        if let RetrievalError::Invalid(violations) = &error {
            for violation in violations.iter().take(VIOLATIONS_MAX) {
                details.add_bad_request_violation(&violation.field, &violation.description);
            }
        }
        if let RetrievalError::Authz(AuthzError::Overloaded { retry_after }) = &error {
            details.set_retry_info(Some(*retry_after));
        }
        Status::with_error_details(grpc_code(error.code()), cut(text), details)
    }
}

impl From<VectorStoreError> for Status {
    fn from(error: VectorStoreError) -> Self {
        let text = store_text(&error);
        Status::with_error_details(grpc_code(error.code()), cut(text), details_of(error.code()))
    }
}

/// The status of a caller who may not ask for this.
pub(super) fn denied(text: &'static str) -> Status {
    Status::with_error_details(Code::PermissionDenied, text, details_of(ErrorCode::PermissionDenied))
}

/// The status of a call that waited for its turn in vain.
pub(super) fn busy(text: &'static str, retry_after: Duration) -> Status {
    let mut details = details_of(ErrorCode::ResourceExhausted);
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(Code::ResourceExhausted, text, details)
}

/// No longer than a client's header limit allows.
pub(super) fn cut(text: String) -> String {
    match text.char_indices().find(|(at, c)| at + c.len_utf8() > TEXT_BYTES_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

pub(super) fn details_of(code: ErrorCode) -> ErrorDetails {
    let mut details = ErrorDetails::new();
    details.set_error_info(code.reason(), DOMAIN, std::collections::HashMap::new());
    details
}

fn store_text(error: &VectorStoreError) -> String {
    match error {
        VectorStoreError::UnknownCollection(_)
        | VectorStoreError::Dimension { .. }
        | VectorStoreError::DuplicateChunk { .. }
        | VectorStoreError::Invalid(_)
        | VectorStoreError::Unsupported(_) => error.to_string(),
        VectorStoreError::Refused(_) => {
            tracing::warn!(%error, "the vector store refused");
            "the vector store refused the request; the server's log says why".to_owned()
        }
        VectorStoreError::Unavailable(_) | VectorStoreError::BadAnswer(_) => {
            tracing::warn!(%error, "the vector store did not answer");
            "the vector store did not answer; try again later".to_owned()
        }
        VectorStoreError::Storage(_) => {
            tracing::error!(%error, "the data directory failed");
            "the server cannot use its data directory; its log says why".to_owned()
        }
    }
}

fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidArgument => Code::InvalidArgument,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::AlreadyExists => Code::AlreadyExists,
        ErrorCode::FailedPrecondition => Code::FailedPrecondition,
        ErrorCode::ResourceExhausted => Code::ResourceExhausted,
        ErrorCode::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorCode::Unavailable => Code::Unavailable,
        ErrorCode::DataLoss => Code::DataLoss,
        ErrorCode::Internal => Code::Internal,
        ErrorCode::Unauthenticated => Code::Unauthenticated,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
    }
}
