//! TLS of the connections that Ragward opens: to `OpenFGA`, Qdrant, issuers, collectors, and from the command line to a
//! server. HTTP answers are read within a bound.
//!
//! A connection trusts either the authorities of the system or those of one file, never both. Whoever names a file
//! means the authority of their own network, and a certificate from any public authority must not pass for its servers.

#[cfg(feature = "server")]
mod body;
#[cfg(test)]
#[cfg(feature = "server")]
pub(crate) mod sample;
#[cfg(test)]
#[cfg(feature = "server")]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(feature = "server")]
use std::time::Duration;

#[cfg(feature = "server")]
use reqwest::dns::Resolve;
#[cfg(feature = "server")]
use reqwest::redirect::Policy;
use rustls::RootCertStore;
#[cfg(feature = "server")]
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
#[cfg(feature = "server")]
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use tonic::transport::{ClientTlsConfig, Endpoint};
#[cfg(feature = "server")]
use url::{Host, Url};

#[cfg(feature = "server")]
pub(crate) use self::body::{BodyError, bounded_body};

/// The authorities whose certificates a connection accepts.
#[derive(Clone, Debug, Default)]
pub(crate) enum TrustedAuthorities {
    /// Those that the system trusts.
    #[default]
    System,
    /// Only those of a file.
    OfFile(Arc<RootCertStore>),
}

/// The reason why a file of certificates cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaFileError {
    /// The file cannot be read.
    #[error("cannot read the certificates in `{path}`: {detail}")]
    Read {
        /// The file that holds the certificates.
        path: PathBuf,
        /// The operating system's reason, or the fault in the form of the file.
        detail: String,
    },
    /// The file has another content.
    #[error("`{0}` holds no certificate in PEM form (`-----BEGIN CERTIFICATE-----`)")]
    Empty(PathBuf),
    /// A certificate of the file is damaged, or is of a form that is not understood.
    #[error("certificate {number} of `{path}` cannot be used: {detail}")]
    Certificate {
        /// The file that holds the certificates.
        path: PathBuf,
        /// The position of the certificate in the file, from 1.
        number: usize,
        /// The TLS library's reason.
        detail: String,
    },
}

/// The reason why an address cannot be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointError {
    /// The address is malformed. The text may say more about the fault, after a space.
    #[error("it must have the form `http://host:port` or `https://host:port`{0}")]
    Malformed(String),
    /// Certificates are given for an address without TLS.
    #[error("a file of certificates is named, which only an `https://` address uses")]
    Plain,
    /// The system's certificates cannot be used.
    #[error("cannot prepare TLS: {0}")]
    Tls(String),
}

/// The reason why no client of plain HTTP can be made.
#[cfg(feature = "server")]
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpClientError {
    /// The TLS library cannot be set up.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The HTTP library cannot be set up.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

/// Returns whether a URL leads to this machine, where nobody reads on the way what has no TLS.
#[cfg(feature = "server")]
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Returns whether nobody on the way can read a secret that is sent to this URL: it has TLS, or it leads to this machine.
#[cfg(feature = "server")]
pub(crate) fn keeps_secrets(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => is_loopback(url),
        _ => false,
    }
}

/// Returns the first private key of a text in PEM form (PKCS#8).
#[cfg(feature = "server")]
pub(crate) fn pkcs8_of_pem(text: &str) -> Option<Vec<u8>> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).ok()?;
    Some(key.secret_pkcs8_der().to_vec())
}

impl TrustedAuthorities {
    /// Reads the file of authorities that a setting names. Without a file, those of the system are trusted.
    ///
    /// # Errors
    /// When the file cannot be read, holds no certificate, or holds one that cannot be used. An authority that is
    /// silently left out would be found missing only when its server does not answer.
    pub(crate) fn read(ca_file: Option<&Path>) -> Result<Self, CaFileError> {
        let Some(path) = ca_file else { return Ok(Self::System) };
        let unreadable = |detail: String| CaFileError::Read { path: path.to_owned(), detail };
        let pem = std::fs::read(path).map_err(|e| unreadable(e.to_string()))?;
        let mut roots = RootCertStore::empty();
        for (number, certificate) in (1..).zip(CertificateDer::pem_slice_iter(&pem)) {
            let certificate = certificate.map_err(|e| unreadable(e.to_string()))?;
            roots.add(certificate).map_err(|e| CaFileError::Certificate {
                path: path.to_owned(),
                number,
                detail: e.to_string(),
            })?;
        }
        if roots.is_empty() { Err(CaFileError::Empty(path.to_owned())) } else { Ok(Self::OfFile(Arc::new(roots))) }
    }

    /// Returns the endpoint of a gRPC server. `https` means TLS.
    pub(crate) fn endpoint(&self, address: &str) -> Result<Endpoint, EndpointError> {
        let malformed = |e: tonic::transport::Error| EndpointError::Malformed(format!(" ({e})"));
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(malformed)?;
        match (endpoint.uri().scheme_str(), self) {
            (Some("http"), Self::System) => Ok(endpoint),
            (Some("http"), Self::OfFile(_)) => Err(EndpointError::Plain),
            (Some("https"), _) => endpoint.tls_config(self.of_grpc()).map_err(|e| EndpointError::Tls(e.to_string())),
            (Some(_) | None, _) => Err(EndpointError::Malformed(String::new())),
        }
    }

    /// Returns the configuration of TLS for gRPC.
    fn of_grpc(&self) -> ClientTlsConfig {
        match self {
            Self::System => ClientTlsConfig::new().with_native_roots(),
            Self::OfFile(roots) => ClientTlsConfig::new().trust_anchors(roots.roots.iter().cloned()),
        }
    }

    /// Makes a client of plain HTTP. It calls the address that it is given and no other: it follows no redirect and uses no
    /// proxy. Each answer has `timeout` to come.
    ///
    /// # Errors
    /// When the library of TLS or HTTP cannot be set up.
    #[cfg(feature = "server")]
    pub(crate) fn http_client(&self, timeout: Duration) -> Result<reqwest::Client, HttpClientError> {
        self.http_client_through(None, timeout)
    }

    /// Like [`TrustedAuthorities::http_client`], but calls with TLS go through `proxy`, if there is one. The proxy carries
    /// TLS and cannot read it. The library reads no environment variable: `config` decides which calls have a proxy.
    ///
    /// # Errors
    /// When the library of TLS or HTTP cannot be set up, or cannot use the proxy.
    #[cfg(feature = "server")]
    pub(crate) fn http_client_through(
        &self,
        proxy: Option<Url>,
        timeout: Duration,
    ) -> Result<reqwest::Client, HttpClientError> {
        let builder = self.http_client_builder(timeout)?;
        let builder = match proxy {
            Some(proxy) => builder.proxy(reqwest::Proxy::https(proxy)?),
            None => builder,
        };
        Ok(builder.build()?)
    }

    /// Like [`TrustedAuthorities::http_client`], with the addresses of names from `names`.
    ///
    /// # Errors
    /// As for [`TrustedAuthorities::http_client`].
    #[cfg(feature = "server")]
    pub(crate) fn http_client_by<R: Resolve + 'static>(
        &self,
        timeout: Duration,
        names: Arc<R>,
    ) -> Result<reqwest::Client, HttpClientError> {
        Ok(self.http_client_builder(timeout)?.dns_resolver(names).build()?)
    }

    #[cfg(feature = "server")]
    fn http_client_builder(&self, timeout: Duration) -> Result<reqwest::ClientBuilder, HttpClientError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(self.of_http()?)
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .timeout(timeout);
        Ok(client)
    }

    /// Returns the configuration of TLS for plain HTTP.
    #[cfg(feature = "server")]
    fn of_http(&self) -> Result<rustls::ClientConfig, rustls::Error> {
        let roots = match self {
            Self::System => {
                let mut roots = RootCertStore::empty();
                // A certificate that cannot be read is not trusted.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                Arc::new(roots)
            }
            Self::OfFile(roots) => Arc::clone(roots),
        };
        let config = rustls::ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(config)
    }
}
