//! The section `[telemetry]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::optional_listen_address;

/// The destinations of metrics and spans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// The address that serves Prometheus metrics, such as `127.0.0.1:9464`. When unset, metrics are not served. The address
    /// has no TLS and asks for no token.
    #[serde(deserialize_with = "optional_listen_address")]
    pub metrics_listen: Option<SocketAddr>,
    /// The collector that spans are sent to (OTLP over gRPC), such as `http://127.0.0.1:4317`. When unset, none are sent.
    pub otlp_endpoint: Option<String>,
    /// A PEM file with the only authorities whose certificates are accepted from a collector with an `https://` address. When
    /// unset, those that the system trusts.
    pub otlp_ca_file: Option<PathBuf>,
}
