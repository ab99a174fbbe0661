//! A proxy in front of an `OpenFGA` server that delays the end of the server's changelog. A reader gets all changes up
//! to the moment of asking, but learns only after a while that there are no more. So a copy that follows the changelog
//! is late, and so is a cache that drops decisions when the changelog reports a change.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use openfga_client::client::ReadChangesResponse;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tower::ServiceExt;

const READ_CHANGES: &str = "/openfga.v1.OpenFGAService/ReadChanges";
/// The number of bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A running proxy. Dropping it ends it.
pub(crate) struct LateLog {
    pub(crate) address: String,
    /// The number of times that the log was read to its end.
    pub(crate) looks: watch::Receiver<u64>,
    serving: JoinHandle<()>,
}

impl LateLog {
    /// Starts a proxy that holds the end of the log back for this long. It passes everything else on as it is.
    pub(crate) async fn in_front_of(address: &str, held_for: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own_address = format!("http://{}", listener.local_addr().expect("its address"));
        let server = Endpoint::from_shared(address.to_owned()).expect("an address").connect_lazy();
        let (sender, looks) = watch::channel(0);
        let front = Front { server, looks: Arc::new(sender), held_for };
        let serving = Server::builder()
            .add_service(front)
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let serving = tokio::spawn(async move { serving.await.expect("a server") });
        Self { address: own_address, looks, serving }
    }

    /// Waits until the log was read to its end this many times more. Readings follow each other, so the first may have
    /// begun before this call.
    pub(crate) async fn wait_for_looks(&self, more: u64) {
        let mut looks = self.looks.clone();
        let enough = *looks.borrow() + more;
        looks.wait_for(|looks| *looks >= enough).await.expect("a server");
    }
}

impl Drop for LateLog {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Clone)]
struct Front {
    server: Channel,
    looks: Arc<watch::Sender<u64>>,
    held_for: Duration,
}

impl Front {
    async fn answer(self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let is_log = request.uri().path() == READ_CHANGES;
        let answer = self.server.oneshot(request).await.map_err(|e| Status::unavailable(e.to_string()))?;
        if !is_log {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned();
        let message = body.to_bytes();
        let page = message.get(PREFIX..).map(ReadChangesResponse::decode);
        if page.is_some_and(|page| page.is_ok_and(|page| page.changes.is_empty())) {
            sleep(self.held_for).await;
            self.looks.send_modify(|looks| *looks += 1);
        }
        let body = Full::new(message).with_trailers(async move { trailers.map(Ok) });
        Ok(http::Response::from_parts(head, Body::new(body)))
    }
}

impl NamedService for Front {
    const NAME: &'static str = "openfga.v1.OpenFGAService";
}

impl tower::Service<http::Request<Body>> for Front {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let front = self.clone();
        Box::pin(async move { Ok(front.answer(request).await.unwrap_or_else(Status::into_http)) })
    }
}
