//! Writes the log: group commit, led by whoever comes first.
//!
//! A caller encodes its record and puts it into the queue. If nobody writes, it leads: it gives what waits to the system in one
//! `write(2)`, which takes microseconds, and acknowledges it; so nothing waits for another thread to wake up. Whoever comes
//! meanwhile follows, and is acknowledged by the leader. What waits for the disk (`fdatasync`, sealing and beginning segments),
//! and what is still there after a caller's turn, is led by a thread. The more calls there are, the more of them share a write.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::chain::Event;
use super::key::AuditKey;
use super::record::Record;
use super::recovery::recover;
use super::verification::Verification;
use super::writer::Writer;
use super::{AuditError, AuditSink, DigestPurpose, Kept};
use crate::telemetry;

/// Bytes of records that may wait to be written.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most records of one write.
const BATCH_RECORDS_MAX: usize = 1_024;
/// The largest record that a caller writes itself; the MAC of a larger one keeps others from running for too long.
const BY_CALLER_BYTES_MAX: usize = 64 * 1024;

/// The file that is written to see whether the log could be.
const PROBE: &str = "probe";
/// As much as a large record.
const PROBE_BYTES: usize = 64 * 1024;

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
    log: Arc<Log>,
    key: AuditKey,
    directory: PathBuf,
    /// To the thread, for it to lead. Gone once it was told to end.
    turns: Option<mpsc::Sender<Turn>>,
    thread: Option<JoinHandle<()>>,
}

/// What callers and the thread share. The queue is locked for a moment only; the writer is locked by who leads, and by the
/// thread for the moments before and after an `fdatasync`.
struct Log {
    queue: Mutex<Queue>,
    writer: Mutex<Writer>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    bytes: usize,
    /// Whether there is a [`Turn`].
    is_led: bool,
}

/// The right and the duty to write what waits. There is one at most, and whoever has it leads. If it is lost, by a panic or with
/// the thread, those who wait are told, and the next caller leads.
struct Turn {
    log: Arc<Log>,
    is_over: bool,
}

/// Tells who waits whether the record was kept.
type Acknowledge = oneshot::Sender<Result<(), AuditError>>;

/// A record on its way.
struct Waiting {
    event: Vec<u8>,
    acknowledge: Acknowledge,
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
        let log = Arc::new(Log { queue: Mutex::default(), writer: Mutex::new(writer) });
        let (turns, given) = mpsc::channel();
        let of_thread = Arc::clone(&log);
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(move || run(&of_thread, &given, fsync));
        let thread = thread.map_err(|e| AuditError::io(&directory, &e))?;
        Ok(Self { log, key, directory, turns: Some(turns), thread: Some(thread) })
    }

    /// Takes a record in, and writes it here if nobody else does and nothing waits for the disk.
    fn take_in(&self, event: &Event) -> Result<oneshot::Receiver<Result<(), AuditError>>, AuditError> {
        let event = event.encode();
        let event = event.map_err(|e| AuditError::Stopped(format!("a record cannot be written as JSON: {e}")))?;
        let is_large = event.len() > BY_CALLER_BYTES_MAX;
        let (acknowledge, acknowledged) = oneshot::channel();
        let Some(turn) = self.log.put_in(Waiting { event, acknowledge })? else { return Ok(acknowledged) };
        let by_thread = is_large || self.log.lock_writer().is_ok_and(|writer| writer.needs_disk());
        let turn = if by_thread { Some(turn) } else { turn.write_batch() };
        if let (Some(turn), Some(turns)) = (turn, &self.turns) {
            // A thread that has ended gives the turn back, and here it is lost.
            turns.send(turn).unwrap_or_default();
        }
        Ok(acknowledged)
    }
}

impl AuditSink for FileAuditSink {
    fn record(&self, record: Record) -> Kept {
        self.keep(&Event::Record(Box::new(record)))
    }

    fn verified(&self, verification: Verification) -> Kept {
        self.keep(&Event::Verification(Box::new(verification)))
    }

    fn digest(&self, purpose: DigestPurpose, bytes: &[u8]) -> String {
        self.key.digest(purpose, bytes)
    }

    /// Writes and removes a file beside the segments: the log itself is not touched, and a full disk, a lost directory and
    /// a file system that became read-only show.
    fn check_writable(&self) -> Result<(), AuditError> {
        self.log.lock_writer()?.mend()?;
        let path = self.directory.join(PROBE);
        let written = File::create(&path).and_then(|mut file| file.write_all(&vec![0; PROBE_BYTES]));
        // Also after a failure: what was written of it takes room.
        let removed = std::fs::remove_file(&path);
        written.and(removed).map_err(|e| AuditError::io(&path, &e))
    }
}

impl FileAuditSink {
    fn keep(&self, event: &Event) -> Kept {
        let taken_in = self.take_in(event);
        if let Err(error) = &taken_in {
            tracing::error!(%error, "an audit record was not taken in");
        }
        let kept = async move {
            let acknowledged = taken_in?.await;
            acknowledged.map_err(|_lost| AuditError::Stopped("who wrote it ended early".to_owned()))?
        };
        kept.boxed()
    }
}

impl Drop for FileAuditSink {
    /// Writes what waits and seals the segment.
    fn drop(&mut self) {
        drop(self.turns.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the audit log's thread ended in a panic");
        }
    }
}

impl Log {
    fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_writer(&self) -> Result<MutexGuard<'_, Writer>, AuditError> {
        // What a panic left half done must not be gone on from.
        self.writer.lock().map_err(|_poisoned| AuditError::Stopped("an earlier write panicked".to_owned()))
    }

    /// Puts a record into the queue. Nobody wrote before if there is a turn.
    fn put_in(self: &Arc<Self>, waiting: Waiting) -> Result<Option<Turn>, AuditError> {
        let mut queue = self.lock_queue();
        if queue.bytes.saturating_add(waiting.event.len()) > WAITING_BYTES_MAX {
            return Err(AuditError::Full);
        }
        queue.bytes += waiting.event.len();
        queue.waiting.push(waiting);
        telemetry::audit_queued();
        let was_led = std::mem::replace(&mut queue.is_led, true);
        Ok((!was_led).then(|| Turn { log: Arc::clone(self), is_over: false }))
    }

    /// Makes durable what is written. Others write meanwhile.
    fn sync(&self) -> Result<(), AuditError> {
        let Some(syncing) = self.lock_writer()?.start_sync() else { return Ok(()) };
        let synced = syncing.wait();
        self.lock_writer()?.end_sync(&syncing, synced)
    }
}

impl Queue {
    fn take(&mut self, records_max: usize) -> (Vec<Vec<u8>>, Vec<Acknowledge>) {
        let records = self.waiting.len().min(records_max);
        let batch = self.waiting.drain(..records).map(|Waiting { event, acknowledge }| (event, acknowledge));
        let (events, acknowledgements): (Vec<Vec<u8>>, Vec<Acknowledge>) = batch.unzip();
        self.bytes -= events.iter().map(Vec::len).sum::<usize>();
        (events, acknowledgements)
    }
}

impl Turn {
    /// Writes one batch and acknowledges it. The turn goes on if more waits.
    fn write_batch(mut self) -> Option<Self> {
        let (events, acknowledgements) = self.log.lock_queue().take(BATCH_RECORDS_MAX);
        let kept = self.log.lock_writer().and_then(|mut writer| writer.write(&events));
        telemetry::audit_written(events.len(), kept.is_ok());
        if let Err(error) = &kept {
            tracing::error!(%error, records = events.len(), "the audit log was not written");
        }
        for acknowledge in acknowledgements {
            // Nobody waits any more when the caller went away.
            acknowledge.send(kept.clone()).unwrap_or_default();
        }
        let log = Arc::clone(&self.log);
        let mut queue = log.lock_queue();
        queue.is_led = !queue.waiting.is_empty();
        self.is_over = !queue.is_led;
        queue.is_led.then_some(self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut queue = self.log.lock_queue();
        queue.is_led = false;
        let (events, _told_by_the_drop) = queue.take(usize::MAX);
        telemetry::audit_written(events.len(), false);
    }
}

/// The thread: until the sink is dropped. Only here is the disk waited for, so no segment ends while it is made durable.
fn run(log: &Log, turns: &mpsc::Receiver<Turn>, fsync: FsyncPolicy) {
    let interval = match fsync {
        FsyncPolicy::Interval(interval) => Some(interval),
        FsyncPolicy::EachBatch | FsyncPolicy::Never => None,
    };
    let mut synced = Instant::now();
    let mut turn: Option<Turn> = None;
    loop {
        turn = if let Some(turn) = turn {
            turn.write_batch()
        } else {
            let given = match interval {
                Some(interval) => turns.recv_timeout(interval.saturating_sub(synced.elapsed())),
                None => turns.recv().map_err(RecvTimeoutError::from),
            };
            match given {
                Ok(given) => Some(given),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        };
        if interval.is_some_and(|interval| synced.elapsed() >= interval) {
            if let Err(error) = log.sync() {
                tracing::error!(%error, "the audit log could not be made durable");
            }
            synced = Instant::now();
        }
    }
    if let Err(error) = log.lock_writer().and_then(|mut writer| writer.end()) {
        tracing::error!(%error, "the audit log could not be sealed");
    }
}

#[cfg(test)]
mod tests;
