//! The systems beside the authorizer and the vector store that a retrieval asks.

use std::sync::Arc;

use crate::inference::{Embeddings, Rerankers};
use crate::sources::SourceSystems;

/// The systems beside the authorizer and the vector store that a retrieval asks. By default, there are none.
#[derive(Clone, Default)]
pub struct OtherSystems {
    /// The systems that are asked before a chunk leaves, if there are any.
    pub sources: Option<Arc<dyn SourceSystems>>,
    /// The models that make vectors of queries, for some collections.
    pub embeddings: Arc<Embeddings>,
    /// The models that order the chunks of answers, for some collections.
    pub rerankers: Arc<Rerankers>,
}
