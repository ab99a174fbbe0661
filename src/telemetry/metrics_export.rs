//! Serves the metrics in Prometheus' format.

use std::net::SocketAddr;
use std::path::PathBuf;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

use super::{
    APPROVALS, AUDIT_BATCH, AUDIT_FAILED, AUDIT_WAITING, CHECK_BATCH, CHECKS, EXCHANGES, REPLICA_DIFFERENCES,
    REPLICA_LAG, REPLICA_ROUTED, REPLICA_TRUSTED, REPLICA_UNTOLD, REQUEST_SECONDS, REQUESTS, SOURCE_QUESTIONS,
    SOURCE_SECONDS, STAGE_SECONDS, TOKENS_REFUSED, VERIFIED,
};

/// The bounds of the buckets for durations: from the time of a remembered decision to the longest time of a request.
const BUCKETS_SECONDS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];
const BUCKETS_SIZE: [f64; 8] = [1.0, 5.0, 20.0, 50.0, 200.0, 1_000.0, 10_000.0, 100_000.0];

/// The reason why metrics or traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The address cannot be listened on.
    #[error("cannot serve metrics on `{address}` (`telemetry.metrics_listen`): {detail}")]
    Listen {
        /// The address as configured.
        address: SocketAddr,
        /// The message of the operating system.
        detail: String,
    },
    /// Certificates of a collector are named, but no collector.
    #[error("`telemetry.otlp_ca_file` is `{0}`, and `telemetry.otlp_endpoint` names no collector")]
    NoCollector(PathBuf),
    /// The collector cannot be called as configured.
    #[error("cannot send spans to `{endpoint}` (`telemetry.otlp_endpoint`): {detail}")]
    Endpoint {
        /// The address as configured.
        endpoint: String,
        /// The problem with the address or with the certificates.
        detail: String,
    },
}

/// Serves the metrics in Prometheus' format at `/metrics`, for as long as the runtime runs. Call it once in a process;
/// without it, nothing is measured.
///
/// # Errors
/// If the address cannot be listened on.
pub fn serve_metrics(address: SocketAddr) -> Result<(), TelemetryError> {
    let failed = |e: BuildError| TelemetryError::Listen { address, detail: e.to_string() };
    let builder = PrometheusBuilder::new().with_http_listener(address).set_buckets(&BUCKETS_SECONDS).map_err(failed)?;
    let builder = builder.set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &BUCKETS_SIZE).map_err(failed)?;
    builder.install().map_err(failed)?;
    describe();
    Ok(())
}

/// Registers a description for each metric.
fn describe() {
    describe_counter!(REQUESTS, Unit::Count, "Calls that have ended, by RPC and gRPC status code.");
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "Time from the arrival of a request to its answer, by RPC.");
    describe_histogram!(STAGE_SECONDS, Unit::Seconds, "Time of one stage of a request, by stage.");
    describe_counter!(TOKENS_REFUSED, Unit::Count, "Calls that the gate refused, by the check that was not passed.");
    describe_counter!(CHECKS, Unit::Count, "Decisions, by outcome: allowed or denied.");
    describe_histogram!(CHECK_BATCH, Unit::Count, "Checks that one request asks for at once.");
    describe_gauge!(REPLICA_LAG, Unit::Seconds, "How far the replica is behind its OpenFGA server.");
    describe_counter!(REPLICA_UNTOLD, Unit::Count, "Changes that a sweep found and the changelog did not report.");
    describe_gauge!(REPLICA_TRUSTED, Unit::Count, "1 while the replica is used, 0 while it is distrusted.");
    describe_gauge!(REPLICA_ROUTED, Unit::Count, "Kinds of questions that the replica may not decide.");
    describe_counter!(REPLICA_DIFFERENCES, Unit::Count, "Confirmed differences, by the wrong answer of the replica.");
    describe_counter!(VERIFIED, Unit::Count, "Decisions of the replica that were checked with the server, by outcome.");
    describe_counter!(SOURCE_QUESTIONS, Unit::Count, "Questions to sources, by source and outcome.");
    describe_histogram!(SOURCE_SECONDS, Unit::Seconds, "Time until a source has answered, by source.");
    describe_counter!(EXCHANGES, Unit::Count, "Tokens that were exchanged for sources, by source and outcome.");
    describe_counter!(APPROVALS, Unit::Count, "Questions to people and their ends, by outcome.");
    describe_histogram!(AUDIT_BATCH, Unit::Count, "Audit records that are written at once.");
    describe_gauge!(AUDIT_WAITING, Unit::Count, "Audit records that are on their way.");
    describe_counter!(AUDIT_FAILED, Unit::Count, "Audit records that could not be kept.");
}
