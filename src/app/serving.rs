//! Turns opened backends into a running server, or into services within this process and a client that calls them.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};

use super::tls::Protection;
use super::{App, AppError, audit, identity, names};
use crate::authz::verification::Recording;
use crate::client::Client;
use crate::config::ConfigError;
use crate::server::{self, Addresses, Arrived, Authentication, Guards, McpSettings, Services, Stack, Tls};

/// The number of connections of an in-process client that may wait to be accepted.
const IN_PROCESS_CONNECTIONS: usize = 4;
/// How long a start waits for an authorizer's server that is out of reach, to check the names stored there. After that
/// Ragward serves, but accepts no tokens until the names are checked.
const NAMES_WAIT_MAX: Duration = Duration::from_secs(2);

impl App {
    /// Builds the services for a caller that holds the data directory: every caller is believed, and nothing is
    /// recorded. Whoever can open the directory can also read its files without leaving a record, so a record would
    /// prove nothing.
    fn local_services(&self) -> Services {
        Services {
            retriever: self.retriever.clone(),
            vector_store: Arc::clone(&self.vector_store),
            documents: Arc::clone(&self.documents),
            ingest: self.config.ingest.clone(),
            relationships: self.relationships.clone(),
            explain: self.config.server.explain,
            request_timeout: self.config.server.request_timeout,
            connections_max: self.config.server.connections_max,
            tls: None,
            authorizer: Arc::clone(&self.authorizer),
            authentication: Authentication::Believed,
            login_client_id: self.config.server.login_client_id.clone(),
            request_context: self.request_context.clone(),
            guards: Guards::default(),
            mcp: None,
            audit: None,
            consistency_tokens: Arc::clone(&self.consistency_tokens),
        }
    }

    /// Prepares everything that a server needs beside the backends: the identity of callers, and the audit log. Any
    /// reason to refuse the start is found here, before a port accepts connections.
    ///
    /// # Errors
    /// When the configuration does not say who is asking (see [`check`](super::check)), the audit log cannot be
    /// written, or stored names differ from those that tokens give.
    pub async fn prepare(&self) -> Result<PreparedServer<'_>, AppError> {
        let authentication = identity::authentication(&self.config)?;
        let protection = Protection::of(&self.config)?;
        let tokens = match &authentication {
            Authentication::Tokens(tokens) => Some(Arc::clone(tokens)),
            Authentication::Believed => None,
        };
        // The server accepts no token until stored names are checked. If the authorizer's server is out of reach, the
        // start does not wait long for it.
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
        let audit = audit::open(&self.config).await?;
        let (guards, tls) = (self.guards(), protection.tls().cloned());
        let mcp = self.config.server.mcp.as_ref();
        let mcp = mcp.map(|mcp| McpSettings {
            collection: mcp.collection.clone(),
            url_key: mcp.url_key.clone(),
            url_hosts: mcp.url_hosts.clone(),
            search_by: mcp.search_by,
            with_model: self.retriever.embeddings().collections().map(str::to_owned).collect(),
            explain: mcp.explain,
            approval_page: self.config.approval.as_ref().and_then(|approval| approval.page_url.clone()),
        });
        let services = Services { tls, authentication, guards, mcp, audit, ..self.local_services() };
        let verifier = self.replica.as_ref().and_then(|replica| replica.verifier());
        let recording = verifier.zip(services.audit.as_ref());
        let recording = recording.map(|(verifier, audit)| verifier.record_in(Arc::clone(&audit.sink)));
        let shutdown_timeout = self.config.server.shutdown_timeout;
        Ok(PreparedServer { services, protection, shutdown_timeout, old_names, _recording: recording })
    }

    /// Returns the names under which the server may be called, and the pages that may call. Its public URL names the server, too,
    /// and so does a URL as an audience of tokens.
    fn guards(&self) -> Guards {
        let server = &self.config.server;
        let names = [
            server.public_url.as_deref(),
            self.config.identity.audience.as_deref(),
            server.mcp.as_ref().map(|mcp| mcp.url.as_str()),
        ];
        let urls = names.into_iter().flatten().filter_map(|name| url::Url::parse(name).ok());
        let of_urls = urls.filter_map(|url| url.host_str().map(str::to_owned));
        let hosts = server.hosts.iter().cloned().chain(of_urls).collect();
        let addresses = if server.listen.ip().is_loopback() { Addresses::Loopback } else { Addresses::Any };
        Guards { hosts, addresses, origins: server.cors_origins.clone() }
    }

    /// Prepares the server and then serves, like [`PreparedServer::serve`].
    ///
    /// # Errors
    /// Returns the errors of [`App::prepare`] and of [`PreparedServer::serve`].
    pub async fn serve(&self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        self.prepare().await?.serve(listener, stop).await
    }

    /// Starts the services without a network, for commands that work on a data directory. A caller needs no token, and
    /// nothing is recorded, because whoever can open the directory can read and change everything in it.
    ///
    /// # Errors
    /// When the services cannot be described.
    pub fn in_process(&self) -> Result<InProcessServer, AppError> {
        let stack = Stack::new(Services { explain: true, ..self.local_services() })?;
        let (connections, incoming) = tokio::sync::mpsc::channel(IN_PROCESS_CONNECTIONS);
        let incoming = ReceiverStream::new(incoming)
            .map(|pipe: io::Result<DuplexStream>| pipe.map(|io| Arrived { io, peer: None }));
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(stack.serve(incoming, async move {
            let Err(_dropped) = stopped.await;
        }));
        Ok(InProcessServer { client: Client::in_process(connections), stop, serving })
    }
}

/// The services of an [`App`] within this process. They stop when this value is dropped; [`InProcessServer::close`]
/// also waits until they have stopped.
#[derive(Debug)]
pub struct InProcessServer {
    client: Client,
    /// The services stop when this is dropped. Nothing is ever sent through it.
    stop: oneshot::Sender<Infallible>,
    serving: JoinHandle<()>,
}

impl InProcessServer {
    /// Returns a client, whose calls are answered until the services stop.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Stops the services, and waits until the requests and writes that still run have ended.
    pub async fn close(self) {
        let Self { client, stop, serving } = self;
        drop((client, stop));
        if let Err(lost) = serving.await {
            tracing::error!(%lost, "the services of this process ended early");
        }
    }
}

/// A server that can serve as soon as it gets a listener.
pub struct PreparedServer<'a> {
    services: Services,
    protection: Protection,
    shutdown_timeout: Duration,
    /// Becomes ready only if stored names turn out to differ from those that tokens give.
    old_names: Pin<Box<dyn Future<Output = AppError> + Send + 'a>>,
    /// Keeps the replica's verifications recorded. It is dropped when the services end.
    _recording: Option<Recording>,
}

impl PreparedServer<'_> {
    /// Returns the TLS of the port, if it has one. It looks at its files by itself while the server runs, and at once if it is
    /// told to.
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        self.protection.tls()
    }

    /// Serves a listener until `stop` is ready. Running requests may then go on for `server.shutdown_timeout`.
    ///
    /// # Errors
    /// When others could reach the listener without TLS, the services cannot be described, or stored names differ from those
    /// that tokens give.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        let Self { services, protection, shutdown_timeout, old_names, _recording } = self;
        let address = listener.local_addr();
        let address =
            address.map_err(|e| ConfigError::Invalid(format!("the address of the listener is unknown: {e}")))?;
        // The listener may be on another address than `server.listen`.
        protection.admit_port(address)?;
        tracing::info!(%address, "serving");
        let connections = TcpListenerStream::new(listener).map(|connection: io::Result<TcpStream>| {
            let stream = connection?;
            // Answers are small. Waiting to fill a packet would only add latency.
            stream.set_nodelay(true)?;
            let peer = stream.peer_addr()?.ip();
            io::Result::Ok(Arrived { io: stream, peer: Some(peer) })
        });
        let (stopping, stopped) = oneshot::channel();
        let stop = async move {
            stop.await;
            if stopping.send(()).is_err() {
                tracing::debug!("the server ended before it was told to stop");
            }
        };
        let serving = server::serve(services, connections, stop);
        let too_long = async {
            match stopped.await {
                Ok(()) => tokio::time::sleep(shutdown_timeout).await,
                Err(_) => std::future::pending().await,
            }
        };
        let keeping_tls_current = async {
            match protection.tls() {
                Some(tls) => tls.keep_current().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = serving => Ok(ended?),
            never = keeping_tls_current => match never {},
            error = old_names => Err(error),
            () = too_long => {
                tracing::warn!("requests still ran when the shutdown timeout passed; they were cut off");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Probe;
    use crate::config::Config;

    #[tokio::test]
    async fn services_of_this_process_end_when_they_are_closed() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data.directory = directory.path().to_owned();
        let services = App::open(&config).await.unwrap().in_process().unwrap();
        let client = services.client().clone();
        assert!(client.health(Probe::Liveness).await.unwrap().serving);
        services.close().await;
        assert!(client.health(Probe::Liveness).await.is_err(), "nobody answers any more");
    }
}
