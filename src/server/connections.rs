//! Takes connections and serves them, with a bound on everything that a peer can make the server keep: the number of
//! connections, the streams of each, how long a request may take to arrive, what answers hold until they are read
//! ([`answers`](super::answers)), and how long a connection may be silent.

mod activity;
mod arriving;

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
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::body::Body;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{HeaderName, HeaderValue, Request, Response, header};
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tower::Service;
use tower::util::BoxCloneSyncService;

use self::activity::{Activity, Verdict};
use self::arriving::Arriving;
use super::answers::{AnswerSlot, Answers, Held};
use super::deadline;
use super::health::Watches;
use super::operations::{Access, RequestShape, Route};

/// Streams of one connection that are open at a time, announced to the client; a client of gRPC lets more calls wait. A
/// proxy's one connection carries as many calls.
pub(super) const STREAMS_MAX: u32 = 256;
/// Streams that a client cancelled before the server looked at them. Past it the connection ends with all that runs on it, so
/// it is more than a client that follows [`STREAMS_MAX`] can cancel at once; it bounds what a flood of them makes us keep.
const CANCELLED_UNSEEN_MAX: usize = 4 * STREAMS_MAX as usize;
/// Streams of one connection that break the protocol, over its whole life; then it ends.
const BROKEN_STREAMS_MAX: usize = 4_096;
/// Largest headers of a request. A token that is too long is refused as every wrong one is; headers that are larger still
/// end at the connection.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Bytes of one stream that wait in the connection's buffer for the client to take them.
const SEND_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// How often a silent connection is asked whether it is still there, and how long it has to answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the head of an HTTP/1.1 request may take to arrive.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long the one message of a request may take to arrive.
const MESSAGE_MAX: Duration = Duration::from_secs(30);
/// How long a stream of messages may be silent. Ingest ends an upload earlier, and says why.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// Between two tries to accept a connection when the system has no room for one: the first wait and the longest.
const ACCEPT_WAIT_MIN: Duration = Duration::from_millis(50);
const ACCEPT_WAIT_MAX: Duration = Duration::from_secs(1);
/// Between two lines of the log about the same trouble with connections.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The services behind all layers.
pub(super) type Served = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// A connection that was taken.
pub struct Arrived<IO> {
    /// Where bytes come and go.
    pub io: IO,
    /// Who is at the other end; `None` within the process.
    pub peer: Option<IpAddr>,
}

/// Who is at the other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) Option<IpAddr>);

/// Serves connections until `stop` is ready, then until the requests that run have ended.
pub(super) async fn serve<I, IO>(
    service: Served,
    incoming: I,
    connections_max: usize,
    request_timeout: Duration,
    stop: impl Future<Output = ()>,
) where
    I: Stream<Item = io::Result<Arrived<IO>>>,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stopping = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    {
        // Dropped when no more are taken, so that the port is closed while the last requests end.
        let mut incoming = pin!(incoming);
        let mut stop = pin!(stop);
        let mut accepting = Accepting::new(connections_max);
        loop {
            while connections.try_join_next().is_some() {}
            let next = tokio::select! {
                () = &mut stop => break,
                next = accepting.next(incoming.as_mut()) => next,
            };
            let Some((arrived, place)) = next else { break };
            let connection = Connection {
                service: service.clone(),
                peer: Peer(arrived.peer),
                answers: accepting.answers.for_connection(),
                activity: Arc::new(Activity::new()),
                watches: Watches::of_connection(),
                request_timeout,
            };
            connections.spawn(run(arrived.io, connection, place, stopping.subscribe()));
        }
    }
    stopping.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// The places for connections, and what the log was told of them.
struct Accepting {
    places: Arc<Semaphore>,
    connections_max: usize,
    answers: Answers,
    wait: Duration,
    told: Option<Instant>,
}

impl Accepting {
    fn new(connections_max: usize) -> Self {
        let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self { places, connections_max, answers: Answers::new(), wait: ACCEPT_WAIT_MIN, told: None }
    }

    /// The next connection, once there is a place for it; `None` at the end of all.
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
                    // No descriptor or no memory is left: the next try fails as well, at once, until something ends.
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

/// Whether a connection failed on its own before it was taken.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, NotConnected, TimedOut};
    [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, NotConnected, TimedOut].contains(&error.kind())
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
            // The sender is gone when the server was dropped.
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
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEADER_BYTES_MAX as usize);
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

/// The head of a request that needs no token, with what its service reads, in memory of its own. Nobody refuses such a request
/// before its message has arrived, and its headers may be as large as [`HEADER_BYTES_MAX`].
fn without_ballast(parts: &Parts) -> Parts {
    let (mut light, ()) = Request::new(()).into_parts();
    (light.method, light.version) = (parts.method.clone(), parts.version);
    // A path is a URI.
    light.uri = parts.uri.path().parse().unwrap_or_default();
    for name in [header::CONTENT_TYPE, HeaderName::from_static("grpc-encoding")] {
        let values =
            parts.headers.get_all(&name).iter().filter_map(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
        for value in values {
            light.headers.append(name.clone(), value);
        }
    }
    light
}

/// The services as one connection sees them.
#[derive(Clone)]
struct Connection {
    service: Served,
    peer: Peer,
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
        let route = Route::of(&request);
        let asked = deadline::asked(request.headers());
        let now = Instant::now();
        let until = now + asked.map_or(self.request_timeout, |asked| asked.min(self.request_timeout));
        let answer_bytes_max = route.operation().map_or(Some(0), |operation| operation.answer_bytes_max);
        let running = self.activity.begin(answer_bytes_max.is_some());
        let slot = AnswerSlot::new(&self.answers, until);
        let is_upload = route.operation().is_some_and(|operation| operation.request == RequestShape::Streaming);
        let (parts, body) = request.into_parts();
        let parts = if route.access() == Access::Open { without_ballast(&parts) } else { parts };
        let body = if is_upload {
            Arriving::stream(body, SILENCE_MAX)
        } else {
            let room = slot.clone();
            let reserving = async move { room.reserve(answer_bytes_max.unwrap_or_default()).await };
            Arriving::message(body, MESSAGE_MAX, Box::pin(reserving))
        };
        let mut request = Request::from_parts(parts, Body::new(body));
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.watches.clone());
        request.extensions_mut().insert(slot.clone());
        let answering = self.service.call(request);
        Box::pin(async move {
            // What a client allows is kept for every call, whether or not its handler looks at it.
            let answer = if let Some(asked) = asked {
                let answered = timeout_at(now + asked, answering).await;
                answered.map_or_else(|_elapsed| deadline::exceeded().into_http(), |Ok(answer)| answer)
            } else {
                let Ok(answer) = answering.await;
                answer
            };
            running.answered();
            let reserved = slot.take();
            Ok(answer.map(|body| Body::new(Held::new(body, (reserved, running)))))
        })
    }
}

#[cfg(test)]
mod tests;
