//! The credential with which Ragward, as a client, proves to an authorization server who it is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretFile;

/// A client of an authorization server, with a secret or a private key. Its settings stand in the table of its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OAuthClientConfig {
    /// The client that Ragward is at the authorization server.
    pub client_id: String,
    /// A file with the client's secret, unless the client has a private key. It is read for each request, so it may change at any
    /// time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<SecretFile>,
    /// Where the client's secret stands in a request.
    #[serde(default)]
    pub secret_in: SecretPlace,
    /// A PEM file with the client's private key (PKCS#8, of RSA, P-256, P-384 or Ed25519), with which it signs its requests
    /// (`private_key_jwt`). It is read for each request, so it may change at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key_file: Option<SecretFile>,
    /// The id under which the authorization server knows the private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

/// Where the secret of a client stands in its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretPlace {
    /// In the body (`client_secret_post`).
    #[default]
    Body,
    /// In the header `authorization` (`client_secret_basic`).
    Header,
}

impl OAuthClientConfig {
    /// Returns a client with a secret, which stands in the body of its requests.
    #[must_use]
    pub fn with_secret(client_id: &str, file: SecretFile) -> Self {
        Self {
            client_id: client_id.to_owned(),
            client_secret_file: Some(file),
            secret_in: SecretPlace::Body,
            private_key_file: None,
            key_id: None,
        }
    }

    /// Checks the settings against each other. `table` is the table that they stand in.
    ///
    /// # Errors
    /// When the client has no credential or two, or a setting has no effect. The text names the setting.
    pub fn check(&self, table: &str) -> Result<(), String> {
        let rules = [
            (
                self.client_secret_file.is_some() == self.private_key_file.is_some(),
                "client_secret_file` or `private_key_file` has to be set, and not both",
            ),
            (
                self.key_id.is_some() && self.private_key_file.is_none(),
                "key_id` has no effect without `private_key_file`",
            ),
            (
                self.secret_in == SecretPlace::Header && self.client_secret_file.is_none(),
                "secret_in` has no effect without `client_secret_file`",
            ),
            (self.client_id.is_empty(), "client_id` is empty"),
        ];
        let broken = rules.into_iter().find(|(is_broken, _)| *is_broken);
        broken.map_or(Ok(()), |(_, rule)| Err(format!("`{table}.{rule}")))
    }
}
