//! Builds the Qdrant store from the section `[vector_store.qdrant]`.

use std::time::Duration;

use super::AppError;
use crate::backend::Secret;
use crate::config::{self, Config, ConfigError};
use crate::vector_store::qdrant::{ForeignLayout, Layout, QdrantConfig, QdrantStore, ReadConsistency};

/// Builds the settings of the Qdrant adapter.
fn qdrant_config(config: &Config) -> Result<QdrantConfig, AppError> {
    let qdrant = &config.vector_store.qdrant;
    let layout = |(name, paths): (&String, &config::PayloadConfig)| {
        let config::PayloadConfig { guard, document_id, title, text, .. } = &paths.completed();
        let metadata = paths.metadata();
        match Layout::foreign(&ForeignLayout { guard, document_id, title, text, metadata }) {
            Ok(layout) => Ok((name.clone(), layout)),
            Err(e) => Err(ConfigError::Invalid(format!("`vector_store.qdrant.collections.{name}`: {e}"))),
        }
    };
    Ok(QdrantConfig {
        url: qdrant.url.clone(),
        api_key: config::read_secret(&qdrant.api_key_file)?.map(Secret::new),
        timeout: Duration::from_millis(qdrant.timeout_ms),
        vector_name: Some(qdrant.vector_name.clone()).filter(|name| !name.is_empty()),
        exact: qdrant.exact,
        scanned_chunks_max: qdrant.scanned_chunks_max,
        read_consistency: match qdrant.read_consistency {
            config::ReadConsistency::One => None,
            config::ReadConsistency::Majority => Some(ReadConsistency::Majority),
            config::ReadConsistency::Quorum => Some(ReadConsistency::Quorum),
            config::ReadConsistency::All => Some(ReadConsistency::All),
        },
        overview_age_max: Duration::from_millis(qdrant.overview_age_max_ms),
        guards_max: qdrant.guards_max,
        guards_per_filter_max: qdrant.guards_per_filter_max,
        layouts: qdrant.collections.iter().map(layout).collect::<Result<_, _>>()?,
    })
}

/// Opens the store that the configuration names. Call it inside tokio.
pub(super) fn open_configured(config: &Config) -> Result<QdrantStore, AppError> {
    Ok(QdrantStore::new(&qdrant_config(config)?)?)
}

/// Opens the Qdrant store by itself, for what only it can do. Call it inside tokio.
///
/// # Errors
/// When its section of the configuration cannot be used.
pub fn open_qdrant(config: &Config, call_timeout: Duration) -> Result<QdrantStore, AppError> {
    Ok(QdrantStore::new(&QdrantConfig { timeout: call_timeout, ..qdrant_config(config)? })?)
}
