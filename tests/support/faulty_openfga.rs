//! An `OpenFGA` server that answers `BatchCheck` in whatever wrong way a test asks for. The client crate has no server
//! traits, so the one method is served by hand.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use openfga_client::client::{BatchCheckRequest, CheckError};
use prost::Message;
use ragward::authz::openfga::{OpenFgaConfig, StoreSelector};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// `BatchCheckResponse` with its map as a list, so that it can hold one id twice.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Reply {
    #[prost(message, repeated, tag = "1")]
    pub(crate) results: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) result: Option<Decision>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Decision {
    #[prost(bool, optional, tag = "1")]
    pub(crate) allowed: Option<bool>,
    #[prost(message, optional, tag = "2")]
    pub(crate) error: Option<CheckError>,
}

type ReplyFuture = Pin<Box<dyn Future<Output = Result<Reply, Status>> + Send>>;
type Behaviour = Arc<dyn Fn(Vec<String>) -> ReplyFuture + Send + Sync>;

/// A running server; dropping it ends it.
pub(crate) struct FaultyOpenFga {
    address: String,
    task: JoinHandle<()>,
}

impl FaultyOpenFga {
    /// Serves `BatchCheck`: `behaviour` gets the correlation ids of a call and makes the reply.
    pub(crate) async fn start<F>(behaviour: impl Fn(Vec<String>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Reply, Status>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let service = BatchCheckService { behaviour: Arc::new(move |ids| Box::pin(behaviour(ids))) };
        let serving = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { serving.await.expect("a server") });
        Self { address, task }
    }

    pub(crate) fn config(&self) -> OpenFgaConfig {
        let store = StoreSelector::Id("01JZZZZZZZZZZZZZZZZZZZZZZZ".to_owned());
        let authorization_model_id = Some("01JZZZZZZZZZZZZZZZZZZZZZZY".to_owned());
        OpenFgaConfig { authorization_model_id, ..OpenFgaConfig::new(&self.address, store) }
    }
}

impl Drop for FaultyOpenFga {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct BatchCheckService {
    behaviour: Behaviour,
}

impl NamedService for BatchCheckService {
    const NAME: &'static str = "openfga.v1.OpenFGAService";
}

impl tower::Service<http::Request<Body>> for BatchCheckService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        assert_eq!(request.uri().path(), "/openfga.v1.OpenFGAService/BatchCheck");
        let method = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<Reply, BatchCheckRequest>::default();
            Ok(Grpc::new(codec).unary(method, request).await)
        })
    }
}

impl UnaryService<BatchCheckRequest> for BatchCheckService {
    type Response = Reply;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Reply>, Status>> + Send>>;

    fn call(&mut self, request: Request<BatchCheckRequest>) -> Self::Future {
        let ids = request.into_inner().checks.into_iter().map(|check| check.correlation_id).collect();
        let reply = (self.behaviour)(ids);
        Box::pin(async move { reply.await.map(Response::new) })
    }
}
