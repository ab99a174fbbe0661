//! The reasons why there is no decision.

use std::time::Duration;

use crate::error_code::ErrorCode;

/// The reason why there is no decision. A variant says what the caller can do about it; the adapter's own words say
/// what happened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuthzError {
    /// The store has no authorization model.
    #[error("no authorization model is loaded; load one with `ragward model load`")]
    NoModel,
    /// The authorizer has stores, but not the one that it is asked about.
    #[error("{0}")]
    NoStore(String),
    /// The authorizer refuses the question as malformed or not allowed. Asking again would not help.
    #[error("the authorizer refused the request: {0}")]
    Refused(String),
    /// The authorizer cannot be reached, or failed. Asking again later may help.
    #[error("the authorizer is out of reach: {0}")]
    Unavailable(String),
    /// The authorizer gave too few or too many answers, or an answer that cannot be understood.
    #[error("the authorizer answered wrongly: {0}")]
    BadAnswer(String),
    /// No answer came before the deadline.
    #[error("the authorizer did not answer before the deadline")]
    DeadlineExceeded,
    /// A stored model or tuple cannot be read or evaluated.
    #[error("the stored relationships cannot be used: {0}")]
    Stored(String),
    /// More checks wait than can be answered in time. Nothing was asked.
    #[error("too many checks are waiting for the authorizer")]
    Overloaded {
        /// How long to wait before it is worth trying again.
        retry_after: Duration,
    },
    /// One message had more bytes than the authorizer accepts.
    #[error("the authorizer takes no message of this size: {0}")]
    MessageTooLarge(String),
    /// One call held more checks than the authorizer accepts.
    #[error("the authorizer takes fewer checks in one call")]
    TooManyChecks {
        /// The maximum that the authorizer named, if it named one.
        checks_max: Option<usize>,
    },
}

impl AuthzError {
    /// Returns the text for the caller. It leaves out the authorizer's own words, because these may name objects that the
    /// caller must not know of.
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

    /// Returns the code that says what the caller can do.
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
