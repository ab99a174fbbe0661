//! The sections `[audit]` and `[telemetry]`: whether and where calls are recorded, measured and traced.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, socket_address};

/// The record of who was given what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Record every answer and every refusal.
    pub enabled: bool,
    /// Withhold an answer whose record cannot be kept. Otherwise it goes out, and the log tells of it.
    pub required: bool,
    /// Where the segments are; `audit` in the data directory when empty. One process at a time.
    pub directory: PathBuf,
    /// The file of the key; `audit.key` in the data directory when empty. Made when it is not there. Whoever can write the
    /// segments should not be able to read it.
    pub key_file: PathBuf,
    /// When records are made durable.
    pub fsync: AuditFsync,
    /// How often, when `fsync` is `interval`, in milliseconds.
    pub fsync_interval_ms: u64,
    /// A segment that is as large as this is sealed and the next one begun.
    pub segment_bytes_max: u64,
    /// Segments that are kept, at least 2; all of them when 0.
    pub segments_max: u64,
}

/// When records are made durable. Under all of them a record outlives the process; only the first outlives the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditFsync {
    /// Before the answer leaves; records that wait at the same time share the cost.
    EachBatch,
    /// At an interval.
    #[default]
    Interval,
    /// When the system likes to.
    Never,
}

/// Where measures and spans go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// The address that serves Prometheus metrics, `127.0.0.1:9464`; not served when empty. It asks for no token.
    pub metrics_listen: String,
    /// The collector that spans are sent to (OTLP over gRPC), `http://127.0.0.1:4317`; not sent when empty.
    pub otlp_endpoint: String,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            required: true,
            directory: PathBuf::new(),
            key_file: PathBuf::new(),
            fsync: AuditFsync::default(),
            fsync_interval_ms: 1_000,
            segment_bytes_max: 64 * 1024 * 1024,
            segments_max: 0,
        }
    }
}

impl TelemetryConfig {
    /// The address of the metrics; `None` when they are not served.
    ///
    /// # Errors
    /// When it is not an address.
    pub fn metrics_address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.metrics_listen.is_empty() {
            return Ok(None);
        }
        let malformed = |e| ConfigError::Invalid(format!("`telemetry.metrics_listen`: {e}"));
        socket_address(&self.metrics_listen).map(Some).map_err(malformed)
    }
}
