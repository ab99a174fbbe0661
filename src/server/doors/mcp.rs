//! The door for MCP, by which agents search and read: `POST /mcp`, one message in and one out, without sessions.
//!
//! ```text
//! body → message → a tool: the RPC that it stands for → the stack → its answer as the tool's result
//!                → the protocol's own question, or a fault: the stack, which lets its caller in or not → a constant answer
//! ```
//!
//! The message alone tells which RPC is called, so the body is read before the gate, unlike at the other doors. It is small
//! ([`MESSAGE_BYTES_MAX`]), and nothing is told of it before the gate has let its caller in. Arguments of a tool that are wrong
//! are refused where the service reads its message, so the record of the call names the tool's RPC.
//!
//! INVARIANT (no policy in a door): nothing in a message says for whom it is. The stack takes that from the caller's token.

mod call;
mod links;
mod local;
mod message;
mod own;
mod tools;

use std::sync::Arc;

use futures::stream;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use prost::Message as _;
use prost_reflect::MessageDescriptor;
use serde_json::{Map, Value as Json, json};
use tokio::sync::OwnedSemaphorePermit;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{self, HeaderMap, HeaderValue, Method, StatusCode, Version, header, request};
use tonic::{Code, Status};
use tower::Service;

use self::call::Call;
use self::links::Links;
pub use self::local::{LocalMcp, McpAsked, PendingCall};
pub use self::message::RequestId;
use self::message::{Fault, Message, Revision};
use self::own::{OwnAnswers, OwnResponse};
use self::tools::Action;
use super::http_call::CALLER_HEADERS;
use super::json::{self, Strictness};
use super::{DoorCall, Shape, frames};
use crate::proto::retrieval::{FetchResponse, RetrieveResponse};
use crate::server::answers::AnswerSlot;
use crate::server::operations::{NotServed, Operation, Route};
use crate::server::refusal::Refusal;
use crate::server::{ServerError, consistency_token, plain_http};

/// The path of the door.
pub(in crate::server) const PATH: &str = "/mcp";
/// The largest message of a client in bytes. Callers without a token may send one, too, so few of theirs are read at a time
/// ([`AnswerSlot::admit_unjudged`]).
const MESSAGE_BYTES_MAX: usize = 64 * 1_024;
/// The growth from the answer of an RPC to the result of a tool, for which room is reserved. The answer stands in the result
/// twice: as JSON, and as a text with JSON in it. A result that grows more takes more room ([`AnswerSlot::fit`]).
pub(super) const ANSWER_GROWTH: usize = 3;
const JSON_TYPE: &str = "application/json";

/// The settings of the door for MCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct McpSettings {
    /// The collection that a search without a collection searches.
    pub collection: Option<String>,
    /// The key of the metadata whose value becomes the URL of a result; `None` if all URLs are our own.
    pub url_key: Option<String>,
    /// The hosts to which such a URL may lead.
    pub url_hosts: Vec<String>,
}

/// The door for MCP.
#[derive(Debug)]
pub(in crate::server) struct McpDoor {
    settings: McpSettings,
    links: Arc<Links>,
    own: OwnAnswers,
    /// The request of `Retrieve`.
    retrieve: MessageDescriptor,
    /// The request of `Fetch`.
    fetch: MessageDescriptor,
}

/// A request of a client, once its message is understood.
enum Asked {
    /// An RPC is called, for a tool or a resource.
    Rpc(Call, Result<Json, Refusal>),
    /// The protocol's own question, with its answer; `None` for a notification.
    Own(&'static str, Option<OwnResponse>),
}

/// Marks a request whose token the door takes. The gate judges the call anyway.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownBearer;

/// One call of an RPC over HTTP, for a tool or a resource.
#[derive(Clone, Debug)]
pub(in crate::server) struct McpCall {
    shape: Shape,
    call: Call,
}

impl McpDoor {
    /// Returns the door over the requests of `Retrieve` and `Fetch`, which `request_of` finds by the path of an RPC.
    ///
    /// # Errors
    /// When `request_of` does not know one of these RPCs.
    pub(super) fn new(
        settings: McpSettings,
        request_of: impl Fn(&str) -> Option<MessageDescriptor>,
    ) -> Result<Self, ServerError> {
        let request = |action: Action| request_of(action.rpc()).ok_or(ServerError::NoToolRpc);
        let (retrieve, fetch) = (request(Action::Search)?, request(Action::Fetch)?);
        let links = Arc::new(Links::new(settings.url_key.clone(), settings.url_hosts.clone()));
        Ok(Self { settings, links, own: OwnAnswers::new(), retrieve, fetch })
    }

    /// Answers a request.
    pub(super) async fn answered<S>(
        self: Arc<Self>,
        mut stack: S,
        request: http::Request<Body>,
        shape: Shape,
    ) -> http::Response<Body>
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Refusal>,
    {
        let (parts, body) = request.into_parts();
        // The place is held until the gate has judged the caller. The bearer of a good token needs none: a proxy brings many
        // callers over one connection, and those without a token could keep all places for as long as messages may take.
        let is_known = parts.extensions.get::<KnownBearer>().is_some();
        let place = match parts.extensions.get::<AnswerSlot>() {
            Some(slot) if !is_known => slot.admit_unjudged().await.map(Some),
            Some(_) | None => Ok(None),
        };
        let message = match &place {
            Ok(_place) => read(body).await.and_then(|body| Message::read(&body, Some(&parts.headers))),
            Err(busy) => Err(Fault::busy(busy.text())),
        };
        match message.and_then(|message| self.asked(message)) {
            Ok(Asked::Rpc(call, arguments)) => {
                let message = arguments.and_then(|arguments| self.message(call.action, &arguments));
                let call = Arc::new(McpCall { shape, call });
                match stack.call(call.request(parts, message, place.ok().flatten())).await {
                    Ok(mut answer) => {
                        // A client of MCP cannot send a consistency token back. Besides, the answer that nothing is there must
                        // look the same whether the RPC answered or refused.
                        answer.headers_mut().remove(consistency_token::HEADER);
                        answer
                    }
                    Err(refusal) => call.refused(&refusal),
                }
            }
            Ok(Asked::Own(name, answer)) => match stack.call(bare(parts, Route::Mcp(name))).await {
                Ok(_admitted) => match answer {
                    Some(answer) => shape.response(StatusCode::OK, JSON_TYPE, Body::new(answer)),
                    None => shape.empty(StatusCode::ACCEPTED),
                },
                Err(refusal) => refused(&shape, None, &refusal),
            },
            Err(fault) => {
                let why = match &place {
                    Ok(_place) => Refusal::new(Code::InvalidArgument, fault.text.clone()),
                    Err(busy) => busy.clone(),
                };
                let route = Route::Refused(NotServed::Mcp(why.clone()));
                match stack.call(bare(parts, route)).await {
                    Err(refusal) if refusal.code() != why.code() || refusal.text() != why.text() => {
                        refused(&shape, fault.id.as_ref(), &refusal)
                    }
                    // Only a caller who was let in learns what is wrong.
                    Ok(_) | Err(_) => {
                        let mut response = response(&shape, fault.status, &fault.response());
                        plain_http::explain(&why, response.headers_mut());
                        response
                    }
                }
            }
        }
    }

    /// Finds out what a message asks for.
    fn asked(&self, message: Message) -> Result<Asked, Fault> {
        let Some(id) = message.id.clone() else {
            // A notification ends no call: a client that gives up a call ends the HTTP request of that call.
            return Ok(Asked::Own("mcp/notification", None));
        };
        if let Some(answer) = self.own.to(&message) {
            return Ok(Asked::Own(answer.name, Some(answer.response(&id))));
        }
        match message.method.as_str() {
            "resources/read" => {
                let uri = message.params.get("uri").and_then(Json::as_str);
                let request = tools::read_request(uri.unwrap_or_default());
                Ok(self.rpc(&message, id, Action::Read, request))
            }
            "tools/call" => self.tool_call(message, id),
            _ => Err(Fault::no_method(&message)),
        }
    }

    fn tool_call(&self, mut message: Message, id: RequestId) -> Result<Asked, Fault> {
        let name = message.params.get("name").and_then(Json::as_str);
        let action =
            name.and_then(Action::of_tool).ok_or_else(|| Fault::params(&message, "there is no tool of this name"))?;
        let arguments = match message.params.remove("arguments") {
            None => Map::new(),
            Some(Json::Object(arguments)) => arguments,
            Some(_) => return Err(Fault::params(&message, "`arguments` is not an object")),
        };
        let request = action.request(arguments, self.settings.collection.as_deref());
        Ok(self.rpc(&message, id, action, request))
    }

    /// Returns the call of the RPC behind a message, whose request may be wrong.
    fn rpc(&self, message: &Message, id: RequestId, action: Action, request: Result<Json, Refusal>) -> Asked {
        let collection = request.as_ref().ok().and_then(|request| request.get("collection")?.as_str());
        let collection = collection.unwrap_or_default().to_owned();
        let links = Arc::clone(&self.links);
        Asked::Rpc(Call { id, revision: message.revision, action, collection, links }, request)
    }

    /// Returns the encoded request of a tool's RPC.
    fn message(&self, action: Action, request: &Json) -> Result<Vec<u8>, Refusal> {
        let descriptor = match action {
            Action::Search => &self.retrieve,
            Action::Fetch | Action::Read => &self.fetch,
        };
        let message = json::read(descriptor, request.to_string().as_bytes(), Strictness::Strict);
        message.map(|message| message.encode_to_vec()).map_err(|refusal| refusal.with_place("arguments"))
    }
}

impl McpCall {
    /// Returns the gRPC call that the tool stands for. Its message, or the fault of its arguments, is read behind the gate.
    /// `place` is that of the message among those whose callers nobody has judged yet.
    fn request(
        self: &Arc<Self>,
        caller: request::Parts,
        message: Result<Vec<u8>, Refusal>,
        place: Option<OwnedSemaphorePermit>,
    ) -> http::Request<Body> {
        let slot = caller.extensions.get::<AnswerSlot>().cloned();
        let answer_bytes_max = Operation::at(self.call.action.rpc()).and_then(|operation| operation.answer_bytes_max);
        let reading = async move {
            // The message is read behind the gate, so the caller has been judged.
            drop(place);
            let message = message?;
            // A call without a slot did not come by a connection, and the stack does not answer it.
            if let (Some(slot), Some(bytes)) = (slot, answer_bytes_max) {
                slot.reserve(bytes).await?;
            }
            Ok::<Frame<Bytes>, Status>(Frame::data(frames::framed(&message)?))
        };
        let mut call = http::Request::new(Body::new(StreamBody::new(stream::once(reading))));
        (*call.method_mut(), *call.version_mut()) = (Method::POST, Version::HTTP_2);
        *call.uri_mut() = http::Uri::from_static(self.call.action.rpc());
        let headers = call.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        take_over(&caller.headers, headers);
        *call.extensions_mut() = caller.extensions;
        call.extensions_mut().insert(DoorCall::Mcp(Arc::clone(self)));
        call
    }

    /// Turns the answer of the gRPC call into the tool's result.
    ///
    /// INVARIANT (one code): this happens inside of the record, so the record has the code that the client gets.
    ///
    /// # Errors
    /// When the answer is of another type, or there is no room for the result.
    pub(super) async fn answer(
        &self,
        answer: http::Response<Body>,
        slot: Option<AnswerSlot>,
    ) -> Result<http::Response<Body>, Refusal> {
        let (parts, body) = answer.into_parts();
        let message = frames::only(body).await?;
        let lost = |error: prost::DecodeError| {
            tracing::error!(%error, "the answer to a tool's call is of another type");
            Refusal::lost()
        };
        let answered = match self.call.action {
            Action::Search => self.call.searched(RetrieveResponse::decode(message).map_err(lost)?),
            Action::Fetch | Action::Read => self.call.fetched(FetchResponse::decode(message).map_err(lost)?),
        };
        let mut response = response(&self.shape, StatusCode::OK, &answered);
        if let Some(slot) = slot {
            slot.fit(usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX))?;
        }
        *response.extensions_mut() = parts.extensions;
        Ok(response)
    }

    /// Renders a refusal. A caller who is not let in learns it from the HTTP status. Everything else is a result of the tool, so
    /// that the model reads what is wrong with its call.
    fn refused(&self, refusal: &Refusal) -> http::Response<Body> {
        let Call { id, action, .. } = &self.call;
        let is_hidden = refusal.code() == Code::NotFound;
        if is_of_the_gate(refusal) || *action == Action::Read && !is_hidden {
            return refused(&self.shape, Some(id), refusal);
        }
        let mut response = response(&self.shape, StatusCode::OK, &self.call.refused(refusal));
        if *action != Action::Read {
            plain_http::explain(refusal, response.headers_mut());
        }
        response
    }
}

/// Returns whether a caller has to bring another token.
fn is_of_the_gate(refusal: &Refusal) -> bool {
    refusal.code() == Code::Unauthenticated || refusal.challenge().is_some()
}

/// Reads the body of a request.
async fn read(body: Body) -> Result<Bytes, Fault> {
    match Limited::new(body, MESSAGE_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Fault::too_large()),
        Err(error) => Err(Fault::unread(format!("the message did not arrive: {error}"))),
    }
}

/// Returns a request without a body, for the stack to judge its caller.
fn bare(caller: request::Parts, route: Route) -> http::Request<Body> {
    let mut request = http::Request::new(Body::empty());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(PATH);
    take_over(&caller.headers, request.headers_mut());
    *request.extensions_mut() = caller.extensions;
    request.extensions_mut().insert(route);
    request
}

/// Copies the headers that tell who calls. All values are copied: a caller with two tokens is refused, not one of them chosen.
fn take_over(caller: &HeaderMap, headers: &mut HeaderMap) {
    for name in CALLER_HEADERS {
        for value in caller.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
}

/// Renders the refusal of a request that calls no tool, or of a caller who is not let in.
fn refused(shape: &Shape, id: Option<&RequestId>, refusal: &Refusal) -> http::Response<Body> {
    let mut response = response(shape, refusal.http_status(), &error(id, refusal));
    plain_http::explain(refusal, response.headers_mut());
    response
}

/// Writes a refusal as an error of JSON-RPC.
fn error(id: Option<&RequestId>, refusal: &Refusal) -> Json {
    let code = if is_of_the_gate(refusal) { message::NOT_LET_IN } else { message::INTERNAL_ERROR };
    message::failed(id, code, refusal.text(), None)
}

fn response(shape: &Shape, status: StatusCode, json: &Json) -> http::Response<Body> {
    shape.response(status, JSON_TYPE, Body::new(Full::from(json.to_string())))
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
        ("instructions".to_owned(), Json::from(tools::INSTRUCTIONS)),
    ];
    result.into_iter().collect()
}

fn discovered() -> Map<String, Json> {
    let result = [
        ("supportedVersions".to_owned(), json!(Revision::ALL.map(Revision::as_str))),
        ("capabilities".to_owned(), capabilities()),
        ("instructions".to_owned(), Json::from(tools::INSTRUCTIONS)),
        ("_meta".to_owned(), json!({ "io.modelcontextprotocol/serverInfo": server_info() })),
    ];
    let mut result: Map<String, Json> = result.into_iter().collect();
    not_kept(&mut result);
    result
}

fn listed(revision: Revision, name: &str, list: Json) -> Map<String, Json> {
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
mod tests;
