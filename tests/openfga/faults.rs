//! INVARIANT (fail closed): however an `OpenFGA` server fails, the adapter answers with an error and never with
//! *allowed*.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use openfga_client::client::{
    AuthorizationModel, BatchCheckRequest, CheckError, ListStoresRequest, ListStoresResponse,
    ReadAuthorizationModelsRequest, ReadAuthorizationModelsResponse, Store,
};
use ragward::authz::openfga::{OpenFgaAuthorizer, OpenFgaConfig, StoreSelector};
use ragward::authz::{Authorizer, AuthzError, Check, CheckBatch, Consistency, Decisions};
use ragward::language::{Object, Relation};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

use crate::support::batch_check_reply::{Decision, Entry, Reply};
use crate::support::faulty_server::{FaultyServer, Methods};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

/// Serves `BatchCheck`. `behaviour` gets the correlation ids of a call and makes the reply.
async fn serve<F>(behaviour: impl Fn(Vec<String>) -> F + Send + Sync + 'static) -> FaultyServer
where
    F: Future<Output = Result<Reply, Status>> + Send + 'static,
{
    let method = move |request: BatchCheckRequest| {
        behaviour(request.checks.into_iter().map(|check| check.correlation_id).collect())
    };
    Methods::default().on("/openfga.v1.OpenFGAService/BatchCheck", method).start().await
}

fn config(address: &str) -> OpenFgaConfig {
    let store = StoreSelector::Id("01JZZZZZZZZZZZZZZZZZZZZZZZ".to_owned());
    let authorization_model_id = Some("01JZZZZZZZZZZZZZZZZZZZZZZY".to_owned());
    OpenFgaConfig { authorization_model_id, timeout: LONG, ..OpenFgaConfig::new(address, store) }
}

type Rewrite = fn(&mut Vec<Entry>);
type Expected = fn(&AuthzError) -> bool;

fn batch(checks: usize, patience: Duration) -> CheckBatch {
    let check = |i| Check {
        user: Object::parse("user:anne").expect("a user"),
        relation: Relation::parse("can_read").expect("a relation"),
        object: Object::parse(&format!("document:{i}")).expect("an object"),
    };
    let checks = (0..checks).map(check).collect();
    CheckBatch {
        checks,
        contextual: std::sync::Arc::default(),
        consistency: Consistency::MinimizeLatency,
        deadline: Instant::now() + patience,
    }
}

fn entry(id: &str, allowed: bool) -> Entry {
    Entry { id: id.to_owned(), result: Some(Decision::of(allowed)) }
}

fn allowed(id: &str) -> Entry {
    entry(id, true)
}

fn denied(id: &str) -> Entry {
    entry(id, false)
}

fn item_error(id: &str, code: i32) -> Entry {
    item_error_saying(id, code, "failed")
}

fn item_error_saying(id: &str, code: i32, message: &str) -> Entry {
    Entry { id: id.to_owned(), result: Some(Decision::failed(code, message)) }
}

fn all_allowed(ids: &[String]) -> Vec<Entry> {
    ids.iter().map(|id| allowed(id)).collect()
}

async fn ask(server: &FaultyServer, batch: &CheckBatch) -> Result<Decisions, AuthzError> {
    OpenFgaAuthorizer::new(&config(&server.address)).expect("an authorizer").check(batch).await
}

#[tokio::test]
async fn a_right_answer_passes() {
    let server = serve(|ids| async move { Ok(Reply { results: all_allowed(&ids) }) }).await;
    let answers = ask(&server, &batch(120, LONG)).await.expect("decisions").list;
    assert_eq!(answers.len(), 120);
}

/// Each row rewrites the right answer to the last call of a batch of 120. The two calls before it are answered rightly.
#[tokio::test]
async fn one_wrong_answer_fails_the_batch() {
    let cases: [(&str, Rewrite); 15] = [
        ("nothing", |r| r.clear()),
        ("one too few", |r| r.truncate(19)),
        ("one too many", |r| r.push(allowed("120"))),
        ("one of another call", |r| r[0].id = "3".to_owned()),
        ("another call's as well", |r| r.push(allowed("3"))),
        ("one twice, agreeing", |r| r.push(allowed("119"))),
        ("one twice, disagreeing", |r| r.insert(0, denied("119"))),
        ("one twice in place of another", |r| r[0] = r[1].clone()),
        ("an id that was never asked", |r| r[0].id = "not-asked".to_owned()),
        ("an empty id", |r| r[0].id = String::new()),
        ("another spelling of an id", |r| r[0].id = format!("0{}", r[0].id)),
        ("no result", |r| r[0].result = None),
        ("neither decision nor error", |r| r[0].result = Some(Decision { allowed: None, error: None })),
        ("decision and error", |r| {
            r[0].result = Some(Decision { allowed: Some(true), error: Some(CheckError::default()) });
        }),
        ("an error without a code", |r| {
            r[0].result = Some(Decision { allowed: None, error: Some(CheckError::default()) });
        }),
    ];
    for (name, rewrite) in cases {
        let server = serve(move |ids| async move {
            let mut results = all_allowed(&ids);
            if ids.iter().any(|id| id == "119") {
                rewrite(&mut results);
            }
            Ok(Reply { results })
        });
        let answers = ask(&server.await, &batch(120, LONG)).await;
        assert!(matches!(answers, Err(AuthzError::BadAnswer(_))), "{name}: {answers:?}");
    }
}

#[tokio::test]
async fn an_item_error_fails_the_batch() {
    let cases: [(i32, Expected); 5] = [
        (0, |e| matches!(e, AuthzError::Refused(_))),
        (2_000, |e| matches!(e, AuthzError::Refused(_))),
        (2_027, |e| matches!(e, AuthzError::Refused(_))),
        (4_000, |e| matches!(e, AuthzError::Unavailable(_))),
        (4_004, |e| matches!(e, AuthzError::DeadlineExceeded)),
    ];
    for (code, expected) in cases {
        let server = serve(move |ids| async move {
            let result = |id: &String| if id == "119" { item_error(id, code) } else { allowed(id) };
            Ok(Reply { results: ids.iter().map(result).collect() })
        });
        let answers = ask(&server.await, &batch(120, LONG)).await;
        assert!(answers.as_ref().is_err_and(expected), "{code}: {answers:?}");
    }
}

/// An error about one object denies that object. An error about the request or the server fails the batch.
#[tokio::test]
async fn an_item_that_cannot_be_decided_is_denied_alone() {
    const FAILED: &str = "failed to evaluate relationship condition: 'at_work' - tuple 'document:119#viewer@user:*' is \
                          missing context parameters '[hour]'";
    let rows: [(i32, &str, bool); 8] = [
        (2_000, FAILED, true),
        (2_000, "invalid relation: relation 'document#can_read' not found", true),
        (2_002, "resolution depth exceeded", true),
        (2_000, "invalid context: context key \"a\" contains forbidden characters", false),
        (2_000, "throttled: context deadline exceeded", false),
        (2_027, FAILED, false),
        (4_000, FAILED, false),
        (4_004, FAILED, false),
    ];
    for (code, message, denied) in rows {
        let server = serve(move |ids| async move {
            let result = |id: &String| if id == "119" { item_error_saying(id, code, message) } else { allowed(id) };
            Ok(Reply { results: ids.iter().map(result).collect() })
        });
        let answers = ask(&server.await, &batch(120, LONG)).await;
        let Ok(answers) = answers else {
            assert!(!denied, "{code} {message}: {answers:?}");
            continue;
        };
        let list = answers.list;
        let not_allowed: Vec<usize> = list.iter().filter(|a| !a.allowed).map(|a| a.position).collect();
        assert_eq!((denied, list.len(), not_allowed), (true, 120, vec![119]), "{code} {message}");
    }
}

#[tokio::test]
async fn a_refused_call_fails_the_batch() {
    for code in 1..=17 {
        let code = Code::from_i32(code);
        let server = serve(move |ids| async move {
            let refuse = ids.iter().any(|id| id == "119");
            if refuse { Err(Status::new(code, "refused")) } else { Ok(Reply { results: all_allowed(&ids) }) }
        });
        let answers = ask(&server.await, &batch(120, LONG)).await;
        let unreached = matches!(&answers, Err(AuthzError::Unavailable(text)) if text != "refused");
        assert!(answers.is_err() && !unreached, "{code}: {answers:?}");
    }
}

#[tokio::test]
async fn a_hanging_call_ends_at_the_deadline() {
    let server = serve(|ids| async move {
        if ids.iter().any(|id| id == "119") {
            std::future::pending::<()>().await;
        }
        Ok(Reply { results: all_allowed(&ids) })
    });
    let server = server.await;
    let answers = ask(&server, &batch(120, SHORT)).await;
    assert!(matches!(answers, Err(AuthzError::DeadlineExceeded)), "the request's: {answers:?}");

    let impatient = OpenFgaConfig { timeout: SHORT, ..config(&server.address) };
    let authorizer = OpenFgaAuthorizer::new(&impatient).expect("an authorizer");
    let answers = authorizer.check(&batch(120, LONG)).await;
    assert!(matches!(answers, Err(AuthzError::DeadlineExceeded)), "the adapter's own: {answers:?}");

    let answers = ask(&server, &batch(1, Duration::ZERO)).await;
    assert!(matches!(answers, Err(AuthzError::DeadlineExceeded)), "already passed: {answers:?}");
}

/// The answer to an abandoned call arrives after the next call was made on the same connection.
#[tokio::test]
async fn a_late_answer_is_nobodys() {
    let (is_abandoned, arrived) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let late = Arc::new(Notify::new());
    let (abandons, arrivals, release) = (Arc::clone(&is_abandoned), Arc::clone(&arrived), Arc::clone(&late));
    let server = serve(move |ids| {
        let first = abandons.load(Ordering::SeqCst);
        arrivals.fetch_add(1, Ordering::SeqCst);
        let late = Arc::clone(&late);
        async move {
            if first {
                late.notified().await;
            } else {
                late.notify_one();
            }
            Ok(Reply { results: ids.iter().map(|id| entry(id, first)).collect() })
        }
    });
    let server = server.await;
    let authorizer = OpenFgaAuthorizer::new(&config(&server.address)).expect("an authorizer");
    // A busy machine may give up a call before it has reached the server.
    let abandoning = async {
        while arrived.load(Ordering::SeqCst) == 0 {
            let abandoned = authorizer.check(&batch(1, SHORT)).await;
            assert!(matches!(abandoned, Err(AuthzError::DeadlineExceeded)), "{abandoned:?}");
        }
    };
    timeout(LONG, abandoning).await.expect("a call reaches the server");
    is_abandoned.store(false, Ordering::SeqCst);
    release.notify_one();
    let answers = authorizer.check(&batch(1, LONG)).await.expect("a decision").list;
    let decided: Vec<(usize, bool)> = answers.iter().map(|answer| (answer.position, answer.allowed)).collect();
    assert_eq!(decided, [(0, false)]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_out_of_reach() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("its address"));
    let authorizer = OpenFgaAuthorizer::new(&config(&address)).expect("an authorizer");
    let hanging_up = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let answers = authorizer.check(&batch(3, LONG)).await;
    assert!(matches!(answers, Err(AuthzError::Unavailable(_))), "hangs up: {answers:?}");
    hanging_up.abort();
    assert!(hanging_up.await.is_err_and(|e| e.is_cancelled()));
    let answers = authorizer.check(&batch(3, LONG)).await;
    assert!(matches!(answers, Err(AuthzError::Unavailable(_))), "refuses the connection: {answers:?}");
}

/// Starts a peer that speaks HTTP/2 by hand: it greets, waits for the request, sends `after`, and closes the
/// connection.
async fn break_off(after: &'static [u8]) -> (String, tokio::task::JoinHandle<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("its address"));
    let serving = tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let talk = async {
                peer.write_all(SETTINGS).await?;
                let mut preface = [0; 24];
                peer.read_exact(&mut preface).await?;
                loop {
                    let mut head = [0; 9];
                    peer.read_exact(&mut head).await?;
                    let [a, b, c, kind, ..] = head;
                    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
                    peer.read_exact(&mut payload).await?;
                    if kind == HEADERS {
                        break;
                    }
                }
                peer.write_all(after).await?;
                peer.shutdown().await
            };
            // The client may close the connection first.
            drop(talk.await);
        }
    });
    (address, serving)
}

#[tokio::test]
async fn a_connection_that_breaks_is_no_refusal() {
    let rows: [(&str, &[u8]); 10] = [
        ("closed, as by a killed server", &[]),
        ("half a frame", &[0, 0, 9, 0]),
        ("nonsense", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("GOAWAY", &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("the stream reset, no error", &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 0]),
        ("the stream reset, cancelled", &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8]),
        ("the stream reset, as insecure", &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 12]),
        ("the stream reset, unknown code", &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 99]),
        ("an answer without a status", &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88]),
        ("a page that is not there", &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x8d]),
    ];
    for (what, after) in rows {
        let (address, serving) = break_off(after).await;
        let authorizer = OpenFgaAuthorizer::new(&config(&address)).expect("an authorizer");
        let error = authorizer.check(&batch(1, LONG)).await.expect_err(what);
        assert!(matches!(error, AuthzError::Unavailable(_)), "{what}: {error:?}");
        let error = authorizer.readiness().await.expect_err(what);
        assert!(matches!(error, AuthzError::Unavailable(_)), "{what}, readiness: {error:?}");
        serving.abort();
    }
}

/// A question about readiness asks a known store for its latest model. A deleted store still answers that. So the
/// question must not postpone the moment at which the store is looked up by its name again.
#[tokio::test]
async fn readiness_does_not_keep_a_store_that_lost_its_name() {
    // Shorter than the time for which a store is used, which is 5 s; twice this is longer.
    const STEP: Duration = Duration::from_secs(3);
    async fn later() {
        tokio::time::pause();
        tokio::time::advance(STEP).await;
        tokio::time::resume();
    }
    let is_remade = Arc::new(AtomicBool::new(false));
    let named = Arc::clone(&is_remade);
    let list_stores = move |_: ListStoresRequest| {
        let id = if named.load(Ordering::SeqCst) { "new" } else { "old" };
        let stores = vec![Store { id: id.to_owned(), name: "handbook".to_owned(), ..Store::default() }];
        std::future::ready(Ok(ListStoresResponse { stores, ..ListStoresResponse::default() }))
    };
    let read_models = |request: ReadAuthorizationModelsRequest| {
        let model =
            AuthorizationModel { id: format!("model of {}", request.store_id), ..AuthorizationModel::default() };
        let authorization_models = vec![model];
        let models = ReadAuthorizationModelsResponse { authorization_models, continuation_token: String::new() };
        std::future::ready(Ok(models))
    };
    let batch_check = |request: BatchCheckRequest| {
        let results = request.checks.iter().map(|check| entry(&check.correlation_id, true)).collect();
        std::future::ready(Ok(Reply { results }))
    };
    let server = Methods::default()
        .on("/openfga.v1.OpenFGAService/ListStores", list_stores)
        .on("/openfga.v1.OpenFGAService/ReadAuthorizationModels", read_models)
        .on("/openfga.v1.OpenFGAService/BatchCheck", batch_check);
    let server = server.start().await;
    let store = StoreSelector::Name("handbook".to_owned());
    let config = OpenFgaConfig { timeout: LONG, ..OpenFgaConfig::new(&server.address, store) };
    let authorizer = OpenFgaAuthorizer::new(&config).expect("an authorizer");
    let decided_by = async || authorizer.check(&batch(1, LONG)).await.expect("a decision").by.model_id;
    assert_eq!(*decided_by().await, *"model of old");
    is_remade.store(true, Ordering::SeqCst);
    later().await;
    assert_eq!(*authorizer.readiness().await.expect("a model"), *"model of old");
    later().await;
    assert_eq!(*decided_by().await, *"model of new");
}
