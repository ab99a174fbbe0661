//! A small Qdrant for tests: the part of its gRPC API that the adapter uses, over points in memory. It refuses
//! everything else as not implemented. It lets tests exercise the adapter on the wire where there is no Qdrant.
//!
//! It takes any point, and evaluates filters on payloads as Qdrant's documentation says. It differs from Qdrant in two
//! ways: its searches are always exact, and it keeps nothing on disk. It can pass for an older version, and for one node of
//! several.

mod collections;
mod filter;
pub(crate) mod node;
mod path;
mod points;
mod sparse;
mod strict_mode;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use qdrant_client::qdrant::collections_server::CollectionsServer;
use qdrant_client::qdrant::points_server::PointsServer;
use qdrant_client::qdrant::qdrant_server::QdrantServer as NodeServer;
use qdrant_client::qdrant::{FieldType, PointId, QueryPoints, StrictModeConfig, Value, point_id::PointIdOptions};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// The size of the largest message that is accepted. All documents of a write come in one message.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A running server. Dropping it ends it.
pub(crate) struct QdrantServer {
    pub(crate) address: String,
    engine: Engine,
    task: JoinHandle<()>,
}

/// The state that the services share.
#[derive(Clone, Default)]
struct Engine {
    collections: Arc<RwLock<BTreeMap<String, Collection>>>,
    /// The collections that aliases stand for. As in Qdrant, an alias may stand wherever a collection is named.
    aliases: Arc<RwLock<BTreeMap<String, String>>>,
    facets: Arc<Mutex<Vec<String>>>,
    queries: Arc<Mutex<Vec<QueryPoints>>>,
    /// The fields of all payloads that were sent.
    sent_fields: Arc<Mutex<BTreeSet<String>>>,
    node: Arc<Mutex<node::Node>>,
}

#[derive(Default)]
struct Collection {
    /// 0 if its points have no dense vector.
    dimension: u64,
    /// The name of the vector; `None` for the unnamed one.
    vector_name: Option<String>,
    /// The name of the sparse vector, whose values are weighed by inverse document frequency.
    text_vector: Option<String>,
    indexes: BTreeMap<String, FieldType>,
    strict_mode: Option<StrictModeConfig>,
    metadata: HashMap<String, Value>,
    points: BTreeMap<Id, Point>,
}

/// A point's id. Numbers come before UUIDs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Id {
    Number(u64),
    Uuid(String),
}

#[derive(Clone)]
struct Point {
    payload: HashMap<String, Value>,
    /// Empty if the point has none.
    vector: Vec<f32>,
    /// The sparse vector by index; empty if the point has none.
    sparse: BTreeMap<u32, f32>,
}

impl QdrantServer {
    /// Starts a server on a free port of loopback.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let engine = Engine::default();
        let points = PointsServer::new(engine.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let serving = Server::builder()
            .add_service(points)
            .add_service(CollectionsServer::new(engine.clone()))
            .add_service(NodeServer::new(engine.clone()))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let task = tokio::spawn(async move { serving.await.expect("a server") });
        Self { address, engine, task }
    }

    /// Returns how often the values of a field were counted.
    pub(crate) fn facets(&self, field: &str) -> usize {
        let facets = self.engine.facets.lock().unwrap_or_else(PoisonError::into_inner);
        facets.iter().filter(|counted| *counted == field).count()
    }

    /// Returns the searches since the last call.
    pub(crate) fn take_queries(&self) -> Vec<QueryPoints> {
        std::mem::take(&mut self.engine.queries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Passes for a node of this version, with the shards of each collection placed like this.
    pub(crate) fn pass_for(&self, node: node::Node) {
        *self.engine.node.lock().unwrap_or_else(PoisonError::into_inner) = node;
    }

    /// Returns the fields of the payloads that were sent since the last call.
    pub(crate) fn take_sent_fields(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.engine.sent_fields.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for QdrantServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Engine {
    /// Adds a collection, and returns whether the name was free.
    fn add(&self, name: String, collection: Collection) -> bool {
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        let free = !collections.contains_key(&name);
        if free {
            collections.insert(name, collection);
        }
        free
    }

    fn note_sent<'p>(&self, payloads: impl Iterator<Item = &'p HashMap<String, Value>>) {
        let mut sent = self.sent_fields.lock().unwrap_or_else(PoisonError::into_inner);
        sent.extend(payloads.flat_map(HashMap::keys).cloned());
    }

    fn resolved(&self, name: &str) -> String {
        let aliases = self.aliases.read().unwrap_or_else(PoisonError::into_inner);
        aliases.get(name).map_or(name, String::as_str).to_owned()
    }

    fn read<T>(&self, name: &str, read: impl FnOnce(&Collection) -> Result<T, Status>) -> Result<T, Status> {
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        read(collections.get(&self.resolved(name)).ok_or_else(|| unknown(name))?)
    }

    fn change<T>(&self, name: &str, change: impl FnOnce(&mut Collection) -> T) -> Result<T, Status> {
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        collections.get_mut(&self.resolved(name)).map(change).ok_or_else(|| unknown(name))
    }
}

impl Id {
    fn of(id: Option<&PointId>) -> Result<Self, Status> {
        let malformed = || Status::invalid_argument("Wrong input: Unable to parse UUID");
        match id.and_then(|id| id.point_id_options.as_ref()) {
            Some(PointIdOptions::Num(number)) => Ok(Self::Number(*number)),
            Some(PointIdOptions::Uuid(uuid)) => {
                let digits: String = uuid.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
                if digits.len() != 32 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
                    return Err(malformed());
                }
                let hyphened = digits.chars().enumerate().flat_map(|(place, digit)| {
                    matches!(place, 8 | 12 | 16 | 20).then_some('-').into_iter().chain([digit])
                });
                Ok(Self::Uuid(hyphened.collect()))
            }
            None => Err(malformed()),
        }
    }

    fn to_message(&self) -> PointId {
        match self {
            Self::Number(number) => PointId::from(*number),
            Self::Uuid(uuid) => PointId::from(uuid.clone()),
        }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Uuid(uuid) => uuid.fmt(f),
        }
    }
}

fn unknown(name: &str) -> Status {
    Status::not_found(format!("Not found: Collection `{name}` doesn't exist!"))
}

fn not_implemented<T>() -> Result<T, Status> {
    Err(Status::unimplemented("this small server does not do it"))
}
