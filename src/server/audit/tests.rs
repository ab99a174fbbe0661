//! Callers that go away, and records that are not kept.

use std::sync::Mutex;

use futures::FutureExt;
use futures::future;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::audit::{AuditError, DigestPurpose, Record, Verification};

/// Takes records in, and tells of all of them the same.
struct Sink {
    records: Mutex<Vec<Record>>,
    outcome: fn() -> Kept,
}

impl AuditSink for Sink {
    fn record(&self, record: Record) -> Kept {
        self.records.lock().unwrap().push(record);
        (self.outcome)()
    }

    fn verified(&self, _verification: Verification) -> Kept {
        (self.outcome)()
    }

    fn digest(&self, _purpose: DigestPurpose, _bytes: &[u8]) -> String {
        String::new()
    }
}

type Answering = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

/// Polls a call once and lets it go. What was answered, and what was recorded.
fn call(answering: fn() -> Answering, outcome: fn() -> Kept, required: bool) -> (Option<Code>, Vec<String>) {
    let sink = Arc::new(Sink { records: Mutex::default(), outcome });
    let audit = Audit { sink: Arc::clone(&sink) as _, required };
    let service = AuditLayer(Some(audit)).layer(service_fn(move |_request| answering()));
    let request = http::Request::post("http://any/a.Service/Call").body(Body::empty()).unwrap();
    let response = service.oneshot(request).now_or_never();
    let records = sink.records.lock().unwrap().iter().map(|record| record.code.clone()).collect();
    (response.map(|Ok(response)| code_of(&response)), records)
}

#[test]
fn a_call_leaves_one_record_whatever_becomes_of_its_caller() {
    let given: fn() -> Answering = || future::ready(Ok(http::Response::new(Body::empty()))).boxed();
    let refused: fn() -> Answering = || future::ready(Ok(Status::not_found("nothing").into_http())).boxed();
    let under_way: fn() -> Answering = || future::pending().boxed();
    let kept: fn() -> Kept = || future::ready(Ok(())).boxed();
    let failed: fn() -> Kept = || future::ready(Err(AuditError::Full)).boxed();
    let being_kept: fn() -> Kept = || future::pending().boxed();
    let rows = [
        ("answered", given, kept, true, Some(Code::Ok), "OK"),
        ("refused", refused, kept, true, Some(Code::NotFound), "NOT_FOUND"),
        ("gone before the answer", under_way, kept, true, None, "CANCELLED"),
        ("gone while the record is kept", given, being_kept, true, None, "OK"),
        ("not kept", given, failed, true, Some(Code::Unavailable), "OK"),
        ("a refusal that is not kept", refused, failed, true, Some(Code::Unavailable), "NOT_FOUND"),
        ("not kept, which is allowed", given, failed, false, Some(Code::Ok), "OK"),
    ];
    for (what, answering, outcome, required, expected, code) in rows {
        assert_eq!(call(answering, outcome, required), (expected, vec![code.to_owned()]), "{what}");
    }
}
