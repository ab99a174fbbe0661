//! The Connect protocol: how it names its requests, and how it says that a call was refused.
//!
//! Specification: <https://connectrpc.com/docs/protocol>. Our own HTTP routes refuse in the same JSON, so a client needs one
//! reader of errors.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use prost::Message;
use serde_json::{Value as Json, json};
use tonic::Code;
use tonic::codegen::Bytes;
use tonic::codegen::http::HeaderMap;
use tonic_types::pb;

use super::frames;
use crate::server::audit::code_name;
use crate::server::grpc;
use crate::server::refusal::Refusal;

/// The mark of the envelope that ends a stream.
const END_OF_STREAM: u8 = 0b10;
/// The mark of an envelope whose message is compressed.
const COMPRESSED: u8 = 0b1;
const TYPE_URL_HEAD: &str = "type.googleapis.com/";
/// The largest wait that `grpc-timeout` can say in milliseconds: eight digits.
const TIMEOUT_MAX: Duration = Duration::from_millis(99_999_999);

/// The encoding of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Json,
    Proto,
}

/// A kind of call, which its content type tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One message each way, as bodies of their own.
    Unary(Codec),
    /// Messages in envelopes.
    Stream(Codec),
}

impl Kind {
    /// Returns the kind of call that a content type without parameters stands for.
    pub(super) fn of(content_type: &str) -> Option<Self> {
        [
            ("application/json", Self::Unary(Codec::Json)),
            ("application/proto", Self::Unary(Codec::Proto)),
            ("application/connect+json", Self::Stream(Codec::Json)),
            ("application/connect+proto", Self::Stream(Codec::Proto)),
        ]
        .into_iter()
        .find_map(|(name, kind)| name.eq_ignore_ascii_case(content_type).then_some(kind))
    }

    /// Returns the content type of its answers.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Unary(Codec::Json) => "application/json",
            Self::Unary(Codec::Proto) => "application/proto",
            Self::Stream(Codec::Json) => "application/connect+json",
            Self::Stream(Codec::Proto) => "application/connect+proto",
        }
    }
}

/// Returns how long a caller waits, from the header `connect-timeout-ms`.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("connect-timeout-ms")?.to_str().ok()?;
    // The specification allows ten digits.
    if text.len() > 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Duration::from_millis(text.parse().ok()?).min(TIMEOUT_MAX))
}

/// Returns the one message in the envelopes of a request.
///
/// # Errors
/// When there is not exactly one plain envelope.
pub(super) fn opened(body: &Bytes) -> Result<Bytes, Refusal> {
    let wrong = |text: &'static str| Refusal::new(Code::InvalidArgument, text);
    let head = body.get(..frames::HEAD_BYTES).ok_or_else(|| wrong("the body lacks the envelope of its message"))?;
    let ([mark, ..], Some(length)) = (head, head.get(1..).and_then(|length| length.try_into().ok())) else {
        return Err(wrong("the body lacks the envelope of its message"));
    };
    if mark & COMPRESSED != 0 {
        return Err(Refusal::new(Code::Unimplemented, "compressed messages are not taken"));
    }
    let message = body.slice(frames::HEAD_BYTES..);
    if u32::from_be_bytes(length) as usize != message.len() {
        return Err(wrong("the body is not exactly one envelope"));
    }
    Ok(message)
}

/// Returns the envelope that ends a stream.
pub(super) fn end_of_stream(refusal: Option<&Refusal>) -> Bytes {
    let end = refusal.map_or_else(|| json!({}), |refusal| json!({ "error": error(refusal) }));
    // Its length is far below the limit.
    frames::marked(END_OF_STREAM, end.to_string().as_bytes()).unwrap_or_default()
}

/// Returns a refusal as the JSON of a Connect error.
pub(super) fn error(refusal: &Refusal) -> Json {
    let mut error = json!({ "code": name(refusal.code()), "message": refusal.text() });
    let details = details(refusal);
    if let (Json::Object(error), false) = (&mut error, details.is_empty()) {
        error.insert("details".to_owned(), details.into());
    }
    error
}

fn details(refusal: &Refusal) -> Vec<Json> {
    let status = grpc::status(refusal);
    let Ok(status) = pb::Status::decode(status.details()) else { return Vec::new() };
    let detail = |any: prost_types::Any| {
        let name = any.type_url.strip_prefix(TYPE_URL_HEAD).unwrap_or(&any.type_url).to_owned();
        json!({ "type": name, "value": STANDARD_NO_PAD.encode(&any.value), "debug": shown(&name, &any.value) })
    };
    status.details.into_iter().map(detail).collect()
}

/// Returns the detail for people who read the JSON.
fn shown(name: &str, value: &[u8]) -> Json {
    match name {
        "google.rpc.ErrorInfo" => pb::ErrorInfo::decode(value).map_or(Json::Null, |info| error_info(&info)),
        "google.rpc.BadRequest" => pb::BadRequest::decode(value).map_or(Json::Null, |bad| {
            let fields = bad.field_violations.iter();
            let fields: Vec<Json> = fields
                .map(|violation| json!({ "field": violation.field, "description": violation.description }))
                .collect();
            json!({ "fieldViolations": fields })
        }),
        "google.rpc.RetryInfo" => pb::RetryInfo::decode(value).map_or(Json::Null, |retry| {
            let delay = retry.retry_delay.unwrap_or_default();
            json!({ "retryDelay": format!("{}.{:09}s", delay.seconds, delay.nanos) })
        }),
        _ => Json::Null,
    }
}

fn error_info(info: &pb::ErrorInfo) -> Json {
    let mut shown = json!({ "reason": info.reason, "domain": info.domain });
    if let (Json::Object(shown), false) = (&mut shown, info.metadata.is_empty()) {
        let facts: serde_json::Map<String, Json> =
            info.metadata.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        shown.insert("metadata".to_owned(), facts.into());
    }
    shown
}

/// Spells a code as Connect does.
pub(super) fn name(code: Code) -> String {
    // Connect has one `l` fewer than gRPC.
    if code == Code::Cancelled { "canceled".to_owned() } else { code_name(code).to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::FieldViolation;

    #[test]
    fn a_refusal_is_whole_in_its_json() {
        let refusal =
            Refusal::invalid(vec![FieldViolation::new("top_k", "is 0")]).with_retry_after(Duration::from_secs(7));
        let error = error(&refusal);
        assert_eq!((&error["code"], &error["message"]), (&json!("invalid_argument"), &json!(refusal.text())));
        let debug = |name: &str| {
            let details = error["details"].as_array().unwrap();
            details.iter().find(|detail| detail["type"] == name).map(|detail| detail["debug"].clone()).unwrap()
        };
        assert_eq!(debug("google.rpc.ErrorInfo"), json!({ "reason": "INVALID_ARGUMENT", "domain": "ragward" }));
        let violation = json!({ "fieldViolations": [{ "field": "top_k", "description": "is 0" }] });
        assert_eq!(debug("google.rpc.BadRequest"), violation);
        assert_eq!(debug("google.rpc.RetryInfo"), json!({ "retryDelay": "7.000000000s" }));
    }

    #[test]
    fn the_facts_of_a_refusal_are_in_its_json() {
        let refusal = Refusal::new(Code::PermissionDenied, "no").with_reason("APPROVAL_REQUIRED");
        let error = error(&refusal.with_fact("authorization_details", "[1]".to_owned()));
        let expected = json!({
            "reason": "APPROVAL_REQUIRED", "domain": "ragward", "metadata": { "authorization_details": "[1]" },
        });
        assert_eq!(error["details"][0]["debug"], expected);
    }

    #[test]
    fn the_callers_timeout_is_read() {
        let rows = [
            ("1500", Some(1_500)),
            ("0", Some(0)),
            ("9999999999", Some(99_999_999)),
            ("10000000000", None),
            ("-1", None),
            ("1.5", None),
        ];
        for (text, expected) in rows {
            let mut headers = HeaderMap::new();
            headers.insert("connect-timeout-ms", text.parse().unwrap());
            assert_eq!(timeout(&headers), expected.map(Duration::from_millis), "{text}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn a_request_is_one_plain_envelope() {
        let rows: [(&str, &[u8], Result<&str, Code>); 6] = [
            ("one", b"\0\0\0\0\x02ab", Ok("ab")),
            ("an empty message", b"\0\0\0\0\0", Ok("")),
            ("nothing", b"", Err(Code::InvalidArgument)),
            ("a short one", b"\0\0\0\0\x02a", Err(Code::InvalidArgument)),
            ("two", b"\0\0\0\0\0\0\0\0\0\0", Err(Code::InvalidArgument)),
            ("a compressed one", b"\x01\0\0\0\x02ab", Err(Code::Unimplemented)),
        ];
        for (row, body, expected) in rows {
            let found = opened(&Bytes::from_static(body)).map_err(|refusal| refusal.code());
            assert_eq!(found, expected.map(|text| Bytes::from_static(text.as_bytes())), "{row}");
        }
    }
}
