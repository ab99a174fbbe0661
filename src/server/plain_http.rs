//! The headers of answers over plain HTTP.

use tonic::codegen::http::{self, HeaderMap, HeaderValue, header};

use super::refusal::{HttpFault, NONCE_HEADER, Refusal};

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

/// Adds what a refusal tells in headers: the challenges, when to try again, and the methods of the path.
pub(super) fn explain(refusal: &Refusal, headers: &mut HeaderMap) {
    if let Some(challenge) = refusal.challenge().and_then(|challenge| HeaderValue::from_str(challenge).ok()) {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(challenge) = refusal.other_challenge().and_then(|challenge| HeaderValue::from_str(challenge).ok()) {
        headers.append(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(nonce) = refusal.proof_nonce() {
        headers.insert(NONCE_HEADER, nonce.clone());
    }
    if let Some(retry_after) = refusal.retry_after() {
        // Whole seconds, rounded up, so that nobody comes too early.
        let seconds = u64::try_from(retry_after.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1);
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if let Some(HttpFault::Method { allowed }) = refusal.http_fault()
        && let Ok(allowed) = HeaderValue::from_str(allowed)
    {
        headers.insert(header::ALLOW, allowed);
    }
}

/// Keeps browsers from storing a response, and from reading it as anything but what it is.
pub(super) fn harden(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;

    use super::*;

    #[test]
    fn a_refusal_says_in_headers_what_to_do() {
        let plain = || Refusal::new(Code::Unauthenticated, "no");
        let method = HttpFault::Method { allowed: "GET, PUT".into() };
        let rows = [
            ("nothing to say", plain(), None),
            ("a challenge", plain().with_challenge("Bearer".to_owned()), Some((header::WWW_AUTHENTICATE, "Bearer"))),
            (
                "a nonce",
                plain().with_proof_nonce(HeaderValue::from_static("abc")),
                Some((http::HeaderName::from_static(NONCE_HEADER), "abc")),
            ),
            ("other methods", plain().with_http_fault(method), Some((header::ALLOW, "GET, PUT"))),
            ("a wait", plain().with_retry_after(Duration::from_millis(1_001)), Some((header::RETRY_AFTER, "2"))),
            ("a short wait", plain().with_retry_after(Duration::ZERO), Some((header::RETRY_AFTER, "1"))),
        ];
        for (row, refusal, expected) in rows {
            let mut headers = HeaderMap::new();
            explain(&refusal, &mut headers);
            let found = headers.iter().next().map(|(name, value)| (name.clone(), value.to_str().unwrap()));
            assert_eq!(found, expected, "{row}");
        }
        let mut headers = HeaderMap::new();
        let either = plain().with_challenge("Bearer".to_owned()).with_other_challenge("DPoP".to_owned());
        explain(&either, &mut headers);
        let challenges: Vec<&HeaderValue> = headers.get_all(header::WWW_AUTHENTICATE).iter().collect();
        assert_eq!(challenges, ["Bearer", "DPoP"], "two schemes to choose from");
    }
}
