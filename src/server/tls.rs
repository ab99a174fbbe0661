//! TLS on the port. It holds the certificate that counts now, makes the handshakes, and reads the files again when they
//! change.
//!
//! The certificate, its key and the authorities for clients are replaced together: each handshake takes one whole
//! configuration. So none meets a new certificate with an old key, and a connection keeps what it began with.

mod contents;
#[cfg(test)]
pub(in crate::server) mod sample;

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use self::contents::TlsError;
use self::contents::{Contents, Digests};
use crate::identity::CertificateThumbprint;
use crate::server_config::TlsFiles;

/// How long a handshake may take. It is as long as the head of an HTTP/1.1 request may take: both are one or two round trips.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The time between two looks at the files. A certificate is renewed days before it ends, and whoever cannot wait sends
/// SIGHUP.
const LOOK_INTERVAL: Duration = Duration::from_mins(1);

/// The TLS of a port. Clones share the certificate, and its changes.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    files: TlsFiles,
    /// The configuration for the next handshake.
    current: RwLock<Arc<ServerConfig>>,
    /// The result of the last look at the files, good or bad, so that each change is told once.
    seen: Mutex<Result<Digests, TlsError>>,
}

/// The certificate that the client of a connection has shown, and proved to have the key of.
///
/// It comes from the handshake of this connection alone. A header in which a proxy forwards a certificate is never read,
/// because everybody can send one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ClientCertificate(pub(super) Option<CertificateThumbprint>);

/// A connection after its handshake.
pub(super) struct Secured<IO> {
    pub(super) stream: TlsStream<IO>,
    pub(super) certificate: ClientCertificate,
}

/// What came of a look at the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Unchanged,
    Taken,
    Refused,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read, or the files do not fit together.
    pub fn new(files: &TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(files)?;
        let current = RwLock::new(Arc::new(contents.config(files)?));
        Ok(Self(Arc::new(Shared { files: files.clone(), current, seen: Mutex::new(Ok(contents.digests())) })))
    }

    /// Returns whether clients are asked for certificates.
    pub(super) fn asks_for_certificates(&self) -> bool {
        self.0.files.client_ca_file.is_some()
    }

    /// Looks at the files again and again, for as long as it is polled.
    pub async fn keep_current(&self) -> Infallible {
        loop {
            sleep(LOOK_INTERVAL).await;
            self.look_again().await;
        }
    }

    /// Looks at the files now, and takes what they hold if that has changed and is good. Otherwise the old certificate stays,
    /// and the log says why.
    pub async fn look_again(&self) {
        let tls = self.clone();
        // Reading files blocks.
        if let Err(lost) = tokio::task::spawn_blocking(move || tls.look()).await {
            tracing::error!(%lost, "a look at the files of `server.tls` was lost");
        }
    }

    fn look(&self) -> Look {
        let Shared { files, current, seen } = &*self.0;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = Contents::read(files);
        let found = contents.as_ref().map(Contents::digests).map_err(TlsError::clone);
        if found == *seen {
            return Look::Unchanged;
        }
        *seen = found;
        match contents.and_then(|contents| contents.config(files)) {
            Ok(config) => {
                *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                tracing::info!("the files of `server.tls` have changed; new connections get the new certificate");
                Look::Taken
            }
            Err(error) => {
                tracing::error!(%error, "the files of `server.tls` have changed and cannot be used; the old certificate stays");
                Look::Refused
            }
        }
    }

    fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the handshake of a connection that was accepted.
    ///
    /// # Errors
    /// When the handshake fails, or takes longer than [`HANDSHAKE_MAX`].
    pub(super) async fn secure<IO>(&self, io: IO) -> io::Result<Secured<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = timeout(HANDSHAKE_MAX, TlsAcceptor::from(self.current()).accept(io)).await??;
        let (_, session) = stream.get_ref();
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let certificate = ClientCertificate(leaf.map(|leaf| CertificateThumbprint::of(leaf)));
        Ok(Secured { stream, certificate })
    }
}

#[cfg(test)]
mod tests;
