//! Takes connections and serves them, with a bound on everything that a peer can make the server keep: the number of
//! connections, how long a handshake may take, the streams of each connection, how long a request may take to arrive, what
//! answers hold until they are read ([`answers`](super::answers)), and how long a connection may be silent.
//!
//! The port is served by hyper-util and not by tonic's server. That server bounds neither the bytes of answers, nor the
//! time in which a request arrives, nor the silence of a connection, and it answers HTTP/1.1 with an empty success.

mod activity;
mod leftover;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::body::Body;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{HeaderName, HeaderValue, Request, Response, header};
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tower::Service;
use tower::util::BoxCloneSyncService;

use self::activity::{Activity, AnswerEnd, Verdict};
use super::answers::{Answers, HeldBody};
use super::arriving;
use super::authentication::RequestTarget;
use super::doors::Doors;
use super::health::Watches;
use super::operations::{Access, Route};
use super::tls::{ClientCertificate, Secured, Tls};
use crate::audit::Door;

/// The largest number of open streams of one connection. It is announced, so a gRPC client lets further calls wait. It is
/// large because a proxy sends the calls of many clients over one connection.
pub(super) const STREAMS_MAX: u32 = 256;
/// The largest number of streams that a client cancelled before the server looked at them. Past it the connection ends with
/// all that runs on it. A client that heeds [`STREAMS_MAX`] cannot cancel as many at once; a flood of cancellations can.
const CANCELLED_UNSEEN_MAX: usize = 4 * STREAMS_MAX as usize;
/// The largest number of streams that break the protocol over the life of one connection. Past it the connection ends.
const BROKEN_STREAMS_MAX: usize = 4_096;
/// The largest headers of a request. A token that is too long may still fit, and is refused like any wrong token.
/// Larger headers end the connection.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// The longest `authorization` of a notification that is looked at, in bytes. A token that is made here is shorter.
const NOTIFICATION_TOKEN_BYTES_MAX: usize = 256;
/// The largest part of one answer that waits in the connection's buffer for the client to take it.
const SEND_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// A silent connection is asked this often whether it is still there, and has [`KEEPALIVE_TIMEOUT`] to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the head of an HTTP/1.1 request may take to arrive.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// The first and the longest wait between two tries to accept a connection, when the system has no room for one.
const ACCEPT_WAIT_MIN: Duration = Duration::from_millis(50);
const ACCEPT_WAIT_MAX: Duration = Duration::from_secs(1);
/// The shortest time between two lines of the log about the same trouble with connections.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The door of the port, with the stack behind it.
pub(super) type Served = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// A connection that was accepted.
pub struct Arrived<IO> {
    /// The bytes of both directions.
    pub io: IO,
    /// The address of the other end; `None` for a connection within the process.
    pub peer: Option<IpAddr>,
}

/// The address of the other end of a request's connection; `None` within the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) Option<IpAddr>);

/// The bounds of a port, and its TLS.
pub(super) struct PortSettings {
    /// The room for answers, of which each connection gets a part.
    pub(super) answers: Answers,
    pub(super) connections_max: usize,
    pub(super) request_timeout: Duration,
    pub(super) tls: Option<Tls>,
}

/// Serves connections until `stop` is ready, then until the requests that run have ended.
pub(super) async fn serve<I, IO>(
    doors: Doors,
    service: Served,
    incoming: I,
    settings: PortSettings,
    stop: impl Future<Output = ()>,
) where
    I: Stream<Item = io::Result<Arrived<IO>>>,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stopping = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    {
        // Dropped after the last connection is accepted, so the port is closed while the last requests end.
        let mut incoming = pin!(incoming);
        let mut stop = pin!(stop);
        let mut accepting = Accepting::new(settings.connections_max);
        loop {
            while connections.try_join_next().is_some() {}
            let next = tokio::select! {
                () = &mut stop => break,
                next = accepting.next(incoming.as_mut()) => next,
            };
            let Some((arrived, place)) = next else { break };
            let connection = Connection {
                doors: doors.clone(),
                service: service.clone(),
                peer: Peer(arrived.peer),
                certificate: ClientCertificate::default(),
                answers: settings.answers.for_connection(),
                activity: Arc::new(Activity::new()),
                watches: Watches::of_connection(),
                request_timeout: settings.request_timeout,
            };
            connections.spawn(begin(arrived.io, settings.tls.clone(), connection, place, stopping.subscribe()));
        }
    }
    stopping.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// The places for connections, and when the log was last told of trouble with them.
struct Accepting {
    places: Arc<Semaphore>,
    connections_max: usize,
    wait: Duration,
    told: Option<Instant>,
}

impl Accepting {
    fn new(connections_max: usize) -> Self {
        let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self { places, connections_max, wait: ACCEPT_WAIT_MIN, told: None }
    }

    /// Returns the next connection, once there is a place for it; `None` when no more come.
    async fn next<I, IO>(&mut self, mut incoming: Pin<&mut I>) -> Option<(Arrived<IO>, OwnedSemaphorePermit)>
    where
        I: Stream<Item = io::Result<Arrived<IO>>>,
    {
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_none_free) => {
                if self.may_tell() {
                    let connections_max = self.connections_max;
                    tracing::warn!(
                        connections_max,
                        "no more connections are taken until one ends (`server.connections_max`)"
                    );
                }
                // The semaphore is never closed.
                Arc::clone(&self.places).acquire_owned().await.ok()?
            }
        };
        loop {
            match incoming.next().await? {
                Ok(arrived) => {
                    self.wait = ACCEPT_WAIT_MIN;
                    return Some((arrived, place));
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    // The system has no descriptor or no memory left. Every further try fails at once, until something
                    // ends.
                    if self.may_tell() {
                        tracing::error!(%error, "connections cannot be taken; trying again");
                    }
                    sleep(self.wait).await;
                    self.wait = (self.wait * 2).min(ACCEPT_WAIT_MAX);
                }
            }
        }
    }

    fn may_tell(&mut self) -> bool {
        let now = Instant::now();
        let may = self.told.is_none_or(|told| now.duration_since(told) >= TOLD_AGAIN_AFTER);
        if may {
            self.told = Some(now);
        }
        may
    }
}

/// Returns whether a connection failed on its own before it was taken.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, NotConnected, TimedOut};
    [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, NotConnected, TimedOut].contains(&error.kind())
}

/// Makes the handshake of a connection, if the port has TLS, and serves the connection to its end.
///
/// The handshake has the place of its connection, and runs in the connection's own task. So a peer that is slow with it keeps
/// nobody else waiting.
async fn begin<IO>(
    io: IO,
    tls: Option<Tls>,
    connection: Connection,
    place: OwnedSemaphorePermit,
    mut stopping: watch::Receiver<bool>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(tls) = tls else { return run(io, connection, place, stopping).await };
    let secured = tokio::select! {
        secured = tls.secure(io) => secured,
        // No request has begun.
        () = told_to_stop(&mut stopping) => return,
    };
    match secured {
        Ok(Secured { stream, certificate }) => {
            run(stream, Connection { certificate, ..connection }, place, stopping).await;
        }
        Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
    }
}

/// Is ready once the server stops, or is gone.
async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stopping| *stopping).await);
}

/// Serves one connection to its end.
async fn run<IO>(io: IO, connection: Connection, _place: OwnedSemaphorePermit, mut stopping: watch::Receiver<bool>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::clone(&connection.activity);
    let builder = builder();
    let serving = builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(connection));
    let mut serving = pin!(serving);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error, "a connection ended early");
                }
                return;
            }
            // An error means that the sender is gone: the server was dropped.
            told = stopping.wait_for(|stopping| *stopping), if !is_stopping => {
                is_stopping = true;
                drop(told);
                serving.as_mut().graceful_shutdown();
            }
            () = sleep_until(activity.due()) => match activity.verdict(Instant::now()) {
                Verdict::GoOn => {}
                Verdict::Drain(why) => {
                    tracing::debug!(why, "a connection takes no more requests");
                    serving.as_mut().graceful_shutdown();
                }
                Verdict::End(why) => {
                    tracing::debug!(why, "a connection is cut");
                    return;
                }
            },
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEADER_BYTES_MAX as usize)
        // A client may end its half of the connection after its request, and still wants the answer (RFC 9112, section 9.6). One
        // that closes the whole connection looks the same until the answer is written, so its call runs to its end.
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(CANCELLED_UNSEEN_MAX)
        .max_local_error_reset_streams(BROKEN_STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}

/// Copies the parts of a request's head that a service reads when the request needs no access token.
///
/// Nobody refuses such a request before its message has arrived, and its headers may be as large as [`HEADER_BYTES_MAX`]. The
/// copy lets go of their memory. Of a notification it also keeps a short `authorization`, twice if it is there twice, so that two
/// of them are refused. Beside a long one it keeps none.
fn without_ballast(parts: &Parts, route: &Route) -> Parts {
    let (mut light, ()) = Request::new(()).into_parts();
    (light.method, light.version) = (parts.method.clone(), parts.version);
    // Cannot fail: a path alone is a URI.
    light.uri = parts.uri.path().parse().unwrap_or_default();
    let kept =
        [header::CONTENT_TYPE, HeaderName::from_static("grpc-encoding"), HeaderName::from_static("grpc-timeout")];
    for name in kept {
        let values =
            parts.headers.get_all(&name).iter().filter_map(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
        for value in values {
            light.headers.append(name.clone(), value);
        }
    }
    if matches!(route, Route::Notification) {
        let values = || parts.headers.get_all(header::AUTHORIZATION).iter().take(2);
        if values().all(|value| value.len() <= NOTIFICATION_TOKEN_BYTES_MAX) {
            for value in values().filter_map(|value| HeaderValue::from_bytes(value.as_bytes()).ok()) {
                light.headers.append(header::AUTHORIZATION, value);
            }
        }
    }
    light
}

/// The port as one connection sees it.
#[derive(Clone)]
struct Connection {
    doors: Doors,
    service: Served,
    peer: Peer,
    certificate: ClientCertificate,
    answers: Answers,
    activity: Arc<Activity>,
    watches: Watches,
    request_timeout: Duration,
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<B> Service<Request<B>> for Connection
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let arrival = self.doors.arrival(&request);
        let door = match self.peer {
            Peer(Some(_)) => self.doors.door(&request),
            Peer(None) => Door::InProcess,
        };
        let route = arrival.route(&request);
        // An open call needs no proof, and keeps nothing of its head.
        let target = (route.access() != Access::Open).then(|| RequestTarget::of(&request));
        let running = self.activity.begin(AnswerEnd::of(route.answer_bytes_max()));
        let (request, leftover) = leftover::watched(request);
        let (parts, body) = request.into_parts();
        let parts = if route.access() == Access::Open { without_ballast(&parts, &route) } else { parts };
        let request = Request::from_parts(parts, body);
        let (mut request, slot) =
            arriving::bounded(request, &route, &self.answers, arrival.answer_growth(), self.request_timeout);
        request.extensions_mut().insert(arrival);
        request.extensions_mut().insert(door);
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.certificate);
        if let Some(target) = target {
            request.extensions_mut().insert(target);
        }
        request.extensions_mut().insert(self.watches.clone());
        let answering = self.service.call(request);
        Box::pin(async move {
            let Ok(answer) = answering.await;
            leftover.discard().await;
            running.answered();
            let reserved = slot.take();
            Ok(answer.map(|body| Body::new(HeldBody::new(body, (reserved, running)))))
        })
    }
}

#[cfg(test)]
mod tests;
