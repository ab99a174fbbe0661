//! The composition root: from a configuration to backends, and from backends to a retriever or a running server.

#[cfg(feature = "server")]
mod audit;
#[cfg(feature = "server")]
mod check;
#[cfg(feature = "server")]
mod identity;
#[cfg(feature = "server")]
mod names;
#[cfg(feature = "openfga")]
mod openfga;
#[cfg(feature = "qdrant")]
mod qdrant;
#[cfg(feature = "openfga")]
mod replica;
#[cfg(feature = "server")]
mod serving;

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "server")]
pub use self::audit::audit_config;
#[cfg(feature = "server")]
pub use self::check::check;
#[cfg(feature = "server")]
pub use self::names::{NamesReport, OldTuple, rewrite_names};
#[cfg(feature = "openfga")]
pub use self::openfga::{open_replica, openfga_config, replica_directory, stack_checks};
#[cfg(feature = "qdrant")]
pub use self::qdrant::open_qdrant;
#[cfg(feature = "server")]
pub use self::serving::PreparedServer;
use crate::audit::AuditError;
#[cfg(feature = "server")]
use crate::authz::consistency_token::ConsistencyTokens;
use crate::authz::embedded::EmbeddedAuthorizer;
#[cfg(feature = "server")]
use crate::authz::replica::ReplicaAuthorizer;
use crate::authz::{Authorizer, AuthzError};
#[cfg(any(feature = "openfga", feature = "qdrant"))]
use crate::backend::BackendError;
use crate::config::{self, AuthorizerKind, Config, ConfigError, VectorStoreKind};
use crate::error_code::ErrorCode;
use crate::language::{ParseError, Relation};
use crate::retrieval::page::{PageKeyError, Pages};
use crate::retrieval::{RetrievalConfig, Retriever};
#[cfg(feature = "server")]
use crate::server::ServerError;
use crate::storage::StorageError;
use crate::tuple_store::RelationshipStores;
use crate::vector_store::exact::ExactStore;
use crate::vector_store::{DocumentStore, VectorStore, VectorStoreError};

/// The backends that a configuration names, opened, with a retriever over them.
pub struct App {
    retriever: Retriever,
    authorizer: Arc<dyn Authorizer>,
    relationships: Option<RelationshipStores>,
    documents: Arc<dyn DocumentStore>,
    #[cfg(feature = "server")]
    vector_store: Arc<dyn VectorStore>,
    #[cfg(feature = "server")]
    config: Config,
    #[cfg(feature = "server")]
    replica: Option<Arc<ReplicaAuthorizer>>,
    /// One for all servers of these backends, so that each takes the tokens that another gave.
    #[cfg(feature = "server")]
    consistency_tokens: Arc<ConsistencyTokens>,
}

/// Why the backends cannot be opened or served.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Who is let in is not said, or said wrongly.
    #[error("{0}")]
    Identity(String),
    /// Stored names are not those that tokens give.
    #[error("{0}")]
    OldNames(String),
    /// Stored names cannot be read.
    #[error("stored names cannot be checked: {0}")]
    Names(AuthzError),
    /// The configured relation is not one.
    #[error("`retrieval.relation`: {0}")]
    Relation(#[from] ParseError),
    /// The relationships cannot be opened.
    #[error(transparent)]
    Relationships(#[from] StorageError),
    /// The chunks cannot be opened.
    #[error(transparent)]
    Chunks(#[from] VectorStoreError),
    /// The configuration names a backend that this build does not have.
    #[error(
        "`{setting}` asks for `{feature}`, which this build does not have; build ragward with the feature `{feature}`"
    )]
    LeftOut {
        /// The setting that names the backend.
        setting: &'static str,
        /// The cargo feature that brings it.
        feature: &'static str,
    },
    /// The address of a server is not one.
    #[cfg(any(feature = "openfga", feature = "qdrant"))]
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The key of page tokens cannot be used.
    #[error("`retrieval.page_token_key_file`: {0}")]
    PageKey(#[from] PageKeyError),
    /// The audit log cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for the key of consistency tokens")]
    NoRandom,
    /// The server failed.
    #[cfg(feature = "server")]
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A thread ended early.
    #[error("opening the data directory failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl AppError {
    /// What the caller can do.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Config(_) | Self::Identity(_) | Self::Relation(_) | Self::PageKey(_) => ErrorCode::InvalidArgument,
            #[cfg(any(feature = "openfga", feature = "qdrant"))]
            Self::Backend(_) => ErrorCode::InvalidArgument,
            Self::OldNames(_) | Self::LeftOut { .. } => ErrorCode::FailedPrecondition,
            Self::Names(e) => e.code(),
            Self::Relationships(e) => e.into(),
            Self::Chunks(e) => e.code(),
            Self::Audit(e) => e.code(),
            #[cfg(feature = "server")]
            Self::Server(_) => ErrorCode::Unavailable,
            Self::NoRandom | Self::Task(_) => ErrorCode::Internal,
        }
    }
}

impl App {
    /// Opens what the configuration names. Servers are not contacted yet: they may come up later.
    ///
    /// # Errors
    /// When the configuration makes no sense or the data directory cannot be opened.
    pub async fn open(config: &Config) -> Result<Self, AppError> {
        let retrieval = retrieval_config(config)?;
        #[cfg(feature = "openfga")]
        let replica = openfga::open_configured_replica(config).await?;
        #[cfg(feature = "openfga")]
        let replicated = replica.as_ref().map(|replica| Arc::clone(replica) as Arc<dyn Authorizer>);
        #[cfg(not(feature = "openfga"))]
        let replicated: Option<Arc<dyn Authorizer>> = None;
        let (authorizer, relationships) = match replicated {
            Some(authorizer) => (authorizer, None),
            None => open_authorizer(config).await?,
        };
        let (vector_store, documents) = open_vector_store(config).await?;
        Ok(Self {
            retriever: Retriever::new(Arc::clone(&authorizer), Arc::clone(&vector_store), retrieval),
            authorizer,
            relationships,
            documents,
            #[cfg(feature = "server")]
            vector_store,
            #[cfg(feature = "server")]
            config: config.clone(),
            #[cfg(feature = "server")]
            replica,
            #[cfg(feature = "server")]
            consistency_tokens: Arc::new(ConsistencyTokens::new().map_err(|_unspecified| AppError::NoRandom)?),
        })
    }

    /// Answers retrievals from the opened backends, in this process and without a server.
    #[must_use]
    pub fn retriever(&self) -> &Retriever {
        &self.retriever
    }

    /// Decides who may see what.
    #[must_use]
    pub fn authorizer(&self) -> &dyn Authorizer {
        self.authorizer.as_ref()
    }

    /// Takes documents in, for the searches of [`Self::retriever`].
    #[must_use]
    pub fn documents(&self) -> &dyn DocumentStore {
        self.documents.as_ref()
    }

    /// The embedded relationship stores; `None` when an `OpenFGA` server decides.
    #[must_use]
    pub fn relationships(&self) -> Option<&RelationshipStores> {
        self.relationships.as_ref()
    }
}

/// Who decides, and the relationships where they are embedded.
pub type OpenedAuthorizer = (Arc<dyn Authorizer>, Option<RelationshipStores>);

/// Opens the authorizer alone: the data directory is not needed when an `OpenFGA` server decides.
///
/// # Errors
/// As [`App::open`].
pub async fn open_authorizer(config: &Config) -> Result<OpenedAuthorizer, AppError> {
    match config.authorizer.kind {
        AuthorizerKind::Embedded => {
            let directory = config.data.directory.clone();
            let stores = tokio::task::spawn_blocking(move || RelationshipStores::open(&directory)).await??;
            Ok((Arc::new(EmbeddedAuthorizer::new(stores.clone())), Some(stores)))
        }
        #[cfg(feature = "openfga")]
        AuthorizerKind::Openfga => {
            Ok((Arc::new(stack_checks(&openfga_config(config)?, &config.authorizer.checks)?), None))
        }
        #[cfg(not(feature = "openfga"))]
        AuthorizerKind::Openfga => Err(AppError::LeftOut { setting: "authorizer.kind", feature: "openfga" }),
    }
}

/// Reads the settings that the retriever needs, and checks them.
fn retrieval_config(config: &Config) -> Result<RetrievalConfig, AppError> {
    Ok(RetrievalConfig {
        relation: Relation::parse(&config.retrieval.relation)?,
        top_k_max: config.retrieval.top_k_max,
        candidates_max: config.retrieval.candidates_max,
        guards_checked_max: config.retrieval.guards_checked_max,
        pages: pages(config)?,
        explain_plan: config.retrieval.explain_plan,
    })
}

fn pages(config: &Config) -> Result<Pages, AppError> {
    let lifetime = Duration::from_millis(config.retrieval.page_token_lifetime_ms);
    Ok(match config::read_secret(&config.retrieval.page_token_key_file)? {
        Some(secret) => Pages::with_key(secret.as_bytes(), lifetime)?,
        None => Pages::new(lifetime)?,
    })
}

type OpenedVectorStore = (Arc<dyn VectorStore>, Arc<dyn DocumentStore>);

async fn open_vector_store(config: &Config) -> Result<OpenedVectorStore, AppError> {
    match config.vector_store.kind {
        VectorStoreKind::Embedded => {
            let directory = config.data.directory.clone();
            let store = tokio::task::spawn_blocking(move || ExactStore::open(&directory)).await??;
            let store = Arc::new(store);
            Ok((Arc::clone(&store) as Arc<dyn VectorStore>, store))
        }
        #[cfg(feature = "qdrant")]
        VectorStoreKind::Qdrant => {
            let store = Arc::new(qdrant::open_configured(config)?);
            Ok((Arc::clone(&store) as Arc<dyn VectorStore>, store))
        }
        #[cfg(not(feature = "qdrant"))]
        VectorStoreKind::Qdrant => Err(AppError::LeftOut { setting: "vector_store.kind", feature: "qdrant" }),
    }
}
