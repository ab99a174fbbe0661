//! Reads a log and says whether it was changed. `verify`, `show`, `export` and the start of a writer share this code.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::chain::{AuditEntry, Event, Line, LineError};
use super::error::AuditError;
use super::head::{Head, HeadState};
use super::key::AuditKey;
use super::mac::Mac;
use super::segment::{HEAD, Segment};

/// The number of findings that are kept. Further ones are counted.
pub const FINDINGS_MAX: usize = 100;

/// One thing that is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file that is wrong.
    pub file: PathBuf,
    /// The line in it, counted from 1; `None` if the whole file is meant.
    pub line: Option<u64>,
    /// The damage that was found.
    pub problem: Problem,
}

/// The kinds of damage that a log can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The line was changed.
    Edited,
    /// The line was written with this key, but by a newer version.
    Newer,
    /// Entries before this line are missing.
    Deleted(RangeInclusive<u64>),
    /// The entry was written before one that precedes it here.
    Moved(u64),
    /// The entry was written after another entry than the one that precedes it here.
    Branched(u64),
    /// The entry does not belong at this position of a segment.
    Misplaced(u64),
    /// The last entries are missing.
    Truncated(RangeInclusive<u64>),
    /// Segments before this one are missing.
    MissingSegments(RangeInclusive<u64>),
    /// The file is another segment than its name says.
    OtherSegment(u64),
    /// The segment belongs to another log.
    OtherLog,
    /// The head is missing.
    NoHead,
    /// The head was changed.
    HeadEdited,
}

/// The result of reading a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings, up to [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// The number of all findings.
    pub findings_total: u64,
    /// The length in bytes of an incomplete last line. That is not damage: a process that is killed leaves one, and
    /// nobody was given an answer for it.
    pub incomplete_bytes: Option<u64>,
    /// The number of segments.
    pub segments: u64,
    /// The number of intact entries.
    pub entries: u64,
    /// The number of records among them.
    pub records: u64,
    /// The last intact entry.
    pub last: Option<Verified>,
}

/// The end of the intact part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The number of the last entry.
    pub seq: u64,
    /// The MAC of the last entry. Somebody who keeps it elsewhere can tell later whether the log still has its past.
    pub mac: Mac,
    /// The id of the log.
    pub log: String,
    /// The segment of the last entry.
    pub segment: u64,
    /// Whether that segment is sealed.
    pub sealed: bool,
    /// The length in bytes of that segment up to here.
    pub(super) segment_bytes: u64,
    /// The number of entries in that segment.
    pub(super) segment_entries: u64,
}

impl Report {
    /// Returns whether the log is intact.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.findings_total == 0
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edited => write!(f, "edited: the line is not what was written"),
            Self::Newer => write!(f, "written by a newer ragward; use that one"),
            Self::Deleted(seqs) => write!(f, "deleted: {} before this line", entries(seqs)),
            Self::Moved(seq) => write!(f, "reordered: entry {seq} stands behind a later one"),
            Self::Branched(seq) => write!(f, "replaced: entry {seq} was not written after the one before it"),
            Self::Misplaced(seq) => write!(f, "reordered: entry {seq} does not belong in this place of a segment"),
            Self::Truncated(seqs) => write!(f, "truncated: {} at the end", entries(seqs)),
            Self::MissingSegments(numbers) => {
                write!(f, "deleted: segments {} to {} are gone", numbers.start(), numbers.end())
            }
            Self::OtherSegment(number) => write!(f, "swapped: this is segment {number}"),
            Self::OtherLog => write!(f, "swapped: this segment is of another log"),
            Self::NoHead => write!(f, "deleted: the head is gone, so a truncation would go unnoticed"),
            Self::HeadEdited => write!(f, "edited: the head is not what was written"),
        }
    }
}

fn entries(seqs: &RangeInclusive<u64>) -> String {
    match (seqs.start(), seqs.end()) {
        (first, last) if first == last => format!("entry {first} is gone"),
        (first, last) => format!("entries {first} to {last} are gone"),
    }
}

/// Reads a whole log and passes each intact entry to `visit`, with its file and line.
///
/// # Errors
/// If files cannot be read. Damage is in the report instead.
pub fn read_log(
    directory: &Path,
    key: &AuditKey,
    mut visit: impl FnMut(&Path, u64, &AuditEntry),
) -> Result<Report, AuditError> {
    // The head is read first: the log of a running server only grows, so it is never behind this head.
    let head = Head::read(directory, key)?;
    let segments = Segment::list(directory)?;
    let mut reader = Reader::new(key, &head);
    for segment in &segments {
        reader.read(segment, &mut visit)?;
    }
    reader.check_beginning(&segments);
    Ok(reader.finish(directory, &segments))
}

/// Reads the last segment only, for a writer that continues from there.
pub(super) fn read_last(directory: &Path, key: &AuditKey, last: &Segment) -> Result<Report, AuditError> {
    let head = Head::read(directory, key)?;
    let mut reader = Reader::new(key, &head);
    reader.read(last, &mut |_: &Path, _, _: &AuditEntry| {})?;
    Ok(reader.finish(directory, std::slice::from_ref(last)))
}

/// Follows the chain from segment to segment.
struct Reader<'a> {
    key: &'a AuditKey,
    head: &'a HeadState,
    report: Report,
    /// The number of lines since the last intact entry that were not intact. They may have held entries.
    unreadable: u64,
    /// Whether the next entry may follow anything, because a gap before it has been reported.
    gap_known: bool,
    /// The oldest segment that the log says it kept.
    oldest_kept: u64,
    /// The file and line of the incomplete end.
    incomplete: Option<(PathBuf, u64)>,
    /// The number in the name of the previous segment.
    segment_before: Option<u64>,
    /// Whether the previous segment was another one than its name says.
    displaced: bool,
    /// The highest number of an intact entry.
    seq_max: u64,
}

/// The position of a line.
#[derive(Clone, Copy)]
struct LinePosition<'a> {
    segment: &'a Segment,
    line: u64,
    /// The length in bytes of the segment up to the line's end.
    bytes: u64,
}

impl<'a> Reader<'a> {
    fn new(key: &'a AuditKey, head: &'a HeadState) -> Self {
        Self {
            key,
            head,
            report: Report::default(),
            unreadable: 0,
            gap_known: false,
            oldest_kept: 1,
            incomplete: None,
            segment_before: None,
            displaced: false,
            seq_max: 0,
        }
    }

    fn find(&mut self, file: &Path, line: Option<u64>, problem: Problem) {
        self.report.findings_total += 1;
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(Finding { file: file.to_owned(), line, problem });
        }
    }

    fn read(&mut self, segment: &Segment, visit: &mut impl FnMut(&Path, u64, &AuditEntry)) -> Result<(), AuditError> {
        let failed = |e: std::io::Error| AuditError::io(&segment.path, &e);
        self.report.segments += 1;
        if let Some(missing) = self.segment_before.map(|before| before + 1..=segment.number - 1)
            && !missing.is_empty()
        {
            self.find(&segment.path, None, Problem::MissingSegments(missing));
            self.gap_known = true;
        }
        self.segment_before = Some(segment.number);
        self.gap_known |= std::mem::take(&mut self.displaced);
        if let Some((path, line)) = self.incomplete.take() {
            // Only the last segment of a log may end in the middle of a line.
            self.find(&path, Some(line), Problem::Edited);
            self.report.incomplete_bytes = None;
            self.unreadable += 1;
        }
        let mut file = BufReader::new(File::open(&segment.path).map_err(failed)?);
        let mut place = LinePosition { segment, line: 0, bytes: 0 };
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = file.read_until(b'\n', &mut line).map_err(failed)?;
            if read == 0 {
                return Ok(());
            }
            place.line += 1;
            place.bytes += read as u64;
            if let Some(line) = line.strip_suffix(b"\n") {
                self.line(place, line, visit);
            } else if self.report.last.as_ref().is_some_and(|last| last.sealed && last.segment == segment.number) {
                // Nothing ever follows a seal, so no killed process left this.
                self.find(&segment.path, Some(place.line), Problem::Edited);
                self.unreadable += 1;
            } else {
                self.report.incomplete_bytes = Some(read as u64);
                self.incomplete = Some((segment.path.clone(), place.line));
            }
        }
    }

    fn line(&mut self, place: LinePosition<'_>, line: &[u8], visit: &mut impl FnMut(&Path, u64, &AuditEntry)) {
        let path = &place.segment.path;
        let read = Line::split(line, self.key).and_then(|line| Ok((line.mac, line.entry()?)));
        let (mac, entry) = match read {
            Ok(read) => read,
            Err(error) => {
                let problem = match error {
                    LineError::Form | LineError::Mac => Problem::Edited,
                    LineError::Content => Problem::Newer,
                };
                self.find(path, Some(place.line), problem);
                self.unreadable += 1;
                return;
            }
        };
        self.check_place(place, &entry);
        let in_order = self.check_order(place, &entry);
        if let HeadState::Head(head) = self.head
            && head.seq == entry.seq
            && head.mac != mac
        {
            self.find(path, Some(place.line), Problem::Branched(entry.seq));
        }
        self.report.entries += 1;
        self.seq_max = self.seq_max.max(entry.seq);
        match &entry.event {
            Event::Record(_) => self.report.records += 1,
            Event::Drop { oldest_segment } => self.oldest_kept = self.oldest_kept.max(*oldest_segment),
            Event::Verification(_) | Event::Begin { .. } | Event::Resume { .. } | Event::Seal { .. } => {}
        }
        visit(path, place.line, &entry);
        if in_order {
            self.unreadable = 0;
            self.gap_known = false;
            self.advance(place, mac, &entry);
        }
    }

    /// Checks that the first line of a segment begins it, and that nothing follows its seal.
    fn check_place(&mut self, place: LinePosition<'_>, entry: &AuditEntry) {
        let path = &place.segment.path;
        match &entry.event {
            Event::Begin { log, segment } if place.line == 1 => {
                if *segment != place.segment.number {
                    self.find(path, None, Problem::OtherSegment(*segment));
                    // The entries before and after do not fit this segment either. This one finding covers that.
                    self.gap_known = true;
                    self.displaced = true;
                }
                let other_log = self.report.last.as_ref().is_some_and(|last| last.log != *log);
                if other_log {
                    self.find(path, None, Problem::OtherLog);
                }
            }
            Event::Begin { .. } => self.find(path, Some(place.line), Problem::Misplaced(entry.seq)),
            Event::Record(_)
            | Event::Verification(_)
            | Event::Resume { .. }
            | Event::Drop { .. }
            | Event::Seal { .. } => {
                let after_seal = self.report.last.as_ref().is_some_and(|last| last.sealed && self.unreadable == 0);
                if place.line == 1 || after_seal {
                    self.find(path, Some(place.line), Problem::Misplaced(entry.seq));
                }
            }
        }
    }

    /// Returns whether the entry comes after all that were read, and reports what is wrong with its order.
    fn check_order(&mut self, place: LinePosition<'_>, entry: &AuditEntry) -> bool {
        let path = &place.segment.path;
        let Some(last) = &self.report.last else {
            // The first entry of a log, or of the part that is kept, has no entry before it.
            let whole = place.segment.number == 1 && self.unreadable == 0;
            if whole && !self.gap_known && entry.seq != 1 {
                self.find(path, Some(place.line), Problem::Deleted(1..=entry.seq - 1));
            }
            return true;
        };
        let (last_seq, last_mac) = (last.seq, last.mac);
        if self.gap_known {
            // If segments are swapped or missing, only the order within each can be checked.
            return true;
        }
        if entry.seq <= last_seq {
            self.find(path, Some(place.line), Problem::Moved(entry.seq));
            return false;
        }
        let missing = last_seq + 1 + self.unreadable..=entry.seq - 1;
        if !missing.is_empty() {
            self.find(path, Some(place.line), Problem::Deleted(missing));
        } else if self.unreadable == 0 && entry.prev != last_mac {
            self.find(path, Some(place.line), Problem::Branched(entry.seq));
        }
        true
    }

    fn advance(&mut self, place: LinePosition<'_>, mac: Mac, entry: &AuditEntry) {
        let (log, sealed) = match (&entry.event, self.report.last.take()) {
            (Event::Begin { log, .. }, _) => (log.clone(), false),
            (event, last) => (last.map(|last| last.log).unwrap_or_default(), matches!(event, Event::Seal { .. })),
        };
        self.report.last = Some(Verified {
            seq: entry.seq,
            mac,
            log,
            segment: place.segment.number,
            sealed,
            segment_bytes: place.bytes,
            segment_entries: place.line,
        });
    }

    /// Checks that the oldest segment is the first one, or the one that the log says it kept.
    fn check_beginning(&mut self, segments: &[Segment]) {
        let Some(oldest) = segments.first() else { return };
        let missing = self.oldest_kept..=oldest.number.saturating_sub(1);
        if !missing.is_empty() {
            self.find(&oldest.path, None, Problem::MissingSegments(missing));
        }
    }

    /// Compares the end with the head.
    fn finish(mut self, directory: &Path, segments: &[Segment]) -> Report {
        let head_path = directory.join(HEAD);
        let newest = segments.last().map_or(&head_path, |segment| &segment.path);
        let end = self.seq_max + self.unreadable;
        match self.head {
            HeadState::Head(head) if head.seq > end => {
                let line = self.incomplete.take().map(|(_, line)| line);
                self.find(newest, line, Problem::Truncated(end + 1..=head.seq));
                self.report.incomplete_bytes = None;
            }
            HeadState::Head(_) => {}
            // A log has no head before its first entry is durable.
            HeadState::Missing if end <= 1 && !self.key.has_begun() => {}
            HeadState::Missing => self.find(&head_path, None, Problem::NoHead),
            HeadState::Damaged => self.find(&head_path, None, Problem::HeadEdited),
        }
        self.report
    }
}

#[cfg(test)]
mod tests;
