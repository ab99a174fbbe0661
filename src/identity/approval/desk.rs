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
mod tests;
