//! Errors with `OpenFGA`'s own numbers.
//!
//! `OpenFGA` sends its numbers (2000 and up) as the `grpc-status` itself. tonic's `Status` can carry only gRPC's 17 codes,
//! so the number travels in a private header, and [`restore_number`] puts it in place of the code on the way out.

use http_body_util::BodyExt;
use openfga_client::client as api;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::tuples;
use crate::language::limits::CONTEXT_BYTES_MAX;
use crate::language::{ParseError, TupleMisfit};
use crate::server::status;
use crate::storage::StorageError;
use crate::tuple_store::StoreError;

/// Never seen outside the process.
const NUMBER_HEADER: &str = "ragward-openfga-code";
const STATUS_HEADER: &str = "grpc-status";
const OUT_OF_RANGE: &str = "11";
const RESOURCE_EXHAUSTED: &str = "8";

/// `OpenFGA`'s numbers, as far as they are sent here. The names are those of its `ErrorCode` enums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// gRPC's own code, which `OpenFGA` sends where a write conflicts with what is stored.
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

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) number: Number,
    pub(super) message: String,
}

impl Number {
    /// What a client that knows only gRPC's codes would be told.
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

impl Refusal {
    pub(super) fn new(number: Number, message: impl Into<String>) -> Self {
        Self { number, message: message.into() }
    }

    // The texts are `OpenFGA`'s where clients tell errors apart by them.

    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::new(Number::ValidationError, message)
    }

    pub(super) fn already_there(key: &api::TupleKey) -> Self {
        Self::conflict("cannot write a tuple which already exists", key)
    }

    pub(super) fn not_there(key: &api::TupleKey) -> Self {
        Self::conflict("cannot delete a tuple which does not exist", key)
    }

    fn conflict(what: &str, key: &api::TupleKey) -> Self {
        let api::TupleKey { user, relation, object, .. } = key;
        let message = format!(
            "{what}: user: '{user}', relation: '{relation}', object: '{object}': tuple to be written already existed or \
             the tuple to be deleted did not exist"
        );
        Self::new(Number::WriteFailedDueToInvalidInput, message)
    }

    /// The server's log says why.
    pub(super) fn internal() -> Self {
        Self::new(Number::InternalError, "Internal Server Error")
    }

    /// The deadline passed before there was an answer.
    pub(super) fn late() -> Self {
        Self::new(Number::DeadlineExceeded, "Request Deadline Exceeded")
    }
}

impl From<ParseError> for Refusal {
    fn from(error: ParseError) -> Self {
        Self::validation(error.to_string())
    }
}

impl From<TupleMisfit> for Refusal {
    fn from(misfit: TupleMisfit) -> Self {
        Self::validation(misfit_text(&misfit))
    }
}

/// Clients tell a name that the model does not have from other mistakes by `OpenFGA`'s text.
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

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        tracing::error!(%error, "the data directory failed");
        Self::internal()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let number = match error {
            StoreError::Storage(error) => return error.into(),
            StoreError::NoModel => Number::LatestAuthorizationModelNotFound,
            StoreError::Misfit(_) => Number::ValidationError,
            StoreError::Repeated(_) => Number::DuplicateTuples,
            StoreError::AlreadyThere(tuple) => return Self::already_there(&tuples::write(&tuple)),
            StoreError::NotThere(tuple) => return Self::not_there(&tuples::write(&tuple)),
            StoreError::OtherCondition(_) => Number::Aborted,
            StoreError::Empty => Number::InvalidWriteInput,
            StoreError::TooMany(_) => Number::ExceededEntityLimit,
        };
        Self::new(number, error.to_string())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut metadata = MetadataMap::new();
        metadata.insert(NUMBER_HEADER, MetadataValue::from(refusal.number as u32));
        Status::with_metadata(refusal.number.code(), status::cut(refusal.message), metadata)
    }
}

/// Puts the number of a refusal in place of its gRPC code, in headers and trailers.
pub(in crate::server) fn restore_number(mut response: http::Response<Body>) -> http::Response<Body> {
    restore(response.headers_mut());
    response.map(|body| {
        Body::new(body.map_frame(|mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                restore(trailers);
            }
            frame
        }))
    })
}

fn restore(headers: &mut http::HeaderMap) {
    if let Some(number) = headers.remove(NUMBER_HEADER) {
        headers.insert(STATUS_HEADER, number);
    }
    // tonic says `OUT_OF_RANGE` of a message that is too large, and nothing else here does; gRPC has another code for it.
    if headers.get(STATUS_HEADER).is_some_and(|status| *status == OUT_OF_RANGE) {
        headers.insert(STATUS_HEADER, http::HeaderValue::from_static(RESOURCE_EXHAUSTED));
    }
}
