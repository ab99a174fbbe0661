//! The doors of the port. gRPC passes as it is. The HTTP doors, which are Connect, our own routes, `OpenFGA`'s HTTP API and MCP,
//! translate a request into a gRPC call of the stack, and its answer or [`Refusal`] back.
//!
//! ```text
//! head → which RPC, which dialect → the stack: record → gate → service → the message, read from the body → answer → JSON
//! ```
//!
//! An answer is translated at the bottom of the stack. One that cannot be written as JSON, or for which there is no room, is
//! refused before its record is kept.
//!
//! A body is translated when the service reads its message. The gate stands before that, so a caller without a right learns
//! nothing of what is wrong with its body, and the record has the code of whatever was.
//!
//! INVARIANT (no policy in a door): a door knows paths, encodings and shapes. Who may call, and what is answered, is decided in
//! the stack alone, from the caller's own headers.

mod connect;
mod encoding;
pub(super) mod frames;
mod guards;
mod http_call;
mod json;
mod mcp;
mod openapi;
mod openfga;
mod routes;

use std::borrow::Cow;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http_body_util::Full;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{self, HeaderMap, HeaderValue, Method, StatusCode, header};
use tower::Service;

use self::connect::{Codec, Kind};
use self::encoding::Encoding;
use self::guards::Page;
pub use self::guards::{Addresses, Guards};
use self::http_call::HttpCall;
use self::mcp::{KnownBearer, McpCall, McpDoor};
pub use self::mcp::{LocalMcp, McpAsked, McpSettings, PendingCall, RequestId};
use self::openfga::ErrorNames;
use self::routes::{BodyPart, Fields, HttpRoute, Lookup};
use super::answers::AnswerSlot;
use super::operations::{Access, MCP_CALL, Messages, NOTIFICATION, NotServed, Operation, Route, is_grpc_type};
use super::plain_http::{self, BodyAllowed};
use super::refusal::{HttpFault, Refusal};
use super::{ServerError, grpc, reflection};
use crate::audit::Door;
use crate::blocking_pool::BlockingPool;
use crate::proto::DESCRIPTORS;

/// How many large bodies of JSON are read at a time.
const LARGE_READS_MAX: usize = 2;
/// The longest query of a request in bytes: a token of `OpenFGA`'s for the next page (5,120 characters) and a few fields.
const QUERY_BYTES_MAX: usize = 8 * 1_024;

/// The dialects of HTTP that callers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Connect(Kind),
    /// The routes of Ragward's own services.
    Rest,
    /// `OpenFGA`'s HTTP API.
    OpenFga,
}

/// The way that a request takes, as a door tells it from the head of the request.
#[derive(Clone, Debug)]
pub(super) enum Arrival {
    /// gRPC, a public document, or nothing that a door knows. The stack gets it as it is.
    AsItIs,
    /// A call of an RPC.
    Call(Arc<HttpCall>),
    /// A message of MCP. Its body tells whether it calls an RPC.
    Mcp(Arc<McpDoor>, Shape),
    /// An issuer's notification about an approval.
    Notification(Shape),
    /// A request that no service sees. It still passes the stack, which records it.
    Refused(NotServed, Shape),
    /// A browser asks what a page may send; these are the methods.
    Preflight(Shape, String),
}

/// A call of an RPC that a door made from a request of another protocol. It turns the answer into one of that protocol.
#[derive(Clone, Debug)]
pub(super) enum DoorCall {
    /// A call over plain HTTP.
    Http(Arc<HttpCall>),
    /// A call of a tool.
    Mcp(Arc<McpCall>),
}

/// The form of an answer: its dialect, and the page that may read it.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    dialect: Dialect,
    page: Page,
    body_allowed: BodyAllowed,
}

/// Whether issuers send notifications about approvals to the port. Where they do not, their path is a path like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notifications {
    Taken,
    Absent,
}

/// Recognizes requests and renders answers.
#[derive(Clone)]
pub(super) struct Doors(Arc<Tables>);

struct Tables {
    guards: Guards,
    routes: Vec<HttpRoute>,
    /// The messages of each RPC, by its path.
    messages: HashMap<String, RpcMessages>,
    error_names: ErrorNames,
    /// `None` if MCP is not served.
    mcp: Option<Arc<McpDoor>>,
    notifications: Notifications,
    /// The description of our own routes.
    openapi: Bytes,
    /// The places in which large JSON of requests is read.
    reading: BlockingPool,
}

#[derive(Clone, Debug)]
struct RpcMessages {
    request: MessageDescriptor,
    answer: MessageDescriptor,
}

impl Arrival {
    /// Returns what a request is for.
    pub(super) fn route<B>(&self, request: &http::Request<B>) -> Route {
        match self {
            Self::AsItIs => Route::of(request),
            Self::Call(call) => Route::Rpc(call.operation),
            // The message may still turn out to call a tool. Then the body of that call reserves the room for its answer.
            Self::Mcp(..) => Route::Mcp(MCP_CALL),
            Self::Notification(_) => Route::Notification,
            Self::Refused(fault, _) => Route::Refused(fault.clone()),
            Self::Preflight(..) => Route::Public,
        }
    }

    /// Returns how many times larger than its message the answer may become.
    pub(super) fn answer_growth(&self) -> usize {
        match self {
            Self::Call(call) => call.answer_growth(),
            Self::Mcp(..) => mcp::ANSWER_GROWTH,
            Self::AsItIs | Self::Notification(_) | Self::Refused(..) | Self::Preflight(..) => 1,
        }
    }
}

impl DoorCall {
    /// Turns the answer of the RPC into one of the door's protocol.
    ///
    /// # Errors
    /// When the answer cannot be written in this protocol, or there is no room for it.
    pub(super) async fn answer(
        &self,
        answer: http::Response<Body>,
        slot: Option<AnswerSlot>,
    ) -> Result<http::Response<Body>, Refusal> {
        match self {
            Self::Http(call) => call.answer(answer, slot).await,
            Self::Mcp(call) => call.answer(answer, slot).await,
        }
    }
}

impl Doors {
    /// # Errors
    /// When the services cannot be described.
    pub(super) fn new(
        guards: Guards,
        mcp: Option<McpSettings>,
        notifications: Notifications,
    ) -> Result<Self, ServerError> {
        let pool = reflection::pool()?;
        let mut routes = routes::read(DESCRIPTORS)?;
        let openapi = openapi::document(&pool, &routes).to_string().into();
        routes.extend(routes::read(reflection::OPENFGA)?);
        routes.push(routes::health());
        let messages = messages_of(&pool);
        let mcp = mcp.map(|settings| McpDoor::new(settings, &messages)).transpose()?.map(Arc::new);
        let (error_names, reading) = (ErrorNames::of(&pool), BlockingPool::with_slots(LARGE_READS_MAX));
        Ok(Self(Arc::new(Tables { guards, routes, messages, error_names, mcp, notifications, openapi, reading })))
    }

    /// Returns the description of our own routes (`OpenAPI`), as JSON.
    pub(super) fn openapi(&self) -> Bytes {
        self.0.openapi.clone()
    }

    /// Recognizes a request from its head.
    pub(super) fn arrival<B>(&self, request: &http::Request<B>) -> Arrival {
        // Clients of gRPC name no origin. A browser names one with every POST, and over HTTP/2 it can send whatever content type
        // it likes to a name that it takes for its page's own.
        if Route::of(request).is_grpc() && !guards::is_of_a_browser(request.headers()) {
            return Arrival::AsItIs;
        }
        let path = request.uri().path();
        let body_allowed = BodyAllowed::by(request.method());
        let dialect = Self::dialect(request);
        let page = match self.0.guards.check(request) {
            Ok(page) => page,
            Err(fault) => return Arrival::Refused(fault, Shape { dialect, page: Page::Own, body_allowed }),
        };
        let shape = Shape { dialect, page, body_allowed };
        if let Some(mcp) = self.0.mcp.as_ref().filter(|_| path == mcp::PATH) {
            return Self::mcp_message(mcp, request, shape);
        }
        if self.0.notifications == Notifications::Taken && path == NOTIFICATION {
            if request.method() == Method::POST {
                return Arrival::Notification(shape);
            }
            return Arrival::Refused(NotServed::Method(None, Cow::Borrowed("POST")), shape);
        }
        match Operation::at(path) {
            Some(operation) => self.connect_call(operation, request, shape),
            None => self.routed_call(request, shape),
        }
    }

    fn mcp_message<B>(door: &Arc<McpDoor>, request: &http::Request<B>, shape: Shape) -> Arrival {
        if is_preflight(request, &shape) {
            return Arrival::Preflight(shape, Method::POST.to_string());
        }
        if request.method() != Method::POST {
            return Arrival::Refused(NotServed::Method(None, Cow::Borrowed("POST")), shape);
        }
        let is_json = content_type(request.headers()).eq_ignore_ascii_case("application/json");
        if !is_json || Encoding::of(request.headers()) != Some(Encoding::Identity) {
            let text = "this path takes JSON (`content-type: application/json`) without encoding";
            let why = Refusal::new(Code::InvalidArgument, text).with_http_fault(HttpFault::MediaType);
            return Arrival::Refused(NotServed::Mcp(why), shape);
        }
        Arrival::Mcp(Arc::clone(door), shape)
    }

    /// Returns the dialect in which a request is answered, also where it is refused.
    fn dialect<B>(request: &http::Request<B>) -> Dialect {
        let path = request.uri().path();
        match Kind::of(content_type(request.headers())) {
            Some(kind) if Operation::at(path).is_some() => Dialect::Connect(kind),
            _ if path == "/stores" || path.starts_with("/stores/") || path == routes::HEALTH => Dialect::OpenFga,
            _ => Dialect::Rest,
        }
    }

    /// Returns the door at which a request arrived over the network, for its record. A refused request came to a door, too.
    /// Where MCP is not served, its path is a path like any other.
    pub(super) fn door<B>(&self, request: &http::Request<B>) -> Door {
        match Self::dialect(request) {
            Dialect::Connect(_) => Door::Connect,
            Dialect::OpenFga => Door::OpenFgaHttp,
            Dialect::Rest if is_grpc_type(request.headers()) => Door::Grpc,
            Dialect::Rest if self.0.mcp.is_some() && request.uri().path() == mcp::PATH => Door::Mcp,
            Dialect::Rest if Operation::at(request.uri().path()).is_some() => Door::Connect,
            Dialect::Rest => Door::Rest,
        }
    }

    fn connect_call<B>(&self, operation: &'static Operation, request: &http::Request<B>, shape: Shape) -> Arrival {
        if is_preflight(request, &shape) {
            return Arrival::Preflight(shape, Method::POST.to_string());
        }
        let Dialect::Connect(kind) = shape.dialect else { return Arrival::AsItIs };
        if request.method() != Method::POST {
            return Arrival::Refused(NotServed::Method(Some(operation), Cow::Borrowed("POST")), shape);
        }
        if operation.request == Messages::Many {
            return Arrival::Refused(NotServed::ClientStream(operation), shape);
        }
        let streams = matches!(kind, Kind::Stream(_));
        let encoding = match Encoding::of(request.headers()) {
            // A stream has envelopes, which are compressed one by one, and is not encoded itself.
            Some(Encoding::Gzip) if streams => None,
            encoding => encoding,
        };
        match encoding {
            Some(encoding) if streams == (operation.answer == Messages::Many) => {
                self.call(operation, shape, encoding, BodyPart::Whole, Fields::new(), String::new())
            }
            _ => Arrival::Refused(NotServed::ContentType(operation), shape),
        }
    }

    fn routed_call<B>(&self, request: &http::Request<B>, shape: Shape) -> Arrival {
        match routes::find(self.0.routes.iter(), request.method(), request.uri().path()) {
            Lookup::Route(route, in_path) => {
                let Some(operation) = Operation::at(&route.rpc) else { return Arrival::AsItIs };
                let mut query = String::new();
                if route.body == BodyPart::Nothing {
                    query.push_str(request.uri().query().unwrap_or_default());
                    if query.len() > query_bytes_max(operation) {
                        return Arrival::Refused(NotServed::Query(operation), shape);
                    }
                } else if Encoding::of(request.headers()) != Some(Encoding::Identity)
                    || !has_type_of(operation, request.headers())
                {
                    return Arrival::Refused(NotServed::ContentType(operation), shape);
                }
                self.call(operation, shape, Encoding::Identity, route.body.clone(), in_path, query)
            }
            Lookup::OtherVerbs(verbs) => {
                let allowed = routes::listed(&verbs);
                if is_preflight(request, &shape) {
                    return Arrival::Preflight(shape, allowed);
                }
                Arrival::Refused(NotServed::Method(None, Cow::Owned(allowed)), shape)
            }
            Lookup::Nothing if shape.dialect == Dialect::OpenFga => Arrival::Refused(NotServed::Path, shape),
            Lookup::Nothing => Arrival::AsItIs,
        }
    }

    fn call(
        &self,
        operation: &'static Operation,
        shape: Shape,
        encoding: Encoding,
        body: BodyPart,
        in_path: Fields,
        query: String,
    ) -> Arrival {
        let Some(RpcMessages { request, answer }) = self.0.messages.get(operation.path).cloned() else {
            return Arrival::AsItIs;
        };
        let reading = self.0.reading.clone();
        Arrival::Call(Arc::new(HttpCall { operation, shape, encoding, request, answer, body, in_path, query, reading }))
    }

    /// Renders a refusal.
    fn refused(&self, shape: &Shape, refusal: &Refusal) -> http::Response<Body> {
        let (status, body, content_type) = match shape.dialect {
            Dialect::Connect(kind @ Kind::Stream(_)) => {
                (StatusCode::OK, connect::end_of_stream(Some(refusal)), kind.content_type())
            }
            Dialect::Connect(Kind::Unary(_)) | Dialect::Rest => {
                let body = connect::error(refusal).to_string();
                (refusal.http_status(), Bytes::from(body), Kind::Unary(Codec::Json).content_type())
            }
            Dialect::OpenFga => {
                let (status, body) = self.0.error_names.refused(refusal);
                // Its gateway ends the line.
                (status, Bytes::from(format!("{body}\n")), Kind::Unary(Codec::Json).content_type())
            }
        };
        let body = match shape.body_allowed {
            BodyAllowed::Yes => Body::new(Full::from(body)),
            BodyAllowed::No => Body::empty(),
        };
        let mut response = shape.response(status, content_type, body);
        plain_http::explain(refusal, response.headers_mut());
        response
    }
}

/// Returns the messages of each RPC, by its path.
fn messages_of(pool: &DescriptorPool) -> HashMap<String, RpcMessages> {
    let methods = pool.services().flat_map(|service| {
        let methods: Vec<_> = service.methods().collect();
        methods
    });
    let messages = methods.map(|method| {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        (path, RpcMessages { request: method.input(), answer: method.output() })
    });
    messages.collect()
}

impl Shape {
    /// Returns the form of an answer to whoever speaks no dialect.
    fn plain<B>(request: &http::Request<B>) -> Self {
        Self { dialect: Dialect::Rest, page: Page::Own, body_allowed: BodyAllowed::by(request.method()) }
    }

    /// Tells a browser what a page may send.
    fn preflight(&self, verbs: &str) -> http::Response<Body> {
        let mut response = http::Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        plain_http::harden(response.headers_mut());
        guards::open(&self.page, response.headers_mut());
        guards::allow(verbs, response.headers_mut());
        response
    }

    /// Returns an answer without a body.
    fn empty(&self, status: StatusCode) -> http::Response<Body> {
        let mut response = self.response(status, Kind::Unary(Codec::Json).content_type(), Body::empty());
        response.headers_mut().remove(header::CONTENT_TYPE);
        response
    }

    fn response(&self, status: StatusCode, content_type: &'static str, body: Body) -> http::Response<Body> {
        let mut response = http::Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        plain_http::harden(headers);
        guards::open(&self.page, headers);
        response
    }
}

/// Returns the longest query that an operation takes. A call that needs no token keeps its query for as long as its body
/// takes to arrive, on every stream of every connection.
fn query_bytes_max(operation: &Operation) -> usize {
    match operation.access {
        Access::Open => 256,
        Access::AnyToken | Access::AnyScope | Access::Needs(_) => QUERY_BYTES_MAX,
    }
}

/// Returns the content type of a request without its parameters; empty if there is not exactly one.
fn content_type(headers: &HeaderMap) -> &str {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return "" };
    value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

/// Returns whether a body has the type that its operation takes: JSON, or lines of JSON for a stream.
fn has_type_of(operation: &Operation, headers: &HeaderMap) -> bool {
    let wanted = match operation.request {
        Messages::One => "application/json",
        Messages::Many => "application/x-ndjson",
    };
    content_type(headers).eq_ignore_ascii_case(wanted)
}

fn is_preflight<B>(request: &http::Request<B>, shape: &Shape) -> bool {
    guards::is_preflight(request) && matches!(shape.page, Page::Allowed(_))
}

/// Finds out whether the headers of a message of MCP bring a token that its door takes.
pub(super) type KnowsBearer = Arc<dyn Fn(&HeaderMap) -> BoxFuture<'static, bool> + Send + Sync>;

/// The port's doors before a stack of layers and services.
#[derive(Clone)]
pub(super) struct Port<S> {
    doors: Doors,
    stack: S,
    /// `None` if no bearer is known before the stack has judged the call.
    knows_bearer: Option<KnowsBearer>,
}

impl<S> Port<S> {
    pub(super) fn new(doors: Doors, stack: S) -> Self {
        Self { doors, stack, knows_bearer: None }
    }

    /// Reads messages of MCP by the bearers of good tokens without a wait for those of other callers.
    pub(super) fn knowing(self, knows_bearer: KnowsBearer) -> Self {
        Self { knows_bearer: Some(knows_bearer), ..self }
    }
}

impl<S> Service<http::Request<Body>> for Port<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Refusal> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A stack that is not ready is a defect, which its next call refuses.
        self.stack.poll_ready(context).map(|_ready| Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // The connection has looked at the head already.
        let arrival = request.extensions_mut().remove::<Arrival>();
        let doors = self.doors.clone();
        match arrival.unwrap_or_else(|| doors.arrival(&request)) {
            Arrival::AsItIs => {
                let (route, shape) = (Route::of(&request), Shape::plain(&request));
                let answering = self.stack.call(request);
                Box::pin(async move {
                    Ok(match (answering.await, route) {
                        (Ok(response), Route::Rpc(Operation { answer: Messages::Many, .. })) => {
                            grpc::streamed(response)
                        }
                        (Ok(response), _) => response,
                        (Err(refusal), route) if route.is_grpc() => grpc::refused(&refusal),
                        (Err(refusal), _) => doors.refused(&shape, &refusal),
                    })
                })
            }
            Arrival::Call(call) => {
                // The stack gives the answer in the form of the door.
                let answering = self.stack.call(call.call(request));
                Box::pin(async move {
                    Ok(match answering.await {
                        Ok(answer) => answer,
                        Err(refusal) if call.ends_lines(&refusal) => call.failed_stream(&refusal),
                        Err(refusal) => doors.refused(&call.shape, &refusal),
                    })
                })
            }
            Arrival::Mcp(door, shape) => {
                // The instance that was polled is called, because only that one is known to be ready.
                let waiting = self.stack.clone();
                let stack = std::mem::replace(&mut self.stack, waiting);
                let judging = self.knows_bearer.as_ref().map(|knows_bearer| knows_bearer(request.headers()));
                Box::pin(async move {
                    if let Some(judging) = judging
                        && judging.await
                    {
                        request.extensions_mut().insert(KnownBearer);
                    }
                    Ok(door.answered(stack, request, shape).await)
                })
            }
            Arrival::Notification(shape) => {
                request.extensions_mut().insert(Route::Notification);
                let answering = self.stack.call(request);
                Box::pin(async move { Ok(answering.await.unwrap_or_else(|refusal| doors.refused(&shape, &refusal))) })
            }
            Arrival::Refused(fault, shape) => {
                request.extensions_mut().insert(Route::Refused(fault));
                let answering = self.stack.call(request);
                Box::pin(async move {
                    let refusal = answering.await.err().unwrap_or_else(Refusal::lost);
                    Ok(doors.refused(&shape, &refusal))
                })
            }
            Arrival::Preflight(shape, verbs) => Box::pin(std::future::ready(Ok(shape.preflight(&verbs)))),
        }
    }
}
