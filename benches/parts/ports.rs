//! One set of services behind two ports, a plain one and one with TLS. So a difference between the ports comes from TLS alone.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ragward::authz::consistency_token::ConsistencyTokens;
use ragward::authz::embedded::EmbeddedAuthorizer;
use ragward::chunk::Document;
use ragward::config::{Config, Overrides};
use ragward::identity::RequestContextRules;
use ragward::ingest::Source;
use ragward::retrieval::{Pages, Retriever};
use ragward::server::{Arrived, Authentication, Guards, Services, Tls, serve};
use ragward::server_config::TlsFiles;
use ragward::settings::SecretFile;
use ragward::store_file;
use ragward::tuple_store::{OnConflict, RelationshipStores};
use ragward::vector_store::DocumentStore;
use ragward::vector_store::exact::ExactStore;
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;

use crate::support::certificates::{Authority, NAME, PairFiles};

pub(crate) const COLLECTION: &str = "keps";
const PEOPLE: usize = 40;
/// The number of documents in one transaction.
const BATCH: usize = 64;

/// The two ports, and what a caller has to know.
pub(crate) struct Ports {
    pub(crate) plain: SocketAddr,
    pub(crate) secured: SocketAddr,
    /// The TLS of the second port.
    pub(crate) tls: Tls,
    /// The authority that callers trust.
    pub(crate) authority: Arc<Authority>,
    /// The folder of the certificate and its key.
    pub(crate) certificates: PathBuf,
    pub(crate) corpus: Arc<Corpus>,
}

/// The parts of the corpus that questions name.
pub(crate) struct Corpus {
    /// Some of the people, evenly picked.
    pub(crate) people: Vec<String>,
    /// The first chunk of each document.
    pub(crate) chunk_ids: Vec<String>,
}

impl Ports {
    /// Loads the corpus at `keps` into an empty folder, and serves it.
    pub(crate) async fn open(data: &Path, keps: &Path) -> Self {
        let stores = RelationshipStores::open(data).unwrap();
        let people = load_relationships(&stores, keps);
        let vectors = Arc::new(ExactStore::open(data).unwrap());
        let chunk_ids = load_documents(&vectors, keps).await;
        let authority = Arc::new(Authority::new());
        let certificates = data.join("certificates");
        std::fs::create_dir(&certificates).unwrap();
        let PairFiles { certificate, key } = authority.issue().write(&certificates);
        let files = TlsFiles { cert_file: certificate, key_file: SecretFile::new(key), client_ca_file: None };
        let tls = Tls::new(&files).unwrap();
        let services = services(stores, vectors);
        let plain = listen(services.clone()).await;
        let secured = listen(Services { tls: Some(tls.clone()), ..services }).await;
        let corpus = Arc::new(Corpus { people, chunk_ids });
        Self { plain, secured, tls, authority, certificates, corpus }
    }
}

/// Loads the model and the tuples. Returns some of the people.
fn load_relationships(stores: &RelationshipStores, keps: &Path) -> Vec<String> {
    let relationships = stores.default_store_or_new().unwrap();
    let store = store_file::read(&keps.join("store.fga.yaml")).unwrap();
    let mut people: Vec<String> = store.tuples.iter().map(|tuple| tuple.user.to_string()).collect();
    relationships.write_model(store.model).unwrap();
    relationships.write_all(store.tuples, OnConflict::Refuse).unwrap();
    people.retain(|user| user.starts_with("user:") && user != "user:*");
    people.sort();
    people.dedup();
    let step = people.len() / PEOPLE;
    people.into_iter().step_by(step).take(PEOPLE).collect()
}

/// Loads the documents. Returns the first chunk of each.
async fn load_documents(vectors: &ExactStore, keps: &Path) -> Vec<String> {
    let source = Source::Catalog { path: keps.join("catalog.jsonl"), root: keps.to_owned() };
    let documents: Vec<Document> = source.documents().unwrap().filter_map(|entry| entry.unwrap().document).collect();
    for batch in documents.chunks(BATCH) {
        vectors.upsert(COLLECTION, batch.to_vec()).await.unwrap();
    }
    documents.into_iter().filter_map(|document| Some(document.chunks.into_iter().next()?.id)).collect()
}

/// Returns services without a log: a record would be a larger part of a request than its door.
fn services(stores: RelationshipStores, vectors: Arc<ExactStore>) -> Services {
    let config = Config::load(None, &Overrides::default()).unwrap();
    let authorizer = Arc::new(EmbeddedAuthorizer::new(stores.clone()));
    Services {
        retriever: Retriever::new(
            Arc::clone(&authorizer) as _,
            Arc::clone(&vectors) as _,
            config.retrieval,
            Pages::new(Duration::from_mins(10)).unwrap(),
        ),
        vector_store: Arc::clone(&vectors) as _,
        documents: vectors,
        relationships: Some(stores),
        explain: false,
        request_timeout: config.server.request_timeout,
        connections_max: config.server.connections_max,
        tls: None,
        authorizer,
        authentication: Authentication::Believed,
        request_context: RequestContextRules::default(),
        login_client_id: None,
        ingest: ragward::ingest::IngestConfig::default(),
        mcp: None,
        guards: Guards { hosts: vec![NAME.to_owned()], ..Guards::default() },
        audit: None,
        consistency_tokens: Arc::new(ConsistencyTokens::new().unwrap()),
    }
}

async fn listen(services: Services) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = TcpListenerStream::new(listener).map(|connection| {
        let io = connection?;
        io.set_nodelay(true)?;
        let peer = Some(io.peer_addr()?.ip());
        io::Result::Ok(Arrived { io, peer })
    });
    tokio::spawn(serve(services, connections, std::future::pending()));
    address
}
