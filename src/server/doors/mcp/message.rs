//! The messages of MCP: JSON-RPC 2.0, one in each request, in two revisions of the protocol.
//!
//! In revision 2025-11-25 a client begins with `initialize`. In revision 2026-07-28 each request says its revision itself, and
//! names its method and its target in headers, too. There are no sessions in either: a request is understood from itself.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};
use tonic::Code;
use tonic::codegen::http::{HeaderMap, StatusCode};

use crate::server::refusal::{HttpFault, Refusal};
use crate::strict_json;

/// The deepest nesting of a message: a filter of 8 levels, each of which is three objects or lists, inside the arguments of a
/// call inside the message. Our own requests have the same limit without these levels.
const DEPTH_MAX: usize = 68;
/// The key of `_meta` that tells the revision of a request.
const REVISION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
/// The key of `_meta` that tells what the client can do.
pub(super) const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
const REVISION_HEADER: &str = "mcp-protocol-version";
const METHOD_HEADER: &str = "mcp-method";
const NAME_HEADER: &str = "mcp-name";
/// The marks around the value of a header that is encoded in base64.
const ENCODED_HEAD: &str = "=?base64?";
const ENCODED_TAIL: &str = "?=";

const PARSE_ERROR: i64 = -32_700;
const INVALID_REQUEST: i64 = -32_600;
const METHOD_NOT_FOUND: i64 = -32_601;
pub(super) const INVALID_PARAMS: i64 = -32_602;
pub(super) const INTERNAL_ERROR: i64 = -32_603;
/// The code of 2025-11-25 for a resource that is not there. The newer revision has `INVALID_PARAMS` for it.
pub(super) const NO_RESOURCE: i64 = -32_002;
const HEADER_MISMATCH: i64 = -32_020;
const UNSUPPORTED_REVISION: i64 = -32_022;
/// The code for a caller who is not let in. The protocol leaves the numbers around it to servers; the HTTP status tells clients
/// what to do.
pub(super) const NOT_LET_IN: i64 = -32_000;

/// The longest id of a request in bytes. Its answer repeats it, also where the caller is not let in.
const ID_BYTES_MAX: usize = 256;
/// The longest name of a revision that a fault repeats, in characters. Real ones are dates.
const REVISION_CHARS_MAX: usize = 64;
/// The end of a response that [`before_result`] begins.
pub(super) const AFTER_RESULT: &str = "}";

/// A revision of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Revision {
    /// 2025-11-25, which begins with a handshake.
    Handshake,
    /// 2026-07-28, in which each request stands for itself.
    Stateless,
}

impl Revision {
    /// All revisions that are served, the newest first.
    pub(super) const ALL: [Self; 2] = [Self::Stateless, Self::Handshake];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "2025-11-25",
            Self::Stateless => "2026-07-28",
        }
    }

    /// Writes a result, with the member that the revision demands of each result.
    pub(super) fn result(self, mut result: Map<String, Json>) -> Json {
        if self == Self::Stateless {
            result.insert("resultType".to_owned(), "complete".into());
        }
        Json::Object(result)
    }
}

/// The id of a request, which its answer repeats: a text or an integer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Json);

impl RequestId {
    /// Reads an id. `None` if the value is neither an integer nor a text of a size that answers repeat.
    pub(super) fn of(value: Json) -> Option<Self> {
        let is_integer = value.is_i64() || value.is_u64();
        let is_short = value.as_str().is_some_and(|text| text.len() <= ID_BYTES_MAX);
        (is_integer || is_short).then_some(Self(value))
    }
}

/// One message of a client.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Message {
    /// `None` for a notification, which nobody answers.
    pub(super) id: Option<RequestId>,
    pub(super) revision: Revision,
    pub(super) method: String,
    pub(super) params: Map<String, Json>,
}

/// A fault of a message, as its sender is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    /// `None` if the fault lies in front of the id.
    pub(super) id: Option<RequestId>,
    pub(super) status: StatusCode,
    /// The code of JSON-RPC.
    pub(super) code: i64,
    /// The reason. Its own code stands in the record.
    pub(super) why: Refusal,
    pub(super) data: Option<Json>,
}

impl Fault {
    /// Returns the fault of a message that is wrong in itself.
    pub(super) fn new(code: i64, text: impl Into<Cow<'static, str>>) -> Self {
        Self::of(code, Refusal::new(Code::InvalidArgument, text))
    }

    /// Returns the fault for a reason, with the status that it has at other doors.
    fn of(code: i64, why: Refusal) -> Self {
        Self { id: None, status: why.http_status(), code, why, data: None }
    }

    /// Returns the fault of a message that is larger than the door takes.
    pub(super) fn too_large() -> Self {
        let why = Refusal::new(Code::ResourceExhausted, "the message is too large").with_http_fault(HttpFault::Size);
        Self::of(INVALID_REQUEST, why)
    }

    /// Returns the fault of a request whose id is that of a call which still runs. It does not repeat the id: one answer with
    /// this id is on its way.
    pub(super) fn id_in_use() -> Self {
        Self::new(INVALID_REQUEST, "a call with this id still runs, so this one is not made")
    }

    /// Returns the fault of a message that was not read: too many others are, or it takes too long to arrive.
    pub(super) fn not_taken(why: Refusal) -> Self {
        Self::of(INTERNAL_ERROR, why)
    }

    /// Returns the fault of a message that broke off.
    pub(super) fn broken_off(text: String) -> Self {
        Self::new(PARSE_ERROR, text)
    }

    /// Returns the fault of a request for a method that this server does not have.
    pub(super) fn no_method(message: &Message) -> Self {
        let status = match message.revision {
            Revision::Stateless => StatusCode::NOT_FOUND,
            // Clients of this revision take 404 for the end of their session.
            Revision::Handshake => StatusCode::OK,
        };
        let why = Refusal::new(Code::Unimplemented, "there is no such method here");
        Self { id: message.id.clone(), status, ..Self::of(METHOD_NOT_FOUND, why) }
    }

    /// Returns the fault of a call of a tool that is not there, or not there for its caller.
    pub(super) fn no_tool(id: RequestId, revision: Revision) -> Self {
        let status = match revision {
            Revision::Stateless => StatusCode::BAD_REQUEST,
            Revision::Handshake => StatusCode::OK,
        };
        Self { id: Some(id), status, ..Self::new(INVALID_PARAMS, "there is no tool of this name") }
    }

    /// Returns whether a refusal of the stack is this fault, and not one of its caller.
    pub(super) fn is(&self, refusal: &Refusal) -> bool {
        refusal.code() == self.why.code() && refusal.text() == self.why.text()
    }

    /// Writes the fault as a response of JSON-RPC.
    pub(super) fn response(&self) -> Json {
        failed(self.id.as_ref(), self.code, self.why.text(), self.data.clone())
    }
}

/// Writes the response to a request up to its result. [`AFTER_RESULT`] ends the response.
pub(super) fn before_result(RequestId(id): &RequestId) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"#)
}

/// Writes a result as the response to a request.
pub(super) fn succeeded(id: &RequestId, result: &Json) -> Json {
    json!({ "jsonrpc": "2.0", "id": id.0, "result": result })
}

/// Writes an error as the response to a request.
pub(super) fn failed(id: Option<&RequestId>, code: i64, text: &str, data: Option<Json>) -> Json {
    let mut error = json!({ "code": code, "message": text });
    if let (Json::Object(error), Some(data)) = (&mut error, data) {
        error.insert("data".to_owned(), data);
    }
    let mut response = json!({ "jsonrpc": "2.0", "error": error });
    if let (Json::Object(response), Some(RequestId(id))) = (&mut response, id) {
        response.insert("id".to_owned(), id.clone());
    }
    response
}

impl Message {
    /// Reads the message of a request from its body and its headers. Without HTTP there are no headers.
    ///
    /// # Errors
    /// When the body is not one message, or the headers say something else than the message.
    pub(super) fn read(body: &[u8], headers: Option<&HeaderMap>) -> Result<Self, Fault> {
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            return Err(Fault::new(INVALID_REQUEST, "batches are not taken: send one message in each request"));
        }
        let mut object = strict_json::object(body, DEPTH_MAX)
            .map_err(|error| Fault::new(PARSE_ERROR, format!("the body is not a message in JSON: {error}")))?;
        let wrong = |text: &'static str| Fault::new(INVALID_REQUEST, text);
        let id = match object.remove("id") {
            None => None,
            Some(id) => Some(RequestId::of(id).ok_or_else(|| {
                let text = format!("`id` is neither an integer nor a text of at most {ID_BYTES_MAX} bytes");
                Fault::new(INVALID_REQUEST, text)
            })?),
        };
        let of_request = |fault: Fault| Fault { id: id.clone(), ..fault };
        if object.get("jsonrpc").and_then(Json::as_str) != Some("2.0") {
            return Err(of_request(wrong("`jsonrpc` is not \"2.0\"")));
        }
        let Some(Json::String(method)) = object.remove("method") else {
            return Err(of_request(wrong(
                "`method` is not a text; this server asks clients for nothing, so it takes no responses",
            )));
        };
        let params = match object.remove("params") {
            None => Map::new(),
            Some(Json::Object(params)) => params,
            Some(_) => return Err(of_request(wrong("`params` is not an object"))),
        };
        let revision = revision(&params, &method, headers).map_err(of_request)?;
        let message = Self { id, revision, method, params };
        if let Some(headers) = headers
            && revision == Revision::Stateless
            && message.id.is_some()
        {
            message.check_headers(headers).map_err(|fault| Fault { id: message.id.clone(), ..fault })?;
        }
        Ok(message)
    }

    /// Refuses a message whose headers say something else. A proxy in between may decide by the headers, so they must say what
    /// this server reads.
    fn check_headers(&self, headers: &HeaderMap) -> Result<(), Fault> {
        if only(headers, METHOD_HEADER)? != Some(self.method.as_str()) {
            return Err(mismatch(METHOD_HEADER));
        }
        let target = match self.method.as_str() {
            "tools/call" => self.params.get("name"),
            "resources/read" => self.params.get("uri"),
            _ => return Ok(()),
        };
        let named = only(headers, NAME_HEADER)?.map(decoded).ok_or_else(|| mismatch(NAME_HEADER))?;
        if named.is_none() || named.as_deref() != target.and_then(Json::as_str) {
            return Err(mismatch(NAME_HEADER));
        }
        Ok(())
    }
}

/// Finds the revision in which a message is written.
fn revision(params: &Map<String, Json>, method: &str, headers: Option<&HeaderMap>) -> Result<Revision, Fault> {
    let in_header = match headers {
        Some(headers) => only(headers, REVISION_HEADER)?,
        None => None,
    };
    let meta = params.get("_meta");
    let in_meta = meta.and_then(|meta| meta.get(REVISION_KEY));
    match (in_meta, in_header) {
        (Some(Json::String(told)), in_header) => {
            if headers.is_some() && in_header != Some(told.as_str()) {
                return Err(mismatch(REVISION_HEADER));
            }
            if told != Revision::Stateless.as_str() {
                return Err(unsupported(told));
            }
            if !meta.and_then(|meta| meta.get(CAPABILITIES_KEY)).is_some_and(Json::is_object) {
                return Err(Fault::new(INVALID_PARAMS, format!("`_meta` lacks `{CAPABILITIES_KEY}`")));
            }
            Ok(Revision::Stateless)
        }
        (Some(_), _) => Err(Fault::new(INVALID_PARAMS, format!("`{REVISION_KEY}` is not a text"))),
        // The handshake settles the revision, whatever revision the header names.
        (None, _) if method == "initialize" => Ok(Revision::Handshake),
        (None, None) => Ok(Revision::Handshake),
        (None, Some(told)) if told == Revision::Handshake.as_str() => Ok(Revision::Handshake),
        (None, Some(told)) if told == Revision::Stateless.as_str() => Err(mismatch(REVISION_HEADER)),
        (None, Some(told)) => Err(unsupported(told)),
    }
}

fn unsupported(requested: &str) -> Fault {
    let supported = Revision::ALL.map(Revision::as_str);
    let requested: String = requested.chars().take(REVISION_CHARS_MAX).collect();
    let data = Some(json!({ "supported": supported, "requested": requested }));
    Fault { data, ..Fault::new(UNSUPPORTED_REVISION, "this revision of the protocol is not served") }
}

fn mismatch(name: &str) -> Fault {
    Fault::new(HEADER_MISMATCH, format!("the header `{name}` and the message do not say the same"))
}

/// Returns the value of a header, which may occur once.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Fault> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_not_text| mismatch(name)),
        (Some(_), Some(_)) => Err(mismatch(name)),
    }
}

/// Decodes the value of a header if it is encoded; `None` if its encoding is wrong.
fn decoded(value: &str) -> Option<String> {
    let encoded = value.strip_prefix(ENCODED_HEAD).and_then(|rest| rest.strip_suffix(ENCODED_TAIL));
    match encoded {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPABLE: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

    fn headers(values: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn code(body: &str, named: &[(&'static str, &str)]) -> Result<Revision, i64> {
        let read = Message::read(body.as_bytes(), Some(&headers(named)));
        read.map(|message| message.revision).map_err(|fault| fault.code)
    }

    #[test]
    fn a_body_is_one_message() {
        let deep = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":{}{}}}}}"#,
            "[".repeat(70),
            "]".repeat(70)
        );
        let with_id = |bytes| format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#, "a".repeat(bytes));
        let (long_id, longer_id) = (with_id(ID_BYTES_MAX), with_id(ID_BYTES_MAX + 1));
        let rows = [
            ("a request", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Ok(Revision::Handshake)),
            ("a notification", r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#, Ok(Revision::Handshake)),
            ("nothing", "", Err(PARSE_ERROR)),
            ("no JSON", "ping", Err(PARSE_ERROR)),
            ("two messages", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}{}"#, Err(PARSE_ERROR)),
            ("a batch", r#" [{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, Err(INVALID_REQUEST)),
            ("an empty batch", "[]", Err(INVALID_REQUEST)),
            ("a doubled name", r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#, Err(PARSE_ERROR)),
            ("deep nesting", deep.as_str(), Err(PARSE_ERROR)),
            ("another protocol", r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, Err(INVALID_REQUEST)),
            ("no id at all, by `null`", r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, Err(INVALID_REQUEST)),
            ("a long id", long_id.as_str(), Ok(Revision::Handshake)),
            ("an id of a byte more", longer_id.as_str(), Err(INVALID_REQUEST)),
            ("an id of a list", r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#, Err(INVALID_REQUEST)),
            ("an id with a fraction", r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, Err(INVALID_REQUEST)),
            ("a response", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Err(INVALID_REQUEST)),
            ("parameters in a list", r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, Err(INVALID_REQUEST)),
        ];
        for (row, body, expected) in rows {
            assert_eq!(code(body, &[]), expected, "{row}");
        }
    }

    /// The name of a row, the body, the headers, and the revision or the code of the fault.
    type RevisionRow<'a> = (&'a str, &'a str, &'a [(&'static str, &'a str)], Result<Revision, i64>);

    #[test]
    fn a_request_is_in_one_revision() {
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2024-11-05"}}"#;
        let stateless = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{CAPABLE}}}}}"#);
        let incapable = stateless.replace("clientCapabilities\":{}", "clientCapabilities\":1");
        let other = stateless.replace("2026-07-28", "2099-01-01");
        let new = ("mcp-protocol-version", "2026-07-28");
        let listed = ("mcp-method", "tools/list");
        let rows: [RevisionRow<'_>; 11] = [
            ("no word of it", ping, &[], Ok(Revision::Handshake)),
            ("the older one", ping, &[("mcp-protocol-version", "2025-11-25")], Ok(Revision::Handshake)),
            ("the handshake", initialize, &[], Ok(Revision::Handshake)),
            ("an unknown one", ping, &[("mcp-protocol-version", "2024-11-05")], Err(UNSUPPORTED_REVISION)),
            ("the newer one in the header alone", ping, &[new], Err(HEADER_MISMATCH)),
            ("the newer one", &stateless, &[new, listed], Ok(Revision::Stateless)),
            ("the newer one in the message alone", &stateless, &[listed], Err(HEADER_MISMATCH)),
            ("two headers", &stateless, &[new, new, listed], Err(HEADER_MISMATCH)),
            ("another method in the header", &stateless, &[new, ("mcp-method", "ping")], Err(HEADER_MISMATCH)),
            ("no capabilities", &incapable, &[new, listed], Err(INVALID_PARAMS)),
            ("one of the future", &other, &[("mcp-protocol-version", "2099-01-01"), listed], Err(UNSUPPORTED_REVISION)),
        ];
        for (row, body, named, expected) in rows {
            assert_eq!(code(body, named), expected, "{row}");
        }
    }

    #[test]
    fn a_message_without_headers_says_its_revision_itself() {
        let stateless = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{CAPABLE}}}}}"#);
        let rows = [
            ("no word of it", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.to_owned(), Ok(Revision::Handshake)),
            ("the newer one", stateless.clone(), Ok(Revision::Stateless)),
            ("one of the future", stateless.replace("2026-07-28", "2099-01-01"), Err(UNSUPPORTED_REVISION)),
        ];
        for (row, body, expected) in rows {
            let read = Message::read(body.as_bytes(), None);
            assert_eq!(read.map(|message| message.revision).map_err(|fault| fault.code), expected, "{row}");
        }
    }

    #[test]
    fn the_header_names_the_tool_that_is_called() {
        let call =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"search",{CAPABLE}}}}}"#);
        let rows: [(&str, &[&str], Result<Revision, i64>); 6] = [
            ("the same", &["search"], Ok(Revision::Stateless)),
            ("the same, encoded", &["=?base64?c2VhcmNo?="], Ok(Revision::Stateless)),
            ("another", &["fetch"], Err(HEADER_MISMATCH)),
            ("a wrong encoding", &["=?base64?!?="], Err(HEADER_MISMATCH)),
            ("none", &[], Err(HEADER_MISMATCH)),
            ("two", &["search", "search"], Err(HEADER_MISMATCH)),
        ];
        for (row, names, expected) in rows {
            let mut named = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call")];
            named.extend(names.iter().map(|name| ("mcp-name", *name)));
            assert_eq!(code(&call, &named), expected, "{row}");
        }
    }

    #[test]
    fn a_fault_repeats_the_id_that_it_knows() {
        let fault = Message::read(br#"{"jsonrpc":"1.0","id":"a","method":"ping"}"#, None).unwrap_err();
        assert_eq!(fault.response()["id"], "a");
        let fault = Message::read(b"[]", None).unwrap_err();
        assert_eq!(fault.response().get("id"), None);
        let old = headers(&[("mcp-protocol-version", "2024-11-05")]);
        let fault = Message::read(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Some(&old)).unwrap_err();
        let told = json!({ "supported": ["2026-07-28", "2025-11-25"], "requested": "2024-11-05" });
        assert_eq!(fault.response()["error"]["data"], told);
    }
}
