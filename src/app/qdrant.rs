//! Opens the Qdrant store of the section `[vector_store.qdrant]`.

use std::time::Duration;

use super::AppError;
use crate::config::Config;
use crate::vector_store::qdrant::{QdrantConfig, QdrantStore};

/// Opens the store that the configuration names. Call it inside tokio.
pub(super) fn open_configured(config: &Config) -> Result<QdrantStore, AppError> {
    Ok(QdrantStore::new(&config.vector_store.qdrant)?.with_languages(config.vector_store.languages.clone()))
}

/// Opens the Qdrant store alone, for callers that need more than the ports offer. Call this function inside tokio.
///
/// # Errors
/// When the section `[vector_store.qdrant]` cannot be used.
pub fn open_qdrant(config: &Config, call_timeout: Duration) -> Result<QdrantStore, AppError> {
    let qdrant = QdrantConfig { timeout: call_timeout, ..config.vector_store.qdrant.clone() };
    Ok(QdrantStore::new(&qdrant)?.with_languages(config.vector_store.languages.clone()))
}
