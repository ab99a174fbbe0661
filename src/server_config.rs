//! The section `[server]`. It stands apart from `server` because a library without that feature reads the same file.

mod mcp;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

pub use self::mcp::{McpConfig, McpSearchBy};
pub use self::tls::{TlsConfig, TlsFiles};
use crate::settings::{PositiveDuration, at_least_one, listen_address};

/// The gRPC server that callers reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// The IP address and port to listen on. Others can reach any address that is not loopback, so it needs `tls`.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// Believe the user that a request names, without a token. Use it to try Ragward out, or behind a caller that has
    /// verified its users.
    pub insecure_identity: bool,
    /// Serve `Explain` without tokens (with `insecure_identity`). It tells its caller about hidden chunks. With tokens,
    /// `Explain` needs the scope `ragward:explain` instead.
    pub explain: bool,
    /// The longest that one request may take. A caller's own, shorter deadline still counts.
    #[serde(with = "PositiveDuration")]
    pub request_timeout: Duration,
    /// The most connections at a time; more wait until one ends. Keep it below the system's limit of open files.
    #[serde(deserialize_with = "at_least_one")]
    pub connections_max: usize,
    /// The names under which HTTP clients may call the server (the header `Host`), without ports. A request under another
    /// name is refused. `localhost` and IP addresses need no entry, but a server that listens on loopback takes only
    /// addresses of loopback.
    #[serde(deserialize_with = "host_names")]
    pub hosts: Vec<String>,
    /// The origins of web pages that may call from a browser (CORS), such as `https://app.example.com`. They cannot be
    /// combined with `insecure_identity`.
    #[serde(deserialize_with = "origins")]
    pub cors_origins: Vec<String>,
    /// The URL of the server as its clients know it, such as `https://rag.example.com`, without the paths of calls. It needs
    /// `https`, except on `localhost` and `127.0.0.1`. HTTP clients may call the server by its host. When unset, tokens that are
    /// bound to a key (DPoP) are refused, except at the door for MCP: their proofs name the URL of each request.
    #[serde(deserialize_with = "public_url")]
    pub public_url: Option<String>,
    /// The client of `ragward login` at the issuers. The server shows it to everybody, so it must be a public client, which has
    /// no secret.
    pub login_client_id: Option<String>,
    /// The door for MCP at `/mcp`, by which agents search and read. When unset, it is shut. It needs access tokens.
    pub mcp: Option<McpConfig>,
    /// How long running requests may take to end after the server was told to stop.
    #[serde(with = "PositiveDuration")]
    pub shutdown_timeout: Duration,
    /// TLS on the port: a table of files, or `"elsewhere"` if only a proxy with TLS can reach the port. When unset, the server
    /// and its metrics listen on loopback alone.
    pub tls: Option<TlsConfig>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8980)),
            insecure_identity: false,
            explain: false,
            request_timeout: Duration::from_secs(10),
            // Below the 1,024 open files that a process may have by default on most systems.
            connections_max: 900,
            hosts: Vec::new(),
            cors_origins: Vec::new(),
            public_url: None,
            login_client_id: None,
            mcp: None,
            shutdown_timeout: Duration::from_secs(10),
            tls: None,
        }
    }
}

fn host_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    match names.iter().find(|name| !is_host_name(name)) {
        Some(name) => {
            Err(D::Error::custom(format!("`{name}` is no host name; write it in small letters without a port")))
        }
        None => Ok(names),
    }
}

fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let origins = Vec::<String>::deserialize(deserializer)?;
    match origins.iter().find(|origin| !is_origin(origin)) {
        Some(origin) => Err(D::Error::custom(format!(
            "`{origin}` is no origin; write it as browsers send it, such as `https://app.example.com`, without `*` or a path"
        ))),
        None => Ok(origins),
    }
}

fn public_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let url = String::deserialize(deserializer)?;
    if is_public_url(&url) {
        return Ok(Some(url));
    }
    Err(D::Error::custom(format!(
        "`{url}` is no URL of a server; write it like `https://rag.example.com` or `https://example.com/rag`, without a slash \
         at the end, and `http` for `localhost` alone"
    )))
}

/// Returns whether a text is a URL in front of paths: an origin, with segments of a path after it if a proxy takes them away.
fn is_public_url(url: &str) -> bool {
    let after_scheme = url.find("://").map_or(0, |at| at + "://".len());
    let path_at = url.get(after_scheme..).and_then(|rest| rest.find('/')).map(|at| after_scheme + at);
    let (origin, path) = url.split_at_checked(path_at.unwrap_or(url.len())).unwrap_or((url, ""));
    let is_segment = |segment: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ['-', '.', '_', '~'].contains(&c);
        !segment.is_empty() && segment != "." && segment != ".." && segment.chars().all(is_plain)
    };
    let is_path = path.is_empty() || path.split('/').skip(1).all(is_segment);
    is_origin(origin) && is_path && (origin.starts_with("https://") || is_loopback(origin))
}

/// Returns whether an origin is on this machine, where `http` needs no TLS.
fn is_loopback(origin: &str) -> bool {
    let Some(authority) = origin.strip_prefix("http://") else { return false };
    let host = authority.rsplit_once(':').map_or(authority, |(host, _port)| host);
    ["localhost", "127.0.0.1"].contains(&host)
}

/// Returns whether a text is a host name as a browser sends it.
fn is_host_name(text: &str) -> bool {
    let is_part_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ['-', '.', '_'].contains(&c);
    !text.is_empty() && text.chars().all(is_part_of_name) && !text.ends_with('.')
}

/// Returns whether a text is an origin (RFC 6454, section 6.2) that can name one site.
fn is_origin(text: &str) -> bool {
    let Some(authority) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else { return false };
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "1"));
    is_host_name(host) && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_origins_name_one_site() {
        let rows = [
            ("a name", "rag.example", true, false),
            ("an origin", "https://app.example", false, true),
            ("an origin with a port", "http://localhost:3000", false, true),
            ("a star", "*", false, false),
            ("a star in an origin", "https://*.example", false, false),
            ("null", "null", true, false),
            ("a path", "https://app.example/", false, false),
            ("a name with a port", "rag.example:8980", false, false),
            ("capitals", "https://App.example", false, false),
            ("another scheme", "file://app", false, false),
            ("nothing", "", false, false),
        ];
        for (row, text, is_name, is_site) in rows {
            assert_eq!((is_host_name(text), is_origin(text)), (is_name, is_site), "{row}");
        }
    }

    #[test]
    fn a_public_url_stands_in_front_of_paths() {
        let rows = [
            ("an origin", "https://rag.example", true),
            ("a port", "https://rag.example:8980", true),
            ("a path in front", "https://example.com/rag", true),
            ("two segments", "https://example.com/apps/rag", true),
            ("loopback", "http://127.0.0.1:8980", true),
            ("localhost", "http://localhost", true),
            ("no TLS", "http://rag.example", false),
            ("a name that begins like localhost", "http://localhost.attacker.example", false),
            ("a slash at the end", "https://rag.example/", false),
            ("a slash after a path", "https://example.com/rag/", false),
            ("an empty segment", "https://example.com//rag", false),
            ("a way up", "https://example.com/../rag", false),
            ("an escape", "https://example.com/a%2Fb", false),
            ("a query", "https://rag.example?a=b", false),
            ("a query after a path", "https://rag.example/a?a=b", false),
            ("a fragment", "https://rag.example#a", false),
            ("a user", "https://a@rag.example", false),
            ("capitals in the host", "https://RAG.example", false),
            ("no host", "https://", false),
            ("no scheme", "rag.example", false),
            ("another scheme", "ftp://rag.example", false),
            ("nothing", "", false),
        ];
        for (row, url, expected) in rows {
            assert_eq!(is_public_url(url), expected, "{row}");
        }
    }
}
