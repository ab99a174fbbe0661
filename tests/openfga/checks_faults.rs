//! INVARIANT (fail closed): whatever an `OpenFGA` server does, every stage of the stack of checks gives an error or the
//! right answer. The server is our own service behind a proxy that spoils its answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use openfga_client::client::{
    BatchCheckRequest, BatchCheckResponse, DeleteStoreRequest, OpenFgaServiceClient, ReadChangesRequest,
    ReadChangesResponse, batch_check_single_result::CheckResult,
};
use prost::Message;
use ragward::app::{App, stack_checks};
use ragward::authz::decider::{Basis, Decider, Outcome, Question, Questions, Recall, accounted};
use ragward::authz::openfga::{OpenFgaAuthorizer, OpenFgaConfig, OpenFgaStore, StoreSelector};
use ragward::authz::{
    Authorizer, AuthzError, Check, CheckBatch, CheckStage, ChecksConfig, Consistency, Decisions, Reached, Source,
    check_stack,
};
use ragward::config::{Config, Overrides};
use ragward::engine::Contextual;
use ragward::language::{Object, Relation, RelationshipTuple};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::batch_check_reply::{Decision, Entry, Reply};
use crate::support::faulty_server::{FaultyServer, Methods};

/// The time that a call may take where no answer can be believed anyway. A hanging server makes every call take as long.
const SHORT: Duration = Duration::from_millis(300);
/// The time that a call may take where its answer is needed, so that a busy machine changes no outcome.
const LONG: Duration = Duration::from_secs(20);
/// Longer than any request here may take. It only keeps a broken test from hanging.
const END_MAX: Duration = Duration::from_mins(2);
/// The delay of a server that is slow but answers.
const DELAY: Duration = Duration::from_millis(50);
/// The number of checks in one request. The last ones are asked by another user, who sees nothing.
const CHECKS: usize = 40;

/// Our own service over an embedded store, with a model and tuples.
struct RightServer {
    config: OpenFgaConfig,
    model_id: String,
    store: OpenFgaStore,
    client: OpenFgaServiceClient<Channel>,
    serving: JoinHandle<()>,
    _data: tempfile::TempDir,
}

impl Drop for RightServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl RightServer {
    async fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let overrides =
            Overrides { data: Some(data.path().to_owned()), insecure_identity: true, ..Overrides::default() };
        let app = App::open(&Config::load(None, &overrides).expect("a configuration")).await.expect("an app");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let serving = tokio::spawn(async move {
            app.serve(listener, std::future::pending()).await.expect("a server");
        });
        let config = OpenFgaConfig::new(address.clone(), StoreSelector::Name("ragward".to_owned()));
        let store = OpenFgaStore::open(&config).await.expect("a store");
        let model_id = store.write_model(crate::support::authorizer_suite::model()).await.expect("a model");
        store.write_tuples(&crate::support::authorizer_suite::tuples()).await.expect("tuples");
        let owned =
            |n: usize| RelationshipTuple::parse("user:carl", "owner", &format!("document:{n}")).expect("a tuple");
        store.write_tuples(&(0..CHECKS).step_by(2).map(owned).collect::<Vec<_>>()).await.expect("tuples");
        let client = OpenFgaServiceClient::connect(address).await.expect("a client");
        Self { config, model_id, store, client, serving, _data: data }
    }

    /// Returns the configuration that reaches the server by another address, and gives each call that much time.
    fn at(&self, address: &str, timeout: Duration) -> OpenFgaConfig {
        OpenFgaConfig {
            address: address.to_owned(),
            store_id: Some(self.store.store_id().to_owned()),
            authorization_model_id: Some(self.model_id.clone()),
            timeout,
            ..self.config.clone()
        }
    }

    fn questions(&self, consistency: Consistency, recall: Recall, deadline: Instant) -> Questions {
        let basis = Basis {
            store_id: self.store.store_id().to_owned(),
            model_id: self.model_id.clone(),
            consistency,
            generation: 0,
            recall,
            source: Source::Authority,
        };
        let question = |check| Question { check, contextual: Arc::default() };
        Questions {
            basis: Arc::new(basis),
            list: checks().into_iter().map(question).collect(),
            principal: Object::parse("user:carl").expect("a user"),
            deadline,
        }
    }
}

fn checks() -> Vec<Check> {
    let check = |n| Check {
        user: Object::parse(if n < CHECKS - 5 { "user:carl" } else { "user:nobody" }).expect("a user"),
        relation: Relation::parse("can_read").expect("a relation"),
        object: Object::parse(&format!("document:{n}")).expect("an object"),
    };
    (0..CHECKS).map(check).collect()
}

fn is_right(position: usize, allowed: bool) -> bool {
    allowed == (position.is_multiple_of(2) && position < CHECKS - 5)
}

impl From<BatchCheckResponse> for Reply {
    fn from(response: BatchCheckResponse) -> Self {
        let entry = |(id, result): (String, openfga_client::client::BatchCheckSingleResult)| {
            let decision = match result.check_result.expect("a result") {
                CheckResult::Allowed(allowed) => Decision::of(allowed),
                CheckResult::Error(error) => Decision { allowed: None, error: Some(error) },
            };
            Entry { id, result: Some(decision) }
        };
        let mut results: Vec<Entry> = response.result.into_iter().map(entry).collect();
        results.sort_unstable_by_key(|entry| entry.id.parse::<usize>().expect("a number"));
        Self { results }
    }
}

/// The fault that the proxy puts into an answer.
#[derive(Clone, Copy)]
enum Fault {
    Rewrite(fn(&mut Vec<Entry>)),
    Status(Code, &'static str),
    Hang,
    Slow,
}

/// The outcome that a fault must have.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// All questions are decided: nothing is wrong with the answer.
    AllDecided,
    /// No question is decided: no answer can be believed.
    NoneDecided,
    /// One question fails, and the others are decided.
    OneFailed,
}

fn item_error(entry: &mut Entry, code: i32, message: &str) {
    entry.result = Some(Decision::failed(code, message));
}

fn flip(entry: &Entry) -> Entry {
    let allowed = entry.result.as_ref().and_then(|decision| decision.allowed).map(|allowed| !allowed);
    Entry { id: entry.id.clone(), result: Some(Decision { allowed, error: None }) }
}

const CONDITION_FAILED: &str = "failed to evaluate relationship condition: 'at_work' - no hour";

const FAULTS: [(&str, Fault, Expected); 27] = {
    use Expected::{AllDecided, NoneDecided, OneFailed};
    use Fault::{Hang, Rewrite, Slow, Status};
    [
        ("none", Rewrite(|_| {}), AllDecided),
        ("slow", Slow, AllDecided),
        ("permuted", Rewrite(|r| r.reverse()), AllDecided),
        ("rotated", Rewrite(|r| r.rotate_left(7)), AllDecided),
        ("hangs", Hang, NoneDecided),
        ("empty", Rewrite(std::vec::Vec::clear), NoneDecided),
        ("short", Rewrite(|r| drop(r.pop())), NoneDecided),
        ("long", Rewrite(|r| r.push(Entry { id: "999".to_owned(), ..r[0].clone() })), NoneDecided),
        ("twice, agreeing", Rewrite(|r| r.push(r[0].clone())), NoneDecided),
        ("twice, disagreeing", Rewrite(|r| r.push(flip(&r[0]))), NoneDecided),
        ("twice, disagreeing, first", Rewrite(|r| r.insert(0, flip(&r[1]))), NoneDecided),
        ("one twice in place of another", Rewrite(|r| r[1] = r[0].clone()), NoneDecided),
        ("wrong id", Rewrite(|r| r[0].id = "x".to_owned()), NoneDecided),
        ("another spelling of an id", Rewrite(|r| r[1].id = "01".to_owned()), NoneDecided),
        ("neither decision nor error", Rewrite(|r| r[0].result = Some(Decision::default())), NoneDecided),
        ("no result", Rewrite(|r| r[0].result = None), NoneDecided),
        ("an error for one", Rewrite(|r| item_error(&mut r[0], 4_000, "failed")), OneFailed),
        ("one refused", Rewrite(|r| item_error(&mut r[0], 2_000, "no")), OneFailed),
        ("one throttled", Rewrite(|r| item_error(&mut r[0], 2_000, "throttled")), OneFailed),
        ("one whose condition fails", Rewrite(|r| item_error(&mut r[0], 2_000, CONDITION_FAILED)), OneFailed),
        ("refuses", Status(Code::InvalidArgument, "no"), NoneDecided),
        ("unavailable", Status(Code::Unavailable, "down"), NoneDecided),
        ("fails inside", Status(Code::Internal, "oh"), NoneDecided),
        ("aborts", Status(Code::Aborted, "oh"), NoneDecided),
        ("takes no message", Status(Code::ResourceExhausted, "grpc: received message larger than max"), NoneDecided),
        ("is exhausted", Status(Code::ResourceExhausted, "later"), NoneDecided),
        (
            "lies about its limit",
            Status(Code::InvalidArgument, "batchCheck received 1 checks, the maximum allowed is 50"),
            NoneDecided,
        ),
    ]
};

/// Starts a proxy for the right server. `spoils` says, for the number of a call, whether the proxy puts the fault into
/// its answer.
async fn front(right: &RightServer, fault: Fault, spoils: fn(usize) -> bool) -> (FaultyServer, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let (client, counted) = (right.client.clone(), Arc::clone(&calls));
    let batch_check = move |request: BatchCheckRequest| {
        let mut client = client.clone();
        let spoiled = spoils(counted.fetch_add(1, Ordering::SeqCst));
        async move {
            let mut reply = Reply::from(client.batch_check(request).await?.into_inner());
            match fault {
                _ if !spoiled => {}
                Fault::Rewrite(rewrite) => rewrite(&mut reply.results),
                Fault::Status(code, message) => return Err(Status::new(code, message)),
                Fault::Hang => std::future::pending().await,
                Fault::Slow => tokio::time::sleep(DELAY).await,
            }
            Ok::<Reply, Status>(reply)
        }
    };
    let server = Methods::default().on("/openfga.v1.OpenFGAService/BatchCheck", batch_check).start().await;
    (server, calls)
}

/// Returns one stack for each stage, with that stage at the top. Each stack has an adapter of its own.
fn stages(config: &OpenFgaConfig) -> Vec<(&'static str, Arc<dyn Decider>)> {
    let checks =
        ChecksConfig { calls_in_flight_max: 8, checks_waiting_max: 2_000, cache_ttl: LONG, ..ChecksConfig::default() };
    let all = CheckStage::ALL;
    let rows: [(&str, &[CheckStage]); 10] = [
        ("the adapter", &[]),
        ("the breaker", &all[..1]),
        ("the retries", &all[..2]),
        ("the retries alone", &[CheckStage::Retries]),
        ("the batches", &all[..3]),
        ("the batches alone", &[CheckStage::Batches]),
        ("the sharing", &all[..4]),
        ("the sharing alone", &[CheckStage::Sharing]),
        ("the cache", &all),
        ("the cache alone", &[CheckStage::Cache]),
    ];
    let stack = |(name, stages)| {
        let server = Arc::new(OpenFgaAuthorizer::new(config).expect("an authorizer"));
        (name, check_stack(server, stages, config, &checks))
    };
    rows.map(stack).into()
}

/// Returns how many questions of a request were decided and how many failed. Panics on a wrong decision.
async fn ask(name: &str, stage: &dyn Decider, questions: &Questions) -> (usize, usize) {
    let answers = timeout(END_MAX, stage.decide(questions)).await.expect("an end");
    let Ok(outcomes) = answers.and_then(|answers| accounted(questions.list.len(), answers)) else {
        return (0, questions.list.len());
    };
    let mut decided = 0;
    for (position, outcome) in outcomes.iter().enumerate() {
        if let Outcome::Decided { allowed, .. } = outcome {
            assert!(is_right(position, *allowed), "{name}: wrong about {position}");
            decided += 1;
        }
    }
    (decided, outcomes.len() - decided)
}

/// Returns the time that a call may take, so that what is expected does not depend on the speed of the machine.
fn patience(expected: Option<Expected>) -> Duration {
    match expected {
        Some(Expected::AllDecided | Expected::OneFailed) => LONG,
        Some(Expected::NoneDecided) | None => SHORT,
    }
}

/// Sends three requests at the same time, the last one for higher consistency, and then all three again.
async fn hold(name: &str, stage: &dyn Decider, right: &RightServer, expected: Option<Expected>) {
    for round in 0..2 {
        let deadline = Instant::now() + 2 * patience(expected);
        let asked = [
            right.questions(Consistency::MinimizeLatency, Recall::Generation, deadline),
            right.questions(Consistency::MinimizeLatency, Recall::Generation, deadline),
            right.questions(Consistency::HigherConsistency, Recall::Nothing, deadline),
        ];
        for (request, (decided, failed)) in
            join_all(asked.iter().map(|questions| ask(name, stage, questions))).await.into_iter().enumerate()
        {
            let fits = match expected {
                Some(Expected::AllDecided) => failed == 0,
                Some(Expected::NoneDecided) => decided == 0,
                // If two requests share a call, the failed question may belong to the other request.
                Some(Expected::OneFailed) => failed <= 1,
                None => true,
            };
            assert!(fits, "{name}, round {round}, request {request}: {decided} decided, {failed} failed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_at_every_stage_is_an_error_or_a_right_answer() {
    let right = RightServer::start().await;
    for (fault_name, fault, expected) in FAULTS {
        let (server, calls) = front(&right, fault, |_| true).await;
        let stages = stages(&right.at(&server.address, patience(Some(expected))));
        join_all(stages.iter().map(|(stage_name, stage)| {
            let name = format!("{fault_name} at {stage_name}");
            let right = &right;
            async move { hold(&name, stage.as_ref(), right, Some(expected)).await }
        }))
        .await;
        assert!(calls.load(Ordering::SeqCst) > 0, "{fault_name}: nothing was asked");
    }
}

/// The server is right two times out of three. Shared, repeated and remembered answers stay right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_now_and_then_leave_no_wrong_answer_behind() {
    let right = RightServer::start().await;
    for (fault_name, fault, _) in FAULTS {
        let (server, _) = front(&right, fault, |call| call % 3 == 0).await;
        for (stage_name, stage) in stages(&right.at(&server.address, patience(None))) {
            hold(&format!("{fault_name} now and then at {stage_name}"), stage.as_ref(), &right, None).await;
        }
    }
}

/// The connection breaks after a given number of bytes, in the middle of whatever is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_in_mid_stream_decides_nothing_wrong() {
    let right = RightServer::start().await;
    let server = right.config.address.trim_start_matches("http://").to_owned();
    for bytes in [0, 1, 9, 60, 150, 400, 1_000] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let server = server.clone();
        let proxy = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let (mut from_client, mut to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                tokio::spawn(async move {
                    tokio::io::copy(&mut from_server.take(bytes), &mut to_client).await.ok();
                    to_client.shutdown().await.ok();
                });
            }
        });
        let expected = (bytes < 100).then_some(Expected::NoneDecided);
        for (stage_name, stage) in stages(&right.at(&address, patience(expected))) {
            hold(&format!("{bytes} bytes at {stage_name}"), stage.as_ref(), &right, expected).await;
        }
        proxy.abort();
    }
}

fn batch(consistency: Consistency) -> CheckBatch {
    CheckBatch { checks: checks(), contextual: Arc::default(), consistency, deadline: Instant::now() + LONG }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_suite_holds_for_the_stack() {
    let right = RightServer::start().await;
    for cache_ttl in [Duration::ZERO, Duration::from_mins(1)] {
        let checks = ChecksConfig { cache_ttl, ..ChecksConfig::default() };
        let stack = stack_checks(&right.config, &checks).expect("a stack");
        for round in ["first", "again"] {
            let name = format!("remembered for {cache_ttl:?}, {round}");
            crate::support::authorizer_suite::run(&name, &stack).await;
        }
    }
}

/// The server takes smaller messages than it does by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_too_large_are_trouble_of_whoever_sends_them() {
    let right = RightServer::start().await;
    let group = |number: usize| format!("group:{number:0>105}");
    let claim = |number| RelationshipTuple::parse("user:nell", "member", &group(number)).expect("a tuple");
    let seen = |n: usize| {
        RelationshipTuple::parse(&format!("{}#member", group(9)), "viewer", &format!("document:{n}")).expect("a tuple")
    };
    right.store.write_tuples(&[seen(1), seen(3)]).await.expect("tuples");
    let contextual = Arc::new(Contextual { tuples: (0..100).map(claim).collect(), ..Contextual::default() });
    for (bytes_max, answered) in [(100_000, true), (10_000, false)] {
        let client = right.client.clone();
        let batch_check = move |request: BatchCheckRequest| {
            let mut client = client.clone();
            async move {
                let bytes = request.encoded_len();
                if bytes > bytes_max {
                    let message = format!("grpc: received message larger than max ({bytes} vs. {bytes_max})");
                    return Err(Status::resource_exhausted(message));
                }
                Ok::<Reply, Status>(client.batch_check(request).await?.into_inner().into())
            }
        };
        let server = Methods::default().on("/openfga.v1.OpenFGAService/BatchCheck", batch_check).start().await;
        let config = right.at(&server.address, LONG);
        let stack = stack_checks(&config, &ChecksConfig { cache_ttl: Duration::ZERO, ..ChecksConfig::default() })
            .expect("a stack");
        // These questions are not shared while in flight, so each request asks its own.
        let long = (0..6).map(|_| {
            let user = Object::parse("user:nell").expect("a user");
            let checks = checks().into_iter().map(|check| Check { user: user.clone(), ..check }).collect();
            let batch = batch(Consistency::HigherConsistency);
            CheckBatch { checks, contextual: Arc::clone(&contextual), ..batch }
        });
        let long: Vec<CheckBatch> = long.collect();
        let asked = long.iter().map(|batch| stack.check(batch));
        for (request, answers) in join_all(asked).await.into_iter().enumerate() {
            let row = format!("{bytes_max} bytes at most, request {request}");
            match answers {
                Ok(Decisions { list, .. }) => {
                    let mut allowed: Vec<_> = list.iter().filter(|a| a.allowed).map(|a| a.position).collect();
                    allowed.sort_unstable();
                    assert_eq!((answered, list.len(), allowed), (true, CHECKS, vec![1, 3]), "{row}");
                }
                Err(error) => {
                    assert!(!answered && matches!(error, AuthzError::MessageTooLarge(_)), "{row}: {error}");
                }
            }
        }
        let decided = decisions(&stack, Consistency::HigherConsistency).await;
        assert!((0..).zip(decided).all(|(position, allowed)| is_right(position, allowed)), "{bytes_max}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_or_model_that_is_gone_decides_nothing() {
    let right = RightServer::start().await;
    let stack = stack_checks(&right.config, &ChecksConfig::default()).expect("a stack");
    assert!(stack.check(&batch(Consistency::MinimizeLatency)).await.is_ok());
    let vanished =
        OpenFgaConfig { authorization_model_id: Some("01JZZZZZZZZZZZZZZZZZZZZZZZ".to_owned()), ..right.config.clone() };
    let vanished = stack_checks(&vanished, &ChecksConfig::default()).expect("a stack");
    for consistency in [Consistency::MinimizeLatency, Consistency::HigherConsistency] {
        let answers = vanished.check(&batch(consistency)).await;
        assert!(matches!(answers, Err(AuthzError::Refused(_))), "{consistency:?}: {answers:?}");
    }
    let store_id = right.store.store_id().to_owned();
    right.client.clone().delete_store(DeleteStoreRequest { store_id }).await.expect("deleted");
    let answers = stack.check(&batch(Consistency::HigherConsistency)).await;
    assert!(matches!(answers, Err(AuthzError::NoModel)), "{answers:?}");
}

/// The way in which `ReadChanges` answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Changelog {
    There,
    Absent,
    /// The call after one that reported changes fails.
    BreaksOff,
}

/// Starts a proxy that counts calls of `BatchCheck`.
async fn counting(right: &RightServer, changelog: Changelog) -> (FaultyServer, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let (client, counted) = (right.client.clone(), Arc::clone(&calls));
    let batch_check = move |request: BatchCheckRequest| {
        let mut client = client.clone();
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<Reply, Status>(client.batch_check(request).await?.into_inner().into()) }
    };
    let (client, has_told) = (right.client.clone(), Arc::new(AtomicBool::new(false)));
    let read_changes = move |request: ReadChangesRequest| {
        let (mut client, has_told) = (client.clone(), Arc::clone(&has_told));
        async move {
            if changelog == Changelog::Absent {
                return Err(Status::unavailable("no changelog"));
            }
            if has_told.swap(false, Ordering::SeqCst) && changelog == Changelog::BreaksOff {
                return Err(Status::unavailable("broken off"));
            }
            let page = client.read_changes(request).await?.into_inner();
            has_told.store(!page.changes.is_empty(), Ordering::SeqCst);
            Ok::<ReadChangesResponse, Status>(page)
        }
    };
    let methods = Methods::default()
        .on("/openfga.v1.OpenFGAService/BatchCheck", batch_check)
        .on("/openfga.v1.OpenFGAService/ReadChanges", read_changes);
    (methods.start().await, calls)
}

async fn decisions(stack: &dyn Authorizer, consistency: Consistency) -> Vec<bool> {
    let mut list = stack.check(&batch(consistency)).await.expect("decisions").list;
    list.sort_unstable_by_key(|decision| decision.position);
    list.into_iter().map(|decision| decision.allowed).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_in_the_changelog_is_seen_long_before_a_decision_is_old() {
    for changelog in [Changelog::There, Changelog::BreaksOff] {
        let right = RightServer::start().await;
        let (server, calls) = counting(&right, changelog).await;
        let checks = ChecksConfig {
            cache_ttl: Duration::from_mins(10),
            changelog_poll: Duration::from_millis(20),
            changelog_age_max: LONG,
            ..ChecksConfig::default()
        };
        let config = right.at(&server.address, LONG);
        let stack = stack_checks(&config, &checks).expect("a stack");
        let new = stack.check(&batch(Consistency::MinimizeLatency)).await.expect("decisions");
        assert!(new.list.iter().all(|decision| decision.reached == Reached::Now), "{changelog:?}: {new:?}");
        let before = decisions(&stack, Consistency::MinimizeLatency).await;
        assert!(before[0] && before[2], "{changelog:?}: {before:?}");
        let mut ticks = interval(Duration::from_millis(5));
        let recalled = async {
            loop {
                let asked = calls.load(Ordering::SeqCst);
                assert_eq!(decisions(&stack, Consistency::MinimizeLatency).await, before, "{changelog:?}");
                if calls.load(Ordering::SeqCst) == asked {
                    return;
                }
                ticks.tick().await;
            }
        };
        timeout(LONG, recalled).await.expect("decisions are recalled once the changelog was read");
        let recalled = stack.check(&batch(Consistency::MinimizeLatency)).await.expect("decisions");
        assert!(
            recalled.list.iter().all(|decision| decision.reached == Reached::Earlier),
            "{changelog:?}: {recalled:?}"
        );

        let revoked = RelationshipTuple::parse("user:carl", "owner", "document:0").expect("a tuple");
        right.store.delete_tuples(&[revoked]).await.expect("deleted");
        let at_once = decisions(&stack, Consistency::HigherConsistency).await;
        assert!(!at_once[0], "{changelog:?}: the revocation is seen at once for higher consistency");
        let revoked = RelationshipTuple::parse("user:carl", "owner", "document:2").expect("a tuple");
        right.store.delete_tuples(&[revoked]).await.expect("deleted");
        let seen = async {
            while decisions(&stack, Consistency::MinimizeLatency).await[2] {
                ticks.tick().await;
            }
        };
        let seen = timeout(LONG, seen).await;
        assert!(seen.is_ok(), "{changelog:?}: the revocation is not seen");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_changelog_nothing_is_recalled() {
    let right = RightServer::start().await;
    let (server, calls) = counting(&right, Changelog::Absent).await;
    let stack = stack_checks(&right.at(&server.address, LONG), &ChecksConfig::default()).expect("a stack");
    for asked in 1..=5 {
        decisions(&stack, Consistency::MinimizeLatency).await;
        assert_eq!(calls.load(Ordering::SeqCst), asked, "question {asked}");
    }
}
