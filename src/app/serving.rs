//! From opened backends to a running server, and to a client that talks to the same services in process.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};

use super::{App, AppError, audit, identity, names};
use crate::authz::verification::Recording;
use crate::client::Client;
use crate::server::{self, Arrived, Authentication, Services};

/// Connections of an in-process client that may wait to be accepted.
const IN_PROCESS_CONNECTIONS: usize = 4;
/// How long a start waits for a server's stored names before it serves without taking tokens.
const NAMES_WAIT_MAX: Duration = Duration::from_secs(2);
impl App {
    /// The services as whoever holds the data directory is served: every caller is believed, and nothing is recorded.
    fn local_services(&self) -> Services {
        Services {
            retriever: self.retriever.clone(),
            vector_store: Arc::clone(&self.vector_store),
            documents: Arc::clone(&self.documents),
            relationships: self.relationships.clone(),
            explain: self.config.server.explain,
            request_timeout: Duration::from_millis(self.config.server.request_timeout_ms),
            connections_max: self.config.server.connections_max,
            authorizer: Arc::clone(&self.authorizer),
            authentication: Authentication::Believed,
            audit: None,
            consistency_tokens: Arc::clone(&self.consistency_tokens),
        }
    }

    /// Makes everything ready that a server needs beside the backends: the identity of callers, and the audit log. So whatever
    /// refuses a start does it before a port takes connections.
    ///
    /// # Errors
    /// When nobody says who is asking (see [`check`]), the audit log cannot be written, or stored names are not as
    /// tokens make them.
    pub async fn prepare(&self) -> Result<PreparedServer<'_>, AppError> {
        let authentication = identity::authentication(&self.config)?;
        let tokens = match &authentication {
            Authentication::Tokens(tokens) => Some(Arc::clone(tokens)),
            Authentication::Believed => None,
        };
        // Until stored names are checked no token is taken. A server that is out of reach does not hold the start up for long.
        let mut checking = Box::pin(async move {
            match tokens {
                Some(tokens) => names::check(&self.config, self.relationships.as_ref(), &tokens).await,
                None => Ok(()),
            }
        });
        let is_checked = match &self.relationships {
            Some(_) => {
                checking.as_mut().await?;
                true
            }
            None => match tokio::time::timeout(NAMES_WAIT_MAX, checking.as_mut()).await {
                Ok(checked) => {
                    checked?;
                    true
                }
                Err(_elapsed) => false,
            },
        };
        let old_names = Box::pin(async move {
            if !is_checked && let Err(error) = checking.await {
                return error;
            }
            std::future::pending().await
        });
        let services = Services { authentication, audit: audit::open(&self.config).await?, ..self.local_services() };
        let verifier = self.replica.as_ref().and_then(|replica| replica.verifier());
        let recording = verifier.zip(services.audit.as_ref());
        let recording = recording.map(|(verifier, audit)| verifier.record_in(Arc::clone(&audit.sink)));
        let shutdown_timeout = Duration::from_millis(self.config.server.shutdown_timeout_ms);
        Ok(PreparedServer { services, shutdown_timeout, old_names, _recording: recording })
    }

    /// As [`PreparedServer::serve`], on a listener that is there already.
    ///
    /// # Errors
    /// As [`App::prepare`].
    pub async fn serve(&self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        self.prepare().await?.serve(listener, stop).await
    }

    /// A client of the same services without a network, for commands that work on a data directory. Whoever can open that
    /// may do anything to it and be told everything in it, so no token is asked for, and nothing is recorded.
    #[must_use]
    pub fn in_process(&self) -> Client {
        let (connections, incoming) = tokio::sync::mpsc::channel(IN_PROCESS_CONNECTIONS);
        let services = Services { explain: true, ..self.local_services() };
        // The task ends when the client, which owns the other end of the channel, is dropped.
        tokio::spawn(async move {
            let incoming = ReceiverStream::new(incoming)
                .map(|pipe: io::Result<DuplexStream>| pipe.map(|io| Arrived { io, peer: None }));
            let served = server::serve(services, incoming, std::future::pending()).await;
            if let Err(error) = served {
                tracing::error!(%error, "the in-process server ended");
            }
        });
        Client::in_process(connections)
    }
}

/// A server that only lacks its port.
pub struct PreparedServer<'a> {
    services: Services,
    shutdown_timeout: Duration,
    /// Ready once stored names turn out not to be as tokens make them.
    old_names: Pin<Box<dyn Future<Output = AppError> + Send + 'a>>,
    /// Ends with the service, as the audit log does.
    _recording: Option<Recording>,
}

impl PreparedServer<'_> {
    /// Serves on a listener until `stop`; then lets running requests end, as long as `server.shutdown_timeout_ms`.
    ///
    /// # Errors
    /// When the services cannot be described, or stored names are not as tokens make them.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        let Self { services, shutdown_timeout, old_names, _recording } = self;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "serving");
        }
        let connections = TcpListenerStream::new(listener).map(|connection: io::Result<TcpStream>| {
            let stream = connection?;
            // Answers are small: waiting to fill a packet would only add latency.
            stream.set_nodelay(true)?;
            let peer = stream.peer_addr()?.ip();
            io::Result::Ok(Arrived { io: stream, peer: Some(peer) })
        });
        let (stopping, stopped) = tokio::sync::oneshot::channel();
        let stop = async move {
            stop.await;
            // Nobody listens any more when the server has failed already.
            stopping.send(()).unwrap_or_default();
        };
        let serving = server::serve(services, connections, stop);
        let too_long = async {
            match stopped.await {
                Ok(()) => tokio::time::sleep(shutdown_timeout).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = serving => Ok(ended?),
            error = old_names => Err(error),
            () = too_long => {
                tracing::warn!("requests still ran when the shutdown timeout passed; they were cut off");
                Ok(())
            }
        }
    }
}
