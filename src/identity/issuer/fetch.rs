//! Reads an issuer's metadata (RFC 8414, `OpenID` Connect Discovery) and key set over HTTPS, or over HTTP on this
//! machine. It follows no redirects and limits time and bytes.

use std::path::Path;
use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;

use super::super::key_set::{KeySet, KeySetError};
use crate::client_tls::{BodyError, CaFileError, TrustedAuthorities, bounded_body, keeps_secrets};
use crate::strict_json;

/// The time that one document may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The size of a document, in bytes. Key sets have a few kilobytes.
const BYTES_MAX: usize = 256 * 1024;
/// The deepest nesting of an issuer's metadata.
const DEPTH_MAX: usize = 8;

/// An HTTP client that reads the documents of issuers.
#[derive(Clone, Debug)]
pub(super) struct HttpClient {
    client: Client,
}

/// The addresses of an issuer's metadata.
#[derive(Debug)]
pub(super) struct MetadataUrls {
    /// The address of RFC 8414, section 3.1.
    pub(super) oauth: Url,
    /// The address of `OpenID` Connect Discovery, section 4.1.
    pub(super) openid: Url,
}

impl MetadataUrls {
    pub(super) fn of(issuer: &Url) -> Self {
        let path = issuer.path().trim_end_matches('/');
        let (mut oauth, mut openid) = (issuer.clone(), issuer.clone());
        oauth.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
        openid.set_path(&format!("{path}/.well-known/openid-configuration"));
        Self { oauth, openid }
    }
}

/// The reason why keys cannot be fetched as configured.
#[derive(Debug, thiserror::Error)]
pub(in crate::identity) enum FetchSetupError {
    /// Keys may not be read from this address.
    #[error("`{0}` must be an `https` URL without user, query and fragment; `http` is for loopback alone")]
    Url(String),
    /// The TLS client cannot be set up.
    #[error("cannot prepare TLS for the issuers: {0}")]
    Tls(String),
    /// Certificates are named for an address without TLS.
    #[error("`ca_file` is set, and `{0}` is not an `https` URL")]
    Plain(String),
    /// The settings name a proxy for an address without TLS, which is on this machine.
    #[error("`proxy_url` is set, and `{0}` is not an `https` URL: a proxy could read and change the messages")]
    PlainBehindProxy(String),
    /// Keys cannot be read through such a proxy. The text does not repeat the URL, which may hold a password.
    #[error("`proxy_url` must have the form `http://host:port`, without user, password and path")]
    Proxy,
    /// The file of the authorities to trust cannot be used.
    #[error(transparent)]
    CaFile(#[from] CaFileError),
}

/// The reason why a document could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("`{url}` did not answer: {source}")]
    Http { url: Url, source: reqwest::Error },
    #[error("`{url}` answered with status {status}")]
    Status { url: Url, status: StatusCode },
    #[error("`{0}` is larger than {BYTES_MAX} bytes")]
    TooLarge(Url),
    #[error("the metadata of the issuer is not valid: {0}")]
    Metadata(String),
    #[error(transparent)]
    KeySet(#[from] KeySetError),
    #[error("the key set has no key that can be used")]
    NoUsableKey,
    #[error(transparent)]
    Url(#[from] FetchSetupError),
}

/// Parses a URL that keys may be read from.
pub(super) fn check_url(text: &str) -> Result<Url, FetchSetupError> {
    let refused = || FetchSetupError::Url(text.to_owned());
    let url = Url::parse(text).map_err(|_malformed| refused())?;
    let is_plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    if is_plain && keeps_secrets(&url) { Ok(url) } else { Err(refused()) }
}

/// Parses the URL of a proxy. The proxy carries TLS, so it learns the names of hosts and nothing else, and needs no TLS of its
/// own. A password does not belong in a configuration that is printed.
fn check_proxy(text: &str) -> Result<Url, FetchSetupError> {
    let url = Url::parse(text).map_err(|_malformed| FetchSetupError::Proxy)?;
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    if url.scheme() == "http" && url.has_host() && is_plain { Ok(url) } else { Err(FetchSetupError::Proxy) }
}

impl HttpClient {
    /// Creates a client that trusts the authorities of a file, or those of the system if there is none, and that calls through
    /// a proxy if one is named.
    ///
    /// # Errors
    /// If the file or the proxy cannot be used, or TLS cannot be set up.
    pub(super) fn new(ca_file: Option<&Path>, proxy_url: Option<&str>) -> Result<Self, FetchSetupError> {
        let proxy = proxy_url.map(check_proxy).transpose()?;
        let client = TrustedAuthorities::read(ca_file)?.http_client_through(proxy, TIMEOUT);
        Ok(Self { client: client.map_err(|e| FetchSetupError::Tls(e.to_string()))? })
    }

    /// Reads the keys of an issuer from `key_set_url`, or from the address in the issuer's metadata.
    pub(super) async fn key_set(&self, issuer: &str, key_set_url: Option<&str>) -> Result<KeySet, FetchError> {
        let url = match key_set_url {
            Some(url) => check_url(url)?,
            None => self.discover(issuer).await?,
        };
        let keys = KeySet::parse(&self.get(url).await?)?;
        if keys.is_empty() { Err(FetchError::NoUsableKey) } else { Ok(keys) }
    }

    /// Reads the address of the key set from the issuer's metadata.
    async fn discover(&self, issuer: &str) -> Result<Url, FetchError> {
        let MetadataUrls { oauth, openid } = MetadataUrls::of(&check_url(issuer)?);
        match self.metadata(oauth, issuer).await {
            Ok(url) => Ok(url),
            Err(error) => {
                tracing::debug!(issuer, %error, "no authorization server metadata; trying OpenID discovery");
                self.metadata(openid, issuer).await
            }
        }
    }

    async fn metadata(&self, url: Url, issuer: &str) -> Result<Url, FetchError> {
        let bytes = self.get(url.clone()).await?;
        let metadata = strict_json::object(&bytes, DEPTH_MAX).map_err(|e| FetchError::Metadata(e.to_string()))?;
        // RFC 8414, section 3.3: otherwise one issuer could speak for another.
        if metadata.get("issuer").and_then(Value::as_str) != Some(issuer) {
            return Err(FetchError::Metadata("it names another issuer".to_owned()));
        }
        let key_set_url = metadata.get("jwks_uri").and_then(Value::as_str);
        let key_set_url = key_set_url.ok_or_else(|| FetchError::Metadata("it has no `jwks_uri`".to_owned()))?;
        let key_set_url = check_url(key_set_url)?;
        // Otherwise whoever listens on a port of this machine could give the keys of an issuer that has TLS.
        if key_set_url.scheme() != url.scheme() && key_set_url.scheme() != "https" {
            return Err(FetchError::Metadata("its `jwks_uri` has no TLS, and the issuer has".to_owned()));
        }
        Ok(key_set_url)
    }

    pub(super) async fn get(&self, url: Url) -> Result<Vec<u8>, FetchError> {
        let http = |source| FetchError::Http { url: url.clone(), source };
        let request = self.client.get(url.clone()).header("accept", "application/json");
        let response = request.send().await.map_err(http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status { url, status: response.status() });
        }
        read(url, response).await
    }

    /// Returns the HTTP client, for other requests to the issuer.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }
}

/// Reads the body of an answer, unless it is too large.
async fn read(url: Url, response: Response) -> Result<Vec<u8>, FetchError> {
    bounded_body(response, BYTES_MAX).await.map_err(|error| match error {
        BodyError::Lost(source) => FetchError::Http { url, source },
        BodyError::TooLarge => FetchError::TooLarge(url),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{self, BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use serde_json::json;

    use super::*;
    use crate::client_tls::sample::Authority;

    const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    #[tokio::test]
    async fn keys_come_from_servers_of_the_trusted_authorities_alone() {
        let (ours, other) = (Authority::new("ours"), Authority::new("other"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let issuer = format!("https://localhost:{port}");
        let (keys, elsewhere) = (format!("{issuer}/keys"), format!("https://127.0.0.1:{port}/keys"));
        let metadata = json!({"issuer": issuer, "jwks_uri": keys}).to_string();
        ours.serve_documents(listener, move |path| if path == "/keys" { KEYS.to_owned() } else { metadata.clone() });
        let rows = [
            ("the authority of the issuer, by discovery", Some(ours.file()), None, true),
            ("the authority of the issuer, by address", Some(ours.file()), Some(&keys), true),
            ("another authority, by discovery", Some(other.file()), None, false),
            ("another authority, by address", Some(other.file()), Some(&keys), false),
            ("the authorities of the system", None, Some(&keys), false),
            ("a name that the certificate lacks", Some(ours.file()), Some(&elsewhere), false),
        ];
        for (name, ca_file, url, expected) in rows {
            let client = HttpClient::new(ca_file.as_deref(), None).unwrap();
            let read = client.key_set(&issuer, url.map(String::as_str)).await;
            assert_eq!(read.is_ok(), expected, "{name}: {read:?}");
        }
    }

    #[tokio::test]
    async fn an_issuer_with_tls_has_no_keys_without_it() {
        let ours = Authority::new("ours");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let metadata = json!({"issuer": issuer, "jwks_uri": "http://127.0.0.1:1/keys"}).to_string();
        ours.serve_documents(listener, move |_path| metadata.clone());
        let read = HttpClient::new(Some(&ours.file()), None).unwrap().key_set(&issuer, None).await;
        assert!(read.is_err_and(|error| error.to_string().contains("has no TLS")));
    }

    /// Carries connections as a proxy does, and counts them, on threads that run until the process ends.
    fn serve_proxy(listener: TcpListener) -> Arc<AtomicUsize> {
        let counted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&counted);
        thread::spawn(move || {
            for connection in listener.incoming() {
                count.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || connection.and_then(carry));
            }
        });
        counted
    }

    fn carry(mut client: TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(client.try_clone()?).lines();
        let asked = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        // The client sends nothing more before it has an answer, so the reader holds back no bytes.
        for line in lines {
            if line?.is_empty() {
                break;
            }
        }
        let target = asked.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
        let target = target.ok_or_else(|| io::Error::other(asked.clone()))?;
        let mut server = TcpStream::connect(target)?;
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
        let sending = thread::spawn(move || io::copy(&mut from_client, &mut to_server));
        io::copy(&mut server, &mut client)?;
        client.shutdown(std::net::Shutdown::Both)?;
        drop(sending.join());
        Ok(())
    }

    #[tokio::test]
    async fn a_proxy_carries_what_it_cannot_read() {
        let (ours, other) = (Authority::new("ours"), Authority::new("other"));
        let (listener, proxy) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let metadata = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}).to_string();
        ours.serve_documents(listener, move |path| if path == "/keys" { KEYS.to_owned() } else { metadata.clone() });
        let proxy_url = format!("http://{}", proxy.local_addr().unwrap());
        let carried = serve_proxy(proxy);
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nobody = format!("http://{nobody}");
        let rows = [
            ("no proxy", ours.file(), None, Ok(0)),
            ("through the proxy", ours.file(), Some(&proxy_url), Ok(2)),
            ("through the proxy, from a server of another authority", other.file(), Some(&proxy_url), Err(())),
            ("through a proxy that is not there", ours.file(), Some(&nobody), Err(())),
        ];
        for (row, ca_file, proxy, expected) in rows {
            let before = carried.load(Ordering::Relaxed);
            let client = HttpClient::new(Some(&ca_file), proxy.map(String::as_str)).unwrap();
            let read = client.key_set(&issuer, None).await;
            let found = read.map(|_keys| carried.load(Ordering::Relaxed) - before).map_err(drop);
            // A connection may be kept for the second document.
            let is_expected = match (found, expected) {
                (Ok(found), Ok(most)) => (1..=most).contains(&found) || found == most,
                (Err(()), Err(())) => true,
                (Ok(_), Err(())) | (Err(()), Ok(_)) => false,
            };
            assert!(is_expected, "{row}: {found:?}");
        }
    }

    #[test]
    fn a_proxy_is_a_plain_address() {
        let rows = [
            ("a proxy", "http://egress.example:8080", true),
            ("a proxy with a slash", "http://egress.example:8080/", true),
            ("TLS", "https://egress.example:8080", false),
            ("SOCKS", "socks5://proxy.example:1080", false),
            ("no scheme", "egress.example:8080", false),
            ("a password", "http://a:b@egress.example:8080", false),
            ("a user", "http://a@egress.example:8080", false),
            ("a path", "http://egress.example:8080/x", false),
            ("a query", "http://egress.example:8080/?x", false),
            ("nothing", "", false),
        ];
        for (row, url, is_taken) in rows {
            assert_eq!(check_proxy(url).is_ok(), is_taken, "{row}");
            assert_eq!(HttpClient::new(None, Some(url)).is_ok(), is_taken, "{row}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused_at_the_start() {
        let authority = Authority::new("ours");
        let refused = HttpClient::new(Some(&authority.file_with("text.pem", "no certificate")), None).map(drop);
        assert!(matches!(refused, Err(FetchSetupError::CaFile(_))), "{refused:?}");
    }
}
