//! Records each call around its handler, so that no answer and no refusal can be forgotten: whatever becomes of the
//! request, and whoever refuses it, the response passes here.
//!
//! A handler adds what it learns to the [`Draft`] that travels with the request. The response waits until the record is
//! kept.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument;
use ulid::Ulid;

use super::status;
use crate::audit::{
    AuditSink, AuditedPrincipal, AuditedRequest, Call, Decision, DigestPurpose, Latencies, Record, Released,
};
use crate::authz::Consistency;
use crate::identity::Principal;
use crate::telemetry;
use crate::vector_store::Query;

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

/// The record of a call while it runs.
#[derive(Clone)]
pub(super) struct Draft {
    record: Arc<Mutex<Record>>,
    sink: Option<Arc<dyn AuditSink>>,
}

/// Notes a call whose caller goes away before there is an answer.
struct Running {
    draft: Draft,
    started: Instant,
    answered: bool,
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
        let path = request.uri().path();
        let Some(call) = Call::ALL.into_iter().find(|call| call.path() == path) else {
            return Box::pin(self.inner.call(request));
        };
        let trace_id = trace_id(request.headers());
        let span = tracing::info_span!("call", rpc = call.name(), trace_id, code = tracing::field::Empty);
        let draft = Draft::new(call, trace_id, self.audit.as_ref());
        request.extensions_mut().insert(draft.clone());
        let answering = span.in_scope(|| self.inner.call(request));
        let audit = self.audit.clone();
        let answer = async move {
            let mut running = Running { draft, started: Instant::now(), answered: false };
            let response = answering.await?;
            let code = code(&response);
            tracing::Span::current().record("code", code_name(code));
            let record = running.finish(code);
            // From here on it is recorded as answered, whether or not the caller is still there.
            running.answered = true;
            let kept = keep(audit.as_ref(), record).await;
            let (answered, response) = match kept {
                Ok(()) => (code, response),
                Err(refusal) => (refusal.code(), refusal.into_http()),
            };
            telemetry::answered(call.name(), code_name(answered), running.started.elapsed());
            Ok(response)
        };
        Box::pin(answer.instrument(span))
    }
}

/// INVARIANT (record first): gives a refusal to send in place of the answer when the record is required and not kept.
async fn keep(audit: Option<&Audit>, record: Record) -> Result<(), Status> {
    let Some(audit) = audit else { return Ok(()) };
    let kept = telemetry::stage("audit", audit.sink.record(record)).await;
    match kept {
        Err(error) if audit.required => {
            tracing::error!(%error, "an answer was withheld because its record was not kept");
            Err(status::unrecorded())
        }
        Err(error) => {
            tracing::error!(%error, "an answer went out without a record");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

impl Running {
    fn finish(&self, code: Code) -> Record {
        let mut record = self.draft.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        code_name(code).clone_into(&mut record.code);
        record.latency_us.total = micros(self.started.elapsed());
        if code != Code::Ok {
            record.released = None;
        }
        record
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let (false, Some(sink)) = (self.answered, &self.draft.sink) {
            sink.note(self.finish(Code::Cancelled));
        }
    }
}

impl Draft {
    fn new(call: Call, trace_id: String, audit: Option<&Audit>) -> Self {
        let record = Record {
            call,
            code: String::new(),
            trace_id,
            principal: None,
            request: None,
            decision: None,
            released: None,
            latency_us: Latencies::default(),
        };
        Self { record: Arc::new(Mutex::new(record)), sink: audit.map(|audit| Arc::clone(&audit.sink)) }
    }

    /// The draft that came with a request.
    ///
    /// # Errors
    /// When there is none: a service was put beside the layer, and must not answer unrecorded.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(status::unrecorded)
    }

    fn edit(&self, edit: impl FnOnce(&mut Record)) {
        edit(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// For whom the answer is.
    pub(super) fn principal(&self, principal: &Principal) {
        let token = principal.token();
        let digest = |id: &str| self.sink.as_ref().map(|sink| sink.digest(DigestPurpose::TokenId, id.as_bytes()));
        let audited = AuditedPrincipal {
            subject: principal.subject().to_string(),
            actors: principal.actors().iter().map(|actor| actor.object.to_string()).collect(),
            client_id: token.map(|token| token.client_id.clone()),
            issuer: token.map(|token| token.issuer.to_string()),
            token_digest: token.and_then(|token| digest(&token.token_id)),
            asserted_by: principal.asserted_by().map(str::to_owned),
        };
        self.edit(|record| record.principal = Some(audited));
    }

    /// What is asked for.
    pub(super) fn request(&self, request: AuditedRequest) {
        self.edit(|record| record.request = Some(request));
    }

    /// The kind of a query and its digest.
    pub(super) fn query(&self, query: &Query) -> (Option<String>, Option<String>) {
        let of_vector = |vector: &[f32]| vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (kind, text, vector) = match query {
            Query::Text(text) => ("text", text.as_str(), Vec::new()),
            Query::Vector(vector) => ("vector", "", of_vector(vector)),
            Query::Hybrid { text, vector } => ("hybrid", text.as_str(), of_vector(vector)),
        };
        // The length of the text is a part of it, so that two queries never have the same bytes.
        let text_bytes = (text.len() as u64).to_le_bytes();
        let bytes = [kind.as_bytes(), b"\0", &text_bytes, text.as_bytes(), &vector].concat();
        (Some(kind.to_owned()), self.sink.as_ref().map(|sink| sink.digest(DigestPurpose::Query, &bytes)))
    }

    /// How it was decided, and how long the stages took.
    pub(super) fn decision(&self, decision: Decision, stages: Latencies) {
        self.edit(|record| {
            record.decision = Some(decision);
            record.latency_us = stages;
        });
    }

    /// What will leave.
    pub(super) fn released(&self, released: Released) {
        self.edit(|record| record.released = Some(released));
    }
}

/// The name of a consistency in the log.
pub(super) fn consistency_name(consistency: Consistency) -> String {
    match consistency {
        Consistency::MinimizeLatency => "minimize_latency",
        Consistency::HigherConsistency => "higher_consistency",
    }
    .to_owned()
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The trace of the caller (W3C Trace Context, section 3.2), or a new one.
fn trace_id(headers: &http::HeaderMap) -> String {
    let stated = headers.get(TRACE_HEADER).and_then(|value| value.to_str().ok()).and_then(stated_trace_id);
    // The last 80 of the 128 bits of a ULID are random.
    stated.map_or_else(|| format!("{:032x}", u128::from(Ulid::new())), str::to_owned)
}

fn stated_trace_id(header: &str) -> Option<&str> {
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut parts = header.splitn(4, '-');
    let (version, trace_id, parent_id, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let flags = rest.split('-').next()?;
    let known = is_hex(version, 2) && version != "ff" && (version != "00" || rest.len() == 2);
    let not_zero = |id: &str| id.bytes().any(|byte| byte != b'0');
    let whole = is_hex(trace_id, 32) && is_hex(parent_id, 16) && is_hex(flags, 2);
    (known && whole && not_zero(trace_id) && not_zero(parent_id)).then_some(trace_id)
}

/// The status of an answer. A unary answer that is one has its `OK` behind the message.
fn code(response: &http::Response<Body>) -> Code {
    response.headers().get(STATUS_HEADER).map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()))
}

/// A code as gRPC spells it.
fn code_name(code: Code) -> &'static str {
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
mod tests {

    use super::*;

    #[test]
    fn a_trace_is_taken_up_only_if_it_is_one() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let rows = [
            (format!("00-{id}-00f067aa0ba902b7-01"), true),
            (format!("cc-{id}-00f067aa0ba902b7-01-more"), true),
            (format!("00-{id}-00f067aa0ba902b7-01-more"), false),
            (format!("ff-{id}-00f067aa0ba902b7-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", id.to_uppercase()), false),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
            (format!("00-{id}-0000000000000000-01"), false),
            (format!("00-{id}"), false),
            (String::new(), false),
            ("00-user:anne-00f067aa0ba902b7-01".to_owned(), false),
        ];
        for (header, expected) in rows {
            assert_eq!(stated_trace_id(&header), expected.then_some(id), "{header}");
        }
    }
}
