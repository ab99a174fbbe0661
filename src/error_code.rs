//! The one vocabulary that tells a caller what to do about an error. Every module maps its errors to it, and gRPC and
//! the command line map it to statuses and exit codes.
//!
//! `OpenFGA`'s world (`language`, `engine`, `tuple_store`, `store_file`, `storage`) does not know this vocabulary, so
//! that it can be used without the proxy. This module says what its errors mean to a caller.

use crate::storage::StorageError;
use crate::tuple_store::StoreError;

/// The kind of an error, named after the gRPC status code that it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The request can never succeed as it stands.
    InvalidArgument,
    /// The request names a thing that does not exist.
    NotFound,
    /// The request would create a thing that belongs to somebody else.
    AlreadyExists,
    /// The server is not set up for this request.
    FailedPrecondition,
    /// A limit of the server was reached. The caller can try again later.
    ResourceExhausted,
    /// The deadline passed before there was an answer.
    DeadlineExceeded,
    /// A backend is out of reach or answered wrongly. The caller can try again later.
    Unavailable,
    /// Stored data is damaged.
    DataLoss,
    /// The server has a defect.
    Internal,
    /// The caller did not prove who it is.
    Unauthenticated,
    /// The caller may not ask for this.
    PermissionDenied,
}

impl ErrorCode {
    /// Returns the stable reason that is sent to clients (`google.rpc.ErrorInfo.reason`).
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Unavailable => "BACKEND_UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Internal => "INTERNAL",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PermissionDenied => "PERMISSION_DENIED",
        }
    }
}

impl From<&StorageError> for ErrorCode {
    fn from(error: &StorageError) -> Self {
        match error {
            StorageError::InUse(_) | StorageError::Newer { .. } => Self::FailedPrecondition,
            StorageError::Damaged { .. } => Self::DataLoss,
            StorageError::Io { .. } => Self::Unavailable,
        }
    }
}

impl From<&StoreError> for ErrorCode {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::NoModel => Self::FailedPrecondition,
            StoreError::Misfit(_) | StoreError::Repeated(_) | StoreError::Empty | StoreError::TooMany(_) => {
                Self::InvalidArgument
            }
            StoreError::AlreadyThere(_) | StoreError::OtherCondition(_) => Self::AlreadyExists,
            StoreError::NotThere(_) => Self::NotFound,
            StoreError::Storage(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_data_directory_has_a_code_for_each_way_to_mend_it() {
        let path = std::path::PathBuf::from("relationships.redb");
        let detail = String::new();
        let rows = [
            ("another process has it", StorageError::InUse(path.clone()), ErrorCode::FailedPrecondition),
            ("too new", StorageError::Newer { path: path.clone(), found: 2 }, ErrorCode::FailedPrecondition),
            ("damaged", StorageError::damaged(&path, ""), ErrorCode::DataLoss),
            ("the disk is full", StorageError::Io { path, detail }, ErrorCode::Unavailable),
        ];
        for (name, error, expected) in rows {
            assert_eq!(ErrorCode::from(&error), expected, "{name}");
            assert_eq!(ErrorCode::from(&StoreError::from(error)), expected, "{name}, of a store");
        }
    }
}
