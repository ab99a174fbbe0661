//! A gRPC client of Ragward's services: to a server, or to the same services within this process.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc::Sender;
use tonic::codegen::http::Uri;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::{Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::backend::{BackendChannel, BackendError, Credential, Secret, endpoint};
use crate::chunk::{Chunk, Document};
use crate::proto::ingest;
use crate::proto::ingest::ingest_service_client::IngestServiceClient;
use crate::proto::retrieval::retrieval_service_client::RetrievalServiceClient;
use crate::server::{ANSWER_BYTES_MAX, CONSISTENCY_TOKEN_HEADER, DOCUMENT_BYTES_MAX, LIVENESS, metadata_message};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that one side of an in-process connection may be ahead of the other.
const PIPE_BYTES: usize = 256 * 1024;

/// A connection to the services, made when it is first used.
#[derive(Clone, Debug)]
pub struct Client {
    channel: BackendChannel,
}

impl Client {
    /// A client of the server at an address such as `http://127.0.0.1:8980`.
    ///
    /// # Errors
    /// When the address is not one.
    pub fn at(address: &str) -> Result<Self, BackendError> {
        Self::calling(endpoint("the address", address)?, None)
    }

    /// The same, whose calls carry an access token.
    ///
    /// # Errors
    /// When the address is not one, or is on another machine and without TLS: what is sent there can be read on the way, and
    /// whoever holds the token is its subject (RFC 6750, section 5.3).
    pub fn with_token(address: &str, token: &Secret) -> Result<Self, BackendError> {
        let endpoint = endpoint("the address", address)?;
        if endpoint.uri().scheme_str() != Some("https") && !is_loopback(endpoint.uri()) {
            return Err(BackendError::Setting(format!(
                "an access token is not sent to `{address}` without TLS; use the `https://` address of the server's proxy, or a \
                 proxy on this machine that adds TLS"
            )));
        }
        Self::calling(endpoint, Some(token))
    }

    fn calling(endpoint: Endpoint, token: Option<&Secret>) -> Result<Self, BackendError> {
        let credential = Credential::bearer(token)?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        Ok(Self { channel: InterceptedService::new(endpoint.connect_lazy(), credential) })
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
        let channel = Endpoint::from_static("http://in-process").connect_with_connector_lazy(connector);
        Self { channel: InterceptedService::new(channel, Credential::default()) }
    }

    /// Retrieval.
    #[must_use]
    pub fn retrieval(&self) -> RetrievalServiceClient<BackendChannel> {
        RetrievalServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Ingest.
    #[must_use]
    pub fn ingest(&self) -> IngestServiceClient<BackendChannel> {
        IngestServiceClient::new(self.channel.clone()).max_encoding_message_size(DOCUMENT_BYTES_MAX)
    }

    /// Whether the server is as asked, and a consistency token of now.
    ///
    /// # Errors
    /// When it is out of reach.
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

/// What is asked of a server's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether a retrieval would be answered now.
    Readiness,
    /// Whether the process answers at all.
    Liveness,
}

/// How a server is.
#[derive(Clone, Debug)]
pub struct Health {
    /// Whether it is as was asked.
    pub serving: bool,
    /// See [`consistency_token`].
    pub consistency_token: String,
}

/// The token that came with an answer: whoever sends it back is answered with all that was written before. Empty when there
/// is none.
#[must_use]
pub fn consistency_token<T>(answer: &Response<T>) -> &str {
    answer.metadata().get(CONSISTENCY_TOKEN_HEADER).and_then(|token| token.to_str().ok()).unwrap_or_default()
}

fn is_loopback(address: &Uri) -> bool {
    let host = address.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
