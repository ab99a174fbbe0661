//! Authorities, certificates and clients, for tests of the port's TLS.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, crypto};
use tokio::io::DuplexStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::server_config::TlsFiles;
use crate::settings::SecretFile;

/// The name of the server in these tests.
pub(in crate::server) const NAME: &str = "rag.example";

/// An authority that signs certificates.
pub(in crate::server) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(in crate::server) struct Pair {
    pub(in crate::server) certificate: CertificateDer<'static>,
    pub(in crate::server) certificate_pem: String,
    pub(in crate::server) key_pem: String,
    key: Vec<u8>,
}

/// Says whether a certificate has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Life {
    Running,
    Over,
}

impl Authority {
    pub(in crate::server) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(in crate::server) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(in crate::server) fn issue(&self, life: Life) -> Pair {
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if life == Life::Over {
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &*self.0).unwrap();
        Pair {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key: key.serialize_der(),
        }
    }

    /// Returns a client that trusts this authority alone, shows the certificate of a pair, and offers these protocols.
    pub(in crate::server) fn client(&self, shown: Option<&Pair>, protocols: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::try_from(pair.key.clone()).unwrap();
                builder.with_client_auth_cert(vec![pair.certificate.clone()], key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

impl Pair {
    /// Writes the pair into a directory, over the one that is there.
    pub(in crate::server) fn write(&self, directory: &Path) {
        std::fs::write(directory.join("tls.crt"), &self.certificate_pem).unwrap();
        std::fs::write(directory.join("tls.key"), &self.key_pem).unwrap();
    }
}

/// Returns the files of a directory that has a pair in it.
pub(in crate::server) fn files(directory: &Path) -> TlsFiles {
    let key_file = SecretFile::new(directory.join("tls.key"));
    TlsFiles { cert_file: directory.join("tls.crt"), key_file, client_ca_file: None }
}

/// Connects over a pipe.
pub(in crate::server) async fn connect(
    client: &TlsConnector,
    pipe: DuplexStream,
) -> io::Result<TlsStream<DuplexStream>> {
    client.connect(ServerName::try_from(NAME).unwrap(), pipe).await
}
