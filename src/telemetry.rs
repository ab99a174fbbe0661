//! Metrics and traces, in one place. Their names and labels are a contract. Labels come from fixed sets, or are names of
//! the configuration. This module never receives a user, an object, an id or a text.
//!
//! The crates `metrics` and `tracing` have global state, and only this module uses it. `cli` sets that state once.
//! Nothing is decided from it. Without it, every constructor would take a handle.

mod config;
#[cfg(feature = "server")]
mod log_limit;
#[cfg(feature = "server")]
mod metrics_export;
#[cfg(feature = "server")]
mod panics;
#[cfg(feature = "server")]
mod span_export;
#[cfg(feature = "server")]
mod trace_parent;

pub use config::TelemetryConfig;
#[cfg(feature = "server")]
pub use log_limit::LogLimit;
#[cfg(feature = "server")]
pub use metrics_export::{TelemetryError, serve_metrics};
#[cfg(feature = "server")]
pub use panics::log_panics;
#[cfg(feature = "server")]
pub use span_export::{SpanExport, trace_id};
#[cfg(feature = "server")]
pub use trace_parent::TraceParent;

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tokio::time::Instant;
use tracing::Instrument;

const REQUESTS: &str = "ragward_requests_total";
const REQUEST_SECONDS: &str = "ragward_request_duration_seconds";
const STAGE_SECONDS: &str = "ragward_stage_duration_seconds";
const TOKENS_REFUSED: &str = "ragward_tokens_refused_total";
const CHECKS: &str = "ragward_checks_total";
const CHECK_BATCH: &str = "ragward_check_batch_size";
const REPLICA_LAG: &str = "ragward_replica_lag_seconds";
const REPLICA_UNTOLD: &str = "ragward_replica_untold_changes_total";
const REPLICA_TRUSTED: &str = "ragward_replica_trusted";
const REPLICA_ROUTED: &str = "ragward_replica_routed_kinds";
const REPLICA_DIFFERENCES: &str = "ragward_replica_differences_total";
const VERIFIED: &str = "ragward_verifications_total";
const SOURCE_QUESTIONS: &str = "ragward_source_questions_total";
const SOURCE_SECONDS: &str = "ragward_source_duration_seconds";
const EXCHANGES: &str = "ragward_token_exchanges_total";
const MODEL_REQUESTS: &str = "ragward_model_requests_total";
const MODEL_SECONDS: &str = "ragward_model_duration_seconds";
const APPROVALS: &str = "ragward_approvals_total";
const AUDIT_BATCH: &str = "ragward_audit_batch_size";
const AUDIT_WAITING: &str = "ragward_audit_queue_records";
const AUDIT_FAILED: &str = "ragward_audit_failed_records_total";

/// The labels of a call. Each is one of a fixed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLabels {
    /// The RPC as gRPC names it: `package.Service/Method`.
    pub rpc: &'static str,
    /// The code of the answer or refusal.
    pub code: &'static str,
    /// The door through which the call came.
    pub door: &'static str,
}

/// Counts a call that has ended: with an answer or a refusal, or because its caller went away.
pub fn answered(call: CallLabels, took: Duration) {
    let CallLabels { rpc, code, door } = call;
    tracing::debug!(?took, "answered");
    counter!(REQUESTS, "rpc" => rpc, "code" => code, "door" => door).increment(1);
    histogram!(REQUEST_SECONDS, "rpc" => rpc).record(took);
}

/// Runs one stage of a request in its span, and measures its time.
pub async fn stage<T>(stage: &'static str, work: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    let done = work.instrument(tracing::info_span!("stage", stage)).await;
    let took = started.elapsed();
    tracing::debug!(stage, ?took, "stage ended");
    histogram!(STAGE_SECONDS, "stage" => stage).record(took);
    (done, took)
}

/// Counts a call that the gate refused. The label is one of a fixed set.
pub fn token_refused(check: &'static str) {
    counter!(TOKENS_REFUSED, "check" => check).increment(1);
}

/// Counts the checks that were decided for one request.
pub fn checked(allowed: usize, denied: usize) {
    counter!(CHECKS, "outcome" => "allowed").increment(allowed as u64);
    counter!(CHECKS, "outcome" => "denied").increment(denied as u64);
    histogram!(CHECK_BATCH).record(size(allowed.saturating_add(denied)));
}

/// Sets the lag of the replica. `None` means that the replica is not a complete copy yet; it is reported as infinity.
pub fn replica_lag(lag: Option<Duration>) {
    gauge!(REPLICA_LAG).set(lag.map_or(f64::INFINITY, |lag| lag.as_secs_f64()));
}

/// Counts changes that a sweep found although the server's changelog did not report them.
pub fn replica_untold_changes(changes: usize) {
    counter!(REPLICA_UNTOLD).increment(changes as u64);
}

/// Sets whether the replica is used, and how many kinds of questions go to the server instead.
pub fn replica_trusted(trusted: bool, routed: usize) {
    gauge!(REPLICA_TRUSTED).set(if trusted { 1.0 } else { 0.0 });
    gauge!(REPLICA_ROUTED).set(size(routed));
}

/// Counts a confirmed difference between replica and server: the replica `allowed` or `denied` wrongly.
pub fn replica_difference(wrongly: &'static str) {
    counter!(REPLICA_DIFFERENCES, "wrongly" => wrongly).increment(1);
}

/// Counts a decision of the replica that was checked with the server. The outcome is one of a fixed set.
pub fn verified(outcome: &'static str) {
    counter!(VERIFIED, "outcome" => outcome).increment(1);
}

/// Counts a question to a source, and the time until its answer. The name of the source is that of the configuration, and
/// the outcome is one of a fixed set.
pub fn source_asked(source: &str, outcome: &'static str, took: Duration) {
    counter!(SOURCE_QUESTIONS, "source" => source.to_owned(), "outcome" => outcome).increment(1);
    histogram!(SOURCE_SECONDS, "source" => source.to_owned()).record(took);
}

/// Counts a token that was exchanged for a source, or was not. The labels are as for [`source_asked`].
pub fn token_exchanged(source: &str, outcome: &'static str) {
    counter!(EXCHANGES, "source" => source.to_owned(), "outcome" => outcome).increment(1);
}

/// Counts a request to the endpoint of a model, and the time until its answer. Both labels are from fixed sets.
pub fn model_asked(section: &'static str, outcome: &'static str, took: Duration) {
    counter!(MODEL_REQUESTS, "section" => section, "outcome" => outcome).increment(1);
    histogram!(MODEL_SECONDS, "section" => section).record(took);
}

/// Counts a question to a person, or its end. The outcome is one of a fixed set.
pub fn approval(outcome: &'static str) {
    counter!(APPROVALS, "outcome" => outcome).increment(1);
}

tokio::task_local! {
    static CALL_TRACE: Arc<str>;
}

/// Runs the code that answers a call within the call's trace, so that later work for the call can name the trace.
pub async fn in_call<T>(trace_id: Arc<str>, answering: impl Future<Output = T>) -> T {
    CALL_TRACE.scope(trace_id, answering).await
}

/// Returns the trace of the call that is being answered here, if there is one.
#[must_use]
pub fn call_trace() -> Option<Arc<str>> {
    CALL_TRACE.try_with(Arc::clone).ok()
}

/// Counts an audit record that waits to be written.
pub fn audit_queued() {
    gauge!(AUDIT_WAITING).increment(1.0);
}

/// Counts audit records that were written with one write.
pub fn audit_kept(records: usize) {
    leave_audit_queue(records);
}

/// Counts audit records that could not be kept.
pub fn audit_lost(records: usize) {
    leave_audit_queue(records);
    counter!(AUDIT_FAILED).increment(records as u64);
}

fn leave_audit_queue(records: usize) {
    gauge!(AUDIT_WAITING).decrement(size(records));
    histogram!(AUDIT_BATCH).record(size(records));
}

fn size(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
