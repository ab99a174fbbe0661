//! Answers to requests that are not gRPC. Everything behind this layer answers with a gRPC status, which stands in headers and
//! under a `200 OK`; a client that does not speak gRPC would take it for success. So it gets an HTTP status and a JSON body.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http_body_util::Full;
use serde_json::json;
use tonic::body::Body;
use tonic::codegen::http::{self, HeaderValue, Method, StatusCode, header};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::audit::code_name;
use super::operations::Route;

/// Puts [`PlainHttp`] around a service.
#[derive(Clone, Copy)]
pub(super) struct PlainHttpLayer;

/// See the module.
#[derive(Clone)]
pub(super) struct PlainHttp<S>(S);

impl<S> Layer<S> for PlainHttpLayer {
    type Service = PlainHttp<S>;

    fn layer(&self, inner: S) -> PlainHttp<S> {
        PlainHttp(inner)
    }
}

impl<S> Service<http::Request<Body>> for PlainHttp<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (route, is_head) = (Route::of(&request), request.method() == Method::HEAD);
        let answering = self.0.call(request);
        if route.is_grpc() {
            return Box::pin(answering);
        }
        Box::pin(async move { Ok(as_http(route, is_head, answering.await?)) })
    }
}

/// The answer of a document as it is; any other answer is a refusal.
fn as_http(route: Route, is_head: bool, mut answer: http::Response<Body>) -> http::Response<Body> {
    let refused = match Status::from_header_map(answer.headers()) {
        Some(status) => status,
        None if route == Route::WellKnown && answer.status().is_success() => {
            harden(&mut answer);
            return answer;
        }
        None if answer.status() == StatusCode::METHOD_NOT_ALLOWED => {
            Status::unimplemented("this document is only read")
        }
        None => Status::internal("internal error"),
    };
    let status = match route {
        _ if answer.status().is_client_error() => answer.status(),
        Route::Refused(refusal) if refusal.code() == refused.code() => refusal.http_status(),
        Route::Refused(_) | Route::WellKnown | Route::Rpc(_) | Route::UnknownRpc => http_status(refused.code()),
    };
    let message = if refused.message().is_empty() { "nothing is served at this path" } else { refused.message() };
    let body = json!({ "code": code_name(refused.code()).to_ascii_lowercase(), "message": message });
    // Over HTTP/2 a body would break the protocol here.
    let body = if is_head { Body::empty() } else { Body::new(Full::from(body.to_string())) };
    let mut told = http::Response::new(body);
    *told.status_mut() = status;
    told.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    harden(&mut told);
    if let Some(challenge) = answer.headers_mut().remove(header::WWW_AUTHENTICATE) {
        told.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let of_document = answer.headers_mut().remove(header::ALLOW);
        told.headers_mut().insert(header::ALLOW, of_document.unwrap_or(HeaderValue::from_static("POST")));
    }
    told
}

/// No browser keeps an answer, or reads it as anything but what it is.
fn harden(answer: &mut http::Response<Body>) {
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// The HTTP status of what the gate or the record refuses.
const fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        // A document that is not there ends at the services, which say that they have no such RPC.
        Code::NotFound | Code::Unimplemented => StatusCode::NOT_FOUND,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
