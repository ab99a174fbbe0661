//! The door of the port: gRPC passes through as it is, and every refusal is rendered in the shape of its request.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::codegen::http;
use tower::Service;

use super::operations::{Messages, Operation, Route};
use super::plain_http::{self, BodyAllowed};
use super::refusal::Refusal;
use super::{deadline, grpc};

/// The port's door before a stack of layers and services.
#[derive(Clone)]
pub(super) struct PortDoor<S> {
    stack: S,
}

impl<S> PortDoor<S> {
    pub(super) fn new(stack: S) -> Self {
        Self { stack }
    }
}

impl<S> Service<http::Request<Body>> for PortDoor<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Refusal>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A stack that fails here has a defect. Its next call is refused.
        self.stack.poll_ready(context).map(|_ready| Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (route, body_allowed) = (Route::of(&request), BodyAllowed::by(request.method()));
        // The client's deadline bounds every call, even if the call's handler never looks at it.
        let until = deadline::asked(request.headers()).map(|asked| Instant::now() + asked);
        let answering = self.stack.call(request);
        Box::pin(async move {
            let answered = match until {
                Some(until) => timeout_at(until, answering).await.unwrap_or_else(|_elapsed| Err(Refusal::late())),
                None => answering.await,
            };
            Ok(match (answered, route) {
                (Ok(response), Route::Rpc(Operation { answer: Messages::Many, .. })) => grpc::streamed(response),
                (Ok(response), _) => response,
                (Err(refusal), route) if route.is_grpc() => grpc::refused(&refusal),
                (Err(refusal), _) => plain_http::refused(&refusal, body_allowed),
            })
        })
    }
}
