//! The moment by which a request must be answered.

use std::time::Duration;

use tokio::time::Instant;
use tonic::codegen::http::{HeaderMap, Request};
use tonic::metadata::MetadataMap;

/// Returns the moment by which a call with this metadata must be answered: the server's own limit, or the caller's
/// `grpc-timeout` if that ends earlier.
pub(super) fn deadline(metadata: &MetadataMap, request_timeout: Duration) -> Instant {
    of_headers(metadata.as_ref(), request_timeout)
}

/// Like [`deadline`], for the headers of a request.
pub(super) fn of_headers(headers: &HeaderMap, request_timeout: Duration) -> Instant {
    Instant::now() + asked(headers).map_or(request_timeout, |asked| asked.min(request_timeout))
}

/// The moment by which the caller of a request wants its answer. It goes with a request whose caller waited before the stack
/// was called.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerBy(pub(super) Instant);

/// Returns the moment at which the caller of a request stops waiting; `None` if it does not say.
pub(super) fn answer_by<B>(request: &Request<B>) -> Option<Instant> {
    match request.extensions().get::<AnswerBy>() {
        Some(AnswerBy(moment)) => Some(*moment),
        None => asked(request.headers()).map(|asked| Instant::now() + asked),
    }
}

/// Returns how long the caller waits, if it says so.
pub(super) fn asked(headers: &HeaderMap) -> Option<Duration> {
    headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(grpc_timeout)
}

/// Reads a `grpc-timeout` header: up to 8 digits and a unit (gRPC over HTTP/2, section "Requests").
fn grpc_timeout(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_hours(amount)),
        "M" => Some(Duration::from_mins(amount)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_timeout_is_read() {
        let rows = [
            ("100m", Some(Duration::from_millis(100))),
            ("2S", Some(Duration::from_secs(2))),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("1n", Some(Duration::from_nanos(1))),
            ("123456789m", None),
            ("-1m", None),
            ("m", None),
            ("", None),
            ("1\u{b5}", None),
            ("10x", None),
        ];
        for (header, expected) in rows {
            assert_eq!(grpc_timeout(header), expected, "{header}");
        }
    }
}
