//! Calls and logs for the tests of handlers.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::UNIX_EPOCH;

use tonic::body::Body;
use tonic::codegen::http;
use tower::{Layer, Service};

use super::{Audit, AuditLayer, OngoingWork, OpenRecord};
use crate::audit::{AuditConfig, AuditKey, Event, FileAuditSink, FsyncPolicy, ObservedDetail, Record, read_log};
use crate::server::refusal::Refusal;

/// Begins a call that never ends. Gives the future that its caller waits on, and the open record that its handler gets.
pub(in crate::server) fn call(audit: Option<Audit>, path: &str) -> (impl Future + Send + use<>, OpenRecord) {
    let (give, given) = channel();
    let handler = tower::service_fn(move |request: http::Request<Body>| {
        give.send(request.extensions().get::<OpenRecord>().unwrap().clone()).unwrap();
        std::future::pending::<Result<http::Response<Body>, Refusal>>()
    });
    let request = http::Request::post(path).body(Body::empty()).unwrap();
    let running = AuditLayer { audit, work: OngoingWork::default() }.layer(handler).call(request);
    (running, given.recv().unwrap())
}

/// Opens an audit log in a directory.
pub(in crate::server) fn open_log(directory: &Path) -> Audit {
    let config = AuditConfig { fsync: FsyncPolicy::Never, ..AuditConfig::default() };
    let sink = FileAuditSink::open(config.resolved(directory), Arc::new(|| UNIX_EPOCH)).unwrap();
    Audit { sink: Arc::new(sink), required: true, observed: ObservedDetail::default() }
}

/// Reads the records that the log of a directory holds so far.
pub(in crate::server) fn records(directory: &Path) -> Vec<Record> {
    let key = AuditKey::read(&directory.join("audit.key")).unwrap();
    let mut records = Vec::new();
    let report = read_log(&directory.join("audit"), &key, |_, _, entry| {
        if let Event::Record(record) = &entry.event {
            records.push((**record).clone());
        }
    });
    report.unwrap();
    records
}

/// Waits until the log holds a record, then reads all records.
pub(in crate::server) async fn first_records(directory: &Path) -> Vec<Record> {
    loop {
        let records = records(directory);
        if !records.is_empty() {
            return records;
        }
        tokio::task::yield_now().await;
    }
}
