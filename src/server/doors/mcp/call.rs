//! One call of an RPC, for a tool or a resource, and the responses to it. They are the same whichever way the message came.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use tonic::Code;

use super::input::Input;
use super::message::{self, Fault, RequestId, Revision};
use super::tools::{self, Action};
use super::{McpDoor, own, results};
use crate::proto::retrieval::{FetchResponse, RetrieveResponse};
use crate::server::doors::json::{self, UnsetMessages};
use crate::server::refusal::Refusal;

/// One call of an RPC, for a tool or a resource.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: RequestId,
    pub(super) revision: Revision,
    pub(super) action: Action,
    /// The collection of the call; empty if the call is refused anyway.
    pub(super) collection: String,
    /// The URI that a client reads; empty for a tool.
    pub(super) uri: String,
    /// The questions that the client can ask its person, and the state that it brings back.
    pub(super) input: Input,
    pub(super) door: Arc<McpDoor>,
}

impl Call {
    /// Returns the response with the answer of `Retrieve`.
    pub(super) fn searched(&self, answer: RetrieveResponse) -> Json {
        self.succeeded(result(results::found(answer, &self.collection, &self.door.links)))
    }

    /// Returns the response with the answer of `Fetch`.
    pub(super) fn fetched(&self, answer: FetchResponse) -> Json {
        if self.action == Action::Read {
            return match results::contents(answer, &self.collection) {
                Some(contents) => self.succeeded(own::listed(self.revision, "contents", contents)),
                None => self.no_resource(),
            };
        }
        let fetched = results::fetched(answer, &self.collection, &self.door.links);
        self.succeeded(fetched.map_or_else(|| failure(tools::NOTHING_THERE), result))
    }

    /// Returns the response with the encoded answer of `Explain`.
    ///
    /// # Errors
    /// When the answer is of another type.
    pub(super) fn explained(&self, answer: &[u8]) -> Result<Json, Refusal> {
        let explanation = json::value(&self.door.explain.answer, answer, UnsetMessages::LeftOut)?;
        Ok(self.succeeded(result(explanation)))
    }

    /// Returns the fault that a caller is told who may not call this tool.
    pub(super) fn no_tool(&self) -> Fault {
        Fault::no_tool(self.id.clone(), self.revision)
    }

    /// Returns the response that lets the client ask its person, if the call waits for that person and the client can.
    pub(super) fn input_required(&self, refusal: &Refusal) -> Option<Json> {
        let asked = self.input.asked(refusal, self.door.settings.approval_page.as_deref())?;
        Some(message::succeeded(&self.id, &asked))
    }

    /// Returns the response about a refusal. That of a tool is a result, so that the model reads what is wrong with its call.
    pub(super) fn refused(&self, refusal: &Refusal) -> Json {
        if let Some(asked) = self.input_required(refusal) {
            return asked;
        }
        match (self.action, refusal.code()) {
            // A collection that is not there looks like a chunk that is not there.
            (Action::Fetch, Code::NotFound) => self.succeeded(failure(tools::NOTHING_THERE)),
            (Action::Explain, Code::NotFound) => self.succeeded(failure(tools::NO_CHUNK)),
            (Action::Read, Code::NotFound) => self.no_resource(),
            (Action::Read, _) => super::error(Some(&self.id), refusal),
            (Action::Search | Action::Fetch | Action::Explain, _) => {
                let mut failed = failure(refusal.text());
                if let (Some(Json::Array(content)), Some(facts)) = (failed.get_mut("content"), facts(refusal)) {
                    content.push(json!({ "type": "text", "text": facts.to_string() }));
                }
                self.succeeded(failed)
            }
        }
    }

    fn succeeded(&self, result: Map<String, Json>) -> Json {
        message::succeeded(&self.id, &self.revision.result(result))
    }

    /// Returns the response about a resource that is hidden, gone, or named by no URI. It repeats the URI, by which clients know
    /// what the error is about.
    fn no_resource(&self) -> Json {
        let code = match self.revision {
            Revision::Handshake => message::NO_RESOURCE,
            Revision::Stateless => message::INVALID_PARAMS,
        };
        message::failed(Some(&self.id), code, tools::NOTHING_THERE, Some(json!({ "uri": self.uri })))
    }
}

/// Returns what a refusal tells to programs, if it tells anything: its reason, and its facts. A fact that is JSON is shown as
/// such.
pub(super) fn facts(refusal: &Refusal) -> Option<Json> {
    if refusal.facts().is_empty() {
        return None;
    }
    let shown = |value: &str| serde_json::from_str(value).unwrap_or_else(|_text| Json::from(value));
    let facts = refusal.facts().iter().map(|(name, value)| ((*name).to_owned(), shown(value)));
    let reason = refusal.reason().map(|reason| ("error".to_owned(), Json::from(reason)));
    Some(Json::Object(reason.into_iter().chain(facts).collect()))
}

/// Returns the result of a tool in both of its forms: for programs, and as the text for models that read nothing else.
fn result(structured: Json) -> Map<String, Json> {
    let text = structured.to_string();
    let content = json!([{ "type": "text", "text": text }]);
    [("content".to_owned(), content), ("structuredContent".to_owned(), structured)].into_iter().collect()
}

/// Returns the result of a tool that failed.
fn failure(text: &str) -> Map<String, Json> {
    let content = json!([{ "type": "text", "text": text }]);
    [("content".to_owned(), content), ("isError".to_owned(), Json::Bool(true))].into_iter().collect()
}
