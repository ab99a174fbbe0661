//! The gRPC server: thin adapters from messages to `retrieval` and the document store, and from errors to statuses.
//!
//! INVARIANT (permitted only): nothing here takes a bare `Chunk` towards a response; `Retrieve` answers with what
//! `retrieval` hands out, which is `Permitted`.

mod audit;
mod authentication;
mod consistency_token;
mod deadline;
mod explain;
mod ingest;
mod openfga;
mod reflection;
mod resource_metadata;
mod retrieval;
mod status;
mod values;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_health::server::HealthReporter;
use tower::util::MapResponseLayer;

pub use audit::Audit;
pub use authentication::{Authentication, TokenAuthentication};
pub(crate) use consistency_token::HEADER as CONSISTENCY_TOKEN_HEADER;
pub(crate) use values::metadata_message;

use self::audit::AuditLayer;
use self::authentication::AuthenticationLayer;
use crate::authz::Authorizer;
use crate::authz::consistency_token::ConsistencyTokens;
use crate::proto::ingest::ingest_service_server::IngestServiceServer;
use crate::proto::openfga::open_f_g_a_service_server::OpenFGAServiceServer;
use crate::proto::retrieval::retrieval_service_server::RetrievalServiceServer;
use crate::relationship::store::RelationshipStores;
use crate::retrieval::Retriever;
use crate::vector_store::{DocumentStore, VectorStore};

/// Largest message of an ingest stream: one document with its vectors.
pub const DOCUMENT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Largest answer that a client of ours takes: 100 chunks of the longest text and metadata.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest request for chunks: a vector and a filter, or the ids of a re-check.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Most requests of one connection that run at a time; more wait.
const CONCURRENT_REQUESTS_MAX: usize = 256;
/// Largest headers of a request. A token that is too long is refused as every wrong one is; headers that are larger still
/// end at the connection.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// How often an idle connection is asked whether it is still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// What the services work on.
#[derive(Clone)]
pub struct Services {
    /// Answers retrievals.
    pub retriever: Retriever,
    /// Tells what a collection holds.
    pub vector_store: Arc<dyn VectorStore>,
    /// Takes documents in.
    pub documents: Arc<dyn DocumentStore>,
    /// What `OpenFGA`'s API is served over; not served when an `OpenFGA` server decides.
    pub relationships: Option<RelationshipStores>,
    /// Whether `Explain` is served. It tells of what is hidden.
    pub explain: bool,
    /// The longest that one request may take.
    pub request_timeout: Duration,
    /// Decides whether the bearer of a token may write.
    pub authorizer: Arc<dyn Authorizer>,
    /// Who is let in.
    pub authentication: Authentication,
    /// Where calls are recorded; nowhere when `None`.
    pub audit: Option<Audit>,
    /// The tokens of "at least as fresh as".
    pub consistency_tokens: Arc<ConsistencyTokens>,
}

/// Why the server did not start, or stopped early.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The connection layer failed.
    #[error("the gRPC server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors cannot be served.
    #[error("the service descriptors cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The descriptors of `OpenFGA`'s API cannot be read.
    #[error("the descriptors of OpenFGA's API cannot be read: {0}")]
    Descriptors(#[from] prost::DecodeError),
}

/// Serves connections until `stop` is ready and the requests that run then have ended.
///
/// # Errors
/// When the connection layer fails.
pub async fn serve<I, IO>(services: Services, connections: I, stop: impl Future<Output = ()>) -> Result<(), ServerError>
where
    I: Stream<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<RetrievalServiceServer<retrieval::RetrievalApi>>().await;
    health.set_serving::<IngestServiceServer<ingest::IngestApi>>().await;
    let retrieval = RetrievalServiceServer::new(retrieval::RetrievalApi::new(&services))
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let ingest =
        IngestServiceServer::new(ingest::IngestApi::new(&services)).max_decoding_message_size(DOCUMENT_BYTES_MAX);

    let openfga = services.relationships.map(|stores| {
        let openfga = openfga::OpenFgaApi::new(stores, services.request_timeout);
        OpenFGAServiceServer::new(openfga).max_decoding_message_size(openfga::MESSAGE_BYTES_MAX)
    });
    if openfga.is_some() {
        health.set_serving::<OpenFGAServiceServer<openfga::OpenFgaApi>>().await;
    }
    let reflection = reflection::builders(openfga.is_some())?;
    let public = match &services.authentication {
        Authentication::Tokens(tokens) => Routes::from(resource_metadata::router(tokens)),
        Authentication::Believed => Routes::default(),
    };

    Server::builder()
        .concurrency_limit_per_connection(CONCURRENT_REQUESTS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        // A client may read the metadata of the resource with HTTP/1.1. What it sends meets the same gate.
        .accept_http1(true)
        .layer(MapResponseLayer::new(openfga::restore_number))
        .layer(MapResponseLayer::new(consistency_token::adding(services.consistency_tokens)))
        // Around the gate, so that it sees who is refused there, too.
        .layer(AuditLayer(services.audit))
        .layer(AuthenticationLayer { authentication: services.authentication, authorizer: services.authorizer })
        .add_routes(public)
        .add_service(health_service)
        .add_service(reflection.v1.build_v1()?)
        .add_service(reflection.v1alpha.build_v1alpha()?)
        .add_service(retrieval)
        .add_service(ingest)
        .add_optional_service(openfga)
        .serve_with_incoming_shutdown(connections, async move {
            stop.await;
            stop_serving(&health).await;
        })
        .await?;
    Ok(())
}

/// Tells load balancers to go elsewhere while the last requests end.
async fn stop_serving(health: &HealthReporter) {
    let services = [
        RetrievalServiceServer::<retrieval::RetrievalApi>::NAME,
        IngestServiceServer::<ingest::IngestApi>::NAME,
        OpenFGAServiceServer::<openfga::OpenFgaApi>::NAME,
        "",
    ];
    for service in services {
        health.set_service_status(service, tonic_health::ServingStatus::NotServing).await;
    }
}
