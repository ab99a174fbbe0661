//! Qdrant's gRPC API over the embedded engine, as far as the adapter uses it; everything else is refused as not
//! implemented. With it the wire adapter is tested where there is no Qdrant.
//!
//! What it does not share with Qdrant: points are chunks of documents and are replaced document by document, searches are
//! exact, and only the adapter's own filters are understood.

#[path = "qdrant_server/collections.rs"]
mod collections;
#[path = "qdrant_server/filter.rs"]
mod filter;
#[path = "qdrant_server/payload.rs"]
mod payload;
#[path = "qdrant_server/points.rs"]
mod points;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use qdrant_client::qdrant::collections_server::CollectionsServer;
use qdrant_client::qdrant::points_server::PointsServer;
use ragward::vector_store::VectorStoreError;
use ragward::vector_store::exact::ExactStore;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::transport::Server;

/// Documents come in one message.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A running server; dropping it ends it.
pub(crate) struct QdrantServer {
    pub(crate) address: String,
    task: JoinHandle<()>,
}

/// The embedded engine behind Qdrant's services.
#[derive(Clone)]
struct Engine {
    store: ExactStore,
    collections: Arc<RwLock<BTreeMap<String, Collection>>>,
}

/// What Qdrant knows about a collection and the embedded engine does not.
#[derive(Clone, Default)]
struct Collection {
    dimension: u64,
    /// `None`: the unnamed vector.
    vector_name: Option<String>,
    indexes: BTreeSet<String>,
    /// Chunk ids by point id.
    chunk_ids: HashMap<String, String>,
}

impl QdrantServer {
    /// Serves the chunks of a data directory on a free port of loopback.
    pub(crate) async fn start(directory: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let store = ExactStore::open(directory).expect("a data directory");
        let engine = Engine { store, collections: Arc::default() };
        let points = PointsServer::new(engine.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let serving = Server::builder()
            .add_service(points)
            .add_service(CollectionsServer::new(engine))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { serving.await.expect("a server") });
        Self { address, task }
    }
}

impl Drop for QdrantServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Engine {
    fn known(&self, name: &str) -> Result<Collection, Status> {
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        let known = collections.get(name).cloned();
        known.ok_or_else(|| Status::not_found(format!("Not found: Collection `{name}` doesn't exist!")))
    }

    /// Whether the name was free.
    fn add(&self, name: String, collection: Collection) -> bool {
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        let free = !collections.contains_key(&name);
        if free {
            collections.insert(name, collection);
        }
        free
    }

    fn change<T>(&self, name: &str, change: impl FnOnce(&mut Collection) -> T) -> Result<T, Status> {
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        let known = collections.get_mut(name);
        known.map(change).ok_or_else(|| Status::not_found(format!("Not found: Collection `{name}` doesn't exist!")))
    }
}

/// What the engine says of a collection that was made and has no documents yet is `empty`.
fn or_empty<T>(answer: Result<T, VectorStoreError>, empty: T) -> Result<T, Status> {
    match answer {
        Err(VectorStoreError::UnknownCollection(_)) => Ok(empty),
        answer => answer.map_err(|e| failed(&e)),
    }
}

fn failed(error: &VectorStoreError) -> Status {
    let text = error.to_string();
    match error {
        VectorStoreError::UnknownCollection(_) => Status::not_found(text),
        VectorStoreError::Dimension { .. }
        | VectorStoreError::Invalid(_)
        | VectorStoreError::DuplicateChunk { .. }
        | VectorStoreError::Refused(_)
        | VectorStoreError::Unsupported(_) => Status::invalid_argument(format!("Wrong input: {text}")),
        VectorStoreError::Unavailable(_) | VectorStoreError::BadAnswer(_) | VectorStoreError::Storage(_) => {
            Status::internal(text)
        }
    }
}

fn not_implemented<T>() -> Result<T, Status> {
    Err(Status::unimplemented("the embedded engine does not do this"))
}
