//! One call of an RPC over HTTP: its body becomes the message of a gRPC request, and the answer's message becomes its answer.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use prost::Message;
use prost::bytes::BytesMut;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};
use tonic::body::Body;
use tonic::codegen::http::{self, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use tonic::codegen::{Bytes, StdError};
use tonic::{Code, Status};

use super::connect::{self, Codec, Kind};
use super::encoding::{self, Encoding, Unpacked};
use super::json::{self, Place, Strictness, UnsetMessages};
use super::routes::{BodyPart, Fields};
use super::{Dialect, DoorCall, Shape, frames, openfga};
use crate::blocking_pool::BlockingPool;
use crate::server::answers::AnswerSlot;
use crate::server::authentication::PROOF_HEADER;
use crate::server::operations::{Messages, Operation};
use crate::server::refusal::{HttpFault, Refusal};
use crate::server::{DOCUMENT_BYTES_MAX, consistency_token};

/// The headers that a call takes over from the request at its door: who calls, how long it waits, and its trace.
pub(super) const CALLER_HEADERS: [HeaderName; 4] = [
    header::AUTHORIZATION,
    HeaderName::from_static(PROOF_HEADER),
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("traceparent"),
];
/// The headers of an answer that clients read.
const ANSWER_HEADERS: [&str; 2] = [consistency_token::HEADER, "openfga-authorization-model-id"];
/// JSON is larger than the message that it stands for: numbers are texts, and texts have escapes.
const JSON_GROWTH: usize = 4;
/// The largest JSON that is read where it arrives. While it is read, JSON takes up to fifty times its size: `0,` becomes a
/// value of JSON and a value of a message. Larger JSON waits for a slot in a pool, so that few of them are read at a time, and
/// none keeps a thread from other requests. The same holds for what is unpacked: gzip becomes up to a thousand times
/// larger.
const READ_AT_ONCE_MAX: usize = 64 * 1_024;
/// The most values and members that JSON may have: as many numbers as the largest document has in its usual spelling.
const JSON_ITEMS_MAX: usize = 4 << 20;

/// One call of an RPC over HTTP.
#[derive(Clone, Debug)]
pub(in crate::server) struct HttpCall {
    pub(super) operation: &'static Operation,
    pub(super) shape: Shape,
    /// The encoding of its body.
    pub(super) encoding: Encoding,
    pub(super) request: MessageDescriptor,
    pub(super) answer: MessageDescriptor,
    pub(super) body: BodyPart,
    /// The fields in the path.
    pub(super) in_path: Fields,
    /// The query as it came; empty if the route reads none. It is cut into fields only when the message is read: behind the
    /// gate, and no sooner than the body has arrived.
    pub(super) query: String,
    /// The pool in which large JSON is read.
    pub(super) reading: BlockingPool,
}

impl HttpCall {
    /// Turns a request at the door into the gRPC call that it stands for.
    pub(super) fn call(self: &Arc<Self>, request: http::Request<Body>) -> http::Request<Body> {
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
        call.extensions_mut().insert(DoorCall::Http(Arc::clone(self)));
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

    async fn only_message(self: &Arc<Self>, body: Body) -> Result<Frame<Bytes>, Status> {
        let body = Limited::new(body, self.json_bytes_max()).collect().await.map_err(unread)?.to_bytes();
        let body = match self.encoding {
            Encoding::Identity => body,
            // Connect does not encode an empty message.
            Encoding::Gzip if body.is_empty() => body,
            Encoding::Gzip => self.unpacked(body).await?,
        };
        let message = match self.shape.dialect {
            Dialect::Connect(Kind::Unary(Codec::Proto)) => body,
            Dialect::Connect(Kind::Stream(Codec::Proto)) => connect::opened(&body)?,
            Dialect::Connect(Kind::Stream(Codec::Json)) => self.read(connect::opened(&body)?).await?,
            Dialect::Connect(Kind::Unary(Codec::Json)) | Dialect::Rest | Dialect::OpenFga => self.read(body).await?,
        };
        // The service would refuse it, too, and a client that came too often is refused in the same way.
        if message.len() > self.operation.request_bytes_max {
            return Err(too_large().into());
        }
        Ok(Frame::data(frames::framed(&message)?))
    }

    /// Unpacks a body, in a slot of the pool if it is large or much comes out of it.
    async fn unpacked(&self, body: Bytes) -> Result<Bytes, Refusal> {
        let bytes_max = self.json_bytes_max();
        if let Unpacked::Whole(plain) = encoding::unpacked(&body, READ_AT_ONCE_MAX.min(bytes_max))? {
            return Ok(plain);
        }
        let unpacking = self.reading.run(move || match encoding::unpacked(&body, bytes_max)? {
            Unpacked::Whole(plain) => Ok(plain),
            Unpacked::TooLarge => Err(too_large()),
        });
        unpacking.await.unwrap_or_else(|lost| {
            tracing::error!(%lost, "the body of a request was not unpacked");
            Err(Refusal::lost())
        })
    }

    /// Reads the message of a request from its body, its path and its query, in a slot of the pool if the body is large.
    async fn read(self: &Arc<Self>, body: Bytes) -> Result<Bytes, Refusal> {
        if body.len() <= READ_AT_ONCE_MAX {
            return self.message(&body);
        }
        let call = Arc::clone(self);
        let reading = self.reading.run(move || {
            if body.split(|byte| *byte == b',').count() > JSON_ITEMS_MAX {
                return Err(too_large());
            }
            call.message(&body)
        });
        reading.await.unwrap_or_else(|lost| {
            tracing::error!(%lost, "the JSON of a request was not read");
            Err(Refusal::lost())
        })
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
        let in_query: Fields = url::form_urlencoded::parse(self.query.as_bytes()).into_owned().collect();
        json::set(&mut message, &in_query, Place::Query, strictness)?;
        json::set(&mut message, &self.in_path, Place::Path, strictness)?;
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

    /// Returns how many times larger than its message the answer may become. Seldom is JSON larger than that.
    pub(super) const fn answer_growth(&self) -> usize {
        match self.shape.dialect {
            Dialect::Connect(Kind::Unary(Codec::Proto) | Kind::Stream(Codec::Proto)) => 1,
            Dialect::Connect(Kind::Unary(Codec::Json) | Kind::Stream(Codec::Json))
            | Dialect::Rest
            | Dialect::OpenFga => 2,
        }
    }

    fn json_bytes_max(&self) -> usize {
        let message_bytes_max = self.operation.request_bytes_max;
        match self.shape.dialect {
            Dialect::Connect(Kind::Unary(Codec::Proto)) => message_bytes_max,
            Dialect::Connect(_) | Dialect::Rest | Dialect::OpenFga => {
                message_bytes_max.saturating_mul(JSON_GROWTH).min(DOCUMENT_BYTES_MAX)
            }
        }
    }

    /// Turns the answer of the gRPC call into one of this dialect.
    ///
    /// INVARIANT (one code): this happens inside of the record, so the record has the code that the client gets.
    ///
    /// # Errors
    /// When the answer cannot be written in this dialect, or there is no room for it.
    pub(in crate::server) async fn answer(
        &self,
        answer: http::Response<Body>,
        slot: Option<AnswerSlot>,
    ) -> Result<http::Response<Body>, Refusal> {
        let (parts, body) = answer.into_parts();
        let mut response = match self.operation.answer {
            Messages::One => {
                let answer = self.only_answer(frames::only(body).await?)?;
                if let Some(slot) = slot {
                    // JSON is larger than the message. It may be larger than the room that was taken for it, too.
                    slot.fit(usize::try_from(answer.body().size_hint().lower()).unwrap_or(usize::MAX))?;
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
            Dialect::OpenFga => (openfga::answered(self.operation.path, &message), Kind::Unary(Codec::Json)),
        };
        if status == StatusCode::NO_CONTENT {
            let mut response = self.shape.response(status, kind.content_type(), Body::empty());
            response.headers_mut().remove(header::CONTENT_TYPE);
            return Ok(response);
        }
        let body = match kind {
            Kind::Unary(Codec::Proto) => message,
            Kind::Unary(Codec::Json) | Kind::Stream(_) => self.written(&message)?,
        };
        Ok(self.shape.response(status, kind.content_type(), Body::new(Full::from(body))))
    }

    fn written(&self, message: &[u8]) -> Result<Bytes, Refusal> {
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
            return self.failed_stream(refusal);
        }
        let lines = stream::iter(first).chain(messages).map(move |message| call.line(message));
        self.shape.response(StatusCode::OK, Kind::Unary(Codec::Json).content_type(), streamed(lines))
    }

    /// Returns a stream of lines that failed before its first message.
    pub(super) fn failed_stream(&self, refusal: &Refusal) -> http::Response<Body> {
        let body = format!("{}\n", openfga::stream_error(refusal));
        let json = Kind::Unary(Codec::Json).content_type();
        self.shape.response(openfga::stream_status(refusal), json, Body::new(Full::from(body)))
    }

    /// Returns whether a refusal is told as the end of a stream of lines. `OpenFGA`'s gateway tells so whatever its API refused.
    pub(super) fn ends_lines(&self, refusal: &Refusal) -> bool {
        let is_stream = self.shape.dialect == Dialect::OpenFga && self.operation.answer == Messages::Many;
        is_stream && openfga::is_of_the_api(refusal)
    }

    fn envelope(&self, kind: Kind, message: Result<Bytes, Refusal>) -> Result<Option<Bytes>, Refusal> {
        let message = match kind {
            Kind::Unary(Codec::Json) | Kind::Stream(Codec::Json) => self.written(&message?)?,
            Kind::Unary(Codec::Proto) | Kind::Stream(Codec::Proto) => message?,
        };
        frames::framed(&message).map(Some)
    }

    fn line(&self, message: Result<Bytes, Refusal>) -> Bytes {
        let line = match message.and_then(|message| self.written(&message)) {
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
    let reading = Lines { call, body: Some(body), arrived: BytesMut::new(), searched: 0, number: 0 };
    stream::try_unfold(reading, async |mut reading| Ok(reading.next().await?.map(|frame| (frame, reading))))
}

struct Lines {
    call: Arc<HttpCall>,
    /// The rest of the body; `None` after its end.
    body: Option<Body>,
    arrived: BytesMut,
    /// How many of these bytes are known to hold no end of a line. Otherwise a long line in many small pieces would be searched
    /// anew for each of them.
    searched: usize,
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
                let message = self.call.read(line).await;
                let message = message.map_err(|refusal| refusal.with_place(&format!("line {number}")))?;
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
        let fresh = self.arrived.get(self.searched..).unwrap_or_default();
        match fresh.iter().position(|byte| *byte == b'\n') {
            Some(further) => {
                let end = self.searched + further;
                self.searched = 0;
                let mut line = self.arrived.split_to(end + 1);
                line.truncate(end);
                Some(line.freeze())
            }
            None if self.body.is_none() && !self.arrived.is_empty() => Some(self.arrived.split().freeze()),
            None => {
                self.searched = self.arrived.len();
                None
            }
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
