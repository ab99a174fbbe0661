//! Calls for tests of handlers, as the layer around the services sees them.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::UNIX_EPOCH;

use tonic::body::Body;
use tonic::codegen::http;
use tower::{Layer, Service};

use super::{Audit, AuditLayer, Lasting};
use crate::audit::{AuditConfig, AuditKey, Event, FileAuditSink, FsyncPolicy, Record, read_log};

/// A call under way: what its caller waits for, for ever, and what its handler gets.
pub(in crate::server) fn call(audit: Option<Audit>, path: &str) -> (impl Future + Send + use<>, Lasting) {
    let (give, given) = channel();
    let handler = tower::service_fn(move |request: http::Request<Body>| {
        give.send(request.extensions().get::<Lasting>().unwrap().clone()).unwrap();
        std::future::pending::<Result<http::Response<Body>, Infallible>>()
    });
    let request = http::Request::post(path).body(Body::empty()).unwrap();
    let running = AuditLayer(audit).layer(handler).call(request);
    (running, given.recv().unwrap())
}

/// A log in a directory.
pub(in crate::server) fn open_log(directory: &Path) -> Audit {
    let config = AuditConfig {
        directory: directory.join("audit"),
        key_file: directory.join("audit.key"),
        fsync: FsyncPolicy::Never,
        segment_bytes_max: 1 << 20,
        segments_max: 0,
    };
    let sink = FileAuditSink::open(config, Arc::new(|| UNIX_EPOCH)).unwrap();
    Audit { sink: Arc::new(sink), required: true }
}

/// What it holds so far.
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

/// The same once there are any.
pub(in crate::server) async fn first_records(directory: &Path) -> Vec<Record> {
    loop {
        let records = records(directory);
        if !records.is_empty() {
            return records;
        }
        tokio::task::yield_now().await;
    }
}
