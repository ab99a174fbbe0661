//! The bottom of the stack: hands each request to its service.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Bytes, http};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower::Service;

use super::answers::AnswerSlot;
use super::authentication::{Authentication, NotificationApi, algorithm_names};
use super::doors::{DoorCall, Doors};
use super::health::{HealthApi, Readiness};
use super::ingest::IngestApi;
use super::openfga::OpenFgaApi;
use super::operations::{
    HEALTH_REQUEST_BYTES_MAX, Messages, OPENFGA_REQUEST_BYTES_MAX, Operation, REQUEST_BYTES_MAX, Route,
};
use super::public::Public;
use super::refusal::Refusal;
use super::resource_metadata::{BoundTokens, ResourceMetadata};
use super::retrieval::RetrievalApi;
use super::services::Services;
use super::{DOCUMENT_BYTES_MAX, ServerError, reflection};
use crate::proto::ingest::ingest_service_server::IngestServiceServer;
use crate::proto::openfga::open_f_g_a_service_server::OpenFGAServiceServer;
use crate::proto::retrieval::retrieval_service_server::RetrievalServiceServer;

/// Hands a request to the service that its path names, and settles how the answer ended.
///
/// tonic's services put a refusal into the headers of an answer, or into its trailers if the message cannot be encoded.
/// Here the refusal becomes a [`Refusal`], so no layer above has to look for one: an answer of one message that comes
/// out of here is whole.
#[derive(Clone)]
pub(super) struct Dispatcher {
    routes: Routes,
    public: Arc<Public>,
    /// `None` if issuers send no notifications.
    notifications: Option<NotificationApi>,
}

impl Dispatcher {
    /// Builds the services over their backends.
    ///
    /// # Errors
    /// When the services cannot be described.
    pub(super) fn new(services: &Services, readiness: &Arc<Readiness>, doors: &Doors) -> Result<Self, ServerError> {
        let health = HealthApi::new(Arc::clone(readiness), services.engine());
        let reflection = reflection::builders(services.engine())?;
        let retrieval = RetrievalServiceServer::new(RetrievalApi::new(services));
        let ingest = IngestServiceServer::new(IngestApi::new(services));
        let mut routes = Routes::new(HealthServer::new(health).max_decoding_message_size(HEALTH_REQUEST_BYTES_MAX))
            .add_service(reflection.v1.build_v1()?)
            .add_service(reflection.v1alpha.build_v1alpha()?)
            .add_service(retrieval.max_decoding_message_size(REQUEST_BYTES_MAX))
            .add_service(ingest.max_decoding_message_size(DOCUMENT_BYTES_MAX));
        if let Some(stores) = services.relationships.clone() {
            let openfga = OpenFGAServiceServer::new(OpenFgaApi::new(stores, services.request_timeout));
            routes = routes.add_service(openfga.max_decoding_message_size(OPENFGA_REQUEST_BYTES_MAX));
        }
        let bound_tokens = match &services.tls {
            Some(tls) if tls.asks_for_certificates() => BoundTokens::Taken,
            Some(_) | None => BoundTokens::Refused,
        };
        let resource_metadata = match &services.authentication {
            Authentication::Tokens(tokens) => {
                let login_client_id = services.login_client_id.as_deref();
                let documents = tokens.resources().map(|resource| {
                    let (verifier, scopes) = (resource.verifier(), resource.scopes());
                    let algorithms = if resource.takes_proofs() { algorithm_names() } else { Vec::new() };
                    ResourceMetadata::of(verifier, scopes, bound_tokens, &algorithms, login_client_id)
                });
                documents.collect()
            }
            Authentication::Believed => Vec::new(),
        };
        let public = Public { readiness: Arc::clone(readiness), openapi: doors.openapi(), resource_metadata };
        let notifications = services.authentication.notifications();
        Ok(Self { routes: routes.prepare(), public: Arc::new(public), notifications })
    }
}

impl Service<http::Request<Body>> for Dispatcher {
    type Response = http::Response<Body>;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Self::Response, Refusal>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        // Routes are always ready: each call works on a clone of its service.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let operation: &'static Operation = match Route::of(&request) {
            Route::Rpc(operation) | Route::Unlisted(operation, _) if AnswerSlot::is_in(request.extensions()) => {
                operation
            }
            Route::Public => {
                let (public, method, uri) = (Arc::clone(&self.public), request.method().clone(), request.uri().clone());
                return Box::pin(async move { public.answer(&method, uri.path()).await });
            }
            Route::Notification => {
                let notifications = self.notifications.clone();
                return Box::pin(async move {
                    match notifications {
                        Some(notifications) => notifications.answer(request).await,
                        None => Err(Refusal::lost()),
                    }
                });
            }
            // The door has the answer for everybody whom the gate lets in.
            Route::Mcp(_) => return Box::pin(std::future::ready(Ok(http::Response::new(Body::empty())))),
            // INVARIANT (bounded answers): a call that bypassed the bounds on answers, and so has no slot, is not
            // answered. The gate has already refused unknown RPCs and plain HTTP that nothing here answers.
            Route::Rpc(_) | Route::Unlisted(..) | Route::UnknownRpc | Route::Refused(_) => {
                return Box::pin(std::future::ready(Err(Refusal::lost())));
            }
        };
        let door = request.extensions().get::<DoorCall>().cloned();
        let slot = request.extensions().get::<AnswerSlot>().cloned();
        let answering = self.routes.call(request);
        Box::pin(async move {
            let Ok(response) = answering.await;
            let answer = match (Refusal::of_response(&response), operation.answer) {
                (Some(refusal), _) => return Err(refusal),
                (None, Messages::One) => whole(response).await?,
                (None, Messages::Many) => response,
            };
            match door {
                Some(call) => call.answer(answer, slot).await,
                None => Ok(answer),
            }
        })
    }
}

/// Reads an answer of one message to its end, where its status is.
///
/// tonic encodes the message only when the body is read. So reading the body here costs no copy, and afterwards the
/// message itself is no longer in memory beside its encoded form.
async fn whole(response: http::Response<Body>) -> Result<http::Response<Body>, Refusal> {
    let (parts, mut body) = response.into_parts();
    let mut frames: Vec<Result<Frame<Bytes>, Status>> = Vec::with_capacity(2);
    while let Some(frame) = body.frame().await {
        frames.push(Ok(frame.map_err(|status| Refusal::from(&status))?));
    }
    let trailers = frames.last().and_then(|frame| frame.as_ref().ok()?.trailers_ref());
    match Refusal::of_trailers(trailers) {
        Some(refusal) => Err(refusal),
        None => Ok(http::Response::from_parts(parts, Body::new(StreamBody::new(stream::iter(frames))))),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn response(frames: Vec<Frame<Bytes>>) -> http::Response<Body> {
        let frames = frames.into_iter().map(Ok::<_, Status>);
        http::Response::new(Body::new(StreamBody::new(stream::iter(frames))))
    }

    #[tokio::test]
    async fn an_answer_is_one_only_if_its_end_says_so() {
        let message = || Frame::data(Bytes::from_static(b"message"));
        let trailers = |status: &'static str| {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static(status));
            Frame::trailers(trailers)
        };
        let rows = [
            ("a whole answer", vec![message(), trailers("0")], None),
            ("an answer that failed at its end", vec![message(), trailers("13")], Some(Code::Internal)),
            ("a message that could not be encoded", vec![trailers("8")], Some(Code::ResourceExhausted)),
            ("an answer without an end", vec![message()], Some(Code::Internal)),
            ("nothing at all", vec![], Some(Code::Internal)),
        ];
        for (row, frames, expected) in rows {
            let answered = whole(response(frames)).await;
            assert_eq!(answered.as_ref().err().map(Refusal::code), expected, "{row}");
            if let Ok(answer) = answered {
                let collected = answer.into_body().collect().await.unwrap();
                assert_eq!(collected.trailers().unwrap()["grpc-status"], "0", "{row}");
                assert_eq!(collected.to_bytes(), "message", "{row}");
            }
        }
    }
}
