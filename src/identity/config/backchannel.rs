//! The section `[approval]`: the approvals that Ragward itself asks people for.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{OAuthClientConfig, PositiveDuration, SecretFile};

/// The approvals that Ragward itself asks people for, at their issuer (CIBA). Its client there needs the grant
/// `urn:openid:params:grant-type:ciba` in the mode that `delivery` names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackchannelConfig {
    /// The issuer that asks people: one of `identity.issuers`. Only callers with its tokens can ask for an approval.
    pub issuer: String,
    /// The client, with its secret or its key.
    #[serde(flatten)]
    pub client: OAuthClientConfig,
    /// A file with the secret that seals approvals, at least 32 bytes, which all replicas share. When unset, each start makes a
    /// random one, and approvals that are open then are of no use any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<SecretFile>,
    /// The way in which Ragward learns that the person has answered.
    #[serde(default)]
    pub delivery: Delivery,
    /// The scopes of the token that proves the approval.
    #[serde(default = "default_scope")]
    pub scope: String,
    /// The text that the person reads before they say yes.
    #[serde(default)]
    pub binding_message: BindingMessage,
    /// Whether the person, and so the issuer, reads the query of a search, or the first ids of a fetch: at most 256 characters.
    /// They stand in the details, and in the text if `binding_message` is `"request"`.
    #[serde(default)]
    pub show_query: bool,
    /// The time in which the person can answer and the approval can be used, at most `1h`. Whole seconds count.
    #[serde(default = "default_expiry", with = "PositiveDuration")]
    pub expiry: Duration,
    /// Whether the issuer puts `authorization_details` into tokens.
    #[serde(default)]
    pub details: IssuerDetails,
    /// The one page at which all people find and answer the questions to them, if the issuer has one, such as
    /// `https://login.example.com/requests`. Clients of MCP offer to open it. It needs `https`, except on loopback. When unset,
    /// people answer on their device alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_url: Option<String>,
}

/// The way in which Ragward learns that a person has answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Ragward asks the issuer when the agent tries, but no faster than the issuer allows.
    #[default]
    Poll,
    /// The issuer also notifies `POST /ciba/notify` below `server.public_url`, which must be set. Then the
    /// agent's next try asks the issuer at once.
    Ping,
}

/// The text that a person reads before they say yes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BindingMessage {
    /// The code alone: issuers limit such texts, and the details tell the rest.
    #[default]
    Code,
    /// The code, the client and the agent, the collection, the ceiling, the most chunks and the purpose.
    Request,
}

/// Whether an issuer puts `authorization_details` into tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IssuerDetails {
    /// The issuer does, and a token without the details that were asked for proves nothing.
    #[default]
    Required,
    /// The issuer does not. Only its id of the question and the code bind the approval to the request.
    Unsupported,
}

fn default_scope() -> String {
    "openid ragward:retrieve".to_owned()
}

fn default_expiry() -> Duration {
    Duration::from_mins(5)
}
