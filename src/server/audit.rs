//! Records each call around its handler, so that no answer and no refusal can be forgotten: whatever becomes of the
//! request, and whoever refuses it, the response passes here.
//!
//! The gate and the handlers add what they learn to the [`Draft`] that travels with the request. The response waits until
//! the record is kept. What is open to everybody (health, the resource's metadata) is not recorded.

mod draft;
mod lasting;
#[cfg(test)]
pub(super) mod sample;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument;
use tracing::field::Empty;

pub(super) use self::draft::{Draft, decided_by, searched};
pub(super) use self::lasting::Lasting;
use super::operations::Route;
use super::status;
use crate::audit::{AuditSink, Kept};
use crate::identity::Use;
use crate::telemetry::{self, TraceParent};

const STATUS_HEADER: &str = "grpc-status";
const TRACE_HEADER: &str = "traceparent";

/// Whether and where calls are recorded.
#[derive(Clone)]
pub struct Audit {
    /// Keeps the records.
    pub sink: Arc<dyn AuditSink>,
    /// Whether an answer is withheld when its record cannot be kept.
    pub required: bool,
}

/// Puts [`Audited`] around a service.
#[derive(Clone)]
pub(super) struct AuditLayer(pub(super) Option<Audit>);

/// A service whose calls are recorded.
#[derive(Clone)]
pub(super) struct Audited<S> {
    inner: S,
    audit: Option<Audit>,
}

/// A call under way. One whose caller goes away before there is an answer is recorded when this is dropped: by the last who
/// holds it, which may be work that goes on ([`Lasting`]).
struct Running {
    draft: Draft,
    started: Instant,
    audit: Option<Audit>,
    ended: AtomicBool,
}

impl<S> Layer<S> for AuditLayer {
    type Service = Audited<S>;

    fn layer(&self, inner: S) -> Audited<S> {
        Audited { inner, audit: self.0.clone() }
    }
}

impl<S> Service<http::Request<Body>> for Audited<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let route = Route::of(&request);
        if !route.is_recorded() {
            return Box::pin(self.inner.call(request));
        }
        let rpc = route.call_name();
        let parent = request.headers().get(TRACE_HEADER).and_then(|value| TraceParent::parse(value.to_str().ok()?));
        let span = tracing::info_span!("call", rpc, trace_id = Empty, code = Empty);
        let trace_id = telemetry::trace_id(&span, parent);
        span.record("trace_id", &trace_id);
        let of_call: Arc<str> = trace_id.as_str().into();
        let draft = Draft::new(rpc, trace_id, self.audit.as_ref());
        request.extensions_mut().insert(draft.clone());
        let audit = self.audit.clone();
        let running = Arc::new(Running { draft, started: Instant::now(), audit, ended: AtomicBool::new(false) });
        request.extensions_mut().insert(Lasting::new(&running));
        let answering = span.in_scope(|| self.inner.call(request));
        let recorded = async move {
            let response = telemetry::in_call(of_call, answering).await?;
            let code = code_name(code_of(&response));
            let (kept, _) = telemetry::stage("audit", running.end(code)).await;
            let (code, response) = match kept {
                Ok(()) => (code, response),
                Err(refusal) => {
                    if let Some(one_use) = response.extensions().get::<Arc<Use>>() {
                        one_use.withheld();
                    }
                    (code_name(refusal.code()), refusal.into_http())
                }
            };
            tracing::Span::current().record("code", code);
            telemetry::answered(rpc, code, running.started.elapsed());
            Ok(response)
        };
        Box::pin(recorded.instrument(span))
    }
}

impl Running {
    /// Hands in the record. It is taken in before anything is waited for, so from then on a caller may go.
    fn hand_in(&self, code: &str) -> Option<Kept> {
        self.ended.store(true, Ordering::Relaxed);
        let audit = self.audit.as_ref()?;
        Some(audit.sink.record(self.draft.finish(code, self.started.elapsed())))
    }

    /// INVARIANT (record first): gives a refusal to send in place of the answer when the record is required and not kept.
    async fn end(&self, code: &str) -> Result<(), Status> {
        let Some(kept) = self.hand_in(code) else { return Ok(()) };
        match kept.await {
            Ok(()) => Ok(()),
            Err(error) if self.audit.as_ref().is_some_and(|audit| audit.required) => {
                tracing::error!(%error, "an answer was withheld because its record was not kept");
                Err(status::unrecorded())
            }
            Err(error) => {
                tracing::error!(%error, "an answer went out without a record");
                Ok(())
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !*self.ended.get_mut() {
            // Nobody is there to wait for it.
            drop(self.hand_in(code_name(self.draft.outcome().unwrap_or(Code::Cancelled))));
        }
    }
}

/// The status of an answer. A unary answer that is one has its `OK` behind the message.
fn code_of(response: &http::Response<Body>) -> Code {
    response.headers().get(STATUS_HEADER).map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()))
}

/// Whether a response is an answer.
pub(super) fn is_ok(response: &http::Response<Body>) -> bool {
    code_of(response) == Code::Ok
}

/// A code as gRPC spells it.
pub(super) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests;
