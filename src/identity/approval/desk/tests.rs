//! Tests who may be asked, when an issuer is asked, and what the desk remembers.

use super::*;
use crate::identity::approvable::Action;

const NOW: u64 = 1_800_000_000;
const LATER: u64 = NOW + 300;

fn asker(subject: &str, client_id: &str) -> Asker {
    Asker {
        issuer: "https://login.example".to_owned(),
        subject: subject.to_owned(),
        client_id: client_id.to_owned(),
        actors: Vec::new(),
    }
}

fn request(encoded: &[u8]) -> ApprovableRequest {
    ApprovableRequest {
        words: None,
        action: Action::Retrieve,
        collection: "handbook".to_owned(),
        classification_max: None,
        chunks_max: 5,
        encoded: encoded.to_vec(),
        page_token: None,
    }
}

/// Returns the approval of a question of Anne, whose nonce and id these are.
fn open(nonce: &str, question: &str) -> OpenApproval {
    OpenApproval {
        asker: asker("anne", "a"),
        nonce: nonce.to_owned(),
        request_sha256: "0".repeat(64),
        chunks_max: 5,
        question: question.to_owned(),
        interval: 5,
        expires_at: LATER,
    }
}

fn told(sealed: &str) -> Told {
    let (sealed, request_sha256) = (sealed.to_owned(), "digest".to_owned());
    Told { sealed, request_sha256, code: "code".to_owned(), expires_at: LATER, interval: 5 }
}

/// Asks a hundred times, and counts the rings.
fn rings(desk: &mut Desk, asker: &Asker, now: u64) -> usize {
    (0..100_u8).filter(|number| desk.ring(asker, &request(&[*number]), now + 300, now) == Ring::Now).count()
}

#[test]
fn a_hundred_requests_ring_few_times() {
    let (mut desk, anne) = (Desk::default(), asker("anne", "a"));
    assert_eq!(rings(&mut desk, &anne, NOW), OPEN_MAX, "at once");
    let in_a_day: usize = (1..100).map(|round| rings(&mut desk, &anne, NOW + round * 300)).sum();
    assert_eq!(OPEN_MAX + in_a_day, RINGS_MAX, "within a day");
    assert_eq!(rings(&mut desk, &anne, NOW + DAY_SECONDS + 300), OPEN_MAX, "the next day");
}

#[test]
fn one_agent_does_not_block_another() {
    let (mut desk, a, b) = (Desk::default(), asker("anne", "a"), asker("anne", "b"));
    for round in 0..100 {
        rings(&mut desk, &a, NOW + round * 300);
    }
    assert!(rings(&mut desk, &b, NOW + 100 * 300) > 0, "the other one may ask");
    desk.ended(&open("n", "q"), "sealed", Outcome::Denied, NOW + 100 * 300);
    assert!(desk.agents[&b].paused_until == 0, "the pause is that of the one who was denied");
}

#[test]
fn the_history_of_a_token_makes_no_other_agent() {
    let (mut desk, anne) = (Desk::default(), asker("anne", "a"));
    let through = |earlier: u64| {
        let actors = vec!["agent:a".to_owned(), format!("agent:{earlier}")];
        Asker { actors, ..anne.clone() }
    };
    let at_once: usize = (0..10).map(|earlier| rings(&mut desk, &through(earlier), NOW)).sum();
    assert_eq!(at_once, OPEN_MAX, "at once");
    let in_a_day: usize = (1..100).map(|round| rings(&mut desk, &through(round), NOW + round * 300)).sum();
    assert_eq!(OPEN_MAX + in_a_day, RINGS_MAX, "within a day");
    let now = NOW + 100 * 300;
    let other = Asker { actors: vec!["agent:b".to_owned(), "agent:a".to_owned()], ..anne.clone() };
    assert_eq!(desk.ring(&other, &request(b"this"), now + 300, now), Ring::Now, "another agent may ask");
    desk.told(&other, b"this", &Told { expires_at: now + 300, ..told("sealed") });
    let joining = Asker { actors: vec!["agent:b".to_owned()], ..anne };
    assert_eq!(desk.ring(&joining, &request(b"this"), now + 300, now), Ring::Now, "it cannot use that approval");
    desk.ended(&OpenApproval { asker: other, ..open("n", "q") }, "sealed", Outcome::Denied, now);
    let after_a_no = desk.ring(&joining, &request(b"that"), now + 300, now);
    assert_eq!(after_a_no, Ring::Later(PAUSE_SECONDS), "the pause is that of the agent");
}

#[test]
fn one_client_leaves_places_to_others() {
    let mut desk = Desk::default();
    for person in 0..REMEMBERED_OF_CLIENT_MAX {
        let state = AgentState { rings: VecDeque::from([NOW]), ..AgentState::default() };
        desk.agents.insert(asker(&person.to_string(), "a"), state);
    }
    let tomorrow = NOW + DAY_SECONDS;
    let rows = [
        ("one more of this client", "a", NOW, Ring::Later(PAUSE_SECONDS)),
        ("another client", "b", NOW, Ring::Now),
        ("this client tomorrow", "a", tomorrow, Ring::Now),
    ];
    for (row, client_id, now, expected) in rows {
        assert_eq!(desk.ring(&asker("anne", client_id), &request(b"this"), now + 300, now), expected, "{row}");
    }
}

#[test]
fn open_questions_are_heard_before_another_one() {
    let (mut desk, anne) = (Desk::default(), asker("anne", "a"));
    assert!(desk.unheard(&anne, b"this").is_empty(), "nothing is open");
    assert_eq!(desk.ring(&anne, &request(b"this"), LATER, NOW), Ring::Now);
    assert!(desk.unheard(&anne, b"that").is_empty(), "it is being asked");
    desk.told(&anne, b"this", &told("sealed"));
    let open = [AskedQuestion { request: request(b"this"), sealed: "sealed".to_owned() }];
    let rows: [(&str, Asker, &[u8], &[AskedQuestion]); 4] = [
        ("another question", anne.clone(), b"that", &open),
        ("the same question", anne.clone(), b"this", &[]),
        ("another client", asker("anne", "b"), b"that", &[]),
        ("another person", asker("bob", "a"), b"that", &[]),
    ];
    for (row, asker, encoded, expected) in rows {
        assert_eq!(desk.unheard(&asker, encoded), expected, "{row}");
    }
}

#[test]
fn only_equal_requests_join() {
    let (mut desk, anne) = (Desk::default(), asker("anne", "a"));
    assert_eq!(desk.ring(&anne, &request(b"this"), LATER, NOW), Ring::Now);
    assert_eq!(desk.ring(&anne, &request(b"this"), LATER, NOW), Ring::Later(SOON_SECONDS), "it is being asked");
    desk.told(&anne, b"this", &told("sealed"));
    assert_eq!(desk.ring(&anne, &request(b"this"), LATER, NOW), Ring::Joined(told("sealed")));
    for (row, other, encoded) in [
        ("another request", anne.clone(), b"that"),
        ("another person", asker("bob", "a"), b"this"),
        ("another client", asker("anne", "b"), b"this"),
        ("an actor", Asker { actors: vec!["agent:a".to_owned()], ..anne.clone() }, b"this"),
    ] {
        assert_eq!(desk.ring(&other, &request(encoded), LATER, NOW), Ring::Now, "{row}");
    }
    desk.used(&anne, "sealed");
    assert_eq!(desk.ring(&anne, &request(b"this"), LATER, NOW), Ring::Now, "nobody joins a used one");
    desk.untold(&anne, b"this");
    assert_eq!(desk.ring(&anne, &request(b"this"), LATER, NOW), Ring::Now, "a failed one is gone");
}

#[test]
fn after_a_no_the_person_is_left_alone() {
    let (mut desk, anne) = (Desk::default(), asker("anne", "a"));
    desk.ended(&open("n", "q"), "sealed", Outcome::Denied, NOW);
    assert_eq!(desk.ring(&anne, &request(b"this"), LATER, NOW), Ring::Later(PAUSE_SECONDS));
    assert_eq!(desk.ring(&anne, &request(b"this"), LATER, NOW + PAUSE_SECONDS), Ring::Now);
}

#[test]
fn the_issuer_is_asked_as_often_as_it_says() {
    let (mut desk, q) = (Desk::default(), OpenApproval { expires_at: u64::MAX, ..open("n", "q") });
    assert_eq!(desk.poll(&q, NOW), Poll::Now);
    assert_eq!(desk.poll(&q, NOW), Poll::Later(SOON_SECONDS), "one poll at a time");
    assert_eq!(desk.pending(&q, Pace::Kept, NOW), 5);
    assert_eq!(desk.poll(&q, NOW + 4), Poll::Later(1));
    let mut now = NOW + 5;
    for slowed_down in 1..50 {
        assert_eq!(desk.poll(&q, now), Poll::Now);
        let wait = desk.pending(&q, Pace::Slower, now);
        assert_eq!(wait, (5 + slowed_down * SLOW_DOWN_SECONDS).min(INTERVAL_SECONDS_MAX));
        now += wait;
    }
    assert_eq!(desk.poll(&q, now), Poll::Now);
    let approved = Outcome::Approved(Consent { at: 7, chunks_max: 3 });
    desk.ended(&q, "sealed", approved, now);
    assert_eq!(desk.poll(&q, now), Poll::Known(approved), "the token is given once");
}

#[test]
fn a_notification_ends_one_wait_of_its_own_question() {
    // A row's name; the nonce and the id of the notification; what it is about; the next poll.
    let rows = [
        ("its own", "n", "q", Notified::Known, Poll::Now),
        ("another id", "n", "r", Notified::Another, Poll::Later(5)),
        ("another nonce", "m", "q", Notified::Unknown, Poll::Later(5)),
        ("nothing", "", "", Notified::Unknown, Poll::Later(5)),
    ];
    for (row, nonce, question, about, next) in rows {
        let (mut desk, q) = (Desk::default(), open("n", "q"));
        desk.put(&q, NOW);
        assert_eq!(desk.poll(&q, NOW), Poll::Now, "{row}");
        desk.pending(&q, Pace::Kept, NOW);
        assert_eq!(desk.notified(nonce, question), about, "{row}");
        assert_eq!(desk.poll(&q, NOW), next, "{row}");
        assert_eq!(desk.questions.len(), 1, "{row}: nothing is remembered of it");
    }
}

#[test]
fn notifications_without_end_allow_one_poll() {
    let (mut desk, q) = (Desk::default(), open("n", "q"));
    desk.put(&q, NOW);
    let polls = (0..100).filter(|_| {
        assert_eq!(desk.notified("n", "q"), Notified::Known);
        let is_polled = desk.poll(&q, NOW) == Poll::Now;
        if is_polled {
            desk.pending(&q, Pace::Slower, NOW);
        }
        is_polled
    });
    assert_eq!(polls.count(), 1);
}

#[test]
fn a_notification_during_a_poll_allows_the_next_one() {
    let (mut desk, q) = (Desk::default(), open("n", "q"));
    assert_eq!(desk.poll(&q, NOW), Poll::Now);
    assert_eq!(desk.notified("n", "q"), Notified::Known);
    assert_eq!(desk.poll(&q, NOW), Poll::Later(SOON_SECONDS), "one poll at a time");
    assert_eq!(desk.pending(&q, Pace::Slower, NOW), SOON_SECONDS);
    assert_eq!(desk.poll(&q, NOW), Poll::Now);
    let approved = Outcome::Approved(Consent { at: 7, chunks_max: 5 });
    desk.ended(&q, "sealed", approved, NOW);
    assert_eq!(desk.notified("n", "q"), Notified::Known, "a late one");
    assert_eq!(desk.poll(&q, NOW), Poll::Known(approved), "and nobody is asked again");
}
