//! Renders refusals for requests that are not gRPC: an HTTP status and a JSON body.
//!
//! A gRPC status stands in headers under a `200 OK`, which a client of another protocol would take for success.

use http_body_util::Full;
use serde_json::json;
use tonic::body::Body;
use tonic::codegen::http::{self, HeaderMap, HeaderValue, header};

use super::audit::code_name;
use super::consistency_token;
use super::refusal::{HttpFault, Refusal};

/// Whether a response to a request may have a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyAllowed {
    Yes,
    /// The request was `HEAD`. Over HTTP/2 a body would break the protocol.
    No,
}

impl BodyAllowed {
    pub(super) fn by(method: &http::Method) -> Self {
        if *method == http::Method::HEAD { Self::No } else { Self::Yes }
    }
}

/// Returns the response that refuses a request.
pub(super) fn refused(refusal: &Refusal, body_allowed: BodyAllowed) -> http::Response<Body> {
    let message = if refusal.text().is_empty() { "nothing is served at this path" } else { refusal.text() };
    let body = json!({ "code": code_name(refusal.code()).to_ascii_lowercase(), "message": message });
    let mut response = http::Response::new(match body_allowed {
        BodyAllowed::Yes => Body::new(Full::from(body.to_string())),
        BodyAllowed::No => Body::empty(),
    });
    *response.status_mut() = refusal.http_status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    harden(headers);
    if let Some(challenge) = refusal.challenge().and_then(|challenge| HeaderValue::from_str(challenge).ok()) {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(HttpFault::Method { allowed }) = refusal.http_fault() {
        headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    if let Some(token) = refusal.consistency_token() {
        headers.insert(consistency_token::HEADER, token.clone());
    }
    response
}

/// Keeps browsers from storing a response, and from reading it as anything but what it is.
pub(super) fn harden(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
