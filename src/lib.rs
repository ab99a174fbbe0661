//! Ragward is a retrieval proxy for RAG. It searches a vector store, checks every candidate chunk against `OpenFGA`
//! relationship tuples, and answers with only the chunks that the asking user may see.
//!
//! Most people run the `ragward` command. This library is for programs that want a part of it without a server.
//!
//! # An `OpenFGA` evaluator
//!
//! The modules [`language`], [`engine`], [`tuple_store`] and [`store_file`] use no other module of the crate except
//! [`storage`], which opens files. Together they are an `OpenFGA` evaluator for Rust. It answers as an `OpenFGA` server
//! does, apart from the differences that [`engine`] lists.
//!
//! ```
//! use ragward::engine::snapshot::Snapshot;
//! use ragward::language::{Object, Relation, RelationshipTuple, TypeName, User, dsl};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = dsl::load(
//!     "model
//!   schema 1.1
//! type user
//! type document
//!   relations
//!     define viewer: [user]
//! ",
//! )?;
//! let tuple = RelationshipTuple::parse("user:anne", "viewer", "document:roadmap")?;
//! let relationships = Snapshot::new("example", model.into()).with_tuples(&[tuple])?;
//! let (anne, viewer) = (User::parse("user:anne")?, Relation::parse("viewer")?);
//! assert!(relationships.check(&anne, &viewer, &Object::parse("document:roadmap")?)?);
//! assert_eq!(relationships.list_objects(&anne, &viewer, &TypeName::parse("document")?)?.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Permitted retrieval in a program
//!
//! [`app::App`] opens the backends that a [`config::Config`] names. With the default configuration these are embedded: a data
//! directory and nothing else. [`app::App::retriever`] answers from them, and `examples/embed.rs` shows the whole way.
//!
//! # Features
//!
//! All are on by default. Without any of them the library has the evaluator, and retrieval over the embedded engines.
//!
//! | feature | brings |
//! |---|---|
//! | `openfga` | decisions by an `OpenFGA` server |
//! | `qdrant` | search in a Qdrant server |
//! | `server` | the gRPC server and its client; brings `openfga`, whose messages the server's `OpenFGA` API uses |
//! | `cli` | the `ragward` command; brings all others |
//!
//! Without `server`, nothing records answers or reads tokens, and [`app::App::open`] refuses a configuration that asks
//! for either. The default configuration asks for records (`audit.required`).
//!
//! `ARCHITECTURE.md` is the map of the code. Each module's own page says why it exists.

pub mod analysis;
pub mod app;
pub mod audit;
pub mod authz;
#[cfg(any(feature = "openfga", feature = "qdrant"))]
pub mod backend;
pub mod blocking_pool;
pub mod chunk;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "server")]
pub mod client;
#[cfg(any(feature = "openfga", feature = "qdrant"))]
mod client_tls;
pub mod config;
pub mod engine;
pub mod error_code;
#[cfg_attr(
    not(feature = "server"),
    expect(dead_code, reason = "a server reads tokens; without one a principal is stated by the program itself")
)]
pub mod identity;
pub mod inference;
pub mod ingest;
pub mod language;
#[cfg(feature = "cli")]
mod login;
#[cfg(feature = "server")]
pub mod proto;
pub mod retrieval;
#[cfg(feature = "server")]
pub mod server;
pub mod server_config;
pub mod settings;
pub mod sources;
pub mod storage;
pub mod store_file;
mod strict_json;
pub mod telemetry;
#[cfg(feature = "server")]
mod token_endpoint;
#[cfg(feature = "openfga")]
pub mod tune;
pub mod tuple_store;
pub mod vector_store;
#[cfg(any(feature = "cli", feature = "server"))]
#[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "only the command line shows whole texts of others"))]
mod visible;
