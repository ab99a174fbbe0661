//! Reads the files of the port's TLS, and makes the configuration of handshakes of them.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use crate::server_config::TlsFiles;

const CERT_FILE: &str = "server.tls.cert_file";
const KEY_FILE: &str = "server.tls.key_file";
const CLIENT_CA_FILE: &str = "server.tls.client_ca_file";

/// The largest file. All authorities that a system trusts take up a quarter of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The protocols that the port speaks (ALPN), the better one first. gRPC needs HTTP/2.
const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

/// The reason why the port cannot have TLS with its files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("`{setting}` is `{path}`: {detail}")]
    File {
        /// The setting that names the file.
        setting: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The problem with the file. It shows nothing of the contents.
        detail: String,
    },
    /// The certificate and the key cannot be used together.
    #[error("`server.tls.cert_file` and `server.tls.key_file` cannot be used together: {0}")]
    Pair(String),
}

/// The contents of the files at one moment.
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// The digests of the contents. They tell a change, and do not keep the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digests {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    /// Reads the files. A mounted secret changes when a link is exchanged, so no time of a file is looked at.
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let client_ca = files.client_ca_file.as_deref().map(|path| read(CLIENT_CA_FILE, path));
        Ok(Self {
            certificate: read(CERT_FILE, &files.cert_file)?,
            key: read(KEY_FILE, files.key_file.path())?,
            client_ca: client_ca.transpose()?,
        })
    }

    pub(super) fn digests(&self) -> Digests {
        let digest = |bytes: &[u8]| digest(&SHA256, bytes).as_ref().to_vec();
        Digests {
            certificate: digest(&self.certificate),
            key: digest(&self.key),
            client_ca: self.client_ca.as_deref().map(digest),
        }
    }

    /// Makes the configuration of handshakes. The errors name the paths of `files`, from which the contents are.
    pub(super) fn config(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let chain = certificates(CERT_FILE, &files.cert_file, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_hidden| {
            // The error of the parser may show a line of the file.
            let detail =
                "it holds no private key in PEM that can be read; a key with a password has to be decrypted first";
            unusable(KEY_FILE, files.key_file.path(), detail)
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(|e| TlsError::Pair(e.to_string()))?;
        let builder = match (&self.client_ca, &files.client_ca_file) {
            (Some(authorities), Some(path)) => {
                builder.with_client_cert_verifier(client_verifier(authorities, path, provider)?)
            }
            (None, _) | (_, None) => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|e| TlsError::Pair(e.to_string()))?;
        config.alpn_protocols = PROTOCOLS.map(|name| name.as_bytes().to_vec()).to_vec();
        if self.client_ca.is_some() {
            // A resumed session would bring back the client's certificate without another look at it, also after it has ended.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(config)
    }
}

/// Makes the verifier of clients' certificates. A client may have none; a wrong one ends the handshake.
fn client_verifier(
    authorities: &[u8],
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let refused = |detail: String| unusable(CLIENT_CA_FILE, path, &detail);
    let mut roots = RootCertStore::empty();
    for authority in certificates(CLIENT_CA_FILE, path, authorities)? {
        roots.add(authority).map_err(|e| refused(e.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
    builder.build().map_err(|e| refused(e.to_string()))
}

fn certificates(setting: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(pem).collect();
    // The error of the parser may show a line of the file, and somebody may have named the key here.
    let read = read.map_err(|_hidden| unusable(setting, path, "it is not PEM"))?;
    if read.is_empty() { Err(unusable(setting, path, "it holds no certificate in PEM")) } else { Ok(read) }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |e: std::io::Error| unusable(setting, path, &e.to_string());
    // To open anything else might wait for ever.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(unusable(setting, path, "it is not a file"));
    }
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(unusable(setting, path, &format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn unusable(setting: &'static str, path: &Path, detail: &str) -> TlsError {
    TlsError::File { setting, path: path.to_owned(), detail: detail.to_owned() }
}
