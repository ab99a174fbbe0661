//! Equal questions share an answer, and others do not.

use futures::future::poll_immediate;
use tokio::sync::Notify;

use super::*;
use crate::authz::decider::Basis;
use crate::authz::decider::doubles::{Script, Scripted, basis, decided, of, questions};

const CALL_TIMEOUT: Duration = Duration::from_secs(3);

fn coalesced(server: &Arc<Scripted>) -> CoalescedDecider {
    CoalescedDecider::new(Arc::clone(server) as _, CALL_TIMEOUT)
}

fn in_flight(coalesced: &CoalescedDecider) -> usize {
    coalesced.flights.lock().expect("a lock").in_flight.len()
}

#[tokio::test(start_paused = true)]
async fn equal_questions_in_flight_share_an_answer() {
    let gate = Arc::new(Notify::new());
    let server = Arc::new(Scripted::new(vec![Script::Hold(Arc::clone(&gate))]));
    let coalesced = coalesced(&server);
    let (first, second, third) = (questions(4), of("user:anne", [3, 9, 3, 9, 0]), of("user:bob", [0]));
    let mut one = Box::pin(coalesced.decide(&first));
    assert!(poll_immediate(&mut one).await.is_none());
    let mut two = Box::pin(coalesced.decide(&second));
    assert!(poll_immediate(&mut two).await.is_none());
    let three = coalesced.decide(&third).await.expect("decisions");
    assert_eq!(decided(1, three), [true]);
    gate.notify_one();
    assert_eq!(decided(4, one.await.expect("decisions")), [true, false, true, false]);
    assert_eq!(decided(5, two.await.expect("decisions")), [false, false, false, false, true]);
    let asked: Vec<usize> = server.asked().iter().map(|questions| questions.list.len()).collect();
    assert_eq!(asked, [4, 1, 1], "9 is asked once, and bob's is another question");
    assert_eq!(in_flight(&coalesced), 0);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_takes_nobody_along() {
    let gate = Arc::new(Notify::new());
    let server = Arc::new(Scripted::new(vec![Script::Hold(Arc::clone(&gate))]));
    let coalesced = coalesced(&server);
    let ask = questions(2);
    let mut owner = Box::pin(coalesced.decide(&ask));
    assert!(poll_immediate(&mut owner).await.is_none());
    let mut other = Box::pin(coalesced.decide(&ask));
    assert!(poll_immediate(&mut other).await.is_none());
    drop(owner);
    gate.notify_one();
    assert_eq!(decided(2, other.await.expect("decisions")), [true, false]);
    assert_eq!(server.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flight_ends_with_the_last_who_waits() {
    let server = Arc::new(Scripted::new(vec![Script::Hang, Script::Hang]));
    let coalesced = coalesced(&server);
    let impatient = Questions { deadline: Instant::now() + Duration::from_millis(10), ..questions(2) };
    let (one, two) = tokio::join!(coalesced.decide(&impatient), coalesced.decide(&impatient));
    assert!(matches!((&one, &two), (Err(AuthzError::DeadlineExceeded), Err(AuthzError::DeadlineExceeded))));
    assert_eq!((server.calls(), in_flight(&coalesced)), (1, 0));
    // A flight that hangs holds up nobody who comes later.
    let ask = questions(2);
    let mut hanging = Box::pin(coalesced.decide(&ask));
    assert!(poll_immediate(&mut hanging).await.is_none());
    drop(hanging);
    assert_eq!(decided(2, coalesced.decide(&questions(2)).await.expect("decisions")), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_flight_outlasts_the_deadline_of_who_began_it() {
    let gate = Arc::new(Notify::new());
    let server = Arc::new(Scripted::new(vec![Script::Hold(Arc::clone(&gate))]));
    let coalesced = coalesced(&server);
    let impatient = Questions { deadline: Instant::now() + Duration::from_millis(10), ..questions(1) };
    let patient = questions(1);
    let release = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.notify_one();
    };
    let (late, right, ()) = tokio::join!(coalesced.decide(&impatient), coalesced.decide(&patient), release);
    assert!(matches!(late, Err(AuthzError::DeadlineExceeded)), "{late:?}");
    assert_eq!(decided(1, right.expect("decisions")), [true]);
    assert_eq!(server.asked()[0].deadline, impatient.deadline - Duration::from_millis(10) + CALL_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_an_error_for_all_and_is_not_kept() {
    let fail = Script::Fail(AuthzError::Unavailable("down".to_owned()));
    let server = Arc::new(Scripted::new(vec![fail]));
    let coalesced = coalesced(&server);
    let (ask, also) = (questions(1), questions(2));
    let (one, two) = tokio::join!(coalesced.decide(&ask), coalesced.decide(&also));
    let failed = |answers: Result<Vec<NumberedOutcome>, AuthzError>| {
        answers.expect("outcomes").iter().filter(|answered| matches!(answered.outcome, Outcome::Failed(_))).count()
    };
    // One question is in both requests. The other one was asked in a call of its own.
    assert_eq!((failed(one), failed(two)), (1, 1));
    assert_eq!(decided(2, coalesced.decide(&also).await.expect("decisions")), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_shared_across_generations_or_for_higher_consistency() {
    let server = Arc::new(Scripted::new(vec![Script::Hang]));
    let coalesced = coalesced(&server);
    let before = questions(1);
    let mut hanging = Box::pin(coalesced.decide(&before));
    assert!(poll_immediate(&mut hanging).await.is_none());
    let bases = [
        Basis { generation: 1, ..basis() },
        Basis { consistency: Consistency::HigherConsistency, ..basis() },
        Basis { model_id: "other".to_owned(), ..basis() },
        Basis { store_id: "other".to_owned(), ..basis() },
    ];
    for basis in bases {
        let other = Questions { basis: Arc::new(basis), ..questions(1) };
        assert_eq!(decided(1, coalesced.decide(&other).await.expect("decisions")), [true], "{:?}", other.basis);
    }
    assert_eq!(server.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_flight_with_an_earlier_deadline_is_no_failure_of_others() {
    let overloaded = || AuthzError::Overloaded { retry_after: Duration::from_millis(100) };
    let rows = [
        ("late", AuthzError::DeadlineExceeded, true),
        ("turned away", overloaded(), true),
        ("down", AuthzError::NoModel, false),
    ];
    for (name, error, is_asked_again) in rows {
        let server = Arc::new(Scripted::new(vec![Script::Fail(error), Script::Answer]));
        let coalesced = coalesced(&server);
        let ask = questions(1);
        let (own, joined) = tokio::join!(coalesced.decide(&ask), coalesced.decide(&ask));
        let joined = accounted(1, joined.expect("outcomes")).expect("1");
        let is_decided = joined.iter().all(|outcome| matches!(outcome, Outcome::Decided { .. }));
        assert_eq!(
            (is_decided, server.calls()),
            (is_asked_again, 1 + usize::from(is_asked_again)),
            "{name}: {joined:?}"
        );
        let own = accounted(1, own.expect("outcomes")).expect("1");
        assert!(
            own.iter().all(|outcome| matches!(outcome, Outcome::Failed(_))),
            "{name}: its own flight is not repeated"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_has_the_time_of_its_request() {
    for (seconds, flight) in [(1, 3), (10, 10)] {
        let server = Arc::new(Scripted::new(Vec::new()));
        let ask = Questions { deadline: Instant::now() + Duration::from_secs(seconds), ..questions(1) };
        coalesced(&server).decide(&ask).await.expect("decisions");
        let deadline = server.asked()[0].deadline;
        assert_eq!(deadline - Instant::now(), Duration::from_secs(flight), "a request of {seconds} s");
    }
}
