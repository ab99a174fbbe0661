//! The record of a call when its caller goes away, or when the record cannot be kept.

use std::sync::Mutex;

use futures::FutureExt;
use futures::future;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::audit::{AuditError, AuditedModel, DigestPurpose, ObservedDetail, Record, Verification};
use crate::inference::{ModelFault, ModelTask, SentRecord, SentTexts};

/// Takes records in, and gives the same outcome for all of them.
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

type Answering = BoxFuture<'static, Result<http::Response<Body>, Refusal>>;

const UNARY: &str = "/openfga.v1.OpenFGAService/Check";
const STREAMED: &str = "/openfga.v1.OpenFGAService/StreamedListObjects";
const UNKNOWN: &str = "/a.Service/Call";

/// Polls a call once and then drops it. Gives the code that its caller saw, and the codes that were recorded.
fn call(
    path: &str,
    answering: fn() -> Answering,
    outcome: fn() -> Kept,
    required: bool,
) -> (Option<Code>, Vec<String>) {
    let sink = Arc::new(Sink { records: Mutex::default(), outcome });
    let audit = Audit { sink: Arc::clone(&sink) as _, required, observed: ObservedDetail::default() };
    let layer = AuditLayer { audit: Some(audit), work: OngoingWork::default() };
    let service = layer.layer(service_fn(move |_request| answering()));
    let request = http::Request::post(path).version(http::Version::HTTP_2).header("content-type", "application/grpc");
    let request = request.body(Body::empty()).unwrap();
    let route = Route::of(&request);
    let given = service.oneshot(request).now_or_never();
    let records = sink.records.lock().unwrap().iter().map(|record| record.code.clone()).collect();
    (given.map(|given| code_of(&route, &given)), records)
}

#[test]
fn a_call_leaves_one_record_whatever_becomes_of_its_caller() {
    let given: fn() -> Answering = || future::ready(Ok(http::Response::new(Body::empty()))).boxed();
    let refused: fn() -> Answering = || future::ready(Err(Refusal::new(Code::NotFound, "nothing"))).boxed();
    let under_way: fn() -> Answering = || future::pending().boxed();
    let kept: fn() -> Kept = || future::ready(Ok(())).boxed();
    let failed: fn() -> Kept = || future::ready(Err(AuditError::Full)).boxed();
    let being_kept: fn() -> Kept = || future::pending().boxed();
    let rows = [
        ("answered", UNARY, given, kept, true, Some(Code::Ok), "OK"),
        ("a stream, whose end nobody knows", STREAMED, given, kept, true, Some(Code::Unknown), "UNKNOWN"),
        ("an answer by nobody knows whom", UNKNOWN, given, kept, true, Some(Code::Unknown), "UNKNOWN"),
        ("refused", UNARY, refused, kept, true, Some(Code::NotFound), "NOT_FOUND"),
        ("gone before the answer", UNARY, under_way, kept, true, None, "CANCELLED"),
        ("gone while the record is kept", UNARY, given, being_kept, true, None, "OK"),
        ("not kept", UNARY, given, failed, true, Some(Code::Unavailable), "OK"),
        ("a refusal that is not kept", UNARY, refused, failed, true, Some(Code::Unavailable), "NOT_FOUND"),
        ("not kept, which is allowed", UNARY, given, failed, false, Some(Code::Ok), "OK"),
    ];
    for (what, path, answering, outcome, required, expected, code) in rows {
        assert_eq!(call(path, answering, outcome, required), (expected, vec![code.to_owned()]), "{what}");
    }
}

#[tokio::test]
async fn work_that_outlives_its_caller_is_waited_for_when_the_server_stops() {
    let work = OngoingWork::default();
    let (give, given) = std::sync::mpsc::channel();
    let layer = AuditLayer { audit: None, work: work.clone() };
    let service = layer.layer(service_fn(move |request: http::Request<Body>| {
        give.send(request.extensions().get::<OpenRecord>().unwrap().clone()).unwrap();
        future::pending::<Result<http::Response<Body>, Refusal>>()
    }));
    let running = service.oneshot(http::Request::post(UNARY).body(Body::empty()).unwrap());
    assert!(running.now_or_never().is_none(), "the caller goes away");
    let record = given.recv().unwrap();
    let (let_on, held) = tokio::sync::oneshot::channel::<()>();
    let part = record.run_part(async move { held.await.map_err(|_gone| Refusal::lost()) });
    assert!(part.now_or_never().is_none());
    let mut stopping = Box::pin(work.ended());
    assert!(stopping.as_mut().now_or_never().is_none());
    let_on.send(()).unwrap();
    stopping.await;
}

/// Calls with a deadline, and waits for the answer. Gives the code that the caller got, and the codes that were recorded.
async fn call_until(path: &str, answering: fn() -> Answering, outcome: fn() -> Kept) -> (Option<Code>, Vec<String>) {
    let sink = Arc::new(Sink { records: Mutex::default(), outcome });
    let audit = Audit { sink: Arc::clone(&sink) as _, required: true, observed: ObservedDetail::default() };
    let layer = AuditLayer { audit: Some(audit), work: OngoingWork::default() };
    let given = layer.layer(service_fn(move |_request| answering())).oneshot(with_deadline(path)).await;
    let records = sink.records.lock().unwrap().iter().map(|record| record.code.clone()).collect();
    (given.err().map(|refusal| refusal.code()), records)
}

fn with_deadline(path: &str) -> http::Request<Body> {
    let request = http::Request::post(path).version(http::Version::HTTP_2).header("content-type", "application/grpc");
    request.header("grpc-timeout", "100m").body(Body::empty()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_late_call_is_recorded_with_the_code_that_its_caller_got() {
    let under_way: fn() -> Answering = || future::pending().boxed();
    let given: fn() -> Answering = || future::ready(Ok(http::Response::new(Body::empty()))).boxed();
    let kept: fn() -> Kept = || future::ready(Ok(())).boxed();
    let kept_late: fn() -> Kept = || {
        let keeping = tokio::time::sleep(std::time::Duration::from_secs(1));
        async move {
            keeping.await;
            Ok(())
        }
        .boxed()
    };
    let failed: fn() -> Kept = || future::ready(Err(AuditError::Full)).boxed();
    let late = Some(Code::DeadlineExceeded);
    let rows = [
        ("an RPC", UNARY, under_way, kept, late, vec!["DEADLINE_EXCEEDED"]),
        ("a stream", STREAMED, under_way, kept, late, vec!["DEADLINE_EXCEEDED"]),
        ("an RPC that nobody knows", UNKNOWN, under_way, kept, late, vec!["DEADLINE_EXCEEDED"]),
        ("an operation that is not recorded", "/grpc.health.v1.Health/Check", under_way, kept, late, vec![]),
        ("in time", UNARY, given, kept, None, vec!["OK"]),
        ("an answer in time, whose record is kept late", UNARY, given, kept_late, None, vec!["OK"]),
        ("not kept", UNARY, under_way, failed, Some(Code::Unavailable), vec!["DEADLINE_EXCEEDED"]),
    ];
    for (what, path, answering, outcome, expected, codes) in rows {
        let codes: Vec<String> = codes.into_iter().map(str::to_owned).collect();
        assert_eq!(call_until(path, answering, outcome).await, (expected, codes), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_at_its_deadline_is_late() {
    let sink = Arc::new(Sink { records: Mutex::default(), outcome: || future::ready(Ok(())).boxed() });
    let audit = Audit { sink: Arc::clone(&sink) as _, required: true, observed: ObservedDetail::default() };
    let layer = AuditLayer { audit: Some(audit), work: OngoingWork::default() };
    let answering = || future::pending::<Result<http::Response<Body>, Refusal>>();
    for wait_ms in [0, 99, 100] {
        let mut running = Box::pin(layer.layer(service_fn(move |_request| answering())).oneshot(with_deadline(UNARY)));
        assert!(running.as_mut().now_or_never().is_none(), "after {wait_ms} ms");
        tokio::time::advance(std::time::Duration::from_millis(wait_ms)).await;
    }
    let codes: Vec<String> = sink.records.lock().unwrap().iter().map(|record| record.code.clone()).collect();
    assert_eq!(codes, ["CANCELLED", "CANCELLED", "DEADLINE_EXCEEDED"]);
}

#[tokio::test(start_paused = true)]
async fn work_that_outlives_the_deadline_is_recorded_when_it_is_done() {
    let sink = Arc::new(Sink { records: Mutex::default(), outcome: || future::ready(Ok(())).boxed() });
    let codes = || -> Vec<String> { sink.records.lock().unwrap().iter().map(|record| record.code.clone()).collect() };
    let work = OngoingWork::default();
    let audit = Audit { sink: Arc::clone(&sink) as _, required: true, observed: ObservedDetail::default() };
    let layer = AuditLayer { audit: Some(audit), work: work.clone() };
    let (let_on, held) = tokio::sync::oneshot::channel::<()>();
    let held = Mutex::new(Some(held));
    let service = layer.layer(service_fn(move |request: http::Request<Body>| {
        let record = request.extensions().get::<OpenRecord>().unwrap().clone();
        let held = held.lock().unwrap().take().unwrap();
        async move {
            record.run_whole(async move { held.await.map_err(|_gone| Refusal::lost()) }).await?;
            Ok(http::Response::new(Body::empty()))
        }
    }));
    let refused = service.oneshot(with_deadline(UNARY)).await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded);
    assert!(codes().is_empty(), "the record names what was changed, so it waits");
    let_on.send(()).unwrap();
    work.ended().await;
    assert_eq!(codes(), ["DEADLINE_EXCEEDED"], "as the caller was told");
}

/// Keeps nothing, and may know that.
struct Known {
    is_failing: bool,
}

impl AuditSink for Known {
    fn record(&self, _record: Record) -> Kept {
        future::ready(Err(AuditError::Full)).boxed()
    }

    fn verified(&self, _verification: Verification) -> Kept {
        future::ready(Err(AuditError::Full)).boxed()
    }

    fn digest(&self, _purpose: DigestPurpose, _bytes: &[u8]) -> String {
        String::new()
    }

    fn is_failing(&self) -> bool {
        self.is_failing
    }
}

#[test]
fn nothing_is_sent_to_a_model_while_required_records_are_lost() {
    let unrecorded = Err(ModelFault::Unrecorded);
    let rows = [
        ("records are kept", false, true, Ok(())),
        ("records are lost", true, true, unrecorded),
        ("records are lost, which is allowed", true, false, Ok(())),
    ];
    for (row, is_failing, required, expected) in rows {
        let audit = Audit { sink: Arc::new(Known { is_failing }), required, observed: ObservedDetail::default() };
        let draft = Draft::new("/a.Service/Call", Door::Grpc, String::new(), Some(audit));
        let chunk_ids = ["a#0".to_owned()];
        let sent = SentTexts { task: ModelTask::Rerank, model: "judge", host: "a:1", texts: 1, chunk_ids: &chunk_ids };
        assert_eq!(draft.about_to_send(sent), expected, "{row}");
        let noted = draft.finish("OK", std::time::Duration::ZERO).models.len();
        assert_eq!(noted, usize::from(expected.is_ok()), "{row}: what is not sent is not noted");
    }
}

#[test]
fn the_record_names_everything_that_a_model_was_sent() {
    let draft = Draft::new("/a.Service/Call", Door::Grpc, String::new(), None);
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<String>>();
    for (host, chunk_ids) in [("a:1", ids(&["1", "2"])), ("a:1", ids(&["3"])), ("b:1", ids(&["4"]))] {
        let texts = chunk_ids.len();
        let sent = SentTexts { task: ModelTask::Rerank, model: "judge", host, texts, chunk_ids: &chunk_ids };
        draft.about_to_send(sent).unwrap();
    }
    let of = |host: &str, chunk_ids: Vec<String>| AuditedModel {
        task: "rerank".to_owned(),
        model: "judge".to_owned(),
        host: host.to_owned(),
        texts: chunk_ids.len() as u64,
        chunk_ids,
    };
    let expected = [of("a:1", ids(&["1", "2", "3"])), of("b:1", ids(&["4"]))];
    assert_eq!(draft.finish("OK", std::time::Duration::ZERO).models, expected);
}
