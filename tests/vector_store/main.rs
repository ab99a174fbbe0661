//! The engine and the adapter of Qdrant behind the port `vector_store`.
#![cfg(test)]

#[path = "../support/brute_force.rs"]
mod brute_force;
#[path = "../support/dice.rs"]
mod dice;
mod exact_store;
#[path = "../support/faulty_server.rs"]
mod faulty_server;
mod one_version;
mod qdrant_attach;
mod qdrant_faults;
mod qdrant_numbers;
#[path = "../support/qdrant_process.rs"]
mod qdrant_process;
mod qdrant_retrieval;
#[path = "../support/qdrant_server.rs"]
mod qdrant_server;
#[path = "../support/qdrant_servers.rs"]
mod qdrant_servers;
mod qdrant_store;
#[path = "../support/vector_store_suite.rs"]
mod vector_store_suite;
