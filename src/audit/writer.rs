//! Appends entries to segments: begins, seals and drops segments, and updates the head.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use tokio::time::Instant;
use ulid::Ulid;

use super::chain::{EntryPosition, Event, Line};
use super::config::{AuditLogConfig, Clock, FsyncPolicy};
use super::error::AuditError;
use super::head::{Head, HeadFile};
use super::key::AuditKey;
use super::mac::Mac;
use super::recovery::Recovered;
use super::segment::Segment;

/// The least number of segments that a limit leaves: the current one, and the one before it.
const SEGMENTS_MIN: usize = 2;

/// The pause between two attempts to continue after a failure of the disk.
const TRY_INTERVAL: Duration = Duration::from_secs(1);

/// The only writer of a log.
pub(super) struct LogWriter {
    config: AuditLogConfig,
    clock: Clock,
    key: AuditKey,
    head: HeadFile,
    log: String,
    /// The number of the last entry.
    seq: u64,
    mac: Mac,
    segments: Vec<Segment>,
    /// The current segment; `None` after a seal, until the next entry.
    tail: Option<Tail>,
    /// The number of the last durable entry.
    synced_seq: u64,
    /// The failure that stopped the log. Nothing is written until the writer knows what is on the disk.
    stopped: Option<Stop>,
    _lock: File,
}

/// The segment that is being written.
struct Tail {
    /// The file, which a running [`Syncing`] shares.
    file: Arc<File>,
    segment: Segment,
    bytes: u64,
    entries: u64,
    /// The length in bytes up to the last durable entry.
    synced_bytes: u64,
    /// Whether the last entry is the seal, which may not be durable yet. Nothing follows it.
    is_sealed: bool,
}

/// A failure after which it is unknown which part of the segment is on the disk.
struct Stop {
    why: String,
    /// The entries after the last durable one, once they have been read back. The operating system may lose them later.
    entries: Option<Vec<u8>>,
    tried: Option<Instant>,
}

/// Entries on their way to the disk. Waiting for them does not lock the writer, so that others can write meanwhile.
pub(super) struct Syncing {
    file: Arc<File>,
    path: PathBuf,
    /// The head that names the last of these entries.
    head: Head,
    /// The length in bytes of the segment up to the end of these entries.
    bytes: u64,
}

impl Syncing {
    /// Waits for the disk.
    pub(super) fn wait(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }
}

impl LogWriter {
    pub(super) fn new(config: AuditLogConfig, clock: Clock, recovered: Recovered) -> Result<Self, AuditError> {
        let Recovered { lock, key, last, incomplete_bytes, segments } = recovered;
        let head = HeadFile::new(&config.directory);
        let mut writer = Self {
            config,
            clock,
            key,
            head,
            log: last.as_ref().map_or_else(|| Ulid::new().to_string(), |last| last.log.clone()),
            seq: last.as_ref().map_or(0, |last| last.seq),
            mac: last.as_ref().map_or(Mac::NONE, |last| last.mac),
            segments,
            tail: None,
            synced_seq: last.as_ref().map_or(0, |last| last.seq),
            stopped: None,
            _lock: lock,
        };
        if let (Some(last), Some(segment)) = (last.filter(|last| !last.sealed), writer.segments.last().cloned()) {
            let file = OpenOptions::new().append(true).open(&segment.path);
            let file = file.map_err(|e| AuditError::io(&segment.path, &e))?;
            writer.tail = Some(Tail {
                file: Arc::new(file),
                segment,
                bytes: last.segment_bytes,
                entries: last.segment_entries,
                synced_bytes: last.segment_bytes,
                is_sealed: false,
            });
            writer.tell(&Event::Resume { incomplete_bytes })?;
            writer.sync()?;
        }
        Ok(writer)
    }

    /// Returns whether [`LogWriter::write`] will wait for the disk.
    pub(super) fn needs_disk(&self) -> bool {
        let each_waits = match self.config.settings.fsync {
            FsyncPolicy::EachBatch => true,
            FsyncPolicy::Interval | FsyncPolicy::Never => false,
        };
        each_waits || self.has_no_room() || self.stopped.is_some()
    }

    pub(super) fn stop(&mut self, why: &std::io::Error) {
        self.stopped = Some(Stop { why: why.to_string(), entries: None, tried: None });
    }

    /// After a failure, writes the entries that may not be on the disk once more, so that a successful flush covers
    /// them. It overwrites them in place and never removes them from the file: callers were given answers for them, and
    /// this process may be killed at any moment. It tries at most once in [`TRY_INTERVAL`].
    pub(super) fn mend(&mut self) -> Result<(), AuditError> {
        let Some(stop) = &mut self.stopped else { return Ok(()) };
        let is_due = stop.tried.is_none_or(|tried| tried.elapsed() >= TRY_INTERVAL);
        let Some(tail) = self.tail.as_ref().filter(|_| is_due) else {
            return Err(AuditError::Stopped(stop.why.clone()));
        };
        stop.tried = Some(Instant::now());
        check_still_there(tail)?;
        let path = &tail.segment.path;
        let entries = if let Some(entries) = &stop.entries {
            entries
        } else {
            let last = (self.synced_seq < self.seq).then_some(self.mac);
            stop.entries.insert(read_back(tail, &self.key, last)?)
        };
        write_again(tail, entries).map_err(|e| AuditError::io(path, &e))?;
        self.stopped = None;
        tracing::info!("the audit log goes on after a failure of the disk");
        let head = Head { segment: tail.segment.number, seq: self.seq, mac: self.mac };
        let bytes = tail.bytes;
        self.synced_seq = self.seq;
        if let Some(tail) = &mut self.tail {
            tail.synced_bytes = bytes;
        }
        self.put_head(&head)
    }

    /// Writes encoded events, all of them or none, and makes them as durable as `audit.fsync` asks. With `interval`,
    /// the caller must also call [`LogWriter::start_sync`].
    pub(super) fn write(&mut self, events: &[Vec<u8>]) -> Result<(), AuditError> {
        self.mend()?;
        if self.has_no_room() {
            self.make_room()?;
        }
        self.append(events)?;
        match self.config.settings.fsync {
            FsyncPolicy::EachBatch => self.sync(),
            FsyncPolicy::Interval => Ok(()),
            FsyncPolicy::Never => self.write_head(),
        }
    }

    /// Returns the entries that are not durable yet, or `None` if all are.
    pub(super) fn start_sync(&self) -> Option<Syncing> {
        let tail = self.tail.as_ref().filter(|_| self.stopped.is_none() && self.synced_seq < self.seq)?;
        let head = Head { segment: tail.segment.number, seq: self.seq, mac: self.mac };
        Some(Syncing { file: Arc::clone(&tail.file), path: tail.segment.path.clone(), head, bytes: tail.bytes })
    }

    /// Updates the head to the entries that are durable now. No segment may have begun meanwhile.
    pub(super) fn end_sync(&mut self, sync: &Syncing, synced: std::io::Result<()>) -> Result<(), AuditError> {
        if let Err(error) = synced {
            // Nobody can tell whether the pages are on the disk: a second attempt would succeed without them.
            self.stop(&error);
            return Err(AuditError::io(&sync.path, &error));
        }
        self.synced_seq = sync.head.seq;
        if let Some(tail) = &mut self.tail {
            tail.synced_bytes = sync.bytes;
        }
        self.put_head(&sync.head)
    }

    fn put_head(&mut self, head: &Head) -> Result<(), AuditError> {
        self.head.write(head, &self.key)?;
        // The note comes after the head, so that a process killed in between leaves no log that seems to have been
        // removed.
        if !self.key.has_begun()
            && let Err(error) = self.key.note_begun(&self.config.key_file)
        {
            tracing::warn!(%error, "cannot note in the audit key's file that the log has begun; if the whole log is deleted, nobody will notice");
        }
        Ok(())
    }

    /// Seals the segment at a clean end.
    pub(super) fn end(&mut self) -> Result<(), AuditError> {
        if self.stopped.is_some() { Ok(()) } else { self.seal() }
    }

    fn has_no_room(&self) -> bool {
        self.tail
            .as_ref()
            .is_none_or(|tail| tail.is_sealed || tail.bytes >= self.config.settings.segment_size_max.as_u64())
    }

    /// Makes sure that there is a segment with room.
    fn make_room(&mut self) -> Result<(), AuditError> {
        self.seal()?;
        self.begin()?;
        self.drop_oldest()
    }

    fn begin(&mut self) -> Result<(), AuditError> {
        let number = self.segments.last().map_or(1, |segment| segment.number + 1);
        let segment = Segment::new(&self.config.directory, number);
        let failed = |e: &std::io::Error| AuditError::io(&segment.path, e);
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&segment.path);
        let file = file.map_err(|e| failed(&e))?;
        // The file's name must be as durable as its content.
        let directory = File::open(&self.config.directory).and_then(|directory| directory.sync_all());
        if let Err(error) = directory {
            fs::remove_file(&segment.path).map_err(|e| failed(&e))?;
            return Err(failed(&error));
        }
        let before = (self.seq, self.mac, self.synced_seq);
        self.segments.push(segment.clone());
        let (file, segment_of_tail) = (Arc::new(file), segment.clone());
        self.tail =
            Some(Tail { file, segment: segment_of_tail, bytes: 0, entries: 0, synced_bytes: 0, is_sealed: false });
        let begin = Event::Begin { log: self.log.clone(), segment: number };
        let told = self.tell(&begin).and_then(|()| self.sync());
        if told.is_err() {
            // No entry may follow in a segment that has not begun, and nobody misses an entry of such a segment.
            self.tail = None;
            self.stopped = None;
            self.segments.pop();
            (self.seq, self.mac, self.synced_seq) = before;
            fs::remove_file(&segment.path).map_err(|e| failed(&e))?;
        }
        told
    }

    fn seal(&mut self) -> Result<(), AuditError> {
        let Some(tail) = &self.tail else { return Ok(()) };
        // If the seal was there already, [`LogWriter::mend`] made it durable.
        if !tail.is_sealed {
            self.tell(&Event::Seal { entries: tail.entries })?;
        }
        self.sync()?;
        self.tail = None;
        Ok(())
    }

    /// Removes segments beyond `segments_max`. The log says so first, so that `verify` can distinguish this from
    /// tampering.
    fn drop_oldest(&mut self) -> Result<(), AuditError> {
        let segments_max = usize::try_from(self.config.settings.segments_max).unwrap_or(usize::MAX);
        let surplus = match segments_max {
            0 => 0,
            _ => self.segments.len().saturating_sub(segments_max.max(SEGMENTS_MIN)),
        };
        let Some(oldest_segment) = self.segments.get(surplus).filter(|_| surplus > 0).map(|segment| segment.number)
        else {
            return Ok(());
        };
        self.tell(&Event::Drop { oldest_segment })?;
        self.sync()?;
        for segment in self.segments.drain(..surplus) {
            if let Err(error) = fs::remove_file(&segment.path) {
                tracing::warn!(%error, path = %segment.path.display(), "an old segment of the audit log stays");
            }
        }
        Ok(())
    }

    /// Writes an event of the log itself.
    fn tell(&mut self, event: &Event) -> Result<(), AuditError> {
        let encoded = event.encode().map_err(|e| AuditError::io(&self.config.directory, &e.into()))?;
        self.append(&[encoded])?;
        if let (Event::Seal { .. }, Some(tail)) = (event, &mut self.tail) {
            tail.is_sealed = true;
        }
        Ok(())
    }

    /// Appends entries: all of them, or none.
    fn append(&mut self, events: &[Vec<u8>]) -> Result<(), AuditError> {
        let Some(tail) = &mut self.tail else {
            return Err(AuditError::Stopped("there is no open segment".to_owned()));
        };
        let path = &tail.segment.path;
        let time = DateTime::<Utc>::from((self.clock)()).to_rfc3339_opts(SecondsFormat::Micros, true);
        let (mut seq, mut mac) = (self.seq, self.mac);
        let mut lines = Vec::new();
        for event in events {
            seq += 1;
            mac = EntryPosition { seq, prev: mac, time: &time }.append_line(event, &self.key, &mut lines);
        }
        check_still_there(tail)?;
        if let Err(error) = tail.file.as_ref().write_all(&lines) {
            // A part may have been written. It is removed, so that the next batch can still be written.
            let failed = AuditError::io(path, &error);
            if let Err(stuck) = tail.file.set_len(tail.bytes) {
                self.stop(&stuck);
            }
            return Err(failed);
        }
        tail.bytes += lines.len() as u64;
        tail.entries += events.len() as u64;
        (self.seq, self.mac) = (seq, mac);
        Ok(())
    }

    /// Makes the written entries durable, then updates the head.
    fn sync(&mut self) -> Result<(), AuditError> {
        let Some(sync) = self.start_sync() else { return Ok(()) };
        let synced = sync.wait();
        self.end_sync(&sync, synced)
    }

    fn write_head(&mut self) -> Result<(), AuditError> {
        let Some(tail) = &self.tail else { return Ok(()) };
        let head = Head { segment: tail.segment.number, seq: self.seq, mac: self.mac };
        self.put_head(&head)
    }
}

/// Overwrites the entries after the last durable one with themselves, and removes the part of a failed write that
/// follows them. Then it waits for the disk.
fn write_again(tail: &Tail, entries: &[u8]) -> std::io::Result<()> {
    // The segment's own file is open for appending, and would ignore the position.
    let file = OpenOptions::new().write(true).open(&tail.segment.path)?;
    file.set_len(tail.bytes)?;
    file.write_all_at(entries, tail.synced_bytes)?;
    file.sync_data()
}

/// Reads the entries of a segment after the last durable one. The last of them must have this MAC.
fn read_back(tail: &Tail, key: &AuditKey, last: Option<Mac>) -> Result<Vec<u8>, AuditError> {
    let path = &tail.segment.path;
    let failed = |e: &std::io::Error| AuditError::io(path, e);
    let length = usize::try_from(tail.bytes - tail.synced_bytes).map_err(|e| failed(&std::io::Error::other(e)))?;
    let mut entries = vec![0; length];
    let file = File::open(path).map_err(|e| failed(&e))?;
    if file.metadata().map_err(|e| failed(&e))?.len() < tail.bytes {
        return Err(AuditError::tampered(path, "it is shorter than what was written"));
    }
    file.read_exact_at(&mut entries, tail.synced_bytes).map_err(|e| failed(&e))?;
    let lines = entries.strip_suffix(b"\n").map(|lines| lines.split(|byte| *byte == b'\n'));
    let mut found = None;
    for line in lines.into_iter().flatten() {
        let line = Line::split(line, key)
            .map_err(|_not_ours| AuditError::tampered(path, "its end is not what was written"))?;
        found = Some(line.mac);
    }
    if found == last { Ok(entries) } else { Err(AuditError::tampered(path, "its end is not what was written")) }
}

/// Checks that the file is still at its path. A file that was removed or moved still takes writes, but nobody would
/// find them.
fn check_still_there(tail: &Tail) -> Result<(), AuditError> {
    let path = &tail.segment.path;
    let (open, named) = (tail.file.metadata(), fs::metadata(path));
    let same = |open: &fs::Metadata, named: &fs::Metadata| (open.dev(), open.ino()) == (named.dev(), named.ino());
    match (open, named) {
        (Ok(open), Ok(named)) if same(&open, &named) => Ok(()),
        (Ok(_), Ok(_)) => Err(AuditError::io(path, &std::io::Error::other("another file is in its place"))),
        (Err(error), _) | (_, Err(error)) => Err(AuditError::io(path, &error)),
    }
}

#[cfg(test)]
mod tests;
