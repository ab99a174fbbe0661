//! The section `[server.mcp]`: the door for agents.

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::{host_names, is_loopback, is_origin};

/// The path of the door.
const PATH: &str = "/mcp";

/// The door for MCP, by which agents search and read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct McpConfig {
    /// The URL of the door as clients know it, such as `https://rag.example.com/mcp`. It is the audience of their access tokens,
    /// and ends in `/mcp`. It needs `https`, except on `localhost` and `127.0.0.1`.
    #[serde(deserialize_with = "door_url")]
    pub url: String,
    /// The collection that a search without a collection searches. Some clients name none.
    #[serde(default)]
    pub collection: Option<String>,
    /// The key of the metadata whose value becomes the `url` of a result, if it is an `http` or `https` URL of a host in
    /// `url_hosts`. Any other chunk has a URL of Ragward's own, `ragward://`.
    #[serde(default)]
    pub url_key: Option<String>,
    /// The hosts to which the URLs of results may lead, without ports: at any port, and without the hosts below them.
    #[serde(default, deserialize_with = "host_names")]
    pub url_hosts: Vec<String>,
    /// What `search` compares a query by, in collections that have a model (`embedding`). Elsewhere it compares words.
    #[serde(default)]
    pub search_by: McpSearchBy,
    /// Offer the tool `explain` to tokens with the scope `ragward:explain`: it says why the user of the token may see a chunk or
    /// not, and so tells of hidden things. Agents that act for a user cannot call it.
    #[serde(default)]
    pub explain: bool,
}

/// What a search of an agent is compared by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum McpSearchBy {
    /// The words of the query. They stay on this machine, unless the collection has a model in `rerank`.
    #[default]
    Words,
    /// The meaning of the query. Its words go to the model.
    Meaning,
    /// Both. The words go to the model.
    Both,
}

impl McpConfig {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// When one of the two settings about URLs has no effect, because the other one is missing.
    pub fn check(&self) -> Result<(), String> {
        match (&self.url_key, self.url_hosts.is_empty()) {
            (Some(_), false) | (None, true) => Ok(()),
            (Some(_), true) => {
                Err("`server.mcp.url_key` needs `server.mcp.url_hosts`, the hosts to which URLs may lead".to_owned())
            }
            (None, false) => {
                Err("`server.mcp.url_hosts` needs `server.mcp.url_key`, the metadata that holds the URLs".to_owned())
            }
        }
    }
}

fn door_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let url = String::deserialize(deserializer)?;
    if is_door(&url) {
        return Ok(url);
    }
    Err(D::Error::custom(format!(
        "`{url}` is no URL of the door for MCP; write it like `https://rag.example.com/mcp`, and `http` for `localhost` alone"
    )))
}

fn is_door(url: &str) -> bool {
    let Some(origin) = url.strip_suffix(PATH).filter(|origin| is_origin(origin)) else { return false };
    origin.starts_with("https://") || is_loopback(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_results_need_both_settings() {
        let rows = [
            ("none", "", true),
            ("both", "url_key = 'url'\nurl_hosts = ['wiki.example']", true),
            ("no hosts", "url_key = 'url'", false),
            ("no key", "url_hosts = ['wiki.example']", false),
            ("a host with a port", "url_key = 'url'\nurl_hosts = ['wiki.example:8443']", false),
            ("a URL in place of a host", "url_key = 'url'\nurl_hosts = ['https://wiki.example']", false),
            ("a star", "url_key = 'url'\nurl_hosts = ['*.wiki.example']", false),
            ("capitals", "url_key = 'url'\nurl_hosts = ['Wiki.example']", false),
        ];
        for (row, settings, expected) in rows {
            let read = toml::from_str::<McpConfig>(&format!("url = 'https://rag.example/mcp'\n{settings}"));
            assert_eq!(read.is_ok_and(|config| config.check().is_ok()), expected, "{row}");
        }
    }

    #[test]
    fn the_door_has_a_url_of_its_own() {
        let rows = [
            ("a URL", "https://rag.example/mcp", true),
            ("a port", "https://rag.example:8980/mcp", true),
            ("loopback", "http://127.0.0.1:8980/mcp", true),
            ("localhost", "http://localhost/mcp", true),
            ("no TLS", "http://rag.example/mcp", false),
            ("a name that begins like localhost", "http://localhost.attacker.example/mcp", false),
            ("another path", "https://rag.example/agents", false),
            ("a longer path", "https://rag.example/a/mcp", false),
            ("a slash at the end", "https://rag.example/mcp/", false),
            ("a query", "https://rag.example/?/mcp", false),
            ("a user before the name", "https://a@rag.example/mcp", false),
            ("no host", "https:///mcp", false),
            ("no URL", "/mcp", false),
            ("nothing", "", false),
        ];
        for (row, url, expected) in rows {
            assert_eq!(is_door(url), expected, "{row}");
        }
    }
}
