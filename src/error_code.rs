//! What a caller can do about an error: the one vocabulary that every module's errors map to, and that the edges
//! (gRPC, command line) map from.

/// The kind of an error, named after the gRPC status code it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The request can never succeed as it stands.
    InvalidArgument,
    /// A thing that the request names does not exist.
    NotFound,
    /// A thing that the request would create belongs to someone else.
    AlreadyExists,
    /// The system is not set up for this request.
    FailedPrecondition,
    /// A limit of the server was reached; try again later.
    ResourceExhausted,
    /// The deadline passed before there was an answer.
    DeadlineExceeded,
    /// A backend is out of reach or answered wrongly; try again later.
    Unavailable,
    /// Stored data is damaged.
    DataLoss,
    /// A defect of the server.
    Internal,
    /// Nobody knows who is asking.
    Unauthenticated,
    /// The caller may not ask for this.
    PermissionDenied,
}

impl ErrorCode {
    /// The stable reason that is sent to clients (`google.rpc.ErrorInfo.reason`).
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
