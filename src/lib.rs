//! Ragward is a retrieval proxy for RAG: it searches a vector store, checks every candidate chunk against `OpenFGA`
//! relationship tuples, and answers with only the chunks that this user may see.
//!
//! `ARCHITECTURE.md` is the map; each module's own page says why it exists.

pub mod app;
pub mod audit;
pub mod authz;
pub mod backend;
pub mod chunk;
pub mod cli;
pub mod client;
pub mod config;
pub mod engine;
pub mod error_code;
pub mod identity;
pub mod ingest;
pub mod lanes;
pub mod language;
pub mod proto;
pub mod retrieval;
pub mod server;
pub mod storage;
pub mod store_file;
pub mod telemetry;
pub mod tune;
pub mod tuple_store;
pub mod vector_store;
mod visible;
