//! The gRPC server: thin adapters from messages to `retrieval` and the document store, and from errors to statuses.
//!
//! INVARIANT (permitted only): nothing here takes a bare `Chunk` towards a response; `Retrieve` answers with what
//! `retrieval` hands out, which is `Permitted`.

mod answers;
mod audit;
mod authentication;
mod connections;
mod consistency_token;
mod deadline;
mod explain;
mod health;
mod ingest;
mod openfga;
mod operations;
mod plain_http;
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
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower::ServiceBuilder;
use tower::util::{BoxCloneSyncService, MapResponseLayer};

pub use audit::Audit;
pub use authentication::{Authentication, TokenAuthentication};
pub use connections::Arrived;
pub(crate) use consistency_token::HEADER as CONSISTENCY_TOKEN_HEADER;
pub(crate) use health::LIVENESS;
pub(crate) use values::metadata_message;

use self::audit::AuditLayer;
use self::authentication::AuthenticationLayer;
use self::health::{HealthApi, Readiness};
use self::plain_http::PlainHttpLayer;
use crate::authz::Authorizer;
use crate::authz::consistency_token::ConsistencyTokens;
use crate::proto::ingest::ingest_service_server::IngestServiceServer;
use crate::proto::openfga::open_f_g_a_service_server::OpenFGAServiceServer;
use crate::proto::retrieval::retrieval_service_server::RetrievalServiceServer;
use crate::retrieval::Retriever;
use crate::tuple_store::RelationshipStores;
use crate::vector_store::{DocumentStore, VectorStore};

/// Largest message of an ingest stream: one document with its vectors.
pub const DOCUMENT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Largest answer that a client of ours takes: 100 chunks of the longest text and metadata.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest request for chunks: a vector and a filter, or the ids of a re-check.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;
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
    /// Most connections at a time.
    pub connections_max: usize,
    /// Decides whether the bearer of a token may write.
    pub authorizer: Arc<dyn Authorizer>,
    /// Who is let in.
    pub authentication: Authentication,
    /// Where calls are recorded; nowhere when `None`.
    pub audit: Option<Audit>,
    /// The tokens of "at least as fresh as".
    pub consistency_tokens: Arc<ConsistencyTokens>,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
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
/// When the services cannot be described.
pub async fn serve<I, IO>(services: Services, connections: I, stop: impl Future<Output = ()>) -> Result<(), ServerError>
where
    I: Stream<Item = io::Result<Arrived<IO>>>,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let readiness = Readiness::new(&services);
    let health = HealthServer::new(HealthApi::new(Arc::clone(&readiness), services.relationships.is_some()));
    let retrieval = RetrievalServiceServer::new(retrieval::RetrievalApi::new(&services))
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let ingest =
        IngestServiceServer::new(ingest::IngestApi::new(&services)).max_decoding_message_size(DOCUMENT_BYTES_MAX);

    let openfga = services.relationships.map(|stores| {
        let openfga = openfga::OpenFgaApi::new(stores, services.request_timeout);
        OpenFGAServiceServer::new(openfga).max_decoding_message_size(openfga::MESSAGE_BYTES_MAX)
    });
    let reflection = reflection::builders(openfga.is_some())?;
    let public = match &services.authentication {
        Authentication::Tokens(tokens) => Routes::from(resource_metadata::router(tokens)),
        Authentication::Believed => Routes::default(),
    };
    let routes = public
        .add_service(health)
        .add_service(reflection.v1.build_v1()?)
        .add_service(reflection.v1alpha.build_v1alpha()?)
        .add_service(retrieval)
        .add_service(ingest);
    let routes = match openfga {
        Some(openfga) => routes.add_service(openfga),
        None => routes,
    };

    let service = ServiceBuilder::new()
        .layer(PlainHttpLayer)
        .layer(MapResponseLayer::new(openfga::restore_number))
        .layer(MapResponseLayer::new(consistency_token::adding(services.consistency_tokens)))
        // Around the gate, so that it sees who is refused there, too.
        .layer(AuditLayer(services.audit))
        .layer(AuthenticationLayer { authentication: services.authentication, authorizer: services.authorizer })
        .service(routes.prepare());
    let stop = async move {
        stop.await;
        readiness.stop();
    };
    let service = BoxCloneSyncService::new(service);
    connections::serve(service, connections, services.connections_max, services.request_timeout, stop).await;
    Ok(())
}
