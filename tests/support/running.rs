//! A real server on a loopback port, over the embedded engines, ended with the test.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ragward::app::App;
use ragward::client::Client;
use ragward::config::{Config, Overrides};
use ragward::language::RelationshipTuple;
use ragward::language::validate::ValidModel;
use ragward::proto::ingest::{Document, UpsertDocumentsRequest, UpsertDocumentsResponse};
use ragward::tuple_store::{OnConflict, RelationshipStore, TupleWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;

/// The number of times that a data directory is opened while its files are still in use.
const ATTEMPTS_MAX: usize = 1_000;

pub(crate) struct Running {
    pub(crate) client: Client,
    pub(crate) address: SocketAddr,
    pub(crate) app: Arc<App>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

/// Returns the default configuration over a data directory, with a server that believes who its callers say they are.
pub(crate) fn config(data: &Path) -> Config {
    let data = Some(data.to_owned());
    Config::load(None, &Overrides { data, insecure_identity: true, ..Overrides::default() }).unwrap()
}

impl Running {
    pub(crate) async fn start(config: &Config) -> Self {
        // A server that ran in this process releases its files only when its last call is gone. Also, a command that another test
        // starts at this moment has a copy of every open file until its program runs.
        let mut attempts = 0;
        let app = loop {
            match App::open(config).await {
                Ok(app) => break Arc::new(app),
                Err(error) => {
                    attempts += 1;
                    let is_in_use = format!("{error:?}").contains("InUse");
                    assert!(is_in_use && attempts < ATTEMPTS_MAX, "{error:?}");
                }
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&app);
        let serving = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or_default() };
            served.serve(listener, stopped).await.unwrap();
        });
        Self { client: Client::at(&format!("http://{address}")).unwrap(), address, app, stop, serving }
    }

    /// Loads a model and its tuples.
    pub(crate) fn load(&self, model: ValidModel, tuples: Vec<RelationshipTuple>) {
        self.relationships().write_model(model).unwrap();
        self.relationships().write_all(tuples, OnConflict::Refuse).unwrap();
    }

    pub(crate) fn write(&self, tuples: Vec<RelationshipTuple>) {
        self.relationships().write_all(tuples, OnConflict::Refuse).unwrap();
    }

    pub(crate) fn delete(&self, tuple: RelationshipTuple) {
        let request = TupleWrite { deletes: vec![tuple], ..TupleWrite::default() };
        self.relationships().write(&request).unwrap();
    }

    fn relationships(&self) -> RelationshipStore {
        self.app.relationships().unwrap().default_store_or_new().unwrap()
    }

    /// Asks the server to stop. The handle is ready when it has stopped.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        self.stop.send(()).unwrap();
        self.serving
    }

    pub(crate) async fn upsert(
        &self,
        collection: &str,
        documents: Vec<Document>,
    ) -> Result<UpsertDocumentsResponse, Status> {
        let message = |document| UpsertDocumentsRequest { collection: collection.to_owned(), document: Some(document) };
        let messages: Vec<UpsertDocumentsRequest> = documents.into_iter().map(message).collect();
        self.client.ingest().upsert_documents(tokio_stream::iter(messages)).await.map(tonic::Response::into_inner)
    }
}
