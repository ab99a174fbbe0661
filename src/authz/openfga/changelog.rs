//! Reads the server's changelog, so that remembered decisions are forgotten once they may be wrong.
//!
//! Any change of the store ends its generation, whichever decisions the change touches. The server's log is not
//! strictly in the order in which changes took effect. So a change can appear behind the position that was already
//! read, and be missed here. Because of such changes a remembered decision has a time to live as well.
//!
//! Where there is a replica, its follower reads the log and tells the cache, so that the log is read once for both.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openfga_client::client::ReadChangesRequest;
use openfga_client::prost_wkt_types::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{OpenFgaAuthorizer, wire};
use crate::authz::owned_task::OwnedTask;
use crate::authz::validity::Validity;
use crate::authz::{AuthzError, Consistency};

/// The most changes that a server gives in one answer.
const CHANGES_PER_PAGE: i32 = 100;
/// The most pages that are read in one go. The rest is read the next time, and nothing is confirmed until then.
const PAGES_MAX: usize = 100;
/// The first reading begins this long before now, because the server's clock may be behind ours. If it is further behind than
/// this, changes are missed until the server's clock has caught up, and only the time to live bounds what is recalled.
const CLOCK_SKEW_MAX: Duration = Duration::from_hours(1);

/// A running reader of a changelog. Dropping it stops the reader.
#[derive(Debug)]
pub struct ChangelogWatch {
    _task: OwnedTask,
}

/// The position up to which the log of a store was read.
#[derive(Debug)]
struct Position {
    store_id: String,
    start_time: Timestamp,
    continuation_token: String,
}

/// Starts a task that reads the changelog of the authorizer's store at this interval and tells `validity` what it
/// finds. While the log cannot be read, `validity` is not confirmed, so remembered decisions soon stop counting. Must
/// run inside tokio.
#[must_use]
pub fn watch(openfga: Arc<OpenFgaAuthorizer>, validity: Arc<Validity>, every: Duration) -> ChangelogWatch {
    let task = OwnedTask::spawn(async move |owner| {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut position = None;
        loop {
            ticks.tick().await;
            let asked = Instant::now();
            let read = timeout_at(openfga.server.deadline(), openfga.read_changes(&mut position, &validity)).await;
            if owner.is_gone() {
                return;
            }
            match read.unwrap_or(Err(AuthzError::DeadlineExceeded)) {
                Ok(to_the_end) => {
                    if to_the_end {
                        validity.confirm(asked);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the changelog cannot be read; after `changelog_age_max`, remembered decisions are not used");
                }
            }
        }
    });
    ChangelogWatch { _task: task }
}

impl OpenFgaAuthorizer {
    /// Reads the log on from the position, and returns whether the end was reached.
    ///
    /// INVARIANT (told before it is passed): however a reading ends, `validity` has been told of every change before
    /// the position. No later reading would find such a change again.
    async fn read_changes(&self, position: &mut Option<Position>, validity: &Validity) -> Result<bool, AuthzError> {
        let store_id = self.model_for(Consistency::MinimizeLatency).await?.store_id;
        let known = position.take().filter(|position| position.store_id == store_id);
        if known.is_none() {
            validity.invalidate();
        }
        let position = position.insert(known.unwrap_or_else(|| Position::new(store_id)));
        for _ in 0..PAGES_MAX {
            let request = ReadChangesRequest {
                store_id: position.store_id.clone(),
                r#type: String::new(),
                page_size: Some(CHANGES_PER_PAGE),
                continuation_token: position.continuation_token.clone(),
                start_time: position.continuation_token.is_empty().then_some(position.start_time),
            };
            let page = self.server.client().read_changes(request).await.map_err(|e| wire::failed(&e))?.into_inner();
            if page.changes.is_empty() {
                return Ok(true);
            }
            tracing::debug!("the relationships changed; decisions are forgotten");
            validity.invalidate();
            if page.continuation_token == position.continuation_token || page.continuation_token.is_empty() {
                return Err(AuthzError::BadAnswer("its changelog does not say where it continues".to_owned()));
            }
            position.continuation_token = page.continuation_token;
        }
        Ok(false)
    }
}

impl Position {
    /// Makes the first position, some time before now. This is the only time that our clock is read; from then on the
    /// server's tokens give the position.
    fn new(store_id: String) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since_1970.saturating_sub(CLOCK_SKEW_MAX).as_secs();
        let start_time = Timestamp { seconds: i64::try_from(seconds).unwrap_or_default(), nanos: 0 };
        Self { store_id, start_time, continuation_token: String::new() }
    }
}
