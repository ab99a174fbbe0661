//! Appends entries to segments: begins, seals and drops them, and keeps the head.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use ulid::Ulid;

use super::AuditError;
use super::chain::{Event, Mac, Place};
use super::file_sink::{AuditConfig, Clock, FsyncPolicy};
use super::head::{Head, HeadFile};
use super::key::AuditKey;
use super::recovery::Recovered;
use super::segment::Segment;

/// Fewest segments that a limit leaves: the one that is written, and one before it.
const SEGMENTS_MIN: usize = 2;

/// The one writer of a log.
pub(super) struct Writer {
    config: AuditConfig,
    clock: Clock,
    key: AuditKey,
    head: HeadFile,
    log: String,
    /// The last entry.
    seq: u64,
    mac: Mac,
    segments: Vec<Segment>,
    /// The segment that is written; none until the first entry after a seal.
    tail: Option<Tail>,
    /// The last entry that is durable.
    synced_seq: u64,
    /// Why nothing is written any more.
    stopped: Option<String>,
    _lock: File,
}

/// An open segment.
struct Tail {
    /// Shared with a [`Syncing`] under way.
    file: Arc<File>,
    segment: Segment,
    bytes: u64,
    entries: u64,
}

/// Entries on their way to the disk: so that others are written meanwhile, it holds no writer.
pub(super) struct Syncing {
    file: Arc<File>,
    path: PathBuf,
    /// The last of them.
    head: Head,
}

impl Syncing {
    /// Waits for the disk.
    pub(super) fn wait(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }
}

impl Writer {
    pub(super) fn new(config: AuditConfig, clock: Clock, recovered: Recovered) -> Result<Self, AuditError> {
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
            writer.tail =
                Some(Tail { file: Arc::new(file), segment, bytes: last.segment_bytes, entries: last.segment_entries });
            writer.tell(&Event::Resume { incomplete_bytes })?;
            writer.sync()?;
        }
        Ok(writer)
    }

    /// Whether [`Writer::write`] will wait for the disk.
    pub(super) fn needs_disk(&self) -> bool {
        let each_waits = match self.config.fsync {
            FsyncPolicy::EachBatch => true,
            FsyncPolicy::Interval(_) | FsyncPolicy::Never => false,
        };
        self.stopped.is_none() && (each_waits || self.has_no_room())
    }

    /// Keeps encoded events, all or none of them, as `audit.fsync` asks. At an interval, [`Writer::start_sync`] is for the
    /// caller to ask.
    pub(super) fn write(&mut self, events: &[Vec<u8>]) -> Result<(), AuditError> {
        if let Some(why) = &self.stopped {
            return Err(AuditError::Stopped(why.clone()));
        }
        if self.has_no_room() {
            self.make_room()?;
        }
        self.append(events)?;
        match self.config.fsync {
            FsyncPolicy::EachBatch => self.sync(),
            FsyncPolicy::Interval(_) => Ok(()),
            FsyncPolicy::Never => self.write_head(),
        }
    }

    /// What is not durable yet; none where all is.
    pub(super) fn start_sync(&self) -> Option<Syncing> {
        let tail = self.tail.as_ref().filter(|_| self.stopped.is_none() && self.synced_seq < self.seq)?;
        let head = Head { segment: tail.segment.number, seq: self.seq, mac: self.mac };
        Some(Syncing { file: Arc::clone(&tail.file), path: tail.segment.path.clone(), head })
    }

    /// Lets the head name what is durable now. No segment may have begun meanwhile.
    pub(super) fn end_sync(&mut self, sync: &Syncing, synced: std::io::Result<()>) -> Result<(), AuditError> {
        if let Err(error) = synced {
            // Whether the pages are on the disk cannot be learned any more: a second try would succeed without them.
            self.stopped = Some(error.to_string());
            return Err(AuditError::io(&sync.path, &error));
        }
        self.synced_seq = sync.head.seq;
        self.put_head(&sync.head)
    }

    fn put_head(&mut self, head: &Head) -> Result<(), AuditError> {
        self.head.write(head, &self.key)?;
        // After the head, so that a process that is killed in between leaves no log that seems to be gone.
        if !self.key.has_begun()
            && let Err(error) = self.key.note_begun(&self.config.key_file)
        {
            tracing::warn!(%error, "the audit key's file cannot note that the log has begun; if all of it is taken away, it will look new");
        }
        Ok(())
    }

    /// Seals what is written, at a clean end.
    pub(super) fn end(&mut self) -> Result<(), AuditError> {
        if self.stopped.is_some() { Ok(()) } else { self.seal() }
    }

    fn has_no_room(&self) -> bool {
        self.tail.as_ref().is_none_or(|tail| tail.bytes >= self.config.segment_bytes_max)
    }

    /// An open segment that is not full.
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
        // The name must be as durable as what is written under it.
        let directory = File::open(&self.config.directory).and_then(|directory| directory.sync_all());
        directory.map_err(|e| failed(&e))?;
        let before = (self.seq, self.mac, self.synced_seq);
        self.segments.push(segment.clone());
        self.tail = Some(Tail { file: Arc::new(file), segment: segment.clone(), bytes: 0, entries: 0 });
        let begin = Event::Begin { log: self.log.clone(), segment: number };
        let told = self.tell(&begin).and_then(|()| self.sync());
        if told.is_err() {
            // Nothing may follow in a segment that has not begun.
            self.tail = None;
            self.segments.pop();
            (self.seq, self.mac, self.synced_seq) = before;
            fs::remove_file(&segment.path).map_err(|e| failed(&e))?;
        }
        told
    }

    fn seal(&mut self) -> Result<(), AuditError> {
        let Some(tail) = &self.tail else { return Ok(()) };
        let seal = Event::Seal { entries: tail.entries };
        self.tell(&seal)?;
        self.sync()?;
        self.tail = None;
        Ok(())
    }

    /// Keeps to `segments_max`. The log says so first, so that `verify` can tell this from a deletion.
    fn drop_oldest(&mut self) -> Result<(), AuditError> {
        let segments_max = usize::try_from(self.config.segments_max).unwrap_or(usize::MAX);
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
        self.append(&[encoded])
    }

    /// Writes entries behind the last one, all or none of them.
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
            mac = Place { seq, prev: mac, time: &time }.append_line(event, &self.key, &mut lines);
        }
        check_still_there(tail)?;
        if let Err(error) = tail.file.as_ref().write_all(&lines) {
            // A part may have been written. Without it the next batch can still be.
            if let Err(stuck) = tail.file.set_len(tail.bytes) {
                self.stopped = Some(stuck.to_string());
            }
            return Err(AuditError::io(path, &error));
        }
        tail.bytes += lines.len() as u64;
        tail.entries += events.len() as u64;
        (self.seq, self.mac) = (seq, mac);
        Ok(())
    }

    /// Makes durable what is written, then lets the head name it.
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

/// A file that was removed or moved away still takes what is written, and nobody would find it.
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
