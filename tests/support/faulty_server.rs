//! A gRPC server whose methods answer whatever a test wants, right or wrong. Each method is served by hand, because a
//! generated server cannot send messages that must never be sent.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

type BoxedFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Method = Arc<dyn Fn(http::Request<Body>) -> BoxedFuture<http::Response<Body>> + Send + Sync>;

/// The methods of a server that is not started yet, by path.
#[derive(Clone, Default)]
pub(crate) struct Methods(HashMap<&'static str, Method>);

/// A running server. Dropping it ends it.
pub(crate) struct FaultyServer {
    pub(crate) address: String,
    task: JoinHandle<()>,
}

impl Methods {
    /// Answers a method with the result of `behaviour` for each request.
    pub(crate) fn on<Q, A, F>(mut self, path: &'static str, behaviour: impl Fn(Q) -> F + Send + Sync + 'static) -> Self
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        let behaviour = Arc::new(behaviour);
        let method: Method = Arc::new(move |request| {
            let behaviour = Unary(Arc::clone(&behaviour), PhantomData);
            Box::pin(async move { Grpc::new(ProstCodec::<A, Q>::default()).unary(behaviour, request).await })
        });
        self.0.insert(path, method);
        self
    }

    pub(crate) async fn start(self) -> FaultyServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let serving = Server::builder()
            .add_service(Service::<OpenFga>(self.clone(), PhantomData))
            .add_service(Service::<Points>(self.clone(), PhantomData))
            .add_service(Service::<Collections>(self, PhantomData))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let task = tokio::spawn(async move { serving.await.expect("a server") });
        FaultyServer { address, task }
    }
}

impl Drop for FaultyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Unary<B, A>(Arc<B>, PhantomData<fn() -> A>);

impl<Q, A, F, B> UnaryService<Q> for Unary<B, A>
where
    Q: Send + 'static,
    A: 'static,
    F: Future<Output = Result<A, Status>> + Send + 'static,
    B: Fn(Q) -> F + Send + Sync + 'static,
{
    type Response = A;
    type Future = BoxedFuture<Result<Response<A>, Status>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let answer = (self.0)(request.into_inner());
        Box::pin(async move { answer.await.map(Response::new) })
    }
}

/// A service under the name that belongs to `N`. The router needs that name as a constant; the methods are found by
/// their whole path.
struct Service<N>(Methods, PhantomData<fn() -> N>);

#[derive(Clone)]
struct OpenFga;
#[derive(Clone)]
struct Points;
#[derive(Clone)]
struct Collections;

impl NamedService for Service<OpenFga> {
    const NAME: &'static str = "openfga.v1.OpenFGAService";
}

impl NamedService for Service<Points> {
    const NAME: &'static str = "qdrant.Points";
}

impl NamedService for Service<Collections> {
    const NAME: &'static str = "qdrant.Collections";
}

impl<N> Clone for Service<N> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<N> tower::Service<http::Request<Body>> for Service<N> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxedFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = self.0.0.get(request.uri().path()).cloned();
        Box::pin(async move {
            match method {
                Some(method) => Ok(method(request).await),
                None => Ok(Status::unimplemented(request.uri().path().to_owned()).into_http()),
            }
        })
    }
}
