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
        let app = Arc::new(App::open(config).await.unwrap());
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
