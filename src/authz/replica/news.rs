//! What changed lately, as the follower learned of it: for whoever asks whether a change explains another answer.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Readings with news that are remembered. Whoever asks about earlier ones is told that it is not known.
const NEWS_MAX: usize = 1_024;

/// The latest readings that brought changes.
#[derive(Debug, Default)]
pub struct News(Mutex<VecDeque<Told>>);

#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    /// The date of its oldest change, in nanoseconds since 1970; `None` for a change that the log did not tell.
    oldest_unix_ns: Option<i128>,
}

/// What was learned since a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// No change.
    Nothing,
    /// Changes, of which the oldest has this date (nanoseconds since 1970).
    Dated(i128),
    /// A change without a date, or more than is remembered.
    Undated,
}

impl News {
    pub(super) fn tell(&self, at: Instant, oldest_unix_ns: Option<i128>) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() == NEWS_MAX {
            told.pop_front();
        }
        told.push_back(Told { at, oldest_unix_ns });
    }

    /// What was learned by readings that ended after `moment`.
    #[must_use]
    pub fn since(&self, moment: Instant) -> Since {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all_are_remembered = told.len() < NEWS_MAX || told.front().is_some_and(|first| first.at <= moment);
        let mut oldest = None;
        for told in told.iter().filter(|told| told.at > moment) {
            match (told.oldest_unix_ns, oldest) {
                (None, _) => return Since::Undated,
                (Some(date), Some(known)) if date >= known => {}
                (Some(date), _) => oldest = Some(date),
            }
        }
        match oldest {
            _ if !all_are_remembered => Since::Undated,
            Some(date) => Since::Dated(date),
            None => Since::Nothing,
        }
    }
}
