//! How Ragward itself gets access tokens for a server that it calls.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretFile;

/// A client of an authorization server, which gets access tokens of its own (OAuth 2.0 client credentials, RFC 6749, section 4.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCredentials {
    /// The token endpoint of the authorization server. It needs `https`, except on this machine.
    pub token_url: String,
    /// The name of the client.
    pub client_id: String,
    /// A file with the client's secret, unless the client has a private key. It is read for each token, so it may change at any
    /// time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<SecretFile>,
    /// Where the client's secret stands in a request for a token.
    #[serde(default)]
    pub secret_in: SecretPlace,
    /// A PEM file with the client's private key (PKCS#8, of RSA, P-256, P-384 or Ed25519), with which it signs its requests for
    /// tokens (`private_key_jwt`). It is read for each token, so it may change at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key_file: Option<SecretFile>,
    /// The id under which the authorization server knows the private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
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

/// Where the secret of a client stands in its request for a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretPlace {
    /// In the body (`client_secret_post`).
    #[default]
    Body,
    /// In the header `authorization` (`client_secret_basic`).
    Header,
}

impl ClientCredentials {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// When the client has no credential or two, or a setting has no effect. The text begins with the name of a setting of this
    /// table.
    pub fn check(&self) -> Result<(), &'static str> {
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
        rules.into_iter().find(|(is_broken, _)| *is_broken).map_or(Ok(()), |(_, rule)| Err(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_one_credential() {
        let rows = [
            ("a secret", "client_secret_file = '/s'", Ok(())),
            ("a secret in the header", "client_secret_file = '/s'\nsecret_in = 'header'", Ok(())),
            ("a key", "private_key_file = '/k'", Ok(())),
            ("a key with an id", "private_key_file = '/k'\nkey_id = 'mine'", Ok(())),
            ("neither", "", Err("client_secret_file`")),
            ("both", "client_secret_file = '/s'\nprivate_key_file = '/k'", Err("client_secret_file`")),
            ("the id of no key", "client_secret_file = '/s'\nkey_id = 'mine'", Err("key_id`")),
            ("a key in the header", "private_key_file = '/k'\nsecret_in = 'header'", Err("secret_in`")),
        ];
        for (row, settings, expected) in rows {
            let text = format!("token_url = 'https://login.example/token'\nclient_id = 'ragward'\n{settings}");
            let credentials: ClientCredentials = toml::from_str(&text).expect(row);
            let found = credentials.check();
            let is_expected = match (found, expected) {
                (Ok(()), Ok(())) => true,
                (Err(found), Err(beginning)) => found.starts_with(beginning),
                (Ok(()), Err(_)) | (Err(_), Ok(())) => false,
            };
            assert!(is_expected, "{row}: {found:?}");
        }
    }
}
