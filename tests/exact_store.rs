//! The embedded engine: the contract of the port, brute force as an oracle, twin worlds, crashes and restarts.
#![cfg(test)]

#[path = "support/vector_store_suite.rs"]
mod vector_store_suite;

use ragward::vector_store::exact::ExactStore;
use vector_store_suite::Store;

#[tokio::test]
async fn the_port_suite() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = ExactStore::open(directory.path()).expect("opened");
    vector_store_suite::run(Store { chunks: &store, documents: &store, prefix: "" }).await;
}
