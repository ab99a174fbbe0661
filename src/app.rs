//! The composition root: it opens the backends that a configuration names, and builds a retriever or a running server
//! over them.

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
#[cfg(feature = "server")]
mod possession;
#[cfg(feature = "qdrant")]
mod qdrant;
#[cfg(feature = "openfga")]
mod replica;
#[cfg(feature = "server")]
mod serving;
#[cfg(feature = "server")]
mod tls;
#[cfg(any(test, not(feature = "server")))]
mod unserved;

#[cfg(feature = "server")]
use std::net::SocketAddr;
use std::sync::Arc;

#[cfg(feature = "server")]
pub use self::check::check;
#[cfg(feature = "server")]
pub use self::names::{NamesReport, OldNamesAction, OldTuple, rewrite_names};
#[cfg(feature = "openfga")]
pub use self::openfga::{open_replica, replica_directory, stack_checks};
#[cfg(feature = "qdrant")]
pub use self::qdrant::open_qdrant;
#[cfg(feature = "server")]
pub use self::serving::{InProcessServer, PreparedServer};
use crate::audit::AuditError;
#[cfg(feature = "server")]
use crate::authz::consistency_token::ConsistencyTokens;
use crate::authz::embedded::EmbeddedAuthorizer;
#[cfg(feature = "server")]
use crate::authz::replica::ReplicaAuthorizer;
use crate::authz::{Authorizer, AuthzError};
#[cfg(any(feature = "openfga", feature = "qdrant"))]
use crate::backend::BackendError;
use crate::config::{AuthorizerKind, Config, ConfigError, VectorStoreKind};
use crate::error_code::ErrorCode;
#[cfg(feature = "server")]
use crate::identity::RequestContextRules;
use crate::identity::config::IdentityConfigError;
#[cfg(feature = "server")]
use crate::inference::{Embeddings, InferenceSetupError, Rerankers};
#[cfg(feature = "server")]
use crate::retrieval::OtherSystems;
use crate::retrieval::page::{PageKeyError, Pages};
use crate::retrieval::{RetrievalConfig, Retriever};
#[cfg(feature = "server")]
use crate::server::{ServerError, TlsError};
use crate::settings::SecretError;
#[cfg(feature = "server")]
use crate::sources::{HttpSources, SourceSetupError, SourceSystems, check_issuers};
use crate::storage::StorageError;
use crate::tuple_store::RelationshipStores;
use crate::vector_store::exact::ExactStore;
use crate::vector_store::{DocumentStore, VectorStore, VectorStoreError};

/// The opened backends of a configuration, with a retriever over them.
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
    request_context: RequestContextRules,
    #[cfg(feature = "server")]
    replica: Option<Arc<ReplicaAuthorizer>>,
    /// The issuer and verifier of consistency tokens. All servers over these backends share it, so each server accepts
    /// the tokens that another one issued.
    #[cfg(feature = "server")]
    consistency_tokens: Arc<ConsistencyTokens>,
}

/// Says why the backends cannot be opened or served.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration does not say who is let in, or says it wrongly.
    #[error("{0}")]
    Identity(String),
    /// The section `[identity]` cannot be used.
    #[error(transparent)]
    IdentityConfig(#[from] IdentityConfigError),
    /// The file of a secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Others can reach an address, and no TLS protects it.
    #[cfg(feature = "server")]
    #[error("`{setting}` is `{address}`, which others can reach, and nothing encrypts what is sent there: {remedy}")]
    Unprotected {
        /// The setting that names the address.
        setting: &'static str,
        /// The address that others can reach.
        address: SocketAddr,
        /// The change to the configuration that protects it.
        remedy: &'static str,
    },
    /// The files of the port's TLS cannot be used.
    #[cfg(feature = "server")]
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store holds names in an older encoding, which access tokens no longer produce.
    #[error("{0}")]
    OldNames(String),
    /// Stored names cannot be read.
    #[error("stored names cannot be checked: {0}")]
    Names(AuthzError),
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
        /// The cargo feature that brings the backend.
        feature: &'static str,
    },
    /// The configuration asks for work of a server, and this build has no server.
    #[error(
        "`{setting}` needs a server, which this build does not have: {remedy}, or build ragward with the feature `server` \
         and let callers ask that server"
    )]
    ServerOnly {
        /// The setting that asks for the server's work.
        setting: &'static str,
        /// A change to the configuration that makes this build accept it.
        remedy: &'static str,
    },
    /// The address of a server is malformed, or its credential cannot be sent.
    #[cfg(any(feature = "openfga", feature = "qdrant"))]
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A source cannot be asked as configured.
    #[cfg(feature = "server")]
    #[error(transparent)]
    Sources(#[from] SourceSetupError),
    /// A model cannot be asked as configured.
    #[cfg(feature = "server")]
    #[error(transparent)]
    Inference(#[from] InferenceSetupError),
    /// The key of page tokens cannot be used.
    #[error("`retrieval.page_token_key_file`: {0}")]
    PageKey(#[from] PageKeyError),
    /// The audit log cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for the key of consistency tokens")]
    NoRandom,
    /// The gRPC server cannot listen, or it ended with an error while it served.
    #[cfg(feature = "server")]
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A thread ended before its work was done.
    #[error("opening the data directory failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl AppError {
    /// Returns what the caller can do about this error.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Config(_) | Self::Identity(_) | Self::IdentityConfig(_) | Self::Secret(_) | Self::PageKey(_) => {
                ErrorCode::InvalidArgument
            }
            #[cfg(any(feature = "openfga", feature = "qdrant"))]
            Self::Backend(_) => ErrorCode::InvalidArgument,
            #[cfg(feature = "server")]
            Self::Sources(_) | Self::Inference(_) => ErrorCode::InvalidArgument,
            Self::OldNames(_) | Self::LeftOut { .. } | Self::ServerOnly { .. } => ErrorCode::FailedPrecondition,
            Self::Names(e) => e.code(),
            Self::Relationships(e) => e.into(),
            Self::Chunks(e) => e.code(),
            Self::Audit(e) => e.code(),
            #[cfg(feature = "server")]
            Self::Unprotected { .. } | Self::Tls(_) => ErrorCode::InvalidArgument,
            #[cfg(feature = "server")]
            Self::Server(_) => ErrorCode::Unavailable,
            Self::NoRandom | Self::Task(_) => ErrorCode::Internal,
        }
    }
}

impl App {
    /// Opens the backends that the configuration names. Servers are not contacted yet, so they may come up later.
    ///
    /// # Errors
    /// When the configuration makes no sense, or the data directory cannot be opened. A build without the feature `server`
    /// also refuses `audit.required` and `identity.issuers`, because only a server heeds them.
    pub async fn open(config: &Config) -> Result<Self, AppError> {
        #[cfg(not(feature = "server"))]
        unserved::check(config)?;
        #[cfg(feature = "server")]
        let request_context = RequestContextRules::new(&config.identity)?;
        let (retrieval, pages) = (config.retrieval.clone(), pages(&config.retrieval)?);
        #[cfg(feature = "openfga")]
        let replica = openfga::open_configured_replica(config).await?;
        #[cfg(feature = "openfga")]
        let replicated = replica.as_ref().map(|replica| Arc::clone(replica) as Arc<dyn Authorizer>);
        #[cfg(not(feature = "openfga"))]
        let replicated: Option<Arc<dyn Authorizer>> = None;
        let Deciding { authorizer, relationships } = match replicated {
            Some(authorizer) => Deciding { authorizer, relationships: None },
            None => open_deciding(config).await?,
        };
        let Chunks { vector_store, documents } = open_chunks(config).await?;
        let (deciding, searching) = (Arc::clone(&authorizer), Arc::clone(&vector_store));
        #[cfg(feature = "server")]
        let retriever = Retriever::with_systems(deciding, searching, retrieval, pages, other_systems(config)?);
        #[cfg(not(feature = "server"))]
        let retriever = Retriever::new(deciding, searching, retrieval, pages);
        Ok(Self {
            retriever,
            authorizer,
            relationships,
            documents,
            #[cfg(feature = "server")]
            vector_store,
            #[cfg(feature = "server")]
            config: config.clone(),
            #[cfg(feature = "server")]
            request_context,
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

    /// Returns the embedded relationship stores; `None` when an `OpenFGA` server decides.
    #[must_use]
    pub fn relationships(&self) -> Option<&RelationshipStores> {
        self.relationships.as_ref()
    }
}

/// The authorizer, and the relationships if they are embedded.
struct Deciding {
    authorizer: Arc<dyn Authorizer>,
    relationships: Option<RelationshipStores>,
}

/// One vector store behind two ports: one that searches, and one that takes documents in.
struct Chunks {
    vector_store: Arc<dyn VectorStore>,
    documents: Arc<dyn DocumentStore>,
}

/// Opens the authorizer alone. The data directory is not needed if an `OpenFGA` server decides.
///
/// # Errors
/// Returns the errors of [`App::open`].
pub async fn open_authorizer(config: &Config) -> Result<Arc<dyn Authorizer>, AppError> {
    Ok(open_deciding(config).await?.authorizer)
}

async fn open_deciding(config: &Config) -> Result<Deciding, AppError> {
    match config.authorizer.kind {
        AuthorizerKind::Embedded => {
            let directory = config.data.directory.clone();
            let stores = tokio::task::spawn_blocking(move || RelationshipStores::open(&directory)).await??;
            let authorizer = Arc::new(EmbeddedAuthorizer::new(stores.clone()));
            Ok(Deciding { authorizer, relationships: Some(stores) })
        }
        #[cfg(feature = "openfga")]
        AuthorizerKind::Openfga => {
            let authorizer = Arc::new(stack_checks(&config.authorizer.openfga, &config.authorizer.checks)?);
            Ok(Deciding { authorizer, relationships: None })
        }
        #[cfg(not(feature = "openfga"))]
        AuthorizerKind::Openfga => Err(AppError::LeftOut { setting: "authorizer.kind", feature: "openfga" }),
    }
}

/// Prepares the sources and the models that retrievals ask.
#[cfg(feature = "server")]
fn other_systems(config: &Config) -> Result<OtherSystems, AppError> {
    let details = &config.identity.details;
    Ok(OtherSystems {
        sources: sources(config)?,
        embeddings: Arc::new(Embeddings::new(&config.embedding, details)?),
        rerankers: Arc::new(Rerankers::new(&config.rerank, details)?),
    })
}

/// Prepares the sources that are asked before a chunk leaves; `None` if there are none.
#[cfg(feature = "server")]
fn sources(config: &Config) -> Result<Option<Arc<dyn SourceSystems>>, AppError> {
    if config.sources.is_empty() {
        return Ok(None);
    }
    let issuers: Vec<&str> = config.identity.issuers.iter().map(|issuer| issuer.issuer.as_str()).collect();
    check_issuers(&config.sources, &issuers).map_err(SourceSetupError::Setting)?;
    let sources = HttpSources::new(&config.sources, config.identity.details.classification_key.as_deref())?;
    Ok(Some(Arc::new(sources.barring(&own_audiences(config)))))
}

/// Returns the names by which tokens may mean this server.
#[cfg(feature = "server")]
fn own_audiences(config: &Config) -> Vec<String> {
    let of_mcp = config.server.mcp.iter().map(|mcp| mcp.url.clone());
    let of_issuers = config.identity.issuers.iter().filter_map(|issuer| issuer.tokens.audience.clone());
    config.identity.audience.iter().cloned().chain(of_mcp).chain(of_issuers).collect()
}

/// Makes the key of page tokens: the configured one, or a random one.
fn pages(retrieval: &RetrievalConfig) -> Result<Pages, AppError> {
    let lifetime = retrieval.page_token_lifetime;
    Ok(match &retrieval.page_token_key_file {
        Some(file) => Pages::with_key(file.read()?.expose().as_bytes(), lifetime)?.following(file)?,
        None => Pages::new(lifetime)?,
    })
}

async fn open_chunks(config: &Config) -> Result<Chunks, AppError> {
    match config.vector_store.kind {
        VectorStoreKind::Embedded => {
            let (directory, languages) = (config.data.directory.clone(), config.vector_store.languages.clone());
            let open = move || ExactStore::open_configured(&directory, languages);
            let store = tokio::task::spawn_blocking(open).await??;
            let store = Arc::new(store);
            Ok(Chunks { vector_store: Arc::clone(&store) as Arc<dyn VectorStore>, documents: store })
        }
        #[cfg(feature = "qdrant")]
        VectorStoreKind::Qdrant => {
            let store = Arc::new(qdrant::open_configured(config)?);
            Ok(Chunks { vector_store: Arc::clone(&store) as Arc<dyn VectorStore>, documents: store })
        }
        #[cfg(not(feature = "qdrant"))]
        VectorStoreKind::Qdrant => Err(AppError::LeftOut { setting: "vector_store.kind", feature: "qdrant" }),
    }
}
