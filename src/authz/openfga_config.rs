//! The section `[authorizer.openfga]`.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{ClientCredentials, HumanDuration, PositiveDuration, SecretFile, ServerTls, at_least_one};

/// The most checks of one call that a server with default settings accepts.
pub(super) const CHECKS_PER_CALL_DEFAULT: usize = 50;

/// An `OpenFGA` server, and what to ask it about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OpenFgaConfig {
    /// The address of its gRPC port, `http://host:port` or `https://host:port`.
    pub address: String,
    /// A PEM file with the only authorities whose certificates are accepted from an `https://` address. When unset, those
    /// that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// The name of the store, when `store_id` is unset. Only one store may have this name.
    pub store_name: String,
    /// The id of the store.
    pub store_id: Option<String>,
    /// The id of the authorization model that decides. When unset, the store's latest model decides.
    pub authorization_model_id: Option<String>,
    /// A file with the server's pre-shared key, if it has one. It is sent to another machine only if the address is `https://`, or
    /// `tls` says that something else encrypts the way. The file is read again when it changes.
    pub api_token_file: Option<SecretFile>,
    /// The client that gets access tokens for the server, instead of a pre-shared key.
    pub client_credentials: Option<ClientCredentials>,
    /// `elsewhere` if something other than an `https://` address encrypts the way to the server, such as a service mesh.
    pub tls: Option<ServerTls>,
    /// The most checks of one call. The server takes at most 50 unless it is configured otherwise.
    #[serde(deserialize_with = "at_least_one")]
    pub checks_per_call: usize,
    /// The longest that one call may take, whatever a request's own deadline allows.
    #[serde(with = "PositiveDuration")]
    pub timeout: Duration,
    /// The server's `listObjects-max-results`. A list of this many objects may have been cut short.
    #[serde(deserialize_with = "at_least_one")]
    pub list_results_max: usize,
    /// The server's `listObjects-deadline`. A list that took this long may have been cut short.
    #[serde(with = "PositiveDuration")]
    pub list_deadline: Duration,
    /// How old an answer from the server's own caches may be: the largest of its cache TTLs, `0s` if it has no cache. A
    /// document that was written within this time is checked past those caches.
    #[serde(with = "HumanDuration")]
    pub cache_age_max: Duration,
}

/// Selects a store of an `OpenFGA` server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSelector {
    /// The store with this id.
    Id(String),
    /// The only store with this name.
    Name(String),
}

impl OpenFgaConfig {
    /// Configures a store of the server at an address; every other setting has its default.
    #[must_use]
    pub fn new(address: impl Into<String>, store: StoreSelector) -> Self {
        let config = Self { address: address.into(), ..Self::default() };
        match store {
            StoreSelector::Id(id) => Self { store_id: Some(id), ..config },
            StoreSelector::Name(name) => Self { store_name: name, ..config },
        }
    }

    /// Returns the store to ask. An id takes precedence over a name.
    #[must_use]
    pub fn store(&self) -> StoreSelector {
        match &self.store_id {
            Some(id) => StoreSelector::Id(id.clone()),
            None => StoreSelector::Name(self.store_name.clone()),
        }
    }
}

impl Default for OpenFgaConfig {
    fn default() -> Self {
        Self {
            address: "http://127.0.0.1:8081".to_owned(),
            ca_file: None,
            // The embedded default store has this name as well, so a change of `authorizer.kind` asks the store of the same name.
            store_name: "ragward".to_owned(),
            store_id: None,
            authorization_model_id: None,
            api_token_file: None,
            client_credentials: None,
            tls: None,
            checks_per_call: CHECKS_PER_CALL_DEFAULT,
            timeout: Duration::from_secs(3),
            list_results_max: 1_000,
            list_deadline: Duration::from_secs(3),
            cache_age_max: Duration::from_secs(10),
        }
    }
}
