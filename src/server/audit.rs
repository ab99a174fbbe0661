//! The record: a layer around the gate and all services, so that nobody can forget an answer or a refusal.
//!
//! Whoever refuses a request, and whatever becomes of it, the response passes here and waits until its record is kept. A
//! handler could forget a record; a layer cannot. The gate and the handlers add what they learn to the [`Draft`] that
//! travels with the request, and a handler that finds no draft refuses. A call whose caller goes away is recorded as
//! `CANCELLED`. The operations that are open to everybody (health, the resource's metadata) are not recorded.
//!
//! INVARIANT (one code): record, metrics and wire tell the same code. So the deadline of a caller ends its call here, inside
//! of the record, and nowhere further out.

mod draft;
mod observed;
mod open_record;
#[cfg(test)]
pub(super) mod sample;

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::time::{Instant, timeout_at};
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::http;
use tower::{Layer, Service};
use tracing::Instrument;
use tracing::field::Empty;

pub(super) use self::draft::{Draft, decided_by, searched};
pub(super) use self::open_record::{OngoingWork, OpenRecord};
use super::deadline;
use super::operations::Route;
use super::refusal::Refusal;
use crate::audit::{AuditSink, Door, Kept, ObservedDetail};
use crate::identity::Use;
use crate::telemetry::{self, CallLabels, TraceParent};

const TRACE_HEADER: &str = "traceparent";

/// The sink that records calls, and the treatment of an answer whose record it cannot keep.
#[derive(Clone)]
pub struct Audit {
    /// Keeps the record of each call.
    pub sink: Arc<dyn AuditSink>,
    /// Whether an answer is withheld when its record cannot be kept.
    pub required: bool,
    /// The detail in which records describe the chunks that an observing re-check would have withheld.
    pub observed: ObservedDetail,
}

/// Puts [`Audited`] around a service.
#[derive(Clone)]
pub(super) struct AuditLayer {
    /// Nothing is recorded when `None`.
    pub(super) audit: Option<Audit>,
    /// The tasks that may outlive their callers.
    pub(super) work: OngoingWork,
}

/// A service whose calls are recorded.
#[derive(Clone)]
pub(super) struct Audited<S> {
    inner: S,
    layer: AuditLayer,
}

/// A call under way. If its caller goes away before there is an answer, the call is recorded when the last holder drops
/// this; that may be work that goes on ([`OpenRecord`]).
struct Running {
    rpc: &'static str,
    door: Door,
    draft: Draft,
    started: Instant,
    /// The moment at which the caller stops waiting, if it says so.
    answer_by: Option<Instant>,
    audit: Option<Audit>,
    work: OngoingWork,
    /// The code that the caller got. The metrics count it then.
    told: OnceLock<Code>,
    /// The code in the record, once the record is handed in.
    handed_in: OnceLock<Code>,
}

impl<S> Layer<S> for AuditLayer {
    type Service = Audited<S>;

    fn layer(&self, inner: S) -> Audited<S> {
        Audited { inner, layer: self.clone() }
    }
}

impl<S> Service<http::Request<Body>> for Audited<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Refusal>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Self::Response, Refusal>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let (route, answer_by) = (Route::of(&request), deadline::answer_by(&request));
        if !route.is_recorded() {
            let answering = self.inner.call(request);
            return Box::pin(
                async move { in_time(answer_by, answering).await.unwrap_or_else(|| Err(Refusal::late())) },
            );
        }
        let rpc = route.call_name();
        // No header sets an extension: a connection does, or a door that calls the stack from within the process.
        let door = request.extensions().get::<Door>().copied().unwrap_or(Door::InProcess);
        let parent = request.headers().get(TRACE_HEADER).and_then(|value| TraceParent::parse(value.to_str().ok()?));
        let span = tracing::info_span!("call", rpc, trace_id = Empty, code = Empty);
        let trace_id = telemetry::trace_id(&span, parent);
        span.record("trace_id", &trace_id);
        let of_call: Arc<str> = trace_id.as_str().into();
        let AuditLayer { audit, work } = self.layer.clone();
        let draft = Draft::new(rpc, door, trace_id, audit.clone());
        request.extensions_mut().insert(draft.clone());
        let started = Instant::now();
        let (told, handed_in) = (OnceLock::new(), OnceLock::new());
        let running = Running { rpc, door, draft, started, answer_by, audit, work, told, handed_in };
        let running = Arc::new(running);
        request.extensions_mut().insert(OpenRecord::new(&running));
        let answering = span.in_scope(|| self.inner.call(request));
        let recorded = async move {
            let given = match in_time(answer_by, telemetry::in_call(of_call, answering)).await {
                Some(answered) => running.give(&route, answered).await,
                None => Err(running.give_up().await),
            };
            let code = code_name(code_of(&route, &given));
            tracing::Span::current().record("code", code);
            telemetry::answered(CallLabels { rpc, code, door: door.name() }, started.elapsed());
            given
        };
        Box::pin(recorded.instrument(span))
    }
}

impl Running {
    /// Hands in the record. The sink has it when this returns, so from then on the caller may go away.
    fn hand_in(&self, code: Code) -> Option<Kept> {
        self.handed_in.get_or_init(|| code);
        let audit = self.audit.as_ref()?;
        Some(audit.sink.record(self.draft.finish(code_name(code), self.started.elapsed())))
    }

    /// Hands in the record and waits until it is kept.
    ///
    /// # Errors
    /// INVARIANT (record first): when the record is required and was not kept, gives the refusal to send in place of the
    /// answer.
    async fn end(&self, code: Code) -> Result<(), Refusal> {
        let Some(kept) = self.hand_in(code) else { return Ok(()) };
        match kept.await {
            Ok(()) => Ok(()),
            Err(error) if self.audit.as_ref().is_some_and(|audit| audit.required) => {
                tracing::error!(%error, "an answer was withheld because its record was not kept");
                Err(Refusal::unrecorded())
            }
            Err(error) => {
                tracing::error!(%error, "an answer went out without a record");
                Ok(())
            }
        }
    }

    /// Records an answer or a refusal, and returns what the caller gets.
    async fn give(
        &self,
        route: &Route,
        answered: Result<http::Response<Body>, Refusal>,
    ) -> Result<http::Response<Body>, Refusal> {
        let (kept, _) = telemetry::stage("audit", self.end(code_of(route, &answered))).await;
        let given = match kept {
            Ok(()) => answered,
            Err(refusal) => {
                let withheld = answered.ok();
                if let Some(one_use) = withheld.and_then(|mut answer| answer.extensions_mut().remove::<Arc<Use>>()) {
                    one_use.withheld();
                }
                Err(refusal)
            }
        };
        self.told.get_or_init(|| code_of(route, &given));
        given
    }

    /// Gives up a call whose caller stops waiting, and returns what the caller gets.
    ///
    /// The caller does not wait for work that goes on. The record does, so it names what was changed, under the code that the
    /// caller got.
    async fn give_up(self: Arc<Self>) -> Refusal {
        let late = Refusal::late();
        self.told.get_or_init(|| late.code());
        match Arc::into_inner(self) {
            Some(running) => running.end(late.code()).await.err().unwrap_or(late),
            None => late,
        }
    }

    /// Returns the code of a call whose caller went away without an answer.
    fn abandoned_code(&self) -> Code {
        // A caller that goes away at its deadline is late, even if this task was not polled before.
        let is_late = self.answer_by.is_some_and(|moment| moment <= Instant::now());
        if is_late { Code::DeadlineExceeded } else { Code::Cancelled }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let code = self.handed_in.get().copied().unwrap_or_else(|| {
            let code = self.told.get().copied().or_else(|| self.draft.outcome());
            let code = code.unwrap_or_else(|| self.abandoned_code());
            // No caller is left who would wait for it.
            drop(self.hand_in(code));
            code
        });
        if self.told.get().is_none() {
            let labels = CallLabels { rpc: self.rpc, code: code_name(code), door: self.door.name() };
            telemetry::answered(labels, self.started.elapsed());
        }
    }
}

/// Waits for an answer until its caller stops waiting. Returns `None` if the answer is late; then the call is given up, but for
/// work that runs to its end.
async fn in_time<T>(answer_by: Option<Instant>, answering: impl Future<Output = T>) -> Option<T> {
    match answer_by {
        Some(moment) => timeout_at(moment, answering).await.ok(),
        None => Some(answering.await),
    }
}

/// Returns the code of a call: that of its refusal, or what its route knows of an answer.
fn code_of(route: &Route, answered: &Result<http::Response<Body>, Refusal>) -> Code {
    answered.as_ref().map_or_else(Refusal::code, |_| route.answered_code())
}

/// Spells a code as gRPC does.
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
