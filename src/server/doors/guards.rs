//! The checks of a browser's requests, before anything of their body is read: the name by which the server was called, and the
//! page that calls.
//!
//! A page on another origin can make a browser send requests, and a name that its owner points at this machine (DNS
//! rebinding) makes that page's origin look like the server's own. Both are refused here, whatever the request asks for and
//! whoever it is from.

use std::net::IpAddr;

use tonic::codegen::http::{self, HeaderMap, HeaderValue, Method, header};

use crate::server::operations::NotServed;

/// How long a browser may remember what it was allowed to send, in seconds.
const PREFLIGHT_MAX_AGE: &str = "600";
/// The header in which a browser says whether the page behind a request is of the same site.
const FETCH_SITE: &str = "sec-fetch-site";
/// The headers that a page may send.
const ALLOWED_HEADERS: &str = "authorization, dpop, content-type, connect-protocol-version, connect-timeout-ms, \
    traceparent, mcp-protocol-version, mcp-method, mcp-name";
/// The headers of answers that a page may read.
const EXPOSED_HEADERS: &str =
    "www-authenticate, dpop-nonce, retry-after, ragward-consistency-token, openfga-authorization-model-id";

/// The names under which the server may be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    /// Host names in small letters, without ports.
    pub hosts: Vec<String>,
    /// Whether any address of IP names the server. An address cannot be pointed elsewhere, so no rebinding goes through it;
    /// a server on loopback takes those of loopback alone.
    pub addresses: Addresses,
    /// The origins of other pages that may call (CORS), as browsers write them.
    pub origins: Vec<String>,
}

/// The addresses of IP that a request may name as its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// An address of loopback alone. A server that listens there is reached by no other.
    #[default]
    Loopback,
    /// Any address. A server behind several addresses does not know them all.
    Any,
}

/// A browser's page that may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// The caller is no page, or one of the server's own.
    Own,
    /// A page of this origin, to which answers are opened.
    Allowed(HeaderValue),
}

impl Guards {
    /// Finds out whether the server may be called so.
    ///
    /// # Errors
    /// When the host is not the server's, or the page may not call it.
    pub(super) fn check<B>(&self, request: &http::Request<B>) -> Result<Page, NotServed> {
        let host = host(request).filter(|host| self.is_own(host)).ok_or(NotServed::Host)?;
        let mut origins = request.headers().get_all(header::ORIGIN).iter();
        let (origin, second) = (origins.next(), origins.next());
        if second.is_some() {
            return Err(NotServed::Origin);
        }
        let is_listed =
            |origin: &&HeaderValue| self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
        if let Some(listed) = origin.filter(is_listed) {
            // A clone would share, and so keep, the memory of all headers of the request.
            let copy = HeaderValue::from_bytes(listed.as_bytes()).map_err(|_not_a_value| NotServed::Origin)?;
            return Ok(Page::Allowed(copy));
        }
        let is_own = |origin: &HeaderValue| {
            let text = origin.to_str().unwrap_or_default();
            ["http://", "https://"].iter().any(|scheme| text.strip_prefix(scheme) == Some(host))
        };
        let may_call = origin.is_none_or(is_own) && !is_of_another_page(request.headers());
        if may_call { Ok(Page::Own) } else { Err(NotServed::Origin) }
    }

    fn is_own(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
        if host.contains('@') {
            return false;
        }
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if name == "localhost" || self.hosts.contains(&name) {
            return true;
        }
        match (name.parse::<IpAddr>(), self.addresses) {
            (Ok(_), Addresses::Any) => true,
            (Ok(address), Addresses::Loopback) => address.is_loopback(),
            (Err(_), _) => false,
        }
    }
}

/// Returns the host that a request names: exactly one, as authority (HTTP/2) or as header.
fn host<B>(request: &http::Request<B>) -> Option<&str> {
    let mut named = request.headers().get_all(header::HOST).iter();
    let of_header = named.next().map(|host| host.to_str()).transpose().ok()?;
    if named.next().is_some() {
        return None;
    }
    match (request.uri().authority(), of_header) {
        (Some(authority), Some(host)) if authority.as_str() != host => None,
        (Some(authority), _) => Some(authority.as_str()),
        (None, host) => host,
    }
}

/// Returns whether a browser sent a request on behalf of a page. Other programs have no use for these headers.
pub(super) fn is_of_a_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key(FETCH_SITE)
}

/// Returns whether a browser says that a page of another origin made it send the request.
///
/// An image, a script or a link of a page is asked for without an origin. Browsers then still name the site of the page, and no
/// page can change that (Fetch Metadata). They say `none` where no page is behind a request, such as for an address that a person
/// typed. Other programs say nothing.
fn is_of_another_page(headers: &HeaderMap) -> bool {
    headers.get_all(FETCH_SITE).iter().any(|site| site != "same-origin" && site != "none")
}

/// Opens an answer to a page of another origin.
pub(super) fn open(page: &Page, headers: &mut HeaderMap) {
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    if let Page::Allowed(origin) = page {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    }
}

/// Returns whether a browser asks beforehand what a page may send.
pub(super) fn is_preflight<B>(request: &http::Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Tells a browser what a page may send.
pub(super) fn allow(verbs: &str, headers: &mut HeaderMap) {
    if let Ok(verbs) = HeaderValue::from_str(verbs) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, verbs);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_MAX_AGE));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the head of a request over HTTP/1.1 with these values of `host` and `origin`.
    fn request(hosts: &[&str], origins: &[&str]) -> http::Request<()> {
        let mut request = http::Request::post("/v1/collections/a/retrieve");
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        for origin in origins {
            request = request.header(header::ORIGIN, *origin);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn the_server_has_to_be_called_by_its_own_name() {
        let named = |addresses| Guards { hosts: vec!["rag.example".to_owned()], addresses, origins: vec![] };
        let (loopback, open) = (named(Addresses::Loopback), named(Addresses::Any));
        let rows: [(&str, &[&str], bool, bool); 17] = [
            ("a listed name", &["rag.example"], true, true),
            ("with a port", &["rag.example:8980"], true, true),
            ("in capitals", &["RAG.example"], true, true),
            ("localhost", &["localhost:8980"], true, true),
            ("loopback", &["127.0.0.1:8980"], true, true),
            ("loopback of IPv6", &["[::1]:8980"], true, true),
            ("another address", &["10.0.0.7:8980"], false, true),
            ("a rebinding name", &["attacker.example"], false, false),
            ("an ending", &["evil-rag.example"], false, false),
            ("a beginning", &["rag.example.attacker.example"], false, false),
            ("a name with a dot at its end", &["rag.example."], false, false),
            ("a user before the name", &["rag.example@attacker.example"], false, false),
            ("a user before an own name", &["a@rag.example"], false, false),
            ("none", &[], false, false),
            ("an empty one", &[""], false, false),
            ("two", &["rag.example", "rag.example"], false, false),
            ("not a name", &["rag.example/a"], false, false),
        ];
        for (row, hosts, on_loopback, elsewhere) in rows {
            assert_eq!(loopback.check(&request(hosts, &[])).is_ok(), on_loopback, "{row}, on loopback");
            assert_eq!(open.check(&request(hosts, &[])).is_ok(), elsewhere, "{row}, elsewhere");
        }
        let mut doubled = request(&["rag.example"], &[]);
        *doubled.uri_mut() = "http://attacker.example/".parse().unwrap();
        assert_eq!(loopback.check(&doubled), Err(NotServed::Host), "authority and header differ");
    }

    #[test]
    fn only_listed_pages_may_call() {
        let origins = vec!["https://app.example".to_owned()];
        let guards = Guards { hosts: vec!["rag.example".to_owned()], addresses: Addresses::Any, origins };
        let rows: [(&str, &[&str], bool); 13] = [
            ("no page", &[], true),
            ("the listed one", &["https://app.example"], true),
            ("the server's own", &["https://rag.example"], true),
            ("the server's own on another port", &["https://rag.example:1"], false),
            ("the listed one without TLS", &["http://app.example"], false),
            ("on another port", &["https://app.example:8443"], false),
            ("with the default port", &["https://app.example:443"], false),
            ("a beginning", &["https://app.example.attacker.example"], false),
            ("an ending", &["https://evil-app.example"], false),
            ("null", &["null"], false),
            ("a star", &["*"], false),
            ("in capitals", &["https://APP.example"], false),
            ("two", &["https://app.example", "https://app.example"], false),
        ];
        for (row, origins, expected) in rows {
            assert_eq!(guards.check(&request(&["rag.example"], origins)).is_ok(), expected, "{row}");
        }
        let page = guards.check(&request(&["rag.example"], &["https://app.example"])).unwrap();
        let mut headers = HeaderMap::new();
        open(&page, &mut headers);
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
        assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }

    /// A browser sends no origin with a GET that it makes for an image, a script or a link.
    #[test]
    fn a_page_without_an_origin_is_told_by_its_site() {
        let origins = vec!["https://app.example".to_owned()];
        let guards = Guards { hosts: vec!["rag.example".to_owned()], addresses: Addresses::Any, origins };
        let none: &[&str] = &[];
        let rows: [(&str, &[&str], &[&str], bool); 11] = [
            ("no browser", none, none, true),
            ("an address that a person typed", none, &["none"], true),
            ("the server's own page", none, &["same-origin"], true),
            ("the server's own page, with its origin", &["https://rag.example"], &["same-origin"], true),
            ("a listed page", &["https://app.example"], &["cross-site"], true),
            ("another site", none, &["cross-site"], false),
            ("another origin of the same site, such as another port", none, &["same-site"], false),
            ("another site that calls itself own", &["http://rag.example"], &["cross-site"], false),
            ("another site, twice", none, &["none", "cross-site"], false),
            ("a word that nobody knows", none, &["near"], false),
            ("capitals", none, &["Same-Origin"], false),
        ];
        for (row, origins, sites, expected) in rows {
            let mut request = request(&["rag.example"], origins);
            *request.method_mut() = Method::GET;
            for site in sites {
                request.headers_mut().append(FETCH_SITE, site.parse().unwrap());
            }
            assert_eq!(guards.check(&request).is_ok(), expected, "{row}");
        }
    }
}
