//! A gRPC client of Ragward's services, on a server or within this process.
//!
//! The command line uses it for both. For a data directory, the command line starts the services within its own
//! process, so every command asks in the same way.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc::Sender;
use tonic::transport::Endpoint;
use tonic::{Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::authz::AuthzError;
use crate::authz::openfga::{Creation, OpenFgaStore, StoreSelector};
use crate::backend::{BackendChannel, BackendError, Credential, ServerAddress, keeps_secrets};
use crate::chunk::{Chunk, Document};
use crate::proto::ingest;
use crate::proto::ingest::ingest_service_client::IngestServiceClient;
use crate::proto::retrieval::retrieval_service_client::RetrievalServiceClient;
use crate::server::{ANSWER_BYTES_MAX, CONSISTENCY_TOKEN_HEADER, DOCUMENT_BYTES_MAX, LIVENESS, metadata_message};
use crate::settings::Secret;

/// The longest time that making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of bytes that one side of an in-process connection may write before the other side reads them.
const PIPE_BYTES: usize = 256 * 1024;

/// A server to call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteServer {
    /// Its address, such as `https://rag.example:8980`.
    pub address: String,
    /// A PEM file with the only authorities whose certificates are accepted from an `https://` address; those that the
    /// system trusts if there is none.
    pub ca_file: Option<PathBuf>,
    /// The access token that goes with every call.
    pub token: Option<Secret>,
}

/// A client, which connects when it is first used. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    channel: BackendChannel,
}

impl Client {
    /// Makes a client of the server at an address such as `http://127.0.0.1:8980`.
    ///
    /// # Errors
    /// When `address` is not an address.
    pub fn at(address: &str) -> Result<Self, BackendError> {
        Self::of_server(&RemoteServer { address: address.to_owned(), ..RemoteServer::default() })
    }

    /// Makes a client whose calls carry an access token.
    ///
    /// # Errors
    /// When `address` is not an address, or names another machine without TLS. On the way to such a machine the token
    /// could be read, and whoever holds a token can act as its subject (RFC 6750, section 5.3).
    pub fn with_token(address: &str, token: &Secret) -> Result<Self, BackendError> {
        let token = Some(token.clone());
        Self::of_server(&RemoteServer { address: address.to_owned(), token, ..RemoteServer::default() })
    }

    /// Makes a client of a server.
    ///
    /// # Errors
    /// When the address is not an address, or the file of authorities cannot be used. Also when there is a token, and the
    /// address names another machine without TLS. A token that is sent there can be read on the way, and whoever holds it is
    /// its subject (RFC 6750, section 5.3).
    pub fn of_server(server: &RemoteServer) -> Result<Self, BackendError> {
        let RemoteServer { address, ca_file, token } = server;
        let endpoint = ServerAddress { setting: "the address", address, ca_file: ca_file.as_deref() }.endpoint()?;
        if token.is_some() && !keeps_secrets(endpoint.uri()) {
            return Err(BackendError::Setting(format!(
                "an access token is not sent to `{address}` without TLS; use an `https://` address of the server, or a proxy on \
                 this machine that adds TLS"
            )));
        }
        let credential = Credential::bearer(token.as_ref())?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        Ok(Self { channel: BackendChannel::new(endpoint.connect_lazy(), credential) })
    }

    /// Makes a client that hands its connections to a server in this process.
    #[must_use]
    pub fn in_process(connections: Sender<io::Result<DuplexStream>>) -> Self {
        let connector = tower::service_fn(move |_address| {
            let connections = connections.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
                connections.send(Ok(theirs)).await.map_err(io::Error::other)?;
                Ok::<_, io::Error>(TokioIo::new(ours))
            }
        });
        // The connector ignores this address, so nothing resolves it.
        let channel = Endpoint::from_static("http://in-process").connect_with_connector_lazy(connector);
        Self { channel: BackendChannel::new(channel, Credential::default()) }
    }

    /// Returns the client of the retrieval service.
    #[must_use]
    pub fn retrieval(&self) -> RetrievalServiceClient<BackendChannel> {
        RetrievalServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Returns the client of the ingest service.
    #[must_use]
    pub fn ingest(&self) -> IngestServiceClient<BackendChannel> {
        IngestServiceClient::new(self.channel.clone()).max_encoding_message_size(DOCUMENT_BYTES_MAX)
    }

    /// Opens a store by `OpenFGA`'s API, which Ragward serves if its embedded engine decides. So the server may also be
    /// OpenFGA itself.
    ///
    /// # Errors
    /// See [`OpenFgaStore::on`].
    pub async fn store(&self, store: StoreSelector, creation: Creation) -> Result<OpenFgaStore, AuthzError> {
        OpenFgaStore::on(self.channel.clone(), store, creation).await
    }

    /// Asks for the health of the server. The answer comes with a consistency token of this moment.
    ///
    /// # Errors
    /// When the server is out of reach.
    pub async fn health(&self, asked: Probe) -> Result<Health, Status> {
        let service = match asked {
            Probe::Readiness => String::new(),
            Probe::Liveness => LIVENESS.to_owned(),
        };
        let mut health = HealthClient::new(self.channel.clone());
        let answer = health.check(HealthCheckRequest { service }).await?;
        let consistency_token = consistency_token(&answer).to_owned();
        Ok(Health { serving: answer.into_inner().status() == ServingStatus::Serving, consistency_token })
    }
}

/// A question about the health of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether a retrieval would be answered now.
    Readiness,
    /// Whether the process answers at all.
    Liveness,
}

/// The health of a server.
#[derive(Clone, Debug)]
pub struct Health {
    /// Whether the answer to the [`Probe`] is yes.
    pub serving: bool,
    /// The consistency token of the answer; empty when it has none.
    pub consistency_token: String,
}

/// Returns the consistency token of an answer, or an empty text if the answer has none. A request that carries the
/// token sees everything that was written before that answer.
#[must_use]
pub fn consistency_token<T>(answer: &Response<T>) -> &str {
    answer.metadata().get(CONSISTENCY_TOKEN_HEADER).and_then(|token| token.to_str().ok()).unwrap_or_default()
}

/// Turns a document into the message of an upload.
#[must_use]
pub fn document_message(document: Document) -> ingest::Document {
    let chunk_message = |chunk: Chunk| ingest::Chunk {
        id: chunk.id,
        guard: chunk.guard.to_string(),
        heading_path: chunk.heading_path,
        text: chunk.text,
        vector: chunk.vector,
        metadata: metadata_message(chunk.metadata),
    };
    ingest::Document {
        id: document.id,
        title: document.title,
        chunks: document.chunks.into_iter().map(chunk_message).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_stays_on_this_machine() {
        let token = Secret::new("token");
        let near = ["http://127.0.0.1:8980", "http://localhost:8980", "http://[::1]:8980"];
        for safe in near.into_iter().chain(["https://rag.example", "https://10.0.0.1:8980"]) {
            assert!(Client::with_token(safe, &token).is_ok(), "{safe}");
        }
        for far in ["http://10.0.0.1:8980", "http://rag.example", "http://127.0.0.1.example", "http://0.0.0.0:8980"] {
            let refused = Client::with_token(far, &token).map(drop);
            assert!(matches!(refused, Err(BackendError::Setting(_))), "{far}: {refused:?}");
        }
        let refused = Client::with_token("http://127.0.0.1:1", &Secret::new("a\nb")).map(drop);
        assert!(matches!(refused, Err(BackendError::Secret(_))), "{refused:?}");
    }
}
