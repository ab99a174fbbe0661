//! The one API inside: record, gate and services as one [`tower::Service`] over gRPC requests.
//!
//! The port calls it for whatever arrives at its connections. A door for another protocol translates its request into a
//! gRPC call, calls the stack in this process with the headers of its own caller, and gets the answer's message or the
//! [`Refusal`], which it renders in its own shape. So no door holds a policy, and each call is recorded once.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{self, HeaderValue, Version, header, request};
use tower::util::{BoxCloneSyncService, MapResultLayer};
use tower::{Service, ServiceBuilder, ServiceExt};

use super::answers::{AnswerSlot, Answers};
use super::audit::{AuditLayer, OngoingWork};
use super::authentication::GateLayer;
use super::connections::{self, Arrived};
use super::dispatcher::Dispatcher;
use super::door::PortDoor;
use super::health::Readiness;
use super::refusal::Refusal;
use super::services::Services;
use super::{ServerError, consistency_token, deadline};

/// The headers that an in-process call takes over from its caller: who calls, how long it waits, and its trace.
const CALLER_HEADERS: [&str; 3] = ["authorization", "grpc-timeout", "traceparent"];
/// The bytes before a message of gRPC: whether it is compressed, and its length.
const FRAME_HEAD_BYTES: usize = 5;

/// Record, gate and services, built once and cheap to clone.
///
/// Its error is a [`Refusal`], so whoever calls it cannot take a refusal for an answer.
#[derive(Clone)]
pub struct Stack {
    service: BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Refusal>,
    readiness: Arc<Readiness>,
    work: OngoingWork,
    /// The room for answers to callers within the process.
    answers: Answers,
    connections_max: usize,
    request_timeout: Duration,
}

impl Stack {
    /// Builds the stack over services.
    ///
    /// # Errors
    /// When the services cannot be described.
    pub fn new(services: Services) -> Result<Self, ServerError> {
        let readiness = Readiness::new(&services);
        let dispatcher = Dispatcher::new(&services, &readiness)?;
        let work = OngoingWork::default();
        let service = ServiceBuilder::new()
            .layer(MapResultLayer::new(consistency_token::stamp(services.consistency_tokens)))
            // Around the gate, so that it sees the calls that are refused there, too.
            .layer(AuditLayer { audit: services.audit, work: work.clone() })
            .layer(GateLayer { authentication: services.authentication, authorizer: services.authorizer })
            .service(dispatcher);
        Ok(Self {
            service: BoxCloneSyncService::new(service),
            readiness,
            work,
            answers: Answers::new(),
            connections_max: services.connections_max,
            request_timeout: services.request_timeout,
        })
    }

    /// Calls an RPC with one message in this process, for a door that translates requests of another protocol.
    ///
    /// `path` is `/package.Service/Method`. `caller` is the head of the request that arrived at the door: its headers say who
    /// calls, and its extensions say by which connection.
    ///
    /// # Errors
    /// The refusal of the gate or of the service, also when the RPC is unknown or its answer is not one message of the type
    /// `A`.
    pub async fn unary<Q: Message, A: Message + Default>(
        &self,
        path: &'static str,
        caller: &request::Parts,
        message: &Q,
    ) -> Result<A, Refusal> {
        let mut request = http::Request::new(Body::new(Full::from(framed(message)?)));
        (*request.method_mut(), *request.version_mut()) = (http::Method::POST, Version::HTTP_2);
        *request.uri_mut() = http::Uri::from_static(path);
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        for name in CALLER_HEADERS {
            // All values: a caller with two tokens is refused, not one of them chosen.
            for value in caller.headers.get_all(name) {
                request.headers_mut().append(name, value.clone());
            }
        }
        *request.extensions_mut() = caller.extensions.clone();
        let asked = deadline::asked(request.headers());
        if request.extensions().get::<AnswerSlot>().is_none() {
            let room_until = Instant::now() + asked.unwrap_or(self.request_timeout).min(self.request_timeout);
            request.extensions_mut().insert(AnswerSlot::new(&self.answers, room_until));
        }
        let answering = self.clone().oneshot(request);
        let answer = match asked {
            Some(asked) => timeout(asked, answering).await.unwrap_or_else(|_elapsed| Err(Refusal::late()))?,
            // A call without a deadline keeps the limits of its RPC, as at the port. Some RPCs have none, so that a
            // write is not given up.
            None => answering.await?,
        };
        let body = answer.into_body().collect().await.map_err(|status| Refusal::from(&status))?;
        match Refusal::of_trailers(body.trailers()) {
            Some(refusal) => Err(refusal),
            None => unframed(&body.to_bytes()),
        }
    }

    /// Serves connections until `stop` is ready, then until the requests that run have ended.
    pub async fn serve<I, IO>(self, incoming: I, stop: impl Future<Output = ()>)
    where
        I: Stream<Item = io::Result<Arrived<IO>>>,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { readiness, work, connections_max, request_timeout, .. } = self.clone();
        let stop = async move {
            stop.await;
            readiness.stop();
        };
        let door = BoxCloneSyncService::new(PortDoor::new(self));
        connections::serve(door, incoming, connections_max, request_timeout, stop).await;
        work.ended().await;
    }
}

impl Service<http::Request<Body>> for Stack {
    type Response = http::Response<Body>;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Self::Response, Refusal>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.service.call(request)
    }
}

/// Returns a message as the body of a gRPC request.
fn framed<Q: Message>(message: &Q) -> Result<Vec<u8>, Refusal> {
    let too_large = || Refusal::new(Code::ResourceExhausted, "the message is too large");
    let length = u32::try_from(message.encoded_len()).map_err(|_large| too_large())?;
    let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + message.encoded_len());
    bytes.push(0);
    bytes.extend(length.to_be_bytes());
    message.encode(&mut bytes).map_err(|_no_room| too_large())?;
    Ok(bytes)
}

/// Returns the one message of a gRPC answer. No answer is compressed, since no in-process call asks for it.
fn unframed<A: Message + Default>(bytes: &Bytes) -> Result<A, Refusal> {
    let lost = || {
        tracing::error!("the answer to an in-process call is not exactly one message");
        Refusal::lost()
    };
    let (head, message) = bytes.split_at_checked(FRAME_HEAD_BYTES).ok_or_else(lost)?;
    let length = u32::try_from(message.len()).map_err(|_large| lost())?;
    if head != [&[0], length.to_be_bytes().as_slice()].concat() {
        return Err(lost());
    }
    A::decode(message).map_err(|_malformed| lost())
}

#[cfg(test)]
mod tests;
