//! The doors of the port. gRPC passes as it is. The HTTP doors, which are Connect, our own routes and `OpenFGA`'s HTTP API,
//! translate a request into a gRPC call of the stack, and its answer or [`Refusal`] back.
//!
//! ```text
//! head → which RPC, which dialect → the stack: record → gate → service → the message, read from the body → answer → JSON
//! ```
//!
//! A body is translated when the service reads its message. The gate stands before that, so a caller without a right learns
//! nothing of what is wrong with its body, and the record has the code of whatever was.
//!
//! INVARIANT (no policy in a door): a door knows paths, encodings and shapes. Who may call, and what is answered, is decided in
//! the stack alone, from the caller's own headers.

mod connect;
mod frames;
mod guards;
mod json;
mod openapi;
mod openfga;
mod routes;

use std::borrow::Cow;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::{Stream, StreamExt, stream};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use prost::Message;
use prost::bytes::BytesMut;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::codegen::http::{self, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use tonic::codegen::{Bytes, StdError};
use tonic::{Code, Status};
use tower::Service;

use self::connect::{Codec, Kind};
use self::guards::Page;
pub use self::guards::{Addresses, Guards};
use self::json::{Strictness, UnsetMessages};
use self::openfga::ErrorNames;
use self::routes::{BodyPart, Fields, HttpRoute, Lookup};
use super::answers::AnswerSlot;
use super::operations::{Messages, NotServed, Operation, Route};
use super::plain_http::{self, BodyAllowed};
use super::refusal::{HttpFault, Refusal};
use super::{ServerError, consistency_token, deadline, grpc, reflection};
use crate::proto::DESCRIPTORS;

/// The headers that a call takes over from the request at its door: who calls, how long it waits, and its trace.
const CALLER_HEADERS: [HeaderName; 3] =
    [header::AUTHORIZATION, HeaderName::from_static("grpc-timeout"), HeaderName::from_static("traceparent")];
/// The headers of an answer that clients read.
const ANSWER_HEADERS: [&str; 2] = [consistency_token::HEADER, "openfga-authorization-model-id"];
/// JSON is larger than the message that it stands for: numbers are texts, and texts have escapes.
const JSON_GROWTH: usize = 4;

/// The dialects of HTTP that callers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Connect(Kind),
    /// The routes of Ragward's own services.
    Rest,
    /// `OpenFGA`'s HTTP API.
    OpenFga,
}

/// What a door makes of a request, from its head.
#[derive(Clone, Debug)]
pub(super) enum Arrival {
    /// gRPC, a public document, or nothing that a door knows. The stack gets it as it is.
    AsItIs,
    /// A call of an RPC.
    Call(Arc<HttpCall>),
    /// A request that no service sees. It still passes the stack, which records it.
    Refused(NotServed, Shape),
    /// A browser asks what a page may send; these are the methods.
    Preflight(Shape, String),
}

/// The form of an answer: its dialect, and the page that may read it.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    dialect: Dialect,
    page: Page,
    body_allowed: BodyAllowed,
}

/// One call of an RPC over HTTP.
#[derive(Clone, Debug)]
pub(super) struct HttpCall {
    pub(super) operation: &'static Operation,
    shape: Shape,
    request: MessageDescriptor,
    answer: MessageDescriptor,
    body: BodyPart,
    fields: Fields,
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
    /// The description of our own routes.
    openapi: Bytes,
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
            Self::Refused(fault, _) => Route::Refused(fault.clone()),
            Self::Preflight(..) => Route::Public,
        }
    }
}

impl Doors {
    /// # Errors
    /// When the services cannot be described.
    pub(super) fn new(guards: Guards) -> Result<Self, ServerError> {
        let pool = reflection::pool()?;
        let mut routes = routes::read(DESCRIPTORS)?;
        let openapi = openapi::document(&pool, &routes).to_string().into();
        routes.extend(routes::read(reflection::OPENFGA)?);
        routes.push(routes::health());
        let methods = pool.services().flat_map(|service| {
            let methods: Vec<_> = service.methods().collect();
            methods
        });
        let messages = methods.map(|method| {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            (path, RpcMessages { request: method.input(), answer: method.output() })
        });
        let messages = messages.collect();
        Ok(Self(Arc::new(Tables { guards, routes, messages, error_names: ErrorNames::of(&pool), openapi })))
    }

    /// Returns the description of our own routes (`OpenAPI`), as JSON.
    pub(super) fn openapi(&self) -> Bytes {
        self.0.openapi.clone()
    }

    /// Recognizes a request from its head.
    pub(super) fn arrival<B>(&self, request: &http::Request<B>) -> Arrival {
        // A browser cannot call gRPC. Whatever has its content type alone passes the guards like any other request.
        if Route::of(request).is_grpc() {
            return Arrival::AsItIs;
        }
        let path = request.uri().path();
        let body_allowed = BodyAllowed::by(request.method());
        let dialect = self.dialect(request);
        let page = match self.0.guards.check(request) {
            Ok(page) => page,
            Err(fault) => return Arrival::Refused(fault, Shape { dialect, page: Page::Own, body_allowed }),
        };
        let shape = Shape { dialect, page, body_allowed };
        match Operation::at(path) {
            Some(operation) => self.connect_call(operation, request, shape),
            None => self.routed_call(request, shape),
        }
    }

    /// Returns the dialect in which a request is answered, also where it is refused.
    fn dialect<B>(&self, request: &http::Request<B>) -> Dialect {
        let path = request.uri().path();
        match Kind::of(content_type(request.headers())) {
            Some(kind) if Operation::at(path).is_some() => Dialect::Connect(kind),
            _ if path == "/stores" || path.starts_with("/stores/") || path == routes::HEALTH => Dialect::OpenFga,
            _ => Dialect::Rest,
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
        if streams != (operation.answer == Messages::Many) || is_encoded(request.headers()) {
            return Arrival::Refused(NotServed::ContentType(operation), shape);
        }
        self.call(operation, shape, BodyPart::Whole, Fields::new())
    }

    fn routed_call<B>(&self, request: &http::Request<B>, shape: Shape) -> Arrival {
        match routes::find(self.0.routes.iter(), request.method(), request.uri().path()) {
            Lookup::Route(route, mut fields) => {
                let Some(operation) = Operation::at(&route.rpc) else { return Arrival::AsItIs };
                if route.body == BodyPart::Nothing {
                    let query = request.uri().query().unwrap_or_default();
                    fields.extend(url::form_urlencoded::parse(query.as_bytes()).into_owned());
                } else if is_encoded(request.headers()) || !has_type_of(operation, request.headers()) {
                    return Arrival::Refused(NotServed::ContentType(operation), shape);
                }
                self.call(operation, shape, route.body.clone(), fields)
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

    fn call(&self, operation: &'static Operation, shape: Shape, body: BodyPart, fields: Fields) -> Arrival {
        let Some(RpcMessages { request, answer }) = self.0.messages.get(operation.path).cloned() else {
            return Arrival::AsItIs;
        };
        Arrival::Call(Arc::new(HttpCall { operation, shape, request, answer, body, fields }))
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

impl HttpCall {
    /// Turns a request at the door into the gRPC call that it stands for.
    fn call(self: &Arc<Self>, request: http::Request<Body>) -> http::Request<Body> {
        let (parts, body) = request.into_parts();
        let mut call = http::Request::new(self.message_body(body));
        (*call.method_mut(), *call.version_mut()) = (Method::POST, Version::HTTP_2);
        *call.uri_mut() = http::Uri::from_static(self.operation.path);
        let headers = call.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        for name in CALLER_HEADERS {
            // All values: a caller with two tokens is refused, not one of them chosen.
            for value in parts.headers.get_all(&name) {
                headers.append(&name, value.clone());
            }
        }
        if let Some(waits) = connect::timeout(&parts.headers) {
            // A number of milliseconds is always a header's value.
            if let Ok(value) = HeaderValue::from_str(&format!("{}m", waits.as_millis())) {
                headers.insert("grpc-timeout", value);
            }
        }
        *call.extensions_mut() = parts.extensions;
        call
    }

    /// Returns the body of the gRPC call, which reads that of the request.
    fn message_body(self: &Arc<Self>, body: Body) -> Body {
        let call = Arc::clone(self);
        match self.operation.request {
            Messages::One => Body::new(StreamBody::new(stream::once(async move { call.only_message(body).await }))),
            Messages::Many => Body::new(StreamBody::new(lines(call, body))),
        }
    }

    async fn only_message(&self, body: Body) -> Result<Frame<Bytes>, Status> {
        let body = Limited::new(body, self.json_bytes_max()).collect().await.map_err(unread)?.to_bytes();
        let message = match self.shape.dialect {
            Dialect::Connect(Kind::Unary(Codec::Proto)) => body,
            Dialect::Connect(Kind::Stream(Codec::Proto)) => connect::opened(&body)?,
            Dialect::Connect(Kind::Stream(Codec::Json)) => self.message(&connect::opened(&body)?)?,
            Dialect::Connect(Kind::Unary(Codec::Json)) | Dialect::Rest | Dialect::OpenFga => self.message(&body)?,
        };
        Ok(Frame::data(frames::framed(&message)?))
    }

    /// Reads the message of a request from its body, its path and its query.
    fn message(&self, body: &Bytes) -> Result<Bytes, Refusal> {
        let strictness = match self.shape.dialect {
            Dialect::OpenFga => Strictness::Lenient,
            Dialect::Connect(_) | Dialect::Rest => Strictness::Strict,
        };
        let mut message = match &self.body {
            BodyPart::Nothing => DynamicMessage::new(self.request.clone()),
            // `OpenFGA`'s gateway takes no body for an empty message.
            BodyPart::Whole if body.is_empty() && self.shape.dialect == Dialect::OpenFga => {
                DynamicMessage::new(self.request.clone())
            }
            BodyPart::Whole => json::read(&self.request, body, strictness)?,
            BodyPart::Field(name) => self.message_around(name, body, strictness)?,
        };
        json::set(&mut message, &self.fields, strictness)?;
        Ok(message.encode_to_vec().into())
    }

    /// Reads a message of which the body holds one field.
    fn message_around(&self, name: &str, body: &Bytes, strictness: Strictness) -> Result<DynamicMessage, Refusal> {
        let mut message = DynamicMessage::new(self.request.clone());
        let field = self.request.get_field_by_name(name);
        let of_field = field.as_ref().map(prost_reflect::FieldDescriptor::kind);
        let (Some(field), Some(prost_reflect::Kind::Message(of_field))) = (field, of_field) else {
            tracing::error!(name, "a route names a field that is no message");
            return Err(Refusal::lost());
        };
        message.set_field(&field, Value::Message(json::read(&of_field, body, strictness)?));
        Ok(message)
    }

    fn json_bytes_max(&self) -> usize {
        let message_bytes_max = self.operation.request_bytes_max;
        match self.shape.dialect {
            Dialect::Connect(Kind::Unary(Codec::Proto)) => message_bytes_max,
            _ => message_bytes_max.saturating_mul(JSON_GROWTH).min(super::DOCUMENT_BYTES_MAX),
        }
    }

    /// Turns the answer of the gRPC call into one of this dialect.
    async fn answer(
        &self,
        answer: http::Response<Body>,
        slot: Option<AnswerSlot>,
    ) -> Result<http::Response<Body>, Refusal> {
        let (parts, body) = answer.into_parts();
        let mut response = match self.operation.answer {
            Messages::One => {
                let answer = self.only_answer(frames::only(body).await?)?;
                if let Some(slot) = slot {
                    // JSON is larger than the message for which there is room.
                    slot.reserve(usize::try_from(answer.body().size_hint().lower()).unwrap_or(usize::MAX)).await?;
                }
                answer
            }
            Messages::Many => self.streamed_answer(body).await,
        };
        for name in ANSWER_HEADERS {
            if let Some(value) = parts.headers.get(name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        *response.extensions_mut() = parts.extensions;
        Ok(response)
    }

    fn only_answer(&self, message: Bytes) -> Result<http::Response<Body>, Refusal> {
        let (status, kind) = match self.shape.dialect {
            Dialect::Connect(kind) => (StatusCode::OK, kind),
            Dialect::Rest => (StatusCode::OK, Kind::Unary(Codec::Json)),
            Dialect::OpenFga => (openfga::answered(self.operation.path), Kind::Unary(Codec::Json)),
        };
        if status == StatusCode::NO_CONTENT {
            let mut response = self.shape.response(status, kind.content_type(), Body::empty());
            response.headers_mut().remove(header::CONTENT_TYPE);
            return Ok(response);
        }
        let body = match kind {
            Kind::Unary(Codec::Proto) => message,
            _ => self.written(message)?,
        };
        Ok(self.shape.response(status, kind.content_type(), Body::new(Full::from(body))))
    }

    fn written(&self, message: Bytes) -> Result<Bytes, Refusal> {
        let unset = match self.shape.dialect {
            Dialect::OpenFga => UnsetMessages::Null,
            Dialect::Connect(_) | Dialect::Rest => UnsetMessages::LeftOut,
        };
        json::written(&self.answer, message, unset).map(Bytes::from)
    }

    /// Returns a stream of answers: envelopes in Connect, lines of JSON elsewhere.
    async fn streamed_answer(&self, body: Body) -> http::Response<Body> {
        let call = self.clone();
        let mut messages = Box::pin(frames::messages(body));
        if let Dialect::Connect(kind) = self.shape.dialect {
            let pieces = messages.map(move |message| call.envelope(kind, message));
            let pieces = pieces.chain(stream::once(async { Ok(None) }));
            // The end is sent once: a refusal is the last item, and ends the stream itself.
            let pieces = pieces.scan(false, |has_ended, piece| {
                let piece = match piece {
                    _ if *has_ended => None,
                    Ok(Some(envelope)) => Some(envelope),
                    Ok(None) => {
                        *has_ended = true;
                        Some(connect::end_of_stream(None))
                    }
                    Err(refusal) => {
                        *has_ended = true;
                        Some(connect::end_of_stream(Some(&refusal)))
                    }
                };
                std::future::ready(piece)
            });
            return self.shape.response(StatusCode::OK, kind.content_type(), streamed(pieces));
        }
        let first = messages.next().await;
        if let Some(Err(refusal)) = &first {
            let body = format!("{}\n", openfga::stream_error(refusal));
            let json = Kind::Unary(Codec::Json).content_type();
            return self.shape.response(StatusCode::BAD_REQUEST, json, Body::new(Full::from(body)));
        }
        let lines = stream::iter(first).chain(messages).map(move |message| call.line(message));
        self.shape.response(StatusCode::OK, Kind::Unary(Codec::Json).content_type(), streamed(lines))
    }

    fn envelope(&self, kind: Kind, message: Result<Bytes, Refusal>) -> Result<Option<Bytes>, Refusal> {
        let message = match kind {
            Kind::Unary(Codec::Json) | Kind::Stream(Codec::Json) => self.written(message?)?,
            Kind::Unary(Codec::Proto) | Kind::Stream(Codec::Proto) => message?,
        };
        frames::framed(&message).map(Some)
    }

    fn line(&self, message: Result<Bytes, Refusal>) -> Bytes {
        let line = match message.and_then(|message| self.written(message)) {
            Ok(json) => format!("{{\"result\":{}}}\n", String::from_utf8_lossy(&json)),
            Err(refusal) => format!("{}\n", openfga::stream_error(&refusal)),
        };
        Bytes::from(line)
    }
}

fn streamed(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    Body::new(StreamBody::new(pieces.map(|piece| Ok::<_, Status>(Frame::data(piece)))))
}

/// Returns the messages of a body that has one in each line (NDJSON). Empty lines are passed over.
fn lines(call: Arc<HttpCall>, body: Body) -> impl Stream<Item = Result<Frame<Bytes>, Status>> + Send {
    let reading = Lines { call, body: Some(body), arrived: BytesMut::new(), number: 0 };
    stream::try_unfold(reading, async |mut reading| Ok(reading.next().await?.map(|frame| (frame, reading))))
}

struct Lines {
    call: Arc<HttpCall>,
    /// The rest of the body; `None` after its end.
    body: Option<Body>,
    arrived: BytesMut,
    number: usize,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Frame<Bytes>>, Status> {
        loop {
            while let Some(line) = self.take() {
                self.number += 1;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let number = self.number;
                let message =
                    self.call.message(&line).map_err(|refusal| refusal.with_place(&format!("line {number}")))?;
                return Ok(Some(Frame::data(frames::framed(&message)?)));
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            match body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.arrived.extend_from_slice(&data);
                    }
                    if self.arrived.len() > self.call.json_bytes_max() {
                        return Err(too_large().into());
                    }
                }
                None => self.body = None,
            }
        }
    }

    /// Takes the next line out of the bytes that have arrived, once it is whole.
    fn take(&mut self) -> Option<Bytes> {
        match self.arrived.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let mut line = self.arrived.split_to(end + 1);
                line.truncate(end);
                Some(line.freeze())
            }
            None if self.body.is_none() && !self.arrived.is_empty() => Some(self.arrived.split().freeze()),
            None => None,
        }
    }
}

fn too_large() -> Refusal {
    Refusal::new(Code::ResourceExhausted, "the body is too large").with_http_fault(HttpFault::Size)
}

/// Returns the refusal of a body that could not be read.
fn unread(error: StdError) -> Status {
    if error.is::<LengthLimitError>() { too_large().into() } else { Status::from_error(error) }
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

/// Returns whether a body is compressed or otherwise encoded.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|encoding| encoding != "identity")
}

fn is_preflight<B>(request: &http::Request<B>, shape: &Shape) -> bool {
    guards::is_preflight(request) && matches!(shape.page, Page::Allowed(_))
}

/// The port's doors before a stack of layers and services.
#[derive(Clone)]
pub(super) struct Port<S> {
    doors: Doors,
    stack: S,
}

impl<S> Port<S> {
    pub(super) fn new(doors: Doors, stack: S) -> Self {
        Self { doors, stack }
    }
}

impl<S> Service<http::Request<Body>> for Port<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Refusal>,
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
                let answering = self.within_deadline(request);
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
                let slot = request.extensions().get::<AnswerSlot>().cloned();
                let answering = self.within_deadline(call.call(request));
                Box::pin(async move {
                    let answered = match answering.await {
                        Ok(answer) => call.answer(answer, slot).await,
                        Err(refusal) => Err(refusal),
                    };
                    Ok(answered.unwrap_or_else(|refusal| doors.refused(&call.shape, &refusal)))
                })
            }
            Arrival::Refused(fault, shape) => {
                request.extensions_mut().insert(Route::Refused(fault));
                let answering = self.within_deadline(request);
                Box::pin(async move {
                    let refusal = answering.await.err().unwrap_or_else(Refusal::lost);
                    Ok(doors.refused(&shape, &refusal))
                })
            }
            Arrival::Preflight(shape, verbs) => Box::pin(std::future::ready(Ok(shape.preflight(&verbs)))),
        }
    }
}

impl<S> Port<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Refusal>,
    S::Future: Send + 'static,
{
    /// Calls the stack. The caller's own deadline bounds every call, even if the handler never looks at it.
    fn within_deadline(
        &mut self,
        request: http::Request<Body>,
    ) -> BoxFuture<'static, Result<http::Response<Body>, Refusal>> {
        let until = deadline::asked(request.headers()).map(|asked| Instant::now() + asked);
        let answering = self.stack.call(request);
        Box::pin(async move {
            match until {
                Some(until) => timeout_at(until, answering).await.unwrap_or_else(|_elapsed| Err(Refusal::late())),
                None => answering.await,
            }
        })
    }
}
