//! The answers to the protocol's own questions. They are the same for everybody whom the gate lets in, but for a tool that only
//! some may call. So they are written once, and all callers share the bytes: many callers who do not read their answers hold
//! little memory.

use std::array;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use serde_json::{Map, Value as Json, json};
use tonic::Status;
use tonic::codegen::Bytes;

use super::message::{self, Message, RequestId, Revision};
use super::tools::Action;
use super::{McpSettings, described};
use crate::server::operations::Callable;

/// The answers to all questions of the protocol's own.
#[derive(Debug)]
pub(super) struct OwnAnswers(Vec<OwnAnswer>);

/// The answer to one question in one revision.
#[derive(Debug)]
pub(super) struct OwnAnswer {
    method: &'static str,
    revision: Revision,
    /// The name of the question in the record.
    pub(super) name: &'static str,
    result: Bytes,
    /// The result for callers who may call `Explain`, if it is another one.
    explaining: Option<Bytes>,
}

/// The body of a response: the part that has the caller's id, the result, and the end.
#[derive(Debug)]
pub(super) struct OwnResponse(array::IntoIter<Bytes, 3>);

impl OwnAnswers {
    pub(super) fn new(settings: &McpSettings) -> Self {
        let mut answers = vec![
            OwnAnswer::new("initialize", Revision::Handshake, "mcp/initialize", initialized()),
            OwnAnswer::new("ping", Revision::Handshake, "mcp/ping", Map::new()),
            OwnAnswer::new("server/discover", Revision::Stateless, "mcp/discover", discovered()),
        ];
        for revision in Revision::ALL {
            // Nothing is enumerated: a list would tell what there is.
            let tools = listed(revision, "tools", described::tools());
            let tools = OwnAnswer::new("tools/list", revision, "mcp/tools/list", tools);
            let resources = listed(revision, "resources", json!([]));
            let templates = listed(revision, "resourceTemplates", described::templates());
            answers.extend([
                tools.explaining(settings.explain.then(|| listed(revision, "tools", described::tools_with_explain()))),
                OwnAnswer::new("resources/list", revision, "mcp/resources/list", resources),
                OwnAnswer::new("resources/templates/list", revision, "mcp/resources/templates/list", templates),
            ]);
        }
        Self(answers)
    }

    /// Returns the answer to a message; `None` if it is no question of the protocol's own.
    pub(super) fn to(&self, message: &Message) -> Option<&OwnAnswer> {
        self.0.iter().find(|answer| answer.method == message.method && answer.revision == message.revision)
    }
}

impl OwnAnswer {
    fn new(method: &'static str, revision: Revision, name: &'static str, result: Map<String, Json>) -> Self {
        Self { method, revision, name, result: revision.result(result).to_string().into(), explaining: None }
    }

    /// Gives callers who may call `Explain` another result, if there is one.
    fn explaining(self, result: Option<Map<String, Json>>) -> Self {
        let explaining = result.map(|result| self.revision.result(result).to_string().into());
        Self { explaining, ..self }
    }

    /// Returns the response to the request of this id. `callable` is what the gate tells of the caller.
    pub(super) fn response(&self, id: &RequestId, callable: Option<&Callable>) -> OwnResponse {
        let may_explain = callable.is_some_and(|callable| callable.has(Action::Explain.rpc()));
        let result = self.explaining.as_ref().filter(|_| may_explain).unwrap_or(&self.result).clone();
        let end = Bytes::from_static(message::AFTER_RESULT.as_bytes());
        OwnResponse([message::before_result(id).into(), result, end].into_iter())
    }
}

impl OwnResponse {
    /// Returns the whole response, for clients that get it without HTTP.
    pub(super) fn into_text(self) -> String {
        self.0.map(|piece| String::from_utf8_lossy(&piece).into_owned()).collect()
    }
}

impl Body for OwnResponse {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let bytes: usize = self.0.as_slice().iter().map(Bytes::len).sum();
        u64::try_from(bytes).map_or_else(|_too_large| SizeHint::default(), SizeHint::with_exact)
    }
}

fn server_info() -> Json {
    json!({ "name": "ragward", "title": "Ragward", "version": env!("CARGO_PKG_VERSION") })
}

fn capabilities() -> Json {
    json!({ "tools": {}, "resources": {} })
}

/// Returns the result of the handshake. A client that does not speak its revision ends the connection.
fn initialized() -> Map<String, Json> {
    let result = [
        ("protocolVersion".to_owned(), Json::from(Revision::Handshake.as_str())),
        ("capabilities".to_owned(), capabilities()),
        ("serverInfo".to_owned(), server_info()),
        ("instructions".to_owned(), Json::from(described::INSTRUCTIONS)),
    ];
    result.into_iter().collect()
}

fn discovered() -> Map<String, Json> {
    let result = [
        ("supportedVersions".to_owned(), json!(Revision::ALL.map(Revision::as_str))),
        ("capabilities".to_owned(), capabilities()),
        ("instructions".to_owned(), Json::from(described::INSTRUCTIONS)),
        ("_meta".to_owned(), json!({ "io.modelcontextprotocol/serverInfo": server_info() })),
    ];
    let mut result: Map<String, Json> = result.into_iter().collect();
    not_kept(&mut result);
    result
}

/// Returns the result that is one list.
pub(super) fn listed(revision: Revision, name: &str, list: Json) -> Map<String, Json> {
    let mut result = Map::new();
    result.insert(name.to_owned(), list);
    if revision == Revision::Stateless {
        not_kept(&mut result);
    }
    result
}

/// Says that nobody keeps a result for later, or for somebody else.
fn not_kept(result: &mut Map<String, Json>) {
    result.insert("ttlMs".to_owned(), 0.into());
    result.insert("cacheScope".to_owned(), "private".into());
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::identity::Scope;
    use crate::server::operations::Access;

    fn asked(id: usize) -> Message {
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list" });
        Message::read(message.to_string().as_bytes(), None).unwrap()
    }

    #[test]
    fn tools_are_listed_for_those_who_may_call_them() {
        let explains = McpSettings { explain: true, ..McpSettings::default() };
        let nobody = || Callable::by(|_access| false);
        let reader = || Callable::by(|access| access == Access::Needs(Scope::Retrieve));
        let operator = || Callable::by(|_access| true);
        let rows = [
            ("the tool is off", McpSettings::default(), Some(operator()), &["search", "fetch"][..]),
            ("who may", explains.clone(), Some(operator()), &["search", "fetch", "explain"]),
            ("who may not", explains.clone(), Some(reader()), &["search", "fetch"]),
            ("who may do nothing", explains.clone(), Some(nobody()), &["search", "fetch"]),
            ("whose rights nobody told", explains, None, &["search", "fetch"]),
        ];
        for (row, settings, callable, expected) in rows {
            let (answers, message) = (OwnAnswers::new(&settings), asked(1));
            let id = message.id.as_ref().unwrap();
            let answer = answers.to(&message).unwrap().response(id, callable.as_ref()).into_text();
            let answer: Json = serde_json::from_str(&answer).unwrap();
            let tools = answer["result"]["tools"].as_array().unwrap();
            let names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
            assert_eq!(names, expected, "{row}");
        }
    }

    #[tokio::test]
    async fn callers_share_the_bytes_of_an_answer() {
        let answers = OwnAnswers::new(&McpSettings::default());
        // Ten thousand answers that nobody has read yet.
        let unread: Vec<OwnResponse> = (0..10_000)
            .map(|number| {
                let message = asked(number);
                answers.to(&message).unwrap().response(message.id.as_ref().unwrap(), None)
            })
            .collect();
        let shared = answers.to(&asked(0)).unwrap().result.as_ptr();
        for response in &unread {
            let [own, result, end] = response.0.as_slice() else { panic!("three pieces") };
            assert_eq!(result.as_ptr(), shared, "nothing is copied");
            assert!(own.len() + end.len() < 64, "{own:?}");
        }
        let last = unread.into_iter().next_back().unwrap();
        let length = last.size_hint().exact().unwrap();
        let body = last.collect().await.unwrap().to_bytes();
        assert_eq!(u64::try_from(body.len()).unwrap(), length);
        let answer: Json = serde_json::from_slice(&body).unwrap();
        assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(9_999)));
        assert_eq!(answer["result"]["tools"], described::tools());
    }
}
