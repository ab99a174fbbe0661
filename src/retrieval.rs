//! Retrieval: turns one valid request into permitted chunks.
//!
//! A search finds candidates, enforcement decides about them, and only then is text read:
//!
//! ```text
//! plan ─► search ─► enforce ─► enough? ─► read ─► answer
//!          ▲                      │ no
//!          └──────── widen ◄──────┘
//! ```
//!
//! [`Retriever::retrieve`] is that loop. `plan` makes each of its decisions.

mod answer;
mod decoys;
mod error;
mod generations;
mod guard_index;
mod hydrate;
mod list_costs;
pub mod page;
mod paging;
mod pass_rates;
mod plan;
pub mod request;
mod retriever;
mod rounds;
mod shared;
mod stages;
mod visibility;
mod walk;

pub use answer::{PlanReport, Rechecked, Retrieval, Retrieved, RoundReport};
pub use error::RetrievalError;
pub use page::Pages;
pub use plan::{Completion, Plan};
pub use request::{FieldViolation, RecheckRequest, RetrievalParts, RetrievalRequest};
pub use retriever::Retriever;
pub use stages::StageTimes;

use crate::language::Relation;

/// The settings of a [`Retriever`].
#[derive(Clone, Debug)]
pub struct RetrievalConfig {
    /// The relation that a user must hold on the guard of a chunk to see the chunk.
    ///
    /// It is a setting and never a part of a request: a caller who could choose the relation could choose a weaker one.
    pub relation: Relation,
    /// Most chunks that a request may ask for.
    pub top_k_max: u32,
    /// Most candidates of one search. A search that would need more ends as [`Completion::Limited`].
    pub candidates_max: usize,
    /// Most guards that may be checked ahead of one search.
    pub guards_checked_max: usize,
    /// The key and lifetime of page tokens.
    pub pages: Pages,
    /// Whether a caller that asks for the plan of a retrieval is told it. The plan counts what is withheld.
    pub explain_plan: bool,
}
