//! The server: a stack of record, gate and gRPC services, and the port that lets callers reach it.
//!
//! ```text
//! connections → TLS → port door → stack: record → gate → services → retrieval, ingest, OpenFGA's API
//! ```
//!
//! The services are thin: they turn messages into calls of `retrieval` and the document store, and errors into refusals.
//!
//! INVARIANT (permitted only): nothing here takes a bare `Chunk` towards a response. `Retrieve` answers with what `retrieval`
//! hands out, which is `Permitted`.

mod answers;
mod arriving;
mod audit;
mod authentication;
mod connections;
mod consistency_token;
mod deadline;
mod dispatcher;
mod doors;
mod explain;
mod grpc;
mod health;
mod ingest;
mod openfga;
mod operations;
mod plain_http;
mod public;
mod reflection;
mod refusal;
mod resource_metadata;
mod retrieval;
mod services;
mod stack;
mod tls;
mod values;

use std::io;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

pub use audit::Audit;
pub use authentication::{Authentication, Nonces, Possession, TokenAuthentication};
pub use connections::Arrived;
pub(crate) use consistency_token::HEADER as CONSISTENCY_TOKEN_HEADER;
pub use doors::{Addresses, Guards, LocalMcp, McpAsked, McpSettings, PendingCall, RequestId};
pub(crate) use health::LIVENESS;
pub use refusal::{HttpFault, Refusal};
pub use services::Services;
pub use stack::{InProcessAnswer, Stack};
pub use tls::{Tls, TlsError};
pub(crate) use values::metadata_message;

/// The largest message of an upload in bytes: one document with its vectors.
pub const DOCUMENT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The largest answer in bytes that Ragward's own client accepts: 100 chunks of the longest text and metadata.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The reason why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The descriptors cannot be served.
    #[error("the service descriptors cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The descriptors of `OpenFGA`'s API cannot be read.
    #[error("the descriptors of OpenFGA's API cannot be read: {0}")]
    Descriptors(#[from] prost::DecodeError),
    /// The descriptors lack an RPC that a tool calls.
    #[error("the descriptors of the services lack an RPC that a tool of MCP calls")]
    NoToolRpc,
    /// The descriptors do not fit together.
    #[error("the descriptors of the services do not fit together: {0}")]
    Pool(#[from] prost_reflect::DescriptorError),
}

/// Serves connections until `stop` is ready, then until the requests that run have ended.
///
/// # Errors
/// When the services cannot be described.
pub async fn serve<I, IO>(services: Services, connections: I, stop: impl Future<Output = ()>) -> Result<(), ServerError>
where
    I: Stream<Item = io::Result<Arrived<IO>>>,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Stack::new(services)?.serve(connections, stop).await;
    Ok(())
}
