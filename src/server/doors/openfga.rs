//! The shapes of `OpenFGA`'s HTTP API: the names of its errors, its statuses, and its lines of streams.

use std::collections::BTreeMap;

use prost::Message;
use prost_reflect::DescriptorPool;
use serde_json::{Value as Json, json};
use tonic::Code;
use tonic::codegen::http::StatusCode;
use tonic_health::pb::HealthCheckResponse;
use tonic_health::pb::health_check_response::ServingStatus::Serving;

use crate::server::refusal::{HttpFault, Refusal};

/// The package of `OpenFGA`'s API.
const PACKAGE: &str = "openfga.v1";
/// The RPC behind `/healthz`.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
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
            None => match broken_field(refusal) {
                Some(broken) => (StatusCode::BAD_REQUEST, broken.name()),
                None => unnumbered(refusal),
            },
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
        Some(HttpFault::Method { .. }) => return (StatusCode::NOT_FOUND, "unimplemented"),
        Some(HttpFault::MediaType) => return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "validation_error"),
        Some(HttpFault::Size) => return (StatusCode::PAYLOAD_TOO_LARGE, "resource_exhausted"),
        None => {}
    }
    match refusal.code() {
        Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
        Code::PermissionDenied => (StatusCode::FORBIDDEN, "forbidden"),
        Code::InvalidArgument | Code::OutOfRange => (StatusCode::BAD_REQUEST, "validation_error"),
        Code::FailedPrecondition => (StatusCode::BAD_REQUEST, "failed_precondition"),
        Code::NotFound => (StatusCode::NOT_FOUND, "undefined_endpoint"),
        // Its gateway counts whatever it cannot do as not found.
        Code::Unimplemented => (StatusCode::NOT_FOUND, "unimplemented"),
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

/// Returns the status of an answer with this message.
pub(super) fn answered(rpc: &str, message: &[u8]) -> StatusCode {
    if rpc == HEALTH {
        // Whoever asks for health over HTTP reads the status alone.
        let is_serving = HealthCheckResponse::decode(message).is_ok_and(|health| health.status() == Serving);
        return if is_serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    }
    match rpc.rsplit_once('/').map(|(_service, method)| method) {
        Some("CreateStore" | "WriteAuthorizationModel") => StatusCode::CREATED,
        Some("DeleteStore" | "WriteAssertions") => StatusCode::NO_CONTENT,
        _ => StatusCode::OK,
    }
}

/// Returns whether `OpenFGA`'s API itself refused, and not the door, the gate or the server's limits.
pub(super) fn is_of_the_api(refusal: &Refusal) -> bool {
    refusal.openfga_number().is_some() || broken_field(refusal).is_some()
}

/// Returns the status of a stream that failed before its first message.
pub(super) fn stream_status(refusal: &Refusal) -> StatusCode {
    match stream_code(refusal) {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Aborted => StatusCode::CONFLICT,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Returns the line of a stream that failed.
pub(super) fn stream_error(refusal: &Refusal) -> Json {
    json!({ "error": { "code": stream_code(refusal) as i32, "message": refusal.text(), "details": [] } })
}

/// Returns gRPC's own code for an error in a stream. Each range of numbers has one.
fn stream_code(refusal: &Refusal) -> Code {
    match refusal.openfga_number() {
        Some(2_000..3_500) => Code::InvalidArgument,
        Some(4_000..5_000) => Code::Internal,
        Some(5_000..6_000) => Code::NotFound,
        Some(_) | None => refusal.code(),
    }
}

/// A field of a request that breaks a rule for its form, as the text of the refusal tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BrokenField<'a> {
    field: &'a str,
    rule: &'a str,
}

/// The names of broken rules for which `OpenFGA`'s gateway has names of their own: the field, the beginning of the rule's text,
/// and the name. All others are a `validation_error`.
///
/// The gateway finds the names in texts, too. Where its rule is a pattern, the rule's text here begins with [`PATTERN`].
const FIELD_NAMES: [(&str, &str, &str); 10] = [
    ("Assertions", "value must contain no more than", "assertions_too_many_items"),
    ("Base", "value is required", "difference_base_missing_value"),
    ("Object", "value length must be at most", "object_too_long"),
    ("PageSize", "value must be inside range", "page_size_invalid"),
    ("Relation", "value length must be at most", "relation_too_long"),
    ("Relations", PATTERN, "relations_invalid_pattern"),
    ("Subtract", "value is required", "subtract_base_missing_value"),
    ("TupleKey", "value is required", "tuple_key_value_not_specified"),
    ("Type", PATTERN, "type_invalid_pattern"),
    ("TypeDefinitions", "value must contain at least", "type_definitions_too_few_items"),
];

/// The beginning of the text of a rule that is a pattern.
const PATTERN: &str = "must have";

impl BrokenField<'_> {
    fn name(self) -> &'static str {
        let names = FIELD_NAMES.iter();
        let mut found = names.filter(|(field, rule, _)| *field == self.field && self.rule.starts_with(rule));
        found.next().map_or("validation_error", |(_, _, name)| *name)
    }
}

/// Reads a text of the form `invalid Message.Field: rule`.
fn broken_field(refusal: &Refusal) -> Option<BrokenField<'_>> {
    let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let (place, rule) = refusal.text().strip_prefix("invalid ")?.split_once(": ")?;
    let (message, field) = place.split_once('.')?;
    let is_form = refusal.code() == Code::InvalidArgument && is_word(message) && is_word(field);
    is_form.then_some(BrokenField { field, rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(refusal: &Refusal) -> (u16, String) {
        let names = ErrorNames(
            [(2017, "write_failed_due_to_invalid_input"), (5002, "store_id_not_found")]
                .map(|(number, name)| (number, name.to_owned()))
                .into(),
        );
        let (status, body) = names.refused(refusal);
        (status.as_u16(), body["code"].as_str().unwrap().to_owned())
    }

    #[test]
    fn errors_have_the_names_of_openfgas_gateway() {
        let broken = |text: &str| Refusal::new(Code::InvalidArgument, format!("invalid {text}"));
        let plain = |code| Refusal::new(code, "some text");
        let verb = HttpFault::Method { allowed: "GET".into() };
        let rows = [
            ("a missing key", broken("CheckRequest.TupleKey: value is required"), 400, "tuple_key_value_not_specified"),
            ("a page", broken("ReadRequest.PageSize: value must be inside range [1, 100]"), 400, "page_size_invalid"),
            ("a type", broken("ListObjectsRequest.Type: must have 1 to 254 characters"), 400, "type_invalid_pattern"),
            ("another rule of a field", broken("TypeDefinition.Type: value is required"), 400, "validation_error"),
            ("another field", broken("CheckRequest.StoreId: must be a ULID"), 400, "validation_error"),
            ("a text about a key", plain(Code::InvalidArgument), 400, "validation_error"),
            ("a number", plain(Code::NotFound).with_openfga_number(5002), 404, "store_id_not_found"),
            ("a conflict", plain(Code::Aborted).with_openfga_number(10), 409, "Aborted"),
            ("an unknown path", plain(Code::NotFound), 404, "undefined_endpoint"),
            ("another verb", plain(Code::Unimplemented).with_http_fault(verb), 404, "unimplemented"),
            ("an RPC that is not there", plain(Code::Unimplemented), 404, "unimplemented"),
            ("no token", plain(Code::Unauthenticated), 401, "unauthenticated"),
        ];
        for (row, refusal, status, name) in rows {
            assert_eq!(refused(&refusal), (status, name.to_owned()), "{row}");
        }
    }

    #[test]
    fn a_stream_fails_with_grpcs_own_codes() {
        let numbered = |code, number| Refusal::new(code, "some text").with_openfga_number(number);
        let broken = Refusal::new(Code::InvalidArgument, "invalid ListObjectsRequest.StoreId: must be a ULID");
        let rows = [
            ("a broken rule", broken, 400, 3, true),
            ("a model that is not there", numbered(Code::InvalidArgument, 2_001), 400, 3, true),
            ("a store that is not there", numbered(Code::NotFound, 5_002), 404, 5, true),
            ("no answer in time", numbered(Code::DeadlineExceeded, 4_004), 500, 13, true),
            ("no JSON", Refusal::new(Code::InvalidArgument, "the body is not JSON: a.b: c"), 400, 3, false),
            ("too late", Refusal::late(), 500, 4, false),
        ];
        for (row, refusal, status, code, is_of_the_api) in rows {
            assert_eq!(stream_status(&refusal).as_u16(), status, "{row}");
            assert_eq!(stream_error(&refusal)["error"]["code"], json!(code), "{row}");
            assert_eq!(super::is_of_the_api(&refusal), is_of_the_api, "{row}");
        }
    }
}
