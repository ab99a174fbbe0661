//! The configuration: defaults < TOML file < environment (`RAGWARD__SECTION__KEY`) < command-line flags. This is the
//! only module that reads the environment, except for `RAGWARD_CONFIG` and `RUST_LOG`, which `cli` takes before there
//! is a configuration. The proxy of issuers may come from `HTTPS_PROXY`.
//!
//! Each module describes its own section. This module has the root, which puts the sections together, and the layers.

mod called_server;
mod layers;
#[cfg(feature = "server")]
mod proxy;
mod state_directory;
mod token;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::called_server::CalledServer;
pub use self::state_directory::state_directory;
pub use self::token::access_token;
use crate::audit::AuditConfig;
pub use crate::authz::{AuthorizerConfig, AuthorizerKind};
use crate::identity::config::{BackchannelConfig, IdentityConfig};
use crate::inference::{self, EmbeddingConfig, RerankConfig};
use crate::ingest::IngestConfig;
use crate::retrieval::RetrievalConfig;
use crate::server_config::{McpConfig, ServerConfig};
use crate::settings::SecretError;
use crate::sources::{self, SourceConfig};
use crate::telemetry::TelemetryConfig;
use crate::vector_store::{CollectionLanguages, QdrantConfig};

/// Every setting of an operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The gRPC server that callers reach.
    pub server: ServerConfig,
    /// The data directory of the embedded engines.
    pub data: DataConfig,
    /// The authorizer, which decides what a user may see.
    pub authorizer: AuthorizerConfig,
    /// The vector store, which holds and searches the chunks.
    pub vector_store: VectorStoreConfig,
    /// How texts are cut into chunks.
    pub ingest: IngestConfig,
    /// The limits of retrieval.
    pub retrieval: RetrievalConfig,
    /// The callers that are accepted, and how they prove who they are.
    pub identity: IdentityConfig,
    /// The approvals that Ragward itself asks people for. When unset, clients ask for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<BackchannelConfig>,
    /// The systems that are asked, as the user, before a chunk leaves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceConfig>,
    /// The models that make vectors, for some collections.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub embedding: Vec<EmbeddingConfig>,
    /// The models that order the chunks of answers, for some collections.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rerank: Vec<RerankConfig>,
    /// The audit log, which records who was given what.
    pub audit: AuditConfig,
    /// The destinations of metrics and spans.
    pub telemetry: TelemetryConfig,
}

/// The data directory of the embedded engines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// The directory. It is created if it does not exist. Only one process at a time can use it.
    pub directory: PathBuf,
}

/// The vector store, which holds and searches the chunks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VectorStoreConfig {
    /// The embedded engine, or a Qdrant server.
    pub kind: VectorStoreKind,
    /// The languages of a collection's texts, by codes such as `de` and `pt`. When unset, each chunk is taken for the language
    /// that its words show. Name them if many texts are short, so that none is taken for another language. After a change, the
    /// embedded engine indexes the texts of the collection anew at the next start, and a collection in Qdrant takes text queries
    /// again when its documents were ingested again. A chunk may state its own language in its metadata under `language`.
    #[serde(skip_serializing_if = "CollectionLanguages::is_empty")]
    pub languages: CollectionLanguages,
    /// The Qdrant server, when `kind` is `qdrant`.
    pub qdrant: QdrantConfig,
}

/// The vector stores to choose from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VectorStoreKind {
    /// Ragward's own exact engine over the chunks in the data directory.
    #[default]
    Embedded,
    /// A Qdrant server over gRPC.
    Qdrant,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self { directory: PathBuf::from("ragward-data") }
    }
}

/// The settings that command-line flags change. Flags win over every other layer.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The value for `data.directory`, if the flag is given.
    pub data: Option<PathBuf>,
    /// The value for `server.listen`, if the flag is given.
    pub listen: Option<SocketAddr>,
    /// Whether the flag turns `server.insecure_identity` on.
    pub insecure_identity: bool,
}

/// The reason why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key does not exist.
    #[error("unknown configuration key `{key}`{}", .suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownKey {
        /// The path of the key.
        key: String,
        /// The nearest key that exists.
        suggestion: Option<String>,
    },
    /// A key was renamed when its value came to include the unit.
    #[error("`{old}` is now `{new}`, {form}")]
    Renamed {
        /// The former key or variable.
        old: String,
        /// The key or variable of today.
        new: String,
        /// The form of its value, with an example.
        form: &'static str,
    },
    /// A value does not fit its key, or the file is not TOML.
    #[error("{0}")]
    Invalid(String),
    /// The file of a secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl Config {
    /// Reads the layers and checks the outcome.
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
                "this environment variable is not a setting; settings have the form `RAGWARD__SECTION__KEY`"
            );
        }
        Self::load_from(file, std::env::vars_os(), overrides)
    }

    fn load_from(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let variables: Vec<(OsString, OsString)> = environment.collect();
        let mut loaded = layers::read(file, variables.iter().cloned())?;
        // Without a server, nothing calls issuers.
        #[cfg(feature = "server")]
        proxy::fill(&mut loaded.identity.issuers, &variables)?;
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

    /// Returns the JSON Schema of the configuration file.
    #[must_use]
    pub fn schema() -> Value {
        schemars::schema_for!(Config).to_value()
    }

    /// Checks the settings against each other. A single value is checked where it is read.
    fn check(&self) -> Result<(), ConfigError> {
        self.ingest.check().map_err(ConfigError::Invalid)?;
        self.retrieval.check().map_err(ConfigError::Invalid)?;
        sources::check(&self.sources).map_err(ConfigError::Invalid)?;
        inference::check(&self.embedding, &self.rerank).map_err(ConfigError::Invalid)?;
        self.server.mcp.as_ref().map_or(Ok(()), McpConfig::check).map_err(ConfigError::Invalid)?;
        let approval = self.approval.as_ref().map_or(Ok(()), |approval| approval.client.check("approval"));
        approval.map_err(ConfigError::Invalid)?;
        self.vector_store.qdrant.check().map_err(ConfigError::Invalid)?;
        self.authorizer.check().map_err(ConfigError::Invalid)
    }
}

#[cfg(test)]
mod tests;
