//! The backends and bounds that the services work with.

use std::sync::Arc;
use std::time::Duration;

use super::audit::Audit;
use super::authentication::Authentication;
use super::doors::{Guards, McpSettings};
use super::operations::RelationshipEngine;
use super::tls::Tls;
use crate::authz::Authorizer;
use crate::authz::consistency_token::ConsistencyTokens;
use crate::identity::RequestContextRules;
use crate::ingest::IngestConfig;
use crate::retrieval::Retriever;
use crate::tuple_store::RelationshipStores;
use crate::vector_store::{DocumentStore, VectorStore};

/// The backends of the services, and the bounds of their work.
#[derive(Clone)]
pub struct Services {
    /// Answers retrievals and re-checks.
    pub retriever: Retriever,
    /// Tells what a collection holds.
    pub vector_store: Arc<dyn VectorStore>,
    /// Stores and deletes documents.
    pub documents: Arc<dyn DocumentStore>,
    /// How the texts of each collection are cut.
    pub ingest: IngestConfig,
    /// The embedded relationships, over which `OpenFGA`'s API is served. It is not served when an `OpenFGA` server decides.
    pub relationships: Option<RelationshipStores>,
    /// Whether callers that are believed may call `Explain`, which tells of hidden things.
    pub explain: bool,
    /// The longest that one request may take.
    pub request_timeout: Duration,
    /// The largest number of connections at a time.
    pub connections_max: usize,
    /// The TLS of the port. Without it, connections are plain.
    pub tls: Option<Tls>,
    /// Decides whether the bearer of a token may write.
    pub authorizer: Arc<dyn Authorizer>,
    /// The way in which callers are authenticated.
    pub authentication: Authentication,
    /// The client of `ragward login` at the issuers, which everybody may know.
    pub login_client_id: Option<String>,
    /// The parameters of conditions that requests may set.
    pub request_context: RequestContextRules,
    /// The names under which browsers may call the server, and the pages that may.
    pub guards: Guards,
    /// The door for MCP. `None` leaves it shut.
    pub mcp: Option<McpSettings>,
    /// The audit log. `None` is for local administration: whoever opens the data directory can also read its files
    /// without leaving a record, so a record would prove nothing.
    pub audit: Option<Audit>,
    /// The tokens behind the consistency "at least as fresh as".
    pub consistency_tokens: Arc<ConsistencyTokens>,
}

impl Services {
    /// Returns the engine that decides about relationships.
    pub(super) fn engine(&self) -> RelationshipEngine {
        match self.relationships {
            Some(_) => RelationshipEngine::Embedded,
            None => RelationshipEngine::OpenFga,
        }
    }
}
