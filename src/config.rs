//! The configuration: defaults < TOML file < environment (`RAGWARD__SECTION__KEY`) < command-line flags. The only module
//! that reads the environment, but for `RAGWARD_CONFIG` and `RUST_LOG`, which `cli` takes before there is a configuration.

mod audit;
mod identity;
mod layers;
mod qdrant;
mod token;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use audit::{AuditConfig, AuditFsync, TelemetryConfig};
pub use identity::{
    AbsentClaim, ClaimContextConfig, ClaimTupleConfig, DelegationConfig, DelegationObject, DetailsConfig,
    IdentityConfig, IssuerConfig, OldNamesPolicy, PeopleConfig, StepUpConfig,
};
pub use qdrant::{PayloadConfig, QdrantConfig, ReadConsistency, WrittenBy};
pub use token::access_token;

/// Everything that an operator can set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The gRPC server.
    pub server: ServerConfig,
    /// The data directory of the embedded engines.
    pub data: DataConfig,
    /// Who decides.
    pub authorizer: AuthorizerConfig,
    /// Where chunks are.
    pub vector_store: VectorStoreConfig,
    /// Limits of retrieval.
    pub retrieval: RetrievalConfig,
    /// Who may call.
    pub identity: IdentityConfig,
    /// The record of who was given what.
    pub audit: AuditConfig,
    /// Where measures and spans go.
    pub telemetry: TelemetryConfig,
}

/// The gRPC server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// The IP address and port to listen on. Anything but loopback is reached by others.
    #[serde(deserialize_with = "deserialize_socket_address")]
    pub listen: SocketAddr,
    /// Believe the user that a request names. For trying out, or behind a caller that has verified its users.
    pub insecure_identity: bool,
    /// Serve `Explain` to callers that are believed; it tells whoever asks of what is hidden. Tokens need `ragward:explain` instead.
    pub explain: bool,
    /// The longest that one request may take, in milliseconds. A caller's own, shorter deadline is kept.
    pub request_timeout_ms: u64,
    /// Most connections at a time; more wait until one ends. Keep it below the system's limit of open files.
    pub connections_max: usize,
    /// How long running requests may take to end once the server was told to stop, in milliseconds.
    pub shutdown_timeout_ms: u64,
}

/// The data directory of the embedded engines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Made when it is not there. One process at a time.
    pub directory: PathBuf,
}

/// Who decides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthorizerConfig {
    /// The embedded evaluator, or an `OpenFGA` server.
    pub kind: AuthorizerKind,
    /// The `OpenFGA` server, when `kind` is `openfga`.
    pub openfga: OpenFgaConfig,
    /// How checks are gathered, shared and remembered, when `kind` is `openfga`.
    pub checks: ChecksConfig,
    /// The copy of the server's relationships, when `kind` is `openfga`.
    pub replica: ReplicaConfig,
}

/// A copy of an `OpenFGA` server's relationships, kept in `replica` of the data directory by `ragward serve`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReplicaConfig {
    /// What the copy is used for.
    pub mode: ReplicaMode,
    /// Between two looks at the server's changes, in milliseconds.
    pub poll_interval_ms: u64,
    /// A copy that is further behind than this is not used, in milliseconds. In mode `decide`, a revoked permission may
    /// still count for so long.
    pub staleness_max_ms: u64,
    /// How much of the log of changes is read again each time, in milliseconds: how long a write to the server may take.
    pub overlap_ms: u64,
    /// Between two comparisons of all tuples, in milliseconds: a change that the log never tells, or tells after `overlap_ms`,
    /// counts after this time and that of one comparison.
    pub sweep_interval_ms: u64,
    /// Most types of a model that the copy is evaluated under. Under a model of more, the server decides everything.
    pub types_max: usize,
    /// The share of the copy's decisions that the server is asked for as well, off the request's path; 0 to 1. More are in the
    /// first minute after a new model.
    pub verified_share: f64,
    /// Most checks a second that are asked for this.
    pub verified_checks_per_second_max: u32,
}

/// What a replica is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaMode {
    /// There is none.
    Off,
    /// It tells what a user may see, for planning a search; the server decides about every chunk that is released.
    Plan,
    /// It decides, within its bound; a share of its decisions is verified at the server.
    #[default]
    Decide,
}

/// The authorizers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthorizerKind {
    /// Ragward's own evaluator over the tuples in the data directory.
    #[default]
    Embedded,
    /// An `OpenFGA` server over gRPC.
    Openfga,
}

/// An `OpenFGA` server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OpenFgaConfig {
    /// The address of its gRPC port.
    pub address: String,
    /// The name of the store. Used when `store_id` is empty.
    pub store_name: String,
    /// The id of the store.
    pub store_id: String,
    /// The id of the authorization model; the store's latest when empty.
    pub authorization_model_id: String,
    /// A file with the pre-shared key; none when empty.
    pub api_token_file: PathBuf,
    /// Checks of one call; the server's own limit is 50 unless it is configured otherwise.
    pub checks_per_call: usize,
    /// The longest that one call may take, in milliseconds.
    pub timeout_ms: u64,
    /// The server's `listObjects-max-results`: a list of so many objects may have been cut short.
    pub list_results_max: usize,
    /// The server's `listObjects-deadline`, in milliseconds: a list that took so long may have been cut short.
    pub list_deadline_ms: u64,
    /// How old an answer from the server's own caches may be (the largest of its cache TTLs), in milliseconds; 0 where it has
    /// none. A document that was written within this time is checked past those caches.
    pub cache_age_max_ms: u64,
}

/// How checks are gathered, shared and remembered in front of an `OpenFGA` server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChecksConfig {
    /// For how long a decision is remembered, in milliseconds; 0 remembers none. A revocation that the changelog does not
    /// tell of in time is seen after this time. A request for higher consistency sees every revocation at once.
    pub cache_ttl_ms: u64,
    /// Most memory for remembered decisions, in bytes.
    pub cache_bytes_max: u64,
    /// How often the server's changelog is read, in milliseconds; any change makes all decisions forgotten. With 0 it is not
    /// read, and only `cache_ttl_ms` bounds how late a revocation is seen. Where there is a replica, it reads for both, every
    /// `authorizer.replica.poll_interval_ms`.
    pub changelog_poll_ms: u64,
    /// When the changelog could not be read for so long, in milliseconds, nothing is recalled until it can be again.
    pub changelog_age_max_ms: u64,
    /// Most calls to the server at the same time; how many there are follows its latency.
    pub calls_in_flight_max: u32,
    /// Most checks that wait for a call. Past it requests are turned away; past a quarter of it the requests of one user wait
    /// for room.
    pub checks_waiting_max: usize,
}

/// Where chunks are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VectorStoreConfig {
    /// The embedded engine, or a Qdrant server.
    pub kind: VectorStoreKind,
    /// The Qdrant server, when `kind` is `qdrant`.
    pub qdrant: QdrantConfig,
}

/// The vector stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VectorStoreKind {
    /// Ragward's own exact engine over the chunks in the data directory.
    #[default]
    Embedded,
    /// A Qdrant server over gRPC.
    Qdrant,
}

/// Limits of retrieval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrievalConfig {
    /// The relation on a chunk's guard that a user must hold to see the chunk.
    pub relation: String,
    /// Most chunks of one answer.
    pub top_k_max: u32,
    /// Most candidates of one search; a search that would need more ends as `LIMITED`.
    pub candidates_max: usize,
    /// Most guards that one request may have checked ahead of its search, where the authorizer cannot tell at once what a
    /// user may see.
    pub guards_checked_max: usize,
    /// A file with the secret of page tokens, at least 32 bytes, that replicas share; empty: a random one at each start.
    pub page_token_key_file: PathBuf,
    /// How long a page token is good for.
    pub page_token_lifetime_ms: u64,
    /// Tell whoever asks how a retrieval was searched. It counts what is withheld from the user, so leave it off where
    /// users call.
    pub explain_plan: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8980)),
            insecure_identity: false,
            explain: false,
            request_timeout_ms: 10_000,
            // Below the 1,024 open files that a process may have where nobody says otherwise.
            connections_max: 900,
            shutdown_timeout_ms: 10_000,
        }
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self { directory: PathBuf::from("ragward-data") }
    }
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self {
            mode: ReplicaMode::default(),
            poll_interval_ms: 500,
            staleness_max_ms: 2_000,
            overlap_ms: 5_000,
            sweep_interval_ms: 60_000,
            types_max: 1_000,
            verified_share: 0.01,
            verified_checks_per_second_max: 20,
        }
    }
}

impl Default for OpenFgaConfig {
    fn default() -> Self {
        Self {
            address: "http://127.0.0.1:8081".to_owned(),
            store_name: "ragward".to_owned(),
            store_id: String::new(),
            authorization_model_id: String::new(),
            api_token_file: PathBuf::new(),
            checks_per_call: 50,
            timeout_ms: 3_000,
            list_results_max: 1_000,
            list_deadline_ms: 3_000,
            cache_age_max_ms: 10_000,
        }
    }
}

impl Default for ChecksConfig {
    fn default() -> Self {
        Self {
            cache_ttl_ms: 10_000,
            cache_bytes_max: 64 * 1024 * 1024,
            changelog_poll_ms: 500,
            changelog_age_max_ms: 2_000,
            calls_in_flight_max: 32,
            checks_waiting_max: 20_000,
        }
    }
}

impl Default for RetrievalConfig {
    fn default() -> Self {
        Self {
            relation: "can_read".to_owned(),
            top_k_max: 100,
            candidates_max: 10_000,
            guards_checked_max: 200_000,
            page_token_key_file: PathBuf::new(),
            page_token_lifetime_ms: 600_000,
            explain_plan: false,
        }
    }
}

/// What the command line sets above everything else.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `data.directory`.
    pub data: Option<PathBuf>,
    /// `server.listen`.
    pub listen: Option<SocketAddr>,
    /// `server.insecure_identity`.
    pub insecure_identity: bool,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key that does not exist.
    #[error("unknown configuration key `{key}`{}", .suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownKey {
        /// Its path.
        key: String,
        /// The nearest key that exists.
        suggestion: Option<String>,
    },
    /// A value that does not fit its key, or a file that is not TOML.
    #[error("{0}")]
    Invalid(String),
    /// A secret's file cannot be read.
    #[error("cannot read `{path}`: {detail}")]
    Secret {
        /// The file.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
}

impl Config {
    /// Reads the layers.
    ///
    /// # Errors
    /// On an unknown key, a wrong value, or a file that cannot be read.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for (variable, did_you_mean) in layers::unknown_variables(names) {
            let did_you_mean = did_you_mean.as_deref();
            tracing::warn!(
                variable,
                did_you_mean,
                "this environment variable is no setting; `RAGWARD__SECTION__KEY` is one"
            );
        }
        Self::load_from(file, std::env::vars_os(), overrides)
    }

    fn load_from(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let mut loaded = layers::read(file, environment)?;
        if let Some(directory) = &overrides.data {
            loaded.data.directory.clone_from(directory);
        }
        if let Some(listen) = overrides.listen {
            loaded.server.listen = listen;
        }
        loaded.server.insecure_identity |= overrides.insecure_identity;
        loaded.check()?;
        Ok(loaded)
    }

    /// The JSON Schema of the file.
    #[must_use]
    pub fn schema() -> Value {
        schemars::schema_for!(Config).to_value()
    }

    /// The values that have a type but still make no sense.
    fn check(&self) -> Result<(), ConfigError> {
        let positive = [
            ("server.request_timeout_ms", self.server.request_timeout_ms),
            ("server.connections_max", self.server.connections_max as u64),
            ("server.shutdown_timeout_ms", self.server.shutdown_timeout_ms),
            ("authorizer.openfga.checks_per_call", self.authorizer.openfga.checks_per_call as u64),
            ("authorizer.openfga.timeout_ms", self.authorizer.openfga.timeout_ms),
            ("authorizer.openfga.list_results_max", self.authorizer.openfga.list_results_max as u64),
            ("authorizer.openfga.list_deadline_ms", self.authorizer.openfga.list_deadline_ms),
            ("authorizer.checks.calls_in_flight_max", u64::from(self.authorizer.checks.calls_in_flight_max)),
            ("authorizer.replica.poll_interval_ms", self.authorizer.replica.poll_interval_ms),
            ("authorizer.replica.sweep_interval_ms", self.authorizer.replica.sweep_interval_ms),
            ("authorizer.replica.types_max", self.authorizer.replica.types_max as u64),
            ("vector_store.qdrant.timeout_ms", self.vector_store.qdrant.timeout_ms),
            ("vector_store.qdrant.guards_max", self.vector_store.qdrant.guards_max as u64),
            ("vector_store.qdrant.guards_per_filter_max", self.vector_store.qdrant.guards_per_filter_max as u64),
            ("retrieval.top_k_max", u64::from(self.retrieval.top_k_max)),
            ("retrieval.candidates_max", self.retrieval.candidates_max as u64),
            ("retrieval.guards_checked_max", self.retrieval.guards_checked_max as u64),
            ("retrieval.page_token_lifetime_ms", self.retrieval.page_token_lifetime_ms),
            ("audit.fsync_interval_ms", self.audit.fsync_interval_ms),
            ("audit.segment_bytes_max", self.audit.segment_bytes_max),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Invalid(format!("`{key}` must be at least 1")));
        }
        if self.retrieval.candidates_max < self.retrieval.top_k_max as usize {
            let rule = "`retrieval.candidates_max` must be at least `retrieval.top_k_max`";
            return Err(ConfigError::Invalid(rule.to_owned()));
        }
        self.telemetry.metrics_address()?;
        self.authorizer.check()
    }
}

impl AuthorizerConfig {
    /// Settings that contradict each other.
    fn check(&self) -> Result<(), ConfigError> {
        let Self { checks, openfga, replica, .. } = self;
        let (remembers, polls) = (checks.cache_ttl_ms > 0, checks.changelog_poll_ms > 0);
        let follows = replica.mode != ReplicaMode::Off;
        let rules = [
            (
                remembers && checks.cache_bytes_max == 0,
                "`authorizer.checks.cache_bytes_max` must be at least 1 unless `authorizer.checks.cache_ttl_ms` is 0",
            ),
            (
                remembers && polls && checks.changelog_age_max_ms <= checks.changelog_poll_ms,
                "`authorizer.checks.changelog_age_max_ms` must be more than `authorizer.checks.changelog_poll_ms`: \
                 otherwise nothing is ever recalled",
            ),
            (
                remembers && polls && checks.cache_ttl_ms < checks.changelog_poll_ms,
                "`authorizer.checks.cache_ttl_ms` must be at least `authorizer.checks.changelog_poll_ms`: otherwise \
                 decisions are forgotten before the changelog is read",
            ),
            (
                remembers && polls && follows && checks.changelog_age_max_ms <= replica.poll_interval_ms,
                "`authorizer.checks.changelog_age_max_ms` must be more than `authorizer.replica.poll_interval_ms`, by which \
                 the changelog is read: otherwise nothing is ever recalled",
            ),
            (
                follows && replica.staleness_max_ms <= replica.poll_interval_ms,
                "`authorizer.replica.staleness_max_ms` must be more than `authorizer.replica.poll_interval_ms`: otherwise \
                 the replica is never fresh",
            ),
            (!(0.0..=1.0).contains(&replica.verified_share), "`authorizer.replica.verified_share` must be from 0 to 1"),
            (
                checks.checks_waiting_max / 4 < openfga.checks_per_call.max(50),
                "`authorizer.checks.checks_waiting_max` must be at least 200 and at least four times \
                 `authorizer.openfga.checks_per_call`: one user gets a quarter of it",
            ),
        ];
        match rules.iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Err(ConfigError::Invalid((*rule).to_owned())),
            None => Ok(()),
        }
    }
}

/// An address to listen on. A name may stand for several, so none is looked up.
///
/// # Errors
/// With a sentence that says what is needed.
pub fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_syntax| format!("`{text}` must be an IP address and a port, such as `127.0.0.1:8980`"))
}

fn deserialize_socket_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    socket_address(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// A secret from its file, without the line's end. `None` for an empty path.
///
/// # Errors
/// When the file cannot be read.
pub fn read_secret(path: &Path) -> Result<Option<String>, ConfigError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let secret = std::fs::read_to_string(path)
        .map_err(|e| ConfigError::Secret { path: path.to_owned(), detail: e.to_string() })?;
    Ok(Some(secret.trim_end().to_owned()))
}

#[cfg(test)]
mod tests;
