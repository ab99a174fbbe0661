//! Why there is no decision.

use std::time::Duration;

use crate::error_code::ErrorCode;

/// Why there is no decision.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuthzError {
    /// No authorization model is loaded.
    #[error("no authorization model is loaded; load one with `ragward model load`")]
    NoModel,
    /// The authorizer has other stores than the one that it is asked about.
    #[error("{0}")]
    NoStore(String),
    /// The authorizer refuses the question.
    #[error("the authorizer refused the request: {0}")]
    Refused(String),
    /// The authorizer is out of reach.
    #[error("the authorizer is out of reach: {0}")]
    Unavailable(String),
    /// The authorizer answered too few, too many, twice or for another question.
    #[error("the authorizer answered wrongly: {0}")]
    BadAnswer(String),
    /// No answer in time.
    #[error("the authorizer did not answer before the deadline")]
    DeadlineExceeded,
    /// A stored model or tuple cannot be used.
    #[error("the stored relationships cannot be used: {0}")]
    Stored(String),
    /// More checks wait than can be answered in time; nothing was asked.
    #[error("too many checks are waiting for the authorizer")]
    Overloaded {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// One message had more bytes than the server takes.
    #[error(
        "the authorizer takes no message of this size; have fewer or shorter claims become tuples, or raise the server's \
         `grpc-max-recv-msg-bytes`: {0}"
    )]
    MessageTooLarge(String),
    /// One call held more checks than the server takes.
    #[error("the authorizer takes fewer checks in one call; lower `authorizer.openfga.checks_per_call`")]
    TooManyChecks {
        /// The maximum that it named, if it named one.
        checks_max: Option<usize>,
    },
}

impl AuthzError {
    /// What the caller is told. What the authorizer said stays out of it: it may name objects that the caller must not
    /// know of.
    #[must_use]
    pub fn caller_text(&self) -> &'static str {
        match self {
            Self::NoModel => "no authorization model is loaded; load one with `ragward model load`",
            Self::NoStore(_) => {
                "the authorizer does not have the store that it is asked about; the server's log says more"
            }
            Self::Refused(_) | Self::MessageTooLarge(_) | Self::TooManyChecks { .. } => {
                "the authorizer refused the request; the server's log says why"
            }
            Self::Unavailable(_) | Self::BadAnswer(_) => "the authorizer did not decide; try again later",
            Self::DeadlineExceeded => "there was no answer before the deadline",
            Self::Stored(_) => "the stored relationships cannot be used; the server's log says why",
            Self::Overloaded { .. } => "too many requests are waiting; try again later",
        }
    }

    /// What the caller can do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoModel
            | Self::NoStore(_)
            | Self::Refused(_)
            | Self::MessageTooLarge(_)
            | Self::TooManyChecks { .. } => ErrorCode::FailedPrecondition,
            Self::Overloaded { .. } => ErrorCode::ResourceExhausted,
            Self::Unavailable(_) | Self::BadAnswer(_) => ErrorCode::Unavailable,
            Self::DeadlineExceeded => ErrorCode::DeadlineExceeded,
            Self::Stored(_) => ErrorCode::DataLoss,
        }
    }
}
