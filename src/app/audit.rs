//! From the section `[audit]` to a log that is open.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::AppError;
use crate::audit::{AuditConfig, FileAuditSink, FsyncPolicy};
use crate::config::{AuditFsync, Config};
use crate::server::Audit;

/// Where the log is within the data directory, unless the configuration names a place.
const DIRECTORY: &str = "audit";
/// Where its key is.
const KEY_FILE: &str = "audit.key";

/// What the audit log needs of the configuration.
#[must_use]
pub fn audit_config(config: &Config) -> AuditConfig {
    let audit = &config.audit;
    let or_in_data = |path: &Path, name: &str| {
        if path.as_os_str().is_empty() { config.data.directory.join(name) } else { path.to_owned() }
    };
    AuditConfig {
        directory: or_in_data(&audit.directory, DIRECTORY),
        key_file: or_in_data(&audit.key_file, KEY_FILE),
        fsync: match audit.fsync {
            AuditFsync::EachBatch => FsyncPolicy::EachBatch,
            AuditFsync::Interval => FsyncPolicy::Interval(Duration::from_millis(audit.fsync_interval_ms)),
            AuditFsync::Never => FsyncPolicy::Never,
        },
        segment_bytes_max: audit.segment_bytes_max,
        segments_max: audit.segments_max,
    }
}

/// Opens the log and says where it is; `None` when calls are not recorded.
pub(super) async fn open(config: &Config) -> Result<Option<Audit>, AppError> {
    if !config.audit.enabled {
        tracing::warn!("`audit.enabled` is off: nobody can tell afterwards who was given what");
        return Ok(None);
    }
    let audit = audit_config(config);
    tracing::info!(directory = %audit.directory.display(), key_file = %audit.key_file.display(), "audit log");
    let opening = move || FileAuditSink::open(audit, Arc::new(SystemTime::now));
    let sink = Arc::new(tokio::task::spawn_blocking(opening).await??);
    Ok(Some(Audit { sink, required: config.audit.required }))
}
