//! Writes the log by group commit, led by the first caller.
//!
//! A caller encodes its record and puts it into the queue. If nobody else writes, the caller leads: it passes the queue
//! to the system in one `write(2)`, which takes microseconds, and acknowledges it. So no caller waits for another
//! thread to wake up. Callers that come in the meantime follow, and the leader acknowledges them. If the work has to
//! wait for the disk (`fdatasync`, sealing and beginning segments), a thread leads. It also leads if records are left
//! after a caller's turn. The more calls there are, the more of them share a write.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::chain::Event;
use super::config::{AuditLogConfig, Clock, FsyncPolicy};
use super::error::AuditError;
use super::key::{AuditKey, DigestPurpose};
use super::record::Record;
use super::recovery::recover;
use super::sink::{AuditSink, Kept};
use super::verification::Verification;
use super::writer::LogWriter;
use crate::telemetry;

/// The size of the records that may wait to be written, in bytes.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The number of records in one write.
const BATCH_RECORDS_MAX: usize = 1_024;
/// The size of the largest record that a caller writes itself, in bytes. Computing the MAC of a larger one would hold
/// up other work for too long.
const BY_CALLER_BYTES_MAX: usize = 64 * 1024;

/// The file that is written to check whether the log could be written.
const PROBE: &str = "probe";
/// The size of the probe in bytes: that of a large record.
const PROBE_BYTES: usize = 64 * 1024;

/// An audit log in files.
pub struct FileAuditSink {
    log: Arc<Log>,
    key: AuditKey,
    directory: PathBuf,
    /// Sends turns to the thread, which then leads. `None` once the thread was told to end.
    turns: Option<mpsc::Sender<Turn>>,
    thread: Option<JoinHandle<()>>,
}

/// The state that callers and the thread share. The queue is locked only for a moment. A leader locks the writer while
/// it writes. The thread also locks it just before and just after an `fdatasync`.
struct Log {
    queue: Mutex<Queue>,
    writer: Mutex<LogWriter>,
    /// Whether the latest write failed.
    is_failing: AtomicBool,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<QueuedRecord>,
    bytes: usize,
    /// Whether somebody has the [`Turn`].
    is_led: bool,
}

/// The right and the duty to write the queue. There is one at most, and its owner leads. If it is lost, by a panic or
/// with the thread, the waiting callers get an error, and the next caller leads.
struct Turn {
    log: Arc<Log>,
    is_over: bool,
}

/// Tells a waiting caller whether its record was kept.
type Acknowledge = oneshot::Sender<Result<(), AuditError>>;

/// A record in the queue.
struct QueuedRecord {
    event: Vec<u8>,
    acknowledge: Acknowledge,
}

impl FileAuditSink {
    /// Opens a log, or begins one. This blocks on files.
    ///
    /// # Errors
    /// If another process writes the log, if its end was changed, or if it cannot be written.
    pub fn open(config: AuditLogConfig, clock: Clock) -> Result<Self, AuditError> {
        let recovered = recover(&config.directory, &config.key_file)?;
        let key = recovered.key.clone();
        let flushed_every = match config.settings.fsync {
            FsyncPolicy::Interval => Some(config.settings.fsync_interval),
            FsyncPolicy::EachBatch | FsyncPolicy::Never => None,
        };
        let directory = config.directory.clone();
        let writer = LogWriter::new(config, clock, recovered)?;
        let (writer, is_failing) = (Mutex::new(writer), AtomicBool::new(false));
        let log = Arc::new(Log { queue: Mutex::default(), writer, is_failing });
        let (turns, given) = mpsc::channel();
        let of_thread = Arc::clone(&log);
        let thread =
            std::thread::Builder::new().name("audit".to_owned()).spawn(move || run(&of_thread, &given, flushed_every));
        let thread = thread.map_err(|e| AuditError::io(&directory, &e))?;
        Ok(Self { log, key, directory, turns: Some(turns), thread: Some(thread) })
    }

    /// Puts a record into the queue, and writes the queue if nobody else does and no write has to wait for the disk.
    fn take_in(&self, event: &Event) -> Result<oneshot::Receiver<Result<(), AuditError>>, AuditError> {
        let event = event.encode();
        let event = event.map_err(|e| AuditError::Stopped(format!("a record cannot be written as JSON: {e}")))?;
        let is_large = event.len() > BY_CALLER_BYTES_MAX;
        let (acknowledge, acknowledged) = oneshot::channel();
        let Some(turn) = self.log.put_in(QueuedRecord { event, acknowledge })? else { return Ok(acknowledged) };
        let by_thread = is_large || self.log.lock_writer().is_ok_and(|writer| writer.needs_disk());
        let turn = if by_thread { Some(turn) } else { turn.write_batch() };
        if let (Some(turn), Some(turns)) = (turn, &self.turns)
            && turns.send(turn).is_err()
        {
            // The turn came back and is dropped, so the waiting callers get an error.
            tracing::error!("the audit log's thread has ended");
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

    /// Writes and removes a file beside the segments, without touching the log. This finds a full disk, a lost
    /// directory and a file system that became read-only.
    fn check_writable(&self) -> Result<(), AuditError> {
        self.log.lock_writer()?.mend()?;
        let path = self.directory.join(PROBE);
        let written = File::create(&path).and_then(|mut file| file.write_all(&vec![0; PROBE_BYTES]));
        // The file is removed even after a failed write, since the part that was written takes room.
        let removed = std::fs::remove_file(&path);
        written.and(removed).map_err(|e| AuditError::io(&path, &e))
    }

    fn is_failing(&self) -> bool {
        self.log.is_failing.load(Ordering::Relaxed)
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
            acknowledged.map_err(|_lost| AuditError::Stopped("its writer ended early".to_owned()))?
        };
        kept.boxed()
    }
}

impl Drop for FileAuditSink {
    /// Writes the queue and seals the segment.
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

    fn lock_writer(&self) -> Result<MutexGuard<'_, LogWriter>, AuditError> {
        // A panic may have left a write half done, and nothing may follow it.
        self.writer.lock().map_err(|_poisoned| AuditError::Stopped("an earlier write panicked".to_owned()))
    }

    /// Puts a record into the queue. Returns the turn if nobody had it.
    fn put_in(self: &Arc<Self>, waiting: QueuedRecord) -> Result<Option<Turn>, AuditError> {
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

    /// Makes the written entries durable, while others go on writing.
    fn sync(&self) -> Result<(), AuditError> {
        let Some(syncing) = self.lock_writer()?.start_sync() else { return Ok(()) };
        let synced = syncing.wait();
        self.lock_writer()?.end_sync(&syncing, synced)
    }
}

impl Queue {
    fn take(&mut self, records_max: usize) -> (Vec<Vec<u8>>, Vec<Acknowledge>) {
        let records = self.waiting.len().min(records_max);
        let batch = self.waiting.drain(..records).map(|QueuedRecord { event, acknowledge }| (event, acknowledge));
        let (events, acknowledgements): (Vec<Vec<u8>>, Vec<Acknowledge>) = batch.unzip();
        self.bytes -= events.iter().map(Vec::len).sum::<usize>();
        (events, acknowledgements)
    }
}

impl Turn {
    /// Writes one batch and acknowledges it. Returns the turn if more records wait.
    fn write_batch(mut self) -> Option<Self> {
        let (events, acknowledgements) = self.log.lock_queue().take(BATCH_RECORDS_MAX);
        let kept = self.log.lock_writer().and_then(|mut writer| writer.write(&events));
        // The callers learn the outcome after this, so the next request of one of them sees it.
        self.log.is_failing.store(kept.is_err(), Ordering::Relaxed);
        match &kept {
            Ok(()) => telemetry::audit_kept(events.len()),
            Err(error) => {
                telemetry::audit_lost(events.len());
                tracing::error!(%error, records = events.len(), "the audit log was not written");
            }
        }
        for acknowledge in acknowledgements {
            if acknowledge.send(kept.clone()).is_err() {
                tracing::debug!("a caller went away before its audit record was acknowledged");
            }
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
        telemetry::audit_lost(events.len());
    }
}

/// Runs the thread until the sink is dropped. Only this thread waits for the disk, so no segment ends while it is made
/// durable.
fn run(log: &Log, turns: &mpsc::Receiver<Turn>, interval: Option<Duration>) {
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
