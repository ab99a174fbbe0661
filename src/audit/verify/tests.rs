//! Changes logs in every way, and shows that each change is found and named.

use std::fs;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::super::AuditLogConfig;
use super::super::chain::EntryPosition;
use super::super::sample::{End, config_with, read, write};
use super::*;
use crate::settings::ByteSize;

/// A log in a directory of its own, with copies of its files, so that each change starts from the same state.
struct Log {
    _directory: tempfile::TempDir,
    config: AuditLogConfig,
    key: AuditKey,
    /// The segments, the oldest first.
    segments: Vec<(PathBuf, Vec<u8>)>,
    head: (PathBuf, Vec<u8>),
}

impl Log {
    fn new(records: usize, segment_bytes_max: u64, end: End) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = config_with(directory.path(), |c| c.segment_size_max = ByteSize::bytes(segment_bytes_max));
        let key = write(&config, 0..records, end);
        let copy = |path: PathBuf| (path.clone(), fs::read(path).unwrap());
        let segments = Segment::list(&config.directory).unwrap().into_iter().map(|s| copy(s.path)).collect();
        let head = copy(config.directory.join(HEAD));
        Self { _directory: directory, config, key, segments, head }
    }

    fn report(&self) -> Report {
        read(&self.config, &self.key)
    }

    fn restore(&self) {
        for (path, bytes) in self.segments.iter().chain([&self.head]) {
            fs::write(path, bytes).unwrap();
        }
    }

    fn lines(&self, segment: usize) -> Vec<Vec<u8>> {
        self.segments[segment].1.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    }

    /// Changes one byte, and expects a finding for its line.
    fn flip(&self, segment: usize, position: usize, bit: u32) {
        let (path, bytes) = &self.segments[segment];
        let line = 1 + bytes[..position].split(|byte| *byte == b'\n').count() as u64 - 1;
        let mut changed = bytes.clone();
        changed[position] ^= 1 << bit;
        fs::write(path, changed).unwrap();
        let report = self.report();
        let named = report.findings.iter().any(|finding| finding.file == *path && finding.line == Some(line));
        assert!(named, "{}:{line}, byte {position}, bit {bit}: {report:?}", path.display());
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn an_untouched_log_is_intact() {
    for end in [End::Clean, End::Killed] {
        let log = Log::new(9, 1_500, end);
        let report = log.report();
        assert!(report.is_intact(), "{report:?}");
        assert_eq!((report.records, report.incomplete_bytes), (9, None));
        assert!(report.segments > 2, "{report:?}");
        assert_eq!(report.last.unwrap().sealed, end == End::Clean);
    }
}

#[test]
fn any_flipped_byte_of_a_small_log_is_named() {
    for (end, unsealed) in [(End::Clean, false), (End::Killed, true)] {
        let log = Log::new(3, 1_500, end);
        // Only the end of a log differs between the two.
        let first = if unsealed { log.segments.len() - 1 } else { 0 };
        for segment in first..log.segments.len() {
            for position in 0..log.segments[segment].1.len() {
                log.flip(segment, position, u32::try_from(position % 8).unwrap());
            }
        }
        for position in 0..log.head.1.len() {
            let mut changed = log.head.1.clone();
            changed[position] ^= 1 << (position % 8);
            fs::write(&log.head.0, changed).unwrap();
            assert_eq!(log.report().findings[0].problem, Problem::HeadEdited);
        }
    }
}

#[test]
fn random_flips_in_a_larger_log_are_named() {
    let log = Log::new(600, 40_000, End::Clean);
    let mut random = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..40 {
        let (segment, place, bit) =
            (0..log.segments.len(), any::<prop::sample::Index>(), 0..8u32).new_tree(&mut random).unwrap().current();
        log.flip(segment, place.index(log.segments[segment].1.len()), bit);
    }
}

#[test]
fn every_deleted_line_is_found() {
    let log = Log::new(5, 1_500, End::Clean);
    for segment in 0..log.segments.len() {
        let lines = log.lines(segment);
        for gone in 0..lines.len() {
            let mut rest = lines.clone();
            rest.remove(gone);
            fs::write(&log.segments[segment].0, rest.concat()).unwrap();
            let report = log.report();
            let found = report.findings.iter().any(|finding| {
                matches!(&finding.problem, Problem::Deleted(seqs) | Problem::Truncated(seqs) if seqs.start() == seqs.end())
            });
            assert!(found, "segment {segment}, line {gone}: {report:?}");
            log.restore();
        }
    }
}

#[test]
fn every_move_and_repetition_is_found() {
    let log = Log::new(5, 1_500, End::Clean);
    for segment in 0..log.segments.len() {
        let lines = log.lines(segment);
        for one in 0..lines.len() {
            for other in 0..lines.len() {
                let mut changed = lines.clone();
                if one == other {
                    changed.insert(one, lines[one].clone());
                } else {
                    changed.swap(one, other);
                }
                fs::write(&log.segments[segment].0, changed.concat()).unwrap();
                let report = log.report();
                let found = report.findings.iter().any(|finding| {
                    matches!(&finding.problem, Problem::Moved(_) | Problem::Misplaced(_) | Problem::Deleted(_))
                });
                assert!(found, "segment {segment}, lines {one} and {other}: {report:?}");
                log.restore();
            }
        }
    }
}

#[test]
fn every_truncation_is_found() {
    for end in [End::Clean, End::Killed] {
        let log = Log::new(5, 1_500, end);
        let (path, bytes) = log.segments.last().unwrap();
        for length in 0..bytes.len() {
            fs::write(path, &bytes[..length]).unwrap();
            let report = log.report();
            let found = report.findings.iter().any(|finding| matches!(finding.problem, Problem::Truncated(_)));
            assert!(found && report.incomplete_bytes.is_none(), "{length} of {} bytes: {report:?}", bytes.len());
        }
    }
}

#[test]
fn segments_that_are_gone_swapped_or_foreign_are_found() {
    let log = Log::new(14, 1_500, End::Clean);
    let foreign = Log::new(14, 1_500, End::Clean);
    assert!(log.segments.len() > 3);
    for (position, (path, _)) in log.segments.iter().enumerate() {
        fs::remove_file(path).unwrap();
        let report = log.report();
        let last = position + 1 == log.segments.len();
        let found = report.findings.iter().any(|finding| {
            let number = position as u64 + 1;
            finding.problem == Problem::MissingSegments(number..=number)
                || (last && matches!(finding.problem, Problem::Truncated(_)))
        });
        assert!(found && report.findings_total == 1, "{position}: {report:?}");
        fs::write(path, &foreign.segments[position].1).unwrap();
        assert!(log.report().findings.iter().any(|finding| finding.problem == Problem::Edited));
        log.restore();
        for (other_position, (other, other_bytes)) in log.segments.iter().enumerate().skip(position + 1) {
            fs::write(path, other_bytes).unwrap();
            fs::write(other, &log.segments[position].1).unwrap();
            let problems: Vec<Problem> = log.report().findings.into_iter().map(|finding| finding.problem).collect();
            let expected = [other_position, position].map(|claims| Problem::OtherSegment(claims as u64 + 1));
            assert_eq!(problems, expected, "segments {position} and {other_position}");
            log.restore();
        }
    }
    for (path, _) in &log.segments {
        fs::remove_file(path).unwrap();
    }
    assert!(matches!(log.report().findings[..], [Finding { problem: Problem::Truncated(_), .. }]));
    log.restore();
    fs::remove_file(&log.head.0).unwrap();
    assert!(matches!(log.report().findings[..], [Finding { problem: Problem::NoHead, .. }]));
    assert!(log.report().last.is_some());
}

#[test]
fn a_past_that_was_written_anew_is_found() {
    // A writer that continues from an old copy of the files makes another future than the head names.
    let log = Log::new(3, 100_000, End::Killed);
    write(&log.config, 3..6, End::Killed);
    let newer_head = fs::read(&log.head.0).unwrap();
    log.restore();
    write(&log.config, 6..9, End::Killed);
    assert!(log.report().is_intact());
    fs::write(&log.head.0, newer_head).unwrap();
    let report = log.report();
    assert!(matches!(report.findings[..], [Finding { problem: Problem::Branched(_), .. }]), "{report:?}");
}

#[test]
fn a_line_says_what_its_entry_said() {
    let key = AuditKey::from_bytes(&[1; 32]);
    proptest!(|(seq: u64, texts in prop::collection::vec(".{0,20}", 0..8), total: u64, withheld: Option<u64>)| {
        let mut record = super::super::sample::record(0);
        record.released = Some(super::super::Released { chunk_ids: texts.clone(), documents: withheld, collections: withheld });
        record.latency_us.total = total;
        record.code = texts.concat();
        let entry = AuditEntry { seq, prev: Mac::NONE, time: String::new(), event: Event::Record(Box::new(record)) };
        let (place, mut line) = (EntryPosition { seq, prev: Mac::NONE, time: "" }, Vec::new());
        let mac = place.append_line(&entry.event.encode().unwrap(), &key, &mut line);
        let by_serde = serde_json::to_string(&entry).unwrap();
        prop_assert_eq!(&line, &format!("{{\"mac\":\"{mac}\",\"entry\":{by_serde}}}\n").into_bytes());
        let bytes = line.strip_suffix(b"\n").unwrap();
        prop_assert!(!bytes.contains(&b'\n'));
        let read = Line::split(bytes, &key).unwrap();
        prop_assert_eq!(read.mac, mac);
        prop_assert_eq!(read.entry().unwrap(), entry);
        prop_assert!(Line::split(bytes, &AuditKey::from_bytes(&[2; 32])).unwrap().entry().is_err());
    });
}

#[test]
fn half_a_line_is_no_tampering_only_where_a_killed_process_leaves_it() {
    let half: &[u8] = b"{\"mac\":\"0123";
    for (end, is_tampering) in [(End::Clean, true), (End::Killed, false)] {
        let log = Log::new(9, 1_500, end);
        let (path, bytes) = log.segments.last().unwrap();
        fs::write(path, [bytes, half].concat()).unwrap();
        let report = log.report();
        assert_eq!(report.is_intact(), !is_tampering, "{end:?}: {report:?}");
        assert_eq!(report.incomplete_bytes, (!is_tampering).then_some(half.len() as u64), "{end:?}");
        if is_tampering {
            assert_eq!((&report.findings[0].file, &report.findings[0].problem), (path, &Problem::Edited));
        }
        log.restore();
        // In an older segment, an incomplete line is always damage.
        let (path, bytes) = &log.segments[0];
        fs::write(path, [bytes, half].concat()).unwrap();
        let report = log.report();
        assert!(report.findings.iter().any(|finding| finding.file == *path), "{end:?}: {report:?}");
    }
}
