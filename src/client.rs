//! A gRPC client of Ragward's services: to a server, or to the same services within this process.

use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc::Sender;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::backend::BackendError;
use crate::chunk::{Chunk, Document};
use crate::proto::ingest;
use crate::proto::ingest::ingest_service_client::IngestServiceClient;
use crate::proto::retrieval::retrieval_service_client::RetrievalServiceClient;
use crate::server::{ANSWER_BYTES_MAX, DOCUMENT_BYTES_MAX, metadata_message};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that one side of an in-process connection may be ahead of the other.
const PIPE_BYTES: usize = 256 * 1024;

/// A connection to the services, made when it is first used.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// A client of the server at an address such as `http://127.0.0.1:8980`.
    ///
    /// # Errors
    /// When the address is not one.
    pub fn at(address: &str) -> Result<Self, BackendError> {
        let malformed = |detail: String| BackendError::Address { address: address.to_owned(), detail };
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|e| malformed(format!(" ({e})")))?;
        if endpoint.uri().scheme_str() != Some("http") {
            return Err(malformed(String::new()));
        }
        Ok(Self { channel: endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true).connect_lazy() })
    }

    /// A client whose connections are handed to a server in this process.
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
        // Nothing resolves this address: the connector ignores it.
        Self { channel: Endpoint::from_static("http://in-process").connect_with_connector_lazy(connector) }
    }

    /// Retrieval.
    #[must_use]
    pub fn retrieval(&self) -> RetrievalServiceClient<Channel> {
        RetrievalServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Ingest.
    #[must_use]
    pub fn ingest(&self) -> IngestServiceClient<Channel> {
        IngestServiceClient::new(self.channel.clone()).max_encoding_message_size(DOCUMENT_BYTES_MAX)
    }

    /// Whether the server takes requests.
    ///
    /// # Errors
    /// When it is out of reach.
    pub async fn is_serving(&self) -> Result<bool, Status> {
        let mut health = HealthClient::new(self.channel.clone());
        let answer = health.check(HealthCheckRequest { service: String::new() }).await?;
        Ok(answer.into_inner().status() == ServingStatus::Serving)
    }
}

/// The message of a document.
#[must_use]
pub fn document_message(document: Document) -> ingest::Document {
    let chunk_message = |chunk: Chunk| ingest::Chunk {
        id: chunk.id,
        guard: chunk.guard.to_string(),
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
