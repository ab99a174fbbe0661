//! Checks are gathered into calls, and turned away when there are too many.

use tokio::sync::Notify;

use super::*;
use crate::authz::Consistency;
use crate::authz::decider::doubles::{Script, Scripted, basis, decided, of, questions};
use crate::language::RelationshipTuple;

fn many_at_a_time() -> ChecksConfig {
    ChecksConfig { calls_in_flight_max: 32, checks_waiting_max: 20_000, ..ChecksConfig::default() }
}

fn one_at_a_time() -> ChecksConfig {
    ChecksConfig { calls_in_flight_max: 1, ..many_at_a_time() }
}

/// Gathers questions into calls of at most 50 checks and 3 s.
fn over(inner: Arc<dyn Decider>, checks: &ChecksConfig) -> Arc<BatchedDecider> {
    let openfga = OpenFgaConfig { checks_per_call: 50, timeout: Duration::from_secs(3), ..OpenFgaConfig::default() };
    Arc::new(BatchedDecider::new(inner, &openfga, checks))
}

fn batched(server: &Arc<Scripted>, checks: &ChecksConfig) -> Arc<BatchedDecider> {
    over(Arc::clone(server) as _, checks)
}

fn spawn(
    batched: &Arc<BatchedDecider>,
    questions: Questions,
) -> tokio::task::JoinHandle<Result<Vec<NumberedOutcome>, AuthzError>> {
    let batched = Arc::clone(batched);
    tokio::spawn(async move { batched.decide(&questions).await })
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_check_goes_at_once() {
    let server = Arc::new(Scripted::new(Vec::new()));
    let before = Instant::now();
    let answers = batched(&server, &many_at_a_time()).decide(&questions(1)).await.expect("decisions");
    assert_eq!((decided(1, answers), before.elapsed()), (vec![true], Duration::ZERO));
    assert!(batched(&server, &many_at_a_time()).decide(&questions(0)).await.expect("nothing").is_empty());
}

#[tokio::test(start_paused = true)]
async fn batches_of_any_size_are_answered_rightly() {
    for size in [1_u64, 2, 49, 50, 51, 99, 100, 101, 4_999] {
        let server = Arc::new(Scripted::new(Vec::new()));
        let asked = Questions { list: questions(size).list, ..questions(1) };
        let answers = batched(&server, &many_at_a_time()).decide(&asked).await.expect("decisions");
        let expected: Vec<bool> = (0..size).map(|object| object % 2 == 0).collect();
        assert_eq!(decided(asked.list.len(), answers), expected, "{size}");
        let calls = server.asked();
        assert!(calls.iter().all(|call| call.list.len() <= 50), "{size}");
        assert_eq!(calls.len(), asked.list.len().div_ceil(50), "{size}: full calls");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_meanwhile_shares_full_calls() {
    let gate = Arc::new(Notify::new());
    let server = Arc::new(Scripted::new(vec![Script::Hold(Arc::clone(&gate))]));
    let batched = batched(&server, &one_at_a_time());
    let first = spawn(&batched, questions(1));
    settle().await;
    let others: Vec<_> = (0..20).map(|user| spawn(&batched, of(&format!("user:{user}"), 0..5))).collect();
    settle().await;
    gate.notify_one();
    assert_eq!(decided(1, first.await.expect("a task").expect("decisions")), [true]);
    for other in others {
        let answers = other.await.expect("a task").expect("decisions");
        assert_eq!(decided(5, answers), [true, false, true, false, true]);
    }
    let calls: Vec<usize> = server.asked().iter().map(|call| call.list.len()).collect();
    assert_eq!(calls, [1, 50, 50]);
}

#[tokio::test(start_paused = true)]
async fn what_differs_in_freshness_or_model_shares_no_call() {
    let gate = Arc::new(Notify::new());
    let server = Arc::new(Scripted::new(vec![Script::Hold(Arc::clone(&gate))]));
    let batched = batched(&server, &one_at_a_time());
    let bases = [
        basis(),
        Basis { consistency: Consistency::HigherConsistency, ..basis() },
        Basis { model_id: "other".to_owned(), ..basis() },
    ];
    let first = spawn(&batched, questions(1));
    settle().await;
    let others = bases.clone().map(|basis| spawn(&batched, Questions { basis: Arc::new(basis), ..questions(3) }));
    settle().await;
    gate.notify_one();
    assert!(first.await.expect("a task").is_ok());
    for other in others {
        assert_eq!(decided(3, other.await.expect("a task").expect("decisions")), [true, false, true]);
    }
    let asked: Vec<Basis> = server.asked().iter().skip(1).map(|call| Basis::clone(&call.basis)).collect();
    assert_eq!(asked, bases);
}

/// A server with a limit on the checks of one call, which it states rightly or wrongly.
struct Limited {
    checks_max: usize,
    says: Option<usize>,
    calls: Mutex<Vec<usize>>,
}

#[async_trait]
impl Decider for Limited {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        self.calls.lock().expect("a lock").push(questions.list.len());
        if questions.list.len() > self.checks_max {
            return Err(AuthzError::TooManyChecks { checks_max: self.says });
        }
        Scripted::new(Vec::new()).decide(questions).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_servers_limit_is_learned_and_its_lies_do_no_harm() {
    let rows = [
        (20, Some(20), true),
        (25, None, true),
        (49, Some(49), true),
        (1, Some(1), true),
        // This server takes fewer checks than it says, or none at all. That must be an error, not a loop.
        (10, Some(49), false),
        (0, Some(50), false),
        (0, Some(0), false),
        (0, Some(usize::MAX), false),
        (0, None, false),
    ];
    for (checks_max, says, answered) in rows {
        let server = Arc::new(Limited { checks_max, says, calls: Mutex::default() });
        let batched = over(Arc::clone(&server) as _, &one_at_a_time());
        let outcomes = accounted(120, batched.decide(&questions(120)).await.expect("outcomes")).expect("120");
        let failed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Failed(_))).count();
        assert_eq!(failed == 0, answered, "{checks_max}, says {says:?}: {failed} failed");
        let calls = server.calls.lock().expect("a lock").clone();
        assert!(calls.len() <= 1 + 3 * 120, "{calls:?}");
        if answered && says.is_some() {
            assert!(calls.iter().skip(1).all(|call| *call <= checks_max), "{says:?}: {calls:?}");
        }
    }
}

/// Refuses every call that holds a question of Eve's.
struct Poisoned;

#[async_trait]
impl Decider for Poisoned {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if questions.list.iter().any(|question| question.check.user.id() == "eve") {
            return Err(AuthzError::Refused("eve's tuple is no tuple".to_owned()));
        }
        Scripted::new(Vec::new()).decide(questions).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_one_request_fails_that_one_alone() {
    let batched = over(Arc::new(Poisoned), &one_at_a_time());
    let users = ["user:anne", "user:bob", "user:eve", "user:carl"];
    let asking = users.map(|user| spawn(&batched, of(user, 0..10)));
    for (user, asking) in users.into_iter().zip(asking) {
        let outcomes = accounted(10, asking.await.expect("a task").expect("outcomes")).expect("10");
        let failed =
            outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Failed(AuthzError::Refused(_)))).count();
        assert_eq!(failed, if user == "user:eve" { 10 } else { 0 }, "{user}");
    }
}

/// Refuses messages of more than this many bytes.
struct SmallMessages {
    bytes_max: usize,
    calls: Mutex<Vec<bool>>,
}

#[async_trait]
impl Decider for SmallMessages {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let bytes: usize = questions.list.iter().map(|question| 50 + question.contextual.wire_bytes()).sum();
        self.calls.lock().expect("a lock").push(bytes <= self.bytes_max);
        if bytes > self.bytes_max {
            return Err(AuthzError::MessageTooLarge(format!("{bytes} vs. {}", self.bytes_max)));
        }
        Scripted::new(Vec::new()).decide(questions).await
    }
}

#[tokio::test(start_paused = true)]
async fn long_claims_of_one_user_are_no_trouble_of_others() {
    let group = |number| format!("group:{number:0>105}");
    let claim = |number| RelationshipTuple::parse("user:long", "member", &group(number)).expect("a tuple");
    let contextual = Arc::new(Contextual { tuples: (0..100).map(claim).collect(), ..Contextual::default() });
    // The bytes that the server takes, whether the user with long claims is answered, and whether no call is refused.
    let rows = [(616_448, true, true), (100_000, true, false), (5_000, false, false)];
    for (bytes_max, answered, at_once) in rows {
        let server = Arc::new(SmallMessages { bytes_max, calls: Mutex::default() });
        let batched = over(Arc::clone(&server) as _, &one_at_a_time());
        let mut long = of("user:long", 0..120);
        for question in &mut long.list {
            question.contextual = Arc::clone(&contextual);
        }
        let users = ["user:anne", "user:bob"];
        let long = spawn(&batched, long);
        let others = users.map(|user| spawn(&batched, of(user, 0..40)));
        for other in others {
            assert_eq!(decided(40, other.await.expect("a task").expect("decisions")).len(), 40, "{bytes_max}");
        }
        let outcomes = accounted(120, long.await.expect("a task").expect("outcomes")).expect("120");
        let failed = outcomes.iter().filter(|o| matches!(o, Outcome::Failed(AuthzError::MessageTooLarge(_)))).count();
        assert_eq!(failed, if answered { 0 } else { 120 }, "{bytes_max}: {outcomes:?}");
        let calls = server.calls.lock().expect("a lock").clone();
        assert_eq!(calls.iter().all(|fits| *fits), at_once, "{bytes_max}: {calls:?}");
        assert!(calls.len() <= 2 * 200, "{bytes_max}: {} calls", calls.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_fails_only_those_in_it() {
    let down = Script::Fail(AuthzError::Unavailable("down".to_owned()));
    let server = Arc::new(Scripted::new(vec![Script::Answer, down]));
    let batched = batched(&server, &one_at_a_time());
    let outcomes = accounted(120, batched.decide(&questions(120)).await.expect("outcomes")).expect("120");
    let failed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Failed(AuthzError::Unavailable(_))));
    assert_eq!(failed.count(), 50);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_past_the_deadline_and_nothing_goes_on() {
    let server = Arc::new(Scripted::failing(AuthzError::NoModel));
    let hanging = Arc::new(Scripted::new(vec![Script::Hang; 100]));
    let batched = self::batched(&hanging, &one_at_a_time());
    let impatient = Questions { deadline: Instant::now() + Duration::from_millis(20), ..questions(60) };
    let before = Instant::now();
    assert!(matches!(batched.decide(&impatient).await, Err(AuthzError::DeadlineExceeded)));
    assert_eq!(before.elapsed(), Duration::from_millis(20));
    settle().await;
    let calls_in_flight = batched.shared.lock().calls_in_flight;
    assert_eq!((calls_in_flight, hanging.calls()), (0, 1), "what nobody waits for is not asked");

    // This request is cancelled; it is not late.
    let cancelled = spawn(&batched, questions(60));
    settle().await;
    assert_eq!(batched.shared.lock().calls_in_flight, 1);
    cancelled.abort();
    assert!(cancelled.await.is_err());
    settle().await;
    assert_eq!(batched.shared.lock().calls_in_flight, 0);
    assert_eq!(server.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_principal_with_ten_thousand_requests_does_not_shut_others_out() {
    let gate = Arc::new(Notify::new());
    let server = Arc::new(Scripted::new(vec![Script::Hold(Arc::clone(&gate))]));
    let batched = batched(&server, &one_at_a_time());
    let first = spawn(&batched, questions(1));
    settle().await;
    let greedy: Vec<_> = (0..10_000).map(|request| spawn(&batched, of("user:greedy", [request]))).collect();
    settle().await;
    let modest = spawn(&batched, of("user:modest", 0..5));
    settle().await;
    gate.notify_one();
    assert!(first.await.expect("a task").is_ok());
    assert_eq!(decided(5, modest.await.expect("a task").expect("decisions")).len(), 5);
    let calls = server.asked();
    let modest_call = calls.iter().position(|call| call.list.iter().any(|q| q.check.user.id() == "modest"));
    assert_eq!(modest_call, Some(1), "in the next call");
    for asking in greedy {
        assert_eq!(asking.await.expect("a task").expect("decisions").len(), 1, "alone, it is never turned away");
    }
    assert!(batched.shared.lock().outside.is_empty());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_principals_are_answered_or_turned_away() {
    let gate = Arc::new(Notify::new());
    let server = Arc::new(Scripted::new(vec![Script::Hold(Arc::clone(&gate))]));
    let batched = batched(&server, &one_at_a_time());
    let first = spawn(&batched, questions(1));
    settle().await;
    let asking: Vec<_> = (0..10_000).map(|user| spawn(&batched, of(&format!("user:{user}"), 0..4))).collect();
    settle().await;
    gate.notify_one();
    assert!(first.await.expect("a task").is_ok());
    let mut answered = 0;
    for asking in asking {
        match asking.await.expect("a task") {
            Ok(answers) => {
                assert_eq!(decided(4, answers), [true, false, true, false]);
                answered += 1;
            }
            Err(error) => assert!(matches!(error, AuthzError::Overloaded { .. }), "{error}"),
        }
    }
    assert_eq!(answered, 5_000, "as many as may wait");
    assert_eq!(batched.shared.lock().queue.len(), 0);
}

/// Works on a few calls at a time, each for a second.
struct Slow {
    cores: tokio::sync::Semaphore,
}

impl Slow {
    fn with_cores(cores: usize) -> Arc<Self> {
        Arc::new(Self { cores: tokio::sync::Semaphore::new(cores) })
    }
}

#[async_trait]
impl Decider for Slow {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        let _core = self.cores.acquire().await.expect("never closed");
        tokio::time::sleep(Duration::from_secs(1)).await;
        Scripted::new(Vec::new()).decide(questions).await
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_answered_in_time_is_told_at_once() {
    // A patient caller has 1,000 checks waiting, and a call of 50 checks leaves every second. Principals take turns, so
    // each call holds 25 checks of each.
    let rows = [
        ("one check: in the next call", 1, 10, true),
        ("200 checks in 8 s", 200, 10, true),
        ("300 checks in 12 s", 300, 10, false),
        ("300 checks in 12 s, with more patience", 300, 15, true),
    ];
    for (name, checks, seconds, answered) in rows {
        let batched = over(Slow::with_cores(1), &one_at_a_time());
        assert!(batched.decide(&questions(50)).await.is_ok(), "{name}");
        let patient = Questions { deadline: Instant::now() + Duration::from_mins(1), ..questions(1_000) };
        let patient = spawn(&batched, patient);
        settle().await;
        let before = Instant::now();
        let short = Questions { deadline: before + Duration::from_secs(seconds), ..of("user:late", 0..checks) };
        let outcome = batched.decide(&short).await;
        if answered {
            assert!(outcome.is_ok(), "{name}: {outcome:?}");
        } else {
            assert!(matches!(outcome, Err(AuthzError::Overloaded { .. })), "{name}: {outcome:?}");
            assert_eq!(before.elapsed(), Duration::ZERO, "{name}");
        }
        assert!(patient.await.expect("a task").is_ok(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_caller_is_never_turned_away() {
    // The latest calls took so long that the estimate is past the deadline. Nobody else waits, so the checks are asked all the
    // same: either they are answered in time, or the caller's own deadline ends them.
    let gate = Arc::new(Notify::new());
    let server = Arc::new(Scripted::new(vec![Script::Hold(Arc::clone(&gate))]));
    let batched = batched(&server, &one_at_a_time());
    let slow = spawn(&batched, of("user:bob", 0..50));
    settle().await;
    tokio::time::advance(Duration::from_millis(2_900)).await;
    gate.notify_one();
    assert!(slow.await.expect("a task").is_ok());
    for round in 0..3 {
        let short = Questions { deadline: Instant::now() + Duration::from_secs(2), ..questions(800) };
        let answers = batched.decide(&short).await;
        assert_eq!(decided(800, answers.expect("decisions")).len(), 800, "round {round}");
    }
    // One caller has ten requests of sixteen portions each, which is more than its share of the queue.
    let asking: Vec<_> = (0..160).map(|_| spawn(&batched, questions(50))).collect();
    for asking in asking {
        assert!(asking.await.expect("a task").is_ok());
    }
    assert!(batched.shared.lock().outside.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_leaves_at_its_deadline() {
    let hanging = Arc::new(Scripted::new(vec![Script::Hang; 10_000]));
    let checks = ChecksConfig { checks_waiting_max: 400, ..one_at_a_time() };
    let batched = batched(&hanging, &checks);
    let before = Instant::now();
    let asking: Vec<_> = (0..10).map(|_| spawn(&batched, questions(50))).collect();
    for asking in asking {
        let outcome = asking.await.expect("a task").map(|answers| accounted(50, answers).expect("50"));
        let is_late = match &outcome {
            Err(AuthzError::DeadlineExceeded) => true,
            Ok(outcomes) => outcomes.iter().all(|o| matches!(o, Outcome::Failed(AuthzError::DeadlineExceeded))),
            Err(_) => false,
        };
        assert!(is_late, "{outcome:?}");
    }
    assert_eq!(before.elapsed(), Duration::from_secs(10));
    assert!(batched.shared.lock().outside.is_empty());
}

/// One caller asks sixteen times as much as all others, past the server's caches, and the others still get their answers.
#[tokio::test(start_paused = true)]
async fn one_caller_with_much_fails_none_of_the_others() {
    let batched = over(Slow::with_cores(2), &many_at_a_time());
    let fresh = Arc::new(Basis { consistency: Consistency::HigherConsistency, ..basis() });
    let greedy: Vec<_> = (0..16)
        .map(|_| {
            let (batched, fresh) = (Arc::clone(&batched), Arc::clone(&fresh));
            tokio::spawn(async move {
                for _ in 0..5 {
                    let much = Questions { basis: Arc::clone(&fresh), ..of("user:greedy", 0..500) };
                    // This caller may be turned away.
                    batched.decide(&much).await.map(|answers| answers.len()).unwrap_or_default();
                }
            })
        })
        .collect();
    settle().await;
    let others: Vec<_> = (0..10)
        .map(|user| {
            let batched = Arc::clone(&batched);
            tokio::spawn(async move {
                for _ in 0..5 {
                    let answers = batched.decide(&of(&format!("user:{user}"), 0..10)).await;
                    let outcomes = accounted(10, answers.expect("not turned away")).expect("10");
                    assert!(outcomes.iter().all(|o| matches!(o, Outcome::Decided { .. })), "{user}: {outcomes:?}");
                }
            })
        })
        .collect();
    for other in others {
        other.await.expect("a task");
    }
    for greedy in greedy {
        greedy.await.expect("a task");
    }
}

/// Takes this long for each check of a call.
struct ByTheCheck(Duration);

#[async_trait]
impl Decider for ByTheCheck {
    async fn decide(&self, questions: &Questions) -> Result<Vec<NumberedOutcome>, AuthzError> {
        tokio::time::sleep(self.0 * u32::try_from(questions.list.len()).expect("few")).await;
        Scripted::new(Vec::new()).decide(questions).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_asked_again_in_halves() {
    // A call may take 3 s, and the request has 10 s.
    let rows = [
        ("in time as a whole", 50, 59, 50),
        ("in time in two halves: 3 + 2.5 + 2.5 s", 50, 100, 50),
        ("never: one check takes too long", 1, 3_100, 0),
        ("never: two checks, each in a call of its own", 2, 3_100, 0),
    ];
    for (name, checks, each_ms, decided) in rows {
        let server = Arc::new(ByTheCheck(Duration::from_millis(each_ms)));
        let batched = over(server as _, &many_at_a_time());
        let count = usize::try_from(checks).expect("few");
        let outcomes = accounted(count, batched.decide(&questions(checks)).await.expect("outcomes")).expect(name);
        let answered = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Decided { .. })).count();
        assert_eq!(answered, decided, "{name}: {outcomes:?}");
    }
}
