//! The shapes of `OpenFGA`'s HTTP API: the names of its errors, its statuses, and its lines of streams.

use std::collections::BTreeMap;

use prost_reflect::DescriptorPool;
use serde_json::{Value as Json, json};
use tonic::Code;
use tonic::codegen::http::StatusCode;

use crate::server::refusal::{HttpFault, Refusal};

/// The package of `OpenFGA`'s API.
const PACKAGE: &str = "openfga.v1";
/// gRPC's own number, which `OpenFGA` sends where a write conflicts with what is stored.
const ABORTED: u32 = 10;

/// The name of each of `OpenFGA`'s error numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct ErrorNames(BTreeMap<u32, String>);

impl ErrorNames {
    /// Reads the names out of the enums of `OpenFGA`'s descriptors.
    pub(super) fn of(pool: &DescriptorPool) -> Self {
        let enums = pool.all_enums().filter(|e| e.package_name() == PACKAGE && e.name().ends_with("ErrorCode"));
        let names = enums.flat_map(|e| {
            let names: Vec<(i32, String)> = e.values().map(|value| (value.number(), value.name().to_owned())).collect();
            names
        });
        Self(names.filter_map(|(number, name)| Some((u32::try_from(number).ok()?, name))).collect())
    }

    /// Returns status and body of a refusal.
    pub(super) fn refused(&self, refusal: &Refusal) -> (StatusCode, Json) {
        let number = refusal.openfga_number();
        let (status, name) = match number {
            Some(ABORTED) => (StatusCode::CONFLICT, "Aborted"),
            Some(number) => (status_of(number), self.0.get(&number).map_or("internal_error", String::as_str)),
            None => unnumbered(refusal),
        };
        (status, json!({ "code": name, "message": refusal.text() }))
    }
}

/// Returns the status of an error number. Each kind of error has a range of numbers.
fn status_of(number: u32) -> StatusCode {
    match number {
        1_600 => StatusCode::FORBIDDEN,
        1_000..2_000 => StatusCode::UNAUTHORIZED,
        2_000..3_000 => StatusCode::BAD_REQUEST,
        3_500..4_000 => StatusCode::UNPROCESSABLE_ENTITY,
        5_000..6_000 => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Returns status and name of a refusal that has no number of `OpenFGA`'s: that of the gate, the door or the server's limits.
fn unnumbered(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal.http_fault() {
        Some(HttpFault::Method { .. }) => return (StatusCode::NOT_IMPLEMENTED, "unimplemented"),
        Some(HttpFault::MediaType) => return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "validation_error"),
        Some(HttpFault::Size) => return (StatusCode::PAYLOAD_TOO_LARGE, "validation_error"),
        None => {}
    }
    match refusal.code() {
        Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
        Code::PermissionDenied => (StatusCode::FORBIDDEN, "forbidden"),
        Code::InvalidArgument | Code::OutOfRange => (StatusCode::BAD_REQUEST, "validation_error"),
        Code::FailedPrecondition => (StatusCode::BAD_REQUEST, "failed_precondition"),
        Code::NotFound => (StatusCode::NOT_FOUND, "undefined_endpoint"),
        Code::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "unimplemented"),
        Code::Aborted => (StatusCode::CONFLICT, "Aborted"),
        Code::AlreadyExists => (StatusCode::CONFLICT, "already_exists"),
        Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "resource_exhausted"),
        Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"),
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            (StatusCode::INTERNAL_SERVER_ERROR, "internal_error")
        }
    }
}

/// Returns the status of an answer.
pub(super) fn answered(rpc: &str) -> StatusCode {
    match rpc.rsplit_once('/').map(|(_service, method)| method) {
        Some("CreateStore" | "WriteAuthorizationModel") => StatusCode::CREATED,
        Some("DeleteStore" | "WriteAssertions") => StatusCode::NO_CONTENT,
        _ => StatusCode::OK,
    }
}

/// Returns the line of a stream that failed.
pub(super) fn stream_error(refusal: &Refusal) -> Json {
    json!({ "error": { "code": refusal.code() as i32, "message": refusal.text(), "details": [] } })
}
