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
mod described;
mod input;
mod links;
mod local;
mod message;
mod own;
mod place;
mod results;
mod tools;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use prost::Message as _;
use serde_json::{Map, Value as Json};
use tokio::sync::OwnedSemaphorePermit;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{self, HeaderMap, HeaderValue, Method, StatusCode, Version, header, request};
use tonic::{Code, Status};
use tower::Service;

use self::call::Call;
use self::input::Input;
use self::links::Links;
pub use self::local::{LocalMcp, McpAsked, PendingCall};
pub use self::message::RequestId;
use self::message::{Fault, Message, Revision};
use self::own::{OwnAnswer, OwnAnswers};
use self::tools::Action;
use super::http_call::CALLER_HEADERS;
use super::json::{self, Strictness};
use super::{DoorCall, RpcMessages, Shape, frames};
use crate::proto::retrieval::{FetchResponse, RetrieveResponse};
use crate::server::answers::AnswerSlot;
use crate::server::operations::{Callable, NotServed, Operation, Route};
use crate::server::refusal::{NONCE_HEADER, Refusal};
use crate::server::{ServerError, consistency_token, plain_http};
use crate::server_config::McpSearchBy;

/// The path of the door.
pub(in crate::server) const PATH: &str = "/mcp";
/// The largest message of a client in bytes. Callers without a token may send one, too, so few of theirs are read at a time
/// ([`AnswerSlot::admit_unjudged`]).
const MESSAGE_BYTES_MAX: usize = 64 * 1_024;
/// The growth from the answer of an RPC to the result of a tool, for which room is reserved. The answer stands in the result
/// twice: as JSON, and as a text with JSON in it. A result that grows more takes more room ([`AnswerSlot::fit`]).
pub(super) const ANSWER_GROWTH: usize = 3;
const JSON_TYPE: &str = "application/json";
/// The name that the record has for a notification.
const NOTIFICATION: &str = "mcp/notification";

/// The settings of the door for MCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct McpSettings {
    /// The collection that a search without a collection searches.
    pub collection: Option<String>,
    /// The key of the metadata whose value becomes the URL of a result; `None` if all URLs are our own.
    pub url_key: Option<String>,
    /// The hosts to which such a URL may lead.
    pub url_hosts: Vec<String>,
    /// What a search is compared by, in the collections that have a model.
    pub search_by: McpSearchBy,
    /// The collections that have a model which makes vectors of queries.
    pub with_model: BTreeSet<String>,
    /// Whether there is a tool `explain` for callers who may call `Explain`.
    pub explain: bool,
    /// The page at which people answer questions for approvals; `None` if they answer on a device of theirs alone.
    pub approval_page: Option<String>,
}

/// The door for MCP.
#[derive(Debug)]
pub(in crate::server) struct McpDoor {
    settings: McpSettings,
    links: Links,
    own: OwnAnswers,
    /// The messages of the RPC of each tool.
    retrieve: RpcMessages,
    fetch: RpcMessages,
    explain: RpcMessages,
}

/// A request of a client, once its message is understood.
enum Asked<'d> {
    /// An RPC is called, for a tool or a resource, with this encoded request. Its arguments may be wrong.
    Rpc(Call, Result<Vec<u8>, Refusal>),
    /// The protocol's own question in the request of this id, with its answer.
    Own(RequestId, &'d OwnAnswer),
    /// Nothing that is answered.
    Notification,
}

/// Where the request of an RPC comes from.
struct Origin {
    id: RequestId,
    revision: Revision,
    input: Input,
}

/// Marks a request whose token the door takes. The gate judges the call anyway.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownBearer;

/// One call of an RPC over HTTP, for a tool or a resource.
#[derive(Debug)]
pub(in crate::server) struct McpCall {
    shape: Shape,
    call: Call,
    /// Whether the gate has let the caller call the RPC. Only then is the message read.
    is_let_in: AtomicBool,
}

impl McpDoor {
    /// Returns the door over the messages of all RPCs.
    ///
    /// # Errors
    /// When they lack one that a tool calls.
    pub(super) fn new(settings: McpSettings, messages: &HashMap<String, RpcMessages>) -> Result<Self, ServerError> {
        let of = |action: Action| messages.get(action.rpc()).cloned().ok_or(ServerError::NoToolRpc);
        let (retrieve, fetch, explain) = (of(Action::Search)?, of(Action::Fetch)?, of(Action::Explain)?);
        let links = Links::new(settings.url_key.clone(), settings.url_hosts.clone());
        let own = OwnAnswers::new(&settings);
        Ok(Self { settings, links, own, retrieve, fetch, explain })
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
        // A call of a tool holds the place until the gate has judged its caller, and any other message until it is answered. The
        // bearer of a good token needs none: a proxy brings many callers over one connection, and those without a token could
        // keep all places for as long as messages may take.
        let is_known = parts.extensions.get::<KnownBearer>().is_some();
        let place = match parts.extensions.get::<AnswerSlot>() {
            Some(slot) if !is_known => slot.admit_unjudged().await.map(Some),
            Some(_) | None => Ok(None),
        };
        let message = match &place {
            Ok(_place) => read(body).await.and_then(|body| Message::read(&body, Some(&parts.headers))),
            Err(busy) => Err(Fault::not_taken(busy.clone())),
        };
        match message.and_then(|message| self.asked(message)) {
            Ok(Asked::Rpc(call, encoded)) => {
                let call = Arc::new(McpCall { shape, call, is_let_in: AtomicBool::new(false) });
                match stack.call(call.request(parts, encoded, place.ok().flatten())).await {
                    Ok(mut answer) => {
                        // A client of MCP cannot send a consistency token back. Besides, the answer that nothing is there must
                        // look the same whether the RPC answered or refused.
                        answer.headers_mut().remove(consistency_token::HEADER);
                        answer
                    }
                    Err(refusal) => call.refused(&refusal),
                }
            }
            Ok(Asked::Own(id, answer)) => match stack.call(bare(parts, Route::Mcp(answer.name))).await {
                Ok(admitted) => {
                    let body = answer.response(&id, admitted.extensions().get::<Callable>());
                    with_nonce_of(&admitted, shape.response(StatusCode::OK, JSON_TYPE, Body::new(body)))
                }
                Err(refusal) => refused(&shape, None, &refusal),
            },
            Ok(Asked::Notification) => match stack.call(bare(parts, Route::Mcp(NOTIFICATION))).await {
                Ok(admitted) => with_nonce_of(&admitted, shape.empty(StatusCode::ACCEPTED)),
                Err(refusal) => refused(&shape, None, &refusal),
            },
            Err(fault) => {
                let route = Route::Refused(NotServed::Mcp(fault.why.clone()));
                match stack.call(bare(parts, route)).await {
                    Err(refusal) if !fault.is(&refusal) => refused(&shape, fault.id.as_ref(), &refusal),
                    // Only a caller who was let in learns what is wrong.
                    Ok(_) | Err(_) => at_fault(&shape, &fault),
                }
            }
        }
    }

    /// Finds out what a message asks for.
    fn asked(self: &Arc<Self>, message: Message) -> Result<Asked<'_>, Fault> {
        let Some(id) = message.id.clone() else {
            // A notification ends no call: a client that gives up a call ends the HTTP request of that call.
            return Ok(Asked::Notification);
        };
        if let Some(answer) = self.own.to(&message) {
            return Ok(Asked::Own(id, answer));
        }
        match message.method.as_str() {
            "resources/read" => {
                let origin = Origin { id, revision: message.revision, input: Input::of(&message)? };
                let uri = message.params.get("uri").and_then(Json::as_str).unwrap_or_default().to_owned();
                let request = tools::read_request(&uri);
                Ok(self.rpc(origin, Action::Read, request, uri))
            }
            "tools/call" => self.tool_call(message, id),
            _ => Err(Fault::no_method(&message)),
        }
    }

    fn tool_call(self: &Arc<Self>, mut message: Message, id: RequestId) -> Result<Asked<'_>, Fault> {
        let action = message.params.get("name").and_then(Json::as_str).and_then(Action::of_tool);
        let offered = action.filter(|action| *action != Action::Explain || self.settings.explain);
        let Some(action) = offered else { return Err(Fault::no_tool(id, message.revision)) };
        let input = match action {
            Action::Search | Action::Fetch | Action::Read => Input::of(&message)?,
            // An explanation shows no text, so nobody approves one. And a fault told here would tell that there is this tool.
            Action::Explain => Input::default(),
        };
        let origin = Origin { id, revision: message.revision, input };
        let arguments = message.params.remove("arguments").unwrap_or_else(|| Json::Object(Map::new()));
        let request = action.request(arguments, self.settings.collection.as_deref());
        let McpSettings { search_by, with_model, .. } = &self.settings;
        let request = match action {
            Action::Search => request.map(|request| tools::compared(request, *search_by, with_model)),
            Action::Fetch | Action::Explain | Action::Read => request,
        };
        Ok(self.rpc(origin, action, request, String::new()))
    }

    /// Returns the call of the RPC behind a message, whose request may be wrong. `uri` is the one that is read;
    /// empty for a tool.
    fn rpc(self: &Arc<Self>, origin: Origin, action: Action, request: Result<Json, Refusal>, uri: String) -> Asked<'_> {
        let Origin { id, revision, input } = origin;
        let request = request.and_then(|request| input.complete(request));
        let collection = request.as_ref().ok().and_then(|request| request.get("collection")?.as_str());
        let collection = collection.unwrap_or_default().to_owned();
        let encoded = request.and_then(|request| self.encoded(action, &request));
        Asked::Rpc(Call { id, revision, action, collection, uri, input, door: Arc::clone(self) }, encoded)
    }

    /// Encodes the request of an action's RPC.
    fn encoded(&self, action: Action, request: &Json) -> Result<Vec<u8>, Refusal> {
        let descriptor = match action {
            Action::Search => &self.retrieve.request,
            Action::Fetch | Action::Read => &self.fetch.request,
            Action::Explain => &self.explain.request,
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
        let operation = Operation::at(self.call.action.rpc());
        let answer_bytes_max = operation.and_then(|operation| operation.answer_bytes_max);
        let of_call = Arc::clone(self);
        let reading = async move {
            // The message is read behind the gate, so the caller has been judged.
            of_call.is_let_in.store(true, Ordering::Relaxed);
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
        if let (Action::Explain, Some(operation)) = (self.call.action, operation) {
            call.extensions_mut().insert(Route::Unlisted(operation, self.call.no_tool().why));
        }
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
            Action::Explain => self.call.explained(&message)?,
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
        if *action == Action::Explain {
            let no_tool = self.call.no_tool();
            if no_tool.is(refusal) {
                return at_fault(&self.shape, &no_tool);
            }
            // INVARIANT (no such tool): whoever was not let in gets what a call of no tool gets, also where the issuer or the
            // record is away, or the answer is late.
            if !self.is_let_in.load(Ordering::Relaxed) {
                return refused(&self.shape, Some(id), refusal);
            }
        }
        if let Some(asked) = self.call.input_required(refusal) {
            return response(&self.shape, StatusCode::OK, &asked);
        }
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

/// Returns whether a caller has to bring another token. A refusal with facts is one of the call: the agent's program asks for
/// the approval that they name, and the model learns why its call waits.
fn is_of_the_gate(refusal: &Refusal) -> bool {
    refusal.code() == Code::Unauthenticated || refusal.challenge().is_some() && refusal.facts().is_empty()
}

/// Reads the body of a request.
async fn read(body: Body) -> Result<Bytes, Fault> {
    match Limited::new(body, MESSAGE_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Fault::too_large()),
        Err(error) => Err(match error.downcast_ref::<Status>() {
            Some(late) if late.code() == Code::DeadlineExceeded => Fault::not_taken(Refusal::from(late)),
            Some(_) | None => Fault::broken_off(format!("the message did not arrive: {error}")),
        }),
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

/// Gives a response the nonce for its caller's next proofs, if the gate gave one.
fn with_nonce_of(admitted: &http::Response<Body>, mut response: http::Response<Body>) -> http::Response<Body> {
    if let Some(nonce) = admitted.headers().get(NONCE_HEADER) {
        response.headers_mut().insert(NONCE_HEADER, nonce.clone());
    }
    response
}

/// Renders the refusal of a request that calls no tool, or of a caller who is not let in.
fn refused(shape: &Shape, id: Option<&RequestId>, refusal: &Refusal) -> http::Response<Body> {
    let mut response = response(shape, refusal.http_status(), &error(id, refusal));
    plain_http::explain(refusal, response.headers_mut());
    response
}

/// Renders a fault of a message, for a caller who was let in.
fn at_fault(shape: &Shape, fault: &Fault) -> http::Response<Body> {
    let mut response = response(shape, fault.status, &fault.response());
    plain_http::explain(&fault.why, response.headers_mut());
    response
}

/// Writes a refusal as an error of JSON-RPC.
fn error(id: Option<&RequestId>, refusal: &Refusal) -> Json {
    let code = if is_of_the_gate(refusal) { message::NOT_LET_IN } else { message::INTERNAL_ERROR };
    message::failed(id, code, refusal.text(), call::facts(refusal))
}

fn response(shape: &Shape, status: StatusCode, json: &Json) -> http::Response<Body> {
    shape.response(status, JSON_TYPE, Body::new(Full::from(json.to_string())))
}

#[cfg(test)]
mod tests;
