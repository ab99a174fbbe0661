//! Opens the audit log that the section `[audit]` describes.

use std::sync::Arc;
use std::time::SystemTime;

use super::AppError;
use crate::audit::FileAuditSink;
use crate::config::Config;
use crate::server::Audit;

/// Opens the log and tells where it is. Returns `None` when calls are not recorded.
pub(super) async fn open(config: &Config) -> Result<Option<Audit>, AppError> {
    if !config.audit.enabled {
        tracing::warn!("`audit.enabled` is off: nobody can tell afterwards who was given what");
        return Ok(None);
    }
    let audit = config.audit.resolved(&config.data.directory);
    tracing::info!(directory = %audit.directory.display(), key_file = %audit.key_file.display(), "audit log");
    let opening = move || FileAuditSink::open(audit, Arc::new(SystemTime::now));
    let sink = Arc::new(tokio::task::spawn_blocking(opening).await??);
    Ok(Some(Audit { sink, required: config.audit.required, observed: config.audit.observed }))
}
