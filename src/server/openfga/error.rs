//! Errors with `OpenFGA`'s own numbers (2000 and up), which its clients tell apart. A door sends the number in its own shape.

use openfga_client::client as api;
use tonic::{Code, Status};

use crate::language::limits::CONTEXT_BYTES_MAX;
use crate::language::{ParseError, RelationshipTuple, TupleMisfit};
use crate::server::refusal::Refusal;
use crate::storage::StorageError;
use crate::tuple_store::StoreError;

/// The numbers of `OpenFGA` that are sent here. Their names are those of its `ErrorCode` enums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorNumber {
    /// gRPC's own code. `OpenFGA` sends it where a write conflicts with what is stored.
    Aborted = 10,
    ValidationError = 2000,
    AuthorizationModelNotFound = 2001,
    ResolutionTooComplex = 2002,
    InvalidWriteInput = 2003,
    DuplicateTuples = 2004,
    InvalidContinuationToken = 2007,
    InvalidExpandInput = 2010,
    WriteFailedDueToInvalidInput = 2017,
    LatestAuthorizationModelNotFound = 2020,
    TypeNotFound = 2021,
    RelationNotFound = 2022,
    InvalidTuple = 2027,
    ContinuationTokenMismatch = 2052,
    ExceededEntityLimit = 2053,
    InvalidAuthorizationModel = 2056,
    InvalidStartTime = 2059,
    InternalError = 4000,
    DeadlineExceeded = 4004,
    StoreIdNotFound = 5002,
}

/// The reason why `OpenFGA`'s API refused a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenFgaError {
    pub(super) number: ErrorNumber,
    pub(super) message: String,
}

impl ErrorNumber {
    /// Returns the code for a client that knows only gRPC's own codes.
    fn code(self) -> Code {
        match self {
            Self::Aborted => Code::Aborted,
            Self::InternalError => Code::Internal,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::StoreIdNotFound => Code::NotFound,
            Self::ValidationError
            | Self::AuthorizationModelNotFound
            | Self::ResolutionTooComplex
            | Self::InvalidWriteInput
            | Self::DuplicateTuples
            | Self::InvalidContinuationToken
            | Self::InvalidExpandInput
            | Self::WriteFailedDueToInvalidInput
            | Self::LatestAuthorizationModelNotFound
            | Self::TypeNotFound
            | Self::RelationNotFound
            | Self::InvalidTuple
            | Self::ContinuationTokenMismatch
            | Self::ExceededEntityLimit
            | Self::InvalidAuthorizationModel
            | Self::InvalidStartTime => Code::InvalidArgument,
        }
    }
}

impl OpenFgaError {
    pub(super) fn new(number: ErrorNumber, message: impl Into<String>) -> Self {
        Self { number, message: message.into() }
    }

    // Where clients tell errors apart by their texts, the texts are `OpenFGA`'s.

    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::new(ErrorNumber::ValidationError, message)
    }

    pub(super) fn already_there(key: &api::TupleKeyWithoutCondition) -> Self {
        Self::conflict("cannot write a tuple which already exists", key)
    }

    pub(super) fn not_there(key: &api::TupleKeyWithoutCondition) -> Self {
        Self::conflict("cannot delete a tuple which does not exist", key)
    }

    fn conflict(what: &str, key: &api::TupleKeyWithoutCondition) -> Self {
        let api::TupleKeyWithoutCondition { user, relation, object } = key;
        let message = format!(
            "{what}: user: '{user}', relation: '{relation}', object: '{object}': tuple to be written already existed or \
             the tuple to be deleted did not exist"
        );
        Self::new(ErrorNumber::WriteFailedDueToInvalidInput, message)
    }

    /// Returns an error whose cause is in the server's log.
    pub(super) fn internal() -> Self {
        Self::new(ErrorNumber::InternalError, "Internal Server Error")
    }

    /// Returns an error of a request whose deadline passed before there was an answer.
    pub(super) fn late() -> Self {
        Self::new(ErrorNumber::DeadlineExceeded, "Request Deadline Exceeded")
    }
}

impl From<ParseError> for OpenFgaError {
    fn from(error: ParseError) -> Self {
        Self::validation(error.to_string())
    }
}

impl From<TupleMisfit> for OpenFgaError {
    fn from(misfit: TupleMisfit) -> Self {
        Self::validation(misfit_text(&misfit))
    }
}

/// Returns the text of a misfit. Clients recognize a name that the model lacks by `OpenFGA`'s own text.
pub(super) fn misfit_text(misfit: &TupleMisfit) -> String {
    match misfit {
        TupleMisfit::UnknownType(type_name) => format!("type '{type_name}' not found"),
        TupleMisfit::UnknownRelation { type_name, relation } => format!("relation '{type_name}#{relation}' not found"),
        TupleMisfit::LongContext(bytes) => {
            format!("condition context size limit exceeded: {bytes} bytes exceeds {CONTEXT_BYTES_MAX} bytes")
        }
        TupleMisfit::UnknownCondition(_)
        | TupleMisfit::ShortCondition(_)
        | TupleMisfit::ConditionRestriction { .. }
        | TupleMisfit::Context(_)
        | TupleMisfit::Implicit(_)
        | TupleMisfit::TypeRestriction { .. } => misfit.to_string(),
    }
}

impl From<StorageError> for OpenFgaError {
    fn from(error: StorageError) -> Self {
        tracing::error!(%error, "the data directory failed");
        Self::internal()
    }
}

impl From<StoreError> for OpenFgaError {
    fn from(error: StoreError) -> Self {
        let number = match error {
            StoreError::Storage(error) => return error.into(),
            StoreError::NoModel => ErrorNumber::LatestAuthorizationModelNotFound,
            StoreError::Misfit(_) => ErrorNumber::ValidationError,
            StoreError::Repeated(_) => ErrorNumber::DuplicateTuples,
            StoreError::AlreadyThere(tuple) => return Self::already_there(&key(&tuple)),
            StoreError::NotThere(tuple) => return Self::not_there(&key(&tuple)),
            StoreError::OtherCondition(_) => ErrorNumber::Aborted,
            StoreError::Empty => ErrorNumber::InvalidWriteInput,
            StoreError::TooMany(_) => ErrorNumber::ExceededEntityLimit,
        };
        Self::new(number, error.to_string())
    }
}

fn key(tuple: &RelationshipTuple) -> api::TupleKeyWithoutCondition {
    api::TupleKeyWithoutCondition {
        user: tuple.user.to_string(),
        relation: tuple.relation.to_string(),
        object: tuple.object.to_string(),
    }
}

impl From<OpenFgaError> for Refusal {
    fn from(error: OpenFgaError) -> Self {
        Self::new(error.number.code(), error.message).with_openfga_number(error.number as u32)
    }
}

impl From<OpenFgaError> for Status {
    fn from(error: OpenFgaError) -> Self {
        Refusal::from(error).into()
    }
}
