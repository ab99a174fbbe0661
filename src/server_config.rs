//! The section `[server]`. It stands apart from `server` because a library without that feature reads the same file.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{PositiveDuration, at_least_one, listen_address};

/// The gRPC server that callers reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// The IP address and port to listen on. Others can reach any address that is not loopback.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// Believe the user that a request names, without a token. Use it to try Ragward out, or behind a caller that has
    /// verified its users.
    pub insecure_identity: bool,
    /// Serve `Explain` without tokens (with `insecure_identity`). It tells its caller about hidden chunks. With tokens,
    /// `Explain` needs the scope `ragward:explain` instead.
    pub explain: bool,
    /// The longest that one request may take. A caller's own, shorter deadline still counts.
    #[serde(with = "PositiveDuration")]
    pub request_timeout: Duration,
    /// The most connections at a time; more wait until one ends. Keep it below the system's limit of open files.
    #[serde(deserialize_with = "at_least_one")]
    pub connections_max: usize,
    /// How long running requests may take to end after the server was told to stop.
    #[serde(with = "PositiveDuration")]
    pub shutdown_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8980)),
            insecure_identity: false,
            explain: false,
            request_timeout: Duration::from_secs(10),
            // Below the 1,024 open files that a process may have by default on most systems.
            connections_max: 900,
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}
