//! The answers to the protocol's own questions. They are the same for everybody whom the gate lets in, so they are written once,
//! and all callers share the bytes: many callers who do not read their answers hold little memory.

use std::array;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use serde_json::{Map, Value as Json, json};
use tonic::Status;
use tonic::codegen::Bytes;

use super::message::{self, Message, RequestId, Revision};
use super::{discovered, initialized, listed, tools};

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
}

/// The body of a response: the part that has the caller's id, the result, and the end.
#[derive(Debug)]
pub(super) struct OwnResponse(array::IntoIter<Bytes, 3>);

impl OwnAnswers {
    pub(super) fn new() -> Self {
        let mut answers = vec![
            OwnAnswer::new("initialize", Revision::Handshake, "mcp/initialize", initialized()),
            OwnAnswer::new("ping", Revision::Handshake, "mcp/ping", Map::new()),
            OwnAnswer::new("server/discover", Revision::Stateless, "mcp/discover", discovered()),
        ];
        for revision in Revision::ALL {
            // Nothing is enumerated: a list would tell what there is.
            let resources = listed(revision, "resources", json!([]));
            let templates = listed(revision, "resourceTemplates", tools::templates());
            answers.extend([
                OwnAnswer::new("tools/list", revision, "mcp/tools/list", listed(revision, "tools", tools::described())),
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
        Self { method, revision, name, result: revision.result(result).to_string().into() }
    }

    /// Returns the response to the request of this id.
    pub(super) fn response(&self, id: &RequestId) -> OwnResponse {
        let end = Bytes::from_static(message::AFTER_RESULT.as_bytes());
        OwnResponse([message::before_result(id).into(), self.result.clone(), end].into_iter())
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn asked(id: usize) -> Message {
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list" });
        Message::read(message.to_string().as_bytes(), None).unwrap()
    }

    #[tokio::test]
    async fn callers_share_the_bytes_of_an_answer() {
        let answers = OwnAnswers::new();
        // Ten thousand answers that nobody has read yet.
        let unread: Vec<OwnResponse> = (0..10_000)
            .map(|number| {
                let message = asked(number);
                answers.to(&message).unwrap().response(message.id.as_ref().unwrap())
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
        assert_eq!(answer["result"]["tools"], tools::described());
    }
}
