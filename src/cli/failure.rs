//! The failure of a command: a sentence for a person, and an exit code for a script.

use std::io::Write;
use std::process::ExitCode;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::app::AppError;
use crate::audit::AuditError;
use crate::authz::AuthzError;
use crate::authz::openfga::{LoadError, OpenStoreError, StoppedWrite};
use crate::config::ConfigError;
use crate::error_code::ErrorCode;
use crate::ingest::IngestError;
use crate::login::LoginError;
use crate::storage::StorageError;
use crate::tuple_store::StoreError;
use crate::visible::visible;

/// The reason why a command failed.
#[derive(Debug)]
pub(super) struct Failure {
    exit: u8,
    text: String,
}

/// The exit code for a check that failed.
const FAILED: u8 = 1;
/// The exit code for a mistake in the command, its input or the configuration.
const USAGE: u8 = 2;
/// The exit code for a backend or server that cannot be reached.
const UNREACHABLE: u8 = 3;

impl Failure {
    pub(super) fn failed(text: impl Into<String>) -> Self {
        Self { exit: FAILED, text: text.into() }
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self { exit: USAGE, text: text.into() }
    }

    pub(super) fn unreachable(text: impl Into<String>) -> Self {
        Self { exit: UNREACHABLE, text: text.into() }
    }

    pub(super) fn coded(code: ErrorCode, text: impl Into<String>) -> Self {
        let exit = match code {
            ErrorCode::InvalidArgument
            | ErrorCode::NotFound
            | ErrorCode::AlreadyExists
            | ErrorCode::FailedPrecondition
            | ErrorCode::Unauthenticated
            | ErrorCode::PermissionDenied => USAGE,
            ErrorCode::ResourceExhausted | ErrorCode::DeadlineExceeded | ErrorCode::Unavailable => UNREACHABLE,
            ErrorCode::DataLoss | ErrorCode::Internal => FAILED,
        };
        Self { exit, text: text.into() }
    }

    /// Puts the subject of the command in front of the text.
    pub(super) fn context(mut self, what: impl std::fmt::Display) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }

    /// Appends a fact that holds in spite of the failure.
    pub(super) fn followed_by(mut self, what: impl std::fmt::Display) -> Self {
        self.text = format!("{}{what}", self.text);
        self
    }

    /// Replaces the text by one in the command's words.
    pub(super) fn retold(self, text: impl Into<String>) -> Self {
        Self { text: text.into(), ..self }
    }

    /// Returns the sentence, for a program that shows it to the person.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Prints the sentence and returns the exit code.
    pub(super) fn tell(self) -> ExitCode {
        if !self.text.is_empty() {
            // If standard error is closed, the exit code still reports the failure.
            drop(writeln!(std::io::stderr(), "error: {}", visible(&self.text)));
        }
        ExitCode::from(self.exit)
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        Self::coded(error.code(), error.to_string())
    }
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        Self::coded(error.code(), error.to_string())
    }
}

impl From<AuthzError> for Failure {
    fn from(error: AuthzError) -> Self {
        Self::coded(error.code(), error.to_string())
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::coded((&error).into(), error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::coded((&error).into(), error.to_string())
    }
}

impl From<OpenStoreError> for Failure {
    fn from(error: OpenStoreError) -> Self {
        match error {
            OpenStoreError::Config(error) => Self::usage(error.to_string()),
            OpenStoreError::Server(error) => error.into(),
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::coded(error.code(), error.to_string())
    }
}

impl From<StoppedWrite> for Failure {
    fn from(stopped: StoppedWrite) -> Self {
        Self::coded(stopped.error.code(), stopped.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<IngestError> for Failure {
    fn from(error: IngestError) -> Self {
        Self::coded(error.code(), error.to_string())
    }
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        let text = error.to_string();
        match error {
            LoginError::Setup(_) | LoginError::Refused(_) => Self::usage(text),
            LoginError::Unreachable(_) => Self::unreachable(text),
            LoginError::File(_) => Self::failed(text),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let violations = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
        let fields: Vec<String> = violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
        // A status without details comes from the connection, not from a service.
        let text = match (fields.is_empty(), status.get_details_error_info()) {
            (false, _) => fields.join("\n       "),
            (true, Some(_)) if status.code() == Code::Unauthenticated => {
                format!(
                    "{}; give one with `--token-file` or `RAGWARD_TOKEN`, or log in with `ragward login`",
                    status.message()
                )
            }
            (true, Some(_)) => status.message().to_owned(),
            (true, None) => {
                let detail = status.message();
                format!("the server is out of reach, or is not Ragward ({detail}); is `ragward serve` running there?")
            }
        };
        let exit = match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::PermissionDenied
            | Code::Unauthenticated => USAGE,
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => UNREACHABLE,
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss | Code::Aborted => FAILED,
        };
        Self { exit, text }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}
