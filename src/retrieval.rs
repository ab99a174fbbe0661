//! Retrieval: turns one valid request into permitted chunks.
//!
//! A search finds candidates, enforcement decides about them, and only then is text read:
//!
//! ```text
//! plan ─► search ─► enforce ─► enough? ─► ask sources ─► read ─► answer
//!          ▲                      │ no        │ withheld
//!          └──────── widen ◄──────┴───────────┘
//! ```
//!
//! [`Retriever::retrieve`] is that loop. `plan` makes each of its decisions.

mod answer;
mod approvable;
mod config;
mod decoys;
mod embed;
mod error;
mod fetch;
mod generations;
mod guard_index;
mod hydrate;
mod list_costs;
pub mod page;
mod paging;
mod pass_rates;
mod plan;
pub mod request;
mod rerank;
mod retriever;
mod rounds;
mod shared;
mod sourced;
mod stages;
mod systems;
mod visibility;
mod walk;

pub use answer::{Fetched, PlanReport, Rechecked, Retrieval, Retrieved, RoundReport, SourceReport, WithheldChunk};
pub use config::RetrievalConfig;
pub use error::RetrievalError;
pub use page::Pages;
pub use plan::{Completion, Plan};
pub use request::{
    FetchParts, FetchRequest, FieldViolation, NamedPrincipal, RecheckRequest, RetrievalParts, RetrievalRequest,
    StatedQuery,
};
pub use retriever::Retriever;
pub use stages::StageTimes;
pub use systems::OtherSystems;
