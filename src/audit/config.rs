//! The section `[audit]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{ByteSize, PositiveDuration, at_least_one};

/// The directory of the segments within the data directory, unless the configuration names another place.
const DIRECTORY: &str = "audit";
/// The file of the key within the data directory, unless the configuration names another place.
const KEY_FILE: &str = "audit.key";

/// A source of the current time.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The audit log: whether calls are recorded, where the records are kept, and when they become durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Record every answer and every refusal.
    pub enabled: bool,
    /// Withhold an answer whose record cannot be kept. Otherwise the answer leaves, and the log reports the loss.
    pub required: bool,
    /// The directory of the segments. When unset, `audit` in the data directory. Only one process at a time can write it.
    pub directory: Option<PathBuf>,
    /// The file of the key. When unset, `audit.key` in the data directory. It is created if it does not exist. Whoever can
    /// write the segments should not be able to read it.
    pub key_file: Option<PathBuf>,
    /// The detail in which the record of an observing re-check (`PURPOSE_OBSERVE`) describes the chunks that its user may not
    /// see. The caller never learns it.
    pub observed: ObservedDetail,
    /// The policy that decides when records are flushed to the disk.
    pub fsync: FsyncPolicy,
    /// The time between two flushes, if `fsync` is `interval`.
    #[serde(with = "PositiveDuration")]
    pub fsync_interval: Duration,
    /// The size at which a segment is sealed and the next one begins.
    #[serde(deserialize_with = "at_least_one")]
    pub segment_size_max: ByteSize,
    /// The number of segments to keep, at least 2; 0 keeps all.
    pub segments_max: u64,
}

/// The policy that decides when records become durable. A crash of the process never loses an acknowledged record,
/// because the operating system has it. A crash of the machine can lose records under every policy but `each_batch`.
///
/// The default is `interval`. If the machine loses power, the records of one interval can be lost, although their
/// answers have left. `each_batch` closes that gap, but on a slow disk a flush for each answer takes longer than
/// deciding and searching together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FsyncPolicy {
    /// Each record is durable before its answer leaves. Records that wait at the same time share one flush.
    EachBatch,
    /// Records are made durable every `fsync_interval`.
    #[default]
    Interval,
    /// The operating system decides when.
    Never,
}

/// The detail in which a record describes the chunks that an observing re-check would have withheld.
///
/// The ids are for the report by document. They name what somebody may not see, and an unknown id is whatever the caller
/// sent. So an operator asks for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObservedDetail {
    /// The number of withheld chunks, and the number of unknown ids.
    #[default]
    Counts,
    /// The numbers, the ids of the withheld chunks and of their documents, and the unknown ids.
    Ids,
}

/// An [`AuditConfig`] whose paths are known.
#[derive(Clone, Debug)]
pub struct AuditLogConfig {
    /// The directory of the segments.
    pub directory: PathBuf,
    /// The file of the key.
    pub key_file: PathBuf,
    /// The settings that the paths come from.
    pub settings: AuditConfig,
}

impl AuditConfig {
    /// Fills in the paths that are unset with paths in the data directory.
    #[must_use]
    pub fn resolved(&self, data_directory: &Path) -> AuditLogConfig {
        let or_in_data = |path: &Option<PathBuf>, name: &str| path.clone().unwrap_or_else(|| data_directory.join(name));
        AuditLogConfig {
            directory: or_in_data(&self.directory, DIRECTORY),
            key_file: or_in_data(&self.key_file, KEY_FILE),
            settings: self.clone(),
        }
    }
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            required: true,
            directory: None,
            key_file: None,
            observed: ObservedDetail::default(),
            fsync: FsyncPolicy::default(),
            fsync_interval: Duration::from_secs(1),
            segment_size_max: ByteSize::mib(64),
            segments_max: 0,
        }
    }
}
