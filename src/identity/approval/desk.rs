//! Decides when a person may be asked, and when the issuer. This code is pure: its callers hand in the time.
//!
//! INVARIANT (no forced polls): a notification asks the issuer nothing. It only ends the wait before the next poll, which the
//! agent of the question causes, and it does so once for each question.
//!
//! INVARIANT (no flood): an agent has at most [`OPEN_MAX`] open questions, rings its person at most [`RINGS_MAX`] times a day, and
//! does not ring for [`PAUSE_SECONDS`] after a no that is heard. One agent never keeps another one from asking: the limit of a
//! person is higher than that of any one agent, and no client takes all places.

use std::collections::{HashMap, VecDeque};

use super::sealed::{Asker, OpenApproval};
use crate::identity::approvable::ApprovableRequest;

/// The most open questions of one agent.
const OPEN_MAX: usize = 3;
/// The most questions of one agent within a day.
const RINGS_MAX: usize = 20;
/// The most questions to one person within a day, by all agents together.
const RINGS_OF_PERSON_MAX: usize = 60;
const DAY_SECONDS: u64 = 86_400;
/// The time after a no in which the agent may not ask.
const PAUSE_SECONDS: u64 = 60;
/// The seconds that `slow_down` adds to the pause between polls (CIBA, section 11).
const SLOW_DOWN_SECONDS: u64 = 5;
/// The longest pause between polls. An issuer that says `slow_down` without end gets one poll in this time.
const INTERVAL_SECONDS_MAX: u64 = 60;
/// The most agents that are remembered, and the most people and questions. Past this, no further agent may ask.
const REMEMBERED_MAX: usize = 10_000;
/// The most agents of one client that are remembered, so that one client cannot use up the places of all.
const REMEMBERED_OF_CLIENT_MAX: usize = 5_000;
/// The wait for a question that is being put right now.
const SOON_SECONDS: u64 = 1;

/// The questions that are open, and the rings of the last day.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// The state of each agent ([`Asker::agent`]).
    agents: HashMap<Asker, AgentState>,
    /// The times of the rings of each person, by issuer and subject.
    people: HashMap<(String, String), VecDeque<u64>>,
    /// The standing of each question, by the nonce of its approval. An issuer may give an id twice.
    questions: HashMap<String, Standing>,
}

#[derive(Debug, Default)]
struct AgentState {
    open: Vec<OpenQuestion>,
    rings: VecDeque<u64>,
    /// The time until which the agent may not ask.
    paused_until: u64,
}

#[derive(Debug)]
struct OpenQuestion {
    /// The asker. Nobody else could use the approval.
    asker: Asker,
    request: ApprovableRequest,
    expires_at: u64,
    /// The reply to the asker; `None` while the issuer is asked.
    told: Option<Told>,
}

impl OpenQuestion {
    fn is_of(&self, asker: &Asker, encoded: &[u8]) -> bool {
        self.asker == *asker && self.request.encoded == encoded
    }
}

/// An open question, which its person may have answered by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AskedQuestion {
    pub(crate) request: ApprovableRequest,
    pub(crate) sealed: String,
}

/// The reply to an asker whose question was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) sealed: String,
    /// The digest of the request and the approval's nonce, for the record.
    pub(crate) request_sha256: String,
    pub(crate) code: String,
    pub(crate) expires_at: u64,
    pub(crate) interval: u64,
}

/// The decision about a question to a person.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ring {
    /// The person is asked now. The caller ends the ring with [`Desk::told`] or [`Desk::untold`].
    Now,
    /// The person was asked this already.
    Joined(Told),
    /// The person must not be asked before these seconds have passed.
    Later(u64),
}

/// The end of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The person said yes to this.
    Approved(Consent),
    Denied,
    Expired,
    /// The issuer's token does not prove what was asked.
    Unproved,
}

/// The yes of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Consent {
    /// The time of the yes, as the issuer states it.
    pub(crate) at: u64,
    /// The most chunks, on all pages. The person may have approved fewer than were asked for.
    pub(crate) chunks_max: u64,
}

#[derive(Debug)]
struct Standing {
    /// The issuer's id of the question.
    question: String,
    next_poll: u64,
    interval: u64,
    is_polling: bool,
    notification: Notification,
    outcome: Option<Outcome>,
    expires_at: u64,
}

/// The issuer's notification that the person has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notification {
    Awaited,
    /// It has arrived, so the next poll need not wait.
    Arrived,
    /// A poll has followed it. Later notifications change nothing.
    Heeded,
}

/// The question that a notification is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notified {
    /// A question that is known here.
    Known,
    /// A question that another replica put, or nobody. The notification changes nothing here.
    Unknown,
    /// A question whose token is not the one that came with the notification.
    Another,
}

/// The pace of polls from now on, as the issuer asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    Kept,
    Slower,
}

/// The decision about a poll of a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Poll {
    /// The issuer is asked now. The caller ends the poll with [`Desk::pending`] or [`Desk::ended`].
    Now,
    /// The answer is known.
    Known(Outcome),
    /// The issuer must not be asked before these seconds have passed.
    Later(u64),
}

impl Desk {
    /// Returns the open questions of an asker's agent. Its person may have said no to one of them, and that no has to count
    /// before the agent asks again. Returns none if the asker would only join its own question.
    pub(crate) fn unheard(&self, asker: &Asker, encoded: &[u8]) -> Vec<AskedQuestion> {
        let open = self.agents.get(&asker.agent()).map(|state| state.open.as_slice()).unwrap_or_default();
        if open.iter().any(|open| open.is_of(asker, encoded)) {
            return Vec::new();
        }
        let told = |open: &OpenQuestion| {
            let sealed = open.told.as_ref()?.sealed.clone();
            Some(AskedQuestion { request: open.request.clone(), sealed })
        };
        open.iter().filter_map(told).collect()
    }

    /// Decides whether a person is asked to approve a request.
    pub(crate) fn ring(&mut self, asker: &Asker, request: &ApprovableRequest, expires_at: u64, now: u64) -> Ring {
        let agent = asker.agent();
        if !self.has_room_for(&agent) {
            self.forget(now);
        }
        if !self.has_room_for(&agent) {
            return Ring::Later(PAUSE_SECONDS);
        }
        let state = self.agents.entry(agent).or_default();
        state.forget(now);
        if let Some(same) = state.open.iter().find(|open| open.is_of(asker, &request.encoded)) {
            return same.told.clone().map_or(Ring::Later(SOON_SECONDS), Ring::Joined);
        }
        if now < state.paused_until {
            return Ring::Later(state.paused_until - now);
        }
        if state.open.len() >= OPEN_MAX {
            let ends = state.open.iter().map(|open| open.expires_at).min().unwrap_or(now);
            return Ring::Later(ends.saturating_sub(now).max(SOON_SECONDS));
        }
        let person = self.people.entry((asker.issuer.clone(), asker.subject.clone())).or_default();
        forget_rings(person, now);
        for (rings, max) in [(&state.rings, RINGS_MAX), (&*person, RINGS_OF_PERSON_MAX)] {
            if let (true, Some(first)) = (rings.len() >= max, rings.front()) {
                return Ring::Later(first.saturating_add(DAY_SECONDS).saturating_sub(now).max(SOON_SECONDS));
            }
        }
        // A question counts even if putting it fails, since the person may have been asked all the same.
        state.rings.push_back(now);
        person.push_back(now);
        state.open.push(OpenQuestion { asker: asker.clone(), request: request.clone(), expires_at, told: None });
        Ring::Now
    }

    /// Returns whether an agent is remembered, or there is room to remember it.
    fn has_room_for(&self, agent: &Asker) -> bool {
        if self.agents.contains_key(agent) {
            return true;
        }
        let is_of_client = |known: &&Asker| known.client_id == agent.client_id && known.issuer == agent.issuer;
        let of_client = self.agents.keys().filter(is_of_client).count();
        let is_full = self.agents.len() >= REMEMBERED_MAX || self.people.len() >= REMEMBERED_MAX;
        !is_full && of_client < REMEMBERED_OF_CLIENT_MAX
    }

    /// Notes the reply to the asker of a question that was put.
    pub(crate) fn told(&mut self, asker: &Asker, encoded: &[u8], told: &Told) {
        let state = self.agents.get_mut(&asker.agent());
        let open = state.and_then(|state| state.open.iter_mut().find(|open| open.is_of(asker, encoded)));
        if let Some(open) = open {
            (open.expires_at, open.told) = (told.expires_at, Some(told.clone()));
        }
    }

    /// Closes a question that could not be put.
    pub(crate) fn untold(&mut self, asker: &Asker, encoded: &[u8]) {
        self.close(asker, |open| open.is_of(asker, encoded) && open.told.is_none());
    }

    /// Notes a question that the issuer has put, so that its notification is known.
    pub(crate) fn put(&mut self, open: &OpenApproval, now: u64) {
        // If there is no room for the question, its notification changes nothing.
        self.standing(open, now);
    }

    /// Lets the issuer be asked about a question at once, because it has notified this server. `nonce` is that of the
    /// approval whose token came with the notification, and `question` is the id that the notification names.
    pub(crate) fn notified(&mut self, nonce: &str, question: &str) -> Notified {
        let Some(standing) = self.questions.get_mut(nonce) else { return Notified::Unknown };
        if standing.question != question {
            return Notified::Another;
        }
        if standing.notification == Notification::Awaited {
            standing.notification = Notification::Arrived;
        }
        Notified::Known
    }

    /// Decides whether the issuer is asked about a question.
    pub(crate) fn poll(&mut self, open: &OpenApproval, now: u64) -> Poll {
        let Some(standing) = self.standing(open, now) else { return Poll::Later(PAUSE_SECONDS) };
        if let Some(outcome) = standing.outcome {
            return Poll::Known(outcome);
        }
        if standing.is_polling {
            return Poll::Later(SOON_SECONDS);
        }
        match standing.notification {
            Notification::Arrived => standing.notification = Notification::Heeded,
            Notification::Awaited | Notification::Heeded if now < standing.next_poll => {
                return Poll::Later(standing.next_poll - now);
            }
            Notification::Awaited | Notification::Heeded => {}
        }
        (standing.is_polling, standing.next_poll) = (true, now.saturating_add(standing.interval));
        Poll::Now
    }

    /// Notes that the person has not answered, and returns the seconds until the next poll.
    pub(crate) fn pending(&mut self, open: &OpenApproval, pace: Pace, now: u64) -> u64 {
        let Some(standing) = self.questions.get_mut(&open.nonce) else { return INTERVAL_SECONDS_MAX };
        standing.is_polling = false;
        if pace == Pace::Slower {
            let slower = standing.interval.saturating_add(SLOW_DOWN_SECONDS);
            standing.interval = slower.min(INTERVAL_SECONDS_MAX);
        }
        standing.next_poll = now.saturating_add(standing.interval);
        match standing.notification {
            // The person answered while the issuer was asked.
            Notification::Arrived => SOON_SECONDS,
            Notification::Awaited | Notification::Heeded => standing.interval,
        }
    }

    /// Notes how a question ended. After a no, the agent of its asker may not ask for a while.
    pub(crate) fn ended(&mut self, open: &OpenApproval, sealed: &str, outcome: Outcome, now: u64) {
        let asker = &open.asker;
        if let Some(standing) = self.questions.get_mut(&open.nonce) {
            (standing.is_polling, standing.outcome) = (false, Some(outcome));
        }
        if outcome == Outcome::Denied {
            self.agents.entry(asker.agent()).or_default().paused_until = now.saturating_add(PAUSE_SECONDS);
        }
        if !matches!(outcome, Outcome::Approved(_)) {
            self.used(asker, sealed);
        }
    }

    /// Closes a question, so that nobody joins it any more.
    pub(crate) fn used(&mut self, asker: &Asker, sealed: &str) {
        self.close(asker, |open| open.told.as_ref().is_some_and(|told| told.sealed == sealed));
    }

    /// Returns the standing of a question; `None` if there is no room for one more.
    fn standing(&mut self, open: &OpenApproval, now: u64) -> Option<&mut Standing> {
        if self.questions.len() >= REMEMBERED_MAX {
            self.questions.retain(|_, standing| now < standing.expires_at);
        }
        if self.questions.len() >= REMEMBERED_MAX && !self.questions.contains_key(&open.nonce) {
            return None;
        }
        let unknown = || Standing {
            question: open.question.clone(),
            next_poll: now,
            interval: open.interval.clamp(SOON_SECONDS, INTERVAL_SECONDS_MAX),
            is_polling: false,
            notification: Notification::Awaited,
            outcome: None,
            expires_at: open.expires_at,
        };
        Some(self.questions.entry(open.nonce.clone()).or_insert_with(unknown))
    }

    fn close(&mut self, asker: &Asker, is_closed: impl Fn(&OpenQuestion) -> bool) {
        if let Some(state) = self.agents.get_mut(&asker.agent()) {
            state.open.retain(|open| !is_closed(open));
        }
    }

    fn forget(&mut self, now: u64) {
        self.agents.retain(|_, state| {
            state.forget(now);
            !state.open.is_empty() || !state.rings.is_empty() || now < state.paused_until
        });
        self.people.retain(|_, rings| {
            forget_rings(rings, now);
            !rings.is_empty()
        });
    }
}

impl AgentState {
    fn forget(&mut self, now: u64) {
        self.open.retain(|open| now < open.expires_at);
        forget_rings(&mut self.rings, now);
    }
}

fn forget_rings(rings: &mut VecDeque<u64>, now: u64) {
    while rings.front().is_some_and(|ring| ring.saturating_add(DAY_SECONDS) <= now) {
        rings.pop_front();
    }
}

#[cfg(test)]
mod tests {
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
}
