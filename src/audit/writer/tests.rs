//! These tests let the disk fail and show that the log keeps its entries and continues after them.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::super::recovery::recover;
use super::super::sample::{clock, config_with, read, record};
use super::super::{Record, Released};
use super::*;
use crate::settings::ByteSize;

/// The number of failures that are overcome while somebody reads the log.
const FAILURES: usize = 50;

fn writer(config: &AuditLogConfig) -> LogWriter {
    let recovered = recover(&config.directory, &config.key_file).unwrap();
    LogWriter::new(config.clone(), clock(), recovered).unwrap()
}

fn event(record: Record) -> Vec<u8> {
    Event::Record(Box::new(record)).encode().unwrap()
}

fn failure() -> std::io::Error {
    std::io::Error::other("on purpose")
}

#[test]
fn a_seal_that_was_not_flushed_is_the_one_seal_of_its_segment() {
    for fsync in [FsyncPolicy::EachBatch, FsyncPolicy::Interval, FsyncPolicy::Never] {
        let directory = tempfile::tempdir().unwrap();
        let config = config_with(directory.path(), |c| {
            c.fsync = fsync;
            c.segment_size_max = ByteSize::bytes(100_000);
        });
        let mut writer = writer(&config);
        writer.write(&[event(record(0))]).unwrap();
        // `seal` leaves the log in this state if the disk fails while it writes.
        writer.tell(&Event::Seal { entries: 2 }).unwrap();
        writer.stop(&failure());
        writer.write(&[event(record(1))]).unwrap();
        let report = read(&config, &writer.key);
        assert!(report.is_intact(), "{fsync:?}: {report:?}");
        assert_eq!((report.records, report.segments), (2, 2), "{fsync:?}");
    }
}

#[test]
fn what_was_acknowledged_is_never_out_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let fsync = FsyncPolicy::Interval;
    let config = config_with(directory.path(), |c| {
        c.fsync = fsync;
        c.segment_size_max = ByteSize::bytes(u64::MAX);
    });
    let mut writer = writer(&config);
    let large = Released { chunk_ids: vec!["x".repeat(4 << 20)], ..Released::default() };
    writer.write(&[event(Record { released: Some(large), ..record(0) })]).unwrap();
    let (path, length) = writer.tail.as_ref().map(|tail| (tail.segment.path.clone(), tail.bytes)).unwrap();
    let (looks, is_over) = (Barrier::new(2), AtomicBool::new(false));
    let shortest = thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut shortest = fs::metadata(&path).unwrap().len();
            looks.wait();
            while !is_over.load(Ordering::Relaxed) {
                shortest = shortest.min(fs::metadata(&path).unwrap().len());
            }
            shortest
        });
        looks.wait();
        for _ in 0..FAILURES {
            // After a failed flush, nothing of this is known to be on the disk.
            writer.synced_seq = 1;
            writer.tail.as_mut().unwrap().synced_bytes = 0;
            writer.stop(&failure());
            writer.mend().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        looking.join().unwrap()
    });
    assert_eq!(shortest, length);
    assert!(read(&config, &writer.key).is_intact());
}
