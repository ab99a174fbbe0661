//! The proxy that the environment names for calls with TLS (`HTTPS_PROXY`), and the hosts that are called without it
//! (`NO_PROXY`), as other programs read them.
//!
//! INVARIANT (end to end): only calls with TLS go through the proxy, which can neither read nor change them. So whoever sets the
//! variable learns the names of the issuers and nothing else.

use std::ffi::OsString;

use url::{Host, Url};

use super::ConfigError;
use crate::identity::config::IssuerConfig;

/// The variables with the proxy. The first one that is set counts.
const PROXY: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
/// The variables with the hosts that are called without it.
const EXEMPT: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// A variable that is set.
struct Variable<'v> {
    name: &'static str,
    text: &'v str,
}

/// Gives the issuers that name no proxy the one of the environment.
///
/// # Errors
/// If an issuer would be called through a proxy that cannot be used.
pub(super) fn fill(issuers: &mut [IssuerConfig], variables: &[(OsString, OsString)]) -> Result<(), ConfigError> {
    let Some(proxy) = first(variables, PROXY)? else { return Ok(()) };
    let exempt = first(variables, EXEMPT)?.map_or("", |exempt| exempt.text);
    for issuer in issuers {
        if issuer.proxy_url.is_none() && is_called_through(issuer, exempt) {
            issuer.proxy_url = Some(address(&proxy)?);
        }
    }
    Ok(())
}

/// Returns the first of these variables that is set. An empty one counts as unset.
fn first<'v>(
    variables: &'v [(OsString, OsString)],
    names: [&'static str; 2],
) -> Result<Option<Variable<'v>>, ConfigError> {
    for name in names {
        let found = variables.iter().find(|(known, value)| known == name && !value.is_empty());
        if let Some((_, value)) = found {
            let text = value.to_str().ok_or_else(|| ConfigError::Invalid(format!("`{name}` is not UTF-8")))?;
            return Ok(Some(Variable { name, text }));
        }
    }
    Ok(None)
}

/// Returns the address of a proxy in the form of `proxy_url`. The error does not repeat the text, which may hold a password.
fn address(Variable { name, text }: &Variable<'_>) -> Result<String, ConfigError> {
    let address = if text.contains("://") { (*text).to_owned() } else { format!("http://{text}") };
    let is_plain = |url: &Url| {
        let is_bare = url.username().is_empty() && url.password().is_none() && url.path() == "/";
        url.scheme() == "http" && is_bare && url.query().is_none() && url.fragment().is_none()
    };
    match Url::parse(&address) {
        Ok(url) if is_plain(&url) => Ok(address),
        Ok(_) | Err(_) => Err(ConfigError::Invalid(format!(
            "`{name}` must have the form `http://host:port`, without user and password, to be the proxy of issuers; set \
             `identity.issuers.proxy_url`, or list their hosts in `NO_PROXY`"
        ))),
    }
}

/// Returns whether the documents of an issuer are read through the proxy. One client reads all of them, so none of their
/// addresses may be exempt.
fn is_called_through(issuer: &IssuerConfig, exempt: &str) -> bool {
    let mut addresses = [Some(&issuer.issuer), issuer.jwks_url.as_ref()].into_iter().flatten();
    // A malformed address is refused later, with a text of its own.
    addresses.all(|address| Url::parse(address).is_ok_and(|url| url.scheme() == "https" && !is_exempt(&url, exempt)))
}

/// Returns whether a URL is called without the proxy.
fn is_exempt(url: &Url, exempt: &str) -> bool {
    let (host, is_near, is_name) = match url.host() {
        Some(Host::Domain(name)) => (name.to_owned(), name == "localhost", true),
        Some(Host::Ipv4(address)) => (address.to_string(), address.is_loopback(), false),
        Some(Host::Ipv6(address)) => (address.to_string(), address.is_loopback(), false),
        None => return true,
    };
    let port = url.port_or_known_default();
    let mut entries = exempt.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let matches = |entry: &str| {
        let (listed, of_port) = split_port(entry);
        let listed = listed.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        let is_below = is_name && host.strip_suffix(&listed).is_some_and(|before| before.ends_with('.'));
        entry == "*" || (host == listed || is_below && !listed.is_empty()) && of_port.is_none_or(|of| port == Some(of))
    };
    is_near || entries.any(matches)
}

/// Splits an entry of the list into a host and a port, if it names one.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some(bracketed) = entry.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').unwrap_or((bracketed, ""));
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match entry.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, port.parse().ok()),
        // The colons are those of an address of IPv6.
        Some(_) | None => (entry, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://login.example";
    const PROXIED: (&str, &str) = ("HTTPS_PROXY", "http://egress.example:8080");
    const OTHER: (&str, &str) = ("https_proxy", "http://other.example:1");
    const THROUGH: Option<&str> = Some("http://egress.example:8080");
    /// The name of a row, the issuer, its `jwks_url`, the variables, and the proxy; an error is a part of its text.
    type Row = (&'static str, &'static str, Option<&'static str>, &'static [(&'static str, &'static str)], Found);
    type Found = Result<Option<&'static str>, &'static str>;

    #[test]
    fn issuers_with_tls_are_called_through_the_proxy() {
        let rows: [Row; 26] = [
            ("no variable", ISSUER, None, &[], Ok(None)),
            ("the variable", ISSUER, None, &[PROXIED], Ok(THROUGH)),
            ("in small letters", ISSUER, None, &[("https_proxy", "http://egress.example:8080")], Ok(THROUGH)),
            ("both", ISSUER, None, &[OTHER, PROXIED], Ok(THROUGH)),
            (
                "an empty one, and the other",
                ISSUER,
                None,
                &[("HTTPS_PROXY", ""), OTHER],
                Ok(Some("http://other.example:1")),
            ),
            ("without a scheme", ISSUER, None, &[("HTTPS_PROXY", "egress.example:8080")], Ok(THROUGH)),
            (
                "the variable for calls without TLS",
                ISSUER,
                None,
                &[("HTTP_PROXY", "http://egress.example:8080")],
                Ok(None),
            ),
            ("no TLS", "http://127.0.0.1:1", None, &[PROXIED], Ok(None)),
            ("this machine", "https://localhost:8443", None, &[PROXIED], Ok(None)),
            ("this machine by address", "https://[::1]:8443", None, &[PROXIED], Ok(None)),
            ("keys without TLS", ISSUER, Some("http://127.0.0.1:1/keys"), &[PROXIED], Ok(None)),
            ("keys elsewhere", ISSUER, Some("https://keys.example/"), &[PROXIED], Ok(THROUGH)),
            ("its host", ISSUER, None, &[PROXIED, ("NO_PROXY", "a.example, login.example")], Ok(None)),
            ("its host in capitals", ISSUER, None, &[PROXIED, ("NO_PROXY", "LOGIN.example")], Ok(None)),
            ("in small letters", ISSUER, None, &[PROXIED, ("no_proxy", "login.example")], Ok(None)),
            (
                "the host of its keys",
                ISSUER,
                Some("https://keys.example/"),
                &[PROXIED, ("NO_PROXY", "keys.example")],
                Ok(None),
            ),
            ("a domain", ISSUER, None, &[PROXIED, ("NO_PROXY", ".example")], Ok(None)),
            ("a domain with a star", ISSUER, None, &[PROXIED, ("NO_PROXY", "*.example")], Ok(None)),
            ("everything", ISSUER, None, &[PROXIED, ("NO_PROXY", "*")], Ok(None)),
            ("its port", ISSUER, None, &[PROXIED, ("NO_PROXY", "login.example:443")], Ok(None)),
            ("another port", ISSUER, None, &[PROXIED, ("NO_PROXY", "login.example:8443")], Ok(THROUGH)),
            ("a name that ends alike", ISSUER, None, &[PROXIED, ("NO_PROXY", "gin.example,.,,")], Ok(THROUGH)),
            ("an address", "https://[2001:db8::1]", None, &[PROXIED, ("NO_PROXY", "[2001:db8::1]:443")], Ok(None)),
            (
                "a password",
                ISSUER,
                None,
                &[("HTTPS_PROXY", "http://a:b@proxy.example:1")],
                Err("`HTTPS_PROXY` must have"),
            ),
            ("SOCKS", ISSUER, None, &[("https_proxy", "socks5://proxy.example:1")], Err("`https_proxy` must have")),
            ("one for nobody", "http://127.0.0.1:1", None, &[("HTTPS_PROXY", "http://a:b@proxy.example:1")], Ok(None)),
        ];
        for (row, issuer, jwks_url, variables, expected) in rows {
            let jwks_url = jwks_url.map(str::to_owned);
            let mut issuers = [IssuerConfig { jwks_url, ..IssuerConfig::new(issuer) }];
            let set: Vec<_> =
                variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
            let filled = fill(&mut issuers, &set).map(|()| issuers[0].proxy_url.as_deref());
            match (filled, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{row}"),
                (Err(error), Err(expected)) => {
                    let text = error.to_string();
                    assert!(text.contains(expected) && !text.contains("a:b"), "{row}: {text}");
                }
                (found, expected) => panic!("{row}: {found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_setting_wins_over_the_variable() {
        let own = Some("http://own.example:1".to_owned());
        let mut issuers = [IssuerConfig { proxy_url: own.clone(), ..IssuerConfig::new("https://login.example") }];
        let variables = [(OsString::from("HTTPS_PROXY"), OsString::from("socks5://proxy.example:1"))];
        fill(&mut issuers, &variables).unwrap();
        assert_eq!(issuers[0].proxy_url, own);
    }
}
