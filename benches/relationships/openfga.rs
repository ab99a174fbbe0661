//! The same checks asked of a real `OpenFGA` with its memory datastore, and of Ragward, both over gRPC on loopback by the
//! same client, which shares the machine with them.

#[path = "../../tests/support/openfga.rs"]
mod server;

use std::time::Duration;

use openfga_client::client as api;
use ragward::app::App;
use ragward::authz::openfga::OpenFgaStore;
use ragward::config::{Config, Overrides};
use ragward::relationship::store::OnConflict;
use ragward::relationship::validate::ValidModel;
use ragward::relationship::{RelationshipTuple, json};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

/// Checks of one `BatchCheck`: `OpenFGA`'s default limit.
const BATCH: usize = 50;
/// Calls in flight at once.
const CONCURRENCY: usize = 16;
const TIME: Duration = Duration::from_secs(5);

type Checks = std::sync::Arc<Vec<(String, String)>>;

/// Prints checks per second of both, and how they stand to each other and to checks in this process.
pub(crate) fn compare(model: &str, tuples: &[RelationshipTuple], checks: &[(String, String)], in_process: f64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let checks: Checks = std::sync::Arc::new(checks.to_vec());
        let (channel, store) = ragward(model, tuples).await;
        let ours = measure(&channel, &store, &checks).await;
        let theirs = match server::OpenFga::start().await {
            Some(server) => {
                let config = server.config("bench");
                let store = OpenFgaStore::open(&config).await.unwrap();
                store.write_model(serde_json::from_str(model).unwrap()).await.unwrap();
                store.write_tuples(tuples).await.unwrap();
                let channel = Endpoint::from_shared(config.address.clone()).unwrap().connect().await.unwrap();
                Some(measure(&channel, store.store_id(), &checks).await)
            }
            None => None,
        };
        println!("{:<36}{:>16}{:>16}", "checks per second, 2 cores", "Check", "BatchCheck");
        println!("{:<36}{:>16.0}{:>16.0}", "ragward over gRPC", ours.0, ours.1);
        println!("{:<36}{:>16.0}", "ragward in process, one thread, cold", in_process);
        if let Some(theirs) = theirs {
            println!("{:<36}{:>16.0}{:>16.0}", "  baseline: OpenFGA over gRPC", theirs.0, theirs.1);
            println!("{:<36}{:>15.1}x{:>15.1}x", "over gRPC / OpenFGA", ours.0 / theirs.0, ours.1 / theirs.1);
            let best = theirs.0.max(theirs.1);
            println!("{:<36}{:>15.1}x", "ragward's best over gRPC / OpenFGA's", ours.0.max(ours.1) / best);
            println!("{:<36}{:>15.1}x", "in process / OpenFGA's best", in_process / best);
        }
    });
}

async fn ragward(model: &str, tuples: &[RelationshipTuple]) -> (Channel, String) {
    let data = tempfile::tempdir().unwrap();
    let config = Config::load(None, &Overrides { data: Some(data.path().to_owned()), ..Overrides::default() }).unwrap();
    let app = App::open(&config).await.unwrap();
    let store = app.relationships().unwrap().default_store_or_new().unwrap();
    store.write_model(ValidModel::new(json::parse(model).unwrap()).unwrap()).unwrap();
    store.write_all(tuples.to_vec(), OnConflict::Refuse).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        app.serve(listener, std::future::pending()).await.unwrap();
        drop(data);
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    (endpoint.connect().await.unwrap(), store.id().to_string())
}

/// Checks per second, one at a time and in batches.
async fn measure(channel: &Channel, store: &str, checks: &Checks) -> (f64, f64) {
    (rate(channel, store, checks, 1).await, rate(channel, store, checks, BATCH).await)
}

async fn rate(channel: &Channel, store: &str, checks: &Checks, batch: usize) -> f64 {
    let started = Instant::now();
    let callers: Vec<_> = (0..CONCURRENCY)
        .map(|caller| {
            let mut client = api::OpenFgaServiceClient::new(channel.clone());
            let (store, checks) = (store.to_owned(), std::sync::Arc::clone(checks));
            tokio::spawn(async move {
                let (mut done, mut next) = (0, caller * 1_009);
                while started.elapsed() < TIME {
                    let asked = (next..next + batch).map(|n| &checks[n % checks.len()]);
                    if batch == 1 {
                        for (user, document) in asked {
                            client.check(check(&store, user, document)).await.unwrap();
                        }
                    } else {
                        let request = batch_check(&store, asked);
                        let answer = client.batch_check(request).await.unwrap().into_inner();
                        assert_eq!(answer.result.len(), batch);
                    }
                    (done, next) = (done + batch, next + batch);
                }
                done
            })
        })
        .collect();
    let mut done = 0;
    for caller in callers {
        done += caller.await.unwrap();
    }
    super::per_second(done, started.elapsed())
}

fn check(store: &str, user: &str, document: &str) -> api::CheckRequest {
    api::CheckRequest { store_id: store.to_owned(), tuple_key: Some(key(user, document)), ..Default::default() }
}

fn batch_check<'a>(store: &str, checks: impl Iterator<Item = &'a (String, String)>) -> api::BatchCheckRequest {
    let item = |(number, (user, document)): (usize, &(String, String))| api::BatchCheckItem {
        tuple_key: Some(key(user, document)),
        correlation_id: number.to_string(),
        ..Default::default()
    };
    let checks = checks.enumerate().map(item).collect();
    api::BatchCheckRequest { store_id: store.to_owned(), checks, ..Default::default() }
}

fn key(user: &str, document: &str) -> api::CheckRequestTupleKey {
    api::CheckRequestTupleKey { user: user.to_owned(), relation: "can_read".to_owned(), object: document.to_owned() }
}
