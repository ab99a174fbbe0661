//! Renders refusals for requests that are not gRPC: an HTTP status and a JSON body.
//!
//! A gRPC status stands in headers under a `200 OK`, which a client of another protocol would take for success.

use http_body_util::Full;
use serde_json::json;
use tonic::body::Body;
use tonic::codegen::http::{self, HeaderMap, HeaderValue, header};

use super::audit::code_name;
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

/// Returns the response that refuses a request. It has no consistency token: the request could not have read anything.
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
    response
}

/// Keeps browsers from storing a response, and from reading it as anything but what it is.
pub(super) fn harden(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::server::consistency_token;

    #[test]
    fn a_refusal_says_how_to_ask_and_has_no_consistency_token() {
        let token = Some(HeaderValue::from_static("token"));
        let method = HttpFault::Method { allowed: "POST" };
        let rows = [
            ("no token", Refusal::new(Code::Unauthenticated, "no").with_challenge("Bearer".to_owned()), 401),
            ("no such path", Refusal::new(Code::NotFound, "no"), 404),
            ("a wrong method", Refusal::new(Code::Unimplemented, "no").with_http_fault(method), 405),
            ("a wrong type", Refusal::new(Code::InvalidArgument, "no").with_http_fault(HttpFault::MediaType), 415),
        ];
        for (row, refusal, status) in rows {
            let response = refused(&refusal.with_consistency_token(token.clone()), BodyAllowed::Yes);
            let headers = response.headers();
            assert_eq!(response.status().as_u16(), status, "{row}");
            assert!(!headers.contains_key(consistency_token::HEADER), "{row}: {headers:?}");
            assert_eq!(headers.contains_key(header::WWW_AUTHENTICATE), status == 401, "{row}");
            assert_eq!(headers.contains_key(header::ALLOW), status == 405, "{row}");
        }
    }
}
