//! Ragward is a retrieval proxy for RAG: it searches a vector store, checks every candidate chunk against `OpenFGA`
//! relationship tuples, and answers with only the chunks that this user may see.
//!
//! `ARCHITECTURE.md` is the map; each module's own page says why it exists.

pub mod app;
pub mod audit;
pub mod authz;
#[cfg(any(feature = "openfga", feature = "qdrant"))]
pub mod backend;
pub mod chunk;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "server")]
pub mod client;
pub mod config;
pub mod engine;
pub mod error_code;
#[cfg_attr(
    not(feature = "server"),
    expect(dead_code, reason = "a server reads tokens; without one a principal is stated by the program itself")
)]
pub mod identity;
pub mod ingest;
pub mod lanes;
pub mod language;
#[cfg(feature = "server")]
pub mod proto;
pub mod retrieval;
#[cfg(feature = "server")]
pub mod server;
pub mod storage;
pub mod store_file;
pub mod telemetry;
#[cfg(feature = "openfga")]
pub mod tune;
pub mod tuple_store;
pub mod vector_store;
#[cfg(feature = "cli")]
mod visible;
