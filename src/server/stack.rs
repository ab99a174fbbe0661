//! The whole API as one [`tower::Service`] over gRPC requests: the record, the gate and the services.
//!
//! The port calls it for each request that arrives. A door for another protocol translates its request into a gRPC
//! call, and calls the stack in this process with the headers of its own caller. It gets the answer's message or a
//! [`Refusal`], which it renders in its own shape. So no door holds a policy, and each call is recorded once.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{Stream, stream};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{self, HeaderMap, HeaderValue, Version, header, request};
use tower::util::{BoxCloneSyncService, MapResultLayer};
use tower::{Service, ServiceBuilder, ServiceExt};

use super::answers::{AnswerSlot, Answers, Reserved};
use super::arriving;
use super::audit::{AuditLayer, OngoingWork};
use super::authentication::{Authentication, GateLayer, PROOF_HEADER};
use super::connections::{self, Arrived, PortSettings, STREAMS_MAX};
use super::deadline::AnswerBy;
use super::dispatcher::Dispatcher;
use super::doors::{DoorCall, Doors, KnowsBearer, Notifications, Port, frames};
use super::health::Readiness;
use super::operations::Route;
use super::refusal::Refusal;
use super::services::Services;
use super::tls::Tls;
use super::{ServerError, consistency_token, deadline};
use crate::audit::Door;

/// The headers that an in-process call takes over from its caller: who calls, how long it waits, and its trace.
const CALLER_HEADERS: [&str; 4] = ["authorization", PROOF_HEADER, "grpc-timeout", "traceparent"];
/// How long a caller within the process should wait after a refusal before it tries again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The answer to a call within the process, with the share of the memory for answers that it holds.
///
/// Keep this value until the client of the door has read the answer. Other calls may have to wait for its memory.
#[derive(Debug)]
pub struct InProcessAnswer<A> {
    /// The message of the answer.
    pub message: A,
    _room: Option<Reserved>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// The record, the gate and the services behind one call. It is built once and cheap to clone.
///
/// Its error is a [`Refusal`], so whoever calls it cannot take a refusal for an answer.
#[derive(Clone)]
pub struct Stack {
    service: BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Refusal>,
    doors: Doors,
    authentication: Authentication,
    readiness: Arc<Readiness>,
    work: OngoingWork,
    /// The room for all answers. Each connection of the port has a part of it, and the callers within the process share
    /// another part.
    answers: Answers,
    /// Bounds the calls within the process that arrived on no connection. Each connection bounds its own calls.
    call_permits: Arc<Semaphore>,
    connections_max: usize,
    tls: Option<Tls>,
    request_timeout: Duration,
}

impl Stack {
    /// Builds the stack over services.
    ///
    /// # Errors
    /// When the services cannot be described.
    pub fn new(services: Services) -> Result<Self, ServerError> {
        let readiness = Readiness::new(&services);
        let notifications = match services.authentication.notifications() {
            Some(_) => Notifications::Taken,
            None => Notifications::Absent,
        };
        let doors = Doors::new(services.guards.clone(), services.mcp.clone(), notifications)?;
        let dispatcher = Dispatcher::new(&services, &readiness, &doors)?;
        let work = OngoingWork::default();
        let authentication = services.authentication.clone();
        let service = ServiceBuilder::new()
            .layer(MapResultLayer::new(consistency_token::stamp(services.consistency_tokens)))
            // The record is around the gate, so that it also sees the calls that the gate refuses.
            .layer(AuditLayer { audit: services.audit, work: work.clone() })
            .layer(GateLayer { authentication: services.authentication, authorizer: services.authorizer })
            .service(dispatcher);
        Ok(Self {
            doors,
            authentication,
            service: BoxCloneSyncService::new(service),
            readiness,
            work,
            answers: Answers::new(),
            call_permits: Arc::new(Semaphore::new(STREAMS_MAX as usize)),
            connections_max: services.connections_max,
            tls: services.tls,
            request_timeout: services.request_timeout,
        })
    }

    /// Calls an RPC with one message in this process, for a door that translates requests of another protocol.
    ///
    /// `path` is `/package.Service/Method`. `caller` is the head of the request that arrived at the door: its headers say who
    /// calls, and its extensions say by which connection. The record names the [`Door`] in these extensions,
    /// where a door puts its own; without one, the call came from within the process.
    ///
    /// The call has the bounds of a call at the port. It waits until there is room for the largest answer that it may get.
    /// Calls that came by a connection use the room of that connection. All others share the bounds of one connection: its
    /// room, and its number of calls at a time. So drop one answer before you ask for the next.
    ///
    /// # Errors
    /// The refusal of the gate or of the service, also when the RPC is unknown, its answer is not one message of the type
    /// `A`, or there was no room for the answer in time.
    pub async fn unary<Q: Message, A: Message + Default>(
        &self,
        path: &'static str,
        caller: &request::Parts,
        message: &Q,
    ) -> Result<InProcessAnswer<A>, Refusal> {
        let until = deadline::asked(&caller.headers).map(|asked| Instant::now() + asked);
        let connection = caller.extensions.get::<AnswerSlot>().map(AnswerSlot::answers);
        let permit = match connection {
            Some(_) => Ok(None),
            None => self.call_permit(caller).await.map(Some),
        };
        let (permit, body) = match permit.and_then(|permit| Ok((permit, frames::framed(&message.encode_to_vec())?))) {
            Ok((permit, bytes)) => (permit, Body::new(Full::<Bytes>::from(bytes))),
            // The stack meets this error when it reads the request, so the refusal is recorded like any other.
            Err(refusal) => (None, unreadable(refusal)),
        };
        let mut request = http::Request::new(body);
        (*request.method_mut(), *request.version_mut()) = (http::Method::POST, Version::HTTP_2);
        *request.uri_mut() = http::Uri::from_static(path);
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        for name in CALLER_HEADERS {
            // All values are copied: the gate refuses a caller with two tokens, and must see both.
            for value in caller.headers.get_all(name) {
                request.headers_mut().append(name, value.clone());
            }
        }
        *request.extensions_mut() = caller.extensions.clone();
        // The answer is for the door, which wants the message.
        request.extensions_mut().remove::<DoorCall>();
        if let Some(until) = until {
            request.extensions_mut().insert(AnswerBy(until));
        }
        let route = Route::of(&request);
        let (request, slot) =
            arriving::bounded(request, &route, connection.unwrap_or(&self.answers), 1, self.request_timeout);
        // The stack ends a call at the deadline of its caller. A call without one keeps the limits of its RPC, as at the port.
        // Some RPCs have none, so that a write is not given up.
        let answer = self.clone().oneshot(request).await?;
        let message = A::decode(frames::only(answer.into_body()).await?).map_err(|error| {
            tracing::error!(%error, path, "the answer to an in-process call is of another type");
            Refusal::lost()
        })?;
        Ok(InProcessAnswer { message, _room: slot.take(), _permit: permit })
    }

    /// Waits until one more call that arrived on no connection may run.
    async fn call_permit(&self, caller: &request::Parts) -> Result<OwnedSemaphorePermit, Refusal> {
        let until = deadline::of_headers(&caller.headers, self.request_timeout);
        let taken = timeout_at(until, Arc::clone(&self.call_permits).acquire_owned()).await;
        // The semaphore is never closed.
        taken.ok().and_then(Result::ok).ok_or_else(|| {
            Refusal::busy("too many calls within the process run; drop answers, or try again later", RETRY_AFTER)
        })
    }

    /// Serves connections until `stop` is ready, and then waits until the running requests have ended.
    pub async fn serve<I, IO>(self, incoming: I, stop: impl Future<Output = ()>)
    where
        I: Stream<Item = io::Result<Arrived<IO>>>,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { readiness, work, answers, connections_max, tls, request_timeout, .. } = self.clone();
        let settings = PortSettings { answers, connections_max, request_timeout, tls };
        let stop = async move {
            stop.await;
            readiness.stop();
        };
        let (doors, authentication) = (self.doors.clone(), self.authentication.clone());
        let knows_bearer: KnowsBearer =
            Arc::new(move |headers: &HeaderMap| authentication.knows_bearer(Door::Mcp, headers));
        let port = BoxCloneSyncService::new(Port::new(doors.clone(), self).knowing(knows_bearer));
        connections::serve(doors, port, incoming, settings, stop).await;
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

/// Returns a body that fails with a refusal as soon as it is read.
fn unreadable(refusal: Refusal) -> Body {
    Body::new(StreamBody::new(stream::iter([Err::<Frame<Bytes>, Status>(refusal.into())])))
}

#[cfg(test)]
mod tests;
