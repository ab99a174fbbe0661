//! Remembers which changes the follower learned of lately, to tell whether a change explains a different answer.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// The most readings with news that are remembered. Nobody knows what came before them.
const NEWS_MAX: usize = 1_024;

/// The latest readings that brought changes.
#[derive(Debug, Default)]
pub(crate) struct News(Mutex<VecDeque<NewsItem>>);

#[derive(Clone, Copy, Debug)]
struct NewsItem {
    at: Instant,
    /// The date of the oldest change, in nanoseconds since 1970; `None` for a change that did not come from the log.
    oldest_unix_ns: Option<i128>,
}

/// The changes that the follower has learned of since some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangesSince {
    /// There was no change.
    Nothing,
    /// There were changes. The oldest has this date, in nanoseconds since 1970.
    Dated(i128),
    /// There was a change without a date, or there were more than are remembered.
    Undated,
}

impl News {
    pub(in crate::authz) fn tell(&self, at: Instant, oldest_unix_ns: Option<i128>) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() == NEWS_MAX {
            told.pop_front();
        }
        told.push_back(NewsItem { at, oldest_unix_ns });
    }

    /// Returns the changes of the readings that ended after `moment`.
    #[must_use]
    pub(crate) fn since(&self, moment: Instant) -> ChangesSince {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all_are_remembered = told.len() < NEWS_MAX || told.front().is_some_and(|first| first.at <= moment);
        let mut oldest = None;
        for told in told.iter().filter(|told| told.at > moment) {
            match (told.oldest_unix_ns, oldest) {
                (None, _) => return ChangesSince::Undated,
                (Some(date), Some(known)) if date >= known => {}
                (Some(date), _) => oldest = Some(date),
            }
        }
        match oldest {
            _ if !all_are_remembered => ChangesSince::Undated,
            Some(date) => ChangesSince::Dated(date),
            None => ChangesSince::Nothing,
        }
    }
}
