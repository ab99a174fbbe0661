//! Tests how a log starts and stops, what it does after failures, and its queue.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use super::super::sample::{End, clock, config, config_with, read, record, write};
use super::super::{AuditEntry, Problem, Released, read_log};
use super::*;
use crate::settings::ByteSize;

fn events(config: &AuditLogConfig, key: &AuditKey) -> Vec<AuditEntry> {
    let mut entries = Vec::new();
    assert!(read_log(&config.directory, key, |_, _, entry| entries.push(entry.clone())).unwrap().is_intact());
    entries
}

fn resumes(config: &AuditLogConfig, key: &AuditKey) -> Vec<u64> {
    let resumed = |entry: AuditEntry| match entry.event {
        Event::Resume { incomplete_bytes } => Some(incomplete_bytes),
        Event::Begin { .. } | Event::Record(_) | Event::Verification(_) | Event::Drop { .. } | Event::Seal { .. } => {
            None
        }
    };
    events(config, key).into_iter().filter_map(resumed).collect()
}

const POLICIES: [FsyncPolicy; 3] = [FsyncPolicy::EachBatch, FsyncPolicy::Interval, FsyncPolicy::Never];

#[tokio::test(flavor = "multi_thread")]
async fn records_of_many_callers_are_all_there_once() {
    for fsync in POLICIES {
        many_callers(fsync).await;
    }
}

/// Writes over many segments, so that callers and the thread take turns.
async fn many_callers(fsync: FsyncPolicy) {
    let directory = tempfile::tempdir().unwrap();
    let config = config_with(directory.path(), |c| c.fsync = fsync);
    let sink = Arc::new(FileAuditSink::open(config.clone(), clock()).unwrap());
    let calls = (0..200).map(|number| {
        let sink = Arc::clone(&sink);
        tokio::spawn(async move { sink.record(record(number)).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    // Nobody waits for this record.
    drop(sink.record(record(200)));
    let key = sink.key.clone();
    drop(sink);
    let mut traces = Vec::new();
    for entry in events(&config, &key) {
        if let Event::Record(record) = entry.event {
            traces.push(record.trace_id);
        }
    }
    traces.sort();
    assert_eq!(traces, (0..=200).map(|number| format!("{number:032x}")).collect::<Vec<String>>());
    assert!(read(&config, &key).last.unwrap().sealed);
}

#[tokio::test]
async fn what_is_acknowledged_was_given_to_the_system() {
    for fsync in POLICIES {
        let directory = tempfile::tempdir().unwrap();
        let config = config_with(directory.path(), |c| c.fsync = fsync);
        let sink = FileAuditSink::open(config.clone(), clock()).unwrap();
        for number in 0..20 {
            sink.record(record(number)).await.unwrap();
            assert_eq!(read(&config, &sink.key).records, number as u64 + 1, "{fsync:?}");
        }
    }
}

/// Returns a turn that the test owns, with a record of its own.
fn turn(sink: &FileAuditSink) -> (Turn, oneshot::Receiver<Result<(), AuditError>>) {
    let event = Event::Record(Box::new(record(0))).encode().unwrap();
    let (acknowledge, acknowledged) = oneshot::channel();
    (sink.log.put_in(QueuedRecord { event, acknowledge }).unwrap().expect("nobody leads"), acknowledged)
}

#[tokio::test]
async fn more_than_there_is_room_for_is_refused_and_the_rest_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let config = config_with(directory.path(), |c| c.fsync = FsyncPolicy::Never);
    let sink = FileAuditSink::open(config.clone(), clock()).unwrap();
    let (turn, own) = turn(&sink);
    let large = || {
        let chunk_ids = vec!["x".repeat(WAITING_BYTES_MAX / 3)];
        let released = Released { chunk_ids, ..Released::default() };
        Record { released: Some(released), ..record(1) }
    };
    let mut following: Vec<Kept> = (0..3).map(|_| sink.record(large())).collect();
    assert_eq!(following.pop().unwrap().await, Err(AuditError::Full));
    following.push(sink.record(record(2)));
    let mut turn = Some(turn);
    while let Some(more) = turn {
        turn = more.write_batch();
    }
    own.await.unwrap().unwrap();
    for kept in following {
        kept.await.unwrap();
    }
    sink.record(record(3)).await.unwrap();
    assert_eq!(read(&config, &sink.key).records, 5);
}

#[tokio::test]
async fn a_lost_turn_acknowledges_nothing_and_the_next_caller_leads() {
    let directory = tempfile::tempdir().unwrap();
    let config = config_with(directory.path(), |c| c.fsync = FsyncPolicy::Never);
    let sink = FileAuditSink::open(config.clone(), clock()).unwrap();
    let (turn, own) = turn(&sink);
    let following = sink.record(record(1));
    drop(turn);
    assert!(own.await.is_err());
    assert!(matches!(following.await, Err(AuditError::Stopped(_))));
    sink.record(record(2)).await.unwrap();
    assert_eq!(read(&config, &sink.key).records, 1);
    // Nothing is written after a write that a panic left half done.
    let log = Arc::clone(&sink.log);
    let panicking = std::thread::spawn(move || {
        let _held = log.writer.lock();
        panic!("on purpose");
    });
    panicking.join().unwrap_err();
    assert!(matches!(sink.record(record(3)).await, Err(AuditError::Stopped(_))));
    assert_eq!(read(&config, &sink.key).records, 1);
}

#[test]
fn a_killed_writer_is_followed_by_one_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let config = config_with(directory.path(), |c| c.segment_size_max = ByteSize::bytes(100_000));
    let key = write(&config, 0..3, End::Killed);
    let segment = config.directory.join("audit-00000001.jsonl");
    OpenOptions::new().append(true).open(&segment).unwrap().write_all(b"{\"mac\":\"00").unwrap();
    let report = read(&config, &key);
    assert!(report.is_intact());
    assert_eq!(report.incomplete_bytes, Some(10));
    write(&config, 3..4, End::Killed);
    write(&config, 4..5, End::Clean);
    assert_eq!(resumes(&config, &key), [10, 0]);
    write(&config, 5..6, End::Clean);
    let report = read(&config, &key);
    assert_eq!((report.records, report.segments), (6, 2));
}

#[test]
fn a_segment_that_never_began_is_taken_up() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    fs::create_dir(&config.directory).unwrap();
    for begun in ["", "{\"mac\":"] {
        let number = if begun.is_empty() { 1 } else { 2 };
        fs::write(config.directory.join(format!("audit-{number:08}.jsonl")), begun).unwrap();
        AuditKey::create(&config.key_file).map_or_else(drop, drop);
        let key = write(&config, 0..1, End::Clean);
        let report = read(&config, &key);
        assert!(report.is_intact() && report.segments == number, "{report:?}");
    }
}

#[test]
fn a_log_that_is_not_as_it_was_left_is_not_continued() {
    type Change = fn(&AuditLogConfig);
    let changes: [(&str, Change); 7] = [
        ("its segments and its head are gone", |config| fs::remove_dir_all(&config.directory).unwrap()),
        ("head is gone", |config| {
            let path = config.directory.join("audit-00000001.jsonl");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(path, text.split_inclusive('\n').next().unwrap()).unwrap();
            fs::remove_file(config.directory.join("head")).unwrap();
        }),
        ("edited", |config| {
            let path = config.directory.join("audit-00000001.jsonl");
            let text = fs::read_to_string(&path).unwrap().replace("user:anne", "user:bob");
            fs::write(path, text).unwrap();
        }),
        ("truncated", |config| {
            let path = config.directory.join("audit-00000001.jsonl");
            let text = fs::read_to_string(&path).unwrap();
            let end = text.trim_end().rfind('\n').unwrap();
            fs::write(path, text.split_at(end + 1).0).unwrap();
        }),
        ("segments are gone", |config| fs::remove_file(config.directory.join("audit-00000001.jsonl")).unwrap()),
        ("head is gone", |config| fs::remove_file(config.directory.join("head")).unwrap()),
        ("audit.key", |config| fs::remove_file(&config.key_file).unwrap()),
    ];
    for (expected, change) in changes {
        let directory = tempfile::tempdir().unwrap();
        let config = config_with(directory.path(), |c| c.segment_size_max = ByteSize::bytes(100_000));
        write(&config, 0..3, End::Clean);
        change(&config);
        if config.key_file.exists() {
            fs::create_dir_all(&config.directory).unwrap();
            assert!(!read(&config, &AuditKey::read(&config.key_file).unwrap()).is_intact(), "{expected}");
        }
        let error = FileAuditSink::open(config, clock()).err().expect(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn old_segments_go_and_the_rest_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let config = config_with(directory.path(), |c| c.segments_max = 3);
    let key = write(&config, 0..20, End::Killed);
    let report = read(&config, &key);
    assert!(report.is_intact(), "{report:?}");
    assert_eq!(report.segments, 3);
    let newest = report.last.unwrap().segment;
    fs::remove_file(config.directory.join(format!("audit-{:08}.jsonl", newest - 2))).unwrap();
    let problems: Vec<Problem> = read(&config, &key).findings.into_iter().map(|finding| finding.problem).collect();
    assert_eq!(problems, [Problem::MissingSegments(newest - 2..=newest - 2)]);
}

#[tokio::test]
async fn what_cannot_be_written_is_not_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let sink = FileAuditSink::open(config.clone(), clock()).unwrap();
    assert!(matches!(FileAuditSink::open(config.clone(), clock()), Err(AuditError::InUse(_))));
    sink.record(record(0)).await.unwrap();
    assert!(!sink.is_failing());
    let moved = directory.path().join("moved");
    fs::rename(&config.directory, &moved).unwrap();
    assert!(matches!(sink.record(record(1)).await, Err(AuditError::Io { .. })));
    assert!(sink.is_failing(), "from the first record that was not kept");
    fs::create_dir(&config.directory).unwrap();
    assert!(matches!(sink.record(record(2)).await, Err(AuditError::Io { .. })));
    fs::remove_dir(&config.directory).unwrap();
    fs::rename(&moved, &config.directory).unwrap();
    sink.record(record(3)).await.unwrap();
    assert!(!sink.is_failing(), "until one is kept again");
    let key = sink.key.clone();
    drop(sink);
    assert_eq!(read(&config, &key).records, 2);
}

#[test]
fn a_key_that_others_may_read_or_that_is_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let key = write(&config, 0..1, End::Clean);
    assert_eq!(fs::metadata(&config.key_file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = AuditKey::read(&config.key_file).unwrap();
    assert_eq!(key.digest(DigestPurpose::Query, b"leave"), again.digest(DigestPurpose::Query, b"leave"));
    assert_ne!(key.digest(DigestPurpose::Query, b"leave"), key.digest(DigestPurpose::TokenId, b"leave"));
    fs::set_permissions(&config.key_file, Permissions::from_mode(0o640)).unwrap();
    assert!(FileAuditSink::open(config.clone(), clock()).err().unwrap().to_string().contains("chmod 600"));
    fs::set_permissions(&config.key_file, Permissions::from_mode(0o600)).unwrap();
    fs::write(&config.key_file, "short").unwrap();
    assert!(matches!(FileAuditSink::open(config, clock()), Err(AuditError::Key { .. })));
}

#[test]
fn records_at_an_interval_are_there_at_the_end() {
    for fsync in [FsyncPolicy::Interval, FsyncPolicy::Never] {
        let directory = tempfile::tempdir().unwrap();
        let config = config_with(directory.path(), |c| c.fsync = fsync);
        let key = write(&config, 0..10, End::Killed);
        assert_eq!(read(&config, &key).records, 10);
        write(&config, 10..12, End::Clean);
        assert_eq!(read(&config, &key).records, 12);
    }
}

#[tokio::test]
async fn a_log_goes_on_after_a_failure_of_the_disk() {
    for fsync in POLICIES {
        let directory = tempfile::tempdir().unwrap();
        let config = config_with(directory.path(), |c| {
            c.fsync = fsync;
            c.segment_size_max = ByteSize::bytes(100_000);
        });
        let sink = FileAuditSink::open(config.clone(), clock()).unwrap();
        let segment = config.directory.join("audit-00000001.jsonl");
        for round in 0..3 {
            sink.record(record(2 * round)).await.unwrap();
            // A flush failed, and a part of a write stayed.
            sink.log.lock_writer().unwrap().stop(&std::io::Error::other("on purpose"));
            OpenOptions::new().append(true).open(&segment).unwrap().write_all(b"{\"mac\":\"00").unwrap();
            sink.record(record(2 * round + 1)).await.unwrap();
            let report = read(&config, &sink.key);
            assert!(report.is_intact(), "{fsync:?}: {report:?}");
            assert_eq!((report.records, report.incomplete_bytes), (2 * round as u64 + 2, None), "{fsync:?}");
        }
        // The log does not continue from a segment that somebody else changed.
        sink.log.lock_writer().unwrap().stop(&std::io::Error::other("on purpose"));
        fs::write(&segment, b"another\n").unwrap();
        sink.record(record(9)).await.unwrap_err();
    }
}
