//! Writes the log. One thread takes all records that wait, writes them at once, makes them durable at once, and only then
//! acknowledges them (group commit): the more calls there are, the more of them share one `fdatasync`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::chain::Event;
use super::key::AuditKey;
use super::record::Record;
use super::recovery::recover;
use super::writer::Writer;
use super::{AuditError, AuditSink, DigestPurpose};
use crate::telemetry;

/// KiB of records that may wait to be written; more callers wait with theirs.
const WAITING_KIB_MAX: u32 = 65_536;
/// Most records of one write.
const BATCH_RECORDS_MAX: usize = 1_024;
/// KiB of a record beside its chunk ids.
const RECORD_KIB: usize = 2;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// Where the segments are.
    pub directory: PathBuf,
    /// Where the key is; made when it is not there.
    pub key_file: PathBuf,
    /// When records are made durable.
    pub fsync: FsyncPolicy,
    /// A segment that is as large as this is sealed and the next one begun.
    pub segment_bytes_max: u64,
    /// Segments that are kept; all of them when 0.
    pub segments_max: u64,
}

/// When records are made durable. A crash of the process loses no acknowledged record under any of them; a crash of the
/// machine does under all but the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsyncPolicy {
    /// Before they are acknowledged.
    EachBatch,
    /// At this interval.
    Interval(Duration),
    /// When the system likes to.
    Never,
}

/// The audit log in files.
pub struct FileAuditSink {
    /// Gone once the writer was told to end.
    queue: Option<mpsc::Sender<Waiting>>,
    room: Arc<Semaphore>,
    key: AuditKey,
    writer: Option<JoinHandle<()>>,
}

/// A record on its way.
struct Waiting {
    record: Record,
    acknowledge: Option<oneshot::Sender<Result<(), AuditError>>>,
    /// Its place in the queue, given back when it is dropped.
    _room: OwnedSemaphorePermit,
}

impl FileAuditSink {
    /// Opens or begins the log. Blocks on files.
    ///
    /// # Errors
    /// When another process writes it, its end is not as it was left, or it cannot be written.
    pub fn open(config: AuditConfig, clock: Clock) -> Result<Self, AuditError> {
        let recovered = recover(&config.directory, &config.key_file)?;
        let key = recovered.key.clone();
        let fsync = config.fsync;
        let directory = config.directory.clone();
        let writer = Writer::new(config, clock, recovered)?;
        let (queue, waiting) = mpsc::channel();
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(move || run(writer, &waiting, fsync));
        let thread = thread.map_err(|e| AuditError::io(&directory, &e))?;
        let room = Arc::new(Semaphore::new(usize::try_from(WAITING_KIB_MAX).unwrap_or(usize::MAX)));
        Ok(Self { queue: Some(queue), room, key, writer: Some(thread) })
    }

    fn send(&self, waiting: Waiting) -> Result<(), AuditError> {
        let stopped = || AuditError::Stopped("its thread ended".to_owned());
        self.queue.as_ref().ok_or_else(stopped)?.send(waiting).map_err(|_ended| stopped())?;
        telemetry::audit_queued();
        Ok(())
    }
}

#[async_trait]
impl AuditSink for FileAuditSink {
    async fn record(&self, record: Record) -> Result<(), AuditError> {
        let stopped = || AuditError::Stopped("its thread ended".to_owned());
        let room = Arc::clone(&self.room).acquire_many_owned(kib(&record)).await.map_err(|_closed| stopped())?;
        let (acknowledge, acknowledged) = oneshot::channel();
        self.send(Waiting { record, acknowledge: Some(acknowledge), _room: room })?;
        let acknowledged = acknowledged.await;
        acknowledged.map_err(|_ended| stopped())?
    }

    fn note(&self, record: Record) {
        let noted = Arc::clone(&self.room).try_acquire_many_owned(kib(&record)).map_err(|e| e.to_string());
        let noted = noted.and_then(|room| {
            self.send(Waiting { record, acknowledge: None, _room: room }).map_err(|error| error.to_string())
        });
        if let Err(error) = noted {
            tracing::warn!(error, "a call whose caller was gone is not in the audit log");
        }
    }

    fn digest(&self, purpose: DigestPurpose, bytes: &[u8]) -> String {
        self.key.digest(purpose, bytes)
    }
}

impl Drop for FileAuditSink {
    /// Writes what waits and seals the segment.
    fn drop(&mut self) {
        drop(self.queue.take());
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the audit log's thread ended in a panic");
        }
    }
}

/// What a record weighs in the queue.
fn kib(record: &Record) -> u32 {
    let ids = record.released.iter().flat_map(|released| &released.chunk_ids);
    let bytes: usize = ids.map(String::len).sum();
    u32::try_from(RECORD_KIB + bytes / 1_024).unwrap_or(u32::MAX).min(WAITING_KIB_MAX)
}

/// The thread: until the sink is dropped.
fn run(mut writer: Writer, queue: &mpsc::Receiver<Waiting>, fsync: FsyncPolicy) {
    loop {
        let first = match fsync {
            FsyncPolicy::Interval(interval) => match queue.recv_timeout(interval) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            },
            FsyncPolicy::EachBatch | FsyncPolicy::Never => match queue.recv() {
                Ok(first) => Some(first),
                Err(mpsc::RecvError) => break,
            },
        };
        let batch: Vec<Waiting> = first.into_iter().chain(queue.try_iter()).take(BATCH_RECORDS_MAX).collect();
        let mut events = Vec::with_capacity(batch.len());
        let mut acknowledgements = Vec::with_capacity(batch.len());
        for Waiting { record, acknowledge, _room: room } in batch {
            events.push(Event::Record(Box::new(record)));
            acknowledgements.push((acknowledge, room));
        }
        let kept = writer.write(events);
        if !acknowledgements.is_empty() {
            telemetry::audit_written(acknowledgements.len(), kept.is_ok());
        }
        if let Err(error) = &kept {
            tracing::error!(%error, records = acknowledgements.len(), "the audit log was not written");
        }
        for (acknowledge, _room) in acknowledgements {
            if let Some(acknowledge) = acknowledge {
                // Nobody waits any more when the caller went away.
                acknowledge.send(kept.clone()).unwrap_or_default();
            }
        }
    }
    if let Err(error) = writer.end() {
        tracing::error!(%error, "the audit log could not be sealed");
    }
}

#[cfg(test)]
mod tests;
