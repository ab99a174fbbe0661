//! The section `[server.mcp]`: the door for agents.

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::is_origin;

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
    let Some(authority) = origin.strip_prefix("http://") else { return true };
    let host = authority.rsplit_once(':').map_or(authority, |(host, _port)| host);
    ["localhost", "127.0.0.1"].contains(&host)
}

#[cfg(test)]
mod tests {
    use super::*;

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
