//! The client with which Ragward gets access tokens for a server that it calls.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OAuthClientConfig;

/// A client of an authorization server, which gets access tokens of its own (OAuth 2.0 client credentials, RFC 6749, section 4.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCredentials {
    /// The token endpoint of the authorization server. It needs `https`, except on loopback.
    pub token_url: String,
    /// The client, with its secret or its key.
    #[serde(flatten)]
    pub client: OAuthClientConfig,
    /// The audience to ask for, if the authorization server takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// The scopes to ask for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// A PEM file with the only authorities whose certificates are accepted from the token endpoint. When unset, those that the
    /// system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}
