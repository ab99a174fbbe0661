//! What is measured, in one place: names and labels are a contract, labels come from fixed sets, and nothing here ever
//! sees a user, an object, an id or a text.

use std::net::SocketAddr;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::time::Instant;
use tracing::Instrument;

const REQUESTS: &str = "ragward_requests_total";
const REQUEST_SECONDS: &str = "ragward_request_duration_seconds";
const STAGE_SECONDS: &str = "ragward_stage_duration_seconds";
const CHECKS: &str = "ragward_checks_total";
const CHECK_BATCH: &str = "ragward_check_batch_size";
const AUDIT_BATCH: &str = "ragward_audit_batch_size";
const AUDIT_WAITING: &str = "ragward_audit_queue_records";
const AUDIT_FAILED: &str = "ragward_audit_failed_records_total";

/// From what a cached decision takes to what a request may take at most.
const BUCKETS_SECONDS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];
const BUCKETS_SIZE: [f64; 8] = [1.0, 5.0, 20.0, 50.0, 200.0, 1_000.0, 10_000.0, 100_000.0];

/// Why measures cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}: {detail}")]
pub struct TelemetryError {
    address: SocketAddr,
    detail: String,
}

/// Serves the measures in Prometheus' format at `/metrics`, for as long as the runtime runs. Once in a process.
///
/// # Errors
/// When the address cannot be listened on.
pub fn serve_metrics(address: SocketAddr) -> Result<(), TelemetryError> {
    let failed = |e: metrics_exporter_prometheus::BuildError| TelemetryError { address, detail: e.to_string() };
    let builder = PrometheusBuilder::new().with_http_listener(address).set_buckets(&BUCKETS_SECONDS).map_err(failed)?;
    let builder = builder.set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &BUCKETS_SIZE).map_err(failed)?;
    builder.install().map_err(failed)?;
    describe();
    Ok(())
}

/// Says what each measure is.
fn describe() {
    describe_counter!(REQUESTS, Unit::Count, "Answers and refusals, by RPC and gRPC status code.");
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "From the arrival of a request to its answer, by RPC.");
    describe_histogram!(STAGE_SECONDS, Unit::Seconds, "One stage of a request, by stage.");
    describe_counter!(CHECKS, Unit::Count, "Decisions, by outcome: allowed or denied.");
    describe_histogram!(CHECK_BATCH, Unit::Count, "Checks that one request asks at once.");
    describe_histogram!(AUDIT_BATCH, Unit::Count, "Audit records that are written at once.");
    describe_gauge!(AUDIT_WAITING, Unit::Count, "Audit records that are on their way.");
    describe_counter!(AUDIT_FAILED, Unit::Count, "Audit records that could not be kept.");
}

/// A call was answered or refused.
pub fn answered(rpc: &'static str, code: &'static str, took: Duration) {
    tracing::debug!(rpc, code, ?took, "answered");
    counter!(REQUESTS, "rpc" => rpc, "code" => code).increment(1);
    histogram!(REQUEST_SECONDS, "rpc" => rpc).record(took);
}

/// Runs one stage of a request in its span, and measures it.
pub async fn stage<T>(stage: &'static str, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let span = tracing::info_span!("stage", stage);
    let done = work.instrument(span.clone()).await;
    let took = started.elapsed();
    span.in_scope(|| tracing::debug!(?took, "stage ended"));
    histogram!(STAGE_SECONDS, "stage" => stage).record(took);
    done
}

/// Guards were decided on, all for one request.
pub fn checked(allowed: usize, denied: usize) {
    counter!(CHECKS, "outcome" => "allowed").increment(allowed as u64);
    counter!(CHECKS, "outcome" => "denied").increment(denied as u64);
    #[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "a batch is far below 2^52")]
    histogram!(CHECK_BATCH).record((allowed + denied) as f64);
}

/// An audit record is on its way (`1`) or has arrived (`-1`).
pub fn audit_waiting(change: f64) {
    gauge!(AUDIT_WAITING).increment(change);
}

/// Audit records were written at once.
pub fn audit_written(records: usize, kept: bool) {
    #[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "a batch is far below 2^52")]
    histogram!(AUDIT_BATCH).record(records as f64);
    if !kept {
        counter!(AUDIT_FAILED).increment(records as u64);
    }
}
