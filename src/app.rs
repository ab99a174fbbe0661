//! The composition root: from a configuration to backends, and from backends to a running server.

mod audit;
mod check;
mod identity;
mod names;
mod replica;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};

pub use self::audit::audit_config;
pub use self::check::check;
pub use self::names::{NamesReport, OldTuple, rewrite_names};
use crate::audit::AuditError;
use crate::authz::batched::{BatchedConfig, BatchedDecider};
use crate::authz::breaker::BreakerDecider;
use crate::authz::cached::CachedDecider;
use crate::authz::coalesced::CoalescedDecider;
use crate::authz::consistency_token::ConsistencyTokens;
use crate::authz::decider::Decider;
use crate::authz::embedded::EmbeddedAuthorizer;
use crate::authz::openfga::{self, OpenFgaAuthorizer, OpenFgaConfig, OpenFgaSource, StoreSelector};
use crate::authz::replica::{ReplicaAuthorizer, ReplicaConfig, ReplicaParts, ReplicaUse};
use crate::authz::retried::RetriedDecider;
use crate::authz::stacked::StackedAuthorizer;
use crate::authz::validity::Validity;
use crate::authz::verification::Recording;
use crate::authz::{Authorizer, AuthzError};
use crate::backend::{BackendError, Secret};
use crate::client::Client;
use crate::config::{self, AuthorizerKind, Config, ConfigError, ReplicaMode, VectorStoreKind};
use crate::error_code::ErrorCode;
use crate::language::{ParseError, Relation};
use crate::retrieval::page::{PageKeyError, Pages};
use crate::retrieval::{RetrievalConfig, Retriever};
use crate::server::{self, Arrived, Authentication, ServerError, Services};
use crate::storage::StorageError;
use crate::tuple_store::RelationshipStores;
use crate::vector_store::exact::ExactStore;
use crate::vector_store::qdrant::{ForeignLayout, Layout, QdrantConfig, QdrantStore, ReadConsistency};
use crate::vector_store::{DocumentStore, VectorStore, VectorStoreError};

/// Connections of an in-process client that may wait to be accepted.
const IN_PROCESS_CONNECTIONS: usize = 4;
/// How long a start waits for a server's stored names before it serves without taking tokens.
const NAMES_WAIT_MAX: Duration = Duration::from_secs(2);
/// Where the replica is, within the data directory.
const REPLICA_DIRECTORY: &str = "replica";

/// The backends, opened.
pub struct App {
    services: Services,
    authorizer: Arc<dyn Authorizer>,
    replica: Option<Arc<ReplicaAuthorizer>>,
    relationships: Option<RelationshipStores>,
    shutdown_timeout: Duration,
    config: Config,
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
    /// The address of a server is not one.
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
            Self::Config(_) | Self::Identity(_) | Self::Relation(_) | Self::Backend(_) | Self::PageKey(_) => {
                ErrorCode::InvalidArgument
            }
            Self::OldNames(_) => ErrorCode::FailedPrecondition,
            Self::Names(e) => e.code(),
            Self::Relationships(e) => e.into(),
            Self::Chunks(e) => e.code(),
            Self::Audit(e) => e.code(),
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
        let replica = match (config.authorizer.kind, config.authorizer.replica.mode) {
            (AuthorizerKind::Embedded, _) | (AuthorizerKind::Openfga, ReplicaMode::Off) => None,
            (AuthorizerKind::Openfga, ReplicaMode::Plan) => Some(open_replica(config, ReplicaUse::Plan).await?),
            (AuthorizerKind::Openfga, ReplicaMode::Decide) => Some(open_replica(config, ReplicaUse::Decide).await?),
        };
        let (authorizer, relationships) = match &replica {
            Some(replica) => (Arc::clone(replica) as Arc<dyn Authorizer>, None),
            None => open_authorizer(config).await?,
        };
        let (vector_store, documents) = open_vector_store(config).await?;
        let services = Services {
            retriever: Retriever::new(Arc::clone(&authorizer), Arc::clone(&vector_store), retrieval),
            vector_store,
            documents,
            relationships: relationships.clone(),
            explain: config.server.explain,
            request_timeout: Duration::from_millis(config.server.request_timeout_ms),
            connections_max: config.server.connections_max,
            authorizer: Arc::clone(&authorizer),
            // For whoever holds the data directory: local administration.
            authentication: Authentication::Believed,
            audit: None,
            consistency_tokens: Arc::new(ConsistencyTokens::new().map_err(|_unspecified| AppError::NoRandom)?),
        };
        let shutdown_timeout = Duration::from_millis(config.server.shutdown_timeout_ms);
        Ok(Self { services, authorizer, replica, relationships, shutdown_timeout, config: config.clone() })
    }

    /// Who decides.
    #[must_use]
    pub fn authorizer(&self) -> &dyn Authorizer {
        self.authorizer.as_ref()
    }

    /// The embedded relationship stores, unless an `OpenFGA` server decides.
    #[must_use]
    pub fn relationships(&self) -> Option<&RelationshipStores> {
        self.relationships.as_ref()
    }

    /// Makes everything ready that a server needs beside the backends: the identity of callers, and the audit log. So whatever
    /// refuses a start does it before a port takes connections.
    ///
    /// # Errors
    /// When nobody says who is asking (see [`check`]), the audit log cannot be written, or stored names are not as
    /// tokens make them.
    pub async fn prepare(&self) -> Result<PreparedServer<'_>, AppError> {
        let authentication = identity::authentication(&self.config)?;
        let tokens = match &authentication {
            Authentication::Tokens(tokens) => Some(Arc::clone(tokens)),
            Authentication::Believed => None,
        };
        // Until stored names are checked no token is taken. A server that is out of reach does not hold the start up for long.
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
        let services = Services { authentication, audit: audit::open(&self.config).await?, ..self.services.clone() };
        let verifier = self.replica.as_ref().and_then(|replica| replica.verifier());
        let recording = verifier.zip(services.audit.as_ref());
        let recording = recording.map(|(verifier, audit)| verifier.record_in(Arc::clone(&audit.sink)));
        let shutdown_timeout = self.shutdown_timeout;
        Ok(PreparedServer { services, shutdown_timeout, old_names, _recording: recording })
    }

    /// As [`PreparedServer::serve`], on a listener that is there already.
    ///
    /// # Errors
    /// As [`App::prepare`].
    pub async fn serve(&self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        self.prepare().await?.serve(listener, stop).await
    }

    /// A client of the same services without a network, for commands that work on a data directory. Whoever can open that
    /// may do anything to it and be told everything in it, so no token is asked for, and nothing is recorded.
    #[must_use]
    pub fn in_process(&self) -> Client {
        let (connections, incoming) = tokio::sync::mpsc::channel(IN_PROCESS_CONNECTIONS);
        let services = Services { explain: true, ..self.services.clone() };
        // The task ends when the client, which owns the other end of the channel, is dropped.
        tokio::spawn(async move {
            let incoming = ReceiverStream::new(incoming)
                .map(|pipe: io::Result<DuplexStream>| pipe.map(|io| Arrived { io, peer: None }));
            let served = server::serve(services, incoming, std::future::pending()).await;
            if let Err(error) = served {
                tracing::error!(%error, "the in-process server ended");
            }
        });
        Client::in_process(connections)
    }
}

/// A server that only lacks its port.
pub struct PreparedServer<'a> {
    services: Services,
    shutdown_timeout: Duration,
    /// Ready once stored names turn out not to be as tokens make them.
    old_names: Pin<Box<dyn Future<Output = AppError> + Send + 'a>>,
    /// Ends with the service, as the audit log does.
    _recording: Option<Recording>,
}

impl PreparedServer<'_> {
    /// Serves on a listener until `stop`; then lets running requests end, as long as `server.shutdown_timeout_ms`.
    ///
    /// # Errors
    /// When the services cannot be described, or stored names are not as tokens make them.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        let Self { services, shutdown_timeout, old_names, _recording } = self;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "serving");
        }
        let connections = TcpListenerStream::new(listener).map(|connection: io::Result<TcpStream>| {
            let stream = connection?;
            // Answers are small: waiting to fill a packet would only add latency.
            stream.set_nodelay(true)?;
            let peer = stream.peer_addr()?.ip();
            io::Result::Ok(Arrived { io: stream, peer: Some(peer) })
        });
        let (stopping, stopped) = tokio::sync::oneshot::channel();
        let stop = async move {
            stop.await;
            // Nobody listens any more when the server has failed already.
            stopping.send(()).unwrap_or_default();
        };
        let serving = server::serve(services, connections, stop);
        let too_long = async {
            match stopped.await {
                Ok(()) => tokio::time::sleep(shutdown_timeout).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = serving => Ok(ended?),
            error = old_names => Err(error),
            () = too_long => {
                tracing::warn!("requests still ran when the shutdown timeout passed; they were cut off");
                Ok(())
            }
        }
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
        AuthorizerKind::Openfga => {
            Ok((Arc::new(stack_checks(&openfga_config(config)?, &config.authorizer.checks)?), None))
        }
    }
}

/// An `OpenFGA` server behind a replica of it in the data directory. The replica reads the server's changelog for the cache
/// of checks too.
///
/// # Errors
/// As [`App::open`].
pub async fn open_replica(config: &Config, used_for: ReplicaUse) -> Result<Arc<ReplicaAuthorizer>, AppError> {
    let replica = replica_config(&config.authorizer.replica, used_for);
    let openfga = openfga_config(config)?;
    let source = Arc::new(OpenFgaSource::new(&openfga)?.with_types_max(config.authorizer.replica.types_max));
    let directory = replica_directory(config);
    let authority = stack(&openfga, &config.authorizer.checks, ChangesFrom::Replica)?;
    let validity = Arc::clone(authority.validity());
    let clock = replica::unix_clock();
    // Its own way to the server: verification shares no call, queue or breaker with requests.
    let verified_at = Arc::new(OpenFgaAuthorizer::new(&openfga)?) as Arc<dyn Decider>;
    let verification = (replica::verification_config(&config.authorizer.replica), verified_at);
    let parts = ReplicaParts { source, authority: Arc::new(authority), validity, clock, verification };
    Ok(Arc::new(ReplicaAuthorizer::open(&directory, parts, replica).await?))
}

/// Where the replica is.
#[must_use]
pub fn replica_directory(config: &Config) -> PathBuf {
    config.data.directory.join(REPLICA_DIRECTORY)
}

fn replica_config(replica: &config::ReplicaConfig, used_for: ReplicaUse) -> ReplicaConfig {
    ReplicaConfig {
        used_for,
        poll_interval: Duration::from_millis(replica.poll_interval_ms),
        staleness_max: Duration::from_millis(replica.staleness_max_ms),
        overlap: Duration::from_millis(replica.overlap_ms),
        sweep_interval: Duration::from_millis(replica.sweep_interval_ms),
    }
}

/// The stack of checks in front of an `OpenFGA` server. A request's checks enter it at the last line, each guard once
/// (`authz::enforce`), and leave it at the first. Must run inside tokio.
///
/// # Errors
/// When the configuration cannot be used.
pub fn stack_checks(
    openfga_config: &OpenFgaConfig,
    checks: &config::ChecksConfig,
) -> Result<StackedAuthorizer, BackendError> {
    stack(openfga_config, checks, ChangesFrom::Changelog)
}

/// Who tells the cache of checks that the relationships changed.
#[derive(Clone, Copy)]
enum ChangesFrom {
    /// A reader of its own.
    Changelog,
    /// The replica that is put before the stack.
    Replica,
}

fn stack(
    openfga_config: &OpenFgaConfig,
    checks: &config::ChecksConfig,
    changes_from: ChangesFrom,
) -> Result<StackedAuthorizer, BackendError> {
    let milliseconds = Duration::from_millis;
    let timeout = openfga_config.timeout;
    let batched = BatchedConfig {
        checks_per_call: openfga_config.checks_per_call,
        calls_in_flight_max: checks.calls_in_flight_max,
        checks_waiting_max: checks.checks_waiting_max,
        timeout,
    };
    let time_to_live = milliseconds(checks.cache_ttl_ms);
    let polls = !time_to_live.is_zero() && checks.changelog_poll_ms > 0;
    let validity = Arc::new(Validity::new(polls.then(|| milliseconds(checks.changelog_age_max_ms))));

    let openfga = Arc::new(OpenFgaAuthorizer::new(openfga_config)?);
    let decider: Arc<dyn Decider> = Arc::clone(&openfga) as _;
    let decider: Arc<dyn Decider> = Arc::new(BreakerDecider::new(decider, timeout));
    let decider: Arc<dyn Decider> = Arc::new(RetriedDecider::new(decider));
    let decider: Arc<dyn Decider> = Arc::new(BatchedDecider::new(decider, batched));
    let decider: Arc<dyn Decider> = Arc::new(CoalescedDecider::new(decider, timeout));
    let decider: Arc<dyn Decider> = if time_to_live.is_zero() {
        decider
    } else {
        Arc::new(CachedDecider::new(decider, time_to_live, checks.cache_bytes_max))
    };

    let poll = milliseconds(checks.changelog_poll_ms);
    let changelog = match changes_from {
        ChangesFrom::Changelog if polls => Some(openfga::watch(Arc::clone(&openfga), Arc::clone(&validity), poll)),
        ChangesFrom::Changelog | ChangesFrom::Replica => None,
    };
    Ok(StackedAuthorizer::new(openfga, decider, validity, changelog))
}

/// What the `OpenFGA` adapter needs of the configuration.
///
/// # Errors
/// When the file of the token cannot be read.
pub fn openfga_config(config: &Config) -> Result<OpenFgaConfig, ConfigError> {
    let openfga = &config.authorizer.openfga;
    let unless_empty = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let by_name = || StoreSelector::Name(openfga.store_name.clone());
    Ok(OpenFgaConfig {
        address: openfga.address.clone(),
        store: unless_empty(&openfga.store_id).map_or_else(by_name, StoreSelector::Id),
        authorization_model_id: unless_empty(&openfga.authorization_model_id),
        api_token: config::read_secret(&openfga.api_token_file)?.map(Secret::new),
        checks_per_call: openfga.checks_per_call,
        timeout: Duration::from_millis(openfga.timeout_ms),
        list_results_max: openfga.list_results_max,
        list_deadline: Duration::from_millis(openfga.list_deadline_ms),
        cache_age_max: Duration::from_millis(openfga.cache_age_max_ms),
    })
}

/// What the Qdrant adapter needs of the configuration.
fn qdrant_config(config: &Config) -> Result<QdrantConfig, AppError> {
    let qdrant = &config.vector_store.qdrant;
    let layout = |(name, paths): (&String, &config::PayloadConfig)| {
        let config::PayloadConfig { guard, document_id, title, text, .. } = &paths.completed();
        let metadata = paths.metadata();
        match Layout::foreign(&ForeignLayout { guard, document_id, title, text, metadata }) {
            Ok(layout) => Ok((name.clone(), layout)),
            Err(e) => Err(ConfigError::Invalid(format!("`vector_store.qdrant.collections.{name}`: {e}"))),
        }
    };
    Ok(QdrantConfig {
        url: qdrant.url.clone(),
        api_key: config::read_secret(&qdrant.api_key_file)?.map(Secret::new),
        timeout: Duration::from_millis(qdrant.timeout_ms),
        vector_name: Some(qdrant.vector_name.clone()).filter(|name| !name.is_empty()),
        exact: qdrant.exact,
        scanned_chunks_max: qdrant.scanned_chunks_max,
        read_consistency: match qdrant.read_consistency {
            config::ReadConsistency::One => None,
            config::ReadConsistency::Majority => Some(ReadConsistency::Majority),
            config::ReadConsistency::Quorum => Some(ReadConsistency::Quorum),
            config::ReadConsistency::All => Some(ReadConsistency::All),
        },
        overview_age_max: Duration::from_millis(qdrant.overview_age_max_ms),
        guards_max: qdrant.guards_max,
        guards_per_filter_max: qdrant.guards_per_filter_max,
        layouts: qdrant.collections.iter().map(layout).collect::<Result<_, _>>()?,
    })
}

/// The Qdrant store alone, for what only it can do. Must run in tokio.
///
/// # Errors
/// When its part of the configuration cannot be used.
pub fn open_qdrant(config: &Config, call_timeout: Duration) -> Result<QdrantStore, AppError> {
    Ok(QdrantStore::new(&QdrantConfig { timeout: call_timeout, ..qdrant_config(config)? })?)
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
        VectorStoreKind::Qdrant => {
            let store = Arc::new(QdrantStore::new(&qdrant_config(config)?)?);
            Ok((Arc::clone(&store) as Arc<dyn VectorStore>, store))
        }
    }
}
