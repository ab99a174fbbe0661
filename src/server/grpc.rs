//! Renders refusals as gRPC statuses, in headers and in the trailers of streams.

use std::collections::HashMap;

use http_body_util::BodyExt;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic_types::{ErrorDetails, StatusExt};

use super::consistency_token;
use super::refusal::{NONCE_HEADER, OPENFGA_NUMBER_HEADER, Refusal};

/// The domain of Ragward's reasons (`google.rpc.ErrorInfo.domain`).
const DOMAIN: &str = "ragward";
const CHALLENGE_HEADER: &str = "www-authenticate";
const STATUS_HEADER: &str = "grpc-status";

/// Returns the response that refuses a gRPC call.
pub(super) fn refused(refusal: &Refusal) -> http::Response<Body> {
    let mut response = status(refusal).into_http::<Body>();
    if let Some(number) = refusal.openfga_number() {
        // `OpenFGA` sends its numbers (2000 and up) as the status itself; tonic's `Status` has room for gRPC's 17 codes only.
        response.headers_mut().insert(STATUS_HEADER, number.into());
    }
    if let Some(token) = refusal.consistency_token() {
        response.headers_mut().insert(consistency_token::HEADER, token.clone());
    }
    response
}

/// Returns a refusal as a gRPC status, with its details.
pub(super) fn status(refusal: &Refusal) -> Status {
    let mut metadata = MetadataMap::new();
    if let Some(challenge) = refusal.challenge().and_then(|challenge| MetadataValue::try_from(challenge).ok()) {
        metadata.insert(CHALLENGE_HEADER, challenge);
    }
    if let Some(challenge) = refusal.other_challenge().and_then(|challenge| MetadataValue::try_from(challenge).ok()) {
        metadata.append(CHALLENGE_HEADER, challenge);
    }
    if let Some(nonce) = refusal.proof_nonce().and_then(|nonce| MetadataValue::try_from(nonce.as_bytes()).ok()) {
        metadata.insert(NONCE_HEADER, nonce);
    }
    let Some(reason) = refusal.reason() else {
        return Status::with_metadata(refusal.code(), refusal.text(), metadata);
    };
    let mut details = ErrorDetails::new();
    let facts: HashMap<String, String> =
        refusal.facts().iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    details.set_error_info(reason, DOMAIN, facts);
    for violation in refusal.violations() {
        details.add_bad_request_violation(&violation.field, &violation.description);
    }
    if let Some(retry_after) = refusal.retry_after() {
        details.set_retry_info(Some(retry_after));
    }
    Status::with_error_details_and_metadata(refusal.code(), refusal.text(), details, metadata)
}

/// Puts `OpenFGA`'s number of a refusal into the trailers of a stream that was refused with one.
pub(super) fn streamed(response: http::Response<Body>) -> http::Response<Body> {
    response.map(|body| {
        Body::new(body.map_frame(|mut frame| {
            if let Some(trailers) = frame.trailers_mut()
                && let Some(number) = trailers.remove(OPENFGA_NUMBER_HEADER)
            {
                trailers.insert(STATUS_HEADER, number);
            }
            frame
        }))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;

    use super::*;
    use crate::retrieval::FieldViolation;

    #[test]
    fn everything_that_a_refusal_says_is_in_its_status() {
        let refusal = Refusal::invalid(vec![FieldViolation::new("user", "is missing")])
            .with_retry_after(Duration::from_secs(7))
            .with_fact("authorization_details", "[]".to_owned())
            .with_challenge("Bearer error=\"invalid_token\"".to_owned());
        let response = refused(&refusal);
        assert_eq!(response.headers()[CHALLENGE_HEADER], "Bearer error=\"invalid_token\"");
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, refusal.text()));
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.metadata["authorization_details"].as_str()), ("INVALID_ARGUMENT", "[]"));
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "user");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(7)));
    }

    #[test]
    fn an_approval_is_read_back_from_its_status() {
        let asked = Refusal::new(Code::PermissionDenied, "approve").with_reason("APPROVAL_REQUIRED");
        let asked = asked.with_fact("authorization_details", "[1]".to_owned());
        assert_eq!(Refusal::from(&status(&asked)), asked);
    }

    #[test]
    fn two_schemes_and_a_nonce_are_in_the_headers() {
        let refusal = Refusal::new(Code::Unauthenticated, "no")
            .with_challenge("Bearer".to_owned())
            .with_other_challenge("DPoP".to_owned())
            .with_proof_nonce(http::HeaderValue::from_static("abc"));
        let response = refused(&refusal);
        let challenges: Vec<_> = response.headers().get_all(CHALLENGE_HEADER).iter().collect();
        assert_eq!(challenges, ["Bearer", "DPoP"]);
        assert_eq!(response.headers()[NONCE_HEADER], "abc");
    }

    #[test]
    fn openfgas_number_stands_in_the_place_of_the_code() {
        let response = refused(&Refusal::new(Code::InvalidArgument, "no").with_openfga_number(2017));
        assert_eq!(response.headers()[STATUS_HEADER], "2017");
        assert!(!response.headers().contains_key(OPENFGA_NUMBER_HEADER));
    }
}
