//! The ports to models: an embedder turns texts into vectors, and a reranker orders texts by how well they answer a query.
//!
//! A model in a folder computes in this process. Texts leave this machine for an endpoint only for the collections that name it,
//! and only up to its ceiling (`classification_max`). Nothing is cached: a cache that users share would tell one of them, by its
//! time, what another one has asked.
//!
//! INVARIANT (nothing leaks): a fault is a fixed word or a status. It repeats nothing that was sent or answered.

mod ceiling;
mod config;
mod embedding;
#[cfg(feature = "server")]
mod endpoint;
mod rerank;
#[cfg(all(feature = "server", feature = "static-embeddings"))]
mod static_model;

use async_trait::async_trait;

use crate::error_code::ErrorCode;

pub use self::ceiling::Ceiling;
pub use self::config::{EmbeddingConfig, OnRerankFailure, RerankConfig, RerankForm, check};
pub use self::embedding::{CollectionEmbedder, Embeddings};
pub use self::rerank::{CollectionReranker, Reranker, Rerankers};

/// Turns texts into vectors, so that texts of like meaning have vectors of like direction.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// Makes one vector for each text, in the order of the texts. There is at least one text. The vector is empty if the model knows
    /// nothing of what the text consists of.
    ///
    /// # Errors
    /// When there is no vector that counts for one of the texts.
    async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ModelFault>;
}

/// The work that texts are sent to a model for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelTask {
    /// The text of a query becomes a vector.
    EmbedQuery,
    /// The texts of chunks become vectors.
    EmbedChunks,
    /// The texts of permitted chunks are ordered.
    Rerank,
}

impl ModelTask {
    /// Returns the name of the task in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EmbedQuery => "embed_query",
            Self::EmbedChunks => "embed_chunks",
            Self::Rerank => "rerank",
        }
    }
}

/// Texts that are about to be sent to a model.
#[derive(Clone, Copy, Debug)]
pub struct SentTexts<'s> {
    /// The work that they are sent for.
    pub task: ModelTask,
    /// The name of the model.
    pub model: &'s str,
    /// The host and port of its endpoint.
    pub host: &'s str,
    /// The number of texts.
    pub texts: usize,
    /// The ids of the chunks that the texts are of, in the order in which they are sent; empty for the text of a query.
    pub chunk_ids: &'s [String],
}

/// Notes what is sent to models, for the record of a call.
pub trait SentRecord: Send + Sync {
    /// Notes texts before they are sent. They count as sent even if the model does not answer.
    ///
    /// # Errors
    /// When nothing may be sent, because it would not be recorded.
    fn about_to_send(&self, sent: SentTexts<'_>) -> Result<(), ModelFault>;
}

/// Notes nothing, where nobody keeps records.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRecord;

impl SentRecord for NoRecord {
    fn about_to_send(&self, _sent: SentTexts<'_>) -> Result<(), ModelFault> {
        Ok(())
    }
}

/// The reason why a model gave no answer that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ModelFault {
    /// Nothing came in time, or the connection broke.
    #[error("it did not answer")]
    Unreachable,
    /// The status is not that of an answer.
    #[error("it answered with status {0}")]
    Status(u16),
    /// The answer is larger than any right one.
    #[error("its answer is too large")]
    TooLarge,
    /// The answer is not JSON, or lacks what is needed.
    #[error("its answer has another form")]
    Form,
    /// The answer has more or fewer results than texts were sent.
    #[error("its answer has another number of results")]
    Count,
    /// A result is of a text that was not sent, or of one that has a result already.
    #[error("its answer names a text twice, or one that was not sent")]
    Index,
    /// A vector has another dimension than the others, than the settings say, or than the collection.
    #[error("its answer has a vector of another dimension")]
    Dimension,
    /// A number is not finite, or a vector is all zeros.
    #[error("its answer has a number that is not finite, or a vector without direction")]
    Number,
    /// The secret cannot be sent in a header, so nothing was sent.
    #[error("its key cannot be sent")]
    Key,
    /// Nothing was sent, because the record of the call could not be kept.
    #[error("nothing is sent to it while the audit log cannot be written")]
    Unrecorded,
}

/// The reason why a request that needs a model has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InferenceError {
    /// The embedder gave no answer that counts.
    #[error("the embedding model `{model}`: {fault}")]
    Embedding {
        /// The name of the model in the settings.
        model: String,
        /// The fault of the model's answer. It holds no word of the answer.
        fault: ModelFault,
    },
    /// The reranker gave no answer that counts.
    #[error("the reranking model `{model}`: {fault}")]
    Rerank {
        /// The name of the model in the settings.
        model: String,
        /// The fault of the model's answer. It holds no word of the answer.
        fault: ModelFault,
    },
}

impl InferenceError {
    /// Tells what the caller can do about it.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Embedding { .. } | Self::Rerank { .. } => ErrorCode::Unavailable,
        }
    }
}

/// The reason why a model cannot be asked as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InferenceSetupError(String);
