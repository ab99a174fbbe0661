//! The Qdrant adapter against the port's suite: over the embedded engine behind Qdrant's API, and over a real Qdrant when
//! `QDRANT_URL` names one or `qdrant` is on the PATH.
#![cfg(test)]

#[path = "support/qdrant_process.rs"]
mod qdrant_process;
#[path = "support/qdrant_server.rs"]
mod qdrant_server;
#[path = "support/vector_store_suite.rs"]
mod vector_store_suite;

use qdrant_process::Qdrant;
use qdrant_server::QdrantServer;
use ragward::vector_store::qdrant::{QdrantConfig, QdrantStore};
use vector_store_suite::Store;

async fn run(config: &QdrantConfig, prefix: &str) {
    let store = QdrantStore::new(config).expect("a store");
    vector_store_suite::run(Store { chunks: &store, documents: &store, prefix }).await;
}

#[tokio::test]
async fn the_port_suite_holds_over_the_embedded_engine() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = QdrantServer::start(directory.path()).await;
    run(&QdrantConfig { exact: true, ..QdrantConfig::new(&server.address) }, "exact-").await;
    run(&QdrantConfig::new(&server.address), "approximate-").await;
    let named = QdrantConfig { vector_name: Some("text".to_owned()), ..QdrantConfig::new(&server.address) };
    run(&named, "named-").await;
}

#[tokio::test]
async fn the_port_suite_holds_over_a_real_qdrant() {
    let Some(server) = Qdrant::find().await else { return };
    let run_id = ulid::Ulid::new();
    run(&QdrantConfig { exact: true, ..QdrantConfig::new(&server.url) }, &format!("ragward-test-{run_id}-")).await;
}
