//! The sections `[[sources]]`: which systems are asked before a chunk leaves, and how.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::language::TypeName;
use crate::settings::{HumanDuration, OAuthClientConfig, PositiveDuration, at_least_one};

/// The longest time for which an answer may be remembered. A right that the source takes away counts for that long.
const REMEMBER_MAX: Duration = Duration::from_secs(30);

/// A system that is asked, as the user, before a chunk of a guard type is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// A name for logs and records.
    pub name: String,
    /// The `OpenFGA` type of the guards whose chunks need the source's yes.
    #[schemars(with = "String")]
    pub guard_type: TypeName,
    /// The URL of a document, with one field as a whole segment of its path: `{id}` (the id of the guard) or
    /// `{metadata.KEY}`. It needs `https`, except on loopback.
    pub url: String,
    /// The way to ask for a document.
    #[serde(default)]
    pub method: SourceMethod,
    /// The place in the answer (a JSON pointer such as `/id`) that must equal the field of the URL. Set it if the source answers
    /// with a login page. It needs `GET`, and `text = "source"` needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// Where the text of a released chunk comes from.
    #[serde(default)]
    pub text: SourceTextFrom,
    /// The place of the text in the answer (a JSON pointer), for `text = "source"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_at: Option<String>,
    /// The place of the title in the answer (a JSON pointer), for `text = "source"`. When unset, the chunk has no title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title_at: Option<String>,
    /// The longest time that one answer of the source may take.
    #[serde(default = "timeout", with = "PositiveDuration")]
    pub timeout: Duration,
    /// The most documents that the source is asked about at a time. More wait.
    #[serde(default = "concurrency", deserialize_with = "at_least_one")]
    pub concurrency: u32,
    /// The time for which an answer counts for the same token, document and version, at most `30s`; `0s` for never. A right that
    /// the source takes away may still count for this long. It does not apply to `text = "source"`.
    #[serde(default = "remember", with = "HumanDuration")]
    pub remember: Duration,
    /// The private and link-local addresses that the source may have, each an address or a network such as `10.1.0.0/16`. An
    /// address that is not listed is refused at each lookup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private_addresses: Vec<String>,
    /// A PEM file with the only authorities whose certificates are accepted from the source. When unset, those that the system
    /// trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The exchange of the token of a call for a token of the source.
    pub exchange: ExchangeConfig,
}

/// The exchange of the token of a call for a token of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExchangeConfig {
    /// The kind of exchange.
    #[serde(default)]
    pub grant: ExchangeGrant,
    /// The token endpoint of the authorization server. The token of the call goes there, and nowhere else. It needs `https`,
    /// except on loopback.
    pub token_url: String,
    /// The issuers (`identity.issuers.issuer`) whose tokens are exchanged. The token of another issuer goes nowhere, and a call with
    /// it that needs this source is refused. When there are none, those of the only issuer; with several issuers, it must be set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<String>,
    /// The client, with its secret or its key.
    #[serde(flatten)]
    pub client: OAuthClientConfig,
    /// The `audience` to ask for. A token that is a JWT must name it. `token_exchange` needs it or `resource`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// The `resource` to ask for (RFC 8707). Without `audience`, a token that is a JWT must name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The scopes to ask for. When there are none, the authorization server chooses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The connection of Auth0 whose token is wanted, for `auth0_federated_connection`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// A PEM file with the only authorities whose certificates are accepted from the token endpoint. When unset, those that the
    /// system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// The way to ask for a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceMethod {
    /// Only the status is asked for.
    #[default]
    #[serde(rename = "HEAD")]
    Head,
    /// The document itself is asked for.
    #[serde(rename = "GET")]
    Get,
}

/// Where the text of a released chunk comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceTextFrom {
    /// From the vector store.
    #[default]
    Store,
    /// From the source, as the user sees it there now. A chunk then has the text of its whole document, which `url` names by
    /// `{id}`. All chunks of the document need one guard and one classification, or they are withheld.
    Source,
}

/// The kind of exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeGrant {
    /// The exchange of RFC 8693.
    #[default]
    TokenExchange,
    /// Auth0's exchange for a token of a federated connection, from its vault.
    Auth0FederatedConnection,
}

/// Checks the settings of the sections against each other.
///
/// # Errors
/// Returns a sentence that names the settings.
pub fn check(sources: &[SourceConfig]) -> Result<(), String> {
    let (mut names, mut types) = (HashSet::new(), HashSet::new());
    for source in sources {
        let SourceConfig { name, guard_type, .. } = source;
        if name.is_empty() || !names.insert(name) {
            return Err(format!("`sources.name` is `{name}`; each source needs a name of its own"));
        }
        if !types.insert(guard_type.as_str()) {
            let guard_type = guard_type.as_str();
            return Err(format!("`sources.guard_type` `{guard_type}` occurs twice; a type has one source"));
        }
        source.check().map_err(|rule| format!("source `{name}`: {rule}"))?;
    }
    Ok(())
}

/// Checks whose tokens the authorization servers get. `issuers` are the issuers whose tokens the server accepts.
///
/// # Errors
/// Returns a sentence that names the settings.
pub fn check_issuers(sources: &[SourceConfig], issuers: &[&str]) -> Result<(), String> {
    for SourceConfig { name, exchange, .. } in sources {
        if exchange.issuers.is_empty() && issuers.len() > 1 {
            return Err(format!(
                "source `{name}`: there are several `identity.issuers`, so `exchange.issuers` must name those whose tokens its \
                 authorization server gets"
            ));
        }
        if let Some(unknown) = exchange.issuers.iter().find(|issuer| !issuers.contains(&issuer.as_str())) {
            return Err(format!(
                "source `{name}`: `exchange.issuers` names `{unknown}`, which is none of `identity.issuers`"
            ));
        }
    }
    Ok(())
}

impl SourceConfig {
    fn check(&self) -> Result<(), String> {
        let pointers = [("expect", &self.expect), ("text_at", &self.text_at), ("title_at", &self.title_at)];
        for (key, pointer) in pointers {
            if pointer.as_ref().is_some_and(|pointer| !pointer.starts_with('/')) {
                return Err(format!("`{key}` must be a JSON pointer such as `/id`"));
            }
        }
        if self.expect.is_some() && self.method == SourceMethod::Head {
            return Err("`expect` looks at the answer, so it needs `method = \"GET\"`".to_owned());
        }
        match self.text {
            SourceTextFrom::Store if self.text_at.is_some() || self.title_at.is_some() => {
                return Err("`text_at` and `title_at` are for `text = \"source\"`".to_owned());
            }
            SourceTextFrom::Source if self.expect.is_none() || self.text_at.is_none() => {
                let rule = "`text = \"source\"` needs `method = \"GET\"`, `expect` and `text_at`";
                return Err(rule.to_owned());
            }
            // A writer under one guard chooses the metadata there, and must not get at texts that other guards protect.
            SourceTextFrom::Source if self.url.contains("{metadata.") => {
                let rule = "`text = \"source\"` needs `{id}` in `url`: with `{metadata.KEY}`, whoever writes a document could put the \
                            text of any other one under its guard";
                return Err(rule.to_owned());
            }
            SourceTextFrom::Store | SourceTextFrom::Source => {}
        }
        if self.remember > REMEMBER_MAX {
            return Err("`remember` is at most `30s`".to_owned());
        }
        self.exchange.check()
    }
}

impl ExchangeConfig {
    fn check(&self) -> Result<(), String> {
        self.client.check("exchange")?;
        match self.grant {
            ExchangeGrant::TokenExchange if self.connection.is_some() => {
                Err("`exchange.connection` is for `grant = \"auth0_federated_connection\"`".to_owned())
            }
            ExchangeGrant::TokenExchange if self.audience.is_none() && self.resource.is_none() => {
                Err("`exchange` needs an `audience` or a `resource`, or its tokens would be good elsewhere".to_owned())
            }
            ExchangeGrant::Auth0FederatedConnection if self.connection.is_none() => {
                Err("`grant = \"auth0_federated_connection\"` needs `exchange.connection`".to_owned())
            }
            ExchangeGrant::TokenExchange | ExchangeGrant::Auth0FederatedConnection => Ok(()),
        }
    }
}

const fn timeout() -> Duration {
    Duration::from_secs(2)
}

const fn concurrency() -> u32 {
    16
}

const fn remember() -> Duration {
    Duration::from_secs(10)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn source() -> Value {
        json!({
            "name": "wiki", "guard_type": "document", "url": "https://wiki.example/pages/{id}",
            "exchange": {
                "token_url": "https://login.example/token", "client_id": "ragward", "client_secret_file": "secret",
                "audience": "https://wiki.example",
            },
        })
    }

    fn with(changes: &[(&str, Value)]) -> Value {
        let mut source = source();
        for (pointer, value) in changes {
            let (table, key) = pointer.rsplit_once('/').unwrap();
            let table = if table.is_empty() { &mut source } else { source.pointer_mut(table).unwrap() };
            table.as_object_mut().unwrap().insert(key.to_owned(), value.clone());
        }
        source
    }

    fn refused(sources: &[Value]) -> Option<String> {
        let read: Result<Vec<SourceConfig>, _> = serde_json::from_value(json!(sources));
        read.map_err(|error| error.to_string()).and_then(|sources| check(&sources)).err()
    }

    /// The token of a partner's user must not reach the authorization server of somebody else.
    #[test]
    fn an_authorization_server_gets_the_tokens_of_named_issuers() {
        let of = |issuers: &[&str]| with(&[("/exchange/issuers", json!(issuers))]);
        let rows: [(&str, Value, &[&str], Option<&str>); 6] = [
            ("the only issuer", with(&[]), &["a"], None),
            ("the only issuer by its name", of(&["a"]), &["a"], None),
            ("one of two", of(&["a"]), &["a", "b"], None),
            ("both", of(&["b", "a"]), &["a", "b"], None),
            ("two, and none is named", with(&[]), &["a", "b"], Some("must name those")),
            ("another one", of(&["a", "c"]), &["a", "b"], Some("names `c`")),
        ];
        for (row, source, issuers, expected) in rows {
            let sources: Vec<SourceConfig> = serde_json::from_value(json!([source])).unwrap();
            let told = check_issuers(&sources, issuers).err();
            assert_eq!(told.is_some(), expected.is_some(), "{row}: {told:?}");
            assert!(told.unwrap_or_default().contains(expected.unwrap_or_default()), "{row}");
        }
    }

    #[test]
    fn settings_fit_together() {
        let get = ("/method", json!("GET"));
        let (expect, text_at) = (("/expect", json!("/id")), ("/text_at", json!("/body")));
        let from_source = ("/text", json!("source"));
        let by_metadata = ("/url", json!("https://wiki.example/pages/{metadata.page}"));
        let vault = ("/exchange/grant", json!("auth0_federated_connection"));
        let connection = ("/exchange/connection", json!("google"));
        let rows = [
            ("the least", with(&[]), None),
            ("an expectation", with(&[get.clone(), expect.clone()]), None),
            ("an expectation of HEAD", with(std::slice::from_ref(&expect)), Some("needs `method")),
            ("no pointer", with(&[get.clone(), ("/expect", json!("id"))]), Some("JSON pointer")),
            ("its text", with(&[get.clone(), expect.clone(), from_source.clone(), text_at.clone()]), None),
            (
                "its text, of whatever its metadata name",
                with(&[get.clone(), expect.clone(), from_source.clone(), text_at.clone(), by_metadata.clone()]),
                Some("needs `{id}`"),
            ),
            ("its yes, about what its metadata name", with(&[by_metadata]), None),
            ("its text from nowhere", with(&[get.clone(), expect, from_source.clone()]), Some("`text_at`")),
            ("its text of anything", with(&[get, from_source, text_at.clone()]), Some("`expect`")),
            ("a place for no text", with(&[text_at]), Some("are for `text")),
            ("remembered for long", with(&[("/remember", json!("31s"))]), Some("at most `30s`")),
            ("not remembered", with(&[("/remember", json!("0s"))]), None),
            ("nothing at a time", with(&[("/concurrency", json!(0))]), Some("at least 1")),
            ("no time", with(&[("/timeout", json!("0s"))]), Some("at least `1ms`")),
            ("any audience", with(&[("/exchange/audience", Value::Null)]), Some("an `audience` or a `resource`")),
            ("a vault", with(&[vault.clone(), connection.clone()]), None),
            ("a vault of nothing", with(&[vault]), Some("needs `exchange.connection`")),
            ("a connection without a vault", with(&[connection]), Some("is for `grant")),
            ("no name", with(&[("/name", json!(""))]), Some("a name of its own")),
            ("an unknown key", with(&[("/redirects", json!(true))]), Some("unknown field")),
            ("an unknown key of the exchange", with(&[("/exchange/redirects", json!(true))]), Some("unknown field")),
        ];
        for (row, source, expected) in rows {
            let refused = refused(&[source]);
            assert_eq!(refused.is_some(), expected.is_some(), "{row}: {refused:?}");
            assert!(refused.unwrap_or_default().contains(expected.unwrap_or_default()), "{row}");
        }
        let other = with(&[("/name", json!("drive"))]);
        assert!(refused(&[source(), other]).is_some_and(|text| text.contains("occurs twice")));
        let other = with(&[("/guard_type", json!("page"))]);
        assert!(refused(&[source(), other.clone()]).is_some_and(|text| text.contains("a name of its own")));
        let mut named = other;
        named["name"] = json!("drive");
        assert_eq!(refused(&[source(), named]), None);
    }
}
