//! Small logs for tests.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::*;
use crate::settings::ByteSize;

/// How a log ends. A log that ends cleanly has a seal in each segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Clean,
    Killed,
}

pub(super) fn config(directory: &Path) -> AuditLogConfig {
    config_with(directory, |_| {})
}

/// Returns the configuration of a small log, with some settings changed.
pub(super) fn config_with(directory: &Path, change: impl FnOnce(&mut AuditConfig)) -> AuditLogConfig {
    let (fsync, segment_size_max) = (FsyncPolicy::EachBatch, ByteSize::bytes(1_500));
    // The interval passes within a test, so that the thread flushes.
    let fsync_interval = Duration::from_millis(1);
    let mut settings = AuditConfig { fsync, fsync_interval, segment_size_max, ..AuditConfig::default() };
    change(&mut settings);
    settings.resolved(directory)
}

/// Returns a clock that advances by a millisecond at each reading.
pub(super) fn clock() -> Clock {
    let ticks = AtomicU64::new(1_000_000);
    Arc::new(move || SystemTime::UNIX_EPOCH + Duration::from_millis(ticks.fetch_add(1, Ordering::Relaxed)))
}

pub(super) fn record(number: usize) -> Record {
    Record {
        call: format!("v{number}.Service/Call"),
        door: Some(Door::Grpc),
        code: "OK".to_owned(),
        trace_id: format!("{number:032x}"),
        refusal: None,
        principal: Some(AuditedPrincipal { subject: Some("user:anne".to_owned()), ..AuditedPrincipal::default() }),
        request: None,
        decision: None,
        observed: None,
        released: Some(Released { chunk_ids: vec![format!("chunk \"{number}\"\n")], ..Released::default() }),
        approval: None,
        models: Vec::new(),
        latency_us: Latencies { total: 1, ..Latencies::default() },
    }
}

/// Appends records, each in a batch of its own, and returns the key.
pub(super) fn write(config: &AuditLogConfig, records: std::ops::Range<usize>, end: End) -> AuditKey {
    let recovered = recovery::recover(&config.directory, &config.key_file).expect("opened");
    let key = recovered.key.clone();
    let mut writer = writer::LogWriter::new(config.clone(), clock(), recovered).expect("opened");
    for number in records {
        let event = Event::Record(Box::new(record(number)));
        writer.write(&[event.encode().expect("encoded")]).expect("written");
    }
    if end == End::Clean {
        writer.end().expect("sealed");
    }
    key
}

pub(super) fn read(config: &AuditLogConfig, key: &AuditKey) -> Report {
    read_log(&config.directory, key, |_, _, _| {}).expect("read")
}
