//! The settings of the log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Returns the current time.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The operator's settings for the log.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// The directory of the segments.
    pub directory: PathBuf,
    /// The file of the key, which is created if it does not exist.
    pub key_file: PathBuf,
    /// When records are made durable.
    pub fsync: FsyncPolicy,
    /// The size in bytes at which a segment is sealed and the next one begins.
    pub segment_bytes_max: u64,
    /// The number of segments that are kept; 0 keeps all.
    pub segments_max: u64,
}

/// When records are made durable. A crash of the process never loses an acknowledged record, because the operating
/// system has it. A crash of the machine loses none only under [`Self::EachBatch`].
///
/// The default is an interval. It can lose the records of that interval when the machine loses power, though their
/// answers were given. To flush the disk for each answer closes that gap, but on a slow disk it takes more time than
/// deciding and searching together. Most who keep such logs do not want that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsyncPolicy {
    /// Each record is durable before it is acknowledged.
    EachBatch,
    /// Records are made durable at this interval.
    Interval(Duration),
    /// The operating system decides when.
    Never,
}
